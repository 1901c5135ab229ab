"""Figures of chapter 9: what the losses of other methods say of a changed map."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from kdas_book.figures import basics as plots

SHOWN = 3.0  # bars end here


def verdicts_on(
    prediction: Tensor, mask: Tensor, values: Mapping[str, float], title: str
) -> Figure:
    """A changed prediction with the outline of the mask, and beside it a bar for what each loss
    says of it, in multiples of what it says of the student; a longer one ends at the edge, and its
    number stands at its end.
    """
    figure, (left, right) = plots.side_by_side(2, 4, 3.0, width_ratios=(1, 1.2))
    plots.show(left, prediction, title, mask, vmin=0, vmax=1, cmap="gray")
    names, heights = list(values), np.array(list(values.values()))
    right.barh(names, np.minimum(heights, SHOWN), color=plots.PURPLE)
    for row, height in enumerate(heights):
        look: dict = {"va": "center", "bbox": {"fc": "white", "ec": "none", "pad": 1}}
        right.text(min(height, SHOWN) + 0.08, row, f"{height:.2g}", **look)
    right.axvline(1, color="black", ls="--", lw=1)
    right.set(xlim=(0, SHOWN + 0.6), xlabel="loss / loss of the student")
    right.invert_yaxis()
    return figure
