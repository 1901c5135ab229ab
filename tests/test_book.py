"""The build: what it refuses, what it says of a failure, what it keeps apart; and what every chapter promises."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from conftest import CHAPTERS, ROOT, solution_code
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kdas_book import exercises, figures, records
from kdas_book.colab import set_repository
from kdas_book.publishing import book
from kdas_book.publishing.run_notebook import SOLUTION, BuildError, run_notebook, solve
from kdas_core import UserError

PARAMETERS = 'preset: str = "smoke"\ndata_root: str = ""\nruns_dir: str = ""\nseed: int = 0'

# --- a tiny book ------------------------------------------------------------------------------------------------------


def write_chapter(folder: Path, name: str, *cells, parameters: str | None = PARAMETERS) -> Path:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(metadata={"kernelspec": kernel}, cells=[new_markdown_cell(f"# {name}")])
    if parameters is not None:
        notebook.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    notebook.cells += [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    path = folder / "book" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


def write_toc(folder: Path, *names: str) -> None:
    lines = [
        "format: jb-book",
        "root: book/index",
        "chapters:",
        *(f"  - file: book/{name}" for name in names),
    ]
    (folder / "_toc.yml").write_text("\n".join(lines) + "\n")
    (folder / "book").mkdir(exist_ok=True)
    (folder / "book" / "index.md").write_text("# A small book\n")


def run_cli(folder: Path, *options: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "kdas_book.cli", "book", *options]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def printed(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


@pytest.fixture
def small_book(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_toc(tmp_path, "01_first")
    write_chapter(tmp_path, "01_first", "print('ran with seed', seed)")
    return tmp_path


# --- refused before anything runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"preset": "tiny"}, "tiny"),
        ({"data_root": "no/such/folder"}, "no/such/folder"),
        ({"runs_dir": "_toc.yml/runs"}, "_toc.yml/runs cannot be written"),
        ({"only": ["02_second"]}, 'there is no chapter "02_second"; the chapters are 01_first'),
    ],
    ids=["preset", "data", "runs", "chapter"],
)
def test_a_wrong_argument_is_refused_before_anything_runs(small_book, arguments, named):
    with pytest.raises(UserError) as error:
        book.build(**arguments)
    assert named.lower() in str(error.value).lower()
    assert not list(small_book.glob("_build/executed/*"))


def test_a_chapter_without_the_tagged_cell_is_refused_and_named(small_book):
    write_chapter(small_book, "01_first", PARAMETERS, parameters=None)
    with pytest.raises(UserError, match=r'01_first\.ipynb has no cell tagged "parameters"'):
        book.build()


def test_a_chapter_that_lacks_one_of_the_four_parameters_is_refused(small_book):
    write_chapter(
        small_book,
        "01_first",
        parameters='preset: str = "smoke"\ndata_root: str = ""\nseed: int = 0',
    )
    with pytest.raises(UserError, match="lacks runs_dir"):
        book.build()


def test_a_page_that_the_contents_name_must_exist(small_book):
    write_toc(small_book, "01_first", "02_second")
    with pytest.raises(UserError, match="names book/02_second, but neither"):
        book.chapters(small_book)


# --- running ----------------------------------------------------------------------------------------------------------


def test_chapters_run_with_the_given_parameters_and_the_sources_stay_as_they_were(
    small_book, monkeypatch
):
    source = write_chapter(
        small_book,
        "01_first",
        "import os, sys\nprint(seed, data_root, runs_dir, sys.executable, os.environ['MPLBACKEND'])",
    )
    before = source.read_bytes()
    (small_book / "polyps").mkdir()
    monkeypatch.setenv("MPLBACKEND", "agg")
    book.build(data_root="polyps", runs_dir="my runs", seed=5, only=["01_first"])
    executed = small_book / "_build" / "executed" / "01_first.ipynb"
    # Relative folders arrive as absolute ones, the kernel is this interpreter, and figures still go into the notebook.
    folders = f"{small_book / 'polyps'} {small_book / 'my runs'}"
    assert (
        printed(executed)
        == f"5 {folders} {sys.executable} module://matplotlib_inline.backend_inline\n"
    )
    assert source.read_bytes() == before
    assert os.environ["MPLBACKEND"] == "agg"


def test_progress_names_the_chapter_the_elapsed_and_the_expected_time(small_book, capsys):
    results = small_book / "book" / "results"
    results.mkdir()
    row = dict(
        zip(
            records.COLUMNS,
            ["smoke", "01_first", 83.0, 512, "2 CPU cores, no GPU", "2026-01-01"],
            strict=True,
        )
    )
    pd.DataFrame([row]).to_csv(results / "chapter_times.csv", index=False)
    book.build(only=["01_first"])
    assert re.search(
        r"01_first, expected 1:23\n  elapsed 0:\d\d, peak memory \d\.\d GB", capsys.readouterr().out
    )


def test_a_failing_cell_ends_the_build_with_chapter_cell_and_error_and_keeps_what_was_run(
    small_book,
):
    write_toc(small_book, "01_first", "02_second", "03_third")
    write_chapter(
        small_book,
        "02_second",
        "print('so far')",
        "answer = 41\nraise ValueError('not 42')",
        "print('never')",
    )
    write_chapter(small_book, "03_third")
    done = run_cli(small_book)
    kept = small_book / "_build" / "executed" / "02_second.ipynb"
    assert done.returncode != 0
    assert (
        "02_second failed in code cell 3 of 4 (which begins: answer = 41): ValueError: not 42"
        in done.stderr
    )
    assert str(kept) in done.stderr
    assert printed(kept).startswith("so far")
    assert not (small_book / "_build" / "executed" / "03_third.ipynb").exists()
    assert not (small_book / "_build" / "html").exists()


def test_a_kernel_that_dies_is_reported_with_its_cell(small_book):
    write_chapter(
        small_book,
        "01_first",
        "print('so far')",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    )
    with pytest.raises(BuildError, match="01_first failed in code cell 3 of 3.*its process died"):
        book.build()


@pytest.mark.parametrize("deaths", [3, 4])
def test_a_kernel_that_dies_before_its_first_word_is_started_again(tmp_path, monkeypatch, deaths):
    """As if another program had taken its port; after the fourth time there is no fifth."""
    count = tmp_path / "count"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'ipykernel_launcher' in sys.orig_argv:\n"
        f"    with open({str(count)!r}, 'a+') as file:\n"
        "        file.write('x')\n"
        f"        if file.tell() <= {deaths}:\n"
        "            os._exit(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chapter = write_chapter(tmp_path, "01_first", "assert seed == 7")
    run = partial(run_notebook, chapter, tmp_path / "done.ipynb", {"seed": 7}, tmp_path / "home")
    if deaths == 4:
        with pytest.raises(RuntimeError, match="died before replying"):
            run()
    else:
        assert run()[0] > 0
        cells = nbformat.read(tmp_path / "done.ipynb", as_version=4).cells
        injected = [
            cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])
        ]
        assert len(injected) == 1 and cells[-1].execution_count == len(cells) - 1
    assert count.read_text() == "x" * 4


def test_recorded_times_replace_earlier_ones_of_the_same_preset_and_chapter(tmp_path):
    records.record(tmp_path, "laptop", {"01_first": (100.0, 900.0)})
    records.record(tmp_path, "smoke", {"01_first": (9.0, 500.0)})
    records.record(tmp_path, "smoke", {"01_first": (7.04, 600.0)})
    table = pd.read_csv(tmp_path / records.TIMES)
    assert list(table.columns) == records.COLUMNS
    assert table[["preset", "seconds"]].values.tolist() == [["smoke", 7.0], ["laptop", 100.0]]
    table = records.read_times(tmp_path).query("preset == 'smoke'")
    assert table.seconds.tolist() == [7.0] and table.peak_mb.tolist() == [600]


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_site(small_book):
    shutil.copy(ROOT / "_config.yml", small_book)
    shutil.copytree(ROOT / "book" / "_static", small_book / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", small_book / "book")
    (small_book / "book" / "index.md").write_text(
        "# A small book\n\nOf {cite}`kdas`.\n\n```{bibliography}\n```\n"
    )
    return small_book


def test_the_site_shows_the_executed_chapters_and_nothing_of_this_machine(small_site):
    draw = new_code_cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    draw.metadata["mystnb"] = {"image": {"alt": "A rising line."}}
    write_chapter(
        small_site, "01_first", "print('ran with seed', seed)", draw, new_markdown_cell("So $a<b$.")
    )
    page = book.build(seed=3)
    assert page == small_site / "_build" / "html" / "index.html"
    text = (page.parent / "book" / "01_first.html").read_text()
    assert "ran with seed 3" in text
    assert 'alt="A rising line."' in text
    assert str(small_site) not in text
    assert not foreign_requests(text)
    table = (small_site / "_build" / "stage" / "book" / "execution_table.md").read_text()
    row = r"\| \[01_first\]\(01_first\.ipynb\) *\| smoke *\| 3 *\| 0:\d\d *\| 0\.\d GB *\| \d+ CPU "
    assert re.search(row, table)


def test_a_broken_reference_fails_the_build_and_fails_it_again_over_the_old_doctrees(small_site):
    write_chapter(small_site, "01_first", new_markdown_cell("See {ref}`nowhere`."))
    for run in (True, False):  # the second time Sphinx would not read an unchanged page again
        with pytest.raises(
            BuildError, match=r"01_first\.ipynb, cell 3: WARNING: undefined label: 'nowhere'"
        ):
            book.build(run=run)


def test_one_chapter_is_rendered_anew_and_the_others_are_left(small_site):
    write_toc(small_site, "01_first", "02_second")
    (small_site / "book" / "index.md").write_text(
        "# A small book\n\nOf {cite}`kdas`.\n\n```{bibliography}\n```\n"
    )
    draw = new_code_cell(
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        metadata={"mystnb": {"image": {"alt": "A line."}}},
    )
    write_chapter(small_site, "01_first", draw)
    write_chapter(small_site, "02_second", "print('as before')")
    assert book.build(only=["02_second"]) is None
    whole = book.build()
    first, second = (whole.parent / "book" / f"{name}.html" for name in ("01_first", "02_second"))
    before, sphinx = (
        first.read_text(),
        small_site / "_build" / "rendered" / "_build" / "html" / "book",
    )
    written = (sphinx / "01_first.html").stat().st_mtime_ns
    write_chapter(small_site, "02_second", "print('something else')")
    assert book.build(only=["02_second"], site=True) == whole
    assert "something else" in second.read_text() and "as before" not in second.read_text()
    assert first.read_text() == before and (sphinx / "01_first.html").stat().st_mtime_ns == written
    picture = re.search(r"_images/[0-9a-f]{64}\.webp", before)[0]
    assert (whole.parent / picture).is_file()


def test_a_site_that_cannot_be_built_leaves_the_earlier_one(small_site):
    page = book.build()
    before = page.read_text()
    write_chapter(small_site, "01_first", new_markdown_cell("See {ref}`nowhere`."))
    with pytest.raises(BuildError, match="undefined label: 'nowhere'"):
        book.build(only=["01_first"], site=True)
    assert page.read_text() == before
    with pytest.raises(
        BuildError, match="undefined label: 'nowhere'"
    ):  # nor is the page taken for read the next time
        book.build(only=["01_first"], run=False, site=True)


def test_the_buttons_for_colab_and_binder_need_an_address_and_the_build_says_so(small_site, capsys):
    place = 'repository, revision = "", "main"'
    setup = new_code_cell(place, metadata={"tags": ["setup", "remove-cell"]})
    write_chapter(small_site, "01_first", setup, "print(1)")
    page = book.build().parent / "book" / "01_first.html"
    assert "make repository URL=" in capsys.readouterr().out
    assert "colab" not in page.read_text() and "mybinder" not in page.read_text()
    set_repository(small_site, "https://github.com/somebody/kdas-book", "v1")
    book.build(run=False)
    assert "make repository" not in capsys.readouterr().out
    links = re.findall(r'href="(https://(?:colab|mybinder)[^"]*)"', page.read_text())
    assert (
        "https://colab.research.google.com/github/somebody/kdas-book/blob/v1/book/01_first.ipynb"
        in links
    )
    assert any(
        link.startswith(
            "https://mybinder.org/v2/gh/somebody/kdas-book/v1?urlpath=lab/tree/book/01_first"
        )
        for link in links
    )
    assert not foreign_requests(page.read_text())


# --- what every chapter promises: CONTRIBUTING.md, "A chapter", in its order ---------------------------------------------

# Chapter 0 is a taste: three minutes, without questions, sliders or exercises.
FULL = [chapter for chapter in CHAPTERS if not chapter.stem.startswith("00")]
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
each_full_chapter = pytest.mark.parametrize("chapter", FULL, ids=lambda path: path.stem)


def cells(chapter: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(chapter, as_version=4).cells


def code_cells(chapter: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in cells(chapter) if cell.cell_type == "code"]


def text_of(chapter: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(chapter) if cell.cell_type == "markdown")


def section(chapter: Path, title: str) -> tuple[str, list[nbformat.NotebookNode]]:
    """The prose and the code cells between this heading and the next of its level."""
    inside, prose, code = False, [], []
    for cell in cells(chapter):
        if cell.cell_type == "code":
            code += [cell] if inside else []
            continue
        for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
            inside = part.strip().startswith(f"## {title}") or (
                inside and not part.startswith("## ")
            )
            prose += [part] if inside else []
    return "\n\n".join(prose), code


def calls(source: str) -> list[ast.Call]:
    """The calls that a cell makes itself; what stands in its functions is called elsewhere."""
    found, todo = [], [ast.parse(source)]
    while todo:
        node = todo.pop()
        found += [node] if isinstance(node, ast.Call) else []
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    return found


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


FIGURES = [
    importlib.import_module(f"kdas_book.figures.{module.name}")
    for module in pkgutil.iter_modules(figures.__path__)
]


def draws(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell shows a picture: it says so, calls matplotlib, or a function of ours that returns a figure."""
    names = [name_of(call) for call in calls(cell.source)]
    drawing = {n.rpartition(".")[2] for n in names if "." in n and not n.startswith("run.")}
    ours = [getattr(module, name, None) for module in FIGURES for name in drawing]
    drawn = any("Figure" in str(getattr(f, "__annotations__", {}).get("return")) for f in ours)
    return (
        drawn
        or any(name.startswith("plt.") for name in names)
        or "image" in cell.metadata.get("mystnb", {})
    )


