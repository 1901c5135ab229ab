"""From shapes to pixels. One rule for all: a pixel is polyp where its centre lies inside."""

import re

import numpy as np
from matplotlib.path import Path as Outline

from kdas_book.data.importing.frames import BOXES, Shape


def draw(shape: Shape, width: int, height: int, box: str | None = None) -> tuple[np.ndarray, bool]:
    """A shape as a mask, bool (height, width), cut off at the picture's border; and whether more
    than a pixel of it stuck out (of a bitmap: any pixel). ``box`` is one of `BOXES`.

    ValueError: the shape covers no pixel, or does not belong to a picture of this size. The text
    follows a noun: ``"has 2 points and encloses no area"``.

    >>> mask, _ = draw(Shape("box", "polyp", (1, 1, 3, 2)), 4, 3, "rectangle")
    >>> mask.astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    size = np.array([width, height])
    scale = size if shape.relative else 1
    mask = np.zeros((height, width), bool)
    if shape.kind == "rle":
        corners = np.array([(0, 0), size])
        _add_runs(mask, *shape.data)
    elif shape.kind == "bitmap":
        corner, bitmap = shape.data
        corners = np.array([corner, corner + bitmap.shape[::-1]])
        (left, top), (right, bottom) = np.clip(corners, 0, size)
        x, y = corner
        mask[top:bottom, left:right] = bitmap[top - y : bottom - y, left - x : right - x]
    elif shape.kind == "polygon":
        corners = np.concatenate(shape.data) * scale
        for part in shape.data:
            _add_polygon(mask, part * scale)
        if corners.max() <= 1 and min(width, height) > 2:
            raise ValueError("has coordinates from 0 to 1, which are fractions and no pixels")
    else:
        if shape.kind == "box" and box not in BOXES:
            way_out = "say --box ellipse or --box rectangle to draw it as a weak mask"
            raise ValueError(f"is a box and no outline; {way_out}")
        corners = np.reshape(shape.data, (2, 2)) * scale
        _add_box(mask, corners, oval=shape.kind == "circle" or box == "ellipse")
    if not mask.any():
        outside = (corners.max(0) <= 0).any() or (corners.min(0) >= size).any()
        where = f"lies outside the {width}×{height} picture"
        raise ValueError(where if outside else "covers no pixel")
    margin = 0 if shape.kind == "bitmap" else 1
    return mask, bool((corners < -margin).any() or (corners > size + margin).any())


def _add_polygon(mask: np.ndarray, corners: np.ndarray) -> None:
    """Pixel centres inside a polygon; where it crosses itself, the even-odd rule: what it goes
    around twice is outside, as pycocotools has it. Parts are united, as there: a part within
    another is no hole.

    OpenCV's ``fillPoly`` would count every pixel that the outline touches: polyps half a pixel
    larger all around, 2 % of the area at a diameter of 170 pixels.
    """
    if len(corners) < 3:
        raise ValueError(f"has {len(corners)} points and encloses no area")
    if np.linalg.matrix_rank(corners - corners[0], tol=1e-6) < 2:  # all on one line
        raise ValueError("encloses no area")
    left, top = np.clip(np.floor(corners.min(0)), 0, mask.shape[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, mask.shape[::-1]).astype(int)
    if right > left and bottom > top:
        rows, columns = np.mgrid[top:bottom, left:right] + 0.5
        inside = Outline(corners).contains_points(np.column_stack([columns.flat, rows.flat]))
        mask[top:bottom, left:right] |= inside.reshape(rows.shape)


def _add_box(mask: np.ndarray, corners: np.ndarray, oval: bool) -> None:
    """A box, or the ellipse in it: from its middle to its border u and v go from 0 to 1."""
    if (corners[1] <= corners[0]).any():
        raise ValueError("has no width or no height")
    v, u = (np.arange(length) + 0.5 for length in mask.shape)
    (cx, cy), (rx, ry) = corners.mean(0), (corners[1] - corners[0]) / 2
    u, v = (u - cx) / rx, (v - cy)[:, None] / ry
    mask |= u**2 + v**2 <= 1 if oval else (u >= -1) & (u < 1) & (v >= -1) & (v < 1)


def _add_runs(mask: np.ndarray, size: tuple[int, int], counts: np.ndarray) -> None:
    """COCO's run lengths: background and object in turn, down the columns."""
    height, width = mask.shape
    if size != mask.shape:
        fact = f"is a run-length mask of {size[1]}×{size[0]} pixels"
        raise ValueError(f"{fact}, but the picture has {width}×{height}")
    if (counts < 0).any() or counts.sum() != mask.size:
        raise ValueError(f"has run lengths that do not add up to {width}×{height} pixels")
    mask.T[:] = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height)


def run_lengths(counts: object) -> np.ndarray:
    """The run lengths of COCO's ``counts``: a list of numbers, or the compressed text.

    In the text each length is written in groups of five bits, lowest first, a sixth bit says that
    another group follows, and 48 is added to make a letter; from the fourth length on, the
    difference to the one two before is kept. The format's own library, pycocotools, crashes on
    damaged text; the tests compare the two. ValueError: not such a list or text.

    >>> run_lengths("52203").tolist()
    [5, 2, 2, 2, 5]
    """
    if isinstance(counts, list):
        if not all(type(count) is int and 0 <= count < 2**40 for count in counts):
            raise ValueError("has run lengths that are no whole numbers")
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str):
        raise ValueError("has no run lengths")
    if not re.fullmatch("([P-o]{0,7}[0-O])*", counts):  # from P on the sixth bit is set
        raise ValueError("has run lengths that are damaged or cut off")
    lengths: list[int] = []
    for letters in re.findall("[P-o]*[0-O]", counts):
        value = sum((ord(letter) - 48 & 31) << 5 * i for i, letter in enumerate(letters))
        if ord(letters[-1]) - 48 & 16:  # negative
            value -= 1 << 5 * len(letters)
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
    return np.array(lengths, dtype=np.int64)
