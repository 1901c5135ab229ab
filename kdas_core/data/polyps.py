"""Folders of polyp images: the layout, the pairs, the validation split and the Dataset.

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

import cv2
import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data import IMAGENET_DEFAULT_STD as IMAGENET_STD
from torch import Tensor
from torch.utils.data import Dataset

from kdas_core import UserError
from kdas_core.data.augment import augment_pair

FULL_COUNTS = {"CVC-300": 60, "CVC-ClinicDB": 62, "Kvasir": 100, "CVC-ColonDB": 380, "ETIS-LaribPolypDB": 196}
TEST_SETS = tuple(FULL_COUNTS)
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
SYNTHETIC_NOTE = "dataset.json"  # written by kdas_core.data.synthetic.make_dataset, and by nothing else
THRESHOLD = 128  # a mask's grey value from which a pixel is polyp

# What Pillow raises for a file that is no image, or half of one.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_GET_DATA = (
    'write synthetic polyps with "kdas data synthetic --out DIR" and use that DIR, '
    "or put the PraNet archives there (data/README.md says which)"
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
            levels = _read_grey(pair.mask)
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
    for stem in sorted(images.keys() | masks.keys(), key=_natural):
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
    return [stems[stem][0] for stem in sorted(stems, key=_natural)]


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


def _natural(name: str) -> tuple:
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
    return _read_grey(Path(path)) >= THRESHOLD


def _read_grey(path: Path) -> np.ndarray:
    return _decode(path, "L")


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


# --- numbers for the network ------------------------------------------------------------------------------------------


def normalise(image: np.ndarray) -> Tensor:
    """uint8 RGB (H, W, 3) → float32 tensor (3, H, W) with ImageNet's mean taken off and its deviation divided out."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"normalise wants uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}")
    mean, std = _statistics()
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float().div_(255).sub_(mean).div_(std)


def denormalise(image: Tensor) -> np.ndarray:
    """The inverse of `normalise`: float tensor (3, H, W) → uint8 RGB (H, W, 3), exact for what `normalise` returned."""
    mean, std = _statistics()
    values = image.detach().cpu().float() * std + mean
    return (values * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _statistics() -> tuple[Tensor, Tensor]:
    return torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """An image, uint8 (H, W) or (H, W, 3), at size × size; the aspect ratio is not kept, as in every paper of the field.

    Averaged over areas when it shrinks (no aliasing), interpolated bilinearly when it grows.
    """
    if image.shape[:2] == (size, size):
        return image
    way = cv2.INTER_AREA if size * size < image.shape[0] * image.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=way)


def resize_pair(image: np.ndarray, mask: np.ndarray, size: int, soft: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Bring an image and its mask to size × size.

    The image goes through `resize_image`. The mask is sampled at the nearest pixel and stays binary, or with ``soft`` is resized
    as the image is, so that an edge pixel says how much of it is polyp.

    Args:
        image: uint8 (H, W, 3). mask: bool (H, W).

    Returns:
        image uint8 (size, size, 3); mask uint8 (size, size): 0 or 255, with ``soft`` anything between.
    """
    white = mask.astype(np.uint8) * 255
    if soft or white.shape == (size, size):
        return resize_image(image, size), resize_image(white, size)
    # The exact variant samples at pixel centres; plain INTER_NEAREST would shift the mask by up to half a pixel.
    return resize_image(image, size), cv2.resize(white, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


class PolypDataset(Dataset):
    """Pairs as training sees them: resized to a square, augmented or not, normalised.

    Item ``i`` is ``{"image": float32 (3, size, size), "mask": float32 (1, size, size) in [0, 1], "name": str}``; torch's
    default collate makes batches of them. Masks are 0 or 1; with ``soft_masks`` edge pixels lie between.

    Augmentation is a function of (seed, epoch, i) only: not of the order of access, the number of workers, or what ran
    before. Call `set_epoch` before each epoch's loop. (With ``persistent_workers=True`` the workers keep the epoch they
    were started with, so leave that off when augmenting.)

    Args:
        index: the pairs.
        size: side of the square, pixels.
        in_memory: keep the decoded and resized pair (uint8, 4·size² bytes: 0.5 MB at 352) after it is first read. Each
            DataLoader worker keeps its own, so this suits ``num_workers=0``.

    Raises:
        UserError: on access, for a file that is unreadable or cut off, or a pair whose sizes differ.
    """

    def __init__(
        self,
        index: PairIndex,
        size: int,
        augment: bool = False,
        soft_masks: bool = False,
        seed: int = 0,
        in_memory: bool = False,
    ):
        self.index, self.size, self.augment, self.soft_masks, self.seed = index, size, augment, soft_masks, seed
        self.epoch = 0
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] | None = {} if in_memory else None

    def __len__(self) -> int:
        return len(self.index)

    def set_epoch(self, epoch: int) -> None:
        """From now on items are augmented as epoch ``epoch`` has them."""
        self.epoch = epoch

    def __getitem__(self, i: int) -> dict:
        i = range(len(self))[i]  # negative positions as lists have them; IndexError ends a plain for loop
        image, mask = self._pair(i)
        if self.augment:
            image, mask = augment_pair(image, mask, rng_for(self.seed, self.epoch, i))
            if not self.soft_masks:  # moving the mask was bilinear
                mask = (mask >= THRESHOLD).astype(np.uint8) * 255
        mask = torch.from_numpy(mask.copy()).float().div_(255)[None]
        return {"image": normalise(image), "mask": mask, "name": self.index[i].name}

    def _pair(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        if self._kept is not None and i in self._kept:
            return self._kept[i]
        pair = self.index[i]
        image, mask = read_image(pair.image), read_mask(pair.mask)
        if image.shape[:2] != mask.shape:
            (mh, mw), (ih, iw) = mask.shape, image.shape[:2]
            raise UserError(
                f"{pair.mask} is {mw}×{mh} but its image is {iw}×{ih}; masks must have their image's size "
                '("kdas data check" lists all such pairs).'
            )
        pair_of_arrays = resize_pair(image, mask, self.size, self.soft_masks)
        if self._kept is not None:
            self._kept[i] = pair_of_arrays
        return pair_of_arrays


def rng_for(*words: int) -> np.random.Generator:
    """A generator that depends on these integers and nothing else."""
    return np.random.default_rng([int(word) % 2**32 for word in words])


# --- a whole benchmark ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolypData:
    """Training, validation and test pairs below one root. ``synthetic``: written by our own generator."""

    root: Path
    train: PairIndex
    validation: PairIndex
    tests: dict[str, PairIndex]
    synthetic: bool

    def label(self, name: str) -> str:
        """A test set's name for a table, with what a reader must know: ``ETIS-LaribPolypDB (20 of 196)``."""
        count, full = len(self.tests[name]), FULL_COUNTS.get(name)
        if self.synthetic:
            return f"{name} (synthetic, {count})"
        return name if full in (None, count) else f"{name} ({count} of {full})"


