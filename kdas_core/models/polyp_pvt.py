"""Polyp-PVT: three small decoder modules on top of a pyramid backbone.

Source: Dong et al., Polyp-PVT, arXiv 2108.06932. Written from the paper's description; sizes and
order of operations agree with the released weights (``tests/test_models.py``).

For an image of H × W pixels the backbone gives four feature maps

    f1 (B, C1, H/4, W/4)   f2 (B, C2, H/8, W/8)   f3 (B, C3, H/16, W/16)   f4 (B, C4, H/32, W/32)
"""

from typing import cast

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD
from timm.models import FeatureInfo
from torch import Tensor, nn

from kdas_core import UserError

STRIDES = [4, 8, 16, 32]
WIDTH = 32  # channels of every map inside the decoder


def upsample(x: Tensor, factor: int, align_corners=True) -> Tensor:
    """Bilinear upsampling; by default the corner pixels of input and output coincide."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=align_corners)


class ConvBN(nn.Sequential):
    """Convolution without bias, then batch normalisation; no activation, as released."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)


class Backbone(nn.Module):
    """A timm network that returns its features at strides 4, 8, 16 and 32.

    All networks are fed one batch, normalised with ImageNet's mean and standard deviation. Where a
    backbone was trained under others (EfficientNet-Lite: 0.5 and 0.5), its input is converted here.
    """

    def __init__(self, name: str):
        super().__init__()
        try:
            self.body = timm.create_model(name, pretrained=False, features_only=True)
        except RuntimeError as error:
            raise UserError(f'timm cannot build a feature pyramid from "{name}": {error}') from None
        strides = cast(FeatureInfo, self.body.feature_info).reduction()
        if not set(STRIDES) <= set(strides):
            need = f"the decoder needs {STRIDES}. Choose a pyramid network such as pvt_v2_b0."
            raise UserError(f'The backbone "{name}" has features at strides {strides}; {need}')
        if strides != STRIDES:
            deepest = {stride: i for i, stride in enumerate(strides)}  # the last one counts
            wanted = tuple(deepest[stride] for stride in STRIDES)
            self.body = timm.create_model(name, features_only=True, out_indices=wanted)
        self.name = name
        self.channels: list[int] = cast(FeatureInfo, self.body.feature_info).channels()
        config = timm.get_pretrained_cfg(name)
        mean, std = (config.mean, config.std) if config else (IMAGENET_MEAN, IMAGENET_STD)
        scale = [ours / theirs for ours, theirs in zip(IMAGENET_STD, std)]
        shift = [(ours - theirs) / s for ours, theirs, s in zip(IMAGENET_MEAN, mean, std)]
        affine = torch.tensor([scale, shift]).view(2, 3, 1, 1)
        self.register_buffer("affine", affine, persistent=False)
        self.converts = tuple(mean) != IMAGENET_MEAN or tuple(std) != IMAGENET_STD

    def forward(self, images: Tensor) -> list[Tensor]:
        scale, shift = cast(Tensor, self.affine)
        return self.body(images * scale + shift if self.converts else images)


class CascadedFusion(nn.Module):
    """Cascaded fusion module: gathers the polyp's semantics and position from the deep features.

    f4 gates f3 and f2 by multiplication, f3 gates f2; the gated maps are then joined from deep to
    shallow. Inputs f2, f3, f4 with 32 channels each; output (B, 32, H/8, W/8).
    """

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.gate_34 = ConvBN(width, width, 3)
        self.gate_24 = ConvBN(width, width, 3)
        self.gate_23 = ConvBN(width, width, 3)
        self.carry_4 = ConvBN(width, width, 3)
        self.carry_34 = ConvBN(2 * width, 2 * width, 3)
        self.join_34 = ConvBN(2 * width, 2 * width, 3)
        self.join_234 = ConvBN(3 * width, 3 * width, 3)
        self.squeeze = ConvBN(3 * width, width, 3)

    def forward(self, f2: Tensor, f3: Tensor, f4: Tensor) -> Tensor:
        gated_3 = self.gate_34(upsample(f4, 2)) * f3
        gated_2 = self.gate_24(upsample(upsample(f4, 2), 2)) * self.gate_23(upsample(f3, 2)) * f2
        deep = self.join_34(torch.cat([gated_3, self.carry_4(upsample(f4, 2))], dim=1))
        every = self.join_234(torch.cat([gated_2, self.carry_34(upsample(deep, 2))], dim=1))
        return self.squeeze(every)


class ChannelAttention(nn.Module):
    """Weight of each channel in (0, 1), from its mean and maximum over positions, (B, C, 1, 1)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 16, 1)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summaries = (x.mean(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True))
        return torch.sigmoid(sum(self.expand(F.relu(self.squeeze(s))) for s in summaries))


class SpatialAttention(nn.Module):
    """Weight of each position in (0, 1), from mean and maximum over channels, (B, 1, H, W)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(summary))


