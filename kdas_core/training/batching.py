"""How the images of an epoch are divided: into batches, among processes, into micro-batches; and
the scales at which they are seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from kdas_core.data.dataset import PolypDataset
from kdas_core.recipe import Recipe


def batches(
    dataset: PolypDataset,
    recipe: Recipe,
    epoch: int,
    first: int = 0,
    accelerator: Accelerator | None = None,
) -> Iterator[dict]:
    """The batches of an epoch from number ``first`` on; their order depends on seed and epoch alone.

    With several processes each gets its part of every batch. ``weight`` is the part's share times
    the number of processes, so that the average of the processes' gradients is the gradient of the
    whole batch, also where it does not divide evenly.
    """
    rank, world = 0, 1
    if accelerator:
        rank, world = accelerator.process_index, accelerator.num_processes
    # A generator of its own: what others draw from the global stream does not change the order.
    own = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = torch.randperm(len(dataset), generator=own).tolist()
    starts = range(first * recipe.batch_size, len(order), recipe.batch_size)
    whole = [order[i : i + recipe.batch_size] for i in starts]
    # A process that a small last batch leaves without an image does one with weight 0: all take part.
    mine = [batch[rank::world] or batch[:1] for batch in whole]
    for everyone, batch in zip(whole, prefetch(dataset, mine)):
        yield {**batch, "weight": world * len(everyone[rank::world]) / len(everyone)}


def prefetch(dataset: PolypDataset, batches: Sequence[Sequence[int]]) -> Iterator[dict]:
    """The batches of these positions, each being made while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as worker:
        upcoming = [worker.submit(dataset.batch, positions) for positions in batches[:1]]
        for following in range(1, len(batches) + 1):
            batch = upcoming.pop().result()
            for positions in batches[following : following + 1]:
                upcoming.append(worker.submit(dataset.batch, positions))
            yield batch


def micro_batches(batch: dict, count: int) -> Iterator[dict]:
    """A batch in so many nearly equal parts (one image at least), each with its share of the weight.

    ``last`` is true of the last one.
    """
    images = len(batch["name"])
    parts = np.array_split(np.arange(images), min(count, images))
    for number, part in enumerate(parts, start=1):
        of_part = slice(part[0], part[-1] + 1)
        micro = {key: batch[key][of_part] for key in ("image", "mask", "name")}
        weight = batch["weight"] * len(part) / images
        yield micro | {"weight": weight, "last": number == len(parts)}


def scales_of(recipe: Recipe, epoch: int, step: int) -> tuple[float, ...]:
    """The scales of one batch: all, or one that depends on seed, epoch and step alone."""
    if not recipe.random_scale:
        return recipe.scales
    drawn = np.random.default_rng([recipe.seed, epoch, step]).integers(len(recipe.scales))
    return (recipe.scales[int(drawn)],)


def resized(batch: dict, scale: float, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and masks at ``round(size·scale/32)·32`` pixels, bilinear, corners aligned, as released."""
    images, mask = batch["image"].to(device), batch["mask"].to(device)
    side = scaled_size(scale, size)
    if side == size:
        return images, mask
    images, mask = (
        F.interpolate(x, (side, side), mode="bilinear", align_corners=True) for x in (images, mask)
    )
    return images, mask


def scaled_size(scale: float, size: int) -> int:
    """Side of the square at a scale, a multiple of 32."""
    return round(size * scale / 32) * 32
