"""One file from the network: resumed where it broke off, tried again with growing pauses, never
half in place.

`requests` carries the bytes. Of the libraries that promise more, `pooch` starts from the first byte
after every break and waits for no server; `gdown` resumes, but keeps nothing by which a later run
would notice that the file has changed meanwhile, and gives up where a server answers 500 or knows
no ranges. gdown serves here for what it alone knows: the pages that Google Drive shows in place of
a file.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from kdas_core import UserError

if TYPE_CHECKING:
    from requests import Response, Session

DRIVE = "drive:"  # an address "drive:ID" is a file on Google Drive
CHUNK = 1 << 16
SPARE = 64 * 2**20  # bytes that stay free on the disk
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # a server that may answer later


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a server, in seconds, and how often to ask it."""

    connect: float = 6.0
    read: float = 20.0  # between two pieces, not for the whole file
    pause: float = 1.0  # doubles with every failure, up to a minute
    attempts: int = 4  # failures in a row in which no further byte arrived


RETRY_POLICY = RetryPolicy()


class _Refused(Exception):
    """This address will not give the file; the next one may."""


class _Broken(Exception):
    """This transfer failed; another may succeed."""

    def __init__(self, text: str, wait: float = 0.0, attempts: int | None = None):
        super().__init__(text)
        self.wait, self.attempts = wait, attempts


def fetch(
    addresses: Iterable[str], file: Path, hint: str, patience: RetryPolicy = RETRY_POLICY
) -> str:
    """Fetch a file from the first address that gives it.

    What has arrived lies beside the file (``<file>.<address>.part``) until it is whole; a later
    call goes on from there if the server still has the same file, and starts again if not.

    Args:
        addresses: ``https://…`` or ``drive:ID``, the best first.
        file: where the whole file goes, in one step.
        way_out: what the user can do by hand, as the end of a sentence.

    Returns:
        The address that gave the file.

    Raises:
        UserError: no address gave the file (with the reason for each), or the disk is full or may
            not be written.
    """
    import requests

    reasons, silent = [], set()
    file.parent.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        # Byte positions must count the file's bytes, not those of a packed transfer.
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "Mozilla/5.0 (kdas)"})
        for address in addresses:
            if _host(address) in silent:
                continue
            try:
                _from_one(session, address, file, patience)
                return address
            except _Refused as error:
                reasons.append(f"{browser_link(address)}: {error}")
                if isinstance(error.__cause__, _Broken) and error.__cause__.attempts:
                    silent.add(_host(address))
    raise UserError(f"{file.name} could not be fetched ({'; '.join(reasons)}); {hint}.")


def browser_link(address: str) -> str:
    """The address for a person with a browser."""
    return (
        f"https://drive.google.com/file/d/{address[len(DRIVE) :]}/view"
        if address.startswith(DRIVE)
        else address
    )


