"""Networks: the Polyp-PVT decoder on any timm pyramid, and their weight files (chapters 2, 3)."""

from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.models.imagenet import load_imagenet_backbone
from kdas_core.models.polyp_pvt import WIDTH, PolypPVT
from kdas_core.models.weights import load_weights, metadata_of, save_weights

__all__ = ["PolypPVT", "build", "count_parameters", "freeze", "load_weights"]
__all__ += ["open_network", "save_weights", "teacher_logits"]

Net = TypeVar("Net", bound=nn.Module)
BACKBONE_OF_ROLE = {"teacher": "pvt_v2_b2", "student": "pvt_v2_b0"}


def build(
    role: str, weights: str | Path | None = None, pretrained=False, backbone: str = "", width=0
) -> PolypPVT:
    """Build the teacher or the student.

    Args:
        role: ``"teacher"`` (PVTv2-B2, 25,107,604 parameters) or ``"student"`` (B0, 3,650,740).
        weights: a ``.safetensors`` file of ours or a released ``.pth``; pickled code is refused.
        pretrained: start the backbone from ImageNet weights; ignored where ``weights`` is given.
        backbone: another timm network, with features at strides 4, 8, 16 and 32.
        width: channels inside the decoder; else what ``weights`` says, and 32.

    Returns a network in training mode: ``net(images) -> (P1, P2)``, logits (B, 1, H, W). A
    UserError for an unknown role or backbone, and for weights as `load_weights`.
    """
    if role not in BACKBONE_OF_ROLE:
        known = ", ".join(BACKBONE_OF_ROLE)
        raise UserError(f'There is no network called "{role}"; choose one of {known}.')
    said = metadata_of(weights).get("width") if weights else WIDTH
    width = width or (int(said or 0) if said in range(1, 1025) else WIDTH)
    net = PolypPVT(backbone or BACKBONE_OF_ROLE[role], width)
    if weights:
        load_weights(net, weights)
    elif pretrained:
        load_imagenet_backbone(net.backbone)
    return net


def open_network(
    weights: str | Path, role: str = "", backbone: str = "", size: int = 0
) -> tuple[PolypPVT, int]:
    """The frozen network that a file is of, and the image size (pixels) that it was trained at.

    A file of ours says both. A released one is the student's or the teacher's, whichever fits, and
    352. A UserError where what is given contradicts the file, and as :func:`build`.
    """
    about = metadata_of(weights)
    for name, given in (("role", role), ("backbone", backbone), ("size", size)):
        if given and about.get(name, given) != given:
            fact = f"{weights} was trained with {name} {about[name]}, and {given} is asked for"
            raise UserError(f"{fact}; leave that out.")
    role, backbone = role or about.get("role", ""), backbone or about.get("backbone", "")
    size = size or about.get("size", 352)
    if type(size) is not int or size < 32 or size % 32:
        raise UserError(f"size is {size}; the networks need a multiple of 32, such as 352.")
    if not role and not backbone:
        with suppress(UserError):
            return freeze(build("teacher", weights)), size
    return freeze(build(role or "student", weights, backbone=backbone)), size


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(p.numel() for p in module.parameters())


def freeze(net: Net) -> Net:
    """Make a network a teacher: evaluation mode, and no parameter asks for a gradient."""
    return net.eval().requires_grad_(False)


@torch.no_grad()
def teacher_logits(teacher: nn.Module, images: Tensor, features: bool = False):
    """The teacher's logit maps (P1, P2), each (B, 1, H, W), for normalised images (B, 3, H, W),
    without the memory and the bookkeeping of a graph; with ``features`` these and its features.
    """
    return teacher(images, features=True) if features else teacher(images)
