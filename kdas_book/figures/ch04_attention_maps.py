"""Figures of chapter 4: logit maps, their attention, the distributions that are compared."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import as_map, grid, outlined, show
from kdas_core.attention import attention_weights, self_attention


def in_cells(maps: Mapping[str, Tensor], digits: int = 2, size: float = 2.9) -> Figure:
    """Small maps (H, W), every value in its cell; orange is above zero, purple below."""
    figure, axes = plots.side_by_side(len(maps), size, size)
    for axis, (title, cells) in zip(axes, maps.items()):
        values = as_map(cells)
        limit = 1.3 * max(float(np.abs(values).max()), 1e-9)
        drawn = show(axis, values, title, cmap="PuOr_r", vmin=-limit, vmax=limit)
        places = 0 if (values == values.round()).all() else digits
        for (i, j), value in np.ndenumerate(values.round(places) + 0.0):  # no "-0.00"
            words = f"{value:.{places}f}".replace("-", "−")
            dark = np.dot(drawn.to_rgba(values)[i, j, :3], (0.3, 0.6, 0.1)) < 0.45
            look = {"ha": "center", "va": "center", "color": "white" if dark else "black"}
            axis.text(j, i, words, **look)
        axis.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
        axis.tick_params(length=0)
    return figure


def map_table(images: Tensor, masks: Tensor, logits: Mapping, shares: Mapping) -> Figure:
    """A row an image: the picture, logit maps on one scale for all (orange is above zero, polyp),
    distributions each on its own; title → (B, H, W) or (B, 1, H, W), with the mask's outline.
    """
    maps, rows = [*logits.values(), *shares.values()], {}
    for i, image in enumerate(images):
        rows[" " * i] = [outlined(image, masks[i]), *(values[i] for values in maps)]
    figure = grid(rows, ["image", *logits, *shares], 1.2, cmap="magma")
    axes = np.array(figure.axes).reshape(len(images), -1)
    for line, mask in zip(axes, masks):
        for axis in line[1:]:
            axis.contour(as_map(mask), **plots.OUTLINE)
    limit = max(float(values.float().abs().quantile(0.995)) for values in logits.values())
    of_logits = axes[:, 1 : 1 + len(logits)]
    for axis in of_logits.flat:
        axis.images[0].set(cmap="PuOr_r", clim=(-limit, limit))
    below: dict = {"location": "bottom", "shrink": 0.5, "aspect": 40, "label": "logit"}
    figure.colorbar(axis.images[0], ax=of_logits, **below)
    return figure


def row_looks_at(image, mask, logits: Tensor, weights: Tensor, attended, row: int) -> Figure:
    """Where one row of the logits (H, W) lies, at which rows it looks, and what it becomes."""
    _, (left, middle, right) = plots.side_by_side(3, 2.4, 2.5, width_ratios=(1, 0.45, 1.1))
    show(left, outlined(image, mask), f"row {row} asks")
    left.axhline(row, color=plots.RED, lw=2)
    left.set(yticks=[0, len(logits) - 1])
    middle.barh(range(len(logits)), as_map(weights)[row], height=1.0, color=plots.BLUE)
    middle.axhline(row, color=plots.RED, lw=1)
    middle.set(xlim=(0, 1.05 * float(weights.max())), ylim=(len(logits) - 0.5, -0.5))
    middle.set(yticks=[], title="looks at", xlabel="weight")
    both = ((logits, plots.RED, "row of P"), (attended, plots.BLUE, "row of A(P)"))
    for values, colour, name in both:
        right.plot(as_map(values)[row], color=colour, label=name, lw=1.2)
    right.axhline(0, color="#999999", lw=0.8)
    limit = 1.05 * float(logits.abs().max())
    return plots.labelled(right, "column", "", ylim=(-limit, limit), title="logits")


def share_of_half(distribution: Tensor) -> float:
    """The smallest share of the pixels that holds half of a distribution over them, in (0, 0.5]."""
    heaviest_first = distribution.flatten().double().sort(descending=True).values.cumsum(0)
    return (int((heaviest_first < 0.5 * heaviest_first[-1]).sum()) + 1) / distribution.numel()


def attention_pair(student: Tensor, teacher: Tensor, title: str = "", mask=None) -> Figure:
    """Two distributions (H, W) over the pixels on one scale, each relative to an even one."""
    row, titles = [], []
    for name, values in (("teacher", teacher), ("student", student)):
        row.append(values * values.numel())
        titles.append(f"{name}: half on {100 * share_of_half(values):.2g}\u202f% of pixels")
    scale = {"vmin": 0, "vmax": max(float(values.max()) for values in row)}
    figure = grid({"": row}, titles, 2.5, mask, bar="× uniform", cmap="magma", **scale)
    figure.suptitle(title)
    return figure


def of_each_map(networks: Mapping[str, Sequence], measure: Callable) -> pd.DataFrame:
    """What ``measure`` says of P₁ and P₂ of each network, a row each."""
    rows = {}
    for name, maps in networks.items():
        for k, own in zip("₁₂", maps):
            rows[f"{name}, P{k}"] = measure(own)
    return pd.DataFrame.from_dict(rows, orient="index")


def editable_map(logits: Tensor, row: int = 0, column: int = 0) -> HTML:
    """A small logit map (H, W) to be changed by hand, cell by cell, with its scores, its weights
    and A(P), which follow; one cell is chosen. No kernel is needed; without JavaScript it is four
    tables.
    """
    P = logits.detach().float().cpu()
    weights, attended = attention_weights(P[None, None])[0], self_attention(P[None, None])[0]
    tables = {"P, yours to change": P, "scores P Pᵀ / √W": P @ P.T / P.shape[1] ** 0.5}
    tables |= {"weights: softmax of each row": weights, "A(P) = weights · P": attended}
    maps = "".join(_table(*each, editable=not i) for i, each in enumerate(tables.items()))
    style, script = (
        files(__package__).joinpath(f"editable_map.{kind}").read_text("utf-8")
        for kind in ("css", "js")
    )
    change = "".join(f'<button type="button" data-do="{k}">{v}</button>' for k, v in DOES.items())
    return HTML(
        f'<div class="kdas-map" data-chosen="{row} {column}" data-lm-suppress-shortcuts="true">'
        f'<style>{style}</style><div class="bar" role="group" aria-label="the whole map">{change}'
        '</div><div class="bar" role="group" aria-label="the chosen cell"><span></span><button '
        'type="button" data-add="-0.5" aria-label="less by a half">−</button><output></output>'
        '<button type="button" data-add="0.5" aria-label="more by a half">+</button></div>'
        f'<p role="status"></p><div class="maps">{maps}</div><script>{script}</script></div>'
    )


DOES = {"mirror": "mirror", "turn": "turn by 90°", "double": "twice as sure"}
DOES |= {"halve": "half as sure", "reset": "reset"}


def _table(title: str, values: Tensor, editable: bool) -> str:
    """One map as a table; the numbers in full stand in ``data-value``."""
    head = "".join(f'<th scope="col">{j}</th>' for j in range(values.shape[1]))
    rows = ""
    for i, row in enumerate(values.tolist()):
        cells = "".join(
            f'<td data-value="{x:.5f}">{x:{".3g" if editable else ".2f"}}</td>' for x in row
        )
        rows += f'<tr><th scope="row">{i}</th>{cells}</tr>'
    role = ' role="grid"' if editable else ""
    return (
        f'<table{role} aria-label="{title}"><caption>{title}</caption><thead><tr><td></td>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )
