"""Image files of a source: what is copied as it is, what has to be written anew, and how."""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, TiffImagePlugin

from kdas_book.data.importing.frames import Frame, Options
from kdas_core import UserError
from kdas_core.data.images import SUFFIXES, read_bytes
from kdas_core.data.masks import THRESHOLD

_FORMATS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}
_ORIENTATION = ExifTags.Base.Orientation


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
    image: Image.Image
    orientation: int  # as EXIF says
    deep: bool  # it has more than 8 bits

    def pages(self) -> list[np.ndarray]:
        """As they are stored: 8 or 16 bits, (H, W) or RGB (H, W, 3)."""
        done, pages = cv2.imdecodemulti(np.frombuffer(self.raw, np.uint8), cv2.IMREAD_UNCHANGED)
        if not done or not pages:
            raise UserError(f"{self.name} cannot be decoded; export it as 8-bit PNG.")
        if any(page.dtype not in (np.uint8, np.uint16) for page in pages):
            fact = f"{self.name} holds {pages[0].dtype} numbers"
            raise UserError(f"{fact}; export it with 8 or 16 bits.")
        return [np.ascontiguousarray(p[..., 2::-1]) if p.ndim == 3 else p for p in pages]


def _opened(source: Path | bytes, decode: bool = True) -> _File:
    """An image whose header, and if it is decoded whose every byte, is sound."""
    name = source if isinstance(source, Path) else "the embedded image"
    raw = read_bytes(source) if isinstance(source, Path) else source
    try:
        image = Image.open(io.BytesIO(raw))
        orientation = image.getexif().get(_ORIENTATION, 1)  # TIFF: load() turns and forgets it
        deepest = raw[24] if image.format == "PNG" else 8
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            deepest = np.max(image.tag_v2.get(258, 8))
        if decode:
            image.load()
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise UserError(f"{name} is truncated or not an image; copy or export it again.") from error
    return _File(name, raw, image, orientation, deepest > 8)


def load_picture(frame: Frame, size: tuple | None, exif: str | None, bits: int) -> Picture:
    """A frame's image. A sound 8-bit file without an EXIF turn is kept byte for byte; a page of a
    stack, a picture of more than 8 bits (of those in use the upper eight are kept) and a turned one
    become PNG, without EXIF. The annotation states ``size``, (width, height), or None, and was
    drawn on the picture as ``exif`` says: "turned", "stored", or, None, as it has the size.

    UserError: no image, cut off, or not of the size; or nothing tells if it was turned.
    """
    file = _opened(frame.image)
    picture = file.image
    if frame.page is not None or file.deep:
        pixels = file.pages()[frame.page or 0]
        deep = pixels.dtype == np.uint16
        picture = Image.fromarray((pixels >> (bits - 8)).astype(np.uint8) if deep else pixels)
    turned = file.orientation in range(2, 9)
    if turned:
        picture.getexif()[_ORIENTATION] = file.orientation
        choices = {"turned": ImageOps.exif_transpose(picture), "stored": picture}
        fitting = [key for key, choice in choices.items() if choice.size == size]
        if exif is None and len(fitting) != 1:
            fact = f"{file.name} has an EXIF orientation and nothing tells if it was annotated"
            way_out = "say --exif turned (most tools show it so) or --exif stored"
            raise UserError(f"{fact} turned; {way_out}.")
        picture = choices[exif or fitting[0]]
    if size and picture.size != size:
        (w, h), (sw, sh) = picture.size, size
        fact = f"{file.name} is {w}×{h}, but its annotation is for {sw}×{sh}"
        raise UserError(f"{fact}; outlines would lie in the wrong place.")
    suffix = _FORMATS.get(str(file.image.format))
    if picture is not file.image or turned or not suffix:
        return Picture(png(np.asarray(picture.convert("RGB"))), ".png", picture.size, False)
    if isinstance(file.name, Path) and file.name.suffix.lower() in SUFFIXES:
        suffix = file.name.suffix.lower()
    return Picture(file.raw, suffix, picture.size, True)


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


def load_mask(path: Path, page: int | None, options: Options) -> np.ndarray:
    """A mask file as bool (H, W). Polyp are the options' grey values (of a palette image: its
    indices) or their colours; without either what is at least half the range, 128 of 255.

    UserError: the file cannot be read, or its values do not tell what is polyp.
    """
    file = _opened(path)
    if options.colours:
        if file.image.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, whose colours are not exact; export masks as PNG.")
        rgb = np.asarray(file.image.convert("RGB"))
        wanted = [ImageColor.getrgb(f"#{colour[-6:]}") for colour in options.colours]
        return np.any([(rgb == colour).all(-1) for colour in wanted], axis=0)
    if page is not None or file.deep:
        levels = file.pages()[page or 0]
    else:
        exact = {"P": "P", "L": "L", "1": "L"}  # of others it must be seen whether they are grey
        mode = exact.get(file.image.mode, "RGB") if options.values else "L"
        levels = np.asarray(file.image.convert(mode))
    if options.values:
        grey = levels if levels.ndim == 2 else levels[..., 0]
        if levels.ndim == 3 and (levels != grey[..., None]).any():
            fact = f"{path} is a mask in colours; say which are polyp with --colours"
            raise UserError(f"{fact}, such as --colours ff0000.")
        return np.isin(grey, options.values)
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
