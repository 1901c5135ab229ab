"""What seeds say: tables over repeated training runs, and how many seeds a paired t-test needs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

from kdas_book.study.results import KEYS, Results
from kdas_core import UserError
from kdas_core.evaluation.files import Problems

BASE = "supervised"
MEAN = "mean of the sets"
# Half the level on the side of the right sign: a find with the wrong one does not count.
_TEST = {"alpha": 0.025, "alternative": "larger"}
_POWER = 0.8


def seed_table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over repeated training runs: how far another seed moves a number
    on the same images (the interval of a comparison: how far other images do).

    A row of ``values`` is a run: ``method``, ``seed``, and columns of numbers; NaN does not count.
    UserError: ``method``, ``seed``, numbers or rows are missing, or a run occurs twice. Returns, by
    (``method``, ``column``) in the order given, ``mean``, ``sd`` (ddof 1; NaN for a single seed),
    ``n`` (runs) and ``mean ± sd``, a text with three decimals.

    >>> runs = pd.DataFrame({"method": ["KDAS"] * 3, "seed": [0, 1, 2], "ETIS": [0.7, 0.71, 0.72]})
    >>> seed_table(runs)["mean ± sd"].tolist()
    ['0.710 ± 0.010']
    """
    keys, problems = ["method", "seed"], Problems()
    runs, numbers = values.reindex(columns=keys), values.drop(columns=keys, errors="ignore")
    if numbers.empty:
        raise UserError("The table lacks rows or a column of numbers; add them.")
    texts = numbers.select_dtypes(exclude=["number", "bool"])
    problems.about(texts, "There is more than numbers in {names}; convert or drop them.")
    fact = f"{{n}} of {len(runs)} runs have no method or no seed"
    problems.about(runs.index[runs.isna().any(axis=1)], f"{fact}; fill it in.")
    twice = runs[runs.duplicated()].dropna().drop_duplicates().to_numpy()
    named = [f"{method} with seed {seed}" for method, seed in twice]
    problems.about(named, "A run occurs more than once ({names}); keep one row for each.")
    problems.stop("compared")
    methods = numbers.groupby(values["method"], sort=False)
    parts = {"mean": methods.mean(), "sd": methods.std(), "n": methods.count()}
    table = pd.DataFrame({name: part.T.unstack() for name, part in parts.items()})
    few = {0: "no run", 1: "{:.3f} (one seed)"}
    rows = table.itertuples(index=False)
    table["mean ± sd"] = [few.get(row.n, "{:.3f} ± {:.3f}").format(*row) for row in rows]
    return table.rename_axis(["method", "column"])


def by_set(results: Results, column: str = "dice") -> pd.DataFrame:
    """A row a training run, a column a test set, and the mean over the sets."""
    wide = results.scores.pivot(index=KEYS, columns="dataset", values=column)[results.datasets]
    return wide.assign(**{MEAN: wide.mean(axis=1)})


def seed_differences(results: Results, base: str = BASE, column: str = "dice") -> pd.DataFrame:
    """Each label's difference from ``base`` seed by seed: two training runs of one seed begin with
    the same weights and see the same batches. Index ``(objective, dataset)``, the mean of the sets
    among them; columns ``difference``, ``sd``, ``low`` and ``high`` (95 % interval of Student's t),
    ``seeds``, ``same_sign``.
    """
    return _differences(by_set(results, column), results.labels, base)


def _differences(wide: pd.DataFrame, labels: list[str], base: str = BASE) -> pd.DataFrame:
    """:func:`seed_differences` of a table with a row a training run."""
    others = [label for label in labels if label != base and label in wide.index]
    gains = {label: (wide.loc[label] - wide.loc[base]).dropna().T for label in others}
    by_seed = pd.concat(gains, names=["objective", "dataset"])
    mean, sd, n = by_seed.mean(axis=1), by_seed.std(axis=1), by_seed.count(axis=1)
    half = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    same = np.sign(by_seed).eq(np.sign(mean), axis=0) | by_seed.isna()
    columns = {"difference": mean, "sd": sd, "low": mean - half, "high": mean + half, "seeds": n}
    return pd.DataFrame({**columns, "same_sign": same.all(axis=1)})


def averages(results: Results) -> pd.DataFrame:
    """:func:`seed_differences` for three ways to make one number of several sets.

    The mean of the sets counts a set of 20 images like one of 380. The mean of the whole sets
    leaves out those of which only a part is there. The mean of the images counts each image once,
    so without CVC-300 where CVC-ColonDB, which holds its frames, is there.
    """
    sets = by_set(results)
    ways = {MEAN: sets.pop(MEAN)}
    if whole := [name for name in sets if " of " not in results.images_of(name)]:
        ways["mean of the whole sets"] = sets[whole].mean(axis=1)
    counts = results.scores.groupby("dataset")["n_images"].first()[sets.columns]
    if "CVC-ColonDB" in counts:
        counts = counts.drop("CVC-300", errors="ignore")
    ways["mean of the images"] = (sets[counts.index] * counts).sum(axis=1) / counts.sum()
    table = _differences(pd.DataFrame(ways), results.labels)
    return table.rename_axis(["objective", "one number"])


def power_of(difference: float, sd: float, seeds: int) -> float:
    """How often a test over so many seeds finds a true difference with its right sign; ``sd`` is
    the standard deviation of the differences, seed by seed.
    """
    return float(TTestPower().power(difference / sd, seeds, **_TEST))


def detectable(sd: float, seeds: int) -> float:
    """The smallest mean difference that a test over so many seeds finds four times in five; a
    UserError for fewer than two seeds.

    >>> round(detectable(0.01, 3), 3), round(detectable(0.01, 10), 3)
    (0.033, 0.01)
    """
    if seeds < 2:
        raise UserError(f"With {seeds} seed there is no spread between seeds; a test needs two.")
    return sd * float(TTestPower().solve_power(nobs=seeds, power=_POWER, **_TEST))


def seeds_for(difference: float, sd: float) -> int:
    """The number of seeds with which a test finds this difference four times in five.

    >>> seeds_for(0.01, 0.01)
    10
    """
    if not power_of(difference, sd, 2) < _POWER:  # no fewer than two, so nothing to solve
        return 2
    return math.ceil(TTestPower().solve_power(difference / sd, power=_POWER, **_TEST))


def detectable_table(results: Results) -> pd.DataFrame:
    """What n seeds could detect (Dice, power 80 %), and how many seeds find a hundredth, by set;
    from the spread of the seeds' differences pooled over the labels.
    """
    variance = seed_differences(results)["sd"] ** 2
    spread = np.sqrt(variance.groupby(level="dataset", sort=False).mean())
    table = {"sd of a difference": spread}
    table |= {f"{n} seeds": spread * detectable(1.0, n) for n in (2, 3, 5, 10, 20)}
    return pd.DataFrame({**table, "seeds for 0.01": spread.map(lambda sd: seeds_for(0.01, sd))})
