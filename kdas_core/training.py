"""The training loop, written to be read from top to bottom (chapter 6).

One function trains the teacher (no teacher of its own, objective ``supervised``) and every student. A run is a folder:

    recipe.yaml        every knob
    history.csv        one row per epoch: terms of the objective, validation loss and Dice
    best.safetensors   the weights of the epoch with the highest validation Dice
    last.ckpt          everything needed to go on after the last finished epoch
    metrics.json       written at the end: a run that has it is finished
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

import kdas_core
from kdas_core import UserError
from kdas_core.data.polyps import PolypData, PolypDataset
from kdas_core.losses import knobs_of, objective, structure_loss
from kdas_core.models import build, count_parameters, freeze, save_weights, teacher_logits
from kdas_core.recipe import Recipe


def fit(
    recipe: Recipe, data: PolypData, runs_dir: str | Path, role: str = "student", teacher: nn.Module | None = None
) -> Path:
    """Train one network and keep the epoch that is best on the validation split; the test sets are never looked at.

    A finished run is returned at once, an interrupted one goes on after its last finished epoch.

    Args:
        recipe: the knobs. The teacher's own recipe is ``recipe.for_teacher()``.
        data: training and validation pairs.
        runs_dir: the run's folder is made in here; its name holds the recipe's fingerprint.
        role: ``"student"`` or ``"teacher"``, which picks the backbone.
        teacher: the network to distil from, for every objective but ``supervised``.

    Returns:
        The run's folder.

    Raises:
        UserError: the folder cannot be written, or the loss is no longer a number.
    """
    terms_of = objective(recipe.objective, **knobs_in(recipe))  # first of all: an unknown name stops here
    folder = run_folder(recipe, data, runs_dir, role)
    if (folder / "metrics.json").exists():
        return folder
    make_writable(folder)
    recipe.to_yaml(folder / "recipe.yaml")

    torch.manual_seed(recipe.seed)
    accelerator = Accelerator()
    net = start_network(recipe, role)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    net, optimiser = accelerator.prepare(net, optimiser)
    if teacher is not None:
        teacher = freeze(teacher).to(accelerator.device)
    training = PolypDataset(data.train, recipe.image_size, recipe.augment, recipe.soft_masks, recipe.seed, True)
    held_out = PolypDataset(data.validation, recipe.image_size, in_memory=True)
    steps = math.ceil(len(training) / recipe.batch_size)
    history, first = resume(folder, net, optimiser)

    for epoch in range(first, recipe.epochs + 1):
        started, sums = time.perf_counter(), defaultdict(float)
        training.set_epoch(epoch)
        net.train()
        for step, batch in enumerate(batches(training, recipe, epoch)):
            set_learning_rate(optimiser, recipe, (epoch - 1) * steps + step, recipe.epochs * steps)
            for scale in recipe.scales:
                images, mask = resized(batch, scale, recipe.image_size, accelerator.device)
                of_teacher = None if teacher is None else teacher_logits(teacher, images)
                terms = terms_of(net(images), of_teacher, mask)
                if not torch.isfinite(terms["total"]):
                    raise UserError(
                        f"{folder.name}, epoch {epoch}: the loss is {terms['total']:.3g} at {batch['name']}."
                    )
                optimiser.zero_grad()
                accelerator.backward(terms["total"])
                nn.utils.clip_grad_value_(net.parameters(), recipe.gradient_clamp)
                optimiser.step()
                for name, value in terms.items():
                    sums[name] += float(value.detach()) / (steps * len(recipe.scales))

        row = {"epoch": epoch, **{f"train_{name}": value for name, value in sums.items()}}
        row |= validate(net, held_out, recipe.batch_size, accelerator.device)
        row["seconds"] = round(time.perf_counter() - started, 2)
        if all(row["val_dice"] > earlier["val_dice"] for earlier in history):  # of equal epochs the first stays
            save_weights(accelerator.unwrap_model(net), folder / "best.safetensors", epoch=epoch)
        history.append(row)
        save_progress(folder, net, optimiser, history)

    write_metrics(folder, recipe, net, history)
    return folder


def knobs_in(recipe: Recipe) -> dict:
    """The keywords of the recipe's objective, with the recipe's values."""
    return {knob: getattr(recipe, knob) for knob in knobs_of(recipe.objective) if hasattr(recipe, knob)}


def run_folder(recipe: Recipe, data: PolypData, runs_dir: str | Path, role: str) -> Path:
    """Where a run lives: another recipe or other images give another folder."""
    names = sorted(pair.name for split in (data.train, data.validation) for pair in split)
    what = "teacher" if role == "teacher" else recipe.objective
    return Path(runs_dir) / f"{what}-seed{recipe.seed}-{recipe.fingerprint(role, data.root.name, *names)}"


def make_writable(folder: Path) -> None:
    """Make the run's folder, or say in a sentence why that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another --runs-dir.") from None