def captions(chapter: Path) -> dict[str, dict]:
    """By cell id: what the metadata of each cell that draws say."""
    drawn = filter(draws, code_cells(chapter))
    return {cell.id: cell.metadata.get("mystnb", {}).get("figure", {}) for cell in drawn}


@each_chapter
def test_a_chapter_opens_with_three_things_to_learn_what_it_needs_and_what_it_costs(chapter):
    first, setup, second = cells(chapter)[:3]
    assert re.match(rf"# {int(chapter.stem[:2])}\. \S", first.source)
    assert re.search(r"\*\*You will learn\*\*\n(- .+\n){3}\n\*\*You need\*\* ", first.source)
    assert "parameters" in second.metadata.get("tags", [])
    assert set(setup.metadata.tags) == {"setup", "remove-cell"}  # test_colab says what is in it
    assert f'run.times("{chapter.stem}")' in code_cells(chapter)[3].source


@each_chapter
def test_a_chapter_begins_with_the_same_parameters_and_begin(chapter):
    first, second = code_cells(chapter)[1:3]
    assert "parameters" in first.metadata.get("tags", [])
    values: dict = {}
    exec(first.source, {}, values)  # our own notebook
    values.pop("__annotations__", None)
    assert list(values.items())[:4] == [
        ("preset", "smoke"),
        ("data_root", ""),
        ("runs_dir", ""),
        ("seed", 0),
    ]
    assert "begin(preset, data_root, runs_dir, seed)" in second.source


