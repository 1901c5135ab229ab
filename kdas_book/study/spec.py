"""What a study is: objectives × seeds, each cell one run of ``book/run_template.ipynb``.

A study is a YAML file; what comes of it lies in ``RUNS/<name>``:

study.yaml          what the folder was begun with
networks/           the trained networks, as ``kdas train`` keeps them
teacher/            the teacher's masks and scores; one teacher for all cells
<label>-seed<k>/    notebook.ipynb, metrics.json, per_image.csv, history.csv; or failed.txt
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from kdas_core import UserError
from kdas_core.files import unwritten
from kdas_core.recipe import Recipe, preset, typed

SCHEMA = 1  # raise when metrics.json changes its shape
FILES = ("history.csv", "per_image.csv", "metrics.json")  # of a cell, in the order of writing
FAILED = "failed.txt"
_LIKE: dict[str, Any] = {  # the fields of a study file that have one type
    **{"name": "mine", "seeds": [0, 1, 2], "preset": "smoke", "data_root": "/path/to/polyps"},
    **{"settings": {"epochs": 2}, "teacher_seed": 0},
}


@dataclass(frozen=True)
class Cell:
    """One training run of a study."""

    label: str
    seed: int
    objective: str  # or "teacher"
    settings: Mapping[str, Any]  # hyperparameters that differ from the preset

    @property
    def role(self) -> str:
        return "teacher" if self.objective == "teacher" else "student"

    @property
    def name(self) -> str:
        """The cell's folder."""
        return "teacher" if self.role == "teacher" else f"{self.label}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """What a study file says."""

    name: str  # of its folder
    objectives: Mapping[str, Mapping[str, Any]]  # label -> "objective" and hyperparameters
    seeds: tuple[int, ...]
    preset: str = "smoke"
    data_root: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # hyperparameters of all cells
    teacher_seed: int = 0  # of the one teacher that all cells share

    def cells(self) -> list[Cell]:
        """The teacher first, then seed by seed, so that a study cut short has whole seeds."""
        of_all = {**self.settings, "teacher_seed": self.teacher_seed}
        cells = [Cell("teacher", self.teacher_seed, "teacher", of_all)]
        for seed in self.seeds:
            for label, given in self.objectives.items():
                settings = {"objective": label, **of_all, **given}
                cells.append(Cell(label, seed, settings.pop("objective"), settings))
        return cells

    def recipe(self, cell: Cell) -> Recipe:
        """What the cell trains, or a UserError."""
        if cell.role == "teacher":
            return preset(self.preset, **cell.settings).for_teacher()
        return preset(self.preset, seed=cell.seed, objective=cell.objective, **cell.settings)

    def refuse_other_teachers(self, released: bool) -> None:
        """A UserError if a label would need another teacher than the one of all cells. Where its
        weights are released as a file, the recipe of its training does not matter.
        """
        teacher, *students = self.cells()
        of_all = asdict(self.recipe(teacher))
        for cell in students:
            mine = asdict(self.recipe(cell).for_teacher())
            names = ("teacher", "teacher_weights") if released else sorted(mine)
            if differs := [name for name in names if mine[name] != of_all[name]]:
                fact = f"{cell.label} sets {', '.join(differs)}, which would make another teacher"
                way_out = "put it into settings, or make a study of its own"
                raise UserError(f"{fact}, and one serves all cells; {way_out}.")

    def as_yaml(self) -> str:
        """The file again, with every field."""
        plain = asdict(self) | {"seeds": list(self.seeds)}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def open_folder(study: Study, runs_dir: str | Path) -> Path:
    """The study's folder, made if it is not there. Labels and seeds may be added to a study. A
    UserError: the folder belongs to another study, or to none, or cannot be written.
    """
    folder = Path(runs_dir).expanduser().absolute() / study.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise unwritten(folder, error, "choose another --runs-dir") from None
    if "study.yaml" not in there:
        if there - {"networks", *(cell.name for cell in study.cells())}:
            other = f"{folder} holds other things than a study"
            raise UserError(f"{other}; give the study another name, or another --runs-dir.")
        return folder
    before = read_study(folder / "study.yaml")
    for what in ("preset", "data_root", "settings", "teacher_seed"):
        was, now = getattr(before, what), getattr(study, what)
        if was != now:
            begun = f"{folder} was begun with {what} {was!r}, and now it is {now!r}"
            raise UserError(f"{begun}; give the study another name.")
    known = {cell.label: cell for cell in before.cells()}
    for cell in study.cells():
        if replace(known.get(cell.label, cell), seed=cell.seed) != cell:
            other = f"In {folder} {cell.label} means another recipe"
            raise UserError(f"{other}; give the new one another label.")
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a cell; a UserError if it is missing, cut short, or of another schema."""
    file = folder / "metrics.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["schema"] == SCHEMA:
            return record
        fact = f"has schema {record['schema']}, not {SCHEMA}"
    except (OSError, ValueError, TypeError, KeyError) as error:
        fact = f"is missing, cut short or damaged ({error})"
    raise UserError(f"{file} {fact}; remove it, and run the study again.")


