"""Folders of polyp images: the layout, the pairs, and reading one file. No PyTorch here, so that tools start at once.

The layout is the one PraNet's authors gave to the field, and every later polyp paper reads::

    data_root/
      TrainDataset/images/*.jpg     TrainDataset/masks/*.png
      TestDataset/<name>/images/*   TestDataset/<name>/masks/*

An image and its mask are a pair because they share a stem (``images/42.jpg`` and ``masks/42.png``), never because they
come at the same place in a listing: one missing file would shift every later pair without a word. Everything that can be
seen from names and file headers is checked when a folder is indexed, so that a training run does not stop hours later.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kdas_core import UserError

FULL_COUNTS = {"CVC-300": 60, "CVC-ClinicDB": 62, "Kvasir": 100, "CVC-ColonDB": 380, "ETIS-LaribPolypDB": 196}
TEST_SETS = tuple(FULL_COUNTS)
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
SYNTHETIC_NOTE = "dataset.json"  # written by kdas_core.data.synthetic.make_dataset, and by nothing else
THRESHOLD = 128  # a mask's grey value from which a pixel is polyp

# What Pillow raises for a file that is no image, or half of one.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
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
    """The pairs of one folder, in natural order of their names (2 before 10), the same on every file system."""

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
class _Problem:
    kind: tuple[str, str]  # what to call one of them, and several
    name: str  # the file, short, for a list
    text: str  # the file and the fact, for a sentence of its own


_NO_MASK = ("image without a mask", "images without a mask")
_NO_IMAGE = ("mask without an image", "masks without an image")
_TWICE = ("stem that occurs twice", "stems that occur twice")
_SIZES = ("pair of unequal sizes", "pairs of unequal sizes")
_UNREADABLE = ("unreadable or truncated file", "unreadable or truncated files")


def index_pairs(folder: str | Path) -> PairIndex:
    """Pair ``folder/images`` with ``folder/masks`` by stem, and check all that names and file headers tell.

    Files that are hidden or not images (``.DS_Store``, ``Thumbs.db``) are passed over. Suffixes: jpg, jpeg, png, tif, tiff,
    bmp, in any case. Only headers and file ends are read, so thousands of pairs take about a second.

    Raises:
        UserError: the folder is missing or holds no images; an image has no mask or the reverse; a stem occurs twice
            (``a.jpg`` and ``a.png``); an image and its mask differ in size; a file is unreadable or cut off. All problems
            of a folder come in one sentence; `check_folder` lists every one.
    """
    folder = Path(folder)
    pairs, problems = _scan(folder)
    if problems:
        raise UserError(_sentence(folder, problems))
    return PairIndex(folder, tuple(pairs))


def check_folder(folder: str | Path) -> list[str]:
    """Every problem of one folder of pairs, a line for each; empty if there is none.

    Besides what `index_pairs` refuses, this decodes every file and tells what training would accept but a person should
    know: masks without a polyp pixel, masks that are polyp all over, and (one line for all) masks with grey levels.
    """
    pairs, problems = _scan(Path(folder))
    lines = [problem.text for problem in problems]
    grey = []
    for pair in pairs:
        try:
            read_image(pair.image)
            levels = read_grey(pair.mask)
        except UserError as error:
            lines.append(str(error))
            continue
        notes = _mask_notes(pair.mask, levels)
        lines += notes
        if not notes and np.any((levels > 0) & (levels < 255)):
            grey.append(pair.mask.name)
    if grey:
        lines.append(
            f"{Path(folder) / 'masks'} has {len(grey)} of {len(pairs)} masks with grey levels between 0 and 255 "
            f"({_first(grey)}), usually traces of JPEG; a pixel counts as polyp from {THRESHOLD} upwards."
        )
    return lines


def _mask_notes(path: Path, levels: np.ndarray) -> list[str]:
    polyp = levels >= THRESHOLD
    if not polyp.any():
        top = int(levels.max())
        why = f"its brightest grey value is {top}, and polyp begins at {THRESHOLD}" if top else "it is black all over"
        return [f"{path} is an empty mask, without a polyp pixel ({why}); check that the polyp is drawn in white."]
    if polyp.all():
        return [f"{path} is polyp in every pixel; check that the background is drawn in black."]
    return []


def _scan(folder: Path) -> tuple[list[Pair], list[_Problem]]:
    """The sound pairs of a folder in natural order, and every problem with the rest."""
    images, problems = _by_stem(_part(folder, "images"))
    masks, more = _by_stem(_part(folder, "masks"))
    problems += more
    if not images and not masks:
        raise UserError(f"{folder} holds no images ({', '.join(s[1:] for s in SUFFIXES)}); {_GET_DATA}.")

    pairs = []
    for stem in sorted(images.keys() | masks.keys(), key=natural):
        if stem not in masks:
            path = images[stem][0]
            problems.append(_Problem(_NO_MASK, path.name, f"{path} has no mask of the same stem in {folder / 'masks'}"))
        elif stem not in images:
            path = masks[stem][0]
            text = f"{path} has no image of the same stem in {folder / 'images'}"
            problems.append(_Problem(_NO_IMAGE, path.name, text))
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
    raise UserError(f"{path} does not exist; a set has its pictures in images/ and masks/, paired by stem.")


def _by_stem(folder: Path) -> tuple[dict[str, list[Path]], list[_Problem]]:
    """The image files of a folder by stem. Composed and decomposed Unicode (macOS) are the same stem."""
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            stems.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
    twice = [
        _Problem(_TWICE, " and ".join(p.name for p in paths), f"{folder} has one stem twice: {_first_names(paths)}")
        for paths in stems.values()
        if len(paths) > 1
    ]
    return stems, twice


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder in natural order of their stems.

    Raises:
        UserError: there is no such folder, or two files share a stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; a folder of .jpg, .png, .tif or .bmp images is expected.")
    stems, twice = _by_stem(folder)
    if twice:
        raise UserError(_sentence(folder, twice))
    return [stems[stem][0] for stem in sorted(stems, key=natural)]


def _header_problems(pair: Pair) -> list[_Problem]:
    sizes, problems = [], []
    for path in (pair.image, pair.mask):
        try:
            sizes.append(_header_size(path))
        except UserError as error:
            problems.append(_Problem(_UNREADABLE, f"{path.parent.name}/{path.name}", str(error).rstrip(".")))
    if not problems and sizes[0] != sizes[1]:
        (iw, ih), (mw, mh) = sizes
        text = f"{pair.mask} is {mw}×{mh} but its image is {iw}×{ih}; masks must have their image's size"
        problems.append(_Problem(_SIZES, f"{pair.mask.name} {mw}×{mh}, image {iw}×{ih}", text))
    return problems


def _header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header. A file that does not end with its format's end mark is decoded, to see if it is cut
    off; so are formats without such a mark (tif, bmp)."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            size, form = image.size, image.format
            end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(form)
            file.seek(max(0, path.stat().st_size - 64))
            sound = end is not None and end in file.read()
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    if not sound:
        _decode(path, "RGB")
    return size


def _sentence(folder: Path, problems: list[_Problem]) -> str:
    if len(problems) == 1:
        text = problems[0].text
        return f'{text}; mend or remove it ("kdas data check" lists such files).'
    kinds: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.name)
    counts = [f"{len(names)} {kind[len(names) > 1]} ({_first(names)})" for kind, names in kinds.items()]
    return f'{folder} has {", ".join(counts)}; mend or remove these files ("kdas data check" lists every one).'


def _first(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _first_names(paths: list[Path]) -> str:
    return " and ".join(path.name for path in paths)


def natural(name: str) -> tuple:
    """Sort key in which ``2`` comes before ``10``. Names that differ stay different (``1`` and ``01``)."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((1, int(part), "") if i % 2 else (0, 0, part) for i, part in enumerate(parts)), name


