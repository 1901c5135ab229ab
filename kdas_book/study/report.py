"""What a study says: tables, figures, and what became of the claims."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from kdas_book.data.videos import clinicdb_sequence
from kdas_book.figures import ch10_study as figures
from kdas_book.figures.display import save
from kdas_book.files import write_together
from kdas_book.reports import comparison
from kdas_book.reports.tables import texts_of
from kdas_book.study import registered, seeds
from kdas_book.study.registered import pooled
from kdas_book.study.results import KEYS, Results
from kdas_book.study.seeds import BASE, by_set, seed_differences, seed_table
from kdas_core import UserError

# Chapter 10 takes these from here, too.
averages, detectable_table = seeds.averages, seeds.detectable_table
detectable, power_of, seeds_for = seeds.detectable, seeds.power_of, seeds.seeds_for
CLINICDB = "CVC-ClinicDB"


def dice_table(results: Results, column: str = "dice") -> pd.DataFrame:
    """Mean ± sd over the seeds of a column of ``results.scores``: a row a label, a column a test
    set, and the mean over the sets.
    """
    wide = by_set(results, column)
    text = seed_table(wide.reset_index(names=["method", "seed"]))["mean ± sd"].unstack()
    rows = [label for label in ("teacher", *results.labels) if label in text.index]
    names = {name: f"{name} ({results.images_of(name)})" for name in results.datasets}
    return text.loc[rows, wide.columns].rename(columns=names).rename_axis(columns=None)


def compare_to_baseline(results: Results, base: str = BASE) -> pd.DataFrame:
    """Each label against ``base``, image by image: Dice averaged over the seeds, bootstrap
    interval, Wilcoxon test, p-values corrected by Holm over all rows of the table.

    Interval and test are about other images, for these trained networks; :func:`seed_differences`
    is about other seeds. The frames of CVC-ClinicDB are drawn video by video; of the other sets the
    videos are not known, their frames are taken for independent, and the intervals are too short.

    Index ``(objective, dataset)``, columns as ``comparison.compare`` gives them. A UserError if
    ``base`` has not been trained, or nothing else has.
    """
    tables = {
        label: dict(iter(part.groupby("dataset", sort=False)[["name", "dice"]]))
        for label, part in results.image_means.groupby("objective", sort=False)
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
    gain = (by_set(results) - by_set(results, "dice_last"))[results.datasets]
    table = gain.groupby("objective").mean()
    return table.loc[[label for label in results.labels if label in table.index]]


def by_size(results: Results, bins: int = 4) -> pd.DataFrame:
    """Mean Dice of each label over all test images, each once (:func:`pooled`), in groups of equal
    number by polyp size.
    """
    images = pooled(results.image_means)
    share = images.loc[images["objective"] == images["objective"].iloc[0], "share"]
    edges = np.quantile(share, np.linspace(0, 1, bins + 1))
    names = [f"{100 * a:.1f} to {100 * b:.1f} %" for a, b in zip(edges, edges[1:])]
    group = np.array(names)[np.digitize(images["share"], edges[1:-1])]
    return images.pivot_table("dice", "objective", group, sort=False)[names]


def costs(results: Results) -> pd.DataFrame:
    """By label: parameters, multiply-accumulates of an image, minutes of training (of the quickest
    seed, since other programs may have slowed the rest), best epoch and validation Dice (means).
    """
    runs = results.scores.drop_duplicates(KEYS).groupby("objective", sort=False)
    ways = {"minutes": "min", "best_epoch": "mean", "epochs": "max", "validation_dice": "mean"}
    table = runs.agg(ways).rename_axis(None)
    table.columns = ["minutes (quickest seed)", "best epoch", "of", "validation Dice"]
    roles = table.index.where(table.index == "teacher", "student")
    table.insert(0, "MACs (G)", roles.map(results.about["macs"]) / 1e9)
    table.insert(0, "parameters (M)", roles.map(results.about["parameters"]) / 1e6)
    return table


def claims_table(results: Results, claims: str | Path, *more: Results) -> pd.DataFrame:
    """What was claimed, and what became of it here: ``claim, source, state, number, evidence,
    caveat, difference, low, high``; ``number`` is the difference with its interval in words.

    A claim that names two labels says that the first has the higher Dice. It is judged by
    :func:`registered.contrasts` of Dice over all images, each once, in the first study that has
    trained both; *not tested* without labels, or about labels that were not trained. A UserError if
    the CSV of claims is missing or lacks a column.
    """
    columns = ["claim", "source", "better", "than", "caveat"]
    try:
        table = pd.read_csv(claims, keep_default_na=False)[columns]
    except (OSError, ValueError, KeyError) as error:
        fact = f"{claims} is no table of claims with {', '.join(columns)}"
        raise UserError(f"{fact} ({error}).") from error
    judged = [_judged((results, *more), *pair) for pair in zip(table["better"], table["than"])]
    names = ["state", "number", "evidence", "difference", "low", "high"]
    found = pd.DataFrame(judged, table.index, names)
    words = table[["claim", "source"]].join(found[names[:3]])
    return words.assign(caveat=table["caveat"]).join(found[names[3:]])


def _judged(studies: tuple[Results, ...], better: str, than: str) -> tuple:
    """State, number and evidence of a claim, and the difference with its interval."""
    none = (np.nan,) * 3
    if not better or not than:
        return "not tested", "", "", *none
    results = next((r for r in studies if {better, than} <= set(r.scores["objective"])), None)
    if results is None:
        trained = set().union(*(r.scores["objective"] for r in studies))
        missing = " and ".join(label for label in (better, than) if label not in trained)
        why = f"{missing} not trained" if missing else "not trained in one study"
        return "not tested", "", why, *none
    ends = registered.endpoints(results)
    seen, last = (
        registered.contrasts(ends[column], [(better, than)]).iloc[0]
        for column in ("dice", "dice_last")
    )
    number = f"{seen['difference']:+.3f}"
    evidence = f"{number} Dice over {_seeds(seen['seeds'])}"
    if seen["seeds"] < 2:
        return seen["verdict"], f"{number}, one seed", evidence, seen["difference"], *none[1:]
    evidence += (
        f", interval {seen['low']:+.3f} to {seen['high']:+.3f}; with the last epoch "
        f"{last['difference']:+.3f}, {last['low']:+.3f} to {last['high']:+.3f}; with this spread "
        f"{detectable(seen['sd'], int(seen['seeds'])):.3f} could have been found"
    )
    number += f" [{seen['low']:+.3f}, {seen['high']:+.3f}]"
    return seen["verdict"], number, evidence, *seen[["difference", "low", "high"]]


def _seeds(count: float) -> str:
    return f"{count:.0f} seed" if count == 1 else f"{count:.0f} seeds"


_TABLES: dict[str, tuple[str, Callable[[Results], pd.DataFrame], str]] = {
    "dice": ("Dice at 0.5, mean ± sd over seeds", dice_table, ".3f"),
    "against_supervised": ("Against supervised, image by image", compare_to_baseline, ".4f"),
    "seed_differences": ("Against supervised, seed by seed", seed_differences, ".3f"),
    "averages": ("Against supervised, one number for all sets", averages, ".3f"),
    "last_or_best": ("Best epoch minus last epoch, Dice", last_or_best, ".3f"),
    "agreement": ("Dice against the teacher's cut", partial(dice_table, column="agreement"), ".3f"),
    "by_size": ("Dice by the polyp's share of the image", by_size, ".3f"),
    "costs": ("Costs", costs, ".2f"),
    "detectable": ("The difference that n seeds could detect", detectable_table, ".3f"),
}


def write_report(results: Results, out: str | Path, claims: str | Path | None = None) -> list[Path]:
    """Write ``report.md`` with every table, each table as CSV, Markdown and LaTeX too, and the
    figures as PNG and SVG. A UserError: nothing to compare yet, or a folder that cannot be written.
    """
    tables = {stem: (title, make(results), form) for stem, (title, make, form) in _TABLES.items()}
    tables |= registered.tables(results)
    if claims:
        ledger = claims_table(results, claims).set_index("claim")
        tables["ledger"] = "Ledger", ledger.loc[:, :"caveat"], ".3f"
    by_image, by_seed = (tables[stem][1] for stem in ("against_supervised", "seed_differences"))
    by_size_ = tables["by_size"][1].T.rename(index=str)
    drawn = {
        "scores_by_seed": figures.scores_by_seed(results.scores, panel_titles(results)),
        "curves_by_objective": figures.curves_by_objective(results.curves),
        "differences": figures.differences_by_set(by_image, by_seed),
        "dice_by_size": figures.lines(by_size_, "polyp's share of the image", "Dice"),
        "agreement_and_dice": figures.agreement_and_dice(registered.endpoints(results)),
    }
    notes = [results.completeness] if results.completeness else []
    parts = [f"# Study {results.name}", *notes, summary(results)]
    texts: dict[Path, str] = {}
    for stem, (title, table, form) in tables.items():
        forms = texts_of(table, notes, floatfmt=form)
        forms[".tex"] = f"% {title}\n{forms['.tex']}"
        texts |= {Path(out) / f"{stem}{suffix}": text for suffix, text in forms.items()}
        parts.append(f"## {title}\n\n{forms['.md']}")
    parts += [f"![{stem.replace('_', ' ')}]({stem}.png)" for stem in drawn]
    files = write_together({Path(out) / "report.md": "\n\n".join(parts) + "\n", **texts})
    for stem, figure in drawn.items():
        for suffix in (".png", ".svg"):
            files.append(Path(out) / f"{stem}{suffix}")
            save(figure, files[-1])
        plt.close(figure)
    return files


def panel_titles(results: Results) -> dict[str, str]:
    """Data set → its name, and how many images of it there are."""
    return {name: f"{name}\n{results.images_of(name)} images" for name in results.datasets}


def summary(results: Results) -> str:
    """One paragraph: preset, data, networks, machine, convention."""
    about, data = results.about, results.about["data"]
    recipe = about["recipes"][results.labels[0]]  # the teacher's may have larger images
    kind = "synthetic images" if data["synthetic"] else "images"
    seeds = results.scores.loc[results.scores["objective"] != "teacher", "seed"].nunique()
    return (
        f"Preset {about['preset']}: teacher {recipe['teacher']}, student {recipe['student']}, "
        f"{recipe['image_size']} px, {data['train']} training and {data['validation']} validation "
        f"{kind}, {_seeds(seeds)}; the epoch that is best on validation. Dice is cut at 0.5; "
        f"convention {about['convention']}. Run on {' and '.join(about['hardware'])}."
    )
