"""Which video a frame comes from: of CVC-ClinicDB by its number, of other sets by a CSV file.

CVC-ClinicDB's 612 frames, named 1 to 612, are 29 sequences one after another, and PraNet's layout
keeps the names. The borders are those of the table that its authors publish with the data (Bernal
et al., Computerized Medical Imaging and Graphics 2015); the images bear them out.
"""

import csv
import io
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from kdas_core import UserError
from kdas_core.evaluation.files import Problems
from kdas_core.files import atomic_write

# The last frame of each sequence.
_LAST: tuple[int, ...] = (25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317)
_LAST += (342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612)
FRAME = (384, 288)  # width and height of every frame
_HEADER = ("dataset", "name", "group")  # of a file for `kdas compare --groups`


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
    """Write ``{data set: {name: group}}`` as `read_groups` reads it, or raise `UserError`."""
    rows = [(dataset, *item) for dataset, names in groups.items() for item in names.items()]
    text = pd.DataFrame(rows, columns=_HEADER).to_csv(index=False).encode()
    if path.is_file() and path.read_bytes() != text:  # groups are often corrected by hand
        raise UserError(f"{path} is there already, with other groups; choose another place.")
    atomic_write(path, text, "choose another place")


def read_groups(path: str | Path) -> dict[str, dict[str, str]]:
    """Which images belong together, e.g. the frames of one video: ``{data set: {name: group}}``,
    from a file that `read_table` can read.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for (dataset, name), group in read_table(path, _HEADER, "compared").items():
        groups[dataset][name] = group
    return dict(groups)


def read_table(path: str | Path, header: Sequence[str], not_done: str) -> dict[tuple, str]:
    """All cells before the last → the last, of each line of a UTF-8 CSV file with this header.
    Cells are text (001 stays 001) in Unicode's form NFC; blanks around them do not count.

    UserError: with all lines that lack a cell or give one key a second value, below what was
    ``not_done``; or because the file cannot be read, has another header, or no rows.
    """
    try:
        # Excel begins a file with a mark, which this codec drops.
        text = normalize("NFC", Path(path).read_text(encoding="utf-8-sig"))
        reader = csv.reader(io.StringIO(text))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); give a UTF-8 CSV file.") from error
    first = ",".join(rows[0][1]) if rows else ""
    if first != ",".join(header) or len(rows) < 2:
        wanted = f"must have the header {','.join(header)} and then a line for each image"
        raise UserError(f'{path} begins with "{first}", {len(rows)} lines in all; it {wanted}.')
    problems = Problems()
    table: dict[tuple, str] = {}
    for line, cells in rows[1:]:
        *key, value = cells
        where = f"{path}, line {line},"
        if len(cells) != len(header) or not all(cells):
            problems.append(f"{where} lacks one of {len(header)} cells, or has more; mend it.")
        elif (other := table.setdefault(tuple(key), value)) != value:
            what = " of ".join(reversed(key))
            problems.append(f"{where} puts {what} in {value}, not in {other}; choose one.")
    problems.stop(not_done)
    return table
