"""How a saved map and a mask are read before anything is measured.

Programs that print the same names of metrics read the same files by different rules, and one map
gets as many scores. A :class:`Convention` is the set of rules of one program, under one name; rules
of two programs are never mixed, and every table and file says which were used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdas_core import UserError

HALF = 128
"""The lowest 8-bit grey level above one half."""


@dataclass(frozen=True)
class Convention:
    """The rules of one program.

    Attributes:
        name: by which it is asked for and printed.
        says: the rules in one sentence.
        levels: what happens to a map before it is measured: ``"saved"`` nothing; ``"stretched"``
            its darkest pixel becomes 0, its lightest 255, rounded to 8 bits again; ``"stretched,
            unrounded"`` the same without rounding; ``"cut"`` 0 below grey 128 and 255 from there.
        polyp_from: the lowest grey level of a mask that is polyp. A map of another size than its
            mask is refused under every convention; PraNet's programs resize it and overwrite the
            file.
        matlab: measure as PraNet's MATLAB programs do: standard deviations in the S-measure divide
            by N − 1, the centroid's own row and column belong to the upper left quadrant, and the
            Gaussian of the weighted F-measure sees black beyond the border.
    """

    name: str
    says: str
    levels: Literal["saved", "stretched", "stretched, unrounded", "cut"] = "saved"
    polyp_from: int = HALF
    matlab: bool = False

    def values(self, pred: np.ndarray) -> np.ndarray:
        """What each of the 256 grey levels of this map counts as: float64 (256,), in [0, 1].

        All that a convention does to a map it does level by level, so this table is enough, and
        ``values(pred)[pred]`` is the map as it is measured.

        Args:
            pred: uint8, (H, W). A constant map cannot be stretched: rounded it becomes black, as in
                the saving scripts of PraNet and Polyp-PVT; unrounded it stays as it is, as in
                MATLAB's ``mapminmax``.
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


_GREY = np.arange(256) / 255

CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention(
            "released", "Maps as saved, masks from grey 128: the evaluation of UACANet and KDAS."
        ),
        Convention(
            "min-max",
            "Each map is first stretched from its darkest to its lightest pixel, as the saving scripts of PraNet and "
            "Polyp-PVT do before they write it, then as released.",
            levels="stretched",
        ),
        Convention(
            "binary",
            "Each map is first cut at one half, as UACANet's own test script does before it writes it, then as released.",
            levels="cut",
        ),
        Convention(
            "pranet",
            "PraNet's MATLAB programs: maps stretched, masks above grey 128, and their own S-measure and weighted "
            "F-measure.",
            levels="stretched, unrounded",
            polyp_from=HALF + 1,
            matlab=True,
        ),
    )
}
"""By name; the first is the default everywhere."""

RELEASED = CONVENTIONS["released"]


def convention(name: str) -> Convention:
    """The convention of this name.

    Raises:
        UserError: there is none.
    """
    if name not in CONVENTIONS:
        raise UserError(f"There is no convention {name!r}; known are {', '.join(CONVENTIONS)}.")
    return CONVENTIONS[name]


def minmax_grey(pred: np.ndarray) -> np.ndarray:
    """The map, uint8 (H, W), as convention ``min-max`` stretches it: uint8 of the same shape."""
    return np.rint(255 * CONVENTIONS["min-max"].values(pred)).astype(np.uint8)[pred]
