"""The figures of the book: one style, one palette that colour-blind readers can tell apart (Okabe and Ito), one function a kind.

Every function returns a matplotlib figure and reads tensors or arrays as the rest of the package makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from kdas_core.data.polyps import denormalise
from kdas_core.evaluation.metrics import THRESHOLDS, image_curves, image_metrics

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
    plt.rcParams.update(STYLE)


def as_picture(image: Tensor | np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a normalised tensor (3, H, W) or of an array that is a picture already."""
    return denormalise(image.detach().cpu()) if isinstance(image, Tensor) else image


def as_map(values: Tensor | np.ndarray) -> np.ndarray:
    """float (H, W) of a map of shape (H, W), (1, H, W) or (1, 1, H, W)."""
    array = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values, dtype=float)
    return array.reshape(array.shape[-2:])


def outlined(image: Tensor | np.ndarray, mask: Tensor | np.ndarray, width: int = 0) -> np.ndarray:
    """The picture with the outline of the mask drawn in yellow on black, so that it shows on any mucosa."""
    picture = as_picture(image).copy()
    width = width or max(1, round(min(picture.shape[:2]) / 150))
    contours, _ = cv2.findContours((as_map(mask) >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (0, 0, 0), width + 2)
    cv2.drawContours(picture, contours, -1, (255, 235, 60), width)
    return picture


def verdict(image: Tensor | np.ndarray, prediction: Tensor | np.ndarray, mask: Tensor | np.ndarray) -> np.ndarray:
    """The picture with found pixels green, missed ones orange and false alarms purple; ``prediction`` in [0, 1], cut at 0.5."""
    picture = as_picture(image).astype(float)
    found, true = as_map(prediction) >= 0.5, as_map(mask) >= 0.5
    colours = ((found & true, (0, 158, 115)), (~found & true, (230, 159, 0)), (found & ~true, (204, 121, 167)))
    for where, colour in colours:
        picture[where] = 0.45 * picture[where] + 0.55 * np.array(colour)
    return picture.astype(np.uint8)


def grid(rows: Mapping[str, Sequence], titles: Sequence[str] = (), size: float = 1.9, **imshow) -> Figure:
    """Rows of pictures and maps. RGB arrays are shown as they are, two-dimensional maps with viridis.

    Args:
        rows: label of a row → what stands in it: uint8 (H, W, 3) arrays, or maps as :func:`as_map` takes them.
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


def curves(histories: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("val_dice",), log: bool = False) -> Figure:
    """One panel per column of the runs' histories, one line per run."""
    figure, axes = plt.subplots(1, len(columns), figsize=(4.2 * len(columns), 3), squeeze=False)
    for axis, column in zip(axes[0], columns):
        for name, history in histories.items():
            if column in history:
                axis.plot(history["epoch"], history[column], label=name, color=COLOUR_OF.get(name), marker="o", ms=3)
        axis.set(title=column.replace("_", " "), xlabel="epoch")
        if log:
            axis.set_yscale("log")
    axes[0][-1].legend()
    return figure


def bars(values: Mapping[str, float], label: str, size: tuple[float, float] = (6, 2.6), log: bool = False) -> Figure:
    """Horizontal bars with their values written at the end."""
    figure, axis = plt.subplots(figsize=size)
    names = list(values)[::-1]
    drawn = axis.barh(names, [values[n] for n in names], color=[COLOUR_OF.get(n, BLUE) for n in names])
    axis.bar_label(drawn, fmt=" {:.3g}")
    axis.set_xlabel(label)
    if log:
        axis.set_xscale("log")
    axis.margins(x=0.15)
    return figure


STORY = ["data", "teacher", "student", "attention", "losses", "training", "evaluation"]


def story(here: str) -> Figure:
    """Where a chapter stands: the seven steps of the book in a row, this one filled."""
    figure, axis = plt.subplots(figsize=(8, 0.9))
    for i, step in enumerate(STORY):
        mine = step == here
        axis.text(
            i,
            0,
            f"{i + 1}  {step}",
            ha="center",
            va="center",
            color="white" if mine else "#444444",
            weight="bold" if mine else "normal",
            bbox={"boxstyle": "round,pad=0.45", "facecolor": BLUE if mine else "#eef2f5", "edgecolor": "none"},
        )
        if i:
            axis.annotate("", (i - 0.42, 0), (i - 0.58, 0), arrowprops={"arrowstyle": "-", "color": "#aaaaaa"})
    axis.set(xlim=(-0.6, len(STORY) - 0.4), ylim=(-0.5, 0.5))
    axis.axis("off")
    return figure


# --- chapter 7: evaluation ---


def constructed_predictions(mask: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Five predictions whose mistake is known, for a bool mask (H, W) with a polyp: uint8 grey maps by name.

    Lengths are fractions of the diameter of a disc of the polyp's area, so that small and large polyps are treated alike.
    """
    white = mask.astype(np.uint8) * 255
    diameter = 2 * np.sqrt(mask.sum() / np.pi)
    step, sigma = max(1, round(diameter / 6)), max(1.0, diameter / 6)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step + 1, 2 * step + 1))
    move = np.float32([[1, 0, step], [0, 1, 0]])
    return {
        "perfect": white,
        "shifted": cv2.warpAffine(white, move, mask.shape[::-1], flags=cv2.INTER_NEAREST),
        "eroded": cv2.erode(white, disc),
        "blurred": cv2.GaussianBlur(white, (0, 0), sigma),
        "noise": np.random.default_rng(seed).integers(0, 256, mask.shape, dtype=np.uint8),
    }


def dice_by_threshold(axis: plt.Axes, grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw an image's Dice over the 256 thresholds into an axis and return it, shape (256,) in the order of THRESHOLDS."""
    dice = image_curves(grey, mask)["Dic"]
    axis.plot(THRESHOLDS, dice, color=BLUE)
    axis.set(xlabel="threshold", ylabel="Dice", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
    return dice


def threshold_curve(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """Dice over the 256 thresholds, with the three numbers that one may read off it: mean, maximum, value at 0.5.

    Args:
        grey: prediction, uint8 (H, W). mask: bool (H, W).
    """
    figure, axis = plt.subplots(figsize=(6, 3))
    dice = dice_by_threshold(axis, grey, mask)
    best, half = int(dice.argmax()), image_metrics(grey, mask)["dice"]
    axis.axhline(dice.mean(), color=ORANGE, ls="--", label=f"mean {dice.mean():.3f}")
    axis.plot(THRESHOLDS[best], dice[best], "o", color=GREEN, ms=9, label=f"maximum {dice[best]:.3f}")
    axis.plot(0.5, half, "s", color=RED, label=f"at 0.5: {half:.3f}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def cut_at(image: np.ndarray, grey: np.ndarray, mask: np.ndarray, threshold: float) -> Figure:
    """One cut through a grey map: the verdict on every pixel, and where the cut lies on the curve of Dice."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.5), width_ratios=(1.2, 1))
    left.imshow(verdict(image, grey / 255 >= threshold, mask))
    left.set(xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    dice = dice_by_threshold(right, grey, mask)
    here = dice[np.abs(THRESHOLDS - threshold).argmin()]
    right.axvline(threshold, color="#999999", lw=1)
    right.plot(threshold, here, "o", color=RED)
    left.set_title(f"cut at {threshold:.2f}: Dice {here:.3f}")
    return figure


def paired_differences(differences: Mapping[str, np.ndarray], images: str = "") -> Figure:
    """Histograms of a difference per image, one panel a comparison, all on one scale; the mean is a vertical line.

    Args:
        differences: title of a panel → the differences, shape (n,).
        images: which images these are, for the axis.
    """
    figure, axes = plt.subplots(1, len(differences), figsize=(3.4 * len(differences), 2.8), squeeze=False, sharey=True)
    limit = max(0.05, *(float(np.abs(values).max()) for values in differences.values()))
    for axis, (name, values) in zip(axes[0], differences.items()):
        axis.hist(values, bins=np.linspace(-limit, limit, 22), color=SKY, edgecolor="white")
        axis.axvline(0, color="#444444", lw=1)
        axis.axvline(values.mean(), color=RED, lw=2, label=f"mean {values.mean():+.3f}")
        axis.set(title=name, xlabel="difference of Dice")
        axis.legend(loc="upper left")
    axes[0, 0].yaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel(f"images\n{images}" if images else "images")
    return figure


def score_by_size(frame: pd.DataFrame, bins: int = 4) -> Figure:
    """Dice of each image against its polyp's share of the image, and the networks' means over groups of equal number.

    Args:
        frame: one row an image of a network: columns ``network``, ``share`` in (0, 1], ``dice``.
        bins: groups, cut at the quantiles of the share.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for network, rows in frame.groupby("network", sort=False):
        colour = COLOUR_OF.get(network)
        axis.plot(100 * rows["share"], rows["dice"], ".", color=colour, alpha=0.3, ms=5)
        groups = rows.groupby(pd.qcut(rows["share"], bins, duplicates="drop"), observed=True)[["share", "dice"]].mean()
        axis.plot(100 * groups["share"], groups["dice"], "o-", color=colour, label=network)
    axis.set(xscale="log", xlabel="polyp's share of the image, %", ylabel="Dice", ylim=(-0.03, 1.03))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def captioned(rows: Mapping[str, Sequence[tuple[np.ndarray, str]]], size: float = 1.9) -> Figure:
    """Rows of pictures, each with a caption of its own above it.

    Args:
        rows: label of a row → its (picture, caption) pairs; a picture is uint8 (H, W, 3).
        size: inches a picture.
    """
    figure = grid({label: [picture for picture, _ in row] for label, row in rows.items()}, size=size)
    columns = max(len(row) for row in rows.values())
    for i, row in enumerate(rows.values()):
        for j, (_, caption) in enumerate(row):
            figure.axes[i * columns + j].set_title(caption, fontsize=8)
    return figure


# --- chapter 5: distillation losses ---

COLOUR_OF_TERM = {"structure": BLUE, "logit": SKY, "attention": PURPLE, "symmetric": GREEN}


def panels(
    cells: Mapping[str, Tensor | np.ndarray],
    signed: Sequence[str] = (),
    one_scale: bool = False,
    size: float = 2.0,
    columns: int = 0,
) -> Figure:
    """Pictures and maps side by side under their titles, each map with a colour bar of its own.

    Args:
        cells: title → uint8 (H, W, 3) picture, or a map as :func:`as_map` takes it.
        signed: titles of maps to be drawn in red and blue around 0.
        one_scale: give all signed maps the same limits, so that a small one looks small and a zero one blank.
        size: inches a panel.
        columns: panels in a row; 0: all.
    """
    columns = columns or len(cells)
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, (size + 0.15) * rows), squeeze=False)
    largest = {title: float(np.abs(as_map(cells[title])).max()) for title in signed}
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, (title, cell) in zip(axes.flat, cells.items()):
        axis.set_title(title, fontsize=9)
        if isinstance(cell, np.ndarray) and cell.ndim == 3 and cell.shape[-1] == 3:
            axis.imshow(cell)
            continue
        limit = (max(largest.values()) if one_scale else largest[title]) if title in signed else None
        scale = {"cmap": "RdBu_r", "vmin": -(limit or 1), "vmax": limit or 1} if title in signed else {}
        drawn = axis.imshow(as_map(cell), **scale)
        bar = figure.colorbar(drawn, ax=axis, shrink=0.8, location="bottom", pad=0.03)
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.get_offset_text().set_fontsize(7)
        bar.locator = plt.MaxNLocator(3)
        bar.formatter.set_powerlimits((-2, 3))
        bar.update_ticks()
    return figure


def share_of_half(distribution: Tensor) -> float:
    """The smallest share of the pixels that holds half of a distribution over them, in (0, 0.5]."""
    heaviest_first = distribution.flatten().double().sort(descending=True).values.cumsum(0)
    return (int((heaviest_first < 0.5 * heaviest_first[-1]).sum()) + 1) / distribution.numel()


def looking(student: Tensor, teacher: Tensor, title: str = "") -> Figure:
    """Two distributions over the pixels of an image on one scale, each relative to its mean, 1/pixels.

    Args:
        student, teacher: (H, W), each sums to 1.
    """
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.9))
    top = max(float(teacher.max()), float(student.max())) * teacher.numel()
    for axis, name, values in ((axes[0], "teacher", teacher), (axes[1], "student", student)):
        drawn = axis.imshow(as_map(values) * values.numel(), vmin=0, vmax=top)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_title(f"{name}: half on {100 * share_of_half(values):.2g} % of pixels", fontsize=9)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="× uniform")
    figure.suptitle(title, fontsize=10)
    return figure


