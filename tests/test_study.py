"""Studies: what a file and a folder may say, that cells differ in nothing but what they should, and what running them survives."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from conftest import kdas
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image, ImageOps
from safetensors.torch import load_file

from kdas_book.data.open_data import data_digest, open_data
from kdas_book.session import begin
from kdas_book.study import cell as cells
from kdas_book.study import executors as engines
from kdas_book.study import run_cell as execute
from kdas_book.study import run_study as running
from kdas_book.study.results import load
from kdas_book.study.run_study import run
from kdas_book.study.spec import open_folder, read_study
from kdas_core import UserError
from kdas_core.data import load_data
from kdas_core.data.masks import read_mask
from kdas_core.models import build, freeze, teacher_logits
from kdas_core.models.weights import weights_digest
from kdas_core.recipe import preset
from kdas_core.training import loop as training
from kdas_core.training.checkpoint import load_history, read_checkpoint

ROOT = Path(__file__).parent.parent
TINY = {
    "image_size": 32,
    "batch_size": 2,
    "epochs": 2,
    "teacher_epochs": 1,
    "train_images": None,
    "test_images": 1,
    "validation_fraction": 0.2,
}

# --- studies in miniature ---------------------------------------------------------------------------------------------

# What stands for a training: notes that it has begun, does what the test wants, leaves a record, notes that it has finished.
BEGUN = """
import json, os, signal, time
from pathlib import Path

out = Path(out)
study = out.parent

def note(what):
    with open(study / f"{what}.txt", "a") as file:
        file.write(out.name + "\\n")

def noted(what):
    file = study / f"{what}.txt"
    return file.read_text().split() if file.exists() else []

def wait_until(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)

note("begun")
student = objective != "teacher"
"""
FINISHED = """
for name in ("history.csv", "per_image.csv"):
    (out / name).write_text("x\\n")
threads = os.environ["OMP_NUM_THREADS"]
(out / "metrics.json").write_text(json.dumps({"schema": 1, "data": {"name": Path(data_root).name}, "threads": threads}))
note("finished")
"""
AT_THE_GATE = "wait_until(lambda: not student or (study.parent / 'gate').exists())"


@pytest.fixture
def template(tmp_path, monkeypatch) -> Callable[..., None]:
    """``template(code, …)`` makes a repository whose cells run this code instead of a training, and goes there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write(*code: str) -> None:
        real = nbformat.read(ROOT / "book" / "run_template.ipynb", as_version=4)
        parameters = next(
            cell for cell in real.cells if "parameters" in cell.metadata.get("tags", [])
        )
        made = [parameters, *map(new_code_cell, (BEGUN, *code, FINISHED))]
        (tmp_path / "book").mkdir(exist_ok=True)
        nbformat.write(
            new_notebook(cells=made, metadata=real.metadata),
            tmp_path / "book" / "run_template.ipynb",
        )
        (tmp_path / "_toc.yml").touch()
        monkeypatch.chdir(tmp_path)

    return write


@pytest.fixture
def study_file(tmp_path, polyps) -> Callable[..., Path]:
    """``study_file(field=value, …)`` writes a study of the tiny benchmark."""

    def write(**values) -> Path:
        plain = {
            "name": "tiny",
            "seeds": [0],
            "objectives": ["supervised", "kdas"],
            "data_root": str(polyps),
        }
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(plain | values))
        return tmp_path / "study.yaml"

    return write


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.05)


def noted(folder: Path, what: str) -> list[str]:
    """The cells that have begun, or finished, in order."""
    return (folder / f"{what}.txt").read_text().split() if (folder / f"{what}.txt").exists() else []


def tree(process: int) -> list[psutil.Process]:
    """The processes below one."""
    return psutil.Process(process).children(recursive=True)


def gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    """Have all of them ended by themselves?"""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


@contextmanager
def started(*words: object, **options):
    """A program of ours beside the test; whatever is left of it at the end is killed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], env=environment, text=True, **options
    )
    try:
        yield process
    finally:
        left = tree(process.pid) if process.poll() is None else []
        for one in (*left, process):
            one.kill()
        process.wait()


def study_run(*words: object):
    """``kdas study run`` as a process. Ctrl-C works in it, also where the tests themselves run in the background."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from kdas_book.cli import main; main()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return started("-c", code, "study", "run", *words, **pipes)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("seed: 3", "has no use for seed; the fields are name, objectives, seeds"),
        ("objectives: [supervised, kd]", r'kd: there is no objective "kd"|kd: .*kd.*'),
        (
            "settings: {epoch: 3}",
            "settings: there is no hyperparameter epoch; the hyperparameters are",
        ),
        ("settings: {epochs: two}", "settings: epochs='two' does not fit; epochs is like 99"),
        ("settings: {epochs: 0}", "supervised: epochs is 0; it must be positive"),
        ("settings: [epochs]", r"settings is \['epochs'\]; it is like \{'epochs': 2\}"),
        (
            "settings: {seed: 1, objective: kdas}",
            "settings: objective, seed is set by the study itself",
        ),
        ("objectives: {kdas: {teacher_seed: 4}}", "kdas: teacher_seed is set by the study itself"),
        ("objectives: {kdas: {aplha: 0.5}}", "kdas: there is no hyperparameter aplha"),
        (
            "objectives: {kdas: 0.5}",
            "objectives is a list of names, or label: {objective: name, hyperparameter: value}",
        ),
        (
            "objectives: [supervised, {kdas: {alpha: 0.5}}]",
            "objectives is a list of names, or label",
        ),
        (
            "objectives: [kdas, kdas]",
            "kdas and kdas stand side by side; each label may stand there once",
        ),
        (
            "objectives: {KDAS: {objective: kdas, alpha: 0.1}, kdas: }",
            "KDAS and kdas stand side by side",
        ),
        (
            "objectives: {kdas: {alpha: 0.1}, kdas: {alpha: 0.2}}",
            "cannot be read as YAML .kdas occurs twice, line 2",
        ),
        (
            "objectives: {a: {objective: kdas, alpha: 1}, b: {objective: kdas, alpha: 1.0}}",
            "a-seed0 and b-seed0 are the same cell",
        ),
        ("objectives: {../kdas: {objective: kdas}}", r'"\.\./kdas" cannot be the name of a folder'),
        (
            "objectives: {teacher: {objective: supervised}}",
            '"teacher" cannot be the name of a folder',
        ),
        (
            "objectives: {kdas: , small: {objective: kdas, batch_size: 4}}",
            "small sets batch_size, .* another teacher",
        ),
        ("seeds: [0, 1, 0]", "supervised-seed0 and supervised-seed0 are the same cell"),
        ("seeds: 3", r"seeds is 3; it is like \[0, 1, 2\]"),
        ("seeds: [0.5]", r"seeds is \[0.5\]; it is like \[0, 1, 2\]"),
        ("seeds: []", "lacks seeds"),
        ("name: ..", r'"\.\." cannot be the name of a folder'),
        ("name: 7", "name is 7; it is like 'mine'"),
        ("preset: huge", 'there is no preset "huge"'),
        ("preset: [smoke]", r"preset is \['smoke'\]; it is like 'smoke'"),
        ("teacher_seed: first", "teacher_seed is 'first'; it is like 0"),
        ("name: [tiny", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_in_a_study_file_is_said_in_one_sentence(tmp_path, text, sentence):
    plain = {"name": "name: tiny", "seeds": "seeds: [0]", "objectives": "objectives: [supervised]"}
    plain[text.partition(":")[0]] = text
    (tmp_path / "wrong.yaml").write_text("\n".join(sorted(plain.values())))
    with pytest.raises(UserError, match=f"(?i)wrong.yaml.*(?:{sentence})") as error:
        read_study(tmp_path / "wrong.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (
            None,
            "cannot be read as YAML .*No such file.*; a study is a file such as book/studies/smoke",
        ),
        (b"just words", "is no study: fields and their values are expected"),
        (b"", "is no study"),
        (b"name: \xff", "cannot be read as YAML"),
    ],
)
def test_a_wrong_study_file_ends_the_command_before_anything_is_written(
    tmp_path, monkeypatch, capsys, content, sentence
):
    file = tmp_path / "study.yaml"
    if content is not None:
        file.write_bytes(content)
    assert kdas(monkeypatch, "study", "run", file, "--runs-dir", tmp_path / "runs") == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_values_have_the_types_of_their_hyperparameters_and_the_file_written_back_says_the_same(
    study_file, tmp_path
):
    kd = {"objective": "kdas", "alpha": 1}
    study = read_study(
        study_file(objectives={"kd": kd}, settings={"learning_rate": "1e-3", "scales": [1]})
    )
    recipe = study.recipe(study.cells()[1])
    assert (recipe.learning_rate, recipe.alpha, recipe.scales, recipe.objective) == (
        1e-3,
        1.0,
        (1,),
        "kdas",
    )
    (tmp_path / "again.yaml").write_text(study.as_yaml())
    assert read_study(tmp_path / "again.yaml") == study


