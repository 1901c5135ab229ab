"""Losses, pure functions of logit maps in one short file each, and their sums (chapters 5, 9)."""

from kdas_core.losses.attention_supervision import attention_supervision, released_attention_term
from kdas_core.losses.attention_transfer import attention_transfer
from kdas_core.losses.bernoulli_distillation import bernoulli_distillation
from kdas_core.losses.channel_wise_distillation import channel_wise_distillation
from kdas_core.losses.feature_matching import feature_matching
from kdas_core.losses.objectives import (
    OBJECTIVES,
    ON_FEATURES,
    Output,
    hyperparameters_of,
    objective,
)
from kdas_core.losses.pairwise_affinity import pairwise_affinity
from kdas_core.losses.region_affinity import region_affinity
from kdas_core.losses.standardised_distillation import standardised_distillation
from kdas_core.losses.structure import structure_loss
from kdas_core.losses.symmetric_guiding import symmetric_guiding

__all__ = [
    "OBJECTIVES",
    "ON_FEATURES",
    "Output",
    "attention_supervision",
    "attention_transfer",
    "bernoulli_distillation",
    "channel_wise_distillation",
    "feature_matching",
    "hyperparameters_of",
    "objective",
    "pairwise_affinity",
    "region_affinity",
    "released_attention_term",
    "standardised_distillation",
    "structure_loss",
    "symmetric_guiding",
]