def along_path(values: pd.DataFrame) -> Figure:
    """Distillation terms on the way from the student's maps to the teacher's, each relative to where it starts.

    Args:
        values: one column a term, indexed by the share of the way, 0 (student) to 1 (teacher).
    """
    figure, axis = plt.subplots(figsize=(6, 3.1))
    for column, style in zip(values, ("-", "--", ":")):
        colour = next((c for kind, c in COLOUR_OF_TERM.items() if kind in column), None)
        axis.plot(values.index, values[column] / values[column].iloc[0], style, color=colour, label=column, lw=2)
    axis.axhline(0, color="#999999", lw=0.8)
    axis.set(xlabel="share of the way from student to teacher", ylabel="term / term at the student")
    axis.legend()
    return figure


def term_norms(norms: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars on a logarithmic scale, one panel an objective, one bar a term; a zero has no bar and says so.

    Args:
        norms: objective → term → norm ≥ 0.
    """
    lengths = [len(terms) for terms in norms.values()]
    figure, axes = plt.subplots(
        len(norms), 1, figsize=(7, 0.42 * sum(lengths) + 1), sharex=True, height_ratios=lengths, squeeze=False
    )
    positive = [value for terms in norms.values() for value in terms.values() if value > 0]
    low, high = min(positive) / 5, max(positive) * 8
    for axis, (name, terms) in zip(axes[:, 0], norms.items()):
        for i, (term, value) in enumerate(terms.items()):
            colour = next((c for kind, c in COLOUR_OF_TERM.items() if term.startswith(kind)), "#555555")
            if value > 0:
                axis.barh(i, value - low, left=low, color=colour)
                axis.text(value * 1.1, i, f"{value:.3g}", va="center", fontsize=9)
            else:
                axis.plot(low * 1.15, i, "o", mfc="white", mec=RED, clip_on=False)
                axis.text(low * 1.4, i, "exactly 0", va="center", fontsize=9, color=RED, weight="bold")
        axis.set(yticks=range(len(terms)), yticklabels=list(terms), xscale="log", xlim=(low, high), title=name)
        axis.invert_yaxis()
    axes[-1, 0].set_xlabel("norm of the gradient on the student's weights")
    return figure


# --- chapter 4: attention maps ---


def numbers(maps: Mapping[str, Tensor], digits: int | Sequence[int] = 2, size: float = 2.9) -> Figure:
    """Small maps side by side with every value written into its cell; orange is above zero, purple below.

    Args:
        maps: title → (H, W), with H and W up to about 8.
        digits: decimals, the same for all or one for each map.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(size * len(maps), size), squeeze=False)
    digits = [digits] * len(maps) if isinstance(digits, int) else digits
    for axis, (title, values), places in zip(axes[0], maps.items(), digits):
        values = as_map(values)
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
    """One row an image: the picture, its logit maps on one scale for all, its distributions each on its own scale.

    Args:
        images, masks: (B, 3, H, W) and (B, 1, H, W); the mask's outline is drawn on everything.
        logits: column title → (B, H, W) or (B, 1, H, W); orange is above zero (polyp), purple below.
        shares: column title → distributions over pixels, same shapes; bright is much.
    """
    shares = shares or {}
    columns, count = 1 + len(logits) + len(shares), len(images)
    figure, axes = plt.subplots(count, columns, figsize=(size * columns + 0.6, size * count + 0.3), squeeze=False)
    limit = max(float(np.quantile(values.abs().float().cpu().numpy(), 0.995)) for values in logits.values())
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
    figure.colorbar(drawn[-1], ax=axes[:, 1 : 1 + len(logits)], location="bottom", shrink=0.5, aspect=40, label="logit")
    return figure


