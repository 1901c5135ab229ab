"""The 13 numbers of the released evaluation, written from their mathematics, and three of ours.

Every function takes a grey map ``pred``, uint8 (H, W), and a mask ``gt``, bool (H, W); for another
pair, curves, S-measure and weighted F-measure raise ValueError. Dice, IoU, sensitivity, specificity
and E-measure are curves over 256 thresholds, all from one joint histogram of grey level and mask;
of a data set's average curves papers print mean and maximum.

Four rules of the released program shape its numbers, and are kept:

- The thresholds include 0, at which everything is foreground: a perfect mask has a ``meanDic`` just
  below 1.
- Where prediction and mask do not overlap, Dice, IoU, sensitivity *and specificity* are 0 at that
  threshold. An image without a polyp has Dice 0 whatever is predicted.
- The E-measure divides by the number of pixels less one, so it can exceed 1 slightly.
- Grey level and threshold are compared as 64-bit floats. ``linspace(1, 0, 256)`` misses some
  multiples of 1/255 by one unit in the last place, which decides the side of those grey levels.

Where the released program divides 0 by 0, this module says what the number is (``strict=True``
keeps the NaN): ``wFm`` of an empty mask is 1 for a black map and 0 for any other; the specificity
of a full mask is 1 where there is overlap; a quadrant without pixels adds nothing to ``Sm``.
"""

import numpy as np
from scipy import ndimage

from kdas_core.evaluation.conventions import RELEASED, Array, Convention

# The released 13, in the released order; then ours.
METRICS = tuple(
    "meanDic meanIoU wFm Sm meanEm mae maxEm maxDic maxIoU meanSen maxSen meanSpe maxSpe".split()
)
ALL_METRICS = (*METRICS, "dice", "iou", "soft_dice")
CURVES = ("Dic", "IoU", "Sen", "Spe", "Em")  # what depends on the threshold, in the names above
THRESHOLDS = np.linspace(1, 0, 256)  # from 1, where only white is foreground, to 0: everything is
EPS = np.finfo(np.float64).eps


def dice(pred: Array, gt: Array, convention: Convention = RELEASED) -> float:
    """Dice of the map cut at one half, ``2|P ∩ G| / (|P| + |G|)``; 1 when both are empty."""
    cut = convention.cut(pred)
    size = int(cut.sum()) + int(gt.sum())
    return 2 * int((cut & gt).sum()) / size if size else 1.0


def iou(pred: Array, gt: Array, convention: Convention = RELEASED) -> float:
    """IoU of the map cut at one half, ``|P ∩ G| / |P ∪ G|``; 1 when both are empty."""
    overlap = dice(pred, gt, convention)
    return overlap / (2 - overlap)


def soft_dice(pred: Array, gt: Array) -> float:
    """Dice without a cut, ``(2 Σ p·g + 1) / (Σ p + Σ g + 1)``, on the map stretched to [0, 1] (a
    constant map is black): the number in the training log of the KDAS release.
    """
    low, high = int(pred.min()), int(pred.max())
    values = np.clip((np.arange(256) - low) / max(high - low, 1), 0, 1)
    counts, polyp = np.bincount(pred.ravel(), minlength=256), np.bincount(pred[gt], minlength=256)
    return float((2 * values @ polyp + 1) / (values @ counts + polyp.sum() + 1))


def mean_absolute_error(pred: Array, gt: Array, convention: Convention = RELEASED) -> float:
    """Mean of ``|p − g|`` over the pixels, in [0, 1]; of the 13 the one of which less is better."""
    return float(np.abs(convention.values(pred)[pred] - gt).mean())


def image_curves(
    pred: Array, gt: Array, strict: bool = False, convention: Convention = RELEASED
) -> dict[str, Array]:
    """``{"Dic", "IoU", "Sen", "Spe", "Em"}``, each float64 (256,), in the order of ``THRESHOLDS``.

    Source: E-measure, Fan et al., IJCAI 2018; the others are ratios of counts.
    """
    check_pair(pred, gt)
    histogram = np.bincount(pred.ravel() + np.where(gt.ravel(), 256, 0), minlength=512)
    # [threshold, grey level] → is a pixel of this level foreground? As floats on purpose.
    foreground_at = convention.values(pred)[None, :] >= THRESHOLDS[:, None]
    false_positive, true_positive = foreground_at @ histogram[:256], foreground_at @ histogram[256:]
    background, foreground = int(histogram[:256].sum()), int(histogram[256:].sum())

    undefined = np.nan if strict else 1.0
    specificity = (background - false_positive) / background if background else undefined
    # max(…, 1) only guards 0/0, where nothing overlaps and the measure is 0.
    return {
        "Dic": 2 * true_positive / np.maximum(true_positive + false_positive + foreground, 1),
        "IoU": true_positive / np.maximum(false_positive + foreground, 1),
        "Sen": true_positive / max(foreground, 1),
        "Spe": np.where(true_positive > 0, specificity, 0.0),
        "Em": _enhanced_alignment(true_positive, false_positive, foreground, background),
    }


