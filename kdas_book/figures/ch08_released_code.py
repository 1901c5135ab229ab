"""Figures of the audit of the released program: chapter 8."""

from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib import patheffects
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from torch.autograd import grad

from kdas_book.figures.basics import BLUE, GREEN, ORANGE, WIDTH, lines, outlined, show, side_by_side
from kdas_core.losses.attention_supervision import attention_supervision, released_attention_term

# What the released program does that a hyperparameter can change: (released value, the other one,
# what happens). Most were hardly meant so; soft masks are a choice, and every preset has them. The
# preset "paper" has the released values but for two: the objective is chosen for each run, and the
# teacher records no graph, which changes no number.
RELEASED_SLIPS: dict[str, tuple[Any, Any, str]] = {
    "objective": ("released", "kdas", "the attention term has a gradient of exactly zero"),
    "augment": (False, True, "augmentation is never on: its flag, True, is compared with a text"),
    "schedule": ("constant", "cosine", "the rate never falls in 99 epochs; it would at epoch 200"),
    "soft_masks": (True, False, "masks are resized bilinearly, so outlines are neither 0 nor 1"),
    "weighted_bce": (False, True, "the weights of the weighted cross-entropy cancel"),
    "teacher_graph": (True, False, "the teacher computes gradients that nobody uses"),
}


def training_log(pooled: pd.DataFrame, reaches: float = 0.7) -> Figure:
    """A line a run, its best a dot, by script: above those that reach a score, below the others."""
    best = pooled.groupby("run")["pooled"].max()
    high = pooled["run"].isin(best.index[best >= reaches])
    count = pooled.groupby("script")["run"].nunique().sort_values(ascending=False)
    colours = _colour_of(count.index)
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 4.4), sharex=True, height_ratios=(1.5, 1))
    top = max(best.max(), reaches) + 0.01
    axes[0].set(ylabel="soft Dice, all test images", ylim=(reaches, top))
    axes[1].set(ylabel="soft Dice", xlabel="epoch", ylim=(0, reaches))
    for axis, part in zip(axes, (pooled[high], pooled[~high])):
        for script in count.index:
            for _, run in part[part["script"] == script].groupby("run"):
                look: dict = {"lw": 0.9, "alpha": 0.5, "markevery": [run["pooled"].argmax()]}
                axis.plot(run["epoch"], run["pooled"], "o-", color=colours[script], **look)
        _number_the_ends(axis, part, colours)
    for script, colour in colours.items():
        axes[1].plot([], [], color=colour, label=f"{script} ({count[script]})")
    figure.legend(loc="outside right upper")
    return figure


def _colour_of(scripts: Iterable[str]) -> dict[str, str]:
    return dict(zip(sorted(set(scripts)), (BLUE, ORANGE, GREEN)))


def _number_the_ends(axis: plt.Axes, runs: pd.DataFrame, colours: dict[str, str]) -> None:
    """Each run's number beside its last point; of numbers that overlap the lower moves down."""
    low, high = axis.get_ylim()
    apart, near = (high - low) / 16, 4.0  # in scores and in epochs
    placed: list[tuple[float, float]] = []
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    ends = runs.sort_values("epoch").groupby("run").last().sort_values("pooled", ascending=False)
    for number, (x, y, script) in ends[["epoch", "pooled", "script"]].iterrows():
        while any(abs(x - other) < near and abs(y - at) < apart for other, at in placed):
            y -= apart / 8
        placed.append((x, y))
        text = axis.text(x + 0.6, y, f"{number}", path_effects=halo, weight="bold")
        text.set(color=colours[script], va="center")


def one_logged_run(scores: pd.DataFrame, pooled: pd.Series) -> Figure:
    """One run's soft Dice by epoch, a line a test set, the pooled score black, its best marked."""
    best, last = pooled.idxmax(), pooled.index[-1]
    title = f"best epoch {best}: {pooled[best]:.3f}; last, {last}: {pooled[last]:.3f}"
    table = scores.assign(**{"all images": pooled})
    return lines(table, "epoch", "soft Dice", "-", marks=[("best", best)], title=title)


def released_and_repaired(maps: Mapping[str, np.ndarray], image: int = 1) -> Figure:
    """The gradients of the released attention term and of attention supervision on one student's
    first map, beside the image, in the same colours, which are logarithmic but around 0; of the
    recorded ``maps``, as `laptop_maps` reads them.
    """
    mask = maps["masks"][image]
    roles = ("teacher", "released")
    teacher, student = (torch.tensor(maps[k][image, None, :1]).float() for k in roles)
    figure, axes = side_by_side(3, 2.0, 2.35)
    show(axes[0], outlined(maps["images"][image], mask), "a drawn\npolyp")
    (repaired,) = grad(attention_supervision(student.requires_grad_(), teacher), student)
    (released,) = grad(released_attention_term(student, teacher), student)
    top = repaired.abs().max().item()
    norm = SymLogNorm(top / 30, vmin=-top, vmax=top)
    for axis, name, values in zip(axes[1:], ("released", "repaired"), (released, repaired)):
        some = f"{name}: not zero at\n{values.count_nonzero():,} of {values.numel():,} pixels"
        show(axis, values, some, mask, norm=norm, cmap="RdBu_r")
        axis.spines[:].set_visible(True)
    if not released.any():
        axes[1].text(0.5, 0.85, "exactly 0", transform=axes[1].transAxes, size=13, ha="center")
    return figure
