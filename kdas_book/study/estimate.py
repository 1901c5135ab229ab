"""What a study would cost, before anything runs: cells, hours, disk. A few steps are timed here;
GPUs are reckoned from them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
USED = 0.3  # the share of the peak that such small networks reach, we believe; it decides the estimate and is not measured
_SCORING = 0.03  # seconds to score one test image (benchmarks/evaluate.py)
_FULL_TRAINING = 1450  # pairs of PraNet's training set


@dataclass(frozen=True)
class Plan:
    """What ``kdas study plan`` shows.

    Attributes:
        cells: one row a cell: ``state``, ``steps``, ``hours here``, and an estimate ``hours <GPU>``
            each.
        disk_gb: networks, decoded images and masks of the whole study.
        images: (training, validation, test) counts that the plan reckons with.
        full_counts: are these the full public sets, since no data is there?
    """

    cells: pd.DataFrame
    disk_gb: float
    images: tuple[int, int, int]
    full_counts: bool

    def __str__(self) -> str:
        todo = self.cells[self.cells["state"] == "to do"]
        hours = [column for column in self.cells if column.startswith("hours")]
        train, validation, test = self.images
        source = (
            "the full public sets, since no data is here"
            if self.full_counts
            else "the data that is here"
        )
        total = ", ".join(
            f"{todo[column].sum():.1f} {column.removeprefix('hours ')}" for column in hours
        )
        return "\n".join(
            [
                self.cells.round(2).to_string(),
                f"{len(todo)} of {len(self.cells)} cells to do; {self.disk_gb:.1f} GB of disk; {train} training, {validation} validation and "
                f"{test} test images ({source}).",
                f"Hours, one cell after another: {total}.",
                f"The hours of GPUs are an estimate: float32 at {100 * USED:.0f} % of the maker's peak, times the ratios of the steps that "
                "were timed here.",
            ]
        )


def plan(study: Study, runs_dir: str | Path) -> Plan:
    """Time a few steps of each objective here, and reckon.

    Raises:
        UserError: the data folder that the study names is not one.
    """
    train, validation, test, full = _images(study)
    timed: dict[str, float] = {}
    rows = {}
    for cell in study.cells():
        recipe = study.recipe(cell)
        if cell.objective == "teacher":
            recipe = recipe.for_teacher()
        key = "teacher" if cell.objective == "teacher" else cell.objective
        if key not in timed:
            timed[key] = _seconds_a_step(cell, recipe)
        rows[cell.name] = _row(study, cell, recipe, timed, (train, validation, test), runs_dir)
    cells = pd.DataFrame.from_dict(rows, orient="index")
    return Plan(cells, _disk(study, train + validation, test), (train, validation, test), full)


def _row(
    study: Study,
    cell: Cell,
    recipe: Recipe,
    timed: dict,
    images: tuple[int, int, int],
    runs_dir: str | Path,
) -> dict:
    train, validation, test = images
    released = cell.objective == "teacher" and _released(recipe)
    batches = 0 if released else recipe.epochs * -(-train // recipe.batch_size)
    # A step's cost grows with the pixels; a batch takes one step at each scale.
    sides = [scaled_size(scale, recipe.image_size) for scale in recipe.scales]
    scales = (
        sum(side**2 for side in sides)
        / recipe.image_size**2
        / (len(sides) if recipe.random_scale else 1)
    )
    key = "teacher" if cell.objective == "teacher" else cell.objective
    macs, _ = _facts(*_network_of(cell, recipe), recipe.image_size)
    # A forward pass is a third of a supervised step; each test image is drawn and scored for the
    # best epoch and for the last.
    looked_at = (0 if released else recipe.epochs * validation) + 2 * test
    plain = timed.get("teacher" if cell.objective == "teacher" else "supervised", timed[key])
    here = (
        batches * scales * timed[key]
        + looked_at * plain / recipe.batch_size / 3
        + 2 * test * _SCORING
    )
    row = {
        "state": "finished" if is_finished(Path(runs_dir) / study.name / cell.name) else "to do",
        "steps": batches * (1 if recipe.random_scale else len(sides)),
        "hours here": here / 3600,
    }
    for gpu, peak in GPUS.items():
        operations = (
            2 * macs * (3 * recipe.batch_size * batches * scales * timed[key] / plain + looked_at)
        )
        row[f"hours {gpu}"] = (operations / (peak * 1e12 * USED) + 2 * test * _SCORING) / 3600
    return row


def _seconds_a_step(cell: Cell, recipe: Recipe, repeats: int = 2) -> float:
    """Median seconds of a step at the recipe's size, of networks that were never trained."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    role, backbone = _network_of(cell, recipe)
    net = build(role, backbone=backbone).to(device).train()
    teacher = (
        None
        if recipe.objective == "supervised"
        else freeze(build("teacher", backbone=recipe.teacher)).to(device)
    )
    loss_fn = objective(recipe.objective, **objective_kwargs(recipe))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-6)
    images = torch.randn(recipe.batch_size, 3, recipe.image_size, recipe.image_size, device=device)
    mask = (images[:, :1] > 0).float()

    def step() -> None:
        optimiser.zero_grad()
        maps = None if teacher is None else teacher_logits(teacher, images)
        loss_fn(net(images), maps, mask)["total"].backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _timed(step, repeats)


def _timed(step: Callable[[], None], repeats: int) -> float:
    step()  # the first one warms up
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def _network_of(cell: Cell, recipe: Recipe) -> tuple[str, str]:
    """Role and backbone."""
    return (
        ("teacher", recipe.teacher) if cell.objective == "teacher" else ("student", recipe.student)
    )


@cache
def _facts(role: str, backbone: str, size: int) -> tuple[int, int]:
    """Multiply-accumulates of an image, and parameters."""
    net = build(role, backbone=backbone).eval()
    return count_macs(net, size), count_parameters(net)


def _released(recipe: Recipe) -> bool:
    return bool(recipe.teacher_weights) and (find_root() / recipe.teacher_weights).is_file()


def _images(study: Study) -> tuple[int, int, int, bool]:
    """Training, validation and test images; the full public sets where a study of real images finds
    none.
    """
    recipe = study.recipe(study.cells()[0])
    root = find_root()
    if (
        recipe.synthetic_images
        and not study.data_root
        and not (root / "data" / "TrainDataset").is_dir()
    ):
        held_out = round(recipe.synthetic_images * recipe.validation_fraction)
        return recipe.synthetic_images - held_out, held_out, 5 * recipe.synthetic_test_images, False
    try:
        data = open_data(recipe, study.data_root, root / "data", root / "runs")
    except UserError:
        if study.data_root:
            raise
        held_out = round(_FULL_TRAINING * recipe.validation_fraction)
        return _FULL_TRAINING - held_out, held_out, sum(FULL_COUNTS.values()), True
    return (
        len(data.train),
        len(data.validation),
        sum(len(index) for index in data.tests.values()),
        False,
    )


def _disk(study: Study, training: int, test: int) -> float:
    """GB: each network's best weights and two checkpoints (weights and two moments), decoded
    training images, the teacher's masks.
    """
    parameters = 0
    for cell in study.cells():
        recipe = study.recipe(cell)
        if not (cell.objective == "teacher" and _released(recipe)):
            parameters += 4 * 7 * _facts(*_network_of(cell, recipe), recipe.image_size)[1]
    side = study.recipe(study.cells()[0]).image_size
    return (parameters + 4 * side**2 * training + 50_000 * test) / 1e9
