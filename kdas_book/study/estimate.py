"""What a study would cost, before anything runs: cells, hours, disk. A few steps are timed here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch.utils.benchmark import Timer

from kdas_book.data.open_data import open_data
from kdas_book.paths import find_root
from kdas_book.study.spec import Cell, Study, is_finished
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.losses import ON_FEATURES, objective
from kdas_core.models import build, count_parameters, freeze, teacher_logits
from kdas_core.recipe import Recipe
from kdas_core.training import objective_kwargs
from kdas_core.training.batching import fewest_images, scaled_size
from kdas_core.training.state import output_of, reduced

_SCORING = 0.03  # seconds to score one test image (benchmarks/evaluate.py)
_FULL_TRAINING = 1450  # pairs of PraNet's training set


@dataclass(frozen=True)
class Plan:
    """What ``kdas study plan`` shows."""

    cells: pd.DataFrame  # a row a cell: state, steps, hours here
    disk_gb: float
    images: tuple[int, int, int]  # training, validation and test images that it reckons with
    full_counts: bool  # are these the full public sets, since no data is there?

    def __str__(self) -> str:
        todo = self.cells[self.cells["state"] == "to do"]
        full = "the full public sets, since no data is here"
        train, validation, test = self.images
        return (
            f"{self.cells.round(2).to_string()}\n"
            f"{len(todo)} of {len(self.cells)} cells to do; {self.disk_gb:.1f} GB of disk; "
            f"{train} training, {validation} validation and {test} test images "
            f"({full if self.full_counts else 'the data that is here'}).\n"
            f"One cell after another: {todo['hours here'].sum():.1f} hours on this machine, an "
            "estimate from a few steps that were timed."
        )


def plan(study: Study, runs_dir: str | Path) -> Plan:
    """Time a few steps of each objective here, and reckon; UserError: no such data folder."""
    images, full = _images(study)
    timed: dict[str, float] = {}
    sizes: dict[str, int] = {}
    rows = {}
    parameters = 0
    for cell in study.cells():
        recipe = study.recipe(cell)
        if cell.objective not in timed:
            timed[cell.objective] = _seconds_a_step(cell, recipe, images[0])
            net = build(cell.role, backbone=getattr(recipe, cell.role), width=recipe.decoder_width)
            sizes[cell.objective] = count_parameters(net)
        step = timed[cell.objective]
        plain = step if cell.role == "teacher" else timed.get("supervised", step)
        released = cell.role == "teacher" and (find_root() / recipe.teacher_weights).is_file()
        parameters += 0 if released else sizes[cell.objective]
        epochs = 0 if released else recipe.epochs
        steps, seconds = _steps_and_seconds(recipe, epochs, images, step, plain)
        finished = is_finished(Path(runs_dir) / study.name / cell.name)
        state = "finished" if finished else "to do"
        rows[cell.name] = {"state": state, "steps": steps, "hours here": seconds / 3600}
    train, validation, test = images
    # Of each network the best weights and two checkpoints (weights and two moments), 4 bytes a
    # number; training images decoded; the teacher's masks.
    largest = recipe.teacher_image_size or recipe.image_size
    decoded = 4 * largest**2 * (train + validation)
    disk = 4 * 7 * parameters + decoded + 50_000 * test
    return Plan(pd.DataFrame.from_dict(rows, orient="index"), disk / 1e9, images, full)


def _steps_and_seconds(
    recipe: Recipe, epochs: int, images: tuple[int, int, int], step: float, plain: float
) -> tuple[int, float]:
    """Of a cell, from the seconds of its step and of a supervised one."""
    train, validation, test = images
    batches = epochs * -(-train // recipe.batch_size)
    # A step's cost grows with the pixels; a batch takes one step at each scale, or one at any.
    areas = [(scaled_size(s, recipe.image_size) / recipe.image_size) ** 2 for s in recipe.scales]
    steps = batches * (1 if recipe.random_scale else len(areas))
    training = steps * step * sum(areas) / len(areas)
    # A forward pass is a third of a supervised step; each test image is drawn and scored for the
    # best epoch and for the last.
    forward = (epochs * validation + 2 * test) * plain / recipe.batch_size / 3
    return steps, training + forward + 2 * test * _SCORING


def _seconds_a_step(cell: Cell, recipe: Recipe, count: int) -> float:
    """Seconds of a step at the recipe's size, of networks that were never trained; UserError where
    so many images cannot be divided into steps.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = build(cell.role, backbone=getattr(recipe, cell.role), width=recipe.decoder_width)
    fewest_images(net, recipe, count)
    net = net.to(device).train()
    distils, features = recipe.objective != "supervised", recipe.objective in ON_FEATURES
    teacher = freeze(build("teacher", backbone=recipe.teacher)).to(device) if distils else None
    loss_fn = objective(recipe.objective, **objective_kwargs(recipe))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-6)
    side, largest = recipe.image_size, recipe.teacher_image_size or recipe.image_size
    images, seen = (torch.randn(recipe.batch_size, 3, s, s, device=device) for s in (side, largest))
    mask = (torch.rand(recipe.batch_size, 1, side, side, device=device) > 0.5).float()

    def step() -> None:
        said = None
        if teacher is not None:
            said = reduced(
                output_of(partial(teacher_logits, teacher), seen, features), side / largest
            )
        optimiser.zero_grad()
        loss_fn(output_of(net, images, features), said, mask)["total"].backward()
        optimiser.step()

    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return timer.timeit(1).mean  # after two steps to warm up


def _images(study: Study) -> tuple[tuple[int, int, int], bool]:
    """Counts of training, validation and test images; are they the full public sets'?"""
    recipe = study.recipe(study.cells()[0])
    root = find_root()
    if study.data_root or (root / "data" / "TrainDataset").is_dir():
        data = open_data(recipe, study.data_root, root / "data", root / "runs")
        test = sum(map(len, data.tests.values()))
        return (len(data.train), len(data.validation), test), False
    synthetic = recipe.synthetic_images, 5 * recipe.synthetic_test_images
    count, test = (
        synthetic if recipe.synthetic_images else (_FULL_TRAINING, sum(FULL_COUNTS.values()))
    )
    held_out = round(count * recipe.validation_fraction)
    return (count - held_out, held_out, test), not recipe.synthetic_images
