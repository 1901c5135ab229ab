"""Decoded pictures on disk: a file is decoded once, by whoever asks first; later epochs, runs and
processes read pixels.

The cache lies in ``$KDAS_CACHE``, else in ``$XDG_CACHE_HOME/kdas_core``, else in
``~/.cache/kdas_core``: on this machine's own disk also where the images or the runs lie on a
mounted drive. It may be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import xxhash

from kdas_core.data.images import read_bytes
from kdas_core.data.layout import PairIndex

VERSION = 2  # raise when the same files would no longer give the same pixels
_DAYS = 30  # a cache that nobody has opened for so long is removed when a new one is made
_ROW = np.dtype([("there", "u1"), ("check", "u1", 16), ("digest", "u1", 16)])


class PairCache:
    """The pairs of an index at one size, uint8: 4·size² bytes a pair, 0.5 MB at 352.

    A row is filled when it is first asked for, so nothing waits for a cache to be built. What a row
    holds is verified once per process: it must stem from these very files (XXH3 of their bytes) and
    be as it was written (XXH3 again). So a changed image, a process that was killed while writing,
    or two processes that fill the same row, cannot spoil it: at worst it is decoded once more.

    Where no file can be made (no space, no permission) the rows live in memory, and a warning says
    so.

    Args:
        index: the pairs.
        size: side of the square.
        soft: as in ``PolypDataset``; soft and binary masks have caches of their own.
        decode: ``position, bytes of the image, bytes of the mask -> uint8 (4, S, S)``: red, green,
            blue, mask.
    """

    def __init__(self, index: PairIndex, size: int, soft: bool, decode):
        self.index, self._decode = index, decode
        files = [f"{pair.image.absolute()}\n{pair.mask.absolute()}" for pair in index]
        words = "\n".join([f"{VERSION} {size} {soft}", *files])
        self.folder = home() / f"pairs-{size}px-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
        shape = (len(index), 4, size, size)
        try:
            if not self.folder.exists():
                _forget_old_ones()
                self.folder.mkdir(parents=True, exist_ok=True)
            self._pixels = mapped(self.folder / "pixels.u8", np.dtype(np.uint8), shape)
            self._rows = mapped(self.folder / "rows", _ROW, shape[:1])
            os.utime(self.folder)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            warnings.warn(
                f"{self.folder} cannot be written ({error.strerror}), so {np.prod(shape) / 1e6:.0f} MB of decoded images "
                "stay in memory; set KDAS_CACHE to another folder to keep them.",
                stacklevel=3,
            )
            self._pixels, self._rows = np.zeros(shape, np.uint8), np.zeros(shape[:1], _ROW)
        self._sound = np.zeros(len(index), bool)

    def get(self, i: int) -> np.ndarray:
        """Red, green, blue and mask of a position, uint8 (4, S, S): a read-only view.

        Raises:
            UserError: a file is missing or unreadable.
        """
        if not self._sound[i]:
            self._fill(i)
        planes = self._pixels[i].view()
        planes.flags.writeable = False
        return planes

    def _fill(self, i: int) -> None:
        row, files = (
            self._rows[i : i + 1],
            (read_bytes(self.index[i].image), read_bytes(self.index[i].mask)),
        )
        digest = _digest(*files)
        kept = row["there"][0] and row["digest"][0].tobytes() == digest
        if not (kept and row["check"][0].tobytes() == _digest(self._pixels[i].data)):
            planes = self._decode(i, *files)
            row["there"] = 0
            self._write(i, planes)
            row["digest"], row["check"] = (
                np.frombuffer(d, np.uint8) for d in (digest, _digest(planes.data))
            )
            row["there"] = 1  # last of all
        self._sound[i] = True

    def _write(self, i: int, planes: np.ndarray) -> None:
        if isinstance(self._pixels, np.memmap) and hasattr(os, "pwrite"):
            # A fifth of the time that a first epoch takes is saved by not writing through the map,
            # page by page.
            with open(self.folder / "pixels.u8", "rb+") as file:
                os.pwrite(file.fileno(), planes.data, i * planes.nbytes)
        else:
            self._pixels[i] = planes


def _digest(*contents: bytes | memoryview) -> bytes:
    """16 bytes; a fifth of the time that CRC-32 takes."""
    found = xxhash.xxh3_128()
    for content in contents:
        found.update(content)
    return found.digest()


def home() -> Path:
    """Where caches are kept."""
    if os.environ.get("KDAS_CACHE"):
        return Path(os.environ["KDAS_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kdas_core"


def mapped(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """A file as an array that several processes share; a new file is zeros.

    Its whole space is taken at once. Otherwise a disk that gets full later would not be an error,
    but a bus error that ends the process in the middle of an assignment.

    Raises:
        OSError: no space, or no permission.
    """
    size = int(np.prod(shape)) * kind.itemsize
    if not size:
        return np.zeros(shape, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:  # makes it where it is missing, and never cuts it
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif file.tell() < size:
            file.write(bytes(size - file.tell()))
    return np.memmap(path, dtype=kind, mode="r+", shape=shape)


def _forget_old_ones() -> None:
    for folder in home().glob("pairs-*"):
        if time.time() - folder.stat().st_mtime > 86400 * _DAYS:
            shutil.rmtree(folder, ignore_errors=True)
