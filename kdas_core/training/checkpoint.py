"""A run's folder, written so that nothing in it is ever half there, and checked when read back.

recipe.yaml        every hyperparameter
identity.json      digests of images, masks and teacher; with the recipe they name the folder
history.csv        one row per epoch: terms of the objective, validation loss and Dice
steps.csv          one row per optimiser step: terms of the objective
best.safetensors   the weights of the epoch with the highest validation Dice
last.ckpt          all that is needed to go on, with a checksum; previous.ckpt is the one before
metrics.json       written at the end: a run that has it is finished
"""

import io
import json
import os
import pickle
import random
import subprocess
import warnings
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from kdas_core import UserError, files
from kdas_core.data import PolypData
from kdas_core.data.layout import content_digest
from kdas_core.models.weights import first_line, weights_digest
from kdas_core.recipe import Recipe

MAGIC = b"kdas checkpoint 1\n"  # then 32 bytes of SHA-256, then what torch.save wrote
LAST, PREVIOUS, NEXT = "last.ckpt", "previous.ckpt", "next.ckpt"
_HINT = "make room and start the same command again, which goes on from what is there"
write = partial(files.atomic_write, hint=_HINT, durable=True)


def identity(data: PolypData, teacher: nn.Module | None) -> dict[str, str]:
    """What decides a run besides its recipe: digests of images, masks and the teacher's weights."""
    pairs = [*data.train, *data.validation]
    digests = {"images": content_digest(pair.image for pair in pairs)}
    digests["masks"] = content_digest(pair.mask for pair in pairs)
    digests |= {"teacher": weights_digest(teacher)} if teacher else {}
    return digests | ({"unlabelled": content_digest(data.unlabelled)} if data.unlabelled else {})


def run_dir(recipe: Recipe, runs_dir: str | Path, role: str, content: dict[str, str]) -> Path:
    """Where a run lives: another recipe or other content gives another folder."""
    what = "teacher" if role == "teacher" else recipe.objective
    digest = recipe.fingerprint(role, *content.values())
    return Path(runs_dir) / f"{what}-seed{recipe.seed}-{digest}"


def begin_run_dir(folder: Path, recipe: Recipe, content: dict[str, str]) -> None:
    """Begin a run's folder; UserError: it cannot be written, or is that of another recipe."""
    other = "choose another --runs-dir"
    file = folder / "recipe.yaml"
    if file.is_file() and Recipe.from_yaml(file) != recipe:
        raise UserError(f"{folder} holds the run of another recipe (its recipe.yaml); {other}.")
    if not file.is_file():
        _say_why_anew(folder, recipe, content)
    files.atomic_write(folder / "identity.json", json.dumps(content).encode(), other)
    files.atomic_write(file, recipe.as_yaml().encode(), other, durable=True)


def _say_why_anew(folder: Path, recipe: Recipe, content: dict[str, str]) -> None:
    """One line where a run of this recipe is there, but of other content."""
    for other in sorted(folder.parent.glob(folder.name.rpartition("-")[0] + "-*/recipe.yaml")):
        with suppress(OSError, ValueError, AttributeError):
            known = json.loads((other.parent / "identity.json").read_text())
            changed = [what for what, digest in content.items() if known.get(what) != digest]
            if changed and Recipe.from_yaml(other) == recipe:
                fact = f"{' and '.join(changed)} differ from those of {other.parent.name}"
                print(f"{folder.name} is trained anew: {fact}.", flush=True)
                return


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """``last.ckpt`` with its checksum; the one before is kept as ``previous.ckpt``."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    write(folder / NEXT, MAGIC + sha256(data).digest() + data)
    rotate_checkpoints(folder)


def rotate_checkpoints(folder: Path) -> None:
    """``last.ckpt`` becomes ``previous.ckpt``, and ``next.ckpt`` ``last.ckpt``, also if cut off."""
    if (folder / NEXT).exists():
        if (folder / LAST).exists():
            os.replace(folder / LAST, folder / PREVIOUS)
        os.replace(folder / NEXT, folder / LAST)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote, and no code; UserError: missing, cut short, damaged."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    start = len(MAGIC) + 32
    data = memoryview(content)[start:]
    if content[:start] != MAGIC + sha256(data).digest():
        raise UserError(f"{path} is cut short or damaged: its checksum does not fit.")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        why = "is whole, but this PyTorch cannot read it"
        raise UserError(f"{path} {why} ({first_line(error)}).") from None


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest sound checkpoint, or None; a damaged one is reported and passed over."""
    state = None
    told: list[str] = []
    outcome = "No other is left, so the run starts anew."
    paths = [folder / name for name in (NEXT, LAST, PREVIOUS)]
    for path in filter(Path.exists, paths):
        try:
            state = read_checkpoint(path)
            outcome = f"The run goes on from {path.name}."
            break
        except UserError as error:
            told.append(str(error))
    if told:
        warnings.warn(" ".join([*told, outcome]), stacklevel=2)
    return state


def append_steps(folder: Path, rows: list[dict], size: int) -> int:
    """Append rows to the first ``size`` bytes of ``steps.csv``; returns its size afterwards."""
    path = folder / "steps.csv"
    try:
        with open(path, "ab") as file:
            size = min(size, file.tell())
            file.seek(file.truncate(size))
            if rows:
                table = pd.DataFrame(rows).set_index("epoch")
                text = table.to_csv(header=not size, float_format="%.7g", na_rep="nan")
                file.write(text.encode())
            return file.tell()
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size)
        raise files.unwritten(path, error, _HINT) from None


def load_history(folder: str | Path) -> pd.DataFrame:
    """``history.csv`` of a run: columns epoch, train_<term>…, val_loss, val_dice, seconds."""
    return pd.read_csv(Path(folder) / "history.csv")


def best_of(history: list[dict]) -> dict:
    """The row with the highest validation Dice; of equal ones the first."""
    return max(history, key=lambda row: row["val_dice"])


def revision() -> str:
    """The commit of this checkout, with "+" where files differ from it; empty without one."""
    describe = ["describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    git = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def seed_everything(seed: int) -> None:
    """Every global stream of random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The state of every global stream of random numbers, in types that a checkpoint may hold."""
    kind, keys, *rest = cast(tuple, np.random.get_state())
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """The inverse of :func:`random_states`; another number of GPUs keeps its own streams."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
