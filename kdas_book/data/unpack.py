"""Unpacking an archive that somebody else made: all of it is safe and in place, or nothing is."""

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
from kdas_core.data.layout import is_junk
from kdas_core.files import unwritten

MOST_FILES = 50_000
MOST_BYTES = 8 * 10**9  # of all files together, unpacked
SPARE = 64 * 2**20  # bytes that stay free on the disk
RENAMED = {"image": "images", "mask": "masks"}  # the older PraNet archive says it in the singular
OTHER_KINDS = {b"Rar!": "rar", b"7z\xbc\xaf": "7z", b"\x1f\x8b": "gzip", b"BZh": "bzip2"}
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_AFRESH = "remove it and run the command again to fetch it anew"


class _Unsafe(Exception):
    """What an archive has that refuses the whole of it."""


def unpack(archive: Path, folder: Path, roots: Collection[str] = ("images", "masks")) -> None:
    """Unpack a zip archive into a new folder, which is there afterwards only if all went well.

    Left out are the traces of file browsers (``__MACOSX``, ``.DS_Store``, ``Thumbs.db``) and
    wrapping folders that hold everything else, but never one named in ``roots``; ``image`` and
    ``mask`` become ``images`` and ``masks``.

    UserError: not a zip archive, damaged, encrypted, too large for its limits or for the disk, or
    with a member that is a link, has a path out of the folder, or the name of another.
    """
    if not zipfile.is_zipfile(archive):
        raise UserError(f"{archive} is {_no_zip(archive)}.")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise unwritten(folder, error, "mend that and run the command again") from error
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _members(zipped, {*roots, *RENAMED, *RENAMED.values()})
            size = sum(info.file_size for info in members.values())
            require_room(folder.parent, size, str(archive))
            for path, info in tqdm(members.items(), archive.name, unit="file", disable=None):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(info) as source, open(folder / path, "xb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)  # zipfile compares the sum
    except BaseException as error:  # Ctrl-C as well
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, UserError) or not isinstance(error, (*BROKEN, OSError, _Unsafe)):
            raise
        raise UserError(f"{archive} {_fact(error)}.") from error


def require_room(folder: Path, size: int, what: str) -> None:
    """Raise `UserError` unless so many bytes and `SPARE` are free on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        needed, there = (f"{n / 1e6:,.1f} MB" for n in (size + SPARE, free))
        fact = f"{what} needs {needed} and {folder} has {there} free"
        raise UserError(f"{fact}; make room and run the command again.")


def _no_zip(archive: Path) -> str:
    """What a file is instead: people save a web page or another kind of archive by this name."""
    with open(archive, "rb") as stream:
        head = stream.read(512)
    kinds = [kind for magic, kind in OTHER_KINDS.items() if head.startswith(magic)]
    kinds += ["tar"] if head[257:262] == b"ustar" else []
    if kinds:
        return f"a {kinds[0]} archive, not zip; data/README.md says how to unpack it by hand"
    page = head.lstrip()[:1] == b"<"
    what = "a web page, not an archive" if page else "not a zip archive, or is cut off"
    return f"{what}; {_AFRESH}"


def _fact(error: BaseException) -> str:
    """What is the matter with an archive, and what to do."""
    if isinstance(error, BROKEN):
        return f"is damaged, or packed in a way that Python does not know ({error}); {_AFRESH}"
    if isinstance(error, OSError) and not isinstance(error, (FileExistsError, NotADirectoryError)):
        way_out = "make room or mend the permissions and run the command again"
        return f"could not be unpacked ({error.strerror}); {way_out} (the archive is kept)"
    fact = "has a file and a folder of one name" if isinstance(error, OSError) else str(error)
    return f"{fact}; nothing was unpacked, so look at it before you trust it"


def _members(zipped: zipfile.ZipFile, roots: set[str]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Where each file goes; one unsafe member refuses the whole archive."""
    infos = zipped.infolist()
    if len(infos) > MOST_FILES:
        raise _Unsafe(f"has {len(infos):,} members, more than the {MOST_FILES:,} allowed")
    files = [(path.parts, info) for info in infos if (path := _safe_path(info))]
    if any(info.compress_type == 9 for _, info in files):
        fact = "is packed by Deflate64, as Windows packs large files, which Python does not read"
        raise _Unsafe(f"{fact} (unpack it and pack it again, say with 7-Zip: method Deflate)")
    total = sum(info.file_size for _, info in files)
    if total > MOST_BYTES:  # zipfile never gives more than these sizes, so the sum is a true limit
        limit = f"more than the {MOST_BYTES / 1e9:g} GB allowed"
        raise _Unsafe(f"unpacks to {total / 1e9:,.1f} GB, {limit}")
    if not files:
        raise _Unsafe("holds no files")
    while len({parts[0] for parts, _ in files}) == 1 and files[0][0][0] not in roots:
        if any(len(parts) == 1 for parts, _ in files):
            break
        files = [(parts[1:], info) for parts, info in files]  # without the wrapping folder
    members = {}
    names: dict[str, zipfile.ZipInfo] = {}
    for (*folders, file), info in files:
        path = PurePosixPath(*(RENAMED.get(folder, folder) for folder in folders), file)
        # Windows and macOS take names for the same that differ in case or in how an accent is made.
        first = names.setdefault(unicodedata.normalize("NFC", str(path)).casefold(), info)
        if first.filename != info.filename:
            raise _Unsafe(f"has {info.filename} and {first.filename}, one name on many systems")
        if first is not info:
            raise _Unsafe(f"has {path} twice")
        members[path] = info
    return members


def _safe_path(info: zipfile.ZipInfo) -> PurePosixPath | None:
    """The path of a member; None of a folder or of what is left out."""
    name = info.filename.replace("\\", "/")  # some Windows programs write them
    path = PurePosixPath(name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _Unsafe(f"has {'a link' if kind == stat.S_IFLNK else 'a device'}, {name!r}")
    if info.flag_bits & 1:
        raise _Unsafe(f"is encrypted ({name!r})")
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise _Unsafe(f"has {name!r}, a path that leads out of the folder")
    junk = any(map(is_junk, path.parts))
    return None if junk or not path.parts or name.endswith("/") else path
