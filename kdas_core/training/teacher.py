"""The teacher during a training: frozen, in inference mode, one forward pass a scale; or read from
a cache of its maps.
"""

from __future__ import annotations

import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.data.cache import mapped
from kdas_core.data.dataset import PolypDataset
from kdas_core.models import freeze, teacher_logits
from kdas_core.models.weights import weights_digest
from kdas_core.recipe import Recipe
from kdas_core.training.batching import scaled_size

Maps = tuple[Tensor, Tensor]


class FrozenTeacher:
    """What a training asks its teacher.

    Args:
        teacher: any network ``images -> (P1, P2)``, or None. It is frozen; with the hyperparameter
            ``teacher_graph`` it records a graph that nobody uses, as the released program does.
        recipe: ``teacher_graph``, ``teacher_cache``, ``channels_last`` and the sizes.
        dataset: the training images; with ``teacher_cache`` they must be the same in every epoch.
        folder: where caches are kept.
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        recipe: Recipe,
        dataset: PolypDataset,
        accelerator: Accelerator,
        folder: Path,
    ):
        self.recipe, self.accelerator, self.teacher, self.caches = recipe, accelerator, None, {}
        if teacher is None:
            return
        self.teacher = freeze(teacher).to(accelerator.device)
        if recipe.channels_last:
            self.teacher = self.teacher.to(memory_format=torch.channels_last)
        if recipe.teacher_graph:
            self.teacher.requires_grad_(True)
        if recipe.teacher_cache:
            what = sha256(
                f"{weights_digest(teacher)} {dataset.index.names} {recipe.image_size}".encode()
            ).hexdigest()[:12]
            with accelerator.main_process_first():
                for side in {scaled_size(scale, recipe.image_size) for scale in recipe.scales}:
                    self.caches[side] = MapCache(
                        folder / f"teacher-maps-{what}-{side}px", len(dataset), side
                    )

    def maps(self, images: Tensor, index: list[int]) -> Maps | None:
        """(P1, P2) of the teacher, (B, 1, S, S) float32, for images at these positions of the data
        set; None without one.
        """
        if self.teacher is None:
            return None
        cache = self.caches.get(images.shape[-1])
        if cache is None:
            return self._live(images)
        kept = cache.get(index)
        if kept is not None and (cache.checked or cache.holds(self._live(images), kept)):
            return kept[0].to(images.device), kept[1].to(images.device)
        live = self._live(images)
        cache.put(index, live)
        return live

    def _live(self, images: Tensor) -> Maps:
        assert self.teacher is not None  # maps() has looked
        with self.accelerator.autocast():
            p1, p2 = (
                self.teacher(images)
                if self.recipe.teacher_graph
                else teacher_logits(self.teacher, images)
            )
        return p1.float(), p2.float()


class MapCache:
    """Logit maps of one size on disk, in half precision: 4·side² bytes an image.

    An image's maps are written when they are first computed, and a flag after them, so a cache that
    was cut off is merely incomplete. Half precision keeps 11 bits: a logit of 8 is off by at most
    0.004.
    """

    def __init__(self, folder: Path, images: int, side: int):
        self.checked = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._maps = mapped(folder / "maps.f16", np.dtype(np.float16), (images, 2, side, side))
            self._there = mapped(folder / "there.u8", np.dtype(np.uint8), (images,))
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror}); it needs {images * 4 * side * side / 1e6:.0f} MB. "
                "Make room, or switch teacher_cache off."
            ) from None
        self.folder = folder

    def get(self, index: list[int]) -> Maps | None:
        """The maps of these images, (B, 1, S, S) float32, or None unless all are there."""
        if not self._there[index].all():
            return None
        both = torch.from_numpy(self._maps[index].astype(np.float32))
        return both[:, :1], both[:, 1:]

    def put(self, index: list[int], maps: Maps) -> None:
        """Keep the maps of these images."""
        self._maps[index] = torch.cat(maps, dim=1).cpu().numpy().astype(np.float16)
        self._there[index] = 1

    def holds(self, live: Maps, kept: Maps) -> bool:
        """Is what was kept what the teacher says now, as far as half precision goes? Otherwise the
        cache starts anew.
        """
        self.checked = True
        if all(
            torch.allclose(now.cpu(), before, rtol=2e-3, atol=2e-3)
            for now, before in zip(live, kept)
        ):
            return True
        warnings.warn(
            f"{self.folder} does not hold this teacher's maps; it is filled anew.", stacklevel=3
        )
        self._there[:] = 0
        return False
