"""Which picture of a source an annotation means; which files a folder holds at all."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath, PureWindowsPath

from kdas_book.data.importing.frames import Frame, Listing
from kdas_core import UserError
from kdas_core.data.images import SUFFIXES, UNREAD
from kdas_core.data.layout import first_few, is_junk, natural

# Folders whose name says what kind of file they hold, and not whose: video, patient or ward.
_GENERAL = """images image imgs img frames frame jpegimages jpegs pictures pics photos data export
    source src upload labels label annotations annotation anns ann json jsons xml xmls txt"""
GENERAL = frozenset(_GENERAL.split())
_MASKS = frozenset("mask masks gt groundtruth segmentationclass segmentationobject".split())
Folders = tuple[str, ...]


class Images:
    """The pictures below a folder, each with its name: its path there without suffix. Which of them
    an annotation means is decided here alone, by the folders that it states.

    It states those of the path that it names (COCO's ``file_name``, Labelme's ``imagePath``), or,
    where this is a bare name, those of its own file below the source. General ones such as
    ``labels`` and ``images`` say nothing on either side: ``labels/b/1.txt`` means
    ``images/b/1.jpg``.

    1. A path that names folders means the picture whose path ends with all of it, or whose whole
       path it ends with. Folders in front of that are another place's: they are the same for all
       annotations, and do not say otherwise than the name of the images' own folder.
    2. A bare name means the picture beside its annotation, or in the folder that mirrors its own,
       or the only one of that name, unless the two folders are different ones.

    So ``b/1`` never means ``a/1.jpg``. What means no picture, or could mean several, is a fault.
    """

    def __init__(self, folder: Path, base: Path | None = None):
        self.folder = folder
        self.base = base or folder  # the folder below which an annotation's folders are its own
        self.names: dict[Path, str] = {}
        self.unread: dict[Path, str] = {}
        self._at: dict[Path, Folders] = {}  # folders and name of each below this folder
        self._folders: dict[Path, Folders] = {}  # those that are not general
        self._known: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self._own: dict[Path, Folders] = {}  # of folders of annotations
        self._fronts: dict[Folders, list[tuple[Frame, str]]] = defaultdict(list)
        for path in files_below(folder, (*SUFFIXES, *UNREAD)):
            relative = PurePosixPath(normal(path.relative_to(folder).as_posix()))
            names = self.unread if path.suffix.lower() in UNREAD else self.names
            names[path] = str(relative.with_suffix(""))
            self._at[path] = relative.parts
            self._folders[path] = _specific(relative.parts[:-1])
            if not self.is_mask(path):
                self._known["file", normal(path.name)].append(path)
                self._known["stem", normal(path.stem)].append(path)
        self._flat = not any(self._folders.values())

    @classmethod
    def near(cls, folder: Path, chosen: Path | None) -> "Images":
        """Of the chosen folder, else of ``folder`` or, if that holds none, of the one above it."""
        if chosen:
            return cls(chosen, folder)
        there = cls(folder)
        above = folder.parent if folder.name else folder.resolve().parent
        return there if there.names or there.unread else cls(above)

    def place(self, frame: Frame, named: str, file: Path, where: str, ward: str = "") -> None:
        """Give a frame the picture that its annotation, of this file, names; ``ward`` is a folder
        that it states besides. Else the frame gets a fault.
        """
        found = self.meant(named, file, ward)
        if len(found) != 1:
            fact = f"the image {self._stated(named, file, ward)} is not below {self.folder}"
            if found:
                fact = f"{named} could be any of {first_few([str(path) for path in found])}"
            way_out = "name its folder with --images, or remove the entry"
            if self.folder != self.base and self._own_folders(file):
                way_out = f"import {file.parent} by itself, or remove the entry"
            frame.faults.append(f"{where}: {fact}; {way_out}.")
        elif found[0] in self.unread:
            frame.faults.append(unread_fault(found[0]))
        else:
            self.take(frame, found[0])
            front = self._front(found[0], named) or ()
            self._fronts[front].append((frame, f"{where}: {named}"))

    def is_mask(self, path: Path) -> bool:
        """Does it lie in a folder of mask files?"""
        return any(part.lower() in _MASKS for part in self._at[path][:-1])

    def take(self, frame: Frame, path: Path) -> None:
        frame.image = path
        frame.name = self.names[path]

    def meant(self, named: str, file: Path, ward: str = "") -> list[Path]:
        """The pictures that a path can mean: one, if all is well."""
        *folders, name = parts = _parts(named)
        by_file = name.lower().endswith((*SUFFIXES, *UNREAD))
        same = self._known["file" if by_file else "stem", name]
        ends = [p for p in same if (*self._at[p][-len(parts) : -1], name) == parts]
        whole = [p for p in ends if by_file and len(self._at[p]) == len(parts)]
        if stated := _specific(folders):
            alike = [p for p in ends if self._folders[p] == stated]
            return whole or alike or ends or [p for p in same if self._front(p, named) is not None]
        own = self._own_folders(file)
        same = (() if own else whole) or ends or same
        beside = [p for p in same if p.parent == file.parent]
        left = [p for p in same if self._agree(p, own, _specific([ward]), file)]
        mirrored = [p for p in left if self._folders[p] == own]
        below = [p for p in left if own and self._folders[p]]
        several = same if left and len(same) > 1 else left
        return beside or mirrored or below or several

    def settle(self) -> None:
        """Faults for all paths whose folders in front differ: they can't be of one other place."""
        if len(self._fronts) > 1:
            for front, placed in self._fronts.items():
                for frame, what in placed if front else ():
                    fact = f"{what} has folders in front that others have not"
                    way_out = "so that its image is in doubt; lay the images into these folders"
                    frame.faults.append(f"{fact}, {way_out}.")

    def _own_folders(self, file: Path) -> Folders:
        """Those of an annotation file below the source; none where it lies elsewhere."""
        if file.parent not in self._own:
            here, base = file.parent.resolve(), self.base.resolve()
            own = here.relative_to(base).parts if here.is_relative_to(base) else ()
            self._own[file.parent] = _specific(own)
        return self._own[file.parent]

    def _front(self, path: Path, named: str) -> Folders | None:
        """The folders in front, by which a path that names folders differs from the picture's; None
        where the two are of different places.
        """
        stated, known = _specific(_parts(named)[:-1]), self._folders[path]
        front = stated[: max(0, len(stated) - len(known))]
        if not front:
            return () if known[len(known) - len(stated) :] == stated else None
        if front + known != stated:
            return None
        here = (self.folder.resolve() if known else path.parent.resolve()).name
        elsewhere = PureWindowsPath(named).anchor or named.startswith("..")
        silent = here.lower() in GENERAL or (
            elsewhere and (known or not _siblings(here, front[-1]))
        )
        return front if front[-1] == here or (silent and (known or self._flat)) else None

    def _agree(self, path: Path, own: Folders, ward: Folders, file: Path) -> bool:
        """Do an annotation's folders leave open that a picture elsewhere is its own?"""
        known, here = self._folders[path], self.folder.resolve().name
        if known and (stated := own or ward):
            return stated[-len(known) :] == known[-len(stated) :]
        # What was chosen, source or images, may itself be the folder of one video.
        if own and self.folder != self.base and here.lower() not in GENERAL:
            return own[-1] == here
        return not _siblings(file.parent.resolve().name, known[-1] if known else here)

    def _stated(self, named: str, file: Path, ward: str) -> str:
        parts = _parts(named)
        own = () if _specific(parts[:-1]) else self._own_folders(file) or _specific([ward])
        return "/".join((*own, *parts)) if own else named


