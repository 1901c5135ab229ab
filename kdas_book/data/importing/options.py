"""What an import is told, and what it tells."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kdas_book.data.importing.shapes import BOXES
from kdas_core import UserError

NOTE = "imported.json"  # in each set's folder: where its pairs come from


@dataclass(frozen=True)
class Options:
    """How a source is read and divided.

    Attributes:
        images, masks: folders, where they are not where the layout has them.
        mask_suffix: what a mask file's name has more than its image's (layout ``masks``).
        labels: categories that are polyps; may be empty where the source has only one.
        values: grey values, or palette indices, that are polyp in mask files of several classes.
        colours: the same as hexadecimal RGB, ``"ff0000"``.
        box: ``"ellipse"`` or ``"rectangle"``: draw an annotation that is only a box as a weak mask;
            None: refuse it.
        negatives: what becomes of frames without a polyp. None: those that the source declares get
            an empty mask, and an image about which it says nothing is a fault; ``"keep"``: both get
            an empty mask; ``"drop"``: both are left out.
        split: share of the frames that becomes the test set, 0 to 1.
        test_name: the test set's folder in ``TestDataset``.
        group_by, groups: see :func:`grouping.groups_of`; frames of one group stay together.
        seed: of the division.
        prefix: put the folders in front of a name: ``video1/007`` becomes ``video1_007``.
        exif: see :func:`pixels.load_picture`.
        skip: leave frames with faults out, and list them in the note, instead of refusing the
            source.
    """

    images: Path | None = None
    masks: Path | None = None
    mask_suffix: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    colours: tuple[str, ...] = ()
    box: str | None = None
    negatives: str | None = None
    split: float = 0.0
    test_name: str = "Own"
    group_by: str = ""
    groups: str = ""
    seed: int = 0
    prefix: bool = False
    exif: str | None = None
    skip: bool = False

    def __post_init__(self):
        for name in ("labels", "values", "colours"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("images", "masks"):
            object.__setattr__(
                self, name, Path(getattr(self, name)) if getattr(self, name) else None
            )
        known = {"box": BOXES, "negatives": ("keep", "drop"), "exif": ("turned", "stored")}
        for name, words in known.items():
            if getattr(self, name) not in (None, *words):
                raise UserError(f'{name} is "{getattr(self, name)}"; choose {" or ".join(words)}.')
        if not 0 <= self.split <= 1:
            raise UserError(f"split is {self.split}; it is a share and must lie between 0 and 1.")
        if self.test_name in ("", ".", "..") or set(self.test_name) & set('/\\:*?"<>|'):
            raise UserError(f'test_name is "{self.test_name}"; it must be the name of a folder.')
        if self.group_by and self.groups:
            raise UserError("group_by and groups are two ways of saying the same; choose one.")
        if self.values and self.colours:
            raise UserError("values and colours are two ways of saying the same; choose one.")
        self.rgb  # noqa: B018 - refuses what is no colour

    @property
    def rgb(self) -> tuple[tuple[int, int, int], ...]:
        try:
            codes = [bytes.fromhex(colour.removeprefix("#")) for colour in self.colours]
        except ValueError:
            codes = [b""]
        if any(len(code) != 3 for code in codes):
            raise UserError(
                f"colours are {', '.join(self.colours)}; write each as six hexadecimal digits, such as ff0000."
            )
        return tuple((red, green, blue) for red, green, blue in codes)


@dataclass
class Imported:
    """What an import did; ``print`` it.

    Attributes:
        sets: folder below ``out`` → ``{"pairs", "groups", "without_polyp", "median_share"}``; the
            share of polyp pixels is of the pairs that have any.
        counts: ``copied`` (images kept byte for byte), ``outlines``, ``weak`` (boxes drawn as
            masks), ``clipped`` (shapes that stuck out of their picture), ``other_label`` (shapes of
            categories not chosen), ``dropped`` (frames without polyp).
        skipped: a sentence for each fault that ``skip`` let pass.
    """

    out: Path
    layout: str
    sets: dict[str, dict] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    by_frame: bool = False

    def __str__(self) -> str:
        lines = [
            f"{self.out}: {sum(about['pairs'] for about in self.sets.values())} pairs from {self.layout}"
        ]
        for folder, about in self.sets.items():
            groups = "" if self.by_frame else f" of {about['groups']} groups"
            share = (
                f"median polyp share {about['median_share']:.1%}"
                if about["median_share"]
                else "no polyp at all"
            )
            lines.append(
                f"  {folder}: {about['pairs']} pairs{groups}, {share}, {about['without_polyp']} without a polyp"
            )
        c = self.counts
        said = {
            "copied": "images copied byte for byte",
            "rewritten": "images written anew as PNG",
            "outlines": "outlines drawn",
            "weak": "boxes drawn as weak masks: no outline is known",
            "clipped": "shapes cut off at the picture's border",
            "other_label": "shapes of other categories left out",
            "dropped": "frames without a polyp left out",
        }
        lines += [f"  {c[key]} {text}" for key, text in said.items() if c[key]]
        if self.skipped:
            lines.append(f"  {len(self.skipped)} faults skipped; {NOTE} lists them")
        if self.by_frame and len(self.sets) > 1:
            lines.append(
                "  Divided frame by frame: if frames come from videos, say --group-by or --groups."
            )
        return "\n".join([*lines, f'Next: "kdas data check {self.out}"'])
