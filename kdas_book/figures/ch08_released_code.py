"""Figures of the audit of the released program: chapter 8."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import patheffects
from matplotlib.figure import Figure

from kdas_book.figures.basics import BLUE, GREEN, ORANGE, PURPLE, RED
from kdas_core.data.layout import FULL_COUNTS

COLOUR_OF_SET = dict(zip(FULL_COUNTS, (BLUE, ORANGE, GREEN, PURPLE, RED)))


def training_log(pooled: pd.DataFrame, reaches: float = 0.7) -> Figure:
    """One line a run over its epochs, in the colour of its script, its number at its end; the
    rarest script is drawn on top.

    Runs that reach a score stand in the upper panel, which shows the scores from there upwards; the
    others in the lower one.

    Args:
        pooled: columns ``run``, ``script``, ``epoch``, ``pooled``.
        reaches: the score.
    """
    best = pooled.groupby("run")["pooled"].max()
    upper = pooled[pooled["run"].isin(best.index[best >= reaches])]
    runs_of = pooled.groupby("script")["run"].nunique().sort_values(ascending=False)
    colours = dict(zip(sorted(runs_of.index), (BLUE, ORANGE, GREEN)))
    figure, axes = plt.subplots(2, 1, figsize=(8, 5.4), sharex=True, height_ratios=(1.5, 1))
    for axis, part in zip(axes, (upper, pooled.drop(upper.index))):
        for (
            script
        ) in runs_of.index:  # the most frequent one first, so that a single run is not buried
            for _, run in part[part["script"] == script].groupby("run"):
                axis.plot(run["epoch"], run["pooled"], color=colours[script], lw=1.1)
    axes[0].set(
        ylabel="soft Dice, all test images", ylim=(reaches, max(1.01 * best.max(), reaches + 0.01))
    )
    axes[1].set(ylabel="soft Dice", xlabel="epoch", ylim=(0, reaches))
    for axis, part in zip(axes, (upper, pooled.drop(upper.index))):
        _number_the_ends(axis, part, colours)
    handles = [
        plt.Line2D([], [], color=colours[script], label=f"{script} ({runs_of[script]})")
        for script in colours
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    return figure


def _number_the_ends(axis: plt.Axes, runs: pd.DataFrame, colours: dict[str, str]) -> None:
    """Write each run's number beside its last point; of numbers that would overlap the lower one
    moves down.
    """
    low, high = axis.get_ylim()
    apart, near = (high - low) / 16, 4.0  # in scores and in epochs
    ends = runs.sort_values("epoch").groupby("run").last().sort_values("pooled", ascending=False)
    placed: list[tuple[float, float]] = []
    for number, end in ends.iterrows():
        y = end["pooled"]
        while any(abs(end["epoch"] - x) < near and abs(y - other) < apart for x, other in placed):
            y -= apart / 8
        placed.append((end["epoch"], y))
        text = axis.text(
            end["epoch"] + 0.6,
            y,
            f"{number}",
            color=colours[end["script"]],
            fontsize=8,
            va="center",
            weight="bold",
        )
        text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])


def one_logged_run(scores: pd.DataFrame, pooled: pd.Series) -> Figure:
    """One run's epochs: a line for each test set, the pooled score in black, its best epoch and the
    last one marked.

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
