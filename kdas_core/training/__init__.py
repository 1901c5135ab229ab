"""Training of teachers and students (chapter 6); ``loop`` reads from top to bottom."""

from kdas_core.training.loop import (
    TrainingState,
    dice_at_half,
    fit,
    load_history,
    start_network,
    validate,
)

__all__ = ["TrainingState", "dice_at_half", "fit", "load_history", "start_network", "validate"]
