"""Watching over a training run: memory, numbers that are not finite, signals, and the time left."""

import io
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from tqdm.auto import tqdm

from kdas_core import UserError, files
from kdas_core.training.checkpoint import write
from kdas_core.training.state import TrainingState


@contextmanager
def alone(folder: Path, accelerator: Accelerator) -> Iterator[bool]:
    """Inside, no other program trains in this folder: a second one waits. Is the run finished?"""
    lock = files.alone(folder, "Another program trains in", "choose another --runs-dir", wait=True)
    with lock if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        finished = (folder / "metrics.json").exists()
        accelerator.wait_for_everyone()  # all processes have looked before one of them writes
        if finished and not (folder / "best.safetensors").exists():
            fact = f"{folder} is the folder of a finished run, but its best.safetensors is gone"
            raise UserError(f"{fact}; restore it, or remove the folder to train anew.")
        yield finished


def with_less_memory(
    compute: Callable[..., dict], state: TrainingState, batch: dict, scale: float, *rest: Any
) -> dict[str, Tensor]:
    """``compute(state, batch, scale, *rest)``; if memory runs out, again in smaller micro-batches.

    The gradient is the same sum; only batch norm sees smaller batches. Its running statistics are
    copied, and put back before the step is done again, until a scale has fitted once.
    """
    fitted = scale in state.fitted
    statistics = [] if fitted else [buffer.clone() for buffer in state.module.buffers()]
    while True:
        try:
            terms = compute(state, batch, scale, *rest)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
                raise
        else:
            state.fitted.add(scale)
            return terms
        # Outside the handler, whose traceback would keep the tensors of the failed step.
        _halve(state, len(batch["name"]), fitted)
        for buffer, before in zip(state.module.buffers(), statistics):
            buffer.copy_(before)


def _halve(state: TrainingState, images: int, fitted: bool) -> None:
    """Twice as many micro-batches, or one clear sentence where that cannot help."""
    passes, most = state.accumulation_steps, images // state.fewest
    if passes >= most or state.accelerator.num_processes > 1:
        hint = f"start again with --set accumulate={2 * passes}"
        if passes >= most:
            hint = "choose a smaller image_size"
        count = f"{passes} pass{'es' if passes > 1 else ''} a batch"
        where = f"{state.folder.name}: the memory does not suffice for {count}"
        raise UserError(f"{where}; {hint}.")
    state.accumulation_steps = min(2 * passes, most)
    state.optimiser.zero_grad()
    torch.cuda.empty_cache()
    passes = state.accumulation_steps
    tqdm.write(f"Out of memory: from here on a batch, as large as before, takes {passes} passes.")
    if not state.recipe.freeze_statistics:
        tqdm.write("Batch norm sees its parts one by one: the numbers are not those of one pass.")
        if fitted:
            tqdm.write("Its running statistics keep what the pass that failed has put into them.")


def check_finite(state: TrainingState, terms: dict[str, float], batch: dict, scale: float) -> None:
    """Stop before a loss or gradient that is not finite reaches the weights: a UserError with the
    step, the terms and the images. The batch and the weights are kept in ``failure.pt``.
    """
    faulty = [n for n, v in terms.items() if not (math.isfinite(v) or n.endswith("_inert"))]
    if not faulty:
        return
    faulty = [n for n in faulty if n != "the gradient"] or faulty
    if state.accelerator.is_main_process:
        content = io.BytesIO()
        failed = {"image": batch["image"].cpu(), "mask": batch["mask"].cpu(), "name": batch["name"]}
        network = state.module.state_dict()
        torch.save({"network": network, "scale": scale, "terms": terms, **failed}, content)
        write(state.folder / "failure.pt", content.getvalue())
    raise UserError(
        f"{state.folder.name}, epoch {state.epoch + 1}, step {state.step + 1}: {', '.join(faulty)} "
        f"is no finite number, on {', '.join(batch['name'])}. The batch and the weights are in "
        "failure.pt; the last checkpoint is sound. Try a lower learning_rate, or gradient_norm=1."
    )


class Interruption:
    """Inside ``with``: SIGTERM (a machine is taken away) and SIGINT (Ctrl-C) wait for a checkpoint,
    a second Ctrl-C does not. Outside the main thread nothing can be caught, and nothing is.
    """

    wanted = 0  # the last signal

    def __enter__(self) -> "Interruption":
        self._before: dict[int, Any] = {}
        with suppress(ValueError):  # not the main thread
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT and self.wanted == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = number

    def check(self, state: TrainingState, minutes: float = math.inf) -> None:
        """Write a checkpoint if the last is that old; after a signal stop, all at the same step."""
        due = time.perf_counter() - state.saved_at >= 60 * minutes
        wanted = self.wanted
        if state.accelerator.num_processes > 1:  # alone, nobody has to be waited for
            flags = torch.tensor([[wanted, due]], device=state.accelerator.device)
            wanted, due = state.accelerator.gather(flags).amax(dim=0).tolist()
        if due or (wanted and state.step):  # at step 0 the epoch's checkpoint has just been written
            state.checkpoint()
        if wanted == signal.SIGTERM:
            told = f"Stopped on request; {state.folder.name} has a checkpoint"
            print(f"{told}, and the same command goes on from there.", flush=True)
            raise SystemExit(0)
        if wanted:
            raise KeyboardInterrupt


def progress(batches: Iterable[dict], state: TrainingState) -> Iterator[dict]:
    """The batches of an epoch under a bar: images done, last terms, time left."""
    recipe, images = state.recipe, state.images
    title = f"{recipe.objective}, epoch {state.epoch + 1}/{recipe.epochs}"
    silent = "TQDM_DISABLE" in os.environ or not state.accelerator.is_main_process
    seen = state.step * recipe.batch_size
    with tqdm(None, title, images, False, initial=seen, unit="image", disable=silent) as bar:
        for batch in batches:
            yield batch
            now = time.perf_counter()
            state.warm = state.warm or (state.global_step, now)
            done = state.global_step - state.warm[0]
            to_do = state.all_steps * state.steps_per_batch - state.global_step
            left = "…"
            if done:
                left = f"{timedelta(seconds=round((now - state.warm[1]) / done * to_do))} left"
            terms = {name: f"{value:.3g}" for name, value in state.terms.items()}
            bar.set_postfix({**terms, "training": left}, refresh=False)
            bar.update(min(recipe.batch_size, images - bar.n))
