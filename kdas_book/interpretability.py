"""Where a network looks: its backbone's attention, attention rollout and Grad-CAM (chapter 4)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdas_core.models import PolypPVT


@torch.no_grad()
def backbone_attention(net: PolypPVT, images: Tensor) -> list[Tensor]:
    """The learned attention of a PVT v2 backbone: ``softmax(Q Kᵀ/√d)`` of every block, from shallow
    to deep, for normalised images (B, 3, H, W). timm's fused operation does not give it away, so
    queries and keys are computed once more. A ValueError where there are no such blocks.

    Returns:
        One tensor a block, (B, heads, N, K): N positions of the stage, row by row, and K = N/R²
            reduced ones that they look at.

    Source: Wang et al., PVT v2, arXiv 2106.13797; Vaswani et al., arXiv 1706.03762, equation 1.
    """
    found: list[Tensor] = []

    def look(block: Any, inputs: tuple) -> None:
        x, (height, width) = inputs
        keys = x
        if block.sr is not None:
            keys = block.norm(block.sr(x.mT.unflatten(2, (height, width))).flatten(2).mT)
        query, key = (
            y.unflatten(2, (block.num_heads, -1)).transpose(1, 2)
            for y in (block.q(x), block.kv(keys).chunk(2, dim=-1)[0])
        )
        found.append(torch.softmax(query @ key.mT * block.scale, dim=-1))

    blocks = [m for m in net.backbone.modules() if hasattr(m, "kv") and hasattr(m, "sr")]
    if not blocks:
        name = net.backbone.name
        raise ValueError(f"The backbone {name} has no attention with queries and keys of its own.")
    hooks = [block.register_forward_pre_hook(look) for block in blocks]
    try:
        net.backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def attention_rollout(net: PolypPVT, images: Tensor) -> Tensor:
    """From where each position of the deepest stage has its content, if attention alone moved it.

    Heads are averaged, the residual connection counts as half (``(A + I)/2``), and the blocks are
    multiplied from deep to shallow. Rollout was made for tokens that all see each other; here a
    reduced key hands its share on evenly to its R × R positions, and a position to 2 × 2 of the
    stage before, although the patches of PVT v2 overlap.

    Returns (B, H/32 · W/32, H/4, W/4): for each deepest position, row by row, shares that sum to 1.

    Source: Abnar and Zuidema, Quantifying Attention Flow, ACL 2020 (arXiv 2005.00928), section 3.
    """
    height, width = images.shape[-2] // 32, images.shape[-1] // 32
    shares = torch.eye(height * width, device=images.device)
    shares = shares.expand(len(images), -1, -1)  # (B, deepest, positions here)
    for weights in reversed(backbone_attention(net, images)):
        positions, keys = weights.shape[-2:]
        while positions > height * width:  # a shallower stage
            shares = spread(shares, height, width, 2)
            height, width = 2 * height, 2 * width
        factor = math.isqrt(positions // keys)
        seen = spread(shares @ weights.mean(dim=1), height // factor, width // factor, factor)
        shares = (shares + seen) / 2
    return shares.unflatten(2, (height, width))


def spread(shares: Tensor, height: int, width: int, factor: int) -> Tensor:
    """Shares of height × width cells, handed on evenly to factor × factor positions each."""
    cells = shares.unflatten(2, (height, width))
    return (F.interpolate(cells, scale_factor=factor) / factor**2).flatten(2)


def grad_cam(net: nn.Module, images: Tensor) -> Tensor:
    """Which deepest features argue for the polyp: Grad-CAM of the logits P1 + P2, summed over the
    pixels called polyp, or over all where there are none. (B, H/32, W/32), ≥ 0, in units of logits;
    only relations within an image mean something.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017 (arXiv 1610.02391), equations 1 and 2; for
    segmentation Vinogradova et al., arXiv 2002.11434.
    """
    from captum.attr import LayerGradCam  # only chapter 4 needs it

    def evidence(images: Tensor) -> Tensor:
        logits = sum(net(images)).flatten(1)
        found = (logits > 0).float()
        found = torch.where(found.any(dim=1, keepdim=True), found, 1.0)
        return (logits * found).sum(dim=1)

    images = images.clone().requires_grad_()
    explainer = LayerGradCam(evidence, net.reduce4)
    cam = explainer.attribute(images, attribute_to_layer_input=True, relu_attributions=True)
    return cam.detach().squeeze(1)
