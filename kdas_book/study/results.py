"""What a study found, as tables: collected from the folders of its cells, kept in four small files
(``NAME.csv``, ``NAME_images.csv.gz``, ``NAME_curves.csv.gz``, ``NAME.json``), read again from them.
A fifth, ``NAME_cells.zip``, has the students' records: a study goes on from it elsewhere.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pandas as pd

from kdas_book.files import write_together
from kdas_book.reports.tables import images_label
from kdas_book.study.spec import FILES, Study, read_record, read_study
from kdas_core import UserError
from kdas_core.evaluation import METRICS
from kdas_core.files import unwritten

KEYS = ["objective", "seed"]


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of a study; in all of them ``objective`` is the label of the study file."""

    name: str
    scores: pd.DataFrame  # a row a training run and test set, as _scores makes it
    images: pd.DataFrame  # a row a training run and image: share of the polyp, Dice, IoU, ...
    curves: pd.DataFrame  # a row a training run and epoch: the columns of its history.csv
    about: dict[str, Any]  # what was run, on what, with what, as _about lists it

    @cached_property
    def image_means(self) -> pd.DataFrame:
        """Means over the seeds, a row a label and image."""
        columns = dict.fromkeys(("dice", "iou", "dice_last", "agreement"), "mean")
        columns |= {name: "first" for name in ("share", "repeat") if name in self.images}
        by_image = self.images.groupby(["objective", "dataset", "name"], sort=False)
        return by_image.agg(columns).reset_index()

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
        counts = self.scores.loc[self.scores["dataset"] == dataset, "n_images"]
        return images_label(dataset, int(counts.iloc[0]), self.about["data"]["synthetic"])


def open_results(path: str | Path) -> Results:
    """From a study's folder, or from the files that :func:`keep` wrote."""
    return say_raw_guiding(collect(path)) if Path(path).is_dir() else load(path)


def say_raw_guiding(results: Results) -> Results:
    """The same results; a label says if it guided raw maps, as all did that lack ``guide``."""
    recipes = results.about["recipes"]
    told = {
        label: f"{label} (raw guiding)"
        for label, recipe in recipes.items()
        if recipe.get("objective") in ("kdas", "symmetric_only")
        and recipe.get("guide", "raw") == "raw"
        and "_raw" not in label
    }
    tables = (results.scores, results.images, results.curves)
    scores, images, curves = (t.assign(objective=t["objective"].replace(told)) for t in tables)
    named = {told.get(label, label): recipe for label, recipe in recipes.items()}
    return Results(results.name, scores, images, curves, results.about | {"recipes": named})


def collect(folder: str | Path) -> Results:
    """The tables of a study's folder. A UserError if it is none, no student has finished, a record
    is cut short, or cells cannot stand in one table (another convention, teacher, data, images).
    """
    folder = Path(folder)
    study = read_study(folder / "study.yaml")
    there = [cell.name for cell in study.cells() if (folder / cell.name / "metrics.json").exists()]
    wanted = [f"{name}/{file}" for name in there for file in FILES]
    if missing := [file for file in wanted if not (folder / file).is_file()]:
        raise UserError(f"{folder} lacks {', '.join(missing)}; run the study again.")
    if not set(there) - {"teacher"}:
        raise UserError(f'{folder} has no finished training yet; "kdas study run" makes some.')
    records = {name: read_record(folder / name) for name in there}
    images, curves = (_stacked(folder, records, file) for file in ("per_image.csv", "history.csv"))
    _refuse_mixtures(list(records.values()), images)
    return Results(study.name, _scores(records), images, curves, _about(study, records))


