"""Figures of chapter 12: promises kept and broken, alarms, and what spoilt pictures cost."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures import basics as plots


def promises(splits: pd.DataFrame, allowed: float, names: Mapping[str, str]) -> Figure:
    """How much was missed after each split of `over_splits`: a histogram for each column in
    ``names``, with its mean, and a line at what was allowed.
    """
    figure, axes = plt.subplots(len(names), 1, figsize=(plots.WIDTH, 3.4), sharex=True)
    edges = np.linspace(0, splits[list(names)].to_numpy().max() * 1.05 + 1e-9, 50)
    for axis, (column, label), colour in zip(axes, names.items(), (plots.BLUE, plots.RED)):
        axis.hist(splits[column], edges, color=colour, alpha=0.5)
        mean = splits[column].mean()
        axis.axvline(mean, color=colour, lw=2, label=f"mean of all splits, {mean:.3f}")
        axis.axvline(allowed, color="black", ls="--", lw=1, label=f"allowed, {allowed:g}")
        axis.set(title=label, ylabel="splits")
        axis.legend(**plots.BESIDE)
    axes[-1].set_xlabel("share of the polyps' pixels that was missed, mean over the other pictures")
    return figure


def alarms(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """The most polyps that a network finds at so many alarms or fewer, from `froc`; a ring at the
    threshold that is nearest to 0.5.
    """
    axis = plt.figure(figsize=(plots.WIDTH, 3)).subplots()
    for name, curve in curves.items():
        colour, rows = plots.colour_of(name), curve.sort_values(["alarms", "found"])
        best = rows["found"].cummax()
        steps = [0, *rows["alarms"], 100], [0, *best, best.iloc[-1]]
        axis.step(*steps, where="post", color=colour, label=name)
        half = curve.iloc[np.abs(curve.index - 0.5).argmin()]
        axis.plot(curve["alarms"], curve["found"], ".", color=colour, alpha=0.5)
        axis.plot(half["alarms"], half["found"], "o", mfc="none", ms=9, color=colour)
    limits = {"xlim": (-2, 102), "ylim": (-0.03, 1.03)}
    x = "frames with a false alarm, of 100 without polyp"
    return plots.labelled(axis, x, "share of polyps found", **limits)


def robustness(relative: pd.Series, clean: Mapping[str, float]) -> Figure:
    """Dice as a part of what it is on clean pictures, from `relative_dice`, a panel a corruption;
    ``clean``: each network's Dice there, for the legend.
    """
    kinds = list(relative.index.unique("corruption"))
    rows = relative.unstack("level")
    figure, axes = plots.side_by_side(len(kinds), 1.6, 2.6, sharey=True)
    for axis, kind in zip(axes, kinds):
        for name, dice in clean.items():
            label = f"{name}, {dice:.2f} on clean pictures"
            axis.plot(rows.loc[(name, kind)], "o-", color=plots.colour_of(name), label=label)
        axis.axhline(1, color="#999999", lw=1, ls=":")
        axis.set(title=kind, xlabel="level", xticks=range(6))
    top = 1.05 * max(1, relative.max())
    axes[0].set(ylabel="Dice / Dice on clean pictures", ylim=(0, top))
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(clean), **plots.BELOW)
    return figure
