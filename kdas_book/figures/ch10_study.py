"""Figures of a study: many training runs, few seeds. Chapter 10, and ``kdas study report``."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import BLUE, COLOUR_OF, GREEN, GREY, RED, WIDTH, labelled, lines
from kdas_book.figures.ch07_evaluation import forest


def scores_by_seed(scores: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """A panel a test set, on one scale: a dot a run, a tick a mean, the teacher dashed."""
    labels = [label for label in dict.fromkeys(scores["objective"]) if label != "teacher"]
    options = {"sharex": True, "sharey": True}
    figure, axes = plots.side_by_side(len(titles), WIDTH, 0.28 * len(labels) + 0.9, **options)
    for axis, (dataset, title) in zip(axes, titles.items()):
        rows = scores[scores["dataset"] == dataset]
        by_seed = rows.pivot(index="objective", columns="seed", values="dice")
        for value in by_seed.reindex(["teacher"]).loc["teacher"].dropna():
            axis.axvline(value, color=COLOUR_OF["teacher"], ls="--", lw=1)
        for y, label in enumerate(labels):
            values, colour = by_seed.loc[label].dropna(), COLOUR_OF.get(label, f"C{y}")
            axis.plot(values, np.full(len(values), y), "o", color=colour, ms=5, alpha=0.75)
            axis.plot([values.mean()] * 2, [y - 0.38, y + 0.38], color=colour, lw=2.5)
        axis.set_title(title)
        axis.grid(axis="x", color="#e4e4e4")
    names = [label.replace(" (raw guiding)", " (raw)") for label in labels]
    axes[0].set(yticks=range(len(labels)), yticklabels=names, ylim=(len(labels) - 0.4, -0.6))
    figure.supxlabel("Dice (dashed: the teacher)")
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


def dice_by_share(shares: Mapping[str, pd.Series], teachers: Mapping[str, float]) -> Figure:
    """A column a share of the masks, with one Dice a run (index ``(objective, seed)``): a dot a
    seed, a line an objective; dashed and open where the label ends with ``_all``, that is, where
    images without masks take part. A short line is the Dice of the share's teacher.
    """
    axis = plt.figure(figsize=(WIDTH, 3.8)).subplots()
    table = pd.concat(shares, names=["share"]).rename("dice").reset_index()
    columns = {share: x for x, share in enumerate(shares)}
    labels = table["objective"].unique()
    for i, label in enumerate(labels):
        of_all, mine = label.endswith("_all"), table[table["objective"] == label]
        colour = COLOUR_OF.get(label.removesuffix("_all"), f"C{i}")
        x = mine["share"].map(columns) + 0.09 * (i - (len(labels) - 1) / 2)
        axis.plot(x, mine["dice"], "_", color=colour, alpha=0.6)
        mean, look = mine["dice"].groupby(x).mean(), {"mfc": "white" if of_all else colour}
        axis.plot(mean.index, mean, "o--" if of_all else "o-", color=colour, label=label, **look)
    for share, dice in teachers.items():
        ends = columns[share] - 0.32, columns[share] + 0.32
        axis.plot(ends, [dice, dice], color=COLOUR_OF["teacher"], lw=2)
    axis.plot([], [], color=COLOUR_OF["teacher"], lw=2, label="teacher")
    axis.set_xticks(list(columns.values()), list(columns))
    return labelled(axis, "masks of the training images that are used", "Dice, last epoch")


def agreement_and_dice(ends: pd.DataFrame, base: str = "supervised") -> Figure:
    """How much more like the teacher, and how much better, than the ``base`` of its seed: a small
    dot a run, a large one their mean. ``ends``: ``registered.endpoints``.
    """
    axis = plt.figure(figsize=(WIDTH, 3.6)).subplots()
    axis.axhline(0, color="#999999", lw=1)
    axis.axvline(0, color="#999999", lw=1)
    of = ends[["agreement", "dice"]]
    for i, label in enumerate(of.index.unique("objective").drop(["teacher", base], "ignore")):
        gain, colour = of.loc[label] - of.loc[base], COLOUR_OF.get(label, f"C{i}")
        axis.plot(gain["agreement"], gain["dice"], "o", color=colour, ms=4, alpha=0.35, mew=0)
        mean = gain.mean()
        axis.plot(*mean, "osD^vP*Xd"[i % 9], color=colour, ms=9, mec="white", label=label)
    across = f"more like the teacher's masks than {base} (Dice)"
    return labelled(axis, across, f"better than {base} (Dice)")


def contrasts_forest(
    contrasts: pd.DataFrame, gains: Mapping[str, pd.Series], margin: float, unit: str = "Dice"
) -> Figure:
    """A row a contrast of ``registered.contrasts``, or a claim of ``report.claims_table``: mean and
    95 % interval, the margin within which a difference counts as none as a band, and the verdict as
    a badge at the right. ``gains`` has differences seed by seed, drawn as dots.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.7 + 0.42 * len(contrasts)))
    axis.axvspan(-margin, margin, color="#e8e8e8", lw=0, zorder=0)
    axis.axvline(0, color="#444444", lw=1)
    words = {"above": BLUE, "below": RED, "equivalent": GREEN}
    for y, row in enumerate(contrasts.itertuples()):
        word = row.verdict.removesuffix(" here")
        colour = words.get(word.split()[0], GREY)
        if row.Index in gains:
            seeds = gains[row.Index].dropna()
            axis.plot(seeds, np.full(len(seeds), y + 0.22), "o", color=colour, alpha=0.4, mew=0)
        axis.plot([row.low, row.high], [y, y], color=colour, lw=2.5)
        axis.plot(row.difference, y, "D", color=colour, ms=6, mec="white")
        badge: dict = {"xycoords": ("axes fraction", "data"), "va": "center", "color": "white"}
        badge["bbox"] = {"boxstyle": "round", "fc": colour, "ec": "none"}
        axis.annotate(word, (1.03, y), **badge)
    names = [textwrap.fill(str(name), 60) for name in contrasts.index]
    axis.set(yticks=range(len(contrasts)), yticklabels=names)
    axis.set_ylim(len(contrasts) - 0.4, -0.6)
    axis.set_xlabel(f"difference of {unit} (band: counts as none)")
    return figure
