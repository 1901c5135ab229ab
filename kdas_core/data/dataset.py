"""Polyp images as a network takes them: sizes, normalisation, the Dataset, and the parts of a
benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD
from torch import Tensor
from torch.utils.data import Dataset

from kdas_core import UserError
from kdas_core.data.augmentation import augment_pair
from kdas_core.data.cache import PairCache
from kdas_core.data.images import THRESHOLD, read_grey, read_image, read_mask
from kdas_core.data.layout import PairIndex

# --- numbers for the network ------------------------------------------------------------------------------------------


def normalise(image: np.ndarray) -> Tensor:
    """uint8 RGB (H, W, 3) → float32 tensor (3, H, W) with ImageNet's mean taken off and its
    deviation divided out.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"normalise wants uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}"
        )
    return normalise_batch(torch.from_numpy(np.ascontiguousarray(image))[None])[0]


def normalise_batch(images: Tensor) -> Tensor:
    """`normalise` for a batch, on whatever device it is: uint8 (B, H, W, 3) → float32 (B, 3, H, W)."""
    mean, std = (statistic.to(images.device) for statistic in _statistics())
    batch, height, width, _ = images.shape
    floats = torch.empty((batch, 3, height, width), device=images.device)
    return floats.copy_(images.permute(0, 3, 1, 2)).div_(255).sub_(mean).div_(std)


