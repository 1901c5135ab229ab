"""Unpacking an archive that somebody else made: nothing outside the folder, no links, no bombs,
nothing half there.
"""

from __future__ import annotations

import re
import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from kdas_core import UserError

MOST_FILES = 50_000
MOST_BYTES = 8 * 10**9  # of all files together, unpacked
SPARE = 64 * 2**20  # bytes that stay free on the disk
JUNK = ("__macosx", "thumbs.db", "desktop.ini")  # and whatever begins with a dot
RENAMED = {"image": "images", "mask": "masks"}  # the older PraNet archive says it in the singular
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def unpack(archive: Path, folder: Path, roots: Collection[str] = ("images", "masks")) -> int:
    """Unpack a zip archive into a new folder.

    Everything that names and headers tell is checked before the first byte is written. Left out are
    the traces of file browsers (``__MACOSX``, ``.DS_Store``, ``Thumbs.db``) and wrapping folders
    that hold everything else; ``image`` and ``mask`` are called ``images`` and ``masks``.

    Args:
        archive: a zip file.
        folder: must not exist; it is there afterwards only if all went well.
        roots: names that belong to the layout, so that a folder of this name is never taken for a
            wrapping.

    Returns:
        The number of files.

    Raises:
        UserError: not a zip archive, damaged, encrypted, too large for its limits or for the disk,
            or with a member that is a link, has a path out of the folder, or the name of another.
    """
    _say_if_no_zip(archive)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{folder} could not be made ({error.strerror}); mend that and run the command again."
        ) from error
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _members(
                archive, zipped, frozenset(roots) | RENAMED.keys() | set(RENAMED.values())
            )
            _room(archive, folder, sum(info.file_size for info in members.values()))
            _write(zipped, members, folder)
    except BaseException as error:  # Ctrl-C as well
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, _BROKEN) and not isinstance(error, UserError):
            raise UserError(
                f"{archive} is damaged, or packed in a way that Python does not know ({error}); {_AFRESH}."
            ) from error
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise UserError(
                f"{archive} has a file and a folder of one name; {_UNTOUCHED}."
            ) from error
        if isinstance(error, OSError):
            raise UserError(
                f"{archive} could not be unpacked to {folder.parent} ({error.strerror}); make room or mend the permissions "
                "and run the command again (the archive is kept)."
            ) from error
        raise
    return len(members)


_AFRESH = "remove it and run the command again to fetch it anew"


def _say_if_no_zip(archive: Path) -> None:
    """A sentence that names what the file is instead; people save a web page or another kind of
    archive under this name.
    """
    if zipfile.is_zipfile(archive):
        return
    with open(archive, "rb") as stream:
        head = stream.read(512)
    kinds = {
        b"Rar!": "a rar archive",
        b"7z\xbc\xaf": "a 7z archive",
        b"\x1f\x8b": "a gzip archive",
        b"BZh": "a bzip2 archive",
    }
    kind = next((kind for magic, kind in kinds.items() if head.startswith(magic)), None)
    if head[257:262] == b"ustar":
        kind = "a tar archive"
    if kind:
        raise UserError(
            f"{archive} is {kind}, and only zip is unpacked here; unpack it by hand as data/README.md says."
        )
    if head.lstrip()[:1] == b"<":
        raise UserError(f"{archive} is a web page, not an archive; {_AFRESH}.")
    raise UserError(f"{archive} is not a zip archive, or is cut off; {_AFRESH}.")


def _members(
    archive: Path, zipped: zipfile.ZipFile, roots: Collection[str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Where each file goes. Only what is safe comes back; one unsafe member refuses the whole
    archive.
    """
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    infos = zipped.infolist()
    if len(infos) > MOST_FILES:
        raise UserError(
            f"{archive} has {len(infos):,} members, more than the {MOST_FILES:,} allowed; {_UNTOUCHED}."
        )
    for info in infos:
        path = _safe_path(archive, info)
        if (
            not path.parts
            or info.filename.endswith(("/", "\\"))
            or any(part.startswith(".") or part.lower() in JUNK for part in path.parts)
        ):
            continue
        if path in files:
            raise UserError(f"{archive} has {path} twice; {_UNTOUCHED}.")
        files[path] = info
    total = sum(info.file_size for info in files.values())
    if total > MOST_BYTES:  # zipfile never gives more than these sizes, so the sum is a true limit
        raise UserError(
            f"{archive} unpacks to {total / 1e9:,.1f} GB, more than the {MOST_BYTES / 1e9:g} GB allowed; {_UNTOUCHED}."
        )
    if not files:
        raise UserError(f"{archive} holds no files; {_AFRESH}.")
    placed: dict[str, tuple[PurePosixPath, zipfile.ZipInfo]] = {}
    for path, info in _without_wrapping(files, roots).items():
        path = PurePosixPath(*(RENAMED.get(part, part) for part in path.parts[:-1]), path.name)
        # Windows and macOS take names for the same that differ in case or in the composition of an
        # accent.
        key = unicodedata.normalize("NFC", str(path)).casefold()
        if key in placed:
            raise UserError(
                f"{archive} has {path} and {placed[key][0]}, one name on many systems; {_UNTOUCHED}."
            )
        placed[key] = path, info
    return dict(placed.values())


_UNTOUCHED = "nothing was unpacked, so look at it before you trust it"


def _safe_path(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    name = info.filename.replace("\\", "/")  # some Windows programs write them
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a device"
        raise UserError(f"{archive} has {what}, {name!r}; {_UNTOUCHED}.")
    if info.flag_bits & 1:
        raise UserError(f"{archive} is encrypted ({name!r}); {_UNTOUCHED}.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise UserError(
            f"{archive} has {name!r}, a path that leads out of the folder; {_UNTOUCHED}."
        )
    return path


def _without_wrapping(files: dict[PurePosixPath, zipfile.ZipInfo], roots: Collection[str]) -> dict:
    while True:
        tops = {path.parts[0] for path in files}
        if len(tops) > 1 or tops & set(roots) or any(len(path.parts) == 1 for path in files):
            return files
        files = {PurePosixPath(*path.parts[1:]): info for path, info in files.items()}


def _room(archive: Path, folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total + SPARE > free:
        raise UserError(
            f"{archive} unpacks to {total / 1e6:,.1f} MB and {folder.parent} has {free / 1e6:,.1f} MB free; make room and run "
            "the command again."
        )


def _write(
    zipped: zipfile.ZipFile, members: dict[PurePosixPath, zipfile.ZipInfo], folder: Path
) -> None:
    for path, info in tqdm(
        members.items(), desc=Path(str(zipped.filename)).name, unit="file", disable=None
    ):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipped.open(info) as source, open(target, "xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)  # zipfile compares the checksum at the end
