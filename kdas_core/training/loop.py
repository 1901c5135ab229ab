"""The training loop, written to be read from top to bottom (chapter 6).

One function trains the teacher (no teacher of its own, objective ``supervised``) and every student.
What a run leaves in its folder, and how it is written, stands in ``runs``; the frozen teacher and
the cache of its maps in ``teaching``.

``python -m kdas_core.training`` is ``kdas train``; ``accelerate launch -m kdas_core.training`` runs
it on several devices.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

import kdas_core
from kdas_core import UserError
from kdas_core.data import PolypData
from kdas_core.data.dataset import PolypDataset
from kdas_core.losses import hyperparameters_of, objective, structure_loss
from kdas_core.models import build, count_parameters, save_weights
from kdas_core.recipe import Recipe
from kdas_core.training.batching import batches, micro_batches, prefetch, resized, scales_of
from kdas_core.training.checkpoint import (
    Interruption,
    StepLog,
    atomic_write,
    create_run_dir,
    latest_checkpoint,
    load_history,
    random_states,
    revision,
    rotate_checkpoints,
    seed_everything,
    set_random_states,
    write_checkpoint,
    write_history,
)
from kdas_core.training.schedule import learning_rate_factor, warmed_up
from kdas_core.training.teacher import FrozenTeacher

__all__ = ["TrainingState", "fit", "load_history", "validate"]

Terms = dict[str, float]


def fit(
    recipe: Recipe,
    data: PolypData,
    runs_dir: str | Path,
    role: str = "student",
    teacher: nn.Module | None = None,
    checkpoint_minutes: float = 5.0,
    watch: Callable[[TrainingState], None] | None = None,
) -> Path:
    """Train one network and keep the epoch that is best on the validation split; the test sets are
    never looked at.

    A finished run is returned at once, an interrupted one goes on at the step after its last
    checkpoint, and ends as if nothing had happened: on a CPU, to the last bit.

    Args:
        recipe: the hyperparameters. The teacher's own recipe is ``recipe.for_teacher()``.
        data: training and validation pairs.
        runs_dir: the run's folder is made in here; its name holds the recipe's fingerprint.
        role: ``"student"`` or ``"teacher"``, which picks the backbone.
        teacher: the network to distil from, for every objective but ``supervised``.
        checkpoint_minutes: a checkpoint is written after each epoch, and within an epoch as often
            as this.
        watch: called after each step and each epoch (``watching.LivePlot``,
            ``watching.TensorBoard``).

    Returns:
        The run's folder.

    Raises:
        UserError: the folder cannot be written or holds another recipe's run; a loss or gradient is
            no longer a number; one image does not fit into memory.
        SystemExit: code 0, after SIGTERM: a checkpoint has been written.
    """
    loss_fn = objective(
        recipe.objective, **objective_kwargs(recipe)
    )  # first of all: an unknown name stops here
    folder = run_folder(recipe, data, runs_dir, role)
    accelerator = start_accelerator(recipe)
    if is_finished(folder, accelerator):
        return folder
    if accelerator.is_main_process:
        create_run_dir(folder, recipe)

    seed_everything(recipe.seed)
    net = start_network(recipe, role)
    run = TrainingState(recipe, folder, accelerator, net)
    run.resume()
    training = PolypDataset(
        data.train, recipe.image_size, recipe.augment, recipe.soft_masks, recipe.seed, cached=True
    )
    held_out = PolypDataset(data.validation, recipe.image_size, cached=True)
    teaching = FrozenTeacher(teacher, recipe, training, accelerator, Path(runs_dir))
    steps = math.ceil(len(training) / recipe.batch_size)
    watch = watch if watch and accelerator.is_main_process else lambda run: None

    with Interruption() as interruption:
        while run.epoch < recipe.epochs and not run.is_stale():
            training.set_epoch(run.epoch + 1)
            run.begin_epoch()
            for batch in batches(training, recipe, run.epoch + 1, run.step, accelerator):
                for scale in scales_of(recipe, run.epoch + 1, run.step):
                    done, all_steps = run.epoch * steps + run.step, recipe.epochs * steps
                    run.set_learning_rate(done, all_steps)
                    terms = run.train_step(
                        batch, scale, teaching, warmed_up(loss_fn, recipe, done, all_steps)
                    )
                    run.record(terms, steps)
                    watch(run)
                run.step += 1
                shown = {name: f"{value:.3g}" for name, value in terms.items()}
                batch["bar"].set_postfix(
                    {**shown, "training": run.time_left(recipe.epochs * steps)}, refresh=False
                )
                wanted, due = run.sync_flags(interruption.wanted, checkpoint_minutes)
                if wanted or due:
                    run.checkpoint()
                    interruption.stop(wanted, folder)
            row = validate(run.eval_model, held_out, recipe.batch_size, accelerator)
            run.finish_epoch(row)
            watch(run)
            interruption.stop(run.sync_flags(interruption.wanted)[0], folder)

    run.finish()
    return folder


class TrainingState:
    """A training under way: all that changes from step to step, and therefore all that a checkpoint
    holds.
    """

    def __init__(self, recipe: Recipe, folder: Path, accelerator: Accelerator, net: nn.Module):
        self.recipe, self.folder, self.accelerator = recipe, folder, accelerator
        self.optimiser = torch.optim.AdamW(
            net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        if (
            accelerator.num_processes > 1
            and accelerator.device.type == "cuda"
            and not recipe.freeze_statistics
        ):
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        if recipe.channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.module = net  # as it is saved; self.net is the same network as it is called
        self.net, self.optimiser = accelerator.prepare(net, self.optimiser)
        if recipe.compile:
            self.net = compiled(self.net, accelerator.device)
        average = get_ema_multi_avg_fn(recipe.ema)
        self.ema = (
            AveragedModel(self.module, multi_avg_fn=average, use_buffers=True)
            if recipe.ema
            else None
        )
        self.epoch, self.step, self.accumulation_steps = 0, 0, recipe.accumulate
        self.global_step = 0  # optimiser steps since the very beginning
        self.terms: Terms = {}  # of the last one
        self.history: list[dict] = []
        self.sums: dict[str, float] = defaultdict(float)
        self._timed: tuple[int, float] | None = None
        self.seconds, self._clock, self._saved = 0.0, time.perf_counter(), time.perf_counter()

    @property
    def eval_model(self) -> nn.Module:
        """The network that is validated and saved: the average where there is one."""
        return self.ema.module if self.ema else self.module

    # --- one step ---

    def begin_epoch(self) -> None:
        self.net.train()
        if self.recipe.freeze_statistics:
            for module in self.module.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def set_learning_rate(self, step: int, steps: int) -> None:
        """Constant as released, or a warm-up and half a cosine down to 0."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * learning_rate_factor(self.recipe, step, steps)

    def train_step(
        self, batch: dict, scale: float, teaching: FrozenTeacher, loss_fn: Callable
    ) -> Terms:
        """One optimiser step on one batch at one scale; returns the objective's terms, means over
        the whole batch.

        Where the memory does not suffice, the batch is divided into twice as many passes and the
        step is done again: the gradient is the same sum, only batch norm sees smaller batches.
        """
        statistics = [buffer.clone() for buffer in self.module.buffers()]
        while True:
            try:
                terms = self._forward_and_backward(batch, scale, teaching, loss_fn)
                break
            except RuntimeError as error:
                if not (
                    isinstance(error, torch.cuda.OutOfMemoryError)
                    or should_reduce_batch_size(error)
                ):
                    raise
                self._halve(len(batch["name"]))
                for buffer, before in zip(self.module.buffers(), statistics):
                    buffer.copy_(before)
        self._check(terms, batch, scale)
        if self.recipe.gradient_norm:
            self.accelerator.clip_grad_norm_(self.net.parameters(), self.recipe.gradient_norm)
        else:
            self.accelerator.clip_grad_value_(self.net.parameters(), self.recipe.gradient_clamp)
        self.optimiser.step()
        if self.ema:
            self.ema.update_parameters(self.module)
        return terms

    def _forward_and_backward(
        self, batch: dict, scale: float, teaching: FrozenTeacher, loss_fn: Callable
    ) -> Terms:
        self.optimiser.zero_grad()
        sums: dict[str, Tensor] = defaultdict(
            lambda: torch.zeros((), device=self.accelerator.device)
        )
        pieces = list(micro_batches(batch, self.accumulation_steps))
        for last, piece in enumerate(pieces, start=1 - len(pieces)):
            images, mask = resized(piece, scale, self.recipe.image_size, self.accelerator.device)
            if self.recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            of_teacher = teaching.maps(images, piece["index"])
            with contextlib.nullcontext() if last == 0 else self.accelerator.no_sync(self.net):
                terms = loss_fn(self.net(images), of_teacher, mask)
                self.accelerator.backward(terms["total"] * piece["weight"])
            for name, value in terms.items():
                sums[name] += value.detach() * piece["weight"]
        names = list(sums)
        means = self.accelerator.reduce(
            torch.stack([sums[name] for name in names]), reduction="mean"
        )
        return dict(zip(names, means.tolist()))

    def _halve(self, images: int) -> None:
        """Twice as many passes, or one clear sentence where that cannot help."""
        smallest = self.accumulation_steps >= images
        if smallest or self.accelerator.num_processes > 1:
            help = (
                "choose a smaller image_size"
                if smallest
                else f"start again with --set accumulate={2 * self.accumulation_steps}"
            )
            raise UserError(
                f"{self.folder.name}: the memory does not suffice for {self.accumulation_steps} passes a batch; {help}."
            )
        self.accumulation_steps = min(2 * self.accumulation_steps, images)
        self.optimiser.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.accelerator.is_main_process:
            told = f"Out of memory: from here on a batch takes {self.accumulation_steps} passes; its size stays the same."
            if not self.recipe.freeze_statistics:
                told += " Batch norm now sees the smaller parts one by one, so the numbers are not quite those of one pass."
            tqdm.write(told)

    def _check(self, terms: Terms, batch: dict, scale: float) -> None:
        """Stop at the first loss or gradient that is no finite number, and keep what is needed to
        see it again.
        """
        faulty = [
            name
            for name, value in terms.items()
            if not math.isfinite(value) and not name.endswith("_inert")
        ]
        # With fp16 the scaler skips such steps and halves its factor.
        if not faulty and self.accelerator.scaler is None:
            parameters = [p for p in self.net.parameters() if p.grad is not None]
            if not math.isfinite(float(nn.utils.clip_grad_norm_(parameters, math.inf))):
                faulty = ["the gradient"]
        if not faulty:
            return
        where = f"epoch {self.epoch + 1}, step {self.step + 1}"
        if self.accelerator.is_main_process:
            state = {"network": self.module.state_dict(), "scale": scale, "terms": terms}
            content = io.BytesIO()
            torch.save({**state, **{key: batch[key] for key in ("image", "mask", "name")}}, content)
            atomic_write(self.folder / "failure.pt", content.getvalue())
        raise UserError(
            f"{self.folder.name}, {where}: {', '.join(faulty)} is no finite number, on {', '.join(batch['name'])}. The batch and "
            "the weights are in failure.pt; the last checkpoint is sound. Try a lower learning_rate, or gradient_norm=1."
        )

    def record(self, terms: Terms, steps: int) -> None:
        """Add one step to the epoch's means, and to ``steps.csv``."""
        share = 1 / (steps * (1 if self.recipe.random_scale else len(self.recipe.scales)))
        for name, value in terms.items():
            self.sums[name] += value * share
        self.log.add({"epoch": self.epoch + 1, "step": self.step + 1, **terms})
        self.global_step, self.terms = self.global_step + 1, terms
        self._timed = self._timed or (
            self.global_step,
            time.perf_counter(),
        )  # the first step of all warms up

    def time_left(self, batches: int) -> str:
        """What the steps that are left take at the pace so far, such as ``1:02:03 left``;
        validation comes on top.
        """
        assert self._timed is not None  # a step has been recorded
        first, since = self._timed
        if self.global_step == first:
            return "…"
        pace = (time.perf_counter() - since) / (self.global_step - first)
        scales = 1 if self.recipe.random_scale else len(self.recipe.scales)
        return f"{timedelta(seconds=round(pace * (batches * scales - self.global_step)))} left"

    # --- checkpoints ---

    def sync_flags(self, wanted: int, minutes: float = math.inf) -> tuple[int, bool]:
        """(a signal that any process has got, is it time for a checkpoint): the same answer in all
        processes.
        """
        due = time.perf_counter() - self._saved >= 60 * minutes
        if self.accelerator.num_processes == 1:
            return wanted, due
        mine = torch.tensor([[wanted, int(due)]], device=self.accelerator.device)
        wanted, due = self.accelerator.gather(mine).amax(dim=0).tolist()
        return wanted, bool(due)

    def checkpoint(self) -> None:
        """Everything that is needed to go on after the last step."""
        randoms = gather_object([random_states()])
        if self.accelerator.is_main_process:
            now = time.perf_counter()
            self.seconds, self._clock = self.seconds + now - self._clock, now
            scaler = self.accelerator.scaler
            write_checkpoint(
                self.folder,
                {
                    "recipe": self.recipe.fingerprint(),
                    "epoch": self.epoch,
                    "step": self.step,
                    "taken": self.global_step,
                    "passes": self.accumulation_steps,
                    "network": self.module.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "scaler": scaler.state_dict() if scaler else {},
                    "ema": self.ema.state_dict() if self.ema else {},
                    "random": randoms,
                    "history": self.history,
                    "sums": dict(self.sums),
                    "seconds": self.seconds,
                    "log": self.log.flush(),
                },
            )
        self._saved = time.perf_counter()

    def resume(self) -> None:
        """Go back to the last checkpoint, if there is one."""
        saved = latest_checkpoint(self.folder)
        self.log = StepLog(
            self.folder if self.accelerator.is_main_process else None, saved["log"] if saved else 0
        )
        if saved is None:
            return
        if saved["recipe"] != self.recipe.fingerprint():
            raise UserError(
                f"{self.folder} holds a checkpoint of another recipe; choose another --runs-dir."
            )
        self.module.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.accelerator.scaler and saved["scaler"]:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.epoch, self.step, self.global_step, self.accumulation_steps = (
            saved[k] for k in ("epoch", "step", "taken", "passes")
        )
        self.history, self.seconds = saved["history"], saved["seconds"]
        self.sums = defaultdict(float, saved["sums"])
        if self.accelerator.process_index < len(
            saved["random"]
        ):  # of more processes than before the others start anew
            set_random_states(saved["random"][self.accelerator.process_index])

    # --- the end of an epoch, and of the run ---

    def is_stale(self) -> bool:
        """Has validation Dice not risen for ``patience`` epochs?"""
        if not self.recipe.patience or not self.history:
            return False
        return len(self.history) - best_of(self.history)["epoch"] >= self.recipe.patience

    def finish_epoch(self, validation: dict[str, float]) -> None:
        """One more row of the history; the weights, if they are the best so far; a checkpoint."""
        terms = {f"train_{name}": value for name, value in self.sums.items()}
        row = {"epoch": self.epoch + 1, **terms, **validation}
        elapsed = self.seconds + time.perf_counter() - self._clock
        row["seconds"] = round(elapsed - sum(earlier["seconds"] for earlier in self.history), 2)
        if self.accelerator.is_main_process:
            if all(
                row["val_dice"] > earlier["val_dice"] for earlier in self.history
            ):  # of equal ones the first stays
                save_weights(self.eval_model, self.folder / "best.safetensors", epoch=row["epoch"])
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, defaultdict(float)
        if self.accelerator.is_main_process:
            write_history(self.folder, self.history)
        self.checkpoint()

    def finish(self) -> None:
        """``metrics.json``: which epoch was best on validation, how good it was, and what it cost."""
        best = best_of(self.history)
        metrics = {
            "objective": self.recipe.objective,
            "seed": self.recipe.seed,
            "best_epoch": best["epoch"],
            "val_dice": best["val_dice"],
            "val_loss": best["val_loss"],
            "epochs": len(self.history),
            "seconds": round(sum(row["seconds"] for row in self.history), 1),
            "parameters": count_parameters(self.module),
            "passes": self.accumulation_steps,
            "processes": self.accelerator.num_processes,
            "torch": torch.__version__,
            "kdas_core": kdas_core.__version__,
            "revision": revision(),
        }
        if self.accelerator.is_main_process:
            rotate_checkpoints(
                self.folder
            )  # a run killed while its last checkpoint was renamed writes no further one
            atomic_write(self.folder / "metrics.json", json.dumps(metrics, indent=2).encode())
        self.accelerator.wait_for_everyone()


