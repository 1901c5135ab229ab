"""Figures of chapter 7: conventions, comparisons, and where networks fail."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import BLUE, COLOUR_OF, ORANGE, RED
from kdas_core.data.images import read_image
from kdas_core.data.layout import Pair
from kdas_core.data.masks import read_mask
from kdas_core.evaluation import CONVENTIONS, EvaluationResult, read_prediction


def about(run: Any, maps: float) -> str:
    """What the scores of a session's networks are about: images, networks, training; a list."""
    recipe, notes = run.recipe, []
    if run.data.synthetic:
        told = "**All images are synthetic**, drawn by a program; a set's name only says which "
        notes.append(f"{told}style it imitates.")
    labels = [run.data.label(name) for name in run.data.tests]
    if partial := [label for label in labels if " of " in label]:
        told = f"**Not the full sets**: {', '.join(partial)}. Such a number may not be called the "
        notes.append(f"{told}score on that set.")
    if (recipe.teacher, recipe.student) != ("pvt_v2_b2", "pvt_v2_b0"):
        pair = f"teacher {recipe.teacher}, student {recipe.student}"
        notes.append(f"**Not the paper's pair of networks**: {pair}.")
    if not run.released_teacher:
        notes.append(f"The teacher was trained here, for {recipe.teacher_epochs} epochs.")
    if not recipe.pretrained_student:
        notes.append("The students did not start from ImageNet weights.")
    told = f"One run each, seed {recipe.seed}, {recipe.epochs} epochs, {len(run.data.train)} "
    notes.append(f"{told}training images.")
    listed = "\n".join(f"- {note}" for note in notes)
    return f"{maps:.0f} maps are scored. What the numbers are about:\n\n{listed}"


def read_by(grey: np.ndarray, scores: pd.DataFrame) -> Figure:
    """A map, uint8 (H, W), as programs see it, and their ``scores``, a row each, a column a bar."""
    mosaic = [list(scores.index), ["bars"] * len(scores)]
    figure, axes = plt.subplot_mosaic(mosaic, figsize=(plots.WIDTH, 3.6), height_ratios=(1, 1))
    for name in scores.index:
        rules = CONVENTIONS.get(name, CONVENTIONS["pranet"])  # the log does not round, either
        plots.show(axes[name], rules.values(grey)[grey], name, cmap="gray", vmin=0, vmax=1)
    bars = scores.plot.bar(ax=axes["bars"], width=0.78, color=[ORANGE, BLUE], rot=0)
    for drawn in bars.containers:
        bars.bar_label(drawn, fmt="{:.3f}")
    bars.set(ylim=(0, 1.18), yticks=[0, 0.5, 1], ylabel="its Dice", xlabel="")
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=scores.shape[1])
    return figure


