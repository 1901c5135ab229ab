"""Two sets of predictions compared image by image, with a statement of how sure one may be."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdas_core import UserError
from kdas_core.evaluation.files import listed, read_groups, sentence
from kdas_core.evaluation.scores import seed_table

__all__ = ["Paired", "compare", "holm", "paired", "read_groups", "seed_table"]

_FEW = 6  # of 5 units, the smallest p that the signed-rank test can give is 2 / 2⁵ = 0.0625


@dataclass(frozen=True)
class Paired:
    """What :func:`paired` found; a unit is an image, or a group of images if there are groups."""

    n: int  # images
    groups: int  # units
    mean_a: float
    mean_b: float
    difference: float  # mean of a − b over the images
    low: float  # interval of the difference
    high: float
    p: float  # two-sided, of the Wilcoxon signed-rank test
    effect_size: float  # matched-pairs rank-biserial correlation in [-1, 1]; > 0 when a is larger
    wins: int  # images on which a is larger
    ties: int
    losses: int
    note: str = ""  # what is out of the ordinary


def paired(a, b, groups=None, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Paired:
    """Compare one metric of two methods on the same images.

    The interval is the bias-corrected and accelerated (BCa) bootstrap of the mean difference; the
    test asks whether the differences lie symmetrically around 0. Units without a difference (to 12
    digits of the largest number) are left out of test and effect size. With ``groups``, whole
    groups are resampled, and the test acts on the mean difference of each.

    Args:
        a, b: shape (n,), finite. a wins on ``mae`` where it is worse.
        groups: n labels, e.g. the video of each frame.
        level, resamples: of the interval, between 0 and 1; bootstrap samples, at least 1.

    Returns:
        One unit: interval and p are NaN. All units differ by the same d: interval (d, d). BCa
        undefined otherwise: the percentile interval, and ``note`` says so.

    Raises:
        UserError: no images, different lengths, NaN or infinity, an image without a group, level or
            resamples out of range.

    Sources: Efron, JASA 1987 (BCa); Wilcoxon, Biometrics Bulletin 1945; Kerby, Comprehensive
    Psychology 2014 (effect size: share of the ranks for a minus share of the ranks against it).

    >>> a, b = np.array([0.9, 0.8, 0.7, 0.9, 0.6]), np.array([0.8, 0.8, 0.4, 0.7, 0.7])
    >>> copies = paired(np.repeat(a, 10), np.repeat(b, 10), groups=np.repeat(np.arange(5), 10))
    >>> bool(np.isclose(paired(a, b).low, copies.low)), copies.n, copies.groups
    (True, 50, 5)
    """
    a, b = _numbers(a, "a"), _numbers(b, "b")
    labels = pd.Series(list(range(a.size) if groups is None else groups), dtype=object)
    if problems := _problems(a, b, labels):
        raise UserError(sentence(problems, "compared"))
    if not 0 < level < 1 or resamples < 1:
        asked = f"level is {level}, resamples {resamples}"
        raise UserError(f"{asked}; level must lie between 0 and 1, resamples be ≥ 1.")
    units = pd.factorize(labels)[0]
    means = float(a.mean()), float(b.mean()), float(np.mean(a - b))
    sums, sizes = np.bincount(units, weights=a - b), np.bincount(units)
    scale = max(np.abs(a).max(), np.abs(b).max()) or 1.0
    by_image, by_unit = np.round((a - b) / scale, 12), np.round(sums / sizes / scale, 12)
    notes = list(_notes(by_image, by_unit))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is degenerate is said in the note
        p, effect_size = _signed_rank(by_unit)
        if np.ptp(by_unit) == 0:  # nothing to resample; BCa would be NaN
            low = high = np.nan if by_unit.size == 1 else means[2] if by_unit.any() else 0.0
        else:
            low, high = _bootstrap(sums / scale, sizes, level, resamples, seed, notes) * scale
    wins, ties, losses = (int(np.sum(np.sign(by_image) == sign)) for sign in (1, 0, -1))
    found = *means, float(low), float(high), p, effect_size, wins, ties, losses
    return Paired(a.size, sizes.size, *found, "; ".join(notes))


def _bootstrap(sums, sizes, level: float, resamples: int, seed: int, notes: list[str]):
    """Interval of Σ sums / Σ sizes over the units, which differ: two numbers."""
    # With the first difference positive, swapping a and b mirrors the interval to the last digit.
    turn = np.sign(sums[np.flatnonzero(sums)[0]])

    def statistic(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        # BCa counts the resamples below what was measured: the last digits must not decide.
        return np.round(np.sum(sums, axis) / np.sum(sizes, axis), 12)

    result = stats.bootstrap(
        (turn * sums, sizes),
        statistic,
        paired=True,
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // sums.size),  # tens of megabytes at a time
        random_state=np.random.default_rng(seed),  # "rng" from SciPy 1.15 on
    )
    bounds = np.array(result.confidence_interval)
    if np.isnan(bounds).any():
        bounds = np.quantile(result.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
        notes.append("percentile interval, since BCa is not defined here")
    return np.sort(turn * bounds)


def _signed_rank(by_unit: np.ndarray) -> tuple[float, float]:
    """(p, effect size), both from the ranks of the units that differ."""
    differing = by_unit[by_unit != 0]
    ranks = np.sign(differing) * stats.rankdata(np.abs(differing))
    effect_size = float(ranks.sum() / max(np.abs(ranks).sum(), 1))
    if by_unit.size == 1:
        return np.nan, effect_size
    return float(stats.wilcoxon(differing).pvalue) if differing.size else 1.0, effect_size


def _notes(by_image: np.ndarray, by_unit: np.ndarray) -> Iterator[str]:
    few = by_unit.size < _FEW
    if few:
        yield f"fewer than {_FEW} units: no interval and no test can be trusted"
    if not by_image.any():
        yield "no image differs"
    elif not by_unit.any():
        yield "no group differs in its mean"
    elif by_unit.size > 1 and np.ptp(by_unit) == 0:
        yield "all units differ by the same amount"
    elif not few and np.count_nonzero(by_unit) < _FEW:
        yield f"fewer than {_FEW} units differ: p cannot fall below 0.05"


def _problems(a: np.ndarray, b: np.ndarray, labels: pd.Series) -> list[str]:
    """What is wrong with the input of :func:`paired`."""
    n = a.size
    if n != b.size:
        return [f"a has {n} numbers and b has {b.size}; give both for the same images."]
    if n != labels.size:
        return [f"There are {n} images and {labels.size} group labels; give one label for each."]
    if n == 0:
        return ["There is no image to compare; give at least one."]
    problems = []
    if bad := np.count_nonzero(~np.isfinite(a) | ~np.isfinite(b)):
        problems.append(f"{bad} of {n} images have NaN or infinity; score them without strict.")
    if bare := labels.index[labels.isna()].tolist():
        problems.append(f"{len(bare)} of {n} images have no group ({listed(bare)}); label each.")
    return problems


def _numbers(values: object, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} holds something else than numbers; convert it.") from error
    if numbers.ndim != 1:
        raise UserError(f"{what} has the shape {numbers.shape}; give one number an image.")
    return numbers


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values, shape (m,), adjusted for their number (Holm 1979, by statsmodels), in [0, 1].

    NaN is no test: it does not count, and stays NaN. UserError for a value outside [0, 1].

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    adjusted = _numbers(p_values, "p_values").copy()
    if (wrong := adjusted[(adjusted < 0) | (adjusted > 1)]).size:
        raise UserError(f"{wrong[0]:g} is no p-value; give numbers from 0 to 1, NaN for no test.")
    if (made := ~np.isnan(adjusted)).any():
        adjusted[made] = multipletests(adjusted[made], method="holm")[1]
    return adjusted


def compare(
    a: Mapping, b: Mapping, metric: str = "dice", groups: Mapping | None = None, **options
) -> pd.DataFrame:
    """Compare two methods on each data set; images are matched by name, never by row.

    Args:
        a, b: ``{data set: EvaluationResult or its per_image}``.
        groups: ``{data set: {image name: group}}`` of :func:`read_groups`; may hold more than is
            compared. A set that it does not mention is resampled by image.
        options: ``level``, ``resamples``, ``seed`` of :func:`paired`.

    Returns:
        Index ``dataset``, in the order of ``a``; columns as in :class:`Paired`, with ``units``
        (``"8 groups"``) for ``groups``, and ``p_holm`` (:func:`holm` over the sets) after ``p``.

    Raises:
        UserError: with everything that is wrong with any of the sets, before anything is computed.
    """
    groups, problems = groups or {}, []
    for side, mine, theirs in (("a", a, b), ("b", b, a)):
        if absent := [name for name in theirs if name not in mine]:
            problems.append(f"{side} lacks the data set {listed(absent)}; give both the same sets.")
    if not a and not b:
        problems.append("There is no data set to compare; give at least one.")
    if groups and not set(groups) & set(a):
        problems.append(
            f"groups knows {listed(groups)}, but none of the data sets; use their names."
        )
    pairs = {}
    for name in (name for name in a if name in b):
        pairs[name], found = _matched(a[name], b[name], metric, groups.get(name))
        problems += [f"{name}: {problem}" for problem in found]
    if problems:
        raise UserError(sentence(problems, "compared"))
    index = pd.Index(list(pairs), name="dataset", dtype=object)
    table = pd.DataFrame([paired(*pair, **options) for pair in pairs.values()], index=index)
    table["p_holm"] = holm(table["p"])
    words = ["image" if labels is None else "group" for _, _, labels in pairs.values()]
    units = zip(table["groups"], words)
    table["units"] = [f"{count} {word}{'s' * (count > 1)}" for count, word in units]
    order = "n units mean_a mean_b difference low high p p_holm effect_size wins ties losses note"
    return table[order.split()]


def _matched(a: object, b: object, metric: str, groups: Mapping | None) -> tuple[tuple, list[str]]:
    """((values of a, values of b, labels) of one data set by name, what is wrong with them)."""
    columns, found = [], []
    for side, table in (("a", a), ("b", b)):
        table = getattr(table, "per_image", table)
        if not isinstance(table, pd.DataFrame) or "name" not in table:
            found.append(f"{side} is no table with a column name; give an EvaluationResult.")
        elif metric not in (metrics := table.columns.drop("name")):
            found.append(f"{side} has no metric {metric}; choose from {listed(metrics)}.")
        else:
            columns.append(table.set_index(table["name"].astype(str))[metric].sort_index())
            names = columns[-1].index
            if twice := names[names.duplicated()].unique().tolist():
                found.append(f"{side} has more than one row for {listed(twice)}; keep one.")
    if len(columns) < 2:
        return (), found
    x, y = columns
    for side, mine, other, theirs in (("a", x, "b", y), ("b", y, "a", x)):
        if absent := theirs.index.difference(mine.index).tolist():
            lacking = f"{side} lacks {len(absent)} of {len(theirs)} images of {other}"
            found.append(f"{lacking} ({listed(absent)}); score both on the same images.")
    try:
        pair = _numbers(x, f"{metric} of a"), _numbers(y, f"{metric} of b")
    except UserError as error:
        return (), [*found, str(error)]
    labels = None if groups is None else [groups.get(name) for name in x.index]
    named = pd.Series(x.index if labels is None else labels, x.index, dtype=object)
    return (*pair, labels), found or _problems(*pair, named)
