"""The style of the book's figures, one palette that colour-blind readers can tell apart (Okabe and
Ito), and what several chapters draw with. Functions return matplotlib figures.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import max_pool2d

from kdas_core import UserError
from kdas_core.data.dataset import denormalise
from kdas_core.files import atomic_write

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
    "attention_transfer": "#1B3A57",
}
COLOUR_OF |= {f"{name} (raw guiding)": COLOUR_OF[name] for name in ("symmetric_only", "kdas")}
STYLE = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.prop_cycle": plt.cycler(color=PALETTE),
    "font.size": 10,
    "image.cmap": "viridis",
    "legend.frameon": False,
}
Array = Tensor | np.ndarray
# chapter 8 stands beside the story
STORY = dict(enumerate("data teacher student attention losses training evaluation".split(), 1))
STORY[9] = "study"


def use_style() -> None:
    """Give every figure from here on the book's style."""
    plt.rcParams.update(STYLE)  # type: ignore[arg-type]  # Matplotlib's types list the keys one by one


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format of the path's suffix; an older file stays until this is whole.

    Raises:
        UserError: matplotlib does not write such files, or the file cannot be written.
    """
    drawn, way_out = io.BytesIO(), "give a path such as figure.png"
    try:
        figure.savefig(drawn, format=path.suffix[1:] or None)
    except ValueError as error:
        raise UserError(f"{path} cannot be written ({error}); {way_out}.") from error
    atomic_write(path, drawn.getvalue(), way_out)


def as_picture(image: Array) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a normalised tensor (3, H, W), or of such an array itself."""
    return denormalise(image.detach().cpu()) if isinstance(image, Tensor) else image


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
    """The picture with found pixels green, missed ones orange and false alarms purple;
    ``prediction`` in [0, 1], cut at 0.5.
    """
    picture = as_picture(image).astype(float)
    found, true = as_map(prediction) >= 0.5, as_map(mask) >= 0.5
    picture[found & true] = 0.45 * picture[found & true] + 0.55 * np.array((0, 158, 115))
    picture[~found & true] = 0.45 * picture[~found & true] + 0.55 * np.array((230, 159, 0))
    picture[found & ~true] = 0.45 * picture[found & ~true] + 0.55 * np.array((204, 121, 167))
    return picture.astype(np.uint8)


def edge_band(mask: Tensor, width: int) -> Tensor:
    """bool (B, 1, H, W): True where a pixel lies within ``width`` pixels of the mask's outline."""
    solid, window = (mask >= 0.5).float(), 2 * width + 1
    grown = max_pool2d(solid, window, stride=1, padding=width)
    shrunk = -max_pool2d(-solid, window, stride=1, padding=width)
    return grown != shrunk


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """How well two bool masks agree, 0 to 1."""
    return 2 * (one & other).sum() / max(1, one.sum() + other.sum())


def bare(axes: Iterable[Axes]) -> None:
    """Take ticks and frames off axes that hold pictures."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def grid(
    rows: Mapping,
    titles: Sequence[str] = (),
    size: float = 1.9,
    fontsize: float | None = None,
    **imshow,
) -> Figure:
    """Rows of pictures and maps. RGB arrays are shown as they are, two-dimensional maps with
    viridis.

    Args:
        rows: label of a row → uint8 (H, W, 3) arrays, or maps as :func:`as_map` takes them.
        titles: one for each column, or, row by row, one for each picture; in ``fontsize`` points.
        size: inches a picture.
        imshow: for maps, e.g. ``vmin=0, vmax=1, cmap="gray"``.
    """
    columns = max(len(row) for row in rows.values())
    inches = (size * columns + 0.4, size * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), columns, figsize=inches, squeeze=False)
    bare(axes.flat)
    for (label, row), line in zip(rows.items(), axes):
        line[0].set_ylabel(label)
        for axis, cell in zip(line, row):
            if isinstance(cell, np.ndarray) and cell.ndim == 3 and cell.shape[-1] == 3:
                axis.imshow(cell)
            else:
                axis.imshow(as_map(cell), **imshow)
    for axis, title in zip(axes.flat, titles):
        axis.set_title(title, fontsize=fontsize)
    return figure


def curves(histories: Mapping[str, pd.DataFrame], columns: Sequence[str]) -> Figure:
    """One panel per column of the runs' histories, one line per run."""
    figure, axes = plt.subplots(1, len(columns), figsize=(4.2 * len(columns), 3), squeeze=False)
    for axis, column in zip(axes[0], columns):
        for name, history in histories.items():
            if column in history:
                look = {"color": COLOUR_OF.get(name), "marker": "o", "ms": 3}
                axis.plot(history["epoch"], history[column], label=name, **look)
        axis.set(title=column.replace("_", " "), xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][-1].legend()
    return figure


def bars(values: Mapping[str, float], label: str, even: float | None = None) -> Figure:
    """Horizontal bars, each with its value at the end, and a dashed line at ``even``, if given."""
    figure, axis = plt.subplots(figsize=(6, 2.6))
    drawn = axis.barh(list(values), list(values.values()), color=BLUE)
    axis.bar_label(drawn, fmt=" {:.3g}")
    axis.invert_yaxis()
    if even is not None:
        axis.axvline(even, color="black", ls="--", lw=1)
    axis.set(xlabel=label, xmargin=0.15)
    return figure


def verdicts(images, masks, probabilities: Mapping, titles: Sequence[str], **maps) -> Figure:
    """Images in columns: the outlines of their masks, then a row of verdicts for each network, then
    rows of ``maps``, shown from 0 to 1; all (B, C, S, S).
    """
    rows = {"mask": [outlined(*pair) for pair in zip(images, masks)]}
    for name, probability in probabilities.items():
        rows[name] = [error_overlay(*three) for three in zip(images, probability, masks)]
    return grid(rows | maps, titles, size=1.6, vmin=0, vmax=1)


def strips(values: Mapping, label: str, colours: Sequence = (), log: bool = False) -> Figure:
    """One row of dots for each group's array of values, and a black tick at its median. Dots are
    blue, or have ``colours``: for each group, one RGB colour in [0, 1] a value.
    """
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(values) + 0.8))
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


def chapter_strip(here: str) -> Figure:
    """Where a chapter stands: the steps of the book in a row, joined, this one filled."""
    width, height, pad = 576, 40, 4.5  # points; the pad is that of the boxes
    figure = plt.figure(figsize=(width / 72, height / 72), layout="none")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    boxes = []
    for number, step in STORY.items():
        words = axis.text(0, height / 2, f"{number}  {step}", size=9, va="center", color="#444444")
        if step == here:
            words.set(color="white", weight="bold")
        fill = BLUE if step == here else "#eef2f5"
        words.set_bbox({"boxstyle": f"round,pad={pad / 9}", "fc": fill, "ec": "none"})
        boxes.append(words)
    lengths = [box.get_window_extent().width * 72 / figure.dpi + 2 * pad for box in boxes]
    gap = (width - sum(lengths)) / len(boxes)  # half of one at either end
    left = gap / 2
    for box, length in zip(boxes, lengths):
        box.set_x(left + pad)
        if box is not boxes[0]:
            axis.plot((left - gap, left), [height / 2] * 2, color="#aaaaaa", lw=1, zorder=0)
        left += length + gap
    return figure
