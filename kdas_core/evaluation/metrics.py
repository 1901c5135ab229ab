"""The 13 numbers of the released evaluation, written from their mathematics, and Dice and IoU at one threshold.

A prediction is an 8-bit grey map, the ground truth a mask. Five measures depend on where the grey map is cut: Dice,
IoU, sensitivity, specificity and the E-measure. Each is a curve over 256 thresholds; its mean and its maximum are what
papers print. A grey map has only 256 levels, so all five curves follow from one joint histogram of grey level and mask:
the image is read once and not 256 times. The S-measure, the weighted F-measure and the mean absolute error look at the
grey map itself.

For a data set the curves are averaged over the images first, and mean and maximum are taken of the average curve. So
``maxDic`` of a set is Dice at the one threshold that suits the set best, which is at most the mean of the images' own
maxima.

Four rules of the released program shape its numbers, and are kept:

- The thresholds include 0, at which everything is foreground: a perfect mask has a ``meanDic`` just below 1.
- Where prediction and mask do not overlap, Dice, IoU, sensitivity *and specificity* count as 0 at that threshold. An
  image without a polyp therefore has Dice 0 whatever is predicted.
- The E-measure divides by the number of pixels less one, so it can exceed 1 slightly.
- Grey level and threshold are compared as 64-bit floats. ``linspace(1, 0, 256)`` misses some multiples of 1/255 by one
  unit in the last place, and a grey level on such a threshold falls on the side on which the comparison puts it.

Where the released program divides 0 by 0 and gives NaN, this module says what the number is (``strict=True`` keeps the
NaN):

- ``wFm`` of an empty mask is 1 if the prediction is black everywhere and 0 otherwise: no foreground exists, so every
  foreground claimed is wrong, and claiming none is right.
- ``meanSpe`` and ``maxSpe`` of a full mask: the specificity is 1 at each threshold with overlap, since there is no
  background to be mistaken for polyp.
- ``Sm`` of a polyp whose centroid lies in the first row or column: a quadrant without pixels has weight 0, adds
  nothing.

``dice`` and ``iou``, which are not part of the released 13, cut at grey ≥ 128 and are 1 when prediction and mask are
both empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

METRICS = (
    "meanDic",
    "meanIoU",
    "wFm",
    "Sm",
    "meanEm",
    "mae",
    "maxEm",
    "maxDic",
    "maxIoU",
    "meanSen",
    "maxSen",
    "meanSpe",
    "maxSpe",
)
"""The released 13, in the released order."""

ALL_METRICS = (*METRICS, "dice", "iou")
"""The released 13, then ours at one threshold."""

CURVES = ("Dic", "IoU", "Sen", "Spe", "Em")
"""The measures that depend on the threshold, as the metrics' names abbreviate them."""

THRESHOLDS = np.linspace(1, 0, 256)
"""From 1 (only pure white is foreground) down to 0 (everything is)."""

HALF = 128
"""The lowest grey level that counts as foreground, in a mask and in ``dice`` and ``iou``."""

EPS = np.finfo(np.float64).eps

# [threshold, grey level] -> is a pixel of this level foreground? As floats on purpose, see the module's docstring.
_FOREGROUND = (np.arange(256) / 255)[None, :] >= THRESHOLDS[:, None]


def minmax_grey(pred: np.ndarray) -> np.ndarray:
    """Stretch a grey map to 0 … 255, as the saving scripts of PraNet and Polyp-PVT do before they write it.

    The darkest pixel becomes 0 and the lightest 255, whatever the network said, rounded to the nearest grey level. A
    constant map has no darkest and lightest pixel and becomes black, as it does there.

    Args:
        pred: uint8, (H, W).

    Returns:
        uint8, (H, W). A map that spans 0 … 255 already comes back unchanged.
    """
    low, high = int(pred.min()), int(pred.max())
    if low == high:
        return np.zeros_like(pred)
    levels = np.clip((np.arange(256) - low) * 255 / (high - low), 0, 255)
    return np.rint(levels).astype(np.uint8)[pred]


