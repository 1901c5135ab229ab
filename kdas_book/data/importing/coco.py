"""COCO: one JSON file with ``images``, ``annotations`` and ``categories``; outlines as polygons or
run lengths, or boxes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kdas_book.data.importing.frames import (
    Frame,
    Images,
    Listing,
    Shape,
    number,
    points,
    read_json,
    stated_size,
    without_suffix,
)
from kdas_book.data.importing.shapes import run_lengths
from kdas_core import UserError


def read(source: Path, images: Path | None) -> Listing:
    """The frames of a COCO file.

    An image that is listed and has no annotation is a frame without a polyp. A region with
    ``iscrowd`` (several objects that were not told apart) counts as any other. Images that the file
    does not list are not looked at.

    Args:
        source: the JSON file.
        images: folder of the images; None: the folder of the file or, if that holds no image, the
            one above it.

    Raises:
        UserError: the file cannot be read or is not laid out like COCO's.
    """
    content = read_json(source)
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(_is_table(content.get(part)) for part in parts):
        raise UserError(
            f"{source} is not a COCO file: it must hold lists called images, annotations and categories."
        )
    there = Images(images or source.parent)
    if not there.names and images is None:
        there = Images(source.parent.parent)
    listing = Listing()
    categories = {
        entry.get("id"): str(entry.get("name")) for entry in content["categories"] if _has_id(entry)
    }
    listing.labels = set(categories.values())
    frames: dict[Any, Frame] = {}
    for i, entry in enumerate(content["images"]):
        _add_image(frames, listing, entry, f"{source.name}, images[{i}]", there)
    for i, entry in enumerate(content["annotations"]):
        where = f"{source.name}, annotations[{i}] (id {entry.get('id')})"
        frame = (
            frames.get(entry.get("image_id"))
            if isinstance(entry.get("image_id"), (int, str))
            else None
        )
        if frame is None:
            listing.faults.append(
                f"{where} is for image {entry.get('image_id')!r}, which the file does not list."
            )
        elif (
            not isinstance(entry.get("category_id"), (int, str))
            or entry["category_id"] not in categories
        ):
            frame.faults.append(
                f"{where} has category {entry.get('category_id')!r}, which the file does not list."
            )
        else:
            assert frame.shapes is not None  # _add_image began a list
            try:
                frame.shapes.append(_shape(entry, categories[entry["category_id"]]))
            except ValueError as error:
                frame.faults.append(f"{where} {error}.")
    listing.frames = list(frames.values())
    return listing


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _has_id(entry: dict) -> bool:
    return isinstance(entry.get("id"), (int, str))


def _add_image(frames: dict, listing: Listing, entry: dict, where: str, there: Images) -> None:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or not _has_id(entry):
        listing.faults.append(f"{where} lacks an id or a file_name.")
        return
    if entry["id"] in frames:
        listing.faults.append(
            f"{where} has the id {entry['id']!r} of an earlier image; annotations could be of either."
        )
        return
    size = stated_size(entry.get("width"), entry.get("height"))
    frame = frames[entry["id"]] = Frame(
        without_suffix(name), f"{where} ({name})", b"", size=size, shapes=[]
    )
    try:
        frame.image = there.find(name)
        frame.name = there.names[frame.image]
    except UserError as error:
        frame.faults.append(f"{where}: {error}")


def _shape(entry: dict, label: str) -> Shape:
    """Raises ValueError: neither outline nor box can be understood."""
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        size = outline.get("size")
        if not (isinstance(size, list) and len(size) == 2 and stated_size(*size)):
            raise ValueError("has a run-length mask without a size")
        return Shape("rle", label, (tuple(size), run_lengths(outline.get("counts"))))
    if isinstance(outline, list) and outline:
        parts = outline if isinstance(outline[0], list) else [outline]
        return Shape("polygon", label, [points(part) for part in parts])
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError("has neither an outline nor a box")
    x, y, width, height = (number(value) for value in box)
    return Shape("box", label, tuple(np.array([x, y, x + width, y + height])))
