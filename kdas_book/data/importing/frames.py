"""What every layout is read into: frames with shapes or a mask file, and the search for their
images.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kdas_core import UserError
from kdas_core.data.layout import SUFFIXES, natural

LARGEST_JSON = 2**30  # bytes; Python needs about ten times as much memory to read it


@dataclass(frozen=True)
class Shape:
    """One annotated object, in pixels from the picture's upper left corner (the first pixel spans 0
    to 1).

    Attributes:
        kind: ``"polygon"`` (data: list of float (N, 2) arrays, the parts), ``"box"`` (x0, y0, x1,
            y1), ``"circle"`` (x, y, radius), ``"rle"`` ((height, width), run lengths) or
            ``"bitmap"`` ((x, y), bool array).
        label: the category, as text.
        relative: coordinates are fractions of the picture's width and height instead of pixels.
    """

    kind: str
    label: str
    data: Any
    relative: bool = False


@dataclass
class Frame:
    """One picture of the source and what is said about it.

    Attributes:
        name: path below the source, without suffix, ``/`` between folders: ``video1/frame_07``.
        where: how a sentence calls the annotation, such as ``instances.json, image 7``.
        image: the file, or the content of one that is embedded in the annotation.
        page: of a TIFF stack, from 0.
        size: (width, height) that the annotation states.
        shapes: None where nothing at all is said about the picture; empty: "nothing there".
        mask: a file whose pixels are the answer, used instead of shapes.
        faults: sentences about what is wrong; a frame with faults is never written.
    """

    name: str
    where: str
    image: Path | bytes
    page: int | None = None
    size: tuple[int, int] | None = None
    shapes: list[Shape] | None = None
    mask: Path | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def is_annotated(self) -> bool:
        return self.shapes is not None or self.mask is not None


@dataclass
class Listing:
    """What a reader found: frames, and faults that belong to no frame. ``labels``: categories that
    the source declares.
    """

    frames: list[Frame] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


class Images:
    """The image files below some folders, found by relative path, else by bare name where that is
    unique.
    """

    def __init__(self, *folders: Path):
        self.folders = folders
        self._by_path: dict[str, list[Path]] = {}
        self._by_name: dict[str, list[Path]] = {}
        self.names: dict[Path, str] = {}
        for folder in dict.fromkeys(folders):
            for path in files_below(folder, SUFFIXES):
                if path not in self.names:
                    relative = normal(path.relative_to(folder).as_posix())
                    self.names[path] = without_suffix(relative)
                    self._by_path.setdefault(relative, []).append(path)
                    self._by_name.setdefault(PurePosixPath(relative).name, []).append(path)

    def find(self, name: str) -> Path:
        """The file that an annotation calls ``name``; back slashes and foreign folders in front are
        overlooked.

        Raises:
            UserError: there is none, or several fit.
        """
        wanted = normal(name.replace("\\", "/")).removeprefix("./")
        found = self._by_path.get(wanted) or self._by_name.get(PurePosixPath(wanted).name, [])
        if len(found) == 1:
            return found[0]
        below = " and ".join(str(folder) for folder in self.folders)
        if found:
            raise UserError(
                f"{name} could be any of {_first(found)}; name the folder with --images."
            )
        raise UserError(
            f"the image {name} is not below {below}; name its folder with --images, or remove the entry"
        )

    def rest(self, frames: Iterable[Frame]) -> list[Frame]:
        """A frame without annotation for every image that none of the frames has, and no faulty one
        could mean.
        """
        frames = list(frames)
        used = {frame.image for frame in frames if isinstance(frame.image, Path)}
        meant = {PurePosixPath(frame.name).name for frame in frames if frame.faults}
        left = [path for path in self.names if path not in used and path.stem not in meant]
        return [Frame(self.names[path], str(path), path) for path in left]


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files with these suffixes (any case) in a folder and those below, in natural order; hidden
    ones are passed over.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder.")
    found = [
        path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file()
    ]
    shown = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    yield from sorted(shown, key=lambda path: natural(path.relative_to(folder).as_posix()))


def normal(name: str) -> str:
    """Composed and decomposed letters are the same name."""
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str) -> str:
    """``video1/a.b.png`` → ``video1/a.b``; only suffixes of images go."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        UserError: it cannot be read, is larger than `LARGEST_JSON`, or is not JSON.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            size = f"{path.stat().st_size / 2**30:.1f} GB"
            raise UserError(
                f"{path} has {size}, too much to read at once; divide it into several files."
            )
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be an annotation file.") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both of this kind
        raise UserError(f"{path} is not JSON ({error}); export it again.") from error


def points(values: Any) -> np.ndarray:
    """Coordinates as float (N, 2), from ``[[x, y], …]`` or ``[x, y, x, y, …]``.

    Raises:
        ValueError: not numbers, an odd number of them, or one that is infinite.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("has coordinates that are no numbers") from error
    if array.ndim == 1 and array.size % 2 == 0:
        array = array.reshape(-1, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError("has coordinates that are not pairs of x and y")
    if not np.isfinite(array).all():
        raise ValueError("has a coordinate that is not finite")
    return array


def number(value: Any) -> float:
    """Raises ValueError: not a finite number."""
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("has coordinates that are no numbers") from error
    if not math.isfinite(value):
        raise ValueError("has a coordinate that is not finite")
    return value


def stated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) if both are positive whole numbers, else None: nothing is stated."""
    good = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in (width, height))
    return (width, height) if good else None


def _first(paths: list[Path], limit: int = 3) -> str:
    return ", ".join(str(path) for path in paths[:limit]) + (", …" if len(paths) > limit else "")
