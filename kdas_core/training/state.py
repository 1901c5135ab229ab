"""What a training run is made of: device, networks, and the state that a checkpoint holds."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import kdas_core
from kdas_core import UserError
from kdas_core.losses import ON_FEATURES, Output, hyperparameters_of
from kdas_core.models import build, count_parameters, freeze, save_weights, teacher_logits
from kdas_core.models.weights import first_line, refuse_not_finite
from kdas_core.recipe import Recipe
from kdas_core.training import batching
from kdas_core.training import checkpoint as files

_PLAIN = ("epoch", "step", "global_step", "accumulation_steps", "history", "seconds", "log")


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Device, precision and processes as Accelerate finds them; UserError: it needs a GPU."""
    precision, gpu = recipe.precision, torch.cuda.is_available()
    if precision in ("fp16", "tf32") and not gpu:
        raise UserError(f"precision {precision} needs a GPU; choose bf16 or float32.")
    if gpu:  # TF32 in convolutions and products of matrices alike
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            precision = "fp16"
            print("This GPU has no bf16 of its own: the run is in fp16.", flush=True)
    AcceleratorState._reset_state()  # a notebook may train two networks in two precisions
    return Accelerator(mixed_precision=precision if precision in ("bf16", "fp16") else "no")


def objective_kwargs(recipe: Recipe) -> dict:
    """The keywords of the recipe's objective, with the recipe's values."""
    known = hyperparameters_of(recipe.objective)
    return {name: getattr(recipe, name) for name in known if hasattr(recipe, name)}


def start_network(recipe: Recipe, role: str) -> nn.Module:
    """The untrained network of a role, ``"teacher"`` or ``"student"``."""
    known = {"backbone": getattr(recipe, role), "width": recipe.decoder_width}
    return build(role, pretrained=getattr(recipe, f"pretrained_{role}"), **known)


def arrange(net: nn.Module, recipe: Recipe, accelerator: Accelerator) -> nn.Module:
    """Batch norm that counts the images of all GPUs, and weights laid out as the recipe has it."""
    several_gpus = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    if several_gpus and not recipe.freeze_statistics:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return net.to(memory_format=torch.channels_last) if recipe.channels_last else net


def compiled(net: nn.Module, device: torch.device) -> nn.Module:
    """``torch.compile``, anew for each scale; UserError where there is no C++ compiler, say."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds, deep inside
        why = f"torch.compile does not work on this machine ({first_line(error)})"
        raise UserError(f"{why}; switch compile off.") from None
    return cast(nn.Module, torch.compile(net, dynamic=False))


def frozen_teacher(
    teacher: nn.Module | None, recipe: Recipe, accelerator: Accelerator
) -> Callable[[Tensor, int], Output | None]:
    """A function of images (B, 3, S, S) and of the student's side: what the frozen teacher says,
    reduced to that side, under ``teacher_graph`` with a graph that nobody uses; None without one.
    """
    if teacher is None:
        return lambda images, side: None
    net = arrange(freeze(teacher).to(accelerator.device), recipe, accelerator)
    net.requires_grad_(recipe.teacher_graph)
    look = net if recipe.teacher_graph else partial(teacher_logits, net)

    def of_teacher(images: Tensor, side: int) -> Output:
        with accelerator.autocast():
            said = output_of(look, images, recipe.objective in ON_FEATURES)
        return said if side == images.shape[-1] else reduced(said, side / images.shape[-1])

    return of_teacher


def reduced(said: Output, factor: float) -> Output:
    """Maps and features of larger images at the size of the student's, bilinear."""

    def smaller(x: Tensor) -> Tensor:
        side = round(x.shape[-1] * factor)
        return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)

    p1, p2 = map(smaller, said.maps)
    return Output((p1, p2), {name: smaller(f) for name, f in said.features.items()})


def output_of(net: Callable, images: Tensor, features: bool) -> Output:
    """The maps (P1, P2) of images, in float32; where features are asked for, with these."""
    maps, found = net(images, features=True) if features else (net(images), {})
    p1, p2 = (p.float() for p in maps)
    return Output((p1, p2), {name: f.float() for name, f in found.items()})


