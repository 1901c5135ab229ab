"""Which frames belong together, and which groups become the test set."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from kdas_book.data.importing.frames import normal
from kdas_core import UserError


def groups_of(
    names: Sequence[str], group_by: str, groups: str | Path
) -> tuple[list[str], list[str]]:
    """The group (video, patient) of each frame, and a sentence for each name that has none. With
    neither rule each frame is its own group.

    Args:
        names: paths below the source without suffix, ``/`` between folders.
        group_by: a regular expression that is searched in each name; its first bracket, or else all
            that matched, is the group.
        groups: a CSV file with the columns ``name`` (with or without its folders) and ``group``.

    Raises:
        UserError: the expression or the file cannot be understood.

    >>> groups_of(["v1/001", "v1/002", "v2/001"], r"^[^/]+", "")
    (['v1', 'v1', 'v2'], [])
    """
    if group_by:
        try:
            rule = re.compile(group_by)
        except re.error as error:
            raise UserError(
                f'--group-by "{group_by}" is no regular expression ({error}).'
            ) from None
        matches = [rule.search(name) for name in names]
        found = [match[min(rule.groups, 1)] if match else None for match in matches]
        what = f'--group-by "{group_by}" finds nothing in'
    elif groups:
        table = _table(Path(groups))
        paths = [PurePosixPath(normal(name)) for name in names]
        found = [table.get(str(path)) or table.get(path.name) for path in paths]
        what = f"{groups} has no group for"
    else:
        return list(names), []
    alone = [f"{what} {name}." for name, group in zip(names, found) if not group]
    return [group or "" for group in found], alone


def divide(groups: Sequence[str], share: float, seed: int) -> list[bool]:
    """Which frames are for testing: whole groups, drawn until their frames come as near to the
    share (0 to 1) as they can. Strictly between 0 and 1 at least one group goes to either side.

    Raises:
        UserError: fewer than two groups to divide.
    """
    members = Counter(sorted(groups))
    if share in (0, 1):
        return [share == 1] * len(groups)
    if len(members) < 2:
        fact = f'All {len(groups)} frames are of one group, "{next(iter(members), "")}"'
        raise UserError(f"{fact}, which cannot be divided; use --split 0 or --split 1.")
    order = list(members)
    np.random.default_rng(seed).shuffle(order)
    chosen: set[str] = set()
    left = share * len(groups)
    for group in order:
        closer = abs(left - members[group]) < abs(left)
        if closer and len(chosen) < len(order) - 1:
            chosen.add(group)
            left -= members[group]
    chosen = chosen or {min(members, key=members.__getitem__)}
    return [group in chosen for group in groups]


def _table(path: Path) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); give a UTF-8 CSV file.") from error
    whole = all(len(row) == 2 and all(row) for row in rows)
    if rows[:1] != [["name", "group"]] or not whole:
        must = "the header name,group and then a line with both for each frame"
        raise UserError(f"{path} must have {must}.")
    table: dict[str, str] = {}
    for name, group in rows[1:]:
        first = table.setdefault(normal(name), group)
        if first != group:
            raise UserError(f"{path} puts {name} in {first} and in {group}; choose one.")
    return table
