"""Two sets of predictions compared image by image, with a statement of how sure one may be."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdas_core import UserError
from kdas_core.evaluation.files import Problems, listed

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
    test asks whether the differences lie symmetrically around 0, without units that do not differ
    (to 12 digits). With ``groups``, whole groups are resampled and the test acts on their means.
    One unit: interval and p are NaN. All units differ by the same d: interval (d, d). BCa undefined
    otherwise: the percentile interval, and ``note`` says so.

    Args:
        a, b: shape (n,), finite. a wins on ``mae`` where it is worse.
        groups: n labels, e.g. the video of each frame.
        level, resamples: of the interval, between 0 and 1; bootstrap samples, at least 1.
            UserError: one of these is not as described, or there are no images.

    Sources: Efron, JASA 1987 (BCa); Wilcoxon, Biometrics Bulletin 1945; Kerby, Comprehensive
    Psychology 2014 (effect size: share of the ranks for a minus share of those against it).

    >>> a, b = np.array([0.9, 0.8, 0.7, 0.9, 0.6]), np.array([0.8, 0.8, 0.4, 0.7, 0.7])
    >>> copies = paired(np.repeat(a, 10), np.repeat(b, 10), groups=np.repeat(np.arange(5), 10))
    >>> bool(np.isclose(paired(a, b).low, copies.low)), copies.n, copies.groups
    (True, 50, 5)
    """
    a, b, problems = _numbers(a, "a"), _numbers(b, "b"), Problems()
    labels = pd.Series(range(a.size) if groups is None else list(groups), dtype=object)
    _check(a, b, labels, problems)
    problems.stop("compared")
    if not 0 < level < 1 or resamples < 1:
        asked = f"level is {level}, resamples {resamples}"
        raise UserError(f"{asked}; level must lie between 0 and 1, resamples be ≥ 1.")
    units, mean = pd.factorize(labels)[0], float(np.mean(a - b))
    sums, sizes = np.bincount(units, weights=a - b), np.bincount(units)
    scale = max(np.abs(a).max(), np.abs(b).max()) or 1.0
    by_image, by_unit = np.round((a - b) / scale, 12), np.round(sums / sizes / scale, 12)
    notes = list(_notes(by_image, by_unit))
    differing = by_unit[by_unit != 0]
    ranks = np.sign(differing) * stats.rankdata(np.abs(differing))
    effect_size = float(ranks.sum() / max(np.abs(ranks).sum(), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is degenerate is said in the note
        p = float(stats.wilcoxon(differing).pvalue) if differing.size else 1.0
        if np.ptp(by_unit) == 0:  # nothing to resample; BCa would be NaN
            interval = np.full(2, mean if differing.size else 0.0)
        else:
            interval = _bootstrap(sums / scale, sizes, level, resamples, seed, notes) * scale
    if sizes.size == 1:
        p, interval = np.nan, np.full(2, np.nan)
    means = float(a.mean()), float(b.mean()), mean
    losses, ties, wins = np.bincount(np.sign(by_image).astype(int) + 1, minlength=3).tolist()
    found = *means, *interval.tolist(), p, effect_size, wins, ties, losses, "; ".join(notes)
    return Paired(a.size, sizes.size, *found)


def _bootstrap(sums, sizes, level: float, resamples: int, seed: int, notes: list[str]):
    """Interval of Σ sums / Σ sizes over the units, which differ: two numbers."""
    # With the first difference positive, swapping a and b mirrors the interval to the last digit.
    turn = np.sign(sums[np.flatnonzero(sums)[0]])

    def statistic(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        # BCa counts the resamples below what was measured: the last digits must not decide.
        return np.round(np.sum(sums, axis) / np.sum(sizes, axis), 12)

    batch = max(1, 2_000_000 // sums.size)  # tens of megabytes at a time
    draws = {"n_resamples": resamples, "batch": batch, "random_state": np.random.default_rng(seed)}
    data = turn * sums, sizes
    result = stats.bootstrap(data, statistic, paired=True, confidence_level=level, **draws)
    bounds = np.array(result.confidence_interval)
    if np.isnan(bounds).any():
        bounds = np.quantile(result.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
        notes.append("percentile interval, since BCa is not defined here")
    return np.sort(turn * bounds)


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


def _check(a: np.ndarray, b: np.ndarray, labels: pd.Series, problems: Problems) -> None:
    n, m = a.size, labels.size
    if n != b.size:
        problems.append(f"a has {n} numbers and b has {b.size}; give both for the same images.")
    elif n != m:
        problems.append(f"There are {n} images and {m} group labels; give one label for each.")
    elif n == 0:
        problems.append("There is no image to compare; give at least one.")
    else:
        of, bad = f"{{n}} of {n} images have", ~np.isfinite([a, b]).all(axis=0)
        problems.about(labels[bad], f"{of} NaN or infinity; score them without strict.")
        bare = labels.index[labels.isna()]
        problems.about(bare, f"{of} no group ({{names}}); label each.")


def _numbers(values: object, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} holds something else than numbers; convert it.") from error
    if numbers.ndim != 1:
        raise UserError(f"{what} has the shape {numbers.shape}; give one number an image.")
    return numbers


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values, shape (m,), adjusted for their number (Holm 1979, by statsmodels), in [0, 1]; NaN,
    which is no test, does not count and stays. UserError for a value outside [0, 1].

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
        groups: ``{data set: {image name: group}}``, of the frames of videos, say; it may hold more
            than is compared. A set that it does not mention is resampled by image.
        options: ``level``, ``resamples``, ``seed`` of :func:`paired`.

    Returns:
        Index ``dataset``, in the order of ``a``; columns as in :class:`Paired`, with ``units``
        (``"8 groups"``) for ``groups``, and ``p_holm`` (:func:`holm` over the sets) after ``p``.
        UserError, with all that is wrong with any of the sets, before anything is computed; also
        where the two were scored by different rules.
    """
    groups, problems = groups or {}, Problems()
    for side, mine, theirs in ("a", a, b), ("b", b, a):
        absent = [name for name in theirs if name not in mine]
        problems.about(absent, f"{side} lacks the data set {{names}}; give both the same sets.")
    if not a and not b:
        problems.append("There is no data set to compare; give at least one.")
    if not set(groups) & set(a):
        text = "groups knows {names}, but none of the data sets; use their names."
        problems.about(groups, text)
    pairs = {}
    for name in (name for name in a if name in b):
        found = Problems()
        pairs[name] = _matched(a[name], b[name], metric, groups.get(name), found)
        problems += [f"{name}: {problem}" for problem in found]
    problems.stop("compared")
    index = pd.Index(list(pairs), name="dataset", dtype=object)
    table = pd.DataFrame([paired(*pair, **options) for pair in pairs.values()], index=index)
    table.insert(table.columns.get_loc("effect_size"), "p_holm", holm(table["p"]))
    unit = ["group" if name in groups else "image" for name in pairs]
    counts = zip(table["groups"], unit)
    table["groups"] = [f"{count} {word}{'s' * (count > 1)}" for count, word in counts]
    return table.rename(columns={"groups": "units"})


def _matched(a, b, metric: str, groups: Mapping | None, problems: Problems) -> tuple:
    """(values of a, values of b, labels) of one data set, by name; () if something is wrong."""
    columns = {}
    for side, table in ("a", a), ("b", b):
        table = getattr(table, "per_image", table)
        if not isinstance(table, pd.DataFrame) or "name" not in table:
            problems.append(f"{side} is no table with a column name; give an EvaluationResult.")
        elif metric not in (metrics := table.columns.drop("name")):
            problems.append(f"{side} has no metric {metric}; choose from {listed(metrics)}.")
        else:
            values = table.set_index(table["name"].astype(str))[metric].sort_index()
            twice = values.index[values.index.duplicated()].unique()
            problems.about(twice, f"{side} has more than one row for {{names}}; keep one.")
            columns[side] = values
    for key in ("convention", "strict", "masks"):
        how = [getattr(x, key, getattr(x, "attrs", {}).get(key)) for x in (a, b)]
        if None not in how and "" not in how and how[0] != how[1]:
            fact = f"a was scored with {key} {how[0]} and b with {how[1]}"
            problems.append(f"{fact}; score both alike, or the {key} are compared.")
    if len(columns) < 2:
        return ()
    for side, other in "ab", "ba":
        theirs, way_out = columns[other].index, "score both on the same images."
        fact = f"{side} lacks {{n}} of {len(theirs)} images of {other} ({{names}})"
        problems.about(theirs.difference(columns[side].index), f"{fact}; {way_out}")
    try:
        x, y = (_numbers(values, f"{metric} of {side}") for side, values in columns.items())
    except UserError as error:
        problems.append(str(error))
    if problems:
        return ()
    names = columns["a"].index.to_series()
    labels = None if groups is None else names.map(groups)
    _check(x, y, names if labels is None else labels, problems)
    return x, y, labels