def row_looks_at(image: Tensor, mask: Tensor, logits: Tensor, weights: Tensor, attended: Tensor, row: int) -> Figure:
    """What one row of a map does in the attention: where it lies, at which rows it looks, and what it becomes.

    Args:
        image, mask: (3, H, W) and (1, H, W). logits, attended: (H, W). weights: (H, H). row: the query, from 0 at the top.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(6, 2.5), width_ratios=(1, 0.45, 1.1))
    height = len(logits)
    left.imshow(outlined(image, mask))
    left.axhline(row, color=RED, lw=2)
    left.set(xticks=[], yticks=[0, height - 1], title=f"row {row} asks")
    middle.barh(range(height), as_map(weights)[row], height=1.0, color=BLUE)
    middle.axhline(row, color=RED, lw=1)
    most = float(weights.max())
    middle.set(ylim=(height - 0.5, -0.5), xlim=(0, 1.05 * most), yticks=[], title="looks at", xlabel="weight")
    right.plot(as_map(logits)[row], color=RED, label="row of P", lw=1.2)
    right.plot(as_map(attended)[row], color=BLUE, label="row of A(P)", lw=1.2)
    limit = 1.05 * float(logits.abs().max())
    right.axhline(0, color="#999999", lw=0.8)
    right.set(ylim=(-limit, limit), xlabel="column", title="logits")
    right.legend(fontsize=7, loc="upper right")
    return figure


def pixels_by_temperature(
    temperatures: Sequence[float], effective: Mapping[str, np.ndarray], polyp: float, total: int, used: float
) -> Figure:
    """Effective number of pixels of distributions over a map, one line a kind, against the temperature.

    Args:
        effective: name → one number a temperature. polyp, total: pixels in the polyp and in the map. used: the recipe's τ.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    for name, values in effective.items():
        axis.plot(temperatures, values, marker="o", ms=3, label=name)
    for level, name, end, side in ((polyp, "polyp", -1, "right"), (total, "whole map", 0, "left")):
        axis.axhline(level, color="#777777", ls="--", lw=1)
        axis.text(
            temperatures[end], level, f"{name}, {level:,.0f} px", va="bottom", ha=side, fontsize=8, color="#555555"
        )
    axis.axvline(used, color="#bbbbbb", lw=1)
    axis.text(used, 1, f" τ = {used:g}", fontsize=8, color="#555555")
    axis.set(
        xscale="log", yscale="log", xlabel="temperature τ", ylabel="effective number of pixels", ylim=(0.8, 2.5 * total)
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def by_temperature(shares: Mapping[float, Tensor], mask: Tensor, size: float = 1.7) -> Figure:
    """One distribution at several temperatures, each on its own scale from 0 to its largest value, with the mask's outline."""
    figure, axes = plt.subplots(1, len(shares), figsize=(size * len(shares), size + 0.4), squeeze=False)
    for axis, (temperature, share) in zip(axes[0], shares.items()):
        axis.imshow(as_map(share), cmap="magma", vmin=0)
        axis.contour(as_map(mask), levels=[0.5], colors="#00c8a0", linewidths=0.9)
        axis.set(xticks=[], yticks=[], title=f"τ = {temperature:g}")
        axis.spines[:].set_visible(False)
    return figure


def divergence_against_dice(dice: Sequence[float], divergences: Mapping[str, Sequence[float]]) -> Figure:
    """One dot an image: how far its two distributions lie apart, against the student's Dice."""
    figure, axis = plt.subplots(figsize=(5.6, 3))
    for name, values in divergences.items():
        axis.plot(dice, values, "o", ms=4, alpha=0.7, label=name)
    axis.set(xlabel="student's Dice", ylabel="KL, nats", xlim=(-0.03, 1.03), yscale="log")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# --- chapter 2: teacher ---


def strength(features: Tensor) -> Tensor:
    """How strongly a feature map speaks at each position: root mean square over channels, (B, C, H, W) → (B, H, W)."""
    return features.square().mean(dim=1).sqrt()


def through_cells(image: Tensor, mask: Tensor, strides: Sequence[int] = (4, 8, 16, 32)) -> Figure:
    """The outline of a mask on its image, then the mask as cells of each stride see it: the polyp's share of each cell.

    Args:
        image: (3, S, S), normalised. mask: (1, S, S) in [0, 1].
    """
    cells = [avg_pool2d(mask, stride) for stride in strides]
    sides = [f"stride {stride}\n{cell.shape[-2]} × {cell.shape[-1]} cells" for stride, cell in zip(strides, cells)]
    row = [outlined(image, mask), *cells]
    return grid({"": row}, ["image and mask", *sides], vmin=0, vmax=1, cmap="gray")


def anchor_grid(assignment: Tensor) -> Figure:
    """The assignment maps of all anchors, each where its anchor lies in the picture; one scale for all, 1 = an equal share.

    Args:
        assignment: (N, h, w) with N = side², sums to 1 over N at each position.
    """
    side, relative = round(len(assignment) ** 0.5), assignment * len(assignment)
    rows = {f"row {i + 1}": list(relative[i * side : (i + 1) * side]) for i in range(side)}
    columns = [f"column {j + 1}" for j in range(side)]
    figure = grid(rows, columns, size=1.3, vmin=float(relative.min()), vmax=float(relative.max()))
    figure.set_layout_engine("compressed")
    bar = figure.colorbar(figure.axes[0].images[0], ax=figure.axes, shrink=0.7, label="× equal share")
    bar.formatter.set_useOffset(False)
    return figure


def anchor_on(image: Tensor, assignment: Tensor, anchor: int) -> Figure:
    """One anchor: the cell that it averages, framed in the picture, beside the positions that are assigned to it.

    Args:
        image: (3, S, S), normalised.
        assignment: (N, h, w) with N = side²; the anchors are the inner cells of a (side + 2) × (side + 2) grid.
        anchor: counted from 0, row by row.
    """
    side, picture = round(len(assignment) ** 0.5), as_picture(image)
    cell = picture.shape[0] / (side + 2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 2.5))
    left.imshow(picture)
    corner = ((anchor % side + 1) * cell - 0.5, (anchor // side + 1) * cell - 0.5)
    left.add_patch(plt.Rectangle(corner, cell, cell, fill=False, edgecolor=YELLOW, lw=2))
    drawn = right.imshow(as_map(assignment[anchor]) * len(assignment))
    left.set_title(f"cell of anchor {anchor + 1}")
    right.set_title("assigned to it")
    for axis in (left, right):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=right, shrink=0.9, label="× equal share")
    bar.formatter.set_useOffset(False)
    return figure


# --- chapter 3: student ---


def edge_band(mask: Tensor, width: int) -> Tensor:
    """True where a pixel lies at most ``width`` pixels from the outline of the mask; bool (B, 1, H, W)."""
    solid, side = (mask >= 0.5).float(), 2 * width + 1
    grown = max_pool2d(solid, side, stride=1, padding=width)
    shrunk = -max_pool2d(-solid, side, stride=1, padding=width)
    return grown != shrunk


def stacked(parts: pd.DataFrame, label: str, percent: bool = False) -> Figure:
    """Horizontal bars, one a row of the table, made of its columns; with ``percent`` every bar has length 100."""
    figure, axis = plt.subplots(figsize=(7, 0.55 * len(parts) + 1.3))
    shown = 100 * parts.div(parts.sum(axis=1), axis=0) if percent else parts
    left = np.zeros(len(parts))
    for column, colour in zip(shown, PALETTE):
        axis.barh(shown.index, shown[column], left=left, color=colour, label=column, height=0.6)
        left += shown[column].to_numpy()
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def beside_teacher(image: Tensor, teacher: Tensor, student: Tensor, mask: Tensor, threshold: float) -> Figure:
    """The verdicts on two probability maps cut at one threshold, with the Dice of each.

    Args:
        image: (3, S, S), normalised. teacher, student, mask: (1, S, S) in [0, 1].
    """
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.9))
    true = as_map(mask) >= 0.5
    for axis, name, probability in zip(axes, ("teacher", "student"), (teacher, student)):
        found = as_map(probability) >= threshold
        dice = 2 * (found & true).sum() / max(1, found.sum() + true.sum())
        axis.imshow(verdict(image, found, true))
        axis.set(xticks=[], yticks=[], title=f"{name} ≥ {threshold:.2f}: Dice {dice:.3f}")
        axis.spines[:].set_visible(False)
    return figure