# --- before the loop --------------------------------------------------------------------------------------------------


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Device, precision and processes, as Accelerate finds them."""
    precision = {"float32": "no"}.get(recipe.precision, recipe.precision)
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU; choose bf16 or float32.")
    AcceleratorState._reset_state()  # a notebook may train one network in one precision and the next in another
    return Accelerator(mixed_precision=precision)


def is_finished(folder: Path, accelerator: Accelerator) -> bool:
    """Is ``metrics.json`` there? All processes look at the same moment, before any of them writes."""
    accelerator.wait_for_everyone()
    finished = (folder / "metrics.json").exists()
    accelerator.wait_for_everyone()
    return finished


def objective_kwargs(recipe: Recipe) -> dict:
    """The keywords of the recipe's objective, with the recipe's values."""
    return {
        hyperparameter: getattr(recipe, hyperparameter)
        for hyperparameter in hyperparameters_of(recipe.objective)
        if hasattr(recipe, hyperparameter)
    }


def run_folder(recipe: Recipe, data: PolypData, runs_dir: str | Path, role: str) -> Path:
    """Where a run lives: another recipe or other images give another folder."""
    names = sorted(pair.name for split in (data.train, data.validation) for pair in split)
    what = "teacher" if role == "teacher" else recipe.objective
    return (
        Path(runs_dir)
        / f"{what}-seed{recipe.seed}-{recipe.fingerprint(role, data.root.name, *names)}"
    )


def start_network(recipe: Recipe, role: str) -> nn.Module:
    """The untrained network of a role."""
    pretrained = recipe.pretrained_teacher if role == "teacher" else recipe.pretrained_student
    backbone = recipe.teacher if role == "teacher" else recipe.student
    return build(role, pretrained=pretrained, backbone=backbone)


def compiled(net: nn.Module, device: torch.device) -> nn.Module:
    """``torch.compile``, anew for each scale and for a smaller last batch.

    Raises:
        UserError: nothing can be compiled here, most often because there is no C++ compiler.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds, deep inside
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"torch.compile does not work on this machine ({why}); switch compile off."
        ) from None
    return cast(nn.Module, torch.compile(net, dynamic=False))


