"""What a training run needs for accidents: too little memory, numbers that are not finite, signals;
and a bar that says how long it will take.
"""

from __future__ import annotations

import io
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import nn
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.training.checkpoint import write
from kdas_core.training.state import TrainingState

Terms = dict[str, float]


def with_less_memory(
    compute: Callable[..., Terms], state: TrainingState, batch: dict, scale: float, *rest: Any
) -> Terms:
    """``compute(state, batch, scale, *rest)``; where memory runs out, again in smaller micro-batches.

    The gradient is the same sum; only batch norm sees smaller batches. Its running statistics are
    put back before the step is done again; they are copied only until a scale has fitted once.
    """
    fitted = (scale, state.accumulation_steps) in state.fitted
    statistics = [] if fitted else [buffer.clone() for buffer in state.module.buffers()]
    while True:
        try:
            terms = compute(state, batch, scale, *rest)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
                raise
        else:
            state.fitted.add((scale, state.accumulation_steps))
            return terms
        # Outside the handler, whose traceback would keep the tensors of the failed step.
        _halve(state, len(batch["name"]))
        for buffer, before in zip(state.module.buffers(), statistics):
            buffer.copy_(before)


def _halve(state: TrainingState, images: int) -> None:
    """Twice as many micro-batches, or one clear sentence where that cannot help."""
    steps = state.accumulation_steps
    if steps >= images or state.accelerator.num_processes > 1:
        hint = f"start again with --set accumulate={2 * steps}"
        if steps >= images:
            hint = "choose a smaller image_size"
        raise UserError(
            f"{state.folder.name}: the memory does not suffice for {steps} passes a batch; {hint}."
        )
    state.accumulation_steps = min(2 * steps, images)
    state.optimiser.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    told = f"Out of memory: from here on a batch takes {state.accumulation_steps} passes; its size stays the same."
    if not state.recipe.freeze_statistics:
        told += " Batch norm now sees the smaller parts one by one, so the numbers are not quite those of one pass."
    tqdm.write(told)


def check_finite(state: TrainingState, terms: Terms, batch: dict, scale: float) -> None:
    """Stop before a loss or gradient that is not finite reaches the weights.

    Raises:
        UserError: with the step, the terms and the images; the batch and the weights are kept in
            ``failure.pt``.
    """
    faulty = [n for n, v in terms.items() if not (math.isfinite(v) or n.endswith("_inert"))]
    # With fp16 the scaler skips such steps and halves its factor.
    if not faulty and state.accelerator.scaler is None:
        parameters = [p for p in state.net.parameters() if p.grad is not None]
        if not math.isfinite(float(nn.utils.clip_grad_norm_(parameters, math.inf))):
            faulty = ["the gradient"]
    if not faulty:
        return
    if state.accelerator.is_main_process:
        content = io.BytesIO()
        failed = {key: batch[key] for key in ("image", "mask", "name")}
        network = state.module.state_dict()
        torch.save({"network": network, "scale": scale, "terms": terms, **failed}, content)
        write(state.folder / "failure.pt", content.getvalue())
    where = f"{state.folder.name}, epoch {state.epoch + 1}, step {state.step + 1}"
    raise UserError(
        f"{where}: {', '.join(faulty)} is no finite number, on {', '.join(batch['name'])}. The "
        "batch and the weights are in failure.pt; the last checkpoint is sound. Try a lower "
        "learning_rate, or gradient_norm=1."
    )


class Interruption:
    """Inside ``with``: SIGTERM (a machine is taken away) and SIGINT (Ctrl-C) wait for a checkpoint.

    A second Ctrl-C does not wait. Outside the main thread nothing can be caught, and nothing is.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
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

    def check(self, state: TrainingState, minutes: float | None = None) -> None:
        """Write a checkpoint if one is due; after a signal write one and stop.

        Args:
            minutes: since the last checkpoint, after which one is due; None: it has been written.
        """
        wanted, due = sync_flags(state, self.wanted, minutes)
        if minutes is not None and (wanted or due):
            state.checkpoint()
        if wanted == signal.SIGTERM:
            name = state.folder.name
            print(
                f"Stopped on request; {name} has a checkpoint, and the same command goes on from there.",
                flush=True,
            )
            raise SystemExit(0)
        if wanted:
            raise KeyboardInterrupt


def sync_flags(state: TrainingState, wanted: int, minutes: float | None) -> tuple[int, bool]:
    """(the signal that any process has got, is a checkpoint due): the same in all processes."""
    due = minutes is not None and time.perf_counter() - state.saved_at >= 60 * minutes
    if state.accelerator.num_processes == 1:
        return wanted, due
    mine = torch.tensor([[wanted, int(due)]], device=state.accelerator.device)
    wanted, due = state.accelerator.gather(mine).amax(dim=0).tolist()
    return wanted, bool(due)


class Progress:
    """A bar an epoch: the images done, the terms of the last step, what is left of the whole run."""

    def __init__(self, state: TrainingState, images: int):
        self.state = state
        self.images = images
        self.first: tuple[int, float] | None = (
            None  # steps and clock after the first batch, which warms up
        )

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """The bar of the epoch that begins or goes on."""
        state, recipe = self.state, self.state.recipe
        silent = "TQDM_DISABLE" in os.environ or not state.accelerator.is_main_process
        title = f"{recipe.objective}, epoch {state.epoch + 1}/{recipe.epochs}"
        done = state.step * recipe.batch_size
        with tqdm(
            total=self.images, initial=done, desc=title, unit="image", leave=False, disable=silent
        ) as self.bar:
            yield

    def update(self) -> None:
        """One more batch is done."""
        terms = {name: f"{value:.3g}" for name, value in self.state.terms.items()}
        self.bar.set_postfix({**terms, "training": self.time_left()}, refresh=False)
        self.bar.update(min(self.state.recipe.batch_size, self.images - self.bar.n))

    def time_left(self) -> str:
        """What the other steps take at the pace so far, such as ``1:02:03 left``."""
        done, now = self.state.global_step, time.perf_counter()
        if self.first is None:
            self.first = done, now
            return "…"
        pace = (now - self.first[1]) / (done - self.first[0])
        left = self.state.all_steps * self.state.steps_per_batch - done
        return f"{timedelta(seconds=round(pace * left))} left"
