"""Figures of chapter 4: logit maps, their attention, the distributions that are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures.basics import BLUE, RED, as_map, bare, outlined

OUTLINE: dict[str, Any] = {"levels": [0.5], "colors": "#00c8a0", "linewidths": 0.9}


def numbers(
    maps: Mapping[str, Tensor], digits: int | Sequence[int] = 2, size: float = 2.9
) -> Figure:
    """Small maps (H, W) with every value in its cell; orange is above zero, purple below.

    Args:
        digits: decimals, the same for all or one for each map.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(size * len(maps), size), squeeze=False)
    digits = [digits] * len(maps) if isinstance(digits, int) else digits
    for axis, (title, cells), places in zip(axes[0], maps.items(), digits):
        values = as_map(cells)
        limit = 1.3 * max(float(np.abs(values).max()), 1e-9)
        axis.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit)
        for (i, j), value in np.ndenumerate(values):
            text = f"{0.0 if round(value, places) == 0 else value:.{places}f}"  # no "-0.00"
            axis.text(j, i, text, ha="center", va="center", fontsize=8.5 if places < 2 else 7.5)
        axis.set(title=title, xticks=range(values.shape[1]), yticks=range(values.shape[0]))
        axis.tick_params(length=0, labelsize=8)
        axis.spines[:].set_visible(False)
    return figure


def map_table(
    images: Tensor,
    masks: Tensor,
    logits: Mapping[str, Tensor],
    shares: Mapping[str, Tensor],
    size: float = 1.6,
) -> Figure:
    """A row an image: the picture, logit maps on one scale for all, distributions each on its own.

    Args:
        images, masks: (B, 3, H, W) and (B, 1, H, W); the mask's outline is drawn on everything.
        logits: title → (B, H, W) or (B, 1, H, W); orange is above zero (polyp), purple below.
        shares: title → distributions over pixels, same shapes; bright is much.
    """
    columns, count = 1 + len(logits) + len(shares), len(images)
    inches = (size * columns + 0.6, size * count + 0.3)
    figure, axes = plt.subplots(count, columns, figsize=inches, squeeze=False)
    all_logits = [values.abs().float().cpu().numpy() for values in logits.values()]
    limit = max(float(np.quantile(values, 0.995)) for values in all_logits)
    for i, line in enumerate(axes):
        line[0].imshow(outlined(images[i], masks[i]))
        for axis, values in zip(line[1:], logits.values()):
            drawn = axis.imshow(as_map(values[i]), cmap="PuOr_r", vmin=-limit, vmax=limit)
        for axis, values in zip(line[1 + len(logits) :], shares.values()):
            axis.imshow(as_map(values[i]), cmap="magma")
        for axis in line[1:]:
            axis.contour(as_map(masks[i]), **OUTLINE)
    bare(axes.flat)
    for axis, title in zip(axes[0], ["image", *logits, *shares]):
        axis.set_title(title, fontsize=9)
    below: dict[str, Any] = {"location": "bottom", "shrink": 0.5, "aspect": 40, "label": "logit"}
    figure.colorbar(drawn, ax=axes[:, 1 : 1 + len(logits)], **below)
    return figure


def row_looks_at(
    image: Tensor, mask: Tensor, logits: Tensor, weights: Tensor, attended: Tensor, row: int
) -> Figure:
    """One row in the attention: where it lies, at which rows it looks, and what it becomes.

    Args:
        image, mask: (3, H, W) and (1, H, W). logits, attended: (H, W). weights: (H, H).
        row: the query, from 0 at the top.
    """
    ratios: dict[str, Any] = {"width_ratios": (1, 0.45, 1.1)}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 2.5), **ratios)
    height = len(logits)
    left.imshow(outlined(image, mask))
    left.axhline(row, color=RED, lw=2)
    left.set(xticks=[], yticks=[0, height - 1], title=f"row {row} asks")
    middle.barh(range(height), as_map(weights)[row], height=1.0, color=BLUE)
    middle.axhline(row, color=RED, lw=1)
    middle.set(xlim=(0, 1.05 * float(weights.max())), ylim=(height - 0.5, -0.5))
    middle.set(yticks=[], title="looks at", xlabel="weight")
    right.plot(as_map(logits)[row], color=RED, label="row of P", lw=1.2)
    right.plot(as_map(attended)[row], color=BLUE, label="row of A(P)", lw=1.2)
    right.axhline(0, color="#999999", lw=0.8)
    limit = 1.05 * float(logits.abs().max())
    right.set(ylim=(-limit, limit), xlabel="column", title="logits")
    # Inside, the legend would lie on some row's peak.
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pixels_by_temperature(
    temperatures: Sequence[float],
    effective: Mapping[str, Sequence[float]],
    polyp: float,
    total: int,
    used: float,
) -> Figure:
    """Effective number of pixels of distributions over a map, against the temperature.

    Args:
        effective: name → one number a temperature.
        polyp, total: pixels in the polyp and in the map. used: the recipe's τ.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    for name, values in effective.items():
        axis.plot(temperatures, values, marker="o", ms=3, label=name)
    small: dict[str, Any] = {"fontsize": 8, "color": "#555555"}
    for level, name, end, side in ((polyp, "polyp", -1, "right"), (total, "whole map", 0, "left")):
        axis.axhline(level, color="#777777", ls="--", lw=1)
        text = f"{name}, {level:,.0f} px"
        axis.text(temperatures[end], level, text, va="bottom", ha=side, **small)
    axis.axvline(used, color="#bbbbbb", lw=1)
    axis.text(used, 1, f" τ = {used:g}", **small)
    axis.set(xscale="log", yscale="log", ylim=(0.8, 2.5 * total))
    axis.set(xlabel="temperature τ", ylabel="effective number of pixels")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def by_temperature(shares: Mapping[float, Tensor], mask: Tensor, size: float = 1.7) -> Figure:
    """One distribution at several temperatures, each on its own scale, with the mask's outline."""
    inches = (size * len(shares), size + 0.4)
    figure, axes = plt.subplots(1, len(shares), figsize=inches, squeeze=False)
    bare(axes.flat)
    for axis, (temperature, share) in zip(axes[0], shares.items()):
        axis.imshow(as_map(share), cmap="magma", vmin=0)
        axis.contour(as_map(mask), **OUTLINE)
        axis.set_title(f"τ = {temperature:g}")
    return figure


