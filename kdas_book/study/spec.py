"""Many trainings, one question: objectives × seeds, each cell one run of
``book/run_template.ipynb``.

A study is a YAML file. ``kdas study plan`` says what it would cost, ``kdas study run`` runs what is
not finished, ``kdas study report`` makes tables and figures of what is. Everything lies in one
folder, ``RUNS/<name>``:

study.yaml          what the folder was begun with
networks/           the trained networks, as ``kdas train`` keeps them
teacher/            the teacher's masks and scores; one teacher for all cells
<label>-seed<k>/    notebook.ipynb, metrics.json, per_image.csv, history.csv; failed.txt instead, if it failed

This room holds what a study *is*, and loads no PyTorch; ``cells`` is what happens in one of them,
``engines`` who runs them, ``results`` and ``report`` what becomes of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from kdas_core import UserError
from kdas_core.recipe import Recipe, preset, typed

__all__ = [
    "Cell",
    "Study",
    "is_finished",
    "open_folder",
    "read_record",
    "read_study",
    "refuse_other_teachers",
]

SCHEMA = 1  # raise when metrics.json changes its shape
FILES = (
    "history.csv",
    "per_image.csv",
    "metrics.json",
)  # of a cell, in the order in which they are written
_SET_BY_THE_STUDY = ("seed", "teacher_seed", "preset")
_FIELDS: dict[str, tuple[type, str]] = {
    "name": (str, "text"),
    "preset": (str, "text"),
    "data_root": (str, "text"),
}
_FIELDS |= {"settings": (dict, "mapping of hyperparameters"), "teacher_seed": (int, "whole number")}


@dataclass(frozen=True)
class Cell:
    """One training of a study: a label, a seed, and the hyperparameters that differ from the preset."""

    label: str
    seed: int
    objective: str
    hyperparameters: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The cell's folder."""
        return "teacher" if self.objective == "teacher" else f"{self.label}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Attributes:
        name: the study's folder.
        preset, data_root: as in a chapter.
        objectives: ``{label: {"objective": name, hyperparameter: value}}``; a label may stand for an
            objective with other hyperparameters.
        seeds: one cell for each label and seed.
        settings: hyperparameters of all cells, the teacher's included.
        teacher_seed: of the one teacher that all cells share.
    """

    name: str
    objectives: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    preset: str = "smoke"
    data_root: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    teacher_seed: int = 0

    def cells(self) -> list[Cell]:
        """The teacher first, then seed by seed, so that a study that is cut short has whole seeds."""
        students = [
            Cell(label, seed, *self._objective(label))
            for seed in self.seeds
            for label in self.objectives
        ]
        return [Cell("teacher", self.teacher_seed, "teacher"), *students]

    def _objective(self, label: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
        hyperparameters = dict(self.objectives[label])
        return hyperparameters.pop("objective", label), tuple(sorted(hyperparameters.items()))

    def recipe(self, cell: Cell) -> Recipe:
        """A student cell's recipe, or the one that the teacher belongs to.

        Raises:
            UserError: unknown preset, hyperparameter or value.
        """
        objective = "supervised" if cell.objective == "teacher" else cell.objective
        return preset(self.preset, seed=cell.seed, objective=objective, **self.settings_of(cell))

    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """The hyperparameters of a cell that differ from the preset."""
        given = {"teacher_seed": self.teacher_seed}
        return {**self.settings, **dict(cell.hyperparameters), **given}

    def as_yaml(self) -> str:
        """The file again, with every field."""
        plain = asdict(self) | {"seeds": list(self.seeds)}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def read_study(path: str | Path, data_root: str = "") -> Study:
    """Read a study file.

    Args:
        data_root: the user's folder, instead of the file's.

    Raises:
        UserError: no such file, no valid YAML, an unknown field, objective, preset or hyperparameter, a value
            of the wrong kind, a cell that occurs twice, or a label that would need a teacher of its
            own.
    """
    path = Path(path)
    values = _read_mapping(path)
    known = [f.name for f in fields(Study)]
    if unknown := [str(key) for key in values if key not in known]:
        raise UserError(
            f"{path} has no use for {', '.join(unknown)}; the fields are {', '.join(known)}."
        )
    if missing := [key for key in ("name", "objectives", "seeds") if not values.get(key)]:
        raise UserError(f"{path} lacks {', '.join(missing)}.")
    values = {key: value for key, value in values.items() if value is not None}
    for key, (kind, words) in _FIELDS.items():
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool)):
            raise UserError(f"{path}: {key} is {values[key]!r}; a {words} is expected.")
    labelled = _labelled(values["objectives"], path)
    values["objectives"] = {
        label: _hyperparameters(hyperparameters, f"{path}: {label}")
        for label, hyperparameters in labelled.items()
    }
    values["settings"] = _hyperparameters(
        values.get("settings", {}), f"{path}: settings", "objective"
    )
    values["seeds"] = _seeds(values["seeds"], path)
    if data_root := data_root or values.get("data_root", ""):
        values["data_root"] = os.path.abspath(
            Path(data_root).expanduser()
        )  # one name, wherever we are called from
    study = Study(**values)
    _check(study, path)
    return study


def open_folder(study: Study, runs_dir: str | Path) -> Path:
    """The study's folder, made if it is not there. Labels and seeds may be added to a study,
    nothing else may change.

    Raises:
        UserError: the folder belongs to another study, or to none.
    """
    folder = Path(runs_dir).expanduser().absolute() / study.name
    note = folder / "study.yaml"
    try:
        if not note.is_file():
            if folder.is_dir() and any(
                p.name != "networks" and not p.name.startswith(".") for p in folder.iterdir()
            ):
                raise UserError(
                    f"{folder} holds other things than a study; give the study another name, or another --runs-dir."
                )
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another --runs-dir."
        ) from None
    before = read_study(note)
    for what in ("preset", "data_root", "settings", "teacher_seed"):
        if getattr(before, what) != getattr(study, what):
            raise UserError(
                f"{folder} was begun with {what} {getattr(before, what)!r}, and now it is {getattr(study, what)!r}; give the study "
                "another name."
            )
    for label in set(before.objectives) & set(study.objectives):
        if before._objective(label) != study._objective(label):
            raise UserError(
                f"In {folder} {label} means another recipe; give the new one another label."
            )
    return folder


def refuse_other_teachers(study: Study, released: bool) -> None:
    """One teacher serves all cells, so none may ask for another.

    Args:
        released: the teacher's weights are a file, and the recipe of its training matters no more.

    Raises:
        UserError: a label has a hyperparameter that changes the teacher.
    """
    of_all = asdict(study.recipe(study.cells()[0]).for_teacher())
    for cell in students(study.cells()):
        mine = asdict(study.recipe(cell).for_teacher())
        changed = {
            hyperparameter
            for hyperparameter in mine
            if mine[hyperparameter] != of_all[hyperparameter]
        }
        if differs := sorted(changed & {"teacher", "teacher_weights"} if released else changed):
            raise UserError(
                f"{cell.label} sets {', '.join(differs)}, which would make another teacher, and one teacher serves all cells; put it "
                "into settings, or make a study of its own."
            )


def read_record(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a cell.

    Raises:
        UserError: it is missing, cut short, or of another schema.
    """
    file = folder / "metrics.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema = record["schema"]
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"{file} is cut short or damaged; remove it, and run the study again."
        ) from None
    if schema != SCHEMA:
        raise UserError(
            f"{file} has schema {schema}, and this is {SCHEMA}; remove it, and run the study again."
        )
    return record


