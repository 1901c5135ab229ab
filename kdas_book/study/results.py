"""What a study found, as tables: collected from the folders of its cells, kept in four small files
(``NAME.csv``, ``NAME_images.csv.gz``, ``NAME_curves.csv.gz``, ``NAME.json``), read again from them.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdas_book.study.spec import FILES, Study, read_record, read_study
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.evaluation import METRICS
from kdas_core.files import atomic_write

KEYS = ["objective", "seed"]


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of a study.

    Attributes:
        scores: a row a training run and test set: ``objective`` (the label), ``seed``, ``dataset``,
            ``n_images``, the metrics, and what :func:`_rows` adds.
        images: means over the seeds, a row a label and image: ``objective, dataset, name, share,
            dice, iou, dice_last, agreement``.
        curves: ``objective, seed`` and the columns of a run's ``history.csv``.
        about: what was run, on what, with what; :func:`_about` lists it.
    """

    name: str
    scores: pd.DataFrame
    images: pd.DataFrame
    curves: pd.DataFrame
    about: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """The students' labels, in the study's order."""
        return [label for label in self.about["recipes"] if label != "teacher"]

    @property
    def datasets(self) -> list[str]:
        """The test sets, in the order of the study."""
        return list(self.scores["dataset"].unique())

    @property
    def completeness(self) -> str:
        """Empty for a whole study, else what a table of it must say."""
        planned, finished = self.about["planned"], self.about["finished"]
        return "" if planned == finished else f"partial: {finished} of {planned} trainings"

    def images_of(self, dataset: str) -> str:
        """``"20 of 196"``, ``"8 synthetic"``, ``"100"``: what a number of this set stands for."""
        count = int(self.scores.loc[self.scores["dataset"] == dataset, "n_images"].iloc[0])
        if self.about["data"]["synthetic"]:
            return f"{count} synthetic"
        full = FULL_COUNTS.get(dataset, count)
        return str(count) if count == full else f"{count} of {full}"


def say_raw_guiding(results: Results) -> Results:
    """The same results; a label that guides the raw second maps says so. Records from before the
    hyperparameter ``guide`` lack it, and guided the raw maps.
    """
    recipes = results.about["recipes"]
    told = {
        label: f"{label} (raw guiding)"
        for label, recipe in recipes.items()
        if recipe.get("objective") in ("kdas", "symmetric_only")
        and recipe.get("guide", "raw") == "raw"
    }
    tables = (results.scores, results.images, results.curves)
    scores, images, curves = (t.assign(objective=t["objective"].replace(told)) for t in tables)
    named = {told.get(label, label): recipe for label, recipe in recipes.items()}
    return Results(results.name, scores, images, curves, results.about | {"recipes": named})


def collect(folder: str | Path) -> Results:
    """The tables of a study's folder.

    Raises:
        UserError: not a study's folder, no student has finished, a record is cut short, or cells
            that cannot stand in one table: another convention, teacher, data or test images.
    """
    return _collect(Path(folder))[0]


def _collect(folder: Path) -> tuple[Results, pd.DataFrame]:
    """The results, and the images' rows of every seed."""
    study = read_study(folder / "study.yaml")
    records = _records(study, folder)
    _refuse_mixtures(list(records.values()))
    scores = pd.DataFrame([row for record in records.values() for row in _rows(record)])
    images = _tables(folder, records, "per_image.csv")
    curves = _tables(folder, records, "history.csv")
    about = _about(study, records)
    return Results(study.name, scores, _means(images), curves, about), images


