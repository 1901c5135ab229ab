"""Looking at a training while it runs: functions that ``fit`` calls after each step and each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from kdas_core import UserError
from kdas_core.plots import curves

if TYPE_CHECKING:
    from kdas_core.training import Run


class LivePlot:
    """A figure below the cell that is drawn anew after each epoch, and stays as a picture when the training is over.

    Args:
        columns: of the history: ``train_total``, ``train_<term>``, ``val_loss``, ``val_dice``, ``seconds``.

    >>> fit(recipe, data, "runs", watch=LivePlot())  # doctest: +SKIP
    """

    def __init__(self, columns: tuple[str, ...] = ("train_total", "val_dice")):
        self.columns, self._shown, self._epochs = columns, None, 0

    def __call__(self, run: Run) -> None:
        from IPython.display import display

        if len(run.history) == self._epochs:
            return
        self._epochs = len(run.history)
        figure = curves({run.folder.name: pd.DataFrame(run.history)}, self.columns)
        if self._shown is None:
            self._shown = display(figure, display_id=True)
        else:
            self._shown.update(figure)
        plt.close(figure)


class TensorBoard:
    """Scalars in the run's folder: every term at every step, validation after every epoch; all over the number of steps.

    Where a run goes on after an interruption, TensorBoard hides what had been written of steps that are done again.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError('TensorBoard is not installed; "pip install tensorboard" once, or do without.') from None
        self._open, self._writer, self._taken, self._epochs = SummaryWriter, None, 0, 0

    def __call__(self, run: Run) -> None:
        if self._writer is None:
            self._writer, self._epochs = self._open(str(run.folder), purge_step=run.taken), len(run.history)
        if run.taken > self._taken:
            self._taken = run.taken
            self._add("step", run.terms)
        if len(run.history) > self._epochs:
            self._epochs = len(run.history)
            self._add("epoch", {name: value for name, value in run.history[-1].items() if name != "epoch"})
            self._writer.flush()

    def _add(self, kind: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, self._taken)
