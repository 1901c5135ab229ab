"""Attention supervision: the student's attended map follows the teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdas_core.attention import attention_log_distribution, self_attention


def attention_supervision(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """``τ² · KL( softmax_pixels(A(T)/τ) ‖ softmax_pixels(A(S)/τ) )``, summed over pixels, mean over
    the batch.

    Both maps go through the same attention ``A(P) = softmax(P Pᵀ/√W) P``. The softmax over pixels
    turns an attended map into a distribution of "where", so a constant added to A(S) changes
    nothing; τ² keeps the gradient from vanishing at high τ (arXiv 1503.02531, section 2).

    Args:
        student, teacher: logits, shape (B, 1, H, W). No gradient reaches the teacher.
        temperature: τ > 0.

    Returns:
        A scalar ≥ 0; 0 when student and teacher are equal.

    Raises:
        ValueError: the shapes differ.

    Source: Trinh et al., KDAS, ICME 2024, attention supervision (framework figure).

    >>> p = torch.randn(2, 1, 8, 8)
    >>> round(float(attention_supervision(p, p)), 6)
    0.0
    """
    if student.shape != teacher.shape:
        shapes = f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        raise ValueError(f"{shapes} must have one shape.")
    log_s = attention_log_distribution(student, temperature)
    log_t = attention_log_distribution(teacher.detach(), temperature)
    return temperature**2 * F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")


def released_attention_term(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, positive_targets_only: bool = True
) -> Tensor:
    """The attention term of the released program: its gradient on the student is exactly zero.

    Two things differ from `attention_supervision`. The student's side is not attended; it is a
    softmax over the one channel of its map, which is 1 whatever the student says, divided by τ. And
    the divergence gets these numbers where it expects log-probabilities, and ``A(T)/τ`` where it
    expects probabilities, although half of its entries are negative. With target t and
    "log-probability" 1/τ each pixel contributes ``t·(log t − 1/τ)``.

    Args:
        student, teacher: logits, shape (B, 1, H, W). No gradient reaches the teacher.
        temperature: τ > 0.
        positive_targets_only: count negative targets as 0, as earlier versions of PyTorch did. With
            ``False`` they give NaN, as on current PyTorch. The student's gradient is the same.

    Returns:
        A scalar, not bounded below; NaN under the current rule.

    Source: behaviour of the KDAS release, measured; no equation of the paper.
    """
    constant = torch.softmax(student.float(), dim=1).squeeze(1) / temperature
    target = self_attention(teacher.detach()) / temperature
    if positive_targets_only:
        log_target = target.clamp(min=torch.finfo(target.dtype).tiny).log()
        pointwise = torch.where(target > 0, target * (log_target - constant), 0.0)
    else:
        pointwise = target * (target.log() - constant)
    return temperature**2 * pointwise.mean()
