"""The objectives: named sums of the losses. Each gives its terms by name, and ``total``.

    S_k, T_k   the student's and the teacher's k-th logit map, k = 1, 2
    St         structure loss of S₁ and S₂ against the mask, added
    A(·)       the attention of a map with itself, ``kdas_core.attention.self_attention``
    AS(·,·)    attention supervision, with its τ² inside
    SG(·,·)    symmetrical guiding
    KD, ZKD    logit distillation, of standardised logits
    MSE        mean squared distance
    CW, AT     channel-wise distillation, attention transfer
    PW, RA     pairwise affinity, region affinity
    F_k, D     the backbone's k-th feature map, k = 1 … 4, and the decoder's fused map

    supervised         St
    attention_only     (1−α)·St + α·a·[AS(S₁,T₁) + AS(S₂,T₂)]
    symmetric_only     (1−α)·St + α·g·SG(A(S₂),A(T₂))
    kdas               (1−α)·St + α·{a·[AS(S₁,T₁) + AS(S₂,T₂)] + g·SG(A(S₂),A(T₂))}  (the figure)
    released           (1−α)·St + α·{R₁ + R₂ + SG(S₁,T₁)}                   (the released program)
    logit_kd           (1−α)·St + α·[KD(S₁,T₁) + KD(S₂,T₂)]
    channel_wise_kd    (1−α)·St + α·a·[CW(S₁,T₁) + CW(S₂,T₂)]
    attention_transfer (1−α)·St + α·a·[AT(S₁,T₁) + AT(S₂,T₂)]
    mse                (1−α)·St + α·a·[MSE(S₁,T₁) + MSE(S₂,T₂)]
    standardised_kd    (1−α)·St + α·a·[ZKD(S₁,T₁) + ZKD(S₂,T₂)]

and, as their papers have it, on features:

    fitnet                      (1−α)·St + α·a·MSE(D)
    channel_wise_features       (1−α)·St + α·a·CW(D)
    attention_transfer_features (1−α)·St + α·a·Σ AT(F_k)
    pairwise                    (1−α)·St + α·a·PW(D)
    region_affinity             (1−α)·St + α·a·RA(D, mask)

With ``guide="raw"`` SG sees S₂ and T₂ themselves: our earlier, mistaken reading of the figure.
R_k is the released attention term, whose gradient is zero.

Every objective takes ``control``, which puts something else in the place of the teacher's maps:
``"oracle"`` the mask itself, as logits of ±4; ``"blurred"`` the same from a blurred mask;
``"shuffled"`` what the teacher says of the batch's image before. Features can only be shuffled.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from kdas_core import UserError
from kdas_core.attention import self_attention
from kdas_core.losses.attention_supervision import attention_supervision, released_attention_term
from kdas_core.losses.attention_transfer import attention_transfer as transfer
from kdas_core.losses.bernoulli_distillation import bernoulli_distillation
from kdas_core.losses.channel_wise_distillation import channel_wise_distillation
from kdas_core.losses.feature_matching import feature_matching
from kdas_core.losses.pairwise_affinity import pairwise_affinity
from kdas_core.losses.region_affinity import region_affinity
from kdas_core.losses.standardised_distillation import standardised_distillation
from kdas_core.losses.structure import structure_loss
from kdas_core.losses.symmetric_guiding import symmetric_guiding

CHOICES: dict[str, tuple[str, ...]] = {"guide": ("attended", "raw"), "reduction": ("sum", "mean")}
CHOICES["control"] = ("none", "oracle", "blurred", "shuffled")
SURE = 4.0  # the logit of a control's polyp, a probability of 0.98
STAGES = ("stage1", "stage2", "stage3", "stage4")
Maps = tuple[Tensor, Tensor]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Output:
    """What a network says of a batch: its logit maps (P1, P2), and, on request, its features."""

    maps: Maps
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What an objective adds up: the structure losses of both student maps, outputs and mask."""

    structure: Terms
    student: Output
    teacher: Output
    mask: Tensor

    def pairs(self, term: str, loss: Callable[..., Tensor], *hyperparameters) -> Terms:
        """A loss on the first pair of maps and on the second, by name."""
        pairs = enumerate(zip(self.student.maps, self.teacher.maps), start=1)
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


def on_maps(batch: Batch, *, loss, term, alpha=0.3, attention_weight=1.0) -> Terms:
    """A rival on both maps. A term of attention transfer is at most 2: its weight may be large."""
    return batch.total(batch.pairs(term, loss), alpha, attention_weight)


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
        second = batch.student.maps[1], batch.teacher.maps[1]
        seen = [self_attention(P)[:, None] if guide == "attended" else P for P in second]
        terms["symmetric"] = symmetric_guiding(*seen)
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
    distilled["symmetric"] = symmetric_guiding(batch.student.maps[0], batch.teacher.maps[0])
    return batch.total(distilled, alpha)


def standardised_kd(batch: Batch, *, temperature=2.0, alpha=0.3, attention_weight=1.0) -> Terms:
    """Logit distillation that does not ask for the size of logits, on both maps."""
    distilled = batch.pairs("standardised_{}", standardised_distillation, temperature)
    return batch.total(distilled, alpha, attention_weight)


def on_features(
    batch: Batch, *, loss, names=("fused",), masked=False, alpha=0.3, attention_weight=1.0
) -> Terms:
    """A rival as published, on the features of these names."""
    more = {"mask": batch.mask} if masked else {}
    of_student, of_teacher = batch.student.features, batch.teacher.features
    distilled = {name: loss(of_student[name], of_teacher[name], **more) for name in names}
    return batch.total(distilled, alpha, attention_weight)