def probabilities_by_place(probability: Tensor, places: Mapping[str, Tensor], bins: int = 25) -> Figure:
    """Histograms of probabilities in several sets of pixels, each relative to its own number of pixels, on a log scale.

    Args:
        probability: in [0, 1], any shape. places: name → bool tensor of that shape.
    """
    figure, axis = plt.subplots(figsize=(6.4, 3))
    for (name, where), colour in zip(places.items(), (ORANGE, BLUE, GREEN)):
        values = probability[where].cpu().numpy()
        weights = np.full(len(values), 100 / max(1, len(values)))
        axis.hist(values, np.linspace(0, 1, bins + 1), weights=weights, histtype="step", lw=2, color=colour, label=name)
    axis.set(xlabel="the teacher's probability of polyp", ylabel="pixels of the group, %", yscale="log")
    axis.legend(loc="upper center")
    return figure


# --- chapter 6: training ---


def at_true_size(pictures: Mapping[str, np.ndarray], inches: float = 7.0) -> Figure:
    """Pictures side by side, each drawn as large as it is in pixels compared with the others."""
    heights, widths = zip(*(picture.shape[:2] for picture in pictures.values()))
    size = (inches, inches * max(heights) / sum(widths) + 0.4)
    figure, axes = plt.subplots(1, len(pictures), figsize=size, width_ratios=widths)
    for axis, (title, picture) in zip(np.atleast_1d(axes), pictures.items()):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[], title=title, anchor="S")
        axis.spines[:].set_visible(False)
    return figure


