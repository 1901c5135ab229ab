"""Run the chapters and build the site: what ``make book`` and ``kdas book`` call.

The chapters are the notebooks that ``_toc.yml`` names, in its order. Each is run by papermill in a
kernel of its own, and the executed copy is kept in ``_build/executed/``; the sources are only read.
Then the text pages and the executed copies go to ``site``, which renders them to ``_build/html/``.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from kdas_book.build.pdf import print_book
from kdas_book.build.run_notebook import STANDARD, Measured, machine, parameters_of, run_notebook
from kdas_book.build.site import build_site, executed_copy, note, serve
from kdas_book.colab import repository
from kdas_book.paths import find_root
from kdas_core import UserError, recipe

TIMES = Path("book") / "results" / "chapter_times.csv"
COLUMNS = ["preset", "chapter", "seconds", "peak_mb", "machine", "date"]


# --- what there is ----------------------------------------------------------------------------------------------------


def chapters(root: Path) -> list[Path]:
    """The notebooks that ``_toc.yml`` names, in its order; pages of plain text are left out.

    Raises:
        UserError: no table of contents, it names a page that does not exist, or two notebooks have
            the same name.
    """
    toc = root / "_toc.yml"
    if not toc.is_file():
        raise UserError(f"{toc} does not exist; it lists the chapters of the book.")
    found: list[Path] = []
    for name in _pages(yaml.safe_load(toc.read_text(encoding="utf-8"))):
        stem = root / re.sub(r"\.(ipynb|md)$", "", name)
        notebook, text = Path(f"{stem}.ipynb"), Path(f"{stem}.md")
        if notebook.is_file():
            if notebook.stem in (other.stem for other in found):
                raise UserError(
                    f'{toc} names two notebooks called "{notebook.stem}"; each name may occur once.'
                )
            found.append(notebook)
        elif not text.is_file():
            raise UserError(f"{toc} names {name}, but neither {notebook} nor {text} exists.")
    return found


def _pages(entry: Any) -> Iterator[str]:
    """Every ``root`` and ``file`` of a table of contents, top to bottom."""
    if isinstance(entry, Mapping):
        for key, value in entry.items():
            if key in ("root", "file"):
                yield str(value)
            else:
                yield from _pages(value)
    elif isinstance(entry, list):
        for item in entry:
            yield from _pages(item)


def select(notebooks: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The notebooks of these names (``02_teacher`` or ``book/02_teacher.ipynb``), in the book's
    order; no names: all.

    Raises:
        UserError: a name that is no chapter.
    """
    wanted = [Path(name).name.removesuffix(".ipynb") for name in names]
    known = [notebook.stem for notebook in notebooks]
    for name in wanted:
        if name not in known:
            raise UserError(f'There is no chapter "{name}"; the chapters are {", ".join(known)}.')
    return [notebook for notebook in notebooks if not wanted or notebook.stem in wanted]


def _folders(root: Path, data_root: str, runs_dir: str, fresh_runs: bool) -> tuple[str, str]:
    """The two folders as absolute paths, since a chapter's working directory is not the user's.

    Raises:
        UserError: no such data folder; the runs folder cannot be written, or is not empty and
            should be.
    """
    if data_root:
        data = Path(data_root).expanduser().absolute()
        if not data.is_dir():
            raise UserError(
                f"The data folder {data} does not exist; data/README.md says what belongs in it."
            )
        data_root = str(data)
    runs = Path(runs_dir).expanduser().absolute() if runs_dir else root / "_build" / "runs"
    if fresh_runs:
        if not runs_dir:
            shutil.rmtree(runs, ignore_errors=True)
        elif runs.is_dir() and any(runs.iterdir()):
            raise UserError(
                f"{runs} holds earlier runs, and recorded times would be too short; name an empty folder."
            )
    try:
        runs.mkdir(parents=True, exist_ok=True)
        probe = runs / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The runs folder {runs} cannot be written ({error.strerror}); name another one."
        ) from error
    return data_root, str(runs)


