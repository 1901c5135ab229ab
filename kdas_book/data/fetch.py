"""One file from the network. gdown carries the bytes, resumes them and knows Google Drive's pages;
here is what it leaves open: who is asked again, mirrors, room on the disk, a look at what came.
"""

from __future__ import annotations

import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import gdown
import requests

from kdas_core import UserError

DRIVE = "drive:"  # an address "drive:ID" is a file on Google Drive
SPARE = 64 * 2**20  # bytes that stay free on the disk
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # a server that may answer later
TIMEOUT = (6.0, 20.0)  # seconds: to connect, and between two pieces
TRIES = 4  # failures in a row in which no further byte arrived
PAUSE = 1.0  # seconds after a failure; doubles with every further one, up to a minute


class _Failed(Exception):
    def __init__(self, reason: str, again: bool = False, wait: float = 0.0):
        super().__init__(reason)
        self.again = again  # another transfer from this address may succeed
        self.wait = wait


def fetch(addresses: Iterable[str], file: Path, hint: str, archive: bool = False) -> str:
    """Fetch a file from the first address that gives it, and return that address.

    What has arrived lies beside the file (``<file>.<address>.….part``) until it is whole; a later
    call goes on from there, or begins anew if the pieces do not fit together.

    Args:
        addresses: ``https://…`` or ``drive:ID``, the best first.
        hint: what the user can do by hand, as the end of a sentence.
        archive: accept nothing but a zip archive.

    Raises:
        UserError: no address gave the file (with each one's reason), or the disk is full or may
            not be written.
    """
    reasons, silent = [], set()
    file.parent.mkdir(parents=True, exist_ok=True)
    for address in addresses:
        link = browser_link(address)
        host = urlsplit(link).netloc
        if host in silent:
            continue
        whole = file.with_name(f"{file.name}.{sha256(address.encode()).hexdigest()[:8]}.")
        try:
            _check_connection(link)
            _download(link, whole, archive)
        except (_Failed, requests.ConnectionError) as error:
            reasons.append(f"{link}: {short(error)}")
            if isinstance(error, requests.ConnectionError):
                silent.add(host)
        else:
            whole.replace(file)
            _forget(file.with_name(f"{file.name}.*."))  # what other addresses had begun
            return address
    raise UserError(f"{file.name} could not be fetched ({'; '.join(reasons)}); {hint}.")


def browser_link(address: str) -> str:
    """The address for a person with a browser."""
    file_id = address.removeprefix(DRIVE)
    return address if file_id == address else f"https://drive.google.com/file/d/{file_id}/view"


def short(error: BaseException) -> str:
    """An error's reason on one line of at most 160 characters, without the full stop."""
    text = (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(". ")
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection ({text})"
    lost = isinstance(error, requests.ConnectionError)
    return "not reachable: no network, or it is blocked" if lost else text


def _check_connection(link: str) -> None:
    """End at once where nobody answers, or where a protected address leads to an unprotected one."""
    try:
        answer = requests.head(link, allow_redirects=True, timeout=TIMEOUT)
    except requests.ConnectionError:
        raise
    except requests.RequestException:  # some servers know no HEAD: the transfer will tell
        return
    if link.startswith("https:") and not answer.url.startswith("https:"):
        raise _Failed("it leads away to an unprotected connection")


def _download(link: str, whole: Path, archive: bool) -> None:
    """Transfer until the file is whole. Failures count only as long as nothing new arrives."""
    furthest, failures = _arrived(whole), 0
    while True:
        try:
            return _attempt(link, whole, archive)
        except _Failed as error:
            failures = 0 if _arrived(whole) > furthest else failures + 1
            furthest = max(furthest, _arrived(whole))
            if not error.again:
                raise
            if failures >= TRIES:
                raise _Failed(f"{error}, {failures} times in a row") from error
            time.sleep(min(error.wait or PAUSE * 2 ** max(failures - 1, 0), 60))


def _attempt(link: str, whole: Path, archive: bool) -> None:
    """One transfer by gdown, and a look at what came."""
    resumed = _arrived(whole) > 0

    def check_room(done: int, total: int | None) -> None:
        needed, free = (total or done) - done + SPARE, shutil.disk_usage(whole.parent).free
        if needed > free:
            fact = f"has {_mb(free)} free and the download needs {_mb(needed)}"
            raise UserError(f"{whole.parent} {fact}; make room and run the command again.")

    try:
        gdown.download(
            link,
            str(whole),
            quiet=not sys.stderr.isatty(),
            use_cookies=False,
            resume=True,
            timeout=TIMEOUT,
            progress=check_room,
        )
    except UserError:
        raise
    except Exception as error:
        if resumed and "byte range" in str(error):  # of another version, or the server knows none
            _forget(whole)
        raise _explained(error, whole) from error
    if fault := _fault(whole, archive, resumed):
        whole.unlink()
        raise _Failed(fault, again=resumed)


def _explained(error: Exception, whole: Path) -> Exception:
    """What to raise for what gdown raised."""
    answer = getattr(error, "response", None)
    if isinstance(error, requests.HTTPError) and answer is not None:
        wait = answer.headers.get("Retry-After", "")
        reason = f"the server answered {answer.status_code} {answer.reason}"
        return _Failed(reason, answer.status_code in AGAIN, float(wait) if wait.isdigit() else 0)
    refused = isinstance(error, gdown.exceptions.FileURLRetrievalError)
    lost = (requests.ConnectionError, requests.Timeout, gdown.exceptions.DownloadError)
    if isinstance(error, lost) and not refused:
        reason = f"the connection broke off or stood still after {_mb(_arrived(whole))}"
        return _Failed(reason, again=True)
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return UserError(
            f"{whole.parent} could not be written ({error.strerror}); what has come is kept, so "
            "make room or mend the permissions and run the command again."
        )
    return _Failed(f"it does not hand the file out ({short(error)})")


def _fault(file: Path, archive: bool, resumed: bool) -> str:
    """Why what came cannot be the file; empty if it can."""
    with open(file, "rb") as stream:
        if stream.read(512).lstrip()[:1] == b"<":
            return "a web page came instead of the file"
    if not zipfile.is_zipfile(file):  # older weights of PyTorch are none
        return "what came is no zip archive" if archive else ""
    try:  # the sums of the members tell whether the pieces of a resumed file fit together
        with zipfile.ZipFile(file) as zipped:
            return "its pieces do not fit together" if resumed and zipped.testzip() else ""
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return "its pieces do not fit together"


def _forget(whole: Path) -> None:
    for part in _parts(whole):
        part.unlink()


def _arrived(whole: Path) -> int:
    return sum(part.stat().st_size for part in _parts(whole))


def _parts(whole: Path) -> list[Path]:
    return list(whole.parent.glob(f"{whole.name}????????.part"))  # as gdown names them


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