def _refuse_mixtures(records: list[dict[str, Any]], images: pd.DataFrame) -> None:
    """What stands in one table must have been measured in one way."""
    by_cell = images.groupby(KEYS, sort=False)[["dataset", "name"]]
    facts = {
        "the convention": [r["convention"] for r in records],
        "the numbers of test images": [
            sorted((name, of_set["n"]) for name, of_set in r["sets"].items()) for r in records
        ],
        "the teacher": [r["teacher"][:12] for r in records],
        "the data": [sorted(r["data"].items()) for r in records],
        "the names of test images": [names.to_numpy().tolist() for _, names in by_cell],
    }
    for what, values in facts.items():
        texts = [str(value) for value in values]
        odd = Counter(texts).most_common()[-1][0]
        cells = [f"{r['label']}-seed{r['seed']}" for r, text in zip(records, texts) if text == odd]
        if len(cells) < len(records):
            differ = f"{what} of {', '.join(cells)} differs from that of the others"
            raise UserError(f"These cells do not belong into one table: {differ}.")


def _scores(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    kept = ("validation_dice", "best_epoch", "epochs", "minutes", "revision")
    return pd.DataFrame(
        {
            "objective": record["label"],
            "seed": record["seed"],
            "dataset": name,
            "n_images": of_set["n"],
            **{metric: of_set["best"][metric] for metric in ("dice", "iou", *METRICS)},
            "dice_last": of_set["last"]["dice"],
            "agreement": of_set["agreement"],
            "calibration_error": of_set.get("calibration_error"),
            "false_alarms": record.get("false_alarms"),
            **{key: record[key] for key in kept},
        }
        for record in records.values()
        for name, of_set in record["sets"].items()
    )


def _stacked(folder: Path, records: Mapping[str, Mapping], file: str) -> pd.DataFrame:
    """This file of all cells, with the cells' label and seed in front."""
    tables = {}
    for name, record in records.items():
        key = record["label"], record["seed"]
        with suppress(pd.errors.EmptyDataError):  # a released teacher has no history
            tables[key] = pd.read_csv(folder / name / file, dtype={"name": str})
    return pd.concat(tables, names=KEYS).reset_index(KEYS).reset_index(drop=True)


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
    results, out = collect(folder), Path(out)
    texts = {
        ".csv": results.scores.to_csv(index=False, float_format="%.6f"),
        "_images.csv.gz": results.images.to_csv(index=False, float_format="%.4f"),
        "_curves.csv.gz": results.curves.to_csv(index=False, float_format="%.5f"),
        ".json": json.dumps(results.about, indent=1) + "\n",
    }
    files = {}
    for end, text in texts.items():
        data = text.encode()
        packed = gzip.compress(data, mtime=0) if end.endswith(".gz") else data
        files[out / f"{results.name}_study{end}"] = packed
    records = io.BytesIO()
    with ZipFile(records, "w") as archive:
        for cell in sorted(file.parent for file in Path(folder).glob("*-seed*/metrics.json")):
            for name in FILES:  # under a ZipInfo, whose date is always the same
                data = (cell / name).read_bytes()
                archive.writestr(ZipInfo(f"{cell.name}/{name}"), data, ZIP_DEFLATED)
    files[out / f"{results.name}_cells.zip"] = records.getvalue()
    return write_together(files)


def restore(folder: Path, kept: str | Path) -> None:
    """Unpack the records that :func:`keep` has packed and ``folder`` lacks, if there are any."""
    if (file := Path(kept) / f"{folder.name}_cells.zip").exists():
        with ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not (folder / name).exists()]
            try:
                archive.extractall(folder, names)
            except OSError as error:
                for name in names:  # none was there before, and one may be cut off
                    (folder / name).unlink(missing_ok=True)
                raise unwritten(folder, error, "make room, and start it again") from None


def load(csv: str | Path) -> Results:
    """The results that :func:`keep` wrote, from ``<name>_study.csv`` and its companions beside it;
    a UserError if one of them is missing or cannot be read.
    """
    stem = Path(csv).with_suffix("")
    try:
        scores = pd.read_csv(csv)
        images = pd.read_csv(f"{stem}_images.csv.gz", dtype={"name": str})
        curves = pd.read_csv(f"{stem}_curves.csv.gz")
        about = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError) as error:
        way_out = "kdas study report --keep writes them"
        raise UserError(f"{csv} and its companions cannot be read ({error}); {way_out}.") from error
    name = stem.name.removesuffix("_study")
    return say_raw_guiding(Results(name, scores, images, curves, about))
