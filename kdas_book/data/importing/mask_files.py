"""The layout of mask files: an image and a mask are a pair by their names."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from kdas_book.data.importing.frames import Frame, Listing, Options
from kdas_book.data.importing.pixels import count_pages
from kdas_book.data.importing.places import Images, unread_fault
from kdas_core import UserError


def read_masks(source: Path, options: Options) -> Listing:
    """Images and mask files of the same name and the options' suffix (``7.jpg``, ``7_mask.png``),
    in ``source/images`` and ``source/masks`` where these are there, else below ``source``.

    A TIFF stack needs a mask stack of as many pages; each is a frame: ``stack_0001``, ….
    """
    suffix = options.mask_suffix
    images = options.images or (source / "images" if (source / "images").is_dir() else source)
    masks = options.masks or (source / "masks" if (source / "masks").is_dir() else images)
    there, given = Images(images), Images(masks)
    one_folder = masks.resolve() == images.resolve()
    common = suffix or _common_suffix(there.names.values(), given.names.values(), one_folder)
    if one_folder and not suffix:
        fact = f"Nothing tells images and masks apart in {source}"
        way_out = f"say --mask-suffix, such as {common or '_mask'}, or name the two folders with"
        raise UserError(f"{fact}; {way_out} --images and --masks.")
    if common != suffix:
        fact = f"All masks in {masks} are called as their images and {common} besides"
        raise UserError(f"{fact}; say --mask-suffix {common}.")
    of_masks = {path: name for path, name in given.names.items() if name.endswith(suffix)}
    of_images = there.names
    if masks.resolve().is_relative_to(images.resolve()):
        of_images = {path: name for path, name in of_images.items() if path not in of_masks}
    if not of_images:
        raise UserError(f"{images} holds no images beside masks; name the folder with --images.")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path, name in of_masks.items():
        by_name[name.removesuffix(suffix)].append(path)
    frames = [
        frame for p, name in of_images.items() for frame in _masked(name, p, by_name.get(name, []))
    ]
    known = set(of_images.values())
    left = [path for name, paths in by_name.items() for path in paths if name not in known]
    unread = dict.fromkeys([*there.unread, *given.unread])
    faults = [f"{path} is a mask without an image." for path in left]
    if suffix and not masks.resolve().is_relative_to(images.resolve()):
        other = [path for path in given.names if path not in of_masks]
        faults += [f"{path} is called otherwise than with {suffix}; rename it." for path in other]
    return Listing(frames, faults + [unread_fault(path) for path in unread])


def _common_suffix(images: Iterable[str], masks: Iterable[str], one_folder: bool) -> str:
    """What all masks are called besides their images' names, such as ``_mask``; empty: nothing."""
    known, names = set(images), set(masks)
    found = set()
    for name in names:
        rests = (name[i:] for i in range(len(name) - 1, 0, -1) if name[:i] in known)
        found.add(next((rest for rest in rests if re.search("^[^0-9].*[A-Za-z]", rest)), ""))
    if one_folder:
        found.discard("")  # what images have
    return found.pop() if len(found) == 1 and (one_folder or not names & known) else ""


def _masked(name: str, image: Path, masks: list[Path]) -> list[Frame]:
    """One frame, or one for each page of a stack."""
    frame = Frame(name, str(image), image)
    if len(masks) != 1:
        frame.annotated = False
        which = " and ".join(path.name for path in masks)
        fault = f"{image} has {len(masks)} masks, {which}; remove all but one."
        frame.faults = [fault] if masks else []
        return [frame]
    frame.mask = masks[0]
    pages, of_mask = count_pages(image), count_pages(masks[0])
    if pages != of_mask:
        frame.faults = [f"{image} has {pages} pages, but its mask {masks[0]} has {of_mask}."]
    if pages != of_mask or pages == 1:
        return [frame]
    digits = max(4, len(str(pages)))
    stack = [
        (f"{name}_{i + 1:0{digits}}", f"{image}, page {i + 1}", image, i) for i in range(pages)
    ]
    return [Frame(*page, mask=masks[0]) for page in stack]
