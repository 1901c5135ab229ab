"""What an import is told, and what it tells."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kdas_book.data.importing.shapes import BOXES
from kdas_core import UserError

NOTE = "imported.json"  # in each set's folder: where its pairs come from
_WORDS = {"box": BOXES, "negatives": ("keep", "drop"), "exif": ("turned", "stored")}
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
class Options:
    """How a source is read and divided.

    ``box``: "ellipse" or "rectangle" draws a box without outline as a weak mask; None refuses it.
    ``negatives``: None: frames that the source declares without polyp get an empty mask, and an
    image about which it says nothing is a fault; "keep": both get an empty mask; "drop": both are
    left out. ``exif``: "turned" or "stored", see :func:`pixels.load_picture`.
    """

    images: Path | None = None  # folder, where it is not where the layout has it
    masks: Path | None = None  # the same, of the layout masks; so are the next and values, colours
    mask_suffix: str = ""  # what a mask file's name has more than its image's
    labels: tuple[str, ...] = ()  # categories that are polyps; may be empty where there is only one
    values: tuple[int, ...] = ()  # grey values, or palette indices, that are polyp
    colours: tuple[str, ...] = ()  # the same as hexadecimal RGB: ff0000
    box: str | None = None
    negatives: str | None = None
    split: float = 0.0  # share of the frames that becomes the test set, 0 to 1
    test_name: str = "Own"  # the test set's folder in TestDataset
    group_by: str = ""  # these two: see grouping.groups_of; frames of a group stay together
    groups: str = ""
    seed: int = 0  # of the division
    prefix: bool = False  # put the folders in front of a name: video1/007 becomes video1_007
    exif: str | None = None
    skip: bool = False  # leave frames with faults out and list them in the note

    def __post_init__(self):
        for name in ("labels", "values", "colours"):
            setattr(self, name, tuple(getattr(self, name)))
        self.images = Path(self.images) if self.images else None
        self.masks = Path(self.masks) if self.masks else None
        for name, words in _WORDS.items():
            if (word := getattr(self, name)) not in (None, *words):
                raise UserError(f'{name} is "{word}"; choose {" or ".join(words)}.')
        if not 0 <= self.split <= 1:
            raise UserError(f"split is {self.split}; it is a share and must lie between 0 and 1.")
        if self.test_name in ("", ".", "..") or set(self.test_name) & set('/\\:*?"<>|'):
            raise UserError(f'test_name is "{self.test_name}"; it must be the name of a folder.')
        for one, other in (("group_by", "groups"), ("values", "colours")):
            if getattr(self, one) and getattr(self, other):
                raise UserError(f"{one} and {other} are two ways of saying the same; choose one.")
        if not all(re.fullmatch("#?[0-9a-fA-F]{6}", colour) for colour in self.colours):
            fact = f"colours are {', '.join(self.colours)}"
            raise UserError(f"{fact}; write each as six hexadecimal digits, such as ff0000.")


@dataclass
class Imported:
    """What an import did; ``print`` it."""

    out: Path
    layout: str
    by_frame: bool  # each frame was its own group
    # Folder below out → pairs, groups, without_polyp, median_share (of the pairs with a polyp).
    sets: dict[str, dict] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
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
        if self.skipped:
            lines.append(f"  {len(self.skipped)} faults skipped; {NOTE} lists them")
        if self.by_frame and len(self.sets) > 1:
            way_out = "if frames come from videos, say --group-by or --groups."
            lines.append(f"  Divided frame by frame: {way_out}")
        return "\n".join([*lines, f'Next: "kdas data check {self.out}"'])
