"""Logit standardisation: the student follows how the teacher's logits compare, not their size."""

from torch import Tensor

from kdas_core.losses.bernoulli_distillation import bernoulli_distillation


def standardised_distillation(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, eps: float = 1e-7
) -> Tensor:
    """`bernoulli_distillation` of standardised maps ``Z(P) = (P − mean) / (sd + eps)``: a scalar ≥
    0; 0 when one map is the other times a positive number plus a constant.

    The paper standardises an image's logits over its classes. Two logits per pixel would become +1
    and −1 whatever the network says, so here a map is standardised over its pixels (our choice).

    Args:
        student, teacher: logits, both (B, 1, H, W), else a ValueError; the teacher has no gradient.
        temperature: τ > 0.

    Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024 (arXiv
    2403.01427), algorithm 1.

    >>> import torch
    >>> p = torch.randn(2, 1, 8, 8)
    >>> abs(float(standardised_distillation(3 * p + 2, p))) < 1e-5
    True
    """

    def standardised(logits: Tensor) -> Tensor:
        centred = logits.float() - logits.float().mean(dim=(1, 2, 3), keepdim=True)
        return centred / (centred.std(dim=(1, 2, 3), keepdim=True) + eps)

    return bernoulli_distillation(standardised(student), standardised(teacher), temperature)
