"""Feature matching: a map of the student, logits or hidden features, is the teacher's."""

import torch.nn.functional as F
from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def feature_matching(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of two maps over channels, pixels and batch: a scalar ≥ 0.

    On hidden features this is FitNet's hint. Its paper puts a trained convolution behind the
    student's features, since they have fewer channels; both our decoders have 32, so none is
    needed. On logits it is the plainest distillation, the control for symmetrical guiding.

    Args:
        student, teacher: both (B, C, H, W), else a ValueError; the teacher has no gradient.

    Source: Romero et al., FitNets, ICLR 2015 (arXiv 1412.6550), equation 3, without its regressor.

    >>> import torch
    >>> float(feature_matching(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)))
    1.0
    """
    refuse_other_shapes(student, teacher)
    return F.mse_loss(student.float(), teacher.detach().float())
