"""Figures of scores: chapter 7.

What a figure writes into a picture (a similarity, a weight, a distance) is computed there and then,
by the functions that score wherever they can be taken apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import ndimage

from kdas_book.figures.basics import (
    BLUE,
    COLOUR_OF,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    as_picture,
    error_overlay,
    grid,
)
from kdas_core.data.images import read_image, read_mask
from kdas_core.data.layout import Pair
from kdas_core.evaluation import CONVENTIONS, EvaluationResult, read_prediction
from kdas_core.evaluation import metrics as measures
from kdas_core.evaluation.boundary import boundary_iou
from kdas_core.evaluation.metrics import THRESHOLDS, image_curves
from kdas_core.evaluation.scores import image_metrics

NAME_OF = {
    "Dic": "Dice",
    "IoU": "IoU",
    "Sen": "sensitivity",
    "Spe": "specificity",
    "Em": "E-measure",
}
COLOUR_OF_CURVE = {"Dic": BLUE, "IoU": SKY, "Sen": ORANGE, "Spe": GREEN, "Em": PURPLE}


def constructed_predictions(mask: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Five predictions whose mistake is known, for a bool mask (H, W) with a polyp: uint8 grey maps
    by name.

    Lengths are fractions of the diameter of a disc of the polyp's area, so that small and large
    polyps are treated alike.
    """
    white = mask.astype(np.uint8) * 255
    diameter = 2 * np.sqrt(mask.sum() / np.pi)
    step, sigma = max(1, round(diameter / 6)), max(1.0, diameter / 6)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step + 1, 2 * step + 1))
    return {
        "perfect": white,
        "shifted": shifted(mask, step),
        "eroded": cv2.erode(white, disc),
        "blurred": cv2.GaussianBlur(white, (0, 0), sigma),
        "noise": np.random.default_rng(seed).integers(0, 256, mask.shape, dtype=np.uint8),
    }


def shifted(mask: np.ndarray, step: int) -> np.ndarray:
    """The mask, bool (H, W), moved right by so many pixels (left if they are negative), as a uint8
    map.
    """
    move = np.array([[1, 0, step], [0, 1, 0]], np.float32)
    return cv2.warpAffine(
        mask.astype(np.uint8) * 255, move, mask.shape[::-1], flags=cv2.INTER_NEAREST
    )


# --- curves over the threshold ----------------------------------------------------------------------------------------


def five_curves(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The five measures that depend on the cut, over the 256 thresholds; a dot at the maximum of
    each.

    Args:
        grey: prediction, uint8 (H, W). mask: bool (H, W).
    """
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for name, curve in image_curves(grey, mask).items():
        label = f"{NAME_OF[name]}: mean {curve.mean():.3f}, max {curve.max():.3f}"
        axis.plot(THRESHOLDS, curve, color=COLOUR_OF_CURVE[name], lw=2, label=label)
        axis.plot(
            THRESHOLDS[curve.argmax()],
            curve.max(),
            "o",
            color=COLOUR_OF_CURVE[name],
            ms=7,
            clip_on=False,
        )
    axis.axvline(0.5, color="#999999", lw=1, ls=":", label="cut at 0.5")
    axis.set(xlabel="threshold", ylim=(-0.03, 1.04), xlim=(-0.02, 1.02))
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9)
    return figure


def cut_at(image: np.ndarray, grey: np.ndarray, mask: np.ndarray, threshold: float) -> Figure:
    """One cut through a grey map: the verdict on every pixel, and where the cut lies on three of
    the curves.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.6), width_ratios=(1.1, 1))
    left.imshow(error_overlay(image, grey / 255 >= threshold, mask))
    left.set(xticks=[], yticks=[])
    left.spines[:].set_visible(False)
    left.set_title(f"cut at {threshold:.2f}")
    here, curves = np.abs(THRESHOLDS - threshold).argmin(), image_curves(grey, mask)
    for name in ("Dic", "Sen", "Spe"):
        label = f"{NAME_OF[name]} {curves[name][here]:.3f}"
        right.plot(THRESHOLDS, curves[name], color=COLOUR_OF_CURVE[name], alpha=0.6)
        right.plot(
            threshold,
            curves[name][here],
            "o",
            color=COLOUR_OF_CURVE[name],
            label=label,
            clip_on=False,
        )
    right.axvline(threshold, color="#999999", lw=1)
    right.set(xlabel="threshold", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
    right.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=3,
        fontsize=8,
        handletextpad=0,
        columnspacing=0.6,
    )
    return figure


