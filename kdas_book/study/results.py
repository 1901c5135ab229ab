"""What a study found, as tables: collected from the folders of its cells, kept in four small files,
read again from them.

NAME.csv               one row a label, seed and test set: the released 13 metrics, Dice and IoU of the best epoch, the last epoch's, …
NAME_images.csv.gz     one row a label, seed and image
NAME_curves.csv.gz     one row a label, seed and epoch
NAME.json              what was run, on what, with what
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdas_book.study.spec import FILES, Study, read_record, read_study
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.evaluation import METRICS
from kdas_core.files import atomic_write

KEYS = ["objective", "seed"]
_OF_IMAGES = ["dice", "iou", "dice_last", "agreement"]


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of a study.

    Attributes:
        name: the study's.
        scores: ``objective`` (the label), ``seed``, ``dataset``, ``n_images``, ``dice``, ``iou``,
            the released 13 metrics, ``dice_last``, ``agreement``, ``validation_dice``,
            ``best_epoch``, ``epochs``, ``minutes``, ``revision``.
        images: means over the seeds, one row a label and image: ``objective, dataset, name, share,
            dice, iou, dice_last, agreement``.
        curves: ``objective, seed`` and the columns of a run's ``history.csv``.
        about: ``planned`` and ``finished`` (numbers of cells), ``preset``, ``convention``,
            ``recipes`` (hyperparameters by label), ``parameters``, ``macs``, ``hardware``, ``versions``,
            ``data``, ``teacher``.
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
        return list(dict.fromkeys(self.scores["dataset"]))

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


def collect(folder: str | Path) -> Results:
    """The tables of a study's folder, cell by cell, so that memory does not grow with the seeds.

    Raises:
        UserError: not a study's folder, no student has finished, a record is cut short, or cells
            that cannot stand in one table: other conventions, other numbers of test images, another
            teacher or other data.
    """
    folder = Path(folder)
    study = read_study(folder / "study.yaml")
    records = _records(study, folder)
    _refuse_mixtures(list(records.values()))
    means = _Means()
    for name in records:
        means.add(
            records[name]["label"],
            pd.read_csv(folder / name / "per_image.csv", dtype={"name": str}),
        )
    curves = [
        _read_curve(folder / name).assign(**_keys(record)) for name, record in records.items()
    ]
    curves = pd.concat([curve for curve in curves if len(curve)], ignore_index=True)
    scores = pd.DataFrame([row for record in records.values() for row in _rows(record)])
    return Results(study.name, scores, means.table(), _keys_first(curves), _about(study, records))


def _records(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    there = [cell.name for cell in study.cells() if (folder / cell.name / "metrics.json").exists()]
    if missing := [
        f"{name}/{file}" for name in there for file in FILES if not (folder / name / file).is_file()
    ]:
        raise UserError(f"{folder} lacks {', '.join(missing)}; run the study again.")
    if not [name for name in there if name != "teacher"]:
        raise UserError(f'{folder} has no finished training yet; "kdas study run" makes some.')
    return {name: read_record(folder / name) for name in there}


def _refuse_mixtures(records: list[dict[str, Any]]) -> None:
    """What stands in one table must have been measured in one way."""
    facts = {
        "the convention": lambda record: record["convention"],
        "the numbers of test images": lambda record: tuple(
            (name, s["n"]) for name, s in sorted(record["sets"].items())
        ),
        "the teacher": lambda record: record["teacher"][:12],
        "the data": lambda record: tuple(sorted(record["data"].items())),
    }
    for what, fact in facts.items():
        counts = Counter(fact(record) for record in records)
        if len(counts) > 1:
            odd = counts.most_common()[-1][0]
            where = ", ".join(f"{r['label']}-seed{r['seed']}" for r in records if fact(r) == odd)
            raise UserError(
                f"These cells do not belong into one table: {what} of {where} differs from that of the others."
            )


def _keys(record: Mapping[str, Any]) -> dict[str, Any]:
    return {"objective": record["label"], "seed": record["seed"]}


def _keys_first(table: pd.DataFrame) -> pd.DataFrame:
    return table[KEYS + [column for column in table if column not in KEYS]]


def _read_curve(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / "history.csv")
    except pd.errors.EmptyDataError:  # a released teacher has no history
        return pd.DataFrame()


def _rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, scores in record["sets"].items():
        best = scores["best"]
        yield {
            **_keys(record),
            "dataset": name,
            "n_images": scores["n"],
            **{metric: best[metric] for metric in ("dice", "iou", *METRICS)},
            "dice_last": scores["last"]["dice"],
            "agreement": scores["agreement"],
            **{
                key: record[key]
                for key in ("validation_dice", "best_epoch", "epochs", "minutes", "revision")
            },
        }


class _Means:
    """Means over seeds, image by image, without keeping the seeds."""

    def __init__(self) -> None:
        self._images: pd.DataFrame | None = None
        self._sums: dict[str, np.ndarray] = {}
        self._counts: Counter[str] = Counter()

    def add(self, label: str, table: pd.DataFrame) -> None:
        """One cell's ``per_image.csv``.

        Raises:
            UserError: its images are not those of the others.
        """
        if self._images is None:
            self._images = table[["dataset", "name", "share"]]
        elif not table[["dataset", "name"]].equals(self._images[["dataset", "name"]]):
            raise UserError(
                f"The images of {label} are not those of the other cells, so they cannot be compared."
            )
        values = table[_OF_IMAGES].to_numpy(float)
        self._sums[label] = self._sums.get(label, 0) + values
        self._counts[label] += 1

    def table(self) -> pd.DataFrame:
        assert self._images is not None  # there is a cell
        parts = [
            self._images.assign(
                **dict(zip(_OF_IMAGES, (sums / self._counts[label]).T)), objective=label
            )
            for label, sums in self._sums.items()
        ]
        table = pd.concat(parts, ignore_index=True)
        return table[["objective", *(column for column in table if column != "objective")]]


def _about(study: Study, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first = next(record for name, record in records.items() if name != "teacher")
    recipes: dict[str, dict] = {}
    for record in records.values():  # the seed is not part of a label's recipe
        recipes.setdefault(record["label"], record["recipe"] | {"seed": None})
    teacher = records.get("teacher", {})
    return {
        "planned": len(study.cells()) - 1,
        "finished": sum(name != "teacher" for name in records),
        "preset": study.preset,
        "recipes": recipes,
        "parameters": {"student": first["parameters"], "teacher": teacher.get("parameters")},
        "macs": {"student": first["macs"], "teacher": teacher.get("macs")},
        "hardware": sorted({record["hardware"] for record in records.values()}),
        **{key: first[key] for key in ("convention", "versions", "data", "teacher")},
    }


# --- kept in files ----------------------------------------------------------------------------------------------------


def keep(folder: str | Path, out: str | Path) -> list[Path]:
    """Write a study's results as four small files, ``out/<name>_study.csv`` and its companions.

    Returns:
        The files.

    Raises:
        UserError: as :func:`collect`; a file cannot be written.
    """
    folder, results = Path(folder), collect(folder)
    stem = f"{results.name}_study"
    packed = io.BytesIO()
    with gzip.GzipFile(
        fileobj=packed, mode="wb", mtime=0
    ) as file:  # no time of day: the same results, the same bytes
        for i, (name, record) in enumerate(
            _records(read_study(folder / "study.yaml"), folder).items()
        ):
            table = pd.read_csv(folder / name / "per_image.csv", dtype={"name": str}).assign(
                **_keys(record)
            )
            file.write(
                _keys_first(table).to_csv(index=False, header=not i, float_format="%.4f").encode()
            )
    curves = gzip.compress(
        results.curves.to_csv(index=False, float_format="%.5f").encode(), mtime=0
    )
    files = {
        f"{stem}.csv": results.scores.to_csv(index=False, float_format="%.6f").encode(),
        f"{stem}_images.csv.gz": packed.getvalue(),
        f"{stem}_curves.csv.gz": curves,
        f"{stem}.json": (json.dumps(results.about, indent=1) + "\n").encode(),
    }
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        atomic_write(Path(out) / name, content)
    return [Path(out) / name for name in files]


def load(csv: str | Path) -> Results:
    """The results that :func:`keep` wrote, from ``<name>_study.csv`` and its companions beside it.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    csv = Path(csv)
    stem = csv.with_suffix("")
    try:
        scores = pd.read_csv(csv)
        rows = pd.read_csv(f"{stem}_images.csv.gz", dtype={"name": str})
        curves = pd.read_csv(f"{stem}_curves.csv.gz")
        about = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{csv} and its companions cannot be read ({error}); kdas study report writes them."
        ) from error
    means = _Means()
    for (label, _), table in rows.groupby(KEYS, sort=False):
        means.add(label, table.reset_index(drop=True))
    return Results(csv.stem.removesuffix("_study"), scores, means.table(), curves, about)


def open_results(path: str | Path) -> Results:
    """From a study's folder, or from the files that :func:`keep` wrote."""
    return collect(path) if Path(path).is_dir() else load(path)
