"""Symmetrical guiding: the symmetric part of the student's map follows the teacher's."""

from torch import Tensor

from kdas_core.losses.shapes import refuse_other_shapes


def symmetric_guiding(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance between ``P + Pᵀ`` of student and of teacher: a scalar ≥ 0; 0 when the
    symmetric parts agree. The antisymmetric part, which changes sign when height and width are
    swapped, is free (chapter 5 shows a pair of different maps at distance 0).

    Args:
        student, teacher: maps, both (B, 1, S, S), else a ValueError; the teacher has no gradient.
            The figure guides the attended second maps, the release the raw first ones.

    Source: Trinh et al., KDAS, ICME 2024, symmetrical guiding module (framework figure).

    >>> import torch
    >>> p = torch.randn(2, 1, 8, 8)
    >>> float(symmetric_guiding(p, p.transpose(2, 3)))
    0.0
    """
    refuse_other_shapes(student, teacher)
    height, width = student.shape[-2:]
    if height != width:
        raise ValueError(f"A map is added to its transpose; {height} × {width} is not square.")
    difference = student.float() - teacher.detach().float()  # P ↦ P + Pᵀ is linear: transpose once
    return (difference + difference.transpose(2, 3)).square().mean()
