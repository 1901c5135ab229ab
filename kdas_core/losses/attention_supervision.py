"""Attention supervision: the student's attended map follows the teacher's."""

import torch
from torch import Tensor

from kdas_core.attention import self_attention
from kdas_core.losses.channel_wise_distillation import channel_wise_distillation


def attention_supervision(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, reduction: str = "sum"
) -> Tensor:
    """``τ² · KL( softmax_pixels(A(T)/τ) ‖ softmax_pixels(A(S)/τ) )``, summed over pixels, mean over
    the batch: a scalar ≥ 0; 0 when student and teacher are equal.

    Both maps go through the same attention ``A(P) = softmax(P Pᵀ/√W) P``. The softmax over pixels
    turns an attended map into a distribution of "where", so a constant added to A(S) changes
    nothing; τ² keeps the gradient from vanishing at high τ (arXiv 1503.02531, section 2).

    Args:
        student, teacher: logits, both (B, 1, H, W), else a ValueError; the teacher has no gradient.
        temperature: τ > 0.
        reduction: ``"sum"`` over pixels, a divergence; or ``"mean"``, the release's convention, at
            S × S pixels S² times smaller. The figure does not say; the sum is our reading.

    Source: Trinh et al., KDAS, ICME 2024, attention supervision (framework figure).

    >>> p = torch.randn(2, 1, 8, 8)
    >>> round(float(attention_supervision(p, p)), 6)
    0.0
    """
    of_student, of_teacher = (self_attention(P)[:, None] for P in (student, teacher.detach()))
    return channel_wise_distillation(of_student, of_teacher, temperature, reduction)


def released_attention_term(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, positive_targets_only: bool = True
) -> Tensor:
    """The attention term of the released program: its gradient on the student is exactly zero.

    The student's side is not attended; it is a softmax over the one channel of its map, which is 1
    whatever the student says, divided by τ. The divergence gets these numbers where it expects
    log-probabilities, and ``t = A(T)/τ`` where it expects probabilities, although half of them are
    negative: each pixel contributes ``t·(log t − 1/τ)``.

    Args:
        student, teacher, temperature: as for `attention_supervision`.
        positive_targets_only: count negative targets as 0, as earlier versions of PyTorch did. With
            ``False`` they give NaN, as on current PyTorch. The student's gradient is the same.

    Source: behaviour of the KDAS release, measured; no equation of the paper.
    """
    constant = torch.softmax(student.float(), dim=1).squeeze(1) / temperature
    target = self_attention(teacher.detach()) / temperature
    pointwise = target * (target.log() - constant)
    if positive_targets_only:
        log_target = target.clamp(min=torch.finfo(target.dtype).tiny).log()
        pointwise = torch.where(target > 0, target * (log_target - constant), 0.0)
    return temperature**2 * pointwise.mean()
