"""Which video a frame of CVC-ClinicDB comes from.

Its 612 frames, named 1 to 612, are 29 sequences one after another, and PraNet's layout keeps the
names. The borders are those of the table that its authors publish with the data (Bernal et al.,
Computerized Medical Imaging and Graphics 2015); the images bear them out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from kdas_core.files import atomic_write

# The last frame of each sequence.
_LAST: tuple[int, ...] = (25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317)
_LAST += (342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612)
FRAME = (384, 288)  # width and height of every frame


def clinicdb_sequence(name: str) -> int | None:
    """The sequence, 1 to 29, of a frame by its name, ``"1"`` to ``"612"``; None for any other name.

    >>> clinicdb_sequence("25"), clinicdb_sequence("26"), clinicdb_sequence("polyp")
    (1, 2, None)
    """
    if not (name.isascii() and name.isdigit()) or not 1 <= int(name) <= _LAST[-1]:
        return None
    return bisect_left(_LAST, int(name)) + 1


def clinicdb_groups(frames: Iterable[tuple[str, tuple[int, int]]]) -> dict[str, str]:
    """name → group, such as ``"ClinicDB-07"``, for those (name, (width, height)) that fit in both:
    a picture called 7 may come from anywhere.
    """
    known = ((name, clinicdb_sequence(name)) for name, size in frames if size == FRAME)
    return {name: f"ClinicDB-{sequence:02d}" for name, sequence in known if sequence}


def write_groups(groups: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Write ``{data set: {name: group}}`` as ``kdas compare --groups`` reads it; `UserError` if it
    cannot be written there.
    """
    rows = [(dataset, *item) for dataset, names in groups.items() for item in names.items()]
    table = pd.DataFrame(rows, columns=["dataset", "name", "group"])
    atomic_write(path, table.to_csv(index=False).encode(), "choose another place")
