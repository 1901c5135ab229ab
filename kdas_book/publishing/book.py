"""Run the chapters and build the site: what ``make book`` and ``kdas book`` call.

Each chapter is run in a kernel of its own, its executed copy is kept in ``_build/executed/``, and
``site`` renders those to ``_build/html/``. The sources are only read.
"""

import contextlib
import datetime
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from sphinx_external_toc.parsing import parse_toc_yaml
from typer import Option

from kdas_book.colab import repository
from kdas_book.paths import find_root
from kdas_book.publishing.formulas import katex
from kdas_book.publishing.pdf import print_book
from kdas_book.publishing.run_notebook import check_parameters, run_notebook
from kdas_book.publishing.site import build_site, executed_copy, served
from kdas_book.records import Measured, clock, machine, read_times, record, record_numbers
from kdas_core import UserError, recipe
from kdas_core.data.layout import SYNTHETIC_NOTE
from kdas_core.files import unwritten

app = typer.Typer(add_completion=False)


def chapters(root: Path) -> list[Path]:
    """The notebooks in ``_toc.yml``, in its order; UserError where a page does not exist."""
    found = []
    for name in _pages(root):
        notebook = root / f"{name}.ipynb"
        if notebook.is_file():
            found.append(notebook)
        elif not notebook.with_suffix(".md").is_file():
            raise UserError(f"_toc.yml names {name}, but neither {notebook} nor its .md exists.")
    return found


def _pages(root: Path) -> list[str]:
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise UserError(f"{toc} does not exist; it lists the chapters of the book.")
    return list(parse_toc_yaml(toc))


@app.command()
def build(
    preset: Annotated[str, Option(help="smoke, laptop, publish, colab or paper")] = "smoke",
    data_root: Annotated[str, Option(help="folder in PraNet's layout; empty: data/")] = "",
    runs_dir: Annotated[str, Option(help="for trained networks; empty: _build/runs")] = "",
    seed: Annotated[int, Option(help="of everything random")] = 0,
    only: Annotated[
        list[str] | None, Option("--chapters", help="run just this, no site; repeatable")
    ] = None,
    run: Annotated[bool, Option("--run/--no-run", help="--no-run renders the last run")] = True,
    site: Annotated[bool, Option("--site", help="after --chapters, too")] = False,
    keep_times: Annotated[
        bool, Option("--record", help="write times, or numbers, to book/results")
    ] = False,
) -> Path | None:
    """Run the chapters and build the site in _build/html, which "kdas book serve" shows and "kdas
    book pdf" prints.
    """
    root = find_root()
    every = chapters(root)
    chosen = _select(every, only or [])
    if site or not only:
        katex()  # refuses what could not be rendered, before the chapters take their time
    if run:
        recipe.preset(preset, seed=seed)  # refuses an unknown preset
        # What every build shows beside its own numbers comes from drawn images, at laptop.
        drawn = preset == "laptop" and (Path(data_root).expanduser() / SYNTHETIC_NOTE).is_file()
        fresh = keep_times and not drawn
        values = {"preset": preset, "seed": seed, **_folders(root, data_root, runs_dir, fresh)}
        for notebook in chosen:
            check_parameters(notebook, values)
        measured = _run_all(root, chosen, values)
        if keep_times:
            if drawn:
                copies = (nbformat.read(executed_copy(root, n), as_version=4) for n in chosen)
                print(f"Numbers recorded in {record_numbers(root, copies)}")
            else:
                print(f"Times recorded in {record(root, preset, measured)}")
    if only and not site:
        print(f"Executed copies are in {root / '_build' / 'executed'}; no site was built.")
        return None
    began = time.perf_counter()
    page = build_site(root, every, fresh=not only)
    print(f"Site built in {clock(time.perf_counter() - began)}: {page}")
    if not repository(root):
        adds = "make repository URL=https://github.com/owner/name adds them"
        print(f"The pages have no buttons for Colab and Binder; {adds}.")
    return page


def _select(notebooks: list[Path], names: list[str]) -> list[Path]:
    known = {notebook.stem: notebook for notebook in notebooks}
    if unknown := [name for name in names if name not in known]:
        they_are = f"the chapters are {', '.join(known)}"
        raise UserError(f'There is no chapter "{unknown[0]}"; {they_are}.')
    return [known[name] for name in names] or notebooks


def _folders(root: Path, data_root: str, runs_dir: str, fresh: bool) -> dict[str, str]:
    """Both folders as absolute paths, since a chapter's working directory is not the user's."""
    data = Path(data_root).expanduser().absolute()
    if not data.is_dir():
        raise UserError(f"The data folder {data} does not exist; data/README.md describes it.")
    runs = Path(runs_dir).expanduser().absolute() if runs_dir else root / "_build" / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(runs, error, "name another folder") from error
    if fresh and any(runs.iterdir()):
        raise UserError(f"{runs} holds earlier runs, which shorten the times; name an empty one.")
    return {"data_root": str(data) if data_root else "", "runs_dir": str(runs)}


def _run_all(root: Path, notebooks: list[Path], values: dict[str, Any]) -> Measured:
    """Seconds and peak memory in MB of each chapter."""
    preset = values["preset"]
    known = read_times(root).query("preset == @preset").set_index("chapter").seconds
    expected = known.reindex([notebook.stem for notebook in notebooks]).astype(float)
    total = clock(expected.sum(skipna=False))
    print(f"Chapters: {len(expected)}, preset {preset}, expected {total} in all (minutes:seconds)")
    for notebook in notebooks:  # an old copy must not pass for a new one if an earlier one fails
        executed_copy(root, notebook).unlink(missing_ok=True)
    measured = {}
    for i, notebook in enumerate(notebooks, 1):
        due = clock(expected[notebook.stem])
        print(f"[{i}/{len(expected)}] {notebook.stem}, expected {due}", flush=True)
        copy = executed_copy(root, notebook)
        seconds, peak_mb = run_notebook(notebook, copy, values, root / "_build")
        about = {"preset": preset, "seed": str(values["seed"]), "time": clock(seconds)}
        about |= {"peak memory": f"{peak_mb / 1024:.1f} GB", "machine": machine()}
        about["run on"] = datetime.date.today().isoformat()
        print(f"  elapsed {about['time']}, peak memory {about['peak memory']}")
        page = nbformat.read(copy, as_version=4)
        page.metadata["kdas"] = about  # for the site's table
        nbformat.write(page, copy)
        measured[notebook.stem] = seconds, peak_mb
    return measured


@app.command()
def serve(port: Annotated[int, Option(min=0, max=65535, help="0: any free")] = 8000) -> None:
    """Show the last build at 127.0.0.1, to this machine alone, until Ctrl-C."""
    site = find_root() / "_build" / "html"
    with served(site, port) as url, contextlib.suppress(KeyboardInterrupt):
        print(f"{url} shows {site} to this machine; Ctrl-C ends it.", flush=True)
        threading.Event().wait()


@app.command()
def pdf() -> None:
    """Print the last build into _build/kdas-book.pdf; needs Chromium and kdas_core[pdf]."""
    root = find_root()
    files = [f"{name}.html" for name in _pages(root)]
    print(print_book(root / "_build" / "html", files, root / "_build" / "kdas-book.pdf"))
