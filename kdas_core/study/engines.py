"""Who runs the cells: processes of this machine, or the workers of a Dask cluster. Both start ``execute`` in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kdas_core import UserError

Outcome = tuple[Path, dict[str, Any]]
_PACKAGE = Path(__file__).resolve().parents[2]


def default_processes() -> int:
    """One for each GPU, or one for two processors."""
    import torch

    return torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // 2)


def run_process(folder: Path, environment: dict[str, str], started: Callable = lambda process: None) -> dict[str, Any]:
    """Run one cell in a process of its own and wait for it; see ``execute.run_cell`` for what is returned."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "kdas_core.study.execute", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": _before(_PACKAGE)},
        start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on
    )
    started(process)
    out, err = process.communicate()
    try:
        return json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        how = (
            f"was killed (signal {-process.returncode})"
            if process.returncode < 0
            else f"ended with {process.returncode}"
        )
        last = err.strip().splitlines()[-1:] or ["without a word"]
        return {"state": "failed", "seconds": time.perf_counter() - began, "error": f"its process {how}: {last[0]}"}


def _before(package: Path) -> str:
    return os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))


def local(folders: Sequence[Path], processes: int, begun: Callable[[Path], None]) -> Iterator[Outcome]:
    """Run the cells in so many processes at once; each has its share of the processors, or a GPU.

    Args:
        begun: called with a cell's folder when its process has started.

    Yields:
        Each cell's folder and outcome, in the order in which they end.

    When the caller stops early (Ctrl-C, SIGTERM), so do the processes, after writing a checkpoint.
    """
    import torch

    todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    for folder in folders:
        todo.put(folder)
    running: set[subprocess.Popen] = set()
    stopped = threading.Event()
    gpus = torch.cuda.device_count()

    def work(slot: int) -> None:
        share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
        if gpus:
            share = {"CUDA_VISIBLE_DEVICES": _gpu(slot % gpus)}
        while not stopped.is_set():
            try:
                folder = todo.get_nowait()
            except queue.Empty:
                return
            begun(folder)
            outcome = run_process(folder, share, running.add)
            ended.put((folder, outcome))

    threads = [threading.Thread(target=work, args=(slot,), daemon=True) for slot in range(min(processes, len(folders)))]
    for thread in threads:
        thread.start()
    try:
        for _ in folders:
            yield ended.get()
    finally:
        stopped.set()
        alive = [process for process in running if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        for process in alive:
            process.wait()


def _gpu(number: int) -> str:
    """The number that the n-th visible GPU has on the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number] if visible else str(number)


def on_dask(folders: Sequence[Path], address: str, begun: Callable[[Path], None]) -> Iterator[Outcome]:
    """Send the cells to a Dask cluster whose workers see the same folders; ``local`` says what is yielded.

    Workers that declare a resource ``GPU`` take one cell for each unit of it, others one for each of their threads. A cell whose worker
    dies is run by another, from its last checkpoint.

    Raises:
        UserError: Dask is not installed, nobody answers at this address, or the scheduler went away; finished cells stay finished.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise UserError('Clusters need Dask; "pip install kdas_core[cluster]" brings it.') from None
    gone = f"The Dask scheduler at {address} cannot be reached; the cells that have finished stay so, and the same command goes on."
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(gone) from error
    with client:
        with_gpu = any(
            "GPU" in worker["resources"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()
        )
        share = {"resources": {"GPU": 1}} if with_gpu else {}
        futures = {client.submit(_on_worker, str(folder), pure=False, retries=0, **share): folder for folder in folders}
        for folder in folders:
            begun(folder)
        left = set(futures)
        for future in as_completed(futures):
            folder = futures[future]
            if future.status == "cancelled" or client.status != "running":
                raise UserError(gone)
            left.discard(future)
            error = future.exception() if future.status == "error" else None
            if isinstance(error, KilledWorker):
                yield folder, {"state": "failed", "seconds": 0.0, "error": "several workers died while they ran it"}
            elif error is not None:
                yield folder, {"state": "failed", "seconds": 0.0, "error": str(error).partition("\n")[0]}
            else:
                yield folder, future.result()
        if left:
            raise UserError(gone)


def _on_worker(folder: str) -> dict[str, Any]:
    from distributed import get_worker

    worker = get_worker()
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(1, worker.state.nthreads)))}
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is not there on worker {worker.address}; all workers must see the study's folder.")
    return run_process(Path(folder), share)
