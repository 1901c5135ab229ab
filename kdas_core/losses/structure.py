"""Structure loss: binary cross-entropy plus an overlap term that looks harder at edges."""

import torch
import torch.nn.functional as F
from torch import Tensor


def edge_weights(mask: Tensor) -> Tensor:
    """``1 + 5·|mean of the mask in a 31 × 31 window − mask|``: 1 inside flat regions, up to 6 at
    an edge, for a mask (B, 1, H, W) in [0, 1].

    Source: Wei et al., F3Net, arXiv 1911.11445, equation 4 (window 31, factor 5 as in PraNet and
    Polyp-PVT).
    """
    # A mean over columns of means over rows: the same window for 62 additions instead of 961.
    rows = F.avg_pool2d(mask, (31, 1), stride=1, padding=(15, 0))
    window = F.avg_pool2d(rows, (1, 31), stride=1, padding=(0, 15))
    return 1 + 5 * (window - mask).abs()


def structure_loss(logits: Tensor, mask: Tensor, weighted_bce: bool = False) -> Tensor:
    """Cross-entropy plus an IoU loss weighted by `edge_weights`, mean over the batch: a scalar ≥ 0.

    The papers weight the cross-entropy as well; the released programs average it to one number
    before the weights are applied, so the weights cancel. That is the default here.

    Args:
        logits, mask: of one shape, (B, 1, H, W), else a ValueError; mask in [0, 1], hard or soft.
        weighted_bce: weight the cross-entropy too, the formula of the papers.

    Source: F3Net, arXiv 1911.11445, equations 3-6; as used by PraNet (arXiv 2006.11392), Polyp-PVT
    and KDAS.

    >>> mask = torch.zeros(1, 1, 32, 32); mask[..., 8:24, 8:24] = 1
    >>> bool(structure_loss(20 * mask - 10, mask) < structure_loss(10 - 20 * mask, mask))
    True
    """
    if logits.shape != mask.shape:
        shapes = f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)}"
        raise ValueError(f"{shapes} must have one shape.")
    logits, mask = logits.float(), mask.float()
    weights = edge_weights(mask)
    bce = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    if weighted_bce:
        bce = (weights * bce).sum(dim=(2, 3)) / weights.sum(dim=(2, 3))
    probability = torch.sigmoid(logits)
    intersection = (probability * mask * weights).sum(dim=(2, 3))
    total = ((probability + mask) * weights).sum(dim=(2, 3))
    iou = 1 - (intersection + 1) / (total - intersection + 1)
    return bce.mean() + iou.mean()