def clamped_or_clipped(angle: float, length: float = 1.2, limit: float = 0.5) -> Figure:
    """A gradient of two elements, clamped element by element to ±limit (left) and shortened to length limit (right).

    Args:
        angle: of the gradient, degrees from the first axis.
    """
    gradient = length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    ways = {"elements clamped": np.clip(gradient, -limit, limit), "norm clipped": gradient * min(1, limit / length)}
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.9))
    borders = (
        plt.Rectangle((-limit, -limit), 2 * limit, 2 * limit, fill=False, ls="--", ec="#888888"),
        plt.Circle((0, 0), limit, fill=False, ls="--", ec="#888888"),
    )
    for axis, border, (name, after) in zip(axes, borders, ways.items()):
        cosine = min(1.0, after @ gradient / np.linalg.norm(after) / length)
        axis.add_patch(border)
        for arrow, colour in ((gradient, "#bbbbbb"), (after, BLUE)):
            axis.annotate("", arrow, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.5, "shrinkB": 0})
        axis.set(xlim=(-0.6, 1.3), ylim=(-0.6, 1.3), xticks=[-0.5, 0, 0.5, 1], yticks=[-0.5, 0, 0.5, 1], aspect="equal")
        axis.set_title(f"{name}: turned by {np.degrees(np.arccos(cosine)):.0f}°")
    return figure