def dice(pred: np.ndarray, gt: np.ndarray) -> float:
    """Dice of the prediction cut at grey ≥ 128, ``2|P ∩ G| / (|P| + |G|)``; 1 when both are empty."""
    cut = pred >= HALF
    size = int(cut.sum()) + int(gt.sum())
    return 2 * int((cut & gt).sum()) / size if size else 1.0


def iou(pred: np.ndarray, gt: np.ndarray) -> float:
    """Intersection over union of the prediction cut at grey ≥ 128, ``|P ∩ G| / |P ∪ G|``; 1 when both are empty."""
    cut = pred >= HALF
    union = int((cut | gt).sum())
    return int((cut & gt).sum()) / union if union else 1.0


def mean_absolute_error(pred: np.ndarray, gt: np.ndarray) -> float:
    """Mean of ``|pred/255 − gt|`` over the pixels, in [0, 1]; the one metric of which less is better."""
    return float(np.abs(pred / 255 - gt).mean())


def image_curves(pred: np.ndarray, gt: np.ndarray, strict: bool = False) -> dict[str, np.ndarray]:
    """The five measures at each of the 256 thresholds.

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W).
        strict: leave the specificity of a full mask NaN, as released, instead of 1.

    Returns:
        ``{"Dic", "IoU", "Sen", "Spe", "Em"}``, each float64 of shape (256,), in the order of ``THRESHOLDS``.

    Raises:
        ValueError: not a uint8 map and a bool mask of the same two-dimensional shape.

    Source: E-measure, Fan et al., IJCAI 2018; the others are ratios of counts.
    """
    _check(pred, gt)
    histogram = np.bincount(pred.ravel() + np.where(gt.ravel(), 256, 0), minlength=512).reshape(2, 256)
    false_positive, true_positive = _FOREGROUND @ histogram[0], _FOREGROUND @ histogram[1]
    background, foreground = (int(n) for n in histogram.sum(axis=1))

    overlap = true_positive > 0
    predicted = true_positive + false_positive
    # max(…, 1) only guards 0/0, where nothing overlaps and the measure is 0.
    curves = {
        "Dic": 2 * true_positive / np.maximum(predicted + foreground, 1),
        "IoU": true_positive / np.maximum(false_positive + foreground, 1),
        "Sen": true_positive / max(foreground, 1),
        "Spe": np.where(overlap, _specificity(false_positive, background, strict), 0.0),
    }
    curves["Em"] = _enhanced_alignment(true_positive, false_positive, foreground, background)
    return curves


def _specificity(false_positive: np.ndarray, background: int, strict: bool) -> np.ndarray:
    if background == 0:
        return np.full(len(false_positive), np.nan if strict else 1.0)
    return (background - false_positive) / background


def _enhanced_alignment(
    true_positive: np.ndarray, false_positive: np.ndarray, foreground: int, background: int
) -> np.ndarray:
    """E-measure at each threshold, from the four cells of the confusion table.

    Both maps are binary, so centring them leaves two values each and the alignment of a pixel depends only on its cell.
    Mean over the pixels of ``(1 + 2ab/(a² + b²))² / 4`` with a, b the centred maps, but divided by the number of pixels
    less one. A mask without foreground (or background) has nothing to align with: the part of the image that the
    prediction has right is counted.
    """
    pixels = foreground + background
    false_negative, true_negative = foreground - true_positive, background - false_positive
    if foreground == 0:
        return true_negative / (pixels - 1)
    if background == 0:
        return true_positive / (pixels - 1)
    mean_pred, mean_gt = (true_positive + false_positive) / pixels, foreground / pixels
    total = np.zeros(len(true_positive))
    for count, p, g in (
        (true_positive, 1, 1),
        (false_positive, 1, 0),
        (false_negative, 0, 1),
        (true_negative, 0, 0),
    ):
        a, b = p - mean_pred, g - mean_gt
        total += count * (1 + 2 * a * b / (a**2 + b**2)) ** 2 / 4
    return total / (pixels - 1)


