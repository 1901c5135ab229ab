"""What distillation costs per step, as ratios measured in one run.

    python benchmarks/train_step.py [--size 96] [--batch 8] [--rounds 15]

Four kinds of step take turns, so that a machine that slows down slows all of them; medians are compared:

    A  supervised student step
    B  teacher forward without gradients
    C  KDAS step as the training loop does it: frozen teacher under inference mode
    D  KDAS step whose teacher keeps its graph and gets gradients, as in the released program

Printed: C / (A + B), which is 1 plus what the losses cost, and D / C, which is what freezing saves. The networks are the paper's
pair, untrained; time does not depend on the weights.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch

from kdas_core.losses import objective
from kdas_core.models import build, freeze, teacher_logits


def steps(size: int, batch: int) -> dict[str, Callable[[], None]]:
    """The four kinds of step, on the same images."""
    images, mask = torch.randn(batch, 3, size, size), (torch.rand(batch, 1, size, size) > 0.8).float()
    student, frozen, unfrozen = build("student").train(), freeze(build("teacher")), build("teacher").eval()
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4)
    supervised, kdas = objective("supervised"), objective("kdas")

    def update(total: torch.Tensor) -> None:
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_value_(student.parameters(), 0.5)
        optimiser.step()

    def with_graph() -> None:
        # The released loss gives the teacher a gradient that nobody uses; our losses detach it, so the same is asked for here.
        maps = unfrozen(images)
        terms = kdas(student(images), maps, mask)
        update(terms["total"] + 0.0 * sum(m.square().mean() for m in maps))
        unfrozen.zero_grad()

    return {
        "A": lambda: update(supervised(student(images), None, mask)["total"]),
        "B": lambda: teacher_logits(frozen, images) and None,
        "C": lambda: update(kdas(student(images), teacher_logits(frozen, images), mask)["total"]),
        "D": with_graph,
    }


def measure(size: int, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of each kind; the first two rounds are not counted."""
    kinds, seconds = steps(size, batch), {}
    for i in range(rounds + 2):
        for name, step in kinds.items():
            started = time.perf_counter()
            step()
            if i >= 2:
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96, help="side of the images, a multiple of 32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    t = measure(options.size, options.batch, options.rounds)
    print(f"{options.size} px, batch {options.batch}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for name, what in zip(
        "ABCD", ("supervised student", "teacher forward", "KDAS, frozen teacher", "KDAS, teacher's graph")
    ):
        print(f"  {name}  {what:24s} {1000 * t[name]:8.1f} ms")
    print(f"  C / (A + B) = {t['C'] / (t['A'] + t['B']):.3f}")
    print(f"  D / C       = {t['D'] / t['C']:.2f}")


if __name__ == "__main__":
    main()