def test_a_data_folder_has_one_name_wherever_it_is_named_from(study_file, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    file = study_file()
    monkeypatch.chdir(tmp_path / "work")
    by_way = {
        read_study(file, way).data_root
        for way in ("../polyps", str(tmp_path / "polyps"), "./../polyps/")
    }
    assert by_way == {str(tmp_path / "polyps")}


def test_the_teacher_comes_first_and_a_study_cut_short_has_whole_seeds(study_file):
    study = read_study(study_file(seeds=[3, 1], teacher_seed=7))
    names = [cell.name for cell in study.cells()]
    assert names == ["teacher", "supervised-seed3", "kdas-seed3", "supervised-seed1", "kdas-seed1"]
    teachers = {study.recipe(cell).for_teacher() for cell in study.cells()}
    assert [teacher.seed for teacher in teachers] == [7]


def test_a_hyperparameter_of_the_teachers_training_may_differ_only_where_its_weights_are_a_file(
    study_file, tmp_path, template
):
    labels = {"kdas": None, "augmented": {"objective": "kdas", "augment": True}}
    study = read_study(study_file(objectives=labels, settings={"teacher_weights": "teacher.pth"}))
    template()
    with pytest.raises(UserError, match="augmented sets augment, which would make another teacher"):
        run(study, tmp_path / "runs")
    (tmp_path / "teacher.pth").touch()
    running.prepare(study, open_folder(study, tmp_path / "runs"))
    labels["other"] = {"objective": "kdas", "teacher_weights": "other.pth"}
    with pytest.raises(UserError, match="other sets teacher_weights"):
        read_study(study_file(objectives=labels, settings={"teacher_weights": "teacher.pth"}))


# --- the folder -------------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_with_other_things_is_refused_and_stays_as_it_is(study_file, tmp_path):
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "thesis.tex").write_text("years of work")
    before = snapshot(tmp_path / "runs")
    with pytest.raises(
        UserError, match="tiny holds other things than a study; give the study another name"
    ):
        run(read_study(study_file()), tmp_path / "runs")
    assert snapshot(tmp_path / "runs") == before


def test_a_folder_that_cannot_be_made_is_a_sentence(study_file, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot be written .*choose another --runs-dir"):
        run(read_study(study_file()), tmp_path / "runs")


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            {"settings": {"epochs": 3}},
            r"was begun with settings \{\}, and now it is \{'epochs': 3\}",
        ),
        ({"preset": "laptop"}, "was begun with preset 'smoke', and now it is 'laptop'"),
        ({"teacher_seed": 1}, "was begun with teacher_seed 0"),
        ({"data_root": "/elsewhere"}, "was begun with data_root .* now it is '/elsewhere'"),
        (
            {"objectives": {"kdas": {"alpha": 0.9}}},
            "kdas means another recipe; give the new one another label",
        ),
    ],
)
def test_the_folder_of_another_study_is_refused_and_stays_as_it_is(
    study_file, tmp_path, template, change, sentence
):
    template()
    study = read_study(study_file())
    running.prepare(study, open_folder(study, tmp_path / "runs"))
    before = snapshot(tmp_path / "runs")
    with pytest.raises(UserError, match=sentence):
        run(read_study(study_file(**change)), tmp_path / "runs")
    assert snapshot(tmp_path / "runs") == before


def test_a_study_that_was_cut_off_while_it_was_prepared_is_no_strangers_folder(
    study_file, tmp_path, monkeypatch, template
):
    template()
    study = read_study(study_file())

    def cut(path, data):
        if path.name == "cell.json":
            raise KeyboardInterrupt
        write(path, data)

    write = running.atomic_write
    monkeypatch.setattr(running, "atomic_write", cut)
    with pytest.raises(KeyboardInterrupt):
        running.prepare(study, open_folder(study, tmp_path / "runs"))
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir() if path.is_dir()], (
        "a cell's folder is there"
    )
    assert open_folder(study, tmp_path / "runs")


def test_texts_that_look_like_yaml_reach_the_notebook_as_they_are(study_file, tmp_path, template):
    template()
    study = read_study(
        study_file(objectives={"1e3": {"objective": "kdas"}, "null": {"objective": "supervised"}})
    )
    folder = open_folder(study, tmp_path / "my #1: runs")
    running.prepare(study, folder)
    for label in ("1e3", "null"):
        values = json.loads((folder / f"{label}-seed0" / "cell.json").read_text())["parameters"]
        assert (values["label"], values["out"]) == (label, str(folder / f"{label}-seed0"))
        assert values["runs_dir"] == str(folder / "networks") and values["settings"] == {
            "teacher_seed": 0
        }