def is_finished(folder: Path) -> bool:
    """Are all of the record's files there, and is the record whole?"""
    try:
        read_record(folder)
    except UserError:
        return False
    return all((folder / name).is_file() for name in FILES)


# --- reading a study file ---------------------------------------------------------------------------------------------


class _Strict(yaml.SafeLoader):
    """A key that occurs twice is an error, not the end of the first one."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(
                f"{', '.join(sorted(twice))} occurs twice, line {node.start_mark.line + 1}"
            )
        return super().construct_mapping(node, deep)


def _read_mapping(path: Path) -> dict[Any, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); a study is a YAML file such as book/studies/smoke.yaml."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path} is no study: fields and their values are expected, such as seeds: [0, 1, 2]."
        )
    return values


def _labelled(objectives: Any, path: Path) -> dict[str, dict[str, Any]]:
    """A list of names, or ``{label: None or hyperparameters}``, as ``{label: hyperparameters}``."""
    names = isinstance(objectives, list) and all(isinstance(name, str) for name in objectives)
    hyperparameters = isinstance(objectives, dict) and all(
        isinstance(v, dict | None) for v in objectives.values()
    )
    if not names and not hyperparameters:
        raise UserError(
            f"{path}: objectives is a list of names, or label: {{objective: name, hyperparameter: value}}."
        )
    labels = [str(label) for label in objectives]
    folded = [
        label.casefold() for label in labels
    ]  # some disks do not tell KDAS-seed0 from kdas-seed0
    if twice := [label for label in labels if folded.count(label.casefold()) > 1]:
        raise UserError(
            f"{path}: {' and '.join(twice)} stand side by side; each label may stand there once."
        )
    return {
        label: dict(objectives[key] or {}) if hyperparameters else {}
        for label, key in zip(labels, objectives)
    }


def _hyperparameters(values: dict[Any, Any], where: str, *forbidden: str) -> dict[str, Any]:
    """The hyperparameters with values of their own types; a label's objective is one of them."""
    values = {str(key): value for key, value in values.items()}
    if taken := sorted(set(values) & {*_SET_BY_THE_STUDY, *forbidden}):
        raise UserError(
            f"{where}: {', '.join(taken)} is set by the study itself; take it out of the hyperparameters."
        )
    try:
        return typed(values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _seeds(seeds: Any, path: Path) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(
            f"{path}: seeds is {seeds!r}; a list of whole numbers is expected, such as [0, 1, 2]."
        )
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: a seed occurs twice; each cell may stand there once.")
    return tuple(seeds)


def _check(study: Study, path: Path) -> None:
    from kdas_core.losses import hyperparameters_of

    for label in (study.name, *study.objectives):
        if not re.fullmatch(r"\w[\w.+-]*", label) or label in ("teacher", "networks"):
            raise UserError(
                f'{path}: "{label}" cannot be the name of a folder here; use letters, digits, _ and -.'
            )
    recipes: dict[str, str] = {}
    for cell in students(study.cells()):
        try:
            hyperparameters_of(cell.objective)
            recipe = study.recipe(cell)
        except UserError as error:
            raise UserError(f"{path}: {cell.label}: {error}") from None
        earlier = recipes.setdefault(recipe.fingerprint(), cell.label)
        if earlier != cell.label:
            raise UserError(
                f"{path}: {earlier} and {cell.label} are the same cell; keep one of them."
            )
    try:
        refuse_other_teachers(study, released=bool(recipe.teacher_weights))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def students(cells: list[Cell]) -> Iterator[Cell]:
    """All but the teacher."""
    return (cell for cell in cells if cell.objective != "teacher")
