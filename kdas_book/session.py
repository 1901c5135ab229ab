"""What the first cell of every chapter calls: ``begin`` gives a session, and that gives networks,
trained at the preset's size if no earlier chapter left them behind. So every chapter runs alone.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kdas_book.callbacks import PredictionSnapshots, read_snapshots
from kdas_book.data.open_data import open_data
from kdas_book.figures.display import use_style
from kdas_book.paths import find_root
from kdas_book.records import Numbers, laptop_maps, read_numbers, read_times
from kdas_core import UserError
from kdas_core.data import PolypData
from kdas_core.data.dataset import PolypDataset
from kdas_core.models import build, freeze
from kdas_core.recipe import PRESETS, Recipe
from kdas_core.recipe import preset as recipe_of
from kdas_core.training import fit
from kdas_core.training.checkpoint import load_history


@dataclass(frozen=True)
class Session:
    """One reader's run of a chapter: where things are, and the networks of its preset.

    In its methods ``what`` is ``"teacher"`` or an objective of ``kdas_core.losses.OBJECTIVES``,
    and ``hyperparameters`` are those that differ from the preset, e.g. ``alpha=0.5``.
    """

    recipe: Recipe
    data: PolypData
    runs_dir: Path
    root: Path
    _networks: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False)

    SNAPSHOTS = 3  # validation images whose predictions are kept in the course of training

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def released_teacher(self) -> Path | None:
        """The file of released teacher weights, if the preset names one and it is there."""
        return self.root / self.recipe.teacher_weights if self.recipe.teacher_weights else None

    def teacher(self) -> nn.Module:
        """The frozen teacher: released weights if the preset names some that are there."""
        return self._network("teacher")

    def student(self, objective: str = "kdas", **hyperparameters: Any) -> nn.Module:
        """The frozen student of an objective, trained first if that has not been done yet."""
        return self._network(objective, **hyperparameters)

    def _network(self, what: str, **hyperparameters: Any) -> nn.Module:
        key = f"{what} {sorted(hyperparameters.items())}"
        if key not in self._networks:
            role = "teacher" if what == "teacher" else "student"
            folder = self.folder(what, **hyperparameters)
            weights = folder / "best.safetensors" if folder else self.released_teacher
            net = build(role, weights=weights, backbone=getattr(self.recipe, role))
            self._networks[key] = freeze(net).to(self.device)
        return self._networks[key]

    def folder(
        self, what: str, callback: Callable | None = None, **hyperparameters: Any
    ) -> Path | None:
        """The run's folder, trained first if need be; None for a released teacher. ``callback`` is
        called after each step and each epoch, e.g. ``LivePlot()``.
        """
        if what == "teacher" and self.released_teacher:
            return None
        snapshots = PredictionSnapshots(self.batch(self.SNAPSHOTS)["image"])

        def look(state: Any) -> None:
            snapshots(state)
            if callback:
                callback(state)

        where = (self.data, self.runs_dir)
        if what == "teacher":
            return fit(self.recipe.for_teacher(), *where, role="teacher", callback=look)
        recipe = replace(self.recipe, objective=what, **hyperparameters)
        teacher = None if what == "supervised" else self.teacher()
        return fit(recipe, *where, teacher=teacher, callback=look)

    def _trained(self, what: str, **hyperparameters: Any) -> Path:
        if folder := self.folder(what, **hyperparameters):
            return folder
        raise UserError(
            f"{self.released_teacher} was not trained here and so has no history and no metrics; "
            'begin with teacher_weights="" to train a teacher.'
        )

    def history(self, what: str, **hyperparameters: Any) -> pd.DataFrame:
        """The epochs of a run: columns epoch, train_<term>…, val_loss, val_dice, seconds."""
        return load_history(self._trained(what, **hyperparameters))

    def metrics(self, what: str, **hyperparameters: Any) -> dict:
        """What ``metrics.json`` says of a run: best epoch, validation Dice, seconds, parameters."""
        return json.loads((self._trained(what, **hyperparameters) / "metrics.json").read_text())

    def snapshots(self, what: str, **hyperparameters: Any) -> dict[int, Tensor]:
        """Logit maps P1 and P2 of the first validation images in the course of training: epoch →
        (2, 3, 1, S, S), for at most twelve epochs; empty if no chapter trained the network.
        """
        folder = self.folder(what, **hyperparameters)
        kept = read_snapshots(folder) if folder else {}
        return {n: torch.from_numpy(maps).float().to(self.device) for n, maps in kept.items()}

    def batch(self, count: int = 4, split: str = "validation") -> dict[str, Any]:
        """The first images of ``"train"``, ``"validation"`` or a test set as the networks see them:
        ``image`` (B, 3, S, S), ``mask`` (B, 1, S, S), ``name``.
        """
        ours = split in ("train", "validation")
        index = getattr(self.data, split) if ours else self.data.tests[split]
        batch = PolypDataset(index, self.recipe.image_size).batch(range(min(count, len(index))))
        return batch | {key: batch[key].to(self.device) for key in ("image", "mask")}

    def laptop_maps(self) -> dict[str, np.ndarray]:
        """Four drawn test images and the recorded maps of the ``laptop`` networks, made once."""
        return laptop_maps(self.root)

    def numbers(self, chapter: str, here: dict[str, str], images: str = "drawn images") -> Numbers:
        """Quantities of this run in words, beside those recorded at ``laptop`` on ``images``."""
        return Numbers(chapter, here, read_numbers(self.root, chapter), images)

    def times(self, chapter: str) -> pd.DataFrame:
        """Minutes and peak memory of a chapter for each preset, as measured."""
        rows = read_times(self.root).query("chapter == @chapter")
        rows = rows.set_index("preset")
        rows["time"] = [f"{seconds / 60:.1f} min" for seconds in rows.seconds]
        rows["peak memory"] = [f"{mb / 1024:.1f} GB" for mb in rows.peak_mb]
        table = rows.rename(columns={"machine": "on"})[["time", "peak memory", "on"]]
        table = table.astype(object).reindex(list(PRESETS))
        return table.fillna({"time": "not measured yet"}).fillna("")


def begin(
    preset: str = "smoke",
    data_root: str = "",
    runs_dir: str = "",
    seed: int = 0,
    unlabelled: str = "",
    **settings: Any,
) -> Session:
    """Find the repository, the data and the device, and print a short panel. UserError: unknown
    preset or hyperparameter, or no data and a preset that needs some.

    Args:
        preset: ``smoke``, ``laptop``, ``publish``, ``colab`` or ``paper``.
        data_root: folder in PraNet's layout; empty: the repository's ``data/``, or synthetic polyps
            if nothing is there and the preset is ``smoke`` or ``publish``.
        runs_dir: where trained networks are kept; empty: the repository's ``runs/``.
        unlabelled: a folder of images without masks, which ``use_unlabelled`` then takes as well.
        settings: the hyperparameters that differ from the preset.
    """
    folders = {"data_root": data_root, "runs_dir": runs_dir, "unlabelled": unlabelled}
    for name, value in folders.items():
        if not isinstance(value, (str, Path)):
            raise UserError(f"{name} is {value!r}; the path of a folder is expected.")
    if unlabelled:
        settings.setdefault("use_unlabelled", True)
    recipe = recipe_of(preset, seed=seed, **settings)
    root = find_root()
    # A student's fingerprint says which teacher it had.
    if not (root / recipe.teacher_weights).is_file():
        recipe = replace(recipe, teacher_weights="")
    runs = Path(runs_dir).expanduser() if runs_dir else root / "runs"
    more = Path(unlabelled).expanduser() if unlabelled else ""
    data = open_data(recipe, data_root, default=root / "data", made=runs, unlabelled=more)
    use_style()
    pd.set_option("display.max_colwidth", None)  # a table's sentences are shown whole
    session = Session(recipe, data, runs, root)
    gpu = session.device.type == "cuda"
    device = torch.cuda.get_device_name() if gpu else f"CPU, {os.cpu_count()} cores"
    kind = "synthetic polyps" if data.synthetic else "images"
    released = session.released_teacher
    source = f"released weights, {released.name}" if released else f"{recipe.teacher}, trained here"
    without = f"{len(data.unlabelled)} more without masks, " if recipe.use_unlabelled else ""
    print(
        f"preset   {recipe.preset} (seed {recipe.seed}, {recipe.image_size} px)\n"
        f"data     {len(data.train)} training and {len(data.validation)} validation {kind}, "
        f"{without}{len(data.tests)} test sets\n"
        f"teacher  {source}\n"
        f"device   {device}, torch {torch.__version__}"
    )
    return session
