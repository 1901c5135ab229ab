"""From shapes to pixels. One rule for all: a pixel is polyp where its centre lies inside."""

from __future__ import annotations

import numpy as np
from matplotlib.path import Path as Outline

from kdas_book.data.importing.frames import Shape

BOXES = ("ellipse", "rectangle")


def draw(shape: Shape, width: int, height: int, box: str | None = None) -> tuple[np.ndarray, bool]:
    """A shape as a mask, cut off at the picture's border.

    Args:
        box: how a box becomes an area: ``"ellipse"`` (the largest in it) or ``"rectangle"`` (all of
            it).

    Returns:
        mask bool (height, width), and whether more than a pixel of the shape stuck out of the
        picture.

    Raises:
        ValueError: the shape covers no pixel, or does not belong to a picture of this size. The
            text says what it is like and follows a noun: ``"has 2 points and encloses no area"``.

    >>> mask, _ = draw(Shape("box", "polyp", (1, 1, 3, 2)), 4, 3, "rectangle")
    >>> mask.astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    scale = np.array([width, height] if shape.relative else [1, 1], float)
    if shape.kind == "rle":
        size, counts = shape.data
        return _runs(size, counts, width, height), False
    if shape.kind == "bitmap":
        corner, bitmap = shape.data
        return _pasted(corner, bitmap, width, height)
    if shape.kind == "polygon":
        mask, reach = np.zeros((height, width), bool), []
        for part in shape.data:
            mask |= _polygon(part * scale, width, height)
            reach.append(part * scale)
        corners = np.concatenate(reach)
    else:
        corners, mask = _round_or_square(shape, scale, width, height, box)
    if not mask.any():
        outside = (corners.max(0) <= 0).any() or (corners.min(0) >= (width, height)).any()
        raise ValueError(
            f"lies outside the {width}×{height} picture" if outside else "covers no pixel"
        )
    return mask, bool((corners < -1).any() or (corners > np.array([width, height]) + 1).any())


def _polygon(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixel centres inside a polygon; where it crosses itself, the even-odd rule.

    OpenCV's ``fillPoly`` would count every pixel that the outline touches and make each polyp half
    a pixel larger all around (2 % of the area at a diameter of 170 pixels), so matplotlib's test of
    points is used.
    """
    mask = np.zeros((height, width), bool)
    if len(corners) < 3:
        raise ValueError(f"has {len(corners)} points and encloses no area")
    x, y = corners.T
    if abs(np.dot(x - x[0], np.roll(y - y[0], 1)) - np.dot(y - y[0], np.roll(x - x[0], 1))) < 1e-9:
        raise ValueError("encloses no area")
    left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(int)
    if right > left and bottom > top:
        centres = np.stack(
            np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5), axis=-1
        )
        inside = Outline(corners).contains_points(centres.reshape(-1, 2))
        mask[top:bottom, left:right] = inside.reshape(bottom - top, right - left)
    return mask


def _round_or_square(shape: Shape, scale: np.ndarray, width: int, height: int, box: str | None):
    """Corners (2, 2) and mask of a circle or a box."""
    if shape.kind == "circle":
        x, y, radius = shape.data
        corners = np.array([[x - radius, y - radius], [x + radius, y + radius]])
    else:
        if box not in BOXES:
            raise ValueError(
                "is a box and no outline; say --box ellipse or --box rectangle to draw it as a weak mask"
            )
        corners = np.array(shape.data, float).reshape(2, 2) * scale
    if (corners[1] <= corners[0]).any():
        raise ValueError("has no width or no height")
    u, v = (np.arange(length) + 0.5 for length in (width, height))
    (cx, cy), (rx, ry) = corners.mean(0), (corners[1] - corners[0]) / 2
    u, v = (u - cx)[None] / rx, (v - cy)[:, None] / ry
    if shape.kind == "circle" or box == "ellipse":
        return corners, u**2 + v**2 <= 1
    return corners, (u >= -1) & (u < 1) & (v >= -1) & (v < 1)


def _pasted(
    corner: tuple[int, int], bitmap: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, bool]:
    """A small mask laid into the picture with its first pixel at ``corner`` (x, y)."""
    x, y = corner
    h, w = bitmap.shape
    whole = np.zeros((height, width), bool)
    if not (-w < x < width and -h < y < height):
        raise ValueError(f"lies outside the {width}×{height} picture")
    part = bitmap[max(0, -y) : height - y, max(0, -x) : width - x]
    whole[max(0, y) : max(0, y) + part.shape[0], max(0, x) : max(0, x) + part.shape[1]] = part
    if not whole.any():
        raise ValueError("covers no pixel")
    return whole, part.shape != bitmap.shape


# --- run-length encoding ----------------------------------------------------------------------------------------------


def _runs(size: tuple[int, int], counts: np.ndarray, width: int, height: int) -> np.ndarray:
    """COCO's run lengths: background and object in turn, down the columns."""
    if size != (height, width):
        raise ValueError(
            f"is a run-length mask of {size[1]}×{size[0]} pixels, but the picture has {width}×{height}"
        )
    if (counts < 0).any() or counts.sum() != width * height:
        raise ValueError(f"has run lengths that do not add up to {width}×{height} pixels")
    mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    if not mask.any():
        raise ValueError("covers no pixel")
    return mask


def run_lengths(counts: object) -> np.ndarray:
    """The run lengths of COCO's ``counts``: a list of numbers, or the compressed text.

    In the text each length is written in groups of five bits, lowest first, a sixth bit says that
    another group follows, and 48 is added to make a letter; from the fourth length on, the
    difference to the one two before is kept. The library of the format's authors, pycocotools,
    reads past the end of a damaged text and crashes, so we decode it here (the tests compare the
    two).

    Raises:
        ValueError: not such a list or text.

    >>> run_lengths("52203").tolist()
    [5, 2, 2, 2, 5]
    """
    if isinstance(counts, list):
        good = all(
            isinstance(c, int) and not isinstance(c, bool) and 0 <= c < 2**40 for c in counts
        )
        if not good:
            raise ValueError("has run lengths that are no whole numbers")
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str):
        raise ValueError("has no run lengths")
    lengths: list[int] = []
    value = place = 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or place > 7:
            raise ValueError("has run lengths that are damaged")
        value |= (bits & 31) << (5 * place)
        place += 1
        if not bits & 32:
            if bits & 16:  # negative
                value -= 1 << (5 * place)
            lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
            value = place = 0
    if place:
        raise ValueError("has run lengths that are cut off")
    return np.array(lengths, dtype=np.int64)
