"""``kdas data check``: is a data set sound, and what should a person know about it before believing
a score?

Two kinds of answer. A *problem* is what training refuses (a missing mask, sizes that differ, a file
that cannot be read) or what is surely wrong: a mask whose polyp is too dark to count, such as one
of 0 and 1, and a test picture that is byte for byte a training picture. A *finding* is true and may
be as it should be: repeats, pictures that sets share, frames of one video on both sides, empty
masks. The public sets, whole and untouched, have findings and no problems.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from kdas_book.data.duplicates import TRAIN, Comparison, NearDuplicate, Picture, fingerprint
from kdas_book.data.videos import clinicdb_groups
from kdas_core import UserError
from kdas_core.data.images import THRESHOLD, eight_bits, opened, read_grey
from kdas_core.data.layout import FULL_COUNTS, Pair, first_few, is_synthetic, natural, scan


@dataclass(frozen=True)
class Check:
    """What `check_data` found.

    Attributes:
        problems, findings: a sentence each; see the head of this module for which is which.
        table: a row for each set: pairs, sizes, median share of polyp in percent, masks that are
            empty or grey, pictures that repeat an earlier one of the set byte for byte or nearly,
            problems.
        shared: how many pictures of the row's set are in the column's as well, byte for byte or
            nearly.
        near: pictures that are nearly, not exactly, another one; each with the most similar one,
            closest first.
        closest: six pairs to look at: the four closest that are not equal byte for byte, and the
            two closest between sets. There are always some; whether they are near, their distance
            says.
        videos: ``{set: {name: video}}`` where it is known.
    """

    root: Path
    table: pd.DataFrame
    shared: pd.DataFrame
    problems: tuple[str, ...]
    findings: tuple[str, ...]
    near: tuple[NearDuplicate, ...]
    closest: tuple[NearDuplicate, ...]
    videos: dict[str, dict[str, str]]

    def __str__(self) -> str:
        """The table, then the problems, then the findings; as ``kdas data check`` prints it."""
        parts = [f"{self.root}", self.table.to_string()]
        for title, lines in (("Problems", self.problems), ("Findings", self.findings)):
            parts.append(
                "\n".join([f"{title}: {len(lines) or 'none'}", *(f"- {line}" for line in lines)])
            )
        return "\n\n".join(parts)


@dataclass(frozen=True)
class _Look:
    """What one pair's pixels tell."""

    picture: Picture
    size: tuple[int, int]
    share: float
    marks: frozenset[str]  # keys of _BAD_MASKS and _MARKS

    @property
    def pair(self) -> Pair:
        return self.picture.pair


def check_data(root: str | Path) -> Check:
    """Decode every pair below ``root``, compare every picture with every other, and say what a
    person must know.

    ``root`` is a benchmark (``TrainDataset``, ``TestDataset/*``) or one folder with images/ and
    masks/.

    Raises:
        UserError: nothing there can be looked at.
    """
    root = Path(root)
    folders, looks, problems = _folders(root), {}, {}
    for name, folder in folders.items():
        try:
            looks[name], problems[name] = _look_into(folder)
        except UserError as error:  # the folder as a whole
            problems[name] = [str(error)]
    if not looks:
        raise UserError(next(iter(problems.values()))[0])

    comparison = Comparison(
        {name: [look.picture for look in of_set] for name, of_set in looks.items()}
    )
    findings = []
    for name, of_set in looks.items():
        problems[name] += _marked(name, of_set, _BAD_MASKS) + comparison.leaks(name)
        findings += ([] if is_synthetic(root) else _partial(name, len(of_set))) + _marked(
            name, of_set, _MARKS
        )
    videos = {} if is_synthetic(root) else _videos(looks)
    findings += comparison.findings() + _shared_videos(videos)
    rows = {name: _row(looks[name], problems[name], comparison, name) for name in looks}
    return Check(
        root=root,
        table=pd.DataFrame.from_dict(rows, orient="index"),
        shared=comparison.shared(),
        problems=tuple(line for lines in problems.values() for line in lines),
        findings=tuple(findings),
        near=comparison.near(),
        closest=comparison.closest(),
        videos=videos,
    )


def _folders(root: Path) -> dict[str, Path]:
    if (root / "images").is_dir():
        return {root.resolve().name: root}
    tests = sorted(
        (p for p in (root / "TestDataset").glob("*") if p.is_dir() and p.name[0] != "."),
        key=lambda p: natural(p.name),
    )
    return {TRAIN: root / TRAIN} | {path.name: path for path in tests}


# --- one folder -------------------------------------------------------------------------------------------------------


def _look_into(folder: Path) -> tuple[list[_Look], list[str]]:
    """What every sound pair of a folder looks like, and the problems of the others."""
    pairs, problems = scan(folder)
    lines = [problem.text + "." for problem in problems]
    with ThreadPoolExecutor(
        min(8, os.cpu_count() or 1)
    ) as pool:  # Pillow decodes outside Python's lock
        bar = tqdm(
            pool.map(_look_at, pairs), total=len(pairs), desc=folder.name, leave=False, disable=None
        )
        results = list(bar)
    return [r for r in results if isinstance(r, _Look)], lines + [
        r for r in results if isinstance(r, str)
    ]


