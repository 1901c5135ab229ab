"""``kdas study run``: what is not finished yet, with a table that says where things stand."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from kdas_book.build.run_notebook import parameters_of
from kdas_book.data.open_data import open_data
from kdas_book.paths import find_root
from kdas_book.study import executors
from kdas_book.study.board import Board
from kdas_book.study.spec import (
    Study,
    is_finished,
    open_folder,
    read_record,
    read_study,
    refuse_other_teachers,
)
from kdas_core import UserError
from kdas_core.files import atomic_write, unwritten

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
    if not todo:
        return
    events = executors.run_cells(todo, processes or executors.default_processes(), dask)
    with closing(events):  # whatever happens here, the cells under way are stopped at once
        for folder, outcome in events:
            if outcome is None:
                board.begin(folder)
            else:
                board.end(folder, outcome)


def prepare(study: Study, folder: Path) -> None:
    """Check the data and the template, and write ``study.yaml`` and each cell's ``cell.json``.

    Raises:
        UserError: no data, or others than the folder's finished cells had; the template lacks a
            parameter; the teacher would not be the same for all.
    """
    root, networks = find_root(), folder / "networks"
    recipe = study.recipe(study.cells()[0])
    refuse_other_teachers(study, released=(root / recipe.teacher_weights).is_file())
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
        (values,) = parameters_of([root / TEMPLATE], given).values()
        text = json.dumps({"template": str(root / TEMPLATE), "parameters": values}, indent=1)
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
