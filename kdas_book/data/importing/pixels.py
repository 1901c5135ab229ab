"""Image files of a source: what is copied as it is, what has to be written anew, and how."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, TiffImagePlugin

from kdas_book.data.importing.frames import Frame
from kdas_book.data.importing.options import Options
from kdas_core import UserError
from kdas_core.data.images import SUFFIXES
from kdas_core.data.masks import THRESHOLD

_FORMATS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_ORIENTATION = ExifTags.Base.Orientation


class Picture(NamedTuple):
    """An image file as it will be written."""

    code: bytes
    suffix: str
    size: tuple[int, int]  # (width, height)
    copied: bool  # it is the source's, byte by byte


def load_picture(
    frame: Frame, size: tuple[int, int] | None, exif: str | None, bits: int
) -> Picture:
    """A frame's image. A sound 8-bit file without an EXIF turn is kept byte for byte; a page of a
    stack, a picture of more than 8 bits and a turned one become PNG, without EXIF.

    Args:
        size: (width, height) that the annotation states, if it does.
        exif: ``"turned"`` or ``"stored"``: on which picture the annotation was drawn; None: on the
            one that has the size.
        bits: how many bits of a deep picture are in use; the upper eight of them are kept.

    Raises:
        UserError: no image, cut off, or not of the size; or nothing tells if it was turned.
    """
    name = frame.image if isinstance(frame.image, Path) else "the embedded image"
    raw = frame.image if isinstance(frame.image, bytes) else _content(frame.image)
    stored, orientation, deep = _opened(raw, name)
    suffix = _FORMATS.get(str(stored.format))
    if frame.page is not None or deep:
        pixels = _pages(raw, name)[frame.page or 0]
        if pixels.dtype == np.uint16:
            pixels = (pixels >> (bits - 8)).astype(np.uint8)
        stored, suffix = Image.fromarray(pixels), None
    if orientation in range(2, 9):
        stored, suffix = _upright(stored, orientation, size, exif, name), None
    if size and stored.size != size:
        (w, h), (sw, sh) = stored.size, size
        fact = f"{name} is {w}×{h}, but its annotation is for {sw}×{sh}"
        raise UserError(f"{fact}; outlines would lie in the wrong place.")
    if not suffix:
        return Picture(png(np.asarray(stored.convert("RGB"))), ".png", stored.size, False)
    if isinstance(name, Path) and name.suffix.lower() in SUFFIXES:
        suffix = name.suffix.lower()
    return Picture(raw, suffix, stored.size, True)


def count_pages(path: Path) -> int:
    """Pages of a TIFF stack, 1 for every other file, sound or not."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    except _BROKEN:
        return 1


def bits_in_use(path: Path) -> int:
    """Bits of the largest value of a deep image, 8 to 16; 8 for every other file, sound or not."""
    try:
        raw = _content(path)
        if not _opened(raw, path, decode=False)[2]:
            return 8
        return max(8, *(int(page.max()).bit_length() for page in _pages(raw, path)))
    except UserError:
        return 8


def png(pixels: np.ndarray) -> bytes:
    """uint8 RGB (H, W, 3) or grey (H, W) as the content of a PNG file."""
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def load_mask(path: Path, page: int | None, options: Options) -> np.ndarray:
    """A mask file as bool (H, W). Polyp are the options' grey values (of a palette image: its
    indices) or their colours; without either what is at least half the range, 128 of 255.

    Raises:
        UserError: the file cannot be read, or its values do not tell what is polyp.
    """
    raw, values = _content(path), options.values
    mask, _, deep = _opened(raw, path)
    if options.colours:
        if mask.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, whose colours are not exact; export masks as PNG.")
        rgb = np.asarray(mask.convert("RGB"))
        wanted = [ImageColor.getrgb(f"#{colour[-6:]}") for colour in options.colours]
        return np.any([(rgb == colour).all(-1) for colour in wanted], axis=0)
    if page is not None or deep:
        levels = _pages(raw, path)[page or 0]
    elif values:
        modes = {"P": "P", "L": "L", "1": "L"}  # of others it must be seen whether they are grey
        levels = np.asarray(mask.convert(modes.get(mask.mode, "RGB")))
    else:
        levels = np.asarray(mask.convert("L"))
    if values:
        grey = levels if levels.ndim == 2 else levels[..., 0]
        if levels.ndim == 3 and (levels != grey[..., None]).any():
            fact = f"{path} is a mask in colours; say which are polyp with --colours"
            raise UserError(f"{fact}, such as --colours ff0000.")
        return np.isin(grey, values)
    if levels.ndim == 3 and levels.dtype == np.uint16:  # Pillow has no such colours
        levels = cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)
    elif levels.ndim == 3:
        levels = np.asarray(Image.fromarray(levels).convert("L"))
    half = THRESHOLD if levels.dtype == np.uint8 else 2**15
    if 0 < levels.max() < half:
        found = ", ".join(str(v) for v in np.unique(levels)[:8])
        fact = f"{path} has the values {found}, none of them white"
        raise UserError(f"{fact}; say which are polyp, such as --values 1.")
    return levels >= half


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _opened(raw: bytes, name: Path | str, decode: bool = True) -> tuple[Image.Image, int, bool]:
    """The image, its EXIF orientation, and has it more than 8 bits? Cut-off files are found."""
    try:
        image = Image.open(io.BytesIO(raw))
        orientation = image.getexif().get(_ORIENTATION, 1)  # TIFF: load() turns and forgets it
        deepest = raw[24] if image.format == "PNG" else 8
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            deepest = np.max(image.tag_v2.get(258, 8))
        if decode:
            image.load()
    except _BROKEN as error:
        raise UserError(f"{name} is truncated or not an image; copy or export it again.") from error
    return image, orientation, deepest > 8


def _pages(raw: bytes, name: Path | str) -> list[np.ndarray]:
    """The pages of a file as they are stored: 8 or 16 bits, (H, W) or RGB (H, W, 3)."""
    done, pages = cv2.imdecodemulti(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if not done or not pages:
        raise UserError(f"{name} cannot be decoded; export it as 8-bit PNG.")
    if any(page.dtype not in (np.uint8, np.uint16) for page in pages):
        raise UserError(f"{name} holds {pages[0].dtype} numbers; export it with 8 or 16 bits.")
    return [np.ascontiguousarray(page[..., 2::-1]) if page.ndim == 3 else page for page in pages]


def _upright(
    stored: Image.Image, orientation: int, size, exif: str | None, name: Path | str
) -> Image.Image:
    """The picture on which the annotation was drawn: turned as EXIF says, or as it is stored."""
    stored.getexif()[_ORIENTATION] = orientation
    turned = ImageOps.exif_transpose(stored)
    if exif is None:
        if (stored.size == size) == (turned.size == size):
            fact = f"{name} has an EXIF orientation and nothing tells if it was annotated turned"
            way_out = "say --exif turned (most tools show it so) or --exif stored"
            raise UserError(f"{fact}; {way_out}.")
        exif = "turned" if turned.size == size else "stored"
    return turned if exif == "turned" else stored
