"""Figures of logit maps, attention and losses: chapters 4 and 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures.basics import (
    BLUE,
    COLOUR_OF,
    GREEN,
    PURPLE,
    RED,
    SKY,
    as_map,
    grid,
    outlined,
)


def numbers(
    maps: Mapping[str, Tensor], digits: int | Sequence[int] = 2, size: float = 2.9
) -> Figure:
    """Small maps side by side with every value written into its cell; orange is above zero, purple
    below.

    Args:
        maps: title → (H, W), with H and W up to about 8.
        digits: decimals, the same for all or one for each map.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(size * len(maps), size), squeeze=False)
    digits = [digits] * len(maps) if isinstance(digits, int) else digits
    for axis, (title, cells), places in zip(axes[0], maps.items(), digits):
        values = as_map(cells)
        limit = max(float(np.abs(values).max()), 1e-9)
        axis.imshow(values, cmap="PuOr_r", vmin=-1.3 * limit, vmax=1.3 * limit)
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
    shares: Mapping[str, Tensor] | None = None,
    size: float = 1.6,
) -> Figure:
    """One row an image: the picture, its logit maps on one scale for all, its distributions each on
    its own scale.

    Args:
        images, masks: (B, 3, H, W) and (B, 1, H, W); the mask's outline is drawn on everything.
        logits: column title → (B, H, W) or (B, 1, H, W); orange is above zero (polyp), purple
            below.
        shares: column title → distributions over pixels, same shapes; bright is much.
    """
    shares = shares or {}
    columns, count = 1 + len(logits) + len(shares), len(images)
    figure, axes = plt.subplots(
        count, columns, figsize=(size * columns + 0.6, size * count + 0.3), squeeze=False
    )
    limit = max(
        float(np.quantile(values.abs().float().cpu().numpy(), 0.995)) for values in logits.values()
    )
    for i, line in enumerate(axes):
        line[0].imshow(outlined(images[i], masks[i]))
        drawn = [
            axis.imshow(as_map(v[i]), cmap="PuOr_r", vmin=-limit, vmax=limit)
            for axis, v in zip(line[1:], logits.values())
        ]
        for axis, values in zip(line[1 + len(logits) :], shares.values()):
            axis.imshow(as_map(values[i]), cmap="magma")
        for axis in line[1:]:
            axis.contour(as_map(masks[i]), levels=[0.5], colors="#00c8a0", linewidths=0.9)
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for axis, title in zip(axes[0], ["image", *logits, *shares]):
        axis.set_title(title, fontsize=9)
    figure.colorbar(
        drawn[-1],
        ax=axes[:, 1 : 1 + len(logits)],
        location="bottom",
        shrink=0.5,
        aspect=40,
        label="logit",
    )
    return figure


def row_looks_at(
    image: Tensor, mask: Tensor, logits: Tensor, weights: Tensor, attended: Tensor, row: int
) -> Figure:
    """What one row of a map does in the attention: where it lies, at which rows it looks, and what
    it becomes.

    Args:
        image, mask: (3, H, W) and (1, H, W). logits, attended: (H, W). weights: (H, H). row: the
            query, from 0 at the top.
    """
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(7.2, 2.5), width_ratios=(1, 0.45, 1.1)
    )
    height = len(logits)
    left.imshow(outlined(image, mask))
    left.axhline(row, color=RED, lw=2)
    left.set(xticks=[], yticks=[0, height - 1], title=f"row {row} asks")
    middle.barh(range(height), as_map(weights)[row], height=1.0, color=BLUE)
    middle.axhline(row, color=RED, lw=1)
    most = float(weights.max())
    middle.set(
        ylim=(height - 0.5, -0.5),
        xlim=(0, 1.05 * most),
        yticks=[],
        title="looks at",
        xlabel="weight",
    )
    right.plot(as_map(logits)[row], color=RED, label="row of P", lw=1.2)
    right.plot(as_map(attended)[row], color=BLUE, label="row of A(P)", lw=1.2)
    limit = 1.05 * float(logits.abs().max())
    right.axhline(0, color="#999999", lw=0.8)
    right.set(ylim=(-limit, limit), xlabel="column", title="logits")
    right.legend(
        fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5)
    )  # inside it would lie on some row's peak
    return figure


