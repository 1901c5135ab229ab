"""Logit distillation, which KDAS has to beat: each pixel's probability follows the teacher's."""

import torch.nn.functional as F
from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def bernoulli_distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """``τ² · KL( Bernoulli(σ(T/τ)) ‖ Bernoulli(σ(S/τ)) )``, mean over pixels and batch: a scalar
    ≥ 0; 0 when the maps agree. Hinton's distillation for two classes, polyp or not, at each pixel.

    Args:
        student, teacher: logits, both (B, 1, H, W), else a ValueError; the teacher has no gradient.
        temperature: τ > 0.

    Source: Hinton et al., arXiv 1503.02531, section 2, with two classes.

    >>> import torch
    >>> float(bernoulli_distillation(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)))
    0.0
    """
    refuse_other_shapes(student, teacher)
    s, t = student.float() / temperature, teacher.detach().float() / temperature
    # q·(log q − log p) + (1−q)·(log(1−q) − log(1−p)), q = σ(t), p = σ(s); logsigmoid: no overflow
    q = t.sigmoid()
    kl = q * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - q) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return temperature**2 * kl.mean()
