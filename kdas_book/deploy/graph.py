"""The network with all that `kdas predict` does around it, as one graph of plain operations.

Runtimes resize, each with a rounding of its own: ONNX Runtime's uint8 ``Resize`` is a grey level
off in one pixel of a thousand, and that can move a probability by more than 0.001. Here an image is
resized by products of whole numbers, which every runtime computes alike.
"""

import copy

import torch
from timm.models.pvt_v2 import MlpWithDepthwiseConv
from torch import Tensor, nn

from kdas_core.data.dataset import MEAN, STD
from kdas_core.models import PolypPVT

# PyTorch resizes uint8 with weights of 15 bits: as many binary places as fit, 22 at most.
_PLACES = torch.exp2(torch.arange(23, dtype=torch.float64))
_LARGEST = 2**15 - 0.5


class ImageToProbability(nn.Module):
    """``graph(images) -> probability``: uint8 RGB (B, H, W, 3) of any size, as decoders of images
    and videos give them, to float32 (B, H, W) in [0, 1], `kdas_core.inference.probability` of each.

    Args:
        net: a network in evaluation mode, ``net(images) -> (P1, P2)``.
        size: side of the square that it sees.
    """

    mean: Tensor
    std: Tensor
    places: Tensor

    def __init__(self, net: PolypPVT, size: int):
        super().__init__()
        self.net: PolypPVT = net
        self.size = size
        self.register_buffer("mean", MEAN.clone(), persistent=False)
        self.register_buffer("std", STD.clone(), persistent=False)
        self.register_buffer("places", _PLACES.clone(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        p1, p2 = self.net((self.resized(images) / 255 - self.mean) / self.std)
        logits = between((p1 + p2)[:, 0], height, self.size, dim=1)
        return torch.sigmoid(between(logits, width, self.size, dim=2))

    def resized(self, images: Tensor) -> Tensor:
        """`kdas_core.data.dataset.resize_image` of each, grey levels as float32 (B, 3, S, S).

        First along rows, then along columns, rounded in between as PyTorch does. Pixels are taken
        less 128, so that float32 holds the sums exactly up to images of eight times the size.
        """
        height, width = images.shape[1:3]
        along, down = (shares(n, self.size, self.places) for n in (width, height))
        pixels = images.permute(0, 3, 1, 2).float() - 128
        narrow = _grey(pixels @ along.T + 128 * along.sum(1)) - 128
        return _grey(down @ narrow + (128 * down.sum(1))[:, None])


class _Convolved(nn.Module):
    """PVTv2's MLP with 1 × 1 convolutions in the place of its linear layers: the same numbers.

    Between the two lies a depthwise convolution. It takes channels first, linear layers take them
    last, so timm transposes the 4 to 8 times as many channels inside; here it is those at the ends.
    """

    def __init__(self, mlp: MlpWithDepthwiseConv):
        super().__init__()
        self.layers = nn.Sequential(_conv(mlp.fc1), mlp.relu, mlp.dwconv, mlp.act, _conv(mlp.fc2))

    def forward(self, tokens: Tensor, feat_size: tuple[int, int]) -> Tensor:
        maps = tokens.transpose(1, 2).unflatten(2, feat_size)
        return self.layers(maps).flatten(2).transpose(1, 2)


def _conv(linear: nn.Linear) -> nn.Conv2d:
    convolution = nn.Conv2d(linear.in_features, linear.out_features, 1)
    convolution.load_state_dict({"weight": linear.weight[..., None, None], "bias": linear.bias})
    return convolution


def convolved(graph: ImageToProbability) -> ImageToProbability:
    """The same graph, faster where transposing costs time, as it does in ONNX Runtime."""
    graph = copy.deepcopy(graph)
    for block in list(graph.modules()):
        mlp = getattr(block, "mlp", None)
        if isinstance(mlp, MlpWithDepthwiseConv):
            block.mlp = _Convolved(mlp)
    return graph.eval().requires_grad_(False)


def _grey(levels: Tensor) -> Tensor:
    return torch.floor(levels + 0.5).clamp(0, 255)


def shares(n: int, size: int, places: Tensor) -> Tensor:
    """How much each of ``n`` pixels counts in each of ``size``, float32 (size, n): a triangle, as
    wide as the larger pixel, in binary fractions. Its corners are whole numbers: in floating point
    a runtime may round a weight otherwise.
    """
    out, pixels = 2 * torch.arange(size) + 1, 2 * torch.arange(n) + 1  # centres, times 2n, 2·size
    distance = (pixels * size - out[:, None] * n).abs()
    triangle = (2 * torch.sym_max(n, size) - distance).clamp(min=0).double()  # type: ignore
    weights = triangle / triangle.sum(1, keepdim=True)
    one = torch.where(weights.max() * places < _LARGEST, places, 1.0).max()
    return (torch.floor(weights * one + 0.5) / one).float()


def between(maps: Tensor, n: int, size: int, dim: int) -> Tensor:
    """Maps with ``size`` rows or columns (``dim``) at ``n``, each between the two nearest of them,
    weighted as PyTorch's bilinear interpolation does.
    """
    step = torch.full((), size, dtype=torch.float32) / n
    places = ((torch.arange(n, dtype=torch.float32) + 0.5) * step - 0.5).clamp(min=0)
    first = places.long()
    second = (first + 1).clamp(max=size - 1)
    share = (places - first).unsqueeze(-1) if dim == 1 else places - first
    return maps.index_select(dim, first) * (1 - share) + maps.index_select(dim, second) * share
