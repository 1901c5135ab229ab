"""The teacher during a training: frozen, in inference mode, one forward pass a scale."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdas_core.data.dataset import PolypDataset
from kdas_core.models import freeze, teacher_logits
from kdas_core.recipe import Recipe

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
        self.recipe, self.accelerator, self.teacher = recipe, accelerator, None
        if teacher is None:
            return
        self.teacher = freeze(teacher).to(accelerator.device)
        if recipe.channels_last:
            self.teacher = self.teacher.to(memory_format=torch.channels_last)
        if recipe.teacher_graph:
            self.teacher.requires_grad_(True)

    def maps(self, images: Tensor, index: list[int]) -> Maps | None:
        """(P1, P2) of the teacher, (B, 1, S, S) float32, for images at these positions of the data
        set; None without one.
        """
        if self.teacher is None:
            return None
        with self.accelerator.autocast():
            p1, p2 = (
                self.teacher(images)
                if self.recipe.teacher_graph
                else teacher_logits(self.teacher, images)
            )
        return p1.float(), p2.float()
