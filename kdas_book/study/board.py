"""Where a running study stands: a table that a terminal redraws, or a line for each event."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from kdas_book.study.run_cell import FAILED
from kdas_book.study.spec import Cell, Study, is_finished
from kdas_core.files import atomic_write


class Board:
    """Where things stand: a table that a terminal redraws, or a line for each event.

    One more thread may draw it while it changes.
    """

    def __init__(self, study: Study, folder: Path, retry: bool):
        self.folder = folder
        self.cells = study.cells()
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
        text = file.read_text(encoding="utf-8") if file.exists() else "no word was left of why"
        return text.partition("\n")[0]

    def begin(self, folder: Path) -> None:
        """A cell's turn has come."""
        with self._lock:
            self.states[folder.name] = "running"
            self.began[folder.name] = time.perf_counter()
            self.at_once = max(self.at_once, list(self.states.values()).count("running"))
            self._say(f"{folder.name} begun")

    def end(self, folder: Path, outcome: dict[str, Any]) -> None:
        """A cell has ended; what is known of why it failed is kept in its folder."""
        name, failed = folder.name, outcome["state"] == "failed"
        if failed and not (folder / FAILED).exists():
            atomic_write(folder / FAILED, outcome["error"].encode())
        with self._lock:
            self.states[name] = outcome["state"]
            self.took[name] = outcome["seconds"]
            how = f"failed: {self.error(name)}" if failed else f"done in {_clock(self.took[name])}"
            self._say(f"{name} {how}")

    def time_left(self) -> str:
        """From the cells that this run has finished, for those that wait or run."""
        with self._lock:
            took = {n: s for n, s in self.took.items() if self.states[n] == "done"}
            running = [name for name, state in self.states.items() if state == "running"]
            waiting = list(self.states.values()).count("waiting")
        if not running and not waiting:
            return _clock(0)
        done = [seconds for name, seconds in took.items() if seconds and name != "teacher"]
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
            ended = ("stopped" if state == "running" else state for state in self.states.values())
            counts = Counter(ended)
            lines = [", ".join(f"{count} {state}" for state, count in counts.items())]
            lines += [f"{name}: {self.error(name)}" for name in self.failed()]
            if "stopped" in counts:
                lines.append("The same command goes on from the last checkpoints.")
            print("\n".join(lines), flush=True)

    def _table(self) -> Table:
        with self._lock:
            teacher, *others = self.cells
            caption = f"teacher: {self._shown_state(teacher)}; time left: {self.time_left()}"
            table = Table(title=self.folder.name, caption=caption)
            for column in ("objective", *dict.fromkeys(f"seed {cell.seed}" for cell in others)):
                table.add_column(column)
            for label in dict.fromkeys(cell.label for cell in others):
                mine = [self._shown_state(cell) for cell in others if cell.label == label]
                table.add_row(label, *mine)
            return table

    def _shown_state(self, cell: Cell) -> str:
        state = self.states[cell.name]
        if state == "running":
            return f"running {_clock(time.perf_counter() - self.began[cell.name])}"
        return f"{state} {_clock(self.took[cell.name])}" if cell.name in self.took else state


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
