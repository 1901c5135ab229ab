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
from kdas_book.figures import basics as plots
from kdas_core.data.dataset import resize_image, resize_pair
from kdas_core.data.images import read_image
from kdas_core.data.layout import Pair, PairIndex
from kdas_core.data.masks import read_mask

SHARE = "polyp's share of the image, %"
CHANNELS = {"red": plots.RED, "green": plots.GREEN, "blue": plots.BLUE}


def squeezed(pair: Pair, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a pair as squares, as a network sees them."""
    return resize_pair(read_image(pair.image), read_mask(pair.mask), side)


def with_masks(pairs: Iterable[tuple], titles: Sequence[str] = (), size: float = 1.9) -> Figure:
    """Three rows: images, their masks, bool or in 0 … 255, and the outlines of these on those."""
    images, given = zip(*pairs)
    masks = [mask / (1 if mask.dtype == bool else 255) for mask in given]
    rows = {"image": images, "mask": masks, "both": list(map(plots.outlined, images, masks))}
    return plots.grid(rows, titles, size, cmap="gray", vmin=0, vmax=1)


def enlarged(cells: Mapping[str, np.ndarray], window: tuple[slice, slice], white: float) -> Figure:
    """One window of several grey pictures, pixel by pixel."""
    row = [cell[window] for cell in cells.values()]
    look = {"cmap": "gray", "interpolation": "nearest"}
    return plots.grid({"": row}, list(cells), 2.1, None, vmin=0, vmax=white, **look)


def edge_window(mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square window, ``side`` pixels wide, on the edge of a bool mask (H, W)
    that is not empty, at the edge pixel nearest to the picture's centre.
    """
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    edge = np.argwhere(mask & ~inner if (mask & ~inner).any() else mask)
    nearest = edge[((edge - np.array(mask.shape) / 2) ** 2).sum(1).argmin()]
    top, left = np.clip(nearest - side // 2, 0, np.array(mask.shape) - side)
    return slice(top, top + side), slice(left, left + side)


def trivial_predictors(shares: np.ndarray) -> Figure:
    """How large the polyps are (shares of their images, in (0, 1]), and what two predictors that
    never look would score on a polyp of each size.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3))
    median, p = 100 * float(np.median(shares)), np.linspace(0.001, 0.999, 400)
    left.hist(100 * shares, bins=np.linspace(0, 100 * max(shares), 26), color=plots.SKY)
    left.annotate(f" median {median:.1f} %", (median, left.get_ylim()[1]), va="top")
    left.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
    left.set(xlabel=SHARE, ylabel="training images")
    right.plot(100 * p, 1 - p, "--", color=plots.BLUE, label="all background: accuracy")
    right.plot(100 * p, 0 * p, "-", color=plots.BLUE, label="all background: Dice")
    right.plot(100 * p, p, "--", color=plots.ORANGE, label="all foreground: accuracy")
    right.plot(100 * p, 2 * p / (1 + p), "-", color=plots.ORANGE, label="all foreground: Dice")
    right.set(xlabel=SHARE, ylabel="score", ylim=(-0.03, 1.03))
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    for axis in (left, right):
        axis.axvline(median, color="black", lw=1)
    return figure


def at_size(size: int, picture: np.ndarray, mask: np.ndarray, answer: np.ndarray) -> Figure:
    """A picture, what is left of it at a size in pixels, and the verdict on a copy of its mask."""
    small, frame = resize_image(picture, size), mask.shape[::-1]
    seen = cv2.resize(small, frame, interpolation=cv2.INTER_NEAREST)
    row = [picture, seen, plots.error_overlay(picture, answer, mask)]
    last = f"perfect copy: Dice {plots.dice(answer, mask):.3f}"
    return plots.grid({"": row}, ["the picture", f"as seen at {size} px", last], fontsize=9)


def copied(pairs: PairIndex) -> Path:
    """A temporary folder with copies of the pairs, which goes when Python ends."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for part in ("image", "mask"):
        (place / f"{part}s").mkdir()
        for pair in pairs:
            shutil.copy(getattr(pair, part), place / f"{part}s")
    return place


def by_name_and_order(by_order: Sequence[tuple[Path, Path]], pairs: PairIndex) -> Figure:
    """Images with the outline of their own mask, and with that of the mask they get by order."""
    own = {pair.name: pair for pair in pairs}
    rows: dict[str, list] = {"by name": [], "by order": []}
    for image, mask in by_order:
        rows["by name"].append(plots.outlined(*squeezed(own[image.stem], 256)))
        rows["by order"].append(plots.outlined(*squeezed(Pair("", image, mask), 256)))
    return plots.grid(rows, [f"pair {i + 1}" for i in range(len(by_order))], size=1.4)


def most_alike(judged: PairIndex, known: PairIndex, likeness: np.ndarray) -> Figure:
    """The four pictures that are most like a known one, above those; likeness: (judged, known)."""
    closest = np.argsort(-likeness.max(1))[:4]
    shown = {
        "validation": judged.take(closest),
        "training": known.take(likeness[closest].argmax(1)),
    }
    rows = {k: [resize_image(read_image(pair.image), 200) for pair in v] for k, v in shown.items()}
    titles = [name[:12] for name in shown["validation"].names]
    titles += [f"likeness {value:.3f}" for value in likeness[closest].max(1)]
    return plots.grid(rows, titles, size=1.7, fontsize=8)


def near_duplicates(pairs: Sequence[NearDuplicate]) -> Figure:
    """Pictures that are alike, one above the other, each with the outline of its own mask and its
    set and file; with none, the figure says so. Where two pictures are one, the Dice of their masks
    says how well two drawings of one polyp agree.
    """
    if not pairs:
        figure, axis = plt.subplots(figsize=(4, 0.8))
        axis.text(0.5, 0.5, "no two pictures to compare", ha="center", va="center")
        axis.axis("off")
        return figure
    rows, titles = {}, []
    for i, label in enumerate(("one", "the other")):
        rows[label] = [plots.outlined(*squeezed(found.pairs[i], 220)) for found in pairs]
        for found in pairs:
            name = found.pairs[i].name
            titles.append(f"{found.sets[i]}\n{name if len(name) <= 18 else name[:17] + '…'}")
    figure = plots.grid(rows, titles, size=1.65, fontsize=7)
    for found, axis in zip(pairs, figure.axes[len(pairs) :]):
        below = f"{found.distance} of {BITS} bits apart"
        if found.distance <= NEAR:  # one picture, drawn twice
            one, other = (squeezed(pair, 220)[1] > 0 for pair in found.pairs)
            below += f"\nDice of the masks {plots.dice(one, other):.2f}"
        axis.set_xlabel(below, fontsize=8)
    return figure


def colour_histograms(sets: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """One panel a set: how often each brightness of red, green and blue occurs, a line style for
    each kind of picture (``"drawn"``, ``"real"``); histograms are (3, bins), rows summing to 1.
    """
    inches = (2.1 * len(sets), 2.2)
    figure, axes = plt.subplots(1, len(sets), figsize=inches, sharey=True, squeeze=False)
    for axis, (name, kinds) in zip(axes[0], sets.items()):
        for (kind, histogram), line in zip(kinds.items(), ("-", ":")):
            level = (np.arange(histogram.shape[1]) + 0.5) * 256 / histogram.shape[1]
            for row, (word, colour) in zip(histogram, CHANNELS.items()):
                axis.plot(level, 100 * row, line, color=colour, lw=1.4, label=f"{word}, {kind}")
        axis.set(title=name, xlabel="grey level", xticks=(0, 128, 255))
    axes[0, 0].set_ylabel("% of lit pixels")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def spreads(tables: Mapping[str, Mapping[str, pd.DataFrame]], columns: Mapping[str, str]) -> Figure:
    """One panel a statistic: the middle 80 % of each set as a bar, its median as a tick; a colour
    for each kind of picture. An axis is logarithmic where its bars span a factor of five or more.

    Args:
        tables: name of a set → kind of picture → a row a picture.
        columns: column of the tables → label of the panel's axis.
    """
    inches = (2.9 * len(columns), 0.5 * len(tables) + 0.9)
    figure, axes = plt.subplots(1, len(columns), figsize=inches, sharey=True, squeeze=False)
    for axis, (column, label) in zip(axes[0], columns.items()):
        ends = []
        for row, kinds in enumerate(tables.values()):
            heights = row + 0.34 * (np.arange(len(kinds)) - (len(kinds) - 1) / 2)
            for height, colour, (kind, table) in zip(heights, plots.PALETTE, kinds.items()):
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
