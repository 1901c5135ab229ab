"""A run's folder: what is in it, written so that nothing is ever half there, and verified when it
is read back.

recipe.yaml        every hyperparameter
history.csv        one row per epoch: terms of the objective, validation loss and Dice
steps.csv          one row per optimiser step: terms of the objective
best.safetensors   the weights of the epoch with the highest validation Dice
last.ckpt          everything needed to go on, with a checksum; previous.ckpt is the one before
metrics.json       written at the end: a run that has it is finished
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import signal
import subprocess
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kdas_core import UserError, files
from kdas_core.recipe import Recipe

MAGIC = b"kdas checkpoint 1\n"  # then 32 bytes of SHA-256, then what torch.save wrote
_GO_ON = (
    "the last checkpoint is intact. Make room, start the same command again, and the run goes on"
)
LAST, PREVIOUS, NEXT = "last.ckpt", "previous.ckpt", "next.ckpt"


def create_run_dir(folder: Path, recipe: Recipe) -> None:
    """Make the run's folder and its ``recipe.yaml``.

    Raises:
        UserError: the folder cannot be written, or holds the run of another recipe.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); choose another --runs-dir."
        ) from None
    file = folder / "recipe.yaml"
    if file.is_file() and Recipe.from_yaml(file) != recipe:
        raise UserError(
            f"{folder} holds the run of another recipe (see its recipe.yaml); choose another --runs-dir."
        )
    atomic_write(file, recipe.as_yaml().encode())


def atomic_write(path: Path, data: bytes) -> None:
    """`files.write_whole`, pushed to the disk, with the words of a training that is cut short.

    Raises:
        UserError: the disk is full, or the file cannot be written; the old file is as it was.
    """
    files.atomic_write(path, data, _GO_ON, durable=True)


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """``last.ckpt`` with its checksum; the one before is kept as ``previous.ckpt``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    atomic_write(folder / NEXT, MAGIC + sha256(data).digest() + data)
    rotate_checkpoints(folder)


def rotate_checkpoints(folder: Path) -> None:
    """``next.ckpt`` becomes ``last.ckpt``, and that becomes ``previous.ckpt``; nothing where there
    is no ``next.ckpt``.

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
    head, data = content[: len(MAGIC) + 32], memoryview(content)[len(MAGIC) + 32 :]
    if not head.startswith(MAGIC) or sha256(data).digest() != head[len(MAGIC) :]:
        raise UserError(f"{path} is cut short or damaged: its checksum does not fit.")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(
            f"{path} is whole, but this PyTorch cannot read it ({str(error).splitlines()[0]})."
        ) from None


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is sound, or None where there is none; a damaged one is reported
    and passed over.
    """
    damaged = []
    for name in (NEXT, LAST, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            state = read_checkpoint(folder / name)
        except UserError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{' '.join(damaged)} The run goes on from {name}.", stacklevel=2)
        return state
    if damaged:
        warnings.warn(
            f"{' '.join(damaged)} No other is left, so the run starts anew.", stacklevel=2
        )
    return None


class StepLog:
    """``steps.csv``: appended to step by step, and cut back to where a checkpoint was when a run
    goes on from it.

    Args:
        folder: the run's; None in a process that leaves writing to another.
        size: bytes to keep of a file that is there.
    """

    def __init__(self, folder: Path | None, size: int = 0):
        self.path = None if folder is None else folder / "steps.csv"
        self._lines: list[str] = []
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
        """Write what was added; returns the size of the file, for the checkpoint.

        Raises:
            UserError: the disk is full, or the file cannot be written.
        """
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
    atomic_write(folder / "history.csv", pd.DataFrame(history).to_csv(index=False).encode())


def load_history(folder: str | Path) -> pd.DataFrame:
    """``history.csv`` of a run: columns epoch, train_<term>…, val_loss, val_dice, seconds."""
    return pd.read_csv(Path(folder) / "history.csv")


def revision() -> str:
    """The commit of this package that is checked out, with a "+" where files differ from it; empty
    without a repository.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit, changes = (
            subprocess.run(
                [*git, *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (
                ["rev-parse", "--short=10", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")


# --- what must survive besides files ---------------------------------------------------------------------------------


class Interruption:
    """Inside ``with``: SIGTERM (a machine is taken away) and SIGINT (Ctrl-C) wait until a
    checkpoint is written.

    A second Ctrl-C does not wait. Outside the main thread nothing can be caught, and nothing is.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        with contextlib.suppress(ValueError):  # not the main thread
            self._before = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT and self.wanted == signal.SIGINT:
            raise KeyboardInterrupt
        self.wanted = number

    def stop(self, wanted: int, folder: Path) -> None:
        """After a checkpoint: end the program (SIGTERM, exit code 0) or hand Ctrl-C on; 0: neither."""
        if wanted == signal.SIGTERM:
            print(
                f"Stopped on request; {folder.name} has a checkpoint, and the same command goes on from there.",
                flush=True,
            )
            raise SystemExit(0)
        if wanted:
            raise KeyboardInterrupt


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