# --- validation -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def validate(
    net: nn.Module, held_out: PolypDataset, batch_size: int, accelerator: Accelerator
) -> dict[str, float]:
    """Structure loss and mean Dice at threshold 0.5 on the validation split, at the network's own
    image size.

    Each process takes every n-th image; the sums are added up, so no image counts twice or is left
    out.
    """
    net.eval()
    sums = torch.zeros(2, device=accelerator.device)
    mine = range(accelerator.process_index, len(held_out), accelerator.num_processes)
    for batch in prefetch(
        held_out, [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    ):
        images, mask = batch["image"].to(accelerator.device), batch["mask"].to(accelerator.device)
        with accelerator.autocast():
            p1, p2 = (p.float() for p in net(images))
        sums[0] += (structure_loss(p1, mask) + structure_loss(p2, mask)) * len(images)
        sums[1] += dice_at_half(p1 + p2, mask).sum()
    loss, dice = (accelerator.reduce(sums, reduction="sum") / len(held_out)).tolist()
    return {"val_loss": loss, "val_dice": dice}


def dice_at_half(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice of ``σ(logits) ≥ 0.5`` for each image, shape (B,); 1 where both are empty."""
    found, mask = logits >= 0, mask >= 0.5
    overlap, total = (
        (found & mask).sum(dim=(1, 2, 3)),
        found.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3)),
    )
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0)


def best_of(history: list[dict]) -> dict:
    """The row with the highest validation Dice; of equal ones the first."""
    return max(history, key=lambda row: row["val_dice"])


if __name__ == "__main__":
    from kdas_book.cli import main

    main(["train"])
