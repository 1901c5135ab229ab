"""Looking at a training while it runs: functions that ``fit`` calls after each step and each epoch."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kdas_book.figures.basics import curves
from kdas_core import UserError
from kdas_core.training.checkpoint import atomic_write

if TYPE_CHECKING:
    from kdas_core.training import TrainingState


class LivePlot:
    """A figure below the cell that is drawn anew after each epoch, and stays as a picture when the
    training is over.

    Args:
        columns: of the history: ``train_total``, ``train_<term>``, ``val_loss``, ``val_dice``,
            ``seconds``.

    >>> fit(recipe, data, "runs", watch=LivePlot())  # doctest: +SKIP
    """

    def __init__(self, columns: tuple[str, ...] = ("train_total", "val_dice")):
        self.columns, self._shown, self._epochs = columns, None, 0

    def __call__(self, run: TrainingState) -> None:
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
    """Scalars in the run's folder: every term at every step, validation after every epoch; all over
    the number of steps.

    Where a run goes on after an interruption, TensorBoard hides what had been written of steps that
    are done again.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                'TensorBoard is not installed; "pip install tensorboard" once, or do without.'
            ) from None
        self._open, self._writer, self._taken, self._epochs = SummaryWriter, None, 0, 0

    def __call__(self, run: TrainingState) -> None:
        if self._writer is None:
            self._writer, self._epochs = (
                self._open(str(run.folder), purge_step=run.global_step),
                len(run.history),
            )
        if run.global_step > self._taken:
            self._taken = run.global_step
            self._add("step", run.terms)
        if len(run.history) > self._epochs:
            self._epochs = len(run.history)
            self._add(
                "epoch", {name: value for name, value in run.history[-1].items() if name != "epoch"}
            )
            self._writer.flush()

    def _add(self, kind: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, self._taken)


class PredictionSnapshots:
    """A few images as the network sees them in the course of its training: ``snapshots.npz`` in the
    run's folder.

    Args:
        images: (B, 3, S, S), normalised; three or four are enough.
        at_most: epochs to keep, evenly spaced, the last one among them.
    """

    FILE = "snapshots.npz"

    def __init__(self, images: Tensor, at_most: int = 12):
        self.images, self.at_most = images, at_most

    def __call__(self, run: TrainingState) -> None:
        epoch, epochs = len(run.history), run.recipe.epochs
        wanted = {math.ceil(epochs * (i + 1) / self.at_most) for i in range(self.at_most)}
        if run.sums or epoch not in wanted:  # sums: in the midst of the next epoch
            return
        eval_model = {
            number: maps for number, maps in read_snapshots(run.folder).items() if number < epoch
        }
        eval_model[epoch] = self._maps(run)
        content = io.BytesIO()
        named: dict[str, Any] = {str(number): maps for number, maps in eval_model.items()}
        np.savez_compressed(content, **named)
        atomic_write(run.folder / self.FILE, content.getvalue())

    @torch.no_grad()
    def _maps(self, run: TrainingState) -> np.ndarray:
        device = next(run.eval_model.parameters()).device
        maps = torch.stack(run.eval_model.eval()(self.images.to(device)))
        return maps.half().cpu().numpy()


def read_snapshots(folder: str | Path) -> dict[int, np.ndarray]:
    """What :class:`Glimpses` kept: epoch → logit maps, float16 (2, B, 1, S, S), P1 and P2; empty
    where nothing was kept.
    """
    file = Path(folder) / PredictionSnapshots.FILE
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as content:
        return {int(epoch): content[epoch] for epoch in sorted(content.files, key=int)}
