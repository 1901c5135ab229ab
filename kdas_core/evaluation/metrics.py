"""The 13 numbers of the released evaluation, written from their mathematics, and Dice and IoU at
one threshold.

A prediction is an 8-bit grey map, the ground truth a mask. Five measures depend on where the grey
map is cut: Dice, IoU, sensitivity, specificity and the E-measure. Each is a curve over 256
thresholds; its mean and its maximum are what papers print. A grey map has only 256 levels, so all
five curves follow from one joint histogram of grey level and mask: the image is read once and not
256 times. The S-measure, the weighted F-measure and the mean absolute error look at the grey map
itself.

For a data set the curves are averaged over the images first, and mean and maximum are taken of the
average curve. So ``maxDic`` of a set is Dice at the one threshold that suits the set best, which is
at most the mean of the images' own maxima.

Four rules of the released program shape its numbers, and are kept:

- The thresholds include 0, at which everything is foreground: a perfect mask has a ``meanDic`` just
  below 1.
- Where prediction and mask do not overlap, Dice, IoU, sensitivity *and specificity* count as 0 at
  that threshold. An image without a polyp therefore has Dice 0 whatever is predicted.
- The E-measure divides by the number of pixels less one, so it can exceed 1 slightly.
- Grey level and threshold are compared as 64-bit floats. ``linspace(1, 0, 256)`` misses some
  multiples of 1/255 by one unit in the last place, and a grey level on such a threshold falls on
  the side on which the comparison puts it.

Where the released program divides 0 by 0 and gives NaN, this module says what the number is
(``strict=True`` keeps the NaN):

- ``wFm`` of an empty mask is 1 if the prediction is black everywhere and 0 otherwise: no foreground
  exists, so every foreground claimed is wrong, and claiming none is right.
- ``meanSpe`` and ``maxSpe`` of a full mask: the specificity is 1 at each threshold with overlap,
  since there is no background to be mistaken for polyp.
- ``Sm`` of a polyp whose centroid lies in the first row or column: a quadrant without pixels has
  weight 0, adds nothing.

A map is read by the rules of a :class:`~kdas_core.evaluation.conventions.Convention`; all above is
the first of them, ``released``. Three measures of ours have fixed rules of their own: ``dice`` and
``iou`` cut at one half and are 1 when prediction and mask are both empty; ``soft_dice`` is the
number in the training log of the KDAS release.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kdas_core.evaluation.conventions import RELEASED, Convention

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

ALL_METRICS = (*METRICS, "dice", "iou", "soft_dice")
"""The released 13, then ours."""

CURVES = ("Dic", "IoU", "Sen", "Spe", "Em")
"""The measures that depend on the threshold, as the metrics' names abbreviate them."""

THRESHOLDS = np.linspace(1, 0, 256)
"""From 1 (only pure white is foreground) down to 0 (everything is)."""

EPS = np.finfo(np.float64).eps


def dice(pred: np.ndarray, gt: np.ndarray, convention: Convention = RELEASED) -> float:
    """Dice of the prediction cut at one half, ``2|P ∩ G| / (|P| + |G|)``; 1 when both are empty."""
    cut = (convention.values(pred) >= 0.5)[pred]
    size = int(cut.sum()) + int(gt.sum())
    return 2 * int((cut & gt).sum()) / size if size else 1.0


def iou(pred: np.ndarray, gt: np.ndarray, convention: Convention = RELEASED) -> float:
    """Intersection over union of the prediction cut at one half, ``|P ∩ G| / |P ∪ G|``; 1 when both
    are empty.
    """
    overlap = dice(pred, gt, convention)
    return overlap / (2 - overlap)


def soft_dice(pred: np.ndarray, gt: np.ndarray) -> float:
    """Dice without a cut, ``(2 Σ p·g + 1) / (Σ p + Σ g + 1)``, on the map stretched to [0, 1] (a
    constant map is black).

    This is the number in the training log of the KDAS release, as far as a map of 8 bits keeps it.
    It has its own rules under every convention: stretching hides how sure the network is, and the 1
    makes two empty maps agree.
    """
    low, high = int(pred.min()), int(pred.max())
    values = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1)
    counts, polyp = np.bincount(pred.ravel(), minlength=256), np.bincount(pred[gt], minlength=256)
    return float((2 * values @ polyp + 1) / (values @ counts + polyp.sum() + 1))


def mean_absolute_error(
    pred: np.ndarray, gt: np.ndarray, convention: Convention = RELEASED
) -> float:
    """Mean of ``|p − g|`` over the pixels, p in [0, 1], in [0, 1]; the one of the 13 of which less
    is better.
    """
    return float(np.abs(convention.values(pred)[pred] - gt).mean())


