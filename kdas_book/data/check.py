"""``kdas data check``: is a data set sound, and what should be known before believing a score?

A *problem* is what training or evaluation refuses (a missing mask, sizes that differ, an unreadable
file, a mask that the rule of `kdas_core.data.masks` refuses) or what is surely wrong: a test
picture that is byte for byte a training picture. A *finding* may be as it should be: repeats,
pictures that sets share, frames of one video on both sides, empty masks. The public sets,
untouched, have findings and no problems.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
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
from kdas_core.data.images import eight_bits, opened
from kdas_core.data.layout import FULL_COUNTS, Pair, first_few, is_junk, is_synthetic, natural, scan
from kdas_core.data.masks import THRESHOLD, is_transparent, read_grey

MARKS = {
    "empty": "masks ({}) black all over, without a polyp pixel; see that none was forgotten",
    "full": "masks ({}) polyp in every pixel; see that the background is black",
    # Of the 2072 public masks, 143 have one corner in a polyp and none has two.
    "inverted": "masks ({}) polyp in all four corners, as if black and white were exchanged; look "
    "at them",
    "grey": "masks ({}) with grey levels between 0 and 255, usually traces of JPEG; a pixel counts "
    f"as polyp from {THRESHOLD} upwards",
    "transparent": "images ({}) with transparent pixels; transparency is dropped, the colour under "
    "it is read",
    "pages": "pairs ({}) in a TIFF file of several pages (image or mask); the first page is read",
}


@dataclass(frozen=True)
class Check:
    """What `check_data` found. ``table`` has a row for each set: pairs, sizes, median share of
    polyp in percent, and how many masks are empty or grey, pictures repeat an earlier one byte for
    byte or nearly, and problems there are.
    """

    root: Path
    table: pd.DataFrame
    problems: tuple[str, ...]  # a sentence each
    findings: tuple[str, ...]
    near: tuple[NearDuplicate, ...]  # each picture that is nearly another, with the most similar
    closest: tuple[NearDuplicate, ...]  # six pairs to look at, whether they are near or not
    videos: dict[str, dict[str, str]]  # {set: {name: video}} where it is known

    def __str__(self) -> str:
        """The table, then the problems, then the findings; as ``kdas data check`` prints it."""
        parts = [f"{self.root}", self.table.to_string()]
        for title, lines in (("Problems", self.problems), ("Findings", self.findings)):
            parts.append("\n- ".join([f"{title}: {len(lines) or 'none'}", *lines]))
        return "\n\n".join(parts)


def check_data(root: str | Path) -> Check:
    """Decode every pair and compare every picture with every other, in a benchmark
    (``TrainDataset``, ``TestDataset/*``) or a folder of images/ and masks/. UserError: nothing
    there can be looked at.
    """
    root = Path(root)
    sets: dict[str, list[Picture]] = {}
    problems: dict[str, list[str]] = {}
    folders = _folders(root)
    for name, folder in folders.items():
        try:
            sets[name], problems[name] = _look_into(folder)
        except UserError as error:  # the folder as a whole
            problems[name] = [str(error)]
    if not sets:
        raise UserError(next(iter(problems.values()))[0])

    comparison = Comparison(sets)
    public = not is_synthetic(root)
    videos = _videos(sets) if public else {}
    findings = []
    for name, pictures in sets.items():
        full = FULL_COUNTS.get(name) if public else None
        if full not in (None, len(pictures)):
            fact = f"{len(pictures)} of the benchmark's {full} pairs"
            findings.append(f"{name}: {fact}; a score on it must say so.")
        problems[name] += comparison.leaks(name)
        findings += _marked(name, pictures)
        findings += _inner_folders(name, folders[name])
    rows = {name: _row(name, sets[name], comparison, len(problems[name])) for name in sets}
    return Check(
        root=root,
        table=pd.DataFrame.from_dict(rows, orient="index"),
        problems=tuple(line for lines in problems.values() for line in lines),
        findings=(*findings, *comparison.findings(), *_shared_videos(videos)),
        near=tuple(comparison.near()),
        closest=tuple(comparison.closest()),
        videos=videos,
    )


def _folders(root: Path) -> dict[str, Path]:
    if (root / "images").is_dir():
        return {root.resolve().name: root}
    tests = [p for p in (root / "TestDataset").glob("*") if p.is_dir() and not is_junk(p.name)]
    return {p.name: p for p in (root / TRAIN, *sorted(tests, key=lambda p: natural(p.name)))}


def _inner_folders(name: str, folder: Path) -> list[str]:
    """Folders among a set's files, whose pictures nothing reads."""
    entries = [entry for part in ("images", "masks") for entry in (folder / part).iterdir()]
    inner = [f"{e.parent.name}/{e.name}" for e in entries if e.is_dir() and not is_junk(e.name)]
    return [f"{name}: folders inside are passed over ({first_few(inner)})."] if inner else []


def _look_into(folder: Path) -> tuple[list[Picture], list[str]]:
    """The pictures of a folder's sound pairs, and the problems of the others."""
    pairs, problems = scan(folder)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow frees Python's lock
        results = pool.map(_look_at, pairs)
        seen = list(tqdm(results, folder.name, len(pairs), leave=False, disable=None))
    lines = [f"{problem.text}." for problem in problems] + [r for r in seen if isinstance(r, str)]
    return [r for r in seen if isinstance(r, Picture)], lines


def _look_at(pair: Pair) -> Picture | str:
    """A pair's picture, or the sentence that says why it cannot be read."""
    try:
        with opened(pair.image) as image:
            marks = {"transparent"} if is_transparent(image) else set()
            marks |= _pages(image)
            size = image.size
            # A large JPEG is decoded at half its size or less; every byte is still read.
            image.draft("L", (512, 512))
            bits = fingerprint(eight_bits(image, pair.image).convert("L"))
            digest = hashlib.blake2b(pair.image.read_bytes(), digest_size=16).digest()
        with opened(pair.mask) as mask:
            marks |= _pages(mask)
        levels = read_grey(pair.mask)
    except UserError as error:
        return str(error)
    share = float((levels >= THRESHOLD).mean())
    return Picture(pair, digest, bits, size, share, frozenset(marks | _mask_marks(levels)))


def _pages(image: Image.Image) -> set[str]:
    several = image.format == "TIFF" and getattr(image, "n_frames", 1) > 1
    return {"pages"} if several else set()


def _mask_marks(levels: np.ndarray) -> set[str]:
    polyp = levels >= THRESHOLD
    if not polyp.any():
        return {"empty"}
    corners = polyp[[0, 0, -1, -1], [0, -1, 0, -1]]
    marks = {"full"} if polyp.all() else {"inverted"} if corners.all() else set()
    return marks | ({"grey"} if np.any((levels > 0) & (levels < 255)) else set())


def _marked(name: str, pictures: Sequence[Picture]) -> list[str]:
    """A sentence for each mark that some pair of the set carries."""
    lines = []
    for mark, text in MARKS.items():
        if found := [p.pair for p in pictures if mark in p.marks]:
            files = [(p.image if mark == "transparent" else p.mask).name for p in found]
            fact = text.format(first_few(files))
            lines.append(f"{name}: {len(found)} of {len(pictures)} {fact}.")
    return lines


def _row(name: str, pictures: Sequence[Picture], comparison: Comparison, problems: int) -> dict:
    sizes = Counter("{}×{}".format(*picture.size) for picture in pictures)
    marks = Counter(mark for picture in pictures for mark in picture.marks)
    shown = ", ".join(size for size, _ in sizes.most_common(1))
    share = np.median([picture.share for picture in pictures]) if pictures else np.nan
    return {
        "pairs": len(pictures),
        "sizes": shown if len(sizes) < 2 else f"{len(sizes)}, most {shown}",
        "polyp, %": round(100 * float(share), 1),
        "empty": marks["empty"],
        "grey": marks["grey"],
        "repeats": len(comparison.equal(name, name)),
        "near": len(comparison.alike(name, name)),
        "problems": problems,
    }


def _videos(sets: dict[str, list[Picture]]) -> dict[str, dict[str, str]]:
    """Of CVC-ClinicDB, the one public set whose videos are known frame by frame."""
    names = [name for name in (TRAIN, "CVC-ClinicDB") if name in sets]
    videos = {name: clinicdb_groups((p.pair.name, p.size) for p in sets[name]) for name in names}
    return {name: groups for name, groups in videos.items() if groups}


def _shared_videos(videos: dict[str, dict[str, str]]) -> list[str]:
    test = videos.get("CVC-ClinicDB", {})
    of_set = set(test.values())
    both = of_set & set(videos.get(TRAIN, {}).values())
    if not both:
        return []
    count = f"all {len(both)}" if both == of_set else f"{len(both)} of {len(of_set)}"
    return [
        f"CVC-ClinicDB: {count} videos behind its {len(test)} frames in {TRAIN} as well, by the "
        "published table of its sequences; in good part it tests polyps that training has shown."
    ]
