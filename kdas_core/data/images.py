"""Reading one picture file, image or mask: what each kind of file becomes. No PyTorch.

- Pixels come as they are stored, without an EXIF orientation: masks are drawn on stored pixels.
- 16 bits keep their upper eight; 32-bit integers and floats are refused, their white is undefined.
- CMYK becomes RGB by Pillow's plain formula, without a colour profile. A palette is looked up.
- Alpha is dropped, the colour under it stays. Of a file with several pages the first is read.
- More than `MAX_PIXELS` by the file's own header (a "decompression bomb") is never decoded.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile

from kdas_core import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
THRESHOLD = 128  # a mask's grey value from which a pixel is polyp
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: a quarter of a gigabyte in RGB
# A .jpg may be a WebP or GIF. Formats that Pillow hands to other programs (EPS) are never tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
Image.preinit()  # else the first file whose suffix lies makes Pillow load all its forty formats
# A whole file has this mark among its last bytes; some programs append a few of their own.
_END = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 64
# Pillow checks the size of whatever it opens, and as it advises, its warning is an error here.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 RGB, shape (H, W, 3).

    Raises:
        UserError: the file is missing, no image, cut off (an image decoded in part is never
            returned), too large to be one, or has pixels of a kind that is refused.
    """
    return _decode(Path(path), "RGB")


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file as bool, shape (H, W): polyp where the grey value is at least 128, since masks
    kept as JPEG have grey edges. A frame without a polyp is allowed; `kdas data check` names it.
    Raises as `read_image`.
    """
    return read_grey(path) >= THRESHOLD


def read_grey(path: str | Path) -> np.ndarray:
    """A file's grey values before any threshold: uint8, shape (H, W). Raises as `read_image`."""
    return _decode(Path(path), "L")


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header; a file without an end mark is decoded, to see if it is cut
    off, and so are formats that have none (tif, bmp). Raises as `read_image`.
    """
    with opened(path) as image:
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
    """A picture file as Pillow opens it: the header is read, pixels are not.

    Raises:
        UserError: whatever goes wrong with the file, also inside the block. Damaged bytes make
            Pillow's readers raise nearly anything, from KeyError to MemoryError.
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


def _decode(path: Path, mode: str) -> np.ndarray:
    """Pillow reads the header and has the last word; OpenCV is faster where both decode alike."""
    with opened(path) as image:
        content = path.read_bytes()
        if _is_plain(image, content, mode):
            colour = cv2.IMREAD_COLOR_RGB if mode == "RGB" else cv2.IMREAD_GRAYSCALE
            flags = colour | cv2.IMREAD_IGNORE_ORIENTATION
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
            if pixels is not None:  # None: it is damaged. Pillow will say how, or cope with it.
                return pixels
        return np.array(eight_bits(image, path).convert(mode))


def _is_plain(image: Image.Image, content: bytes, mode: str) -> bool:
    """A whole JPEG or PNG of eight bits, grey or RGB, without transparency."""
    if image.format not in _END or _END[image.format] not in content[-_TAIL:]:
        return False  # of one cut off OpenCV would return what there is
    deep = image.format == "PNG" and content[24] != 8  # the header's bits per channel
    return not deep and image.mode in (mode, "L") and "transparency" not in image.info


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
