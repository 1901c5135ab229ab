"""Results as tables and files, and the ledger of reported and measured numbers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.evaluation import ALL_METRICS, METRICS, SURFACE_METRICS, EvaluationResult
from kdas_core.evaluation.files import sentence

KNOWN = (*ALL_METRICS, *SURFACE_METRICS)

CAVEATS = {
    "CVC-300": "Its 60 frames are also frames of CVC-ColonDB, so the two sets do not confirm each other.",
    "CVC-ClinicDB": "The videos behind its 62 frames also occur among the training images, so it tests memory as well.",
    "CVC-ColonDB": "Frames of a few videos, among them the 60 of CVC-300 and 34 exact repeats: less evidence than 380 images.",
    "ETIS-LaribPolypDB": "Frames of a few videos: less evidence than 196 images.",
}
"""What a reader of a number on these sets must know; said next to the numbers. Chapter 1 shows it.
"""


# --- tables -----------------------------------------------------------------------------------------------------------


def images_label(dataset: str, result: EvaluationResult) -> str:
    """How many images a row stands for, in words: ``"20 of 196"``, ``"16 synthetic"``, ``"346 of
    380, no repeats"``.

    Only the five test sets of PraNet have a known full size; of any other set, the plain count is
    given.
    """
    if result.synthetic:
        return f"{result.n} synthetic"
    full = FULL_COUNTS.get(dataset, result.n + len(result.dropped))
    label = str(result.n) if result.n == full else f"{result.n} of {full}"
    return f"{label}, no repeats" if result.dropped else label


def table(
    results: Mapping[str, EvaluationResult], metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row a data set.

    Args:
        results: ``{data set: EvaluationResult}``.
        metrics: the columns wanted; all that were measured if left out.

    Returns:
        Index ``dataset``; columns ``n`` (int), ``images`` (see :func:`images_label`),
        ``convention``, then the metrics, unrounded.

    Raises:
        UserError: a metric of another name, or one that was not measured.
    """
    measured = [m for m in KNOWN if all(m in result.summary for result in results.values())]
    if metrics is not None:
        if problems := metric_problems(metrics, "The table"):
            raise UserError(sentence(problems))
        if absent := [m for m in metrics if m not in measured]:
            raise UserError(
                f"{', '.join(absent)} was not measured; evaluate with surface=True (--surface)."
            )
    metrics = measured if metrics is None else list(metrics)
    rows = [
        {
            "n": result.n,
            "images": images_label(dataset, result),
            "convention": result.convention,
            **{metric: result.summary[metric] for metric in metrics},
        }
        for dataset, result in results.items()
    ]
    index = pd.Index(list(results), name="dataset", dtype=object)
    return pd.DataFrame(rows, columns=["n", "images", "convention", *metrics], index=index)


def notes(results: Mapping[str, EvaluationResult]) -> list[str]:
    """What must be said next to the numbers of these sets, a sentence each; nothing about synthetic
    ones.
    """
    return [
        f"{name}: {CAVEATS[name]}"
        for name, r in results.items()
        if name in CAVEATS and not r.synthetic
    ]


def verbose_table(results: Mapping[str, EvaluationResult], metrics: Sequence[str] = METRICS) -> str:
    """The table that the released program prints: a line a data set, three decimals; below it what
    we add.

    Added are the images that each line stands for, the convention, and :func:`notes`.
    """
    frame = table(results, metrics)
    text = tabulate(
        frame[list(metrics)].reset_index(), headers="keys", showindex=False, floatfmt=".3f"
    )
    counts = "; ".join(f"{name} {label}" for name, label in frame["images"].items())
    conventions = ", ".join(dict.fromkeys(frame["convention"]))
    return "\n".join(
        [text, "", f"Images: {counts}.", f"Convention: {conventions}.", *notes(results)]
    )


