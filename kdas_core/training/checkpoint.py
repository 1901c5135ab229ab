"""A run's folder, written so that nothing in it is ever half there, and checked when read back.

recipe.yaml        every hyperparameter
history.csv        one row per epoch: terms of the objective, validation loss and Dice
steps.csv          one row per optimiser step: terms of the objective
best.safetensors   the weights of the epoch with the highest validation Dice
last.ckpt          all that is needed to go on, with a checksum; previous.ckpt is the one before
metrics.json       written at the end: a run that has it is finished
"""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import warnings
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from kdas_core import UserError, files
from kdas_core.data import PolypData
from kdas_core.recipe import Recipe

MAGIC = b"kdas checkpoint 1\n"  # then 32 bytes of SHA-256, then what torch.save wrote
LAST, PREVIOUS, NEXT = "last.ckpt", "previous.ckpt", "next.ckpt"
_GO_ON = (
    "the last checkpoint is intact. Make room, start the same command again, and the run goes on"
)
# An atomic write, pushed to the disk, with the words of a run that is cut short.
write = partial(files.atomic_write, hint=_GO_ON, durable=True)


def run_dir(recipe: Recipe, data: PolypData, runs_dir: str | Path, role: str) -> Path:
    """Where a run lives: another recipe or other images give another folder."""
    names = sorted(pair.name for split in (data.train, data.validation) for pair in split)
    what = "teacher" if role == "teacher" else recipe.objective
    digest = recipe.fingerprint(role, data.root.name, *names)
    return Path(runs_dir) / f"{what}-seed{recipe.seed}-{digest}"


def is_finished(folder: Path, accelerator: Accelerator) -> bool:
    """Is ``metrics.json`` there? All processes look at once, before any of them writes."""
    accelerator.wait_for_everyone()
    finished = (folder / "metrics.json").exists()
    accelerator.wait_for_everyone()
    return finished


def create_run_dir(folder: Path, recipe: Recipe) -> None:
    """Make the run's folder and its ``recipe.yaml``.

    Raises:
        UserError: the folder cannot be written, or holds the run of another recipe.
    """
    other = "choose another --runs-dir"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); {other}.") from None
    file = folder / "recipe.yaml"
    if file.is_file() and Recipe.from_yaml(file) != recipe:
        raise UserError(f"{folder} holds the run of another recipe (its recipe.yaml); {other}.")
    write(file, recipe.as_yaml().encode())


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """``last.ckpt`` with its checksum; the one before is kept as ``previous.ckpt``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    write(folder / NEXT, MAGIC + sha256(data).digest() + data)
    rotate_checkpoints(folder)


def rotate_checkpoints(folder: Path) -> None:
    """``next.ckpt`` becomes ``last.ckpt``, and that ``previous.ckpt``; nothing without a next one.

    Cut off between the two renames, ``next.ckpt`` and ``previous.ckpt`` are there, and this ends
    what was begun.
    """
    if not (folder / NEXT).exists():
        return
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(folder / NEXT, folder / LAST)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote. No code in the file is ever run.

    Raises:
        UserError: the file is missing, cut short or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    start = len(MAGIC) + 32
    head, data = content[:start], memoryview(content)[start:]
    if not head.startswith(MAGIC) or sha256(data).digest() != head[len(MAGIC) :]:
        raise UserError(f"{path} is cut short or damaged: its checksum does not fit.")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path} is whole, but this PyTorch cannot read it ({why}).") from None


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint, or None; a damaged one is reported and passed over."""
    damaged: list[str] = []
    for path in (folder / name for name in (NEXT, LAST, PREVIOUS)):
        if not path.exists():
            continue
        try:
            state = read_checkpoint(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{' '.join(damaged)} The run goes on from {path.name}.", stacklevel=2)
        return state
    if damaged:
        told = f"{' '.join(damaged)} No other is left, so the run starts anew."
        warnings.warn(told, stacklevel=2)
    return None


class StepLog:
    """``steps.csv``, appended to step by step; ``folder`` is None where another process writes."""

    def __init__(self, folder: Path | None):
        self.path = None if folder is None else folder / "steps.csv"
        self._lines: list[str] = []

    def cut(self, size: int) -> None:
        """Keep so many bytes of a file that is there: as many as there were at the checkpoint."""
        if self.path and self.path.exists():
            with open(self.path, "rb+") as file:
                file.truncate(min(size, self.path.stat().st_size))

    def add(self, row: dict[str, float]) -> None:
        """One more step."""
        if self.path is None:
            return
        if not self._lines and not (self.path.exists() and self.path.stat().st_size):
            self._lines.append(",".join(row))
        self._lines.append(",".join(f"{value:.7g}" for value in row.values()))

    def flush(self) -> int:
        """Write what was added, and return the file's size; UserError where that fails."""
        assert self.path is not None  # only the process that writes asks for it
        try:
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.writelines(line + "\n" for line in self._lines)
        except OSError as error:
            raise files.unwritten(self.path, error, _GO_ON) from None
        self._lines.clear()
        return self.path.stat().st_size


def write_history(folder: Path, history: list[dict]) -> None:
    """``history.csv``, whole."""
    write(folder / "history.csv", pd.DataFrame(history).to_csv(index=False).encode())


def load_history(folder: str | Path) -> pd.DataFrame:
    """``history.csv`` of a run: columns epoch, train_<term>…, val_loss, val_dice, seconds."""
    return pd.read_csv(Path(folder) / "history.csv")


def revision() -> str:
    """The commit of this checkout, with "+" where files differ from it; empty without one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    found = []
    for words in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "-uno"]):
        try:
            run = subprocess.run([*git, *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        found.append(run.stdout.strip())
    return found[0] + ("+" if found[1] else "")


def seed_everything(seed: int) -> None:
    """Every global stream of random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The state of every global stream of random numbers, in types that a checkpoint may hold."""
    state = np.random.get_state()
    assert isinstance(state, tuple)  # a dictionary comes only where it is asked for
    kind, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """The inverse of :func:`random_states`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
