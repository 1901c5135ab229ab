"""How long chapters take: what was recorded, and what is shown while they run."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kdas_book.publishing.run_notebook import Measured, machine
from kdas_core.recipe import PRESETS

TIMES = Path("book") / "results" / "chapter_times.csv"
COLUMNS = ["preset", "chapter", "seconds", "peak_mb", "machine", "date"]


def expected_seconds(root: Path, preset: str) -> dict[str, float]:
    """Seconds per chapter at a preset, as recorded in ``book/results/chapter_times.csv``."""
    if not (root / TIMES).is_file():
        return {}
    rows = pd.read_csv(root / TIMES).query("preset == @preset")
    return dict(zip(rows.chapter, rows.seconds.astype(float)))


def record(root: Path, preset: str, measured: Sequence[Measured]) -> Path:
    """Write the times over earlier ones of the same preset and chapter."""
    file = root / TIMES
    where = [machine(), datetime.date.today().isoformat()]
    rows = [[preset, m.chapter, round(m.seconds, 1), round(m.peak_mb), *where] for m in measured]
    new = pd.DataFrame(rows, columns=COLUMNS)
    table = pd.concat([pd.read_csv(file), new]) if file.is_file() else new
    table = table.drop_duplicates(["preset", "chapter"], keep="last")
    table["order"] = table.preset.map(list(PRESETS).index)
    file.parent.mkdir(parents=True, exist_ok=True)
    table.sort_values(["order", "chapter"])[COLUMNS].to_csv(file, index=False)
    return file


class Progress:
    """One line a chapter, which grows in a terminal; a log gets one a minute."""

    def __init__(self, label: str, expected: float | None):
        self.label = label
        self.expected = clock(expected)
        self.live = sys.stdout.isatty()
        self.shown = -60.0

    def tick(self, elapsed: float) -> None:
        if elapsed - self.shown >= (1 if self.live else 60):
            self.shown = elapsed
            self.say(elapsed, "running", end="" if self.live else "\n")

    def say(self, elapsed: float, state: str, end: str = "\n") -> None:
        text = f"{self.label}  elapsed {clock(elapsed)}, expected {self.expected}, {state}"
        print(f"\r\x1b[K{text}" if self.live else text, end=end, flush=True)


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
