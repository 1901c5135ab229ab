"""Two sets of predictions compared image by image, with a statement of how sure one may be.

:func:`paired` compares two rows of numbers, :func:`compare` the tables of several data sets;
:func:`holm` adjusts p-values for their number, :func:`seed_table` sums up repeated trainings,
:func:`read_groups` reads which frames belong to one video.
"""

from __future__ import annotations

import csv
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from kdas_core import UserError
from kdas_core.evaluation.files import listed, sentence

_FEW = 6  # of 5 units, the smallest p that the signed-rank test can give is 2 / 2⁵ = 0.0625


@dataclass(frozen=True)
class Paired:
    """What :func:`paired` found. A unit is an image, or a group of images where groups were given.

    Attributes:
        n, groups: numbers of images and of units.
        mean_a, mean_b, difference: means over the images of a, b and a − b.
        low, high: interval of the difference.
        p: two-sided, of the Wilcoxon signed-rank test.
        effect_size: matched-pairs rank-biserial correlation in [-1, 1]; > 0 when a is larger.
        wins, ties, losses: numbers of images on which a is larger, equal, smaller.
        note: what is out of the ordinary; empty if nothing is.
    """

    n: int
    groups: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p: float
    effect_size: float
    wins: int
    ties: int
    losses: int
    note: str = ""


def paired(a, b, groups=None, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> Paired:
    """Compare one metric of two methods on the same images.

    The interval is the bias-corrected and accelerated (BCa) bootstrap interval of the mean
    difference; the test asks whether the differences lie symmetrically around 0. Differences of 0
    are dropped before the ranking, which is Wilcoxon's own rule (``zero_method="wilcox"``); keeping
    them would cost small samples their exact p. So p and effect size speak of the units that
    differ: read them beside ``ties``. Equal sizes share their mean rank. SciPy's p is exact up to
    50 units (up to 13 if there are equal sizes), and of the normal approximation beyond.

    Frames of one video resemble each other. With ``groups`` whole groups are drawn, the statistic
    is (sum of the differences) / (number of images), and test and effect size act on the mean
    difference of each group.

    Two numbers are equal if they agree to 12 digits of the largest of all, so that 0.3 − 0.2 ties
    with 0.2 − 0.1.

    Args:
        a, b: shape (n,), finite; any metric. Larger is not always better: a wins on ``mae`` where
            it is worse.
        groups: n labels, e.g. the video of each frame; each image for itself if left out.
        level: of the interval, between 0 and 1.
        resamples: bootstrap samples, at least 1; thousands, for an interval that hardly depends on
            ``seed``.
        seed: the same seed gives the same interval.

    Returns:
        A :class:`Paired`. One unit: interval and p are NaN. No unit differs: interval (0, 0), p 1,
        effect size 0. All
        units differ by the same d: interval (d, d). BCa undefined otherwise: the percentile
            interval, and ``note`` says
        so. Nothing warns.

    Raises:
        UserError: no images, different lengths, NaN or infinity, an image without a group, level or
            resamples out of range.

    Sources: Efron, Better bootstrap confidence intervals, JASA 1987 (BCa); Wilcoxon, Individual
    comparisons by ranking methods, Biometrics Bulletin 1945; Kerby, The simple difference formula,
    Comprehensive Psychology 2014 (effect size: share of the ranks for a minus share of the ranks
    against it).

    Ten copies of each image tell no more than the images:

    >>> a, b = np.array([0.9, 0.8, 0.7, 0.9, 0.6, 0.8, 0.9]), np.array([0.8, 0.8, 0.4, 0.7, 0.7, 0.6, 0.5])
    >>> once = paired(a, b)
    >>> copies = paired(np.repeat(a, 10), np.repeat(b, 10), groups=np.repeat(np.arange(7), 10))
    >>> bool(np.isclose(once.low, copies.low)), once.p == copies.p, copies.n, copies.groups
    (True, True, 70, 7)
    """
    a, b = _numbers(a, "a"), _numbers(b, "b")
    labels = range(len(a)) if groups is None else groups
    units = pd.factorize(pd.Series(list(labels), dtype=object))[0]  # -1 where there is no label
    if problems := _problems(a, b, units):
        raise UserError(sentence(problems, "compared"))
    if not 0 < level < 1 or resamples < 1:
        raise UserError(
            f"level is {level}, resamples {resamples}; level must lie between 0 and 1, resamples be ≥ 1."
        )
    sums, sizes = np.bincount(units, weights=a - b), np.bincount(units)
    scale = max(np.abs(a).max(), np.abs(b).max()) or 1.0
    by_image, by_unit = np.round((a - b) / scale, 12), np.round(sums / sizes / scale, 12)
    difference = float(np.mean(a - b))
    if np.ptp(by_unit) == 0:  # nothing to resample; BCa would be NaN
        same = np.nan if by_unit.size == 1 else difference if by_unit.any() else 0.0
        interval = (same, same, "")
    else:
        interval = _bootstrap(sums, sizes, scale, level, resamples, seed)
    p, effect_size = _signed_rank(by_unit)
    wins, ties, losses = (int(np.sum(np.sign(by_image) == sign)) for sign in (1, 0, -1))
    means = float(a.mean()), float(b.mean()), difference
    note = "; ".join(filter(None, [*_notes(by_image, by_unit), interval[2]]))
    return Paired(
        a.size, sizes.size, *means, *interval[:2], p, effect_size, wins, ties, losses, note
    )


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for their number, so that the chance of any false alarm among them stays
    below the level.

    The smallest of m is multiplied by m, the next by m − 1, and so on; none may fall below the one
    before it.

    Args:
        p_values: shape (m,), in [0, 1]. NaN is no test: it does not count, and stays NaN.

    Returns:
        Shape (m,), in the order given, in [0, 1].

    Raises:
        UserError: a value outside [0, 1].

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 1979.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _numbers(p_values, "p_values")
    if (wrong := p[(p < 0) | (p > 1)]).size:
        raise UserError(
            f"{wrong[0]:g} is no p-value; give numbers from 0 to 1, or NaN where there is no test."
        )
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)))
    return adjusted


