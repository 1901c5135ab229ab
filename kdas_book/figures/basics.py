"""The book's style, a palette for all eyes (Okabe and Ito), and what several chapters draw with."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn.functional import max_pool2d

from kdas_core.data.dataset import MEAN, STD

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#555555"
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, RED, SKY, GREY]
COLOUR_OF = {
    "teacher": GREY,
    "supervised": BLUE,
    "logit_kd": SKY,
    "attention_only": PURPLE,
    "symmetric_only": GREEN,
    "kdas": ORANGE,
    "released": RED,
    "channel_wise_kd": "#8C6D1F",
    "channel_wise": "#8C6D1F",
    "kdas_raw": "#B07000",
    "fitnet": "#5B4A9A",
    "supervised_0.7": "#7FA8C9",
    "attention_transfer": "#1B3A57",
    "all images": "black",
}
COLOUR_OF |= {f"{name} (raw guiding)": COLOUR_OF[name] for name in ("symmetric_only", "kdas")}
OUTLINE: dict = {"levels": [0.5], "colors": "#00c8a0", "linewidths": 1}  # of a mask on a map
BESIDE: dict = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend right of its axis
BELOW: dict = {"loc": "outside lower center"}  # a figure's legend
WIDTH = 8.0  # inches of a page's text, 768 pixels
FRAME = {"visible": True, "color": "#b8b8b8", "linewidth": 0.6}  # round a picture or map
VERDICTS = {"found": GREEN, "missed": ORANGE, "false alarm": PURPLE}
Array = Tensor | np.ndarray


class Verdict(np.ndarray):
    """A picture by :func:`error_overlay`, which brings the legend of its colours to its figure."""


def as_picture(image: Array) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a tensor (3, H, W) of `normalise`, exactly, or of such an array."""
    if isinstance(image, np.ndarray):
        return image
    pixels = 255 * (image.detach().cpu().float() * STD + MEAN)
    return pixels.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def as_map(values: Array) -> np.ndarray:
    """float (H, W) of a map of shape (H, W), (1, H, W) or (1, 1, H, W)."""
    if isinstance(values, Tensor):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=float).reshape(values.shape[-2:])


def outlined(image: Array, mask: Array) -> np.ndarray:
    """The picture with the mask's outline in yellow on black, so that it shows on any mucosa."""
    picture = as_picture(image).copy()
    width = max(1, round(min(picture.shape[:2]) / 150))
    solid = (as_map(mask) >= 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 0, 0), width + 2)
    cv2.drawContours(picture, contours, -1, (255, 235, 60), width)
    return picture


def error_overlay(image: Array, prediction: Array, mask: Array) -> np.ndarray:
    """The picture with found pixels green, missed orange, false alarms purple; cut at 0.5."""
    picture = as_picture(image).astype(float)
    found, true = as_map(prediction) >= 0.5, as_map(mask) >= 0.5
    for where, colour in zip((found & true, ~found & true, found & ~true), VERDICTS.values()):
        picture[where] = 0.45 * picture[where] + 0.55 * 255 * np.array(to_rgb(colour))
    return picture.astype(np.uint8).view(Verdict)


def edge_band(mask: Tensor, width: int) -> Tensor:
    """bool (B, 1, H, W): True where a pixel lies within ``width`` pixels of the mask's outline."""
    solid, window = (mask >= 0.5).float(), 2 * width + 1
    grown = max_pool2d(solid, window, stride=1, padding=width)
    shrunk = -max_pool2d(-solid, window, stride=1, padding=width)
    return grown != shrunk


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """How well two bool masks agree, 0 to 1."""
    return 2 * (one & other).sum() / max(1, one.sum() + other.sum())


def side_by_side(count: int, width: float, height: float, **options: Any):
    """A figure and its axes, so many in a row, each of a size in inches."""
    size = (min(WIDTH, width * count), height)
    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False, **options)
    return figure, axes[0]


def labelled(axis: Any, x: str, y: str, **options: Any) -> Figure:
    """Name the axes, set ``options`` of the axis, put a legend right of it; returns the figure."""
    axis.set(xlabel=x, ylabel=y, **options)
    if axis.get_xscale() == "log":
        axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(**BESIDE)
    return axis.get_figure()


def key(figure: Any, colours: Mapping[str, str]) -> None:
    """What each colour means, in a line below the figure."""
    patches = [Patch(color=colour, label=word) for word, colour in colours.items()]
    figure.legend(handles=patches, ncols=len(colours), **BELOW)


def show(axis: Axes, cell: Array, title: str = "", mask: Array | None = None, **imshow):
    """A picture or a map, as :func:`as_map` takes it, bare, with the mask's outline on it."""
    if isinstance(cell, np.ndarray) and cell.ndim == 3 and cell.shape[-1] == 3:
        drawn = axis.imshow(cell)
    else:
        drawn = axis.imshow(as_map(cell), **imshow)
    if mask is not None:
        axis.contour(as_map(mask), **OUTLINE)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title)
    axis.spines[:].set(**FRAME)
    if isinstance(cell, Verdict) and not axis.figure.legends:
        key(axis.figure, VERDICTS)
    return drawn


