"""Pairs of an import: written beside their place, divided into sets, renamed when all is there."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

import kdas_core
from kdas_book.data.importing.frames import Frame, Options
from kdas_book.data.importing.pixels import bits_in_use, load_pair, load_picture, png
from kdas_book.data.importing.places import normal
from kdas_book.data.importing.shapes import draw
from kdas_book.data.videos import read_table
from kdas_core import UserError
from kdas_core.data.layout import is_synthetic
from kdas_core.evaluation.files import Problems

NOTE = "imported.json"  # in each set's folder: where its pairs come from
_COUNTS = {  # of an import, and what each says
    "copied": "images copied byte for byte",
    "rewritten": "images written anew as PNG",
    "outlines": "outlines drawn",
    "weak": "boxes drawn as weak masks: no outline is known",
    "clipped": "shapes cut off at the picture's border",
    "other_label": "shapes of other categories left out",
    "dropped": "frames without a polyp left out",
}


@dataclass
class Imported:
    """What an import did; ``print`` it."""

    out: Path
    layout: str
    by_frame: bool  # each frame was its own group
    # Folder below out → pairs, groups, without_polyp, median_share (of the pairs with a polyp).
    sets: dict[str, dict] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    off: float = 0.0  # how far the colours of JPEG masks were from those named
    skipped: list[str] = field(default_factory=list)  # each fault that the option skip let pass

    def __str__(self) -> str:
        total = sum(about["pairs"] for about in self.sets.values())
        lines = [f"{self.out}: {total} pairs from {self.layout}"]
        for folder, about in self.sets.items():
            groups = "" if self.by_frame else f" of {about['groups']} groups"
            median = about["median_share"]
            share = f"median polyp share {median:.1%}" if median else "no polyp at all"
            pairs = f"{about['pairs']} pairs{groups}"
            lines.append(f"  {folder}: {pairs}, {share}, {about['without_polyp']} without a polyp")
        lines += [f"  {self.counts[k]} {text}" for k, text in _COUNTS.items() if self.counts[k]]
        if self.counts["jpeg"]:
            off = f"their colours were up to {self.off:.0f} levels away from those named"
            lines.append(f"  {self.counts['jpeg']} masks are JPEGs; {off}")
        if self.skipped:
            lines.append(f"  {len(self.skipped)} faults skipped; {NOTE} lists them")
        if self.by_frame and len(self.sets) > 1:
            way_out = "if frames come from videos, say --group-by or --groups."
            lines.append(f"  Divided frame by frame: {way_out}")
        return "\n".join([*lines, f'Next: "kdas data check {self.out}"'])


def refuse_places(source: Path, out: Path, options: Options) -> None:
    """Raises UserError: no source, or ``out`` is taken or lies inside the source."""
    if not source.exists():
        raise UserError(f"{source} does not exist; name the folder, or for COCO the .json file.")
    sets = [f"TestDataset/{options.test_name}"] * (options.split > 0)
    sets += ["TrainDataset"] * (options.split < 1)
    taken = " and ".join(str(out / name) for name in sets if (out / name).exists())
    read = [folder for folder in (source, options.images, options.masks) if folder]
    around = [p for p in read if p.is_dir() and out.resolve().is_relative_to(p.resolve())]
    for is_so, fact in (
        (around, f"{out} lies inside the source {around and around[0]}, which is only read"),
        (out.is_file(), f"{out} is a file"),
        (is_synthetic(out), f"{out} holds synthetic polyps, and yours would pass for such"),
        (taken, f"{taken} exist already, and nothing is written over"),
    ):
        if is_so:
            raise UserError(f"{fact}; choose another --out.")


@dataclass
class Pool:
    """Where pairs are written before they are divided into sets."""

    folder: Path
    options: Options
    labels: set[str]  # the categories that are polyp

    def write(self, frames: dict[str, Frame], report: Imported, faults: list[str]) -> pd.DataFrame:
        """All pairs, by the stem of each: a row each with the names of its files and, in the
        source, its frame, and the share of polyp. ``faults`` gets what is wrong.
        """
        for part in ("images", "masks"):
            (self.folder / part).mkdir(parents=True)
        files = {frame.image for frame in frames.values() if isinstance(frame.image, Path)}
        bits = max(map(bits_in_use, files), default=8)
        silent = "TQDM_DISABLE" in os.environ
        kept = []
        for stem, frame in tqdm(frames.items(), desc="importing", leave=False, disable=silent):
            try:
                pair = self._write_pair(stem, frame, bits)
            except UserError as error:
                frame.faults.append(str(error))
            faults += frame.faults
            if not frame.faults:
                report.counts.update(frame.counts)
                report.off = max(report.off, frame.off)
                kept += [pair] if pair else []
        return pd.DataFrame(kept)

    def _write_pair(self, stem: str, frame: Frame, bits: int) -> dict | None:
        """None if the frame has faults or is to be left out."""
        if not frame.annotated and self.options.negatives is None:
            way_out = "--negatives keep if such images show no polyp, or --negatives drop"
            raise UserError(f"{frame.where} has no annotation; say {way_out}.")
        if not frame.image:
            return None  # its faults say why
        exif = self.options.exif
        if frame.mask:
            picture, mask, off = load_pair(frame, frame.mask, self.options, bits)
            frame.counts["jpeg"] += off is not None
            frame.off = off or 0.0
        elif frame.shapes:
            picture = load_picture(frame, frame.size, exif, bits)
            mask = self._draw(frame, *picture.size)
        else:  # nothing was drawn, so nothing can lie in the wrong place
            picture = load_picture(frame, None, exif or "turned", bits)
            mask = np.zeros(picture.size[::-1], bool)
        if frame.faults:
            return None
        if self.options.negatives == "drop" and not mask.any():
            frame.counts["dropped"] += 1
            return None
        frame.counts["copied" if picture.copied else "rewritten"] += 1
        pair = {"images": f"{stem}{picture.suffix}", "masks": f"{stem}.png"}
        (self.folder / "images" / pair["images"]).write_bytes(picture.code)
        (self.folder / "masks" / pair["masks"]).write_bytes(png(mask * np.uint8(255)))
        return pair | {"frame": frame.name, "share": float(mask.mean())}

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

    def move(self, kept: pd.DataFrame, draft: Path) -> dict[str, dict]:
        """Move the pairs into the sets that the column ``test`` says; the counts of each."""
        sets = {}
        for test, pairs in kept.groupby("test"):
            folder = f"TestDataset/{self.options.test_name}" if test else "TrainDataset"
            for part in ("images", "masks"):
                (draft / folder / part).mkdir(parents=True)
                for file in pairs[part]:
                    os.replace(self.folder / part / file, draft / folder / part / file)
            shares = pairs["share"][pairs["share"] > 0]
            sets[folder] = {
                "pairs": len(pairs),
                "groups": pairs["group"].nunique(),
                "without_polyp": len(pairs) - len(shares),
                "median_share": float(shares.median()) if len(shares) else 0.0,
            }
        return sets


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


def write_notes(draft: Path, source: Path, options: Options, report: Imported) -> None:
    about = {
        "made_by": "kdas_book.data.importing",
        "version": kdas_core.__version__,
        "source": str(source),
        "layout": report.layout,
        "options": {k: v for k, v in vars(options).items() if v != getattr(Options, k)},
    }
    rest = {"counts": report.counts, "weak_masks": report.counts["weak"] > 0}
    rest |= {"colours_off": round(report.off), "skipped": report.skipped}
    for folder, numbers in report.sets.items():
        text = json.dumps(about | numbers | rest, indent=1, ensure_ascii=False, default=str)
        (draft / folder / NOTE).write_bytes(f"{text}\n".encode(errors="backslashreplace"))


def publish(draft: Path, out: Path, folders: list[str]) -> None:
    """Rename the draft, or its sets one by one into ``out``; if one fails, all go back."""
    if not out.exists() or not any(out.iterdir()):
        os.replace(draft, out)
        return
    moved: list[str] = []
    try:
        for folder in folders:
            (out / folder).parent.mkdir(parents=True, exist_ok=True)
            if (out / folder).exists():
                raise FileExistsError(0, "it exists already")
            os.rename(draft / folder, out / folder)
            moved.append(folder)
    except OSError:
        for folder in moved:
            os.rename(out / folder, draft / folder)
        raise