def start_network(recipe: Recipe, role: str) -> nn.Module:
    """The untrained network of a role."""
    pretrained = recipe.pretrained_teacher if role == "teacher" else recipe.pretrained_student
    backbone = recipe.teacher if role == "teacher" else recipe.student
    return build(role, pretrained=pretrained, backbone=backbone)


def batches(dataset: PolypDataset, recipe: Recipe, epoch: int) -> tqdm:
    """The batches of an epoch, in an order that depends on the seed and the epoch alone."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(recipe.seed * 100_003 + epoch))
    loader = DataLoader(dataset, recipe.batch_size, sampler=order.tolist())
    quiet = "TQDM_DISABLE" in os.environ  # a bar in a notebook does not read this itself
    return tqdm(loader, desc=f"{recipe.objective}, epoch {epoch}/{recipe.epochs}", leave=False, disable=quiet)


def resized(batch: dict, scale: float, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and masks at ``round(size·scale/32)·32`` pixels, bilinear with coinciding corners, as released."""
    images, mask = batch["image"].to(device), batch["mask"].to(device)
    side = round(size * scale / 32) * 32
    if side == size:
        return images, mask
    return tuple(F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True) for x in (images, mask))


def set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int, steps: int) -> None:
    """Constant as released, or a warm-up over the first 5 % of the steps and half a cosine down to 0."""
    factor = 1.0
    if recipe.schedule == "cosine":
        warm_up = max(1, steps // 20)
        factor = min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * factor


@torch.inference_mode()
def validate(net: nn.Module, held_out: PolypDataset, batch_size: int, device: torch.device) -> dict[str, float]:
    """Structure loss and mean Dice at threshold 0.5 on the validation split, at the network's own image size."""
    net.eval()
    loss = dice = 0.0
    for batch in DataLoader(held_out, batch_size):
        images, mask = batch["image"].to(device), batch["mask"].to(device)
        p1, p2 = net(images)
        loss += float(structure_loss(p1, mask) + structure_loss(p2, mask)) * len(images)
        dice += float(dice_at_half(p1 + p2, mask).sum())
    return {"val_loss": loss / len(held_out), "val_dice": dice / len(held_out)}


def dice_at_half(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice of ``σ(logits) ≥ 0.5`` for each image, shape (B,); 1 where both are empty."""
    found, mask = logits >= 0, mask >= 0.5
    overlap, total = (found & mask).sum(dim=(1, 2, 3)), found.sum(dim=(1, 2, 3)) + mask.sum(dim=(1, 2, 3))
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0)


def resume(folder: Path, net: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[list[dict], int]:
    """The history so far and the epoch to go on with."""
    if not (folder / "last.ckpt").exists():
        return [], 1
    saved = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)
    net.load_state_dict(saved["network"])
    optimiser.load_state_dict(saved["optimiser"])
    torch.set_rng_state(saved["random"])
    return saved["history"], len(saved["history"]) + 1


def save_progress(folder: Path, net: nn.Module, optimiser: torch.optim.Optimizer, history: list[dict]) -> None:
    """``history.csv`` and ``last.ckpt``, each written beside and renamed, so that neither is ever half there.

    ``last.ckpt`` comes last: cut off between the two, a run does the epoch again and writes its row again.
    """
    pd.DataFrame(history).to_csv(folder / "history.csv.part", index=False)
    os.replace(folder / "history.csv.part", folder / "history.csv")
    state = {
        "network": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "history": history,
    }
    torch.save(state, folder / "last.ckpt.part")
    os.replace(folder / "last.ckpt.part", folder / "last.ckpt")


def write_metrics(folder: Path, recipe: Recipe, net: nn.Module, history: list[dict]) -> None:
    """``metrics.json``: which epoch was best on validation, how good it was, and what it cost."""
    best = max(history, key=lambda row: row["val_dice"])
    metrics = {
        "objective": recipe.objective,
        "seed": recipe.seed,
        "best_epoch": best["epoch"],
        "val_dice": best["val_dice"],
        "val_loss": best["val_loss"],
        "epochs": len(history),
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "parameters": count_parameters(net),
        "torch": torch.__version__,
        "kdas_core": kdas_core.__version__,
    }
    (folder / "metrics.json.part").write_text(json.dumps(metrics, indent=2))
    os.replace(folder / "metrics.json.part", folder / "metrics.json")


def load_history(folder: str | Path) -> pd.DataFrame:
    """``history.csv`` of a run: columns epoch, train_<term>…, val_loss, val_dice, seconds."""
    return pd.read_csv(Path(folder) / "history.csv")
