"""The one rule by which a mask file is read, in import, check, training and evaluation alike.

A mask is a picture of two values, black and white; a pixel is polyp from grey 128 upwards.

- Grey files, grey palettes and colour files of nearly equal channels (a JPEG's) are read as grey.
- Of 16 bits the upper eight count. Grey edges are cut at 128, up to a tenth of the picture.
- Refused, since they have no one meaning: colours, transparency, an EXIF orientation, values that
  stop below 128 (such as 0 and 1), areas of a third value (0, 1, 255), pixels of 32 bits, CMYK.

What is refused has a way in: ``kdas data import`` writes masks that follow the rule.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from kdas_core import UserError
from kdas_core.data.images import decode_fast, eight_bits, opened, refuse_turned

THRESHOLD = 128  # the grey level from which a pixel is polyp
MARK = "network"  # the text of a PNG of `kdas_core.inference`: which network drew it, and of what
_NEARLY_GREY = 8  # how far a grey pixel's channels may be apart in a JPEG that is stored in colour
_MOST_GREY = 0.1  # share of the pixels that may be neither dark nor light
# JPEG leaves more values than these few, or no areas: of the 2072 public masks 0.0006 at most.
_FEW, _MOST_FLAT = 8, 0.002
_IMPORT = '"kdas data import --as masks" can make one of it'


def read_mask(path: str | Path, polyp_from: int = THRESHOLD) -> np.ndarray:
    """A mask file as bool, shape (H, W). A frame without a polyp is allowed, and all False.
    UserError: the file cannot be read (as `images.read_image`), or the rule refuses it.
    """
    return read_grey(path, polyp_from) >= polyp_from


def read_grey(path: str | Path, polyp_from: int = THRESHOLD) -> np.ndarray:
    """A mask's grey levels, uint8 (H, W), for masks with soft edges. Raises as `read_mask`."""
    path = Path(path)
    with opened(path) as image:
        refuse_turned(image, path)
        grey = decode_fast(image, path, "L")
        if grey is None:
            grey = grey_levels(image, path, "mask")
    return two_valued(grey, path, polyp_from)


def two_valued(grey: np.ndarray, path: Path, polyp_from: int = THRESHOLD) -> np.ndarray:
    """The grey levels themselves, if they are those of a mask; else a UserError."""
    top = int(grey.max())
    if 0 < top < polyp_from:
        fact = f"{path} has {top} as its largest value, and polyp begins at {polyp_from}"
        raise UserError(f"{fact}; masks are 0 and 255: {_IMPORT}.")
    middle = ((grey >= THRESHOLD // 4) & (grey < 256 - THRESHOLD // 4)).mean()
    if middle > _MOST_GREY:
        fact = f"{100 * middle:.0f} % of its pixels are neither dark nor light"
        raise UserError(f"{path} is not a mask of two values, {fact}; masks are 0 and 255.")
    found = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    if 2 < len(found) <= _FEW:
        box = np.ones((3, 3), np.uint8)
        areas = grey[cv2.erode(grey, box) == cv2.dilate(grey, box)]
        if ((areas > 0) & (areas < 256 - THRESHOLD // 4)).sum() > _MOST_FLAT * grey.size:
            fact = f"{path} has areas of more than two values ({', '.join(map(str, found))})"
            raise UserError(f"{fact}; masks are 0 and 255: {_IMPORT}.")
    return grey


def read_prediction(path: str | Path) -> np.ndarray:
    """A predicted map as uint8, shape (H, W): 0 is surely background, 255 surely polyp. UserError:
    the file cannot be read, is in colour or transparent, or has more than 8 bits.
    """
    path = Path(path)
    with opened(path) as image:
        grey = decode_fast(image, path, "L")
        if grey is None and image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            fact = f"{path} does not have 8 bits a pixel (Pillow's mode {image.mode})"
            raise UserError(f"{fact}; save a prediction as 8-bit grey, 0 to 255.")
        return grey_levels(image, path, "prediction") if grey is None else grey


def prediction_mark(path: Path) -> str:
    """What `kdas_core.inference` wrote into a map of its own; empty for a file of others."""
    with opened(path) as image:
        return str(image.info.get(MARK, ""))


def is_transparent(image: Image.Image) -> bool:
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))[..., 3].min() < 255
    return False


def grey_levels(image: Image.Image, path: Path, what: str) -> np.ndarray:
    """Grey levels of an open picture whose channels agree, uint8 (H, W); else a UserError."""
    if is_transparent(image):
        fact = f"{path} is transparent in places, which does not say what is polyp"
        raise UserError(f"{fact}; save the {what} as grey, without transparency.")
    flat = eight_bits(image, path)
    if flat is not image and np.asarray(image).any() and not np.asarray(flat).any():
        fact = f"{path} has 16 bits, and its largest value, {np.asarray(image).max()}, is all but 0"
        raise UserError(f"{fact}; white is 65,535: {_IMPORT}.")
    if flat.mode in ("1", "L", "LA"):
        return np.array(flat.convert("L"))
    if flat.mode not in ("P", "PA", "RGB", "RGBA"):
        fact = f"{path} is neither grey nor RGB (Pillow's mode {flat.mode})"
        raise UserError(f"{fact}; save the {what} as 8-bit grey, 0 to 255.")
    colours = np.asarray(flat.convert("RGB"))
    if np.ptp(colours, axis=-1).max() > _NEARLY_GREY:
        raise UserError(f"{path} is in colour; save the {what} itself as grey, and no overlay.")
    return np.array(Image.fromarray(colours).convert("L"))