@each_chapter
def test_a_chapter_is_stored_without_outputs_and_its_cells_have_names_of_their_own(chapter):
    assert [cell.id for cell in code_cells(chapter) if cell.outputs or cell.execution_count] == []
    names = [cell.id for cell in cells(chapter)]
    assert [name for name in names if names.count(name) > 1] == []


@each_chapter
def test_no_code_cell_is_longer_than_25_lines(chapter):
    assert [cell.id for cell in code_cells(chapter) if len(cell.source.splitlines()) > 25] == []


@each_chapter
def test_no_cell_divides_python_numbers_that_may_be_zero(chapter):
    """Where a network found nothing a loss is 0: a tensor's quotient is inf or nan, a number's ends the chapter."""
    quotient = re.compile(r"\.item\(\) / .*\.item\(\)")
    assert [cell.id for cell in code_cells(chapter) if quotient.search(cell.source)] == []


@each_chapter
def test_every_section_begins_with_prose(chapter):
    blocks = []  # paragraphs of text, and "" for a code cell
    for cell in cells(chapter):
        blocks += (
            [""]
            if cell.cell_type == "code"
            else re.split(r"\n\s*\n|(?<=[^\n])\n(?=#)", cell.source.strip())
        )
    after = zip(blocks, [*blocks[1:], ""], strict=True)
    assert [
        block for block, following in after if re.fullmatch(r"##+ .*", block) and not following
    ] == []