# --- one measure, one picture -----------------------------------------------------------------------------------------


def _bare(
    axis: plt.Axes, picture: np.ndarray, title: str, mask: np.ndarray | None = None, **imshow
):
    """A picture without ticks, and the outline of the mask on it."""
    shown = axis.imshow(picture, **imshow)
    if mask is not None and mask.any():
        axis.contour(mask, levels=[0.5], colors=[ORANGE], linewidths=1.2)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_title(title, fontsize=9)
    return shown


def grey_errors(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """Mean absolute error and soft Dice: the map, its distance from the mask, and its overlap with
    the mask.
    """
    low, high = int(grey.min()), int(grey.max())
    stretched = (grey.astype(float) - low) / max(high - low, 1)
    error = np.abs(grey / 255 - mask)
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.3))
    _bare(axes[0], grey / 255, "map p, outline of mask g", mask, cmap="gray", vmin=0, vmax=1)
    title = f"|p − g|, mean = mae {measures.mean_absolute_error(grey, mask):.3f}"
    shown = _bare(axes[1], error, title, cmap="viridis", vmin=0, vmax=1)
    total = (
        f"Σq·g = {(stretched * mask).sum():,.0f}, Σq = {stretched.sum():,.0f}, Σg = {mask.sum():,}"
    )
    title = f"q · g, q = p stretched\nsoft_dice {measures.soft_dice(grey, mask):.3f}"
    _bare(axes[2], stretched * mask, title, cmap="viridis", vmin=0, vmax=1)
    axes[2].set_xlabel(total, fontsize=7)
    figure.colorbar(shown, ax=axes, shrink=0.75)
    return figure