@dataclass(eq=False)
class TrainingState:
    """All that changes from step to step in a training run, so that a checkpoint holds it."""

    recipe: Recipe
    folder: Path
    accelerator: Accelerator
    net: nn.Module  # given untrained; then as it is called, self.module as it is saved
    role: str
    images: int  # in an epoch
    callback: Callable[["TrainingState"], None] | None = None  # after each step and each epoch

    epoch: int = 0
    step: int = 0  # batches of this epoch
    global_step: int = 0  # optimiser steps since the very beginning
    terms: dict[str, float] = field(default_factory=dict)  # of the last step
    sums: dict[str, float] = field(default_factory=partial(defaultdict, float))
    history: list[dict] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)  # of steps.csv, since the last checkpoint
    log: int = 0  # bytes of steps.csv, up to the last checkpoint
    fitted: set[float] = field(default_factory=set)  # scales for which the memory has sufficed
    seconds: float = 0.0  # up to the last checkpoint
    saved_at: float = field(default_factory=time.perf_counter)
    warm: tuple[int, float] | None = None  # steps and clock after the first batch

    def __post_init__(self) -> None:
        recipe, accelerator = self.recipe, self.accelerator
        rate, decay = recipe.learning_rate, recipe.weight_decay
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=decay)
        self.module = arrange(self.net, recipe, accelerator)
        among = accelerator.num_processes
        self.fewest = batching.fewest_images(self.module, recipe, self.images, among)
        self.net, self.optimiser = accelerator.prepare(self.module, optimiser)
        if recipe.compile:
            self.net = compiled(self.net, accelerator.device)
        self.ema = None
        if recipe.ema:
            average = get_ema_multi_avg_fn(recipe.ema)
            self.ema = AveragedModel(self.module, multi_avg_fn=average, use_buffers=True)
        self.eval_model = self.ema.module if self.ema else self.module  # is validated and saved
        parts = {"network": self.module, "optimiser": self.optimiser, "ema": self.ema}
        parts["scaler"] = accelerator.scaler
        self.parts: dict[str, Any] = {k: part for k, part in parts.items() if part is not None}
        self.accumulation_steps = recipe.accumulate
        self.batches = math.ceil(self.images / recipe.batch_size)
        self.all_steps = recipe.epochs * self.batches  # batches of the whole run
        self.steps_per_batch = 1 if recipe.random_scale else len(recipe.scales)

    @property
    def steps_done(self) -> int:
        """Batches since the very beginning."""
        return self.epoch * self.batches + self.step

    def train_mode(self) -> None:
        """Ready for an epoch; with ``freeze_statistics`` batch norm stays as it is."""
        self.net.train()
        for module in self.module.modules():
            if self.recipe.freeze_statistics and isinstance(module, _BatchNorm):
                module.eval()

    def warmed_up(self, loss_fn: Callable) -> Callable:
        """The objective at this step: under ``distillation_warm_up`` its α rises linearly."""
        rising = self.all_steps * self.recipe.distillation_warm_up
        if self.steps_done >= rising or self.recipe.objective == "supervised":
            return loss_fn
        return partial(loss_fn, alpha=self.recipe.alpha * self.steps_done / rising)

    def record(self, terms: dict[str, float]) -> None:
        """Add a step's terms to the epoch's means and to ``steps.csv``; tell the callback."""
        share = 1 / (self.batches * self.steps_per_batch)
        for name, value in terms.items():
            self.sums[name] += value * share
        self.rows.append({"epoch": self.epoch + 1, "step": self.step + 1, **terms})
        self.global_step += 1
        self.terms = terms
        self._call_back()

    def is_stale(self) -> bool:
        """Has validation Dice not risen for ``patience`` epochs?"""
        best = files.best_of(self.history)["epoch"] if self.history else 0
        return 0 < self.recipe.patience <= len(self.history) - best

    def finish_epoch(self, validation: dict[str, float]) -> None:
        """One more row of the history; the weights, if they are the best; a checkpoint."""
        terms = {f"train_{name}": value for name, value in self.sums.items()}
        row = {"epoch": self.epoch + 1, **terms, **validation}
        elapsed = self.seconds + time.perf_counter() - self.saved_at
        row["seconds"] = round(elapsed - sum(earlier["seconds"] for earlier in self.history), 2)
        refuse_not_finite(self.eval_model.state_dict(), f"{self.folder}, epoch {row['epoch']}")
        self.history.append(row)
        if self.accelerator.is_main_process:
            if files.best_of(self.history) is row:
                # What a program must know that uses the weights.
                about = {"epoch": row["epoch"], "role": self.role, "size": self.recipe.image_size}
                about |= {"backbone": getattr(self.recipe, self.role), "normalisation": "imagenet"}
                about |= {"width": self.recipe.decoder_width, "preset": self.recipe.preset}
                save_weights(self.eval_model, self.folder / "best.safetensors", **about)
            table = pd.DataFrame(self.history).to_csv(index=False)
            files.write(self.folder / "history.csv", table.encode())
        self.epoch += 1
        self.step = 0
        self.sums.clear()
        self.checkpoint()
        self._call_back()

    def finish(self) -> None:
        """``metrics.json``: which epoch was best on validation, how good it was, what it cost."""
        best = files.best_of(self.history)
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
            "revision": files.revision(),
        }
        if self.accelerator.is_main_process:
            # A run killed while its last checkpoint was renamed writes no further one.
            files.rotate_checkpoints(self.folder)
            files.write(self.folder / "metrics.json", json.dumps(metrics, indent=2).encode())
        self.accelerator.wait_for_everyone()

    def checkpoint(self) -> None:
        """Everything that is needed to go on after the last step."""
        randoms = gather_object([files.random_states()])
        now = time.perf_counter()
        self.seconds += now - self.saved_at
        self.saved_at = now
        if self.accelerator.is_main_process:
            self.log = files.append_steps(self.folder, self.rows, self.log)
            state = {name: getattr(self, name) for name in _PLAIN} | {"sums": dict(self.sums)}
            state |= {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"recipe": self.recipe.fingerprint(), "random": randoms}
            files.write_checkpoint(self.folder, state)
        self.rows.clear()

    def resume(self) -> None:
        """Go back to the last checkpoint, if there is one; UserError: it is another recipe's."""
        saved = files.latest_checkpoint(self.folder)
        if saved is None:
            return
        if saved["recipe"] != self.recipe.fingerprint():
            raise UserError(f"{self.folder} is of another recipe; choose another --runs-dir.")
        refuse_not_finite(saved["network"], self.folder / files.LAST)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        for name in _PLAIN:
            setattr(self, name, saved[name])
        self.sums.update(saved["sums"])
        rank = self.accelerator.process_index
        if rank < len(saved["random"]):  # of more processes than before the others start anew
            files.set_random_states(saved["random"][rank])

    def _call_back(self) -> None:
        if self.callback and self.accelerator.is_main_process:
            self.callback(self)
