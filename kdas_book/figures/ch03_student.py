"""Figures of chapter 3: what a network costs, and the student beside its teacher."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures.basics import GREY, ORANGE, WIDTH, as_map, dice, error_overlay, grid


def beside_teacher(image: Tensor, probabilities: Mapping, mask, threshold: float) -> Figure:
    """The verdicts on probability maps (1, L, L), cut at a threshold, and their Dice."""
    true = as_map(mask) >= 0.5
    shown = {}
    for name, probability in probabilities.items():
        found = as_map(probability) >= threshold
        title = f"{name} ≥ {threshold:.2f}: Dice {dice(found, true):.3f}"
        shown[title] = error_overlay(image, found, true)
    return grid({"": list(shown.values())}, list(shown), size=2.5)


def probabilities_by_place(probability: Tensor, places: Mapping[str, Tensor]) -> Figure:
    """Histograms of probabilities by place (bool), in % of its pixels, on a log scale."""
    figure, axis = plt.subplots(figsize=(WIDTH, 3))
    values = [probability[where].cpu().numpy() for where in places.values()]
    percent = [np.full(len(part), 100 / max(1, len(part))) for part in values]
    look: dict = {"histtype": "step", "lw": 2, "log": True, "label": list(places)}
    axis.hist(values, np.linspace(0, 1, 26).tolist(), weights=percent, **look)
    axis.set(xlabel="the teacher's probability of polyp", ylabel="pixels of the group, %")
    axis.legend(loc="upper center")
    return figure


def calibration(bins: pd.DataFrame) -> Figure:
    """The share of polyp in truth over the probability that a network says, both in per cent, a dot
    a row of ``says``, ``truth``, ``pixels``, as large as these are many; right on the diagonal.
    """
    figure, axis = plt.subplots(figsize=(4.6, 3.4))
    axis.plot([0, 100], [0, 100], color=GREY, lw=1, ls="--")
    share = bins["pixels"] / bins["pixels"].sum()
    axis.fill_between(bins["says"], bins["truth"], bins["says"], color=ORANGE, alpha=0.25, lw=0)
    axis.plot(bins["says"], bins["truth"], "-", color=GREY, lw=1.5)
    axis.scatter(bins["says"], bins["truth"], 12 + 500 * share, color=GREY, zorder=3)
    axis.set(xlabel="the teacher says, %", ylabel="polyp in truth, %", aspect="equal")
    return figure
