"""Fixtures shared by the tests. Golden files hold numbers of the released programs; their inputs are made from seeds here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import kdas_core  # noqa: F401  before PyTorch: it chooses how OpenMP waits

# isort: split
import nbformat
import numpy as np
import pytest
import torch
from filelock import FileLock
from nbformat.v4 import new_code_cell

from kdas_book.cli import main
from kdas_book.data.synthetic import make_dataset
from kdas_book.publishing import book
from kdas_book.publishing.pdf import browser
from kdas_core import UserError

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[1]
# It changes PyTorch for the whole process; test_card.py runs it in one of its own.
collect_ignore = [] if "PRETENDED_CARD" in os.environ else ["card_checks.py"]

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
torch.set_num_threads(max(1, 2 // WORKERS))
# A shell that runs the tests in the background has them ignore Ctrl-C, and so the programs that they start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """With ``-n 2``: a file's tests share their fixtures, so one process runs them. One process builds the whole book
    first; whoever is free at the end looks at its pages.
    """
    of_book = [item for item in items if "whole_book" in item.fixturenames]
    for item in items:
        if item not in of_book:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    if WORKERS > 1:
        items.sort(key=lambda item: (item in of_book) - 2 * (item in of_book[:1]))


def wait_until(page, expression: str, given=None) -> None:
    """Until it is true; Playwright's own way evaluates a text within the page, which the pages' policy forbids."""
    for _ in range(100):
        if page.evaluate(expression, given):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never true: {expression} {given or ''}")


def kdas(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["kdas", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def golden_checkpoint(role: str, seed: int) -> dict[str, torch.Tensor]:
    """A state dict in the released naming, filled from a seed by the rule under which the golden numbers were made."""
    shapes = json.loads((GOLDEN / f"{role}_state_dict_shapes.json").read_text())
    state = {}
    for i, key in enumerate(sorted(shapes)):
        rng, shape = np.random.default_rng([seed, i]), shapes[key]
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        if key.endswith("running_var"):
            x = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            x = rng.standard_normal(shape).astype(np.float32)
            if key.endswith("running_mean"):
                x = np.float32(0.1) * x
            elif len(shape) == 1 and key.endswith("weight"):
                x = 1 + np.float32(0.1) * x
            elif len(shape) == 1:
                x = np.float32(0.05) * x
            else:
                x = (x / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        state[key] = torch.from_numpy(x)
    return state


@pytest.fixture(scope="session")
def released_file(tmp_path_factory):
    """``released_file(role, seed)`` -> path of a checkpoint in the released format."""
    made = {}

    def make(role: str, seed: int) -> Path:
        if (role, seed) not in made:
            made[role, seed] = tmp_path_factory.mktemp("released") / f"{role}-{seed}.pth"
            torch.save(golden_checkpoint(role, seed), made[role, seed])
        return made[role, seed]

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real polyps; tests that need it are skipped where it is not, except where KDAS_REAL_DATA promises it."""
    promised = os.environ.get("KDAS_REAL_DATA")
    folder = Path(promised) if promised else ROOT.parent / "shared" / "polyp_data"
    if not (folder / "TrainDataset").is_dir():
        if promised:
            pytest.fail(f"KDAS_REAL_DATA names {folder}, and there is no TrainDataset in it")
        pytest.skip("no real data on this machine")
    return folder


@pytest.fixture(scope="session")
def polyps(tmp_path_factory) -> Path:
    """A tiny synthetic benchmark."""
    return make_dataset(tmp_path_factory.mktemp("polyps") / "data", train=10, test=3, size=64)


@pytest.fixture
def web(monkeypatch):
    """A web server on loopback that misbehaves as told; downloads have little patience with it."""
    from hazards import WebServer, hasten

    hasten(monkeypatch)
    server = WebServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The rendered site of a small book."""
    from small_book import make_site

    return make_site(tmp_path_factory.mktemp("site"))


# --- a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, driven by Playwright. Without one, tests are skipped; where CI is set they fail instead."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(browser())
        except UserError as missing:
            pytest.fail(str(missing)) if os.environ.get("CI") else pytest.skip(str(missing))
        yield opened


@pytest.fixture
def visit(chromium, home):
    """Opens pages of the module's ``home``, each in a fresh context, and keeps what they ask for and complain about."""
    contexts = []

    def go(path: str, **how):
        context = chromium.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on(
            "console",
            lambda message: (
                page.said.append(message.text) if message.type in ("error", "warning") else 0
            ),
        )
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(home + path)
        page.wait_for_load_state("networkidle")
        return page

    yield go
    for context in contexts:
        context.close()


# --- the whole book ---------------------------------------------------------------------------------------------------

CHAPTERS = sorted(
    (ROOT / "book").glob("[0-9][0-9]_*.ipynb")
)  # run_template.ipynb is a cell of a study, no page


def solution_code(chapter: Path) -> list[tuple[str, str]]:
    """(label, code) for each block of Python in the chapter's solutions, from top to bottom."""
    cells = nbformat.read(chapter, as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    solutions = re.findall(
        r"^(`{3,})\{solution\} (\S+)\n(.*?)^\1$", text, flags=re.MULTILINE | re.DOTALL
    )
    blocks = [
        (label, re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        for _, label, text in solutions
    ]
    return [(label, code) for label, found in blocks for code in found]


SOLUTION = """import traceback
try:
    exec({code!r}, globals())
except Exception:
    print("failed:", traceback.format_exc())
"""


def append_solutions(chapter: Path) -> None:
    """What the solutions tell a reader to run becomes a cell each at the end, kept off the page."""
    notebook = nbformat.read(chapter, as_version=4)
    for label, code in solution_code(chapter):
        about = {"tags": ["remove-cell"], "solution": label}
        notebook.cells.append(
            new_code_cell(SOLUTION.format(code=code), metadata=about)
        )  # a failure ends no chapter
    nbformat.write(notebook, chapter)


@pytest.fixture(scope="session")
def whole_book(tmp_path_factory):
    """The book of this checkout, run at preset smoke and rendered, in a copy; the solutions run with their chapters."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if WORKERS > 1 else root  # one book for all processes
    folder = root / "whole" / "kdas"
    with FileLock(root / "whole.lock"):
        if not folder.exists():
            build_whole_book(folder)
    assert (folder / "_build" / "html" / "index.html").exists(), "building it failed before"
    return folder


def build_whole_book(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    for name in ("book", "kdas_core", "kdas_book"):
        unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    (folder / "data").mkdir()
    for chapter in CHAPTERS:
        append_solutions(folder / "book" / chapter.name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        book.build()