@each_chapter
def test_every_cell_that_draws_has_a_text_for_those_who_cannot_see_it_and_a_caption(chapter):
    drawn = [cell for cell in code_cells(chapter) if draws(cell)]
    assert [
        c.id
        for c in drawn
        if not c.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
    ] == []
    named = rf"fig-{chapter.stem[:2]}-[a-z0-9-]+"
    bare = [
        cell for cell, figure in captions(chapter).items() if not figure.get("caption", "").strip()
    ]
    misnamed = [
        cell
        for cell, figure in captions(chapter).items()
        if not re.fullmatch(named, figure.get("name", ""))
    ]
    assert (bare, misnamed) == ([], []), (
        "cells without a caption, and without a name such as fig-01-sizes"
    )


@each_chapter
def test_a_sentence_links_every_figure(chapter):
    text = "".join(cell.source for cell in cells(chapter))  # of cells that write a sentence as well
    names = [figure["name"] for figure in captions(chapter).values()]
    assert [name for name in names if not re.search(rf"numref\}}+`{name}`", text)] == []


def tables(chapter: Path) -> list[dict]:
    """What the metadata say of the cells whose output is a table with a caption."""
    every = (c.metadata.get("mystnb", {}).get("figure", {}) for c in code_cells(chapter))
    return [table for table in every if table.get("name", "").startswith("tab-")]


