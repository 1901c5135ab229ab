"""From the measures of one image to the numbers of a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdas_core import UserError
from kdas_core.evaluation import metrics as measures
from kdas_core.evaluation.boundary import SURFACE_METRICS, surface_metrics
from kdas_core.evaluation.conventions import Convention, convention
from kdas_core.evaluation.metrics import ALL_METRICS, CURVES, THRESHOLDS

BINS = 20
"""Equal steps of probability in which calibration is counted."""


@dataclass(frozen=True)
class Settings:
    """The settings of :func:`~kdas_core.evaluation.evaluate`, which explains them."""

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
        return convention(self.convention)


DEFAULT = Settings()


@dataclass(frozen=True)
class ImageScore:
    """What one image contributes to a set."""

    metrics: dict[str, float]
    curves: dict[str, np.ndarray]  # each (256,), over the thresholds
    reliability: np.ndarray  # (3, BINS): pixels, summed probability and truth, as shares of pixels


def score_image(pred: np.ndarray, gt: np.ndarray, settings: Settings = DEFAULT) -> ImageScore:
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
        numbers |= surface_metrics(pred, gt, strict, rules)
    curves = measures.image_curves(pred, gt, strict, rules)
    return ImageScore(_summary(numbers, curves), curves, _reliability(pred, gt, rules))


def image_metrics(
    pred: np.ndarray,
    gt: np.ndarray,
    strict: bool = False,
    rules: str = "released",
    surface: bool = False,
) -> dict[str, float]:
    """The 13 released metrics of one image, then ``dice``, ``iou`` and ``soft_dice``.

    Args:
        pred: grey map, uint8, (H, W). gt: mask, bool, (H, W).
        strict: undefined values are NaN, as released; ``metrics`` says what they are otherwise.
        rules: a name from ``CONVENTIONS``.
        surface: ``hd95`` and ``boundary_iou`` as well (they take longer than all the others).

    Returns:
        ``{metric: value}`` in the order of ``ALL_METRICS``.

    Raises:
        ValueError: not such a map and mask of one shape. UserError: no such convention.

    >>> mask = np.zeros((60, 80), bool); mask[20:40, 20:50] = True
    >>> scores = image_metrics(np.where(mask, 255, 0).astype(np.uint8), mask)
    >>> scores["dice"], round(scores["meanDic"], 4)
    (1.0, 0.997)
    """
    return score_image(pred, gt, Settings(rules, strict, surface)).metrics


def set_scores(
    scores: Iterable[tuple[str, ImageScore]],
) -> tuple[dict[str, float], pd.DataFrame, dict[str, np.ndarray], pd.DataFrame]:
    """Summary, table of the images, mean curves and calibration of named images, one or more.

    Only sums and a row of numbers an image are kept. The calibration asks: is a pixel called 0.8
    polyp in 8 of 10 cases? It has a row for each bin of predicted probability that occurs, with
    ``weight`` (the bin's share of the pixels; sums to 1), ``predicted`` (mean probability) and
    ``observed`` (share of polyp); each image counts the same.

    Source: reliability diagrams as in Guo et al., ICML 2017, for the probability of "polyp".
    """
    rows = []
    curve_sums = np.zeros((len(CURVES), len(THRESHOLDS)))
    bin_sums = np.zeros((3, BINS))
    for name, score in scores:
        rows.append({"name": name, **score.metrics})
        curve_sums += [score.curves[curve] for curve in CURVES]
        bin_sums += score.reliability
    per_image = pd.DataFrame(rows)
    curves = dict(zip(CURVES, curve_sums / len(rows)))
    means = {key: float(np.mean([row[key] for row in rows])) for key in per_image.columns[1:]}
    weight, *sums = bin_sums[:, bin_sums[0] > 0] / len(rows)
    predicted, observed = sums / weight
    bins = pd.DataFrame({"weight": weight, "predicted": predicted, "observed": observed})
    return _summary(means, curves), per_image, curves, bins


def calibration_error(calibration: pd.DataFrame) -> float:
    """Expected calibration error in [0, 1]: |predicted − observed| averaged by the bins' weights.

    Most pixels of a colonoscopy frame are easy background, which makes it small for everybody.
    """
    away = (calibration["predicted"] - calibration["observed"]).abs()
    return float((calibration["weight"] * away).sum())


def _summary(numbers: Mapping[str, float], curves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The numbers with mean and maximum of each curve, in the order of ``ALL_METRICS``."""
    all_numbers = dict(numbers)
    for name, curve in curves.items():
        all_numbers |= {f"mean{name}": float(curve.mean()), f"max{name}": float(curve.max())}
    order = (*ALL_METRICS, *SURFACE_METRICS)
    return {name: all_numbers[name] for name in order if name in all_numbers}


def _reliability(pred: np.ndarray, gt: np.ndarray, rules: Convention) -> np.ndarray:
    values = rules.values(pred)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    counts, polyp = np.bincount(pred.ravel(), minlength=256), np.bincount(pred[gt], minlength=256)
    parts = [np.bincount(bins, weights, BINS) for weights in (counts, counts * values, polyp)]
    return np.stack(parts) / pred.size