def cosine_by_limit(cosines: pd.DataFrame, limit: float) -> Figure:
    """Cosine between a gradient and its clamped self over the limit of the clamp (the index); ``limit`` is marked."""
    figure, axis = plt.subplots(figsize=(6, 2.8))
    for name, colour in zip(cosines, PALETTE):
        axis.plot(cosines.index, cosines[name], color=colour, marker="o", ms=3, label=name)
    axis.axvline(limit, color="#888888", ls="--", lw=1)
    axis.annotate(f" ±{limit:g}, the recipe's", (limit, 0.02), color="#555555", xycoords=("data", "axes fraction"))
    axis.set(xscale="log", xlabel="every element clamped to ± this", ylabel="cosine", ylim=(None, 1.02))
    axis.legend(loc="best")
    return figure


def schedules(rates: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rates over the optimiser steps of a training."""
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for (name, values), colour in zip(rates.items(), PALETTE):
        axis.plot(np.arange(1, len(values) + 1), values, color=colour, label=name, lw=2)
    axis.set(xlabel="optimiser step", ylabel="learning rate", ylim=(0, None))
    axis.legend(loc="lower left", bbox_to_anchor=(0.1, 0))
    return figure


def terms_and_dice(terms: pd.DataFrame, students: Mapping[str, pd.DataFrame]) -> Figure:
    """Left: every term of an objective over the epochs (the index), log scale. Right: validation Dice of several runs.

    The epoch that is kept, the one with the highest validation Dice, has a ring.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.1))
    for name, colour in zip(terms, (BLUE, SKY, ORANGE, RED, GREEN, PURPLE)):
        dashed = {"color": "black", "ls": "--"} if name == "total" else {"color": colour}
        left.plot(terms.index, terms[name].clip(lower=1e-6), marker="o", ms=3, label=name.replace("_", " "), **dashed)
    left.set(yscale="log", xlabel="epoch", title="terms of the objective, training images")
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    for name, history in students.items():
        best = history.loc[history["val_dice"].idxmax()]
        colour = COLOUR_OF.get(name)
        right.plot(history["epoch"], history["val_dice"], marker="o", ms=3, color=colour, label=name)
        right.plot(best["epoch"], best["val_dice"], "o", ms=11, mfc="none", mec=colour, mew=2)
    right.set(xlabel="epoch", title="Dice on the validation split", ylim=(0, 1))
    right.legend()
    return figure