def test_real_images_that_come_later_do_not_mix_with_synthetic_ones(
    study_file, tmp_path, template, polyps
):
    template()
    few = {"synthetic_images": 4, "synthetic_test_images": 1}
    study = read_study(study_file(data_root="", settings=few))
    folder = open_folder(study, tmp_path / "runs")
    running.prepare(study, folder)
    root = Path(
        json.loads((folder / "teacher" / "cell.json").read_text())["parameters"]["data_root"]
    )
    assert root.parent == folder / "networks" and root.name.startswith("synthetic")
    for name in ("history.csv", "per_image.csv"):
        (folder / "teacher" / name).touch()
    digest = data_digest(load_data(root))
    record = {"schema": 1, "data": {"name": root.name, "digest": digest}}
    (folder / "teacher" / "metrics.json").write_text(json.dumps(record))
    running.prepare(study, folder)
    (tmp_path / "data").symlink_to(polyps)
    with pytest.raises(
        UserError, match=r"teacher was trained on other images or masks than those of .*data; give"
    ):
        run(study, tmp_path / "runs")


def test_a_study_does_not_go_on_with_corrected_masks_of_any_set(polyps, tmp_path):
    root = shutil.copytree(polyps, tmp_path / "data")
    before = data_digest(load_data(root))
    for mask in (
        next((root / "TrainDataset" / "masks").iterdir()),
        *root.glob("Test*/*/masks/1.*"),
    ):
        with Image.open(mask) as image:
            flipped = ImageOps.mirror(image)
        flipped.save(mask)
        after = data_digest(load_data(root))
        assert after != before
        before = after
    moved = root.rename(tmp_path / "elsewhere")
    assert data_digest(load_data(moved)) == before


# --- what cells share -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(polyps):
    return load_data(polyps, validation_fraction=0.2)


