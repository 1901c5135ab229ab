"""What a study would cost, before anything runs: cells, hours, disk. A few steps are timed here;
GPUs are reckoned from them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median_high

import pandas as pd
import torch

from kdas_book.data.open_data import open_data
from kdas_book.paths import find_root
from kdas_book.study.spec import Cell, Study, is_finished
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.losses import objective
from kdas_core.models import build, count_macs, count_parameters, freeze, teacher_logits
from kdas_core.recipe import Recipe
from kdas_core.training import objective_kwargs
from kdas_core.training.batching import scaled_size

# float32 peaks from the makers' data sheets, in 10¹² floating-point operations a second.
GPUS = {"T4": 8.1, "A100": 19.5}
USED = 0.3  # the share of the peak that such small networks reach; a belief, not measured
_SCORING = 0.03  # seconds to score one test image (benchmarks/evaluate.py)
_FULL_TRAINING = 1450  # pairs of PraNet's training set


@dataclass(frozen=True)
class Plan:
    """What ``kdas study plan`` shows.

    Attributes:
        cells: a row a cell: ``state``, ``steps``, ``hours here``, and an estimate for each GPU.
        images: (training, validation, test) counts that the plan reckons with.
        full_counts: are these the full public sets, since no data is there?
    """

    cells: pd.DataFrame
    disk_gb: float
    images: tuple[int, int, int]
    full_counts: bool

    def __str__(self) -> str:
        todo = self.cells[self.cells["state"] == "to do"]
        hours = todo.filter(like="hours").sum().rename(lambda name: name.removeprefix("hours "))
        total = ", ".join(f"{value:.1f} {where}" for where, value in hours.items())
        full = "the full public sets, since no data is here"
        train, validation, test = self.images
        return (
            f"{self.cells.round(2).to_string()}\n"
            f"{len(todo)} of {len(self.cells)} cells to do; {self.disk_gb:.1f} GB of disk; "
            f"{train} training, {validation} validation and {test} test images "
            f"({full if self.full_counts else 'the data that is here'}).\n"
            f"Hours, one cell after another: {total}.\n"
            f"The hours of GPUs are an estimate: float32 at {100 * USED:.0f} % of the maker's peak,"
            " times the ratios of the steps that were timed here."
        )


def plan(study: Study, runs_dir: str | Path) -> Plan:
    """Time a few steps of each objective here, and reckon; a UserError if the data folder that the
    study names is not one.
    """
    images, full = _images(study)
    timed: dict[str, float] = {}
    side = study.recipe(study.cells()[0]).image_size
    rows = {}
    parameters = 0
    for cell in study.cells():
        recipe = study.recipe(cell)
        recipe = recipe.for_teacher() if cell.role == "teacher" else recipe
        if cell.objective not in timed:
            timed[cell.objective] = _seconds_a_step(cell, recipe)
        finished = is_finished(Path(runs_dir) / study.name / cell.name)
        costs = _costs(cell, recipe, timed, images)
        rows[cell.name] = {"state": "finished" if finished else "to do", **costs}
        if not _is_released(cell, recipe):
            parameters += _macs_and_parameters(cell.role, getattr(recipe, cell.role), side)[1]
    train, validation, test = images
    # Of each network the best weights and two checkpoints (weights and two moments), 4 bytes a
    # number; training images decoded; the teacher's masks.
    decoded = 4 * side**2 * (train + validation)
    disk = 4 * 7 * parameters + decoded + 50_000 * test
    return Plan(pd.DataFrame.from_dict(rows, orient="index"), disk / 1e9, images, full)


def _costs(
    cell: Cell, recipe: Recipe, timed: dict[str, float], images: tuple[int, int, int]
) -> dict[str, float]:
    """Steps, hours here and hours on each GPU."""
    train, validation, test = images
    epochs = 0 if _is_released(cell, recipe) else recipe.epochs
    batches = epochs * -(-train // recipe.batch_size)
    # A step's cost grows with the pixels; a batch takes one step at each scale, or one at any.
    areas = [(scaled_size(s, recipe.image_size) / recipe.image_size) ** 2 for s in recipe.scales]
    steps_a_batch = 1 if recipe.random_scale else len(areas)
    full_steps = batches * steps_a_batch * sum(areas) / len(areas)
    # A forward pass is a third of a supervised step; each test image is drawn and scored for the
    # best epoch and for the last.
    forward = epochs * validation + 2 * test
    scoring = 2 * test * _SCORING
    step = timed[cell.objective]
    plain = step if cell.role == "teacher" else timed.get("supervised", step)
    here = full_steps * step + forward * plain / recipe.batch_size / 3 + scoring
    backbone = getattr(recipe, cell.role)
    macs, _ = _macs_and_parameters(cell.role, backbone, recipe.image_size)
    operations = 2 * macs * (3 * recipe.batch_size * full_steps * step / plain + forward)
    seconds = {"here": here}
    seconds |= {gpu: operations / (peak * 1e12 * USED) + scoring for gpu, peak in GPUS.items()}
    hours = {f"hours {where}": value / 3600 for where, value in seconds.items()}
    return {"steps": batches * steps_a_batch, **hours}


def _seconds_a_step(cell: Cell, recipe: Recipe, repeats: int = 2) -> float:
    """Median seconds of a step at the recipe's size, of networks that were never trained."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build(cell.role, backbone=getattr(recipe, cell.role)).to(device).train()
    teacher = None
    if recipe.objective != "supervised":
        teacher = freeze(build("teacher", backbone=recipe.teacher)).to(device)
    loss_fn = objective(recipe.objective, **objective_kwargs(recipe))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-6)
    images = torch.randn(recipe.batch_size, 3, recipe.image_size, recipe.image_size, device=device)
    mask = (images[:, :1] > 0).float()
    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        optimiser.zero_grad()
        maps = None if teacher is None else teacher_logits(teacher, images)
        loss_fn(net(images), maps, mask)["total"].backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median_high(times[1:])  # the first one warms up


@cache
def _macs_and_parameters(role: str, backbone: str, side: int) -> tuple[int, int]:
    net = build(role, backbone=backbone).eval()
    return count_macs(net, side), count_parameters(net)


def _is_released(cell: Cell, recipe: Recipe) -> bool:
    """Is this a teacher whose weights are a file?"""
    weights = recipe.teacher_weights
    return cell.role == "teacher" and bool(weights) and (find_root() / weights).is_file()


def _images(study: Study) -> tuple[tuple[int, int, int], bool]:
    """Training, validation and test images; are they those of the full public sets, for want of
    others?
    """
    recipe = study.recipe(study.cells()[0])
    root = find_root()
    missing = not study.data_root and not (root / "data" / "TrainDataset").is_dir()
    try:
        data = None if missing else open_data(recipe, study.data_root, root / "data", root / "runs")
    except UserError:
        if study.data_root:
            raise
        data = None
    if data:
        test = sum(len(index) for index in data.tests.values())
        return (len(data.train), len(data.validation), test), False
    count, test = recipe.synthetic_images, 5 * recipe.synthetic_test_images
    if not count:
        count, test = _FULL_TRAINING, sum(FULL_COUNTS.values())
    held_out = round(count * recipe.validation_fraction)
    return (count - held_out, held_out, test), not recipe.synthetic_images
