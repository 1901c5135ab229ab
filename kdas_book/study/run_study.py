"""``kdas study run``: what is not finished yet, with a table that says where things stand."""

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

from kdas_book.data.open_data import open_data
from kdas_book.paths import find_root
from kdas_book.publishing.run_notebook import check_parameters
from kdas_book.study import executors
from kdas_book.study.run_cell import FAILED
from kdas_book.study.spec import Cell, Study, is_finished, open_folder, read_record, read_study
from kdas_core import UserError
from kdas_core.files import atomic_write, unwritten

TEMPLATE = Path("book") / "run_template.ipynb"


def run(
    study: Study, runs_dir: str | Path, processes: int = 0, dask: str = "", retry: bool = False
) -> Path:
    """Run every cell that is not finished, the teacher first, and return the study's folder.

    Args:
        runs_dir: the study's folder is made in here.
        processes: how many cells at once on this machine; 0: one a GPU, or one for two processors.
        dask: address of a Dask scheduler, which then gets the cells.
        retry: run cells again that failed last time.

    Raises:
        UserError: the study or the folder cannot be used, another run of the study is under way,
            the teacher failed, or (when all have ended) other cells did.
        SystemExit: code 0, after SIGTERM; training runs under way have written a checkpoint.
    """
    folder = open_folder(study, runs_dir)
    with _alone(folder), _ending_on_request():
        prepare(study, folder)
        board = Board(study, folder, retry)
        teacher, *others = study.cells()
        with board.shown():
            for cells in ([teacher], others):
                todo = [folder / c.name for c in cells if board.states[c.name] == "waiting"]
                if todo:
                    _run(todo, processes, dask, board)
                if teacher.name in board.failed():
                    why = board.error(teacher.name)
                    raise UserError(f"The teacher failed ({why}); mend that, and add --retry.")
    if failed := board.failed():
        raise UserError(
            f"{len(failed)} of {len(board.cells)} cells failed; what went wrong is in failed.txt "
            f"of {', '.join(failed)}, and --retry runs them again."
        )
    return folder


def _run(todo: list[Path], processes: int, dask: str, board: Board) -> None:
    events = executors.run_cells(todo, processes or executors.default_processes(), dask)
    with closing(events):  # whatever happens here, the cells under way are stopped at once
        for folder, outcome in events:
            if outcome is None:
                board.begin(folder)
            else:
                board.end(folder, outcome)


def prepare(study: Study, folder: Path) -> None:
    """Write ``study.yaml`` and each cell's ``cell.json``; a UserError where data or template do not
    fit, or the cells need more than one teacher.
    """
    root, networks = find_root(), folder / "networks"
    recipe = study.recipe(study.cells()[0])
    study.refuse_other_teachers(released=(root / recipe.teacher_weights).is_file())
    data = open_data(recipe, study.data_root, default=root / "data", made=networks)
    _refuse_other_data(study, folder, data.root)
    contents: dict[str, bytes] = {}
    for cell in study.cells():
        given = {
            "preset": study.preset,
            "data_root": str(data.root.absolute()),
            "runs_dir": str(networks),
            "seed": cell.seed,
            "label": cell.label,
            "objective": cell.objective,
            "settings": study.settings_of(cell),
            "out": str(folder / cell.name),
        }
        check_parameters(root / TEMPLATE, given)
        text = json.dumps({"template": str(root / TEMPLATE), "parameters": given}, indent=1)
        contents[cell.name] = text.encode()
    if (folder / "study.yaml").is_file():  # what the folder has had before stays in it
        before = read_study(folder / "study.yaml")
        seeds = tuple(dict.fromkeys([*before.seeds, *study.seeds]))
        study = replace(study, objectives={**before.objectives, **study.objectives}, seeds=seeds)
    # First of all, since a folder without it is taken for another's.
    atomic_write(folder / "study.yaml", study.as_yaml().encode())
    for name, content in contents.items():
        (folder / name).mkdir(exist_ok=True)
        atomic_write(folder / name / "cell.json", content)


def _refuse_other_data(study: Study, folder: Path, root: Path) -> None:
    """Where no folder is named, the data may have changed since: first synthetic, then real."""
    for where in (folder / cell.name for cell in study.cells()):
        if is_finished(where) and (name := read_record(where)["data"]["name"]) != root.name:
            now = f"{where} was trained on {name}, and the images are now those of {root}"
            raise UserError(f"{now}; give the study another name.")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        taken = lock.acquire(blocking=False)
    except Timeout:
        other = f"Another run of this study is under way in {folder}"
        raise UserError(f"{other}; wait for it, or stop it.") from None
    except OSError as error:
        raise unwritten(folder, error, "choose another --runs-dir") from None
    with taken:
        yield


