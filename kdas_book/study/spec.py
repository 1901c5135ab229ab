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
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from kdas_core import UserError
from kdas_core.files import unwritten
from kdas_core.recipe import Recipe, preset, typed

SCHEMA = 1  # raise when metrics.json changes its shape
FILES = ("history.csv", "per_image.csv", "metrics.json")  # of a cell, in the order of writing
_SET_BY_THE_STUDY = {"seed", "teacher_seed", "preset"}
_KINDS = {
    **dict.fromkeys(("name", "preset", "data_root"), (str, "text")),
    "settings": (dict, "mapping of hyperparameters"),
    "teacher_seed": (int, "whole number"),
}


@dataclass(frozen=True)
class Cell:
    """One training run of a study."""

    label: str
    seed: int
    objective: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

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
        cells = [Cell("teacher", self.teacher_seed, "teacher")]
        for seed in self.seeds:
            for label, given in self.objectives.items():
                rest = {name: value for name, value in given.items() if name != "objective"}
                cells.append(Cell(label, seed, given.get("objective", label), rest))
        return cells

    def settings_of(self, cell: Cell) -> dict[str, Any]:
        """The hyperparameters of a cell that differ from the preset."""
        return {**self.settings, **cell.hyperparameters, "teacher_seed": self.teacher_seed}

    def recipe(self, cell: Cell) -> Recipe:
        """A student cell's recipe, or the one that the teacher belongs to (or a UserError)."""
        objective = "supervised" if cell.role == "teacher" else cell.objective
        return preset(self.preset, seed=cell.seed, objective=objective, **self.settings_of(cell))

    def refuse_other_teachers(self, released: bool) -> None:
        """A UserError if a label would need another teacher than the one of all cells. Where its
        weights are released as a file, the recipe of its training does not matter.
        """
        teacher, *students = self.cells()
        of_all = asdict(self.recipe(teacher).for_teacher())
        for cell in students:
            mine = asdict(self.recipe(cell).for_teacher())
            names = ("teacher", "teacher_weights") if released else sorted(mine)
            if differs := [name for name in names if mine[name] != of_all[name]]:
                raise UserError(
                    f"{cell.label} sets {', '.join(differs)}, which would make another teacher, and"
                    " one serves all cells; put it into settings, or make a study of its own."
                )

    def as_yaml(self) -> str:
        """The file again, with every field."""
        plain = asdict(self) | {"seeds": list(self.seeds)}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def open_folder(study: Study, runs_dir: str | Path) -> Path:
    """The study's folder, made if it is not there. Labels and seeds may be added to a study.

    Raises:
        UserError: the folder belongs to another study, or to none, or cannot be written.
    """
    folder = Path(runs_dir).expanduser().absolute() / study.name
    try:
        if not (folder / "study.yaml").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            if any(p.name != "networks" and not p.name.startswith(".") for p in folder.iterdir()):
                other = f"{folder} holds other things than a study"
                raise UserError(f"{other}; give the study another name, or another --runs-dir.")
            return folder
    except OSError as error:
        raise unwritten(folder, error, "choose another --runs-dir") from None
    before = read_study(folder / "study.yaml")
    for what in ("preset", "data_root", "settings", "teacher_seed"):
        was, now = getattr(before, what), getattr(study, what)
        if was != now:
            begun = f"{folder} was begun with {what} {was!r}, and now it is {now!r}"
            raise UserError(f"{begun}; give the study another name.")
    known = {cell.label: (cell.objective, cell.hyperparameters) for cell in before.cells()}
    for cell in study.cells():
        now = cell.objective, cell.hyperparameters
        if known.get(cell.label, now) != now:
            other = f"In {folder} {cell.label} means another recipe"
            raise UserError(f"{other}; give the new one another label.")
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a cell; a UserError if it is missing, cut short, or of another schema."""
    file = folder / "metrics.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema = record["schema"]
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, KeyError):
        schema = None
    if schema != SCHEMA:
        what = f"has schema {schema}, not {SCHEMA}" if schema else "is cut short or damaged"
        raise UserError(f"{file} {what}; remove it, and run the study again.")
    return record


def is_finished(folder: Path) -> bool:
    """Are all of the record's files there, and is the record whole?"""
    try:
        read_record(folder)
    except UserError:
        return False
    return all((folder / name).is_file() for name in FILES)


