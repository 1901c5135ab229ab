"""What a study says: tables, figures, and what became of the claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from kdas_book.data.videos import clinicdb_sequence
from kdas_book.figures import ch09_study as figures
from kdas_book.figures.basics import save
from kdas_book.study.results import KEYS, Results
from kdas_book.study.seeds import (  # noqa: F401  chapter 9 takes all of them from here
    BASE,
    MEAN,
    averages,
    by_set,
    detectable,
    detectable_table,
    power_of,
    seed_differences,
    seed_table,
    seeds_for,
)
from kdas_core import UserError
from kdas_core.evaluation import comparison
from kdas_core.files import atomic_write
from kdas_core.losses import hyperparameters_of

TUNED = ("alpha", "temperature", "attention_weight", "guiding_weight", "distillation_warm_up")
CLINICDB = "CVC-ClinicDB"


def dice_table(results: Results, column: str = "dice") -> pd.DataFrame:
    """Mean ± sd over the seeds of a column of ``results.scores``: a row a label, a column a test
    set, and the mean over the sets.
    """
    wide = by_set(results, column)
    runs = wide.reset_index().rename(columns={"objective": "method"})
    text = seed_table(runs)["mean ± sd"].unstack()
    rows = [label for label in ("teacher", *results.labels) if label in text.index]
    names = {name: f"{name} ({results.images_of(name)})" for name in results.datasets}
    return text.loc[rows, wide.columns].rename(columns=names).rename_axis(columns=None)


def _agreement(results: Results) -> pd.DataFrame:
    return dice_table(results, "agreement")


def compare_to_baseline(results: Results, base: str = BASE) -> pd.DataFrame:
    """Each label against ``base``, image by image: Dice averaged over the seeds, bootstrap
    interval, Wilcoxon test, p-values corrected by Holm over all rows of the table.

    Interval and test are about other images, for these trained networks; :func:`seed_differences`
    is about other seeds. The frames of CVC-ClinicDB are drawn video by video; of the other sets the
    videos are not known, their frames are taken for independent, and the intervals are too short.

    Returns:
        Index ``(objective, dataset)``; columns as ``comparison.compare`` gives them.

    Raises:
        UserError: ``base`` has not been trained, or nothing else has.
    """
    tables = {
        label: dict(iter(part.groupby("dataset", sort=False)[["name", "dice"]]))
        for label, part in results.images.groupby("objective", sort=False)
    }
    if base not in tables:
        raise UserError(f'There is no finished training called "{base}" to compare with.')
    others = [label for label in results.labels if label != base and label in tables]
    if not others:
        raise UserError(f'Nothing but "{base}" is finished yet, so there is nothing to compare.')
    groups = None
    if CLINICDB in tables[base] and not results.about["data"]["synthetic"]:
        frames = tables[base][CLINICDB]["name"]
        groups = {CLINICDB: {name: str(clinicdb_sequence(name) or name) for name in frames}}
    rows = {name: comparison.compare(tables[name], tables[base], groups=groups) for name in others}
    table = pd.concat(rows, names=["objective", "dataset"])
    return table.assign(p_holm=comparison.holm(table["p"]))


def last_or_best(results: Results) -> pd.DataFrame:
    """Mean Dice of the best epoch on validation minus that of the last, by label and set."""
    gain = results.scores.assign(gain=results.scores["dice"] - results.scores["dice_last"])
    table = gain.pivot_table("gain", "objective", "dataset")[results.datasets]
    return table.loc[[label for label in results.labels if label in table.index]]


def by_size(results: Results, bins: int = 4) -> pd.DataFrame:
    """Mean Dice of each label over all test images, in groups of equal number by polyp size."""
    images = results.images
    share = images.loc[images["objective"] == images["objective"].iloc[0], "share"]
    edges = np.quantile(share, np.linspace(0, 1, bins + 1))
    names = [f"{100 * a:.1f} to {100 * b:.1f} %" for a, b in zip(edges, edges[1:])]
    group = np.array(names)[np.digitize(images["share"], edges[1:-1])]
    return images.pivot_table("dice", "objective", group, sort=False)[names]


def costs(results: Results) -> pd.DataFrame:
    """Parameters, multiply-accumulates of one image, minutes of training (of the quickest seed,
    since other programs may have slowed the rest), best epoch and validation Dice (means), by
    label.
    """
    by_label = results.scores.drop_duplicates(KEYS).groupby("objective", sort=False)
    labels = [label for label, _ in by_label]
    roles = ["teacher" if label == "teacher" else "student" for label in labels]
    table = {
        "parameters (M)": pd.Series(roles, labels).map(results.about["parameters"]) / 1e6,
        "MACs (G)": pd.Series(roles, labels).map(results.about["macs"]) / 1e9,
        "minutes (quickest seed)": by_label["minutes"].min(),
        "best epoch": by_label["best_epoch"].mean(),
        "of": by_label["epochs"].max(),
        "validation Dice": by_label["validation_dice"].mean(),
    }
    return pd.DataFrame(table).loc[labels].rename_axis(None)


def tries(results: Results) -> pd.DataFrame:
    """A study made to choose hyperparameters, looked at on validation alone: a row a label; the
    objective (``kind``), the hyperparameters that it has, ``validation Dice`` (mean over the seeds)
    and its difference from supervised.
    """
    rows = {}
    for label in results.labels:
        recipe = results.about["recipes"][label]
        kind = recipe["objective"]
        own = {*hyperparameters_of(kind), "" if kind == BASE else "distillation_warm_up"}
        rows[label] = {name: f"{recipe[name]:g}" if name in own else "" for name in TUNED}
        rows[label] = {"kind": kind, **rows[label]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    reached = results.scores.drop_duplicates(KEYS).groupby("objective")["validation_dice"].mean()
    gain = reached - reached.get(BASE, math.nan)
    return table.assign(**{"validation Dice": reached, f"minus {BASE}": gain})


def claims_table(results: Results, claims: str | Path, *more: Results) -> pd.DataFrame:
    """What was claimed, and what became of it here: ``claim, source, state, evidence, caveat``.

    A claim that names two labels says that the first has the higher Dice. It is *above here*
    where the 95 % interval over seeds of the difference on the mean of the sets lies above 0,
    *below here* where it lies below 0, *undecided here* otherwise and with a single seed, and *not
    tested* without labels, or about labels that were not trained. It is judged by the first study
    that has trained both labels.

    Raises:
        UserError: the CSV of claims is missing or lacks a column.
    """
    try:
        table = pd.read_csv(claims, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{claims} cannot be read as a table of claims ({error}).") from error
    if absent := [c for c in ("claim", "source", "better", "than", "caveat") if c not in table]:
        raise UserError(f"{claims} lacks the column {', '.join(absent)}.")
    judged = [_judged((results, *more), *pair) for pair in zip(table["better"], table["than"])]
    table[["state", "evidence"]] = pd.DataFrame(judged, table.index, ["state", "evidence"])
    return table[["claim", "source", "state", "evidence", "caveat"]]


def _judged(studies: tuple[Results, ...], better: str, than: str) -> tuple[str, str]:
    """State and evidence of a claim."""
    if not better or not than:
        return "not tested", ""
    results = next((r for r in studies if {better, than} <= set(r.scores["objective"])), None)
    if results is None:
        trained = set().union(*(r.scores["objective"] for r in studies))
        missing = " and ".join(label for label in (better, than) if label not in trained)
        return "not tested", f"{missing} not trained" if missing else "not trained in one study"
    seen = seed_differences(results, than).loc[(better, MEAN)]
    evidence = f"{seen['difference']:+.3f} Dice over {_seeds(seen['seeds'])}"
    if seen["seeds"] < 2:
        return "undecided here", evidence
    last = seed_differences(results, than, "dice_last").loc[(better, MEAN)]
    evidence += (
        f", interval {seen['low']:+.3f} to {seen['high']:+.3f}; with the last epoch "
        f"{last['difference']:+.3f}, {last['low']:+.3f} to {last['high']:+.3f}; with this spread "
        f"{detectable(seen['sd'], int(seen['seeds'])):.3f} could have been found"
    )
    undecided = "below here" if seen["high"] < 0 else "undecided here"
    return "above here" if seen["low"] > 0 else undecided, evidence


_TABLES: dict[str, tuple[str, Callable[[Results], pd.DataFrame], str]] = {
    "dice": ("Dice at 0.5, mean ± sd over seeds", dice_table, ".3f"),
    "against_supervised": ("Against supervised, image by image", compare_to_baseline, ".4f"),
    "seed_differences": ("Against supervised, seed by seed", seed_differences, ".3f"),
    "averages": ("Against supervised, one number for all sets", averages, ".3f"),
    "last_or_best": ("Best epoch minus last epoch, Dice", last_or_best, ".3f"),
    "agreement": ("Dice of the student's cut against the teacher's", _agreement, ".3f"),
    "by_size": ("Dice by the polyp's share of the image", by_size, ".3f"),
    "costs": ("Costs", costs, ".2f"),
    "detectable": ("The difference that n seeds could detect", detectable_table, ".3f"),
}


def write_report(results: Results, out: str | Path, claims: str | Path | None = None) -> list[Path]:
    """Write ``report.md`` with every table, each table as CSV, Markdown and LaTeX too, and the
    figures as PNG and SVG.

    Raises:
        UserError: nothing to compare yet, or the folder cannot be written.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    tables = {stem: (title, make(results), form) for stem, (title, make, form) in _TABLES.items()}
    if claims:
        tables["ledger"] = ("Ledger", claims_table(results, claims), ".3f")
    parts = [f"# Study {results.name}", results.completeness, summary(results)]
    files = [out / "report.md"]
    for stem, (title, table, form) in tables.items():
        note = f"{title} ({results.completeness})" if results.completeness else title
        plain = table.reset_index()
        options = {"headers": "keys", "floatfmt": form, "showindex": False}
        markdown = tabulate(plain, tablefmt="github", **options)
        latex = tabulate(plain, tablefmt="latex_booktabs", **options)
        texts = {".csv": table.to_csv(), ".md": f"{markdown}\n", ".tex": f"% {note}\n{latex}\n"}
        for suffix, text in texts.items():
            atomic_write(out / f"{stem}{suffix}", text.encode())
            files.append(out / f"{stem}{suffix}")
        parts += [f"## {note}", markdown]
    for stem, figure in _figures(results):
        for suffix in (".png", ".svg"):
            save(figure, out / f"{stem}{suffix}")
            files.append(out / f"{stem}{suffix}")
        plt.close(figure)
        parts.append(f"![{stem.replace('_', ' ')}]({stem}.png)")
    atomic_write(files[0], ("\n\n".join(filter(None, parts)) + "\n").encode())
    return files


def _figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """The study's figures and their file names."""
    yield "scores_by_seed", figures.scores_by_seed(results.scores, panel_titles(results))
    yield "curves_by_objective", figures.curves_by_objective(results.curves)
    by_image, by_seed = compare_to_baseline(results), seed_differences(results)
    yield "differences", figures.differences_by_set(by_image, by_seed)
    across = "polyp's share of the image"
    yield "dice_by_size", figures.lines_by_group(by_size(results), across, "Dice")
    yield "agreement_and_dice", figures.agreement_and_dice(results.scores)


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
        f"Preset {about['preset']}: teacher {recipe['teacher']}, student {recipe['student']}, "
        f"{recipe['image_size']} px, {data['train']} training and {data['validation']} validation "
        f"{kind}, {_seeds(seeds)}; the epoch that is best on validation. Dice is cut at 0.5; "
        f"convention {about['convention']}. Run on {' and '.join(about['hardware'])}."
    )
