"""What each measure of chapter 7 sees in an image. ``grey`` is a prediction, uint8 (H, W),
``mask`` bool (H, W), neither empty nor full, and ``image`` uint8 RGB (H, W, 3).
"""

import itertools
from collections.abc import Mapping

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import ndimage

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import BLUE, GREEN, ORANGE, PURPLE, SKY, error_overlay, show
from kdas_core.evaluation import CONVENTIONS, metrics
from kdas_core.evaluation.boundary import boundary_iou
from kdas_core.evaluation.metrics import THRESHOLDS, image_curves
from kdas_core.evaluation.scores import image_metrics

COLOURS = dict(zip(metrics.CURVES, plots.PALETTE))
WORDS = dict(zip(metrics.CURVES, ("Dice", "IoU", "sensitivity", "specificity", "E-measure")))


def shifted(mask: np.ndarray, step: int) -> np.ndarray:
    """The mask moved right by so many pixels (left if they are negative), as a uint8 map."""
    return ndimage.shift(mask.astype(np.uint8) * 255, (0, step), order=0)


def constructed_predictions(mask: np.ndarray) -> dict[str, np.ndarray]:
    """Five predictions whose mistake is known; lengths are a sixth of the polyp's diameter."""
    white, sixth = mask.astype(np.uint8) * 255, np.sqrt(mask.sum() / np.pi) / 3
    step = max(1, round(sixth))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step + 1, 2 * step + 1))
    return {
        "perfect": white,
        "shifted": shifted(mask, step),
        "eroded": cv2.erode(white, disc),
        "blurred": cv2.GaussianBlur(white, (0, 0), max(1.0, sixth)),
        "noise": np.random.default_rng(0).integers(0, 256, mask.shape, dtype=np.uint8),
    }


def shifted_scores(mask: np.ndarray, shift: int) -> dict[str, float]:
    """Of a perfect mask moved sideways: ten scores in which more is better, ``hd95`` in pixels."""
    scores = image_metrics(shifted(mask, shift), mask, surface=True)
    scores["1 − mae"] = 1 - scores["mae"]
    names = "dice iou boundary_iou meanDic wFm Sm meanEm meanSen meanSpe".split()
    return {name: scores[name] for name in [*names, "1 − mae", "hd95"]}


def rankings(made: pd.DataFrame) -> pd.Series:
    """The columns of a table of metrics from best to worst, ``"a > b"``, by eight of its rows."""
    order, rounded = {}, made.round(9)
    for metric in ("dice", "meanDic", "wFm", "Sm", "meanEm", "boundary_iou", "hd95", "mae"):
        less_is_better = metric in ("mae", "hd95")
        names = rounded.loc[metric].sort_values(ascending=less_is_better, kind="stable").index
        order[metric] = " > ".join(names)
    return pd.Series(order)


def places(made: pd.DataFrame) -> Figure:
    """The columns of a table of metrics, each a line through its place, 1 is best, by each of the
    metrics of :func:`rankings`. Parallel lines agree; where two cross, metrics do not.
    """
    ranked = rankings(made)
    figure, axis = plt.subplots(figsize=(plots.WIDTH, 0.4 * len(made.columns) + 1))
    for colour, name in zip(plots.PALETTE, made):
        place = [order.split(" > ").index(name) + 1 for order in ranked]
        axis.plot(ranked.index, place, "o-", color=colour, lw=2.5, ms=10)
        for x, side, where in ((-0.2, "right", place[0]), (len(place) - 0.8, "left", place[-1])):
            axis.text(x, where, name, color=colour, ha=side, va="center", weight="bold")
    axis.set(yticks=[], ylim=(len(made.columns) + 0.4, 0.6), xlim=(-1.2, len(ranked) + 0.2))
    axis.set_ylabel("worst to best")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


def undefined() -> pd.DataFrame:
    """Metrics of masks without polyp, without overlap, at the border: a cell reads "with ``strict``
    → as defined here" where the two differ.
    """
    nothing, spot, top = (np.zeros((60, 80), bool) for _ in range(3))
    spot[20:40, 20:50], top[0, 30:50] = True, True
    black, speck = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    speck[50:52, 70:72] = 200
    cases = {
        "no polyp, black map": (black, nothing),
        "no polyp, false alarm": (speck, nothing),
        "polyp, black map": (black, spot),
        "polyp, marked elsewhere": (speck, spot),
        "polyp in the top row, perfect": (np.where(top, 255, 0).astype(np.uint8), top),
        "polyp, perfect": (np.where(spot, 255, 0).astype(np.uint8), spot),
    }
    shown = "meanDic maxDic meanSen meanSpe wFm Sm meanEm mae dice boundary_iou hd95".split()
    table = pd.DataFrame(index=shown)
    for case, pair in cases.items():
        given = [image_metrics(*pair, strict=strict, surface=True) for strict in (True, False)]
        texts = [
            [f"{round(scores[m], 3):g}".replace("nan", "NaN") for m in shown] for scores in given
        ]
        table[case] = [now if old == now else f"{old} → {now}" for old, now in zip(*texts)]
    return table


