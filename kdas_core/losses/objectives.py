"""The objectives: named sums of the losses. Each returns its terms by name, and ``total`` is what
is minimised.

    S_k, T_k   the student's and the teacher's k-th logit map, k = 1, 2
    St(·)      structure loss against the mask
    AS(·,·)    attention supervision, with its τ² inside
    SG(·,·)    symmetrical guiding
    KD, CW, AT the rivals: logit distillation per pixel, channel-wise distillation, attention
    transfer

    supervised         St(S₁) + St(S₂)
    attention_only     (1−α)·[St(S₁) + St(S₂)] + α·a·[AS(S₁,T₁) + AS(S₂,T₂)]
    symmetric_only     (1−α)·[St(S₁) + St(S₂)] + α·g·SG(S₂,T₂)
    kdas               (1−α)·[St(S₁) + St(S₂)] + α·{a·[AS(S₁,T₁) + AS(S₂,T₂)] + g·SG(S₂,T₂)}      (the paper's figure)
    released           (1−α)·[St(S₁) + St(S₂)] + α·{R₁ + R₂ + SG(S₁,T₁)}                          (the released program)
    logit_kd           (1−α)·[St(S₁) + St(S₂)] + α·[KD(S₁,T₁) + KD(S₂,T₂)]
    channel_wise_kd    (1−α)·[St(S₁) + St(S₂)] + α·a·[CW(S₁,T₁) + CW(S₂,T₂)]
    attention_transfer (1−α)·[St(S₁) + St(S₂)] + α·a·[AT(S₁,T₁) + AT(S₂,T₂)]

R_k is the released attention term, whose gradient is zero. All rivals see what KDAS sees, the two
logit maps, and nothing of the networks' insides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from kdas_core import UserError
from kdas_core.losses.attention_supervision import attention_supervision, released_attention_term
from kdas_core.losses.attention_transfer import attention_transfer as transfer
from kdas_core.losses.bernoulli_distillation import bernoulli_distillation
from kdas_core.losses.channel_wise_distillation import channel_wise_distillation
from kdas_core.losses.structure import structure_loss
from kdas_core.losses.symmetric_guiding import symmetric_guiding

Maps = tuple[Tensor, Tensor]
Terms = dict[str, Tensor]


def _structure(student: Maps, mask: Tensor, weighted_bce: bool) -> Terms:
    return {
        f"structure_{k}": structure_loss(s, mask, weighted_bce)
        for k, s in enumerate(student, start=1)
    }


def _pairs(
    kind: str,
    loss: Callable[..., Tensor],
    student: Maps,
    teacher: Maps,
    *hyperparameters: float | bool,
) -> Terms:
    """A loss on the first pair of maps and on the second, by name."""
    return {
        f"{kind}_{k}": loss(s, t, *hyperparameters)
        for k, (s, t) in enumerate(zip(student, teacher), start=1)
    }


def _rival(structure: Terms, distilled: Terms, alpha: float, weight: float = 1.0) -> Terms:
    """A sum of one kind of distillation: all terms, and ``total = (1−α)·structure +
    α·weight·distilled``.
    """
    total = (1 - alpha) * sum(structure.values()) + alpha * weight * sum(distilled.values())
    assert isinstance(total, Tensor)  # a sum of no terms would be the number 0
    return structure | distilled | {"total": total}


def supervised(
    student: Maps, teacher: Maps | None, mask: Tensor, *, weighted_bce: bool = False
) -> Terms:
    """No teacher: the structure loss on both maps."""
    terms = _structure(student, mask, weighted_bce)
    return terms | {"total": terms["structure_1"] + terms["structure_2"]}


def logit_kd(
    student: Maps,
    teacher: Maps,
    mask: Tensor,
    *,
    temperature=2.0,
    alpha=0.3,
    weighted_bce: bool = False,
) -> Terms:
    """Hinton's distillation per pixel, on both maps."""
    structure = _structure(student, mask, weighted_bce)
    distilled = _pairs("logit", bernoulli_distillation, student, teacher, temperature)
    return _rival(structure, distilled, alpha)


def channel_wise_kd(
    student: Maps,
    teacher: Maps,
    mask: Tensor,
    *,
    temperature=2.0,
    alpha=0.3,
    attention_weight=1.0,
    weighted_bce: bool = False,
) -> Terms:
    """Channel-wise distillation on both maps: attention supervision without the attention."""
    structure = _structure(student, mask, weighted_bce)
    distilled = _pairs("channel", channel_wise_distillation, student, teacher, temperature)
    return _rival(structure, distilled, alpha, attention_weight)


def attention_transfer(
    student: Maps,
    teacher: Maps,
    mask: Tensor,
    *,
    alpha=0.3,
    attention_weight=1.0,
    weighted_bce: bool = False,
) -> Terms:
    """Attention transfer on both maps. Its terms are at most 2 each, so ``attention_weight`` may
    have to be large.
    """
    structure = _structure(student, mask, weighted_bce)
    distilled = _pairs("transfer", transfer, student, teacher)
    return _rival(structure, distilled, alpha, attention_weight)