def quadrants(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The S-measure taken apart: how bright and even the two regions are, and the likeness of the
    four quadrants.

    Args:
        grey: prediction, uint8 (H, W). mask: bool (H, W), neither empty nor full.
    """
    values, share = grey / 255, mask.mean()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), width_ratios=(1, 1.15))
    objects = 0.0
    for part, name, weight, colour in (
        (values[mask], "p inside", share, GREEN),
        (1 - values[~mask], "1 − p outside", 1 - share, PURPLE),
    ):
        likeness = measures._object_likeness(part, False)
        objects += weight * likeness
        label = f"{name}: mean {part.mean():.2f}, σ {part.std():.2f}\nO {likeness:.3f}, weight {weight:.3f}"
        left.hist(
            part,
            np.linspace(0, 1, 26),
            weights=np.full(part.size, 1 / part.size),
            color=colour,
            alpha=0.6,
            label=label,
        )
    left.set(xlabel="value", ylabel="share of the region's pixels", title=f"objects {objects:.3f}")
    left.legend(loc="upper center", fontsize=8)
    _bare(right, values, "", mask, cmap="gray", vmin=0, vmax=1)
    rows, columns = np.nonzero(mask)
    y, x = int(np.rint(rows.mean())), int(np.rint(columns.mean()))
    right.axhline(y - 0.5, color=SKY)
    right.axvline(x - 0.5, color=SKY)
    regions, (height, width) = 0.0, mask.shape
    for part, row, column in (
        (np.s_[:y, :x], y / 2, x / 2),
        (np.s_[:y, x:], y / 2, (x + width) / 2),
        (np.s_[y:, :x], (y + height) / 2, x / 2),
        (np.s_[y:, x:], (y + height) / 2, (x + width) / 2),
    ):
        if mask[part].size:
            weight, likeness = (
                mask[part].size / mask.size,
                measures._structural_similarity(values[part], mask[part]),
            )
            regions += weight * likeness
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2}
            right.text(
                column,
                row,
                f"w {weight:.2f}\nssim {likeness:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                bbox=box,
            )
    right.set_title(f"quadrants {regions:.3f}; S-measure {measures.s_measure(grey, mask):.3f}")
    return figure


def alignment(grey: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> Figure:
    """The E-measure at one cut: what each of the four kinds of pixels contributes.

    Args:
        grey: prediction, uint8 (H, W). mask: bool (H, W), neither empty nor full. threshold: of the
            cut.
    """
    cut = grey / 255 >= threshold
    a, b = cut - cut.mean(), mask - mask.mean()
    aligned = (1 + 2 * a * b / (a**2 + b**2)) ** 2 / 4
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8), width_ratios=(1.25, 1))
    score = aligned.sum() / (aligned.size - 1)
    shown = _bare(
        left,
        aligned,
        f"alignment at threshold {threshold:g}: E-measure {score:.3f}",
        mask,
        vmin=0,
        vmax=1,
    )
    figure.colorbar(shown, ax=left, shrink=0.8)
    kinds = {
        "found": cut & mask,
        "missed": ~cut & mask,
        "false alarm": cut & ~mask,
        "background": ~cut & ~mask,
    }
    each = [float(aligned[where][0]) if where.any() else 0.0 for where in kinds.values()]
    counts = [f"{name}\n{where.mean():.1%} of pixels" for name, where in kinds.items()]
    drawn = right.barh(counts[::-1], each[::-1], color=["#999999", PURPLE, ORANGE, GREEN])
    right.bar_label(drawn, fmt=" {:.3f}", fontsize=8)
    right.set(xlim=(0, 1.25), xticks=[0, 0.5, 1], xlabel="what one such pixel counts")
    return figure


def weighted_errors(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The weighted F-measure taken apart: the errors, their weights, and the errors that count.

    Args:
        grey: prediction, uint8 (H, W). mask: bool (H, W) with a polyp.
    """
    error = np.abs(grey / 255 - mask)
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    eased = error[tuple(nearest)]
    for axis in (0, 1):
        eased = ndimage.correlate1d(eased, kernel / kernel.sum(), axis, mode="nearest")
    weight = 2 - 0.5 ** (distance / 5)
    counted = np.where(mask, np.minimum(error, eased), error * weight)
    true = (1 - counted)[mask].sum()
    recall, precision = true / mask.sum(), true / (true + counted[~mask].sum())
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.4))
    _bare(axes[0], error, "error |p − g|", mask, vmin=0, vmax=2)
    _bare(axes[1], np.where(mask, np.nan, weight), "weight outside, 1 to 2", mask, vmin=0, vmax=2)
    shown = _bare(
        axes[2],
        counted,
        f"error that counts: wFm {measures.weighted_f_measure(grey, mask):.3f}",
        mask,
        vmin=0,
        vmax=2,
    )
    axes[1].set_xlabel("inside: eased by the neighbours", fontsize=8)
    axes[2].set_xlabel(f"precision {precision:.3f}, recall {recall:.3f}", fontsize=8)
    figure.colorbar(shown, ax=axes, shrink=0.75)
    return figure


