"""Figures of chapter 5: what each loss sees, where its gradient points, how large its terms are."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch import Tensor

from kdas_book.figures import basics as plots

COLOUR_OF_TERM = {"structure": plots.BLUE, "attention": plots.PURPLE, "symmetric": plots.GREEN}


def panels(cells: Mapping, signed: Sequence[str] = (), limits: Mapping | None = None) -> Figure:
    """Pictures and maps, title → what :func:`show` takes, side by side, each map with a colour bar:
    those that ``signed`` names in red and blue around 0, on one scale, so that a zero one is blank;
    the others between their ``limits``, if there are any.
    """
    figure, axes = plots.side_by_side(len(cells), 2.0, 2.15)
    largest = max([0.0, *(np.abs(plots.as_map(cells[title])).max() for title in signed)]) or 1
    for axis, (title, cell) in zip(axes, cells.items()):
        scale: dict = dict(zip(("vmin", "vmax"), (limits or {}).get(title, ())))
        if title in signed:
            scale = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
        drawn = plots.show(axis, cell, title, **scale)
        if drawn.get_array().ndim == 2:
            below = {"location": "bottom", "shrink": 0.8, "pad": 0.03}
            bar = figure.colorbar(drawn, ax=axis, ticks=plt.MaxNLocator(3), **below)
            bar.ax.ticklabel_format(scilimits=(-2, 3))
            bar.ax.tick_params(labelsize=7)
            bar.ax.xaxis.get_offset_text().set_fontsize(7)
    return figure


def signed_grid(rows: Mapping[str, Sequence], titles: Sequence[str], mask: Tensor) -> Figure:
    """Rows of logit maps on one red-and-blue scale; the first row with the outline of the mask."""
    top = max(float(np.abs(plots.as_map(cell)).max()) for row in rows.values() for cell in row)
    look: dict = {"bar": "logit: red polyp, blue background", "cmap": "RdBu_r"}
    figure = plots.grid(rows, titles, vmin=-top, vmax=top, **look)
    for axis in figure.axes[: len(titles)]:
        axis.contour(plots.as_map(mask), **plots.OUTLINE | {"colors": "black"})
    return figure


def landscapes(terms: Mapping, steps: Tensor, labels: Sequence[str], goal: tuple) -> Figure:
    """Losses over a plane, dark where low, with lines of equal height and the ways down.

    Args:
        terms: name → (value, first and second component of minus the gradient), each (n, n).
        steps: (n,) coordinates, the same for both directions. labels: of the directions.
        goal: coordinates of the ring.
    """
    across, down = min(3, len(terms)), -(-len(terms) // 3)
    shared: dict[str, Any] = {"squeeze": False, "sharex": True, "sharey": True}
    figure, axes = plt.subplots(down, across, figsize=(2.35 * across, 2.55 * down), **shared)
    ends, some = (float(steps[0]), float(steps[-1])), slice(1, None, 2)
    for axis, (name, parts) in zip(axes.flat, terms.items()):
        value, right, up = (part.cpu().double().numpy() for part in parts)
        axis.set(xlim=ends, ylim=ends, facecolor="#8a8a8a", aspect="equal")
        axis.set_title(f"{name}\n{value.min():.3g} to {value.max():.3g}")
        axis.spines[:].set_visible(False)
        axis.plot(*goal, "o", ms=9, mfc="none", mec=plots.RED, mew=2)
        if np.ptp(value) <= 1e-6 * np.abs(value).max():
            continue  # a plain has no low places
        look = {"cmap": "cividis", "norm": PowerNorm(0.5), "interpolation": "bilinear"}
        axis.imshow(value, extent=(*ends, *ends), origin="lower", **look)
        axis.contour(steps, steps, value, 12, colors="white", linewidths=0.5, alpha=0.6)
        arrows = [part[some, some] / np.hypot(right, up).max() for part in (right, up)]
        look = {"color": "white", "scale": 6, "width": 0.009, "pivot": "mid"}
        axis.quiver(steps[some], steps[some], *arrows, **look)
    figure.supxlabel(labels[0], fontsize=10)
    figure.supylabel(labels[1], fontsize=10)
    return figure


def term_norms(norms: Mapping[str, Mapping[str, float]]) -> Figure:
    """Norms of gradients, objective → term → norm ≥ 0, on a log scale that ends in 0."""
    lengths = [len(terms) for terms in norms.values()]
    least = min(norm for terms in norms.values() for norm in terms.values() if norm > 0)
    size = (7, 0.36 * sum(lengths) + 1)
    figure, axes = plt.subplots(len(norms), figsize=size, sharex=True, height_ratios=lengths)
    for axis, (name, terms) in zip(np.atleast_1d(axes), norms.items()):
        for row, (term, value) in enumerate(terms.items()):
            colour = COLOUR_OF_TERM[re.split("[_, ]", term)[0]]
            dot = {"color": colour, "mfc": colour if value else "white", "mew": 1.8}
            axis.plot(value, row, "o", ms=8, **dot)
            beside = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
            axis.annotate(f"{value:.3g}" if value else "exactly 0", (value, row), **beside)
        axis.set_xscale("symlog", linthresh=least, linscale=0.5)
        axis.set(title=name, yticks=range(len(terms)), yticklabels=list(terms), xmargin=0.1)
        axis.set(xlim=(-0.2 * least, None), ylim=(len(terms) - 0.5, -0.5))
        axis.grid(axis="y", color="#dddddd", lw=0.8)
        axis.tick_params(axis="y", length=0)
    figure.supxlabel("norm of the gradient on the student's weights", fontsize=10)
    return figure


def styled(table: pd.DataFrame, form: str, **others: str) -> Styler:
    """A table with its numbers in one form, but for the columns that have their own."""
    style = table.style.format(dict.fromkeys(table, form) | others)
    return style.format_index(lambda x: x if isinstance(x, str) else f"{x:g}")


def term_sizes(terms: Mapping[str, Mapping[str, Tensor]], alpha: float) -> pd.DataFrame:
    """Value and part of the total of each term, for each student."""
    columns = {}
    for who, of_student in terms.items():
        values = pd.Series({name: term.item() for name, term in of_student.items()})
        total = values.pop("total")
        supervised = values.index.str.startswith("structure")
        columns[who, "value"] = values
        columns[who, "part of the total"] = values * np.where(supervised, 1 - alpha, alpha) / total
    return pd.DataFrame(columns)


def nonzero_counts(experiment: Mapping[tuple[str, str], Sequence[Tensor]]) -> pd.DataFrame:
    """(student, term) → (term, gradient on the maps, gradient on the weights), counted."""
    rows = []
    for key, (term, maps, weights) in experiment.items():
        counts = [int(maps.count_nonzero()), len(maps), int(weights.count_nonzero()), len(weights)]
        rows.append([*key, term.item(), *counts, weights.norm().item()])
    columns = ["student", "attention term", "value", "nonzero on maps", "of"]
    columns += ["nonzero on weights", "of all weights", "norm on weights"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])
