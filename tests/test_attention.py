"""What else is called attention: a backbone's own, its rollout, and Grad-CAM."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kdas_book.interpretability import attention_rollout, backbone_attention, grad_cam
from kdas_core.models import build


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = build("student").eval()
    for parameter in net.parameters():  # an untrained PVT attends to all alike; make it choose
        if parameter.dim() > 1:
            parameter.data *= 3
    return net


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_the_weights_are_those_that_the_blocks_use(net, images):
    """Put back into the block, they give the block's own output."""
    blocks = [m for m in net.backbone.modules() if type(m).__name__ == "Attention"]
    seen = []
    hooks = [
        b.register_forward_hook(lambda block, given, out: seen.append((block, given, out)))
        for b in blocks
    ]
    weights = backbone_attention(net, images)
    for hook in hooks:
        hook.remove()
    assert len(weights) == len(blocks) == 8
    for (block, (x, (height, width)), out), a in zip(seen, weights):
        keys = x
        if block.sr is not None:
            keys = block.norm(block.sr(x.mT.reshape(2, -1, height, width)).flatten(2).mT)
        values = (
            block.kv(keys)[..., block.dim :].unflatten(2, (block.num_heads, -1)).transpose(1, 2)
        )
        torch.testing.assert_close(
            block.proj((a @ values).transpose(1, 2).flatten(2)), out, atol=1e-4, rtol=1e-4
        )
    assert [tuple(a.shape[1:]) for a in weights[::2]] == [
        (1, 384, 6),
        (2, 96, 6),
        (5, 24, 6),
        (8, 6, 6),
    ]


def test_rollout_hands_out_shares_and_is_the_product_written_out(net, images):
    rolled = attention_rollout(net, images)
    assert rolled.shape == (2, 6, 16, 24)
    torch.testing.assert_close(rolled.sum(dim=(2, 3)), torch.ones(2, 6))
    assert rolled.min() >= 0
    weights = [a.mean(dim=1) for a in backbone_attention(net, images)]

    def members(height, width, factor):
        """(cells, positions): which positions a cell of factor × factor stands for, in equal shares."""
        cells = torch.eye(height * width).unflatten(1, (height, width))[:, None]
        return F.interpolate(cells, scale_factor=factor).flatten(1) / factor**2

    product = torch.eye(6)
    for stage, side in zip((3, 2, 1, 0), (1, 2, 4, 8)):
        for a in (weights[2 * stage + 1][0], weights[2 * stage][0]):
            full = a @ members(2, 3, side)
            product = product @ (full + torch.eye(len(full))) / 2
        if stage:
            product = product @ members(2 * side, 3 * side, 2)
    torch.testing.assert_close(rolled[0].flatten(1), product, atol=1e-6, rtol=1e-4)


def test_a_network_without_queries_and_keys_is_told_so(images):
    with pytest.raises(ValueError, match="resnet18 has no attention"):
        backbone_attention(build("teacher", backbone="resnet18").eval(), images)


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "resnet18"])
def test_grad_cam_is_the_formula_of_the_paper(backbone, images):
    torch.manual_seed(0)
    net = build("student", backbone=backbone).eval().requires_grad_(False)
    features = [f.requires_grad_() for f in net.backbone(images)]
    net.backbone.forward, forward = lambda _: features, net.backbone.forward
    logits = sum(net(images))
    net.backbone.forward = forward
    found = (logits > 0).float()
    if not found[0].any():
        found[0] = 1
    (gradient,) = torch.autograd.grad((logits[0] * found[0]).sum(), features[3])
    expected = F.relu((gradient.mean(dim=(2, 3), keepdim=True) * features[3]).sum(dim=1))
    torch.testing.assert_close(grad_cam(net, images)[0], expected[0], atol=1e-4, rtol=1e-4)
    assert grad_cam(net, images).shape == (2, 2, 3)
