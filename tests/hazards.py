"""What can go wrong with a download, for tests: a web server on loopback that misbehaves as told, and a full disk."""

from __future__ import annotations

import random
import shutil
import threading
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from kdas_book.data import fetch


def hasten(monkeypatch) -> None:
    """Wait a second for a server, not twenty, and not at all before it is asked again."""
    monkeypatch.setattr(fetch, "TIMEOUT", (1, 1))
    monkeypatch.setattr(fetch, "RETRIES", 2)
    monkeypatch.setattr(fetch, "PAUSES", (0, 0))
    monkeypatch.setattr(random, "uniform", lambda low, high: low)  # gdown's pauses


@dataclass
class File:
    """What lies at one path, and what happens to the first requests for it (one step each); later ones are served in full.

    Steps: an int is a status; ``("cut", n)`` promises all and closes after n bytes of the answer; ``("stall", n)`` sends n bytes
    and then nothing more; ``("redirect", url)``; ``("page", html)`` answers 200 with a web page.
    """

    body: bytes = b""
    steps: list = field(default_factory=list)
    ranges: bool = True
    heeds_if_range: bool = True
    length: bool = True
    headers: dict = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return f'"{zlib.crc32(self.body):x}"'  # quick: a teacher has 100 MB


class WebServer:
    """``server.files[path] = File(…)``; ``server.asked`` lists (path, Range header) of every GET, ``server.looked`` the paths of
    HEAD requests, which take no step.
    """

    def __init__(self):
        self.files: dict[str, File] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.looked: list[str] = []
        self.over = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                path = self.path.split("?")[0]
                web.looked.append(path)
                file = web.files.get(path)
                self.answer(file, 404 if file is None else (file.steps or ["all"])[0])

            def do_GET(self):
                path = self.path.split("?")[0]
                web.asked.append((path, self.headers.get("Range")))
                file = web.files.get(path)
                self.answer(
                    file, 404 if file is None else file.steps.pop(0) if file.steps else "all"
                )

            def answer(self, file, step):
                self.close_connection = True
                if isinstance(step, int):
                    self.say(step, {"Content-Length": "0", **(file.headers if file else {})})
                elif step[0] == "redirect":
                    self.say(302, {"Location": step[1], "Content-Length": "0"})
                elif step[0] == "page":
                    page = step[1].encode()
                    self.say(
                        200,
                        {
                            "Content-Type": "text/html; charset=utf-8",
                            "Content-Length": str(len(page)),
                        },
                    )
                    if self.command == "GET":
                        self.wfile.write(page)
                else:
                    self.give(file, step)

            def say(self, status, headers):
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Connection", "close")
                self.end_headers()

            def give(self, file, step):
                start, asked = 0, self.headers.get("Range")
                headers = {"ETag": file.tag, "Content-Type": "application/zip"} | file.headers
                same = not file.heeds_if_range or self.headers.get("If-Range") in (
                    None,
                    headers["ETag"],
                )
                if asked and file.ranges and same:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    if start >= len(file.body):
                        return self.say(416, {"Content-Length": "0"})
                    headers["Content-Range"] = (
                        f"bytes {start}-{len(file.body) - 1}/{len(file.body)}"
                    )
                body = file.body[start:]
                if file.length:
                    headers["Content-Length"] = str(len(body))
                self.say(
                    206 if "Content-Range" in headers else 200,
                    {k: v for k, v in headers.items() if v},
                )
                if self.command == "HEAD":
                    return
                self.wfile.write(body if step == "all" else body[: step[1]])
                self.wfile.flush()
                if step[0] == "stall":
                    web.over.wait(20)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda request, client: (
            None
        )  # a client that leaves is what these tests are about
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def ranges_of(self, path: str) -> list[str | None]:
        return [asked for where, asked in self.asked if where == path]

    def close(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()

    def stand_in_for(self, monkeypatch, host: str) -> None:
        """From now on requests for ``https://<host>/…`` reach this server; only the address on the wire is changed."""
        send = requests.adapters.HTTPAdapter.send

        def rerouted(adapter, request, **kwargs):
            if not request.url.startswith(f"https://{host}/"):
                return send(adapter, request, **kwargs)
            meant, request.url = (
                request.url,
                request.url.replace(f"https://{host}", self.address, 1),
            )
            response = send(adapter, request, **kwargs)
            response.url = request.url = meant
            return response

        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", rerouted)


@contextmanager
def files_no_larger_than(size: int):
    """A disk that is full, as the operating system says it: writing beyond the limit fails."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leave_free(monkeypatch, module, size: int) -> None:
    """From now on the disk, as ``module`` sees it, has so many bytes left."""
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=size))
