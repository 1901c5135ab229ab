"""What is written when the disk is full, when a file of others is in the way, or when another program writes there too."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import kdas
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from kdas_book import records
from kdas_book.callbacks import TensorBoard
from kdas_book.data.synthetic import write_sheet
from kdas_book.figures import display
from kdas_book.files import refuse_foreign, write_together
from kdas_book.publishing import run_notebook as runner
from kdas_book.reports.release_config import from_config
from kdas_book.study import results as study_results
from kdas_core import UserError, files
from kdas_core.data import load_data
from kdas_core.inference import predict_files
from kdas_core.models import build, freeze, save_weights
from kdas_core.recipe import preset
from kdas_core.training import fit
from kdas_core.training.checkpoint import append_steps

FULL = "cannot be written .the disk is full.; "


class Full:
    """A file of a disk that is full when half of some content is written."""

    def __init__(self, path, *mode, **options):
        self.file = open(path, *mode, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch):
    """From here on no file fits any more."""

    def write_bytes(path, content):
        with Full(path, "wb") as file:
            file.write(content)

    monkeypatch.setattr(files, "open", Full, raising=False)
    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def scored(tmp_path_factory, polyps) -> Path:
    """A folder with predictions, weights, and the scores of the predictions."""
    home = tmp_path_factory.mktemp("scored")
    torch.manual_seed(0)
    save_weights(build("student"), home / "w.safetensors", role="student", size=32)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("Kvasir", "CVC-300"):
            images = polyps / "TestDataset" / name / "images"
            where = ("--images", images, "--out", home / "P" / name)
            assert kdas(patch, "predict", "--weights", home / "w.safetensors", *where) == 0
        assert kdas(patch, *evaluation(home, polyps), "--out", home / "scores") == 0
    return home


def evaluation(home: Path, polyps: Path) -> tuple:
    roots = "--pred-root", home / "P", "--gt-root", polyps / "TestDataset"
    return "evaluate", *roots, "--datasets", "Kvasir,CVC-300"


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["predict", "json", "out", "config", "compare", "styles"])
def test_on_a_full_disk_a_command_ends_in_a_sentence_and_leaves_what_was_there(
    scored, polyps, tmp_path, monkeypatch, capsys, full_disk, what
):
    home = tmp_path / "home"
    home.mkdir()
    config = tmp_path / "eval.yaml"
    roots = f"{{gt_root: {polyps / 'TestDataset'}, pred_root: {scored / 'P'}, result_path: {home}"
    config.write_text(f"Eval: {roots}, datasets: [Kvasir], metrics: [meanDic]}}\n")
    images = polyps / "TestDataset" / "Kvasir" / "images"
    masks = "--images", images, "--out", home / "P", "--afresh"
    metrics = [scored / "scores" / "metrics.json"] * 2
    words = {
        "predict": ("predict", "--weights", scored / "w.safetensors", *masks),
        "json": (*evaluation(scored, polyps), "--json", home / "a.json"),
        "out": (*evaluation(scored, polyps), "--out", home / "scores"),
        "config": ("evaluate", "--config", config),
        "compare": ("compare", *metrics, "--csv", home / "c.csv"),
        "styles": ("data", "styles", "--out", home / "styles.jpg", "--columns", 1),
    }[what]
    if what == "predict":
        shutil.copytree(scored / "P" / "Kvasir", home / "P")
    if what == "out":
        shutil.copytree(scored / "scores", home / "scores")
    before = content(home)
    assert kdas(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot be written (the disk is full); " in error
    assert content(home) == before


def test_an_error_that_nobody_caught_is_a_sentence_too_where_the_disk_is_full(monkeypatch, capsys):
    def cut(*_, **options):
        raise OSError(options.get("number", errno.ENOSPC), "No space left on device", "x/y.txt")

    monkeypatch.setattr("kdas_book.data.synthetic.make_dataset", cut)
    assert kdas(monkeypatch, "data", "synthetic", "--out", "x") == 2
    assert "kdas: x/y.txt cannot be written (the disk is full); " in capsys.readouterr().err
    monkeypatch.setattr(
        "kdas_book.data.synthetic.make_dataset", lambda *a, **o: cut(number=errno.EIO)
    )
    with pytest.raises(OSError):  # a fault of the program, or of the machine, is not hidden
        kdas(monkeypatch, "data", "synthetic", "--out", "x")


def test_the_table_of_steps_has_no_half_row_after_a_full_disk(tmp_path, monkeypatch):
    rows = [{"epoch": 1, "step": step, "total": 1 / step} for step in (1, 2, 3)]
    size = append_steps(tmp_path, rows, 0)
    before = (tmp_path / "steps.csv").read_bytes()
    text = pd.DataFrame.to_csv

    def cut(table, *where, **options):
        (tmp_path / "steps.csv").open("ab").write(text(table, **options).encode()[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"steps.csv {FULL}"):
        patch.setattr(pd.DataFrame, "to_csv", cut)
        append_steps(tmp_path, rows, size)
    assert (tmp_path / "steps.csv").read_bytes() == before
    assert append_steps(tmp_path, rows, size) == len((tmp_path / "steps.csv").read_bytes()) > size


def test_tensorboard_on_a_full_disk_stops_the_training_in_a_sentence(tmp_path, polyps, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def cut(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    data = load_data(polyps, validation_fraction=0.2)
    recipe = preset("smoke", image_size=32, batch_size=4, epochs=1, train_images=None)
    recipe = type(recipe)(**{**vars(recipe), "objective": "supervised"})
    monkeypatch.setattr(SummaryWriter, "add_scalar", cut)
    with pytest.raises(UserError, match=f"{FULL}.*the same command goes on"):
        fit(recipe, data, tmp_path, callback=TensorBoard())


def test_of_several_files_none_is_replaced_if_the_last_does_not_fit(tmp_path, full_disk):
    old, new = tmp_path / "a.csv", tmp_path / "below" / "b.csv"
    old.write_text("old")
    with pytest.raises(UserError, match=f"a.csv {FULL}"):
        write_together({old: "new", new: b"more"})
    assert content(tmp_path) == {"a.csv": b"old"}


def test_recorded_times_and_numbers_outlive_a_full_disk(tmp_path, monkeypatch, full_disk):
    times = tmp_path / records.TIMES
    times.parent.mkdir(parents=True)
    times.write_text(
        "preset,chapter,seconds,peak_mb,machine,date\nsmoke,00_a,1.0,2,here,2024-01-01\n"
    )
    before = content(tmp_path)
    with pytest.raises(UserError, match=f"chapter_times.csv {FULL}"):
        records.record(tmp_path, "smoke", {"01_b": (3.0, 4.0)})
    with pytest.raises(UserError, match=f"chapter_numbers.csv {FULL}"):
        records.record_numbers(tmp_path, [])
    assert content(tmp_path) == before


def test_results_that_do_not_fit_are_not_restored_in_part(tmp_path, monkeypatch):
    kept, folder = tmp_path / "kept", tmp_path / "study"
    kept.mkdir()
    (folder / "kdas-seed0").mkdir(parents=True)
    (folder / "kdas-seed0" / "history.csv").write_text("mine")
    with study_results.ZipFile(kept / "study_cells.zip", "w") as archive:
        for name in ("history.csv", "metrics.json"):
            archive.writestr(f"kdas-seed0/{name}", "x" * 100)

    def cut(archive, folder, names):
        (folder / names[0]).write_text("xx")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(study_results.ZipFile, "extractall", cut)
    with pytest.raises(UserError, match=FULL):
        study_results.restore(folder, kept)
    assert content(folder) == {"kdas-seed0/history.csv": b"mine"}


def test_a_chapter_that_does_not_fit_leaves_no_half_copy(tmp_path, monkeypatch):
    source = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), source)

    def cut(_, executed, *__, **___):
        Path(executed).write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner.papermill, "execute_notebook", cut)
    with pytest.raises(UserError, match=f"a.ipynb {FULL}"):
        runner.run_notebook(source, tmp_path / "out" / "a.ipynb", {}, tmp_path / "home")
    assert not list((tmp_path / "out").iterdir())


# --- two programs -----------------------------------------------------------------------------------------------------


def test_two_programs_do_not_draw_masks_into_one_folder(tmp_path, monkeypatch):
    """The second is told so, and leaves everything as it is; afterwards there is nothing but masks."""
    net, out = freeze(build("student")), tmp_path / "out"
    images = [tmp_path / f"{i}.png" for i in range(2)]
    for path in images:
        Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(path)
    out.mkdir()
    with FileLock(out / ".lock"):
        with pytest.raises(UserError, match=f"Another program draws masks into {out}; wait for it"):
            predict_files(net, images, out, 32)
        assert [path.name for path in out.iterdir()] == [".lock"]
    assert predict_files(net, images, out, 32) == 2
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png"]

    def no_locks(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr("kdas_core.files.FileLock.acquire", no_locks)  # as on some drives
    assert predict_files(net, images, out, 32, afresh=True) == 2


# --- files of others --------------------------------------------------------------------------------------------------

THERE = "is there already and is no .*; choose another place"


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_others_wrote_is_not_replaced(tmp_path, kind):
    path = tmp_path / "x"
    refuse_foreign(path, "table of ours", lambda file: False)  # nothing is there
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")

    def is_ours(file):
        return file.read_bytes().startswith(b"ours")

    with pytest.raises(UserError, match="x is there already and is no table of ours; choose"):
        refuse_foreign(path, "table of ours", is_ours)
    if kind == "file":
        path.write_text("ours, too")
        refuse_foreign(path, "table of ours", is_ours)


@pytest.mark.parametrize("mine", ["dataset,name\n", "", "mine"])
def test_a_comparison_replaces_its_own_table_alone(scored, tmp_path, monkeypatch, capsys, mine):
    words = ["compare", *[scored / "scores" / "metrics.json"] * 2, "--csv", tmp_path / "c.csv"]
    (tmp_path / "c.csv").write_text(mine)
    assert kdas(monkeypatch, *words) == 2
    assert "c.csv is there already and is no table of kdas compare; " in capsys.readouterr().err
    assert (tmp_path / "c.csv").read_text() == mine
    (tmp_path / "c.csv").unlink()
    assert [kdas(monkeypatch, *words), kdas(monkeypatch, *words, "--metric", "mae")] == [0, 0]


def test_a_config_replaces_its_own_table_alone(scored, polyps, tmp_path):
    config = tmp_path / "eval.yaml"
    roots = f"gt_root: {polyps / 'TestDataset'}, pred_root: {scored / 'P'}"
    config.write_text(
        f"Eval: {{{roots}, result_path: {tmp_path}, datasets: [Kvasir], metrics: [mae]}}\n"
    )
    (tmp_path / "result_all.csv").write_text("dataset,mine\n")
    before = content(tmp_path)
    with pytest.raises(UserError, match=f"result_all.csv {THERE}"):
        from_config(config)
    assert content(tmp_path) == before
    (tmp_path / "result_all.csv").unlink()
    from_config(config)
    assert from_config(config)["Kvasir"].n == 3


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_replaces_its_own_alone(tmp_path, suffix):
    figure, path = plt.figure(), tmp_path / f"f.{suffix}"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"f.{suffix} {THERE}"):
        display.save(figure, path)
    assert path.read_bytes() == b"mine"
    path.unlink()
    for _ in range(2):
        display.save(figure, path)
    plt.close(figure)


def test_a_sheet_of_styles_has_the_name_of_a_picture(tmp_path):
    with pytest.raises(UserError, match="s.gif is no name of a picture; name a .jpg or .png file"):
        write_sheet(tmp_path / "s.gif", columns=1, height=40)
    assert os.listdir(tmp_path) == []