# --- reading ----------------------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> np.ndarray:
    """An image file as uint8 RGB, shape (H, W, 3).

    Pixels come as they are stored: an EXIF orientation is not applied, since masks are drawn on the stored pixels.

    Raises:
        UserError: the file is missing, is not an image, or is cut off (an image decoded in part is never returned).
    """
    return _decode(Path(path), "RGB")


def read_mask(path: str | Path) -> np.ndarray:
    """A mask file as bool, shape (H, W); True = polyp, where the grey value is at least 128.

    Masks kept as JPEG have grey levels along their edges; the threshold makes them binary again. A mask without a single
    polyp pixel is allowed here (a frame may show none); `check_folder` names it.

    Raises:
        UserError: the file is missing, is not an image, or is cut off.
    """
    return read_grey(path) >= THRESHOLD


def read_grey(path: str | Path) -> np.ndarray:
    """The grey levels of a file, uint8 (H, W); errors as in `read_mask`."""
    return _decode(Path(path), "L")


def read_bytes(path: Path) -> bytes:
    """A file as it is; UserError, in a sentence, where that cannot be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _decode(path: Path, mode: str) -> np.ndarray:
    """Decode with Pillow, which refuses a file that ends early; OpenCV's older versions return the part they could read."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # 16 bits of grey: keep the upper eight
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return np.array(image if image.mode == mode else image.convert(mode))
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist; check the name, or restore the file.")
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read (permission denied); change its permissions.")
    if path.is_file() and path.stat().st_size == 0:
        return UserError(f"{path} is empty (0 bytes), so it cannot be read as an image; copy it again from its source.")
    return UserError(f"{path} is truncated or not an image, so it cannot be read; copy it again from its source.")


def is_synthetic(root: str | Path) -> bool:
    """True where `kdas_core.data.synthetic.make_dataset` wrote this data set."""
    try:
        note = json.loads((Path(root) / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("made_by") == "kdas_core.data.synthetic"
