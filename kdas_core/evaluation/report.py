"""Results as tables and files, and the ledger of reported and measured numbers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml
from tabulate import tabulate

from kdas_core import UserError
from kdas_core.data.pairs import FULL_COUNTS
from kdas_core.evaluation import ALL_METRICS, METRICS, SURFACE_METRICS, EvaluationResult, evaluate_sets, find_problems
from kdas_core.evaluation.conventions import convention as named
from kdas_core.evaluation.matching import sentence

CONFIG_KEYS = ("gt_root", "pred_root", "result_path", "datasets", "metrics")
KNOWN = (*ALL_METRICS, *SURFACE_METRICS)

CAVEATS = {
    "CVC-300": "Its 60 frames are also frames of CVC-ColonDB, so the two sets do not confirm each other.",
    "CVC-ClinicDB": "The videos behind its 62 frames also occur among the training images, so it tests memory as well.",
    "CVC-ColonDB": "Frames of a few videos, among them the 60 of CVC-300 and 34 exact repeats: less evidence than 380 images.",
    "ETIS-LaribPolypDB": "Frames of a few videos: less evidence than 196 images.",
}
"""What a reader of a number on these sets must know; said next to the numbers. Chapter 1 shows it."""


# --- tables -----------------------------------------------------------------------------------------------------------


def images_label(dataset: str, result: EvaluationResult) -> str:
    """How many images a row stands for, in words: ``"20 of 196"``, ``"16 synthetic"``, ``"346 of 380, no repeats"``.

    Only the five test sets of PraNet have a known full size; of any other set, the plain count is given.
    """
    if result.synthetic:
        return f"{result.n} synthetic"
    full = FULL_COUNTS.get(dataset, result.n + len(result.dropped))
    label = str(result.n) if result.n == full else f"{result.n} of {full}"
    return f"{label}, no repeats" if result.dropped else label


def table(results: Mapping[str, EvaluationResult], metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """One row a data set.

    Args:
        results: ``{data set: EvaluationResult}``.
        metrics: the columns wanted; all that were measured if left out.

    Returns:
        Index ``dataset``; columns ``n`` (int), ``images`` (see :func:`images_label`), ``convention``, then the metrics,
        unrounded.

    Raises:
        UserError: a metric of another name, or one that was not measured.
    """
    measured = [m for m in KNOWN if all(m in result.summary for result in results.values())]
    if metrics is not None:
        if problems := _metric_problems(metrics, "The table"):
            raise UserError(sentence(problems))
        if absent := [m for m in metrics if m not in measured]:
            raise UserError(f"{', '.join(absent)} was not measured; evaluate with surface=True (--surface).")
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
    """What must be said next to the numbers of these sets, a sentence each; nothing about synthetic ones."""
    return [f"{name}: {CAVEATS[name]}" for name, r in results.items() if name in CAVEATS and not r.synthetic]


def verbose_table(results: Mapping[str, EvaluationResult], metrics: Sequence[str] = METRICS) -> str:
    """The table that the released program prints: a line a data set, three decimals; below it what we add.

    Added are the images that each line stands for, the convention, and :func:`notes`.
    """
    frame = table(results, metrics)
    text = tabulate(frame[list(metrics)].reset_index(), headers="keys", showindex=False, floatfmt=".3f")
    counts = "; ".join(f"{name} {label}" for name, label in frame["images"].items())
    conventions = ", ".join(dict.fromkeys(frame["convention"]))
    return "\n".join([text, "", f"Images: {counts}.", f"Convention: {conventions}.", *notes(results)])


def comparison_table(compared: pd.DataFrame) -> str:
    """What ``statistics.compare`` found, for a terminal: three decimals, and two digits of a p-value however small."""
    small = [name for name in ("p", "p_holm") if name in compared]
    frame = compared.assign(**{name: compared[name].map("{:.2g}".format) for name in small}).reset_index()
    as_they_are = [frame.columns.get_loc(name) for name in small]
    return tabulate(frame, headers="keys", showindex=False, floatfmt=".3f", disable_numparse=as_they_are)


def ledger(
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
        published: a CSV file with the columns ``model, dataset, mean_dice, mean_iou, mae, source, confidence``, empty
            where a number was not reported; the book keeps one in ``book/results/published_results.csv``.
        model: only rows of this model.
        reservations: what else keeps this run from being compared, such as ``"other networks"``; results alone cannot tell.

    Returns:
        One row for each reported number on a data set that was measured: ``dataset, metric, model, reported, measured,
        difference`` (measured − reported), ``images, convention, run, not_comparable`` (why the difference must not be
        read as one: a part of the set, synthetic images, another convention, a reservation; empty if there is no such reason),
        ``source, confidence``. ``mean_dice`` and ``mean_iou`` stand for ``meanDic`` and ``meanIoU``.

    Raises:
        UserError: the file is missing or lacks a column; no row of this model.
    """
    names = {"meanDic": "mean_dice", "meanIoU": "mean_iou", "mae": "mae"}
    reported = _published(Path(published), ("model", "dataset", *names.values(), "source", "confidence"))
    if model is not None and model not in set(reported["model"]):
        raise UserError(f"{published} has no row of the model {model}; it has {', '.join(reported['model'].unique())}.")
    rows = []
    for dataset, result in results.items():
        lines = reported[(reported["dataset"] == dataset) & (reported["model"] == (model or reported["model"]))]
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
                        "not_comparable": ", ".join([*_not_comparable(dataset, result), *reservations]),
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
        raise UserError(f"{path} cannot be read as a table of published results ({error}).") from error
    if absent := [column for column in columns if column not in frame.columns]:
        raise UserError(f"{path} lacks the column {', '.join(absent)}; it needs {', '.join(columns)}.")
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

    Beside the metrics a set has ``n``, ``convention``, ``strict``, ``synthetic``, ``calibration_error``, ``ignored`` and ``dropped``.
    The file appears whole or not at all, and an older one stays until the new one is complete. NaN, which only
    ``strict`` can bring, becomes null.

    Returns:
        The path written.

    Raises:
        UserError: the file cannot be written there.
    """
    _write_whole({Path(path): _as_json(results)})
    return Path(path)


def write_all(results: Mapping[str, EvaluationResult], folder: str | Path) -> list[Path]:
    """The same results as ``metrics.json``, ``metrics.csv``, ``metrics.md``, ``metrics.tex`` and ``per_image.csv``.

    The tables hold every metric: the CSV files with all digits, Markdown and LaTeX (booktabs) with three decimals and the
    notes on the data sets below. All five files appear, or none.

    Returns:
        The paths written.

    Raises:
        UserError: a file cannot be written there.
    """
    folder, frame, said = Path(folder), table(results), notes(results)
    per_image = pd.concat([r.per_image.assign(dataset=name) for name, r in results.items()], ignore_index=True)
    per_image.insert(0, "dataset", per_image.pop("dataset"))
    shown = {"headers": "keys", "showindex": False, "floatfmt": ".3f", "disable_numparse": [1, 2]}
    markdown = [tabulate(frame.reset_index(), tablefmt="github", **shown), *(f"- {note}" for note in said)]
    latex = [tabulate(frame.reset_index(), tablefmt="latex_booktabs", **shown), *(f"% {note}" for note in said)]
    texts = {
        "metrics.json": _as_json(results),
        "metrics.csv": frame.to_csv(lineterminator="\n"),
        "metrics.md": "\n".join([markdown[0], "", *markdown[1:]]).rstrip() + "\n",
        "metrics.tex": "\n".join(latex) + "\n",
        "per_image.csv": per_image.to_csv(index=False, lineterminator="\n"),
    }
    _write_whole({folder / name: text for name, text in texts.items()})
    return [folder / name for name in texts]


def read_per_image(path: str | Path) -> dict[str, pd.DataFrame]:
    """The values of each image from a file of :func:`write_json`: ``{data set: table with name and the metrics}``.

    Where the images are synthetic, the table's ``attrs["synthetic"]`` is True.

    Raises:
        UserError: the file is missing or of another kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        tables = {}
        for dataset, part in content.items():
            tables[dataset] = pd.DataFrame([{"name": name, **values} for name, values in part["per_image"].items()])
            tables[dataset].attrs["synthetic"] = bool(part.get("synthetic"))
        return tables
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that kdas evaluate wrote.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a file of results; give the metrics.json that kdas evaluate wrote.") from error


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


