"""Results as tables and files, and the ledger of reported and measured numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from kdas_book.files import refuse_foreign, write_together
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.evaluation import ALL_METRICS, METRICS, SURFACE_METRICS, EvaluationResult
from kdas_core.evaluation.files import Problems

KNOWN = (*ALL_METRICS, *SURFACE_METRICS)
UNKNOWN = f"asks for the unknown metric {{names}}; known are {', '.join(KNOWN)}."
REPORTED = {"mean_dice": "meanDic", "mean_iou": "meanIoU", "mae": "mae"}
# What a reader of a number on these sets must know; said next to the numbers.
CAVEATS = {
    "CVC-300": "Its 60 frames are also in CVC-ColonDB: the two sets do not confirm each other.",
    "CVC-ClinicDB": "Its 62 frames are of videos that occur in training: it tests memory as well.",
    "CVC-ColonDB": "Frames of a few videos, among them the 60 of CVC-300 and 34 exact repeats: "
    "less evidence than 380 images.",
    "ETIS-LaribPolypDB": "Frames of a few videos: less evidence than 196 images.",
}
_RESULTS = "file of kdas evaluate"
HOW = ("convention", "strict", "masks")  # what two results must have in common to be compared
Results = Mapping[str, EvaluationResult]  # by the name of the data set
_shown = partial(tabulate, headers="keys", floatfmt=".3f", showindex=False)


def images_label(dataset: str, n: int, synthetic: bool, dropped: int = 0) -> str:
    """How many images: ``"20 of 196"``, ``"16 synthetic"``, ``"346 of 380, no repeats"``."""
    if synthetic:
        return f"{n} synthetic"
    full = FULL_COUNTS.get(dataset, n + dropped)
    label = str(n) if n == full else f"{n} of {full}"
    return f"{label}, no repeats" if dropped else label


def table(results: Results, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Index ``dataset``; columns ``n``, ``images`` (:func:`images_label`), ``convention``, then the
    metrics asked for, unrounded; all that were measured if none are. UserError: a metric of another
    name, or one that was not measured.
    """
    measured = [m for m in KNOWN if all(m in result.summary for result in results.values())]
    metrics = measured if metrics is None else metrics
    problems = Problems()
    problems.about([m for m in metrics if m not in KNOWN], f"The table {UNKNOWN}")
    absent = [m for m in metrics if m in KNOWN and m not in measured]
    problems.about(absent, "{names} was not measured; evaluate with surface=True (--surface).")
    problems.stop("tabulated")
    rows = [
        {"n": r.n, "images": images_label(name, r.n, r.synthetic, len(r.dropped))}
        | {"convention": r.convention, **{metric: r.summary[metric] for metric in metrics}}
        for name, r in results.items()
    ]
    return pd.DataFrame(rows, pd.Index(list(results), name="dataset", dtype=object))


def notes(results: Results) -> list[str]:
    """What must be said next to the numbers, a sentence each."""
    said = []
    for name, result in results.items():
        if result.ignored:
            said.append(f"{name}: {len(result.ignored)} predictions were not scored.")
        if name in CAVEATS and not result.synthetic:
            said.append(f"{name}: {CAVEATS[name]}")
    return said


def verbose_table(results: Results, metrics: Sequence[str] = METRICS) -> str:
    """The table that the released program prints; below it images, convention and :func:`notes`."""
    frame = table(results, metrics)
    counts = "; ".join(f"{name} {label}" for name, label in frame["images"].items())
    conventions = ", ".join(frame["convention"].unique())
    about = [f"Images: {counts}.", f"Convention: {conventions}.", *notes(results)]
    return "\n".join([_shown(frame[list(metrics)].reset_index()), "", *about])


def comparison_table(compared: pd.DataFrame) -> str:
    """What ``comparison.compare`` found, for a terminal: a p-value has two digits however small."""
    small = {name: compared[name].map("{:.2g}".format) for name in ("p", "p_holm")}
    frame = compared.assign(**small).reset_index()
    return _shown(frame, disable_numparse=[frame.columns.get_loc(name) for name in small])


def texts_of(table: pd.DataFrame, notes: Sequence[str], **options) -> dict[str, str]:
    """``{suffix: text}`` of a table: CSV with all digits; Markdown and LaTeX (booktabs), with notes
    below and three decimals, or what ``options`` say to :func:`tabulate.tabulate`.
    """
    frame = table.reset_index()
    markdown = [_shown(frame, tablefmt="github", **options), "", *(f"- {n}" for n in notes)]
    latex = [_shown(frame, tablefmt="latex_booktabs", **options), *(f"% {n}" for n in notes)]
    texts = {".md": "\n".join(markdown).rstrip() + "\n", ".tex": "\n".join(latex) + "\n"}
    return {".csv": table.to_csv(lineterminator="\n"), **texts}


