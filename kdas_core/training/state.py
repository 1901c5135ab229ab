"""What changes in a training run from step to step, and so what a checkpoint holds."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import kdas_core
from kdas_core import UserError
from kdas_core.models import count_parameters, save_weights
from kdas_core.recipe import Recipe
from kdas_core.training import checkpoint as files
from kdas_core.training.networks import arrange, compiled

_PLAIN = ("epoch", "step", "global_step", "accumulation_steps", "history", "seconds")


class TrainingState:
    """All that changes from step to step in a training run, and therefore all a checkpoint holds.

    Args:
        net: the untrained network.
        batches: in an epoch.
        callback: called after each step and each epoch, in the main process.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        accelerator: Accelerator,
        net: nn.Module,
        batches: int,
        callback: Callable[[TrainingState], None] | None = None,
    ):
        self.recipe = recipe
        self.folder = folder
        self.accelerator = accelerator
        self.callback = callback if accelerator.is_main_process else None
        rate, decay = recipe.learning_rate, recipe.weight_decay
        optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
        self.module = arrange(net, recipe, accelerator)  # as saved; self.net: as called
        self.net, self.optimiser = accelerator.prepare(self.module, optimiser)
        if recipe.compile:
            self.net = compiled(self.net, accelerator.device)
        average = get_ema_multi_avg_fn(recipe.ema)
        self.ema = None
        if recipe.ema:
            self.ema = AveragedModel(self.module, multi_avg_fn=average, use_buffers=True)
        self.batches = batches
        self.steps_per_batch = 1 if recipe.random_scale else len(recipe.scales)
        self.epoch = 0
        self.step = 0  # batches of this epoch
        self.global_step = 0  # optimiser steps since the very beginning
        self.accumulation_steps = recipe.accumulate
        self.fitted: set[tuple[float, int]] = set()  # (scale, accumulation steps) with room enough
        self.terms: dict[str, float] = {}  # of the last step
        self.sums: dict[str, float] = defaultdict(float)
        self.history: list[dict] = []
        self.log = files.StepLog(folder if accelerator.is_main_process else None)
        self.seconds = 0.0  # up to the last checkpoint
        self.saved_at = time.perf_counter()

    @property
    def eval_model(self) -> nn.Module:
        """The network that is validated and saved: the average where there is one."""
        return self.ema.module if self.ema else self.module

    @property
    def steps_done(self) -> int:
        """Batches since the very beginning."""
        return self.epoch * self.batches + self.step

    @property
    def all_steps(self) -> int:
        """Batches of the whole run."""
        return self.recipe.epochs * self.batches

    # --- a step ---

    def train_mode(self) -> None:
        """Ready for an epoch; with ``freeze_statistics`` batch norm stays as it is."""
        self.net.train()
        if self.recipe.freeze_statistics:
            for module in self.module.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def set_learning_rate(self) -> None:
        """The rate of the next step, by the recipe's schedule."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.steps_done, self.all_steps)

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
        self.log.add({"epoch": self.epoch + 1, "step": self.step + 1, **terms})
        self.global_step += 1
        self.terms = terms
        if self.callback:
            self.callback(self)

    # --- an epoch, and the end ---

    def is_stale(self) -> bool:
        """Has validation Dice not risen for ``patience`` epochs?"""
        if not self.recipe.patience or not self.history:
            return False
        return len(self.history) - best_of(self.history)["epoch"] >= self.recipe.patience

    def finish_epoch(self, validation: dict[str, float]) -> None:
        """One more row of the history; the weights, if they are the best; a checkpoint."""
        terms = {f"train_{name}": value for name, value in self.sums.items()}
        row = {"epoch": self.epoch + 1, **terms, **validation}
        elapsed = self.seconds + time.perf_counter() - self.saved_at
        row["seconds"] = round(elapsed - sum(earlier["seconds"] for earlier in self.history), 2)
        self.history.append(row)
        if self.accelerator.is_main_process:
            if best_of(self.history) is row:
                save_weights(self.eval_model, self.folder / "best.safetensors", epoch=row["epoch"])
            files.write_history(self.folder, self.history)
        self.epoch += 1
        self.step = 0
        self.sums.clear()
        self.checkpoint()
        if self.callback:
            self.callback(self)

    def finish(self) -> None:
        """``metrics.json``: which epoch was best on validation, how good it was, what it cost."""
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
            "revision": files.revision(),
        }
        if self.accelerator.is_main_process:
            # A run killed while its last checkpoint was renamed writes no further one.
            files.rotate_checkpoints(self.folder)
            files.write(self.folder / "metrics.json", json.dumps(metrics, indent=2).encode())
        self.accelerator.wait_for_everyone()

    # --- checkpoints ---

    def checkpoint(self) -> None:
        """Everything that is needed to go on after the last step."""
        randoms = gather_object([files.random_states()])
        now = time.perf_counter()
        self.seconds += now - self.saved_at
        self.saved_at = now
        if not self.accelerator.is_main_process:
            return
        state = {name: getattr(self, name) for name in _PLAIN}
        state |= {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"recipe": self.recipe.fingerprint(), "random": randoms}
        files.write_checkpoint(
            self.folder, state | {"sums": dict(self.sums), "log": self.log.flush()}
        )

    def resume(self) -> None:
        """Go back to the last checkpoint, if there is one; UserError: it is another recipe's."""
        saved = files.latest_checkpoint(self.folder)
        self.log.cut(saved["log"] if saved else 0)
        if saved is None:
            return
        if saved["recipe"] != self.recipe.fingerprint():
            raise UserError(
                f"{self.folder} holds a checkpoint of another recipe; choose another --runs-dir."
            )
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        for name in _PLAIN:
            setattr(self, name, saved[name])
        self.sums.update(saved["sums"])
        rank = self.accelerator.process_index
        if rank < len(saved["random"]):  # of more processes than before the others start anew
            files.set_random_states(saved["random"][rank])

    def _parts(self) -> dict[str, Any]:
        """What has a ``state_dict``, by the name under which a checkpoint holds it."""
        parts = {"network": self.module, "optimiser": self.optimiser, "ema": self.ema}
        parts["scaler"] = self.accelerator.scaler
        return {name: part for name, part in parts.items() if part is not None}


def best_of(history: list[dict]) -> dict:
    """The row with the highest validation Dice; of equal ones the first."""
    return max(history, key=lambda row: row["val_dice"])
