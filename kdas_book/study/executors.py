"""Who runs the cells: processes of this machine, or the workers of a Dask cluster. Both start
``execute`` in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from kdas_core import UserError

Outcome = tuple[Path, dict[str, Any]]
ANSWER = 10  # seconds that a scheduler has to answer, and to have a worker
_PACKAGE = Path(__file__).resolve().parents[2]


def default_processes() -> int:
    """One for each GPU, or one for two processors."""
    import torch

    return torch.cuda.device_count() or max(1, _processors() // 2)


def run_process(
    folder: Path, environment: dict[str, str], unwanted: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Run one cell in a process of its own and wait for it.

    Args:
        environment: what the process has besides our own environment.
        unwanted: asked twice a second; once it says True, the process writes a checkpoint and ends.

    Returns:
        What ``execute.run_cell`` returns; if the process dies, ``error`` has more lines: the last
        ones that it wrote.
    """
    began = time.perf_counter()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "kdas_book.study.run_cell", str(folder), str(os.getpid())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": _before(_PACKAGE)},
            start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on
        )
    except OSError as error:
        return {
            "state": "failed",
            "seconds": 0.0,
            "error": f"its process could not be started ({error.strerror})",
        }
    while True:
        try:
            out, err = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            if unwanted():
                process.terminate()
    try:
        return json.loads(out)
    except ValueError:
        return {
            "state": "failed",
            "seconds": time.perf_counter() - began,
            "error": _death(process.returncode, err),
        }


def _death(code: int, err: str) -> str:
    how = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
    last = err.strip().splitlines()[-30:] or ["without a word"]
    return "\n".join([f"its process {how}: {last[-1]}", "", *last])


def _before(package: Path) -> str:
    return os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))


def _processors() -> int:
    """Those that we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- this machine -----------------------------------------------------------------------------------------------------


def local(
    folders: Sequence[Path], processes: int, begun: Callable[[Path], None]
) -> Generator[Outcome, None, None]:
    """Run the cells in so many processes at once; each has its share of the processors, and a GPU
    where there are some.

    Args:
        begun: called with a cell's folder when its turn has come, in a thread.

    Yields:
        Each cell's folder and outcome, in the order in which they end.

    When the caller stops early (Ctrl-C, SIGTERM), so do the processes, after writing a checkpoint.
    """
    import torch

    gpus = torch.cuda.device_count()
    shares: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for slot in range(processes):
        shares.put(_share(slot, processes, gpus))
    stopped = threading.Event()

    def work(folder: Path) -> dict[str, Any]:
        share = shares.get()
        try:
            begun(folder)
            return run_process(folder, share, stopped.is_set)
        finally:
            shares.put(share)

    pool = ThreadPoolExecutor(processes, thread_name_prefix="cell")
    futures = {pool.submit(work, folder): folder for folder in folders}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)  # waits for those that are under way


def _share(slot: int, processes: int, gpus: int) -> dict[str, str]:
    """What the n-th of the processes has to itself. Threads that the user has limited stay so."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, _processors() // processes))
    return {"OMP_NUM_THREADS": threads} | (
        {"CUDA_VISIBLE_DEVICES": _gpu(slot % gpus)} if gpus else {}
    )


def _gpu(number: int) -> str:
    """The number, or name, that the n-th visible GPU has on the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number].strip() if visible else str(number)


# --- a cluster --------------------------------------------------------------------------------------------------------


def on_dask(
    folders: Sequence[Path], address: str, begun: Callable[[Path], None]
) -> Generator[Outcome, None, None]:
    """Send the cells to a Dask cluster whose workers see the same folders; ``local`` says what is
    yielded.

    A worker takes one cell for each of its threads. Where workers declare a resource ``GPU``, only
    they get cells, one for each unit of it: start one worker for each GPU, with
    ``CUDA_VISIBLE_DEVICES`` and ``--resources GPU=1``. A cell whose worker dies is run by another,
    from its last checkpoint; where none is left, the cells wait for a new one. When the caller
    stops early, or the scheduler dies, the workers stop their cells as well.

    Args:
        begun: called with a cell's folder each time a worker takes it, in a thread.

    Raises:
        UserError: Dask is not installed, nobody answers at this address or there is no worker, or
            the scheduler went away; finished cells stay finished.
    """
    try:
        import distributed
    except ImportError:
        raise UserError('Clusters need Dask; "pip install kdas_core[cluster]" brings it.') from None
    gone = UserError(
        f"The Dask scheduler at {address} cannot be reached; the cells that have finished stay so, and the same command goes on."
    )
    with _quiet():
        try:
            client = distributed.Client(address, timeout=ANSWER, set_as_default=False)
        except (OSError, ValueError):  # a ValueError is about the address
            raise gone from None
        try:
            with client:
                for future, folder in _submitted(client, folders, begun):
                    if future.status == "cancelled":
                        raise gone
                    yield (
                        folder,
                        future.result()
                        if future.status == "finished"
                        else _lost(future.exception()),
                    )
        except OSError as error:
            raise gone from error


def _submitted(
    client: Any, folders: Sequence[Path], begun: Callable[[Path], None]
) -> Iterator[tuple[Any, Path]]:
    """Each cell's future, when it has ended, and folder."""
    import distributed

    address = client.scheduler.address
    try:
        client.wait_for_workers(1, timeout=ANSWER)
    except distributed.TimeoutError:
        raise UserError(
            f'The Dask scheduler at {address} has no workers; "dask worker {address}" starts one.'
        ) from None
    topic = f"kdas-{uuid.uuid4()}"
    client.subscribe_topic(topic, lambda event: begun(Path(event[1])))
    workers = client.sync(client.scheduler.identity)["workers"].values()
    share = (
        {"resources": {"GPU": 1}} if any("GPU" in worker["resources"] for worker in workers) else {}
    )
    futures = {
        client.submit(_on_worker, str(folder), topic, pure=False, **share): folder
        for folder in folders
    }
    for future in distributed.as_completed(futures, loop=client.loop):
        yield future, futures[future]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs of a lost connection says no more than our sentence."""
    loggers = [
        logging.getLogger(name) for name in ("distributed", "distributed.client")
    ]  # each has a level of its own
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def _lost(error: BaseException) -> dict[str, Any]:
    """The outcome of a cell that Dask could not run."""
    from distributed import KilledWorker

    why = (
        "several workers died while they ran it" if isinstance(error, KilledWorker) else str(error)
    )
    return {"state": "failed", "seconds": 0.0, "error": why}


def _on_worker(folder: str, topic: str) -> dict[str, Any]:
    """One cell in a worker's thread, for as long as the worker lives and somebody waits for the
    cell.
    """
    from distributed import Reschedule, get_worker

    worker = get_worker()
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder} is not there on worker {worker.address}; all workers must see the study's folder."
        )
    worker.log_event(topic, folder)
    key = worker.get_current_task()

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return (
            worker.status.name not in ("running", "paused")
            or task is None
            or task.state == "cancelled"
        )

    # The number of threads in our own environment is nobody's wish: a nanny sets it to 1 for its
    # workers.
    share = {"OMP_NUM_THREADS": str(max(1, _processors() // max(1, worker.state.nthreads)))}
    outcome = run_process(Path(folder), share, unwanted)
    if outcome["state"] == "failed" and unwanted():
        raise Reschedule  # stopped, not failed; another worker goes on
    return outcome