def divergence_against_dice(
    dice: Sequence[float], divergences: Mapping[str, Sequence[float]]
) -> Figure:
    """A dot an image: how far its two distributions lie apart, against the student's Dice."""
    figure, axis = plt.subplots(figsize=(5.6, 3))
    for name, values in divergences.items():
        axis.plot(dice, values, "o", ms=4, alpha=0.7, label=name)
    axis.set(xlabel="student's Dice", ylabel="KL, nats", xlim=(-0.03, 1.03), yscale="log")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def share_of_half(distribution: Tensor) -> float:
    """The smallest share of the pixels that holds half of a distribution over them, in (0, 0.5]."""
    heaviest_first = distribution.flatten().double().sort(descending=True).values.cumsum(0)
    return (int((heaviest_first < 0.5 * heaviest_first[-1]).sum()) + 1) / distribution.numel()


def attention_pair(
    student: Tensor, teacher: Tensor, title: str = "", mask: Tensor | None = None
) -> Figure:
    """Two distributions (H, W) over the pixels on one scale, each relative to an even one."""
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.9))
    top = max(float(teacher.max()), float(student.max())) * teacher.numel()
    bare(axes)
    for axis, name, values in zip(axes, ("teacher", "student"), (teacher, student)):
        drawn = axis.imshow(as_map(values) * values.numel(), vmin=0, vmax=top)
        if mask is not None:
            axis.contour(as_map(mask), levels=[0.5], colors="white", linewidths=1)
        axis.set_title(f"{name}: half on {100 * share_of_half(values):.2g} % of pixels", fontsize=9)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="× uniform")
    figure.suptitle(title, fontsize=10)
    return figure


# --- tables ---------------------------------------------------------------------------------------

ALT_AT_EPOCH = (
    "Where the teacher's and the student's attended maps put their mass on one image, at the "
    "chosen epoch and temperature; the polyp is outlined."
)
CAPTION_AT_EPOCH = (
    "The student that is trained with kdas, epoch by epoch, beside its teacher, with the outline "
    "of the polyp, on the watched image on which the teacher does best. At a high temperature "
    "the two look alike from the start."
)


def column(
    values: Mapping[str, float], name: str, form: str = "{:.1e}", index: str | None = None
) -> pd.DataFrame:
    """One column of numbers, written in one form."""
    return pd.Series(values, name=name).map(form.format).rename_axis(index).to_frame()


def of_each_map(networks: Mapping[str, Sequence], measure: Callable) -> pd.DataFrame:
    """What ``measure`` says of P₁ and P₂ of each network, a row each."""
    rows = {}
    for name, maps in networks.items():
        for k, own in zip("₁₂", maps):
            rows[f"{name}, P{k}"] = measure(own)
    return pd.DataFrame.from_dict(rows, orient="index")


def by_way(networks: Mapping[str, Sequence], ways: Mapping, measure: Callable) -> pd.DataFrame:
    """``measure`` of P₁ and P₂ of each network (a row), taken in several ways."""
    table = pd.DataFrame(index=list(networks), dtype=float)
    for k, number in enumerate("₁₂"):
        for way, taken in ways.items():
            found = [measure(taken(maps[k])) for maps in networks.values()]
            table[f"{way}, P{number}"] = found
    return table


def first_and_last(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """First and last row of each table that has rows."""
    return pd.concat({name: table.iloc[[0, -1]] for name, table in tables.items() if len(table)})


def side_of_polyp(view: Tensor, mask: Tensor) -> str:
    """On which side of the polyp the mass of a map lies, both (H, W): the direction in words."""
    away = []
    for along, across in ((0, 1), (1, 0)):
        places = torch.arange(view.shape[along], device=view.device)
        centres = [
            float((m.sum(across) * places).sum() / m.sum().clamp(min=1e-9)) for m in (view, mask)
        ]
        away.append(centres[0] - centres[1])
    axis = int(abs(away[1]) > abs(away[0]))
    return (("above", "below"), ("left of", "right of"))[axis][away[axis] > 0]
