"""Figures of a study: many training runs, few seeds. Chapter 9, and ``kdas study report``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures.basics import BLUE, COLOUR_OF, PALETTE
from kdas_book.figures.ch07_evaluation import intervals


def _students(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Label, colour (its own, or one by its place) and rows of each objective but the teacher."""
    labels = [label for label in dict.fromkeys(table["objective"]) if label != "teacher"]
    for i, label in enumerate(labels):
        colour = COLOUR_OF.get(label, PALETTE[i % len(PALETTE)])
        yield label, colour, table[table["objective"] == label]


def _labelled(axis: plt.Axes, x: str, y: str) -> None:
    """Names of the axes, and a legend to the right of them."""
    axis.set(xlabel=x, ylabel=y)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def scores_by_seed(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """One panel a test set, by its title: every training run a dot, the mean of its label a bar, a
    thin line for each seed; the teacher is dashed. Columns ``objective, seed, dataset, dice``.
    """
    size = max(7.0, 1.75 * len(titles)), 3.2
    figure, axes = plt.subplots(1, len(titles), figsize=size, squeeze=False, sharey=True)
    for axis, (dataset, title) in zip(axes[0], titles.items()):
        rows = scores[scores["dataset"] == dataset]
        by_seed = rows.pivot(index="objective", columns="seed", values="dice")
        for value in by_seed.loc["teacher"].dropna() if "teacher" in by_seed.index else ():
            axis.axhline(value, color=COLOUR_OF["teacher"], ls="--", lw=1)
        labels = [label for label, _, _ in _students(scores)]
        axis.plot(range(len(labels)), by_seed.loc[labels], color="#bbbbbb", lw=0.7, zorder=0)
        for x, (label, colour, _) in enumerate(_students(scores)):
            values = by_seed.loc[label].dropna()
            axis.plot(np.full(len(values), x), values, "o", color=colour, ms=5, alpha=0.75)
            axis.plot([x - 0.35, x + 0.35], [values.mean()] * 2, color=colour, lw=2.5)
        axis.set_title(title, fontsize=9)
        names = [label.replace(" (raw guiding)", " (raw)") for label in labels]
        axis.set_xticks(range(len(labels)), names, rotation=90, fontsize=8)
        axis.margins(x=0.12)
    axes[0, 0].set_ylabel("Dice (dashed: the teacher)")
    return figure


def curves_by_objective(curves: pd.DataFrame) -> Figure:
    """Mean over the seeds after each epoch, and the range of the seeds as a band; columns
    ``objective``, ``seed``, ``epoch``, ``val_dice``.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for label, colour, rows in _students(curves):
        by_epoch = rows.groupby("epoch")["val_dice"]
        by_epoch.mean().plot(ax=axis, color=colour, label=label, marker="o", ms=3)
        low, high = by_epoch.min(), by_epoch.max()
        axis.fill_between(low.index, low, high, color=colour, alpha=0.15, lw=0)
    axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    _labelled(axis, "epoch", "validation Dice")
    return figure


def differences_by_set(images: pd.DataFrame, seeds: pd.DataFrame) -> Figure:
    """A panel a label: differences of Dice from the base on each set. The thick bar is the interval
    over images (filled dot: Holm p below 0.05), the thin line below it the interval over seeds.

    Args:
        images: as ``study.report.compare_to_baseline`` gives it.
        seeds: as ``study.report.seed_differences`` gives it.
    """
    labels, sets = (list(images.index.unique(level)) for level in (0, 1))
    across = min(3, len(labels))
    down = -(-len(labels) // across)
    size = 2.6 * across + 1, (0.9 + 0.4 * len(sets)) * down
    # Each panel has its own scale: what matters is on which side of 0 a line ends.
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharey=True)
    for axis in axes.flat[len(labels) :]:
        axis.axis("off")
    for axis, label in zip(axes.flat, labels):
        spread = seeds.loc[label].loc[sets]
        y = np.arange(len(sets)) + 0.22
        line = {"color": "#333333", "lw": 1.2, "marker": "|", "ms": 5}
        axis.plot([spread["low"], spread["high"]], [y, y], **line)
        intervals(axis, images.loc[label].loc[sets], up=0.12, lw=3, alpha=0.6)
        axis.set_title(label, fontsize=9)
        axis.set(yticks=range(len(sets)), yticklabels=sets, ylim=(len(sets) - 0.4, -0.6))
        axis.xaxis.get_major_locator().set_params(nbins=5)
    figure.supxlabel("difference of Dice from supervised", fontsize=10)
    return figure


def lines_by_group(table: pd.DataFrame, across: str, value: str) -> Figure:
    """A line for each row of a table over its columns."""
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for i, (label, row) in enumerate(table.iterrows()):
        colour = COLOUR_OF.get(label, PALETTE[i % len(PALETTE)])
        axis.plot(table.columns.astype(str), row, marker="o", ms=4, color=colour, label=label)
    _labelled(axis, across, value)
    return figure


def agreement_and_dice(scores: pd.DataFrame, base: str = "supervised") -> Figure:
    """How much more like the teacher's masks, and how much better, each training run is on each set
    than the one of ``base`` with its seed.
    """
    figure, axis = plt.subplots(figsize=(7, 3.6))
    axis.axhline(0, color="#999999", lw=1)
    axis.axvline(0, color="#999999", lw=1)
    table = {
        label: rows.set_index(["seed", "dataset"])[["agreement", "dice"]]
        for label, _, rows in _students(scores)
    }
    for label, colour, _ in _students(scores):
        gain = (table[label] - table[base]).dropna()
        if label != base:
            points = axis.plot(gain["agreement"], gain["dice"], "o", color=colour, label=label)
            plt.setp(points, markersize=5, alpha=0.8)
    _labelled(
        axis, f"more like the teacher's masks than {base} (Dice)", f"better than {base} (Dice)"
    )
    return figure


def power_curve(found: Mapping[int, float], title: str) -> Figure:
    """How often a test finds a difference: seeds → probability, and a line at the usual 0.8."""
    figure, axis = plt.subplots(figsize=(6, 2.8))
    axis.plot(list(found), list(found.values()), color=BLUE, marker="o", ms=3)
    axis.axhline(0.8, color="#999999", lw=1)
    enough = next((f"{n} seeds" for n, power in found.items() if power >= 0.8), None)
    axis.set_title(f"{title}: {enough or f'more than {max(found)} seeds'}")
    axis.set(xlabel="seeds of each objective", xlim=(1, max(found) + 1))
    axis.set(ylabel="chance of finding it", ylim=(-0.03, 1.03))
    return figure
