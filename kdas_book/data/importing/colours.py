"""Which pixels of a mask file are polyp, by the one rule or by values or colours that are named."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor

from kdas_book.data.importing.frames import Options
from kdas_core import UserError
from kdas_core.data.images import eight_bits
from kdas_core.data.masks import THRESHOLD, grey_levels, is_transparent, two_valued

_JPEG = ("JPEG", "MPO")
_NEAR = 96.0  # how far, in RGB, a colour of a JPEG may be from the named one that it is taken for
_MOST_FAR = 0.01  # share of the pixels that may be farther from all of them
_MOST_KINDS = 16  # of values or colours; what has more is no mask of classes


def polyp_of(
    image: Image.Image, form: str, deep: np.ndarray | None, path: Path, options: Options
) -> tuple[np.ndarray, float | None]:
    """Polyp as bool (H, W), and how far the colours of a JPEG are from those that are named
    (None of other files).

    Polyp are the options' values (of a palette image its indices) or colours; without either,
    what the rule of `kdas_core.data.masks` says, and what that refuses is refused. ``form`` is the
    file's format; ``deep`` its levels if they have more than 8 bits.

    UserError: the pixels do not tell what is polyp; where values or colours would, it names them.
    """
    if options.colours:
        if is_transparent(image):
            raise UserError(f"{path} is transparent in places; save it without transparency.")
        rgb = np.asarray(eight_bits(image, path).convert("RGB"))
        wanted = [ImageColor.getrgb(f"#{colour[-6:]}")[:3] for colour in options.colours]
        if form in _JPEG:
            return _nearest(rgb, wanted, path)
        return np.any([(rgb == colour).all(-1) for colour in wanted], axis=0), None
    if options.values:
        levels = _levels(image, form, deep, path)
        if levels.dtype == np.uint8 and image.mode != "P" and 255 not in options.values:
            if set(np.unique(levels)) == {0, 255}:
                fact = f"{path} is black and white, and 255 is not among --values"
                raise UserError(f"{fact}; add it if it is polyp, or leave such masks out.")
        return np.isin(levels, options.values), None
    try:
        return two_valued(grey_levels(image, path, "mask"), path) >= THRESHOLD, None
    except UserError as error:
        if not (way_in := _way_in(image, form, deep)):
            raise
        text = str(error).removeprefix(str(path))
        raise UserError(f"{path}{text.split('; ')[0].rstrip('.')}; {way_in}.") from None


def _levels(image: Image.Image, form: str, deep: np.ndarray | None, path: Path) -> np.ndarray:
    """The values that ``--values`` speaks of: a palette's indices, or grey."""
    if form in _JPEG:
        fact = f"{path} is a JPEG, whose values are not exact"
        raise UserError(f"{fact}; leave --values out if polyp is white, or export masks as PNG.")
    if image.mode != "P" and is_transparent(image):
        raise UserError(f"{path} is transparent in places; save it without transparency.")
    exact = {"P": "P", "L": "L", "1": "L"}  # of others it must be seen whether they are grey
    levels = np.asarray(image.convert(exact.get(image.mode, "RGB"))) if deep is None else deep
    grey = levels if levels.ndim == 2 else levels[..., 0]
    if levels.ndim == 3 and (levels != grey[..., None]).any():
        fact = f"{path} is a mask in colours; say which are polyp with --colours"
        raise UserError(f"{fact}, such as --colours ff0000.")
    return grey


def _nearest(rgb: np.ndarray, wanted: list, path: Path) -> tuple[np.ndarray, float]:
    """Each pixel of a JPEG belongs to the nearest of the named colours, black and white. JPEG blurs
    borders, so how far colours are off is measured where all neighbours belong to the same.
    """
    known = list(dict.fromkeys([*wanted, (0, 0, 0), (255, 255, 255)]))
    apart = np.stack([np.linalg.norm(rgb - np.float32(colour), axis=-1) for colour in known])
    nearest = apart.argmin(0).astype(np.uint8)
    off = np.where(_inside(nearest[..., None]), apart.min(0), 0)
    if (off > _NEAR).mean() > _MOST_FAR:
        colour = "{:02x}{:02x}{:02x}".format(*np.median(rgb[off > _NEAR], axis=0).astype(int))
        fact = f"{path} has {(off > _NEAR).mean():.0%} of its pixels near {colour}"
        way_out = "name their colour as well if it is polyp, or export the masks as PNG"
        raise UserError(f"{fact}, which is none of the named colours, black or white; {way_out}.")
    return nearest < len(dict.fromkeys(wanted)), float(off.max())


def _inside(kinds: np.ndarray) -> np.ndarray:
    """Where all neighbours are of one kind, bool (H, W)."""
    box = np.ones((3, 3), np.uint8)
    same = cv2.erode(kinds, box) == cv2.dilate(kinds, box)
    return same if same.ndim == 2 else same.all(-1)


def _way_in(image: Image.Image, form: str, deep: np.ndarray | None) -> str:
    """The values or colours that the rule refuses, and the option that names them, if any."""
    if image.mode != "P" and is_transparent(image) or image.mode in ("F", "I", "CMYK"):
        return ""
    if image.mode == "P":
        palette = np.asarray(image.convert("RGB")).reshape(-1, 3)
        at, found = np.unique(np.asarray(image), return_index=True)[::-1]
        colours = [f"{i} (#{bytes(palette[k].tolist()).hex()})" for i, k in zip(found, at)]
        what, option, kinds = "palette indices", "values", dict(zip(map(str, found), colours))
        dark = {str(i) for i, k in zip(found, at) if not palette[k].any()}
    elif deep is not None and deep.ndim == 2 or image.mode in ("L", "1"):
        found = np.unique(np.asarray(image) if deep is None else deep)
        kinds = {str(i): str(i) for i in found} if form not in _JPEG else {}
        what, option, dark = "values", "values", {"0"}
    else:
        rgb = np.asarray(image.convert("RGB"))
        count = rgb.size // 3
        if form in _JPEG:  # to the nearest of five levels a channel, and without blurred borders
            rgb = np.minimum((rgb.astype(np.uint16) + 32) // 64 * 64, 255).astype(np.uint8)
            rgb = rgb[_inside(rgb)]
        found, counts = np.unique(rgb.reshape(-1, 3), axis=0, return_counts=True)
        order = [k for k in np.argsort(-counts) if form not in _JPEG or counts[k] > count / 1000]
        names = [bytes(found[k].tolist()).hex() for k in order]
        kinds = dict(zip(names, (f"{n} ({c / count:.0%})" for n, c in zip(names, counts[order]))))
        what, option, dark = "colours", "colours", {"000000"}
    bright = [kind for kind in kinds if kind not in dark]
    if not bright or len(kinds) > _MOST_KINDS:
        return ""
    shown = f"it has the {what} {', '.join(kinds.values())}"
    return f"{shown}; say which are polyp, such as --{option} {','.join(bright)}"
