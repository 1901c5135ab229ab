"""The way to Colab: one address in two places, and the first cell on a machine that has PyTorch and nothing of ours."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import tomllib
import yaml
from conftest import CHAPTERS, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kdas_book.colab import _MINUTES, _TRAINS, repository, set_repository, welcome
from kdas_book.records import clock, read_times
from kdas_core import UserError

HUB = "https://github.com/somebody/kdas-book"


def first_code_cell(chapter: Path) -> str:
    return next(
        cell.source
        for cell in nbformat.read(chapter, as_version=4).cells
        if cell.cell_type == "code"
    )


def setup_cell(url: str = "") -> str:
    """The first cell as it is for a repository of this address."""
    place = f'repository, revision = "{repository(ROOT)}"'
    return first_code_cell(CHAPTERS[0]).replace(place, f'repository, revision = "{url}"')


@pytest.fixture
def copy(tmp_path):
    """The files that know the address."""
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "_config.yml", tmp_path)
    for chapter in CHAPTERS[:2]:
        shutil.copy(chapter, tmp_path / "book")
    return tmp_path


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_begins_with_the_setup_for_the_address_of_the_pages(chapter):
    branch = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["branch"]
    cell = first_code_cell(chapter)
    assert f'\nrepository, revision = "{repository(ROOT)}", "{branch}"\n' in cell
    first, name = first_code_cell(CHAPTERS[0]), CHAPTERS[0].stem
    assert cell == first.replace(f'welcome("{name}")', f'welcome("{chapter.stem}")')


def test_one_command_writes_the_address_everywhere_and_takes_it_out_again(copy):
    before = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    written = set_repository(copy, HUB + ".git", "v1.0")
    assert len(written) == 3 and repository(copy) == HUB
    config = yaml.safe_load((copy / "_config.yml").read_text())
    assert config["html"]["baseurl"] == "https://somebody.github.io/kdas-book/"
    assert config["launch_buttons"]["colab_url"] and config["launch_buttons"]["binderhub_url"]
    assert (
        config["repository"]["branch"] == "v1.0" and config["html"]["use_repository_button"] is True
    )
    for chapter in copy.glob("book/*.ipynb"):
        assert f'repository, revision = "{HUB}", "v1.0"' in first_code_cell(chapter)
    set_repository(copy, "")
    assert {file: file.read_bytes() for file in before} == before


def test_colab_and_binder_are_offered_for_repositories_that_they_can_open(copy):
    set_repository(copy, "https://git.example.org/group/kdas")
    config = yaml.safe_load((copy / "_config.yml").read_text())
    assert not config["launch_buttons"]["colab_url"] and not config["html"]["baseurl"]


@pytest.mark.parametrize(
    "wrong",
    [
        "github.com/a/b",
        "http://github.com/a/b",
        "https://github.com/a",
        'https://github.com/a/b"',
        "git@x:a/b",
    ],
)
def test_what_is_no_address_is_refused_and_nothing_is_written(copy, wrong):
    before = {file: file.read_bytes() for file in copy.rglob("*.*") if file.is_file()}
    with pytest.raises(UserError, match="is no address of a repository"):
        set_repository(copy, wrong)
    assert {file: file.read_bytes() for file in before} == before


def test_a_reader_without_a_gpu_is_told_in_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    welcome("03_student")
    said = capsys.readouterr().out
    assert said.count("No GPU is on") == 1 and "kdas_core 0" in said and "drive.mount" in said
    recorded = read_times(ROOT).set_index(["preset", "chapter"]).loc[("smoke", "03_student")]
    assert f"This chapter: {clock(recorded.seconds)} minutes" in said and "measured" in said
    assert "about 17 minutes of training on a T4, our estimate" in said  # 12 and 5
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    card = SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    welcome("01_data")
    said = capsys.readouterr().out
    assert "No GPU" not in said and "GPU: Tesla T4 with 15 GB." in said
    assert "; no long training." in said


@pytest.mark.parametrize(
    "file", sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb")), ids=lambda f: f.stem
)
def test_the_first_cell_knows_its_chapter_and_what_that_trains(file):
    cells = [c["source"] for c in nbformat.read(file, 4).cells if c["cell_type"] == "code"]
    assert f'welcome("{file.stem}")' in cells[0]
    code = "\n".join(cells)
    asked = set(re.findall(r"run\.(?:student|history|metrics|folder|snapshots)\(\"(\w+)\"", code))
    trains = {"distilled" if name not in _MINUTES else name for name in asked}
    trains |= {"teacher"} if trains or "run.teacher()" in code else set()
    listed = set(_TRAINS.get(file.stem, []))
    assert trains <= listed and bool(trains) == bool(listed)


# --- what Colab has installed stays as it is --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "tests" / "colab_pins.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, version in pinned}


def changes(pins: dict[str, str], requirements: list[str]) -> tuple[set[str], set[str]]:
    """What ``pip install`` of these would add to Colab, and what it would move there, also for the sake of what it adds."""
    added: set[str] = set()
    moved: set[str] = set()
    to_do = [Requirement(text) for text in requirements]
    while to_do:
        wanted = to_do.pop()
        name = canonicalize_name(wanted.name)
        if name in added or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        if name not in pins:
            added.add(name)
            to_do += map(Requirement, importlib.metadata.requires(name) or [])
        elif not wanted.specifier.contains(pins[name], prereleases=True):
            moved.add(name)
    return added, moved


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_first_cell_adds_one_small_package_to_colab_and_moves_none(pins):
    assert changes(pins, project()["dependencies"]) == ({"imagehash"}, set())


@pytest.mark.parametrize(
    "bound", ["ipykernel>=6.25", "ipywidgets>=8.0", "gdown>=6.5", "nbclient<0.5"]
)
def test_a_bound_that_colab_does_not_meet_is_seen(pins, bound):
    name = Requirement(bound).name
    assert changes(pins, [*project()["dependencies"], bound])[1] == {name}


def test_what_a_reader_on_colab_is_told_to_install_moves_nothing_that_google_pins(pins):
    """Papermill for studies, gdown for the data sets: one package each."""
    assert changes(pins, ["papermill"]) == ({"papermill"}, set())
    assert changes(pins, project()["optional-dependencies"]["download"]) == (set(), {"gdown"})
    assert changes(pins, importlib.metadata.requires("gdown") or []) == (set(), set())


def test_no_chapter_imports_what_colab_lacks():
    """What the chapters import can be imported in a process without these packages."""
    sources = (
        cell.source
        for chapter in CHAPTERS
        for cell in nbformat.read(chapter, as_version=4).cells
        if cell.cell_type == "code"
    )
    nodes = [node for source in sources for node in ast.parse(source).body]
    imports = dict.fromkeys(
        ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))
    )
    lacking = "import sys\nfor name in ('gdown', 'papermill'): sys.modules[name] = None"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([lacking, *imports])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# --- the first cell ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def like_colab(tmp_path_factory):
    """A Python with PyTorch and our other dependencies, and without kdas_core."""
    home = tmp_path_factory.mktemp("colab")
    venv.create(home / "env", with_pip=True)
    python = home / "env" / "bin" / "python"
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    for old in Path(site.strip()).glob(
        "setuptools*"
    ):  # Python 3.11 brings one that is older than ours
        shutil.rmtree(old)
    # A folder that a .pth file names is searched; the .pth files in it, among them that of kdas_core, are not read.
    (Path(site.strip()) / "there.pth").write_text(sysconfig.get_path("purelib"))
    return home, python


def run_setup(python: Path, home: Path, cell: str, then: str = "") -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    # No network: what builds the package is there already. (To pip "0" means: no isolation.)
    environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    return subprocess.run(
        [python, "-c", f"{cell}\n{then}"], cwd=home, env=environment, capture_output=True, text=True
    )


def test_the_first_cell_fetches_and_installs_the_book_once(like_colab, tmp_path):
    home, python = like_colab
    source = tmp_path / "source"
    for name in ("kdas_core", "kdas_book"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "_toc.yml"):
        shutil.copy(ROOT / name, source)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", source]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    cell = setup_cell(f"file://{source}")
    then = (
        "import kdas_core, kdas_book.paths; print(kdas_core.__file__, kdas_book.paths.find_root())"
    )
    first = run_setup(python, home, cell, then)
    assert first.returncode == 0, first.stderr
    book = home / "kdas-book"
    assert first.stdout.split() == [str(book / "kdas_core" / "__init__.py"), str(book)]
    shutil.rmtree(source)  # a second run needs nobody: the book is there
    again = run_setup(python, home, cell, then)
    assert again.returncode == 0 and again.stdout == first.stdout and again.stderr == ""


def test_without_an_address_the_first_cell_says_what_to_do(like_colab, tmp_path):
    _, python = like_colab
    alone = tmp_path / "alone.py"
    alone.write_text(
        setup_cell().replace('find_spec("kdas_core")', 'find_spec("kdas_core_of_nobody")')
    )
    done = subprocess.run([sys.executable, alone], capture_output=True, text=True)
    assert done.returncode == 1 and "does not know its repository" in done.stderr