def forest(tables: Mapping[str, pd.DataFrame], seeds: Mapping | None = None) -> Figure:
    """Differences of Dice with their intervals, a panel a table of ``statistics.compare``: blue
    above 0, red below, filled for a Holm p below 0.05. Where ``seeds`` gives other intervals of the
    rows, these are thin lines below. All panels share one scale.
    """
    across, down = min(3, len(tables)), -(-len(tables) // 3)
    size = (plots.WIDTH, max(1.4, 0.9 + 0.36 * max(map(len, tables.values()))) * down)
    shared: dict = {"squeeze": False, "sharey": True, "sharex": True}
    figure, axes = plt.subplots(down, across, figsize=size, **shared)
    for axis in axes.flat[len(tables) :]:
        axis.axis("off")
    for axis, (name, table) in zip(axes.flat, tables.items()):
        y = np.arange(len(table))
        colours = [BLUE if difference >= 0 else RED for difference in table["difference"]]
        faces = np.where(table["p_holm"] < 0.05, colours, "white").tolist()
        axis.axvline(0, color="#444444", lw=1)
        if seeds:
            spread = seeds[name].loc[table.index]
            ends, below = [spread["low"], spread["high"]], [y + 0.3, y + 0.3]
            axis.plot(ends, below, "|-", color="#333333", lw=1.2, ms=5)
        axis.hlines(y, table["low"], table["high"], colors=colours, lw=2.5, alpha=0.6)
        axis.scatter(table["difference"], y, s=34, color=faces, edgecolors=colours, zorder=3)
        axis.set(yticks=y, yticklabels=table.index, ylim=(len(table) - 0.4, -0.6))
        axis.set_title(name)
        axis.tick_params(axis="x")
        axis.xaxis.get_major_locator().set_params(nbins=5)
    figure.supxlabel("difference of Dice")
    return figure


def score_by_size(frame: pd.DataFrame) -> Figure:
    """Dice against the polyp's share, in (0, 1], a dot an image, and the means of four groups."""
    axis = plt.figure(figsize=(plots.WIDTH, 2.6)).subplots()
    for network, rows in frame.groupby("network", sort=False):
        values, colour = rows[["share", "dice"]], COLOUR_OF.get(network)
        groups = values.groupby(pd.qcut(rows["share"], 4, duplicates="drop"), observed=True).mean()
        axis.plot(100 * values["share"], values["dice"], ".", color=colour, alpha=0.3, ms=5)
        axis.plot(100 * groups["share"], groups["dice"], "o-", color=colour, label=network)
    look = {"xscale": "log", "ylim": (-0.03, 1.03)}
    return plots.labelled(axis, "polyp's share of the image, %", "Dice", **look)


def worst_images(results: Mapping, pairs: Mapping[str, Iterable[Pair]], folder: Path) -> Figure:
    """The three images of each set with the lowest Dice; predictions: ``folder/SET/NAME.png``."""
    columns = []
    for dataset, result in results.items():
        of_name, column = {pair.name: pair for pair in pairs[dataset]}, []
        worst = result.per_image.sort_values("dice", kind="stable")[:3]
        for name, dice in zip(worst["name"], worst["dice"]):
            cut = read_prediction(folder / dataset / f"{name}.png") >= 128
            image, mask = read_image(of_name[name].image), read_mask(of_name[name].mask)
            picture = plots.error_overlay(image, cut, mask)
            width = round(picture.shape[1] * 200 / picture.shape[0])
            small = cv2.resize(picture, (width, 200), interpolation=cv2.INTER_AREA)
            title = f"{name if len(name) < 15 else f'{name[:12]}…'}: {dice:.2f}"
            column.append((small.view(plots.Verdict), title))
        column[0] = column[0][0], f"{dataset}\n{column[0][1]}"
        columns.append(column + [(np.full((200, 240, 3), 255, np.uint8), "")] * (3 - len(column)))
    by_place = list(zip(*columns))
    rows = {str(i): [picture for picture, _ in row] for i, row in enumerate(by_place, 1)}
    return plots.grid(rows, [title for row in by_place for _, title in row], size=1.45)


def reliability(results: Mapping[str, Mapping[str, EvaluationResult]]) -> Figure:
    """Predicted against observed probability, and % of pixels; panel → network → result."""
    share: dict = {"sharex": True, "sharey": "row", "height_ratios": (2.2, 1), "squeeze": False}
    figure, axes = plt.subplots(2, len(results), figsize=(plots.WIDTH, 3.8), **share)
    for (upper, lower), (title, networks) in zip(axes.T, results.items()):
        upper.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
        for network, result in networks.items():
            bins, colour = result.calibration, COLOUR_OF.get(network)
            label = f"{network}: {result.calibration_error:.3f}"
            upper.plot(bins["predicted"], bins["observed"], "o-", color=colour, ms=4, label=label)
            lower.plot(bins["predicted"], 100 * bins["weight"], "o-", color=colour, ms=3, lw=1)
        upper.set_title(title)
        upper.legend(title="calibration error", loc="upper left")
        lower.set(yscale="log", xlabel="predicted probability")
        lower.yaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("observed share of polyp")
    axes[1, 0].set_ylabel("% of pixels")
    return figure
