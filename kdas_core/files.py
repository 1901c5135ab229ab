"""Files that are whole or not there: written beside their place, then renamed; and locks."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kdas_core import UserError


def atomic_write(
    path: Path, data: bytes, hint: str = "make room, or choose another place", durable: bool = False
) -> None:
    """Write beside the target and rename: a reader sees the old file or the new, never a half one.

    ``durable`` pushes the bytes to the disk first, so that this holds after a power cut as well. If
    it fails the old file is as it was, and a UserError ends with ``hint``, what the user can do.
    """
    # The same name each time: a killed writer leaves one at most.
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                with suppress(OSError):  # some mounted folders, such as a Drive, cannot
                    os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):  # there may be none, or its name too long
            part.unlink()
        raise unwritten(path, error, hint) from None


def unwritten(path: Path, error: OSError, hint: str) -> UserError:
    """The sentence for a file that could not be written."""
    why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
    return UserError(f"{path} cannot be written ({why}); {hint}.")


@contextmanager
def alone(folder: Path, other: str, hint: str, wait: bool = False) -> Iterator[None]:
    """Inside, no second program works in this folder, which is made if needed: it waits, or gets a
    UserError of ``other``, the folder, and ``hint``, what else it can do.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(folder, error, hint) from None
    with suppress(OSError, NotImplementedError):  # some mounted folders know no locks
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise UserError(f"{other} {folder}; wait for it, or {hint}.") from None
            print(f"{other} {folder}; waiting until it ends.", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
