"""Figures of chapter 1: images and masks, on disk and drawn; and its simulation of a choice."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import SVG
from matplotlib.figure import Figure

from kdas_book.data.duplicates import BITS, NEAR, NearDuplicate
from kdas_book.figures import basics as plots
from kdas_book.figures.basics import BLUE, RED
from kdas_book.figures.svg import PLAIN, Canvas
from kdas_core.data.dataset import resize_image, resize_pair
from kdas_core.data.images import read_image
from kdas_core.data.layout import Pair, PairIndex
from kdas_core.data.masks import read_mask

SHARE = "polyp's share of the image, %"


def squeezed(pair: Pair, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of a pair as squares, as a network sees them."""
    return resize_pair(read_image(pair.image), read_mask(pair.mask), side)


def with_masks(pairs: Iterable[tuple], titles: Sequence[str] = (), size: float = 1.9) -> Figure:
    """Three rows: images, their masks, bool or in 0 … 255, and the outlines of these on those."""
    images, given = zip(*pairs)
    masks = [mask / (1 if mask.dtype == bool else 255) for mask in given]
    rows = {"image": images, "mask": masks, "both": list(map(plots.outlined, images, masks))}
    return plots.grid(rows, titles, size, cmap="gray", vmin=0, vmax=1)


def enlarged(cells: Mapping[str, np.ndarray], mask: np.ndarray, side: int, white: float) -> Figure:
    """A window of grey pictures, ``side`` pixels wide, at the edge of a bool mask (H, W)."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    edge = np.argwhere(mask & ~inner if (mask & ~inner).any() else mask)
    nearest = edge[((edge - np.array(mask.shape) / 2) ** 2).sum(1).argmin()]
    top, left = np.clip(nearest - side // 2, 0, np.array(mask.shape) - side)
    row = [cell[top : top + side, left : left + side] for cell in cells.values()]
    look = {"cmap": "gray", "interpolation": "nearest"}
    return plots.grid({"": row}, list(cells), 2.1, vmin=0, vmax=white, **look)


def trivial_predictors(shares: np.ndarray) -> Figure:
    """How large the polyps are, in (0, 1], and what predictors that never look score."""
    _, (left, right) = plots.side_by_side(2, 4, 2.8)
    median, p = 100 * float(np.median(shares)), np.linspace(0.001, 0.999, 400)
    left.hist(100 * shares, bins=np.linspace(0, 100 * max(shares), 26), color=plots.SKY)
    left.annotate(f" median {median:.1f}\u202f%", (median, left.get_ylim()[1]), va="top")
    left.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
    left.set(xlabel=SHARE, ylabel="training images")
    right.plot(100 * p, 1 - p, "C0--", label="all background: accuracy")
    right.plot(100 * p, 0 * p, "C0-", label="all background: Dice")
    right.plot(100 * p, p, "C1--", label="all foreground: accuracy")
    right.plot(100 * p, 2 * p / (1 + p), "C1-", label="all foreground: Dice")
    for axis in (left, right):
        axis.axvline(median, color="black", lw=1)
    return plots.labelled(right, SHARE, "score", ylim=(-0.03, 1.03))


def at_size(size: int, picture: np.ndarray, mask: np.ndarray, answer: np.ndarray) -> Figure:
    """An image, what is left of it at a size in pixels, and the verdict on a copy of its mask."""
    seen = cv2.resize(resize_image(picture, size), mask.shape[::-1], None, 0, 0, cv2.INTER_NEAREST)
    row = [picture, seen, plots.error_overlay(picture, answer, mask)]
    last = f"perfect copy: Dice {plots.dice(answer, mask):.3f}"
    return plots.grid({"": row}, ["the image", f"as seen at {size} px", last])


def copy_pairs(pairs: PairIndex, place: Path) -> None:
    """Copy the pairs' files into new folders, ``place/images`` and ``place/masks``."""
    for part in ("image", "mask"):
        (place / f"{part}s").mkdir()
        for pair in pairs:
            shutil.copy(getattr(pair, part), place / f"{part}s")


