"""Image files of a source: what is copied as it is, what has to be written anew, and how."""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from kdas_book.data.importing.colours import polyp_of
from kdas_book.data.importing.frames import Frame, Options
from kdas_core import UserError
from kdas_core.data.images import SUFFIXES, read_bytes

_FORMATS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}
_TRANSPOSED = dict(zip((2, 4, 8, 3, 6, 5, 7), Image.Transpose))  # by EXIF orientation
_WAY_OUT = "say --exif turned (most tools show it so) or --exif stored"


class Picture(NamedTuple):
    """An image file as it will be written."""

    code: bytes
    suffix: str
    size: tuple[int, int]  # (width, height)
    copied: bool  # it is the source's, byte by byte


class _File(NamedTuple):
    """An image file of the source, or one that an annotation embeds."""

    name: Path | str
    raw: bytes
    image: Image.Image  # as it is stored
    format: str
    orientation: int  # as EXIF says; 1: viewers show it as it is stored
    deep: bool  # it has more than 8 bits

    def pages(self) -> list[np.ndarray]:
        """8 or 16 bits, (H, W) or RGB (H, W, 3); of a TIFF as its orientation says."""
        done, pages = cv2.imdecodemulti(np.frombuffer(self.raw, np.uint8), cv2.IMREAD_UNCHANGED)
        if not done or not pages:
            raise UserError(f"{self.name} cannot be decoded; export it as 8-bit PNG.")
        if any(page.dtype not in (np.uint8, np.uint16) for page in pages):
            fact = f"{self.name} holds {pages[0].dtype} numbers"
            raise UserError(f"{fact}; export it with 8 or 16 bits.")
        return [np.ascontiguousarray(p[..., 2::-1]) if p.ndim == 3 else p for p in pages]

    def page(self, number: int | None) -> np.ndarray:
        """One of them, as it is stored."""
        pixels = self.pages()[number or 0]
        return turned(pixels, _back(self.orientation)) if self.format == "TIFF" else pixels

    def ways(self) -> dict[str, tuple[int, int]]:
        """In which ways it can be meant, and the size, (width, height), that it then has."""
        width, height = self.image.size
        shown = (height, width) if self.orientation > 4 else (width, height)
        stored = {"stored": (width, height)}
        return stored | {"turned": shown} if 1 < self.orientation < 9 else stored


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as viewers show them at an EXIF orientation."""
    if 5 <= orientation <= 8:
        pixels = pixels.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::down, ::right])


def _back(orientation: int) -> int:
    """The orientation that undoes another."""
    return {6: 8, 8: 6}.get(orientation, orientation)


def _opened(source: Path | bytes, page: int | None = None, decode: bool = True) -> _File:
    """An image whose header, and if it is decoded whose every byte, is sound."""
    name = source if isinstance(source, Path) else "the embedded image"
    raw = read_bytes(source) if isinstance(source, Path) else source
    try:
        image: Image.Image = Image.open(io.BytesIO(raw))
        form = str(image.format)
        if page:
            image.seek(page)
        orientation = image.getexif().get(ExifTags.Base.Orientation) or 1
        deepest = raw[24] if form == "PNG" else 8
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            deepest = np.max(image.tag_v2.get(258, 8))
        if decode:
            image.load()
            if form == "TIFF" and 1 < orientation < 9:  # Pillow has turned it, and OpenCV does
                image = image.transpose(_TRANSPOSED[_back(orientation)])
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise UserError(f"{name} is truncated or not an image; copy or export it again.") from error
    return _File(name, raw, image, form, orientation, deepest > 8)


def load_picture(frame: Frame, size: tuple | None, exif: str | None, bits: int) -> Picture:
    """A frame's image. A sound 8-bit file without an EXIF turn is kept byte for byte; a page of a
    stack, a picture of more than 8 bits (of those in use the upper eight are kept) and a turned one
    become PNG, without EXIF. The annotation states ``size``, (width, height), or None, and was
    drawn on the picture as ``exif`` says: "turned", "stored", or, None, as it has the size.

    UserError: no image, cut off, or not of the size; or nothing tells if it was turned.
    """
    file = _opened(frame.image, frame.page)
    return _picture(file, frame.page, _way(file, size, exif), size, bits)


def _way(file: _File, size: tuple | None, exif: str | None) -> str:
    """Which of its ways an image is meant in, by the option or by the size that it must have."""
    ways = file.ways()
    if len(ways) == 1:
        return "stored"
    fitting = [exif] if exif else [way for way in ways if ways[way] == size]
    if len(fitting) == 1:
        return fitting[0]
    fact = f"{file.name} has an EXIF orientation and nothing tells if it was annotated turned"
    raise UserError(f"{fact}; {_WAY_OUT}.")


def load_pair(
    frame: Frame, path: Path, options: Options, bits: int
) -> tuple[Picture, np.ndarray, float | None]:
    """A frame's image, its mask file as bool (H, W), and how far the mask's colours were off (of
    `polyp_of`). Files of one EXIF orientation are both turned or both left, as ``exif`` says; else
    an orientation of the mask counts if only one way gives the two one size.

    UserError: as `load_picture` and `polyp_of`; or two orientations leave it in doubt.
    """
    file, of_mask = _opened(frame.image, frame.page), _opened(path, frame.page)
    pixels = of_mask.page(frame.page) if of_mask.deep else None
    mask, off = polyp_of(of_mask.image, of_mask.format, pixels, path, options)
    ways, of_other = file.ways(), of_mask.ways()
    if len(of_other) == 1:
        way = _way(file, mask.shape[::-1], options.exif)
        return _picture(file, frame.page, way, mask.shape[::-1], bits), mask, off
    alike = file.orientation == of_mask.orientation
    both = [(a, b) for a in ways for b in of_other if ways[a] == of_other[b]]
    both = [(a, b) for a, b in both if not alike or a == b and options.exif in (None, a)]
    if len(both) > 1:
        fact = f"{file.name} and its mask {path} have EXIF orientations"
        way_out = _WAY_OUT if alike else "save both without one"
        raise UserError(f"{fact} and nothing tells how the two lie on each other; {way_out}.")
    way, of_mask_way = both[0] if both else ("stored", "stored")
    mask = turned(mask, of_mask.orientation) if of_mask_way == "turned" else mask
    return _picture(file, frame.page, way, mask.shape[::-1], bits), mask, off


def _picture(file: _File, page: int | None, way: str, size: tuple | None, bits: int) -> Picture:
    """The file as it will be written, "turned" or as it is "stored"; UserError: another size."""
    picture = file.image
    if page is not None or file.deep:
        pixels = file.page(page)
        deep = pixels.dtype == np.uint16
        picture = Image.fromarray((pixels >> (bits - 8)).astype(np.uint8) if deep else pixels)
    actual = file.ways()[way]
    if size and actual != size:
        (w, h), (sw, sh) = actual, size
        fact = f"{file.name} is {w}×{h}, but its annotation is for {sw}×{sh}"
        raise UserError(f"{fact}; outlines would lie in the wrong place.")
    suffix = _FORMATS.get(file.format)
    if picture is not file.image or file.orientation != 1 or not suffix:
        rgb = np.asarray(picture.convert("RGB"))
        rgb = turned(rgb, file.orientation) if way == "turned" else rgb
        return Picture(png(rgb), ".png", actual, False)
    if isinstance(file.name, Path) and file.name.suffix.lower() in SUFFIXES:
        suffix = file.name.suffix.lower()
    return Picture(file.raw, suffix, actual, True)


def count_pages(path: Path) -> int:
    """Pages of a TIFF stack, 1 for every other file, sound or not."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    except Exception:  # damaged bytes; whoever decodes the file will say so
        return 1


def bits_in_use(path: Path) -> int:
    """Bits of the largest value of a deep image, 8 to 16; 8 for every other file, sound or not."""
    try:
        file = _opened(path, decode=False)
        pages = file.pages() if file.deep else []
    except UserError:
        return 8
    return max([8, *(int(page.max()).bit_length() for page in pages)])


def png(pixels: np.ndarray) -> bytes:
    """uint8 RGB (H, W, 3) or grey (H, W) as the content of a PNG file."""
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()
