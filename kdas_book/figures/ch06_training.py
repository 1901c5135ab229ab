"""Figures of trainings: chapter 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures.basics import BLUE, COLOUR_OF, GREEN, ORANGE, PALETTE, PURPLE, RED, SKY


def at_true_size(pictures: Mapping[str, np.ndarray], inches: float = 7.0) -> Figure:
    """Pictures side by side, each drawn as large as it is in pixels compared with the others."""
    heights, widths = zip(*(picture.shape[:2] for picture in pictures.values()))
    size = (inches, inches * max(heights) / sum(widths) + 0.4)
    figure, axes = plt.subplots(1, len(pictures), figsize=size, width_ratios=widths)
    for axis, (title, picture) in zip(np.atleast_1d(axes), pictures.items()):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[], title=title, anchor="S")
        axis.spines[:].set_visible(False)
    return figure


def clamped_or_clipped(angle: float, length: float = 1.2, limit: float = 0.5) -> Figure:
    """A gradient of two elements, clamped element by element to ±limit (left) and shortened to
    length limit (right).

    Args:
        angle: of the gradient, degrees from the first axis.
    """
    gradient = length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    ways = {
        "elements clamped": np.clip(gradient, -limit, limit),
        "norm clipped": gradient * min(1, limit / length),
    }
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.9))
    borders = (
        plt.Rectangle((-limit, -limit), 2 * limit, 2 * limit, fill=False, ls="--", ec="#888888"),
        plt.Circle((0, 0), limit, fill=False, ls="--", ec="#888888"),
    )
    for axis, border, (name, after) in zip(axes, borders, ways.items()):
        cosine = min(1.0, float(after @ gradient / np.linalg.norm(after) / length))
        axis.add_patch(border)
        for arrow, colour in ((gradient, "#bbbbbb"), (after, BLUE)):
            axis.annotate(
                "",
                arrow,
                (0, 0),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.5, "shrinkB": 0},
            )
        axis.set(
            xlim=(-0.6, 1.3),
            ylim=(-0.6, 1.3),
            xticks=[-0.5, 0, 0.5, 1],
            yticks=[-0.5, 0, 0.5, 1],
            aspect="equal",
        )
        axis.set_title(f"{name}: turned by {np.degrees(np.arccos(cosine)):.0f}°")
    return figure


def cosine_by_limit(cosines: pd.DataFrame, limit: float) -> Figure:
    """Cosine between a gradient and its clamped self over the limit of the clamp (the index);
    ``limit`` is marked.
    """
    figure, axis = plt.subplots(figsize=(6, 2.8))
    for name, colour in zip(cosines, PALETTE):
        axis.plot(cosines.index, cosines[name], color=colour, marker="o", ms=3, label=name)
    axis.axvline(limit, color="#888888", ls="--", lw=1)
    axis.annotate(
        f" ±{limit:g}, the recipe's",
        (limit, 0.02),
        color="#555555",
        xycoords=("data", "axes fraction"),
    )
    axis.set(
        xscale="log", xlabel="every element clamped to ± this", ylabel="cosine", ylim=(None, 1.02)
    )
    axis.legend(loc="best")
    return figure


def schedules(rates: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rates over the batches of a training."""
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for (name, values), colour in zip(rates.items(), PALETTE):
        axis.plot(np.arange(1, len(values) + 1), values, color=colour, label=name, lw=2)
    axis.set(xlabel="batch", ylabel="learning rate", ylim=(0, None))
    axis.legend(loc="lower left", bbox_to_anchor=(0.1, 0))
    return figure


def terms_and_dice(terms: pd.DataFrame, students: Mapping[str, pd.DataFrame]) -> Figure:
    """Left: every term of an objective over the epochs (the index), log scale. Right: validation
    Dice of several runs.

    The epoch that is kept, the one with the highest validation Dice, has a ring.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.1))
    for name, colour in zip(terms, (BLUE, SKY, ORANGE, RED, GREEN, PURPLE)):
        dashed = {"color": "black", "ls": "--"} if name == "total" else {"color": colour}
        left.plot(
            terms.index,
            terms[name].clip(lower=1e-6),
            marker="o",
            ms=3,
            label=name.replace("_", " "),
            **dashed,
        )
    left.set(yscale="log", xlabel="epoch", title="terms of the objective, training images")
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    for name, history in students.items():
        best = history.loc[history["val_dice"].idxmax()]
        own = COLOUR_OF.get(name)
        right.plot(history["epoch"], history["val_dice"], marker="o", ms=3, color=own, label=name)
        right.plot(best["epoch"], best["val_dice"], "o", ms=11, mfc="none", mec=own, mew=2)
    right.set(xlabel="epoch", title="Dice on the validation split", ylim=(0, 1))
    right.legend()
    return figure


def optimism(bias: pd.DataFrame, epochs: int) -> Figure:
    """How much too high a reported score is, over the number of checkpoints (the index); ``epochs``
    is marked.
    """
    figure, axis = plt.subplots(figsize=(6, 3))
    for name, colour in zip(bias, PALETTE):
        axis.plot(bias.index, bias[name], color=colour, marker="o", ms=3, label=name)
    axis.axvline(epochs, color="#888888", ls="--", lw=1)
    axis.annotate(
        f"{epochs} epochs ",
        (epochs, 0.5),
        color="#555555",
        ha="right",
        xycoords=("data", "axes fraction"),
    )
    axis.set(xscale="log", xlabel="checkpoints to choose from", ylabel="reported − true Dice")
    axis.axhline(0, color="#888888", lw=0.8)
    axis.legend(loc="upper left", title="the best is chosen on")
    return figure
