"""What a study says: its tables, its figures, its ledger. Chapter 9 shows them; ``kdas study
report`` writes them to a folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from tabulate import tabulate

from kdas_book import figures as plots
from kdas_book.data.videos import clinicdb_sequence
from kdas_book.study.results import KEYS, Results
from kdas_core import UserError
from kdas_core.evaluation import comparison as statistics
from kdas_core.files import atomic_write
from kdas_core.losses import hyperparameters_of

HYPERPARAMETERS = (
    "alpha",
    "temperature",
    "attention_weight",
    "guiding_weight",
    "distillation_warm_up",
)
BASE = "supervised"
CLINICDB = "CVC-ClinicDB"
MEAN = "mean of the sets"


# --- tables -----------------------------------------------------------------------------------------------------------


def dice_table(results: Results, column: str = "dice") -> pd.DataFrame:
    """Mean ± sd over the seeds, a row a label, a column a test set, and the mean over the sets.

    Args:
        column: ``dice``, ``dice_last``, ``agreement`` or any metric of ``results.scores``.
    """
    wide = _by_set(results, column)
    runs = wide.reset_index().rename(columns={"objective": "method"})
    text = statistics.seed_table(runs)["mean ± sd"].unstack()
    rows = [label for label in ("teacher", *results.labels) if label in text.index]
    names = {name: f"{name} ({results.images_of(name)})" for name in results.datasets}
    return text.loc[rows, wide.columns].rename(columns=names).rename_axis(columns=None)


def _by_set(results: Results, column: str) -> pd.DataFrame:
    """A row a training, a column a test set, and the mean over the sets."""
    wide = results.scores.pivot(index=KEYS, columns="dataset", values=column)[results.datasets]
    return wide.assign(**{MEAN: wide.mean(axis=1)})


def compare_to_baseline(results: Results, base: str = BASE, resamples: int = 9999) -> pd.DataFrame:
    """Each label against ``base``, image by image: Dice averaged over the seeds, bootstrap
    interval, Wilcoxon test.

    The p-values are corrected by Holm over all rows of the table. Interval and test are about other
    images, for these trained networks; how far other seeds would move a difference stands in
    :func:`seed_differences`. The frames of CVC-ClinicDB are drawn video by video; of the other sets
    nobody knows the videos, so their frames are taken for independent, and their intervals are too
    short.

    Returns:
        Index ``(objective, dataset)``; columns as ``statistics.compare`` gives them.

    Raises:
        UserError: ``base`` has not been trained.
    """
    tables = {
        label: {name: rows[["name", "dice"]] for name, rows in part.groupby("dataset", sort=False)}
        for label, part in results.images.groupby("objective", sort=False)
    }
    if base not in tables:
        raise UserError(f'There is no finished training called "{base}" to compare with.')
    others = [label for label in results.labels if label != base and label in tables]
    if not others:
        raise UserError(f'Nothing but "{base}" is finished yet, so there is nothing to compare.')
    videos = {
        name: str(clinicdb_sequence(name) or name)
        for name in tables[base].get(CLINICDB, {"name": []})["name"]
    }
    groups = {CLINICDB: videos} if videos and not results.about["data"]["synthetic"] else None
    compared = {
        label: statistics.compare(tables[label], tables[base], groups=groups, resamples=resamples)
        for label in others
    }
    table = pd.concat(compared, names=["objective", "dataset"])
    table["p_holm"] = statistics.holm(table["p"])
    return table


def seed_differences(results: Results, base: str = BASE, column: str = "dice") -> pd.DataFrame:
    """Each label's difference from ``base`` seed by seed: two trainings of one seed begin with the
    same weights and see the same batches.

    Args:
        column: ``dice``, ``dice_last``, ``agreement`` or any metric of ``results.scores``.

    Returns:
        Index ``(objective, dataset)``, ``"mean of the sets"`` among the sets; columns
        ``difference``, ``sd``, ``low`` and ``high`` (95 % interval of Student's t), ``seeds``,
        ``same_sign`` (have all seeds the sign of the mean?).
    """
    return _differences(_by_set(results, column), results.labels, base)


def _differences(wide: pd.DataFrame, labels: list[str], base: str) -> pd.DataFrame:
    """:func:`~kdas_core.evaluation.comparison.seed_table` of a table with a row a training."""
    rows = {}
    for label in labels:
        if label == base or label not in wide.index.get_level_values(0):
            continue
        for name, values in (wide.loc[label] - wide.loc[base]).dropna().items():
            n, mean, sd = len(values), values.mean(), values.std(ddof=1)
            half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
            same = bool((np.sign(values) == np.sign(mean)).all())
            rows[label, name] = [mean, sd, mean - half, mean + half, n, same]
    columns = ["difference", "sd", "low", "high", "seeds", "same_sign"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).set_index(
        pd.MultiIndex.from_tuples(rows, names=["objective", "dataset"])
    )


def averages(results: Results, base: str = BASE) -> pd.DataFrame:
    """:func:`seed_differences` for three ways to make one number of several sets, since none of them is
    the right one.

    The mean of the sets counts a set of 20 images like one of 380. The mean of the whole sets
    leaves out those of which only a part is there. The mean of the images counts each image once;
    CVC-300 is left out where CVC-ColonDB, which holds its frames, is there.
    """
    wide = results.scores.pivot(index=KEYS, columns="dataset", values="dice")[results.datasets]
    whole = [name for name in wide if " of " not in results.images_of(name)]
    counts = results.scores.groupby("dataset")["n_images"].first()[wide.columns]
    once = counts.drop("CVC-300", errors="ignore") if "CVC-ColonDB" in counts else counts
    ways = {MEAN: wide.mean(axis=1)}
    if whole:
        ways["mean of the whole sets"] = wide[whole].mean(axis=1)
    ways["mean of the images"] = (wide[once.index] * once).sum(axis=1) / once.sum()
    return _differences(pd.DataFrame(ways), results.labels, base).rename_axis(
        ["objective", "one number"]
    )


def detectable(sd: float, seeds: int, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest mean difference that a paired t-test over so many seeds finds with this power.

    Args:
        sd: standard deviation of the differences, seed by seed.
        seeds: at least 2.
        power, level: probability of finding it; two-sided level of the test.

    Raises:
        UserError: fewer than two seeds.

    >>> round(detectable(0.01, 3), 3), round(detectable(0.01, 10), 3)
    (0.033, 0.01)
    """
    if seeds < 2:
        raise UserError(
            f"With {seeds} seed there is no spread between seeds; a test needs two, and should have more."
        )
    high = 1.0
    while power_of(high, 1.0, seeds, level) < power:
        high *= 2
    return sd * brentq(lambda effect: power_of(effect, 1.0, seeds, level) - power, 0, high)


def power_of(difference: float, sd: float, seeds: int, level: float = 0.05) -> float:
    """How often a paired t-test over so many seeds finds a true difference with its right sign;
    ``sd`` as in :func:`detectable`.
    """
    limit = stats.t.ppf(1 - level / 2, seeds - 1)
    return float(stats.nct.sf(limit, seeds - 1, difference / sd * math.sqrt(seeds)))


def detectable_table(results: Results, seeds: tuple[int, ...] = (2, 3, 5, 10, 20)) -> pd.DataFrame:
    """What n seeds could detect (Dice, power 80 %), and how many seeds find a hundredth; a row a
    set.

    From the spread of the seeds' differences pooled over the labels.
    """
    spread = (
        seed_differences(results)
        .groupby(level="dataset", sort=False)["sd"]
        .agg(lambda sd: math.sqrt((sd**2).mean()))
    )
    table = {f"{n} seeds": [detectable(sd, n) for sd in spread] for n in seeds}
    table |= {"seeds for 0.01": [seeds_for(0.01, sd) for sd in spread]}
    return pd.DataFrame(
        {"sd of a difference": spread, **{k: pd.Series(v, spread.index) for k, v in table.items()}}
    )


def seeds_for(difference: float, sd: float, power: float = 0.8) -> int:
    """The number of seeds with which a paired t-test finds this difference with this power; ``sd``
    as in :func:`detectable`.

    >>> seeds_for(0.01, 0.01)
    10
    """
    enough = 2
    while power_of(difference, sd, enough) < power:
        enough += 1
    return enough


def last_or_best(results: Results) -> pd.DataFrame:
    """What the choice of the epoch is worth: mean Dice of the best epoch on validation minus that
    of the last, by label and set.
    """
    rows = results.scores[results.scores["objective"] != "teacher"]
    gain = (
        (rows["dice"] - rows["dice_last"])
        .groupby([rows["objective"], rows["dataset"]], sort=False)
        .mean()
    )
    return gain.unstack()[results.datasets].loc[
        [label for label in results.labels if label in gain.index]
    ]


def by_size(results: Results, bins: int = 4) -> pd.DataFrame:
    """Mean Dice of each label, over all test images, in groups of equal number by the polyp's share
    of the image.
    """
    images = results.images
    one = images[images["objective"] == images["objective"].iloc[0]]
    edges = np.quantile(one["share"], np.linspace(0, 1, bins + 1)[1:-1])
    names = [
        f"{100 * a:.1f} to {100 * b:.1f} %"
        for a, b in zip([one["share"].min(), *edges], [*edges, one["share"].max()])
    ]
    group = pd.Series(np.digitize(images["share"], edges), images.index).map(dict(enumerate(names)))
    table = images.groupby([images["objective"], group], sort=False)["dice"].mean().unstack()
    return table[names]


def costs(results: Results) -> pd.DataFrame:
    """Parameters, multiply-accumulates of one image, minutes of training, best epoch and validation
    Dice, by label.

    Minutes are those of the quickest seed, since other programs may have slowed the rest; the
    others are means over the seeds.
    """
    scores = results.scores.drop_duplicates(KEYS)
    rows = {}
    for label, part in scores.groupby("objective", sort=False):
        role = "teacher" if label == "teacher" else "student"
        rows[label] = {
            "parameters (M)": results.about["parameters"][role] / 1e6,
            "MACs (G)": results.about["macs"][role] / 1e9,
            "minutes (quickest seed)": part["minutes"].min(),
            "best epoch": part["best_epoch"].mean(),
            "of": part["epochs"].max(),
            "validation Dice": part["validation_dice"].mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tries(results: Results, base: str = BASE) -> pd.DataFrame:
    """A study that was made to choose hyperparameters, looked at on validation alone: one row a label.

    Returns:
        ``kind`` (the objective), the hyperparameters that the objective has (an empty field for the others),
        ``validation Dice`` (mean over the seeds) and its difference from ``base``.
    """
    rows = {}
    for label in results.labels:
        recipe = results.about["recipes"][label]
        own = hyperparameters_of(recipe["objective"])
        hyperparameters = {
            hyperparameter: f"{recipe[hyperparameter]:g}" if hyperparameter in own else ""
            for hyperparameter in HYPERPARAMETERS
            if hyperparameter != "distillation_warm_up"
        }
        warm_up = f"{recipe['distillation_warm_up']:g}" if recipe["objective"] != base else ""
        rows[label] = {
            "kind": recipe["objective"],
            **hyperparameters,
            "distillation_warm_up": warm_up,
        }
    reached = results.scores.drop_duplicates(KEYS).groupby("objective")["validation_dice"].mean()
    table = pd.DataFrame.from_dict(rows, orient="index").join(reached.rename("validation Dice"))
    return table.assign(
        **{f"minus {base}": table["validation Dice"] - table["validation Dice"].get(base, math.nan)}
    )


# --- the ledger -------------------------------------------------------------------------------------------------------

STATES = ("reproduced", "not reproduced", "undecided", "not tested")


def claims_table(results: Results, claims: str | Path, *more: Results) -> pd.DataFrame:
    """What was claimed, and what became of it here.

    A claim that names two labels says that the first has the higher Dice. It is *reproduced* where
    the 95 % interval over seeds of the difference on the mean of the sets lies above 0, *not
    reproduced* where it lies below 0, *undecided* otherwise and with a single seed. A claim without
    labels, or about labels that were not trained, is *not tested*; the file says why.

    Args:
        claims: CSV with the columns ``claim, source, better, than, caveat``; the book keeps one in
            ``book/results/claims.csv``.
        more: other studies; a claim is judged by the first that has trained both labels.

    Returns:
        ``claim, source, state, evidence, caveat``, a row a claim.

    Raises:
        UserError: the file is missing or lacks a column.
    """
    try:
        table = pd.read_csv(claims, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{claims} cannot be read as a table of claims ({error}).") from error
    if absent := [c for c in ("claim", "source", "better", "than", "caveat") if c not in table]:
        raise UserError(f"{claims} lacks the column {', '.join(absent)}.")
    rows = []
    for claim in table.to_dict("records"):
        state, evidence = _judged((results, *more), claim["better"], claim["than"])
        rows.append(
            {
                **{k: claim[k] for k in ("claim", "source")},
                "state": state,
                "evidence": evidence,
                "caveat": claim["caveat"],
            }
        )
    return pd.DataFrame(rows, columns=["claim", "source", "state", "evidence", "caveat"])


def _judged(studies: tuple[Results, ...], better: str, than: str) -> tuple[str, str]:
    if not better or not than:
        return "not tested", ""
    results = next((r for r in studies if {better, than} <= set(r.scores["objective"])), None)
    if results is None:
        trained = set().union(*(r.scores["objective"] for r in studies))
        missing = [label for label in (better, than) if label not in trained]
        return (
            "not tested",
            f"{' and '.join(missing)} not trained" if missing else "not trained in one study",
        )
    seen = seed_differences(results, than).loc[(better, MEAN)]
    evidence = f"{seen['difference']:+.3f} Dice over {_seeds(seen['seeds'])}"
    if seen["seeds"] < 2:
        return "undecided", evidence
    last = seed_differences(results, than, "dice_last").loc[(better, MEAN)]
    evidence += (
        f", interval {seen['low']:+.3f} to {seen['high']:+.3f}; with the last epoch {last['difference']:+.3f}, {last['low']:+.3f} to "
        f"{last['high']:+.3f}; with this spread {detectable(seen['sd'], int(seen['seeds'])):.3f} could have been found"
    )
    state = (
        "reproduced" if seen["low"] > 0 else "not reproduced" if seen["high"] < 0 else "undecided"
    )
    return state, evidence


# --- all of it, in files ----------------------------------------------------------------------------------------------


def write_report(results: Results, out: str | Path, claims: str | Path | None = None) -> list[Path]:
    """``report.md`` with every table, each table as CSV, Markdown and LaTeX too, and the figures as
    PNG and SVG.

    Returns:
        The files.

    Raises:
        UserError: nothing to compare yet, or the folder cannot be written.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tables: dict[str, tuple[str, Callable[[], pd.DataFrame], str]] = {
        "dice": ("Dice at 0.5, mean ± sd over seeds", lambda: dice_table(results), ".3f"),
        "against_supervised": (
            "Against supervised, image by image",
            lambda: compare_to_baseline(results),
            ".4f",
        ),
        "seed_differences": (
            "Against supervised, seed by seed",
            lambda: seed_differences(results),
            ".3f",
        ),
        "averages": (
            "Against supervised, one number for all sets",
            lambda: averages(results),
            ".3f",
        ),
        "last_or_best": ("Best epoch minus last epoch, Dice", lambda: last_or_best(results), ".3f"),
        "agreement": (
            "Dice of the student's cut against the teacher's",
            lambda: dice_table(results, "agreement"),
            ".3f",
        ),
        "by_size": ("Dice by the polyp's share of the image", lambda: by_size(results), ".3f"),
        "costs": ("Costs", lambda: costs(results), ".2f"),
        "detectable": (
            "The difference that n seeds could detect",
            lambda: detectable_table(results),
            ".3f",
        ),
    }
    if claims:
        tables["ledger"] = ("Ledger", lambda: claims_table(results, claims), ".3f")
    files, parts = (
        [],
        [f"# Study {results.name}", *filter(None, [results.completeness, summary(results)])],
    )
    for stem, (title, make, form) in tables.items():
        table = make()
        note = f"{title} ({results.completeness})" if results.completeness else title
        markdown = tabulate(table.reset_index(), "keys", "github", floatfmt=form, showindex=False)
        latex = tabulate(
            table.reset_index(), "keys", "latex_booktabs", floatfmt=form, showindex=False
        )
        for suffix, text in (
            (".csv", table.to_csv()),
            (".md", markdown + "\n"),
            (".tex", f"% {note}\n{latex}\n"),
        ):
            atomic_write(out / f"{stem}{suffix}", text.encode())
            files.append(out / f"{stem}{suffix}")
        parts += [f"## {note}", markdown]
    for stem, draw in figures(results).items():
        figure = draw()
        for suffix in (".png", ".svg"):
            plots.save(figure, out / f"{stem}{suffix}")
            files.append(out / f"{stem}{suffix}")
        plt.close(figure)
        parts.append(f"![{stem.replace('_', ' ')}]({stem}.png)")
    atomic_write(out / "report.md", ("\n\n".join(parts) + "\n").encode())
    return [out / "report.md", *files]


def figures(results: Results) -> dict[str, Callable]:
    """The study's figures by file name, each drawn when it is called."""
    return {
        "scores_by_seed": lambda: plots.scores_by_seed(results.scores, panel_titles(results)),
        "curves_by_objective": lambda: plots.curves_by_objective(results.curves),
        "differences": lambda: plots.differences_by_set(
            compare_to_baseline(results), seed_differences(results)
        ),
        "dice_by_size": lambda: plots.lines_by_group(
            by_size(results), "polyp's share of the image", "Dice"
        ),
        "agreement_and_dice": lambda: plots.agreement_and_dice(results.scores),
    }


def panel_titles(results: Results) -> dict[str, str]:
    """Data set → its name, and how many images of it there are."""
    return {name: f"{name}\n{results.images_of(name)} images" for name in results.datasets}


def _seeds(count: float) -> str:
    return f"{count:.0f} seed" if count == 1 else f"{count:.0f} seeds"


def summary(results: Results) -> str:
    """One paragraph: preset, data, networks, machine, convention."""
    about, data = results.about, results.about["data"]
    recipe = next(iter(about["recipes"].values()))
    kind = "synthetic images" if data["synthetic"] else "images"
    seeds = results.scores.loc[results.scores["objective"] != "teacher", "seed"].nunique()
    return (
        f"Preset {about['preset']}: teacher {recipe['teacher']}, student {recipe['student']}, {recipe['image_size']} px, "
        f"{data['train']} training and {data['validation']} validation {kind}, {_seeds(seeds)}; the epoch that is best on validation. "
        f"Dice is cut at 0.5; convention {about['convention']}. Run on {' and '.join(about['hardware'])}."
    )