@each_chapter
def test_a_table_has_a_caption_and_a_name_of_its_chapter(chapter):
    named = rf"tab-{chapter.stem[:2]}-[a-z-]+"
    assert [t for t in tables(chapter) if not re.fullmatch(named, t["name"])] == []
    assert [
        t["name"] for t in tables(chapter) if not t.get("caption", "").strip().endswith(".")
    ] == []


def test_no_two_figures_or_tables_of_the_book_have_the_same_name():
    names = [
        figure["name"]
        for chapter in CHAPTERS
        for figure in (*captions(chapter).values(), *tables(chapter))
        if "name" in figure
    ]
    assert [name for name in names if names.count(name) > 1] == []


@each_full_chapter
def test_a_chapter_has_something_to_move_with_a_text_and_a_caption(chapter):
    widgets = [
        call
        for cell in code_cells(chapter)
        for call in calls(cell.source)
        if name_of(call) == "explore"
    ]
    assert widgets
    assert [
        ast.unparse(w) for w in widgets if not {"alt", "caption"} <= {k.arg for k in w.keywords}
    ] == []


@each_full_chapter
def test_a_chapter_asks_three_times_for_a_prediction_and_the_next_cell_answers(chapter):
    question = re.compile(
        r"```\{admonition\} Predict before you run\n:class: tip\n(?=[\s\S]*\?)((?!```).+\n)+```\Z"
    )
    pairs = list(zip(cells(chapter), cells(chapter)[1:]))
    asked = [
        (cell, following) for cell, following in pairs if "} Predict before you run" in cell.source
    ]
    assert len(asked) >= 3
    assert [
        c.id
        for c, following in asked
        if not question.search(c.source) or following.cell_type != "code"
    ] == []


@each_full_chapter
def test_a_chapter_has_three_exercises_each_with_a_solution(chapter):
    exercises = re.findall(r"\{exercise\}[^\n]*\n(?::[^\n]*\n)*?:label:\s*(\S+)", text_of(chapter))
    solutions = re.findall(r"\{solution\}\s*(\S+)\n:class: dropdown", text_of(chapter))
    assert len(exercises) >= 3
    assert sorted(exercises) == sorted(solutions)
    assert section(chapter, "Exercises")[0].count("```python\n") == len(
        solution_code(chapter)
    )  # all of them are run


@each_full_chapter
def test_what_a_chapter_found_comes_from_its_cells(chapter):
    prose, code = section(chapter, "What we found")
    assert re.findall(r".*\d.*", re.sub(r"\]\([^)]*\)", "]", prose)) == [], "numbers typed by hand"
    assert any("hide-input" in cell.metadata.get("tags", []) for cell in code)


