"""The figures of the book: one style, one palette that colour-blind readers can tell apart (Okabe
and Ito), one function a kind.

Every function returns a matplotlib figure and reads tensors or arrays as the rest of the package
makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kdas_core.data.dataset import denormalise

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
)
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, RED, SKY, "#555555"]
COLOUR_OF = {
    "teacher": "#555555",
    "supervised": BLUE,
    "logit_kd": SKY,
    "attention_only": PURPLE,
    "symmetric_only": GREEN,
    "kdas": ORANGE,
    "released": RED,
    "channel_wise_kd": "#8C6D1F",
    "attention_transfer": "#1B3A57",
}
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


def use_style() -> None:
    """Give every figure from here on the book's style."""
    plt.rcParams.update(STYLE)  # type: ignore[arg-type]  # Matplotlib's types list the keys one by one


def as_picture(image: Tensor | np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a normalised tensor (3, H, W) or of an array that is a picture
    already.
    """
    return denormalise(image.detach().cpu()) if isinstance(image, Tensor) else image


def as_map(values: Tensor | np.ndarray) -> np.ndarray:
    """float (H, W) of a map of shape (H, W), (1, H, W) or (1, 1, H, W)."""
    array = (
        values.detach().float().cpu().numpy()
        if isinstance(values, Tensor)
        else np.asarray(values, dtype=float)
    )
    return array.reshape(array.shape[-2:])


def outlined(image: Tensor | np.ndarray, mask: Tensor | np.ndarray, width: int = 0) -> np.ndarray:
    """The picture with the outline of the mask drawn in yellow on black, so that it shows on any
    mucosa.
    """
    picture = as_picture(image).copy()
    width = width or max(1, round(min(picture.shape[:2]) / 150))
    contours, _ = cv2.findContours(
        (as_map(mask) >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, contours, -1, (0, 0, 0), width + 2)
    cv2.drawContours(picture, contours, -1, (255, 235, 60), width)
    return picture


def error_overlay(
    image: Tensor | np.ndarray, prediction: Tensor | np.ndarray, mask: Tensor | np.ndarray
) -> np.ndarray:
    """The picture with found pixels green, missed ones orange and false alarms purple;
    ``prediction`` in [0, 1], cut at 0.5.
    """
    picture = as_picture(image).astype(float)
    found, true = as_map(prediction) >= 0.5, as_map(mask) >= 0.5
    colours = (
        (found & true, (0, 158, 115)),
        (~found & true, (230, 159, 0)),
        (found & ~true, (204, 121, 167)),
    )
    for where, colour in colours:
        picture[where] = 0.45 * picture[where] + 0.55 * np.array(colour)
    return picture.astype(np.uint8)


def bare(axes: Iterable[Axes]) -> None:
    """Take ticks and frames off axes that hold pictures."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def grid(
    rows: Mapping[str, Sequence], titles: Sequence[str] = (), size: float = 1.9, **imshow
) -> Figure:
    """Rows of pictures and maps. RGB arrays are shown as they are, two-dimensional maps with
    viridis.

    Args:
        rows: label of a row → what stands in it: uint8 (H, W, 3) arrays, or maps as :func:`as_map`
            takes them.
        titles: one for each column.
        size: inches a picture.
        imshow: for maps, e.g. ``vmin=0, vmax=1, cmap="gray"``.
    """
    columns = max(len(row) for row in rows.values())
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(size * columns + 0.4, size * len(rows) + 0.3), squeeze=False
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for (label, row), line in zip(rows.items(), axes):
        line[0].set_ylabel(label)
        for axis, cell in zip(line, row):
            if isinstance(cell, np.ndarray) and cell.ndim == 3 and cell.shape[-1] == 3:
                axis.imshow(cell)
            else:
                axis.imshow(as_map(cell), **imshow)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title)
    return figure


