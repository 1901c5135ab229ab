"""Pairwise affinity: which places look alike to the student, and which to the teacher."""

import torch.nn.functional as F
from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def pairwise_affinity(student: Tensor, teacher: Tensor, grid: int = 8) -> Tensor:
    """Mean of ``(a_S − a_T)²`` over all pairs of places, where ``a`` is the cosine of the two
    places' features: a scalar in [0, 4]. The features are averaged to grid × grid places first.

    Cosines compare places within one network, so the two may have different channels.

    Args:
        student, teacher: features (B, C, H, W); only C may differ, else a ValueError. No gradient
            reaches the teacher.
        grid: places along each side.

    Source: Liu et al., Structured Knowledge Distillation for Dense Prediction (arXiv 1903.04197),
    the pair-wise term.

    >>> import torch
    >>> f = torch.randn(2, 5, 16, 16)
    >>> float(pairwise_affinity(3 * f, f)) < 1e-6
    True
    """
    refuse_other_shapes(student, teacher, any_channels=True)

    def affinity(features: Tensor) -> Tensor:
        places = F.adaptive_avg_pool2d(features.float(), grid).flatten(2)  # (B, C, grid²)
        places = F.normalize(places, dim=1)
        return places.transpose(1, 2) @ places

    return F.mse_loss(affinity(student), affinity(teacher.detach()))
