"""Channel-wise distillation: each channel, as a distribution of "where", follows the teacher's."""

import torch.nn.functional as F
from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def channel_wise_distillation(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, reduction: str = "sum"
) -> Tensor:
    """``τ² · KL( softmax_pixels(T/τ) ‖ softmax_pixels(S/τ) )`` of each channel, summed over pixels,
    mean over channels and batch: a scalar ≥ 0; 0 when the channels agree up to a constant each.

    It says where a channel should be strong, not how strong. On a logit map it is
    `attention_supervision` without the attention, the rival that shows what attention adds.

    Args:
        student, teacher: logits, both (B, C, H, W), else a ValueError; the teacher has no gradient.
        temperature: τ > 0. The paper takes 4.
        reduction: ``"sum"`` over pixels, a divergence; or their ``"mean"``, H·W times smaller.

    Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021 (arXiv
    2011.13256), equations 4 and 5.

    >>> import torch
    >>> p = torch.randn(2, 1, 8, 8)
    >>> abs(float(channel_wise_distillation(p + 3, p))) < 1e-5
    True
    """
    refuse_other_shapes(student, teacher)
    channels = (P.float().flatten(2).flatten(0, 1) for P in (student, teacher.detach()))
    log_s, log_t = ((channel / temperature).log_softmax(dim=1) for channel in channels)
    divergence = temperature**2 * F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")
    return divergence / {"sum": 1, "mean": log_s.shape[1]}[reduction]
