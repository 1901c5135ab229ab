"""Notebooks with parameters, checked before anything runs, and run by papermill in a kernel that
depends on no user's settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from kdas_core import UserError

STANDARD = ("preset", "data_root", "runs_dir", "seed")  # the parameters that every chapter takes


class BuildError(UserError):
    """A chapter failed, or the site has a warning; the message says where."""


@dataclass
class Measured:
    """What a chapter took: seconds, kernel start included, and its processes' peak memory in MB."""

    chapter: str
    seconds: float = 0.0
    peak_mb: float = 0.0


def known_parameters(notebook: Path) -> dict[str, str]:
    """The parameters of a chapter and their types (``"int"``, …; ``"None"``: none is named).

    Raises:
        UserError: not a notebook, no cell tagged ``parameters``, or one of the four is missing.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        tagged = any("parameters" in cell.metadata.get("tags", []) for cell in cells)
        found = papermill.inspect_notebook(str(notebook)) if tagged else {}
    except Exception as error:  # of many kinds, with one way out
        raise UserError(f"{notebook} is no notebook ({error}); save it from Jupyter.") from error
    if not tagged:
        names = ", ".join(STANDARD)
        raise UserError(f'{notebook} has no cell tagged "parameters"; tag that of {names}.')
    if missing := [name for name in STANDARD if name not in found]:
        raise UserError(f"The parameters cell of {notebook} lacks {', '.join(missing)}.")
    return {name: about["inferred_type_name"] for name, about in found.items()}


def parameters_of(
    notebooks: Sequence[Path], given: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """For each chapter the given parameters that its parameters cell names, in the type of that
    cell: ``seed=3`` of a command line becomes a number.

    Raises:
        UserError: a parameter that no chapter knows, or a value of another type.
    """
    known = {notebook: known_parameters(notebook) for notebook in notebooks}
    names = sorted(set().union(*known.values()))
    for name in given:
        if name not in names:
            raise UserError(
                f'No chapter has a parameter "{name}"; the known ones are {", ".join(names)}.'
            )
    return {
        notebook: {k: _as_type(k, v, types[k]) for k, v in given.items() if k in types}
        for notebook, types in known.items()
    }


def _as_type(name: str, value: Any, kind: str) -> Any:
    if not isinstance(value, str) or kind == "str":
        return value
    try:
        if kind in ("int", "float"):
            return int(value) if kind == "int" else float(value)
        value = yaml.safe_load(value)
        if kind == "bool" and not isinstance(value, bool):
            raise ValueError
    except (ValueError, yaml.YAMLError):
        raise UserError(f'{name} is "{value}"; a value of type {kind} is expected.') from None
    return value


def run_notebook(
    notebook: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    home: Path,
    tick: Callable[[float], None] = lambda seconds: None,
) -> Measured:
    """Run one notebook in a kernel of its own; its copy with outputs is written after every cell.

    Args:
        executed: the copy.
        home: a folder for the kernel's working directory and settings.
        tick: called several times a second with the seconds so far.

    Raises:
        BuildError: a cell failed or the kernel died; says the notebook, the cell and the error. The
            copy is kept.
    """
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    executed.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"kernel_name": "python3", "language": "python", "cwd": str(work)}
    options |= {"progress_bar": False, "start_timeout": 180, "execution_timeout": None}
    with _environment(home / "jupyter"), _watch(notebook.stem, tick) as measured:
        try:
            papermill.execute_notebook(str(notebook), str(executed), dict(parameters), **options)
        except (PapermillExecutionError, DeadKernelError) as error:
            raise _failure(notebook, executed, error) from error
    return measured


@contextlib.contextmanager
def _environment(jupyter: Path) -> Iterator[None]:
    """What a kernel inherits, whatever the user's shell and settings say."""
    # A kernel called python3 may be installed anywhere; this one is the interpreter that runs this.
    kernel = jupyter / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f"]
    about = {"argv": [*argv, "{connection_file}"], "display_name": "Python 3", "language": "python"}
    kernel.write_text(json.dumps(about))
    before = dict(os.environ)
    ours = {
        "JUPYTER_PATH": _first(jupyter, before.get("JUPYTER_PATH")),
        "PYTHONPATH": _first(Path(__file__).resolve().parents[2], before.get("PYTHONPATH")),
        "IPYTHONDIR": str(jupyter / "ipython"),  # no start-up files of the user
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # display or not
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TQDM_DISABLE": "1",  # a progress bar is nothing to read afterwards
        "KDAS_BATCH": "1",  # kdas_book.explore draws for a page, not for a person at the keyboard
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


def _first(folder: Path, others: str | None) -> str:
    return os.pathsep.join(filter(None, [str(folder), others]))


def _failure(notebook: Path, executed: Path, error: Exception) -> BuildError:
    """The message about a failed chapter; cell numbers count the source's code cells from 1."""
    cells = [c for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"]
    cells = [c for c in cells if "injected-parameters" not in c.metadata.get("tags", [])]
    states = [cell.metadata.get("papermill", {}).get("status") for cell in cells]
    # A failed cell is marked; if the kernel died, the last one that was begun is still "running" or
    # has no state.
    marked = [i for i, state in enumerate(states) if state in ("failed", "running")]
    number = min([*marked, states.count("completed"), len(cells) - 1])
    first_line = cells[number].source.strip().partition("\n")[0]
    where = f"{notebook.stem} failed in code cell {number + 1} of {len(cells)}"
    where += f" (which begins: {first_line})"
    kept = f"The notebook up to there is {executed}."
    if not isinstance(error, PapermillExecutionError):
        return BuildError(
            f"{where}: its process died, most often because the memory was not enough.\n{kept}"
        )
    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()[-30:]
    listed = "\n".join(f"    {line}" for line in trace)
    return BuildError(f"{where}: {error.ename}: {error.evalue}\n{kept}\n\n{listed}")


@contextlib.contextmanager
def _watch(chapter: str, tick: Callable[[float], None]) -> Iterator[Measured]:
    """Measure the processes that this one starts while the block runs, and call ``tick``."""
    measured, stop, began = Measured(chapter), threading.Event(), time.perf_counter()

    def sample() -> None:
        while not stop.wait(0.2):
            total = 0
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                    total += child.memory_info().rss
            measured.peak_mb = max(measured.peak_mb, total / 2**20)
            tick(time.perf_counter() - began)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield measured
    finally:
        stop.set()
        thread.join()
        measured.seconds = time.perf_counter() - began


def machine() -> str:
    """This machine in words that fit any other like it, such as "2 CPU cores, no GPU"."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{cores} CPU cores, {gpu}"
