"""What a training costs: distillation per step, the loop around the steps, and checkpoints, as ratios measured in one run.

    python benchmarks/train_step.py [--sizes 96 352] [--batch 8] [--rounds 9] [--layouts] [--epoch laptop]
    python benchmarks/train_step.py --busy [--sizes 96] [--batch 8] [--rounds 9]

Four kinds of step take turns, so that a machine that slows down slows all of them; medians are compared:

    A  supervised student step
    B  teacher forward without gradients
    C  KDAS step as the training loop does it: frozen teacher under inference mode
    D  KDAS step whose teacher keeps its graph and gets gradients, as in the released program

C / (A + B) is 1 plus what the losses cost, D / C is what freezing saves. Peak memory is that of a fresh process that takes two
such steps, above what the process held before the first one. The networks are the paper's pair, untrained; time does not
depend on the weights. ``--layouts`` adds the student's step in channels-last layout and compiled, ``--epoch`` a real epoch of a
preset on drawn polyps: what the loop adds to its steps, and what a checkpoint costs.

``--busy`` measures step A alone, beside a busy process and beside another training run, with OpenMP's usual spin-waiting and with
the short one that ``kdas_core`` chooses; each situation several times in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from kdas_core.losses import objective
from kdas_core.models import build, freeze, teacher_logits

NAMES = {
    "A": "supervised student",
    "B": "teacher forward",
    "C": "KDAS, frozen teacher",
    "D": "KDAS, teacher's graph",
    "E": "A, channels last",
    "F": "A, compiled",
}


def steps(size: int, batch: int, kinds: str) -> dict[str, Callable[[], None]]:
    """These kinds of step, on the same images."""
    images, mask = (
        torch.randn(batch, 3, size, size),
        (torch.rand(batch, 1, size, size) > 0.8).float(),
    )
    student = build("student").train()
    teacher = build("teacher") if set(kinds) & set("BCD") else torch.nn.Identity()
    frozen = freeze(teacher)
    if "D" in kinds:
        unfrozen = (
            build("teacher").eval() if set(kinds) & set("BC") else teacher.requires_grad_(True)
        )
    supervised, kdas = objective("supervised"), objective("kdas")

    def update(net: torch.nn.Module, total: torch.Tensor) -> None:
        net.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_value_(net.parameters(), 0.5)
        optimisers[net].step()

    def with_graph() -> None:
        # The released loss gives the teacher a gradient that nobody uses; our losses detach it, so the same is asked for here.
        maps = unfrozen(images)
        terms = kdas(student(images), maps, mask)
        update(student, terms["total"] + 0.0 * sum(m.square().mean() for m in maps))
        unfrozen.zero_grad()

    made: dict[str, Callable[[], None]] = {
        "A": lambda: update(student, supervised(student(images), None, mask)["total"]),
        "B": lambda: teacher_logits(frozen, images) and None,
        "C": lambda: update(
            student, kdas(student(images), teacher_logits(frozen, images), mask)["total"]
        ),
        "D": with_graph,
    }
    nets = [student]
    if "E" in kinds:
        last = build("student").train().to(memory_format=torch.channels_last)
        pictures = images.contiguous(memory_format=torch.channels_last)
        made["E"] = lambda: update(last, supervised(last(pictures), None, mask)["total"])
        nets.append(last)
    if "F" in kinds:
        inner = build("student").train()
        compiled = torch.compile(inner, dynamic=False)
        made["F"] = lambda: update(inner, supervised(compiled(images), None, mask)["total"])
        nets.append(inner)
    optimisers = {net: torch.optim.AdamW(net.parameters(), lr=1e-4) for net in nets}
    return {kind: made[kind] for kind in kinds}


def measure(size: int, batch: int, rounds: int, kinds: str) -> dict[str, float]:
    """Median seconds of each kind; the first two rounds are not counted."""
    taken, seconds = steps(size, batch, kinds), {kind: [] for kind in kinds}
    for i in range(rounds + 2):
        for kind, step in taken.items():
            started = time.perf_counter()
            step()
            if i >= 2:
                seconds[kind].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_of(kind: str, size: int, batch: int) -> float:
    """Peak megabytes of two steps above the process before them; called in a process of its own. Linux."""
    (step,) = steps(size, batch, kind).values()
    idle = resident("VmRSS")
    step(), step()
    return resident("VmHWM") - idle


def resident(field: str) -> float:
    """Megabytes of this process, ``VmRSS`` now or ``VmHWM`` at its peak. (``getrusage`` would report our parent's peak.)"""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def peak_elsewhere(kind: str, size: int, batch: int) -> float:
    command = [
        sys.executable,
        __file__,
        "--peak",
        kind,
        "--sizes",
        str(size),
        "--batch",
        str(batch),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def epoch_of(preset: str) -> dict[str, float]:
    """Seconds of the second epoch of a preset's KDAS training: ``loop`` from its first step to its last, of which ``steps``."""
    from kdas_book.data.synthetic import make_dataset
    from kdas_core.data import load_data
    from kdas_core.recipe import preset as recipe_of
    from kdas_core.training import TrainingState, fit, loop

    recipe = replace(recipe_of(preset, pretrained_student=False), objective="kdas", epochs=2)
    seconds: dict[str, list[float]] = {"loop": [0.0, 0.0], "steps": [0.0, 0.0], "checkpoint": []}
    train_step, validate = loop.train_step, loop.validate
    checkpoint, train_mode = TrainingState.checkpoint, TrainingState.train_mode

    def begun(state):
        seconds["loop"][state.epoch] -= time.perf_counter()
        train_mode(state)

    def stepped(state, *batch):
        started = time.perf_counter()
        terms = train_step(state, *batch)
        seconds["steps"][state.epoch] += time.perf_counter() - started
        return terms

    def validated(*a):
        epoch = next(i for i, passed in enumerate(seconds["loop"]) if passed < 0)
        seconds["loop"][epoch] += time.perf_counter()
        return validate(*a)

    def saved(state):
        started = time.perf_counter()
        checkpoint(state)
        seconds["checkpoint"].append(time.perf_counter() - started)

    loop.train_step, loop.validate = stepped, validated
    TrainingState.checkpoint, TrainingState.train_mode = saved, begun
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(
            make_dataset(Path(folder) / "data", train=1450, test=1), recipe.validation_fraction
        )
        fit(recipe, data, folder, teacher=build("teacher", backbone=recipe.teacher))
    return {
        "loop": seconds["loop"][1],
        "steps": seconds["steps"][1],
        "checkpoint": statistics.median(seconds["checkpoint"]),
    }


def report(size: int, options: argparse.Namespace) -> None:
    kinds = "ABCDEF" if options.layouts else "ABCD"
    t = measure(size, options.batch, options.rounds, kinds)
    peak = {kind: peak_elsewhere(kind, size, options.batch) for kind in "ACD"}
    print(
        f"{size} px, batch {options.batch}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    )
    for kind in kinds:
        memory = f"{peak[kind]:8.0f} MB" if kind in peak else ""
        print(f"  {kind}  {NAMES[kind]:24s} {1000 * t[kind]:8.1f} ms {memory}")
    print(f"  C / (A + B)        {t['C'] / (t['A'] + t['B']):.3f}")
    print(f"  D / C              {t['D'] / t['C']:.2f}")
    print(f"  peak memory, C / D {peak['C'] / peak['D']:.2f}")
    if options.layouts:
        print(f"  E / A              {t['E'] / t['A']:.2f}")
        print(f"  F / A              {t['F'] / t['A']:.2f}")


SPINS = {"usual spin": "300000", "short spin": "2500"}  # GOMP_SPINCOUNT: libgomp's own, ours


def busy(size: int, batch: int, rounds: int) -> None:
    """Milliseconds of step A in three situations, with and without long spin-waiting."""
    command = [sys.executable, __file__, "--sizes", str(size), "--batch", str(batch)]
    others = {
        "alone": None,
        "beside a busy process": [sys.executable, "-c", "while True: pass"],
        "beside another training run": [*command, "--alone", "1000000"],
    }
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(3):
        for situation, other in others.items():
            for spin, count in SPINS.items():
                environment = {**os.environ, "GOMP_SPINCOUNT": count}
                neighbour = other and subprocess.Popen(
                    other, env=environment, stdout=subprocess.DEVNULL
                )
                time.sleep(15 if neighbour else 0)  # it has imported PyTorch and trains
                words = [*command, "--alone", str(rounds)]
                out = subprocess.run(
                    words, env=environment, check=True, capture_output=True, text=True
                ).stdout
                found.setdefault((situation, spin), []).append(1000 * float(out))
                if neighbour:
                    neighbour.kill()
                    neighbour.wait()
    print(f"{size} px, batch {batch}, student step, {os.cpu_count()} cores; medians of three, ms")
    idle = statistics.median(found["alone", "usual spin"])
    for situation in others:
        ms = {spin: statistics.median(found[situation, spin]) for spin in SPINS}
        shown = ", ".join(f"{spin} {ms[spin]:7.0f} = {ms[spin] / idle:5.2f} x" for spin in SPINS)
        print(f"  {situation:28s} {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        default=[96, 352],
        help="sides of the images, multiples of 32",
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--layouts", action="store_true", help="channels last and torch.compile as well"
    )
    parser.add_argument(
        "--epoch",
        default="",
        metavar="PRESET",
        help="an epoch of this preset, with 1450 drawn polyps",
    )
    parser.add_argument("--busy", action="store_true", help="step A beside other programs")
    parser.add_argument("--peak", choices=list("ABCD"), help=argparse.SUPPRESS)
    parser.add_argument("--alone", type=int, metavar="ROUNDS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.busy:
        return busy(options.sizes[0], options.batch, options.rounds)
    if options.alone:
        print(measure(options.sizes[0], options.batch, options.alone, "A")["A"])
        return
    if options.peak:
        print(peak_of(options.peak, options.sizes[0], options.batch))
        return
    for size in options.sizes:
        report(size, options)
    if options.epoch:
        t = epoch_of(options.epoch)
        print(
            f"second epoch of {options.epoch}, kdas: {t['loop']:.1f} s, of which steps {t['steps']:.1f} s"
        )
        print(f"  loop / steps       {t['loop'] / t['steps']:.3f}")
        print(f"  checkpoint / epoch {t['checkpoint'] / t['loop']:.2%} ({t['checkpoint']:.2f} s)")


if __name__ == "__main__":
    main()
