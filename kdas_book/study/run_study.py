"""``kdas study run``: what is not finished yet, with a line for whatever happens."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from statistics import mean

from kdas_book.data.open_data import data_digest, open_data
from kdas_book.paths import find_root
from kdas_book.study import executors
from kdas_book.study.cell import MAPS
from kdas_book.study.results import collect, keep, restore
from kdas_book.study.spec import FAILED, Study, is_finished, open_folder, read_record, read_study
from kdas_core import UserError
from kdas_core.files import alone, atomic_write

TEMPLATE = Path("book") / "run_template.ipynb"
_BUSY = "Another run of this study is under way in", "choose another --runs-dir"


def run(
    study: Study, runs_dir: str | Path, processes=0, dask="", retry=False, kept: str | Path = ""
) -> Path:
    """Run every cell that is not finished, the teacher first; return the folder in ``runs_dir``.

    Args:
        processes: how many cells at once on this machine; 0: one a GPU, or one for two processors.
        dask: address of a Dask scheduler, which then gets the cells.
        retry: run cells again that failed last time.
        kept: a folder of results, as ``kdas study report --keep`` writes them. Students recorded
            there count as finished, wherever they were trained; it is written again at the end.

    A UserError if the study or the folder cannot be used, another run of the study is under way,
    the teacher failed, or (when all have ended) other cells did. SIGTERM ends it with SystemExit,
    code 0, when training runs under way have written a checkpoint.
    """
    folder = open_folder(study, runs_dir)
    with alone(folder, *_BUSY), _ending_on_request():
        if kept:
            restore(folder, kept)
        prepare(study, folder)
        board = Board(study, folder, retry)
        teacher, *others = board.states
        try:
            for names in ([teacher], others) if "waiting" in map(board.states.get, others) else ():
                if todo := [folder / name for name in names if board.states[name] == "waiting"]:
                    board.follow(executors.run_cells(todo, processes, dask))
                if teacher in board.failed():
                    why = board.error(teacher)
                    raise UserError(f"The teacher failed ({why}); mend that, and add --retry.")
                if kept and board.finished() - {teacher}:
                    collect(folder)  # refuses students of another teacher before more are made
        finally:
            print(board.summary(), flush=True)
            if kept and board.finished() - {teacher}:
                keep(folder, kept)
    if failed := board.failed():
        where = f"what went wrong is in failed.txt of {', '.join(failed)}"
        count = f"{len(failed)} of {len(board.states)} cells failed"
        raise UserError(f"{count}; {where}, and --retry runs them again.")
    return folder


def prepare(study: Study, folder: Path) -> None:
    """Write ``study.yaml`` and each cell's ``cell.json``; a UserError where data or template do not
    fit, the cells need more than one teacher, or papermill is missing.
    """
    from kdas_book.publishing.run_notebook import check_parameters

    root, networks = find_root(), folder / "networks"
    recipe = study.recipe(study.cells()[0])
    study.refuse_other_teachers(released=(root / recipe.teacher_weights).is_file())
    data = open_data(recipe, study.data_root, default=root / "data", made=networks)
    data.check_masks()
    digest = data_digest(data)
    contents: dict[Path, str] = {}
    for cell in study.cells():
        out = folder / cell.name
        # The data may have changed since: first synthetic, then real, or masks were corrected.
        record = read_record(out) if is_finished(out) else {"data": {}}
        if record["data"].get("digest", digest) != digest:
            now = f"{out} was trained on other images or masks than those of {data.root}"
            raise UserError(f"{now}; give the study another name.")
        mine = json.loads(json.dumps(asdict(study.recipe(cell)), sort_keys=True))
        theirs = mine | record.get("recipe", {}) | {"teacher_weights": mine["teacher_weights"]}
        if differ := [name for name in mine if theirs[name] != mine[name]]:
            fact = f"{out} was trained with another {' and '.join(differ)}"
            raise UserError(f"{fact}; give it another label.")
        given = {"preset": study.preset, "data_root": str(data.root.absolute()), "seed": cell.seed}
        given |= {"runs_dir": str(networks), "label": cell.label, "objective": cell.objective}
        given |= {"settings": cell.settings, "out": str(out)}
        content = {"template": str(root / TEMPLATE), "parameters": given}
        contents[out] = json.dumps(content, indent=1)
    check_parameters(root / TEMPLATE, given)
    if (folder / "study.yaml").is_file():  # what the folder has had before stays in it
        before = read_study(folder / "study.yaml")
        seeds = tuple(dict.fromkeys([*before.seeds, *study.seeds]))
        study = replace(study, objectives={**before.objectives, **study.objectives}, seeds=seeds)
    atomic_write(folder / "study.yaml", study.as_yaml().encode())
    for out, text in contents.items():
        out.mkdir(exist_ok=True)
        atomic_write(out / "cell.json", text.encode())


def status(study: Study, runs_dir: str | Path) -> str:
    """One line that counts the cells by state, and one for each that failed."""
    board = Board(study, Path(runs_dir) / study.name, retry=False)
    for name in board.states.keys() - board.finished():
        if (board.folder / name / ".lock").exists():
            try:
                with alone(board.folder / name, *_BUSY):
                    pass
            except UserError:
                board.states[name] = "under way"
    return board.summary()


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
    """Where things stand: the state of each cell, when it began, and the seconds that it took."""

    def __init__(self, study: Study, folder: Path, retry: bool):
        self.folder = folder
        self.states = {cell.name: "waiting" for cell in study.cells()}
        self.seeds = {cell.name: cell.seed for cell in study.cells()}
        for name in self.states:
            if is_finished(folder / name):
                self.states[name] = "finished before"
            elif (folder / name / FAILED).exists() and not retry:
                self.states[name] = "failed before"
        self.began: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.at_once = 1  # how many cells have been seen side by side

    def finished(self) -> set[str]:
        """The cells that are finished, now or before."""
        return {name for name, s in self.states.items() if s in ("done", "finished before")}

    def failed(self) -> list[str]:
        """The cells that failed, now or before."""
        return [name for name, state in self.states.items() if state.startswith("failed")]

    def error(self, name: str) -> str:
        """The first line of what went wrong."""
        file = self.folder / name / FAILED
        text = file.read_text(encoding="utf-8") if file.exists() else "no word was left of why"
        return text.partition("\n")[0]

    def follow(self, events: executors.Events) -> None:
        """Note what happens to the cells until all have ended."""
        with closing(events):  # whatever happens here, the cells under way are stopped at once
            for folder, outcome in events:
                if outcome is None:
                    self.begin(folder)
                else:
                    self.end(folder, outcome)

    def begin(self, folder: Path) -> None:
        """A cell's turn has come."""
        self.began[folder.name] = time.perf_counter()
        self.states[folder.name] = "running"
        self.at_once = max(self.at_once, list(self.states.values()).count("running"))
        self._say(f"{folder.name} begun")

    def end(self, folder: Path, outcome: executors.Outcome) -> None:
        """A cell has ended; what is known of why it failed is kept in its folder."""
        name, error = folder.name, outcome.error
        if error and not (folder / FAILED).exists():
            atomic_write(folder / FAILED, error.encode())
        self.took[name] = outcome.seconds
        self.states[name] = "failed" if error else "done"
        of_seed = {other for other, seed in self.seeds.items() if seed == self.seeds[name]}
        if of_seed <= self.finished():  # nobody asks the teacher about these batches any more
            maps = self.folder / "networks" / MAPS.format(seed=self.seeds[name])
            shutil.rmtree(maps, ignore_errors=True)
        how = f"failed: {self.error(name)}" if error else f"done in {_clock(outcome.seconds)}"
        self._say(f"{name} {how}")

    def time_left(self) -> str:
        """From the cells that this run has finished, for those that wait or run."""
        now, states = time.perf_counter(), self.states.items()
        ages = [now - self.began[name] for name, state in states if state == "running"]
        waiting = sum(state == "waiting" for _, state in states)
        done = [self.took[name] for name, state in states if state == "done" and name != "teacher"]
        if not ages and not waiting:
            return _clock(0)
        if not done:
            return "unknown until a first cell is done"
        left = [max(0.0, mean(done) - age) for age in ages] + waiting * [mean(done)]
        # So many at once, and no cell is divided.
        return _clock(max(sum(left) / min(self.at_once, len(left)), max(left)))

    def _say(self, event: str) -> None:
        # In one piece, whatever else is printed at this moment.
        sys.stdout.write(
            f"[{len(self.finished())}/{len(self.states)}] {event}; time left {self.time_left()}\n"
        )
        sys.stdout.flush()

    def summary(self) -> str:
        """A line that counts the states, and one for each cell that failed."""
        counts = Counter("stopped" if s == "running" else s for s in self.states.values())
        lines = [", ".join(f"{count} {state}" for state, count in counts.items())]
        lines += [f"{name}: {self.error(name)}" for name in self.failed()]
        if "stopped" in counts:
            lines.append("The same command goes on from the last checkpoints.")
        return "\n".join(lines)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
