"""Figures of chapter 3: what a network costs, and the student beside its teacher."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures.basics import as_map, dice, error_overlay, grid


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
    figure, axis = plt.subplots(figsize=(6.4, 3))
    values = [probability[where].cpu().numpy() for where in places.values()]
    percent = [np.full(len(part), 100 / max(1, len(part))) for part in values]
    look: dict = {"histtype": "step", "lw": 2, "log": True, "label": list(places)}
    axis.hist(values, np.linspace(0, 1, 26).tolist(), weights=percent, **look)
    axis.set(xlabel="the teacher's probability of polyp", ylabel="pixels of the group, %")
    axis.legend(loc="upper center")
    return figure
