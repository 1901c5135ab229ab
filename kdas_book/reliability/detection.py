"""Polyps found, and frames that raise a false alarm, of which Dice on polyps knows nothing."""

from collections.abc import Iterable

import cv2
import numpy as np
import pandas as pd
from scipy.special import expit

from kdas_core import UserError

OVERLAP = 0.3
SMALLEST = 0.001  # share of the picture, about a quarter of the smallest drawn polyps
CUTS = expit(np.linspace(-6, 14, 41))  # even steps of logit, up to where float32 ends


def spots(cut: np.ndarray) -> np.ndarray:
    """The connected parts of a bool map (H, W), numbered from 1 on, int (H, W); those that cover
    less than a thousandth of the picture are left out (0).
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cut.astype(np.uint8))
    kept = stats[:, cv2.CC_STAT_AREA] >= SMALLEST * cut.size
    kept[0] = False
    return (np.cumsum(kept) * kept)[labels]


def found(cut: np.ndarray, mask: np.ndarray, overlap: float = OVERLAP) -> np.ndarray:
    """Which polyps of a mask were found, bool, one for each: a spot of the cut map, bool (H, W),
    covers it with an IoU of at least ``overlap``. Polyps that touch are one.

    IoU rather than the spot's centre, which lies in the polyp of many a picture that is called
    polyp all over. Looser than the usual 0.5, since the question is whether the eye is led to the
    polyp; how well its outline was met is Dice's.

    >>> mask = np.zeros((40, 40), bool); mask[15:25, 15:25] = True
    >>> found(mask, mask), found(np.ones_like(mask), mask)
    (array([ True]), array([False]))
    """
    return _hits(spots(cut), spots(mask), overlap)


def _hits(ours: np.ndarray, true: np.ndarray, overlap: float) -> np.ndarray:
    """For each numbered part of ``true``: has a part of ``ours`` such an IoU with it?"""
    shape = (true.max() + 1, ours.max() + 1)
    both = np.bincount((true * shape[1] + ours).ravel(), minlength=shape[0] * shape[1])
    both = both.reshape(shape)
    union = both.sum(1, keepdims=True) + both.sum(0) - both
    iou = both[1:, 1:] / union[1:, 1:]
    return iou.max(axis=1, initial=0) >= overlap


def froc(
    probabilities: np.ndarray,
    masks: np.ndarray,
    without: np.ndarray,
    cuts: Iterable[float] = CUTS,
    overlap: float = OVERLAP,
) -> pd.DataFrame:
    """Polyps found against false alarms while the threshold moves.

    An alarm is a frame without polyp in which there is a spot. Frames are counted, not spots: one
    spot falls into several as the threshold rises, while a frame without an alarm stays without.

    Args:
        probabilities, masks: (N, H, W), of pictures with polyps. without: probabilities (M, H, W)
            of frames without. cuts: thresholds; a pixel is called polyp from its threshold on.

    Returns a row for each threshold, its index: ``found``, the share of polyps, and ``alarms``, per
    100 frames without polyp. UserError: there is no polyp, or no frame without.
    """
    polyps = [spots(mask) for mask in masks]
    if not len(without) or not any(each.any() for each in polyps):
        raise UserError("This needs a picture with a polyp and a frame without one.")
    rows = {}
    for cut in cuts:
        each = [_hits(spots(p >= cut), true, overlap) for p, true in zip(probabilities, polyps)]
        alarms = [bool(spots(frame >= cut).any()) for frame in without]
        hits = np.concatenate(each)
        rows[float(cut)] = {"found": hits.mean(), "alarms": 100 * np.mean(alarms)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("threshold")


def most_found(curve: pd.DataFrame, alarms: float) -> float:
    """The largest share of polyps that a threshold finds with at most so many alarms per 100 frames
    without polyp; 0 where every threshold has more.
    """
    return float(max(curve.loc[curve["alarms"] <= alarms, "found"], default=0.0))