def optimism(bias: pd.DataFrame, epochs: int) -> Figure:
    """How much too high a reported score is, over the number of checkpoints (the index); ``epochs`` is marked."""
    figure, axis = plt.subplots(figsize=(6, 3))
    for name, colour in zip(bias, PALETTE):
        axis.plot(bias.index, bias[name], color=colour, marker="o", ms=3, label=name)
    axis.axvline(epochs, color="#888888", ls="--", lw=1)
    axis.annotate(f"{epochs} epochs ", (epochs, 0.5), color="#555555", ha="right", xycoords=("data", "axes fraction"))
    axis.set(xscale="log", xlabel="checkpoints to choose from", ylabel="reported − true Dice")
    axis.axhline(0, color="#888888", lw=0.8)
    axis.legend(loc="upper left", title="the best is chosen on")
    return figure


# --- chapter 1: data ---


def edge_window(mask: np.ndarray, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square window on the mask's edge, at the edge pixel that is nearest to the picture's centre.

    Args:
        mask: bool (H, W) with at least one True. side: pixels; at most H and W.
    """
    height, width = mask.shape
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    edge = mask & ~inner if (mask & ~inner).any() else mask
    rows, columns = np.nonzero(edge)
    nearest = np.argmin((rows - height / 2) ** 2 + (columns - width / 2) ** 2)
    top = int(np.clip(rows[nearest] - side // 2, 0, height - side))
    left = int(np.clip(columns[nearest] - side // 2, 0, width - side))
    return slice(top, top + side), slice(left, left + side)


def trivial_predictors(shares: np.ndarray) -> Figure:
    """How large the polyps are, and what two predictors that never look would score on a polyp of each size.

    Args:
        shares: the polyp's share of each image, in (0, 1].
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3))
    median = float(np.median(shares))
    left.hist(100 * shares, bins=np.linspace(0, 100 * max(shares), 26), color=SKY)
    left.axvline(100 * median, color="black", lw=1)
    left.annotate(f" median {100 * median:.1f} %", (100 * median, left.get_ylim()[1]), va="top")
    left.set(xlabel="polyp's share of the image, %", ylabel="training images")
    left.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
    p = np.linspace(0.001, 0.999, 400)
    right.plot(100 * p, 1 - p, "--", color=BLUE, label="all background: accuracy")
    right.plot(100 * p, 0 * p, "-", color=BLUE, label="all background: Dice")
    right.plot(100 * p, p, "--", color=ORANGE, label="all foreground: accuracy")
    right.plot(100 * p, 2 * p / (1 + p), "-", color=ORANGE, label="all foreground: Dice")
    right.axvline(100 * median, color="black", lw=1)
    right.set(xlabel="polyp's share of the image, %", ylabel="score", ylim=(-0.03, 1.03))
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return figure


def strips(values: Mapping[str, np.ndarray], label: str, colours: Sequence = (), log: bool = False) -> Figure:
    """One row of dots for each group of values, and a black tick at its median.

    Args:
        values: group → its values. colours: for each group, one RGB colour in [0, 1] a value; empty: all blue.
    """
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(values) + 0.8))
    scatter = np.random.default_rng(0)
    for row, (_name, numbers_of) in enumerate(values.items()):
        height = row + scatter.uniform(-0.25, 0.25, len(numbers_of))
        colour = colours[row] if len(colours) else BLUE
        axis.scatter(numbers_of, height, s=40 if len(colours) else 22, c=colour, linewidth=0.3, edgecolor="black")
        axis.plot([np.median(numbers_of)] * 2, [row - 0.42, row + 0.42], color="black", lw=2.5)
    axis.set(yticks=range(len(values)), yticklabels=list(values), xlabel=label)
    axis.invert_yaxis()
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    return figure
