"""Folders of polyp images: the layout and the pairs. No PyTorch here, so that tools start at once.

The layout is the one PraNet's authors gave to the field, and every later polyp paper reads::

    data_root/
      TrainDataset/images/*.jpg     TrainDataset/masks/*.png
      TestDataset/<name>/images/*   TestDataset/<name>/masks/*

An image and its mask are a pair because they share a stem (``images/42.jpg`` and ``masks/42.png``),
never by their place in a listing: one missing file would shift every later pair without a word.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from kdas_core import UserError
from kdas_core.data.images import SUFFIXES, header_size

FULL_COUNTS = {
    "CVC-300": 60,
    "CVC-ClinicDB": 62,
    "Kvasir": 100,
    "CVC-ColonDB": 380,
    "ETIS-LaribPolypDB": 196,
}
TEST_SETS = tuple(FULL_COUNTS)
SYNTHETIC_NOTE = "dataset.json"  # written by kdas_book.data.synthetic.make_dataset alone
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
class PairIndex:
    """The pairs of a folder in natural order of their names (2 before 10), on every file system."""

    folder: Path
    pairs: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    def __getitem__(self, position: int) -> Pair:
        return self.pairs[position]

    def take(self, positions: Iterable[int]) -> PairIndex:
        """The pairs at these positions, in the order given."""
        return PairIndex(self.folder, tuple(self.pairs[int(i)] for i in positions))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(pair.name for pair in self.pairs)


@dataclass(frozen=True)
class Problem:
    kind: tuple[str, str]  # what to call one of them, and several
    name: str  # the file, short, for a list
    text: str  # the file and the fact, for a sentence of its own


_NO_MASK = ("image without a mask", "images without a mask")
_NO_IMAGE = ("mask without an image", "masks without an image")
_TWICE = ("stem that occurs twice", "stems that occur twice")
_SIZES = ("pair of unequal sizes", "pairs of unequal sizes")
_UNREADABLE = ("unreadable or truncated file", "unreadable or truncated files")


def index_pairs(folder: str | Path) -> PairIndex:
    """Pair ``folder/images`` with ``folder/masks`` by stem, and check all that names, file headers
    and file ends tell, so that a training run does not stop hours later.

    Hidden files and files that are no images (``Thumbs.db``) are passed over. Suffixes in any case:
    jpg, jpeg, png, tif, tiff, bmp.

    Raises:
        UserError: the folder is missing or holds no images; an image has no mask or the reverse; a
            stem occurs twice (``a.jpg`` and ``a.png``); an image and its mask differ in size; a
            file is unreadable or cut off. All problems come in one sentence; `kdas data check`
            lists every one.
    """
    folder = Path(folder)
    pairs, problems = scan(folder)
    if problems:
        raise UserError(_sentence(folder, problems))
    return PairIndex(folder, tuple(pairs))


def scan(folder: Path) -> tuple[list[Pair], list[Problem]]:
    """The sound pairs of a folder in natural order, and every problem with the rest."""
    images, problems = _by_stem(_part(folder, "images"))
    masks, more = _by_stem(_part(folder, "masks"))
    problems += more
    if not images and not masks:
        suffixes = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise UserError(f"{folder} holds no images ({suffixes}); {_GET_DATA}.")
    pairs = []
    for stem in sorted(images.keys() | masks.keys(), key=natural):
        if stem in images and stem in masks:
            if len(images[stem]) == len(masks[stem]) == 1:
                pair = Pair(stem, images[stem][0], masks[stem][0])
                found = _header_problems(pair)
                problems += found
                pairs += [] if found else [pair]
            continue
        kind, other = (_NO_MASK, "mask") if stem in images else (_NO_IMAGE, "image")
        path = (images.get(stem) or masks[stem])[0]
        text = f"{path} has no {other} of the same stem in {folder / other}s"
        problems.append(Problem(kind, path.name, text))
    return pairs, problems


def _part(folder: Path, part: str) -> Path:
    """``folder/images`` or ``folder/masks``, which must be there."""
    path = folder / part
    if path.is_dir():
        return path
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; {_GET_DATA}.")
    singular = folder / part[:-1]
    if singular.is_dir():
        raise UserError(f"{path} does not exist but {singular} does; rename it to {part}.")
    layout = "a set has its pictures in images/ and masks/, paired by stem"
    raise UserError(f"{path} does not exist; {layout}.")


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Problem]]:
    """The image files of a folder by stem. Composed and decomposed Unicode (macOS) are one stem."""
    stems: dict[str, list[Path]] = {}
    try:
        names = [e.name for e in sorted(os.scandir(folder), key=attrgetter("name")) if _is_image(e)]
    except OSError as error:
        way_out = "see to its permissions, or the disk"
        raise UserError(f"{folder} cannot be listed ({error.strerror}); {way_out}.") from error
    for name in names:
        stem = unicodedata.normalize("NFC", os.path.splitext(name)[0])
        stems.setdefault(stem, []).append(folder / name)
    twice = [" and ".join(p.name for p in paths) for paths in stems.values() if len(paths) > 1]
    return stems, [Problem(_TWICE, n, f"{folder} has one stem twice: {n}") for n in twice]


def _is_image(entry: os.DirEntry) -> bool:
    """Links are followed; one that leads nowhere stays, so that it is named and not passed over."""
    if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES):
        return False
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder in natural order of their stems.

    Raises:
        UserError: there is no such folder, or two files share a stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        wanted = "a folder of .jpg, .png, .tif or .bmp images is expected"
        raise UserError(f"{folder} is not a folder; {wanted}.")
    stems, twice = _by_stem(folder)
    if twice:
        raise UserError(_sentence(folder, twice))
    return [stems[stem][0] for stem in sorted(stems, key=natural)]


def _header_problems(pair: Pair) -> list[Problem]:
    sizes, problems = [], []
    for path in (pair.image, pair.mask):
        try:
            sizes.append("{}×{}".format(*header_size(path)))
        except UserError as error:
            name = f"{path.parent.name}/{path.name}"
            problems.append(Problem(_UNREADABLE, name, str(error).rstrip(".")))
    if not problems and sizes[0] != sizes[1]:
        image, mask = sizes
        text = f"{pair.mask} is {mask} but its image is {image}; masks must have their image's size"
        problems.append(Problem(_SIZES, f"{pair.mask.name} {mask}, image {image}", text))
    return problems


def _sentence(folder: Path, problems: list[Problem]) -> str:
    if len(problems) == 1:
        return f'{problems[0].text}; mend or remove it ("kdas data check" lists such files).'
    kinds: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.name)
    counts = [f"{len(n)} {kind[len(n) > 1]} ({first_few(n)})" for kind, n in kinds.items()]
    way_out = 'mend or remove these files ("kdas data check" lists every one)'
    return f"{folder} has {', '.join(counts)}; {way_out}."


def first_few(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def natural(name: str) -> tuple:
    """Sort key: ``2`` before ``10``. Names that differ stay different (``1`` and ``01``)."""
    parts = re.split(r"([0-9]+)", name)
    key = tuple((1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts))
    return key, name


def is_synthetic(root: str | Path) -> bool:
    """True where `kdas_book.data.synthetic.make_dataset` wrote this data set."""
    try:
        note = json.loads((Path(root) / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and str(note.get("made_by")).endswith(".data.synthetic")