def s_measure(pred: np.ndarray, gt: np.ndarray, strict: bool = False) -> float:
    """Structure measure: half likeness of object and background, half of the four quadrants about the centroid.

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W). An empty mask scores ``1 − mean(pred)``, a full one ``mean(pred)``.
        strict: NaN where the centroid leaves a quadrant empty, as the mean of no pixels is (no stored number of the
            released program covers this case).

    Returns:
        A number in [0, 1]; a negative sum counts as 0.

    Source: Fan et al., ICCV 2017; standard deviations divide by N.
    """
    _check(pred, gt)
    grey = pred / 255
    share = gt.mean()
    if share == 0 or share == 1:
        return float(grey.mean() if share else 1 - grey.mean())
    objects = share * _object_likeness(grey[gt]) + (1 - share) * _object_likeness(1 - grey[~gt])
    score = (objects + _region_likeness(grey, gt, strict)) / 2
    return float(max(score, 0.0)) if not np.isnan(score) else float("nan")


def _object_likeness(values: np.ndarray) -> float:
    """Near 1 when the values are high and alike: ``2x / (x² + 1 + σ)``."""
    mean = values.mean()
    return 2 * mean / (mean**2 + 1 + values.std() + EPS)


def _region_likeness(grey: np.ndarray, gt: np.ndarray, strict: bool) -> float:
    rows, columns = np.nonzero(gt)
    # The centroid's own row and column belong to the lower right quadrant; halves round to even.
    y, x = int(np.rint(rows.mean())), int(np.rint(columns.mean()))
    total = 0.0
    for part in np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]:
        if gt[part].size:
            total += gt[part].size / gt.size * _structural_similarity(grey[part], gt[part])
        elif strict:
            total = float("nan")
    return total


def _structural_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """``4 x̄ ȳ σxy / ((x̄² + ȳ²)(σx² + σy²))``.

    Two constant regions are alike (1), a constant and a structured one are not (0).
    """
    mean_x, mean_y = x.mean(), y.mean()
    free = x.size - 1 + EPS
    variances = (((x - mean_x) ** 2).sum() + ((y - mean_y) ** 2).sum()) / free
    numerator = 4 * mean_x * mean_y * ((x - mean_x) * (y - mean_y)).sum() / free
    denominator = (mean_x**2 + mean_y**2) * variances
    if numerator != 0:
        return numerator / (denominator + EPS)
    return 1.0 if denominator == 0 else 0.0


def weighted_f_measure(pred: np.ndarray, gt: np.ndarray, strict: bool = False) -> float:
    """F-measure of a grey map in which an error costs less near others of its kind and near the polyp.

    An error inside the polyp is eased by the errors around it (7×7 Gaussian, σ = 5), an error outside weighs 1 at the
    polyp's rim and up to 2 far away, halving the difference every 5 pixels. Recall is then 1 less the mean weighted
    error inside, precision the share of weighted true positives, and the score their harmonic mean (β² = 1).

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W).
        strict: NaN for an empty mask, as released, instead of 1 for a black prediction and 0 for any other.

    Returns:
        A number in [0, 1].

    Source: Margolin et al., CVPR 2014; beyond the border the Gaussian sees the border's own pixels repeated.
    """
    _check(pred, gt)
    if not gt.any():
        return float("nan") if strict else float(not pred.any())
    error = np.abs(pred / 255 - gt)
    distance, nearest = ndimage.distance_transform_edt(~gt, return_indices=True)
    # Outside, a pixel carries the error of its nearest polyp pixel, so the Gaussian at the rim sees only polyp errors.
    carried = error[tuple(nearest)]
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    kernel /= kernel.sum()
    eased = ndimage.correlate1d(ndimage.correlate1d(carried, kernel, 0, mode="nearest"), kernel, 1, mode="nearest")
    inside = np.minimum(error, eased)[gt]
    outside = (error * (2 - 0.5 ** (distance / 5)))[~gt]
    recall = 1 - inside.mean()
    true_positive = inside.size - inside.sum()
    precision = true_positive / (true_positive + outside.sum() + EPS)
    return float(2 * recall * precision / (recall + precision + EPS))


