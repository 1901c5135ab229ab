"""One file from the network. gdown carries the bytes, resumes them and knows Google Drive's pages;
here is what it leaves open: mirrors, room on the disk, and a look at what came.
"""

import sys
import time
import zipfile
import zlib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from kdas_book.data.unpack import require_room
from kdas_core import UserError
from kdas_core.files import unwritten

try:
    import gdown
except ImportError:  # only who fetches needs it
    gdown = None  # type: ignore[assignment]

DRIVE = "drive:"  # an address "drive:ID" is a file on Google Drive
TIMEOUT = (6.0, 20.0)  # seconds: to connect, and between two pieces
RETRIES = 5  # how often gdown goes on after a transfer broke off or stood still
PAUSES = (2.0, 10.0)  # seconds before gdown is called again where it gives up, as at a 503
BUSY = (408, 425, 429, 500, 502, 503, 504)  # a server that may answer later
MISMATCH = "its pieces do not fit together"


def fetch(addresses: Iterable[str], file: Path, hint: str, archive: bool = False) -> str:
    """Fetch a file from the first address that gives it, ``https://…`` or ``drive:ID``, and return
    that address. ``archive``: accept nothing but a zip archive.

    What has arrived lies beside the file (``<file>.….part``) until it is whole; a later call goes
    on from there, or begins anew if the pieces do not fit together. UserError: no address gave the
    file (the sentence ends with ``hint``, what to do by hand), it cannot be written, or gdown is
    missing.
    """
    require_gdown()
    reasons = []
    silent = set()
    file.parent.mkdir(parents=True, exist_ok=True)
    for address in addresses:
        link = browser_link(address)
        host = urlsplit(link).netloc
        if host in silent:
            continue
        whole = file.with_name(f"{file.name}.{sha256(address.encode()).hexdigest()[:8]}")
        try:
            reason = _look_ahead(link) or _download(link, whole, archive)
        except requests.ConnectionError as error:
            silent.add(host)
            reason = short(error)
        if not reason:
            whole.replace(file)
            _forget(file.with_name(f"{file.name}.????????"))  # what other addresses had begun
            return address
        reasons.append(f"{link}: {reason}")
    raise UserError(f"{file.name} could not be fetched ({'; '.join(reasons)}); {hint}.")


def require_gdown() -> None:
    """UserError where gdown is missing or, as Colab's, older than one that resumes with care."""
    if gdown is None or tuple(map(int, gdown.__version__.split(".")[:2])) < (6, 5):
        way_out = '"pip install kdas_core[download]" brings it'
        raise UserError(f"Downloads need gdown 6.5 or newer; {way_out}.")


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


def _look_ahead(link: str) -> str:
    """Why the transfer must not begin, or `requests.ConnectionError` where nobody answers."""
    try:
        answer = requests.head(link, allow_redirects=True, timeout=TIMEOUT)
    except requests.ConnectionError:
        raise
    except requests.RequestException:
        return ""  # some servers know no HEAD: the transfer will tell
    unprotected = link.startswith("https:") and not answer.url.startswith("https:")
    return "it leads away to an unprotected connection" if unprotected else ""


def _download(link: str, whole: Path, archive: bool) -> str:
    """Transfer until the file is whole and looks right; else why not."""
    pauses = list(PAUSES)
    while True:
        before = _arrived(whole)
        try:
            _transfer(link, whole)
            if not (reason := _fault(whole, archive, resumed=before > 0)):
                return ""
            again = before > 0
            whole.unlink()
        except Exception as error:
            reason, again = _explained(error, whole)
        if _arrived(whole) > before:
            continue  # the line is bad, and yet it moves
        if not again or not pauses:
            return reason
        if reason == MISMATCH and len(pauses) == 1:
            _forget(whole)
        time.sleep(pauses.pop(0))


def _transfer(link: str, whole: Path) -> None:
    def check_room(done: int, total: int | None) -> None:
        require_room(whole.parent, (total or done) - done, "the download")

    how: dict[str, Any] = {"resume": True, "timeout": TIMEOUT, "retries": RETRIES}
    quiet = not sys.stderr.isatty()
    gdown.download(link, str(whole), quiet, use_cookies=False, progress=check_room, **how)


def _explained(error: Exception, whole: Path) -> tuple[str, bool]:
    """Why gdown did not bring the file, and whether it may if it is called again."""
    if isinstance(error, UserError):
        raise error
    if "byte range" in str(error):  # of another version of the file, or the server knows no ranges
        return MISMATCH, True
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return f"the server answered {status} {error.response.reason}", status in BUSY
    lost = (requests.ConnectionError, requests.Timeout, gdown.exceptions.DownloadError)
    if isinstance(error, lost) and not isinstance(error, gdown.exceptions.FileURLRetrievalError):
        came = f"{_arrived(whole) / 1e6:.1f} MB"
        return f"the connection broke off or stood still after {came}", False
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        way_out = "what has come is kept, so make room or mend the permissions and run it again"
        raise unwritten(whole.parent, error, way_out) from error
    return f"it does not hand the file out ({short(error)})", False


def _fault(file: Path, archive: bool, resumed: bool) -> str:
    """Why what came cannot be the file; empty if it can."""
    with open(file, "rb") as stream:
        if stream.read(512).lstrip()[:1] == b"<":
            return "a web page came instead of the file"
    if not zipfile.is_zipfile(file):  # older weights of PyTorch are none
        return "what came is no zip archive" if archive else ""
    try:  # the members' sums tell whether the pieces of a resumed file are of one version
        with zipfile.ZipFile(file) as zipped:
            return MISMATCH if resumed and zipped.testzip() else ""
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return MISMATCH


def _parts(whole: Path) -> list[Path]:
    return list(whole.parent.glob(f"{whole.name}????????.part"))  # as gdown names them


def _arrived(whole: Path) -> int:
    return sum(part.stat().st_size for part in _parts(whole))


def _forget(whole: Path) -> None:
    for part in _parts(whole):
        part.unlink()
