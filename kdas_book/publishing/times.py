"""How long chapters take, as recorded in ``book/results/chapter_times.csv``."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kdas_book.publishing.run_notebook import Measured, machine
from kdas_core.recipe import PRESETS

TIMES = Path("book") / "results" / "chapter_times.csv"
COLUMNS = ["preset", "chapter", "seconds", "peak_mb", "machine", "date"]


def _read(root: Path) -> pd.DataFrame:
    file = root / TIMES
    return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)


def expected_seconds(root: Path, preset: str) -> dict[str, float]:
    """Seconds per chapter at a preset; empty where none were recorded."""
    rows = _read(root).query("preset == @preset")
    return dict(zip(rows.chapter, rows.seconds.astype(float)))


def record(root: Path, preset: str, measured: Sequence[Measured]) -> Path:
    """Write the times over earlier ones of the same preset and chapter."""
    where = [machine(), datetime.date.today().isoformat()]
    rows = [[preset, m.chapter, round(m.seconds, 1), round(m.peak_mb), *where] for m in measured]
    table = pd.DataFrame([*_read(root).to_numpy().tolist(), *rows], columns=COLUMNS)
    table = table.drop_duplicates(["preset", "chapter"], keep="last")
    table.preset = pd.Categorical(table.preset, list(PRESETS))
    file = root / TIMES
    file.parent.mkdir(parents=True, exist_ok=True)
    table.sort_values(["preset", "chapter"]).to_csv(file, index=False)
    return file


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
