"""How an epoch's images are divided: into batches, processes, micro-batches; and their scales."""

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.data.dataset import PolypDataset
from kdas_core.recipe import Recipe


def batches(
    dataset: PolypDataset,
    recipe: Recipe,
    epoch: int,
    first: int = 0,
    rank: int = 0,
    world: int = 1,
    device: str | torch.device = "cpu",
) -> Iterator[dict]:
    """An epoch's batches from number ``first`` on; seed and epoch alone decide their order.

    Process ``rank`` of ``world`` gets its part of each, the ``weight`` by which the mean of all
    processes' gradients is that of the whole batch, and the images of the smallest part, ``least``.
    """
    # A generator of its own: what others draw from the global stream does not change the order.
    own = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = torch.randperm(len(dataset), generator=own).tolist()
    starts = range(first * recipe.batch_size, len(order), recipe.batch_size)
    whole = [order[i : i + recipe.batch_size] for i in starts]
    # A process that a small last batch leaves without an image does one with weight 0.
    mine = [batch[rank::world] or batch[:1] for batch in whole]
    for everyone, batch in zip(whole, prefetch(dataset, mine, device)):
        weight = world * len(everyone[rank::world]) / len(everyone)
        yield {**batch, "weight": weight, "least": len(everyone) // world}


def prefetch(
    dataset: PolypDataset, batches: Sequence[Sequence[int]], device: str | torch.device = "cpu"
) -> Iterator[dict]:
    """The batches of these positions, each being made while the one before it is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as worker:
        coming = (worker.submit(dataset.batch, positions, device) for positions in batches)
        following = next(coming, None)
        while current := following:
            following = next(coming, None)
            yield current.result()


@torch.no_grad()
def fewest_images(net: nn.Module, recipe: Recipe, images: int, processes: int = 1) -> int:
    """How many images a pass needs at least, 1 or 2: batch norm cannot be trained on one value per
    channel, all that the deepest maps of 32 × 32 pixels have. UserError: an epoch leaves one alone.
    """
    side = scaled_size(min(recipe.scales), recipe.image_size)
    trial = copy.deepcopy(net).train(not recipe.freeze_statistics)
    try:
        with torch.random.fork_rng([]):
            trial(torch.zeros(1, 3, side, side))
        return 1
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            return 1  # such as the batch norm of several GPUs, which counts the images of all
    last = images % recipe.batch_size or recipe.batch_size
    if last // processes < 2:
        among = f" among {processes} processes" if processes > 1 else ""
        fact = f"{images} training images in batches of {recipe.batch_size}{among} leave one alone"
        why = f"batch norm cannot be trained on one of {side} × {side} pixels"
        way_out = "choose another batch_size or image_size, or freeze_statistics=true"
        raise UserError(f"{fact}, and {why}; {way_out}.")
    return 2


def micro_batches(batch: dict, count: int, fewest: int = 1) -> Iterator[dict]:
    """A batch in at most so many nearly equal parts of ``fewest`` images or more, one ``last``."""
    images = len(batch["name"])
    parts = np.array_split(np.arange(images), max(1, min(count, batch["least"] // fewest)))
    for part in parts:
        of_part = slice(part[0], part[-1] + 1)
        micro = {key: batch[key][of_part] for key in ("image", "mask", "name")}
        yield micro | {"weight": batch["weight"] * len(part) / images, "last": part is parts[-1]}


def scales_of(recipe: Recipe, epoch: int, step: int) -> tuple[float, ...]:
    """The scales of one batch: all, or one that depends on seed, epoch and step alone."""
    if not recipe.random_scale:
        return recipe.scales
    return (float(np.random.default_rng([recipe.seed, epoch, step]).choice(recipe.scales)),)


def resized(batch: dict, scale: float, size: int) -> tuple[Tensor, Tensor]:
    """Images and masks at :func:`scaled_size` pixels, bilinear, corners aligned, as released; those
    read at the teacher's larger size without aliasing, as if they had been read at ``size``.
    """
    images, mask = batch["image"], batch["mask"]
    side = scaled_size(scale, size)
    if side != images.shape[-1]:
        reads_larger = images.shape[-1] > size
        how = {"align_corners": not reads_larger, "antialias": reads_larger}
        images, mask = (
            F.interpolate(x, (side, side), mode="bilinear", **how) for x in (images, mask)
        )
    return images, mask


def scaled_size(scale: float, size: int) -> int:
    """Side of the square at a scale, a multiple of 32."""
    return round(size * scale / 32) * 32