def _far_point(edge: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """95 % of an outline's pixels lie at most so far from another's; the pixel that does, and the
    one nearest to it.
    """
    distance, nearest = ndimage.distance_transform_edt(~other, return_indices=True)
    points = np.argwhere(edge)
    lengths = distance[edge]
    limit = np.percentile(lengths, 95)
    point = points[np.abs(lengths - limit).argmin()]
    return float(limit), point, nearest[:, point[0], point[1]]


def rims_and_outlines(image: np.ndarray, grey: np.ndarray, mask: np.ndarray) -> Figure:
    """Boundary IoU as two rims that overlap, the 95 % Hausdorff distance as a line between two
    outlines.

    Args:
        image: uint8 RGB (H, W, 3). grey: uint8 (H, W). mask: bool (H, W) with a polyp.
    """
    cut, width = grey >= 128, max(1, round(0.02 * float(np.hypot(*mask.shape))))
    rims = [m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=width) for m in (cut, mask)]
    edges = [m & ~ndimage.binary_erosion(m) for m in (cut, mask)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.9))
    dim = (0.5 * as_picture(image)).astype(np.uint8)
    title = f"rims of {width} px: boundary IoU {boundary_iou(cut, mask):.3f}\n(IoU {image_metrics(grey, mask)['iou']:.3f})"
    _bare(left, error_overlay(dim, rims[0], rims[1]), title)
    _bare(right, dim, "nothing is marked: no distance exists")
    if cut.any():
        ways = (
            ("found to true", *_far_point(*edges)),
            ("true to found", *_far_point(*edges[::-1])),
        )
        way, limit, start, end = max(ways, key=lambda way: way[1])
        right.plot(*zip(start[::-1], end[::-1]), "o-", color="white", ms=4, lw=2)
        right.contour(cut, levels=[0.5], colors=[SKY], linewidths=1.3)
        right.set_title(
            f"95 % of each outline lies within\n{limit:.1f} px of the other ({way})", fontsize=9
        )
    right.contour(mask, levels=[0.5], colors=[ORANGE], linewidths=1.3)
    for name, colour in (("mask", ORANGE), ("map cut at 0.5", SKY)):
        right.plot([], [], color=colour, label=name)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8)
    return figure


def shifted_scores(mask: np.ndarray, shift: int) -> dict[str, float]:
    """What the measures make of a perfect mask that was moved sideways: ten in which more is
    better, then ``hd95`` in pixels.

    Args:
        mask: bool (H, W) with a polyp. shift: pixels.
    """
    scores = image_metrics(shifted(mask, shift), mask, surface=True)
    scores["1 − mae"] = 1 - scores["mae"]
    names = (
        "dice",
        "iou",
        "boundary_iou",
        "meanDic",
        "wFm",
        "Sm",
        "meanEm",
        "meanSen",
        "meanSpe",
        "1 − mae",
        "hd95",
    )
    return {name: scores[name] for name in names}


def shift_scores(masks: Mapping[str, np.ndarray], shift: int) -> Figure:
    """Perfect masks that were moved sideways by so many pixels, and what the measures make of it.

    Args:
        masks: name, e.g. "small" → bool (H, W) with a polyp. At most two.
        shift: pixels.
    """
    figure, axes = plt.subplot_mosaic(
        [[0, "bars"], [1, "bars"]], figsize=(7, 4.4), width_ratios=(1, 1.05)
    )
    for i, ((name, mask), colour) in enumerate(zip(masks.items(), (ORANGE, BLUE))):
        scores = shifted_scores(mask, shift)
        picture = error_overlay(
            np.full((*mask.shape, 3), 60, np.uint8), shifted(mask, shift) / 255, mask
        )
        _bare(axes[i], picture, f"{name}: hd95 {scores.pop('hd95'):.0f} px")
        places = np.arange(len(scores)) + 0.4 * i - 0.2
        drawn = axes["bars"].barh(places, list(scores.values()), 0.38, color=colour, label=name)
        axes["bars"].bar_label(drawn, fmt=" {:.3f}", fontsize=7)
    axes["bars"].set(
        yticks=range(len(scores)), yticklabels=scores, xlim=(0, 1.14), xticks=[0, 0.5, 1]
    )
    axes["bars"].set_title(
        f"moved by {shift} px (small orange, large blue)" if len(masks) == 2 else ""
    )
    axes["bars"].invert_yaxis()
    return figure


# --- conventions ------------------------------------------------------------------------------------------------------


