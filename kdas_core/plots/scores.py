"""Figures of scores: chapter 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_core.evaluation.metrics import THRESHOLDS, image_curves
from kdas_core.evaluation.scores import image_metrics
from kdas_core.plots.basics import BLUE, COLOUR_OF, GREEN, ORANGE, RED, SKY, grid, verdict


def constructed_predictions(mask: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Five predictions whose mistake is known, for a bool mask (H, W) with a polyp: uint8 grey maps by name.

    Lengths are fractions of the diameter of a disc of the polyp's area, so that small and large polyps are treated alike.
    """
    white = mask.astype(np.uint8) * 255
    diameter = 2 * np.sqrt(mask.sum() / np.pi)
    step, sigma = max(1, round(diameter / 6)), max(1.0, diameter / 6)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step + 1, 2 * step + 1))
    move = np.float32([[1, 0, step], [0, 1, 0]])
    return {
        "perfect": white,
        "shifted": cv2.warpAffine(white, move, mask.shape[::-1], flags=cv2.INTER_NEAREST),
        "eroded": cv2.erode(white, disc),
        "blurred": cv2.GaussianBlur(white, (0, 0), sigma),
        "noise": np.random.default_rng(seed).integers(0, 256, mask.shape, dtype=np.uint8),
    }


def dice_by_threshold(axis: plt.Axes, grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw an image's Dice over the 256 thresholds into an axis and return it, shape (256,) in the order of THRESHOLDS."""
    dice = image_curves(grey, mask)["Dic"]
    axis.plot(THRESHOLDS, dice, color=BLUE)
    axis.set(xlabel="threshold", ylabel="Dice", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
    return dice


def threshold_curve(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """Dice over the 256 thresholds, with the three numbers that one may read off it: mean, maximum, value at 0.5.

    Args:
        grey: prediction, uint8 (H, W). mask: bool (H, W).
    """
    figure, axis = plt.subplots(figsize=(6, 3))
    dice = dice_by_threshold(axis, grey, mask)
    best, half = int(dice.argmax()), image_metrics(grey, mask)["dice"]
    axis.axhline(dice.mean(), color=ORANGE, ls="--", label=f"mean {dice.mean():.3f}")
    axis.plot(THRESHOLDS[best], dice[best], "o", color=GREEN, ms=9, label=f"maximum {dice[best]:.3f}")
    axis.plot(0.5, half, "s", color=RED, label=f"at 0.5: {half:.3f}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def cut_at(image: np.ndarray, grey: np.ndarray, mask: np.ndarray, threshold: float) -> Figure:
    """One cut through a grey map: the verdict on every pixel, and where the cut lies on the curve of Dice."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.5), width_ratios=(1.2, 1))
    left.imshow(verdict(image, grey / 255 >= threshold, mask))
    left.set(xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    dice = dice_by_threshold(right, grey, mask)
    here = dice[np.abs(THRESHOLDS - threshold).argmin()]
    right.axvline(threshold, color="#999999", lw=1)
    right.plot(threshold, here, "o", color=RED)
    left.set_title(f"cut at {threshold:.2f}: Dice {here:.3f}")
    return figure


def paired_differences(differences: Mapping[str, np.ndarray], images: str = "") -> Figure:
    """Histograms of a difference per image, one panel a comparison, all on one scale; the mean is a vertical line.

    Args:
        differences: title of a panel → the differences, shape (n,).
        images: which images these are, for the axis.
    """
    figure, axes = plt.subplots(1, len(differences), figsize=(3.4 * len(differences), 2.8), squeeze=False, sharey=True)
    limit = max(0.05, *(float(np.abs(values).max()) for values in differences.values()))
    for axis, (name, values) in zip(axes[0], differences.items()):
        axis.hist(values, bins=np.linspace(-limit, limit, 22), color=SKY, edgecolor="white")
        axis.axvline(0, color="#444444", lw=1)
        axis.axvline(values.mean(), color=RED, lw=2, label=f"mean {values.mean():+.3f}")
        axis.set(title=name, xlabel="difference of Dice")
        axis.legend(loc="upper left")
    axes[0, 0].yaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel(f"images\n{images}" if images else "images")
    return figure


def score_by_size(frame: pd.DataFrame, bins: int = 4) -> Figure:
    """Dice of each image against its polyp's share of the image, and the networks' means over groups of equal number.

    Args:
        frame: one row an image of a network: columns ``network``, ``share`` in (0, 1], ``dice``.
        bins: groups, cut at the quantiles of the share.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for network, rows in frame.groupby("network", sort=False):
        colour = COLOUR_OF.get(network)
        axis.plot(100 * rows["share"], rows["dice"], ".", color=colour, alpha=0.3, ms=5)
        groups = rows.groupby(pd.qcut(rows["share"], bins, duplicates="drop"), observed=True)[["share", "dice"]].mean()
        axis.plot(100 * groups["share"], groups["dice"], "o-", color=colour, label=network)
    axis.set(xscale="log", xlabel="polyp's share of the image, %", ylabel="Dice", ylim=(-0.03, 1.03))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def captioned(rows: Mapping[str, Sequence[tuple[np.ndarray, str]]], size: float = 1.9) -> Figure:
    """Rows of pictures, each with a caption of its own above it.

    Args:
        rows: label of a row → its (picture, caption) pairs; a picture is uint8 (H, W, 3).
        size: inches a picture.
    """
    figure = grid({label: [picture for picture, _ in row] for label, row in rows.items()}, size=size)
    columns = max(len(row) for row in rows.values())
    for i, row in enumerate(rows.values()):
        for j, (_, caption) in enumerate(row):
            figure.axes[i * columns + j].set_title(caption, fontsize=8)
    return figure
