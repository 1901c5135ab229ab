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


@dataclass(frozen=True)
class Measured:
    """What a chapter took: seconds, kernel start included, and the peak resident memory of its
    processes in MB.
    """

    chapter: str
    seconds: float
    peak_mb: float


# --- parameters -------------------------------------------------------------------------------------------------------


def known_parameters(notebook: Path) -> dict[str, str]:
    """The parameters of a chapter and their types (``"str"``, ``"int"``, … or ``"None"`` where the
    cell names no type).

    Raises:
        UserError: not a notebook, no cell tagged ``parameters``, or one of the four of every
            chapter is missing.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        tagged = any("parameters" in cell.metadata.get("tags", []) for cell in cells)
        found = papermill.inspect_notebook(str(notebook)) if tagged else {}
    except (
        Exception
    ) as error:  # whatever the parsers find wrong with the file, the way out is the same
        raise UserError(
            f"{notebook} cannot be read as a notebook ({error}); save it again from Jupyter."
        ) from error
    if not tagged:
        raise UserError(
            f'{notebook} has no cell tagged "parameters"; tag the one with {", ".join(STANDARD)}.'
        )
    if missing := [name for name in STANDARD if name not in found]:
        raise UserError(
            f"The parameters cell of {notebook} lacks {', '.join(missing)}; every chapter takes the same four."
        )
    return {name: about["inferred_type_name"] for name, about in found.items()}


def parameters_of(
    notebooks: Sequence[Path], given: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """Which chapter gets which of the given parameters: each gets those that its parameters cell
    names.

    Texts are turned into the type that the cell names, so that ``seed=3`` of a command line is a
    number.

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
        notebook: {
            name: _as_type(name, value, types[name])
            for name, value in given.items()
            if name in types
        }
        for notebook, types in known.items()
    }


def _as_type(name: str, value: Any, kind: str) -> Any:
    if not isinstance(value, str) or kind == "str":
        return value
    try:
        if kind in ("int", "float"):
            return {"int": int, "float": float}[kind](value)
        value = yaml.safe_load(value)
        if kind == "bool" and not isinstance(value, bool):
            raise ValueError
    except (ValueError, yaml.YAMLError):
        raise UserError(f'{name} is "{value}"; a value of type {kind} is expected.') from None
    return value


# --- one notebook -----------------------------------------------------------------------------------------------------


def run_notebook(
    notebook: Path,
    executed: Path,
    parameters: Mapping[str, Any],
    home: Path,
    tick: Callable[[float], None] = lambda seconds: None,
) -> Measured:
    """Run one notebook in a kernel of its own; the copy with its outputs is written to ``executed``
    after every cell.

    Args:
        home: a folder for the kernel's working directory and settings.
        tick: called several times a second with the seconds so far.

    Raises:
        BuildError: a cell failed or the kernel died; says the notebook, the cell and the error. The
            copy is kept.
    """
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    executed.parent.mkdir(parents=True, exist_ok=True)
    with _environment(home), _Watch(tick) as watch:
        try:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                cwd=str(work),
                progress_bar=False,
                start_timeout=180,
                execution_timeout=None,
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            raise _failure(notebook, executed, error) from error
    return Measured(notebook.stem, watch.seconds, watch.peak_mb)


@contextlib.contextmanager
def _environment(home: Path) -> Iterator[None]:
    """What a kernel inherits, whatever the user's shell and settings say."""
    jupyter = home / "jupyter"
    kernel = jupyter / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    # A kernel called python3 may be installed anywhere; this one is the interpreter that runs this
    # line.
    argv = [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "--log-level=ERROR",
        "-f",
        "{connection_file}",
    ]
    kernel.write_text(
        json.dumps({"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"})
    )
    ours = {
        "JUPYTER_PATH": _before("JUPYTER_PATH", jupyter),
        "PYTHONPATH": _before("PYTHONPATH", Path(__file__).resolve().parents[1]),
        "IPYTHONDIR": str(jupyter / "ipython"),  # no start-up files of the user
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures go into the notebook, display or not
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TQDM_DISABLE": "1",  # a progress bar is nothing to read afterwards
        "KDAS_BATCH": "1",  # kdas_book.explore draws for a page, not for a person at the keyboard
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _before(variable: str, folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


def _failure(notebook: Path, executed: Path, error: Exception) -> BuildError:
    """The one message about a failed chapter: cell numbers count the code cells of the source from
    1.
    """
    copy = nbformat.read(executed, as_version=4)
    cells = [
        c
        for c in copy.cells
        if c.cell_type == "code" and "injected-parameters" not in c.metadata.get("tags", [])
    ]
    states = [cell.metadata.get("papermill", {}).get("status") for cell in cells]
    # A failed cell is marked; if the kernel died, the last one that was begun is still "running" or
    # has no state.
    number = next(
        (i for i, state in enumerate(states) if state in ("failed", "running")),
        states.count("completed"),
    )
    number = min(number, len(cells) - 1)
    first_line = next(iter(cells[number].source.strip().splitlines()), "")
    where = f"{notebook.stem} failed in code cell {number + 1} of {len(cells)} (which begins: {first_line})"
    kept = f"The notebook up to there is {executed}."
    if isinstance(error, PapermillExecutionError):
        trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).splitlines()[-30:]
        return BuildError(
            f"{where}: {error.ename}: {error.evalue}\n{kept}\n\n"
            + "\n".join(f"    {x}" for x in trace)
        )
    return BuildError(
        f"{where}: its process died, most often because the memory was not enough.\n{kept}"
    )


class _Watch:
    """Measures the time and the peak memory of the processes that this one starts, and tells how
    long it has been.
    """

    def __init__(self, tick: Callable[[float], None]):
        self.tick, self.peak_mb, self.seconds = tick, 0.0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Watch:
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._began

    def _sample(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.2):
            total = 0
            for child in me.children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                    total += child.memory_info().rss
            self.peak_mb = max(self.peak_mb, total / 2**20)
            self.tick(time.perf_counter() - self._began)


def machine() -> str:
    """This machine in words that fit any other like it, such as "2 CPU cores, no GPU"."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores, {torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'no GPU'}"