def comparison_table(compared: pd.DataFrame) -> str:
    """What ``statistics.compare`` found, for a terminal: three decimals, and two digits of a
    p-value however small.
    """
    small = [name for name in ("p", "p_holm") if name in compared]
    frame = compared.assign(
        **{name: compared[name].map("{:.2g}".format) for name in small}
    ).reset_index()
    as_they_are = [frame.columns.get_loc(name) for name in small]
    return tabulate(
        frame, headers="keys", showindex=False, floatfmt=".3f", disable_numparse=as_they_are
    )


def claims_table(
    results: Mapping[str, EvaluationResult],
    run: str,
    published: str | Path,
    model: str | None = None,
    reservations: Sequence[str] = (),
) -> pd.DataFrame:
    """Reported numbers beside ours, with everything that one must know before comparing them.

    Args:
        results: ``{data set: EvaluationResult}`` of one run.
        run: what to call it, such as the name of its folder.
        published: a CSV file with the columns ``model, dataset, mean_dice, mean_iou, mae, source,
            confidence``, empty where a number was not reported; the book keeps one in
            ``book/results/published_results.csv``.
        model: only rows of this model.
        reservations: what else keeps this run from being compared, such as ``"other networks"``;
            results alone cannot tell.

    Returns:
        One row for each reported number on a data set that was measured: ``dataset, metric, model,
            reported, measured,
        difference`` (measured − reported), ``images, convention, run, not_comparable`` (why the
        difference must not be
        read as one: a part of the set, synthetic images, another convention, a reservation; empty
            if there is no such reason),
        ``source, confidence``. ``mean_dice`` and ``mean_iou`` stand for ``meanDic`` and
        ``meanIoU``.

    Raises:
        UserError: the file is missing or lacks a column; no row of this model.
    """
    names = {"meanDic": "mean_dice", "meanIoU": "mean_iou", "mae": "mae"}
    reported = _published(
        Path(published), ("model", "dataset", *names.values(), "source", "confidence")
    )
    if model is not None and model not in set(reported["model"]):
        raise UserError(
            f"{published} has no row of the model {model}; it has {', '.join(reported['model'].unique())}."
        )
    rows = []
    for dataset, result in results.items():
        lines = reported[
            (reported["dataset"] == dataset) & (reported["model"] == (model or reported["model"]))
        ]
        for metric, column in names.items():
            for line in lines[lines[column].notna()].to_dict("records"):
                rows.append(
                    {
                        "dataset": dataset,
                        "metric": metric,
                        "model": line["model"],
                        "reported": line[column],
                        "measured": result.summary[metric],
                        "difference": result.summary[metric] - line[column],
                        "images": images_label(dataset, result),
                        "convention": result.convention,
                        "run": run,
                        "not_comparable": ", ".join(
                            [*_not_comparable(dataset, result), *reservations]
                        ),
                        "source": line["source"],
                        "confidence": line["confidence"],
                    }
                )
    columns = "dataset metric model reported measured difference images convention run not_comparable source confidence"
    return pd.DataFrame(rows, columns=columns.split())


def _published(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a table of published results ({error})."
        ) from error
    if absent := [column for column in columns if column not in frame.columns]:
        raise UserError(
            f"{path} lacks the column {', '.join(absent)}; it needs {', '.join(columns)}."
        )
    return frame


def _not_comparable(dataset: str, result: EvaluationResult) -> list[str]:
    reasons = []
    if result.synthetic:
        reasons.append("synthetic images")
    elif result.n != FULL_COUNTS.get(dataset, result.n):
        reasons.append(f"only {images_label(dataset, result)} images")
    if result.convention != "released":
        reasons.append(f"convention {result.convention}")
    return reasons


# --- files ------------------------------------------------------------------------------------------------------------