def read_by(grey: np.ndarray, scores: pd.DataFrame) -> Figure:
    """One map as five programs see it, and what each makes of it.

    Args:
        grey: the map, uint8 (H, W).
        scores: index the conventions, in any order, and ``training log``; each column a bar.
    """
    figure, axes = plt.subplot_mosaic(
        [list(range(len(scores))), ["bars"] * len(scores)], figsize=(7, 4), height_ratios=(1, 1.25)
    )
    for i, name in enumerate(scores.index):
        rules = CONVENTIONS.get(
            name, CONVENTIONS["pranet"]
        )  # the training log stretches without rounding, too
        _bare(axes[i], rules.values(grey)[grey], name, cmap="gray", vmin=0, vmax=1)
    bars, width = axes["bars"], 0.8 / scores.shape[1]
    for i, (column, colour) in enumerate(zip(scores.columns, (ORANGE, BLUE, GREEN))):
        places = np.arange(len(scores)) + width * (i - (scores.shape[1] - 1) / 2)
        drawn = bars.bar(places, scores[column], width * 0.95, color=colour, label=column)
        bars.bar_label(drawn, fmt="{:.3f}", fontsize=8)
    bars.set(
        xticks=range(len(scores)),
        xticklabels=scores.index,
        ylim=(0, 1.18),
        yticks=[0, 0.5, 1],
        ylabel="its Dice",
    )
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=scores.shape[1])
    return figure


# --- comparisons ------------------------------------------------------------------------------------------------------