# --- the released program's configuration -----------------------------------------------------------------------------


def from_config(
    path: str | Path,
    convention: str = "released",
    strict: bool = False,
    drop_repeats: bool = False,
    surface: bool = False,
    workers: int | None = None,
) -> dict[str, EvaluationResult]:
    """Run the evaluation that an ``eval.yaml`` of the KDAS release describes, unchanged.

    The file reads ``Eval: {gt_root, pred_root, result_path, datasets: [...], metrics: [...]}``, all five required.
    Predictions are ``pred_root/NAME/*.png``, masks ``gt_root/NAME/masks/*``. Relative paths are relative to the working
    directory, as there.

    Writes into ``result_path``, all files or none:

    - ``result_NAME.csv`` for each data set, as there: a line a method, four decimals, the columns ``method`` (the last
      part of ``pred_root``) and the metrics chosen, in the order of the file. A line of the same method is replaced and
      not written twice; lines of other methods stay.
    - ``result_all.csv``: one line a data set, with the columns ``dataset, n, images, convention`` (see :func:`table`)
      and the metrics chosen, six decimals; an older file is replaced.

    The other arguments are those of ``evaluate``.

    Returns:
        ``{data set: EvaluationResult}``, with every metric.

    Raises:
        UserError: the file is missing, is not such a file, or names a key or a metric that does not exist; whatever is
            wrong with the images. All problems come at once.
    """
    config = read_config(path)
    surface = surface or any(metric in SURFACE_METRICS for metric in config["metrics"])
    sets = config["pred_root"], config["gt_root"], config["datasets"]
    results = evaluate_sets(*sets, convention, strict, surface, drop_repeats=drop_repeats, workers=workers)
    folder, method = Path(config["result_path"]), Path(config["pred_root"]).resolve().name
    texts = {folder / "result_all.csv": table(results, config["metrics"]).to_csv(float_format="%.6f")}
    for dataset, result in results.items():
        file = folder / f"result_{dataset}.csv"
        texts[file] = _released_csv(file, method, {m: f"{result.summary[m]:.4f}" for m in config["metrics"]})
    _write_whole(texts)
    return results


