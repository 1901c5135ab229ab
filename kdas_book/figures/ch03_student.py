"""Figures of chapter 3: what a network costs, and the student beside its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures.basics import BESIDE, PALETTE, as_map, dice, error_overlay, grid


def stacked(parts: pd.DataFrame, label: str) -> Figure:
    """Horizontal bars, one a row of the table, made of its columns."""
    figure, axis = plt.subplots(figsize=(7, 0.55 * len(parts) + 1.3))
    parts.plot.barh(ax=axis, stacked=True, color=PALETTE, width=0.6, xlabel=label, ylabel="")
    axis.invert_yaxis()
    axis.legend(**BESIDE)
    return figure


def beside_teacher(
    image: Tensor, probabilities: Mapping[str, Tensor], mask: Tensor, threshold: float
) -> Figure:
    """The verdicts on the networks' probability maps (1, S, S) cut at one threshold, with the Dice
    of each; image (3, S, S), normalised, mask (1, S, S).
    """
    true = as_map(mask) >= 0.5
    shown = {}
    for name, probability in probabilities.items():
        found = as_map(probability) >= threshold
        title = f"{name} ≥ {threshold:.2f}: Dice {dice(found, true):.3f}"
        shown[title] = error_overlay(image, found, true)
    return grid({"": list(shown.values())}, list(shown), size=2.5)


def probabilities_by_place(probability: Tensor, places: Mapping[str, Tensor]) -> Figure:
    """Histograms of probabilities, each relative to its own number of pixels, on a log scale;
    places: name → bool tensor of the probabilities' shape.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3))
    values = [probability[where].cpu().numpy() for where in places.values()]
    percent = [np.full(len(part), 100 / max(1, len(part))) for part in values]
    look = {"histtype": "step", "lw": 2, "log": True}
    axis.hist(values, np.linspace(0, 1, 26), weights=percent, label=list(places), **look)
    axis.set(xlabel="the teacher's probability of polyp", ylabel="pixels of the group, %")
    axis.legend(loc="upper center")
    return figure