def denormalise(image: Tensor) -> np.ndarray:
    """The inverse of `normalise`: float tensor (3, H, W) → uint8 RGB (H, W, 3), exact for what
    `normalise` returned.
    """
    mean, std = _statistics()
    values = image.detach().cpu().float() * std + mean
    return (values * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _statistics() -> tuple[Tensor, Tensor]:
    return torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """An image, uint8 (H, W) or (H, W, C), at size × size; the aspect ratio is not kept, as in
    every paper of the field.

    Bilinear, and with a wider filter when it shrinks, so that nothing is aliased: what Pillow and
    torchvision do with pictures, and so the released programs. Compared with Pillow, one pixel in a
    few hundred differs by one grey level.
    """
    if image.shape[:2] == (size, size):
        return image
    # A batch of one, channels last: the order for which PyTorch has its fast way.
    pixels = torch.from_numpy(np.ascontiguousarray(image)).reshape(1, *image.shape[:2], -1)
    resized = F.interpolate(
        pixels.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True
    )
    return resized[0].permute(1, 2, 0).numpy().reshape(size, size, *image.shape[2:])


def resize_pair(
    image: np.ndarray, mask: np.ndarray, size: int, soft: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Bring an image and its mask to size × size.

    The image goes through `resize_image`. The mask is sampled at the nearest pixel and stays
    binary, or with ``soft`` is resized as the image is, so that an edge pixel says how much of it
    is polyp.

    Args:
        image: uint8 (H, W, 3). mask: bool (H, W), or for soft masks also grey levels, uint8 (H, W),
            taken as they are.

    Returns:
        image uint8 (size, size, 3); mask uint8 (size, size): 0 or 255, with ``soft`` anything
        between.
    """
    *planes, mask = resize_planes(image, mask, size, soft)
    return cv2.merge(planes), mask


def resize_planes(image: np.ndarray, mask: np.ndarray, size: int, soft: bool = False) -> np.ndarray:
    """`resize_pair` as planes, uint8 (4, size, size): red, green, blue and the mask."""
    white = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
    planes = np.empty((4, size, size), np.uint8)
    if soft:  # one pass for all four channels costs hardly more than for three
        both = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(white, both, 3)
        cv2.split(resize_image(both, size), list(planes))
    else:
        cv2.split(resize_image(image, size), list(planes[:3]))
        # The exact variant samples at pixel centres; plain INTER_NEAREST would shift the mask by up
        # to half a pixel.
        cv2.resize(white, (size, size), dst=planes[3], interpolation=cv2.INTER_NEAREST_EXACT)
    return planes


class PolypDataset(Dataset):
    """Pairs as training sees them: resized to a square, augmented or not, normalised.

    Item ``i`` is ``{"image": float32 (3, size, size), "mask": float32 (1, size, size) in [0, 1],
    "name": str}``. `batch` makes batches of them, several threads at once; a DataLoader serves as
    well. Masks are 0 or 1; with ``soft_masks`` they keep the file's grey levels and edge pixels lie
    between, as released.

    Augmentation is a function of (seed, epoch, i) only: not of the order of access, the number of
    workers, or what ran before. Call `set_epoch` before each epoch's loop. (With
    ``persistent_workers=True`` the workers keep the epoch they were started with, so leave that off
    when augmenting.)

    Args:
        index: the pairs.
        size: side of the square, pixels.
        cached: keep what was decoded and resized on disk (`cache.PairCache`), for later epochs and
            runs.

    Raises:
        UserError: on access, for a file that is unreadable or cut off, or a pair whose sizes
            differ.
    """

    def __init__(
        self,
        index: PairIndex,
        size: int,
        augment: bool = False,
        soft_masks: bool = False,
        seed: int = 0,
        cached: bool = False,
    ):
        self.index, self.size, self.augment, self.soft_masks, self.seed = (
            index,
            size,
            augment,
            soft_masks,
            seed,
        )
        self.epoch = 0
        self._planes = (
            PairCache(index, size, soft_masks, self._decode).get if cached else self._decode
        )

    def __len__(self) -> int:
        return len(self.index)

    def set_epoch(self, epoch: int) -> None:
        """From now on items are augmented as epoch ``epoch`` has them."""
        self.epoch = epoch

    def __getitem__(self, i: int) -> dict:
        i = range(len(self))[
            i
        ]  # negative positions as lists have them; IndexError ends a plain for loop
        image, mask = (
            np.empty((3, self.size, self.size), np.float32),
            np.empty((1, self.size, self.size), np.float32),
        )
        self._write(i, image, mask)
        return {
            "image": torch.from_numpy(image),
            "mask": torch.from_numpy(mask),
            "name": self.index[i].name,
        }

    def batch(self, positions: Sequence[int]) -> dict:
        """The items at these positions as one batch: ``image`` (B, 3, S, S), ``mask`` (B, 1, S, S),
        ``name`` (a list).

        Threads share the work, and none of it is PyTorch's, so that it may go on beside a training
        step.

        Raises:
            UserError: as for a single item.
        """
        images = np.empty((len(positions), 3, self.size, self.size), np.float32)
        masks = np.empty((len(positions), 1, self.size, self.size), np.float32)
        list(_threads().map(self._write, positions, images, masks))
        names = [self.index[i].name for i in positions]
        return {"image": torch.from_numpy(images), "mask": torch.from_numpy(masks), "name": names}

    def _write(self, i: int, image_out: np.ndarray, mask_out: np.ndarray) -> None:
        """Item ``i`` into these arrays, (3, S, S) and (1, S, S)."""
        *planes, mask = self._planes(i)
        if self.augment:
            image, mask = augment_pair(cv2.merge(planes), mask, rng_for(self.seed, self.epoch, i))
            planes = list(cv2.split(image))
            if not self.soft_masks:  # moving the mask was bilinear
                mask = (mask >= THRESHOLD).astype(np.uint8) * 255
        for plane, table, out in zip(planes, _tables(), image_out):
            cv2.LUT(plane, table, out)
        np.divide(mask, 255, out=mask_out[0], dtype=np.float32)

    def _decode(
        self, i: int, image_bytes: bytes | None = None, mask_bytes: bytes | None = None
    ) -> np.ndarray:
        """Red, green, blue and mask of position ``i`` as planes, uint8 (4, S, S)."""
        pair, read = self.index[i], read_grey if self.soft_masks else read_mask
        image, mask = read_image(pair.image, image_bytes), read(pair.mask, mask_bytes)
        if image.shape[:2] != mask.shape:
            (mh, mw), (ih, iw) = mask.shape, image.shape[:2]
            raise UserError(
                f"{pair.mask} is {mw}×{mh} but its image is {iw}×{ih}; masks must have their image's size "
                '("kdas data check" lists all such pairs).'
            )
        return resize_planes(image, mask, self.size, self.soft_masks)


@cache
def _tables() -> np.ndarray:
    """`normalise` of each grey level, float32 (3, 256): looking up is faster than computing, and
    gives the same numbers.
    """
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
    return normalise(levels).numpy().reshape(3, 256)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pairs")


def rng_for(*words: int) -> np.random.Generator:
    """A generator that depends on these integers and nothing else."""
    return np.random.default_rng([int(word) % 2**32 for word in words])


# --- a whole benchmark ------------------------------------------------------------------------------------------------
