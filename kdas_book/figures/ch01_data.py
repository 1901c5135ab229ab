"""Figures of images and masks: chapter 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.data.duplicates import BITS, NEAR, NearDuplicate
from kdas_book.figures.basics import BLUE, GREEN, ORANGE, RED, SKY, grid, outlined
from kdas_core.data.dataset import resize_pair
from kdas_core.data.images import read_image, read_mask


def edge_window(mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square window on the mask's edge, at the edge pixel that is nearest to
    the picture's centre.

    Args:
        mask: bool (H, W) with at least one True. side: pixels; at most H and W.
    """
    height, width = mask.shape
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    edge = mask & ~inner if (mask & ~inner).any() else mask
    rows, columns = np.nonzero(edge)
    nearest = np.argmin((rows - height / 2) ** 2 + (columns - width / 2) ** 2)
    top = int(np.clip(rows[nearest] - side // 2, 0, height - side))
    left = int(np.clip(columns[nearest] - side // 2, 0, width - side))
    return slice(top, top + side), slice(left, left + side)


def trivial_predictors(shares: np.ndarray) -> Figure:
    """How large the polyps are, and what two predictors that never look would score on a polyp of
    each size.

    Args:
        shares: the polyp's share of each image, in (0, 1].
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3))
    median = float(np.median(shares))
    left.hist(100 * shares, bins=np.linspace(0, 100 * max(shares), 26), color=SKY)
    left.axvline(100 * median, color="black", lw=1)
    left.annotate(f" median {100 * median:.1f} %", (100 * median, left.get_ylim()[1]), va="top")
    left.set(xlabel="polyp's share of the image, %", ylabel="training images")
    left.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
    p = np.linspace(0.001, 0.999, 400)
    right.plot(100 * p, 1 - p, "--", color=BLUE, label="all background: accuracy")
    right.plot(100 * p, 0 * p, "-", color=BLUE, label="all background: Dice")
    right.plot(100 * p, p, "--", color=ORANGE, label="all foreground: accuracy")
    right.plot(100 * p, 2 * p / (1 + p), "-", color=ORANGE, label="all foreground: Dice")
    right.axvline(100 * median, color="black", lw=1)
    right.set(xlabel="polyp's share of the image, %", ylabel="score", ylim=(-0.03, 1.03))
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return figure


def twins(pairs: Sequence[NearDuplicate], side: int = 220) -> Figure:
    """Pictures that are alike, one above the other, each with the outline of its own mask and its
    set and file.

    Where two pictures are one (`twins.NEAR`), the Dice of their masks says how well two drawings of
    one polyp agree.

    Args:
        pairs: as ``Check.near`` or ``Check.closest`` hold them; with none, the figure says so.
        side: pixels; pictures are squeezed into squares, as a network sees them.
    """
    if not pairs:
        figure, axis = plt.subplots(figsize=(4, 0.8))
        axis.text(0.5, 0.5, "no two pictures to compare", ha="center", va="center")
        axis.axis("off")
        return figure
    columns = [
        [resize_pair(read_image(p.image), read_mask(p.mask), side) for p in found.pairs]
        for found in pairs
    ]
    rows = {
        row: [outlined(*column[i]) for column in columns]
        for i, row in enumerate(("one", "the other"))
    }
    figure = grid(rows, size=1.65)
    for k, found in enumerate(pairs):
        for i, (name, pair) in enumerate(zip(found.sets, found.pairs)):
            file = pair.name if len(pair.name) <= 18 else pair.name[:17] + "…"
            figure.axes[i * len(pairs) + k].set_title(f"{name}\n{file}", fontsize=7)
        below = f"{found.distance} of {BITS} bits apart"
        if found.distance <= NEAR:  # one picture, drawn twice
            one, other = (mask > 0 for _, mask in columns[k])
            below += f"\nDice of the masks {2 * (one & other).sum() / max(1, one.sum() + other.sum()):.2f}"
        figure.axes[len(pairs) + k].set_xlabel(below, fontsize=8)
    return figure


def colour_histograms(sets: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """One panel a set: how often each brightness of red, green and blue occurs, a line style for
    each kind of picture.

    Args:
        sets: name of a set → kind of picture (``"drawn"``, ``"real"``) → histogram (3, bins), rows
            summing to 1.
    """
    figure, axes = plt.subplots(
        1, len(sets), figsize=(2.1 * len(sets), 2.2), sharey=True, squeeze=False
    )
    for axis, (name, kinds) in zip(axes[0], sets.items()):
        for (kind, histogram), line in zip(kinds.items(), ("-", ":")):
            bins = histogram.shape[1]
            level = (np.arange(bins) + 0.5) * 256 / bins
            for row, colour, word in zip(histogram, (RED, GREEN, BLUE), ("red", "green", "blue")):
                axis.plot(level, 100 * row, line, color=colour, lw=1.4, label=f"{word}, {kind}")
        axis.set(title=name, xlabel="grey level", xticks=(0, 128, 255))
    axes[0, 0].set_ylabel("% of lit pixels")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def spreads(tables: Mapping[str, Mapping[str, pd.DataFrame]], columns: Mapping[str, str]) -> Figure:
    """One panel a statistic: the middle 80 % of each set as a bar, its median as a tick; a colour
    for each kind of picture.

    An axis is logarithmic where its bars span a factor of five or more, and linear where they do
    not.

    Args:
        tables: name of a set → kind of picture → a row a picture, as
            `kdas_book.data.image_statistics.describe` returns them.
        columns: column of the tables → label of the panel's axis.
    """
    figure, axes = plt.subplots(
        1, len(columns), figsize=(2.9 * len(columns), 0.5 * len(tables) + 0.9), sharey=True
    )
    for axis, (column, label) in zip(np.atleast_1d(axes), columns.items()):
        ends = []
        for row, kinds in enumerate(tables.values()):
            for place, (kind, table) in enumerate(kinds.items()):
                height = row + 0.34 * (place - (len(kinds) - 1) / 2)
                low, median, high = table[column].quantile([0.1, 0.5, 0.9])
                colour = (BLUE, ORANGE)[place]
                axis.plot(
                    [low, high],
                    [height] * 2,
                    color=colour,
                    lw=6,
                    alpha=0.55,
                    solid_capstyle="butt",
                    label=kind,
                )
                ends += [low, high]
                axis.plot([median] * 2, [height - 0.15, height + 0.15], color="black", lw=1.5)
        axis.set(xlabel=label, yticks=range(len(tables)), yticklabels=list(tables))
        if max(ends) >= 5 * min(ends):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_formatter(plt.NullFormatter())
        axis.xaxis.set_major_formatter("{x:g}")
    axis.invert_yaxis()
    handles, words = axis.get_legend_handles_labels()
    axis.legend(*zip(*{w: (h, w) for h, w in zip(handles, words)}.values()), fontsize=8, loc="best")
    return figure
