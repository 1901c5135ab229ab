"""Folders of polyp images: the layout and the pairs. No PyTorch here, so that tools start at once.

The layout is the one PraNet's authors gave to the field, and every later polyp paper reads::

    data_root/
      TrainDataset/images/*.jpg     TrainDataset/masks/*.png
      TestDataset/<name>/images/*   TestDataset/<name>/masks/*

An image and its mask are a pair because they share a stem (``images/42.jpg`` and ``masks/42.png``),
never by their place in a listing: one missing file would shift every later pair without a word.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path

from kdas_core import UserError
from kdas_core.data.images import SUFFIXES, UNREAD, header_size, read_bytes
from kdas_core.data.masks import read_grey

TEST_SETS = ("CVC-300", "CVC-ClinicDB", "Kvasir", "CVC-ColonDB", "ETIS-LaribPolypDB")
FULL_COUNTS = dict(zip(TEST_SETS, (60, 62, 100, 380, 196)))
SYNTHETIC_NOTE = "dataset.json"  # written by kdas_book.data.synthetic.make_dataset alone
# What file browsers and network drives leave among pictures, such as thumbnails; or hidden.
_JUNK = r"""\.|(@eadir|[@\#]recycle|\#snapshot|\$recycle\.bin|__macosx|system\ volume\ information
    |lost\+found|thumb(s|nails?)|(eh)?thumbs\w*\.db|zbthumbnail\.\w+|syno(photo|file)_.*)$"""
is_junk = re.compile(_JUNK, re.IGNORECASE | re.VERBOSE).match
_GET_DATA = (
    'write synthetic polyps with "kdas data synthetic --out DIR" and use that DIR, '
    'or fetch the real images with "kdas data get" (data/README.md)'
)


@dataclass(frozen=True)
class Pair:
    """One image and its mask; ``name`` is the stem that they share."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairIndex(Sequence[Pair]):
    """The pairs of a folder in natural order of their names (2 before 10)."""

    folder: Path
    pairs: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position):
        return self.pairs[position]

    def take(self, positions: Iterable[int]) -> "PairIndex":
        """The pairs at these positions, in the order given."""
        return PairIndex(self.folder, tuple(self.pairs[int(i)] for i in positions))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(pair.name for pair in self.pairs)


@dataclass(frozen=True)
class Problem:
    kind: str  # what to call one of them; of several, the first word gets an s
    name: str  # the file, short, for a list
    text: str  # the file and the fact, for a sentence of its own


def index_pairs(folder: str | Path) -> PairIndex:
    """Pair ``folder/images`` with ``folder/masks`` by stem, and check all that names, file headers
    and file ends tell, so that a training run does not stop hours later. Hidden files, and those
    whose suffix, in any case, is of no picture are passed over.

    Raises:
        UserError: no folder, no images, an image without a mask or the reverse, one stem twice
            (``a.jpg`` and ``a.png``), unequal sizes of a pair, a file unreadable, cut off or of a
            kind that is not read.
    """
    pairs, problems = scan(Path(folder))
    if problems:
        raise _error(Path(folder), problems)
    return PairIndex(Path(folder), tuple(pairs))


def scan(folder: Path) -> tuple[list[Pair], list[Problem]]:
    """The sound pairs of a folder in natural order, and every problem with the rest."""
    images, problems = by_stem(_part(folder, "images"))
    masks, more = by_stem(_part(folder, "masks"))
    problems += more
    if not images and not masks:
        suffixes = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise UserError(f"{folder} holds no images ({suffixes}); {_GET_DATA}.")
    pairs = []
    for stem in sorted(images.keys() | masks.keys(), key=natural):
        if stem not in masks:
            problems.append(_alone("image without a mask", images[stem], folder / "masks"))
        elif stem not in images:
            problems.append(_alone("mask without an image", masks[stem], folder / "images"))
        else:
            pair = Pair(stem, images[stem], masks[stem])
            found = _header_problems(pair)
            problems += found
            pairs += [] if found else [pair]
    return pairs, problems


def _alone(kind: str, path: Path, others: Path) -> Problem:
    text = f"{path} has no {others.name[:-1]} of the same stem in {others}"
    return Problem(kind, path.name, text)


def _part(folder: Path, part: str) -> Path:
    """``folder/images`` or ``folder/masks``, which must be there."""
    path, singular = folder / part, folder / part[:-1]
    if path.is_dir():
        return path
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; {_GET_DATA}.")
    if singular.is_dir():
        raise UserError(f"{path} does not exist but {singular} does; rename it to {part}.")
    raise UserError(f"{path} does not exist; a set has its pictures in images/ and masks/.")


