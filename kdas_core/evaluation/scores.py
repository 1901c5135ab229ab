"""From the measures of one image to the numbers of a set, and of repeated training runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdas_core import UserError
from kdas_core.evaluation import metrics as measures
from kdas_core.evaluation.boundary import SURFACE_METRICS, surface_metrics
from kdas_core.evaluation.conventions import Convention, convention
from kdas_core.evaluation.files import listed, sentence
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
        pred: grey map, uint8, (H, W). gt: mask, bool, (H, W); ValueError for any other pair.
        strict: undefined values are NaN, as released; ``metrics`` says what they are otherwise.
        rules: a name from ``CONVENTIONS``.
        surface: ``hd95`` and ``boundary_iou`` as well (they take longer than all the others).

    Returns:
        ``{metric: value}`` in the order of ``ALL_METRICS``.

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


def seed_table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over repeated training runs: how far another seed moves a number
    on the same images (the interval of a comparison: how far other images do).

    Args:
        values: one row a run: ``method``, ``seed``, and columns of numbers; NaN does not count.

    Returns:
        Index (``method``, ``column``), in the order given; columns ``mean``, ``sd`` (ddof 1; NaN
        for a single seed), ``n`` (runs) and ``mean ± sd``, a text with three decimals.

    Raises:
        UserError: ``method``, ``seed``, numbers or rows are missing, or a run occurs twice.

    >>> runs = pd.DataFrame({"method": ["KDAS"] * 3, "seed": [0, 1, 2], "ETIS": [0.7, 0.71, 0.72]})
    >>> seed_table(runs)["mean ± sd"].tolist()
    ['0.710 ± 0.010']
    """
    keys = ["method", "seed"]
    columns = [column for column in values.columns if column not in keys]
    if len(values) == 0 or not columns or len(columns) + 2 != values.shape[1]:
        raise UserError("The table lacks rows, method, seed or a column of numbers; add them.")
    problems = []
    if texts := [column for column in columns if not pd.api.types.is_numeric_dtype(values[column])]:
        problems.append(f"There is more than numbers in {listed(texts)}; convert or drop them.")
    if unnamed := int(values[keys].isna().any(axis=1).sum()):
        problems.append(f"{unnamed} of {len(values)} runs have no method or no seed; fill it in.")
    if len(twice := values.loc[values.duplicated(keys), keys].drop_duplicates()):
        runs = listed(f"{row.method} with seed {row.seed}" for row in twice.itertuples())
        problems.append(f"A run occurs more than once ({runs}); keep one row for each.")
    if problems:
        raise UserError(sentence(problems, "compared"))
    methods = values.groupby("method", sort=False)[columns]
    parts = {"mean": methods.mean(), "sd": methods.std(), "n": methods.count()}
    table = pd.DataFrame({name: part.T.unstack() for name, part in parts.items()})
    few = {0: "no run", 1: "{:.3f} (one seed)"}
    rows = table.itertuples(index=False)
    table["mean ± sd"] = [few.get(row.n, "{:.3f} ± {:.3f}").format(*row) for row in rows]
    return table.rename_axis(["method", "column"])


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
