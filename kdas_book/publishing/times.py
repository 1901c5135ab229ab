"""How long chapters take, as recorded in ``book/results/chapter_times.csv``."""

import datetime
from pathlib import Path

import pandas as pd

from kdas_book.publishing.run_notebook import machine
from kdas_core.recipe import PRESETS

TIMES = Path("book") / "results" / "chapter_times.csv"
COLUMNS = ["preset", "chapter", "seconds", "peak_mb", "machine", "date"]
Measured = dict[str, tuple[float, float]]  # of each chapter: seconds, and peak memory in MB


def _read(root: Path) -> pd.DataFrame:
    file = root / TIMES
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)


def expected_seconds(root: Path, preset: str) -> dict[str, float]:
    """Seconds per chapter at a preset; empty where none were recorded."""
    return _read(root).query("preset == @preset").set_index("chapter").seconds.to_dict()


def record(root: Path, preset: str, measured: Measured) -> Path:
    """Write the times over earlier ones of the same preset and chapter."""
    rows = _read(root).to_numpy().tolist()
    for chapter, (seconds, peak_mb) in measured.items():
        about = [machine(), datetime.date.today().isoformat()]
        rows.append([preset, chapter, round(seconds, 1), round(peak_mb), *about])
    table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(COLUMNS[:2], keep="last")
    table.preset = pd.Categorical(table.preset, list(PRESETS))
    file = root / TIMES
    file.parent.mkdir(parents=True, exist_ok=True)
    table.sort_values(COLUMNS[:2]).to_csv(file, index=False)
    return file


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
