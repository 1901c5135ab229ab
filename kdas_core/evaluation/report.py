"""Results as tables and files: a pandas table, metrics.json, and the CSV that a released ``eval.yaml`` asks for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from kdas_core import UserError
from kdas_core.data.pairs import FULL_COUNTS
from kdas_core.evaluation.metrics import ALL_METRICS

if TYPE_CHECKING:
    from kdas_core.evaluation import EvaluationResult

CONFIG_KEYS = ("gt_root", "pred_root", "result_path", "datasets", "metrics")


def images_label(dataset: str, result: EvaluationResult) -> str:
    """How many images a row stands for, in words: ``"20 of 196"``, ``"16 synthetic"``, ``"100"``.

    Only the five test sets of PraNet have a known full size; of any other set, the plain count is given.
    """
    if result.synthetic:
        return f"{result.n} synthetic"
    full = FULL_COUNTS.get(dataset, result.n)
    return str(result.n) if result.n == full else f"{result.n} of {full}"


def table(results: Mapping[str, EvaluationResult], metrics: Sequence[str] = ALL_METRICS) -> pd.DataFrame:
    """One row a data set.

    Args:
        results: ``{data set: EvaluationResult}``.
        metrics: the columns wanted, names from ``ALL_METRICS``.

    Returns:
        Index ``dataset``; columns ``n`` (int), ``images`` (see :func:`images_label`), ``prediction`` (``"as saved"`` or
        ``"min–max"``), then the metrics, unrounded.

    Raises:
        UserError: a metric of another name.
    """
    _check_metrics(metrics, "The table")
    rows = [
        {
            "n": result.n,
            "images": images_label(dataset, result),
            "prediction": result.convention,
            **{metric: result.summary[metric] for metric in metrics},
        }
        for dataset, result in results.items()
    ]
    return pd.DataFrame(
        rows,
        columns=["n", "images", "prediction", *metrics],
        index=pd.Index(list(results), name="dataset", dtype=object),
    )


def write_json(results: Mapping[str, EvaluationResult], path: str | Path) -> Path:
    """Write ``{dataset: {metric: value, …, "n": int, "minmax": bool, "per_image": {name: {metric: value}}}}``.

    The file appears whole or not at all, and an older one stays until the new one is complete. NaN, which only
    ``strict`` can bring, becomes null.

    Returns:
        The path written.

    Raises:
        UserError: the file cannot be written there.
    """
    content = {}
    for dataset, result in results.items():
        rows = result.per_image.to_dict("records")
        per_image = {row["name"]: _plain({metric: row[metric] for metric in ALL_METRICS}) for row in rows}
        content[dataset] = {**_plain(result.summary), "n": result.n, "minmax": result.minmax, "per_image": per_image}
    return _write_whole(Path(path), json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def from_config(
    path: str | Path, minmax: bool = False, strict: bool = False, processes: int = 1
) -> dict[str, EvaluationResult]:
    """Run the evaluation that an ``eval.yaml`` of the KDAS release describes, unchanged.

    The file reads ``Eval: {gt_root, pred_root, result_path, datasets: [...], metrics: [...]}``, all five required.
    Predictions are ``pred_root/NAME/*.png``, masks ``gt_root/NAME/masks/*``. Relative paths are relative to the working
    directory, as there.

    Writes ``result_path/result_all.csv``: one line a data set, with the columns ``dataset, n, images, prediction`` (see
    :func:`table`) and the metrics chosen, in the order of the file, six decimals; an older file is replaced.

    Returns:
        ``{data set: EvaluationResult}``, with every metric.

    Raises:
        UserError: the file is missing, is not such a file, or names a key or a metric that does not exist; whatever
            ``evaluate_sets`` finds wrong with the images.
    """
    from kdas_core.evaluation import evaluate_sets  # here, since the package imports this module

    config = read_config(path)
    results = evaluate_sets(
        config["pred_root"], config["gt_root"], config["datasets"], minmax=minmax, strict=strict, processes=processes
    )
    text = table(results, config["metrics"]).to_csv(float_format="%.6f", lineterminator="\n")
    _write_whole(Path(config["result_path"]) / "result_all.csv", text)
    return results


def read_config(path: str | Path) -> dict:
    """The checked content of ``Eval:``: three paths and two lists of names, see :func:`from_config`."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of an eval.yaml.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}); mend that line.") from error
    if not isinstance(content, dict) or not isinstance(content.get("Eval"), dict):
        raise UserError(f"{path} has no section Eval; it must hold Eval: with {', '.join(CONFIG_KEYS)}.")
    section = content["Eval"]
    if unknown := [
        *(f"{key}" for key in content if key != "Eval"),
        *(f"Eval.{k}" for k in section if k not in CONFIG_KEYS),
    ]:
        raise UserError(f"{path} has the unknown key {', '.join(unknown)}; Eval knows {', '.join(CONFIG_KEYS)}.")
    if missing := [key for key in CONFIG_KEYS if key not in section]:
        raise UserError(f"{path} lacks Eval.{', Eval.'.join(missing)}; all of {', '.join(CONFIG_KEYS)} are required.")
    for key in ("gt_root", "pred_root", "result_path"):
        if not isinstance(section[key], str) or not section[key]:
            raise UserError(f"{path} has {section[key]!r} as Eval.{key}; it must be the path of a folder.")
    for key in ("datasets", "metrics"):
        value = section[key]
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise UserError(f"{path} has {value!r} as Eval.{key}; it must be a list of names.")
    _check_metrics(section["metrics"], str(path))
    return section


def _check_metrics(metrics: Sequence[str], where: str) -> None:
    if unknown := [metric for metric in metrics if metric not in ALL_METRICS]:
        raise UserError(
            f"{where} asks for the unknown metric {', '.join(unknown)}; known are {', '.join(ALL_METRICS)}."
        )


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON has them."""
    return {name: None if math.isnan(value) else float(value) for name, value in numbers.items()}


def _write_whole(path: Path, text: str) -> Path:
    """Write beside the target first and rename, which no reader can see half done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
