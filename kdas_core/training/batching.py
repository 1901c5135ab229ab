"""How the images of an epoch are divided: into batches, among processes, into passes, and at which
scales they are seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from kdas_core.data.dataset import PolypDataset
from kdas_core.recipe import Recipe


def batches(
    dataset: PolypDataset,
    recipe: Recipe,
    epoch: int,
    first: int = 0,
    accelerator: Accelerator | None = None,
) -> Iterator[dict]:
    """The batches of an epoch from step ``first`` on, in an order that depends on the seed and the
    epoch alone.

    With several processes each gets its part of every batch. ``weight`` is the part's share times
    the number of processes, so that the average of the processes' gradients is the gradient of the
    whole batch, also where it does not divide evenly.
    """
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    # A generator of its own: what others draw from the global stream does not change the order.
    order_of = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = torch.randperm(len(dataset), generator=order_of).tolist()
    whole = [order[i : i + recipe.batch_size] for i in range(0, len(order), recipe.batch_size)][
        first:
    ]
    # A process that a small last batch leaves without an image does one of them with weight 0: all
    # must take part.
    mine = [batch[rank::world] or batch[:1] for batch in whole]
    bar = tqdm(
        total=len(dataset),
        initial=recipe.batch_size * first,
        desc=f"{recipe.objective}, epoch {epoch}/{recipe.epochs}",
        unit="image",
        leave=False,
        disable="TQDM_DISABLE" in os.environ
        or rank > 0,  # a bar in a notebook does not read this itself
    )
    with bar:
        for everyone, indices, batch in zip(whole, mine, prefetch(dataset, mine)):
            weight = world * len(everyone[rank::world]) / len(everyone)
            yield {**batch, "index": indices, "weight": weight, "bar": bar}
            bar.update(len(everyone))


def prefetch(dataset: PolypDataset, batches: Sequence[Sequence[int]]) -> Iterator[dict]:
    """The batches of these positions, the next one being made while the one before is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as worker:
        upcoming = [worker.submit(dataset.batch, positions) for positions in batches[:1]]
        for following in range(1, len(batches) + 1):
            batch = upcoming.pop().result()
            upcoming += [
                worker.submit(dataset.batch, positions)
                for positions in batches[following : following + 1]
            ]
            yield batch


def micro_batches(batch: dict, accumulation_steps: int) -> Iterator[dict]:
    """A batch in so many nearly equal pieces (one image at least), each with its share of the
    batch's weight.
    """
    count = len(batch["name"])
    for part in np.array_split(np.arange(count), min(accumulation_steps, count)):
        start, stop = int(part[0]), int(part[-1]) + 1
        piece = {key: batch[key][start:stop] for key in ("image", "mask", "name", "index")}
        yield piece | {"weight": batch["weight"] * len(part) / count}


def scales_of(recipe: Recipe, epoch: int, step: int) -> tuple[float, ...]:
    """The scales of one batch: all of them, or one that depends on seed, epoch and step alone."""
    if not recipe.random_scale:
        return recipe.scales
    return (
        recipe.scales[
            int(np.random.default_rng([recipe.seed, epoch, step]).integers(len(recipe.scales)))
        ],
    )


def resized(batch: dict, scale: float, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images and masks at ``round(size·scale/32)·32`` pixels, bilinear with coinciding corners, as
    released.
    """
    images, mask = batch["image"].to(device), batch["mask"].to(device)
    side = scaled_size(scale, size)
    if side == size:
        return images, mask
    images, mask = (
        F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True)
        for x in (images, mask)
    )
    return images, mask


def scaled_size(scale: float, size: int) -> int:
    """Side of the square at a scale, a multiple of 32."""
    return round(size * scale / 32) * 32