def _enhanced_alignment(
    true_positive: Array, false_positive: Array, foreground: int, background: int
) -> Array:
    """E-measure at each threshold, from the four cells of the confusion table.

    Mean over the pixels (less one) of ``(1 + 2ab/(a² + b²))² / 4``, a and b the centred cut and
    mask. A mask without foreground (or background) has nothing to align with: the share of the
    image that is right is counted.
    """
    pixels = foreground + background
    false_negative, true_negative = foreground - true_positive, background - false_positive
    if foreground == 0 or background == 0:
        return (true_positive if foreground else true_negative) / (pixels - 1)
    mean_pred, mean_gt = (true_positive + false_positive) / pixels, foreground / pixels
    counts = np.stack([true_positive, false_positive, false_negative, true_negative])
    a, b = np.c_[1, 1, 0, 0].T - mean_pred, np.c_[1, 0, 1, 0].T - mean_gt
    return (counts * (1 + 2 * a * b / (a**2 + b**2)) ** 2 / 4).sum(axis=0) / (pixels - 1)


def s_measure(
    pred: Array, gt: Array, strict: bool = False, convention: Convention = RELEASED
) -> float:
    """Structure measure, in [0, 1]: half likeness of object and background, half of the four
    quadrants about the centroid. An empty mask scores 1 − mean(pred), a full one mean(pred).

    Source: Fan et al., ICCV 2017; standard deviations divide by N (convention ``pranet``: N − 1).
    """
    check_pair(pred, gt)
    grey, matlab = convention.values(pred)[pred], convention.matlab
    share = gt.mean()
    if share == 0 or share == 1:
        return float(grey.mean() if share else 1 - grey.mean())
    inside, outside = _object_likeness(grey[gt], matlab), _object_likeness(1 - grey[~gt], matlab)
    objects = share * inside + (1 - share) * outside
    score = (objects + _region_likeness(grey, gt, strict, matlab)) / 2
    return float(np.maximum(score, 0.0))  # keeps NaN


def _object_likeness(values: Array, matlab: bool) -> float:
    """Near 1 when the values are high and alike: ``2x / (x² + 1 + σ)``."""
    mean, deviation = values.mean(), values.std(ddof=1 if matlab and len(values) > 1 else 0)
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _region_likeness(grey: Array, gt: Array, strict: bool, matlab: bool) -> float:
    rows, columns = np.nonzero(gt)
    if matlab:  # counts from 1, rounds halves up, and the centroid's row lies above the cut
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


def _structural_similarity(x: Array, y: Array) -> float:
    """``4 x̄ ȳ σxy / ((x̄² + ȳ²)(σx² + σy²))``; 1 for two constant regions, 0 for only one."""
    mean_x, mean_y = x.mean(), y.mean()
    free = x.size - 1 + EPS
    variances = (((x - mean_x) ** 2).sum() + ((y - mean_y) ** 2).sum()) / free
    numerator = 4 * mean_x * mean_y * ((x - mean_x) * (y - mean_y)).sum() / free
    denominator = (mean_x**2 + mean_y**2) * variances
    if numerator != 0:
        return numerator / (denominator + EPS)
    return 1.0 if denominator == 0 else 0.0


def weighted_f_measure(
    pred: Array, gt: Array, strict: bool = False, convention: Convention = RELEASED
) -> float:
    """F-measure (β² = 1), in [0, 1], in which an error inside the polyp is eased by the errors
    around it (7×7 Gaussian, σ = 5); an error outside weighs 1 at the rim and up to 2 far away,
    halving the difference every 5 pixels.

    Source: Margolin et al., CVPR 2014; beyond the border the Gaussian sees the border's own pixels
    repeated (convention ``pranet``: black).
    """
    check_pair(pred, gt)
    grey = convention.values(pred)[pred]
    if not gt.any():
        return float("nan") if strict else float(not grey.any())
    error = np.abs(grey - gt)
    distance, nearest = ndimage.distance_transform_edt(~gt, return_indices=True)
    # Outside, a pixel carries the error of its nearest polyp pixel, so the Gaussian at the rim sees
    # only polyp errors.
    eased = error[tuple(nearest)]
    kernel = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5**2))
    border = "constant" if convention.matlab else "nearest"
    for axis in (0, 1):
        eased = ndimage.correlate1d(eased, kernel / kernel.sum(), axis, mode=border)
    inside = np.minimum(error, eased)[gt]
    outside = (error * (2 - 0.5 ** (distance / 5)))[~gt]
    recall = 1 - inside.mean()
    true_positive = inside.size - inside.sum()
    precision = true_positive / (true_positive + outside.sum() + EPS)
    return float(2 * recall * precision / (recall + precision + EPS))


def check_pair(pred: Array, gt: Array) -> None:
    """ValueError unless these are a uint8 map and a bool mask of one shape (H, W), ≥ 2 pixels."""
    kinds = pred.dtype == np.uint8 and gt.dtype == bool
    if not kinds or pred.ndim != 2 or pred.shape != gt.shape or pred.size < 2:
        found = f"This is {pred.dtype} {pred.shape} and {gt.dtype} {gt.shape}"
        raise ValueError(f"{found}; give a uint8 map and a bool mask of one shape (H, W).")