def grid(
    rows: Mapping, titles=(), size: float = 1.9, mask=None, bar: str | None = None, **imshow
) -> Figure:
    """Rows of pictures and maps.

    Args:
        rows: label of a row → uint8 (H, W, 3) arrays, or maps as :func:`as_map` takes them.
        titles: one for each column, or, row by row, one for each picture.
        size: inches a picture. mask: its outline lies on all of them.
        bar: label of a colour bar, for maps on one scale.
        imshow: for maps, e.g. ``vmin=0, vmax=1, cmap="gray"``.
    """
    columns, beside = max(map(len, rows.values())), 0.4 if bar is None else 1.0
    size = min(size, (WIDTH - beside) / columns)
    inches = (size * columns + beside, size * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), columns, figsize=inches, squeeze=False)
    for (label, row), line in zip(rows.items(), axes):
        for axis, cell in zip(line, row):
            drawn = show(axis, cell, mask=mask, **imshow)
        for axis in line[len(row) :]:
            axis.set_axis_off()
        line[0].set_ylabel(label)
    for axis, title in zip(axes.flat, titles):
        axis.set_title(title)
    if bar is not None:
        figure.colorbar(drawn, ax=axes, shrink=0.8, label=bar)
    return figure


def colour_of(name: str, i: int = 0) -> str:
    """The colour of an objective, of a teacher (grey) or student (blue), or the i-th of all."""
    who = {"teacher": GREY, "student": BLUE}
    return COLOUR_OF.get(name) or who.get(re.split(r"\W", name)[0], f"C{i}")


def lines(
    table: pd.DataFrame, x: str, y: str, style: str = "o-", marks=(), levels=(), **options: Any
) -> Figure:
    """A line for each column of a table over its index.

    Args:
        style: as in ``plt.plot``, e.g. ``"o"`` for dots. options: of the axis, e.g. xscale="log".
        marks, levels: (word, place) pairs of dashed lines, upright and level.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3))
    for i, (name, values) in enumerate(table.items()):
        colour = colour_of(str(name), i)
        again = colour in [line.get_color() for line in axis.lines]
        axis.plot(values, style.replace("-", "--") if again else style, color=colour, label=name)
    small: dict[str, Any] = {"color": GREY, "va": "bottom"}
    for word, place in marks:
        axis.axvline(place, color="#888888", ls="--", lw=1)
        axis.text(place, 0.01, f" {word}", transform=axis.get_xaxis_transform(), **small)
    for word, height in levels:
        axis.axhline(height, color="#888888", ls="--", lw=1)
        axis.text(0.01, height, word, transform=axis.get_yaxis_transform(), **small)
    return labelled(axis, x, y, **options)


def curves(histories: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> Figure:
    """One panel per column of the runs' histories, one line per run."""
    figure, axes = side_by_side(len(columns), 4, 3)
    for axis, column in zip(axes, columns):
        for i, (name, history) in enumerate(histories.items()):
            if column in history:
                values = history.set_index("epoch")[column]
                axis.plot(values, "o-", color=colour_of(name, i), label=name)
        title = column.replace("val_", "validation ").replace("_", " ").replace("dice", "Dice")
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[-1].get_legend_handles_labels(), ncols=len(histories), **BELOW)
    return figure


def bars(values: Mapping | pd.DataFrame, label: str, even=None, colours=PALETTE) -> Figure:
    """Horizontal bars, each with its value at the end, or, one a row of a table, stacked of its
    columns, and a dashed line at ``even``.
    """
    table = values if isinstance(values, pd.DataFrame) else pd.Series(values).to_frame()
    size = (WIDTH, 0.4 * len(table) + 0.8)
    axis = table.plot.barh(figsize=size, stacked=True, color=list(colours), width=0.7)
    axis.invert_yaxis()
    if even is not None:
        axis.axvline(even, color="black", ls="--", lw=1)
    figure = labelled(axis, label, "")
    if len(table.columns) == 1:
        axis.bar_label(axis.containers[0], fmt=" {:.3g}")
        axis.margins(x=0.15)
        axis.get_legend().remove()
    return figure


def verdicts(images, masks, probabilities: Mapping, titles: Sequence[str], **maps) -> Figure:
    """Images in columns: the outlines of their masks, then a row of verdicts for each network, then
    rows of ``maps``, shown from 0 to 1; all (B, C, S, S).
    """
    rows = {"mask": [outlined(*pair) for pair in zip(images, masks)]}
    for name, probability in probabilities.items():
        rows[name] = [error_overlay(*three) for three in zip(images, probability, masks)]
    return grid(rows | maps, titles, size=1.4, vmin=0, vmax=1)


def strips(values: Mapping, label: str, colours: Sequence = (), log: bool = False) -> Figure:
    """A row of dots for each group of values, a tick at its median; ``colours``: RGB, one a dot."""
    figure, axis = plt.subplots(figsize=(WIDTH, 0.42 * len(values) + 0.8))
    scatter = np.random.default_rng(0)
    for row, numbers in enumerate(values.values()):
        height = row + scatter.uniform(-0.25, 0.25, len(numbers))
        look = {"c": colours[row], "s": 40} if len(colours) else {"c": BLUE, "s": 22}
        axis.scatter(numbers, height, linewidth=0.3, edgecolor="black", **look)
        axis.plot([np.median(numbers)] * 2, [row - 0.42, row + 0.42], color="black", lw=2.5)
    axis.set(yticks=range(len(values)), yticklabels=list(values), xlabel=label)
    axis.invert_yaxis()
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    return figure
