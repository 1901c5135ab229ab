"""Reading one picture file: what every kind of file becomes, and what a damaged or dangerous one
gets to hear. No PyTorch.

What is defined here, for images and masks alike:

- Pixels come as they are stored. An EXIF orientation is not applied, since masks are drawn on the
  stored pixels.
- 16 bits keep their upper eight. 32-bit whole numbers and floating point are refused: their white
  is not defined.
- CMYK becomes RGB by Pillow's plain formula, without a colour profile. A palette is looked up.
- An alpha channel is dropped; a transparent pixel has the colour that is stored under it.
- Of a file with several pages the first is read.
- A file of more than `MAX_PIXELS` by its own header is refused before any of it is decoded (a
  "decompression bomb").

`kdas data check` names files that are turned, transparent or of several pages.
"""

from __future__ import annotations

import io
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
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: a quarter of a gigabyte in RGB; endoscopes make about two million

# A .jpg from the web is at times a WebP or GIF. Formats that Pillow hands to other programs (EPS)
# are never tried.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
Image.preinit()  # otherwise the first file whose suffix lies makes Pillow load all of its forty formats
# A whole file of these formats has this among its last bytes; some programs append a few of their
# own.
_END, _TAIL = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}, 64
# Pillow checks the size of whatever it opens, and as it advises, its warning is an error here.
warnings.simplefilter("error", Image.DecompressionBombWarning)
_BOMB = (Image.DecompressionBombWarning, Image.DecompressionBombError)


def read_image(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """An image file as uint8 RGB, shape (H, W, 3); the head of this module says what other kinds of
    pixels become.

    Args:
        content: the file's bytes, where they have been read already.

    Raises:
        UserError: the file is missing, is not an image, is cut off (an image decoded in part is
            never returned), is too large to be one, or has pixels of a kind that is refused.
    """
    return _decode(Path(path), "RGB", content)


def read_mask(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """A mask file as bool, shape (H, W); True = polyp, where the grey value is at least 128.
    Colours are read as grey.

    Masks kept as JPEG have grey levels along their edges; the threshold makes them binary again. A
    mask without a single polyp pixel is allowed here (a frame may show none); `kdas data check`
    names it, and masks of 0 and 1 as well.

    Raises:
        UserError: as `read_image`.
    """
    return read_grey(path, content) >= THRESHOLD


def read_grey(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """A file's grey values before any threshold: uint8, shape (H, W).

    Raises:
        UserError: as `read_image`.
    """
    return _decode(Path(path), "L", content)


def read_bytes(path: Path) -> bytes:
    """A file as it is.

    Raises:
        UserError: it is missing or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header. A file that does not end with its format's end mark is
    decoded, to see if it is cut off; so are formats without such a mark (tif, bmp).

    Raises:
        UserError: as `read_image`.
    """
    with opened(path) as image:
        size, form, file = image.size, image.format, image.fp
        if file and form in _END:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            if _END[form] in file.read():
                return size
    _decode(path, "RGB")
    return size


@contextmanager
def opened(path: Path, content: bytes | None = None) -> Iterator[ImageFile.ImageFile]:
    """A picture file, or its bytes, as Pillow opens it: the header is read, pixels are not.

    Raises:
        UserError: whatever goes wrong with the file, also inside the block. Damaged bytes make
            Pillow's readers raise nearly anything, from KeyError to MemoryError.
    """
    try:
        with (
            open(path, "rb") if content is None else io.BytesIO(content) as file,
            Image.open(file, formats=FORMATS) as image,
        ):
            if (
                image.width * image.height > MAX_PIXELS
            ):  # somebody may have switched the filter above off
                raise Image.DecompressionBombError
            yield image
    except UserError:
        raise
    except _BOMB as error:
        fact = f"{path} declares more than {MAX_PIXELS:,} pixels in its header, so it is not read"
        raise UserError(f"{fact}; if it is sound, save it smaller, else remove it.") from error
    except Exception as error:
        raise _unreadable(path, error) from error


def eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The same picture with at most eight bits a channel.

    Raises:
        UserError: its numbers have no defined white.
    """
    # Older Pillows open a 16-bit PNG as "I", which convert() would clip at 255 instead of scaling.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "32-bit whole" if image.mode == "I" else "floating-point"
        raise UserError(
            f"{path} has {kind} numbers as pixels, whose white is not defined; save it with 8 bits a channel."
        )
    return image


def _decode(path: Path, mode: str, content: bytes | None = None) -> np.ndarray:
    """Pillow reads the header and has the last word; what both decode alike OpenCV decodes, in two
    thirds of the time.
    """
    content = read_bytes(path) if content is None else content
    with opened(path, content) as image:
        if _is_plain(image, content, mode):
            colour = cv2.IMREAD_COLOR_RGB if mode == "RGB" else cv2.IMREAD_GRAYSCALE
            pixels = cv2.imdecode(
                np.frombuffer(content, np.uint8), colour | cv2.IMREAD_IGNORE_ORIENTATION
            )
            if pixels is not None:  # None: it is damaged. Pillow will say how, or cope with it.
                return pixels
        picture = eight_bits(image, path)
        return np.array(picture if picture.mode == mode else picture.convert(mode))


def _is_plain(image: Image.Image, content: bytes, mode: str) -> bool:
    """A whole JPEG or PNG of eight bits, grey or RGB, without transparency."""
    if (
        image.format not in _END or _END[image.format] not in content[-_TAIL:]
    ):  # OpenCV returns what there is of it
        return False
    if image.format == "PNG" and content[24] != 8:  # the header's bits per channel
        return False
    return image.mode in (mode, "L") and "transparency" not in image.info


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return UserError(
                f"{path} is a link to {os.readlink(path)}, which is not there; restore that file."
            )
        return UserError(f"{path} does not exist; check the name, or restore the file.")
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read (permission denied); change its permissions.")
    if isinstance(error, OSError) and error.errno is not None:  # Pillow's own carry no number
        return UserError(f"{path} cannot be read ({error.strerror}); see to the disk or the link.")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return UserError(
            f"{path} is empty (0 bytes), so it cannot be read as an image; copy it again from its source."
        )
    return UserError(
        f"{path} is truncated or not an image, so it cannot be read; copy it again from its source."
    )
