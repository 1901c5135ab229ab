"""Figures of chapter 7: conventions, comparisons, and where networks fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import BLUE, COLOUR_OF, GREEN, ORANGE, RED, SKY
from kdas_core.data.images import read_image, read_mask
from kdas_core.data.layout import Pair
from kdas_core.evaluation import CONVENTIONS, EvaluationResult, read_prediction


def read_by(grey: np.ndarray, scores: pd.DataFrame) -> Figure:
    """A map, uint8 (H, W), as five programs see it, and what each makes of it: a row of ``scores``
    a convention (or ``training log``), a column a bar.
    """
    mosaic = [list(scores.index), ["bars"] * len(scores)]
    figure, axes = plt.subplot_mosaic(mosaic, figsize=(7, 4), height_ratios=(1, 1.25))
    for name in scores.index:
        rules = CONVENTIONS.get(name, CONVENTIONS["pranet"])  # the log does not round, either
        plots.show(axes[name], rules.values(grey)[grey], name, cmap="gray", vmin=0, vmax=1)
    bars = scores.plot.bar(ax=axes["bars"], width=0.78, color=[ORANGE, BLUE, GREEN], rot=0)
    for drawn in bars.containers:
        bars.bar_label(drawn, fmt="{:.3f}", fontsize=8)
    bars.set(ylim=(0, 1.18), yticks=[0, 0.5, 1], ylabel="its Dice", xlabel="")
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=scores.shape[1])
    return figure


def intervals(axis: plt.Axes, table: pd.DataFrame, up: float = 0, **line) -> None:
    """A row each of ``statistics.compare``: difference and interval, blue above 0 and red below; a
    filled dot has a Holm p below 0.05.
    """
    y = np.arange(len(table)) - up
    colours = [BLUE if difference >= 0 else RED for difference in table["difference"]]
    faces = np.where(table["p_holm"] < 0.05, colours, "white").tolist()
    axis.axvline(0, color="#444444", lw=1)
    axis.hlines(y, table["low"], table["high"], colors=colours, **line)
    axis.scatter(table["difference"], y, s=34, color=faces, edgecolors=colours, zorder=3)
    axis.tick_params(axis="x", labelsize=8)


def forest(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Differences of Dice with their intervals, one panel a table of ``statistics.compare``."""
    height = max(1.4, 0.9 + 0.34 * max(map(len, tables.values())))
    width = 7 / len(tables)
    figure, axes = plots.side_by_side(len(tables), width, height, sharex=True, sharey=True)
    for axis, (name, table) in zip(axes, tables.items()):
        intervals(axis, table, lw=2)
        axis.set(title=name, yticks=range(len(table)), yticklabels=table.index)
        axis.set_ylim(len(table) - 0.5, -0.5)
    figure.supxlabel("difference of Dice", fontsize=10)
    return figure


def paired_differences(differences: Mapping[str, np.ndarray], images: str) -> Figure:
    """Histograms of a difference per image, shape (n,), a panel each, all on one scale; the mean is
    a vertical line. ``images`` says which images they are.
    """
    figure, axes = plots.side_by_side(len(differences), 2.4, 2.5, sharey=True)
    limit = max(0.05, *(np.abs(values).max() for values in differences.values()))
    for axis, (name, values) in zip(axes, differences.items()):
        axis.hist(values, bins=np.linspace(-limit, limit, 22), color=SKY, edgecolor="white")
        axis.axvline(0, color="#444444", lw=1)
        axis.axvline(values.mean(), color=RED, lw=2)
        axis.set(xlabel="difference of Dice", title=f"{name}\nmean {values.mean():+.3f}")
    axes[0].yaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel(f"images\n{images}")
    return figure


def score_by_size(frame: pd.DataFrame) -> Figure:
    """Dice of each image against its polyp's share of the image in (0, 1], and the networks' means
    over four groups of equal number; columns ``network``, ``share``, ``dice``.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for network, rows in frame.groupby("network", sort=False):
        values, colour = rows[["share", "dice"]], COLOUR_OF.get(network)
        groups = values.groupby(pd.qcut(rows["share"], 4, duplicates="drop"), observed=True).mean()
        axis.plot(100 * values["share"], values["dice"], ".", color=colour, alpha=0.3, ms=5)
        axis.plot(100 * groups["share"], groups["dice"], "o-", color=colour, label=network)
    axis.set(xscale="log", xlabel="polyp's share of the image, %")
    axis.set(ylabel="Dice", ylim=(-0.03, 1.03))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(**plots.BESIDE)
    return figure


def worst_images(
    results: Mapping[str, EvaluationResult], pairs: Mapping[str, Iterable[Pair]], folder: Path
) -> Figure:
    """The four images of each data set with a network's lowest Dice, from its results, the sets'
    pairs and its predictions ``folder/SET/NAME.png``: found green, missed orange, false purple.
    """
    rows, titles, most = {}, [], min(4, max(result.n for result in results.values()))
    for dataset, result in results.items():
        of_name, row = {pair.name: pair for pair in pairs[dataset]}, []
        for name, dice in result.worst(4)[["name", "dice"]].itertuples(index=False):
            cut = read_prediction(folder / dataset / f"{name}.png") >= 128
            image, mask = read_image(of_name[name].image), read_mask(of_name[name].mask)
            picture = plots.error_overlay(image, cut, mask)
            width = round(picture.shape[1] * 200 / picture.shape[0])
            row.append(cv2.resize(picture, (width, 200), interpolation=cv2.INTER_AREA))
            titles.append(f"{name if len(name) < 15 else f'{name[:12]}…'}: {dice:.2f}")
        rows[dataset] = row
        titles += [""] * (most - len(row))
    return plots.grid(rows, titles, size=1.65)


def reliability(results: Mapping[str, Mapping[str, EvaluationResult]]) -> Figure:
    """What a probability is worth: predicted against observed, and how many pixels stand behind
    each point; title of a panel → ``{network: EvaluationResult}``.
    """
    share = {"sharex": True, "sharey": "row", "height_ratios": (2.2, 1), "squeeze": False}
    figure, axes = plt.subplots(2, len(results), figsize=(7, 4.4), **share)
    for (upper, lower), (title, networks) in zip(axes.T, results.items()):
        upper.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
        for network, result in networks.items():
            bins, colour = result.calibration, COLOUR_OF.get(network)
            label = f"{network}: {result.calibration_error:.3f}"
            upper.plot(bins["predicted"], bins["observed"], "o-", color=colour, ms=4, label=label)
            lower.plot(bins["predicted"], 100 * bins["weight"], "o-", color=colour, ms=3, lw=1)
        upper.set_title(title)
        upper.legend(title="calibration error", title_fontsize=8, loc="upper left")
        lower.set(yscale="log", xlabel="predicted probability")
        lower.yaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("observed share of polyp")
    axes[1, 0].set_ylabel("% of pixels")
    return figure
