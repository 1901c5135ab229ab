"""The objectives: named sums of the losses. Each gives its terms by name, and ``total``.

    S_k, T_k   the student's and the teacher's k-th logit map, k = 1, 2
    St         structure loss of S₁ and S₂ against the mask, added
    A(·)       the attention of a map with itself, ``kdas_core.attention.self_attention``
    AS(·,·)    attention supervision, with its τ² inside
    SG(·,·)    symmetrical guiding
    KD, CW, AT the rivals: logit distillation, channel-wise distillation, attention transfer

    supervised         St
    attention_only     (1−α)·St + α·a·[AS(S₁,T₁) + AS(S₂,T₂)]
    symmetric_only     (1−α)·St + α·g·SG(A(S₂),A(T₂))
    kdas               (1−α)·St + α·{a·[AS(S₁,T₁) + AS(S₂,T₂)] + g·SG(A(S₂),A(T₂))}  (the figure)
    released           (1−α)·St + α·{R₁ + R₂ + SG(S₁,T₁)}                   (the released program)
    logit_kd           (1−α)·St + α·[KD(S₁,T₁) + KD(S₂,T₂)]
    channel_wise_kd    (1−α)·St + α·a·[CW(S₁,T₁) + CW(S₂,T₂)]
    attention_transfer (1−α)·St + α·a·[AT(S₁,T₁) + AT(S₂,T₂)]

With ``guide="raw"`` SG sees S₂ and T₂ themselves: our earlier, mistaken reading of the figure.
R_k is the released attention term, whose gradient is zero. All rivals see what KDAS sees: the two
logit maps, and nothing of the networks' insides.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kdas_core import UserError
from kdas_core.attention import self_attention
from kdas_core.losses.attention_supervision import attention_supervision, released_attention_term
from kdas_core.losses.attention_transfer import attention_transfer as transfer
from kdas_core.losses.bernoulli_distillation import bernoulli_distillation
from kdas_core.losses.channel_wise_distillation import channel_wise_distillation
from kdas_core.losses.structure import structure_loss
from kdas_core.losses.symmetric_guiding import symmetric_guiding

Maps = tuple[Tensor, Tensor]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What an objective adds up: the structure losses of both student maps, and the maps."""

    structure: Terms
    student: Maps
    teacher: Maps

    def pairs(self, term: str, loss: Callable[..., Tensor], *hyperparameters) -> Terms:
        """A loss on the first pair of maps and on the second, by name."""
        pairs = enumerate(zip(self.student, self.teacher), start=1)
        return {term.format(k): loss(s, t, *hyperparameters) for k, (s, t) in pairs}

    def total(self, distilled: Terms, alpha: float, weight: float = 1.0) -> Terms:
        """All terms, and ``total = (1−α)·structure + α·weight·distilled``."""
        supervision, distillation = sum(self.structure.values()), sum(distilled.values())
        total = (1 - alpha) * supervision + alpha * weight * distillation
        return self.structure | distilled | {"total": torch.as_tensor(total)}


def supervised(batch: Batch) -> Terms:
    """No teacher: the structure loss on both maps."""
    return batch.total({}, alpha=0.0)


def logit_kd(batch: Batch, *, temperature=2.0, alpha=0.3) -> Terms:
    """Hinton's distillation per pixel, on both maps."""
    return batch.total(batch.pairs("logit_{}", bernoulli_distillation, temperature), alpha)


def channel_wise_kd(
    batch: Batch, *, temperature=2.0, alpha=0.3, attention_weight=1.0, reduction="sum"
) -> Terms:
    """Channel-wise distillation on both maps: attention supervision without the attention."""
    distilled = batch.pairs("channel_{}", channel_wise_distillation, temperature, reduction)
    return batch.total(distilled, alpha, attention_weight)


def attention_transfer(batch: Batch, *, alpha=0.3, attention_weight=1.0) -> Terms:
    """Attention transfer on both maps. A term is at most 2, so the weight may have to be large."""
    return batch.total(batch.pairs("transfer_{}", transfer), alpha, attention_weight)


