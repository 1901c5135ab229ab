"""Masks that are image files: beside their images with a suffix, or in a folder of their own; TIFF
stacks; several classes.
"""

from __future__ import annotations

from pathlib import Path

from kdas_book.data.importing.frames import Frame, Images, Listing
from kdas_book.data.importing.pixels import count_pages
from kdas_core import UserError


def read(source: Path, images: Path | None, masks: Path | None, suffix: str) -> Listing:
    """Images and mask files of the same name, or of the same name and a suffix (``007.jpg``,
    ``007_mask.png``).

    A TIFF stack of n pages needs a mask stack of n pages; each page is a frame, ``stack_0001`` and
    so on. About an image without a mask nothing is known; a mask that is black all over says that
    there is no polyp.

    Args:
        source: a folder; those below are searched too.
        images: folder of the images; None: ``source/images`` if it is there, else ``source``.
        masks: folder of the masks; None: ``source/masks`` if it is there, else that of the images.
        suffix: what a mask's name has more than its image's; may be empty where the folders differ.

    Raises:
        UserError: nothing tells images from masks.
    """
    image_folder = images or (source / "images" if (source / "images").is_dir() else source)
    mask_folder = masks or (source / "masks" if (source / "masks").is_dir() else image_folder)
    if mask_folder.resolve() == image_folder.resolve() and not suffix:
        raise UserError(
            f"Nothing tells images and masks apart in {source}; say --mask-suffix, such as _mask, or name the two folders "
            "with --images and --masks."
        )
    of_masks = {
        path: name for path, name in Images(mask_folder).names.items() if name.endswith(suffix)
    }
    same = image_folder.resolve() in (mask_folder.resolve(), *mask_folder.resolve().parents)
    of_images = {
        path: name
        for path, name in Images(image_folder).names.items()
        if not (same and path in of_masks)
    }
    listing = Listing()
    by_name: dict[str, list[Path]] = {}
    for path, name in of_masks.items():
        by_name.setdefault(name.removesuffix(suffix), []).append(path)
    for path, name in of_images.items():
        found = by_name.pop(name, None) or []
        frame = Frame(name, str(path), path, mask=found[0] if len(found) == 1 else None)
        if len(found) > 1:
            frame.faults.append(
                f"{path} has {len(found)} masks, {' and '.join(p.name for p in found)}; remove all but one."
            )
        listing.frames += _pages(frame)
    listing.faults += [
        f"{path} is a mask without an image." for paths in by_name.values() for path in paths
    ]
    if not of_images:
        raise UserError(
            f"{image_folder} holds no images beside masks; name the folder with --images."
        )
    return listing


def _pages(frame: Frame) -> list[Frame]:
    """One frame, or one for each page of a stack."""
    assert isinstance(frame.image, Path)  # nothing is embedded here
    pages = count_pages(frame.image)
    if frame.mask is None:
        return [frame]
    of_mask = count_pages(frame.mask)
    if pages != of_mask:
        frame.faults.append(
            f"{frame.image} has {pages} pages, but its mask {frame.mask} has {of_mask}."
        )
    if pages == 1 or frame.faults:
        return [frame]
    width = max(4, len(str(pages)))
    return [
        Frame(
            f"{frame.name}_{i + 1:0{width}}",
            f"{frame.image}, page {i + 1}",
            frame.image,
            i,
            mask=frame.mask,
        )
        for i in range(pages)
    ]
