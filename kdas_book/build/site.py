"""The site: executed chapters through Jupyter Book, finished, and shown on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import yaml

from kdas_book.build.pages import finish
from kdas_book.build.run_notebook import BuildError
from kdas_core import UserError

EXECUTION = "execution_table.md"  # written beside book/execution.md, which includes it

# --- what Jupyter Book reads ------------------------------------------------------------------------------------------


def executed_copy(root: Path, notebook: Path) -> Path:
    """Where a chapter lies after it has been run."""
    return root / "_build" / "executed" / notebook.name


def note(executed: Path, peak_mb: float, machine: str) -> None:
    """Keep in an executed chapter what papermill does not: its peak memory, and the machine in
    words.
    """
    page = nbformat.read(executed, as_version=4)
    page.metadata["kdas"] = {"peak_mb": round(peak_mb), "machine": machine}
    nbformat.write(page, executed)


def stage(root: Path, notebooks: Sequence[Path]) -> Path:
    """Put together what Jupyter Book reads: the text pages as they are, the chapters as they were
    executed.

    The cell of parameters that papermill adds is left off the page, and what papermill notes of
    folders: the panel that every chapter prints says the rest.

    Raises:
        UserError: a chapter has not been run.
    """
    folder, rows, contents = root / "_build" / "stage", [], {}
    for file in [root / "_config.yml", root / "_toc.yml", *sorted((root / "book").rglob("*"))]:
        if file.is_file() and file.suffix != ".ipynb":
            contents[folder / file.relative_to(root)] = file.read_bytes()
    for notebook in notebooks:
        executed = executed_copy(root, notebook)
        if not executed.is_file():
            raise UserError(
                f"{executed} does not exist, so chapter {notebook.stem} has not been run; run the book first."
            )
        page = nbformat.read(executed, as_version=4)
        rows.append(_execution(notebook, page))
        contents[folder / notebook.relative_to(root)] = nbformat.writes(
            _without_our_machine(page)
        ).encode()
    head = "| chapter | preset | seed | time | peak memory | machine | run on |\n|---|---|---|---|---|---|---|\n"
    contents[folder / "book" / EXECUTION] = (head + "".join(rows)).encode()
    _put(folder, contents)
    return folder


def _put(folder: Path, contents: dict[Path, bytes]) -> None:
    """Make the folder hold just these files; one that is there already keeps its date, by which
    Sphinx knows what is new.
    """
    for old in folder.rglob("*"):
        if old.is_file() and old not in contents:
            old.unlink()
    for file, content in contents.items():
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _execution(notebook: Path, page: nbformat.NotebookNode) -> str:
    """How a chapter was run: a row of the table that ``book/execution.md`` shows."""
    ran, more = page.metadata.get("papermill", {}), page.metadata.get("kdas", {})
    given, seconds = ran.get("parameters", {}), round(ran.get("duration") or 0)
    memory = f"{more['peak_mb'] / 1024:.1f} GB" if "peak_mb" in more else ""
    cells = [
        given.get("preset", ""),
        given.get("seed", ""),
        f"{seconds // 60}:{seconds % 60:02d}",
        memory,
    ]
    cells += [more.get("machine", ""), (ran.get("start_time") or "")[:10]]
    return f"| [{notebook.stem}]({notebook.name}) | {' | '.join(str(cell) for cell in cells)} |\n"


def _without_our_machine(page: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Folders of this machine, and widgets, which are dead without a kernel: the only ones were
    bars that showed some progress.
    """
    page.cells = [
        cell for cell in page.cells if "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for ours in ("widgets", "papermill", "kdas"):
        page.metadata.pop(ours, None)
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                o
                for o in cell.outputs
                if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
            ]
    return page


def build_site(root: Path, notebooks: Sequence[Path], fresh: bool = True) -> Path:
    """Render the staged book to ``_build/html``; every warning counts as an error, and all of them
    are listed.

    What Sphinx writes is kept in ``_build/rendered``, and a finished copy of it becomes the site,
    so an earlier site stays until the new one is whole.

    Args:
        fresh: read and write every page, which is what finds every broken reference; False: only
            those that changed.

    Returns:
        The site's first page.

    Raises:
        BuildError: Jupyter Book failed or warned. The log is kept in ``_build/site.log``.
    """
    source, rendered = stage(root, notebooks), root / "_build" / "rendered"
    if fresh:
        shutil.rmtree(rendered, ignore_errors=True)
    try:
        _render(source, rendered, root / "_build" / "site.log")
    except BuildError:
        shutil.rmtree(
            rendered, ignore_errors=True
        )  # a page with a warning would not be read again, and would pass
        raise
    site, new = root / "_build" / "html", root / "_build" / "html-new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(rendered / "_build" / "html", new)
    finish(new, address(root), site / "_images")
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)
    return site / "index.html"


def _render(source: Path, rendered: Path, log: Path) -> None:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += [
        "build",
        str(source),
        "--path-output",
        str(rendered),
        "--warningiserror",
        "--keep-going",
    ]
    with log.open("w", encoding="utf-8") as out:
        environment = os.environ | {"PYTHONUTF8": "1", "NO_COLOR": "1"}
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False
        )
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8"))
    text = text.replace(f"{source}{os.sep}", "")
    text = re.sub(
        r"\.ipynb:(\d+)\d{4}\b", r".ipynb, cell \1", text
    )  # MyST-NB counts 10,000 lines to a cell
    complaints = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR)\b", line)]
    if done.returncode or complaints or not (rendered / "_build" / "html" / "index.html").is_file():
        listed = "\n".join(f"    {line}" for line in complaints or text.splitlines()[-20:])
        raise BuildError(f"The site was not built cleanly; the whole log is {log}.\n{listed}")


def address(root: Path) -> str:
    """Where the site will be, from ``_config.yml``; empty as long as nobody has said so."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    given = str((config.get("html") or {}).get("baseurl") or "").rstrip("/")
    return given and f"{given}/"


# --- on this machine --------------------------------------------------------------------------------------------------


class _Pages(SimpleHTTPRequestHandler):
    """Files of a folder, and its 404.html for what is not there."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        lost = Path(self.directory) / "404.html"
        if code != HTTPStatus.NOT_FOUND or not lost.is_file():
            return super().send_error(code, message, explain)
        body = lost.read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Nothing: one reader at the same desk needs no log."""


def server(site: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the site for this machine alone; ``server_port`` says where, and its caller
    starts and closes it.

    Raises:
        UserError: no site was built, or the port is taken.
    """
    if not (site / "index.html").is_file():
        raise UserError(f"{site} holds no site; make book builds one.")
    try:
        return ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(_Pages, directory=str(site))
        )
    except OSError as error:
        raise UserError(
            f"Port {port} cannot be used ({error.strerror}); name another one with --port."
        ) from None


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve the site from a thread while the block runs; gives the address, which ends in a slash.

    Raises:
        UserError: no site was built.
    """
    with server(site) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/"
        finally:
            running.shutdown()


def serve(site: Path, port: int) -> None:
    """Show the site until Ctrl-C."""
    with server(site, port) as running:
        print(
            f"http://127.0.0.1:{running.server_port}/ shows {site} to this machine; Ctrl-C ends it.",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            running.serve_forever()
