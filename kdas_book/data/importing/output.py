"""Folders of an import: written beside their place, renamed when all is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

import kdas_core
from kdas_book.data.importing.options import NOTE, Imported, Options
from kdas_core import UserError
from kdas_core.data.layout import is_synthetic


@dataclass(frozen=True)
class Kept:
    """A pair that is written: its image's file name, its frame's name in the source, and the
    polyp's share.
    """

    file: str
    name: str
    share: float


def refuse_places(source: Path, out: Path, settings: Options) -> None:
    """Raises UserError: no source, or ``out`` is taken or lies inside the source."""
    folders = [f"TestDataset/{settings.test_name}"] * (settings.split > 0) + ["TrainDataset"] * (
        settings.split < 1
    )
    if not source.exists():
        raise UserError(f"{source} does not exist; name the folder, or for COCO the .json file.")
    for folder in filter(None, (source, settings.images, settings.masks)):
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{out} lies inside the source {folder}, which is only read; choose another --out."
            )
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another --out.")
    if out.is_dir() and is_synthetic(out):
        raise UserError(
            f"{out} holds synthetic polyps, and yours would pass for such; choose another --out."
        )
    taken = [str(out / folder) for folder in folders if (out / folder).exists()]
    if taken:
        raise UserError(
            f"{' and '.join(taken)} exist already, and nothing is written over; choose another --out."
        )


def write(path: Path, content: bytes) -> None:
    """A new file; its folders are made.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another --out."
        ) from error


def arrange(
    draft: Path,
    kept: list[Kept],
    groups: Sequence[str],
    testing: Sequence[bool],
    settings: Options,
    report: Imported,
) -> None:
    """From the pool into the sets, with their counts."""
    for folder, side in (("TrainDataset", False), (f"TestDataset/{settings.test_name}", True)):
        mine = [i for i, test in enumerate(testing) if test is side]
        if not mine:
            continue
        for part in ("images", "masks"):
            (draft / folder / part).mkdir(parents=True)
            for i in mine:
                name = (
                    kept[i].file if part == "images" else f"{PurePosixPath(kept[i].file).stem}.png"
                )
                os.replace(draft / "pool" / part / name, draft / folder / part / name)
        shares = [kept[i].share for i in mine if kept[i].share]
        report.sets[folder] = {
            "pairs": len(mine),
            "groups": len({groups[i] for i in mine}),
            "without_polyp": len(mine) - len(shares),
            "median_share": float(np.median(shares)) if shares else 0.0,
        }
    shutil.rmtree(draft / "pool")


def write_notes(draft: Path, source: Path, settings: Options, report: Imported) -> None:
    chosen = {
        name: value for name, value in asdict(settings).items() if value != getattr(Options, name)
    }
    about: dict[str, Any] = {
        "made_by": "kdas_book.data.importing",
        "version": kdas_core.__version__,
    }
    about |= {"source": str(source), "layout": report.layout, "options": chosen}
    for folder, counts in report.sets.items():
        note = (
            about
            | counts
            | {"counts": dict(report.counts), "weak_masks": report.counts["weak"] > 0}
        )
        note["skipped"] = report.skipped
        write(
            draft / folder / NOTE,
            (json.dumps(note, indent=1, ensure_ascii=False, default=str) + "\n").encode(),
        )


def publish(draft: Path, out: Path, folders: list[str]) -> None:
    """Rename the draft, or where ``out`` has other sets, its sets one by one; if one fails, the
    others go back.
    """
    moved: list[tuple[Path, Path]] = []
    try:
        if not out.exists() or not any(out.iterdir()):
            os.replace(draft, out)
            return
        for folder in folders:
            target = out / folder
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError(0, "it exists already")
            os.rename(draft / folder, target)
            moved.append((target, draft / folder))
    except OSError as error:
        for target, back in moved:
            os.rename(target, back)
        raise UserError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from error
