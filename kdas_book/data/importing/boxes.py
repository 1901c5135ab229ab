"""Formats that hold boxes: Pascal VOC (an XML file an image) and YOLO (a text file an image)."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from kdas_book.data.importing.frames import (
    Frame,
    Images,
    Listing,
    Shape,
    files_below,
    number,
    points,
    stated_size,
)
from kdas_core import UserError


def read_voc(source: Path, images: Path | None) -> Listing:
    """The frames of a folder of Pascal VOC files. Entities and document types in the XML are
    refused unread.

    VOC counts pixels from 1 and a box holds its last row and column, so ``xmin=1, xmax=10`` are the
    first ten pixels. A file without objects is a frame without a polyp; about an image without a
    file nothing is known.

    Args:
        source: the folder; those below are searched too.
        images: folder of the images; None: ``source``, or the one above it if there are none.
    """
    there, listing = _images(source, images), Listing()
    for path in files_below(source, (".xml",)):
        name = path.relative_to(source).with_suffix("").as_posix()
        frame = Frame(name, str(path), b"", shapes=[])
        try:
            _fill_from_xml(frame, path, there)
        except UserError as error:
            frame.faults.append(str(error))
        listing.frames.append(frame)
    if not listing.frames:
        raise UserError(f"{source} holds no .xml files; Pascal VOC has one for each image.")
    listing.frames += there.rest(listing.frames)
    return listing


def _fill_from_xml(frame: Frame, path: Path, there: Images) -> None:
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import parse

    try:
        root = parse(path, forbid_dtd=True).getroot()
    except (ParseError, ValueError, OSError, DefusedXmlException) as error:
        # DefusedXmlException is a ValueError too; its text names the entity
        raise UserError(
            f"{path} is not the XML of Pascal VOC ({error or type(error).__name__})."
        ) from error
    if root.tag != "annotation":
        raise UserError(
            f"{path} is not the XML of Pascal VOC: it begins with <{root.tag}> instead of <annotation>."
        )
    width, height = (root.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    frame.size = stated_size(*(int(text) if text.isdecimal() else 0 for text in (width, height)))
    try:
        frame.image = there.find(
            (root.findtext("filename") or path.with_suffix(".jpg").name).strip()
        )
        frame.name = there.names[frame.image]
    except UserError as error:
        frame.faults.append(f"{path}: {error}")
    assert frame.shapes is not None  # read_voc began a list
    for i, entry in enumerate(root.iter("object")):
        try:
            frame.shapes.append(_voc_box(entry))
        except ValueError as error:
            frame.faults.append(f"{path}, object {i + 1} {error}.")


def _voc_box(entry: Element) -> Shape:
    x0, y0, x1, y1 = (
        number(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return Shape("box", (entry.findtext("name") or "").strip(), (x0 - 1, y0 - 1, x1, y1))


def read_yolo(source: Path, images: Path | None) -> Listing:
    """The frames of a folder of YOLO text files; a label is the number of the class.

    A line holds the class and a box (centre, width, height) or a polygon, in fractions of the
    picture. An empty file is a frame without a polyp; about an image without a file nothing is
    known.

    Args:
        source: the folder with the text files, or the one above ``labels``.
        images: folder of the images; None: ``source``, or the one above it if there are none.
    """
    labels = source / "labels" if (source / "labels").is_dir() else source
    there = _images(source, images)
    texts = {
        path.relative_to(labels).with_suffix("").as_posix(): path
        for path in files_below(labels, (".txt",))
    }
    found: dict[str, list[Path]] = {}
    for image in there.names:
        found.setdefault(image.stem, []).append(image)
    listing = Listing()
    for name, path in texts.items():
        if path.stem in ("classes", "train", "val", "test", "README"):
            continue
        same = found.get(path.stem, [])
        close = [
            image for image in same if there.names[image].removeprefix("images/") == name
        ] or same
        frame = Frame(name, str(path), close[0] if len(close) == 1 else b"", shapes=[])
        if len(close) == 1:
            frame.name = there.names[close[0]].removeprefix("images/")
        else:
            frame.faults.append(
                f"{path} has {len(close)} images of its name; name their folder with --images."
            )
        _fill_from_lines(frame, path)
        listing.frames.append(frame)
    if not listing.frames:
        raise UserError(f"{labels} holds no .txt files; YOLO has one for each image.")
    listing.frames += there.rest(listing.frames)
    return listing


def _fill_from_lines(frame: Frame, path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        frame.faults.append(f"{path} cannot be read ({error}).")
        return
    assert frame.shapes is not None  # read_yolo began a list
    for i, words in enumerate((line.split() for line in lines), 1):
        try:
            if not words:
                continue
            if len(words) < 5 or len(words) % 2 == 0 or not words[0].isdecimal():
                raise ValueError("is neither a class and a box nor a class and a polygon")
            values = [number(word) for word in words[1:]]
            if max(values) > 2 or min(values) < -1:
                raise ValueError("has coordinates that are no fractions of the picture")
            if len(values) == 4:
                x, y, w, h = values
                frame.shapes.append(
                    Shape("box", words[0], (x - w / 2, y - h / 2, x + w / 2, y + h / 2), True)
                )
            else:
                frame.shapes.append(Shape("polygon", words[0], [points(values)], True))
        except ValueError as error:
            frame.faults.append(f"{path}, line {i} {error}.")


def _images(source: Path, images: Path | None) -> Images:
    there = Images(images or source)
    return there if there.names or images else Images(source.parent)
