"""What the first cell of every chapter calls.

``begin`` finds the repository, the data and the device; the object that it returns hands out
networks, trained at the preset's size if no earlier chapter left them behind. That is why every
chapter runs alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from kdas_book.callbacks import PredictionSnapshots, read_snapshots
from kdas_book.data.open_data import open_data
from kdas_book.figures.basics import use_style
from kdas_book.paths import find_root
from kdas_core import UserError
from kdas_core.data.dataset import PolypDataset
from kdas_core.data.splits import PolypData
from kdas_core.models import build, freeze
from kdas_core.recipe import PRESETS, Recipe
from kdas_core.recipe import preset as recipe_of
from kdas_core.training import fit
from kdas_core.training.checkpoint import load_history


@dataclass(frozen=True)
class Session:
    """One reader's run of a chapter: where things are, and the networks of its preset."""

    recipe: Recipe
    data: PolypData
    runs_dir: Path
    root: Path

    SNAPSHOTS = 3  # validation images that are kept in the course of a training

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def _networks(self) -> dict[str, nn.Module]:
        return {}

    def teacher(self) -> nn.Module:
        """The frozen teacher: released weights if the preset asks for them and the file is there,
        else trained (once).
        """
        return self._network("teacher")

    def student(self, objective: str = "kdas", **hyperparameters: Any) -> nn.Module:
        """The frozen student of an objective, trained at the preset's size if that has not been
        done yet.

        Args:
            objective: a name from ``kdas_core.losses.OBJECTIVES``.
            hyperparameters: hyperparameters of the recipe that differ from the preset, e.g. ``alpha=0.5``.
        """
        return self._network(objective, **hyperparameters)

    def folder(
        self, what: str, watch: Callable | None = None, **hyperparameters: Any
    ) -> Path | None:
        """The run's folder of ``"teacher"`` or of an objective, trained if need be; None for a
        released teacher.

        Args:
            watch: called after every step and epoch of this training, e.g. ``watching.LivePlot()``.
            hyperparameters: hyperparameters of the recipe that differ from the preset.
        """
        if what == "teacher" and self.released_teacher:
            return None
        snapshots = PredictionSnapshots(self.batch(self.SNAPSHOTS)["image"])

        def look(run: Any) -> None:
            snapshots(run)
            if watch:
                watch(run)

        if what == "teacher":
            return fit(
                self.recipe.for_teacher(), self.data, self.runs_dir, role="teacher", watch=look
            )
        recipe = replace(self.recipe, objective=what, **hyperparameters)
        teacher = None if what == "supervised" else self.teacher()
        return fit(recipe, self.data, self.runs_dir, teacher=teacher, watch=look)

    def snapshots(self, what: str, **hyperparameters: Any) -> dict[int, Tensor]:
        """Logit maps of the first validation images in the course of a training: epoch → (2, 3, 1,
        S, S), P1 and P2.

        At most twelve epochs, the last one among them. A network that was not trained by a chapter
        has none: the dictionary is empty.
        """
        folder = self.folder(what, **hyperparameters)
        kept = read_snapshots(folder) if folder else {}
        return {
            epoch: torch.from_numpy(maps).float().to(self.device) for epoch, maps in kept.items()
        }

    def history(self, what: str, **hyperparameters: Any) -> pd.DataFrame:
        """The epochs of a run: columns epoch, train_<term>…, val_loss, val_dice, seconds."""
        return load_history(self._trained(what, **hyperparameters))

    def metrics(self, what: str, **hyperparameters: Any) -> dict:
        """What ``metrics.json`` says of a run: best epoch, validation Dice, seconds, parameters."""
        return json.loads((self._trained(what, **hyperparameters) / "metrics.json").read_text())

    def _trained(self, what: str, **hyperparameters: Any) -> Path:
        """The folder of a run that must be one of ours."""
        folder = self.folder(what, **hyperparameters)
        if folder is None:
            raise UserError(
                f"{self.released_teacher} was not trained here and so has no history and no metrics; begin with the hyperparameter "
                'teacher_weights="" to train a teacher.'
            )
        return folder

    @property
    def released_teacher(self) -> Path | None:
        """The file of released teacher weights, if the preset names one and it is there."""
        return self.root / self.recipe.teacher_weights if self.recipe.teacher_weights else None

    def _network(self, what: str, **hyperparameters: Any) -> nn.Module:
        key = f"{what} {sorted(hyperparameters.items())}"
        if key not in self._networks:
            role = "teacher" if what == "teacher" else "student"
            weights = self.released_teacher if what == "teacher" else None
            weights = weights or self._trained(what, **hyperparameters) / "best.safetensors"
            backbone = self.recipe.teacher if what == "teacher" else self.recipe.student
            self._networks[key] = freeze(build(role, weights=weights, backbone=backbone)).to(
                self.device
            )
        return self._networks[key]

    def batch(self, count: int = 4, split: str = "validation") -> dict[str, Any]:
        """The first images of a split as the networks see them: ``image`` (B, 3, S, S), ``mask``
        (B, 1, S, S), ``name``.

        Args:
            split: ``"train"``, ``"validation"`` or the name of a test set.
        """
        index = (
            getattr(self.data, split)
            if split in ("train", "validation")
            else self.data.tests[split]
        )
        dataset = PolypDataset(index.take(range(min(count, len(index)))), self.recipe.image_size)
        items = [dataset[i] for i in range(len(dataset))]
        stacked: dict[str, Tensor] = {
            key: torch.stack([i[key] for i in items]).to(self.device) for key in ("image", "mask")
        }
        return {**stacked, "name": [i["name"] for i in items]}

    def times(self, chapter: str) -> pd.DataFrame:
        """Minutes and peak memory of a chapter for each preset, as measured; presets nobody has
        measured say so.
        """
        file = self.root / "book" / "results" / "chapter_times.csv"
        known = (
            pd.read_csv(file).query("chapter == @chapter").set_index("preset")
            if file.is_file()
            else pd.DataFrame()
        )
        rows = {}
        for name in PRESETS:
            if name in known.index:
                row = known.loc[name]
                rows[name] = [
                    f"{row.seconds / 60:.1f} min",
                    f"{row.peak_mb / 1024:.1f} GB",
                    row.machine,
                ]
            else:
                rows[name] = ["not measured yet", "", ""]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["time", "peak memory", "on"])
        return table.rename_axis("preset")