def curves(
    histories: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("val_dice",), log: bool = False
) -> Figure:
    """One panel per column of the runs' histories, one line per run."""
    figure, axes = plt.subplots(1, len(columns), figsize=(4.2 * len(columns), 3), squeeze=False)
    for axis, column in zip(axes[0], columns):
        for name, history in histories.items():
            if column in history:
                axis.plot(
                    history["epoch"],
                    history[column],
                    label=name,
                    color=COLOUR_OF.get(name),
                    marker="o",
                    ms=3,
                )
        axis.set(title=column.replace("_", " "), xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if log:
            axis.set_yscale("log")
    axes[0][-1].legend()
    return figure


def bars(
    values: Mapping[str, float],
    label: str,
    size: tuple[float, float] = (6, 2.6),
    log: bool = False,
    even: float | None = None,
) -> Figure:
    """Horizontal bars with their values written at the end, and a dashed line at ``even``, if that
    is given.
    """
    figure, axis = plt.subplots(figsize=size)
    names = list(values)[::-1]
    drawn = axis.barh(
        names, [values[n] for n in names], color=[COLOUR_OF.get(n, BLUE) for n in names]
    )
    axis.bar_label(drawn, fmt=" {:.3g}")
    if even is not None:
        axis.axvline(even, color="black", ls="--", lw=1)
    axis.set_xlabel(label)
    if log:
        axis.set_xscale("log")
    axis.margins(x=0.15)
    return figure


STORY = {
    1: "data",
    2: "teacher",
    3: "student",
    4: "attention",
    5: "losses",
    6: "training",
    7: "evaluation",
    9: "study",
}  # by chapter; chapter 8 stands beside the story


def chapter_strip(here: str) -> Figure:
    """Where a chapter stands: the steps of the book in a row, this one filled, joined from box to
    box.
    """
    width, height, pad = 576, 40, 4.5  # points; the pad is that of the boxes
    figure = plt.figure(figsize=(width / 72, height / 72), layout="none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    boxes = []
    for number, step in STORY.items():
        mine = step == here
        look = {"facecolor": BLUE if mine else "#eef2f5", "edgecolor": "none"}
        boxes.append(
            axis.text(
                0,
                height / 2,
                f"{number}  {step}",
                size=9,
                va="center",
                color="white" if mine else "#444444",
                weight="bold" if mine else "normal",
                bbox={"boxstyle": f"round,pad={pad / 9}", **look},
            )
        )
    lengths = [box.get_window_extent().width * 72 / figure.dpi + 2 * pad for box in boxes]
    gap = (width - sum(lengths)) / len(boxes)  # half of one at either end
    left = gap / 2
    for box, length in zip(boxes, lengths):
        box.set_x(left + pad)
        left += length
        if box is not boxes[-1]:
            axis.plot((left, left + gap), (height / 2,) * 2, color="#aaaaaa", lw=1, zorder=0)
        left += gap
    return figure


def social_card() -> Figure:
    """The picture that goes with a link to the book, 1200 × 630 pixels: its title, and the logo's
    two rings.
    """
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="#0b3c5d", layout="none")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 1200), ylim=(0, 630))
    axis.axis("off")
    teacher, student = (880, 380), (1095, 175)
    axis.plot(*zip(teacher, student), color=ORANGE, lw=7, ls=(0, (0.1, 2.2)), dash_capstyle="round")
    for (x, y), radius in ((teacher, 165), (student, 72)):
        axis.add_patch(
            plt.Circle((x, y), radius, facecolor="#0b3c5d", edgecolor="white", lw=radius / 8)
        )
        axis.add_patch(plt.Circle((x, y), 0.42 * radius, color=ORANGE))
    words = ["Knowledge", "distillation via", "attention", "supervision"]
    for i, word in enumerate(words):
        axis.text(70, 490 - 88 * i, word, color="white", size=50, weight="bold")
    axis.text(
        70,
        90,
        "An executable book on KDAS: polyp segmentation,\nchecked, repaired and measured",
        color="#cfe0ea",
        size=22,
    )
    return figure
