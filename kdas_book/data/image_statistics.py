"""Pictures of polyps in numbers, drawn or real (chapter 11); a network sees far more in them."""

from collections.abc import Iterable

import cv2
import numpy as np
import pandas as pd

SIDE = 288  # height at which sharpness is measured, so that larger cameras are not sharper
_SQUARE = np.ones((3, 3), np.uint8)


def lit(image: np.ndarray) -> np.ndarray:
    """Which pixels of a uint8 RGB image (H, W, 3) show the body and not the black frame: bool
    (H, W), where the brightest channel is above 24 of 255.
    """
    return image.max(2) > 24


def edge_contrast(image: np.ndarray, mask: np.ndarray, width: float = 0.03) -> float:
    """Mean colour difference across the outline of the polyp, in CIELAB (ΔE of 1976): about 2 is
    just visible. NaN where there is no outline with wall beside it.

    At every outline pixel of the mask, bool (H, W), the mean colour of the polyp pixels nearby is
    compared with that of the wall pixels nearby; ``width`` is half the side of "nearby", in parts
    of the picture's height. What lies outside the aperture takes no part.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    seen = cv2.erode(lit(cv2.blur(image, (3, 3))).astype(np.uint8), _SQUARE) > 0
    side = 2 * max(1, round(width * len(image))) + 1
    edge = mask ^ (cv2.erode(mask.astype(np.uint8), _SQUARE) > 0)
    colours = []
    for part in (mask & seen, ~mask & seen):
        weight = cv2.blur(part.astype(np.float32), (side, side))
        total = cv2.blur(lab * part[..., None], (side, side))
        colours.append(total / np.maximum(weight, 1e-6)[..., None])
        edge &= weight > 0.1
    apart = np.linalg.norm(colours[0] - colours[1], axis=2)
    return float(apart[edge].mean()) if edge.any() else float("nan")


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian of grey, at a height of `SIDE` pixels, away from the
    frame; NaN without a lit region. Highlights, vessels and noise raise it, blur lowers it.
    """
    size = (max(1, round(image.shape[1] * SIDE / len(image))), SIDE)
    how = cv2.INTER_AREA if len(image) > SIDE else cv2.INTER_LINEAR
    small = cv2.resize(image, size, interpolation=how)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    closing = np.ones((15, 15), np.uint8)
    frame = cv2.morphologyEx(lit(small).astype(np.uint8), cv2.MORPH_CLOSE, closing)
    inner = cv2.erode(frame, np.ones((9, 9), np.uint8), borderValue=0) > 0
    return float(cv2.Laplacian(grey, cv2.CV_32F)[inner].std()) if inner.any() else float("nan")


def describe_pair(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The statistics of one picture: mean ``red``, ``green``, ``blue`` (0–255, lit pixels),
    ``area`` (the polyp's share of the picture, %), ``edge`` (`edge_contrast`) and ``sharpness``."""
    pixels = image[lit(image)]
    colour = pixels.mean(0) if len(pixels) else np.full(3, np.nan)
    area = 100 * float(mask.mean())
    found = {"area": area, "edge": edge_contrast(image, mask), "sharpness": sharpness(image)}
    return dict(zip(("red", "green", "blue"), map(float, colour))) | found


def describe(pictures: Iterable[tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """`describe_pair` of every (image, mask), a row each; ValueError: there is no picture."""
    rows = [describe_pair(image, mask) for image, mask in pictures]
    if not rows:
        raise ValueError("there is no picture to describe")
    return pd.DataFrame(rows)
