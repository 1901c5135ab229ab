"""Image files of a source: what is copied as it is, what has to be written anew, and how."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from kdas_core import UserError
from kdas_core.data.images import THRESHOLD
from kdas_core.data.layout import SUFFIXES

_FORMATS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_TURNED = range(2, 9)  # EXIF orientations other than "as stored"


@dataclass(frozen=True)
class Picture:
    """An image file as it will be written: its content, suffix and (width, height), and whether it
    is the source's, byte by byte.
    """

    code: bytes
    suffix: str
    size: tuple[int, int]
    copied: bool


def load_picture(
    image: Path | bytes,
    page: int | None,
    stated: tuple[int, int] | None,
    exif: str | None,
    bits: int,
) -> Picture:
    """Decode an image and decide what of it can stay.

    A sound 8-bit file without an EXIF turn is kept byte for byte. A page of a stack, a picture of
    more than 8 bits and a turned one become PNG, without EXIF.

    Args:
        page: which page of a TIFF stack; None where the file has one.
        stated: (width, height) that the annotation states; tells whether it was drawn on the turned
            picture.
        exif: ``"turned"`` or ``"stored"``: on which picture the annotation was drawn; None: what
            ``stated`` says.
        bits: how many bits of a picture of more than 8 are in use; the upper eight of them are
            kept.

    Raises:
        UserError: the file is no image, cut off, or of a size that is not stated; or nothing tells
            if it was turned.
    """
    name = image if isinstance(image, Path) else "the embedded image"
    raw = _content(image)
    stored, form, orientation, deep = _opened(raw, name)
    if page is not None or deep:
        pixels = _pages(raw, name)[page or 0]
        if pixels.dtype.itemsize > 1:
            pixels = (pixels >> (bits - 8)).astype(np.uint8)
        stored, form = Image.fromarray(pixels).convert("RGB"), None
    elif form == "GIF" or form not in _FORMATS:
        stored, form = stored.convert("RGB"), None
    if orientation in _TURNED:
        stored, form = _upright(stored, orientation, stated, exif, name), None
    if stated and stored.size != stated:
        (w, h), (sw, sh) = stored.size, stated
        raise UserError(
            f"{name} is {w}×{h}, but its annotation is for {sw}×{sh}; outlines would lie in the wrong place."
        )
    if form:
        suffix = image.suffix.lower() if isinstance(image, Path) else ""
        return Picture(raw, suffix if suffix in SUFFIXES else _FORMATS[form], stored.size, True)
    return Picture(png(np.asarray(stored.convert("RGB"))), ".png", stored.size, False)


def count_pages(path: Path) -> int:
    """Pages of a TIFF stack, 1 for every other file (also one that cannot be read; that is said
    later).
    """
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    except _BROKEN:
        return 1


def bits_in_use(path: Path) -> int:
    """How many bits the largest value of a deep image needs, 8 to 16; 8 for every other file, sound
    or not.
    """
    try:
        raw = _content(path)
        if not _opened(raw, path, decode=False)[3]:
            return 8
        return max(8, *(int(page.max()).bit_length() for page in _pages(raw, path)))
    except UserError:
        return 8


def png(pixels: np.ndarray) -> bytes:
    """uint8 RGB (H, W, 3) or grey (H, W) as the content of a PNG file."""
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


# --- masks ------------------------------------------------------------------------------------------------------------


def load_mask(
    path: Path, page: int | None, values: tuple[int, ...], colours: tuple[tuple, ...]
) -> np.ndarray:
    """A mask file as bool (H, W).

    Args:
        values: grey values (of a palette image: its indices) that are polyp; empty: from half the
            range upwards, 128 of 255.
        colours: RGB colours that are polyp, compared exactly.

    Raises:
        UserError: the file cannot be read, or its values do not tell what is polyp.
    """
    raw = _content(path)
    mask, form, _, deep = _opened(raw, path)
    if colours:
        if form in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, whose colours are not exact; export masks as PNG.")
        rgb = np.asarray(mask.convert("RGB"))
        return np.any([(rgb == np.array(colour)).all(-1) for colour in colours], axis=0)
    if page is not None or deep:
        levels = _pages(raw, path)[page or 0]
    elif values and mask.mode in ("P", "L", "1"):
        levels = np.asarray(mask if mask.mode == "P" else mask.convert("L"))
    else:
        levels = np.asarray(mask.convert("RGB" if values else "L"))
    if levels.ndim == 3:
        if (levels != levels[..., :1]).any() and values:
            raise UserError(
                f"{path} is a mask in colours; say which are polyp with --colours, such as --colours ff0000."
            )
        levels = levels[..., 0] if values else np.asarray(Image.fromarray(levels).convert("L"))
    if values:
        return np.isin(levels, values)
    half = THRESHOLD if levels.dtype == np.uint8 else 2**15
    if 0 < levels.max() < half:
        found = ", ".join(str(v) for v in np.unique(levels)[:8])
        raise UserError(
            f"{path} has the values {found}, none of them white; say which are polyp, such as --values 1."
        )
    return levels >= half


# --- decoding ---------------------------------------------------------------------------------------------------------


def _content(image: Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        raise UserError(f"{image} cannot be read ({error.strerror}).") from error


def _opened(
    raw: bytes, name: Path | str, decode: bool = True
) -> tuple[Image.Image, str | None, int, bool]:
    """(image, format, EXIF orientation, has it more than 8 bits?); everything is decoded, so that a
    cut-off file is found.
    """
    try:
        image = Image.open(io.BytesIO(raw))
        form, orientation = image.format, int(image.getexif().get(ExifTags.Base.Orientation, 1))
        depths = (raw[24] if form == "PNG" else 8,)
        if form == "TIFF":
            bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
            depths = bits if isinstance(bits, tuple) else (bits,)
        if decode:
            image.load()
    except _BROKEN as error:
        raise UserError(f"{name} is truncated or not an image; copy or export it again.") from error
    return image, form, orientation, max(depths) > 8


def _pages(raw: bytes, name: Path | str) -> list[np.ndarray]:
    """The pages of a file as they are stored: whole numbers of 8 or 16 bits, (H, W) or RGB (H, W,
    3).
    """
    done, pages = cv2.imdecodemulti(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if not done or not pages:
        raise UserError(f"{name} cannot be decoded; export it as 8-bit PNG.")
    if any(page.dtype not in (np.uint8, np.uint16) for page in pages):
        raise UserError(f"{name} holds {pages[0].dtype} numbers; export it with 8 or 16 bits.")
    return [np.ascontiguousarray(page[..., 2::-1]) if page.ndim == 3 else page for page in pages]


def _upright(
    stored: Image.Image, orientation: int, stated, exif: str | None, name: Path | str
) -> Image.Image:
    """The picture on which the annotation was drawn: turned as EXIF says, or as it is stored."""
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    turned = ImageOps.exif_transpose(stored)
    if exif is None:
        fits = [stated is not None and picture.size == stated for picture in (stored, turned)]
        if fits[0] == fits[1]:
            raise UserError(
                f"{name} has an EXIF orientation and nothing tells if it was annotated turned; say --exif turned (most "
                "tools show it so) or --exif stored."
            )
        return stored if fits[0] else turned
    return turned if exif == "turned" else stored
