"""The site: executed chapters through Jupyter Book, and shown on this machine."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml

from kdas_book.deploy.in_browser import copy_runtime
from kdas_book.files import staging_dir
from kdas_book.publishing.formulas import copy_katex
from kdas_book.publishing.run_notebook import BuildError, is_injected
from kdas_core import UserError

RUN = ["preset", "seed", "time", "peak memory", "machine", "run on"]  # what is said of a chapter


def executed_copy(root: Path, notebook: Path) -> Path:
    """Where a chapter lies after it has been run."""
    return root / "_build" / "executed" / notebook.name


def stage(root: Path, notebooks: Sequence[Path]) -> Path:
    """Put together what Jupyter Book reads: the text pages as they are, the chapters as executed,
    and the table that ``book/execution.md`` includes. UserError where a chapter has not been run.

    Files keep their dates, by which Sphinx knows what is new.
    """
    folder = root / "_build" / "stage"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    copy_katex(folder / "book" / "_static" / "katex")
    copy_runtime(folder / "book" / "_static" / "onnxruntime-web")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, folder)
    rows = []
    for notebook in notebooks:
        executed = executed_copy(root, notebook)
        if not executed.is_file():
            raise UserError(f"{executed} does not exist; run chapter {notebook.stem} first.")
        page = nbformat.read(executed, as_version=4)
        about = dict.fromkeys(RUN, "") | page.metadata.get("kdas", {})
        rows.append(about | {"chapter": f"[{notebook.stem}]({notebook.name})"})
        page.cells = [cell for cell in page.cells if not is_injected(cell)]
        for ours in ("papermill", "kdas"):  # folders of this machine
            page.metadata.pop(ours, None)
        target = folder / notebook.relative_to(root)
        nbformat.write(page, target)
        shutil.copystat(executed, target)
    frame = pd.DataFrame(rows, columns=["chapter", *RUN])
    table = frame.to_markdown(index=False, disable_numparse=True)
    (folder / "book" / "execution_table.md").write_text(table + "\n", encoding="utf-8")
    return folder


def build_site(root: Path, notebooks: Sequence[Path], fresh: bool = True) -> Path:
    """Render the staged book to ``_build/html``, whose first page is returned; the site before
    stays until the new one is whole. BuildError where Jupyter Book failed or warned.

    Args:
        fresh: read and write every page, which is what finds every broken reference; False: only
            those that changed.
    """
    source = stage(root, notebooks)
    rendered = root / "_build" / "rendered"
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    # A site map lists the pages that are written, so a site that has an address needs all of them.
    if fresh or (config.get("html") or {}).get("baseurl"):
        shutil.rmtree(rendered, ignore_errors=True)
    try:
        _render(source, rendered, root / "_build" / "site.log")
    except BuildError:
        shutil.rmtree(rendered)  # a page with a warning would not be read again, and would pass
        raise
    site = root / "_build" / "html"
    with staging_dir(site) as draft:
        shutil.copytree(rendered / "_build" / "html", draft, dirs_exist_ok=True)
        shutil.rmtree(site, ignore_errors=True)
        draft.rename(site)
    return site / "index.html"


def _render(source: Path, rendered: Path, log: Path) -> None:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    command += [str(source), "--path-output", str(rendered), "--warningiserror", "--keep-going"]
    environment = os.environ | {"PYTHONUTF8": "1", "NO_COLOR": "1"}
    with log.open("w", encoding="utf-8") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8"))
    text = text.replace(f"{source}{os.sep}", "")
    # MyST-NB counts 10,000 lines to a cell.
    text = re.sub(r"\.ipynb:(\d+)\d{4}\b", r".ipynb, cell \1", text)
    if done.returncode:
        complaints = re.findall(r".*\b(?:WARNING|ERROR)\b.*", text)
        listed = "\n".join(f"    {line}" for line in complaints or text.splitlines()[-20:])
        raise BuildError(f"The site was not built cleanly; the whole log is {log}.\n{listed}")


@contextlib.contextmanager
def served(site: Path, port: int = 0) -> Iterator[str]:
    """Serve the site to this machine while the block runs; gives the address, ending in a slash.
    UserError where no site was built, or the port is taken.
    """
    if not (site / "index.html").is_file():
        raise UserError(f"{site} holds no site; make book builds one.")

    class Pages(SimpleHTTPRequestHandler):
        error_message_format = (site / "404.html").read_text(encoding="utf-8").replace("%", "%%")

        def log_message(self, *words: Any) -> None:
            """Nothing: one reader at the same desk needs no log."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Pages, directory=str(site)))
    except OSError as error:
        why = f"Port {port} cannot be used ({error.strerror})"
        raise UserError(f"{why}; name another one with --port.") from None
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