def compare(
    a: Mapping[str, object],
    b: Mapping[str, object],
    metric: str = "dice",
    groups: Mapping[str, Mapping[str, object]] | None = None,
    level: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two methods on each data set; images are matched by name, never by row.

    Args:
        a, b: ``{data set: table}``; a table has a row an image, the column ``name`` and a column
            for each metric, or is an ``EvaluationResult``.
        metric: the column to compare.
        groups: ``{data set: {image name: group}}``, as :func:`read_groups` gives it; it may hold
            more than is compared. A set that it does not mention is resampled by image, and the
            column ``units`` shows it.
        level, resamples, seed: see :func:`paired`.

    Returns:
        Index ``dataset``, in the order of ``a``; columns as in :class:`Paired`, with ``units``
        (``"60 images"``, ``"8 groups"``) in place of ``groups``, and ``p_holm`` (:func:`holm` over
        the data sets) after ``p``.

    Raises:
        UserError: with everything that is wrong with any of the sets, before anything is computed.
    """
    groups, problems = groups or {}, []
    for side, mine, theirs in (("a", a, b), ("b", b, a)):
        if absent := [name for name in theirs if name not in mine]:
            problems.append(
                f"{side} lacks the data set {listed(absent)}; give the same sets for both methods."
            )
    if not a and not b:
        problems.append("There is no data set to compare; give at least one.")
    if groups and not set(groups) & set(a):
        problems.append(
            f"groups knows {listed(groups)}, but none of the data sets compared; use the names of those."
        )
    pairs = {
        name: _matched(name, a[name], b[name], metric, groups.get(name), problems)
        for name in a
        if name in b
    }
    if problems:
        raise UserError(sentence(problems, "compared"))
    rows = []
    for values in pairs.values():
        assert values is not None  # else there was a problem
        row = asdict(paired(*values, level, resamples, seed))
        units, word = row.pop("groups"), "image" if values[2] is None else "group"
        rows.append(row | {"units": f"{units} {word}" if units == 1 else f"{units} {word}s"})
    table = pd.DataFrame(rows, index=pd.Index(list(pairs), name="dataset", dtype=object))
    table["p_holm"] = holm(table["p"])
    order = "n units mean_a mean_b difference low high p p_holm effect_size wins ties losses note"
    return table[order.split()]


def seed_table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over repeated trainings, for each method and each column of
    numbers.

    The sd is about training luck: how far another seed would move a number on these same images.
    The interval of :func:`paired` is about images: how far other images would move it for these
    same two trained networks.

    Args:
        values: one row a run: ``method``, ``seed``, and further columns of numbers, e.g. the mean
            Dice of each data set. NaN stands for a number that a run does not have; ``n`` does not
            count it.

    Returns:
        One row for each pair of the index (``method``, ``column``), in the order given; columns
        ``mean``, ``sd`` (ddof 1; NaN for a single seed), ``n`` (runs) and ``mean ± sd``, a text
        with three decimals. The table of a paper is ``result["mean ± sd"].unstack()``.

    Raises:
        UserError: ``method``, ``seed``, numbers or rows are missing, or a (method, seed) occurs
            twice.

    >>> runs = pd.DataFrame({"method": ["KDAS"] * 3, "seed": [0, 1, 2], "Kvasir": [0.90, 0.91, 0.92]})
    >>> seed_table(runs)["mean ± sd"].tolist()
    ['0.910 ± 0.010']
    """
    columns = [column for column in values.columns if column not in ("method", "seed")]
    if len(values) == 0 or not columns or len(columns) + 2 != values.shape[1]:
        raise UserError(
            "The table lacks rows, method, seed or a column of numbers; a run is a row with all of these."
        )
    problems, keys = [], ["method", "seed"]
    if texts := [column for column in columns if not pd.api.types.is_numeric_dtype(values[column])]:
        problems.append(
            f"There is more than numbers in {listed(texts)}; leave such columns out, or convert them."
        )
    if unnamed := int(values[keys].isna().any(axis=1).sum()):
        problems.append(f"{unnamed} of {len(values)} runs have no method or no seed; fill it in.")
    if len(twice := values.loc[values.duplicated(keys), keys].drop_duplicates()):
        runs = listed(
            f"{method} with seed {seed}" for method, seed in twice.itertuples(index=False)
        )
        problems.append(
            f"A run occurs more than once ({runs}); keep one row for each method and seed."
        )
    if problems:
        raise UserError(sentence(problems, "compared"))
    rows = {}
    for method, runs in values.groupby("method", sort=False):
        for column in columns:
            mean, sd, n = (float(value) for value in runs[column].agg(["mean", "std", "count"]))
            text = (
                f"{mean:.3f} ± {sd:.3f}" if n > 1 else f"{mean:.3f} (one seed)" if n else "no run"
            )
            rows[method, column] = {"mean": mean, "sd": sd, "n": int(n), "mean ± sd": text}
    return pd.DataFrame(
        list(rows.values()), index=pd.MultiIndex.from_tuples(rows, names=["method", "column"])
    )


def read_groups(path: str | Path) -> dict[str, dict[str, str]]:
    """Which images belong together, e.g. the frames of one video: ``{data set: {image name:
    group}}``.

    Args:
        path: a UTF-8 CSV file with the header ``dataset,name,group`` and a line for each image. All
            cells are text (001 stays 001); blanks around them do not count.

    Raises:
        UserError: the file cannot be read, has another header or no rows, has lines without three
            filled cells, or puts an image in two groups; all such lines at once.
    """
    try:
        # Excel begins a UTF-8 file with a mark; this codec takes it away where there is one.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); give a UTF-8 CSV file.") from error
    header = ",".join(rows[0][1]) if rows else ""
    if header != "dataset,name,group" or len(rows) < 2:
        wanted = "the header dataset,name,group and then a line for each image"
        raise UserError(
            f'{path} begins with "{header}", {len(rows)} lines in all; it must have {wanted}.'
        )
    problems: list[str] = []
    groups: dict[str, dict[str, str]] = {}
    for line, cells in rows[1:]:
        if len(cells) != 3 or not all(cells):
            problems.append(
                f"{path}, line {line}, lacks one of three cells, or has more; write dataset,name,group."
            )
            continue
        # The evaluation gives names in this form, whichever way an accent was typed.
        dataset, name, group = (unicodedata.normalize("NFC", cell) for cell in cells)
        first = groups.setdefault(dataset, {}).setdefault(name, group)
        if first != group:
            problems.append(
                f"{path}, line {line}, puts {name} of {dataset} in {group}, not in {first}; choose one."
            )
    if problems:
        raise UserError(sentence(problems, "compared"))
    return groups


# --- one comparison ---------------------------------------------------------------------------------------------------


def _bootstrap(
    sums, sizes, scale: float, level: float, resamples: int, seed: int
) -> tuple[float, float, str]:
    """(low, high, note) of sums / sizes over the units, which differ."""
    # Turned so that the first difference is positive: swapping a and b then mirrors the interval to
    # the last digit.
    turn = scale * np.sign(sums[np.flatnonzero(sums)[0]])

    def statistic(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        # BCa counts the resamples below and at what was measured, which the last digits of a sum
        # must not decide.
        return np.round(np.sum(sums, axis) / np.sum(sizes, axis), 12)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is degenerate is said in the note
        result = stats.bootstrap(
            (sums / turn, sizes),
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=level,
            n_resamples=resamples,
            batch=max(
                1, 2_000_000 // sums.size
            ),  # tens of megabytes at a time, however many images
            method="BCa",
            random_state=np.random.default_rng(
                seed
            ),  # "rng" from SciPy 1.15 on, which understands both
        )
    bounds, note = turn * np.array(result.confidence_interval), ""
    if np.isnan(bounds).any():
        tail = (1 - level) / 2
        bounds = turn * np.quantile(result.bootstrap_distribution, [tail, 1 - tail])
        note = "percentile interval, since BCa is not defined here"
    return float(bounds.min()), float(bounds.max()), note


def _signed_rank(by_unit: np.ndarray) -> tuple[float, float]:
    """(p, effect size), both from the ranks of the units that differ."""
    differing = by_unit[by_unit != 0]
    ranks = stats.rankdata(np.abs(differing))
    effect_size = (
        float(np.sum(np.sign(differing) * ranks) / np.sum(ranks)) if differing.size else 0.0
    )
    if by_unit.size == 1:
        return np.nan, effect_size
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # older SciPy warns of small samples, of which the note speaks
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


# --- what can be wrong ------------------------------------------------------------------------------------------------


def _matched(
    dataset: str,
    a: object,
    b: object,
    metric: str,
    groups: Mapping[str, object] | None,
    problems: list[str],
) -> tuple[np.ndarray, np.ndarray, list | None] | None:
    """(values of a, values of b, labels) of one data set by name, or None with the reasons added to
    the problems.
    """
    sides, found = {}, []
    for side, table in (("a", getattr(a, "per_image", a)), ("b", getattr(b, "per_image", b))):
        if not isinstance(table, pd.DataFrame) or "name" not in table:
            found.append(
                f"{side} is no table with a column name; give an EvaluationResult or its per_image."
            )
            continue
        if metric not in (metrics := table.columns.drop("name")):
            found.append(f"{side} has no metric {metric}; choose from {listed(metrics)}.")
            continue
        names = table["name"].astype(str)
        if twice := sorted(set(names[names.duplicated()])):
            found.append(f"{side} has more than one row for {listed(twice)}; keep one.")
        try:
            sides[side] = pd.Series(
                _numbers(table[metric], f"{metric} of {side}"), index=names
            ).sort_index()
        except UserError as error:
            found.append(str(error))
    for side, other in (("a", "b"), ("b", "a")):
        if len(sides) == 2 and (absent := sorted(set(sides[other].index) - set(sides[side].index))):
            count = f"{len(absent)} of {len(sides[other])} images"
            found.append(
                f"{side} lacks {count} of {other} ({listed(absent)}); score both on the same images."
            )
    if not found:
        found += _problems(sides["a"].to_numpy(), sides["b"].to_numpy())
        names = list(sides["a"].index)
        if groups is not None and (absent := [name for name in names if groups.get(name) is None]):
            found.append(
                f"groups lacks {len(absent)} of {len(names)} images ({listed(absent)}); give each a group."
            )
    problems += [f"{dataset}: {problem}" for problem in found]
    if found:
        return None
    labels = None if groups is None else [groups[name] for name in names]
    return sides["a"].to_numpy(), sides["b"].to_numpy(), labels


def _problems(a: np.ndarray, b: np.ndarray, units: np.ndarray | None = None) -> list[str]:
    """What is wrong with the input of :func:`paired`."""
    if a.size != b.size:
        return [
            f"a has {a.size} numbers and b has {b.size}; give both for the same images, in the same order."
        ]
    if units is not None and units.size != a.size:
        return [
            f"There are {a.size} images and {units.size} group labels; give one label for each image."
        ]
    if a.size == 0:
        return ["There is no image to compare; give at least one."]
    problems = []
    if bad := np.count_nonzero(~np.isfinite(a) | ~np.isfinite(b)):
        problems.append(
            f"{bad} of {a.size} images have NaN or infinity in a or b; score them without strict."
        )
    if units is not None and (bare := np.count_nonzero(units < 0)):
        problems.append(f"{bare} of {a.size} images have no group; give each a label.")
    return problems


def _numbers(values: object, what: str) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{what} holds something else than numbers; give one number an image."
        ) from error
    if numbers.ndim != 1:
        raise UserError(
            f"{what} has the shape {numbers.shape}; give one number an image, in one row."
        )
    return numbers