def digest_of(file: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _host(address: str) -> str:
    return urlsplit(browser_link(address)).netloc


def _from_one(session: Session, address: str, file: Path, patience: RetryPolicy) -> None:
    """Transfer until the file is whole. Failures count only as long as nothing new arrives."""
    part = _Part(file, address)
    furthest, failures = part.size, 0
    while not part.whole:
        try:
            _transfer(session, address, part, patience)
            break
        except _Broken as broken:
            failures = 0 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures >= (broken.attempts or patience.attempts):
                raise _Refused(
                    f"{broken}, {failures} times in a row" if failures > 1 else str(broken)
                ) from broken
            time.sleep(min(broken.wait or patience.pause * 2 ** max(failures - 1, 0), 60))
    part.finish(file)


def _transfer(session: Session, address: str, part: _Part, patience: RetryPolicy) -> None:
    """One request, and all that comes of it."""
    import requests

    answered = False
    try:
        drive_id = _drive_id(address)
        url = _drive_link(session, drive_id, patience) if drive_id else address
        with session.get(
            url, headers=part.wishes(), stream=True, timeout=(patience.connect, patience.read)
        ) as response:
            answered = True
            if response.status_code == 416:  # the part is longer than the file is now
                part.forget()
                raise _Broken("the file at this address has changed")
            _check(response)
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise _Refused("it leads away to an unprotected connection")
            if _is_page(response):
                raise _Refused("a web page came instead of the file")
            part.take(response)
    except requests.exceptions.SSLError as error:
        raise _Refused(f"no secure connection ({_short(error)})") from error
    except requests.exceptions.ConnectTimeout:
        raise _Broken("no answer: no network, or it is blocked", attempts=1) from None
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        if answered:
            raise _Broken(
                f"the connection broke off or stood still after {_mb(part.size)}"
            ) from error
        if isinstance(error, requests.Timeout):
            raise _Broken(f"no answer within {patience.read:g} seconds") from error
        raise _Broken("not reachable: no network, or it is blocked", attempts=2) from error
    except requests.RequestException as error:  # too many redirects, an address that is none
        raise _Refused(_short(error)) from error


def _check(response: Response) -> None:
    status = response.status_code
    if status in AGAIN:
        wait = response.headers.get("Retry-After", "")
        raise _Broken(
            f"the server answered {status} {response.reason}",
            float(wait) if wait.isdigit() else 0.0,
        )
    if status not in (200, 206):
        raise _Refused(f"the server answered {status} {response.reason}")


def _is_page(response: Response) -> bool:
    return response.headers.get("Content-Type", "").lower().startswith("text/html")


def _drive_id(address: str) -> str | None:
    """The id of a file on Google Drive, also from the link that a browser shows; None for any other
    address.
    """
    if address.startswith(DRIVE):
        return address[len(DRIVE) :]
    if "google.com" not in _host(address):
        return None
    from gdown.parse_url import parse_url

    return parse_url(address)[0]


def _drive_link(session: Session, drive_id: str, patience: RetryPolicy) -> str:
    """The link behind Drive's page that says it could not scan a large file for viruses."""
    first = f"https://drive.google.com/uc?export=download&id={drive_id}"
    with session.get(first, stream=True, timeout=(patience.connect, patience.read)) as response:
        _check(response)
        if not _is_page(response):
            return first
        page = next(response.iter_content(1 << 20), b"").decode("utf-8", "replace")
    from gdown.download import get_url_from_gdrive_confirmation

    try:
        return get_url_from_gdrive_confirmation(page)
    except (
        Exception
    ) as error:  # gdown's own error, or whatever it meets on a page that Google has changed
        raise _Refused(f"Google Drive does not hand the file out ({_short(error)})") from error


class _Part:
    """What has arrived of a file from one address, and a note beside it that tells whether the
    server still has that file.
    """

    def __init__(self, file: Path, address: str):
        self.path = file.with_name(f"{file.name}.{sha256(address.encode()).hexdigest()[:8]}.part")
        self.note = self.path.with_name(self.path.name + ".json")
        try:
            known = json.loads(self.note.read_text())
            self.validator, self.total = str(known["validator"]), known["total"]
        except (OSError, ValueError, KeyError, TypeError):
            self.forget()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def whole(self) -> bool:
        return self.total is not None and self.size == self.total

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def wishes(self) -> dict[str, str]:
        """The headers that ask for the rest only, and for all of it if the file has changed."""
        if not self.size:
            return {}
        return {"Range": f"bytes={self.size}-"} | (
            {"If-Range": self.validator} if self.validator else {}
        )

    def take(self, response: Response) -> None:
        """Append the answer if it goes on where we are; start again if it is the whole file; check
        the length.
        """
        from requests import RequestException

        validator = _validator(response)
        if response.status_code == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not span or (int(span[1]), int(span[2]), validator) != (
                self.size,
                self.total,
                self.validator,
            ):
                self.forget()
                raise _Broken("the file at this address has changed")
        else:
            self.forget()
            length = response.headers.get("Content-Length", "")
            packed = response.headers.get("Content-Encoding", "identity") != "identity"
            self.validator, self.total = (
                validator,
                int(length) if length.isdigit() and not packed else None,
            )
        self._room()
        try:
            self.note.write_text(json.dumps({"validator": self.validator, "total": self.total}))
            self._write(response)
        except RequestException:  # an OSError as well, but of the network
            raise
        except OSError as error:
            raise UserError(
                f"{self.path} could not be written ({error.strerror}); what has come is kept, so make room or mend the "
                "permissions and run the command again."
            ) from error
        if self.total is not None and self.size != self.total:  # urllib3 before 2 does not notice
            raise _Broken(f"the connection broke off after {_mb(self.size)} of {_mb(self.total)}")

    def _write(self, response: Response) -> None:
        name = self.path.name.rsplit(".", 2)[0]
        with (
            open(self.path, "ab") as stream,
            # disable=None: no bar where standard error is no terminal
            tqdm(
                total=self.total,
                initial=self.size,
                desc=name,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            for chunk in response.iter_content(CHUNK):
                if stream.tell() == 0 and chunk.lstrip()[:14].lower().startswith(
                    (b"<!doctype html", b"<html")
                ):
                    raise _Refused("a web page came instead of the file")
                stream.write(chunk)
                bar.update(len(chunk))

    def _room(self) -> None:
        missing, free = (self.total or 0) - self.size, shutil.disk_usage(self.path.parent).free
        if missing + SPARE > free:
            raise UserError(
                f"{self.path.parent} has {_mb(free)} free and the download needs {_mb(missing + SPARE)}; make room and run "
                "the command again."
            )

    def finish(self, file: Path) -> None:
        self.path.replace(file)
        for rest in file.parent.glob(f"{file.name}.*.part*"):  # what other addresses had begun
            rest.unlink()


def _validator(response: Response) -> str:
    """What changes when the file changes. Weak tags promise no equal bytes, so the date is better
    than one.
    """
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:160].rstrip(". ")
