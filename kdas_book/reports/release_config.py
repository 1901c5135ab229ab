"""The released program's configuration file, read unchanged and carried out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from kdas_book.reports.tables import metric_problems, table, write_texts
from kdas_core import UserError
from kdas_core.evaluation import SURFACE_METRICS, EvaluationResult, evaluate_sets, find_problems
from kdas_core.evaluation.conventions import convention as named
from kdas_core.evaluation.files import sentence

CONFIG_KEYS = ("gt_root", "pred_root", "result_path", "datasets", "metrics")


def from_config(
    path: str | Path,
    convention: str = "released",
    strict: bool = False,
    drop_repeats: bool = False,
    surface: bool = False,
    workers: int | None = None,
) -> dict[str, EvaluationResult]:
    """Run the evaluation that an ``eval.yaml`` of the KDAS release describes, unchanged.

    The file reads ``Eval: {gt_root, pred_root, result_path, datasets: [...], metrics: [...]}``, all
    five required. Predictions are ``pred_root/NAME/*.png``, masks ``gt_root/NAME/masks/*``.
    Relative paths are relative to the working directory, as there.

    Writes into ``result_path``, all files or none:

    - ``result_NAME.csv`` for each data set, as there: a line a method, four decimals, the columns
      ``method`` (the last part of ``pred_root``) and the metrics chosen, in the order of the file.
      A line of the same method is replaced and not written twice; lines of other methods stay.
    - ``result_all.csv``: one line a data set, with the columns ``dataset, n, images, convention``
      (see :func:`~kdas_book.reports.tables.table`) and the metrics chosen, six decimals; an older
      file is replaced.

    The other arguments are those of ``evaluate``.

    Returns:
        ``{data set: EvaluationResult}``, with every metric.

    Raises:
        UserError: the file is missing, is not such a file, or names a key or a metric that does not
            exist; whatever is wrong with the images. All problems come at once.
    """
    config = read_config(path)
    surface = surface or any(metric in SURFACE_METRICS for metric in config["metrics"])
    sets = config["pred_root"], config["gt_root"], config["datasets"]
    results = evaluate_sets(
        *sets, convention, strict, surface, drop_repeats=drop_repeats, workers=workers
    )
    folder, method = Path(config["result_path"]), Path(config["pred_root"]).resolve().name
    texts = {
        folder / "result_all.csv": table(results, config["metrics"]).to_csv(float_format="%.6f")
    }
    for dataset, result in results.items():
        file = folder / f"result_{dataset}.csv"
        texts[file] = _released_csv(
            file, method, {m: f"{result.summary[m]:.4f}" for m in config["metrics"]}
        )
    write_texts(texts)
    return results


def _released_csv(file: Path, method: str, numbers: Mapping[str, str]) -> str:
    """The text of ``result_NAME.csv`` with this method's line in it, after the lines that are there
    of other methods.
    """
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
    return "".join(
        ",".join(cells) + "\n" for cells in [header, *lines, [method, *numbers.values()]]
    )


def read_config(path: str | Path) -> dict:
    """The checked content of ``Eval:``: three paths and two lists of names, see
    :func:`from_config`.

    Raises:
        UserError: with everything that is wrong with the file, and with the images as far as it
            says where they are.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give the path of an eval.yaml."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not valid YAML ({' '.join(str(error).split())}); mend that line."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("Eval"), dict):
        raise UserError(
            f"{path} has no section Eval; it must hold Eval: with {', '.join(CONFIG_KEYS)}."
        )
    if problems := _config_problems(content, str(path)):
        raise UserError(sentence(problems + _image_problems(content["Eval"])))
    return content["Eval"]


def _config_problems(content: dict, path: str) -> list[str]:
    section, problems = content["Eval"], []
    unknown = [
        *(f"{k}" for k in content if k != "Eval"),
        *(f"Eval.{k}" for k in section if k not in CONFIG_KEYS),
    ]
    if unknown:
        problems.append(
            f"{path} has the unknown key {', '.join(unknown)}; Eval knows {', '.join(CONFIG_KEYS)}."
        )
    if missing := [key for key in CONFIG_KEYS if key not in section]:
        problems.append(
            f"{path} lacks Eval.{', Eval.'.join(missing)}; all of {', '.join(CONFIG_KEYS)} are required."
        )
    for key in ("gt_root", "pred_root", "result_path"):
        if key in section and not _is_path(section[key]):
            problems.append(
                f"{path} has {section[key]!r} as Eval.{key}; it must be the path of a folder."
            )
    for key in ("datasets", "metrics"):
        if key in section and not _is_names(section[key]):
            problems.append(
                f"{path} has {section[key]!r} as Eval.{key}; it must be a list of names."
            )
    if _is_names(section.get("metrics")):
        problems += metric_problems(section["metrics"], path)
    return problems


def _image_problems(section: dict) -> list[str]:
    """What is wrong with the images, where a faulty file says at least where they are."""
    if not (
        all(_is_path(section.get(key)) for key in ("pred_root", "gt_root"))
        and _is_names(section.get("datasets"))
    ):
        return []
    preds, truths = Path(section["pred_root"]), Path(section["gt_root"])
    plan = {name: (preds / name, truths / name / "masks") for name in section["datasets"]}
    return find_problems(plan, (preds, truths), named("released"))[2]


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
