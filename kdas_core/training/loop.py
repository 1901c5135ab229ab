"""The training loop, written to be read from top to bottom (chapter 6).

One function trains the teacher (objective ``supervised``, no teacher of its own) and
every student. What only accidents need stands in ``safety``, what a run leaves in its
folder in ``checkpoint``.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdas_core.data import PolypData
from kdas_core.data.dataset import PolypDataset
from kdas_core.losses import ON_FEATURES, objective, structure_loss
from kdas_core.recipe import Recipe
from kdas_core.training import batching, safety
from kdas_core.training.checkpoint import begin_run_dir, identity, run_dir, seed_everything
from kdas_core.training.state import (
    TrainingState,
    frozen_teacher,
    objective_kwargs,
    output_of,
    start_accelerator,
    start_network,
)


def fit(
    recipe: Recipe,
    data: PolypData,
    runs_dir: str | Path,
    role: str = "student",
    teacher: nn.Module | None = None,
    checkpoint_minutes: float = 5.0,
    callback: Callable[[TrainingState], None] | None = None,
) -> Path:
    """Train one network, keep its best epoch on validation, return the run's folder.

    Nothing is learnt from test sets. A finished run is returned at once; an interrupted
    one goes on after its last checkpoint and ends as if nothing had happened: on a CPU,
    to the last bit.

    Args:
        runs_dir: where the run's folder is made; its name hangs on the recipe, the images,
            the masks and the teacher's weights.
        role: ``"student"``, or ``"teacher"``, whose recipe is ``recipe.for_teacher()``.
        teacher: the network to distil from, for every objective but ``supervised``.
        checkpoint_minutes: between checkpoints within an epoch; one more follows each epoch.
        callback: called after each step and each epoch.

    Raises:
        UserError: an unusable folder or mask, a number that is not finite, no memory for
            one image.
        SystemExit: code 0, after SIGTERM: a checkpoint has been written.
    """
    loss_fn = objective(recipe.objective, **objective_kwargs(recipe))
    data = data.used(recipe.use_unlabelled)
    content = identity(data, teacher)
    folder = run_dir(recipe, runs_dir, role, content)
    accelerator = start_accelerator(recipe)
    with safety.alone(folder, accelerator) as finished, safety.Interruption() as stop:
        if finished:
            return folder
        data.check_masks()
        if accelerator.is_main_process:
            begin_run_dir(folder, recipe, content)

        seed_everything(recipe.seed)
        size = recipe.image_size
        how = recipe.teacher_image_size or size, recipe.augment, recipe.soft_masks, recipe.seed
        train_set = PolypDataset(data.train, *how, cached=True, unlabelled=data.unlabelled)
        val_set = PolypDataset(data.validation, size, cached=True)
        net = start_network(recipe, role)
        state = TrainingState(recipe, folder, accelerator, net, role, len(train_set), callback)
        state.resume()
        frozen = frozen_teacher(teacher, recipe, accelerator)

        while state.epoch < recipe.epochs and not state.is_stale():
            epoch = state.epoch + 1
            train_set.epoch = epoch
            state.train_mode()
            where = accelerator.process_index, accelerator.num_processes, accelerator.device
            to_come = batching.batches(train_set, recipe, epoch, state.step, *where)
            for batch in safety.progress(to_come, state):
                for scale in batching.scales_of(recipe, epoch, state.step):
                    terms = train_step(state, batch, scale, frozen, loss_fn)
                    state.record(terms)
                state.step += 1
                stop.check(state, checkpoint_minutes)
            scores = validate(state.eval_model, val_set, recipe.batch_size, accelerator)
            state.finish_epoch(scores)  # keeps the weights if they are the best so far
            stop.check(state)

        state.finish()
    return folder


def train_step(
    state: TrainingState, batch: dict, scale: float, teacher: Callable, loss_fn: Callable
) -> dict[str, float]:
    """One optimiser step on a batch at one scale; the objective's terms, batch means."""
    for group in state.optimiser.param_groups:
        group["lr"] = state.recipe.learning_rate_at(state.steps_done, state.all_steps)
    loss_fn = state.warmed_up(loss_fn)
    step = state, batch, scale, teacher, loss_fn
    found = safety.with_less_memory(forward_backward, *step)
    parameters = list(state.net.parameters())
    if state.accelerator.scaler is None:  # that of fp16 skips steps that are not finite, itself
        found["the gradient"] = nn.utils.clip_grad_norm_(parameters, math.inf)
    means = state.accelerator.reduce(torch.stack(list(found.values())), reduction="mean")
    terms = dict(zip(found, means.tolist()))  # here, and only here, a step waits for a GPU
    safety.check_finite(state, terms, batch, scale)
    terms.pop("the gradient", None)
    if state.recipe.gradient_norm:
        state.accelerator.clip_grad_norm_(parameters, state.recipe.gradient_norm)
    else:
        state.accelerator.clip_grad_value_(parameters, state.recipe.gradient_clamp)
    state.optimiser.step()
    if state.ema:
        state.ema.update_parameters(state.module)
    return terms


def forward_backward(
    state: TrainingState, batch: dict, scale: float, teacher: Callable, loss_fn: Callable
) -> dict[str, Tensor]:
    """The gradient of one batch, in ``state.accumulation_steps`` micro-batches; its terms."""
    accelerator = state.accelerator
    sums: dict[str, Any] = defaultdict(float)
    state.optimiser.zero_grad()
    recipe = state.recipe
    features = recipe.objective in ON_FEATURES
    for micro in batching.micro_batches(batch, state.accumulation_steps, state.fewest):
        images, mask = batching.resized(micro, scale, recipe.image_size)
        larger = recipe.teacher_image_size
        seen = batching.resized(micro, scale, larger)[0] if larger else images
        if recipe.channels_last:
            images, seen = (x.contiguous(memory_format=torch.channels_last) for x in (images, seen))
        of_teacher = teacher(seen, images.shape[-1])
        with nullcontext() if micro["last"] else accelerator.no_sync(state.net):
            student = output_of(state.net, images, features)
            terms = loss_fn(student, of_teacher, mask)
            accelerator.backward(terms["total"] * micro["weight"])
        for name, value in terms.items():
            sums[name] += value.detach() * micro["weight"]
    return dict(sums)


@torch.inference_mode()
def validate(
    net: nn.Module, val_set: PolypDataset, batch_size: int, accelerator: Accelerator
) -> dict[str, float]:
    """``val_loss`` (structure loss) and ``val_dice`` (at 0.5), means over the images."""
    net.eval()
    sums = torch.zeros(2, device=accelerator.device)
    # Each process takes every n-th image, so that none counts twice.
    mine = range(accelerator.process_index, len(val_set), accelerator.num_processes)
    parts = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    for batch in batching.prefetch(val_set, parts, accelerator.device):
        images, mask = batch["image"], batch["mask"]
        with accelerator.autocast():
            p1, p2 = (p.float() for p in net(images))
        sums[0] += (structure_loss(p1, mask) + structure_loss(p2, mask)) * len(images)
        sums[1] += dice_at_half(p1 + p2, mask).sum()
    loss, dice = (accelerator.reduce(sums, reduction="sum") / len(val_set)).tolist()
    return {"val_loss": loss, "val_dice": dice}


def dice_at_half(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice of ``σ(logits) ≥ 0.5`` for each image, shape (B,); 1 where both are empty."""
    found, mask = (logits >= 0).flatten(1), (mask >= 0.5).flatten(1)
    overlap, total = (found & mask).sum(1), found.sum(1) + mask.sum(1)
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0)