def _released_csv(file: Path, method: str, numbers: Mapping[str, str]) -> str:
    """The text of ``result_NAME.csv`` with this method's line in it, after the lines that are there of other methods."""
    header = ["method", *numbers]
    lines = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.split(",")]
            while cells and not cells[-1]:  # the released program ends its lines with a comma
                cells.pop()
            lines += [cells] if cells else []
        if lines and lines[0] != header:
            raise UserError(
                f"{file} holds other columns ({', '.join(lines[0])}); move it away, or ask for the same metrics."
            )
        lines = [cells for cells in lines[1:] if cells[0] != method]
    return "".join(",".join(cells) + "\n" for cells in [header, *lines, [method, *numbers.values()]])


def read_config(path: str | Path) -> dict:
    """The checked content of ``Eval:``: three paths and two lists of names, see :func:`from_config`.

    Raises:
        UserError: with everything that is wrong with the file, and with the images as far as it says where they are.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of an eval.yaml.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}); mend that line.") from error
    if not isinstance(content, dict) or not isinstance(content.get("Eval"), dict):
        raise UserError(f"{path} has no section Eval; it must hold Eval: with {', '.join(CONFIG_KEYS)}.")
    if problems := _config_problems(content, str(path)):
        raise UserError(sentence(problems + _image_problems(content["Eval"])))
    return content["Eval"]


def _config_problems(content: dict, path: str) -> list[str]:
    section, problems = content["Eval"], []
    unknown = [*(f"{k}" for k in content if k != "Eval"), *(f"Eval.{k}" for k in section if k not in CONFIG_KEYS)]
    if unknown:
        problems.append(f"{path} has the unknown key {', '.join(unknown)}; Eval knows {', '.join(CONFIG_KEYS)}.")
    if missing := [key for key in CONFIG_KEYS if key not in section]:
        problems.append(f"{path} lacks Eval.{', Eval.'.join(missing)}; all of {', '.join(CONFIG_KEYS)} are required.")
    for key in ("gt_root", "pred_root", "result_path"):
        if key in section and not _is_path(section[key]):
            problems.append(f"{path} has {section[key]!r} as Eval.{key}; it must be the path of a folder.")
    for key in ("datasets", "metrics"):
        if key in section and not _is_names(section[key]):
            problems.append(f"{path} has {section[key]!r} as Eval.{key}; it must be a list of names.")
    if _is_names(section.get("metrics")):
        problems += _metric_problems(section["metrics"], path)
    return problems


def _image_problems(section: dict) -> list[str]:
    """What is wrong with the images, where a faulty file says at least where they are."""
    if not (all(_is_path(section.get(key)) for key in ("pred_root", "gt_root")) and _is_names(section.get("datasets"))):
        return []
    preds, truths = Path(section["pred_root"]), Path(section["gt_root"])
    plan = {name: (preds / name, truths / name / "masks") for name in section["datasets"]}
    return find_problems(plan, (preds, truths), named("released"))[2]


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _metric_problems(metrics: Sequence[str], where: str) -> list[str]:
    unknown = [metric for metric in metrics if metric not in KNOWN]
    return (
        [f"{where} asks for the unknown metric {', '.join(unknown)}; known are {', '.join(KNOWN)}."] if unknown else []
    )


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them."""
    return {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}


def _write_whole(texts: Mapping[Path, str]) -> None:
    """Write every file beside its target first and rename last, so that no reader sees half a file or half a set."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    path = next(iter(texts))
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_text(text, encoding="utf-8")
        for path in texts:
            os.replace(temporary[path], path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place.") from error
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)