def _records(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    there = [cell.name for cell in study.cells() if (folder / cell.name / "metrics.json").exists()]
    wanted = [f"{name}/{file}" for name in there for file in FILES]
    if missing := [file for file in wanted if not (folder / file).is_file()]:
        raise UserError(f"{folder} lacks {', '.join(missing)}; run the study again.")
    if not set(there) - {"teacher"}:
        raise UserError(f'{folder} has no finished training yet; "kdas study run" makes some.')
    return {name: read_record(folder / name) for name in there}


def _refuse_mixtures(records: list[dict[str, Any]]) -> None:
    """What stands in one table must have been measured in one way."""
    facts = {
        "the convention": [r["convention"] for r in records],
        "the numbers of test images": [
            tuple((name, s["n"]) for name, s in sorted(r["sets"].items())) for r in records
        ],
        "the teacher": [r["teacher"][:12] for r in records],
        "the data": [tuple(sorted(r["data"].items())) for r in records],
    }
    for what, values in facts.items():
        odd = Counter(values).most_common()[-1][0]
        cells = [f"{r['label']}-seed{r['seed']}" for r, v in zip(records, values) if v == odd]
        if len(cells) < len(records):
            differ = f"{what} of {', '.join(cells)} differs from that of the others"
            raise UserError(f"These cells do not belong into one table: {differ}.")


def _rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of ``scores`` for each test set."""
    kept = ("validation_dice", "best_epoch", "epochs", "minutes", "revision")
    for name, scores in record["sets"].items():
        yield {
            "objective": record["label"],
            "seed": record["seed"],
            "dataset": name,
            "n_images": scores["n"],
            **{metric: scores["best"][metric] for metric in ("dice", "iou", *METRICS)},
            "dice_last": scores["last"]["dice"],
            "agreement": scores["agreement"],
            **{key: record[key] for key in kept},
        }


def _tables(folder: Path, records: Mapping[str, Mapping], file: str) -> pd.DataFrame:
    """This file of all cells, with the cells' label and seed in front."""
    tables = {}
    for name, record in records.items():
        try:
            table = pd.read_csv(folder / name / file, dtype={"name": str})
        except pd.errors.EmptyDataError:  # a released teacher has no history
            continue
        tables[record["label"], record["seed"]] = table
    return pd.concat(tables, names=KEYS).reset_index(KEYS).reset_index(drop=True)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds, image by image; a UserError if not all cells have the same images."""
    image = ["dataset", "name"]
    images = None
    for (label, _), part in rows.groupby(KEYS, sort=False):
        names = part[image].reset_index(drop=True)
        if not names.equals(names if images is None else images):
            other = f"The images of {label} are not those of the other cells"
            raise UserError(f"{other}, so they cannot be compared.")
        images = names
    columns = {"share": "first"} | dict.fromkeys(("dice", "iou", "dice_last", "agreement"), "mean")
    return rows.groupby(["objective", *image], sort=False).agg(columns).reset_index()


def _about(study: Study, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first = next(record for name, record in records.items() if name != "teacher")
    teacher = records.get("teacher", {})
    recipes: dict[str, dict] = {}
    for record in records.values():  # the seed is not part of a label's recipe
        recipes.setdefault(record["label"], record["recipe"] | {"seed": None})
    return {
        "planned": len(study.cells()) - 1,
        "finished": len(records.keys() - {"teacher"}),
        "preset": study.preset,
        "recipes": recipes,
        "parameters": {"student": first["parameters"], "teacher": teacher.get("parameters")},
        "macs": {"student": first["macs"], "teacher": teacher.get("macs")},
        "hardware": sorted({record["hardware"] for record in records.values()}),
        **{key: first[key] for key in ("convention", "versions", "data", "teacher")},
    }


def keep(folder: str | Path, out: str | Path) -> list[Path]:
    """Write ``out/<name>_study.csv`` and its companions; the same results are the same bytes."""
    results, images = _collect(Path(folder))
    texts = {
        ".csv": results.scores.to_csv(index=False, float_format="%.6f"),
        "_images.csv.gz": images.to_csv(index=False, float_format="%.4f"),
        "_curves.csv.gz": results.curves.to_csv(index=False, float_format="%.5f"),
        ".json": json.dumps(results.about, indent=1) + "\n",
    }
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{results.name}_study{end}" for end in texts]
    for file, text in zip(files, texts.values()):
        data = text.encode()
        atomic_write(file, gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)
    return files


def load(csv: str | Path) -> Results:
    """The results that :func:`keep` wrote, from ``<name>_study.csv`` and its companions beside it;
    a UserError if one of them is missing or cannot be read.
    """
    csv = Path(csv)
    stem = csv.with_suffix("")
    try:
        scores = pd.read_csv(csv)
        images = pd.read_csv(f"{stem}_images.csv.gz", dtype={"name": str})
        curves = pd.read_csv(f"{stem}_curves.csv.gz")
        about = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{csv} and its companions cannot be read ({error}); kdas study report writes them."
        ) from error
    name = csv.stem.removesuffix("_study")
    return say_raw_guiding(Results(name, scores, _means(images), curves, about))


def open_results(path: str | Path) -> Results:
    """From a study's folder, or from the files that :func:`keep` wrote."""
    return say_raw_guiding(collect(path)) if Path(path).is_dir() else load(path)
