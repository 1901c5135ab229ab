"""``kdas data get``: where the real images live, on which terms, and how they come into ``data/``.

The archives come from their authors' own addresses, ``sources.yaml``. A file of the same kind can
change or extend that table (data/README.md shows one), and an archive in ``<out>/downloads`` is
used as if it were fetched.
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import yaml

from kdas_book.data.fetch import browser_link, fetch
from kdas_book.data.unpack import unpack
from kdas_core import UserError
from kdas_core.data.layout import index_pairs
from kdas_core.files import alone, atomic_write, unwritten

LEDGER = "downloads.json"  # beside the data: what came from where, with its SHA-256


@dataclass(frozen=True)
class Source:
    """One archive and what becomes of it."""

    name: str
    folder: str  # below the data folder
    archive: str  # the name of the file
    addresses: tuple[str, ...]  # https://… or drive:ID, the best first
    counts: dict[str, int] = field(default_factory=dict)  # pairs by sub-folder, "": of the folder
    terms: str = ""
    page: str = ""  # for a person
    megabytes: float = 0  # 0: not known
    sha256: str = ""  # empty: noted when the archive is used for the first time


def choose(names: Sequence[str] = (), manifest: str | Path | None = None) -> list[Source]:
    """Sources by name, by default train and test; `UserError`: unknown, or a wrong manifest."""
    entries: dict[str, dict] = {}
    known: dict[str, Source] = {}
    tables = [Path(__file__).with_name("sources.yaml"), *([Path(manifest)] if manifest else [])]
    for path in tables:
        for name, entry in _read_table(path).items():
            entries[name] = entries.get(name, {}) | entry
            known[name] = _source(name, entries[name], f'{path}, "{name}"')
    for name in names:
        if name not in known:
            choices = ", ".join(known)
            raise UserError(f'There is no data set "{name}" to fetch; choose from {choices}.')
    return [known[name] for name in dict.fromkeys(names or ("train", "test"))]


def _read_table(path: Path) -> dict[str, dict]:
    try:
        entries = yaml.safe_load(path.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} could not be read as YAML ({why}); mend the file.") from None
    if not _is_table(entries):
        raise UserError(f"{path} should hold data sets by name, as data/README.md shows.")
    return entries


def _is_table(entries: object) -> bool:
    return isinstance(entries, dict) and all(isinstance(e, dict) for e in entries.values())


def _source(name: str, entry: dict, where: str) -> Source:
    """A source of a table, which must be sound; ``where`` begins the sentence if it is not."""
    allowed = sorted({f.name for f in fields(Source)} - {"name"})
    unknown = ", ".join(str(key) for key in entry if key not in allowed)
    missing = ", ".join(sorted({"folder", "archive", "addresses"} - entry.keys()))
    addresses, counts = entry.get("addresses"), entry.get("counts", {})
    listed = isinstance(addresses, list) and addresses and all(type(a) is str for a in addresses)
    counted = isinstance(counts, dict) and all(type(n) is int for n in counts.values())
    folder = Path(str(entry.get("folder", "")))
    below = folder.parts and ".." not in folder.parts and not folder.is_absolute()
    plain = below and re.fullmatch(r"\w[\w.-]*", str(entry.get("archive", "")))
    for sound, text in (
        (not unknown, f"there is no field {unknown}; there are {', '.join(allowed)}"),
        (not missing, f"the field {missing} is missing"),
        (listed, "addresses should be a list of addresses"),
        (counted, 'counts should be numbers of pairs by sub-folder, such as {"": 120}'),
        (plain, "folder and archive should be plain names, below the data folder"),
    ):
        if not sound:
            raise UserError(f"{where}: {text}.")
    return Source(name, **entry | {"addresses": tuple(entry["addresses"])})


def describe(source: Source, out: str | Path) -> str:
    """Source, size, destination and terms, in four lines, for a person to agree to."""
    size = f"{source.megabytes:g} MB" if source.megabytes else "of unknown size"
    count = sum(source.counts.values()) or "an unknown number of"
    return f"""{source.name}: {source.archive}, {size}, {count} pairs
  from  {browser_link(source.addresses[0])} ({source.page or "no page named"})
  to    {Path(out) / source.folder}
  terms {source.terms or "none named; ask whoever offers the file."}"""


def is_complete(source: Source, out: str | Path) -> bool:
    """True where the data is there already, False where nothing is; `UserError` where something
    else is in its place, which is never overwritten.
    """
    folder = Path(out) / source.folder
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if trouble := _mismatch(source, folder):
        way_out = "move it away and run the command again, or choose another --out"
        fact = f"{folder} is there but not complete ({trouble})"
        raise UserError(f"{fact}; nothing was changed, so {way_out}.")
    return True


def get(source: Source, out: str | Path) -> str:
    """Bring one data set into its place, checked before it appears there; says what was done.

    UserError: the archive cannot be had (the sentence says how to by hand), has changed, is
    damaged, unsafe or incomplete; something else is in its place; the disk is full.
    """
    out = Path(out)
    folder, archive = out / source.folder, out / "downloads" / source.archive
    counts = [f"{n} {k}" if n else f"{k} pairs" for n, k in source.counts.items()]
    pairs = ", ".join(counts) or "unpacked"
    if is_complete(source, out):
        return f"{folder} is complete already ({pairs}); left as it is."
    hint = "choose another --out"
    try:
        with alone(archive.parent, 'Another "kdas data get" is at work in', hint):
            digest = _place(source, out, folder, archive)
    except OSError as error:
        raise unwritten(archive.parent, error, f"mend that, or {hint}") from error
    noted = f"SHA-256 {digest[:12]}… noted in {out / LEDGER}"
    return f"{folder}: {pairs}, {noted}; {archive} may be removed."


def _place(source: Source, out: Path, folder: Path, archive: Path) -> str:
    """Fetch the archive if need be, check it, unpack it, rename what came out; its digest."""
    address = "a file that was there already"
    if not archive.is_file():
        page = f" (or find it from {source.page})" if source.page else ""
        save = f"save the file as {archive} and run the command again"
        hint = f"open {browser_link(source.addresses[0])} in a browser{page}, {save}"
        address = fetch(source.addresses, archive, hint, archive=True)
    digest = verify(out, archive, source.archive, source.sha256)
    staged = archive.with_name(source.archive + ".unpacked")
    shutil.rmtree(staged, ignore_errors=True)  # of a run that was killed
    try:
        unpack(archive, staged, roots={"images", "masks", *source.counts})
        if trouble := _mismatch(source, staged):
            fact = f"{archive} is not what it should be ({trouble})"
            way_out = "look into it, or remove it and run the command again"
            raise UserError(f"{fact}, so nothing was put into {folder}; {way_out}.")
        record(out, archive, source.archive, address, digest)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            folder.rmdir()  # empty, as `is_complete` saw; Windows renames onto nothing
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return digest


def _mismatch(source: Source, folder: Path) -> str:
    """What is wrong with a folder, as a part of a sentence; empty if nothing is."""
    for name, count in source.counts.items():
        if not (folder / name).is_dir():
            return f"{name or folder} is missing"
        try:
            found = len(index_pairs(folder / name))
        except UserError as error:
            text = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), "it")
            return text.split(";")[0].rstrip(".")
        if found != count:
            return f"{name + ' has ' if name else ''}{found} pairs instead of {count}"
    return ""


def verify(out: Path, file: Path, name: str, expected: str = "") -> str:
    """The SHA-256 of a file; `UserError` unless it is the expected one, or the one first seen."""
    digest = sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    known = expected or _ledger(out).get(name, {}).get("sha256", found)
    if found != known:
        where = "the manifest says" if expected else f"{out / LEDGER} notes"
        way_out = "remove it to fetch it again, or, if you trust the new one, mend the entry"
        fact = f"{file} has SHA-256 {found}, and {where} {known}"
        raise UserError(f"{fact}: the file has changed, so it is not used; {way_out}.")
    return found


def record(out: Path, file: Path, name: str, address: str, digest: str) -> None:
    """Note beside the data a file that was used; an older note of the same file stays as it is."""
    ledger = _ledger(out)
    entry = ledger.setdefault(name, {})
    if entry.get("sha256") != digest:
        date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        size = file.stat().st_size
        entry.update(address=browser_link(address), bytes=size, sha256=digest, date=date)
        atomic_write(out / LEDGER, (json.dumps(ledger, indent=2) + "\n").encode())


def _ledger(out: Path) -> dict[str, dict]:
    path = out / LEDGER
    with suppress(OSError, ValueError):
        ledger = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if _is_table(ledger):
            return ledger
    raise UserError(f"{path} cannot be read; mend it, or remove it to have the digests noted anew.")
