"""Learning rate and warm-up of the terms over the steps of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from kdas_core.recipe import Recipe


def learning_rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rate is multiplied with at a step: 1, or a warm-up and half a cosine down
    to 0.
    """
    if recipe.schedule == "constant":
        return 1.0
    rising = max(1, int(steps * recipe.warm_up))
    return min((step + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def warmed_up(loss_fn: Callable, recipe: Recipe, step: int, steps: int) -> Callable:
    """The objective at a step: with ``distillation_warm_up`` its α rises linearly, from 0 to its
    value.
    """
    rising = steps * recipe.distillation_warm_up
    if step >= rising or recipe.objective == "supervised":
        return loss_fn
    return partial(loss_fn, alpha=recipe.alpha * step / rising)
