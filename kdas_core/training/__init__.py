"""Training of teachers and students (chapter 6); ``loop`` reads from top to bottom."""

from kdas_core.training.checkpoint import load_history
from kdas_core.training.loop import dice_at_half, fit, forward_backward, train_step, validate
from kdas_core.training.state import TrainingState, objective_kwargs, start_network

__all__ = [
    "TrainingState",
    "dice_at_half",
    "fit",
    "forward_backward",
    "load_history",
    "objective_kwargs",
    "start_network",
    "train_step",
    "validate",
]
