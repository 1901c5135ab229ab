"""Looking at a training while it runs: a plot that grows in a notebook, and TensorBoard."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from kdas_core import UserError
from kdas_core.plots import curves


class LivePlot:
    """A figure below the cell that is drawn anew after each epoch, and stays as a picture when the training is over.

    >>> fit(recipe, data, "runs", watch=LivePlot("kdas"))  # doctest: +SKIP
    """

    def __init__(self, name: str, columns: tuple[str, ...] = ("train_total", "val_dice")):
        self.name, self.columns, self._shown = name, columns, None

    def __call__(self, history: list[dict]) -> None:
        from IPython.display import display

        figure = curves({self.name: pd.DataFrame(history)}, self.columns)
        if self._shown is None:
            self._shown = display(figure, display_id=True)
        else:
            self._shown.update(figure)
        plt.close(figure)


class TensorBoard:
    """Scalars of each epoch for TensorBoard, below ``folder``.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError('TensorBoard is not installed; "pip install tensorboard" once, or do without.') from None
        self._writer = SummaryWriter(str(folder))

    def __call__(self, history: list[dict]) -> None:
        row = history[-1]
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self._writer.flush()