def split_validation(index: PairIndex, fraction: float, seed: int) -> tuple[PairIndex, PairIndex]:
    """Hold back a share of the training pairs, on which checkpoints are chosen: never on test images.

    The same names and seed give the same split, whatever the order of ``index``. The validation part has
    ``round(fraction · n)`` pairs, at least one (none for fraction 0), and leaves at least one for training.

    Pairs are drawn one by one. Frames of one video may therefore fall on both sides, since the PraNet layout does not say
    which video an image comes from; a validation score is to that extent too friendly.

    Returns:
        (train, validation), disjoint, each in natural order.

    Raises:
        UserError: fraction is not in [0, 1), or there are fewer than two pairs to split.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"validation_fraction is {fraction}; it must be at least 0 and below 1, such as 0.1.")
    order = sorted(range(len(index)), key=lambda i: _natural(index[i].name))
    if fraction == 0:
        return index.take(order), index.take(())
    if len(index) < 2:
        raise UserError(f"{index.folder} has {len(index)} pair(s), too few to hold back a validation part; add images.")
    count = min(max(1, round(fraction * len(index))), len(index) - 1)
    chosen = {order[i] for i in rng_for(seed, 1).permutation(len(order))[:count]}
    return index.take(i for i in order if i not in chosen), index.take(i for i in order if i in chosen)


def load_data(
    data_root: str | Path,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
) -> PolypData:
    """Index a whole benchmark: ``TrainDataset`` and whichever sets lie in ``TestDataset``.

    Test sets come in the order of `TEST_SETS`, others after them by name.

    Args:
        validation_fraction, seed: as in `split_validation`.
        train_images: use only so many training pairs, drawn after the split; validation shrinks in proportion (at least
            one). A smaller number takes a subset of what a larger one takes with the same seed.
        test_images: use only so many pairs of each test set. Which ones does not depend on ``seed``: runs with different
            seeds are compared on the same images.

    Raises:
        UserError: TrainDataset is missing, a folder is faulty (see `index_pairs`), or a number is below 1.
    """
    root = Path(data_root)
    for knob, count in (("train_images", train_images), ("test_images", test_images)):
        if count is not None and count < 1:
            raise UserError(f"{knob} is {count}; it must be at least 1, or left out to use all images.")
    train, validation = split_validation(index_pairs(root / "TrainDataset"), validation_fraction, seed)
    if train_images is not None and train_images < len(train):
        share = max(1, round(len(validation) * train_images / len(train)))
        train, validation = _limit(train, train_images, seed), _limit(validation, share, seed)

    folders = {path.name: path for path in (root / "TestDataset").glob("*") if path.is_dir() and path.name[0] != "."}
    names = [name for name in TEST_SETS if name in folders] + sorted(folders.keys() - set(TEST_SETS), key=_natural)
    tests = {name: _limit(index_pairs(folders[name]), test_images, 0) for name in names}
    return PolypData(root, train, validation, tests, is_synthetic(root))


def _limit(index: PairIndex, count: int | None, seed: int) -> PairIndex:
    """At most ``count`` pairs: the first of a seeded shuffle, put back into natural order."""
    if count is None or count >= len(index):
        return index
    return index.take(sorted(rng_for(seed, 2).permutation(len(index))[:count]))


def is_synthetic(root: str | Path) -> bool:
    """True where `kdas_core.data.synthetic.make_dataset` wrote this data set."""
    try:
        note = json.loads((Path(root) / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and note.get("made_by") == "kdas_core.data.synthetic"
