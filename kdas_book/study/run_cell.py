"""Run one cell in a process of its own: ``python -m kdas_book.study.run_cell FOLDER PARENT``.

The folder says in ``cell.json`` what to run. When whoever started this is killed, it stops as well,
at a checkpoint. A second process for the same cell waits for the first and finds it finished.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import psutil
from filelock import FileLock

from kdas_book.publishing.run_notebook import run_notebook
from kdas_book.study.spec import FAILED, is_finished
from kdas_core import UserError
from kdas_core.files import atomic_write

_PATIENCE = 60.0  # seconds for a kernel to end its step and write its checkpoint


def run_cell(folder: Path) -> None:
    """Run the cell in this folder unless it is finished; what goes wrong is in ``failed.txt``."""
    with FileLock(folder / ".lock"):
        if not is_finished(folder) and (error := _execute(folder)):
            atomic_write(folder / FAILED, error.encode())


def _execute(folder: Path) -> str:
    """What went wrong; empty if nothing did."""
    file, notebook = folder / "cell.json", folder / "notebook.ipynb"
    try:
        cell = json.loads(file.read_text(encoding="utf-8"))
        template, parameters = Path(cell["template"]), dict(cell["parameters"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{file} cannot be used ({error}); start the study again, which writes it anew."
    try:
        run_notebook(template, notebook, parameters, folder / ".kernel")
    except UserError as error:
        return str(error)
    except Exception as error:  # whatever it was, it must be found in the cell's folder
        return f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"
    finally:
        shutil.rmtree(folder / ".kernel", ignore_errors=True)
    # SystemExit ends a notebook as if all were well.
    return "" if is_finished(folder) else f"{notebook} ended before it had written the record."


def _stop_with(parent: int) -> None:
    """Pass SIGTERM on to the kernel, which writes a checkpoint; so does the death of ``parent``."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request finds us at it
        kernels = psutil.Process().children(recursive=True)
        until = time.monotonic() + _PATIENCE
        while kernels and time.monotonic() < until:
            # The first request makes a training run write its checkpoint and end its notebook cell;
            # the next ones end the kernel, which is idle then.
            for kernel in kernels:
                with contextlib.suppress(psutil.NoSuchProcess):
                    kernel.terminate()
            _, kernels = psutil.wait_procs(kernels, timeout=0.5)
        for kernel in kernels:
            kernel.kill()
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _stop_with(int(sys.argv[2]))
    run_cell(Path(sys.argv[1]))