def begin(
    preset: str = "smoke",
    data_root: str = "",
    runs_dir: str = "",
    seed: int = 0,
    **hyperparameters: Any,
) -> Session:
    """Find the repository, the data and the device, and print a short panel.

    Args:
        preset: ``smoke``, ``laptop``, ``colab`` or ``paper``.
        data_root: folder in PraNet's layout; empty: ``data/`` of the repository, and if nothing is
            there and the preset is ``smoke``, synthetic polyps.
        runs_dir: where trained networks are kept and looked for; empty: ``runs/`` of the
            repository.
        seed: of everything random in training.
        hyperparameters: hyperparameters of the recipe that differ from the preset.

    Raises:
        UserError: unknown preset or hyperparameter, or no data and a preset that needs some.
    """
    recipe, root = recipe_of(preset, seed=seed, **hyperparameters), find_root()
    if not (
        root / recipe.teacher_weights
    ).is_file():  # so that a student's fingerprint says which teacher it had
        recipe = replace(recipe, teacher_weights="")
    runs = Path(runs_dir).expanduser() if runs_dir else root / "runs"
    data = open_data(recipe, data_root, default=root / "data", made=runs)
    use_style()
    pd.set_option("display.max_colwidth", None)  # a table's sentences are shown whole
    run = Session(recipe, data, runs, root)
    print(_panel(run))
    return run


def _panel(run: Session) -> str:
    data, recipe = run.data, run.recipe
    if run.device.type == "cuda":
        device = torch.cuda.get_device_name(run.device)
    else:
        device = f"CPU, {os.cpu_count()} cores"
    kind = "synthetic polyps" if data.synthetic else "images"
    teacher = (
        f"released weights, {run.released_teacher.name}"
        if run.released_teacher
        else f"{recipe.teacher}, trained here"
    )
    return "\n".join(
        [
            f"preset   {recipe.preset} (seed {recipe.seed}, {recipe.image_size} px)",
            f"data     {len(data.train)} training and {len(data.validation)} validation {kind}, {len(data.tests)} test sets",
            f"teacher  {teacher}",
            f"device   {device}, torch {torch.__version__}",
        ]
    )
