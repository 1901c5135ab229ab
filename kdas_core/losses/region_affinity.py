"""Region affinity: how unlike polyp and background are, to the student and to the teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def region_affinity(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """``(c_S − c_T)²``, mean over the batch, where ``c`` is the cosine between the mean feature of
    the polyp and that of the background, as the mask divides them: a scalar in [0, 4]. An image
    without one of the two counts 0.

    Args:
        student, teacher: features (B, C, H, W); only C may differ. No gradient reaches the teacher.
        mask: (B, 1, h, w) in [0, 1]; it is brought to the features' size.

    Source: Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, IEEE
    TMI 2021 (arXiv 2108.09987), region affinity distillation, with two regions.

    >>> f, mask = torch.randn(2, 5, 8, 8), torch.zeros(2, 1, 32, 32)
    >>> mask[..., :16] = 1
    >>> float(region_affinity(3 * f, f, mask)) < 1e-6
    True
    """
    refuse_other_shapes(student, teacher, any_channels=True)
    polyp = F.interpolate(mask.float(), student.shape[-2:], mode="area")
    regions = torch.cat([polyp, 1 - polyp], dim=1).flatten(2)  # (B, 2, pixels)
    both = (regions.sum(dim=2) > 0).all(dim=1)

    def contrast(features: Tensor) -> Tensor:
        means = regions @ features.float().flatten(2).transpose(1, 2)  # (B, 2, C), up to length
        return F.cosine_similarity(means[:, 0], means[:, 1])

    return ((contrast(student) - contrast(teacher.detach())).square() * both).mean()
