"""Many trainings, one question: objectives × seeds, each cell one run of ``book/run_template.ipynb``.

A study is a YAML file. ``kdas study plan`` says what it would cost, ``kdas study run`` runs what is not finished, ``kdas study report``
makes tables and figures of what is. Everything lies in one folder, ``RUNS/<name>``:

study.yaml          what the folder was begun with
networks/           the trained networks, as ``kdas train`` keeps them
teacher/            the teacher's masks and scores; one teacher for all cells
<label>-seed<k>/    notebook.ipynb, metrics.json, per_image.csv, history.csv; failed.txt instead, if it failed

This room holds what a study *is*; ``cells`` is what happens in one of them, ``engines`` who runs them, ``results`` and ``report`` what
becomes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from kdas_core import UserError
from kdas_core.losses import knobs_of
from kdas_core.recipe import Recipe, preset

__all__ = ["Cell", "Study", "open_folder", "read_study"]

_RUN_BY_CELLS = ("seed", "teacher_seed", "objective", "preset")  # knobs that a study sets itself


@dataclass(frozen=True)
class Cell:
    """One training of a study: a label, a seed, and the knobs that differ from the preset."""

    label: str
    seed: int
    objective: str
    knobs: tuple[tuple[str, Any], ...] = ()

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
        objectives: ``{label: {"objective": name, knob: value}}``; a label may stand for an objective with other knobs.
        seeds: one cell for each label and seed.
        settings: knobs of all cells, the teacher's included.
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
        students = [Cell(label, seed, *self._objective(label)) for seed in self.seeds for label in self.objectives]
        return [Cell("teacher", self.teacher_seed, "teacher"), *students]

    def _objective(self, label: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
        knobs = dict(self.objectives[label])
        return knobs.pop("objective", label), tuple(sorted(knobs.items()))

    def recipe(self, cell: Cell) -> Recipe:
        """A student cell's recipe, or the one that the teacher belongs to.

        Raises:
            UserError: unknown preset, knob or value.
        """
        objective = "supervised" if cell.objective == "teacher" else cell.objective
        settings = {**self.settings, **dict(cell.knobs), "teacher_seed": self.teacher_seed, "objective": objective}
        return preset(self.preset, seed=cell.seed, **settings)

    def as_yaml(self) -> str:
        """The file again, with every field."""
        plain = asdict(self) | {"seeds": list(self.seeds)}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def read_study(path: str | Path, data_root: str = "") -> Study:
    """Read a study file.

    Args:
        data_root: the user's folder, instead of the file's.

    Raises:
        UserError: no such file, no valid YAML, an unknown field, objective, preset or knob, a value of the wrong kind, or a cell
            that occurs twice.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); a study is a YAML file such as book/studies/smoke.yaml."
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no study: fields and their values are expected, such as seeds: [0, 1, 2].")
    known = [f.name for f in fields(Study)]
    if unknown := [str(key) for key in values if key not in known]:
        raise UserError(f"{path} has no use for {', '.join(unknown)}; the fields are {', '.join(known)}.")
    if missing := [key for key in ("name", "objectives", "seeds") if not values.get(key)]:
        raise UserError(f"{path} lacks {', '.join(missing)}.")
    values |= {"objectives": _labelled(values["objectives"], path), "seeds": _seeds(values["seeds"], path)}
    study = Study(**values | ({"data_root": data_root} if data_root else {}))
    _check(study, path)
    return study


def open_folder(study: Study, runs_dir: str | Path) -> Path:
    """The study's folder, made if it is not there. Labels and seeds may be added to a study, nothing else may change.

    Raises:
        UserError: the folder belongs to another study, or to none.
    """
    folder = Path(runs_dir).expanduser().absolute() / study.name
    note = folder / "study.yaml"
    if not note.is_file():
        if folder.is_dir() and any(p.name != "networks" and not p.name.startswith(".") for p in folder.iterdir()):
            raise UserError(
                f"{folder} holds other things than a study; give the study another name, or another --runs-dir."
            )
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    before = read_study(note)
    for what in ("preset", "data_root", "settings", "teacher_seed"):
        if getattr(before, what) != getattr(study, what):
            raise UserError(
                f"{folder} was begun with {what} {getattr(before, what)!r}, and now it is {getattr(study, what)!r}; give the study "
                "another name."
            )
    for label in set(before.objectives) & set(study.objectives):
        if before._objective(label) != study._objective(label):
            raise UserError(f"In {folder} {label} means another recipe; give the new one another label.")
    return folder


class _Strict(yaml.SafeLoader):
    """A key that occurs twice is an error, not the end of the first one."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {str(key) for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"{', '.join(sorted(twice))} occurs twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _labelled(objectives: Any, path: Path) -> dict[str, dict[str, Any]]:
    """A list of names, or ``{label: None or knobs}``, as ``{label: knobs}``."""
    if isinstance(objectives, list):
        if len({str(o) for o in objectives}) < len(objectives):
            raise UserError(f"{path}: an objective occurs twice; each label may stand there once.")
        objectives = dict.fromkeys(map(str, objectives))
    if not isinstance(objectives, dict) or not all(isinstance(v, dict | None) for v in objectives.values()):
        raise UserError(f"{path}: objectives is a list of names, or label: {{objective: name, knob: value}}.")
    return {str(label): dict(knobs or {}) for label, knobs in objectives.items()}


def _seeds(seeds: Any, path: Path) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"{path}: seeds is {seeds!r}; a list of whole numbers is expected, such as [0, 1, 2].")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{path}: a seed occurs twice; each cell may stand there once.")
    return tuple(seeds)


def _check(study: Study, path: Path) -> None:
    for label in (study.name, *study.objectives):
        if not re.fullmatch(r"[\w.+-]+", str(label)) or label in ("teacher", "networks"):
            raise UserError(f'{path}: "{label}" cannot be the name of a folder here; use letters, digits, _ and -.')
    for what in (study.settings, *study.objectives.values()):
        if taken := sorted(set(what) & set(_RUN_BY_CELLS) - ({"objective"} if what is not study.settings else set())):
            raise UserError(f"{path}: {', '.join(taken)} is set by the study itself; take it out of the knobs.")
    recipes: dict[str, str] = {}
    for cell in study.cells()[1:]:
        try:
            knobs_of(cell.objective)
            digits = study.recipe(cell).fingerprint()
        except (UserError, TypeError) as error:
            raise UserError(f"{path}: {cell.label}: {error}") from None
        if digits in recipes:
            raise UserError(f"{path}: {recipes[digits]} and {cell.label} are the same cell; keep one of them.")
        recipes[digits] = cell.label


def students(cells: list[Cell]) -> Iterator[Cell]:
    """All but the teacher."""
    return (cell for cell in cells if cell.objective != "teacher")