def _parts(path: str) -> Folders:
    """Folders and name, without a drive, and without steps up."""
    parts = PurePosixPath(normal(path.replace("\\", "/"))).parts
    drive = PureWindowsPath(path).drive.replace("\\", "/")
    return tuple(p for p in parts if p not in ("/", "//", "..", ".", drive)) or ("",)


def _siblings(one: str, other: str) -> bool:
    """Are these two folders like ``video7`` and ``video12``, or ``wardA`` and ``wardB``?"""
    kinds = [re.sub("[0-9]+|[a-z]$", "", name.lower()) for name in (one, other)]
    return one != other and kinds[0] == kinds[1]


def _specific(folders) -> Folders:
    return tuple(normal(part) for part in folders if part and part.lower() not in GENERAL)


def unread_fault(path: Path) -> str:
    fact = f"{path} is there, but {path.suffix} files are not read"
    return f"{fact}; convert it to PNG under the same name, with any image viewer."


def read_each(
    folder: Path, suffix: str, there: Images, fill: Callable, others: Collection[str] = ()
) -> Listing:
    """The frames of a layout with an annotation file for each image; then a frame without
    annotation for every image that none has and no faulty one means.

    ``fill(frame, path, there)`` reads a file, or raises UserError: the frame's fault. Files called
    as in ``others`` are no annotations, unless there is an image of their stem.
    """
    frames, used = [], set()
    for path in files_below(folder, (suffix,)):
        meant = there.meant(path.stem, path)
        if path.name.lower() in others and not meant:
            continue
        frame = Frame(path.relative_to(folder).with_suffix("").as_posix(), str(path))
        try:
            fill(frame, path, there)
        except UserError as error:
            frame.faults.append(str(error))
        frames.append(frame)
        used |= {frame.image, *(meant if frame.faults else ())}
    if not frames:
        raise UserError(f"{folder} holds no {suffix} files; there should be one for each image.")
    there.settle()
    left = [path for path in there.names if path not in used and not there.is_mask(path)]
    frames += [Frame(there.names[path], str(path), path, annotated=False) for path in left]
    return Listing(frames, [unread_fault(path) for path in there.unread if path not in used])


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files with these suffixes (any case), below included, in natural order, but none hidden and
    no thumbnails. Links are followed, into each folder once; one that leads nowhere is a file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder.")

    def unlisted(error: OSError) -> None:
        fact = f"{error.filename} cannot be listed ({error.strerror})"
        raise UserError(f"{fact}; see to its permissions, or the disk.") from error

    found: dict[str, Path] = {}
    links, seen = [folder], set()
    while links:  # what is there itself comes before what is linked
        for place, folders, files in os.walk(links.pop(0), onerror=unlisted):
            here, real = Path(place), os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            below = [here / name for name in folders if not is_junk(name)]
            links += [path for path in below if path.is_symlink()]
            folders[:] = [path.name for path in below if not path.is_symlink()]
            for path in (here / name for name in files if not is_junk(name)):
                sound = path.is_file() or (path.is_symlink() and not path.exists())
                if sound and path.suffix.lower() in suffixes:
                    found[path.relative_to(folder).as_posix()] = path
    return [found[name] for name in sorted(found, key=natural)]


def normal(name: str) -> str:
    """Composed and decomposed letters are the same name."""
    return unicodedata.normalize("NFC", name)


def without_suffix(name: str) -> str:
    """``video1/a.b.png`` → ``video1/a.b``; only suffixes of images go."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name