def claims_table(
    results: Results,
    run: str,
    published: str | Path,
    model: str | None = None,
    reservations: Sequence[str] = (),
) -> pd.DataFrame:
    """Reported numbers beside ours: a row for each reported number on a data set that was measured;
    ``difference`` is measured − reported, and ``not_comparable`` says why it must not be read as
    one (empty: it may).

    Args:
        run: what to call the run, such as the name of its folder.
        published: a CSV file as ``book/results/published_results.csv``; empty: not reported.
        model: only rows of this model.
        reservations: what else keeps this run from being compared, such as ``"other networks"``.

    A UserError where the file is no such table, or has no row of the model.
    """
    about = ["model", "dataset", "source", "confidence"]
    try:
        reported = pd.read_csv(published)[[*about, *REPORTED]].rename(columns=REPORTED)
    except (OSError, ValueError, KeyError) as error:
        needed = ", ".join([*about, *REPORTED])
        raise UserError(f"{published} is no table with {needed} ({error}).") from error
    known = list(reported["model"].unique())
    if model is not None and model not in known:
        raise UserError(f"{published} has no row of {model}; it has {', '.join(known)}.")
    reported = reported[reported["model"].isin([model] if model else known)]
    reported = reported.melt(about, var_name="metric", value_name="reported")
    reported = reported.dropna(subset="reported")
    reasons = [", ".join([*_reservations(*pair), *reservations]) for pair in results.items()]
    ours = table(results, list(REPORTED.values())).reset_index()
    ours = ours.assign(run=run, not_comparable=reasons)
    same = [column for column in ours if column not in REPORTED.values()]
    ours = ours.melt(same, var_name="metric", value_name="measured", ignore_index=False)
    frame = ours.sort_index(kind="stable").merge(reported, on=["dataset", "metric"])
    return frame.assign(difference=frame["measured"] - frame["reported"])


def _reservations(dataset: str, result: EvaluationResult) -> list[str]:
    label = images_label(dataset, result.n, result.synthetic, len(result.dropped))
    whole = result.n == FULL_COUNTS.get(dataset, result.n)
    of_images = [] if whole else [f"only {label} images"]
    of_convention = [f"convention {result.convention}"] if result.convention != "released" else []
    return [*(["synthetic images"] if result.synthetic else of_images), *of_convention]


def write_json(results: Results, path: str | Path) -> Path:
    """Write ``{dataset: {metric: value, …, "n": …, "per_image": {name: {metric: value}}}}``, the
    whole file or nothing, and return its path. NaN, which only ``strict`` brings, becomes null.
    """
    refuse_foreign(Path(path), _RESULTS, read_per_image)
    return write_together({Path(path): _as_json(results)})[0]


def write_all(results: Results, folder: str | Path) -> list[Path]:
    """Write ``metrics.json``, ``metrics.csv``, ``metrics.md``, ``metrics.tex`` and
    ``per_image.csv``, all or none: CSV with all digits, Markdown and LaTeX (booktabs) with three
    decimals and the notes. Returns the paths.
    """
    refuse_foreign(Path(folder) / "metrics.json", _RESULTS, read_per_image)
    images = {name: result.per_image for name, result in results.items()}
    per_image = pd.concat(images, names=["dataset"]).reset_index("dataset")
    forms = texts_of(table(results), notes(results), disable_numparse=[1, 2])
    texts = {"metrics.json": _as_json(results)}
    texts |= {f"metrics{suffix}": text for suffix, text in forms.items()}
    texts["per_image.csv"] = per_image.to_csv(index=False, lineterminator="\n")
    taken = [name for name in texts if (Path(folder) / name).exists()]
    if taken and "metrics.json" not in taken:
        raise UserError(f"{folder} holds {', '.join(taken)} already; choose another place.")
    return write_together({Path(folder) / name: text for name, text in texts.items()})


def read_per_image(path: str | Path) -> dict[str, pd.DataFrame]:
    """``{data set: table with name and the metrics}`` from a file of :func:`write_json`; each
    table's ``attrs`` have those of `HOW` and ``synthetic``. UserError for other files.
    """
    tables = {}
    try:
        for dataset, part in json.loads(Path(path).read_text(encoding="utf-8")).items():
            rows = ({"name": name, **values} for name, values in part["per_image"].items())
            tables[dataset] = pd.DataFrame(rows)
            tables[dataset].attrs = {key: part.get(key) for key in HOW}
            tables[dataset].attrs["synthetic"] = bool(part.get("synthetic"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        fact = f"{path} cannot be read as a file of results ({error})"
        raise UserError(f"{fact}; give the metrics.json of kdas evaluate.") from error
    return tables


def _as_json(results: Results) -> str:
    content = {}
    settings = "n convention strict synthetic masks calibration_error ignored dropped".split()
    for dataset, result in results.items():
        rows = result.per_image.set_index("name").to_dict("index")
        content[dataset] = {
            **_plain(result.summary),
            **{name: getattr(result, name) for name in settings},
            "per_image": {name: _plain(values) for name, values in rows.items()},
        }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them."""
    return {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}
