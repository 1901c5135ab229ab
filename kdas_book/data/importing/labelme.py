"""Labelme: a JSON file for each image, with the picture beside it or embedded."""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdas_book.data.importing.frames import (
    Frame,
    Images,
    Listing,
    Shape,
    files_below,
    points,
    read_json,
    stated_size,
)
from kdas_core import UserError

_NO_AREA = ("point", "points", "line", "linestrip")


def read(source: Path, images: Path | None) -> Listing:
    """The frames of a folder of Labelme files, those in folders below included.

    The picture is the file that ``imagePath`` names, or else the one embedded as ``imageData``. A
    rectangle counts as a box. A file without shapes is a frame without a polyp; about an image
    without a file nothing is known.

    Args:
        source: the folder.
        images: folder of the images; None: ``source``.
    """
    there, listing = Images(images or source), Listing()
    for path in files_below(source, (".json",)):
        name = path.relative_to(source).with_suffix("").as_posix()
        try:
            frame = _frame(path, name, there)
        except UserError as error:
            frame = Frame(name, str(path), b"", shapes=[], faults=[str(error)])
        listing.frames.append(frame)
    if not listing.frames:
        raise UserError(f"{source} holds no .json files; Labelme writes one for each image.")
    listing.frames += there.rest(listing.frames)
    return listing


def _frame(path: Path, name: str, there: Images) -> Frame:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path} is not a Labelme file: it has no list called shapes.")
    size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
    shapes: list[Shape] = []
    frame = Frame(name, str(path), b"", size=size, shapes=shapes)
    try:
        frame.image = _image(content, path, there)
        if isinstance(frame.image, Path):
            frame.name = there.names[frame.image]
    except UserError as error:
        frame.faults.append(f"{path}: {error}")
    for i, entry in enumerate(content["shapes"]):
        try:
            shapes.append(_shape(entry))
        except ValueError as error:
            frame.faults.append(f"{path}, shapes[{i}] {error}.")
    return frame


def _image(content: dict, path: Path, there: Images) -> Path | bytes:
    name, data = content.get("imagePath"), content.get("imageData")
    try:
        # The path is written from the JSON file's folder; two folders may each have a 001.jpg.
        beside = Path(os.path.normpath(path.parent / str(name).replace("\\", "/")))
        return beside if beside in there.names else there.find(str(name))
    except UserError:
        if not isinstance(data, str):
            raise
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise UserError("imageData is not base64; save the file again in Labelme.") from error


def _shape(entry: Any) -> Shape:
    """Raises ValueError: not a shape with an area."""
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise ValueError("has no label")
    kind, label = entry.get("shape_type") or "polygon", entry["label"]
    corners = points(entry.get("points"))
    if kind == "polygon":
        return Shape("polygon", label, [corners])
    if kind in ("rectangle", "circle", "mask") and len(corners) != 2:
        raise ValueError(f"is a {kind} with {len(corners)} points; it must have 2")
    if kind == "rectangle":
        return Shape("box", label, (*corners.min(0), *corners.max(0)))
    if kind == "circle":
        return Shape("circle", label, (*corners[0], math.dist(*corners)))
    if kind == "mask":
        return Shape(
            "bitmap", label, (tuple(corners[0].round().astype(int)), _bitmap(entry.get("mask")))
        )
    raise ValueError(
        f"is a {kind}, which {'encloses no area' if kind in _NO_AREA else 'is unknown here'}"
    )


def _bitmap(text: Any) -> np.ndarray:
    """The small PNG of a shape of type ``mask``."""
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]
        ) as image:
            return np.asarray(image.convert("L")) > 0
    except (TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("is a mask without a PNG") from error
