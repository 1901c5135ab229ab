"""Figures of chapter 3: what a network costs, and the student beside its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures.basics import BLUE, GREEN, ORANGE, PALETTE, as_map, dice, error_overlay, grid


def stacked(parts: pd.DataFrame, label: str, percent: bool = False) -> Figure:
    """Horizontal bars, one a row of the table, made of its columns; with ``percent`` every bar has
    length 100.
    """
    figure, axis = plt.subplots(figsize=(7, 0.55 * len(parts) + 1.3))
    shown = 100 * parts.div(parts.sum(axis=1), axis=0) if percent else parts
    shown.plot.barh(ax=axis, stacked=True, color=PALETTE, width=0.6)
    axis.set(xlabel=label, ylabel="")
    axis.invert_yaxis()
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def beside_teacher(
    image: Tensor, probabilities: Mapping[str, Tensor], mask: Tensor, threshold: float
) -> Figure:
    """The verdicts on probability maps cut at one threshold, with the Dice of each.

    Args:
        image: (3, S, S), normalised. probabilities: of each network, and mask: (1, S, S) in [0, 1].
    """
    pictures, titles, true = [], [], as_map(mask) >= 0.5
    for name, probability in probabilities.items():
        found = as_map(probability) >= threshold
        pictures.append(error_overlay(image, found, true))
        titles.append(f"{name} ≥ {threshold:.2f}: Dice {dice(found, true):.3f}")
    return grid({"": pictures}, titles, size=2.5)


def probabilities_by_place(probability: Tensor, places: Mapping[str, Tensor]) -> Figure:
    """Histograms of probabilities in several sets of pixels, each relative to its own number of
    pixels, on a log scale.

    Args:
        probability: in [0, 1], any shape. places: name → bool tensor of that shape.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3))
    edges = np.linspace(0, 1, 26)
    for (name, where), colour in zip(places.items(), (ORANGE, BLUE, GREEN)):
        counts, _ = np.histogram(probability[where].cpu().numpy(), edges)
        axis.stairs(100 * counts / max(1, counts.sum()), edges, lw=2, color=colour, label=name)
    axis.set(xlabel="the teacher's probability of polyp", ylabel="pixels of the group, %")
    axis.set_yscale("log")
    axis.legend(loc="upper center")
    return figure
