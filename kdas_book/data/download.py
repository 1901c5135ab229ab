"""The real images: where they live, on which terms, and how they come into ``data/`` (``kdas data
get``).

Nothing of ours is served from anywhere: the archives come from their authors' own addresses, and what is known of them
(`SOURCES`) is a table that a YAML file can change or extend::

    test:                                   # a set that is known: only what is named changes
      addresses: [https://mirror.example/TestDataset.zip]
    ward-7:                                 # a set of your own
      folder: TestDataset/ward-7
      archive: ward-7.zip
      addresses: [https://files.example/ward-7.zip]
      counts: {"": 120}
      terms: Research only.
      page: https://files.example

Archives stay in ``<out>/downloads``. One that was saved there by hand is used as if it had been
fetched, which is also the way out wherever a program is not let in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path

import yaml

from kdas_book.data.fetch import RETRY_POLICY, RetryPolicy, browser_link, digest_of, fetch
from kdas_book.data.unpack import unpack
from kdas_core import UserError
from kdas_core.data.layout import FULL_COUNTS, index_pairs
from kdas_core.files import atomic_write

LEDGER = "downloads.json"  # beside the data: what came from where, with its SHA-256
_CITE = "Whoever publishes results cites the papers listed in data/README.md."


@dataclass(frozen=True)
class Source:
    """One archive and what becomes of it."""

    name: str
    folder: str  # below the data folder
    archive: str  # the name of the file
    addresses: tuple[str, ...]  # https://… or drive:ID, the best first
    counts: dict[str, int] = field(
        default_factory=dict
    )  # pairs per sub-folder, "" for the folder itself
    terms: str = ""
    page: str = ""  # for a person
    megabytes: float = 0  # 0: not known
    sha256: str = ""  # empty: recorded when the archive is used for the first time


# The second Drive address of each is the one that PraNet's page named before. No digest is
# published for any of them.
SOURCES = (
    Source(
        name="train",
        folder="TrainDataset",
        archive="TrainDataset.zip",
        addresses=(
            "drive:1YiGHLw4iTvKdvbT6MgwO9zcCv8zJ_Bnb",
            "drive:1lODorfB33jbd-im-qrtUgWnZXxB94F55",
        ),
        counts={"": 900 + 550},
        terms="900 images of Kvasir-SEG and 550 of CVC-ClinicDB, both for research and education only; neither may be used "
        f"commercially (Kvasir-SEG: not without written permission). {_CITE}",
        page="https://github.com/DengPingFan/PraNet",
        megabytes=399.5,
    ),
    Source(
        name="test",
        folder="TestDataset",
        archive="TestDataset.zip",
        addresses=(
            "drive:1Y2z7FD5p5y31vkZwQQomXFRB0HutHyao",
            "drive:1o8OfBvYE6K-EpDyvzsmMPndnUMwb540R",
        ),
        counts=FULL_COUNTS,
        terms="Five sets for research and education; CVC-ClinicDB and Kvasir-SEG may not be used commercially (Kvasir-SEG: not "
        f"without written permission). {_CITE}",
        page="https://github.com/DengPingFan/PraNet",
        megabytes=327.2,
    ),
    Source(
        name="kvasir-seg",
        folder="Kvasir-SEG",
        archive="kvasir-seg.zip",
        addresses=("https://datasets.simula.no/downloads/kvasir-seg.zip",),
        counts={"": 1000},
        terms="For research and education; commercial use needs written permission. Whoever publishes results cites Jha et al., "
        "MultiMedia Modeling 2020. Its 1000 images are those of train (900) and test (100): never train on all and test on some.",
        page="https://datasets.simula.no/kvasir-seg/",
        megabytes=46.2,
    ),
)
DEFAULT = ("train", "test")


def choose(names: Sequence[str] = (), manifest: str | Path | None = None) -> list[Source]:
    """The sources of these names (by default training and test sets), as the table and the user's
    file describe them.

    Raises:
        UserError: a name that is in neither, or something is wrong with the file.
    """
    known = {source.name: source for source in SOURCES}
    if manifest:
        for name, changes in _read_manifest(Path(manifest)).items():
            known[name] = _changed(known.get(name), name, changes, Path(manifest))
    for name in names:
        if name not in known:
            raise UserError(
                f'There is no data set "{name}" to fetch; choose from {", ".join(known)}.'
            )
    return [known[name] for name in dict.fromkeys(names or DEFAULT)]


def _read_manifest(path: Path) -> dict[str, dict]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path} could not be read as YAML ({' '.join(str(error).split())}); mend the file."
        ) from None
    if not isinstance(entries, dict) or not all(
        isinstance(entry, dict) for entry in entries.values()
    ):
        raise UserError(
            f"{path} should hold data sets by name, each with its fields; kdas_book/data/download.py shows one."
        )
    return entries


def _changed(known: Source | None, name: str, changes: dict, path: Path) -> Source:
    allowed = {f.name for f in fields(Source)} - {"name"}
    if unknown := sorted(map(str, changes.keys() - allowed)):
        raise UserError(
            f'{path}, "{name}": there is no field {unknown[0]}; there are {", ".join(sorted(allowed))}.'
        )
    if not known and (missing := sorted({"folder", "archive", "addresses"} - changes.keys())):
        raise UserError(f'{path}, "{name}": the field {missing[0]} is missing.')
    addresses = changes.get("addresses", known.addresses if known else ())
    if not isinstance(addresses, (list, tuple)) or not all(isinstance(a, str) for a in addresses):
        raise UserError(f'{path}, "{name}": addresses should be a list of addresses.')
    counts = changes.get("counts", {})
    if not isinstance(counts, dict) or not all(type(n) is int for n in counts.values()):
        raise UserError(
            f'{path}, "{name}": counts should be numbers of pairs by sub-folder, such as {{"": 120}}.'
        )
    changes = changes | {"addresses": tuple(addresses)}
    source = replace(known, **changes) if known else Source(name, **changes)
    parts = Path(str(source.folder)).parts
    if (
        not parts
        or ".." in parts
        or Path(str(source.folder)).is_absolute()
        or not re.fullmatch(r"\w[\w.-]*", str(source.archive))
    ):
        raise UserError(
            f'{path}, "{name}": folder and archive should be plain names, below the data folder.'
        )
    return source


def describe(source: Source, out: str | Path) -> str:
    """What a person should know before they agree: source, size, destination and terms, in four
    lines.
    """
    size = f"{source.megabytes:g} MB" if source.megabytes else "of unknown size"
    return (
        f"{source.name}: {source.archive}, {size}, {sum(source.counts.values()) or 'an unknown number of'} pairs\n"
        f"  from  {browser_link(source.addresses[0])} ({source.page or 'no page named'})\n"
        f"  to    {Path(out) / source.folder}\n"
        f"  terms {source.terms or 'none named; ask whoever offers the file.'}"
    )


def is_complete(source: Source, out: str | Path) -> bool:
    """True where the data is there already, False where nothing is.

    Raises:
        UserError: something else is in its place; what a user has is never overwritten.
    """
    folder = Path(out) / source.folder
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if trouble := _mismatch(source, folder):
        raise UserError(
            f"{folder} is there but not complete ({trouble}); nothing was changed, so move it away and run the command again, "
            "or choose another --out."
        )
    return True


def get(source: Source, out: str | Path, patience: RetryPolicy = RETRY_POLICY) -> str:
    """Bring one data set into its place; everything is checked before it appears there.

    Returns:
        A line that says what was done.

    Raises:
        UserError: the archive cannot be had (the sentence says how to do it by hand), is not the
            one that was used before, is damaged or unsafe, or holds other numbers of pairs than it
            should; what is in place of the data; no room on the disk.
    """
    out = Path(out)
    folder, archive = out / source.folder, out / "downloads" / source.archive
    if is_complete(source, out):
        return f"{folder} is complete already ({_pairs(source)}); left as it is."
    with _alone(archive.parent):
        address = "a file that was there already"
        if not archive.is_file():
            address = fetch(source.addresses, archive, _by_hand(source, archive), patience)
        digest = verify(out, source.archive, archive, source.sha256)
        staged = archive.with_name(source.archive + ".unpacked")
        shutil.rmtree(staged, ignore_errors=True)  # of a run that was killed
        try:
            unpack(archive, staged, roots={"images", "masks", *source.counts})
            if trouble := _mismatch(source, staged):
                raise UserError(
                    f"{archive} is not what it should be ({trouble}), so nothing was put into {folder}; the archive is kept, "
                    "look into it, or remove it and run the command again."
                )
            record(out, source.archive, address, archive.stat().st_size, digest)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.is_dir():
                folder.rmdir()  # empty, as seen above; Windows renames onto nothing
            staged.rename(folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return f"{folder}: {_pairs(source)}, SHA-256 {digest[:12]}… noted in {out / LEDGER}; {archive} may be removed."


def _by_hand(source: Source, archive: Path) -> str:
    page = f" (or find it from {source.page})" if source.page else ""
    return f"open {browser_link(source.addresses[0])} in a browser{page}, save the file as {archive} and run the command again"


def _pairs(source: Source) -> str:
    return (
        ", ".join(
            f"{name} {count}" if name else f"{count} pairs" for name, count in source.counts.items()
        )
        or "unpacked"
    )


def _mismatch(source: Source, folder: Path) -> str:
    """What is wrong with a folder, as a part of a sentence; empty if nothing is."""
    for name, count in source.counts.items():
        if not (folder / name).is_dir():
            return f"{name or folder} is missing"
        try:
            found = len(index_pairs(folder / name))
        except UserError as error:
            return (
                str(error)
                .replace(f"{folder}{os.sep}", "")
                .replace(str(folder), "it")
                .split(";")[0]
                .rstrip(".")
            )
        if found != count:
            return f"{name + ' has ' if name else ''}{found} pairs instead of {count}"
    return ""


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two of these at once would write into each other's files."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            f'Another "kdas data get" is at work in {folder}; wait for it to end.'
        ) from None
    except OSError as error:
        raise UserError(
            f"{folder} could not be written ({error.strerror}); mend that, or choose another --out."
        ) from error


# --- the ledger of what came from where ----------------------------------------------------------------------------------


def verify(out: Path, name: str, file: Path, expected: str = "") -> str:
    """The SHA-256 of a file, which must be the one noted when a file of this name was used before.

    Raises:
        UserError: it is another; both digests are in the sentence.
    """
    digest = digest_of(file)
    known = expected or _ledger(out).get(name, {}).get("sha256", digest)
    if digest != known:
        where = "the manifest says" if expected else f"{out / LEDGER} notes"
        raise UserError(
            f"{file} has SHA-256 {digest}, and {where} {known}: the file has changed, so it is not used; remove it to fetch it "
            "again, or, if you trust the new one, mend the entry."
        )
    return digest


def record(out: Path, name: str, address: str, size: int, digest: str) -> None:
    """Note a file that was used, beside the data. An older note of the same file keeps its address
    and date.
    """
    ledger = _ledger(out)
    if ledger.get(name, {}).get("sha256") == digest:
        return
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    ledger[name] = {"address": browser_link(address), "bytes": size, "sha256": digest, "date": date}
    atomic_write(out / LEDGER, (json.dumps(ledger, indent=2) + "\n").encode())


def _ledger(out: Path) -> dict[str, dict]:
    path = out / LEDGER
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        ledger = None
    if not isinstance(ledger, dict) or not all(
        isinstance(entry, dict) for entry in ledger.values()
    ):
        raise UserError(
            f"{path} cannot be read; mend it, or remove it to have the digests noted anew."
        )
    return ledger