def by_name_and_order(by_order: Sequence[tuple[Path, Path]], pairs: PairIndex) -> Figure:
    """Images with the outline of their own mask, and with that of the mask they get by order."""
    own = {pair.name: pair for pair in pairs}
    rows = {"by name": [own[image.stem] for image, _ in by_order]}
    rows["by order"] = [Pair("", *files) for files in by_order]
    drawn = {k: [plots.outlined(*squeezed(pair, 256)) for pair in row] for k, row in rows.items()}
    return plots.grid(drawn, [f"pair {i + 1}" for i in range(len(by_order))], size=1.4)


def near_duplicates(pairs: Sequence[NearDuplicate]) -> Figure:
    """Pictures that are alike, one above the other, each with its own mask's outline, set and file;
    where two pictures are one, the Dice of their masks says how well two drawings agree.
    """
    if not pairs:
        figure = plt.figure(figsize=(4, 0.8))
        figure.text(0.5, 0.5, "no two pictures to compare", ha="center", va="center")
        return figure
    rows: dict[str, list] = {"one": [], "the other": []}
    titles = []
    for i, row in enumerate(rows.values()):
        for found in pairs:
            row.append(plots.outlined(*squeezed(found.pairs[i], 220)))
            titles.append(f"{found.sets[i]}\n{found.pairs[i].name[:18]}")
    figure = plots.grid(rows, titles, size=1.65)
    for found, axis in zip(pairs, figure.axes[len(pairs) :]):
        below = f"{found.distance} of {BITS} bits apart"
        if found.distance <= NEAR:  # one picture, drawn twice
            one, other = (squeezed(pair, 220)[1] > 0 for pair in found.pairs)
            below += f"\nDice of the masks {plots.dice(one, other):.2f}"
        axis.set_xlabel(below)
    return figure


def leaks(shared: pd.DataFrame, images: Mapping[str, int]) -> SVG:
    """Training set (the first) and test sets with their number of ``images``, and an arrow for each
    row of ``shared``: ``shared`` of ``of`` images or videos (``what``) of the target are in the
    source (two test sets: the next or last box); of one set, so many occur more than once.
    """
    rows = list(shared.itertuples())
    told = {r: f"{r.shared:,} of {r.of:,} {r.what}" for r in rows}
    about = "; ".join(f"of {r.target}, {told[r]} are also in {r.source}" for r in rows)
    train, *tests = images
    canvas = Canvas("leaks", "What the public sets share", f"{about}.", 86 * len(tests) + 12)
    box = {}
    for i, (name, count) in enumerate(images.items()):
        place = (14, 20, 168, 86 * len(tests) - 28) if i == 0 else (330, 86 * i - 66, 176, 58)
        twice = [f"{r.shared} of them repeated" for r in rows if r.source == r.target == name]
        box[name] = canvas.box(
            place, name, f"{count:,} images", *twice, colour=(BLUE, PLAIN)[i > 0]
        )
    for r in rows:
        a, b = box[r.source], box[r.target]
        if r.source == train != r.target:
            canvas.arrow((182, b.left().y), b.left(), colour=RED)
            canvas.text(256, b.left().y - 11, told[r], fill=RED)
        elif r.source != r.target:
            ends = (a.top(), b.bottom()) if a.y > b.y else (a.bottom(), b.top())
            canvas.arrow(*ends, colour=RED)
            canvas.text(408, (ends[0].y + ends[1].y) / 2, told[r], fill=RED, anchor="end")
    return canvas.svg()


def score_of_chosen(test: np.ndarray, validation: np.ndarray) -> float:
    """The test score, mean over rows, of the column that is best on validation; both (n, m)."""
    chosen = validation.argmax(axis=1)
    return float(np.take_along_axis(test, chosen[:, None], axis=1).mean())