@dataclass
class Progress:
    """One line a chapter: name, elapsed, expected. A terminal shows it growing; a log gets a line a
    minute.
    """

    label: str
    expected: float | None
    _shown: float = field(default=0.0, init=False)
    _live: bool = field(default_factory=lambda: sys.stdout.isatty(), init=False)

    def start(self) -> None:
        print(
            f"{self.label}  expected {_clock(self.expected)}",
            end="" if self._live else "\n",
            flush=True,
        )

    def tick(self, elapsed: float) -> None:
        if elapsed - self._shown >= (1 if self._live else 60):
            self._shown = elapsed
            self._line(elapsed, "running", end="" if self._live else "\n")

    def close(self, measured: Measured | None = None) -> None:
        if measured:
            self._line(measured.seconds, f"done, peak memory {measured.peak_mb / 1024:.1f} GB")
        elif self._live:
            print()

    def _line(self, elapsed: float, state: str, end: str = "\n") -> None:
        text = f"{self.label}  elapsed {_clock(elapsed)}, expected {_clock(self.expected)}, {state}"
        print(f"\r\x1b[K{text}" if self._live else text, end=end, flush=True)


def _clock(seconds: float | None) -> str:
    return (
        "unknown"
        if seconds is None
        else f"{int(seconds + 0.5) // 60}:{int(seconds + 0.5) % 60:02d}"
    )


# --- recorded times ---------------------------------------------------------------------------------------------------


def expected_seconds(root: Path, preset: str) -> dict[str, float]:
    """Seconds per chapter at a preset, as recorded in ``book/results/chapter_times.csv``; empty
    where nothing is.
    """
    import pandas as pd

    if not (root / TIMES).is_file():
        return {}
    rows = pd.read_csv(root / TIMES).query("preset == @preset")
    return dict(zip(rows.chapter, rows.seconds.astype(float), strict=True))


def record(root: Path, preset: str, measured: Sequence[Measured]) -> Path:
    """Write the times into ``book/results/chapter_times.csv``, over earlier ones of the same preset
    and chapter.
    """
    import pandas as pd

    file, today = root / TIMES, datetime.date.today().isoformat()
    rows = [
        [preset, m.chapter, round(m.seconds, 1), round(m.peak_mb), machine(), today]
        for m in measured
    ]
    new = pd.DataFrame(rows, columns=COLUMNS)
    parts = [pd.read_csv(file), new] if file.is_file() else [new]
    table = pd.concat(parts).drop_duplicates(["preset", "chapter"], keep="last")
    order = table.preset.map({name: i for i, name in enumerate(recipe.PRESETS)})
    file.parent.mkdir(parents=True, exist_ok=True)
    table.assign(order=order).sort_values(["order", "chapter"])[COLUMNS].to_csv(file, index=False)
    return file


# --- all of it --------------------------------------------------------------------------------------------------------


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
    """Run the chapters and build the site.

    Args:
        preset: ``smoke``, ``laptop``, ``colab`` or ``paper``.
        data_root, runs_dir: as in a chapter, relative to the working directory; no ``runs_dir``:
            ``_build/runs``.
        settings: further parameters of chapters.
        only: names of chapters; then just these are run.
        run: False renders what was executed last time.
        site: build the site; None: only if all chapters were asked for. With ``only``, just the
            pages that changed are rendered.
        keep_times: write the times into ``book/results/chapter_times.csv`` (the networks are then
            trained anew).
        root: the repository; None: found from the working directory.

    Returns:
        The site's first page, or None if none was asked for.

    Raises:
        UserError: something in the arguments is wrong; said before anything runs.
        BuildError: a chapter or the site failed.
    """
    root = (root or find_root()).absolute()
    every = chapters(root)
    chosen = select(every, only)
    if run:
        recipe.preset(preset, seed=seed)  # refuses an unknown preset
        values = parameters_of(chosen, {**(settings or {}), "preset": preset, "seed": seed})
        data_root, runs_dir = _folders(root, data_root, runs_dir, keep_times)
        values = {
            notebook: {**v, "data_root": data_root, "runs_dir": runs_dir}
            for notebook, v in values.items()
        }
        measured = _run_all(root, preset, values)
        if keep_times:
            print(f"Times recorded in {record(root, preset, measured)}")
    if not (site or (site is None and not only)):
        print(f"Executed copies are in {root / '_build' / 'executed'}; no site was built.")
        return None
    began = time.perf_counter()
    page = build_site(root, every, fresh=not only)
    print(f"Site built in {_clock(time.perf_counter() - began)}: {page}")
    if not repository(root):
        print(
            "Nobody has said where the book's repository is, so the pages have no buttons for Colab and Binder; "
            "make repository URL=https://github.com/owner/name writes it down."
        )
    return page


