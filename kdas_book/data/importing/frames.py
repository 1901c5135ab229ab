"""What an import is told, and what every layout is read into: frames with shapes or a mask file."""

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kdas_core import UserError
from kdas_core.data.images import read_bytes

LARGEST_JSON = 2**30  # bytes; Python needs about ten times as much memory to read it
BOXES = ("ellipse", "rectangle")
_WORDS = {"box": BOXES, "negatives": ("keep", "drop"), "exif": ("turned", "stored")}


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
    group_by: str = ""  # these two: see output.groups_of; frames of a group stay together
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


@dataclass(frozen=True)
class Shape:
    """One annotated object, in pixels from the picture's upper left corner (the first pixel spans 0
    to 1).

    ``data`` by ``kind``: polygon: its parts, float (N, 2) each; box, circle: x0, y0, x1, y1;
    rle: (height, width), run lengths; bitmap: (x, y), bool array.
    """

    kind: str
    label: str  # the category
    data: Any
    relative: bool = False  # coordinates are fractions of the picture's width and height


@dataclass
class Frame:
    """One picture of the source and what is said about it."""

    name: str  # path below the source, without suffix: video1/frame_07
    where: str  # how a sentence calls the annotation: instances.json, images[7]
    image: Path | bytes = b""  # the file, or the content of one that is embedded in the annotation
    page: int | None = None  # of a TIFF stack, from 0
    size: tuple[int, int] | None = None  # (width, height) that the annotation states
    shapes: list[Shape] = field(default_factory=list)
    mask: Path | None = None  # a file whose pixels are the answer, used instead of shapes
    annotated: bool = True  # False: nothing is said about the picture, not even "nothing there"
    faults: list[str] = field(default_factory=list)  # a frame with faults is never written
    counts: Counter = field(default_factory=Counter)  # what was done with it
    off: float = 0.0  # how far a JPEG mask's colours were from those named

    def add(self, where: str, read: Callable[..., Shape], *entry: Any) -> None:
        """Add the shape of an entry, or the fault why ``read`` refuses it."""
        try:
            self.shapes.append(read(*entry))
        except ValueError as error:
            self.faults.append(f"{where} {error}.")


@dataclass
class Listing:
    """What a reader found: frames, faults that belong to none, categories that are declared."""

    frames: list[Frame] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


def read_json(path: Path) -> Any:
    """UserError: the file cannot be read, is larger than `LARGEST_JSON`, or is not JSON."""
    if path.is_file() and (size := path.stat().st_size) > LARGEST_JSON:
        fact = f"{path} has {size / 2**30:.1f} GB, too much to read at once"
        raise UserError(f"{fact}; divide it into several files.")
    try:
        return json.loads(read_bytes(path).decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); export it again.") from error


def points(values: Any) -> np.ndarray:
    """Coordinates, float (N, 2), from ``[[x, y], …]`` or ``[x, y, …]``; ValueError: no such."""
    array = numbers(values)
    if array.ndim == 1 and array.size % 2 == 0:
        array = array.reshape(-1, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError("has coordinates that are not pairs of x and y")
    return array


def numbers(values: Any) -> np.ndarray:
    """Raises ValueError: not finite numbers."""
    try:
        array = np.vectorize(float, otypes=[float])(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("has coordinates that are no numbers") from error
    if not np.isfinite(array).all():
        raise ValueError("has a coordinate that is not finite")
    return array


def stated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) if both are positive whole numbers, also as text, else None."""
    with suppress(TypeError, ValueError, OverflowError):
        sides = int(float(width)), int(float(height))
        return sides if min(sides) > 0 and sides == (float(width), float(height)) else None
    return None
