"""Figures of a study: many training runs, few seeds. Chapter 9, and ``kdas study report``."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures.basics import COLOUR_OF, PALETTE, labelled, lines, side_by_side
from kdas_book.figures.ch07_evaluation import forest


def _colours(table: pd.DataFrame) -> dict[str, str]:
    """Label → colour (its own, or one by its place) of each objective but the teacher."""
    labels = [label for label in dict.fromkeys(table["objective"]) if label != "teacher"]
    return {label: COLOUR_OF.get(label, PALETTE[i % 7]) for i, label in enumerate(labels)}


def scores_by_seed(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """One panel a test set, by its title: every training run a dot, the mean of its label a bar, a
    thin line for each seed; the teacher is dashed. Columns ``objective, seed, dataset, dice``.
    """
    colours = _colours(scores)
    width = max(7 / len(titles), 1.75)
    figure, axes = side_by_side(len(titles), width, 3.2, sharey=True)
    for axis, (dataset, title) in zip(axes, titles.items()):
        rows = scores[scores["dataset"] == dataset]
        by_seed = rows.pivot(index="objective", columns="seed", values="dice")
        for value in by_seed.reindex(["teacher"]).loc["teacher"].dropna():
            axis.axhline(value, color=COLOUR_OF["teacher"], ls="--", lw=1)
        axis.plot(by_seed.loc[list(colours)].to_numpy(), color="#bbbbbb", lw=0.7, zorder=0)
        for x, (label, colour) in enumerate(colours.items()):
            values = by_seed.loc[label].dropna()
            axis.plot(np.full(len(values), x), values, "o", color=colour, ms=5, alpha=0.75)
            axis.plot([x - 0.35, x + 0.35], [values.mean()] * 2, color=colour, lw=2.5)
        axis.set_title(title)
        axis.set_xticks(range(len(colours)), list(colours), rotation=90, fontsize=8)
        axis.margins(x=0.12)
    axes[0].set_ylabel("Dice (dashed: the teacher)")
    return figure


def curves_by_objective(curves: pd.DataFrame) -> Figure:
    """Mean over the seeds after each epoch, and the range of the seeds as a band; columns
    ``objective``, ``seed``, ``epoch``, ``val_dice``.
    """
    students = curves[curves["objective"] != "teacher"].groupby(["epoch", "objective"], sort=False)
    by_epoch = students["val_dice"].agg(["mean", "min", "max"]).unstack()
    figure = lines(by_epoch["mean"], "epoch", "validation Dice")
    (axis,) = figure.axes
    for line in list(axis.lines):
        low, high = by_epoch["min"][line.get_label()], by_epoch["max"][line.get_label()]
        axis.fill_between(low.index, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    return figure


def differences_by_set(images: pd.DataFrame, seeds: pd.DataFrame) -> Figure:
    """A panel a label: differences of Dice from supervised on each set, as :func:`forest` draws
    them: ``images`` as ``study.report.compare_to_baseline`` gives it, ``seeds`` as
    ``seed_differences`` does.
    """
    labels = images.index.unique(0)
    tables, spreads = ({label: of.loc[label] for label in labels} for of in (images, seeds))
    figure = forest(tables, spreads)
    figure.supxlabel("difference of Dice from supervised", fontsize=10)
    return figure


def lines_by_group(table: pd.DataFrame, across: str, value: str) -> Figure:
    """A line for each row of a table over its columns."""
    return lines(table.T.rename(index=str), across, value)


def agreement_and_dice(scores: pd.DataFrame, base: str = "supervised") -> Figure:
    """How much more like the teacher's masks, and how much better, each training run is on each set
    than the one of ``base`` with its seed.
    """
    axis = plt.figure(figsize=(7, 3.6)).subplots()
    axis.axhline(0, color="#999999", lw=1)
    axis.axvline(0, color="#999999", lw=1)
    of = scores.set_index(["objective", "seed", "dataset"])[["agreement", "dice"]]
    for label, colour in _colours(scores).items():
        if label != base:
            gain = of.loc[label] - of.loc[base]
            dots = axis.plot(gain["agreement"], gain["dice"], "o", color=colour, label=label)
            plt.setp(dots, alpha=0.8)
    across = f"more like the teacher's masks than {base} (Dice)"
    return labelled(axis, across, f"better than {base} (Dice)")