def read_study(path: str | Path, data_root: str = "") -> Study:
    """The study that a file describes; ``data_root`` goes before the file's.

    Raises:
        UserError: the file cannot be read, or is no study that could run.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Strict)
        study = _study(values, data_root)
        _check(study)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); a study is a YAML file such as "
            "book/studies/smoke.yaml."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return study


class _Strict(yaml.SafeLoader):
    """A key that occurs twice is an error, not the end of the first one."""

    def construct_mapping(self, node, deep=False):
        keys = [str(self.construct_object(key, deep=True)) for key, _ in node.value]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            where = f"line {node.start_mark.line + 1}"
            raise yaml.YAMLError(f"{', '.join(twice)} occurs twice, {where}")
        return super().construct_mapping(node, deep)


def _study(values: Any, data_root: str) -> Study:
    """The study, its values of the right kinds."""
    if not isinstance(values, dict):
        raise UserError(
            "the file is no study: fields and their values are expected, such as seeds: [0, 1, 2]."
        )
    known = [f.name for f in fields(Study)]
    if unknown := [str(key) for key in values if key not in known]:
        raise UserError(
            f"the file has no use for {', '.join(unknown)}; the fields are {', '.join(known)}."
        )
    values = {key: value for key, value in values.items() if value is not None}
    if missing := [key for key in ("name", "objectives", "seeds") if not values.get(key)]:
        raise UserError(f"the file lacks {', '.join(missing)}.")
    for key, (kind, words) in _KINDS.items():
        value = values.get(key, kind())
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{key} is {value!r}; a {words} is expected.")
    seeds = values["seeds"]
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        expected = "a list of whole numbers is expected, such as [0, 1, 2]"
        raise UserError(f"seeds is {seeds!r}; {expected}.")
    if len(set(seeds)) < len(seeds):
        raise UserError("a seed occurs twice; each cell may stand there once.")
    labels = _labelled(values["objectives"])
    values["objectives"] = {label: _typed(given, label) for label, given in labels.items()}
    values["settings"] = _typed(values.get("settings", {}), "settings", "objective")
    if data_root := data_root or values.get("data_root", ""):  # one name, wherever we are called
        values["data_root"] = os.path.abspath(Path(data_root).expanduser())
    return Study(**values | {"seeds": tuple(seeds)})


def _labelled(objectives: Any) -> dict[str, dict[Any, Any]]:
    """A list of names, or ``{label: None or hyperparameters}``, as ``{label: hyperparameters}``."""
    pairs: list[tuple[str, Any]] = [("", None)]
    if isinstance(objectives, dict):
        pairs = [
            (str(label), {} if given is None else given) for label, given in objectives.items()
        ]
    elif isinstance(objectives, list) and all(isinstance(name, str) for name in objectives):
        pairs = [(name, {}) for name in objectives]
    if not all(isinstance(given, dict) for _, given in pairs):
        raise UserError(
            "objectives is a list of names, or label: {objective: name, hyperparameter: value}."
        )
    folded = [label.casefold() for label, _ in pairs]  # some disks do not tell KDAS from kdas
    if twice := [label for label, _ in pairs if folded.count(label.casefold()) > 1]:
        names = " and ".join(twice)
        raise UserError(f"{names} stand side by side; each label may stand there once.")
    return dict(pairs)


def _typed(values: dict[Any, Any], where: str, *forbidden: str) -> dict[str, Any]:
    """Hyperparameters with values of their own types; a label's objective is one of them."""
    if taken := sorted({str(key) for key in values} & {*_SET_BY_THE_STUDY, *forbidden}):
        names = ", ".join(taken)
        raise UserError(f"{where}: {names} is set by the study itself; take it out.")
    try:
        return typed({str(key): value for key, value in values.items()})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check(study: Study) -> None:
    """Refuse labels that cannot be folders, cells that are the same, and second teachers."""
    from kdas_core.losses import hyperparameters_of

    for label in (study.name, *study.objectives):
        if not re.fullmatch(r"\w[\w.+-]*", label) or label in ("teacher", "networks"):
            way_out = "use letters, digits, _ and -"
            raise UserError(f'"{label}" cannot be the name of a folder here; {way_out}.')
    recipes: dict[str, str] = {}
    for cell in study.cells()[1:]:
        try:
            hyperparameters_of(cell.objective)
            recipe = study.recipe(cell)
        except UserError as error:
            raise UserError(f"{cell.label}: {error}") from None
        earlier = recipes.setdefault(recipe.fingerprint(), cell.label)
        if earlier != cell.label:
            raise UserError(f"{earlier} and {cell.label} are the same cell; keep one of them.")
    study.refuse_other_teachers(released=bool(recipe.teacher_weights))