@pytest.fixture
def one_thread():
    """As cells have it where they share the processors; such small networks gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def beginning(recipe, data, folder, monkeypatch):
    """(the untrained student's weights, names and scale of each step) of a training."""
    weights, steps = {}, []
    start, train_step = training.start_network, training.train_step

    def kept(*words):
        net = start(*words)
        weights.update({name: value.clone() for name, value in net.state_dict().items()})
        return net

    def noting(self, batch, scale, *rest):
        steps.append((*batch["name"], scale))
        return train_step(self, batch, scale, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "start_network", kept)
        patch.setattr(training, "train_step", noting)
        training.fit(recipe, data, folder, teacher=build("student"))
    return weights, steps


@pytest.mark.usefixtures("one_thread")
def test_a_seed_gives_all_objectives_the_same_start_and_the_same_batches(
    data, tmp_path, monkeypatch
):
    recipe = preset("smoke", **TINY | {"batch_size": 4, "scales": (1.0, 2.0), "random_scale": True})
    one, *others = (
        beginning(replace(recipe, objective=name), data, tmp_path, monkeypatch)
        for name in ("supervised", "kdas", "released")
    )
    drawn = sorted(name for *names, _ in one[1] for name in names)
    assert drawn == sorted(2 * [pair.name for pair in data.train]), "each image once an epoch"
    for weights, steps in others:
        assert steps == one[1]
        assert all(torch.equal(weights[name], value) for name, value in one[0].items())
    weights, steps = beginning(
        replace(recipe, objective="supervised", seed=1), data, tmp_path, monkeypatch
    )
    assert steps != one[1]
    assert any(not torch.equal(weights[name], value) for name, value in one[0].items())


@pytest.mark.usefixtures("one_thread")
def test_one_teacher_serves_all_seeds_and_another_teacher_seed_is_another_teacher(
    polyps, tmp_path, capsys
):
    hyperparameters = TINY | {"batch_size": 8}
    digests = [
        weights_digest(
            begin(
                "smoke", str(polyps), str(tmp_path), seed, teacher_seed=of, **hyperparameters
            ).teacher()
        )
        for seed, of in ((0, 0), (1, 0), (0, 1))
    ]
    assert digests[0] == digests[1] != digests[2]
    assert (
        len(list(tmp_path.glob("teacher-seed0-*")))
        == len(list(tmp_path.glob("teacher-seed1-*")))
        == 1
    )


@pytest.mark.usefixtures("one_thread")
def test_the_networks_of_the_best_and_of_the_last_epoch_are_told_apart(
    polyps, tmp_path, monkeypatch, capsys
):
    falling = iter((0.9, 0.1, 0.5))  # the student's first epoch is its best; then the teacher's one
    monkeypatch.setattr(
        training, "validate", lambda *_: {"val_loss": 1.0, "val_dice": next(falling)}
    )
    root = shutil.copytree(polyps, tmp_path / "polyps")
    first, second = (root / "TestDataset" / "Kvasir" / "images" / f"{i}.jpg" for i in (1, 2))
    shutil.copy(first, second)
    settings = TINY | {"batch_size": 8, "ema": 0.5, "test_images": None}
    run_ = begin("smoke", str(root), str(tmp_path / "networks"), 0, **settings)
    folder, out = run_.folder("supervised"), tmp_path / "supervised-seed0"
    best, last = (cells.network(run_, "supervised", epoch) for epoch in ("best", "last"))
    averaged = read_checkpoint(folder / "last.ckpt")["ema"]
    assert all(
        torch.equal(value, averaged[f"module.{name}"]) for name, value in last.state_dict().items()
    )
    kept = load_file(folder / "best.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in best.state_dict().items())
    assert weights_digest(best) != weights_digest(last)

    for net, everywhere in (
        (best, 100.0),
        (last, -100.0),
    ):  # one finds polyps everywhere, the other nowhere
        net.head1.bias.data.fill_(everywhere)
    scores = cells.score(run_, best, out), cells.score(run_, last, out / "last")
    assert not (out / "masks").exists() and not (out / "last").exists(), (
        "nothing is left of the masks"
    )
    record = cells.finish(run_, "supervised", "supervised", out, *scores)
    images = pd.read_csv(out / "per_image.csv")
    np.testing.assert_allclose(
        images["dice"], 2 * images["share"] / (1 + images["share"]), atol=2e-6
    )
    assert (
        (images["dice"] > 0).all()
        and (images["dice_last"] == 0).all()
        and images["agreement"].isna().all()
    )
    for name, of_set in record["sets"].items():
        assert of_set["best"]["dice"] == pytest.approx(
            images.loc[images["dataset"] == name, "dice"].mean(), abs=1e-6
        )
        assert of_set["last"]["dice"] == 0 and of_set["agreement"] is None, (
            "the teacher has drawn no masks here"
        )
    assert record["false_alarms"] == 1, "polyps everywhere"
    calibration = record["sets"]["Kvasir"]["calibration_error"]
    background = 1 - images.loc[images["dataset"] == "Kvasir", "share"].mean()
    assert calibration == pytest.approx(background, abs=1e-6), "sure, and wrong on all background"
    again = images.loc[images["repeat"], ["dataset", "name"]].to_numpy().tolist()
    assert again == [["Kvasir", 2]], "the second image has the bytes of the first"
    assert (record["best_epoch"], record["epochs"], record["validation_dice"]) == (1, 2, 0.9)


# --- processes of this machine ----------------------------------------------------------------------------------------

TOGETHER = "wait_until(lambda: not student or len(noted('begun')) >= 3)"


def test_a_teacher_remembers_what_it_has_said(tmp_path):
    torch.manual_seed(0)
    net, seen = freeze(build("student")), []
    images = torch.rand(2, 3, 32, 32)
    computed = teacher_logits(net, images)
    net.head1.register_forward_hook(lambda *_: seen.append(1))
    cells.remember(net, tmp_path / "maps")
    laid_out = images.contiguous(memory_format=torch.channels_last)
    for given in (images, laid_out, images.clone()):  # a layout in memory is not another image
        assert all(map(torch.equal, teacher_logits(net, given), computed))
    assert len(seen) == 1 and len(list((tmp_path / "maps").iterdir())) == 1
    teacher_logits(net, images + 1e-6), teacher_logits(net, images, features=True), net(images)
    assert len(seen) == 4, "other images, features and gradients are computed"


def test_two_cells_that_remember_the_same_at_once_do_not_write_one_file(tmp_path, monkeypatch):
    """They did: one renamed what the other had just cut to nothing."""
    net, images, drafts = freeze(build("student")), torch.rand(1, 3, 32, 32), []
    computed = teacher_logits(net, images)
    cells.remember(net, tmp_path)
    write = cells.atomic_write

    def meanwhile(path, data):
        drafts.append(path)
        with monkeypatch.context() as other:
            other.setattr(cells.os, "getpid", lambda: -1)
            other.setattr(cells, "atomic_write", lambda p, d: write(drafts.append(p) or p, d))
            assert all(map(torch.equal, teacher_logits(net, images), computed))
        write(path, data)

    monkeypatch.setattr(cells, "atomic_write", meanwhile)
    assert all(map(torch.equal, teacher_logits(net, images), computed))
    assert len(set(drafts)) == 2 and len(list(tmp_path.iterdir())) == 1
    assert all(map(torch.equal, teacher_logits(net, images), computed))


def test_cells_run_side_by_side_and_added_seeds_and_labels_leave_what_is_finished(
    study_file, tmp_path, template
):
    template(TOGETHER, "os.write(1, b'what a library prints is no answer')")
    folder = run(read_study(study_file()), tmp_path / "runs", processes=2)
    assert noted(folder, "finished")[0] == noted(folder, "begun")[0] == "teacher"
    assert sorted(noted(folder, "finished")) == ["kdas-seed0", "supervised-seed0", "teacher"]
    assert not list(folder.glob("*/.kernel"))
    before = snapshot(folder)
    more = {
        "seeds": [0, 5],
        "objectives": {"supervised": None, "soft": {"objective": "kdas", "alpha": 0.9}},
    }
    run(read_study(study_file(**more)), tmp_path / "runs", processes=3)
    assert sorted(noted(folder, "begun")[3:]) == ["soft-seed0", "soft-seed5", "supervised-seed5"]
    after = snapshot(folder)
    for name in ("teacher", "supervised-seed0", "kdas-seed0"):
        for file in ("metrics.json", "per_image.csv", "history.csv", "notebook.ipynb"):
            assert after[f"{name}/{file}"] == before[f"{name}/{file}"]
    together = read_study(folder / "study.yaml")
    assert (list(together.objectives), together.seeds) == (["supervised", "kdas", "soft"], (0, 5))


def test_a_record_that_is_cut_short_counts_as_none_and_its_cell_runs_again(
    study_file, tmp_path, template
):
    template()
    study = read_study(study_file())
    folder = run(study, tmp_path / "runs", processes=2)
    whole = (folder / "kdas-seed0" / "metrics.json").read_bytes()
    (folder / "kdas-seed0" / "metrics.json").write_bytes(whole[: len(whole) // 2])
    (folder / "supervised-seed0" / "per_image.csv").unlink()
    run(study, tmp_path / "runs", processes=2)
    assert sorted(noted(folder, "begun")[3:]) == ["kdas-seed0", "supervised-seed0"]
    assert (folder / "kdas-seed0" / "metrics.json").read_bytes() == whole


FAILING = """
mended = (study.parent / "mended").exists()
def deep_down():
    raise ValueError("no polyp to be seen")
if label == "supervised" and not mended:
    deep_down()
if label == "kdas" and not mended:
    raise SystemExit(0)
if label == "released" and not mended:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


def test_a_cell_that_fails_says_why_and_stops_no_other(
    study_file, tmp_path, monkeypatch, capsys, template
):
    """One raises, one ends as if all were well, one is killed as a machine kills that has no memory left, one is sound."""
    template(FAILING)
    words = ["study", "run", study_file(objectives=["supervised", "kdas", "released", "logit_kd"])]
    words += ["--runs-dir", tmp_path / "runs", "--processes", 2]
    folder = tmp_path / "runs" / "tiny"
    assert kdas(monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert (
        "3 of 5 cells failed; what went wrong is in failed.txt of supervised-seed0, kdas-seed0, released-seed0"
        in err
    )
    assert (
        "2 done, 3 failed" in out
        and "supervised-seed0 failed: run_template failed in code cell 3 of 4" in out
    )
    raised, ended, killed = (
        (folder / f"{label}-seed0" / "failed.txt").read_text()
        for label in ("supervised", "kdas", "released")
    )
    assert (
        "ValueError: no polyp to be seen" in raised.splitlines()[0] and "in deep_down()" in raised
    )
    assert "ended before it had written the record" in ended
    assert "was killed (signal 9)" in killed.splitlines()[0]
    assert noted(folder, "finished") == ["teacher", "logit_kd-seed0"]

    assert kdas(monkeypatch, *words) == 2, "they are left alone, and the study is not whole"
    assert (
        "2 finished before, 3 failed before" in capsys.readouterr().out
        and len(noted(folder, "begun")) == 5
    )
    (tmp_path / "runs" / "mended").touch()
    assert kdas(monkeypatch, *words, "--retry") == 0
    assert len(noted(folder, "begun")) == 8 and not list(folder.glob("*/failed.txt"))
    assert sorted(noted(folder, "finished")) == sorted(
        cell.name for cell in read_study(folder / "study.yaml").cells()
    )


def test_no_student_begins_without_a_teacher(study_file, tmp_path, template):
    template("assert student, 'no teacher today'")
    study = read_study(study_file())
    for _ in range(2):  # the second time it failed before
        with pytest.raises(
            UserError,
            match="The teacher failed .*AssertionError: no teacher today.; mend that, and add",
        ):
            run(study, tmp_path / "runs", processes=2)
    assert noted(tmp_path / "runs" / "tiny", "begun") == ["teacher"]


def test_a_table_that_raises_ends_the_study_instead_of_stopping_it_for_ever(
    study_file, tmp_path, monkeypatch, template
):
    def begin(self, folder):
        raise RuntimeError("a table that cannot be drawn")

    template()
    monkeypatch.setattr(running.Board, "begin", begin)
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        run(read_study(study_file()), tmp_path / "runs", processes=1)


def test_what_goes_wrong_beside_the_cells_stops_them(study_file, tmp_path, monkeypatch, template):
    template("wait_until(lambda: label != 'kdas')")
    study, folder, below = read_study(study_file()), tmp_path / "runs" / "tiny", []
    before = tree(os.getpid())  # other tests' helpers (a resource tracker) live on

    def full(self, where, outcome):
        if where.name == "supervised-seed0":
            until(lambda: "kdas-seed0" in noted(folder, "begun"))
            below.extend(one for one in tree(os.getpid()) if one not in before)
            raise UserError("the disk is full")
        end(self, where, outcome)

    end = running.Board.end
    monkeypatch.setattr(running.Board, "end", full)
    with pytest.raises(UserError, match="the disk is full") as error:
        run(study, tmp_path / "runs", processes=2)
    assert len(below) >= 2 and gone(below, 10) and error.tb, "also while the error is being told"
    assert not (folder / "kdas-seed0" / "failed.txt").exists()


def test_a_process_that_cannot_be_started_is_a_failure_of_its_cell_alone(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(engines.subprocess, "Popen", full)
    (_, begun), (folder, outcome) = engines.run_cells([tmp_path], 2)
    assert begun is None and folder == tmp_path
    assert "could not be started (Cannot allocate memory)" in outcome.error


def test_a_study_on_this_machine_can_be_reached_from_no_other(tmp_path, monkeypatch):
    seen = []

    def run_process(*_):
        process = psutil.Process()
        sockets = (
            getattr(process, "net_connections", None) or process.connections
        )()  # psutil 6, 5
        seen.extend(one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN)
        return engines.Outcome(1.0)

    monkeypatch.setattr(engines, "run_process", run_process)
    assert len(list(engines.run_cells([tmp_path], 2))) == 2
    assert set(seen) == {"127.0.0.1"}


# --- requests to stop, and kill -9 ------------------------------------------------------------------------------------


def test_a_study_is_stopped_or_killed_leaves_no_process_and_goes_on(study_file, tmp_path, template):
    """Three lives of one study: Ctrl-C, kill -9, SIGTERM; each time both students are under way."""
    template(AT_THE_GATE)
    study, folder = read_study(study_file()), tmp_path / "runs" / "tiny"
    words = [tmp_path / "study.yaml", "--runs-dir", tmp_path / "runs", "--processes", 2]
    for life, number in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGTERM), start=1):
        with study_run(*words) as process:
            until(lambda life=life: len(noted(folder, "begun")) == 1 + 2 * life)
            with pytest.raises(
                UserError, match="Another run of this study is under way in .*tiny; wait for it"
            ):
                run(study, tmp_path / "runs")
            below = tree(process.pid)
            assert len(below) >= 4, "two cells, and a kernel in each"
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
            assert gone(below)
        assert (process.returncode == 0) == (number == signal.SIGTERM)
        if number != signal.SIGKILL:
            assert (
                "2 stopped" in out and "The same command goes on from the last checkpoints." in out
            )
            assert "Traceback" not in err
    assert noted(folder, "finished") == ["teacher"] and not list(folder.glob("*/failed.txt"))
    (tmp_path / "runs" / "gate").touch()
    run(study, tmp_path / "runs", processes=2)
    assert sorted(noted(folder, "finished")) == ["kdas-seed0", "supervised-seed0", "teacher"]


def test_a_cell_whose_parent_died_before_it_could_look_ends(study_file, tmp_path, template):
    template("wait_until(lambda: False)")
    study = read_study(study_file())
    folder = open_folder(study, tmp_path / "runs")
    running.prepare(study, folder)
    with started("-c", "") as dead:
        dead.wait()
    with started("-m", "kdas_book.study.run_cell", folder / "teacher", dead.pid) as cell:
        assert cell.wait(30) == 128 + signal.SIGTERM
    assert not execute.is_finished(folder / "teacher")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_that_is_stopped_and_killed_ends_in_the_numbers_of_one_that_was_not(
    study_file, tmp_path, polyps, monkeypatch
):
    """The real notebook: SIGTERM to the study in mid-training, kill -9 of it later, then to the end."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = TINY | {"batch_size": 4, "epochs": 16}
    file, folder = (
        study_file(objectives=["supervised"], settings=settings),
        tmp_path / "runs" / "tiny",
    )
    words = [file, "--runs-dir", tmp_path / "runs", "--processes", 1]

    def epochs() -> int:
        (run_,) = (folder / "networks").glob("supervised-*") if folder.exists() else [tmp_path]
        return len(load_history(run_)) if (run_ / "history.csv").exists() else 0

    def training_at(epoch: int) -> bool:
        return (
            bool(list((folder / "networks").glob("supervised-*/history.csv"))) and epochs() >= epoch
        )

    for number, epoch in ((signal.SIGTERM, 3), (signal.SIGKILL, 7)):
        with study_run(*words) as process:
            until(lambda epoch=epoch: training_at(epoch))
            below = tree(process.pid)
            process.send_signal(number)
            process.communicate(timeout=60)
            assert gone(below, 60) and epoch <= epochs() < 16
        (checkpoint,) = (folder / "networks").glob("supervised-*/last.ckpt")
        state = read_checkpoint(checkpoint)
        assert state["epoch"] >= epoch and "metrics.json" not in os.listdir(checkpoint.parent)
    run(read_study(file), tmp_path / "runs", processes=1)
    (survivor,) = (folder / "networks").glob("supervised-*")
    recipe = read_study(file).recipe(read_study(file).cells()[1])
    straight = training.fit(
        recipe, open_data(recipe, str(polyps), polyps, tmp_path), tmp_path / "straight"
    )
    one, other = (load_history(run_).drop(columns="seconds") for run_ in (survivor, straight))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    kept = pd.read_csv(folder / "supervised-seed0" / "history.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(kept, other, check_exact=True)


# --- GPUs, and the table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "visible, expected",
    [(None, {"0", "1"}), ("3,5", {"3", "5"}), ("GPU-a, GPU-b", {"GPU-a", "GPU-b"})],
)
def test_each_gpu_has_one_cell_at_a_time(tmp_path, monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    both, busy, seen = threading.Barrier(2), set(), []

    def run_process(folder, environment, unwanted):
        gpu = environment["CUDA_VISIBLE_DEVICES"]
        assert gpu not in busy
        busy.add(gpu)
        both.wait(30)  # two at once, each on its own
        seen.append(gpu)
        busy.remove(gpu)
        return engines.Outcome(1.0)

    monkeypatch.setattr(engines, "run_process", run_process)
    assert engines.default_processes() == 2
    folders = [tmp_path / str(i) for i in range(4)]
    for folder in folders:
        folder.mkdir()
    ended = [folder for folder, outcome in engines.run_cells(folders, 2) if outcome]
    assert sorted(ended) == folders and set(seen) == expected


def test_processors_are_shared_where_there_is_no_gpu_and_the_users_limit_holds(monkeypatch):
    monkeypatch.setattr(engines, "CPU_COUNT", 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [engines._share(slot, 3) for slot in range(3)] == 3 * [{"OMP_NUM_THREADS": "2"}]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert engines._share(0, 3) == {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def board(study_file, tmp_path):
    study = read_study(study_file(seeds=[0, 1]))
    board = running.Board(study, open_folder(study, tmp_path / "runs"), retry=False)
    for name in board.states:
        (board.folder / name).mkdir()
    board.states["teacher"], board.took["teacher"] = "done", 1000.0
    return board


def test_the_time_left_counts_what_waits_and_what_runs_and_not_the_teacher(board, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    supervised, kdas_, *waiting = (board.folder / name for name in list(board.states)[1:])
    board.begin(supervised)
    board.begin(kdas_)
    assert board.time_left() == "unknown until a first cell is done"
    clock[0] = 100.0
    board.end(supervised, engines.Outcome(100.0))
    assert board.time_left() == "0:01:40", (
        "two wait, and two run at once; the slot that has just become free counts"
    )
    clock[0] = 160.0
    board.end(kdas_, engines.Outcome(160.0, "no luck"))
    for folder in waiting:
        board.begin(folder)
    clock[0] = 200.0
    assert board.time_left() == "0:01:00", (
        "a cell takes 100 s, and both are 40 s old; what failed says nothing"
    )
    board.end(waiting[0], engines.Outcome(100.0))
    assert board.time_left() == "0:01:00", "one cell is not divided between two"
    board.end(waiting[1], engines.Outcome(100.0))
    assert board.time_left() == "0:00:00"


def test_a_summary_counts_the_states_and_says_why_cells_failed(board, monkeypatch, capsys):
    monkeypatch.setattr(time, "perf_counter", lambda: 65.0)
    board.begin(board.folder / "supervised-seed0")
    board.end(board.folder / "supervised-seed0", engines.Outcome(61.0))
    failed = engines.Outcome(5.0, "no luck\n\nat all")
    board.end(board.folder / "kdas-seed0", failed)
    board.begin(board.folder / "supervised-seed1")
    monkeypatch.setattr(time, "perf_counter", lambda: 75.0)
    assert board.time_left() == "0:01:52"
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "[2/5] supervised-seed0 done in 0:01:01; time left 0:03:03"
    counts, why, way_out = board.summary().splitlines()
    assert counts == "2 done, 1 failed, 1 stopped, 1 waiting" and why == "kdas-seed0: no luck"
    assert way_out == "The same command goes on from the last checkpoints."


def test_lines_of_several_threads_are_printed_whole(board, monkeypatch):
    written = []

    class Out(io.StringIO):
        def write(self, text):
            written.append(text)

    monkeypatch.setattr(sys, "stdout", Out())
    names = [board.folder / name for name in board.states] * 5
    threads = [threading.Thread(target=board.begin, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line = r"\[[01]/5\] \S+ begun; time left [^\n]+\n"
    assert len(written) == 25 and all(re.fullmatch(line, text) for text in written)


# --- a Dask cluster on this machine -----------------------------------------------------------------------------------


class Cluster:
    """A scheduler on loopback and its workers, each a process that can be killed."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder, self._stack = folder, stack
        words = [
            "--host",
            "127.0.0.1",
            "--port",
            0,
            "--no-dashboard",
            "--scheduler-file",
            folder / "scheduler.json",
        ]
        self.scheduler = self._start("scheduler", *words)
        until((folder / "scheduler.json").exists)
        self.address = json.loads((folder / "scheduler.json").read_text())["address"]

    def add_worker(self, *words: object) -> subprocess.Popen:
        words = ["--host", "127.0.0.1", "--nthreads", 1, "--no-nanny", "--no-dashboard", *words]
        return self._start("worker", self.address, *words, "--local-directory", self.folder)

    def _start(self, what: str, *words: object) -> subprocess.Popen:
        with open(self.folder / f"{what}.log", "a") as log:
            program = ["-m", f"distributed.cli.dask_{what}", *words]
            return self._stack.enter_context(started(*program, stdout=log, stderr=log))


@pytest.fixture
def cluster(tmp_path_factory):
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), stack)


class InTheBackground:
    """``run`` in a thread, while the test does harm."""

    def __init__(self, *words: object):
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=words, daemon=True)
        self._thread.start()

    def _run(self, *words: object) -> None:
        try:
            run(*words)
        except BaseException as error:
            self.error = error

    def until_begun(self, folder: Path, count: int) -> None:
        until(lambda: self.error or len(noted(folder, "begun")) >= count)
        assert self.error is None

    def ended(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def under_way(process: subprocess.Popen) -> list[psutil.Process]:
    """What runs below one worker."""
    return [
        one
        for one in tree(process.pid)
        if "kdas_book.study.run_cell" in one.cmdline() or "ipykernel" in str(one.cmdline())
    ]


def test_dask_workers_run_each_cell_once_and_stop_when_the_study_does(
    study_file, tmp_path, monkeypatch, template, cluster
):
    """A scheduler without workers is a sentence; then there are two, the study is stopped by Ctrl-C, and goes on."""
    template(TOGETHER, AT_THE_GATE)
    study, folder = read_study(study_file(seeds=[0, 1])), tmp_path / "runs" / "tiny"
    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match="tcp://127.0.0.1:[0-9]+ has no workers; .dask"),
    ):
        patch.setattr(engines, "ANSWER", 1)
        run(study, tmp_path / "runs", 0, cluster.address)
    workers = [cluster.add_worker(), cluster.add_worker()]
    with study_run(
        tmp_path / "study.yaml", "--runs-dir", tmp_path / "runs", "--dask", cluster.address
    ) as process:
        until(lambda: len(noted(folder, "begun")) == 3)
        below = [one for worker in workers for one in under_way(worker)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert gone(below) and len(below) >= 4
    begun_lines = [line for line in out.splitlines() if "begun" in line]
    # A cell has begun when a worker has taken it; a worker may take one more while its first is being stopped.
    assert len(begun_lines) in (3, 4)
    stopped = len(begun_lines) - 1
    assert f"{stopped} stopped, {4 - stopped} waiting" in out and "Traceback" not in err
    (tmp_path / "runs" / "gate").touch()
    run(study, tmp_path / "runs", 0, cluster.address)
    assert sorted(noted(folder, "finished")) == sorted(cell.name for cell in study.cells())
    assert all(worker.poll() is None for worker in workers), "they stay for the next study"


def test_a_worker_that_is_killed_costs_no_cell(study_file, tmp_path, template, cluster):
    template(AT_THE_GATE)
    study, folder = read_study(study_file(seeds=[0, 1])), tmp_path / "runs" / "tiny"
    dying, staying = cluster.add_worker(), cluster.add_worker()
    study_ = InTheBackground(study, tmp_path / "runs", 0, cluster.address)
    study_.until_begun(folder, 3)
    below = under_way(dying)
    dying.kill()
    assert gone(below) and below
    (tmp_path / "runs" / "gate").touch()
    assert study_.ended(60) and study_.error is None
    assert sorted(noted(folder, "finished")) == sorted(cell.name for cell in study.cells())
    assert len(noted(folder, "begun")) == 6, "the one of the dead worker has begun again"
    assert not list(folder.glob("*/failed.txt")) and not under_way(staying)


def test_a_scheduler_that_dies_is_a_sentence_and_the_study_goes_on_without(
    study_file, tmp_path, template, cluster
):
    template(AT_THE_GATE)
    study, folder = read_study(study_file()), tmp_path / "runs" / "tiny"
    worker = cluster.add_worker("--nthreads", 2)
    with study_run(
        tmp_path / "study.yaml", "--runs-dir", tmp_path / "runs", "--dask", cluster.address
    ) as process:
        until(lambda: len(noted(folder, "begun")) == 3)
        below = under_way(worker)
        cluster.scheduler.kill()
        _, err = process.communicate(timeout=30)
    sentence = (
        "kdas: The Dask scheduler at tcp://.* cannot be reached; .* the same command goes on.\n"
    )
    err = re.sub(r"(?m)^0\.00s - .*\n", "", err)  # of the debugger that an old kernel starts
    assert re.fullmatch(sentence, err) and process.returncode == 2
    assert gone(below) and len(below) >= 4
    (tmp_path / "runs" / "gate").touch()
    run(study, tmp_path / "runs", processes=2)
    assert noted(folder, "finished")[0] == "teacher" and len(noted(folder, "finished")) == 3


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nobody here", "http://127.0.0.1:9"])
def test_an_address_where_nobody_answers_is_a_sentence(tmp_path, monkeypatch, address):
    assert engines.ANSWER <= 10
    monkeypatch.setattr(engines, "ANSWER", 1)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"The Dask scheduler at {address} cannot be reached"):
        list(engines.run_cells([tmp_path], dask=address))
    assert time.monotonic() - began < 6


def test_without_dask_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        UserError, match=r'Studies need Dask; "pip install kdas_core\[book\]" brings it'
    ):
        importlib.reload(engines)


def test_without_papermill_only_what_runs_notebooks_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)
    monkeypatch.delitem(sys.modules, "kdas_book.publishing.run_notebook", raising=False)
    study = ROOT / "book" / "studies" / "smoke.yaml"
    runs = ("--runs-dir", tmp_path)
    for does_not in (("plan", study, *runs), ("status", study, *runs)):
        assert kdas(monkeypatch, "study", *does_not) == 0
    capsys.readouterr()
    assert kdas(monkeypatch, "study", "run", study, *runs) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == 'kdas: Running notebooks needs papermill; "pip install papermill" brings it.'
    assert not list(tmp_path.rglob("cell.json"))


# --- going on from what was kept --------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch, tmp_path, template):
    """``quick(study, teacher, …)`` gives ``run`` without trainings: made-up records, of cells trained with this teacher."""
    from test_study_results import write_cell

    template()

    def go(study, teacher: str, runs: str, **words) -> list[str]:
        by_name = {cell.name: cell for cell in study.cells()}
        ran = []

        def run_cells(folders, *_):
            for folder in folders:
                cell = by_name[folder.name]
                ran.append(cell.name)
                yield folder, None
                what = "supervised" if cell.role == "teacher" else cell.objective
                said = {"label": cell.label, "objective": cell.objective, "teacher": teacher}
                said["recipe"] = json.loads(json.dumps(asdict(study.recipe(cell))))
                record = write_cell(folder, what, cell.seed) | said
                (folder / "metrics.json").write_text(json.dumps(record))
                yield folder, engines.Outcome(1.0)

        monkeypatch.setattr(engines, "run_cells", run_cells)
        run(study, tmp_path / runs, **words)
        return ran

    return go


def test_pieces_computed_on_two_machines_add_up_through_the_kept_files(study_file, tmp_path, quick):
    kept = tmp_path / "results"
    first = read_study(study_file(seeds=[0]))
    ran = quick(first, "a" * 64, "here", kept=kept)
    assert ran == ["teacher", "supervised-seed0", "kdas-seed0"]
    both = read_study(study_file(seeds=[0, 1]))
    ran = quick(both, "a" * 64, "there", kept=kept)
    assert ran == ["teacher", "supervised-seed1", "kdas-seed1"], "what is kept is not run again"
    results = load(kept / "tiny_study.csv")
    rows = results.scores.query("objective != 'teacher'")[["objective", "seed"]]
    assert set(rows["seed"]) == {0, 1} and set(rows["objective"]) == {"supervised", "kdas"}
    assert len(rows.drop_duplicates()) == 4 and results.completeness == ""
    assert quick(both, "a" * 64, "nowhere yet", kept=kept) == [], "nor is a teacher without pupils"


def test_a_study_does_not_go_on_with_another_teacher_or_recipe_than_that_of_the_kept_cells(
    study_file, tmp_path, quick
):
    kept = tmp_path / "results"
    quick(read_study(study_file(seeds=[0])), "a" * 64, "here", kept=kept)
    before = snapshot(kept)
    with pytest.raises(UserError, match="the teacher of .* differs from that of the others"):
        quick(read_study(study_file(seeds=[0, 1])), "b" * 64, "there", kept=kept)
    other = read_study(
        study_file(seeds=[0], objectives={"supervised": None, "kdas": {"alpha": 0.9}})
    )
    with pytest.raises(UserError, match="kdas-seed0 was trained with another alpha; give it"):
        quick(other, "a" * 64, "elsewhere", kept=kept)
    assert snapshot(kept) == before


def test_the_status_of_a_study_is_one_line_and_changes_nothing(
    study_file, tmp_path, quick, monkeypatch, capsys
):
    file = study_file(seeds=[0])
    words = ("study", "status", file, "--runs-dir", tmp_path / "runs")
    assert kdas(monkeypatch, *words) == 0
    assert capsys.readouterr().out == "3 waiting\n" and not (tmp_path / "runs").exists()
    quick(read_study(file), "a" * 64, "runs")
    file = study_file(seeds=[0, 1])
    cell = tmp_path / "runs" / "tiny" / "kdas-seed1"
    cell.mkdir()
    with FileLock(cell / ".lock"):
        capsys.readouterr()
        assert kdas(monkeypatch, *words) == 0
    assert capsys.readouterr().out == "3 finished before, 1 waiting, 1 under way\n"
    (cell / "failed.txt").write_text("no luck\nat all")
    assert kdas(monkeypatch, *words) == 0
    said = "3 finished before, 1 waiting, 1 failed before\nkdas-seed1: no luck\n"
    assert capsys.readouterr().out == said


# --- controls and endpoints -------------------------------------------------------------------------------------------


def test_a_control_is_a_matter_of_the_student_and_needs_no_teacher_of_its_own(study_file):
    labels = {"kdas": None, "oracle": {"objective": "kdas", "control": "oracle"}}
    study = read_study(study_file(objectives=labels))
    recipes = [study.recipe(cell) for cell in study.cells()[1:]]
    assert [recipe.control for recipe in recipes] == ["none", "oracle"]
    assert recipes[0].for_teacher() == recipes[1].for_teacher()


class Says(torch.nn.Module):
    """A network that calls so large a part of every image polyp."""

    def __init__(self, share: float):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, images):
        side = images.shape[-1]
        across = (torch.arange(side) + 0.5) / side
        maps = torch.where(across < self.share, 9.0, -9.0).expand(len(images), 1, side, side)
        return maps, maps


@pytest.mark.parametrize("share, alarms", [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)])
def test_a_false_alarm_is_a_frame_without_polyp_of_which_a_hundredth_is_called_polyp(share, alarms):
    assert cells.false_alarms(Says(share).eval(), 32, count=3) == alarms


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_study_in_miniature_leaves_records_that_are_right(tmp_path, monkeypatch, cluster):
    """Two objectives and two seeds by processes of this machine, then a third seed by a Dask worker."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plain = yaml.safe_load((ROOT / "book" / "studies" / "smoke.yaml").read_text())
    small = {
        "synthetic_images": 12,
        "synthetic_test_images": 2,
        "test_images": 2,
        "image_size": 32,
        "batch_size": 5,
    }
    plain |= {
        "settings": small | {"epochs": 2, "teacher_epochs": 2, "train_images": None},
        "data_root": "",
    }
    file = tmp_path / "smoke.yaml"
    for seeds, words in (([0, 1], {"processes": 2}), ([0, 1, 2], {"dask": cluster.address})):
        file.write_text(yaml.safe_dump(plain | {"seeds": seeds}))
        if "dask" in words:
            cluster.add_worker("--nthreads", 2)
        folder = run(read_study(file), tmp_path / "runs", **words)
    study = read_study(file)
    records = {cell.name: check_record(study, cell, folder / cell.name) for cell in study.cells()}
    assert len(records) == 7 and len({record["teacher"] for record in records.values()}) == 1
    assert len(list((folder / "networks").glob("teacher-*"))) == 1
    assert {tuple(record["sets"]) for record in records.values()} == {
        tuple(records["teacher"]["sets"])
    }
    assert records["kdas-seed0"]["recipe"] != records["kdas-seed1"]["recipe"]


def check_record(study, cell, folder: Path) -> dict:
    """Is what the record says of a cell true of its other files?"""
    record = json.loads((folder / "metrics.json").read_text())
    images, history = pd.read_csv(folder / "per_image.csv"), pd.read_csv(folder / "history.csv")
    assert (record["label"], record["seed"], record["objective"]) == (
        cell.label,
        cell.seed,
        cell.objective,
    )
    recipe = study.recipe(cell).for_teacher() if cell.objective == "teacher" else study.recipe(cell)
    assert record["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert record["epochs"] == len(history) == 2
    best = history.loc[history["val_dice"].idxmax()]
    assert (record["best_epoch"], record["validation_dice"]) == (
        best["epoch"],
        pytest.approx(best["val_dice"]),
    )
    data = study_data(folder)
    for name, of_set in record["sets"].items():
        rows = images[images["dataset"] == name]
        assert of_set["n"] == len(rows) == 2
        assert of_set["best"]["dice"] == pytest.approx(rows["dice"].mean(), abs=1e-6)
        assert of_set["last"]["dice"] == pytest.approx(rows["dice_last"].mean(), abs=1e-6)
        assert 0 <= of_set["calibration_error"] <= 1 and 0 <= record["false_alarms"] <= 1
        if record["best_epoch"] == record["epochs"]:
            assert of_set["best"] == of_set["last"]
        if cell.objective == "teacher":
            assert of_set["agreement"] is None and rows["agreement"].isna().all()
        else:
            assert rows["agreement"].between(0, 1).all()
            assert of_set["agreement"] == pytest.approx(rows["agreement"].mean(), abs=1e-6)
        for row in rows.itertuples():
            assert row.share == pytest.approx(
                read_mask(data[name] / f"{row.name}.png").mean(), abs=1e-6
            )
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert all(c.execution_count for c in executed.cells if c.cell_type == "code")
    assert (
        list((folder / "masks").iterdir())
        if cell.objective == "teacher"
        else not (folder / "masks").exists()
    )
    return record


def study_data(folder: Path) -> dict[str, Path]:
    """The folders of true masks, by test set."""
    root = Path(json.loads((folder / "cell.json").read_text())["parameters"]["data_root"])
    return {path.name: path / "masks" for path in (root / "TestDataset").iterdir()}
