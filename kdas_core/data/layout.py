"""Folders of polyp images: the layout and the pairs. No PyTorch here, so that tools start at once.

The layout is the one PraNet's authors gave to the field, and every later polyp paper reads::

    data_root/
      TrainDataset/images/*.jpg     TrainDataset/masks/*.png
      TestDataset/<name>/images/*   TestDataset/<name>/masks/*

An image and its mask are a pair because they share a stem (``images/42.jpg`` and ``masks/42.png``),
never because they come at the same place in a listing: one missing file would shift every later
pair without a word. Everything that can be seen from names and file headers is checked when a
folder is indexed, so that a training run does not stop hours later.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
SYNTHETIC_NOTE = (
    "dataset.json"  # written by kdas_book.data.synthetic.make_dataset, and by nothing else
)
_GET_DATA = (
    'write synthetic polyps with "kdas data synthetic --out DIR" and use that DIR, '
    'or fetch the real images with "kdas data get" (data/README.md)'
)


# --- pairs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """One image and its mask; ``name`` is the stem that they share."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairIndex:
    """The pairs of one folder, in natural order of their names (2 before 10), the same on every
    file system.
    """

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
    """Pair ``folder/images`` with ``folder/masks`` by stem, and check all that names and file
    headers tell.

    Files that are hidden or not images (``.DS_Store``, ``Thumbs.db``) are passed over. Suffixes:
    jpg, jpeg, png, tif, tiff, bmp, in any case. Only headers and file ends are read, so thousands
    of pairs take about a second.

    Raises:
        UserError: the folder is missing or holds no images; an image has no mask or the reverse; a
            stem occurs twice (``a.jpg`` and ``a.png``); an image and its mask differ in size; a
            file is unreadable or cut off. All problems of a folder come in one sentence;
            `kdas_book.data.check` lists every one.
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
        raise UserError(
            f"{folder} holds no images ({', '.join(s[1:] for s in SUFFIXES)}); {_GET_DATA}."
        )

    pairs = []
    for stem in sorted(images.keys() | masks.keys(), key=natural):
        if stem not in masks:
            path = images[stem][0]
            problems.append(
                Problem(
                    _NO_MASK,
                    path.name,
                    f"{path} has no mask of the same stem in {folder / 'masks'}",
                )
            )
        elif stem not in images:
            path = masks[stem][0]
            text = f"{path} has no image of the same stem in {folder / 'images'}"
            problems.append(Problem(_NO_IMAGE, path.name, text))
        elif len(images[stem]) == len(masks[stem]) == 1:
            pair = Pair(stem, images[stem][0], masks[stem][0])
            found = _header_problems(pair)
            problems += found
            if not found:
                pairs.append(pair)
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
    raise UserError(
        f"{path} does not exist; a set has its pictures in images/ and masks/, paired by stem."
    )


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[Problem]]:
    """The image files of a folder by stem. Composed and decomposed Unicode (macOS) are the same
    stem.

    A link is followed, wherever it leads. One that leads nowhere stays in the list, so that it is
    named and not passed over.
    """
    stems: dict[str, list[Path]] = {}
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                e.name
                for e in entries
                if _is_picture(e.name) and (e.is_file() or _leads_nowhere(e))
            )
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed ({error.strerror}); see to its permissions, or the disk."
        ) from error
    for name in names:
        stems.setdefault(unicodedata.normalize("NFC", os.path.splitext(name)[0]), []).append(
            folder / name
        )
    twice = [
        Problem(
            _TWICE,
            " and ".join(p.name for p in paths),
            f"{folder} has one stem twice: {_first_names(paths)}",
        )
        for paths in stems.values()
        if len(paths) > 1
    ]
    return stems, twice


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _leads_nowhere(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder in natural order of their stems.

    Raises:
        UserError: there is no such folder, or two files share a stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; a folder of .jpg, .png, .tif or .bmp images is expected."
        )
    stems, twice = _by_stem(folder)
    if twice:
        raise UserError(_sentence(folder, twice))
    return [stems[stem][0] for stem in sorted(stems, key=natural)]


def _header_problems(pair: Pair) -> list[Problem]:
    sizes, problems = [], []
    for path in (pair.image, pair.mask):
        try:
            sizes.append(header_size(path))
        except UserError as error:
            problems.append(
                Problem(_UNREADABLE, f"{path.parent.name}/{path.name}", str(error).rstrip("."))
            )
    if not problems and sizes[0] != sizes[1]:
        (iw, ih), (mw, mh) = sizes
        text = f"{pair.mask} is {mw}×{mh} but its image is {iw}×{ih}; masks must have their image's size"
        problems.append(Problem(_SIZES, f"{pair.mask.name} {mw}×{mh}, image {iw}×{ih}", text))
    return problems


def _sentence(folder: Path, problems: list[Problem]) -> str:
    if len(problems) == 1:
        text = problems[0].text
        return f'{text}; mend or remove it ("kdas data check" lists such files).'
    kinds: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.name)
    counts = [
        f"{len(names)} {kind[len(names) > 1]} ({first_few(names)})" for kind, names in kinds.items()
    ]
    return f'{folder} has {", ".join(counts)}; mend or remove these files ("kdas data check" lists every one).'


def first_few(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _first_names(paths: list[Path]) -> str:
    return " and ".join(path.name for path in paths)


def natural(name: str) -> tuple:
    """Sort key in which ``2`` comes before ``10``. Names that differ stay different (``1`` and
    ``01``).
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple(
        (1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts)
    ), name


def is_synthetic(root: str | Path) -> bool:
    """True where `kdas_book.data.synthetic.make_dataset` wrote this data set."""
    try:
        note = json.loads((Path(root) / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and str(note.get("made_by")).endswith(".data.synthetic")
