"""Figures of chapter 1: images and masks, on disk and drawn."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.data.duplicates import BITS, NEAR, NearDuplicate
from kdas_book.figures.basics import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    SKY,
    as_map,
    error_overlay,
    grid,
    outlined,
)
from kdas_core.data.dataset import resize_image, resize_pair
from kdas_core.data.images import read_image, read_mask
from kdas_core.data.layout import PairIndex


def with_masks(pairs: Iterable[tuple], titles: Sequence[str] = (), size: float = 1.9) -> Figure:
    """Three rows: images, their masks, bool or in 0 … 255, and the outlines of these on those."""
    rows: dict[str, list] = {"image": [], "mask": [], "both": []}
    for image, mask in pairs:
        mask = as_map(mask) / (1 if mask.dtype == bool else 255)
        for row, cell in zip(rows.values(), (image, mask, outlined(image, mask))):
            row.append(cell)
    return grid(rows, titles, size, cmap="gray", vmin=0, vmax=1)


def enlarged(cells: Mapping[str, np.ndarray], window: tuple[slice, slice], white: float) -> Figure:
    """One window of several grey pictures, pixel by pixel."""
    row = [cell[window] for cell in cells.values()]
    look = {"cmap": "gray", "vmin": 0, "vmax": white, "interpolation": "nearest"}
    return grid({"": row}, list(cells), size=2.1, **look)


def edge_window(mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square window on the mask's edge, at the edge pixel nearest to the
    picture's centre.

    Args:
        mask: bool (H, W) with at least one True. side: pixels; at most H and W.
    """
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = np.nonzero(mask & ~inner if (mask & ~inner).any() else mask)
    height, width = mask.shape
    nearest = np.argmin((rows - height / 2) ** 2 + (columns - width / 2) ** 2)
    top = int(np.clip(rows[nearest] - side // 2, 0, height - side))
    left = int(np.clip(columns[nearest] - side // 2, 0, width - side))
    return slice(top, top + side), slice(left, left + side)


def trivial_predictors(shares: np.ndarray) -> Figure:
    """How large the polyps are (shares of their images, in (0, 1]), and what two predictors that
    never look would score on a polyp of each size.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3))
    median, p = 100 * float(np.median(shares)), np.linspace(0.001, 0.999, 400)
    left.hist(100 * shares, bins=np.linspace(0, 100 * max(shares), 26), color=SKY)
    left.annotate(f" median {median:.1f} %", (median, left.get_ylim()[1]), va="top")
    left.set_ylabel("training images")
    left.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
    right.plot(100 * p, 1 - p, "--", color=BLUE, label="all background: accuracy")
    right.plot(100 * p, 0 * p, "-", color=BLUE, label="all background: Dice")
    right.plot(100 * p, p, "--", color=ORANGE, label="all foreground: accuracy")
    right.plot(100 * p, 2 * p / (1 + p), "-", color=ORANGE, label="all foreground: Dice")
    right.set(ylabel="score", ylim=(-0.03, 1.03))
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    for axis in (left, right):
        axis.axvline(median, color="black", lw=1)
        axis.set_xlabel("polyp's share of the image, %")
    return figure


def at_size(
    size: int, picture: np.ndarray, mask: np.ndarray, answer: np.ndarray, dice: float
) -> Figure:
    """A picture, what is left of it at a size in pixels, and an answer's verdict with its Dice."""
    small, frame = resize_image(picture, size), mask.shape[::-1]
    seen = cv2.resize(small, frame, interpolation=cv2.INTER_NEAREST)
    titles = ["the picture", f"as seen at {size} px", f"perfect copy: Dice {dice:.3f}"]
    return grid({"": [picture, seen, error_overlay(picture, answer, mask)]}, titles, fontsize=9)


def copied(pairs: PairIndex) -> Path:
    """A temporary folder with copies of the pairs, which goes when Python ends."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for part in ("image", "mask"):
        (place / f"{part}s").mkdir()
        for pair in pairs:
            shutil.copy(getattr(pair, part), place / f"{part}s")
    return place


def by_name_and_order(pairs: Sequence[tuple[Path, Path]], own: Mapping[str, np.ndarray]) -> Figure:
    """Images with the outline of their own mask, and with that of the mask they are given."""
    rows: dict[str, list] = {"by name": [], "by order": []}
    for image, given in pairs:
        for row, mask in zip(rows.values(), (own[image.stem], read_mask(given))):
            row.append(outlined(*resize_pair(read_image(image), mask, 256)))
    return grid(rows, [f"pair {i + 1}" for i in range(len(pairs))], size=1.4)


def most_alike(judged: PairIndex, known: PairIndex, likeness: np.ndarray) -> Figure:
    """The four pictures that are most like a known one, above those, with their likeness.

    Args:
        likeness: (judged, known), 1 for the same picture.
    """
    closest = np.argsort(-likeness.max(1))[:4]
    chosen = judged.take(closest)
    partners = known.take(likeness[closest].argmax(1))
    rows = {
        label: [resize_image(read_image(pair.image), 200) for pair in pairs]
        for label, pairs in (("validation", chosen), ("training", partners))
    }
    titles = [name[:12] for name in chosen.names]
    titles += [f"likeness {value:.3f}" for value in likeness[closest].max(1)]
    return grid(rows, titles, size=1.7, fontsize=8)


def twins(pairs: Sequence[NearDuplicate], side: int = 220) -> Figure:
    """Pictures that are alike, one above the other, each with the outline of its own mask and its
    set and file. Where two pictures are one, the Dice of their masks says how well two drawings of
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
    rows: dict[str, list] = {"one": [], "the other": []}
    titles, below = [], []
    for found in pairs:
        small = [resize_pair(read_image(p.image), read_mask(p.mask), side) for p in found.pairs]
        for row, pair in zip(rows.values(), small):
            row.append(outlined(*pair))
        below.append(f"{found.distance} of {BITS} bits apart")
        if found.distance <= NEAR:  # one picture, drawn twice
            one, other = (mask > 0 for _, mask in small)
            dice = 2 * (one & other).sum() / max(1, one.sum() + other.sum())
            below[-1] += f"\nDice of the masks {dice:.2f}"
    for i in (0, 1):
        for found in pairs:
            name = found.pairs[i].name
            file = name if len(name) <= 18 else name[:17] + "…"
            titles.append(f"{found.sets[i]}\n{file}")
    figure = grid(rows, titles, size=1.65, fontsize=7)
    for axis, words in zip(figure.axes[len(pairs) :], below):
        axis.set_xlabel(words, fontsize=8)
    return figure


def colour_histograms(sets: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """One panel a set: how often each brightness of red, green and blue occurs, a line style for
    each kind of picture.

    Args:
        sets: name of a set → kind of picture (``"drawn"``, ``"real"``) → histogram (3, bins), rows
            summing to 1.
    """
    inches = (2.1 * len(sets), 2.2)
    figure, axes = plt.subplots(1, len(sets), figsize=inches, sharey=True, squeeze=False)
    for axis, (name, kinds) in zip(axes[0], sets.items()):
        for (kind, histogram), line in zip(kinds.items(), ("-", ":")):
            level = (np.arange(histogram.shape[1]) + 0.5) * 256 / histogram.shape[1]
            for row, colour, word in zip(histogram, (RED, GREEN, BLUE), ("red", "green", "blue")):
                axis.plot(level, 100 * row, line, color=colour, lw=1.4, label=f"{word}, {kind}")
        axis.set(title=name, xlabel="grey level", xticks=(0, 128, 255))
    axes[0, 0].set_ylabel("% of lit pixels")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def spreads(tables: Mapping[str, Mapping[str, pd.DataFrame]], columns: Mapping[str, str]) -> Figure:
    """One panel a statistic: the middle 80 % of each set as a bar, its median as a tick; a colour
    for each kind of picture. An axis is logarithmic where its bars span a factor of five or more.

    Args:
        tables: name of a set → kind of picture → a row a picture, as
            `kdas_book.data.image_statistics.describe` returns them.
        columns: column of the tables → label of the panel's axis.
    """
    inches = (2.9 * len(columns), 0.5 * len(tables) + 0.9)
    figure, axes = plt.subplots(1, len(columns), figsize=inches, sharey=True, squeeze=False)
    for axis, (column, label) in zip(axes[0], columns.items()):
        ends = []
        for row, kinds in enumerate(tables.values()):
            heights = row + 0.34 * (np.arange(len(kinds)) - (len(kinds) - 1) / 2)
            for height, colour, (kind, table) in zip(heights, (BLUE, ORANGE), kinds.items()):
                low, median, high = table[column].quantile([0.1, 0.5, 0.9])
                axis.hlines(height, low, high, color=colour, lw=6, alpha=0.55, label=kind)
                axis.vlines(median, height - 0.15, height + 0.15, color="black", lw=1.5)
                ends += [low, high]
        axis.set(xlabel=label, yticks=range(len(tables)), yticklabels=list(tables))
        if max(ends) >= 5 * min(ends):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_formatter(plt.NullFormatter())
        axis.xaxis.set_major_formatter("{x:g}")
    axis.invert_yaxis()
    handles, words = axis.get_legend_handles_labels()
    by_kind = dict(zip(words, handles))
    axis.legend(by_kind.values(), by_kind.keys(), fontsize=8, loc="best")
    return figure
