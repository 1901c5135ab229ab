"""What a training run starts with: the device, the untrained network, the frozen teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.losses import hyperparameters_of, objective
from kdas_core.models import build, freeze, teacher_logits
from kdas_core.recipe import Recipe


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Device, precision and processes, as Accelerate finds them.

    Raises:
        UserError: fp16 without a GPU.
    """
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        raise UserError("precision fp16 needs a GPU; choose bf16 or float32.")
    AcceleratorState._reset_state()  # a notebook may train one network in one precision and the next in another
    return Accelerator(mixed_precision=recipe.precision.replace("float32", "no"))


def start_objective(recipe: Recipe) -> Callable:
    """The recipe's objective; UserError where there is none of its name."""
    return objective(recipe.objective, **objective_kwargs(recipe))


def objective_kwargs(recipe: Recipe) -> dict:
    """The keywords of the recipe's objective, with the recipe's values."""
    known = hyperparameters_of(recipe.objective)
    return {name: getattr(recipe, name) for name in known if hasattr(recipe, name)}


def start_network(recipe: Recipe, role: str) -> nn.Module:
    """The untrained network of a role, ``"teacher"`` or ``"student"``."""
    if role == "teacher":
        return build(role, pretrained=recipe.pretrained_teacher, backbone=recipe.teacher)
    return build(role, pretrained=recipe.pretrained_student, backbone=recipe.student)


def arrange(net: nn.Module, recipe: Recipe, accelerator: Accelerator) -> nn.Module:
    """The network with its weights laid out as the recipe's ``channels_last`` has it, and with
    batch norm that counts the images of all GPUs.
    """
    several_gpus = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    if several_gpus and not recipe.freeze_statistics:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return net.to(memory_format=torch.channels_last) if recipe.channels_last else net


def compiled(net: nn.Module, device: torch.device) -> nn.Module:
    """``torch.compile``, anew for each scale and for a smaller last batch.

    Raises:
        UserError: nothing can be compiled here, most often because there is no C++ compiler.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds, deep inside
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"torch.compile does not work on this machine ({why}); switch compile off."
        ) from None
    return cast(nn.Module, torch.compile(net, dynamic=False))


class FrozenTeacher:
    """The teacher during a training run: frozen, one forward pass a scale, no graph.

    Args:
        teacher: any network ``images -> (P1, P2)``, or None.
        recipe: with ``teacher_graph`` the teacher records a graph that nobody uses, as released.
    """

    def __init__(self, teacher: nn.Module | None, recipe: Recipe, accelerator: Accelerator):
        self.teacher = teacher
        self.accelerator = accelerator
        self.graph = recipe.teacher_graph
        if teacher is not None:
            self.teacher = arrange(freeze(teacher).to(accelerator.device), recipe, accelerator)
            self.teacher.requires_grad_(self.graph)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        """(P1, P2), float32 (B, 1, S, S), of images (B, 3, S, S); None without a teacher."""
        if self.teacher is None:
            return None
        with self.accelerator.autocast():
            p1, p2 = self.teacher(images) if self.graph else teacher_logits(self.teacher, images)
        return p1.float(), p2.float()
