"""From the measures of one image to the numbers of a set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdas_core import UserError
from kdas_core.evaluation import metrics as measures
from kdas_core.evaluation.boundary import SURFACE_METRICS, boundary_iou, hausdorff_95
from kdas_core.evaluation.conventions import CONVENTIONS, Array, Convention
from kdas_core.evaluation.metrics import ALL_METRICS, CURVES

BINS = 20  # equal steps of probability in which calibration is counted


@dataclass(frozen=True)
class Settings:
    """The options of :func:`~kdas_core.evaluation.evaluate`."""

    convention: str = "released"
    strict: bool = False
    surface: bool = False
    drop_repeats: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers is {self.workers}; it must be at least 1.")

    @property
    def rules(self) -> Convention:
        """The convention of this name, or a UserError with those there are."""
        if self.convention not in CONVENTIONS:
            known = f"known are {', '.join(CONVENTIONS)}"
            raise UserError(f"There is no convention {self.convention!r}; {known}.")
        return CONVENTIONS[self.convention]


DEFAULT = Settings()


@dataclass(frozen=True)
class ImageScore:
    """What one image contributes to a set."""

    metrics: dict[str, float]
    curves: dict[str, Array]  # each (256,), over the thresholds
    reliability: Array  # (3, BINS): pixels, summed probability and truth, as shares of pixels


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The scores of one test set.

    Attributes:
        summary: ``{metric: value}`` of the set, in the order of ``ALL_METRICS``, then
            ``SURFACE_METRICS`` where they were asked for.
        per_image: a row an image, sorted by file name: ``name``, then the metrics of that image.
        curves: ``{"Dic", "IoU", "Sen", "Spe", "Em"}``, averaged over the images, each (256,) in the
            order of ``THRESHOLDS``.
        calibration: is a pixel called 0.8 polyp in 8 of 10 cases? A row a bin of probability that
            occurs: ``weight`` (its share of the pixels; sums to 1), ``predicted`` (mean
            probability), ``observed`` (share of polyp). Each image counts the same.
        convention, strict: as in :func:`evaluate`.
        ignored: names of predictions without a mask (or left out by ``names``); they do not count.
        dropped: names left out because their image repeats an earlier one.
        synthetic: were the masks written by our own generator?
        masks: a digest of their pixels.

    Source: reliability diagrams as in Guo et al., ICML 2017, for the probability of "polyp".
    """

    summary: dict[str, float]
    per_image: pd.DataFrame
    curves: dict[str, Array]
    calibration: pd.DataFrame
    convention: str = "released"
    strict: bool = False
    ignored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    synthetic: bool = False
    masks: str = ""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.per_image)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in [0, 1], less is better: how far ``predicted`` and
        ``observed`` lie apart, averaged by weight. Easy background makes it small for everybody.
        """
        bins = self.calibration
        return float((bins["weight"] * (bins["predicted"] - bins["observed"]).abs()).sum())

    def worst(self, count: int, metric: str = "dice") -> pd.DataFrame:
        """The rows of ``per_image`` with the worst values, worst first."""
        more_is_better = metric not in ("mae", "hd95")
        return self.per_image.sort_values(metric, ascending=more_is_better, kind="stable")[:count]


def score_image(pred: Array, gt: Array, settings: Settings = DEFAULT) -> ImageScore:
    """Everything there is to measure on one image, uint8 and bool of shape (H, W)."""
    rules, strict = settings.rules, settings.strict
    numbers = {
        "wFm": measures.weighted_f_measure(pred, gt, strict, rules),
        "Sm": measures.s_measure(pred, gt, strict, rules),
        "mae": measures.mean_absolute_error(pred, gt, rules),
        "dice": measures.dice(pred, gt, rules),
        "iou": measures.iou(pred, gt, rules),
        "soft_dice": measures.soft_dice(pred, gt),
    }
    if settings.surface:
        cut = rules.cut(pred)
        numbers |= {"hd95": hausdorff_95(cut, gt, strict), "boundary_iou": boundary_iou(cut, gt)}
    curves = measures.image_curves(pred, gt, strict, rules)
    values = rules.values(pred)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    counts, polyp = np.bincount(pred.ravel(), minlength=256), np.bincount(pred[gt], minlength=256)
    sums = [np.bincount(bins, weights, BINS) for weights in (counts, counts * values, polyp)]
    return ImageScore(_summary(numbers, curves), curves, np.stack(sums) / pred.size)


def image_metrics(
    pred: Array, gt: Array, strict: bool = False, rules: str = "released", surface: bool = False
) -> dict[str, float]:
    """``{metric: value}`` of one image: the 13 released metrics, then ours, as ``ALL_METRICS``.

    Args:
        pred, gt: grey map, uint8, (H, W), and mask, bool, (H, W); ValueError for any other pair.
        rules, strict, surface: convention and options of :func:`~kdas_core.evaluation.evaluate`.

    >>> mask = np.zeros((60, 80), bool); mask[20:40, 20:50] = True
    >>> scores = image_metrics(np.where(mask, 255, 0).astype(np.uint8), mask)
    >>> scores["dice"], round(scores["meanDic"], 4)
    (1.0, 0.997)
    """
    return score_image(pred, gt, Settings(rules, strict, surface)).metrics


def set_scores(
    scores: Iterable[tuple[str, ImageScore]], settings: Settings = DEFAULT, **about
) -> EvaluationResult:
    """The result of a set from its named images, one or more; ``about``: its last fields."""
    names, found = zip(*scores)
    per_image = pd.DataFrame([score.metrics for score in found])
    curves = {name: np.mean([score.curves[name] for score in found], axis=0) for name in CURVES}
    sums = np.mean([score.reliability for score in found], axis=0)
    weight, predicted, observed = sums[:, sums[0] > 0]
    ratios = {"predicted": predicted / weight, "observed": observed / weight}
    bins = pd.DataFrame({"weight": weight, **ratios})
    summary = _summary(per_image.mean(skipna=False).to_dict(), curves)
    per_image.insert(0, "name", names)
    about |= {"convention": settings.convention, "strict": settings.strict}
    return EvaluationResult(summary, per_image, curves, bins, **about)


def _summary(numbers: Mapping[str, float], curves: Mapping[str, Array]) -> dict[str, float]:
    """The numbers with mean and maximum of each curve, in the order of ``ALL_METRICS``."""
    of_curves = {f"mean{name}": float(curve.mean()) for name, curve in curves.items()}
    of_curves |= {f"max{name}": float(curve.max()) for name, curve in curves.items()}
    numbers = {**numbers, **of_curves}
    return {name: numbers[name] for name in (*ALL_METRICS, *SURFACE_METRICS) if name in numbers}
