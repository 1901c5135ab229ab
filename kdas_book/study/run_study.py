"""``kdas study run``: what is not finished yet, one after another or side by side, with a table
that says where things stand.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.table import Table

from kdas_book.build.run_notebook import parameters_of
from kdas_book.data.open_data import open_data
from kdas_book.paths import find_root
from kdas_book.study import executors as engines
from kdas_book.study.run_cell import FAILED
from kdas_book.study.spec import (
    Cell,
    Study,
    is_finished,
    open_folder,
    read_record,
    read_study,
    refuse_other_teachers,
)
from kdas_core import UserError
from kdas_core.files import atomic_write

TEMPLATE = Path("book") / "run_template.ipynb"


def run(
    study: Study, runs_dir: str | Path, processes: int = 0, dask: str = "", retry: bool = False
) -> Path:
    """Run every cell that is not finished: the teacher first, the others side by side.

    Args:
        runs_dir: the study's folder is made in here.
        processes: how many cells at once on this machine; 0: one a GPU, or one for two processors.
        dask: address of a Dask scheduler, which then gets the cells.
        retry: run cells again that failed last time.

    Returns:
        The study's folder.

    Raises:
        UserError: something in the study or the folder is wrong; another run of the study is under
            way; the teacher failed, or when all others have ended, other cells did.
        SystemExit: code 0, after SIGTERM: trainings that were under way have written a checkpoint.
    """
    folder = open_folder(study, runs_dir)
    with _alone(folder), _ending_on_request():
        prepare(study, folder)
        board = _Board(study, folder, retry)
        with board.shown():
            teacher, *others = study.cells()
            for cells in ([teacher], others):
                todo = [
                    folder / cell.name for cell in cells if board.states[cell.name] == "waiting"
                ]
                _run(todo, processes, dask, board)
                if teacher.name in board.failed():
                    raise UserError(
                        f"The teacher failed ({board.error(teacher.name)}); mend that, and add --retry."
                    )
    if failed := board.failed():
        raise UserError(
            f"{len(failed)} of {len(board.cells)} cells failed; what went wrong is in failed.txt of {', '.join(failed)}, and --retry "
            "runs them again."
        )
    return folder


def _run(todo: list[Path], processes: int, dask: str, board: _Board) -> None:
    if not todo:
        return
    if dask:
        engine = engines.on_dask(todo, dask, board.begin)
    else:
        engine = engines.local(todo, processes or engines.default_processes(), board.begin)
    with closing(engine):  # whatever happens here, the cells that are under way are stopped at once
        for where, outcome in engine:
            board.end(where, outcome)


def prepare(study: Study, folder: Path) -> None:
    """Check the data and the template, and write ``study.yaml`` and each cell's ``cell.json``.

    Raises:
        UserError: no data, or others than the folder's finished cells had; the template lacks a
            parameter; the teacher would not be the same for all.
    """
    root = find_root()
    template = root / TEMPLATE
    recipe = study.recipe(study.cells()[0])
    refuse_other_teachers(study, released=(root / recipe.teacher_weights).is_file())
    networks = folder / "networks"
    data = open_data(recipe, study.data_root, default=root / "data", made=networks)
    _refuse_other_data(study, folder, data.root)
    contents = {}
    for cell in study.cells():
        settings = {
            **study.settings,
            **dict(cell.hyperparameters),
            "teacher_seed": study.teacher_seed,
        }
        given: dict[str, Any] = {"preset": study.preset, "data_root": str(data.root.absolute())}
        given |= {
            "runs_dir": str(networks),
            "seed": cell.seed,
            "label": cell.label,
            "objective": cell.objective,
        }
        given |= {"settings": settings, "out": str(folder / cell.name)}
        (values,) = parameters_of([template], given).values()
        contents[cell.name] = json.dumps(
            {"template": str(template), "parameters": values}, indent=1
        )
    # First of all, since a folder without it is taken for another's.
    atomic_write(folder / "study.yaml", _with_earlier(study, folder).as_yaml().encode())
    for name, content in contents.items():
        (folder / name).mkdir(exist_ok=True)
        atomic_write(folder / name / "cell.json", content.encode())


def _refuse_other_data(study: Study, folder: Path, root: Path) -> None:
    """Where no folder is named, the data may have changed since: synthetic polyps first, then real
    images.
    """
    for cell in study.cells():
        if (
            is_finished(folder / cell.name)
            and (name := read_record(folder / cell.name)["data"]["name"]) != root.name
        ):
            raise UserError(
                f"{folder / cell.name} was trained on {name}, and the images are now those of {root}; give the study another name."
            )


def _with_earlier(study: Study, folder: Path) -> Study:
    """The study with the labels and seeds that the folder has had before."""
    if not (folder / "study.yaml").is_file():
        return study
    before = read_study(folder / "study.yaml")
    seeds = tuple(dict.fromkeys([*before.seeds, *study.seeds]))
    return replace(study, objectives={**before.objectives, **study.objectives}, seeds=seeds)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"Another run of this study is under way in {folder}; wait for it, or stop it."
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another --runs-dir."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ending_on_request() -> Iterator[None]:
    """SIGTERM stops the cells as Ctrl-C does, and is no error. Outside the main thread nothing can
    be caught, and nothing is.
    """

    def stop(*_: object) -> None:
        raise SystemExit(0)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Board:
    """Where things stand: a table that a terminal redraws, or a line for each event.

    Several threads tell it what happens, and one more may draw it meanwhile.
    """

    def __init__(self, study: Study, folder: Path, retry: bool):
        self.folder, self.cells = folder, study.cells()
        self.states = {cell.name: self._state(cell, retry) for cell in self.cells}
        self.began: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.at_once = 1  # how many cells have been seen side by side
        self._console = Console()
        self._lock = threading.RLock()

    def _state(self, cell: Cell, retry: bool) -> str:
        folder = self.folder / cell.name
        if is_finished(folder):
            return "finished before"
        return "failed before" if (folder / FAILED).exists() and not retry else "waiting"

    def failed(self) -> list[str]:
        """The names of the cells that failed, now or before."""
        return [name for name, state in self.states.items() if state.startswith("failed")]

    def error(self, name: str) -> str:
        """The first line of what went wrong."""
        file = self.folder / name / FAILED
        return (
            file.read_text(encoding="utf-8").partition("\n")[0]
            if file.exists()
            else "no word was left of why"
        )

    def begin(self, folder: Path) -> None:
        """A cell's turn has come."""
        with self._lock:
            self.states[folder.name], self.began[folder.name] = "running", time.perf_counter()
            self.at_once = max(self.at_once, list(self.states.values()).count("running"))
            self._say(f"{folder.name} begun")

    def end(self, folder: Path, outcome: dict[str, Any]) -> None:
        """A cell has ended; what is known of why it failed is kept in its folder."""
        name, failed = folder.name, outcome["state"] == "failed"
        if failed and not (folder / FAILED).exists():
            atomic_write(folder / FAILED, outcome["error"].encode())
        with self._lock:
            self.states[name], self.took[name] = outcome["state"], outcome["seconds"]
            self._say(
                f"{name} failed: {self.error(name)}"
                if failed
                else f"{name} done in {_clock(self.took[name])}"
            )

    def time_left(self) -> str:
        """From the cells that this run has finished, for those that wait or run."""
        with self._lock:
            done = [
                s
                for name, s in self.took.items()
                if s and self.states[name] == "done" and name != "teacher"
            ]
            running = [name for name, state in self.states.items() if state == "running"]
            waiting = list(self.states.values()).count("waiting")
            if not running and not waiting:
                return _clock(0)
            if not done:
                return "unknown until a first cell is done"
            now, each = time.perf_counter(), mean(done)
            left = [max(0.0, each - (now - self.began[name])) for name in running] + waiting * [
                each
            ]
            # So many at once, and no cell is divided.
            return _clock(max(sum(left) / min(self.at_once, len(left)), max(left)))

    def _say(self, event: str) -> None:
        if not self._console.is_terminal:
            done = sum(state in ("done", "finished before") for state in self.states.values())
            # In one piece, whatever else is printed at this moment.
            sys.stdout.write(f"[{done}/{len(self.cells)}] {event}; time left {self.time_left()}\n")
            sys.stdout.flush()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The table while the cells run; at the end one line that counts, and one for each cell
        that failed.
        """
        live = Live(get_renderable=self._table, console=self._console, refresh_per_second=1)
        try:
            with live if self._console.is_terminal else nullcontext():
                yield
        finally:
            states = ["stopped" if state == "running" else state for state in self.states.values()]
            print(
                ", ".join(f"{count} {state}" for state, count in Counter(states).items()),
                flush=True,
            )
            for name in self.failed():
                print(f"{name}: {self.error(name)}", flush=True)
            if "stopped" in states:
                print("The same command goes on from the last checkpoints.", flush=True)

    def _table(self) -> Table:
        with self._lock:
            teacher, *others = self.cells
            caption = f"teacher: {self._shown_state(teacher)}; time left: {self.time_left()}"
            table = Table(title=self.folder.name, caption=caption)
            seeds = list(dict.fromkeys(cell.seed for cell in others))
            for column in ("objective", *(f"seed {seed}" for seed in seeds)):
                table.add_column(column)
            by_label: dict[str, list[str]] = {}
            for cell in others:  # seed by seed, so each row is in the order of the columns
                by_label.setdefault(cell.label, []).append(self._shown_state(cell))
            for label, states in by_label.items():
                table.add_row(label, *states)
            return table

    def _shown_state(self, cell: Cell) -> str:
        state = self.states[cell.name]
        if state == "running":
            return f"running {_clock(time.perf_counter() - self.began[cell.name])}"
        return f"{state} {_clock(self.took[cell.name])}" if cell.name in self.took else state


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
