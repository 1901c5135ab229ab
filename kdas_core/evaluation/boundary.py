"""How far apart two outlines are, in pixels of the original image: what overlap cannot say.

Both measures act on the map cut at one half, cut and gt: bool, (H, W).
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import ndimage

from kdas_core.evaluation.conventions import RELEASED, Convention
from kdas_core.evaluation.metrics import check_pair

SURFACE_METRICS = ("hd95", "boundary_iou")
"""Names, in the order in which tables show them."""


def surface_metrics(
    pred: np.ndarray, gt: np.ndarray, strict: bool = False, convention: Convention = RELEASED
) -> dict[str, float]:
    """``{"hd95": …, "boundary_iou": …}`` of one grey map (uint8) and its mask (bool), (H, W)."""
    check_pair(pred, gt)
    cut = convention.cut(pred)
    return {"hd95": hausdorff_95(cut, gt, strict), "boundary_iou": boundary_iou(cut, gt)}


def hausdorff_95(cut: np.ndarray, gt: np.ndarray, strict: bool = False) -> float:
    """95 % of the points of each outline lie at most this far from the other outline; the larger of
    the two, in pixels, ≥ 0 (Euclidean, by MONAI). Less is better.

    Two empty masks agree: 0. Where one is empty no distance exists; the image's diagonal stands for
    it, so that missing a polyp costs (``strict``: NaN).
    """
    if not cut.any() and not gt.any():
        return 0.0
    if not cut.any() or not gt.any():
        return float("nan") if strict else float(np.hypot(*gt.shape))
    # Here, since PyTorch and MONAI take seconds to import and most evaluations do without.
    import torch
    from monai.metrics import compute_hausdorff_distance

    # MONAI warns of an argument that it passes to itself.
    warnings.filterwarnings("ignore", ".*always_return_as_numpy.*", FutureWarning)
    a, b = (torch.from_numpy(mask)[None, None] for mask in (cut, gt))
    return float(compute_hausdorff_distance(a, b, include_background=True, percentile=95))


def boundary_iou(cut: np.ndarray, gt: np.ndarray) -> float:
    """IoU, in [0, 1], of the two rims: of each mask the pixels within 2 % of the image's diagonal
    of its outline. A small polyp is all rim. Two empty masks agree: 1.

    Source: Cheng et al., Boundary IoU, CVPR 2021; distances are counted in steps of 3×3
    neighbourhoods, and what lies beyond the image counts as background.

    >>> mask = np.zeros((100, 100), bool); mask[20:80, 20:80] = True
    >>> shifted = np.roll(mask, 3, axis=1)
    >>> round(boundary_iou(mask, mask), 2), round(boundary_iou(shifted, mask), 2)
    (1.0, 0.33)
    """
    width = max(1, round(0.02 * float(np.hypot(*gt.shape))))
    inner = [ndimage.binary_erosion(mask, np.ones((3, 3)), width) for mask in (cut, gt)]
    rims = cut & ~inner[0], gt & ~inner[1]
    union = int((rims[0] | rims[1]).sum())
    return int((rims[0] & rims[1]).sum()) / union if union else 1.0