def kdas(
    batch: Batch,
    *,
    temperature=2.0,
    alpha=0.3,
    attention_weight=1.0,
    guiding_weight=1.0,
    guide="attended",
    reduction="sum",
) -> Terms:
    """The paper's framework figure: attention on both sides and both maps, symmetrical guiding of
    the attended second maps. A term of weight 0 is left out.
    """
    terms = dict(batch.structure)
    distillation = torch.zeros(())
    if attention_weight:
        terms |= batch.pairs("attention_{}", attention_supervision, temperature, reduction)
        attention = terms["attention_1"] + terms["attention_2"]
        distillation = distillation + attention_weight * attention
    if guiding_weight:
        second = batch.student[1], batch.teacher[1]
        if guide == "attended":
            second = tuple(self_attention(P)[:, None] for P in second)
        terms["symmetric"] = symmetric_guiding(*second)
        distillation = distillation + guiding_weight * terms["symmetric"]
    supervision = terms["structure_1"] + terms["structure_2"]
    return terms | {"total": (1 - alpha) * supervision + alpha * distillation}


def released(batch: Batch, *, temperature=2.0, alpha=0.3, positive_targets_only=True) -> Terms:
    """The released program: its attention terms, ``attention_1_inert`` and ``_2_``, teach nothing.

    In effect it minimises ``(1−α)·St + α·SG(S₁, T₁)``. With ``positive_targets_only=False`` the
    inert terms and the total are NaN, as the released program prints on current PyTorch; the
    gradients do not change.
    """
    inert = (released_attention_term, temperature, positive_targets_only)
    distilled = batch.pairs("attention_{}_inert", *inert)
    distilled["symmetric"] = symmetric_guiding(batch.student[0], batch.teacher[0])
    return batch.total(distilled, alpha)


OBJECTIVES: dict[str, Callable[..., Terms]] = {
    "supervised": supervised,
    "logit_kd": logit_kd,
    "attention_only": partial(kdas, guiding_weight=0.0, guide="attended"),
    "symmetric_only": partial(kdas, attention_weight=0.0),
    "kdas": kdas,
    "released": released,
    "channel_wise_kd": channel_wise_kd,
    "attention_transfer": attention_transfer,
}


def hyperparameters_of(name: str) -> dict[str, float | bool | str]:
    """The keywords that an objective takes, with their defaults; a UserError for other names."""
    if name not in OBJECTIVES:
        raise UserError(f'There is no objective "{name}"; choose one of {", ".join(OBJECTIVES)}.')
    fixed = getattr(OBJECTIVES[name], "keywords", {})
    parameters = inspect.signature(OBJECTIVES[name]).parameters.values()
    free = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed]
    return {p.name: p.default for p in free} | {"weighted_bce": False}


def objective(name: str, **hyperparameters: float | bool | str) -> Callable[..., Terms]:
    """The objective of that name with the keywords of `hyperparameters_of`, else a UserError.

    Returns:
        A function of student maps (P1, P2), teacher maps (P1, P2) and mask (B, 1, H, W) in [0, 1],
        which gives a dictionary of scalars: the terms by name, and ``total``. Computed in float32
        even under autocast. A hyperparameter given with the call holds for that call.
    """
    known = hyperparameters_of(name)
    if unknown := ", ".join(sorted(hyperparameters.keys() - known.keys())):
        takes = ", ".join(known)
        raise UserError(f'Objective "{name}" has no hyperparameter {unknown}; it takes {takes}.')

    def call(student: Maps, teacher: Maps | None, mask: Tensor, **now: float | bool | str) -> Terms:
        if teacher is None and name != "supervised":
            raise UserError(f'Objective "{name}" distils from a teacher, and none was given.')
        chosen = known | hyperparameters | now
        weighted = bool(chosen.pop("weighted_bce"))
        with torch.autocast(device_type=mask.device.type, enabled=False):
            first, second = (structure_loss(s, mask, weighted) for s in student)
            structure = {"structure_1": first, "structure_2": second}
            # The supervised objective never looks at its teacher.
            return OBJECTIVES[name](Batch(structure, student, teacher or student), **chosen)

    return call
