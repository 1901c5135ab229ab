"""One training in several processes of this machine: started together, stopped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from kdas_core import UserError


def launch(words: Sequence[str], processes: int) -> None:
    """Run ``kdas train`` with these words in so many processes, which divide every batch among
    them.

    Each GPU takes one process; without a GPU they share the processors. What the first one prints
    is shown. A request to stop (SIGTERM, Ctrl-C) is passed on to all, and they write one checkpoint
    together.

    Raises:
        UserError: one of them ended with an error or was killed; the others have been stopped.
        SystemExit: code 0, after a request to stop.
    """
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(
            f"There are {processes} processes for {gpus} GPU(s); choose --processes {gpus} or fewer."
        )
    with socket.socket() as probe:  # a port that is free now; the processes meet there
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {
        "OMP_NUM_THREADS": threads,
        **os.environ,
        **together,
        "LOCAL_WORLD_SIZE": str(processes),
    }
    if not gpus:
        environment["ACCELERATE_USE_CPU"] = "true"
    command = [sys.executable, "-m", "kdas_core.training", *words]
    started = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=None if rank == 0 else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone, and we pass it on
        )
        for rank in range(processes)
    ]
    wanted: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        wanted.append(number)
        for process in started:
            process.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _wait(started)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if wanted:
        raise SystemExit(0)


def _wait(started: Sequence[subprocess.Popen]) -> None:
    """Until all have ended well, or one has not; then the others are stopped, since they would wait
    for it for ever.
    """
    while True:
        codes = [process.poll() for process in started]
        ended = next(((rank, code) for rank, code in enumerate(codes) if code), None)
        if ended is None and None not in codes:
            return
        if ended is not None:
            break
        time.sleep(0.05)
    time.sleep(1)  # what one process found (a loss that is no number), the others say as well
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
    rank, code = ended
    how = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
    raise UserError(
        f"Process {rank + 1} of {len(started)} {how}, and the others were stopped. The last checkpoint is sound: the same command, "
        "also with another number of processes, goes on from there."
    )