class CamouflageIdentification(nn.Module):
    """Camouflage identification module: channel, then spatial attention on f1, the finest map."""

    def __init__(self, channels: int):
        super().__init__()
        self.channel = ChannelAttention(channels)
        self.spatial = SpatialAttention()

    def forward(self, f1: Tensor) -> Tensor:
        f1 = self.channel(f1) * f1
        return self.spatial(f1) * f1


class SimilarityAggregation(nn.Module):
    """Similarity aggregation module: a graph convolution puts fine detail into the deep feature.

    1. ``project`` maps the deep feature to 16 channels; the detail map, as a soft mask, says where
    anchors are taken: 2. the inner 4 × 4 cells of a pooled 6 × 6 grid. 3. Every position is
    assigned to these graph nodes by a softmax over similarity. 4. Their states exchange information
    by one graph convolution and are handed back to the positions.

    Inputs: deep (B, 32, H/8, W/8), detail (B, 32, h, w); output (B, 32, H/8, W/8).
    """

    def __init__(self, width: int = WIDTH, states: int = 16, grid: int = 4):
        super().__init__()
        self.grid = grid
        self.state = nn.Conv2d(width, states, 1)
        self.project = nn.Conv2d(width, states, 1)
        self.mix_nodes = nn.Conv1d(grid * grid, grid * grid, 1)
        self.mix_states = nn.Conv1d(states, states, 1, bias=False)
        self.extend = nn.Conv2d(states, width, 1, bias=False)

    def forward(self, deep: Tensor, detail: Tensor) -> Tensor:
        detail = F.interpolate(detail, size=deep.shape[-2:], mode="bilinear", align_corners=True)
        edge = torch.softmax(detail, dim=1)[:, 1:2]  # the channel that the release reads as edge
        projected = self.project(deep)
        pooled = F.adaptive_avg_pool2d(projected * edge, self.grid + 2)
        anchors = pooled[:, :, 1:-1, 1:-1].flatten(2)  # (B, states, nodes)
        similarity = anchors.transpose(1, 2) @ projected.flatten(2)
        assignment = torch.softmax(similarity, dim=1)  # (B, nodes, pixels)
        nodes = self.state(deep).flatten(2) @ assignment.transpose(1, 2)  # (B, states, nodes)
        mixed = self.mix_nodes(nodes.transpose(1, 2)).transpose(1, 2) - nodes
        nodes = F.relu(self.mix_states(mixed))
        return deep + self.extend((nodes @ assignment).unflatten(2, deep.shape[-2:]))


class PolypPVT(nn.Module):
    """Backbone and decoder. ``net(images) -> (P1, P2)``, two logit maps at the images' size; with
    ``features=True`` these and a dictionary: ``stage1`` to ``stage4`` of the backbone, and
    ``fused``, the decoder's map (B, 32, H/8, W/8) from which P1 is read.

    P1 comes from the cascaded fusion, P2 from the similarity aggregation after it. The prediction
    is ``sigmoid(P1 + P2)``. ``width``: channels inside the decoder. A UserError where the backbone
    is no network of timm with features at strides 4, 8, 16 and 32, or height or width is not a
    multiple of 32.

    >>> net = PolypPVT("pvt_v2_b0").eval()
    >>> p1, p2 = net(torch.zeros(1, 3, 64, 64))
    >>> tuple(p2.shape)
    (1, 1, 64, 64)
    """

    def __init__(self, backbone: str, width: int = WIDTH):
        super().__init__()
        self.backbone = Backbone(backbone)
        c1, c2, c3, c4 = self.backbone.channels
        self.reduce1 = ConvBN(c1, width, 1)
        self.reduce2 = ConvBN(c2, width, 1)
        self.reduce3 = ConvBN(c3, width, 1)
        self.reduce4 = ConvBN(c4, width, 1)
        self.fusion = CascadedFusion(width)
        self.camouflage = CamouflageIdentification(c1)
        self.similarity = SimilarityAggregation(width)
        self.head1 = nn.Conv2d(width, 1, 1)
        self.head2 = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor, features: bool = False):
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            need = "the network needs a height and a width divisible by 32"
            raise UserError(f"Images are {height} × {width}; {need}.")
        f1, f2, f3, f4 = self.backbone(images)
        deep = self.fusion(self.reduce2(f2), self.reduce3(f3), self.reduce4(f4))
        joined = self.similarity(deep, self.reduce1(self.camouflage(f1)))
        maps = upsample(self.head1(deep), 8, False), upsample(self.head2(joined), 8, False)
        if not features:
            return maps
        return maps, {"stage1": f1, "stage2": f2, "stage3": f3, "stage4": f4, "fused": deep}