def pixels_by_temperature(
    temperatures: Sequence[float],
    effective: Mapping[str, np.ndarray],
    polyp: float,
    total: int,
    used: float,
) -> Figure:
    """Effective number of pixels of distributions over a map, one line a kind, against the
    temperature.

    Args:
        effective: name → one number a temperature. polyp, total: pixels in the polyp and in the
            map. used: the recipe's τ.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    for name, values in effective.items():
        axis.plot(temperatures, values, marker="o", ms=3, label=name)
    for level, name, end, side in ((polyp, "polyp", -1, "right"), (total, "whole map", 0, "left")):
        axis.axhline(level, color="#777777", ls="--", lw=1)
        axis.text(
            temperatures[end],
            level,
            f"{name}, {level:,.0f} px",
            va="bottom",
            ha=side,
            fontsize=8,
            color="#555555",
        )
    axis.axvline(used, color="#bbbbbb", lw=1)
    axis.text(used, 1, f" τ = {used:g}", fontsize=8, color="#555555")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="temperature τ",
        ylabel="effective number of pixels",
        ylim=(0.8, 2.5 * total),
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def by_temperature(shares: Mapping[float, Tensor], mask: Tensor, size: float = 1.7) -> Figure:
    """One distribution at several temperatures, each on its own scale from 0 to its largest value,
    with the mask's outline.
    """
    figure, axes = plt.subplots(
        1, len(shares), figsize=(size * len(shares), size + 0.4), squeeze=False
    )
    for axis, (temperature, share) in zip(axes[0], shares.items()):
        axis.imshow(as_map(share), cmap="magma", vmin=0)
        axis.contour(as_map(mask), levels=[0.5], colors="#00c8a0", linewidths=0.9)
        axis.set(xticks=[], yticks=[], title=f"τ = {temperature:g}")
        axis.spines[:].set_visible(False)
    return figure


def divergence_against_dice(
    dice: Sequence[float], divergences: Mapping[str, Sequence[float]]
) -> Figure:
    """One dot an image: how far its two distributions lie apart, against the student's Dice."""
    figure, axis = plt.subplots(figsize=(5.6, 3))
    for name, values in divergences.items():
        axis.plot(dice, values, "o", ms=4, alpha=0.7, label=name)
    axis.set(xlabel="student's Dice", ylabel="KL, nats", xlim=(-0.03, 1.03), yscale="log")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


COLOUR_OF_TERM = {
    "structure": BLUE,
    "logit": SKY,
    "attention": PURPLE,
    "symmetric": GREEN,
    "channel": COLOUR_OF["channel_wise_kd"],
    "transfer": COLOUR_OF["attention_transfer"],
}


