"""Figures of chapter 5: what each loss sees, where its gradient points, how large its terms are."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
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
    return figure


def signed_grid(rows: Mapping[str, Sequence], titles: Sequence[str], mask: Tensor) -> Figure:
    """Rows of logit maps on one red-and-blue scale; the first row with the outline of the mask."""
    top = max(float(np.abs(plots.as_map(cell)).max()) for row in rows.values() for cell in row)
    look: dict = {"bar": "logit: red polyp, blue background", "cmap": "RdBu_r", "size": 1.45}
    figure = plots.grid(rows, titles, vmin=-top, vmax=top, **look)
    for axis in figure.axes[: len(titles)]:
        axis.contour(plots.as_map(mask), **plots.OUTLINE | {"colors": "black"})
    return figure


def term_shares(parts: pd.DataFrame) -> Figure:
    """Stacked bars, a row of the table each: every term's part of a total, in per cent where the
    bar has room for it.
    """
    figure, axis = plt.subplots(figsize=(plots.WIDTH, 0.4 * len(parts) + 0.8))
    ends = np.zeros(len(parts))
    for term, colour in zip(parts, (COLOUR_OF_TERM[term.split("_")[0]] for term in parts)):
        lighter = 0.6 if term.endswith("2") else 1
        look = {"color": colour, "alpha": lighter, "edgecolor": "white", "label": term}
        axis.barh(range(len(parts)), parts[term], left=ends, **look)
        for row, part in enumerate(parts[term]):
            if part > 0.06:
                words = f"{100 * part:.0f}\u202f%"
                axis.text(ends[row] + part / 2, row, words, color="white", ha="center", va="center")
        ends += parts[term].to_numpy()
    axis.set(xlim=(0, 1), yticks=range(len(parts)), yticklabels=list(parts.index))
    axis.invert_yaxis()
    return plots.labelled(axis, "part of the total", "")


def styled(table: pd.DataFrame, form: str, **others: str) -> Styler:
    """A table with its numbers in one form, but for the columns that have their own."""
    style = table.style.format(dict.fromkeys(table, form) | others)
    return style.format_index(lambda x: x if isinstance(x, str) else f"{x:g}")


def parts_of_total(terms: Mapping[str, Tensor], alpha: float) -> pd.Series:
    """Each term of an objective, with its factor 1 − α or α, as a part of the total."""
    values = pd.Series({name: term.item() for name, term in terms.items()})
    total = values.pop("total")
    return values * np.where(values.index.str.startswith("structure"), 1 - alpha, alpha) / total


def nonzero_counts(experiment: Mapping[tuple[str, str], Sequence[Tensor]]) -> pd.DataFrame:
    """(student, term) → (term, gradient on the maps, gradient on the weights), counted."""
    rows = []
    for key, (term, maps, weights) in experiment.items():
        counts = [int(maps.count_nonzero()), len(maps), int(weights.count_nonzero()), len(weights)]
        rows.append([*key, term.item(), *counts, weights.norm().item()])
    columns = ["student", "attention term", "value", "nonzero on maps", "of"]
    columns += ["nonzero on weights", "of all weights", "norm on weights"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def one_channel(logits: Tensor) -> Figure:
    """Logits (n,), their softmax as n channels of one pixel, and as the one channel of n pixels,
    where every bar is 1.
    """
    n, words = len(logits), ("logit", "channel", "pixel")
    shares = {f"{n} logits": logits, f"softmax, as {n} channels of one pixel": logits.softmax(0)}
    shares[f"softmax, as the one channel of {n} pixels"] = logits[:, None].softmax(1)[:, 0]
    figure, axes = plots.side_by_side(3, 2.6, 2.2)
    for axis, word, colour, title in zip(axes, words, (plots.GREY, plots.BLUE, plots.RED), shares):
        values = shares[title].tolist()
        drawn = axis.bar([f"{word} {i + 1}" for i in range(n)], values, color=colour)
        axis.bar_label(drawn, [f"{value:.2f}".replace("-", "−") for value in values], padding=2)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(title=title, yticks=[])
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.tick_params(length=0)
        axis.margins(x=0.1, y=0.2)
    plt.setp(axes[1:], ylim=(0, 1.2))
    return figure
