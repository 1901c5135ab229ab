"""Figures of a study: many training runs, few seeds. Chapter 10, and ``kdas study report``."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures.basics import (
    BLUE,
    COLOUR_OF,
    GREEN,
    GREY,
    RED,
    WIDTH,
    labelled,
    lines,
    side_by_side,
)
from kdas_book.figures.ch07_evaluation import forest


def scores_by_seed(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """A panel a test set: a dot a run, a bar a mean, a thin line a seed, the teacher dashed."""
    labels = [label for label in dict.fromkeys(scores["objective"]) if label != "teacher"]
    width = max(7 / len(titles), 1.75)
    figure, axes = side_by_side(len(titles), width, 3.2, sharey=True)
    for axis, (dataset, title) in zip(axes, titles.items()):
        rows = scores[scores["dataset"] == dataset]
        by_seed = rows.pivot(index="objective", columns="seed", values="dice")
        for value in by_seed.reindex(["teacher"]).loc["teacher"].dropna():
            axis.axhline(value, color=COLOUR_OF["teacher"], ls="--", lw=1)
        axis.plot(by_seed.loc[labels].to_numpy(), color="#bbbbbb", lw=0.7, zorder=0)
        for x, label in enumerate(labels):
            values, colour = by_seed.loc[label].dropna(), COLOUR_OF.get(label, f"C{x}")
            axis.plot(np.full(len(values), x), values, "o", color=colour, ms=5, alpha=0.75)
            axis.plot([x - 0.35, x + 0.35], [values.mean()] * 2, color=colour, lw=2.5)
        axis.set_title(title)
        names = [label.replace(" (raw guiding)", " (raw)") for label in labels]
        axis.set_xticks(range(len(labels)), names, rotation=90)
        axis.margins(x=0.12)
    axes[0].set_ylabel("Dice (dashed: the teacher)")
    return figure


def curves_by_objective(curves: pd.DataFrame) -> Figure:
    """Validation Dice after each epoch, mean over the seeds, with their range as a band."""
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
    """A panel a label: differences of Dice from supervised, as :func:`forest` draws them."""
    labels = images.index.unique(0)
    tables, spreads = ({label: of.loc[label] for label in labels} for of in (images, seeds))
    figure = forest(tables, spreads)
    figure.supxlabel("difference of Dice from supervised")
    return figure


def lines_by_group(table: pd.DataFrame, across: str, value: str) -> Figure:
    """A line for each row of a table over its columns."""
    return lines(table.T.rename(index=str), across, value)


def agreement_and_dice(scores: pd.DataFrame, base: str = "supervised") -> Figure:
    """How much more like the teacher, and how much better, a run is than its seed's ``base``."""
    axis = plt.figure(figsize=(WIDTH, 3.6)).subplots()
    axis.axhline(0, color="#999999", lw=1)
    axis.axvline(0, color="#999999", lw=1)
    of = scores.set_index(["objective", "seed", "dataset"])[["agreement", "dice"]]
    for i, label in enumerate(dict.fromkeys(scores["objective"])):
        if label not in ("teacher", base):
            gain, colour = of.loc[label] - of.loc[base], COLOUR_OF.get(label, f"C{i}")
            dots = axis.scatter(gain["agreement"], gain["dice"], s=25, color=colour, label=label)
            dots.set_alpha(0.8)
    across = f"more like the teacher's masks than {base} (Dice)"
    return labelled(axis, across, f"better than {base} (Dice)")


def contrasts_forest(
    contrasts: pd.DataFrame, gains: Mapping[str, pd.Series], margin: float, unit: str = "Dice"
) -> Figure:
    """A row a contrast of ``registered.contrasts``: seeds as dots, mean and 95 % interval, the
    margin within which a difference counts as none as a band, and the verdict at the right.
    ``gains`` has each contrast's differences, seed by seed.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.7 + 0.42 * len(contrasts)))
    axis.axvspan(-margin, margin, color="#e8e8e8", lw=0, zorder=0)
    axis.axvline(0, color="#444444", lw=1)
    words = {"above": BLUE, "below": RED, "equivalent": GREEN}
    for y, row in enumerate(contrasts.itertuples()):
        word = row.verdict.removesuffix(" here")
        colour = words.get(word.split()[0], GREY)
        seeds = gains[row.Index].dropna()
        axis.plot(seeds, np.full(len(seeds), y + 0.22), "o", color=colour, alpha=0.4, ms=4, mew=0)
        axis.plot([row.low, row.high], [y, y], color=colour, lw=2.5)
        axis.plot(row.difference, y, "D", color=colour, ms=6, mec="white")
        place: dict = {"xycoords": ("axes fraction", "data"), "va": "center"}
        axis.annotate(word, (1.02, y), color=colour, fontweight="bold", **place)
    axis.set(yticks=range(len(contrasts)), yticklabels=contrasts.index)
    axis.set_ylim(len(contrasts) - 0.4, -0.6)
    axis.set_xlabel(f"difference of {unit} (band: counts as none)")
    return figure