def panels(
    cells: Mapping[str, Tensor | np.ndarray],
    signed: Sequence[str] = (),
    one_scale: bool = False,
    size: float = 2.0,
    columns: int = 0,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Pictures and maps side by side under their titles, each map with a colour bar of its own.

    Args:
        cells: title → uint8 (H, W, 3) picture, or a map as :func:`as_map` takes it.
        signed: titles of maps to be drawn in red and blue around 0.
        one_scale: give all signed maps the same limits, so that a small one looks small and a zero
            one blank.
        size: inches a panel.
        columns: panels in a row; 0: all.
        limits: titles of other maps → the ends of their colour scale; a map that is not named has
            its own.
    """
    columns = columns or len(cells)
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.15) * rows), squeeze=False
    )
    largest = {title: float(np.abs(as_map(cells[title])).max()) for title in signed}
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, (title, cell) in zip(axes.flat, cells.items()):
        axis.set_title(title, fontsize=9)
        if isinstance(cell, np.ndarray) and cell.ndim == 3 and cell.shape[-1] == 3:
            axis.imshow(cell)
            continue
        limit = (
            (max(largest.values()) if one_scale else largest[title]) if title in signed else None
        )
        scale = (
            {"cmap": "RdBu_r", "vmin": -(limit or 1), "vmax": limit or 1} if title in signed else {}
        )
        if limits and title in limits:
            scale |= dict(zip(("vmin", "vmax"), limits[title]))
        drawn = axis.imshow(as_map(cell), **scale)
        bar = figure.colorbar(drawn, ax=axis, shrink=0.8, location="bottom", pad=0.03)
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.get_offset_text().set_fontsize(7)
        bar.locator = plt.MaxNLocator(3)
        cast(plt.ScalarFormatter, bar.formatter).set_powerlimits((-2, 3))
        bar.update_ticks()
    return figure


def signed_grid(
    rows: Mapping[str, Sequence],
    titles: Sequence[str],
    mask: Tensor | np.ndarray,
    size: float = 1.9,
) -> Figure:
    """Rows of logit maps on one red-and-blue scale around 0; the first row has the outline of the
    mask on each map.

    Args:
        rows: label of a row → its maps, as :func:`as_map` takes them.
        titles: one for each column.
        mask: (H, W), [0, 1].
    """
    top = max(float(np.abs(as_map(cell)).max()) for row in rows.values() for cell in row)
    figure = grid(rows, titles, size=size, cmap="RdBu_r", vmin=-top, vmax=top)
    axes = figure.axes
    for axis in axes[: len(titles)]:
        axis.contour(as_map(mask), levels=[0.5], colors="black", linewidths=1.2)
    figure.set_figwidth(figure.get_figwidth() + 1)  # for the colour bar
    drawn = axes[0].images[0]
    figure.colorbar(
        drawn, ax=axes, shrink=0.5, aspect=30, label="logit: red polyp, blue background"
    )
    return figure


def share_of_half(distribution: Tensor) -> float:
    """The smallest share of the pixels that holds half of a distribution over them, in (0, 0.5]."""
    heaviest_first = distribution.flatten().double().sort(descending=True).values.cumsum(0)
    return (int((heaviest_first < 0.5 * heaviest_first[-1]).sum()) + 1) / distribution.numel()


def attention_pair(
    student: Tensor, teacher: Tensor, title: str = "", mask: Tensor | None = None
) -> Figure:
    """Two distributions over the pixels of an image on one scale, each relative to its mean,
    1/pixels.

    Args:
        student, teacher: (H, W), each sums to 1.
        mask: (H, W), drawn as an outline if it is given.
    """
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.9))
    top = max(float(teacher.max()), float(student.max())) * teacher.numel()
    for axis, name, values in ((axes[0], "teacher", teacher), (axes[1], "student", student)):
        drawn = axis.imshow(as_map(values) * values.numel(), vmin=0, vmax=top)
        if mask is not None:
            axis.contour(as_map(mask), levels=[0.5], colors="white", linewidths=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_title(f"{name}: half on {100 * share_of_half(values):.2g} % of pixels", fontsize=9)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="× uniform")
    figure.suptitle(title, fontsize=10)
    return figure


def along_path(values: pd.DataFrame) -> Figure:
    """Distillation terms on the way from the student's maps to the teacher's, each relative to
    where it starts.

    Args:
        values: one column a term, indexed by the share of the way, 0 (student) to 1 (teacher).
    """
    figure, axis = plt.subplots(figsize=(6, 3.1))
    for column, style in zip(values, ("-", "--", ":")):
        colour = next((c for kind, c in COLOUR_OF_TERM.items() if kind in column), None)
        axis.plot(
            values.index,
            values[column] / values[column].iloc[0],
            style,
            color=colour,
            label=column,
            lw=2,
        )
    axis.axhline(0, color="#999999", lw=0.8)
    axis.set(xlabel="share of the way from student to teacher", ylabel="term / term at the student")
    axis.legend()
    return figure


def landscapes(
    terms: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    steps: Tensor,
    labels: tuple[str, str],
    goal: tuple[float, float],
) -> Figure:
    """Losses over a plane, dark where they are low, with lines of equal height and the ways down; a
    ring at the goal.

    Args:
        terms: name → (value, first and second component of minus the gradient), each (n, n): rows
            along the second direction.
        steps: (n,) evenly spaced coordinates, the same for both directions.
        labels: of the two directions.
        goal: coordinates of the ring.
    """
    across = min(3, len(terms))
    down = -(-len(terms) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(2.35 * across, 2.55 * down), squeeze=False, sharex=True, sharey=True
    )
    low, high = float(steps[0]), float(steps[-1])
    some = slice(1, None, 2)
    for axis, (name, parts) in zip(axes.flat, terms.items()):
        value, right, up = (part.cpu().double().numpy() for part in parts)
        flat = np.ptp(value) <= 1e-6 * np.abs(value).max()
        axis.set_facecolor("#8a8a8a")  # a plain has no low places
        if not flat:
            look = {
                "cmap": "cividis",
                "norm": PowerNorm(0.5),
                "interpolation": "bilinear",
            }  # valleys are shallow
            axis.imshow(value, extent=(low, high, low, high), origin="lower", **look)
            axis.contour(steps, steps, value, 12, colors="white", linewidths=0.5, alpha=0.6)
            length = np.hypot(right, up).max()
            arrows = (part[some, some] / length for part in (right, up))
            axis.quiver(
                steps[some], steps[some], *arrows, color="white", scale=6, width=0.009, pivot="mid"
            )
        axis.plot(*goal, "o", ms=9, mfc="none", mec=RED, mew=2)
        axis.set_aspect("equal")
        axis.set(
            title=f"{name}\n{value.min():.3g} to {value.max():.3g}",
            xlim=(low, high),
            ylim=(low, high),
        )
        axis.spines[:].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel(labels[0])
    for axis in axes[:, 0]:
        axis.set_ylabel(labels[1])
    for axis in axes.flat[len(terms) :]:
        axis.set_visible(False)
    return figure


def term_norms(norms: Mapping[str, Mapping[str, float]]) -> Figure:
    """One dot a term on a logarithmic scale, one row of panels an objective; a zero has no place
    there and stands in a margin.

    Args:
        norms: objective → term → norm ≥ 0.
    """
    lengths = [len(terms) for terms in norms.values()]
    shape = {"height_ratios": lengths, "width_ratios": (1, 9), "wspace": 0}
    size = (7, 0.36 * sum(lengths) + 1)
    figure, axes = plt.subplots(
        len(norms), 2, figsize=size, sharex="col", sharey="row", squeeze=False, gridspec_kw=shape
    )
    positive = [value for terms in norms.values() for value in terms.values() if value > 0]
    for (margin, axis), (name, terms) in zip(axes, norms.items()):
        for i, (term, value) in enumerate(terms.items()):
            colour = next(
                (c for kind, c in COLOUR_OF_TERM.items() if term.startswith(kind)), "#555555"
            )
            where, x = (axis, value) if value > 0 else (margin, 0)
            where.plot(x, i, "o", ms=8, color=colour, mfc=colour if value > 0 else "white", mew=1.8)
            if value > 0:
                axis.annotate(
                    f"{value:.3g}",
                    (value, i),
                    (9, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                )
        for part in (margin, axis):
            part.set_axisbelow(True)
            part.grid(axis="y", color="#dddddd", lw=0.8)
        axis.set(xscale="log", xlim=(min(positive) / 2, max(positive) * 4))
        axis.spines["left"].set_color("#bbbbbb")
        axis.tick_params(axis="y", length=0)
        margin.set(
            yticks=range(len(terms)),
            yticklabels=list(terms),
            xlim=(-1, 1),
            xticks=[0],
            xticklabels=["exactly 0"],
        )
        margin.set(ylim=(len(terms) - 0.5, -0.5), title=name)
    axes[-1, 1].set_xlabel("norm of the gradient on the student's weights")
    return figure
