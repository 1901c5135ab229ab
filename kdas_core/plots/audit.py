"""Figures of the audit of the released program: chapter 8."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from kdas_core.data.pairs import FULL_COUNTS
from kdas_core.plots.basics import BLUE, GREEN, ORANGE, PURPLE, RED

COLOUR_OF_SET = dict(zip(FULL_COUNTS, (BLUE, ORANGE, GREEN, PURPLE, RED)))


def training_log(pooled: pd.DataFrame, reaches: float = 0.5) -> Figure:
    """One line a run over its epochs, in the colour of its script; dashed where it never reaches a score.

    Args:
        pooled: columns ``run``, ``script``, ``epoch``, ``pooled``.
        reaches: the score.
    """
    figure, axis = plt.subplots(figsize=(7.4, 3.4))
    colours = dict(zip(sorted(pooled["script"].unique()), (BLUE, ORANGE, GREEN)))
    for number, run in pooled.groupby("run"):
        colour, learns = colours[run["script"].iloc[0]], run["pooled"].max() >= reaches
        axis.plot(run["epoch"], run["pooled"], color=colour, lw=1.1, ls="-" if learns else "--")
        last = run.iloc[-1]
        axis.annotate(f" {number}", (last["epoch"], last["pooled"]), color=colour, fontsize=8, va="center")
    for script, colour in colours.items():
        axis.plot([], [], color=colour, label=script)
    axis.legend(loc="center right")
    axis.set(xlabel="epoch", ylabel="soft Dice, all test images", ylim=(0, 1))
    return figure


def one_logged_run(scores: pd.DataFrame, pooled: pd.Series) -> Figure:
    """One run's epochs: a line for each test set, the pooled score in black, its best epoch and the last one marked.

    Args:
        scores: soft Dice, indexed by epoch, a column for each test set. pooled: the same index.
    """
    figure, axis = plt.subplots(figsize=(6.6, 3.2))
    for name in scores:
        axis.plot(scores.index, scores[name], color=COLOUR_OF_SET[name], lw=1.2, label=name)
    axis.plot(pooled.index, pooled, color="black", lw=2, label="all images")
    best, last = pooled.idxmax(), pooled.index[-1]
    axis.axvline(best, color="black", lw=1, ls="--")
    axis.set(
        xlabel="epoch",
        ylabel="soft Dice",
        title=f"best epoch {best}: {pooled[best]:.3f}; last, {last}: {pooled[last]:.3f}",
    )
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
