"""How fast pictures reach the model, as ratios measured in one run.

    python benchmarks/data.py --data-root DIR [--pairs 400] [--rounds 3]
    python benchmarks/data.py --index 50000

Images a second at 352 px, from the files of the training set to normalised batches of 16, by three ways that take turns:

    A  Pillow and torchvision (decode, resize, to tensor, normalise), a DataLoader with 2 workers
    B  ours, first epoch: nothing is decoded yet
    C  ours, second epoch

and the share of a training on this CPU (paper's pair, batch of 8, augmented) that is spent waiting for data.
``--index N``: N tiny pairs (2·N files) are written to a temporary folder, then indexed, several rounds; seconds.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdas_core.data.dataset import IMAGENET_MEAN, IMAGENET_STD, PolypDataset
from kdas_core.data.layout import PairIndex, index_pairs
from kdas_core.losses import objective
from kdas_core.models import build, freeze, teacher_logits
from kdas_core.training.batching import prefetch

SIZE, BATCH = 352, 16


class Pillow(Dataset):
    """What the released programs do with a pair."""

    def __init__(self, index: PairIndex):
        square, tensor = transforms.Resize((SIZE, SIZE)), transforms.ToTensor()
        self.index, self.mask = index, transforms.Compose([square, tensor])
        self.image = transforms.Compose(
            [square, tensor, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        )

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        pair = self.index[i]
        return self.image(Image.open(pair.image).convert("RGB")), self.mask(
            Image.open(pair.mask).convert("L")
        )


def seconds_of(batches: Iterable) -> float:
    started = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - started


def throughput(index: PairIndex, rounds: int) -> dict[str, float]:
    """Images a second of each way, medians."""
    positions = [range(i, min(i + BATCH, len(index))) for i in range(0, len(index), BATCH)]
    found: dict[str, list[float]] = {"A": [], "B": [], "C": []}
    for _ in range(rounds):
        found["A"].append(len(index) / seconds_of(DataLoader(Pillow(index), BATCH, num_workers=2)))
        data = PolypDataset(index, SIZE, soft_masks=True, cached=True)
        for epoch in "BC":
            found[epoch].append(len(index) / seconds_of(prefetch(data, positions)))
    return {way: statistics.median(rates) for way, rates in found.items()}


def waiting(index: PairIndex, steps: int = 8) -> float:
    """Share of a training run's time that passes between asking for a batch and having it, from the second epoch on."""
    student, teacher, kdas = build("student").train(), freeze(build("teacher")), objective("kdas")
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4)
    data = PolypDataset(
        index.take(range(8 * steps)), SIZE, augment=True, soft_masks=True, cached=True
    )
    data.batch(range(len(data)))
    stream = prefetch(data, [range(8 * i, 8 * i + 8) for i in range(steps)])
    started, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(stream)
        waited += time.perf_counter() - asked
        optimiser.zero_grad()
        maps = teacher_logits(teacher, batch["image"])
        kdas(student(batch["image"]), maps, batch["mask"])["total"].backward()
        optimiser.step()
    return waited / (time.perf_counter() - started)


def indexing(count: int, rounds: int) -> None:
    """Seconds to index ``count`` pairs of 16×16 pixels, JPEG images and PNG masks, with every check that indexing makes."""
    with tempfile.TemporaryDirectory() as folder:
        for part, form, mode in (("images", "JPEG", "RGB"), ("masks", "PNG", "L")):
            code = io.BytesIO()
            Image.new(mode, (16, 16)).save(code, form)
            (Path(folder) / part).mkdir()
            for i in range(count):
                (Path(folder) / part / f"{i}.{form.lower()}").write_bytes(code.getvalue())
        for _ in range(rounds):
            start = time.perf_counter()
            files = 2 * len(index_pairs(folder))
            took = time.perf_counter() - start
            print(f"{files:,} files indexed in {took:.1f} s, {1e6 * took / files:.0f} µs a file")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="a folder in PraNet's layout")
    parser.add_argument(
        "--index", type=int, default=0, metavar="PAIRS", help="index so many tiny pairs"
    )
    parser.add_argument(
        "--pairs", type=int, default=400, help="training pairs to read, evenly spread"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.index:
        indexing(options.index, options.rounds)
    if not options.data_root:
        return
    index = index_pairs(options.data_root / "TrainDataset")
    index = index.take(range(0, len(index), max(1, len(index) // options.pairs)))
    rate = throughput(index, options.rounds)
    print(f"{len(index)} pairs at {SIZE} px, {os.cpu_count()} cores")
    for way, what in zip(
        "ABC", ("Pillow + torchvision", "ours, first epoch", "ours, second epoch")
    ):
        print(f"  {way}  {what:24s} {rate[way]:8.0f} images/s   {rate[way] / rate['A']:6.1f} × A")
    print(f"  waiting for data in training: {waiting(index):.2%}")


if __name__ == "__main__":
    main()
