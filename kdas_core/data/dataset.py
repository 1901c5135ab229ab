"""Polyp images as a network takes them: sizes, normalisation and the Dataset."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD
from torch import Tensor
from torch.utils.data import Dataset

from kdas_core import UserError
from kdas_core.data.augmentation import ImagePair, augment_pair, rng_for
from kdas_core.data.images import read_image
from kdas_core.data.layout import PairIndex
from kdas_core.data.masks import THRESHOLD, read_grey, read_mask

MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)


def normalise(image: np.ndarray | Tensor) -> Tensor:
    """uint8 RGB (H, W, 3), or a batch, → float32 (3, H, W) on its device, less ImageNet's mean
    and divided by ImageNet's deviation; a ValueError for other pixels.
    """
    pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image))
    if pixels.dtype != torch.uint8 or pixels.shape[-1] != 3:
        given = f"{image.dtype} of shape {tuple(image.shape)}"
        raise ValueError(f"normalise wants uint8 of shape (H, W, 3), not {given}")
    return _normalised(pixels.movedim(-1, -3).contiguous())


def _normalised(planes: Tensor) -> Tensor:
    """uint8 (…, C, H, W), red, green, blue and perhaps a mask → float32, the mask's in [0, 1]."""
    full, mean, std = _constants(planes.device)[:, : planes.shape[-3]]
    return planes.float().div_(full).sub_(mean).div_(std)


@cache
def _constants(device: torch.device) -> Tensor:
    """On its device once and for all. As tensors: by a number a GPU divides a little otherwise."""
    rows = [255.0] * 4, [*IMAGENET_MEAN, 0.0], [*IMAGENET_STD, 1.0]
    return torch.tensor(rows).view(3, 4, 1, 1).to(device)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """An image, uint8 (H, W) or (H, W, C), at size × size, whatever its aspect ratio, as in every
    paper of the field. Bilinear and without aliasing, as Pillow and so the released programs do it,
    but for one grey level in one pixel of a few hundred.
    """
    if image.shape[:2] == (size, size):
        return image
    # A batch of one, channels last: the order for which PyTorch has its fast way.
    pixels = torch.from_numpy(np.ascontiguousarray(image)).reshape(1, *image.shape[:2], -1)
    pixels = pixels.permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy().reshape(size, size, *image.shape[2:])


def resize_pair(image: np.ndarray, mask: np.ndarray, size: int, soft=False) -> ImagePair:
    """Bring an image, uint8 (H, W, 3), and its mask, bool or grey uint8 (H, W), to size × size.

    The mask becomes uint8: sampled at the nearest pixel, 0 or 255; with ``soft`` resized as the
    image is, so that an edge pixel says how much of it is polyp.
    """
    white = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
    if soft:  # one pass for all four channels costs hardly more than for three
        both = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(white, both, 3)
        *planes, mask = cv2.split(resize_image(both, size))
        return cv2.merge(planes), mask
    # NEAREST_EXACT samples at pixel centres; NEAREST would shift the mask by up to half a pixel.
    mask = cv2.resize(white, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return resize_image(image, size), mask


_THREADS = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="pairs")


@dataclass(eq=False)
class PolypDataset(Dataset):
    """Pairs as training sees them: resized to a square, augmented or not, normalised.

    Item ``i`` is ``{"image": float32 (3, size, size), "mask": float32 (1, size, size) in [0, 1],
    "name": str}``; `batch` makes batches of them, as a DataLoader does. Augmentation is a function
    of (seed, epoch, i) only. (Workers with ``persistent_workers=True`` keep their first epoch.)

    Args:
        soft_masks: keep the file's grey levels and what lies between at edges, as released;
            otherwise masks are 0 or 1.
        cached: decode each file once, and keep 4·size² bytes a pair in memory (0.5 MB at 352).
        unlabelled: images without a mask, after the pairs; their mask is NaN everywhere.

    Access raises a UserError where a file is unreadable or cut off, or the sizes of a pair differ.
    """

    index: PairIndex
    size: int
    augment: bool = False
    soft_masks: bool = False
    seed: int = 0
    cached: bool = False
    unlabelled: Sequence[Path] = ()

    def __post_init__(self) -> None:
        self.epoch = 0  # items are augmented as this epoch has them
        pairs = [(pair.name, pair.image, pair.mask) for pair in self.index]
        self._files = [*pairs, *((path.stem, path, None) for path in self.unlabelled)]
        self._cache: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> dict:
        i = range(len(self))[i]  # negative positions as lists have them; an IndexError past the end
        planes = torch.empty(1, 4, self.size, self.size, dtype=torch.uint8)
        self._write(i, planes[0].numpy())
        return {key: value[0] for key, value in self._as_batch([i], planes).items()}

    def batch(self, positions: Sequence[int], device: str | torch.device = "cpu") -> dict:
        """The items at these positions, read by threads: (B, 3, S, S), (B, 1, S, S), a list.

        A GPU gets them as uint8 in one copy that nobody waits for, and normalises them itself.
        """
        planes = torch.empty(len(positions), 4, self.size, self.size, dtype=torch.uint8)
        planes = planes.pin_memory() if torch.device(device).type == "cuda" else planes
        list(_THREADS.map(self._write, positions, planes.numpy()))
        return self._as_batch(positions, planes.to(device, non_blocking=True))

    def _as_batch(self, positions: Sequence[int], planes: Tensor) -> dict:
        """Float32 images and masks of uint8 (B, 4, S, S), on its device."""
        image, mask = (x.contiguous() for x in _normalised(planes).split([3, 1], dim=1))
        for k, i in enumerate(positions):
            if self._files[i][2] is None:
                mask[k] = np.nan
        return {"image": image, "mask": mask, "name": [self._files[i][0] for i in positions]}

    def _write(self, i: int, out: np.ndarray) -> None:
        """Red, green, blue and mask of item ``i``, augmented or not, into uint8 (4, S, S)."""
        out[:] = self._planes(i)
        if self.augment:
            image, mask = cv2.merge(list(out[:3])), out[3]
            image, mask = augment_pair(image, mask, rng_for(self.seed, self.epoch, i))
            if not self.soft_masks:  # moving the mask was bilinear
                mask = (mask >= THRESHOLD).astype(np.uint8) * 255
            out[:] = *cv2.split(image), mask

    def _planes(self, i: int) -> np.ndarray:
        """Red, green, blue and mask of position ``i``, uint8 (4, S, S)."""
        if not self.cached:
            return self._decode(i)
        if i not in self._cache:  # two threads that meet here write the same bytes
            self._cache[i] = self._decode(i)
        return self._cache[i]

    def _decode(self, i: int) -> np.ndarray:
        _, image_file, mask_file = self._files[i]
        image = read_image(image_file)
        if mask_file is None:
            image = resize_image(image, self.size)
            return np.stack([*cv2.split(image), np.zeros(image.shape[:2], np.uint8)])
        mask = read_grey(mask_file) if self.soft_masks else read_mask(mask_file)
        if image.shape[:2] != mask.shape:
            (mh, mw), (ih, iw) = mask.shape, image.shape[:2]
            fact = f"{mask_file} is {mw}×{mh} but its image is {iw}×{ih}"
            way_out = 'masks must have their image\'s size ("kdas data check" lists such pairs)'
            raise UserError(f"{fact}; {way_out}.")
        image, mask = resize_pair(image, mask, self.size, self.soft_masks)
        return np.stack([*cv2.split(image), mask])
