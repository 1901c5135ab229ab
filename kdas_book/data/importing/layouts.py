"""The layouts that can be imported, each read into frames with shapes or with mask files."""

import base64
import io
import math
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.ElementTree import parse
from PIL import Image

from kdas_book.data.importing import frames as common
from kdas_book.data.importing.frames import Frame, Listing, Options, Shape
from kdas_book.data.importing.mask_files import read_masks
from kdas_book.data.importing.places import Images, read_each, without_suffix
from kdas_book.data.importing.shapes import run_lengths
from kdas_core import UserError


def read_coco(source: Path, options: Options) -> Listing:
    """The frames of a COCO file; images in its folder or, if that holds none, the one above it.

    A listed image without an annotation is a frame without a polyp; others are not looked at. A
    region with ``iscrowd`` (several objects that were not told apart) counts as any other.
    """
    content = common.read_json(source)
    parts = ("images", "annotations", "categories")
    tables = [content.get(part) if isinstance(content, dict) else None for part in parts]
    if not all(isinstance(t, list) and all(isinstance(e, dict) for e in t) for t in tables):
        what = "it must hold lists called images, annotations and categories"
        raise UserError(f"{source} is not a COCO file: {what}.")
    there = Images.near(source.parent, options.images)
    named = [(e["id"], str(e.get("name"))) for e in content["categories"] if _is_id(e.get("id"))]
    known = dict(named)
    if len(known) < len(set(named)):
        raise UserError(f"{source} has two categories of one id; give each an id of its own.")
    listing = Listing(labels=set(known.values()))
    frames: dict[int | str, Frame] = {}
    for i, entry in enumerate(content["images"]):
        where = f"{source.name}, images[{i}]"
        key, name = entry.get("id"), entry.get("file_name")
        if not isinstance(name, str) or not name or not _is_id(key):
            listing.faults.append(f"{where} lacks an id or a file_name.")
        elif key in frames:
            fact = f"{where} has the id {key!r} of an earlier image"
            listing.faults.append(f"{fact}; annotations could be of either.")
        else:
            size = common.stated_size(entry.get("width"), entry.get("height"))
            frames[key] = Frame(without_suffix(name), f"{where} ({name})", size=size)
            there.place(frames[key], name, source, where)
    there.settle()
    for i, entry in enumerate(content["annotations"]):
        where = f"{source.name}, annotations[{i}] (id {entry.get('id')})"
        key, category = entry.get("image_id"), entry.get("category_id")
        absent = "which the file does not list"
        if not _is_id(key) or key not in frames:
            listing.faults.append(f"{where} is for image {key!r}, {absent}.")
        elif not _is_id(category) or category not in known:
            frames[key].faults.append(f"{where} has category {category!r}, {absent}.")
        else:
            frames[key].add(where, _coco_shape, entry, known[category])
    listing.frames = list(frames.values())
    return listing


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str))


def _coco_shape(entry: dict, label: str) -> Shape:
    outline, box = entry.get("segmentation"), entry.get("bbox")
    if isinstance(outline, dict):
        size = outline.get("size")
        if not (isinstance(size, list) and len(size) == 2 and common.stated_size(*size)):
            raise ValueError("has a run-length mask without a size")
        return Shape("rle", label, (tuple(size), run_lengths(outline.get("counts"))))
    if isinstance(outline, list) and outline:
        parts = outline if isinstance(outline[0], list) else [outline]
        return Shape("polygon", label, [common.points(part) for part in parts])
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError("has neither an outline nor a box")
    x, y, width, height = common.numbers(box)
    return Shape("box", label, (x, y, x + width, y + height))


def read_labelme(source: Path, options: Options) -> Listing:
    """The frames of a folder of Labelme files, a JSON file for each image.

    The picture is the file that lies where ``imagePath`` says, or else the one embedded as
    ``imageData``, or else found as :class:`Images` says. A rectangle counts as a box. A file
    without shapes is a frame without a polyp.
    """
    there = Images(options.images or source, source)
    others = ("_annotations.coco.json", "notes.json")
    return read_each(source, ".json", there, _fill_from_json, others)


def _fill_from_json(frame: Frame, path: Path, there: Images) -> None:
    content = common.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path} is not a Labelme file: it has no list called shapes.")
    frame.size = common.stated_size(content.get("imageWidth"), content.get("imageHeight"))
    name, data = str(content.get("imagePath")), content.get("imageData")
    # The path is written from the JSON file's folder; two folders may each have a 001.jpg.
    beside = Path(os.path.normpath(path.parent / name.replace("\\", "/")))
    if beside in there.names:
        there.take(frame, beside)
    elif isinstance(data, str):
        try:
            frame.image = base64.b64decode(data, validate=True)
        except ValueError:
            frame.faults = [f"{path}: imageData is not base64; save the file again in Labelme."]
    else:
        there.place(frame, name, path, str(path))
    for i, entry in enumerate(content["shapes"]):
        frame.add(f"{path}, shapes[{i}]", _labelme_shape, entry)