def by_stem(folder: Path, suffixes=(*SUFFIXES, *UNREAD)) -> tuple[dict[str, Path], list[Problem]]:
    """The image files of a folder by stem, of several the first, and what is wrong with them.
    Composed and decomposed Unicode (macOS) are one stem, and so, for some disks, are a and A.
    """
    stems: dict[str, Path] = {}
    folded: dict[str, list[str]] = {}
    try:
        entries = sorted(os.scandir(folder), key=attrgetter("name"))
        names = [e.name for e in entries if _is_image(e, suffixes)]
    except OSError as error:
        fact = f"{folder} cannot be listed ({error.strerror})"
        raise UserError(f"{fact}; see to its permissions, or the disk.") from error
    for name in names:
        stem = unicodedata.normalize("NFC", os.path.splitext(name)[0])
        stems.setdefault(stem, folder / name)
        folded.setdefault(stem.casefold(), []).append(name)
    twice = [" and ".join(names) for names in folded.values() if len(names) > 1]
    problems = [Problem("stem seen twice", n, f"{folder} has one stem twice: {n}") for n in twice]
    text = f"{folder}/{{}} is of a kind that is not read; save it as PNG under the same stem"
    unread = [name for name in names if name.lower().endswith(UNREAD)]
    problems += [Problem("picture of a kind not read", n, text.format(n)) for n in unread]
    unclear = [(name, fact) for name in names if (fact := not_utf8(folder / name))]
    return stems, problems + [Problem("name not in UTF-8", *found) for found in unclear]


def not_utf8(path: Path) -> str:
    """A sentence where a name has bytes that are no text, as unzip leaves; no table bears it."""
    if path.name.isprintable() or path.name.encode(errors="ignore") == os.fsencode(path.name):
        return ""
    return f"{path} has a name that is not in UTF-8; rename it"


def _is_image(entry: os.DirEntry, suffixes: tuple[str, ...]) -> bool:
    """Links are followed; one that leads nowhere stays, so that it is named and not passed over."""
    if is_junk(entry.name) or not entry.name.lower().endswith(suffixes):
        return False
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder in natural order of stems; UserError: no folder, or one stem twice."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder; one of .jpg, .png, .tif or .bmp is expected.")
    stems, problems = by_stem(Path(folder))
    if problems:
        raise _error(Path(folder), problems)
    return [stems[stem] for stem in sorted(stems, key=natural)]


def _header_problems(pair: Pair) -> list[Problem]:
    sizes, problems = [], []
    for path in (pair.image, pair.mask):
        try:
            sizes.append("{}×{}".format(*header_size(path)))
        except UserError as error:
            name, text = f"{path.parent.name}/{path.name}", str(error).rstrip(".")
            problems.append(Problem("file unreadable or truncated", name, text))
    if not problems and sizes[0] != sizes[1]:
        image, mask = sizes
        text = f"{pair.mask} is {mask} but its image is {image}; masks must have their image's size"
        name = f"{pair.mask.name} {mask}, image {image}"
        problems.append(Problem("pair of unequal sizes", name, text))
    return problems


def check_masks(folder: Path, pairs: Iterable[Pair]) -> None:
    """Decode every mask; a UserError names those that the rule of `masks` refuses."""

    def wrong(pair: Pair) -> Problem | None:
        try:
            read_grey(pair.mask)
        except UserError as error:
            text = str(error).rstrip(".")
            return Problem("mask that cannot be used", pair.mask.name, text)
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        problems = list(filter(None, pool.map(wrong, pairs)))
    if problems:
        raise _error(folder, problems)


def content_digest(paths: Iterable[Path]) -> str:
    """Of the files' stems and bytes, in this order: 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for path in paths:
        at = path.stat()
        digest.update(path.stem.encode() + b"\0")
        digest.update(_digest(path, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino))
    return digest.hexdigest()


@cache
def _digest(path: Path, *_: int) -> bytes:
    """Of a file's bytes, read once as long as size, times and inode stay."""
    return blake2b(read_bytes(path), digest_size=16).digest()


def _error(folder: Path, problems: list[Problem]) -> UserError:
    """All problems of a folder in one sentence."""
    if len(problems) == 1:
        way_out = 'mend or remove it ("kdas data check" lists such files)'
        return UserError(f"{problems[0].text}; {way_out}.")
    counts = []
    for kind in dict.fromkeys(problem.kind for problem in problems):
        names = [problem.name for problem in problems if problem.kind == kind]
        several = kind.replace(" ", "s ", 1) if len(names) > 1 else kind
        counts.append(f"{len(names)} {several} ({first_few(names)})")
    way_out = 'mend or remove these files ("kdas data check" lists every one)'
    return UserError(f"{folder} has {', '.join(counts)}; {way_out}.")


def first_few(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def natural(name: str) -> tuple:
    """Sort key: ``2`` before ``10``. Names that differ stay different (``1`` and ``01``)."""
    parts = enumerate(re.split(r"([0-9]+)", name))
    return tuple(int(part) if i % 2 else part for i, part in parts), name


def is_synthetic(root: str | Path) -> bool:
    """True where `kdas_book.data.synthetic.make_dataset` wrote this data set."""
    try:
        note = json.loads((Path(root) / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and str(note.get("made_by")).endswith(".data.synthetic")
