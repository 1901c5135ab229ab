"""Notebooks with parameters, run by papermill in a kernel that depends on no user's settings."""

import contextlib
import errno
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import indent
from typing import Any

import psutil
from ipykernel.kernelspec import write_kernel_spec

from kdas_core import UserError
from kdas_core.files import unwritten

try:
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
except ImportError:
    way_out = '"pip install papermill" brings it'
    raise UserError(f"Running notebooks needs papermill; {way_out}.") from None

SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)\n```\s*</details>", re.S)


class BuildError(UserError):
    """A chapter failed, or the site has a warning; the message says where."""


def check_parameters(notebook: Path, names: Iterable[str]) -> None:
    """UserError unless the notebook has a cell tagged ``parameters`` that sets all these names."""
    try:
        known = papermill.inspect_notebook(str(notebook))
    except Exception as error:  # of many kinds, with one way out
        raise UserError(f"{notebook} is no notebook ({error}); save it from Jupyter.") from error
    if missing := ", ".join(name for name in names if name not in known):
        raise UserError(f'{notebook} has no cell tagged "parameters", or that lacks {missing}.')


def run_notebook(
    notebook: Path, executed: Path, parameters: Mapping[str, Any], home: Path
) -> tuple[float, float]:
    """Run one notebook, gaps for the reader filled, in a kernel of its own, whose working directory
    and settings are in ``home``: seconds, kernel start included, and the processes' peak memory in
    MB. ``executed``, the copy with outputs, is written after every cell, and kept if a BuildError
    says which failed.
    """
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    executed.parent.mkdir(parents=True, exist_ok=True)
    _define_kernel(home / "jupyter")
    options: dict[str, Any] = {"kernel_name": "python3", "cwd": str(work), "progress_bar": False}
    options["start_timeout"] = 180  # seconds, for a busy machine
    stop = threading.Event()
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        peak_mb = pool.submit(_peak_mb, stop)
        try:
            nbformat.write(solve(nbformat.read(notebook, as_version=4)), executed)
            _execute(str(executed), dict(parameters), options)
        except (PapermillExecutionError, DeadKernelError) as error:
            raise _failure(notebook, executed, error) from error
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            executed.unlink(missing_ok=True)  # what there is of it is cut off
            raise unwritten(executed, error, "make room and start it again") from None
        finally:
            stop.set()
    return time.perf_counter() - began, peak_mb.result()


def _execute(notebook: str, parameters: dict[str, Any], options: dict[str, Any]) -> None:
    """Kernels that start at once may be given the same port: one of them dies before its first
    word, when nothing has run, and is started again.
    """
    for tries_left in (3, 2, 1, 0):
        try:
            return papermill.execute_notebook(notebook, notebook, parameters, **options)
        except RuntimeError as error:
            if not tries_left or "died before replying" not in str(error):
                raise


def solve(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Fill each cell tagged ``fill-in`` with the folded solution that follows it, and drop that."""
    cells: list[nbformat.NotebookNode] = []
    gap = None
    for cell in notebook.cells:
        solution = SOLUTION.search(cell.source) if cell.cell_type == "markdown" else None
        if solution and gap is not None:
            gap.source, gap = solution[1], None
            continue
        if "fill-in" in cell.metadata.get("tags", []):
            gap = cell
        cells.append(cell)
    notebook.cells = cells
    return notebook


def _peak_mb(stop: threading.Event) -> float:
    """The most memory that the processes which this one started have together until it is set."""
    peak = 0
    while not stop.wait(0.2):
        total = 0
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                total += child.memory_info().rss
        peak = max(peak, total)
    return peak / 2**20


def _define_kernel(jupyter: Path) -> None:
    """A kernel called python3 may be installed anywhere; this one is the interpreter that runs
    this, and its environment holds whatever the user's shell says.
    """
    package = str(Path(__file__).resolve().parents[2])
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "IPYTHONDIR": str(jupyter / "ipython"),  # no start-up files of the user
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # display or not
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TQDM_DISABLE": "1",  # a progress bar is nothing to read afterwards
        "KDAS_BATCH": "1",  # kdas_book.explore draws for a page, not for a person at the keyboard
    }
    folder = jupyter / "kernels" / "python3"
    shutil.rmtree(folder, ignore_errors=True)
    write_kernel_spec(folder, {"env": environment}, ["--log-level=ERROR"])
    os.environ["JUPYTER_PATH"] = str(jupyter)


def _failure(notebook: Path, executed: Path, error: Exception) -> BuildError:
    """The message about a failed chapter; cell numbers count the source's code cells from 1."""
    cells = nbformat.read(executed, as_version=4).cells
    cells = [cell for cell in cells if cell.cell_type == "code" and not is_injected(cell)]
    done = [cell.metadata.get("papermill", {}).get("status") == "completed" for cell in cells]
    number = min([*done, False].index(False), len(cells) - 1)
    begins = cells[number].source.strip().partition("\n")[0]
    where = f"{notebook.stem} failed in code cell {number + 1} of {len(cells)}"
    where += f" (which begins: {begins})"
    kept = f"The notebook up to there is {executed}."
    if not isinstance(error, PapermillExecutionError):
        why = "its process died, most often because the memory was not enough."
        return BuildError(f"{where}: {why}\n{kept}")
    trace = indent("\n".join(str(error).splitlines()[-30:]), "    ")
    return BuildError(f"{where}: {error.ename}: {error.evalue}\n{kept}\n\n{trace}")


def is_injected(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill put this cell in, to set parameters."""
    return "injected-parameters" in cell.metadata.get("tags", [])
