"""Run one cell in a process of its own: ``python -m kdas_core.study.execute FOLDER``.

The folder says in ``cell.json`` what to run. Whoever starts this, a thread of ours or a worker of a cluster, may be killed; then this
process stops as well, at a checkpoint. A second one for the same cell waits for the first and finds the cell finished.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdas_core import UserError
from kdas_core.files import write_whole

FAILED = "failed.txt"


def run_cell(folder: Path) -> dict[str, Any]:
    """Run the cell in this folder unless it is finished.

    Returns:
        ``{"state": "done" | "failed", "seconds": of this call, "error": one line}``
    """
    from kdas_core.study.cells import is_finished  # PyTorch is loaded in here

    began = time.perf_counter()
    with FileLock(folder / ".lock"):
        if is_finished(folder):
            return {"state": "done", "seconds": 0.0, "error": ""}
        (folder / FAILED).unlink(missing_ok=True)
        error = _execute(folder)
        if error:
            write_whole(folder / FAILED, error.encode())
    seconds = time.perf_counter() - began
    return {"state": "failed" if error else "done", "seconds": seconds, "error": error.partition("\n")[0]}


def _execute(folder: Path) -> str:
    """What went wrong; empty if nothing did."""
    from kdas_core.execution import run_notebook

    try:
        cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        run_notebook(Path(cell["template"]), folder / "notebook.ipynb", cell["parameters"], folder / ".kernel")
    except UserError as error:
        return str(error)
    except (OSError, ValueError, KeyError) as error:
        return f"{folder / 'cell.json'} cannot be used ({error})."
    return ""


def stop_with_parent() -> None:
    """Pass a request to stop on to the kernel, which writes a checkpoint; the death of our parent counts as one."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        import psutil

        kernels = psutil.Process().children(recursive=True)
        for kernel in kernels:
            kernel.terminate()
        _, alive = psutil.wait_procs(kernels, timeout=60)
        for kernel in alive:
            kernel.kill()
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    stop_with_parent()
    result = run_cell(Path(sys.argv[1]))
    print(json.dumps(result))
