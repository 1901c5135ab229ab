"""Probabilities and promises: a temperature for the logits, and a threshold that is chosen so that
the share of missed polyp pixels stays below what was asked, on average.
"""

import math

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

from kdas_core import UserError
from kdas_core.evaluation.scores import EvaluationResult, score_image, set_scores

LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are looked at
# Even steps of logit, since most misses are sure ones; at 0 every pixel is called polyp.
THRESHOLDS = np.concatenate([[0.0], expit(np.linspace(-15, 10, 501))])


def negative_log_likelihood(logits: np.ndarray, masks: np.ndarray, temperature=1.0) -> float:
    """Mean over all pixels of −log of the probability that σ(z/τ) gives to the truth, in nats."""
    sure_of_truth = np.where(masks, logits, -logits) / temperature
    return float(np.logaddexp(0, -sure_of_truth).mean())


def fit_temperature(logits: np.ndarray, masks: np.ndarray) -> float:
    """The temperature τ at which σ(z/τ) has the lowest negative log-likelihood on these pictures.

    The likelihood has one maximum in 1/τ, so a bounded search finds it, or ends at 0.05 or 20 where
    it lies beyond. No logit changes its sign: a mask cut at 0.5 stays as it is, and so does Dice.

    Args:
        logits, masks: float and bool (N, H, W), of validation pictures.

    Raises:
        ValueError: the shapes differ. UserError: no picture, or a logit that is not finite.

    Source: Guo et al., ICML 2017, section 4.2, here for one logit a pixel.
    """
    if logits.shape != masks.shape:
        raise ValueError(f"logits {logits.shape} and masks {masks.shape} must have one shape")
    if not logits.size or not np.isfinite(logits).all():
        raise UserError("A temperature needs at least one picture, and logits that are finite.")
    search = minimize_scalar(
        lambda log: negative_log_likelihood(logits, masks, math.exp(log)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
    )
    return math.exp(search.x)


def scored(logits: np.ndarray, masks: np.ndarray, temperature=1.0) -> EvaluationResult:
    """The scores of the maps σ(z/τ), saved in 8 bits; ``calibration`` and ``calibration_error`` say
    whether they are probabilities (chapter 7).
    """
    grey = np.rint(255 * expit(logits / temperature)).astype(np.uint8)
    named = ((str(i), score_image(*pair)) for i, pair in enumerate(zip(grey, masks)))
    return set_scores(named)


def missed_shares(
    probabilities: np.ndarray, masks: np.ndarray, thresholds: np.ndarray = THRESHOLDS
) -> np.ndarray:
    """The share of each picture's polyp pixels below each threshold, (N, K), in [0, 1].

    A pixel is called polyp from the threshold on (≥), so no row ever falls. A picture without polyp
    has nothing that can be missed: its row is NaN.

    >>> missed_shares(np.array([[[0.2, 0.9]]]), np.array([[[True, True]]]), np.array([0, 0.5, 1]))
    array([[0. , 0.5, 1. ]])
    """
    shares = np.full((len(masks), len(thresholds)), np.nan)
    for row, probability, mask in zip(shares, probabilities, masks):
        if mask.any():
            row[:] = np.searchsorted(np.sort(probability[mask]), thresholds) / mask.sum()
    return shares


def largest_threshold(
    losses: np.ndarray, allowed: float, thresholds: np.ndarray = THRESHOLDS, bound: float = 1.0
) -> float:
    """The largest threshold κ with n/(n+1)·R̂(κ) + B/(n+1) ≤ allowed, R̂ the mean of n losses.

    On the next picture, exchangeable with these, the expected loss is then at most ``allowed`` (α
    in the paper): on average over calibration sets and pictures, not for each.

    Rows of NaN, pictures without polyp, are left out, and the promise is about pictures with one.
    As losses of 0 they would pass for pictures on which nothing is missed, and allow more to be
    missed on the others.

    Args:
        losses: (N, K), a row for each calibration picture, none of which ever falls along
            ``thresholds``. bound: B, what no loss exceeds.

    Raises:
        UserError: ``allowed`` is below B/(n+1), so n is too small; or no threshold serves.
        ValueError: a loss that falls or exceeds the bound, or other shapes.

    Source: Angelopoulos et al., Conformal Risk Control, ICLR 2024 (arXiv 2208.02814), theorem 1.
    """
    kept = _with_polyp(losses, thresholds)
    if kept.size and kept.max() > bound:
        raise ValueError(f"a loss of {kept.max():g} exceeds the bound, {bound:g}")
    return float(thresholds[_choice(kept, allowed, bound)])


def _with_polyp(losses: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    kept = losses[~np.isnan(losses).any(axis=1)]
    if losses.shape[1:] != thresholds.shape or (np.diff(kept, axis=1) < 0).any():
        raise ValueError("losses must have a column for each threshold, and must not fall")
    return kept


def _choice(losses: np.ndarray, allowed: float, bound: float = 1.0) -> int:
    """The column of the largest threshold that serves."""
    n = len(losses)
    if allowed <= 0:
        raise UserError(f"A loss of {allowed:g} cannot be promised; it must be above 0.")
    if allowed * (n + 1) < bound - 1e-12:
        fact = f"{n} pictures with a polyp cannot promise {allowed:g}, only {bound / (n + 1):.3g}"
        raise UserError(f"{fact} or more; take {math.ceil(bound / allowed) - 1} pictures.")
    serves = losses.sum(axis=0) + bound <= allowed * (n + 1) + 1e-12
    if not serves.any():
        raise UserError(f"No threshold promises {allowed:g}; add 0, which calls each pixel polyp.")
    return int(np.flatnonzero(serves)[-1])


def over_splits(
    losses: np.ndarray,
    allowed: float,
    calibration: int,
    elsewhere: np.ndarray | None = None,
    splits: int = 1000,
    seed: int = 0,
    thresholds: np.ndarray = THRESHOLDS,
) -> pd.DataFrame:
    """Choose a threshold on ``calibration`` of the pictures, drawn at random, and look at the rest.

    A row a split: ``threshold``, ``here``, the mean loss of the rest, and ``elsewhere``, that of
    pictures of another kind, if given. All losses as in `largest_threshold`. UserError: fewer
    pictures with a polyp than one more than ``calibration``.
    """
    kept = _with_polyp(losses, thresholds)
    if not 1 <= calibration < len(kept):
        fact = f"{len(kept)} pictures with a polyp, of which {calibration} are to calibrate"
        raise UserError(f"There are {fact}; at least one must be left to look at.")
    rng, rows = np.random.default_rng(seed), []
    for _ in range(splits):
        order = rng.permutation(len(kept))
        used, rest = kept[order[:calibration]], kept[order[calibration:]]
        at = _choice(used, allowed)
        row = {"threshold": thresholds[at], "here": rest[:, at].mean()}
        if elsewhere is not None:
            row["elsewhere"] = np.nanmean(elsewhere[:, at])
        rows.append(row)
    return pd.DataFrame(rows)
