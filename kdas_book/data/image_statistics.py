"""What pictures of polyps are like in numbers: colour, size of the polyp, contrast of its edge,
sharpness.

Made to hold drawn pictures against photographs (chapter 1). A network sees far more than these
four; sets that agree in all of them can still be worlds apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import pandas as pd

SIDE = 288  # pictures are compared at this height, so that a larger camera is not a sharper or a smoother one


def lit(image: np.ndarray) -> np.ndarray:
    """Which pixels show the body, not the black frame: bool (H, W), where the brightest channel is
    above 24 of 255.

    Args:
        image: uint8 RGB (H, W, 3).
    """
    return image.max(2) > 24


def colour_histogram(image: np.ndarray, bins: int = 32) -> np.ndarray:
    """Share of the lit pixels in each of ``bins`` equal ranges of red, green and blue: float (3,
    bins), rows sum to 1.

    A picture without a lit pixel has zeros.
    """
    pixels = image[lit(image)]
    edges = np.linspace(0, 256, bins + 1)
    return np.stack([np.histogram(pixels[:, c], edges)[0] / max(1, len(pixels)) for c in range(3)])


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """How far, in grey levels of 255, brightness has to be moved to turn one histogram into the
    other; mean of the rows.

    The earth mover's distance of one-dimensional distributions: the area between their cumulative
    sums. 0 for equal ones.

    Args:
        a, b: (channels, bins), rows summing to 1, as `colour_histogram` gives them or means of
            such.

    Raises:
        ValueError: shapes differ.

    >>> histogram_distance(np.eye(4)[[0]], np.eye(4)[[3]]) == 3 * 256 / 4
    True
    """
    if a.shape != b.shape:
        raise ValueError(f"histograms of shapes {a.shape} and {b.shape} cannot be compared")
    return float(np.abs(np.cumsum(a - b, axis=1)).sum(1).mean() * 256 / a.shape[1])


def edge_contrast(image: np.ndarray, mask: np.ndarray, width: float = 0.03) -> float:
    """Mean colour difference across the outline of the polyp, in CIELAB (ΔE of 1976): about 2 is
    just visible.

    At every outline pixel the mean colour of the polyp pixels nearby is compared with that of the
    wall pixels nearby. What lies outside the aperture takes no part.

    Args:
        image: uint8 RGB (H, W, 3). mask: bool (H, W), True = polyp.
        width: half the side of "nearby", in parts of the picture's height.

    Returns:
        The mean over the outline; NaN where there is no outline with wall beside it.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    seen = cv2.erode(lit(cv2.blur(image, (3, 3))).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    side = 2 * max(1, round(width * len(image))) + 1
    sides = []
    for part in (mask & seen, ~mask & seen):
        weight = cv2.blur(part.astype(np.float32), (side, side))
        sides.append(
            (
                cv2.blur(lab * part[..., None], (side, side)) / np.maximum(weight, 1e-6)[..., None],
                weight,
            )
        )
    edge = mask ^ (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    edge &= (sides[0][1] > 0.1) & (sides[1][1] > 0.1)
    return (
        float(np.linalg.norm(sides[0][0] - sides[1][0], axis=2)[edge].mean())
        if edge.any()
        else float("nan")
    )


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian of grey, at a height of `SIDE` pixels, away from the
    frame; more is sharper.

    Highlights, vessels and noise raise it, blur lowers it. NaN for a picture without a lit region.
    """
    size = (max(1, round(image.shape[1] * SIDE / len(image))), SIDE)
    small = cv2.resize(
        image, size, interpolation=cv2.INTER_AREA if len(image) > SIDE else cv2.INTER_LINEAR
    )
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    frame = cv2.morphologyEx(
        lit(small).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8)
    )
    inner = cv2.erode(frame, np.ones((9, 9), np.uint8), borderValue=0) > 0
    return float(cv2.Laplacian(grey, cv2.CV_32F)[inner].std()) if inner.any() else float("nan")


def describe_pair(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The statistics of one picture: mean ``red``, ``green``, ``blue`` (0–255, lit pixels),
    ``area`` (the polyp's share of the picture, %), ``edge`` (`edge_contrast`) and ``sharpness``."""
    pixels = image[lit(image)]
    colour = pixels.mean(0) if len(pixels) else np.full(3, np.nan)
    return {
        **dict(zip(("red", "green", "blue"), map(float, colour))),
        "area": 100 * float(mask.mean()),
        "edge": edge_contrast(image, mask),
        "sharpness": sharpness(image),
    }


def describe(pictures: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[pd.DataFrame, np.ndarray]:
    """`describe_pair` of every (image, mask), a row each, and the mean `colour_histogram` (3, bins)
    of the set.

    Raises:
        ValueError: there is no picture.
    """
    rows, histograms = [], []
    for image, mask in pictures:
        rows.append(describe_pair(image, mask))
        histograms.append(colour_histogram(image))
    if not rows:
        raise ValueError("there is no picture to describe")
    return pd.DataFrame(rows), np.mean(histograms, axis=0)