def _labelme_shape(entry: Any) -> Shape:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise ValueError("has no label")
    kind, label = entry.get("shape_type") or "polygon", entry["label"]
    corners = common.points(entry.get("points"))
    if kind == "polygon":
        return Shape("polygon", label, [corners])
    if kind not in ("rectangle", "circle", "mask"):
        flat = kind in ("point", "points", "line", "linestrip")
        raise ValueError(f"is a {kind}, which {'encloses no area' if flat else 'is unknown here'}")
    if len(corners) != 2:
        raise ValueError(f"is a {kind} with {len(corners)} points; it must have 2")
    if kind == "rectangle":
        return Shape("box", label, (*corners.min(0), *corners.max(0)))
    if kind == "circle":
        radius = math.dist(*corners)
        return Shape("circle", label, (*(corners[0] - radius), *(corners[0] + radius)))
    try:
        code = io.BytesIO(base64.b64decode(str(entry.get("mask")), validate=True))
        bitmap = np.asarray(Image.open(code, formats=["PNG"]).convert("L")) > 0
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise ValueError("is a mask without a PNG") from error
    return Shape("bitmap", label, (corners[0].round().astype(int), bitmap))


def read_voc(source: Path, options: Options) -> Listing:
    """The frames of a folder of Pascal VOC files, an XML file for each image; images there or, if
    it holds none, one above. A file without objects is a frame without a polyp. Where ``filename``
    is of no image, the XML's own name counts (``1.xml``, ``1.jpg``); the two may not disagree.

    VOC counts pixels from 1 and a box holds its last row and column, so ``xmin=1, xmax=10`` are the
    first ten pixels. Entities and document types in the XML are refused unread.
    """
    there = Images.near(source, options.images)
    return read_each(source, ".xml", there, _fill_from_xml)


def _fill_from_xml(frame: Frame, path: Path, there: Images) -> None:
    try:
        root = parse(path, forbid_dtd=True).getroot()
    except (ParseError, ValueError, OSError) as error:  # DefusedXmlException is a ValueError
        raise UserError(f"{path} is not the XML of Pascal VOC ({error}).") from error
    if root.tag != "annotation":
        raise UserError(f"{path} is not the XML of Pascal VOC: it begins with <{root.tag}>.")
    sides = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    frame.size = common.stated_size(*sides)
    name, ward = (
        root.findtext(tag, "").strip().replace("\\", "/") for tag in ("filename", "folder")
    )
    ward = PurePosixPath(ward).name
    own = name[: name.rfind("/") + 1] + path.stem
    by_name = there.meant(name, path, ward) if name else []
    by_own = there.meant(own, path, ward)
    if by_name and by_own and not set(by_name) & set(by_own):
        fact = f"{path} is of {by_own[0]} by its own name, but of {by_name[0]} by its <filename>"
        raise UserError(f"{fact}; correct the one that is wrong.")
    there.place(frame, name if name and (by_name or not by_own) else own, path, str(path), ward)
    for i, entry in enumerate(root.iter("object"), 1):
        frame.add(f"{path}, object {i}", _voc_shape, entry)


def _voc_shape(entry: Element) -> Shape:
    sides = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    if entry.find("polygon") is not None:
        raise ValueError("has an outline (polygon), which is not read here; export the set as COCO")
    x0, y0, x1, y1 = common.numbers(sides)
    return Shape("box", (entry.findtext("name") or "").strip(), (x0 - 1, y0 - 1, x1, y1))


def read_yolo(source: Path, options: Options) -> Listing:
    """The frames of a folder of YOLO text files, or of the one above ``labels``; images as of VOC.

    A line holds the class, whose number is the label, and a box (centre, width, height) or a
    polygon, in fractions of the picture. An empty file is a frame without a polyp.
    """
    labels = source / "labels" if (source / "labels").is_dir() else source
    there = Images.near(source, options.images)
    others = "classes obj.names notes train val valid test readme readme.dataset readme.roboflow"
    names = [f"{name}.txt" for name in others.split()]
    return read_each(labels, ".txt", there, _fill_from_lines, names)


def _fill_from_lines(frame: Frame, path: Path, there: Images) -> None:
    there.place(frame, path.stem, path, str(path))
    frame.name = frame.name.removeprefix("images/")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
    for i, line in enumerate(lines, 1):
        if words := line.split():
            frame.add(f"{path}, line {i}", _yolo_shape, *words)


def _yolo_shape(label: str, *words: str) -> Shape:
    if len(words) < 4 or len(words) % 2 or not label.isdecimal():
        raise ValueError("is neither a class and a box nor a class and a polygon")
    values = common.numbers(words)
    if max(values) > 2 or min(values) < -1:
        raise ValueError("has coordinates that are no fractions of the picture")
    if len(values) > 4:
        return Shape("polygon", label, [common.points(values)], relative=True)
    x, y, w, h = values
    return Shape("box", label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), relative=True)


READERS: dict[str, Callable[[Path, Options], Listing]] = {
    "coco": read_coco,
    "labelme": read_labelme,
    "voc": read_voc,
    "yolo": read_yolo,
    "masks": read_masks,
}
