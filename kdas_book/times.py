"""How long chapters take, as recorded in ``book/results/chapter_times.csv``."""

import datetime
import math
import os
from pathlib import Path

import pandas as pd

from kdas_core.recipe import PRESETS

TIMES = Path("book") / "results" / "chapter_times.csv"
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
    table.sort_values(COLUMNS[:2]).to_csv(file, index=False)
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
