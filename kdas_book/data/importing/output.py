"""Folders of an import: written beside their place, renamed when all is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

import kdas_core
from kdas_book.data.importing.frames import Frame
from kdas_book.data.importing.options import NOTE, Imported, Options
from kdas_book.data.importing.pixels import bits_in_use, load_mask, load_picture, png
from kdas_book.data.importing.shapes import draw
from kdas_core import UserError
from kdas_core.data.layout import is_synthetic
from kdas_core.files import unwritten

_HINT = "choose another --out"


def refuse_places(source: Path, out: Path, options: Options) -> None:
    """Raises UserError: no source, or ``out`` is taken or lies inside the source."""
    if not source.exists():
        raise UserError(f"{source} does not exist; name the folder, or for COCO the .json file.")
    fact = ""
    for folder in filter(None, (source, options.images, options.masks)):
        if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
            fact = fact or f"{out} lies inside the source {folder}, which is only read"
    sets = [f"TestDataset/{options.test_name}"] * (options.split > 0)
    sets += ["TrainDataset"] * (options.split < 1)
    taken = [str(out / name) for name in sets if (out / name).exists()]
    if not fact and out.exists() and not out.is_dir():
        fact = f"{out} is a file"
    elif not fact and is_synthetic(out):
        fact = f"{out} holds synthetic polyps, and yours would pass for such"
    elif not fact and taken:
        fact = f"{' and '.join(taken)} exist already, and nothing is written over"
    if fact:
        raise UserError(f"{fact}; {_HINT}.")


class Kept(NamedTuple):
    """A pair that is written."""

    file: str  # its image's
    name: str  # its frame's in the source
    share: float  # of the polyp


@dataclass(frozen=True)
class Pool:
    """Where pairs are written before they are divided into sets."""

    folder: Path
    options: Options
    labels: set[str]  # the categories that are polyp

    def write(self, frames: dict[str, Frame], report: Imported, faults: list[str]) -> list[Kept]:
        """All pairs, by the stem of each, with their counts; ``faults`` gets what is wrong."""
        kept: list[Kept] = []
        files = {frame.image for frame in frames.values() if isinstance(frame.image, Path)}
        bits = max((bits_in_use(path) for path in sorted(files)), default=8)
        silent = "TQDM_DISABLE" in os.environ
        for stem, frame in tqdm(frames.items(), desc="importing", leave=False, disable=silent):
            try:
                pair = self._write_pair(stem, frame, bits)
            except UserError as error:
                frame.faults.append(str(error))
            faults += frame.faults
            if not frame.faults:
                report.counts.update(frame.counts)
                kept += [pair] if pair else []
        return kept

    def _write_pair(self, stem: str, frame: Frame, bits: int) -> Kept | None:
        """None if the frame has faults or is to be left out."""
        if not frame.annotated and self.options.negatives is None:
            way_out = "--negatives keep if such images show no polyp, or --negatives drop"
            raise UserError(f"{frame.where} has no annotation; say {way_out}.")
        if not frame.image:
            return None  # its faults say why
        if frame.mask:
            mask = load_mask(frame.mask, frame.page, self.options)
            picture = load_picture(frame, mask.shape[::-1], self.options.exif, bits)
        elif frame.shapes:
            picture = load_picture(frame, frame.size, self.options.exif, bits)
            mask = self._draw(frame, *picture.size)
        else:  # nothing was drawn, so nothing can lie in the wrong place
            picture = load_picture(frame, None, self.options.exif or "turned", bits)
            mask = np.zeros(picture.size[::-1], bool)
        if frame.faults:
            return None
        if self.options.negatives == "drop" and not mask.any():
            frame.counts["dropped"] += 1
            return None
        frame.counts["copied" if picture.copied else "rewritten"] += 1
        write(self.folder / "images" / f"{stem}{picture.suffix}", picture.code)
        write(self.folder / "masks" / f"{stem}.png", png(mask * np.uint8(255)))
        return Kept(f"{stem}{picture.suffix}", frame.name, float(mask.mean()))

    def _draw(self, frame: Frame, width: int, height: int) -> np.ndarray:
        """The union of a frame's shapes; what is wrong with any is added to the frame's faults."""
        mask = np.zeros((height, width), bool)
        for i, shape in enumerate(frame.shapes, 1):
            if shape.label not in self.labels:
                frame.counts["other_label"] += 1
                continue
            try:
                part, clipped = draw(shape, width, height, self.options.box)
            except ValueError as error:
                which = f"{frame.where}, shape {i} of {len(frame.shapes)} ({shape.label})"
                frame.faults.append(f"{which} {error}.")
                continue
            mask |= part
            frame.counts["weak" if shape.kind == "box" else "outlines"] += 1
            frame.counts["clipped"] += clipped
        return mask

    def divide(
        self, kept: list[Kept], groups: Sequence[str], testing: Sequence[bool]
    ) -> dict[str, dict]:
        """Move the pairs into the sets beside the pool; returns the counts of each."""
        sets = {}
        draft = self.folder.parent
        names = {False: "TrainDataset", True: f"TestDataset/{self.options.test_name}"}
        for test in sorted(set(testing)):
            folder = names[test]
            mine = [(pair, group) for pair, group, t in zip(kept, groups, testing) if t is test]
            for part in ("images", "masks"):
                (draft / folder / part).mkdir(parents=True)
            for pair, _ in mine:
                for name in (f"images/{pair.file}", f"masks/{Path(pair.file).stem}.png"):
                    os.replace(self.folder / name, draft / folder / name)
            shares = [pair.share for pair, _ in mine if pair.share]
            sets[folder] = {
                "pairs": len(mine),
                "groups": len({group for _, group in mine}),
                "without_polyp": len(mine) - len(shares),
                "median_share": float(np.median(shares)) if shares else 0.0,
            }
        shutil.rmtree(self.folder)
        return sets


def write(path: Path, content: bytes) -> None:
    """A new file; its folders are made. Raises UserError: the disk is full, or it is read-only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)
    except OSError as error:
        raise unwritten(path, error, _HINT) from error


def write_notes(draft: Path, source: Path, options: Options, report: Imported) -> None:
    chosen = {k: value for k, value in asdict(options).items() if value != getattr(Options, k)}
    about: dict[str, Any] = {
        "made_by": "kdas_book.data.importing",
        "version": kdas_core.__version__,
    }
    about |= {"source": str(source), "layout": report.layout, "options": chosen}
    counts = {"counts": report.counts, "weak_masks": report.counts["weak"] > 0}
    for folder, numbers in report.sets.items():
        note = about | numbers | counts | {"skipped": report.skipped}
        text = json.dumps(note, indent=1, ensure_ascii=False, default=str) + "\n"
        write(draft / folder / NOTE, text.encode())


def publish(draft: Path, out: Path, folders: list[str]) -> None:
    """Rename the draft, or where ``out`` has other sets, its sets one by one; if one fails, the
    others go back.
    """
    moved: list[str] = []
    try:
        if not out.exists() or not any(out.iterdir()):
            os.replace(draft, out)
            return
        for folder in folders:
            (out / folder).parent.mkdir(parents=True, exist_ok=True)
            if (out / folder).exists():
                raise FileExistsError(0, "it exists already")
            os.rename(draft / folder, out / folder)
            moved.append(folder)
    except OSError as error:
        for folder in moved:
            os.rename(out / folder, draft / folder)
        raise unwritten(out, error, _HINT) from error