def image_curves(
    pred: np.ndarray, gt: np.ndarray, strict: bool = False, convention: Convention = RELEASED
) -> dict[str, np.ndarray]:
    """The five measures at each of the 256 thresholds.

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W).
        strict: leave the specificity of a full mask NaN, as released, instead of 1.

    Returns:
        ``{"Dic", "IoU", "Sen", "Spe", "Em"}``, each float64 of shape (256,), in the order of
        ``THRESHOLDS``.

    Raises:
        ValueError: not a uint8 map and a bool mask of the same two-dimensional shape.

    Source: E-measure, Fan et al., IJCAI 2018; the others are ratios of counts.
    """
    check_pair(pred, gt)
    histogram = np.bincount(pred.ravel() + np.where(gt.ravel(), 256, 0), minlength=512).reshape(
        2, 256
    )
    # [threshold, grey level] → is a pixel of this level foreground? As floats on purpose, see the
    # module's docstring.
    foreground_at = convention.values(pred)[None, :] >= THRESHOLDS[:, None]
    false_positive, true_positive = foreground_at @ histogram[0], foreground_at @ histogram[1]
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

    Both maps are binary, so centring them leaves two values each and the alignment of a pixel
    depends only on its cell. Mean over the pixels of ``(1 + 2ab/(a² + b²))² / 4`` with a, b the
    centred maps, but divided by the number of pixels less one. A mask without foreground (or
    background) has nothing to align with: the part of the image that the prediction has right is
    counted.
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


def s_measure(
    pred: np.ndarray, gt: np.ndarray, strict: bool = False, convention: Convention = RELEASED
) -> float:
    """Structure measure: half likeness of object and background, half of the four quadrants about
    the centroid.

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W). An empty mask scores ``1 − mean(pred)``, a full one ``mean(pred)``.
        strict: NaN where the centroid leaves a quadrant empty, as the mean of no pixels is (no
            stored number of the released program covers this case).

    Returns:
        A number in [0, 1]; a negative sum counts as 0.

    Source: Fan et al., ICCV 2017; standard deviations divide by N (convention ``pranet``: N − 1).
    """
    check_pair(pred, gt)
    grey, matlab = convention.values(pred)[pred], convention.matlab
    share = gt.mean()
    if share == 0 or share == 1:
        return float(grey.mean() if share else 1 - grey.mean())
    objects = share * _object_likeness(grey[gt], matlab) + (1 - share) * _object_likeness(
        1 - grey[~gt], matlab
    )
    score = (objects + _region_likeness(grey, gt, strict, matlab)) / 2
    return float(max(score, 0.0)) if not np.isnan(score) else float("nan")


def _object_likeness(values: np.ndarray, matlab: bool) -> float:
    """Near 1 when the values are high and alike: ``2x / (x² + 1 + σ)``."""
    mean, deviation = values.mean(), values.std(ddof=1 if matlab and len(values) > 1 else 0)
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _region_likeness(grey: np.ndarray, gt: np.ndarray, strict: bool, matlab: bool) -> float:
    rows, columns = np.nonzero(gt)
    if matlab:  # counts from 1, rounds halves up, and 1:y holds row y: the centroid's row lies above the cut
        y, x = int(np.floor(rows.mean() + 1.5)), int(np.floor(columns.mean() + 1.5))
    else:  # the centroid's row lies below the cut; halves round to even
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


def weighted_f_measure(
    pred: np.ndarray, gt: np.ndarray, strict: bool = False, convention: Convention = RELEASED
) -> float:
    """F-measure of a grey map in which an error costs less near others of its kind and near the
    polyp.

    An error inside the polyp is eased by the errors around it (7×7 Gaussian, σ = 5), an error
    outside weighs 1 at the polyp's rim and up to 2 far away, halving the difference every 5 pixels.
    Recall is then 1 less the mean weighted error inside, precision the share of weighted true
    positives, and the score their harmonic mean (β² = 1).

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W).
        strict: NaN for an empty mask, as released, instead of 1 for a black prediction and 0 for
            any other.

    Returns:
        A number in [0, 1].

    Source: Margolin et al., CVPR 2014; beyond the border the Gaussian sees the border's own pixels
    repeated (convention ``pranet``: black).
    """
    check_pair(pred, gt)
    if not gt.any():
        return float("nan") if strict else float(not convention.values(pred)[pred].any())
    error = np.abs(convention.values(pred)[pred] - gt)
    distance, nearest = ndimage.distance_transform_edt(~gt, return_indices=True)
    # Outside, a pixel carries the error of its nearest polyp pixel, so the Gaussian at the rim sees
    # only polyp errors.
    carried = error[tuple(nearest)]
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    kernel /= kernel.sum()
    border = "constant" if convention.matlab else "nearest"
    eased = ndimage.correlate1d(
        ndimage.correlate1d(carried, kernel, 0, mode=border), kernel, 1, mode=border
    )
    inside = np.minimum(error, eased)[gt]
    outside = (error * (2 - 0.5 ** (distance / 5)))[~gt]
    recall = 1 - inside.mean()
    true_positive = inside.size - inside.sum()
    precision = true_positive / (true_positive + outside.sum() + EPS)
    return float(2 * recall * precision / (recall + precision + EPS))


def check_pair(pred: np.ndarray, gt: np.ndarray) -> None:
    """ValueError unless this is a uint8 map and a bool mask of one two-dimensional shape, two
    pixels or more.
    """
    if pred.dtype != np.uint8 or gt.dtype != bool:
        raise ValueError(
            f"A prediction is uint8 and a mask is bool, these are {pred.dtype} and {gt.dtype}."
        )
    if pred.ndim != 2 or pred.shape != gt.shape:
        raise ValueError(
            f"Prediction and mask have one shape (H, W), these have {pred.shape} and {gt.shape}."
        )
    if pred.size < 2:
        raise ValueError(
            "The E-measure divides by the number of pixels less one: an image needs two pixels or more."
        )