def forest(tables: Mapping[str, pd.DataFrame], label: str = "difference of Dice") -> Figure:
    """Differences with their intervals, a row each, one panel a comparison; a filled dot has a Holm
    p below 0.05.

    Args:
        tables: title of a panel → a table as ``statistics.compare`` gives it.
        label: what is compared.
    """
    height = max(1.4, 0.9 + 0.34 * max(len(table) for table in tables.values()))
    figure, axes = plt.subplots(
        1, len(tables), figsize=(7, height), squeeze=False, sharex=True, sharey=True
    )
    for axis, (name, table) in zip(axes[0], tables.items()):
        axis.axvline(0, color="#444444", lw=1)
        for y, (_, row) in enumerate(table.iterrows()):
            colour = BLUE if row["difference"] >= 0 else RED
            face = colour if row["p_holm"] < 0.05 else "white"
            axis.plot([row["low"], row["high"]], [y, y], color=colour, lw=2, solid_capstyle="butt")
            axis.plot(row["difference"], y, "o", color=colour, markerfacecolor=face, ms=6)
        axis.set(
            title=name,
            yticks=range(len(table)),
            yticklabels=table.index,
            ylim=(len(table) - 0.5, -0.5),
        )
        axis.tick_params(axis="x", labelsize=8)
    axes[0, len(tables) // 2].set_xlabel(label)
    return figure


def paired_differences(differences: Mapping[str, np.ndarray], images: str = "") -> Figure:
    """Histograms of a difference per image, one panel a comparison, all on one scale; the mean is a
    vertical line.

    Args:
        differences: title of a panel → the differences, shape (n,).
        images: which images these are, for the axis.
    """
    figure, axes = plt.subplots(
        1, len(differences), figsize=(2.4 * len(differences), 2.5), squeeze=False, sharey=True
    )
    limit = max(0.05, *(float(np.abs(values).max()) for values in differences.values()))
    for axis, (name, values) in zip(axes[0], differences.items()):
        axis.hist(values, bins=np.linspace(-limit, limit, 22), color=SKY, edgecolor="white")
        axis.axvline(0, color="#444444", lw=1)
        axis.axvline(values.mean(), color=RED, lw=2)
        axis.set(xlabel="difference of Dice")
        axis.set_title(f"{name}\nmean {values.mean():+.3f}", fontsize=9)
    axes[0, 0].yaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel(f"images\n{images}" if images else "images")
    return figure


# --- where networks fail ----------------------------------------------------------------------------------------------


def score_by_size(frame: pd.DataFrame, bins: int = 4) -> Figure:
    """Dice of each image against its polyp's share of the image, and the networks' means over
    groups of equal number.

    Args:
        frame: one row an image of a network: columns ``network``, ``share`` in (0, 1], ``dice``.
        bins: groups, cut at the quantiles of the share.
    """
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for network, rows in frame.groupby("network", sort=False):
        colour = COLOUR_OF.get(network)
        axis.plot(100 * rows["share"], rows["dice"], ".", color=colour, alpha=0.3, ms=5)
        groups = rows.groupby(pd.qcut(rows["share"], bins, duplicates="drop"), observed=True)[
            ["share", "dice"]
        ].mean()
        axis.plot(100 * groups["share"], groups["dice"], "o-", color=colour, label=network)
    axis.set(
        xscale="log", xlabel="polyp's share of the image, %", ylabel="Dice", ylim=(-0.03, 1.03)
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def captioned(rows: Mapping[str, Sequence[tuple[np.ndarray, str]]], size: float = 1.9) -> Figure:
    """Rows of pictures, each with a caption of its own above it.

    Args:
        rows: label of a row → its (picture, caption) pairs; a picture is uint8 (H, W, 3).
        size: inches a picture.
    """
    figure = grid(
        {label: [picture for picture, _ in row] for label, row in rows.items()}, size=size
    )
    columns = max(len(row) for row in rows.values())
    for i, row in enumerate(rows.values()):
        for j, (_, caption) in enumerate(row):
            figure.axes[i * columns + j].set_title(caption, fontsize=8)
    return figure


def worst_images(
    results: Mapping[str, EvaluationResult],
    pairs: Mapping[str, Iterable[Pair]],
    folder: str | Path,
    count: int = 4,
    metric: str = "dice",
) -> Figure:
    """The images on which a network does worst, a row a data set: found green, missed orange, false
    alarm purple.

    Args:
        results: ``{data set: EvaluationResult}`` of the network.
        pairs: ``{data set: its pairs}``, for the images and masks.
        folder: the network's predictions, ``folder/SET/NAME.png``.
        count: images a set. metric: by which they are chosen.
    """
    rows: dict[str, list[tuple[np.ndarray, str]]] = {}
    for dataset, result in results.items():
        of_name, rows[dataset] = {pair.name: pair for pair in pairs[dataset]}, []
        for row in result.worst(count, metric).itertuples():
            pair, grey = (
                of_name[row.name],
                read_prediction(Path(folder) / dataset / f"{row.name}.png"),
            )
            picture = error_overlay(read_image(pair.image), grey >= 128, read_mask(pair.mask))
            width = round(picture.shape[1] * 200 / picture.shape[0])
            small = cv2.resize(picture, (width, 200), interpolation=cv2.INTER_AREA)
            short = row.name if len(row.name) < 15 else f"{row.name[:12]}…"
            rows[dataset].append((small, f"{short}: {getattr(row, metric):.2f}"))
    return captioned(rows, size=6.6 / count)


def reliability(results: Mapping[str, Mapping[str, EvaluationResult]]) -> Figure:
    """What a network's probability is worth: predicted against observed, and how many pixels stand
    behind each point.

    Args:
        results: title of a panel → ``{network: EvaluationResult}``.
    """
    figure, axes = plt.subplots(
        2,
        len(results),
        figsize=(7, 4.4),
        squeeze=False,
        sharex=True,
        sharey="row",
        height_ratios=(2.2, 1),
    )
    for (upper, lower), (title, networks) in zip(axes.T, results.items()):
        upper.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
        for network, result in networks.items():
            curve, colour = result.calibration, COLOUR_OF.get(network)
            label = f"{network}: {result.calibration_error:.3f}"
            upper.plot(curve["predicted"], curve["observed"], "o-", color=colour, ms=4, label=label)
            lower.plot(curve["predicted"], 100 * curve["weight"], "o-", color=colour, ms=3, lw=1)
        upper.set_title(title)
        upper.legend(title="calibration error", fontsize=8, title_fontsize=8, loc="upper left")
        lower.set(yscale="log", xlabel="predicted probability")
        lower.yaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("observed share of polyp")
    axes[1, 0].set_ylabel("% of pixels")
    return figure
