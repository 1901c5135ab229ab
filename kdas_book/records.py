"""What chapters measured, as recorded in ``book/results``: times, numbers, and the maps of networks
that were trained for longer than a chapter should take.
"""

import datetime
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdas_core.files import atomic_write
from kdas_core.recipe import PRESETS

TIMES = Path("book") / "results" / "chapter_times.csv"
NUMBERS = Path("book") / "results" / "chapter_numbers.csv"
MAPS = Path("book") / "results" / "laptop_maps.npz"
MIME = "application/vnd.kdas.numbers+json"
COLUMNS = ["preset", "chapter", "seconds", "peak_mb", "machine", "date"]
Measured = dict[str, tuple[float, float]]  # of each chapter: seconds, and peak memory in MB


def read_times(root: Path) -> pd.DataFrame:
    """A row for each preset and chapter that was measured."""
    file = root / TIMES
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)


def record(root: Path, preset: str, measured: Measured) -> Path:
    """Write the times over earlier ones of the same preset and chapter."""
    rows = read_times(root).to_numpy().tolist()
    for chapter, (seconds, peak_mb) in measured.items():
        about = [machine(), datetime.date.today().isoformat()]
        rows.append([preset, chapter, round(seconds, 1), round(peak_mb), *about])
    table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(COLUMNS[:2], keep="last")
    table.preset = pd.Categorical(table.preset, list(PRESETS))
    file = root / TIMES
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, table.sort_values(COLUMNS[:2]).to_csv(index=False).encode())
    return file


def clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "unknown"
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def machine() -> str:
    """This machine in words that fit any other like it, such as "2 CPU cores, no GPU"."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{cores} CPU cores, {gpu}"


@dataclass(frozen=True)
class Numbers:
    """Quantities and their values in words, beside those recorded at preset ``laptop``."""

    chapter: str
    here: dict[str, str]
    recorded: dict[str, str]
    images: str = "drawn images"  # what the recorded numbers are about

    @property
    def table(self) -> pd.DataFrame:
        columns = {"this build": self.here}
        if self.recorded:
            columns[f"recorded at laptop, {self.images}"] = self.recorded
        return pd.DataFrame(columns, list(self.here), dtype=object).fillna("not recorded")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        about = {"chapter": self.chapter, "numbers": self.here}
        return {"text/html": self.table.to_html(), "text/plain": str(self.table), MIME: about}


def read_numbers(root: Path, chapter: str) -> dict[str, str]:
    """The recorded quantities of a chapter."""
    file = root / NUMBERS
    rows = pd.read_csv(file, dtype=str) if file.is_file() else pd.DataFrame(columns=["chapter"])
    mine = rows[rows.chapter == chapter]
    return {} if mine.empty else dict(zip(mine.quantity, mine.value))


def record_numbers(root: Path, notebooks: Iterable[Mapping[str, Any]]) -> Path:
    """Write what executed chapters showed as ``Numbers`` over their earlier rows."""
    rows = []
    for notebook in notebooks:
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                said = output.get("data", {}).get(MIME, {"numbers": {}})
                rows += [(said["chapter"], *pair) for pair in said["numbers"].items()]
    table = pd.DataFrame(rows, columns=["chapter", "quantity", "value"])
    file = root / NUMBERS
    if file.is_file():
        earlier = pd.read_csv(file, dtype=str)
        table = pd.concat([earlier[~earlier.chapter.isin(table.chapter)], table])
    text = table.sort_values("chapter", kind="stable").to_csv(index=False)
    atomic_write(file, text.encode())
    return file


def laptop_maps(root: Path) -> dict[str, np.ndarray]:
    """Drawn test images and what networks of preset ``laptop`` say of them: ``images`` uint8
    (K, S, S, 3), ``masks`` bool (K, S, S), ``names``, and for the teacher and each objective the
    logit maps P1 and P2, float16 (K, 2, S, S). ``book/results/README.md`` says how they were made.
    """
    with np.load(root / MAPS) as file:
        return dict(file)