@each_full_chapter
def test_a_chapter_names_two_works_to_read_further(chapter):
    known = re.findall(
        r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(), flags=re.MULTILINE
    )
    cited = re.findall(r"\{cite[^}]*\}`([^`]+)`", section(chapter, "Further reading")[0])
    keys = {key.strip() for keys in cited for key in keys.split(",")}
    assert len(keys) >= 2 and keys <= set(known), keys - set(known)


@each_full_chapter
def test_a_chapter_spells_kdas_out_in_its_first_cell_and_shows_a_competent_result(chapter):
    """Directly after the times: a picture by networks that were trained for longer than a chapter takes."""
    words = re.sub(r"\{term\}`([^`<]+?)(?:\s*<[^`]*>)?`", r"\1", cells(chapter)[0].source)
    assert "knowledge distillation via attention supervision" in " ".join(words.split()).lower()
    code = [cell.id for cell in code_cells(chapter)]
    assert "opening" in code
    assert code.index("opening") == 4
    opening = code_cells(chapter)[code.index("opening")]
    assert draws(opening) and "run.laptop_maps()" in "".join(
        cell.source for cell in code_cells(chapter)[: code.index("opening") + 1]
    )


def gaps(source: str) -> list[ast.Constant]:
    """The dots that stand for code."""
    return [
        n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and n.value is ...
    ]


def fill_ins(chapter: Path) -> list[list[nbformat.NotebookNode]]:
    """Of each cell with a gap: the cell before it, itself, and the two after it."""
    every = cells(chapter)
    tagged = [i for i, cell in enumerate(every) if "fill-in" in cell.metadata.get("tags", [])]
    return [every[i - 1 : i + 3] for i in tagged]


@each_full_chapter
def test_a_chapter_has_two_gaps_each_with_a_task_a_check_and_a_folded_solution(chapter):
    found = fill_ins(chapter)
    assert len(found) == 2
    for task, gap, check, solution in found:
        assert "**Your turn.** " in task.source and check.cell_type == "code"
        assert len(gap.source.splitlines()) <= 8 and gaps(gap.source)
        (function,) = ast.parse(gap.source).body
        (call,) = [call for call in calls(check.source) if name_of(call) == "check"]
        assert ast.unparse(call.args[0]) == function.name
        assert SOLUTION.search(solution.source)
        alone = (
            r"<details><summary>Solution</summary>\n\n```python\n(?:(?!```).*\n)+```\n\n</details>"
        )
        assert re.fullmatch(alone, solution.source.strip())


@each_full_chapter
def test_the_builder_fills_every_gap_with_its_solution_and_leaves_none(chapter):
    solutions = [SOLUTION.search(last.source) for *_, last in fill_ins(chapter)]
    solved = solve(nbformat.read(chapter, as_version=4)).cells
    filled = [cell.source for cell in solved if "fill-in" in cell.metadata.get("tags", [])]
    assert filled == [solution[1] for solution in solutions]
    assert not [source for source in filled if re.search(r"(=|return) \.\.\.", source)]
    assert not [cell.id for cell in solved if "<summary>Solution</summary>" in cell.source]


@each_full_chapter
def test_nothing_after_a_gap_needs_what_the_reader_writes_there(chapter):
    code = code_cells(chapter)
    for _, gap, check, _ in fill_ins(chapter):
        name = ast.parse(gap.source).body[0].name
        after = [cell for cell in code[code.index(gap) + 1 :] if cell.id != check.id]
        used = {
            cell.id: {n.id for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Name)}
            for cell in after
        }
        assert [cell for cell, names in used.items() if name in names] == []


@each_full_chapter
def test_a_chapter_ends_its_findings_with_numbers_beside_the_recorded_ones(chapter):
    _, code = section(chapter, "What we found")
    shown = [
        last
        for last in (ast.parse(cell.source).body[-1] for cell in code)
        if isinstance(last, ast.Expr) and "run.numbers(" in ast.unparse(last)
    ]
    assert len(shown) == 1
    name, quantities = shown[0].value.args
    assert ast.literal_eval(name) == chapter.stem
    if isinstance(quantities, ast.Dict):
        assert 4 <= len(quantities.keys) <= 8
        assert not any(isinstance(value, ast.Constant) for value in quantities.values)


