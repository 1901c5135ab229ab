"""What the two sides of a distillation loss must have in common."""

from torch import Tensor


def refuse_other_shapes(student: Tensor, teacher: Tensor, any_channels: bool = False) -> None:
    """A ValueError where maps (B, C, H, W) differ in shape; in C they may with ``any_channels``."""
    if len({(P[:, 0] if any_channels else P).shape for P in (student, teacher)}) > 1:
        shapes = f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}"
        raise ValueError(f"{shapes} must have one {'batch and size' if any_channels else 'shape'}.")
