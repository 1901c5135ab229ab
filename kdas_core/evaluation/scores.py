"""From the measures of one image to the numbers of a set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kdas_core.evaluation.boundary import SURFACE_METRICS, surface_metrics
from kdas_core.evaluation.conventions import RELEASED, Convention, convention
from kdas_core.evaluation.metrics import (
    ALL_METRICS,
    CURVES,
    THRESHOLDS,
    dice,
    image_curves,
    iou,
    mean_absolute_error,
    s_measure,
    soft_dice,
    weighted_f_measure,
)

BINS = 20
"""Equal steps of probability in which calibration is counted."""


@dataclass(frozen=True)
class ImageScore:
    """What one image contributes to a set.

    Attributes:
        curves: five curves over the thresholds, each (256,).
        scalars: the measures that are single numbers.
        reliability: (3, BINS): the share of the image's pixels in each bin of predicted
            probability, their summed probability, and their summed truth, each divided by the
            number of pixels.
    """

    curves: dict[str, np.ndarray]
    scalars: dict[str, float]
    reliability: np.ndarray

    def metrics(self) -> dict[str, float]:
        """The image's numbers."""
        return summarise(self.curves, self.scalars)


def score_image(
    pred: np.ndarray,
    gt: np.ndarray,
    strict: bool = False,
    rules: Convention = RELEASED,
    surface: bool = False,
) -> ImageScore:
    """Everything there is to measure on one image; arguments as in :func:`image_metrics`."""
    scalars = {
        "wFm": weighted_f_measure(pred, gt, strict, rules),
        "Sm": s_measure(pred, gt, strict, rules),
        "mae": mean_absolute_error(pred, gt, rules),
        "dice": dice(pred, gt, rules),
        "iou": iou(pred, gt, rules),
        "soft_dice": soft_dice(pred, gt),
    }
    if surface:
        scalars |= surface_metrics(pred, gt, strict, rules)
    return ImageScore(image_curves(pred, gt, strict, rules), scalars, _reliability(pred, gt, rules))


def image_metrics(
    pred: np.ndarray,
    gt: np.ndarray,
    strict: bool = False,
    rules: str = "released",
    surface: bool = False,
) -> dict[str, float]:
    """The 13 released metrics of one image, then ``dice``, ``iou`` and ``soft_dice``.

    Args:
        pred: grey map, uint8, (H, W).
        gt: mask, bool, (H, W).
        strict: as released, NaN included; the docstring of ``metrics`` says what replaces it
            otherwise.
        rules: a name from ``CONVENTIONS``.
        surface: ``hd95`` and ``boundary_iou`` as well (they take longer than all the others).

    Returns:
        ``{metric: value}`` in the order of ``ALL_METRICS``.

    Raises:
        ValueError: not a uint8 map and a bool mask of the same two-dimensional shape.
        UserError: there is no such convention.

    >>> mask = np.zeros((60, 80), bool); mask[20:40, 20:50] = True
    >>> scores = image_metrics(np.where(mask, 255, 0).astype(np.uint8), mask)
    >>> scores["dice"], round(scores["meanDic"], 4)
    (1.0, 0.997)
    """
    return score_image(pred, gt, strict, convention(rules), surface).metrics()


def summarise(curves: Mapping[str, np.ndarray], scalars: Mapping[str, float]) -> dict[str, float]:
    """Mean and maximum of each curve beside the single numbers, in the order of ``ALL_METRICS``,
    then surface measures.

    The same for an image and for a set: a set's curves and scalars are the averages over its
    images.
    """
    numbers = dict(scalars)
    for name, curve in curves.items():
        numbers[f"mean{name}"], numbers[f"max{name}"] = float(curve.mean()), float(curve.max())
    return {name: numbers[name] for name in (*ALL_METRICS, *SURFACE_METRICS) if name in numbers}


@dataclass
class SetScore:
    """Adds up the scores of a set. It keeps sums and a row of numbers an image, never the images."""

    names: list[str] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    _curves: dict[str, np.ndarray] = field(
        default_factory=lambda: {name: np.zeros(len(THRESHOLDS)) for name in CURVES}
    )
    _scalars: list[dict[str, float]] = field(default_factory=list)
    _reliability: np.ndarray = field(default_factory=lambda: np.zeros((3, BINS)))

    def add(self, name: str, score: ImageScore) -> None:
        """Count one image in."""
        for curve in CURVES:
            self._curves[curve] += score.curves[curve]
        self._reliability += score.reliability
        self._scalars.append(score.scalars)
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
        """The set's numbers, in the order of :func:`summarise`."""
        scalars = {
            name: float(np.mean([row[name] for row in self._scalars])) for name in self._scalars[0]
        }
        return summarise(self.curves, scalars)

    def calibration(self) -> pd.DataFrame:
        """Is a pixel called 0.8 polyp in 8 of 10 cases? One row a bin of predicted probability that
        occurs.

        Each image counts the same, whatever its size.

        Returns:
            Columns ``weight`` (the bin's share of the pixels; sums to 1), ``predicted`` (mean
            probability) and ``observed`` (share of polyp), all in [0, 1].

        Source: reliability diagrams as in Guo et al., ICML 2017, here for the probability of
        "polyp" and not of the likelier class.
        """
        weight, predicted, observed = self._reliability / max(len(self.names), 1)
        used = weight > 0
        frame = pd.DataFrame({"weight": weight, "predicted": predicted, "observed": observed})[used]
        frame[["predicted", "observed"]] = frame[["predicted", "observed"]].div(
            frame["weight"], axis=0
        )
        return frame.reset_index(drop=True)


def calibration_error(calibration: pd.DataFrame) -> float:
    """Expected calibration error: the mean distance of predicted and observed over the bins,
    weighted by their pixels.

    In [0, 1]; 0 is calibrated. Most pixels of a colonoscopy frame are easy background, which makes
    it small for everybody; look at the curve as well.
    """
    return float(
        (calibration["weight"] * (calibration["predicted"] - calibration["observed"]).abs()).sum()
    )


def _reliability(pred: np.ndarray, gt: np.ndarray, rules: Convention) -> np.ndarray:
    values = rules.values(pred)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    counts, polyp = np.bincount(pred.ravel(), minlength=256), np.bincount(pred[gt], minlength=256)
    parts = (np.bincount(bins, weights, BINS) for weights in (counts, counts * values, polyp))
    return np.stack(list(parts)) / pred.size