@each_chapter
def test_a_chapter_ends_with_links_to_its_neighbours(chapter):
    titles = re.findall(r"^## (.+)", text_of(chapter), flags=re.MULTILINE)
    assert titles[-1] == "Where next"
    order = book.chapters(ROOT)
    place = order.index(chapter)
    neighbours = order[max(0, place - 1) : place] + order[place + 1 : place + 2]
    assert [
        n.name for n in neighbours if f"({n.name})" not in section(chapter, "Where next")[0]
    ] == []


def test_the_contents_name_every_notebook_of_the_book():
    if not CHAPTERS:
        pytest.skip("no chapter is written yet")
    assert sorted(book.chapters(ROOT)) == CHAPTERS


# --- what a reader fills in, and what was recorded ---------------------------------------------------------------------

GAP_CELL = "def twice(x):\n    return ..."
CHECK_CELL = "check(twice, lambda x: x + x, torch.ones(3))"
SOLVED = "<details><summary>Solution</summary>\n\n```python\ndef twice(x):\n    return 2 * x\n```\n\n</details>"


@pytest.mark.parametrize(
    "yours, said",
    [
        (lambda x: ..., "Still a gap"),
        (lambda x: None, "Still a gap"),
        (lambda x: x @ ..., "Still a gap"),
        (lambda x: x.nothing, "Not yet: AttributeError"),
        (lambda x: x.sum(0), "Not yet: your result has the shape (3,), and the book's (3, 3)"),
        (lambda x: 4 * (x @ x), "Not yet: your result is 4 times the book's everywhere"),
        (lambda x: (x @ x).T, "Not yet: your result is the transpose of the book's"),
        (lambda x: x @ x + torch.eye(3)[1], "Not yet: the results differ, most at (0, 1): "),
        (lambda x: (x @ x).masked_fill(x > 6, torch.nan), "most at (2, 1): nan for 90"),
        (lambda x: x @ x, "Right: the same as the book's, 9 values"),
    ],
)
def test_a_check_says_right_or_what_is_wrong(capsys, yours, said):
    exercises.check(yours, lambda x: x @ x, torch.arange(9.0).view(3, 3))
    assert said in capsys.readouterr().out


def test_the_build_fills_a_gap_with_the_solution_below_it_and_the_source_keeps_the_gap(small_book):
    imports = "import torch\nfrom kdas_book.exercises import check"
    gap = new_code_cell(GAP_CELL, metadata={"tags": ["fill-in"]})
    cells = [imports, gap, CHECK_CELL, new_markdown_cell(SOLVED)]
    source = write_chapter(small_book, "01_first", *cells)
    assert run_cli(small_book, "--chapters", "01_first").returncode == 0
    executed = small_book / "_build" / "executed" / source.name
    assert "Right: the same as the book's, 3 values." in printed(executed)
    assert "return ..." in source.read_text() and "Solution" in source.read_text()
    assert "return ..." not in executed.read_text() and "Solution" not in executed.read_text()


def test_numbers_of_a_chapter_stand_beside_the_recorded_ones_and_replace_them_when_recorded(
    tmp_path,
):
    (tmp_path / records.NUMBERS).parent.mkdir(parents=True)
    shown = records.Numbers("01_first", {"Dice": "0.5", "epochs": "8"}, {"Dice": "0.9"})
    assert shown.table.loc["Dice"].tolist() == ["0.5", "0.9"]
    assert shown.table.loc["epochs"].tolist() == ["8", "not recorded"]
    for chapter in ("01_first", "02_second"):
        bundle = records.Numbers(chapter, {"Dice": "0.5"}, {})._repr_mimebundle_()
        records.record_numbers(tmp_path, [{"cells": [{"outputs": [{"data": bundle}]}]}])
    bundle = records.Numbers("01_first", {"IoU": "0.4"}, {})._repr_mimebundle_()
    records.record_numbers(tmp_path, [{"cells": [{"outputs": [{"data": bundle}]}]}])
    assert records.read_numbers(tmp_path, "01_first") == {"IoU": "0.4"}
    assert records.read_numbers(tmp_path, "02_second") == {"Dice": "0.5"}


# --- the whole book ---------------------------------------------------------------------------------------------------


