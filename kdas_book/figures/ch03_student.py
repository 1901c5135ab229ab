"""Figures of what networks do to an image: chapters 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from kdas_book.figures.basics import (
    BLUE,
    GREEN,
    ORANGE,
    PALETTE,
    YELLOW,
    as_map,
    as_picture,
    error_overlay,
    grid,
    outlined,
)


def strength(features: Tensor) -> Tensor:
    """How strongly a feature map speaks at each position: root mean square over channels, (B, C, H,
    W) → (B, H, W).
    """
    return features.square().mean(dim=1).sqrt()


def through_cells(image: Tensor, mask: Tensor, strides: Sequence[int] = (4, 8, 16, 32)) -> Figure:
    """The outline of a mask on its image, then the mask as cells of each stride see it: the polyp's
    share of each cell.

    Args:
        image: (3, S, S), normalised. mask: (1, S, S) in [0, 1].
    """
    cells = [avg_pool2d(mask, stride) for stride in strides]
    sides = [
        f"stride {stride}\n{cell.shape[-2]} × {cell.shape[-1]} cells"
        for stride, cell in zip(strides, cells)
    ]
    row = [outlined(image, mask), *cells]
    return grid({"": row}, ["image and mask", *sides], vmin=0, vmax=1, cmap="gray")


def anchor_grid(assignment: Tensor) -> Figure:
    """The assignment maps of all anchors, each where its anchor lies in the picture, with the
    anchor's number, from 1.

    One scale for all; 1 is an equal share.

    Args:
        assignment: (N, h, w) with N = side², sums to 1 over N at each position.
    """
    side, relative = round(len(assignment) ** 0.5), assignment * len(assignment)
    rows = {" " * i: list(relative[i * side : (i + 1) * side]) for i in range(side)}  # blank labels
    figure = grid(rows, size=1.3, vmin=float(relative.min()), vmax=float(relative.max()))
    figure.set_layout_engine("compressed")
    for number, axis in enumerate(figure.axes, start=1):
        axis.set_title(f"anchor {number}", fontsize=8)
    bar = figure.colorbar(
        figure.axes[0].images[0], ax=figure.axes, shrink=0.7, label="× equal share"
    )
    cast(plt.ScalarFormatter, bar.formatter).set_useOffset(False)
    return figure


def anchor_on(image: Tensor, assignment: Tensor, anchor: int) -> Figure:
    """One anchor: the cell that it averages, framed in the picture, beside the positions that are
    assigned to it.

    Args:
        image: (3, S, S), normalised.
        assignment: (N, h, w) with N = side²; the anchors are the inner cells of a (side + 2) ×
            (side + 2) grid.
        anchor: counted from 0, row by row.
    """
    side, picture = round(len(assignment) ** 0.5), as_picture(image)
    cell = picture.shape[0] / (side + 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 2.5))
    left.imshow(picture)
    corner = ((anchor % side + 1) * cell - 0.5, (anchor // side + 1) * cell - 0.5)
    left.add_patch(plt.Rectangle(corner, cell, cell, fill=False, edgecolor=YELLOW, lw=2))
    drawn = right.imshow(as_map(assignment[anchor]) * len(assignment))
    left.set_title(f"cell of anchor {anchor + 1}")
    right.set_title("assigned to it")
    for axis in (left, right):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=right, shrink=0.9, label="× equal share")
    cast(plt.ScalarFormatter, bar.formatter).set_useOffset(False)
    return figure


def edge_band(mask: Tensor, width: int) -> Tensor:
    """True where a pixel lies at most ``width`` pixels from the outline of the mask; bool (B, 1, H,
    W).
    """
    solid, side = (mask >= 0.5).float(), 2 * width + 1
    grown = max_pool2d(solid, side, stride=1, padding=width)
    shrunk = -max_pool2d(-solid, side, stride=1, padding=width)
    return grown != shrunk


def stacked(parts: pd.DataFrame, label: str, percent: bool = False) -> Figure:
    """Horizontal bars, one a row of the table, made of its columns; with ``percent`` every bar has
    length 100.
    """
    figure, axis = plt.subplots(figsize=(7, 0.55 * len(parts) + 1.3))
    shown = 100 * parts.div(parts.sum(axis=1), axis=0) if percent else parts
    left = np.zeros(len(parts))
    for column, colour in zip(shown, PALETTE):
        axis.barh(shown.index, shown[column], left=left, color=colour, label=column, height=0.6)
        left += shown[column].to_numpy()
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def beside_teacher(
    image: Tensor, teacher: Tensor, student: Tensor, mask: Tensor, threshold: float
) -> Figure:
    """The verdicts on two probability maps cut at one threshold, with the Dice of each.

    Args:
        image: (3, S, S), normalised. teacher, student, mask: (1, S, S) in [0, 1].
    """
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.9))
    true = as_map(mask) >= 0.5
    for axis, name, probability in zip(axes, ("teacher", "student"), (teacher, student)):
        found = as_map(probability) >= threshold
        dice = 2 * (found & true).sum() / max(1, found.sum() + true.sum())
        axis.imshow(error_overlay(image, found, true))
        axis.set(xticks=[], yticks=[], title=f"{name} ≥ {threshold:.2f}: Dice {dice:.3f}")
        axis.spines[:].set_visible(False)
    return figure


def probabilities_by_place(
    probability: Tensor, places: Mapping[str, Tensor], bins: int = 25
) -> Figure:
    """Histograms of probabilities in several sets of pixels, each relative to its own number of
    pixels, on a log scale.

    Args:
        probability: in [0, 1], any shape. places: name → bool tensor of that shape.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3))
    edges = np.linspace(0, 1, bins + 1).tolist()
    for (name, where), colour in zip(places.items(), (ORANGE, BLUE, GREEN)):
        values = probability[where].cpu().numpy()
        weights = np.full(len(values), 100 / max(1, len(values)))
        axis.hist(values, edges, weights=weights, histtype="step", lw=2, color=colour, label=name)
    axis.set(
        xlabel="the teacher's probability of polyp", ylabel="pixels of the group, %", yscale="log"
    )
    axis.legend(loc="upper center")
    return figure
