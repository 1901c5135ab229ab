"""Attention transfer: where the student's map is strong follows where the teacher's is."""

import torch.nn.functional as F
from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖ Q_S/‖Q_S‖ − Q_T/‖Q_T‖ ‖²`` with ``Q`` the squares of a map summed over channels, mean
    over the batch: a scalar in [0, 2]; 0 when the two agree up to sign and size.

    The method was made for hidden features, where a square says "something happens here". On
    logits, ``−T`` has distance 0 from ``T`` although it calls every polyp background (chapter 9):
    the structure loss has to tell the two apart.

    Args:
        student, teacher: maps, (B, C, H, W), else a ValueError; only the numbers of channels may
            differ. No gradient reaches the teacher.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017 (arXiv
    1612.03928), equation 2 with p = 2, squared so that it has a gradient at 0.

    >>> import torch
    >>> p = torch.randn(2, 1, 8, 8)
    >>> float(attention_transfer(-3 * p, p)) < 1e-6
    True
    """
    refuse_other_shapes(student, teacher, any_channels=True)
    strengths = (P.float().square().sum(dim=1).flatten(1) for P in (student, teacher.detach()))
    of_student, of_teacher = (F.normalize(strength, dim=1) for strength in strengths)
    return (of_student - of_teacher).square().sum(dim=1).mean()