def write_json(results: Mapping[str, EvaluationResult], path: str | Path) -> Path:
    """Write ``{dataset: {metric: value, …, "per_image": {name: {metric: value}}}}``.

    Beside the metrics a set has ``n``, ``convention``, ``strict``, ``synthetic``,
    ``calibration_error``, ``ignored`` and ``dropped``. The file appears whole or not at all, and an
    older one stays until the new one is complete. NaN, which only ``strict`` can bring, becomes
    null.

    Returns:
        The path written.

    Raises:
        UserError: the file cannot be written there.
    """
    write_texts({Path(path): _as_json(results)})
    return Path(path)


def write_all(results: Mapping[str, EvaluationResult], folder: str | Path) -> list[Path]:
    """The same results as ``metrics.json``, ``metrics.csv``, ``metrics.md``, ``metrics.tex`` and
    ``per_image.csv``.

    The tables hold every metric: the CSV files with all digits, Markdown and LaTeX (booktabs) with
    three decimals and the notes on the data sets below. All five files appear, or none.

    Returns:
        The paths written.

    Raises:
        UserError: a file cannot be written there.
    """
    folder, frame, said = Path(folder), table(results), notes(results)
    per_image = pd.concat(
        [r.per_image.assign(dataset=name) for name, r in results.items()], ignore_index=True
    )
    per_image.insert(0, "dataset", per_image.pop("dataset"))
    shown = {"headers": "keys", "showindex": False, "floatfmt": ".3f", "disable_numparse": [1, 2]}
    markdown = [
        tabulate(frame.reset_index(), tablefmt="github", **shown),
        *(f"- {note}" for note in said),
    ]
    latex = [
        tabulate(frame.reset_index(), tablefmt="latex_booktabs", **shown),
        *(f"% {note}" for note in said),
    ]
    texts = {
        "metrics.json": _as_json(results),
        "metrics.csv": frame.to_csv(lineterminator="\n"),
        "metrics.md": "\n".join([markdown[0], "", *markdown[1:]]).rstrip() + "\n",
        "metrics.tex": "\n".join(latex) + "\n",
        "per_image.csv": per_image.to_csv(index=False, lineterminator="\n"),
    }
    write_texts({folder / name: text for name, text in texts.items()})
    return [folder / name for name in texts]


def read_per_image(path: str | Path) -> dict[str, pd.DataFrame]:
    """The values of each image from a file of :func:`write_json`: ``{data set: table with name and
    the metrics}``.

    Where the images are synthetic, the table's ``attrs["synthetic"]`` is True.

    Raises:
        UserError: the file is missing or of another kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        tables = {}
        for dataset, part in content.items():
            tables[dataset] = pd.DataFrame(
                [{"name": name, **values} for name, values in part["per_image"].items()]
            )
            tables[dataset].attrs["synthetic"] = bool(part.get("synthetic"))
        return tables
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a file that kdas evaluate wrote."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is not a file of results; give the metrics.json that kdas evaluate wrote."
        ) from error


def _as_json(results: Mapping[str, EvaluationResult]) -> str:
    content = {}
    for dataset, result in results.items():
        rows = result.per_image.to_dict("records")
        content[dataset] = {
            **_plain(result.summary),
            "n": result.n,
            "convention": result.convention,
            "strict": result.strict,
            "synthetic": result.synthetic,
            "calibration_error": result.calibration_error,
            "ignored": list(result.ignored),
            "dropped": list(result.dropped),
            "per_image": {row["name"]: _plain({m: row[m] for m in result.summary}) for row in rows},
        }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def metric_problems(metrics: Sequence[str], where: str) -> list[str]:
    """A sentence with the metrics that do not exist, or nothing."""
    unknown = [metric for metric in metrics if metric not in KNOWN]
    return (
        [f"{where} asks for the unknown metric {', '.join(unknown)}; known are {', '.join(KNOWN)}."]
        if unknown
        else []
    )


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them."""
    return {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write every file beside its target first and rename last, so that no reader sees half a file
    or half a set.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    path = next(iter(texts))
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_text(text, encoding="utf-8")
        for path in texts:
            os.replace(temporary[path], path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another place."
        ) from error
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)
