"""The released program's configuration file, read unchanged and carried out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kdas_book.files import refuse_foreign, write_together
from kdas_book.reports.tables import KNOWN, UNKNOWN, table
from kdas_core import UserError
from kdas_core.evaluation import SURFACE_METRICS, evaluate_sets, find_problems
from kdas_core.evaluation.files import Problems, benchmark
from kdas_core.evaluation.scores import DEFAULT

PATHS = ("gt_root", "pred_root", "result_path")
CONFIG_KEYS = (*PATHS, "datasets", "metrics")


def from_config(path: str | Path, *, surface: bool = False, **options):
    """Run the evaluation that an ``eval.yaml`` of the KDAS release describes, unchanged: ``Eval:
    {gt_root, pred_root, result_path, datasets: [...], metrics: [...]}``, with paths relative to the
    working directory. Writes into ``result_path``, all files or none:

    - ``result_NAME.csv`` for each data set, as there: a line a method (the last part of
      ``pred_root``), four decimals. An older line of the method is replaced, other lines stay.
    - ``result_all.csv``: one line a data set, of :func:`~kdas_book.reports.tables.table`.

    Options, errors and result are those of ``evaluate_sets``; a UserError says what is wrong.
    """
    config = read_config(path)
    metrics, preds = config["metrics"], config["pred_root"]
    surface = surface or any(metric in SURFACE_METRICS for metric in metrics)
    sets = preds, config["gt_root"], config["datasets"]
    results = evaluate_sets(*sets, surface=surface, **options)
    folder, method = Path(config["result_path"]), Path(preds).resolve().name
    file = folder / "result_all.csv"
    begin = b"dataset,n,images,convention"
    refuse_foreign(file, "table of kdas evaluate", lambda f: f.read_bytes().startswith(begin))
    texts = {file: table(results, metrics).to_csv(float_format="%.6f")}
    for dataset, result in results.items():
        file = folder / f"result_{dataset}.csv"
        numbers = {metric: f"{result.summary[metric]:.4f}" for metric in metrics}
        texts[file] = _released_csv(file, {"method": method, **numbers})
    write_together(texts)
    return results


def _released_csv(file: Path, row: Mapping[str, str]) -> str:
    """The text of ``result_NAME.csv``: the lines of other methods that are there, then this row."""
    before = pd.DataFrame(columns=list(row))
    if file.is_file() and file.stat().st_size:
        # The released program ends its lines with a comma.
        before = pd.read_csv(file, dtype=str, skipinitialspace=True, index_col=False)
        if list(before) != list(row):
            fact = f"{file} holds other columns ({', '.join(before)})"
            raise UserError(f"{fact}; move it away, or ask for the same metrics.")
    lines = pd.concat([before[before["method"] != row["method"]], pd.DataFrame([row])])
    return lines.to_csv(index=False, lineterminator="\n")


def read_config(path: str | Path) -> dict:
    """The content of ``Eval:``, or a UserError with all that is wrong with it and its images."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        fact = f"{path} cannot be read as YAML ({' '.join(str(error).split())})"
        raise UserError(f"{fact}; give an eval.yaml.") from error
    known = ", ".join(CONFIG_KEYS)
    if not isinstance(content, dict) or not isinstance(content.get("Eval"), dict):
        raise UserError(f"{path} has no section Eval; it must hold Eval: with {known}.")
    section, problems = content["Eval"], Problems()
    unknown = [str(key) for key in content if key != "Eval"]
    unknown += [f"Eval.{key}" for key in section if key not in CONFIG_KEYS]
    problems.about(unknown, f"{path} has the unknown key {{names}}; Eval knows {known}.")
    missing = [f"Eval.{key}" for key in CONFIG_KEYS if key not in section]
    problems.about(missing, f"{path} lacks {{names}}; all of {known} are required.")
    sound: dict[str, Any] = {}
    for key in (key for key in CONFIG_KEYS if key in section):
        kind, wanted = (str, "the path of a folder") if key in PATHS else (list, "a list of names")
        value = section[key]
        if isinstance(value, kind) and value and all(isinstance(part, str) for part in value):
            sound[key] = value
        else:
            problems.append(f"{path} has {value!r} as Eval.{key}; it must be {wanted}.")
    unknown = [metric for metric in sound.get("metrics", ()) if metric not in KNOWN]
    problems.about(unknown, f"{path} {UNKNOWN}")
    # Of a sound file the evaluation itself checks the images.
    if problems and {"pred_root", "gt_root", "datasets"} <= sound.keys():
        sets = benchmark(sound["pred_root"], sound["gt_root"], sound["datasets"])
        problems += find_problems(sets, DEFAULT)[1]
    problems.stop()
    return section
