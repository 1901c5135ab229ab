"""Which frames belong together, and which groups become the test set."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from kdas_book.data.importing.frames import normal
from kdas_book.data.videos import read_table
from kdas_core import UserError
from kdas_core.evaluation.files import Problems


def groups_of(names: Sequence[str], group_by: str, groups: str) -> list[str]:
    """The group (video, patient) of each frame, by its name (its path below the source without
    suffix); with neither rule each frame is its own group.

    Args:
        group_by: a regular expression that is searched in each name; its first bracket, or else all
            that matched, is the group.
        groups: a CSV file with the columns ``name`` (with or without its folders) and ``group``.

    UserError: the expression or the file cannot be understood, or has no group for a name.

    >>> groups_of(["v1/001", "v1/002", "v2/001"], r"^[^/]+", "")
    ['v1', 'v1', 'v2']
    """
    if group_by:
        try:
            rule = re.compile(group_by)
        except re.error as error:
            fact = f'"{group_by}" is no regular expression ({error})'
            raise UserError(f"--group-by {fact}.") from None
        matches = [rule.search(name) for name in names]
        found = [match[min(rule.groups, 1)] if match else "" for match in matches]
        what = f'--group-by "{group_by}" finds nothing in'
    elif groups:
        table = read_table(groups, ("name", "group"), "imported")
        paths = [PurePosixPath(normal(name)) for name in names]
        found = [table.get((str(p),)) or table.get((p.name,), "") for p in paths]
        what = f"{groups} has no group for"
    else:
        return list(names)
    alone = [f"{what} {name}." for name, group in zip(names, found) if not group]
    Problems(alone).stop("imported")
    return found


def divide(groups: Sequence[str], share: float, seed: int) -> list[bool]:
    """Which frames are for testing: whole groups, drawn until their frames come as near to the
    share (0 to 1) as they can. Strictly between 0 and 1 at least one group goes to either side;
    UserError where there are fewer than two.
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