def kdas(
    student: Maps,
    teacher: Maps,
    mask: Tensor,
    *,
    temperature=2.0,
    alpha=0.3,
    attention_weight=1.0,
    guiding_weight=1.0,
    weighted_bce: bool = False,
) -> Terms:
    """The paper's framework figure: attention on both sides and both maps, symmetrical guiding on
    the second map.

    A term of weight 0 is left out, so ``attention_only`` and ``symmetric_only`` are this function
    with one weight at 0.
    """
    terms = _structure(student, mask, weighted_bce)
    supervision = terms["structure_1"] + terms["structure_2"]
    distillation = torch.zeros((), device=mask.device)
    if attention_weight:
        terms |= _pairs("attention", attention_supervision, student, teacher, temperature)
        distillation = distillation + attention_weight * (
            terms["attention_1"] + terms["attention_2"]
        )
    if guiding_weight:
        terms["symmetric"] = symmetric_guiding(student[1], teacher[1])
        distillation = distillation + guiding_weight * terms["symmetric"]
    return terms | {"total": (1 - alpha) * supervision + alpha * distillation}


def released(
    student: Maps,
    teacher: Maps,
    mask: Tensor,
    *,
    temperature=2.0,
    alpha=0.3,
    weighted_bce: bool = False,
    positive_targets_only: bool = True,
) -> Terms:
    """The released program: its attention terms are reported as ``attention_1_inert`` and teach the
    student nothing.

    In effect it minimises ``(1−α)·[St(S₁) + St(S₂)] + α·SG(S₁, T₁)``: 0.7 and 0.3 at the released
    α. With ``positive_targets_only=False`` the inert terms and the total are NaN, as the released
    program prints on current PyTorch; the gradients do not change.
    """
    structure = _structure(student, mask, weighted_bce)
    distilled = _pairs(
        "attention", released_attention_term, student, teacher, temperature, positive_targets_only
    )
    distilled = {f"{name}_inert": value for name, value in distilled.items()}
    distilled["symmetric"] = symmetric_guiding(student[0], teacher[0])
    return _rival(structure, distilled, alpha)


OBJECTIVES: dict[str, Callable[..., Terms]] = {
    "supervised": supervised,
    "logit_kd": logit_kd,
    "attention_only": partial(kdas, guiding_weight=0.0),
    "symmetric_only": partial(kdas, attention_weight=0.0),
    "kdas": kdas,
    "released": released,
    "channel_wise_kd": channel_wise_kd,
    "attention_transfer": attention_transfer,
}


def hyperparameters_of(name: str) -> dict[str, float | bool]:
    """The keywords that an objective takes, with their defaults.

    Raises:
        UserError: there is no objective of that name.
    """
    if name not in OBJECTIVES:
        raise UserError(f'There is no objective "{name}"; choose one of {", ".join(OBJECTIVES)}.')
    chosen = OBJECTIVES[name]
    fixed = chosen.keywords if isinstance(chosen, partial) else {}
    function = chosen.func if isinstance(chosen, partial) else chosen
    return {
        hyperparameter: value
        for hyperparameter, value in (function.__kwdefaults__ or {}).items()
        if hyperparameter not in fixed
    }


def objective(
    name: str, **hyperparameters: float | bool
) -> Callable[[Maps, Maps | None, Tensor], Terms]:
    """The objective of that name, ready to be called with ``(student, teacher, mask)``.

    Args:
        name: one of :data:`OBJECTIVES`.
        hyperparameters: its keywords, e.g. ``temperature=2.0, alpha=0.3``; see the table at the top of this
            file.

    Returns:
        A function of student maps (P1, P2), teacher maps (P1, P2) and mask (B, 1, H, W) in [0, 1],
        which gives a dictionary of
        scalars: the terms by name, and ``total``. Computed in float32 even under autocast. A hyperparameter
            given with the call holds for
        that call.

    Raises:
        UserError: unknown objective or hyperparameter.
    """
    known = hyperparameters_of(name)
    unknown = sorted(hyperparameters.keys() - known.keys())
    if unknown:
        raise UserError(
            f'Objective "{name}" has no hyperparameter {", ".join(unknown)}; it takes {", ".join(known)}.'
        )
    loss_fn = partial(OBJECTIVES[name], **hyperparameters)

    def call(student: Maps, teacher: Maps | None, mask: Tensor, **now: float | bool) -> Terms:
        if teacher is None and name != "supervised":
            raise UserError(f'Objective "{name}" distils from a teacher, and none was given.')
        with torch.autocast(device_type=mask.device.type, enabled=False):
            return loss_fn(student, teacher, mask, **now)

    return call