def is_finished(folder: Path) -> bool:
    """Are all of the record's files there, and is the record whole?"""
    try:
        return bool(read_record(folder)) and all((folder / name).is_file() for name in FILES)
    except UserError:
        return False


def read_study(path: str | Path, data_root: str = "") -> Study:
    """The study that a file describes; ``data_root`` goes before the file's. A UserError if it
    cannot be read, or is no study that could run.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Strict)
        return _checked(_study(values, data_root))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        fact = f"{path} cannot be read as YAML ({' '.join(str(error).split())})"
        raise UserError(f"{fact}; a study is a file such as book/studies/smoke.yaml.") from error


class _Strict(yaml.SafeLoader):
    """A key that occurs twice is an error, not the end of the first one."""

    def construct_mapping(self, node, deep=False):
        keys = [str(self.construct_object(key, deep=True)) for key, _ in node.value]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            where = f"line {node.start_mark.line + 1}"
            raise yaml.YAMLError(f"{', '.join(twice)} occurs twice, {where}")
        return super().construct_mapping(node, deep)


def _study(values: Any, data_root: str) -> Study:
    """The study, its values of the right types."""
    if not isinstance(values, dict):
        expected = "fields and their values are expected, such as seeds: [0, 1, 2]"
        raise UserError(f"the file is no study: {expected}.")
    known = [f.name for f in fields(Study)]
    if unknown := ", ".join(str(key) for key in values if key not in known):
        raise UserError(f"the file has no use for {unknown}; the fields are {', '.join(known)}.")
    values = {key: value for key, value in values.items() if value is not None}
    if missing := ", ".join(key for key in known[:3] if not values.get(key)):
        raise UserError(f"the file lacks {missing}.")
    for key, like in _LIKE.items():
        value = values.get(key, like)
        numbers = value if key == "seeds" and isinstance(value, list) else []
        if type(value) is not type(like) or not all(type(n) is int and n >= 0 for n in numbers):
            raise UserError(f"{key} is {value!r}; it is like {like!r}.")
    labels = _labelled(values["objectives"])
    values["objectives"] = {label: _typed(given, label) for label, given in labels.items()}
    values["settings"] = _typed(values.get("settings", {}), "settings", "objective")
    if data_root := data_root or values.get("data_root", ""):  # one name, wherever we are called
        values["data_root"] = os.path.abspath(Path(data_root).expanduser())
    return Study(**values | {"seeds": tuple(values["seeds"])})


def _labelled(objectives: Any) -> dict[str, dict[Any, Any]]:
    """A list of names, or ``{label: None or hyperparameters}``, as ``{label: hyperparameters}``."""
    pairs = objectives
    if isinstance(objectives, list):
        pairs = [(name, {}) for name in objectives]
    elif isinstance(objectives, dict):
        pairs = [(str(label), {} if v is None else v) for label, v in objectives.items()]
    try:
        folded = [label.casefold() for label, _ in pairs]  # some disks do not tell KDAS from kdas
        labelled = {label: dict(given) for label, given in pairs}
    except (AttributeError, TypeError, ValueError):
        expected = "a list of names, or label: {objective: name, hyperparameter: value}"
        raise UserError(f"objectives is {expected}.") from None
    if twice := [label for label, _ in pairs if folded.count(label.casefold()) > 1]:
        names = " and ".join(twice)
        raise UserError(f"{names} stand side by side; each label may stand there once.")
    return labelled


def _typed(values: dict[Any, Any], where: str, *forbidden: str) -> dict[str, Any]:
    """Hyperparameters with values of their own types; a label's objective is one of them."""
    values = {str(key): value for key, value in values.items()}
    if taken := sorted(values.keys() & {"seed", "teacher_seed", "preset", *forbidden}):
        raise UserError(f"{where}: {', '.join(taken)} is set by the study itself; take it out.")
    try:
        return typed(values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _checked(study: Study) -> Study:
    """Refuse labels that cannot be folders, cells that are the same, and second teachers."""
    from kdas_core.losses import hyperparameters_of

    for label in (study.name, *study.objectives):
        if not re.fullmatch(r"\w[\w.+-]*", label) or label in ("teacher", "networks"):
            raise UserError(f'"{label}" cannot be the name of a folder; use letters, digits, _, -.')
    cells: dict[str, Cell] = {}
    for cell in study.cells()[1:]:
        try:
            hyperparameters_of(cell.objective)
            recipe = study.recipe(cell)
        except UserError as error:
            raise UserError(f"{cell.label}: {error}") from None
        if (earlier := cells.setdefault(recipe.fingerprint(), cell)) is not cell:
            raise UserError(f"{earlier.name} and {cell.name} are the same cell; keep one.")
    study.refuse_other_teachers(released=bool(recipe.teacher_weights))
    return study