def five_curves(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The five measures that depend on the cut, over the 256 thresholds; a dot at each maximum."""
    curves = {}
    for name, curve in image_curves(grey, mask).items():
        curves[f"{WORDS[name]}: mean {curve.mean():.3f}, max {curve.max():.3f}"] = curve
    look: dict = {"marks": [("cut at 0.5", 0.5)], "xlim": (-0.02, 1.02), "ylim": (-0.03, 1.04)}
    figure = plots.lines(pd.DataFrame(curves, index=THRESHOLDS), "threshold", "", **look)
    for line, curve in zip(figure.axes[0].lines, curves.values()):
        line.set(markevery=[curve.argmax()], ms=7, clip_on=False)
    return figure


def cut_at(image: np.ndarray, grey: np.ndarray, mask: np.ndarray, threshold: float) -> Figure:
    """One cut through a map: the verdict on every pixel, and its place on three of the curves."""
    figure, (left, right) = plots.side_by_side(2, 3, 2.6, width_ratios=(1.1, 1))
    show(left, error_overlay(image, grey / 255 >= threshold, mask), f"cut at {threshold:.2f}")
    here, curves = np.abs(THRESHOLDS - threshold).argmin(), image_curves(grey, mask)
    for name in ("Dic", "Sen", "Spe"):
        colour, label = COLOURS[name], f"{WORDS[name]} {curves[name][here]:.3f}"
        right.plot(THRESHOLDS, curves[name], color=colour, alpha=0.6)
        right.plot(threshold, curves[name][here], "o", color=colour, label=label, clip_on=False)
    right.axvline(threshold, color="#999999", lw=1)
    right.set(xlabel="threshold", ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
    narrow = {"handletextpad": 0, "columnspacing": 0.6}
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, **narrow)
    return figure


def grey_errors(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """Mean absolute error and soft Dice: the map, its distance from the mask, and its overlap."""
    map_, full = grey / 255, CONVENTIONS["pranet"].values(grey)[grey]  # stretched, not rounded
    sums = rf"$\Sigma\hat y'm$ = {(full * mask).sum():,.0f}, $\Sigma\hat y'$ = {full.sum():,.0f}"
    sums += rf", $\Sigma m$ = {mask.sum():,}"
    mae = rf"$|\hat y - m|$, mean = mae {metrics.mean_absolute_error(grey, mask):.3f}"
    overlap = rf"$\hat y'm$, the map stretched: soft_dice {metrics.soft_dice(grey, mask):.3f}"
    maps = {
        r"map $\hat y$, outline of the mask": map_,
        mae: np.abs(map_ - mask),
        overlap.replace(": ", "\n") + f"\n{sums}": full * mask,
    }
    figure = plots.grid({"": [*maps.values()]}, list(maps), 2.2, mask, bar="", vmin=0, vmax=1)
    figure.axes[0].images[0].set_cmap("gray")
    return figure


def weighted_errors(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The weighted F-measure taken apart: the errors, their weights, and the errors that count."""
    error = np.abs(grey / 255 - mask)
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    eased = ndimage.gaussian_filter(error[tuple(nearest)], 5, radius=3, mode="nearest")
    weight = 2 - 0.5 ** (distance / 5)
    counted = np.where(mask, np.minimum(error, eased), error * weight)
    true = (1 - counted)[mask].sum()
    recall, precision = true / mask.sum(), true / (true + counted[~mask].sum())
    maps = {
        r"error $e = |\hat y - m|$": error,
        "weight outside, 1 to 2\ninside: eased by neighbours": np.where(mask, np.nan, weight),
        f"error that counts: wFm {metrics.weighted_f_measure(grey, mask):.3f}\n"
        f"precision {precision:.3f}, recall {recall:.3f}": counted,
    }
    return plots.grid({"": [*maps.values()]}, list(maps), 2.2, mask, bar="", vmin=0, vmax=2)


def quadrants(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The S-measure taken apart: how bright and even its regions are, how alike its quadrants."""
    map_, objects, regions = grey / 255, 0.0, 0.0
    figure, (left, right) = plots.side_by_side(2, 4, 3, width_ratios=(1, 1.15))
    for name, part, colour in (
        (r"$\hat y$ inside", map_[mask], GREEN),
        (r"$1 - \hat y$ outside", 1 - map_[~mask], PURPLE),
    ):
        likeness, weight = metrics._object_likeness(part, False), part.size / map_.size
        objects += weight * likeness
        label = f"{name}: mean {part.mean():.2f}, sd {part.std():.2f}"
        label += f"\nO {likeness:.3f}, weight {weight:.3f}"
        look = {"weights": np.full(part.size, 1 / part.size), "color": colour, "alpha": 0.6}
        left.hist(part, np.linspace(0, 1, 26), label=label, **look)
    left.set(xlabel="value", ylabel="share of the region's pixels", title=f"objects {objects:.3f}")
    left.legend(loc="upper center")
    y, x = np.rint(np.argwhere(mask).mean(0)).astype(int)
    look = {"ha": "center", "va": "center"}
    look["bbox"] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2}
    for rows, columns in itertools.product(((0, y), (y, len(map_))), ((0, x), (x, len(map_[0])))):
        window = slice(*rows), slice(*columns)
        if mask[window].size:
            weight = mask[window].size / mask.size
            likeness = metrics._structural_similarity(map_[window], mask[window])
            regions += weight * likeness
            text = f"area {weight:.2f}\nssim {likeness:.2f}"
            right.text(np.mean(columns), np.mean(rows), text, **look)
    title = f"quadrants {regions:.3f}; S-measure {metrics.s_measure(grey, mask):.3f}"
    show(right, map_, title, mask, cmap="gray", vmin=0, vmax=1)
    right.axhline(y - 0.5, color=SKY)
    right.axvline(x - 0.5, color=SKY)
    return figure


def alignment(grey: np.ndarray, mask: np.ndarray) -> Figure:
    """The E-measure at the cut 0.5: what each of the four kinds of pixels contributes."""
    cut = grey >= 128
    a, b = cut - cut.mean(), mask - mask.mean()
    aligned = (1 + 2 * a * b / (a**2 + b**2)) ** 2 / 4
    figure, (left, right) = plots.side_by_side(2, 4, 2.8, width_ratios=(1.25, 1))
    title = f"alignment at threshold 0.5: E-measure {aligned.sum() / (aligned.size - 1):.3f}"
    drawn = show(left, aligned, title, mask, vmin=0, vmax=1)
    figure.colorbar(drawn, ax=left, shrink=0.8)
    kinds = {"background": ~cut & ~mask, "false alarm": cut & ~mask}
    kinds |= {"missed": ~cut & mask, "found": cut & mask}
    names = [f"{name}\n{100 * where.mean():.1f}\u202f% of pixels" for name, where in kinds.items()]
    each = [aligned[where].max(initial=0) for where in kinds.values()]  # all of a kind are equal
    bars = right.barh(names, each, color=["#999999", PURPLE, ORANGE, GREEN])
    right.bar_label(bars, fmt=" {:.3f}")
    right.set(xlim=(0, 1.25), xticks=[0, 0.5, 1], xlabel="what one such pixel counts")
    return figure


def _far_point(edge: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """95 % of an outline's pixels lie so near to another; the one that does, and its nearest."""
    distance, nearest = ndimage.distance_transform_edt(~other, return_indices=True)
    limit = np.percentile(distance[edge], 95)
    y, x = np.argwhere(edge)[np.abs(distance[edge] - limit).argmin()]
    return float(limit), np.array([y, x]), nearest[:, y, x]


def rims_and_outlines(image: np.ndarray, grey: np.ndarray, mask: np.ndarray) -> Figure:
    """Boundary IoU as two rims that overlap, the 95 % Hausdorff distance between two outlines."""
    cut, width = grey >= 128, max(1, round(0.02 * float(np.hypot(*mask.shape))))
    rims = [m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=width) for m in (cut, mask)]
    found, true = (m & ~ndimage.binary_erosion(m) for m in (cut, mask))
    figure, (left, right) = plots.side_by_side(2, 4, 3)
    title = f"rims of {width} px: boundary IoU {boundary_iou(cut, mask):.3f}"
    show(left, error_overlay(image // 2, *rims), f"{title}\n(IoU {metrics.iou(grey, mask):.3f})")
    title = "nothing is marked: no distance exists"
    if cut.any():
        ways = {"found to true": _far_point(found, true), "true to found": _far_point(true, found)}
        way, (limit, start, end) = max(ways.items(), key=lambda way: way[1][0])
        right.plot(*zip(start[::-1], end[::-1]), "o-", color="white", lw=2)
        right.contour(cut, **plots.OUTLINE | {"colors": ORANGE})
        title = f"95\u202f% of each outline lies within\n{limit:.1f} px of the other ({way})"
    show(right, image // 2, title, mask)
    for name, colour in (("mask", plots.OUTLINE["colors"]), ("map cut at 0.5", ORANGE)):
        right.plot([], [], color=colour, label=name)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def shift_scores(masks: Mapping[str, np.ndarray], shift: int) -> Figure:
    """A small and a large perfect mask, moved sideways, and what the measures make of it."""
    figure, axes = plt.subplot_mosaic("ac;bc", figsize=(plots.WIDTH, 3.1), width_ratios=(1, 1.05))
    scores = pd.DataFrame({name: shifted_scores(mask, shift) for name, mask in masks.items()})
    for place, (name, mask) in zip("ab", masks.items()):
        grey = np.full((*mask.shape, 3), 60, np.uint8)
        picture = error_overlay(grey, shifted(mask, shift) / 255, mask)
        show(axes[place], picture, f"{name}: hd95 {scores[name]['hd95']:.0f} px")
    colours = {"color": [ORANGE, BLUE], "legend": False}
    bars = scores.drop("hd95").plot.barh(ax=axes["c"], width=0.78, **colours)
    for drawn in bars.containers:
        bars.bar_label(drawn, fmt=" {:.3f}")
    title = f"moved by {shift} px (small orange, large blue)"
    bars.set(xlim=(0, 1.14), xticks=[0, 0.5, 1], title=title)
    bars.invert_yaxis()
    return figure
