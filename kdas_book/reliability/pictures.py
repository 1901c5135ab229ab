"""Pictures in numbers that a test set does not have, and what a network answers to them."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from kdas_book.data.synthetic import STYLES, draw_pair
from kdas_core import UserError
from kdas_core.data import PolypData
from kdas_core.data.augmentation import rng_for
from kdas_core.data.dataset import normalise, resize_pair
from kdas_core.data.images import read_image
from kdas_core.data.layout import Pair
from kdas_core.data.masks import read_mask
from kdas_core.training import dice_at_half

_DRAWN_AT = 288  # pixels, the height at which the book's synthetic data sets are drawn
_STREAM = 100  # apart from the scenes of every such set, whose parts are 0 to 5


@dataclass(frozen=True, eq=False)
class Pictures:
    """``images`` uint8 RGB (N, S, S, 3) as a network sees them, ``masks`` bool (N, S, S)."""

    images: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class Answers(NamedTuple):
    """``logits``: P1 + P2, float32 (N, S, S), whose sigmoid is the prediction. ``features``: the
    backbone's last stage, averaged over positions, float32 (N, C).
    """

    logits: np.ndarray
    features: np.ndarray

    def dice(self, masks: np.ndarray) -> np.ndarray:
        """Dice of each picture, cut at 0.5, (N,)."""
        return dice_at_half(torch.from_numpy(self.logits), torch.from_numpy(masks)).numpy()


def drawn(style: str, count: int, size: int, seed: int = 0, polyps: int | None = None) -> Pictures:
    """Synthetic pictures that are in no data set, in a style of `STYLES`, at size × size pixels.

    ``polyps``: how many in each, 0 to 3; None draws one to three as in the data sets. With 0 the
    scenes are those that the same seed shows with polyps, less the polyps.
    """
    number = list(STYLES).index(style) if style in STYLES else -1
    if number < 0 or count < 1:
        raise UserError(f"{count} pictures of {style!r} cannot be drawn; there is {list(STYLES)}.")
    words = [rng_for(seed, _STREAM + number, i).integers(2**32) for i in range(count)]
    draw = partial(draw_pair, style=style, size=_DRAWN_AT, polyps=polyps)
    with ThreadPoolExecutor(2) as pool:
        return _stacked(pool.map(draw, map(int, words)), size)


def loaded(pairs: Iterable[Pair], size: int) -> Pictures:
    """The pictures and masks of files at size × size; UserError: there are none."""
    return _stacked(((read_image(pair.image), read_mask(pair.mask)) for pair in pairs), size)


def of_kind(data: PolypData, name: str, count: int, size: int, seed: int = 0) -> Pictures:
    """Pictures of the kind of a test set: fresh ones where the data are synthetic, else those of
    the set itself, ``count`` at most; UserError where there is no such set.
    """
    if data.synthetic:
        return drawn(name, count, size, seed)
    if name not in data.tests:
        raise UserError(f"There is no test set {name}; there is {', '.join(data.tests)}.")
    return loaded(data.tests[name][:count], size)


def _stacked(pairs: Iterable[tuple[np.ndarray, np.ndarray]], size: int) -> Pictures:
    resized = [resize_pair(image, mask, size) for image, mask in pairs]
    if not resized:
        raise UserError("There are no pictures; at least one is needed.")
    images, masks = zip(*resized)
    return Pictures(np.stack(images), np.stack(masks) > 0)


@torch.inference_mode()
def ask(net: nn.Module, images: np.ndarray, batch_size: int = 16) -> Answers:
    """What a network in evaluation mode says of images, uint8 (N, S, S, 3)."""
    device = next(net.parameters()).device
    logits, features = [], []
    for start in range(0, len(images), batch_size):
        batch = normalise(images[start : start + batch_size]).to(device)
        (p1, p2), inside = net(batch, features=True)
        logits.append((p1 + p2)[:, 0].float().cpu().numpy())
        features.append(inside["stage4"].mean(dim=(2, 3)).float().cpu().numpy())
    return Answers(np.concatenate(logits), np.concatenate(features))
