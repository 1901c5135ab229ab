"""Figures of chapter 5: what each loss sees, where its gradient points, how large its terms are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch import Tensor

from kdas_book.figures.basics import BLUE, COLOUR_OF, GREEN, PURPLE, RED, SKY, as_map, bare, grid

COLOUR_OF_TERM = {"structure": BLUE, "logit": SKY, "attention": PURPLE, "symmetric": GREEN}
COLOUR_OF_TERM |= {"channel": COLOUR_OF["channel_wise_kd"]}
COLOUR_OF_TERM |= {"transfer": COLOUR_OF["attention_transfer"]}


def panels(
    cells: Mapping[str, Tensor | np.ndarray],
    signed: Sequence[str] = (),
    one_scale: bool = False,
    size: float = 2.0,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Pictures and maps side by side under their titles, each map with a colour bar of its own.

    Args:
        cells: title → uint8 (H, W, 3) picture, or a map as :func:`as_map` takes it.
        signed: titles of maps to be drawn in red and blue around 0.
        one_scale: the same limits for all signed maps, so that a zero one looks blank.
        limits: titles of other maps → the ends of their colour scale, instead of their own.
    """
    inches = (size * len(cells), size + 0.15)
    figure, axes = plt.subplots(1, len(cells), figsize=inches, squeeze=False)
    bare(axes.flat)
    largest = {title: float(np.abs(as_map(cells[title])).max()) for title in signed}
    for axis, (title, cell) in zip(axes.flat, cells.items()):
        axis.set_title(title, fontsize=9)
        if isinstance(cell, np.ndarray) and cell.ndim == 3 and cell.shape[-1] == 3:
            axis.imshow(cell)
            continue
        scale: dict = dict(zip(("vmin", "vmax"), (limits or {}).get(title, ())))
        if title in signed:
            limit = (max(largest.values()) if one_scale else largest[title]) or 1
            scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        drawn = axis.imshow(as_map(cell), **scale)
        bar = figure.colorbar(drawn, ax=axis, shrink=0.8, location="bottom", pad=0.03)
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.get_offset_text().set_fontsize(7)
        bar.locator = plt.MaxNLocator(3)
        cast(plt.ScalarFormatter, bar.formatter).set_powerlimits((-2, 3))
        bar.update_ticks()
    return figure


def signed_grid(
    rows: Mapping[str, Sequence], titles: Sequence[str], mask: Tensor, size: float = 1.9
) -> Figure:
    """Rows of logit maps on one red-and-blue scale; the mask's outline on those of the first row.

    Args:
        rows: label of a row → its maps, as :func:`as_map` takes them. titles: one a column.
        mask: (H, W), [0, 1].
    """
    top = max(float(np.abs(as_map(cell)).max()) for row in rows.values() for cell in row)
    figure = grid(rows, titles, size=size, cmap="RdBu_r", vmin=-top, vmax=top)
    axes = figure.axes
    for axis in axes[: len(titles)]:
        axis.contour(as_map(mask), levels=[0.5], colors="black", linewidths=1.2)
    figure.set_figwidth(figure.get_figwidth() + 1)  # for the colour bar
    label = "logit: red polyp, blue background"
    figure.colorbar(axes[0].images[0], ax=axes, shrink=0.5, aspect=30, label=label)
    return figure


def along_path(values: pd.DataFrame) -> Figure:
    """Terms on the way from the student's maps to the teacher's, relative to where they start.

    Args:
        values: a column a term, indexed by the share of the way, 0 (student) to 1 (teacher).
    """
    figure, axis = plt.subplots(figsize=(6, 3.1))
    for column, style in zip(values, ("-", "--", ":")):
        colour = next((c for kind, c in COLOUR_OF_TERM.items() if kind in column), None)
        relative = values[column] / values[column].iloc[0]
        axis.plot(relative, style, color=colour, label=column, lw=2)
    axis.axhline(0, color="#999999", lw=0.8)
    axis.set(xlabel="share of the way from student to teacher", ylabel="term / term at the student")
    axis.legend()
    return figure


Landscape = tuple[Tensor, Tensor, Tensor]