@dataclass(frozen=True)
class ImageScore:
    """What one image contributes to a set: five curves and five single numbers."""

    curves: dict[str, np.ndarray]
    scalars: dict[str, float]

    def metrics(self) -> dict[str, float]:
        """The image's 15 numbers."""
        return summarise(self.curves, self.scalars)


def score_image(pred: np.ndarray, gt: np.ndarray, strict: bool = False) -> ImageScore:
    """Everything there is to measure on one image; arguments as in :func:`image_metrics`."""
    scalars = {
        "wFm": weighted_f_measure(pred, gt, strict),
        "Sm": s_measure(pred, gt, strict),
        "mae": mean_absolute_error(pred, gt),
        "dice": dice(pred, gt),
        "iou": iou(pred, gt),
    }
    return ImageScore(image_curves(pred, gt, strict), scalars)


def image_metrics(pred: np.ndarray, gt: np.ndarray, strict: bool = False) -> dict[str, float]:
    """The 13 released metrics of one image, then ``dice`` and ``iou`` at grey ≥ 128.

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W).
        strict: as released, NaN included; the module's docstring says what replaces it otherwise.

    Returns:
        ``{metric: value}`` in the order of ``ALL_METRICS``.

    Raises:
        ValueError: not a uint8 map and a bool mask of the same two-dimensional shape.

    >>> mask = np.zeros((60, 80), bool); mask[20:40, 20:50] = True
    >>> scores = image_metrics(np.where(mask, 255, 0).astype(np.uint8), mask)
    >>> scores["dice"], round(scores["meanDic"], 4)
    (1.0, 0.997)
    """
    return score_image(pred, gt, strict).metrics()


def summarise(curves: Mapping[str, np.ndarray], scalars: Mapping[str, float]) -> dict[str, float]:
    """Mean and maximum of each curve beside the single numbers, in the order of ``ALL_METRICS``.

    The same for an image and for a set: a set's curves and scalars are the averages over its images.
    """
    numbers = dict(scalars)
    for name, curve in curves.items():
        numbers[f"mean{name}"], numbers[f"max{name}"] = float(curve.mean()), float(curve.max())
    return {name: numbers[name] for name in ALL_METRICS}


@dataclass
class SetScore:
    """Adds up the scores of a set. It keeps one sum of curves and 15 numbers an image, never the images."""

    names: list[str] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    _curves: dict[str, np.ndarray] = field(default_factory=lambda: {name: np.zeros(len(THRESHOLDS)) for name in CURVES})

    def add(self, name: str, score: ImageScore) -> None:
        """Count one image in."""
        for curve in CURVES:
            self._curves[curve] += score.curves[curve]
        self.names.append(name)
        self.rows.append(score.metrics())

    def extend(self, scores: Iterable[tuple[str, ImageScore]]) -> SetScore:
        """Count a stream of images in; returns itself."""
        for name, score in scores:
            self.add(name, score)
        return self

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """The curves averaged over the images, each of shape (256,)."""
        if not self.names:
            raise ValueError("A set without images has no score.")
        return {name: total / len(self.names) for name, total in self._curves.items()}

    def summary(self) -> dict[str, float]:
        """The set's 15 numbers, in the order of ``ALL_METRICS``."""
        curves = self.curves
        scalars = {
            name: float(np.mean([row[name] for row in self.rows])) for name in ("wFm", "Sm", "mae", "dice", "iou")
        }
        return summarise(curves, scalars)


def _check(pred: np.ndarray, gt: np.ndarray) -> None:
    if pred.dtype != np.uint8 or gt.dtype != bool:
        raise ValueError(f"A prediction is uint8 and a mask is bool, these are {pred.dtype} and {gt.dtype}.")
    if pred.ndim != 2 or pred.shape != gt.shape:
        raise ValueError(f"Prediction and mask have one shape (H, W), these have {pred.shape} and {gt.shape}.")
    if pred.size < 2:
        raise ValueError("The E-measure divides by the number of pixels less one: an image needs two pixels or more.")
