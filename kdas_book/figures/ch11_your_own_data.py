"""What the annotators of chapter 11 leave on disk: images, JSON of Labelme, XML of Pascal VOC; and
boxes as masks, and a copier.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np


def put(path: Path, content: str | np.ndarray) -> None:
    """Write a text, an RGB image, uint8 (H, W, 3), or a bool mask (H, W), and the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        pixels = content[..., ::-1] if content.ndim == 3 else 255 * content.astype(np.uint8)
        cv2.imwrite(str(path), pixels)


def labelme(image: str, polygons: Iterable[np.ndarray]) -> str:
    """A file of Labelme with polygons, each (n, 2) in pixels, on an image."""
    shape = {"label": "polyp", "shape_type": "polygon"}
    shapes = [shape | {"points": points.tolist()} for points in polygons]
    return json.dumps({"imagePath": image, "shapes": shapes})


def voc(image: str, x0: int, y0: int, x1: int, y1: int) -> str:
    """A file of Pascal VOC, which counts pixels from 1, with one box on an image."""
    corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
    box = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    polyp = f"<object><name>polyp</name><bndbox>{box}</bndbox></object>"
    return f"<annotation><filename>{image}</filename>{polyp}</annotation>"


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the smallest box around all polyp pixels of a bool mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return int(x0), int(y0), int(x1), int(y1)


def box_mask(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """A bool mask of this shape, True in the box."""
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def filled_box(mask: np.ndarray) -> np.ndarray:
    """The box around a mask's polyp, bool (H, W), as a mask; without a polyp nothing."""
    return box_mask(mask.shape, *box_of(mask)) if mask.any() else mask


def copier(likeness: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For each row of (test, known) the mask, of known (known, H, W), that is most like it."""
    return known[likeness.argmax(axis=1)]
