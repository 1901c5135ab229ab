"""Figures of a study: many trainings, few seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures.basics import BLUE, COLOUR_OF, PALETTE, RED


def scores_by_seed(scores: pd.DataFrame, titles: Mapping[str, str], metric: str = "dice") -> Figure:
    """One panel a test set: every training a dot, the mean of its label a bar, a thin line for each
    seed; the teacher is dashed.

    Args:
        scores: columns ``objective``, ``seed``, ``dataset`` and the metric.
        titles: data set → title of its panel.
    """
    size = max(7.0, 1.75 * len(titles)), 3.2
    figure, axes = plt.subplots(1, len(titles), figsize=size, squeeze=False, sharey=True)
    labels = [label for label in dict.fromkeys(scores["objective"]) if label != "teacher"]
    for axis, (dataset, title) in zip(axes[0], titles.items()):
        rows = scores[scores["dataset"] == dataset]
        by_seed = (
            rows[rows["objective"] != "teacher"]
            .pivot(index="objective", columns="seed", values=metric)
            .loc[labels]
        )
        axis.plot(
            range(len(labels)), by_seed, color="#bbbbbb", lw=0.7, zorder=0
        )  # one line a seed: these are pairs
        for x, label in enumerate(labels):
            values = rows.loc[rows["objective"] == label, metric].to_numpy()
            colour = _colour(label, x)
            axis.plot(np.full(len(values), x), values, "o", color=colour, ms=5, alpha=0.75)
            axis.plot([x - 0.35, x + 0.35], [values.mean()] * 2, color=colour, lw=2.5)
        for value in rows.loc[rows["objective"] == "teacher", metric]:
            axis.axhline(value, color=COLOUR_OF["teacher"], ls="--", lw=1)
        axis.set_title(title, fontsize=9)
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
        by_epoch = (
            curves[curves["objective"] == label]
            .groupby("epoch")[column]
            .agg(["mean", "min", "max"])
        )
        axis.plot(
            by_epoch.index, by_epoch["mean"], color=_colour(label, i), label=label, marker="o", ms=3
        )
        axis.fill_between(
            by_epoch.index,
            by_epoch["min"],
            by_epoch["max"],
            color=_colour(label, i),
            alpha=0.15,
            lw=0,
        )
    axis.set(xlabel="epoch", ylabel="validation Dice")
    cast(plt.MaxNLocator, axis.xaxis.get_major_locator()).set_params(integer=True)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def differences_by_set(images: pd.DataFrame, seeds: pd.DataFrame) -> Figure:
    """A panel a label: differences of Dice from the base on each set. The thick bar is the interval
    over images (filled dot: Holm p below 0.05), the thin line below it the interval over seeds.
    Blue lies above 0, red below.

    Args:
        images: as ``study.report.compare_to_baseline`` gives it. seeds: as ``study.report.seed_differences`` gives
            it.
    """
    labels = list(dict.fromkeys(images.index.get_level_values(0)))
    sets = list(dict.fromkeys(images.index.get_level_values(1)))
    across = min(3, len(labels))
    down = -(-len(labels) // across)
    size = 2.6 * across + 1, (0.9 + 0.4 * len(sets)) * down
    # Each panel has its own scale: what matters is on which side of 0 a line ends.
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharey=True)
    for axis in axes.flat[len(labels) :]:
        axis.axis("off")
    for axis, label in zip(axes.flat, labels):
        axis.axvline(0, color="#444444", lw=1)
        for y, name in enumerate(sets):
            row, spread = images.loc[(label, name)], seeds.loc[(label, name)]
            colour = BLUE if row["difference"] >= 0 else RED
            axis.plot(
                [spread["low"], spread["high"]],
                [y + 0.22] * 2,
                color="#333333",
                lw=1.2,
                marker="|",
                ms=5,
            )
            axis.plot(
                [row["low"], row["high"]],
                [y - 0.12] * 2,
                color=colour,
                lw=3,
                solid_capstyle="butt",
                alpha=0.6,
            )
            face = colour if row["p_holm"] < 0.05 else "white"
            axis.plot(row["difference"], y - 0.12, "o", color=colour, ms=5, mfc=face, zorder=3)
        axis.set_title(label, fontsize=9)
        axis.set(yticks=range(len(sets)), yticklabels=sets, ylim=(len(sets) - 0.4, -0.6))
        axis.tick_params(axis="x", labelsize=8)
        axis.xaxis.get_major_locator().set_params(nbins=5)
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


def agreement_and_dice(scores: pd.DataFrame, base: str = "supervised") -> Figure:
    """Each training on each set against the one of ``base`` with its seed: how much more like the
    teacher's its masks are, how much better they are."""
    figure, axis = plt.subplots(figsize=(7, 3.6))
    rows = scores[scores["objective"] != "teacher"].set_index(["objective", "seed", "dataset"])[
        ["agreement", "dice"]
    ]
    for axis_line in (axis.axhline, axis.axvline):
        axis_line(0, color="#999999", lw=1)
    labels = list(dict.fromkeys(rows.index.get_level_values("objective")))
    for i, label in enumerate(labels):
        gain = (rows.loc[label] - rows.loc[base]).dropna()
        if label != base:
            axis.plot(
                gain["agreement"],
                gain["dice"],
                "o",
                ms=5,
                alpha=0.8,
                color=_colour(label, i),
                label=label,
            )
    axis.set(
        xlabel=f"more like the teacher's masks than {base} (Dice)",
        ylabel=f"better than {base} (Dice)",
    )
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def power_curve(found: Mapping[int, float], title: str, wanted: float = 0.8) -> Figure:
    """How often a test finds a difference, against the number of seeds, and the power that one
    wants.

    Args:
        found: seeds → probability.
    """
    figure, axis = plt.subplots(figsize=(6, 2.8))
    axis.plot(list(found), list(found.values()), color=BLUE, marker="o", ms=3)
    axis.axhline(wanted, color="#999999", lw=1)
    enough = next((n for n, power in found.items() if power >= wanted), None)
    axis.set_title(
        f"{title}: " + (f"{enough} seeds" if enough else f"more than {max(found)} seeds")
    )
    axis.set(
        xlabel="seeds of each objective",
        ylabel="chance of finding it",
        ylim=(-0.03, 1.03),
        xlim=(1, max(found) + 1),
    )
    return figure


def _colour(label: str, position: int) -> str:
    """The label's own, or one by its place among the labels."""
    return COLOUR_OF.get(label) or PALETTE[position % len(PALETTE)]
