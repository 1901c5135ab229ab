"""Reading one picture file: what each kind of file becomes (masks: `masks`). No PyTorch.

- Pixels come as they are stored, without an EXIF orientation.
- 16 bits keep their upper eight; 32-bit integers and floats are refused, their white is undefined.
- CMYK becomes RGB by Pillow's plain formula, without a colour profile. A palette is looked up.
- Alpha is dropped, the colour under it stays. Of a file with several pages the first is read.
- More than `MAX_PIXELS` by the file's own header (a "decompression bomb") is never decoded.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile

from kdas_core import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
UNREAD = (".webp", ".gif", ".heic", ".heif", ".avif", ".jp2")  # pictures, but of a kind not read
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: a quarter of a gigabyte in RGB
# A .jpg may be a WebP or GIF. Formats that Pillow hands to other programs (EPS) are never tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
Image.preinit()  # else the first file whose suffix lies makes Pillow load all its forty formats
# A whole file has this mark among its last bytes; some programs append a few of their own.
_END = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 64
ORIENTATION = 0x0112  # the EXIF tag
# Pillow checks the size of whatever it opens, and as it advises, its warning is an error here.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 RGB, shape (H, W, 3). UserError: the file is missing, no image, cut
    off (one decoded in part is never returned), too large, or has pixels of a kind that is refused.
    """
    path = Path(path)
    with opened(path) as image:
        pixels = decode_fast(image, path, "RGB")
        return np.array(eight_bits(image, path).convert("RGB")) if pixels is None else pixels


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header; a file without an end mark is decoded, to see if it is cut
    off, and so are formats that have none (tif, bmp). Raises as `read_image`, and for an EXIF
    orientation: nothing tells if a mask was drawn on the turned picture or on the stored one.
    """
    with opened(path) as image:
        refuse_turned(image, path)
        if image.format in _END and image.fp:
            image.fp.seek(max(0, os.path.getsize(path) - _TAIL))
            if _END[image.format] in image.fp.read():
                return image.size
    height, width, _ = read_image(path).shape
    return width, height


def read_bytes(path: Path) -> bytes:
    """A file as it is; a UserError where it is missing or may not be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} {_fact(path, error)}.") from error


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """A picture file as Pillow opens it: the header is read, pixels are not. UserError: whatever
    goes wrong with the file, also inside the block, where damaged bytes raise nearly anything.
    """
    try:
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:  # the filter above may be switched off
                raise Image.DecompressionBombError
            yield image
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} {_fact(path, error)}.") from error


def eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The same picture in eight bits a channel; a UserError where its white is not defined."""
    # Older Pillows open a 16-bit PNG as "I", which convert() would clip at 255 instead of scaling.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit whole" if image.mode == "I" else "floating-point"
        fact = f"{path} has {kind} numbers as pixels, whose white is not defined"
        raise UserError(f"{fact}; save it with 8 bits a channel.")
    return image


def decode_fast(image: ImageFile.ImageFile, path: Path, mode: str) -> np.ndarray | None:
    """The pixels of a whole JPEG or PNG of eight bits, grey or of this mode, without transparency,
    which OpenCV decodes as Pillow does, and faster; else None. Pillow has read the header.
    """
    content = path.read_bytes()
    if image.format not in _END or _END[image.format] not in content[-_TAIL:]:
        return None  # of one cut off OpenCV would return what there is
    deep = image.format == "PNG" and content[24] != 8  # the header's bits per channel
    if deep or image.mode not in (mode, "L") or "transparency" in image.info:
        return None
    colour = cv2.IMREAD_COLOR_RGB if mode == "RGB" else cv2.IMREAD_GRAYSCALE
    # None where it is damaged: Pillow will say how, or cope with it.
    return cv2.imdecode(np.frombuffer(content, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION)


def refuse_turned(image: Image.Image, path: Path) -> None:
    """A UserError where viewers show the picture turned."""
    if orientation(image) != 1:
        fact = f"{path} has an EXIF orientation, so that viewers show it turned"
        raise UserError(
            f'{fact}; "kdas data import --as masks --exif turned" (or stored) settles it.'
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1: viewers show the pixels as they are stored."""
    if image.format == "PNG" and "exif" not in image.info:  # getexif would decode the whole file
        return 1
    with suppress(Exception):  # a damaged block says nothing, and is no fault of the pixels
        return image.getexif().get(ORIENTATION) or 1
    return 1


def _fact(path: Path, error: Exception) -> str:
    """What is wrong with a file, and the way out."""
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        fact = f"declares more than {MAX_PIXELS:,} pixels in its header, so it is not read"
        return f"{fact}; if it is sound, save it smaller, else remove it"
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return f"is a link to {os.readlink(path)}, which is not there; restore that file"
    if isinstance(error, FileNotFoundError):
        return "does not exist; check the name, or restore the file"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied); change its permissions"
    if isinstance(error, OSError) and error.errno is not None:  # Pillow's own carry no number
        return f"cannot be read ({error.strerror}); see to the disk or the link"
    empty = os.path.isfile(path) and os.path.getsize(path) == 0
    fact = "empty (0 bytes)" if empty else "truncated or not an image"
    return f"is {fact}, so it cannot be read; copy it again from its source"