def _look_at(pair: Pair) -> _Look | str:
    """The pair's facts, or the sentence that says why it cannot be read."""
    try:
        with opened(pair.image) as image:
            marks = _file_marks(image)
            size = image.size
            image.draft(
                "L", (512, 512)
            )  # a large JPEG is decoded at half its size or less; every byte is still read
            bits = fingerprint(eight_bits(image, pair.image).convert("L"))
            digest = hashlib.blake2b(pair.image.read_bytes(), digest_size=16).digest()
        with opened(pair.mask) as mask:
            marks |= _file_marks(mask)
        levels = read_grey(pair.mask)
    except UserError as error:
        return str(error)
    share = float((levels >= THRESHOLD).mean())
    return _Look(Picture(pair, digest, bits), size, share, frozenset(marks | _mask_marks(levels)))


def _file_marks(image: Image.Image) -> set[str]:
    """Kinds of file whose pixels a viewer may show otherwise than we read them."""
    marks = set()
    try:
        turned = image.getexif().get(0x0112, 1) not in (0, 1)
    except Exception:  # a damaged EXIF block says nothing, and is no fault of the pixels
        turned = False
    if turned:
        marks.add("turned")
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        marks.add("pages")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        if image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]  # (low, high) of one band
            marks.add("transparent")
    return marks


def _mask_marks(levels: np.ndarray) -> set[str]:
    polyp, top = levels >= THRESHOLD, int(levels.max())
    if not polyp.any():
        return {"empty" if top == 0 else "ones" if top == 1 else "dark"}
    corners = polyp[[0, 0, -1, -1], [0, -1, 0, -1]]
    marks = {"full"} if polyp.all() else {"inverted"} if corners.all() else set()
    return marks | ({"grey"} if np.any((levels > 0) & (levels < 255)) else set())


_BAD_MASKS = {
    "ones": "of 0 and 1 instead of 0 and 255, which would be read as empty; multiply them by 255",
    "dark": f"with something in them, but nothing as bright as {THRESHOLD}, where polyp begins, so that they would be read as "
    "empty; draw the polyp in white",
}
_MARKS = {
    "empty": "black all over, without a polyp pixel; see that none was forgotten",
    "full": "polyp in every pixel; see that the background is black",
    # Of the 2072 public masks, 143 have one corner in a polyp and none has two.
    "inverted": "polyp in all four corners, as if black and white were exchanged; look at them",
    "grey": f"with grey levels between 0 and 255, usually traces of JPEG; a pixel counts as polyp from {THRESHOLD} upwards",
    "turned": "with an EXIF orientation (image or mask), which is not applied: viewers show them turned",
    "transparent": "with transparent pixels (image or mask); transparency is dropped, the colour under it is read",
    "pages": "in a TIFF file of several pages (image or mask); the first page is read",
}


def _partial(name: str, count: int) -> list[str]:
    full = FULL_COUNTS.get(name)
    if full in (None, count):
        return []
    return [f"{name}: {count} of the benchmark's {full} pairs; a score on it must say so."]


def _marked(name: str, looks: Sequence[_Look], words: Mapping[str, str]) -> list[str]:
    """A sentence for each of these marks that some pair of the set carries."""
    lines = []
    for mark, fact in words.items():
        found = [look.pair.mask.name for look in looks if mark in look.marks]
        if found:
            lines.append(f"{name}: {len(found)} of {len(looks)} masks ({first_few(found)}) {fact}.")
    return lines


def _row(
    looks: Sequence[_Look], problems: Sequence[str], comparison: Comparison, name: str
) -> dict[str, object]:
    """A set's row of the table."""
    sizes, marks = (
        Counter(look.size for look in looks),
        Counter(mark for look in looks for mark in look.marks),
    )
    shown = ", ".join(f"{w}×{h}" for (w, h), _ in sizes.most_common(1))
    return {
        "pairs": len(looks),
        "sizes": shown if len(sizes) < 2 else f"{len(sizes)}, most {shown}",
        "polyp, %": round(100 * float(np.median([look.share for look in looks])), 1)
        if looks
        else float("nan"),
        "empty": marks["empty"],
        "grey": marks["grey"],
        "repeats": len(comparison.repeats(name)),
        "near": len(comparison.alike(name, name)),
        "problems": len(problems),
    }


# --- videos -----------------------------------------------------------------------------------------------------------


def _videos(looks: Mapping[str, Sequence[_Look]]) -> dict[str, dict[str, str]]:
    """``{set: {name: video}}`` of the frames of CVC-ClinicDB, the one public set whose videos are
    known frame by frame.
    """
    named = {name: looks[name] for name in (TRAIN, "CVC-ClinicDB") if name in looks}
    groups = {
        name: clinicdb_groups((look.pair.name, look.size) for look in part)
        for name, part in named.items()
    }
    return {name: group for name, group in groups.items() if group}


def _shared_videos(videos: Mapping[str, Mapping[str, str]]) -> list[str]:
    known, lines = set(videos.get(TRAIN, {}).values()), []
    for name, groups in videos.items():
        of_set = set(groups.values())
        both = of_set & known
        if name != TRAIN and both:
            count = f"all {len(both)}" if both == of_set else f"{len(both)} of {len(of_set)}"
            lines.append(
                f"{name}: {count} videos behind its {len(groups)} frames in {TRAIN} as well, by the published table of its "
                "sequences; in good part it tests polyps that training has shown."
            )
    return lines
