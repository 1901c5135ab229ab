"""How far apart two outlines are, of a mask and of a map cut at one half: both bool, (H, W)."""

import numpy as np
from scipy import ndimage

from kdas_core.evaluation.conventions import Array

SURFACE_METRICS = ("hd95", "boundary_iou")


def hausdorff_95(cut: Array, gt: Array, strict: bool = False) -> float:
    """95 % of the points of each outline lie at most this far from the other outline; the larger of
    the two, in pixels, ≥ 0 (Euclidean). Less is better. Two empty masks: 0; one: the image's
    diagonal, so that missing a polyp costs (``strict``: NaN).
    """
    if not cut.any() or not gt.any():
        one_is_empty = np.nan if strict else float(np.hypot(*gt.shape))
        return one_is_empty if cut.any() or gt.any() else 0.0
    lines = [mask & ~ndimage.binary_erosion(mask) for mask in (cut, gt)]
    to_lines = [ndimage.distance_transform_edt(~line) for line in lines]
    apart = to_lines[1][lines[0]], to_lines[0][lines[1]]
    return float(max(np.percentile(distances, 95) for distances in apart))


def boundary_iou(cut: Array, gt: Array) -> float:
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
