"""Who runs the cells: Dask, here or on a cluster. A worker starts a process for each cell."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kdas_book.study.spec import FAILED, is_finished
from kdas_core import UserError

try:
    import dask
    import distributed
    from dask.system import CPU_COUNT
except ImportError:
    raise UserError('Studies need Dask; "pip install kdas_core[book]" brings it.') from None

ANSWER = 10  # seconds that a scheduler has to answer, and to have a worker
_LOCAL: dict[str, Any] = {
    "distributed.scheduler.worker-saturation": 1.0,  # a free worker gets the next cell at once
    "distributed.scheduler.worker-ttl": None,  # a laptop that slept has not lost its workers
    "distributed.scheduler.http.routes": [],  # the pages that Dask cannot do without are empty
    "distributed.worker.http.routes": [],
}


class Outcome(NamedTuple):
    """Of a cell: how long it ran, and the first thing to say of what went wrong."""

    seconds: float = 0.0
    error: str = ""


Events = Generator[tuple[Path, Outcome | None], None, None]


def default_processes() -> int:
    """One for each GPU, or one for two processors."""
    return torch.cuda.device_count() or max(1, CPU_COUNT // 2)


def run_cells(folders: Sequence[Path], processes: int = 0, dask: str = "") -> Events:
    """Run the cells: so many at once on this machine (0: as many as fit), or on a Dask cluster.

    Here each cell has its share of the processors, and a GPU where there are some. A cluster's
    workers must see the same folders; each thread takes a cell. Where workers declare a resource
    ``GPU``, only they get cells, one for each unit of it: start a worker for each GPU with
    ``CUDA_VISIBLE_DEVICES`` and ``--resources GPU=1``. A cell whose worker dies is run by another
    from its last checkpoint, or waits for one. When the caller stops early (Ctrl-C, SIGTERM) or
    the scheduler dies, the cells write a checkpoint and stop.

    Yields a cell's folder and None each time it begins, its folder and outcome when it has ended. A
    UserError if nobody answers at the scheduler's address ``dask``, it has no worker, or it went
    away; finished cells stay finished.
    """
    here = 0 if dask else processes or default_processes()
    with _quiet(), _remote(dask) if dask else _local(here) as client:
        yield from _events(client, folders, here)


@contextmanager
def _remote(address: str) -> Iterator[Any]:
    """A client of the scheduler at this address."""
    try:
        with distributed.Client(address, timeout=ANSWER, set_as_default=False) as client:
            yield client
    except UserError:
        raise
    except (OSError, ValueError) as error:  # a ValueError is about the address
        fact = f"The Dask scheduler at {address} cannot be reached"
        way_out = "the cells that have finished stay so, and the same command goes on"
        raise UserError(f"{fact}; {way_out}.") from error


@contextmanager
def _local(processes: int) -> Iterator[Any]:
    """A client of workers in threads of this process, since each cell has a process anyway. At the
    end, cells that are under way are stopped and waited for.
    """
    options: dict[str, Any] = {"n_workers": processes, "threads_per_worker": 1, "processes": False}
    options["memory_limit"] = 0  # no manager that pauses workers
    options |= dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    with dask.config.set(_LOCAL), distributed.LocalCluster(**options) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            yield client
        while any(worker.state.executing for worker in cluster.workers.values()):
            time.sleep(0.05)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs of a lost connection says no more than our sentence."""
    loggers = map(logging.getLogger, ("distributed", "distributed.client"))
    levels = {logger: logger.level for logger in loggers}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _events(client: Any, folders: Sequence[Path], processes: int) -> Events:
    """Submit the cells, and tell what becomes of them."""
    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=ANSWER)
    except distributed.TimeoutError:
        where = f"The Dask scheduler at {address}"
        raise UserError(f'{where} has no workers; "dask worker {address}" starts one.') from None
    events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    topic = f"kdas-{uuid.uuid4()}"
    client.subscribe_topic(topic, lambda event: events.put((event[1], None)))
    workers = client.sync(client.scheduler.identity)["workers"].values()
    share = {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else None
    waiting = {}
    for place, folder in enumerate(map(str, folders)):
        options = {"pure": False, "priority": -place, "resources": share}
        future = client.submit(_on_worker, folder, topic, processes, **options)
        future.add_done_callback(lambda future, folder=folder: events.put((folder, future)))
        waiting[folder] = future
    while waiting:
        folder, future = events.get()
        if future is not None:
            del waiting[folder]
            yield Path(folder), _outcome(future)
        elif folder in waiting:
            yield Path(folder), None


def _outcome(future: distributed.Future) -> Outcome:
    """What a cell's process said, or why Dask could not run it."""
    if future.status == "cancelled":
        raise ConnectionError("the scheduler is gone")
    if future.status == "finished":
        return future.result()
    error = future.exception()
    died = isinstance(error, distributed.KilledWorker)
    return Outcome(error="several workers died while they ran it" if died else str(error))


def _on_worker(folder: str, topic: str, processes: int) -> Outcome:
    """One cell, for as long as the worker lives and somebody waits for the cell; ``processes`` is
    the number of our own workers, 0 on a cluster.
    """
    worker = distributed.get_worker()
    if not Path(folder).is_dir():
        where = f"{folder} is not there on worker {worker.address}"
        raise UserError(f"{where}; all workers must see the study's folder.")
    worker.log_event(topic, folder)
    key = worker.get_current_task()

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        alive = worker.status.name in ("running", "paused")
        return not alive or task is None or task.state == "cancelled"

    if processes:
        share = _share(worker.name, processes)
    else:  # a nanny sets OMP_NUM_THREADS to 1 for its workers, which is nobody's wish
        share = {"OMP_NUM_THREADS": str(max(1, CPU_COUNT // worker.state.nthreads))}
    outcome = run_process(Path(folder), share, unwanted)
    if outcome.error and unwanted():
        raise distributed.Reschedule  # stopped, not failed; another worker goes on
    return outcome


def _share(slot: int, processes: int) -> dict[str, str]:
    """What the n-th of the processes has to itself. Threads that the user has limited stay so."""
    share = {"OMP_NUM_THREADS": str(max(1, CPU_COUNT // processes))}
    share |= {name: os.environ[name] for name in share if os.environ.get(name)}
    if count := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        share["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % count].strip()
    return share


def run_process(folder: Path, share: dict[str, str], unwanted: Callable[[], bool]) -> Outcome:
    """Run one cell in a process that has ``share`` besides our environment, and wait for it. Once
    ``unwanted()``, asked twice a second, is True, the process writes a checkpoint and ends.
    """
    began = time.perf_counter()
    (folder / FAILED).unlink(missing_ok=True)
    words = [sys.executable, "-m", "kdas_book.study.run_cell", str(folder), str(os.getpid())]
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    options["cwd"] = Path(__file__).parents[2]  # where the package is, installed or not
    options["start_new_session"] = True  # Ctrl-C reaches us alone, and we pass it on
    try:
        process = subprocess.Popen(words, env=os.environ | share, text=True, **options)
    except OSError as error:
        return Outcome(error=f"its process could not be started ({error.strerror})")
    while True:
        try:
            _, told = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            if unwanted():
                process.terminate()
    seconds = time.perf_counter() - began
    code = process.returncode
    if is_finished(folder):
        return Outcome(seconds)
    if (folder / FAILED).exists():
        return Outcome(seconds, (folder / FAILED).read_text(encoding="utf-8"))
    how = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
    last = told.strip().splitlines()[-30:] or ["without a word"]
    return Outcome(seconds, "\n".join([f"its process {how}: {last[-1]}", "", *last]))