class Images(HTMLParser):
    """Collects the alt texts of a page's pictures; the theme's logo stands beside the title and needs none."""

    def __init__(self, page: str):
        super().__init__()
        self.alts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        if tag == "img" and "logo__image" not in (about.get("class") or ""):
            self.alts.append((about.get("alt") or "").strip())


def foreign_requests(page: str) -> list[str]:
    """What a page would fetch from elsewhere when it is opened."""
    page = re.sub(
        r'<link\b[^>]*\brel="canonical"[^>]*>', "", page
    )  # says where the page is, and fetches nothing
    return re.findall(
        r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="((?:https?:)?//[^"]+)"', page
    )


@pytest.mark.slow
def test_the_whole_book_runs_at_smoke_and_has_all_its_pages(whole_book):
    site = whole_book / "_build" / "html"
    assert (site / "index.html").is_file()
    assert [c.stem for c in CHAPTERS if not (site / "book" / f"{c.stem}.html").is_file()] == []


@pytest.mark.slow
def test_every_picture_of_the_site_has_an_alt_text_and_no_page_fetches_from_elsewhere(whole_book):
    pages = {
        page.name: page.read_text()
        for page in (whole_book / "_build" / "html" / "book").glob("*.html")
    }
    assert [name for name, page in pages.items() if not all(Images(page).alts)] == []
    assert {
        name: foreign_requests(page) for name, page in pages.items() if foreign_requests(page)
    } == {}


@pytest.mark.slow
@each_chapter
def test_the_solutions_run_in_the_state_that_their_chapter_leaves(whole_book, chapter):
    executed = code_cells(whole_book / "_build" / "executed" / chapter.name)
    ran = [cell for cell in executed if "solution" in cell.metadata]
    said = {
        cell.metadata.solution: "".join(o.get("text", "") for o in cell.outputs) for cell in ran
    }
    assert [label for label, _ in solution_code(chapter)] == [
        cell.metadata.solution for cell in ran
    ]
    assert {label: text for label, text in said.items() if "failed: Traceback" in text} == {}


@pytest.mark.slow
@each_full_chapter
def test_every_gap_is_filled_in_the_built_book_and_its_check_says_right(whole_book, chapter):
    executed = code_cells(whole_book / "_build" / "executed" / chapter.name)
    said = {
        cell.id: "".join(o.get("text", "") for o in cell.outputs)
        for cell in executed
        if "solution" not in cell.metadata
        and any(name_of(c) == "check" for c in calls(cell.source))
    }
    checks = [check.id for _, _, check, _ in fill_ins(chapter)]
    assert {cell: said[cell] for cell in checks if not said[cell].startswith("Right")} == {}


@pytest.mark.slow
@each_chapter
def test_every_caption_stands_on_the_page_once(whole_book, chapter):
    page = (whole_book / "_build" / "html" / "book" / f"{chapter.stem}.html").read_text()
    shown = [*captions(chapter).values(), *tables(chapter)]
    names = [figure.get("name") for figure in shown]
    assert [name for name in names if page.count(f'id="{name}"') != 1] == []
    sliders = page.count('class="kdas-explore"')
    assert (
        page.count("<figcaption") == len(names) + sliders
    )  # a cell with a second output would caption that as well
    assert "traceback.format_exc" not in page  # the solutions' cells are not shown


@pytest.mark.slow
@each_chapter
def test_every_table_that_a_cell_shows_has_a_caption_but_for_times_and_recorded_numbers(
    whole_book, chapter
):
    page = (whole_book / "_build" / "html" / "book" / f"{chapter.stem}.html").read_text()
    boxes = BeautifulSoup(page, "html.parser").select(".cell_output .table-box")
    bare = [box.get_text(" ", strip=True)[:60] for box in boxes if not box.find_parent("figure")]
    assert [words for words in bare if not re.search("this build|recorded|preset", words)] == []


@pytest.mark.slow
def test_no_chapter_writes_to_standard_error(whole_book):
    noisy = {}
    for chapter in CHAPTERS:
        for i, cell in enumerate(code_cells(whole_book / "_build" / "executed" / chapter.name), 1):
            said = "".join(
                o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"
            )
            if said:
                noisy[f"{chapter.stem}, code cell {i}"] = said[:300]
    assert noisy == {}, json.dumps(noisy, indent=1)