def landscapes(
    terms: Mapping[str, Landscape],
    steps: Tensor,
    labels: tuple[str, str],
    goal: tuple[float, float],
) -> Figure:
    """Losses over a plane, dark where low, with lines of equal height and the ways down.

    Args:
        terms: name → (value, first and second component of minus the gradient), each (n, n): rows
            along the second direction.
        steps: (n,) evenly spaced coordinates, the same for both directions.
        labels: of the two directions. goal: coordinates of the ring.
    """
    across = min(3, len(terms))
    down = -(-len(terms) // across)
    inches = (2.35 * across, 2.55 * down)
    figure, axes = plt.subplots(
        down, across, figsize=inches, squeeze=False, sharex=True, sharey=True
    )
    for axis, (name, parts) in zip(axes.flat, terms.items()):
        _landscape(axis, name, parts, steps)
        axis.plot(*goal, "o", ms=9, mfc="none", mec=RED, mew=2)
    for axis in axes[-1]:
        axis.set_xlabel(labels[0])
    for axis in axes[:, 0]:
        axis.set_ylabel(labels[1])
    for axis in axes.flat[len(terms) :]:
        axis.set_visible(False)
    return figure


def _landscape(axis: Axes, name: str, parts: Landscape, steps: Tensor) -> None:
    value, right, up = (part.cpu().double().numpy() for part in parts)
    low, high = float(steps[0]), float(steps[-1])
    axis.set_facecolor("#8a8a8a")  # a plain has no low places
    if np.ptp(value) > 1e-6 * np.abs(value).max():
        look: dict[str, Any] = {
            "cmap": "cividis",
            "norm": PowerNorm(0.5),
            "interpolation": "bilinear",
        }
        axis.imshow(value, extent=(low, high, low, high), origin="lower", **look)
        axis.contour(steps, steps, value, 12, colors="white", linewidths=0.5, alpha=0.6)
        some, length = slice(1, None, 2), np.hypot(right, up).max()
        arrows = [part[some, some] / length for part in (right, up)]
        look = {"color": "white", "scale": 6, "width": 0.009, "pivot": "mid"}
        axis.quiver(steps[some], steps[some], *arrows, **look)
    axis.set(aspect="equal", xlim=(low, high), ylim=(low, high))
    axis.set_title(f"{name}\n{value.min():.3g} to {value.max():.3g}")
    axis.spines[:].set_visible(False)


def term_norms(norms: Mapping[str, Mapping[str, float]]) -> Figure:
    """A dot a term, log scale, a row of panels an objective; zeros stand in a margin.

    Args:
        norms: objective → term → norm ≥ 0.
    """
    lengths = [len(terms) for terms in norms.values()]
    figure, axes = plt.subplots(
        len(norms),
        2,
        figsize=(7, 0.36 * sum(lengths) + 1),
        sharex="col",
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": lengths, "width_ratios": (1, 9), "wspace": 0},
    )
    positive = [value for terms in norms.values() for value in terms.values() if value > 0]
    for (margin, axis), (name, terms) in zip(axes, norms.items()):
        for i, (term, value) in enumerate(terms.items()):
            _norm(margin, axis, i, term, value)
        for part in (margin, axis):
            part.set_axisbelow(True)
            part.grid(axis="y", color="#dddddd", lw=0.8)
        axis.set(xscale="log", xlim=(min(positive) / 2, max(positive) * 4))
        axis.spines["left"].set_color("#bbbbbb")
        axis.tick_params(axis="y", length=0)
        margin.set(xlim=(-1, 1), xticks=[0], xticklabels=["exactly 0"], title=name)
        margin.set(yticks=range(len(terms)), yticklabels=list(terms), ylim=(len(terms) - 0.5, -0.5))
    axes[-1, 1].set_xlabel("norm of the gradient on the student's weights")
    return figure


def _norm(margin: Axes, axis: Axes, row: int, term: str, value: float) -> None:
    kinds = [colour for kind, colour in COLOUR_OF_TERM.items() if term.startswith(kind)]
    colour = kinds[0] if kinds else "#555555"
    where, filled = (axis, colour) if value > 0 else (margin, "white")
    where.plot(value, row, "o", ms=8, color=colour, mfc=filled, mew=1.8)
    if value > 0:
        beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(f"{value:.3g}", (value, row), fontsize=9, **beside)


# --- tables ---------------------------------------------------------------------------------------


def styled(table: pd.DataFrame, form: str, **others: str) -> Styler:
    """A table with its numbers in one form, but for the columns that have their own."""
    style = table.style.format(form).format_index(lambda x: x if isinstance(x, str) else f"{x:g}")
    for name, own in others.items():
        style = style.format(own, subset=name)
    return style


def numbers_of(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """The terms of an objective as plain numbers."""
    return {name: term.item() for name, term in terms.items()}


def term_sizes(terms: Mapping[str, Mapping[str, Tensor]], alpha: float) -> pd.DataFrame:
    """Value and part of the total of each term, for each student."""
    columns = {}
    for who, of_student in terms.items():
        values = pd.Series(numbers_of(of_student))
        total = values.pop("total")
        supervised = values.index.str.startswith("structure")
        columns[who, "value"] = values
        columns[who, "part of the total"] = values * np.where(supervised, 1 - alpha, alpha) / total
    return pd.DataFrame(columns)


def nonzero_counts(experiment: Mapping[tuple[str, str], Sequence[Tensor]]) -> pd.DataFrame:
    """(student, term) → (term, gradient on the maps, gradient on the weights), counted."""
    rows = {}
    for key, (term, on_maps, on_weights) in experiment.items():
        rows[key] = {
            "value": term.item(),
            "nonzero on maps": int(on_maps.count_nonzero()),
            "of": len(on_maps),
            "nonzero on weights": int(on_weights.count_nonzero()),
            "of all weights": len(on_weights),
            "norm on weights": on_weights.norm().item(),
        }
    table = pd.DataFrame(list(rows.values()), index=pd.MultiIndex.from_tuples(rows))
    return table.rename_axis(["student", "attention term"])
