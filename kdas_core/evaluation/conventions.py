"""How a saved map and a mask are read before anything is measured.

Programs that print the same metrics read the same files by different rules, and one map gets as
many scores. A :class:`Convention` is the rules of one program; every table says which was used.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
HALF = 128  # the lowest 8-bit grey level above one half
_GREY = np.arange(256) / 255


@dataclass(frozen=True)
class Convention:
    """The rules of one program; ``values(pred)[pred]`` is measured.

    Attributes:
        levels: of a map, before it is measured: ``saved``, as they are; ``stretched``, the darkest
            to 0 and the lightest to 255, rounded; ``stretched, unrounded``; ``cut``, at grey 128.
        polyp_from: the lowest grey level of a mask that is polyp.
        matlab: in the S-measure, deviations divide by N − 1 and the centroid's row and column are
            above the cut; the Gaussian of the weighted F-measure sees black beyond the border.
    """

    name: str
    levels: str = "saved"
    polyp_from: int = HALF
    matlab: bool = False

    def values(self, pred: Array) -> Array:
        """What each grey level of a map, uint8 (H, W), counts as: float64 (256,), in [0, 1].
        Stretched and rounded a constant map becomes black, as in PraNet's saving script; unrounded
        it stays, as in MATLAB's ``mapminmax``.
        """
        if self.levels == "saved":
            return _GREY
        if self.levels == "cut":
            return (_GREY > 0.5).astype(np.float64)
        low, high = int(pred.min()), int(pred.max())
        rounded = self.levels == "stretched"
        if low == high:
            return np.zeros(256) if rounded else _GREY
        stretched = np.clip((np.arange(256) - low) / (high - low), 0, 1)
        return np.rint(255 * stretched) / 255 if rounded else stretched

    def cut(self, pred: Array) -> Array:
        """The map cut at one half: bool, (H, W)."""
        return (self.values(pred) >= 0.5)[pred]


RELEASED = Convention("released")  # the evaluation of UACANet and KDAS
_MIN_MAX = Convention("min-max", "stretched")  # as PraNet and Polyp-PVT save their maps
_BINARY = Convention("binary", "cut")  # as UACANet's own test script saves them
_PRANET = Convention("pranet", "stretched, unrounded", HALF + 1, matlab=True)  # MATLAB programs

CONVENTIONS = {rules.name: rules for rules in (RELEASED, _MIN_MAX, _BINARY, _PRANET)}
