"""Run the chapters and build the site: what ``make book`` and ``kdas book`` call.

Each chapter is run in a kernel of its own, its executed copy is kept in ``_build/executed/``, and
``site`` renders those to ``_build/html/``. The sources are only read.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
import yaml
from typer import Option

from kdas_book.colab import repository
from kdas_book.paths import find_root
from kdas_book.publishing.pdf import print_book
from kdas_book.publishing.run_notebook import (
    STANDARD,
    Measured,
    machine,
    parameters_of,
    run_notebook,
)
from kdas_book.publishing.site import build_site, executed_copy, served
from kdas_book.publishing.times import Progress, clock, expected_seconds, record
from kdas_core import UserError, recipe


def pages(root: Path) -> list[str]:
    """The pages that ``_toc.yml`` names, in its order, such as ``book/01_data``.

    Raises:
        UserError: no table of contents.
    """
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise UserError(f"{toc} does not exist; it lists the chapters of the book.")
    contents = yaml.safe_load(toc.read_text(encoding="utf-8"))
    return [re.sub(r"\.(ipynb|md)$", "", name) for name in _names(contents)]


def _names(entry: dict | list) -> Iterator[str]:
    for key, value in entry.items() if isinstance(entry, dict) else enumerate(entry):
        if key in ("root", "file"):
            yield value
        elif isinstance(value, (dict, list)):
            yield from _names(value)


def chapters(root: Path) -> list[Path]:
    """The pages that are notebooks.

    Raises:
        UserError: a page does not exist, or two notebooks have the same name.
    """
    found: dict[str, Path] = {}
    for name in pages(root):
        notebook = root / f"{name}.ipynb"
        if not notebook.is_file() and not (root / f"{name}.md").is_file():
            raise UserError(f"_toc.yml names {name}, but neither {notebook} nor its .md exists.")
        if notebook.is_file():
            if notebook.stem in found:
                raise UserError(f'_toc.yml names two notebooks called "{notebook.stem}".')
            found[notebook.stem] = notebook
    return list(found.values())


def _select(notebooks: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """Those of these names (``02_teacher`` or ``book/02_teacher.ipynb``); no names: all."""
    wanted = [Path(name).name.removesuffix(".ipynb") for name in names]
    known = [notebook.stem for notebook in notebooks]
    for name in wanted:
        if name not in known:
            raise UserError(f'There is no chapter "{name}"; the chapters are {", ".join(known)}.')
    return [notebook for notebook in notebooks if not wanted or notebook.stem in wanted]


def _folders(root: Path, data_root: str, runs_dir: str, fresh: bool) -> dict[str, str]:
    """Both folders as absolute paths, since a chapter's working directory is not the user's."""
    data = Path(data_root).expanduser().absolute()
    if not data.is_dir():
        raise UserError(f"The data folder {data} does not exist; data/README.md describes it.")
    runs = Path(runs_dir).expanduser().absolute() if runs_dir else root / "_build" / "runs"
    if fresh and not runs_dir:
        shutil.rmtree(runs, ignore_errors=True)
    elif fresh and runs.is_dir() and any(runs.iterdir()):
        raise UserError(f"{runs} holds earlier runs, which shorten the times; name an empty one.")
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            pass
    except OSError as error:
        why = error.strerror
        raise UserError(f"The folder {runs} cannot be written ({why}); name another.") from error
    return {"data_root": str(data) if data_root else "", "runs_dir": str(runs)}


# --- all of it ---


def build(
    preset: str = "smoke",
    data_root: str = "",
    runs_dir: str = "",
    seed: int = 0,
    *,
    settings: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    run: bool = True,
    site: bool | None = None,
    keep_times: bool = False,
    root: Path | None = None,
) -> Path | None:
    """Run the chapters and build the site; gives its first page, or None if none was asked for.

    Args:
        data_root, runs_dir: relative to the working directory; no ``runs_dir``: ``_build/runs``.
        settings: further parameters of chapters.
        only: names of chapters; then just these are run, and just pages that changed are rendered.
        run: False renders what was executed last time.
        site: None: only if all chapters were asked for.
        keep_times: record the times, for which the networks are trained anew.

    Raises:
        UserError: something in the arguments is wrong; said before anything runs.
        BuildError: a chapter or the site failed.
    """
    root = (root or find_root()).absolute()
    every = chapters(root)
    chosen = _select(every, only)
    if run:
        recipe.preset(preset, seed=seed)  # refuses an unknown preset
        values = parameters_of(chosen, {**(settings or {}), "preset": preset, "seed": seed})
        folders = _folders(root, data_root, runs_dir, keep_times)
        measured = _run_all(root, preset, {n: {**v, **folders} for n, v in values.items()})
        if keep_times:
            print(f"Times recorded in {record(root, preset, measured)}")
    if not site and (only or site is False):
        print(f"Executed copies are in {root / '_build' / 'executed'}; no site was built.")
        return None
    began = time.perf_counter()
    page = build_site(root, every, fresh=not only)
    print(f"Site built in {clock(time.perf_counter() - began)}: {page}")
    if not repository(root):
        print(
            "Nobody has said where the book's repository is, so the pages have no buttons for "
            "Colab and Binder; make repository URL=https://github.com/owner/name writes it down."
        )
    return page


def _run_all(root: Path, preset: str, parameters: dict[Path, dict[str, Any]]) -> list[Measured]:
    expected = expected_seconds(root, preset)
    measured: list[Measured] = []
    names = [notebook.stem for notebook in parameters]
    total = sum(expected[n] for n in names) if set(names) <= expected.keys() else None
    count = f"{len(names)} chapter" + ("s" if len(names) > 1 else "")
    print(f"{count} at preset {preset}, expected {clock(total)} in all (minutes:seconds)")
    for notebook in parameters:  # an old copy must not pass for a new one if an earlier one fails
        executed_copy(root, notebook).unlink(missing_ok=True)
    for i, (notebook, values) in enumerate(parameters.items(), 1):
        label = f"[{i}/{len(names)}] {notebook.stem:{max(map(len, names))}}"
        progress = Progress(label, expected.get(notebook.stem))
        progress.tick(0)
        copy = executed_copy(root, notebook)
        try:
            done = run_notebook(notebook, copy, values, root / "_build", progress.tick)
        except UserError:
            print()
            raise
        progress.say(done.seconds, f"done, peak memory {done.peak_mb / 1024:.1f} GB")
        page = nbformat.read(copy, as_version=4)
        page.metadata["kdas"] = {"peak_mb": round(done.peak_mb), "machine": machine()}
        nbformat.write(page, copy)
        measured.append(done)
    return measured


# --- the command line ---

Names = list[str] | None
app = typer.Typer(invoke_without_command=True, no_args_is_help=False, add_completion=False)


@app.command("serve")
def serve_(port: Annotated[int, Option(min=0, max=65535, help="0: any free")] = 8000) -> None:
    """Show the last build at 127.0.0.1, to this machine alone, until Ctrl-C."""
    site = find_root() / "_build" / "html"
    with served(site, port) as url, contextlib.suppress(KeyboardInterrupt):
        print(f"{url} shows {site} to this machine; Ctrl-C ends it.", flush=True)
        threading.Event().wait()


@app.command("pdf")
def pdf_() -> None:
    """Print the last build into _build/kdas-book.pdf; needs Chromium and kdas_core[pdf]."""
    root = find_root()
    files = [f"{name}.html" for name in pages(root)]
    print(print_book(root / "_build" / "html", files, root / "_build" / "kdas-book.pdf"))


@app.callback()
def command(
    context: typer.Context,
    preset: Annotated[str, Option(help="smoke, laptop, colab or paper")] = "smoke",
    data_root: Annotated[str, Option(help="folder in PraNet's layout; empty: data/")] = "",
    runs_dir: Annotated[str, Option(help="for trained networks; empty: _build/runs")] = "",
    seed: Annotated[int, Option(help="of everything random")] = 0,
    settings: Annotated[
        Names, Option("--set", "-p", help="chapters' key=value; repeatable")
    ] = None,
    only: Annotated[Names, Option("--chapters", help="run just this, no site; repeatable")] = None,
    run: Annotated[bool, Option("--run/--no-run", help="--no-run renders the last run")] = True,
    site: Annotated[
        bool | None, Option("--site/--no-site", help="--no-site only runs", show_default=False)
    ] = None,
    keep_times: Annotated[bool, Option("--record", help="write times to book/results")] = False,
) -> None:
    """Run the chapters and build the site in _build/html."""
    if context.invoked_subcommand:
        return
    pairs = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f'"{setting}" is no setting; write key=value.')
        if key in STANDARD:
            raise UserError(f"{key} is an option; write --{key.replace('_', '-')} {value}.")
        pairs[key] = value
    what: dict[str, Any] = {"only": only or (), "run": run, "site": site, "keep_times": keep_times}
    build(preset, data_root, runs_dir, seed, settings=pairs, **what)
