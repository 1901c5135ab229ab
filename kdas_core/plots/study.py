"""Figures of a study: many trainings, few seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_core.plots.basics import BLUE, COLOUR_OF, PALETTE, RED


def scores_by_seed(scores: pd.DataFrame, datasets: Sequence[str], metric: str = "dice") -> Figure:
    """One panel a test set: every training a dot, the mean of its label a line; the teacher is a dashed line.

    Args:
        scores: columns ``objective``, ``seed``, ``dataset`` and the metric.
    """
    figure, axes = plt.subplots(1, len(datasets), figsize=(max(7.0, 1.75 * len(datasets)), 3.2), squeeze=False)
    labels = [label for label in dict.fromkeys(scores["objective"]) if label != "teacher"]
    for axis, dataset in zip(axes[0], datasets):
        rows = scores[scores["dataset"] == dataset]
        for x, label in enumerate(labels):
            values = rows.loc[rows["objective"] == label, metric].to_numpy()
            colour = _colour(label, x)
            axis.plot(np.full(len(values), x), values, "o", color=colour, ms=5, alpha=0.75)
            axis.plot([x - 0.35, x + 0.35], [values.mean()] * 2, color=colour, lw=2.5)
        for value in rows.loc[rows["objective"] == "teacher", metric]:
            axis.axhline(value, color=COLOUR_OF["teacher"], ls="--", lw=1)
        axis.set_title(dataset, fontsize=9)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        axis.margins(x=0.12)
    axes[0, 0].set_ylabel(f"{metric.capitalize()} (dashed: the teacher)")
    return figure


def curves_by_objective(curves: pd.DataFrame, column: str = "val_dice") -> Figure:
    """The mean over the seeds after each epoch, and the range of the seeds as a band.

    Args:
        curves: columns ``objective``, ``seed``, ``epoch`` and the column.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    labels = [label for label in dict.fromkeys(curves["objective"]) if label != "teacher"]
    for i, label in enumerate(labels):
        by_epoch = curves[curves["objective"] == label].groupby("epoch")[column].agg(["mean", "min", "max"])
        axis.plot(by_epoch.index, by_epoch["mean"], color=_colour(label, i), label=label, marker="o", ms=3)
        axis.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=_colour(label, i), alpha=0.15, lw=0)
    axis.set(xlabel="epoch", ylabel="validation Dice")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def differences_by_set(images: pd.DataFrame, seeds: pd.DataFrame) -> Figure:
    """A panel a label: differences of Dice from the base on each set. The bar is the interval over images (filled dot: Holm p below
    0.05), the thin line the interval over seeds.

    Args:
        images: as ``study.report.against`` gives it. seeds: as ``study.report.over_seeds`` gives it.
    """
    labels = list(dict.fromkeys(images.index.get_level_values(0)))
    sets = list(dict.fromkeys(images.index.get_level_values(1)))
    across = min(5, len(labels))
    down = -(-len(labels) // across)
    size = max(7.0, 1.6 * across), (0.9 + 0.36 * len(sets)) * down
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat[len(labels) :]:
        axis.axis("off")
    for axis, label in zip(axes.flat, labels):
        axis.axvline(0, color="#444444", lw=1)
        for y, name in enumerate(sets):
            row, spread = images.loc[(label, name)], seeds.loc[(label, name)]
            colour = BLUE if row["difference"] >= 0 else RED
            axis.plot([spread["low"], spread["high"]], [y, y], color="#999999", lw=1)
            axis.plot([row["low"], row["high"]], [y, y], color=colour, lw=3, solid_capstyle="butt")
            axis.plot(row["difference"], y, "o", color=colour, ms=6, mfc=colour if row["p_holm"] < 0.05 else "white")
        axis.set_title(label, fontsize=9)
        axis.set(yticks=range(len(sets)), yticklabels=sets, ylim=(len(sets) - 0.5, -0.5))
        axis.tick_params(axis="x", labelsize=8)
    figure.supxlabel("difference of Dice from supervised", fontsize=10)
    return figure


def lines_by_group(table: pd.DataFrame, across: str, value: str) -> Figure:
    """A line for each row of a table over its columns."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for i, (label, row) in enumerate(table.iterrows()):
        axis.plot(range(len(row)), row, marker="o", ms=4, color=_colour(str(label), i), label=label)
    axis.set_xticks(range(table.shape[1]), table.columns)
    axis.set(xlabel=across, ylabel=value)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def agreement_and_dice(scores: pd.DataFrame) -> Figure:
    """Each training on each set: how like the teacher's its masks are, and how good they are."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    rows = scores[scores["objective"] != "teacher"]
    for i, (label, part) in enumerate(rows.groupby("objective", sort=False)):
        axis.plot(part["agreement"], part["dice"], "o", ms=5, alpha=0.8, color=_colour(str(label), i), label=label)
    low = float(min(rows["agreement"].min(), rows["dice"].min()))
    axis.plot([low, 1], [low, 1], color="#999999", lw=1)
    axis.set(xlabel="Dice against the teacher's masks", ylabel="Dice against the true masks")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def power_curve(found: Mapping[int, float], title: str, wanted: float = 0.8) -> Figure:
    """How often a test finds a difference, against the number of seeds, and the power that one wants.

    Args:
        found: seeds → probability.
    """
    figure, axis = plt.subplots(figsize=(6, 2.8))
    axis.plot(list(found), list(found.values()), color=BLUE, marker="o", ms=3)
    axis.axhline(wanted, color="#999999", lw=1)
    enough = next((n for n, power in found.items() if power >= wanted), None)
    axis.set_title(f"{title}: " + (f"{enough} seeds" if enough else f"more than {max(found)} seeds"))
    axis.set(xlabel="seeds of each objective", ylabel="found", ylim=(-0.03, 1.03), xlim=(1, max(found) + 1))
    return figure


def _colour(label: str, position: int) -> str:
    """The label's own, or one by its place among the labels."""
    return COLOUR_OF.get(label) or PALETTE[position % len(PALETTE)]
