"""One training run in several processes of this machine, which torchrun starts and stops."""

import logging
import os
from collections.abc import Sequence

from kdas_core import UserError


def launch(words: Sequence[str], processes: int) -> None:
    """Run ``kdas train`` with these words in so many processes, which divide every batch: one a
    GPU; without a GPU they share the processors.

    Raises:
        UserError: one of them ended with an error or was killed; the others have been stopped.
        SystemExit: code 0, after SIGTERM or Ctrl-C: they have written one checkpoint together.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(f"{processes} processes for {gpus} GPU(s); choose --processes {gpus}.")
    os.environ.setdefault("ACCELERATE_USE_CPU", str(not gpus))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")  # seconds for a checkpoint
    logging.disable(logging.ERROR)  # torchrun's own log; the sentence below says more
    options = ["--standalone", f"--nproc-per-node={processes}", "-m", "kdas_book.cli", "train"]
    arguments = parse_args([*options, *words])
    arguments.signals_to_handle = "SIGTERM"  # Ctrl-C reaches the processes as SIGTERM, too
    try:
        run(arguments)
    except (SignalException, KeyboardInterrupt):
        raise SystemExit(0) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        how = f"was killed (signal {-code})" if code < 0 else f"ended with code {code}"
        raise UserError(
            f"Process {rank + 1} of {processes} {how}, and the others were stopped. The same "
            "command, also with another number of processes, goes on after the last checkpoint."
        ) from None