@contextmanager
def _ending_on_request() -> Iterator[None]:
    """SIGTERM stops the cells as Ctrl-C does, and is no error; only a main thread can catch it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Board:
    """Where things stand. One more thread draws it while it changes, so no key comes or goes."""

    def __init__(self, study: Study, folder: Path, retry: bool):
        self.folder = folder
        self.cells = study.cells()
        self.states = {cell.name: self._state(cell, retry) for cell in self.cells}
        self.began = dict.fromkeys(self.states, 0.0)
        self.took = dict.fromkeys(self.states, 0.0)
        self.at_once = 1  # how many cells have been seen side by side
        self._console = Console()

    def _state(self, cell: Cell, retry: bool) -> str:
        if is_finished(self.folder / cell.name):
            return "finished before"
        failed = (self.folder / cell.name / FAILED).exists()
        return "failed before" if failed and not retry else "waiting"

    def failed(self) -> list[str]:
        """The cells that failed, now or before."""
        return [name for name, state in self.states.items() if state.startswith("failed")]

    def error(self, name: str) -> str:
        """The first line of what went wrong."""
        file = self.folder / name / FAILED
        text = file.read_text(encoding="utf-8") if file.exists() else "no word was left of why"
        return text.partition("\n")[0]

    def begin(self, folder: Path) -> None:
        """A cell's turn has come."""
        self.began[folder.name] = time.perf_counter()
        self.states[folder.name] = "running"
        self.at_once = max(self.at_once, list(self.states.values()).count("running"))
        self._say(f"{folder.name} begun")

    def end(self, folder: Path, outcome: dict[str, Any]) -> None:
        """A cell has ended; what is known of why it failed is kept in its folder."""
        name, failed = folder.name, outcome["state"] == "failed"
        if failed and not (folder / FAILED).exists():
            atomic_write(folder / FAILED, outcome["error"].encode())
        self.took[name] = outcome["seconds"]
        self.states[name] = outcome["state"]
        how = f"failed: {self.error(name)}" if failed else f"done in {_clock(self.took[name])}"
        self._say(f"{name} {how}")

    def time_left(self) -> str:
        """From the cells that this run has finished, for those that wait or run."""
        running = [name for name, state in self.states.items() if state == "running"]
        waiting = list(self.states.values()).count("waiting")
        if not running and not waiting:
            return _clock(0)
        ended = [name for name, state in self.states.items() if state == "done"]
        done = [self.took[name] for name in ended if self.took[name] and name != "teacher"]
        if not done:
            return "unknown until a first cell is done"
        now, each = time.perf_counter(), mean(done)
        left = [max(0.0, each - (now - self.began[name])) for name in running] + waiting * [each]
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
        """The table while the cells run; then a line that counts, and one for each that failed."""
        live = Live(get_renderable=self._table, console=self._console, refresh_per_second=1)
        try:
            with live if self._console.is_terminal else nullcontext():
                yield
        finally:
            counts = Counter("stopped" if s == "running" else s for s in self.states.values())
            lines = [", ".join(f"{count} {state}" for state, count in counts.items())]
            lines += [f"{name}: {self.error(name)}" for name in self.failed()]
            if "stopped" in counts:
                lines.append("The same command goes on from the last checkpoints.")
            print("\n".join(lines), flush=True)

    def _table(self) -> Table:
        teacher, *others = self.cells
        caption = f"teacher: {self._shown_state(teacher)}; time left: {self.time_left()}"
        seeds = dict.fromkeys(f"seed {cell.seed}" for cell in others)
        table = Table("objective", *seeds, title=self.folder.name, caption=caption)
        for label in dict.fromkeys(cell.label for cell in others):
            mine = [self._shown_state(cell) for cell in others if cell.label == label]
            table.add_row(label, *mine)
        return table

    def _shown_state(self, cell: Cell) -> str:
        state = self.states[cell.name]
        if state == "running":
            return f"running {_clock(time.perf_counter() - self.began[cell.name])}"
        return f"{state} {_clock(self.took[cell.name])}" if self.took[cell.name] else state


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
