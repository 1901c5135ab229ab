"""Two sets of predictions compared image by image, with a statement of how sure one may be."""

from __future__ import annotations

import csv
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdas_core import UserError
from kdas_core.evaluation.files import listed, sentence

_FEW = 6  # of 5 units, the smallest p that the signed-rank test can give is 2 / 2⁵ = 0.0625


@dataclass(frozen=True)
class Paired:
    """What :func:`paired` found. A unit is an image, or a group of images where groups were given."""

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
        groups: n labels, e.g. the video of each frame; each image for itself if left out.
        level: of the interval, between 0 and 1.
        resamples: bootstrap samples, at least 1; take thousands.

    Returns:
        A :class:`Paired`. One unit: interval and p are NaN. All units differ by the same d:
        interval (d, d). BCa undefined otherwise: the percentile interval, and ``note`` says so.

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
    labels = range(a.size) if groups is None else groups
    units = pd.factorize(pd.Series(list(labels), dtype=object))[0]  # -1 where there is no label
    if problems := _problems(a, b, units):
        raise UserError(sentence(problems, "compared"))
    if not 0 < level < 1 or resamples < 1:
        asked = f"level is {level}, resamples {resamples}"
        raise UserError(f"{asked}; level must lie between 0 and 1, resamples be ≥ 1.")
    means = float(a.mean()), float(b.mean()), float(np.mean(a - b))
    sums, sizes = np.bincount(units, weights=a - b), np.bincount(units)
    scale = max(np.abs(a).max(), np.abs(b).max()) or 1.0
    by_image, by_unit = np.round((a - b) / scale, 12), np.round(sums / sizes / scale, 12)
    notes = _notes(by_image, by_unit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is degenerate is said in the note
        p, effect_size = _signed_rank(by_unit)
        if np.ptp(by_unit) == 0:  # nothing to resample; BCa would be NaN
            low = high = np.nan if by_unit.size == 1 else means[2] if by_unit.any() else 0.0
        else:
            low, high = _bootstrap(sums / scale, sizes, level, resamples, seed, notes) * scale
    signs = [int(np.sum(np.sign(by_image) == sign)) for sign in (1, 0, -1)]
    found = (a.size, sizes.size, *means, float(low), float(high), p, effect_size, *signs)
    return Paired(*found, "; ".join(notes))


def _bootstrap(
    sums, sizes, level: float, resamples: int, seed: int, notes: list[str]
) -> np.ndarray:
    """Interval of Σ sums / Σ sizes over the units, which differ."""
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


def _notes(by_image: np.ndarray, by_unit: np.ndarray) -> list[str]:
    few = by_unit.size < _FEW
    notes = [f"fewer than {_FEW} units: no interval and no test can be trusted"] if few else []
    if not by_image.any():
        notes.append("no image differs")
    elif not by_unit.any():
        notes.append("no group differs in its mean")
    elif by_unit.size > 1 and np.ptp(by_unit) == 0:
        notes.append("all units differ by the same amount")
    elif not few and np.count_nonzero(by_unit) < _FEW:
        notes.append(f"fewer than {_FEW} units differ: p cannot fall below 0.05")
    return notes


def _problems(a: np.ndarray, b: np.ndarray, units: np.ndarray, names: object = ()) -> list[str]:
    """What is wrong with the input of :func:`paired`; ``units`` are -1 where there is no group."""
    n = a.size
    if n != b.size:
        return [f"a has {n} numbers and b has {b.size}; give both for the same images."]
    if n != units.size:
        return [f"There are {n} images and {units.size} group labels; give one label for each."]
    if n == 0:
        return ["There is no image to compare; give at least one."]
    problems = []
    if bad := np.count_nonzero(~np.isfinite(a) | ~np.isfinite(b)):
        problems.append(f"{bad} of {n} images have NaN or infinity; score them without strict.")
    if bare := np.flatnonzero(units < 0).tolist():
        where = f" ({listed(names[i] for i in bare)})" if len(names) else ""
        problems.append(f"{len(bare)} of {n} images have no group{where}; give each a label.")
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
        metric: the column to compare.
        groups: ``{data set: {image name: group}}`` as of :func:`read_groups`; may hold more than is
            compared. A set that it does not mention is resampled by image.
        options: ``level``, ``resamples``, ``seed`` of :func:`paired`.

    Returns:
        Index ``dataset``, in the order of ``a``; columns as in :class:`Paired`, with ``units``
        (``"60 images"``, ``"8 groups"``) for ``groups``, and ``p_holm`` (:func:`holm` over the data
        sets) after ``p``.

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
        known = f"groups knows {listed(groups)}, but none of the data sets compared"
        problems.append(f"{known}; use the names of those.")
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


def _matched(a: object, b: object, metric: str, groups: Mapping | None):
    """((values of a, values of b, labels) of one data set by name, what is wrong with them)."""
    found: list[str] = []
    x, y = _column(a, "a", metric, found), _column(b, "b", metric, found)
    if x is None or y is None:
        return (), found
    for side, mine, other, theirs in (("a", x, "b", y), ("b", y, "a", x)):
        if absent := sorted(set(theirs.index) - set(mine.index)):
            lacking = f"{side} lacks {len(absent)} of {len(theirs)} images of {other}"
            found.append(f"{lacking} ({listed(absent)}); score both on the same images.")
    labels = None if groups is None else [groups.get(name) for name in x.index]
    units = pd.factorize(pd.Series(labels or range(x.size), dtype=object))[0]
    pair = x.to_numpy(), y.to_numpy()
    return (*pair, labels), found or _problems(*pair, units, x.index)


def _column(table: object, side: str, metric: str, found: list[str]) -> pd.Series | None:
    """The metric by image name, or None; what is wrong is added to ``found``."""
    table = getattr(table, "per_image", table)
    if not isinstance(table, pd.DataFrame) or "name" not in table:
        found.append(f"{side} is no table with a column name; give an EvaluationResult.")
        return None
    if metric not in (metrics := table.columns.drop("name")):
        found.append(f"{side} has no metric {metric}; choose from {listed(metrics)}.")
        return None
    names = table["name"].astype(str)
    if twice := sorted(set(names[names.duplicated()])):
        found.append(f"{side} has more than one row for {listed(twice)}; keep one.")
    try:
        return pd.Series(_numbers(table[metric], f"{metric} of {side}"), index=names).sort_index()
    except UserError as error:
        found.append(str(error))
        return None


def seed_table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over repeated training runs: how far another seed moves a number
    on the same images (the interval of :func:`paired`: how far other images do).

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


def read_groups(path: str | Path) -> dict[str, dict[str, str]]:
    """Which images belong together, e.g. the frames of one video: ``{data set: {name: group}}``.

    Args:
        path: a UTF-8 CSV file with the header ``dataset,name,group`` and a line for each image. All
            cells are text (001 stays 001); blanks around them do not count.

    Raises:
        UserError: the file cannot be read, has another header or no rows, or has lines without
            three filled cells or that put an image in a second group; all such lines at once.
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
        wanted = "must have the header dataset,name,group and then a line for each image"
        raise UserError(f'{path} begins with "{header}", {len(rows)} lines in all; it {wanted}.')
    problems: list[str] = []
    groups: dict[str, dict[str, str]] = {}
    for line, cells in rows[1:]:
        if len(cells) != 3 or not all(cells):
            fact = f"{path}, line {line}, lacks one of three cells, or has more"
            problems.append(f"{fact}; write dataset,name,group.")
            continue
        # The evaluation gives names in this form, whichever way an accent was typed.
        dataset, name, group = (unicodedata.normalize("NFC", cell) for cell in cells)
        first = groups.setdefault(dataset, {}).setdefault(name, group)
        if first != group:
            fact = f"{path}, line {line}, puts {name} of {dataset} in {group}, not in {first}"
            problems.append(f"{fact}; choose one.")
    if problems:
        raise UserError(sentence(problems, "compared"))
    return groups
