"""``kdas study run``: what is not finished yet, one after another or side by side, with a table that says where things stand."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.table import Table

from kdas_core import UserError
from kdas_core.data import open_data
from kdas_core.execution import parameters_of
from kdas_core.files import write_whole
from kdas_core.notebook import find_root
from kdas_core.study import Cell, Study, engines, open_folder
from kdas_core.study.cells import is_finished
from kdas_core.study.execute import FAILED

TEMPLATE = Path("book") / "run_template.ipynb"


def run(study: Study, runs_dir: str | Path, processes: int = 0, dask: str = "", retry: bool = False) -> Path:
    """Run every cell that is not finished: the teacher first, the others side by side.

    Args:
        runs_dir: the study's folder is made in here.
        processes: how many cells at once on this machine; 0: one a GPU, or one for two processors.
        dask: address of a Dask scheduler, which then gets the cells.
        retry: run cells again that failed last time.

    Returns:
        The study's folder.

    Raises:
        UserError: something in the study or the folder is wrong; another run of the study is under way; the teacher failed.
    """
    folder = open_folder(study, runs_dir)
    with _alone(folder):
        prepare(study, folder)
        board = _Board(study, folder, retry)
        with board.shown():
            teacher, *others = study.cells()
            for cells in ([teacher], others):
                todo = [folder / cell.name for cell in cells if board.states[cell.name] == "waiting"]
                run_ = engines.on_dask(todo, dask, board.begin) if dask else _local(todo, processes, board)
                for where, outcome in run_ if todo else ():
                    board.end(where, outcome)
                if board.states[teacher.name] == "failed":
                    raise UserError(f"The teacher failed: {board.error(teacher.name)} Mend that, and add --retry.")
    return folder


def _local(todo: list[Path], processes: int, board: _Board) -> Iterator[engines.Outcome]:
    return engines.local(todo, processes or engines.default_processes(), board.begin)


def prepare(study: Study, folder: Path) -> None:
    """Check the data and the template, and write ``study.yaml`` and each cell's ``cell.json``.

    Raises:
        UserError: no data, or the template lacks a parameter.
    """
    root = find_root()
    template = root / TEMPLATE
    recipe = study.recipe(study.cells()[0])
    networks = folder / "networks"
    data = open_data(recipe, study.data_root, default=root / "data", made=networks)
    for cell in study.cells():
        settings = {**study.settings, **dict(cell.knobs), "teacher_seed": study.teacher_seed}
        given = {"preset": study.preset, "data_root": str(data.root.absolute()), "runs_dir": str(networks)}
        given |= {"seed": cell.seed, "label": cell.label, "objective": cell.objective, "settings": settings}
        given |= {"out": str(folder / cell.name)}
        (values,) = parameters_of([template], given).values()
        (folder / cell.name).mkdir(parents=True, exist_ok=True)
        content = json.dumps({"template": str(template), "parameters": values}, indent=1)
        write_whole(folder / cell.name / "cell.json", content.encode())
    write_whole(folder / "study.yaml", _with_earlier(study, folder).as_yaml().encode())


def _with_earlier(study: Study, folder: Path) -> Study:
    """The study with the labels and seeds that the folder has had before."""
    from dataclasses import replace

    from kdas_core.study import read_study

    if not (folder / "study.yaml").is_file():
        return study
    before = read_study(folder / "study.yaml")
    seeds = tuple(dict.fromkeys([*before.seeds, *study.seeds]))
    return replace(study, objectives={**before.objectives, **study.objectives}, seeds=seeds)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / ".lock", blocking=False):
            yield
    except Timeout:
        raise UserError(f"Another run of this study is under way in {folder}; wait for it, or stop it.") from None


class _Board:
    """Where things stand: a table that a terminal redraws, or a line for each event."""

    def __init__(self, study: Study, folder: Path, retry: bool):
        self.folder, self.cells = folder, study.cells()
        self.states = {cell.name: self._state(cell, retry) for cell in self.cells}
        self.began = {cell.name: 0.0 for cell in self.cells}
        self.took: dict[str, float] = {}
        self._console = Console()
        self._live: Live | None = None

    def _state(self, cell: Cell, retry: bool) -> str:
        folder = self.folder / cell.name
        if is_finished(folder):
            return "finished before"
        return "failed before" if (folder / FAILED).exists() and not retry else "waiting"

    def error(self, name: str) -> str:
        """The first line of what went wrong."""
        file = self.folder / name / FAILED
        return file.read_text(encoding="utf-8").partition("\n")[0] if file.exists() else "no word was left of why."

    def begin(self, folder: Path) -> None:
        self.states[folder.name], self.began[folder.name] = "running", time.perf_counter()
        self._say(f"{folder.name} begun")

    def end(self, folder: Path, outcome: dict[str, Any]) -> None:
        name = folder.name
        self.states[name], self.took[name] = outcome["state"], outcome["seconds"]
        if outcome["state"] == "failed" and not (folder / FAILED).exists():
            write_whole(folder / FAILED, outcome["error"].encode())
        what = (
            f"failed: {outcome['error']}" if outcome["state"] == "failed" else f"done in {_clock(outcome['seconds'])}"
        )
        self._say(f"{name} {what}")

    def time_left(self) -> str:
        """From the cells that this run has finished, for those that wait or run."""
        done = [seconds for name, seconds in self.took.items() if self.states[name] == "done" and name != "teacher"]
        running = [name for name, state in self.states.items() if state == "running"]
        waiting = list(self.states.values()).count("waiting")
        if not done:
            return "unknown until a first cell is done"
        seconds = mean(done)
        under_way = sum(max(0.0, seconds - (time.perf_counter() - self.began[name])) for name in running)
        return _clock((waiting * seconds + under_way) / max(1, len(running)))

    def _say(self, event: str) -> None:
        if not self._console.is_terminal:
            done = sum(state in ("done", "finished before") for state in self.states.values())
            print(f"[{done}/{len(self.cells)}] {event}; time left {self.time_left()}", flush=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The table while the cells run; at the end one line that counts."""
        try:
            if self._console.is_terminal:
                with Live(get_renderable=self._table, console=self._console, refresh_per_second=1):
                    yield
            else:
                yield
        finally:
            counts = Counter(self.states.values())
            print(", ".join(f"{count} {state}" for state, count in counts.items()), file=sys.stdout)
            if failed := [name for name, state in self.states.items() if state.startswith("failed")]:
                print("\n".join(f"{name}: {self.error(name)}" for name in failed))
                print('Their tracebacks are in failed.txt; "--retry" runs them again.')

    def _table(self) -> Table:
        table = Table(title=self.folder.name, caption=f"time left: {self.time_left()}")
        seeds = list(dict.fromkeys(cell.seed for cell in self.cells if cell.objective != "teacher"))
        table.add_column("objective")
        for seed in seeds:
            table.add_column(f"seed {seed}")
        by_label: dict[str, dict[int, Cell]] = {}
        for cell in self.cells:
            by_label.setdefault(cell.label, {})[cell.seed] = cell
        for label, row in by_label.items():
            table.add_row(label, *(self._shown_state(row[seed]) if seed in row else "" for seed in seeds))
        return table

    def _shown_state(self, cell: Cell) -> str:
        state = self.states[cell.name]
        if state == "running":
            return f"running {_clock(time.perf_counter() - self.began[cell.name])}"
        return f"{state} {_clock(self.took[cell.name])}" if cell.name in self.took else state


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
