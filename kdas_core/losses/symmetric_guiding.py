"""Symmetrical guiding: the symmetric part of the student's map follows the teacher's."""

from __future__ import annotations

from torch import Tensor


def symmetric_guiding(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance between the symmetric parts of two maps.

    KDAS compares ``P + Pᵀ`` of student and teacher, so only the part of the map that does not
    change when height and width are swapped is supervised; the antisymmetric part is free (chapter
    5 shows a pair of different maps at distance 0).

    Args:
        student, teacher: logits, shape (B, 1, S, S). Square, since the map is added to its own
            transpose. No gradient reaches the teacher.

    Returns:
        A scalar, ≥ 0; 0 when the symmetric parts agree.

    Raises:
        ValueError: the maps are not square, or their shapes differ.

    Source: Trinh et al., KDAS, ICME 2024, symmetrical guiding module (framework figure, second pair
    of maps).

    >>> import torch
    >>> p = torch.randn(2, 1, 8, 8)
    >>> float(symmetric_guiding(p, p.transpose(2, 3)))
    0.0
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have one shape."
        )
    if student.shape[-1] != student.shape[-2]:
        height, width = student.shape[-2:]
        raise ValueError(
            f"Symmetrical guiding adds a map to its transpose; {height} × {width} is not square."
        )
    difference = (
        student.float() - teacher.detach().float()
    )  # P ↦ P + Pᵀ is linear: one transpose is enough
    return (difference + difference.transpose(2, 3)).square().mean()