OBJECTIVES: dict[str, Callable[..., Terms]] = {
    "supervised": supervised,
    "logit_kd": logit_kd,
    "attention_only": partial(kdas, guiding_weight=0.0, guide="attended"),
    "symmetric_only": partial(kdas, attention_weight=0.0),
    "kdas": kdas,
    "released": released,
    "channel_wise_kd": channel_wise_kd,
    "attention_transfer": partial(on_maps, loss=transfer, term="transfer_{}"),
    "mse": partial(on_maps, loss=feature_matching, term="mse_{}"),  # the control for guiding
    "standardised_kd": standardised_kd,
}
# Those for which the networks must hand out their features.
ON_FEATURES: dict[str, Callable[..., Terms]] = {
    "fitnet": partial(on_features, loss=feature_matching),
    "channel_wise_features": partial(
        on_features, loss=partial(channel_wise_distillation, temperature=4.0)
    ),
    "attention_transfer_features": partial(on_features, loss=transfer, names=STAGES),
    "pairwise": partial(on_features, loss=pairwise_affinity),
    "region_affinity": partial(on_features, loss=region_affinity, masked=True),
}
OBJECTIVES |= ON_FEATURES


def hyperparameters_of(name: str) -> dict[str, float | bool | str]:
    """The keywords that an objective takes, with their defaults; a UserError for other names."""
    if name not in OBJECTIVES:
        raise UserError(f'There is no objective "{name}"; choose one of {", ".join(OBJECTIVES)}.')
    fixed = getattr(OBJECTIVES[name], "keywords", {})
    parameters = inspect.signature(OBJECTIVES[name]).parameters.values()
    inner = {*fixed, "loss", "names", "masked"}
    free = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in inner]
    every: dict = {"weighted_bce": False}
    every |= {} if name == "supervised" else {"control": "none", "use_unlabelled": False}
    return {p.name: p.default for p in free} | every


def objective(name: str, **hyperparameters: float | bool | str) -> Callable[..., Terms]:
    """The objective of that name with the keywords of `hyperparameters_of`, else a UserError.

    Returns:
        A function of what student and teacher say, maps (P1, P2) or an :class:`Output` (objectives
        in ``ON_FEATURES`` need its features), and of a mask (B, 1, H, W) in [0, 1], which gives a
        dictionary of scalars: the terms by name, and ``total``. Computed in float32 even under
        autocast. A hyperparameter given with the call holds for that call. With ``use_unlabelled``
        an image whose mask is NaN has no part in the structure losses, all have one in the rest.
    """
    known = hyperparameters_of(name)
    if unknown := ", ".join(sorted(hyperparameters.keys() - known.keys())):
        takes = ", ".join(known)
        raise UserError(f'Objective "{name}" has no hyperparameter {unknown}; it takes {takes}.')
    _refuse_choices(name, hyperparameters)

    def call(student, teacher, mask: Tensor, **now: float | bool | str) -> Terms:
        if teacher is None and name != "supervised":
            raise UserError(f'Objective "{name}" distils from a teacher, and none was given.')
        _refuse_choices(name, now)
        chosen = known | hyperparameters | now
        weighted, control = bool(chosen.pop("weighted_bce")), str(chosen.pop("control", "none"))
        some_unlabelled = chosen.pop("use_unlabelled", False)
        with torch.autocast(device_type=mask.device.type, enabled=False):
            of_student = student if isinstance(student, Output) else Output(student)
            of_teacher = teacher if isinstance(teacher, Output) else Output(teacher or student)
            if name in ON_FEATURES and not (of_student.features and of_teacher.features):
                raise UserError(f'Objective "{name}" needs the networks\' features as well.')
            true, maps = mask, tuple(of_student.maps)
            if some_unlabelled:  # even a whole slice changes the order in which gradients add up
                labelled = ~mask.isnan().flatten(1).any(1)
                true, maps = mask[labelled], tuple(s[labelled] for s in maps)
            # Of no image there is no mean, but a zero that has a gradient.
            values = [structure_loss(s, true, weighted) if len(true) else s.sum() for s in maps]
            structure = dict(zip(("structure_1", "structure_2"), values))
            replaced = controlled(of_teacher, mask, control)
            # The supervised objective never looks at its teacher.
            return OBJECTIVES[name](Batch(structure, of_student, replaced, mask), **chosen)

    return call


def _refuse_choices(name: str, given: Mapping[str, object]) -> None:
    """A UserError for a word that is no choice, or a control that would change nothing."""
    for key in given.keys() & CHOICES.keys():
        of_features = key == "control" and name in ON_FEATURES
        choices = ("none", "shuffled") if of_features else CHOICES[key]
        if given[key] not in choices:
            raise UserError(f'"{name}": {key} is {given[key]!r}; choose {" or ".join(choices)}.')


def controlled(teacher: Output, mask: Tensor, control: str) -> Output:
    """The teacher's output with its maps, or all of it, replaced as ``control`` says."""
    if control == "none":
        return teacher
    if control == "shuffled":
        p1, p2 = (p.roll(1, dims=0) for p in teacher.maps)
        features = {name: f.roll(1, dims=0) for name, f in teacher.features.items()}
        return Output((p1, p2), features)
    if control == "blurred":
        mask = gaussian_blur(mask, [31, 31])
    logits = SURE * (2 * mask - 1)
    return Output((logits, logits), teacher.features)
