"""Masks that are image files: beside their images with a suffix, or in a folder of their own."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from kdas_book.data.importing.frames import Frame, Images, Listing
from kdas_book.data.importing.options import Options
from kdas_book.data.importing.pixels import count_pages
from kdas_core import UserError


def read(source: Path, options: Options) -> Listing:
    """Images and mask files of the same name and the options' suffix (``7.jpg``, ``7_mask.png``),
    in ``source/images`` and ``source/masks`` where these are there, else below ``source``.

    A TIFF stack needs a mask stack of as many pages; each is a frame: ``stack_0001``, ….
    """
    suffix = options.mask_suffix
    images = options.images or (source / "images" if (source / "images").is_dir() else source)
    masks = options.masks or (source / "masks" if (source / "masks").is_dir() else images)
    if masks.resolve() == images.resolve() and not suffix:
        fact = f"Nothing tells images and masks apart in {source}"
        way_out = "say --mask-suffix, such as _mask, or name the two folders with --images"
        raise UserError(f"{fact}; {way_out} and --masks.")
    of_masks = {path: name for path, name in Images(masks).names.items() if name.endswith(suffix)}
    of_images = Images(images).names
    if masks.resolve().is_relative_to(images.resolve()):
        of_images = {path: name for path, name in of_images.items() if path not in of_masks}
    if not of_images:
        raise UserError(f"{images} holds no images beside masks; name the folder with --images.")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path, name in of_masks.items():
        by_name[name.removesuffix(suffix)].append(path)
    listing = Listing()
    for path, name in of_images.items():
        listing.frames += _frames(name, path, by_name.pop(name, []))
    left = [path for paths in by_name.values() for path in paths]
    listing.faults = [f"{path} is a mask without an image." for path in left]
    return listing


def _frames(name: str, image: Path, masks: list[Path]) -> list[Frame]:
    """One frame, or one for each page of a stack."""
    if len(masks) != 1:
        frame = Frame(name, str(image), image, annotated=False)
        if masks:
            which = " and ".join(path.name for path in masks)
            frame.faults.append(f"{image} has {len(masks)} masks, {which}; remove all but one.")
        return [frame]
    pages, of_mask = count_pages(image), count_pages(masks[0])
    frame = Frame(name, str(image), image, mask=masks[0])
    if pages != of_mask:
        frame.faults.append(f"{image} has {pages} pages, but its mask {masks[0]} has {of_mask}.")
    if pages == 1 or frame.faults:
        return [frame]
    width = max(4, len(str(pages)))
    return [
        Frame(f"{name}_{i + 1:0{width}}", f"{image}, page {i + 1}", image, i, mask=masks[0])
        for i in range(pages)
    ]
