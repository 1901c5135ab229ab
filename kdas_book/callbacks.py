"""Callbacks, which ``kdas_core.training.fit`` calls after each step and each epoch."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kdas_book.figures.basics import curves
from kdas_core import UserError
from kdas_core.files import atomic_write, unwritten
from kdas_core.training import TrainingState


class LivePlot:
    """A figure below the cell that is drawn anew after each epoch, and stays as a picture, of the
    history's ``columns``, such as ``train_total``, ``train_<term>``, ``val_loss``.

    >>> fit(recipe, data, "runs", callback=LivePlot())  # doctest: +SKIP
    """

    def __init__(self, columns: tuple[str, ...] = ("train_total", "val_dice")):
        self.columns = columns
        self._shown: Any = None

    def __call__(self, state: TrainingState) -> None:
        from IPython.display import display

        if state.sums:  # in the midst of an epoch
            return
        figure = curves({state.folder.name: pd.DataFrame(state.history)}, self.columns)
        if self._shown is None:
            self._shown = display(figure, display_id=True)
        else:
            self._shown.update(figure)
        plt.close(figure)


class TensorBoard:
    """Scalars in the run's folder over the number of steps: every term at every step, validation
    after every epoch. Of steps that are done again after an interruption the later values count.
    UserError if TensorBoard is not installed, or its file cannot be written.
    """

    def __init__(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                'TensorBoard is not installed; "pip install tensorboard" once, or do without.'
            ) from None
        self._open = SummaryWriter
        self._writer: Any = None

    def __call__(self, state: TrainingState) -> None:
        kind, values = ("step", state.terms) if state.sums else ("epoch", state.history[-1])
        try:
            if self._writer is None:
                self._writer = self._open(str(state.folder), purge_step=state.global_step)
            for name in values.keys() - {"epoch"}:
                self._writer.add_scalar(f"{kind}/{name}", values[name], state.global_step)
            if kind == "epoch":
                self._writer.flush()
        except OSError as error:
            hint = "make room, or do without TensorBoard; the same command goes on"
            raise unwritten(state.folder / "events.out.tfevents", error, hint) from None


class PredictionSnapshots:
    """Predictions for a few images, (B, 3, S, S), normalised, in the course of training: the run's
    ``snapshots.npz``, of ``at_most`` so many epochs, evenly spaced, the last one among them.
    """

    FILE = "snapshots.npz"

    def __init__(self, images: Tensor, at_most: int = 12):
        self.images = images
        self.at_most = at_most

    def __call__(self, state: TrainingState) -> None:
        epoch, epochs = len(state.history), state.recipe.epochs
        wanted = {math.ceil(epochs * (i + 1) / self.at_most) for i in range(self.at_most)}
        if state.sums or epoch not in wanted:
            return
        images = self.images.to(next(state.eval_model.parameters()).device)
        with torch.no_grad():
            maps = torch.stack(state.eval_model.eval()(images)).half().cpu().numpy()
        before = read_snapshots(state.folder)
        kept: dict[str, Any] = {str(n): old for n, old in before.items() if n < epoch}
        kept[str(epoch)] = maps
        content = io.BytesIO()
        np.savez_compressed(content, **kept)
        atomic_write(state.folder / self.FILE, content.getvalue())


def read_snapshots(folder: str | Path) -> dict[int, np.ndarray]:
    """Epoch → logit maps P1 and P2, float16 (2, B, 1, S, S); empty where none were kept."""
    file = Path(folder) / PredictionSnapshots.FILE
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as content:
        return {int(epoch): content[epoch] for epoch in sorted(content.files, key=int)}