def _run_all(
    root: Path, preset: str, parameters: Mapping[Path, Mapping[str, Any]]
) -> list[Measured]:
    expected, measured = expected_seconds(root, preset), []
    total = (
        sum(expected[n.stem] for n in parameters)
        if all(n.stem in expected for n in parameters)
        else None
    )
    count = f"{len(parameters)} chapter" + ("s" if len(parameters) > 1 else "")
    print(f"{count} at preset {preset}, expected {_clock(total)} in all (minutes:seconds)")
    for (
        notebook
    ) in parameters:  # an old copy must not pass for a new one if an earlier chapter fails
        executed_copy(root, notebook).unlink(missing_ok=True)
    width = max(len(notebook.stem) for notebook in parameters)
    for i, (notebook, values) in enumerate(parameters.items(), 1):
        progress = Progress(
            f"[{i}/{len(parameters)}] {notebook.stem:{width}}", expected.get(notebook.stem)
        )
        progress.start()
        try:
            executed = executed_copy(root, notebook)
            measured.append(
                run_notebook(notebook, executed, values, root / "_build", progress.tick)
            )
            note(executed, measured[-1].peak_mb, machine())
        finally:
            progress.close(measured[-1] if len(measured) == i else None)
    return measured


app = typer.Typer(invoke_without_command=True, no_args_is_help=False, add_completion=False)


@app.command("serve")
def serve_(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
) -> None:
    """Show the last build at 127.0.0.1, to this machine alone, until Ctrl-C."""
    serve(find_root() / "_build" / "html", port)


@app.command("pdf")
def pdf_() -> None:
    """Print the last build into _build/kdas-book.pdf; needs Chromium and kdas_core[pdf]."""
    root = find_root()
    names = _pages(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    pages = [re.sub(r"\.(ipynb|md)$", "", name) + ".html" for name in names]
    print(print_book(root / "_build" / "html", pages, root / "_build" / "kdas-book.pdf"))


@app.callback()
def command(
    context: typer.Context,
    preset: Annotated[str, typer.Option(help="smoke, laptop, colab or paper")] = "smoke",
    data_root: Annotated[
        str, typer.Option(help="folder with TrainDataset/ and TestDataset/; empty: data/")
    ] = "",
    runs_dir: Annotated[
        str, typer.Option(help="where trained networks are kept; empty: _build/runs")
    ] = "",
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-p", help="key=value, a further parameter of chapters; repeatable"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--chapters", help="run just this chapter; the site only with --site; repeatable"
        ),
    ] = None,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="--no-run renders what was executed last time")
    ] = True,
    site: Annotated[
        bool | None,
        typer.Option(
            "--site/--no-site", help="--no-site only runs the chapters", show_default=False
        ),
    ] = None,
    keep_times: Annotated[
        bool, typer.Option("--record", help="write the measured times to book/results")
    ] = False,
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
            raise UserError(
                f"{key} has an option of its own; write --{key.replace('_', '-')} {value}."
            )
        pairs[key] = value
    build(
        preset,
        data_root,
        runs_dir,
        seed,
        settings=pairs,
        only=only or (),
        run=run,
        site=site,
        keep_times=keep_times,
    )


def main() -> None:
    """As ``kdas book``: what the user can mend is said on standard error, exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"kdas book: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
