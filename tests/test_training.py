"""The recipe, the loop, and the command line around them; on a few tiny synthetic polyps."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import kdas as command
from PIL import Image
from safetensors.torch import load_file

from kdas_book.cli import main, parse_settings
from kdas_book.figures.ch08_released_code import RELEASED_SLIPS
from kdas_book.session import begin
from kdas_core import UserError
from kdas_core import recipe as recipe_module
from kdas_core.data import load_data
from kdas_core.data.dataset import PolypDataset
from kdas_core.losses import ON_FEATURES, Output, objective, structure_loss
from kdas_core.models import build, count_parameters, freeze, open_network, save_weights
from kdas_core.models.weights import metadata_of
from kdas_core.recipe import PRESETS, Recipe, preset
from kdas_core.training import batching, dice_at_half, fit, load_history
from kdas_core.training import loop as training
from kdas_core.training.checkpoint import latest_checkpoint
from kdas_core.training.state import compiled, reduced

TINY = {
    "image_size": 32,
    "batch_size": 4,
    "epochs": 3,
    "teacher_epochs": 1,
    "train_images": None,
    "test_images": 2,
}


@pytest.fixture(scope="session")
def data(polyps):
    return load_data(polyps, validation_fraction=0.2)


@pytest.fixture(scope="session")
def teacher():
    torch.manual_seed(7)
    return build("student")  # any frozen network can teach; a small one keeps the test quick


# --- recipe ----------------------------------------------------------------------------------------------------------


def test_the_paper_preset_is_the_released_recipe():
    r = preset("paper")
    assert (r.image_size, r.batch_size, r.epochs, r.learning_rate, r.weight_decay) == (
        352,
        16,
        99,
        1e-4,
        1e-4,
    )
    assert (r.scales, r.gradient_clamp, r.temperature, r.alpha) == (
        (0.75, 1.0, 1.25),
        0.5,
        2.0,
        0.3,
    )
    assert (r.schedule, r.augment, r.soft_masks, r.weighted_bce) == ("constant", False, True, False)
    assert (r.teacher, r.student) == ("pvt_v2_b2", "pvt_v2_b0")


def test_only_smoke_and_publish_make_up_their_data():
    assert [name for name in PRESETS if preset(name).synthetic_images] == ["smoke", "publish"]


def test_a_recipe_survives_yaml_and_any_hyperparameter_changes_the_fingerprint(tmp_path):
    r = preset("smoke", alpha=0.25)
    (tmp_path / "recipe.yaml").write_text(r.as_yaml())
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == r
    others = [
        replace(r, seed=1),
        replace(r, alpha=0.3),
        replace(r, scales=(1.25,)),
        replace(r, objective="released"),
    ]
    assert len({x.fingerprint() for x in [r, *others]}) == 5
    assert r.fingerprint("a") != r.fingerprint("b")


def test_one_teacher_serves_every_seed_where_its_own_seed_is_said():
    r = preset("smoke", teacher_seed=5)
    teachers = [replace(r, seed=seed, distillation_warm_up=0.5).for_teacher() for seed in (0, 1)]
    assert teachers[0] == teachers[1] and teachers[0].seed == 5 and teachers[0].teacher_seed is None
    assert teachers[0] == preset("smoke", seed=5).for_teacher()


def test_a_warm_up_of_distillation_lets_alpha_rise_in_a_line(data, tmp_path, monkeypatch):
    teacher, seen = freeze(build("student")), []
    original = training.TrainingState.warmed_up

    def watched(state, loss_fn):
        now = original(state, loss_fn)
        seen.append(now.keywords["alpha"] if isinstance(now, partial) else state.recipe.alpha)
        return now

    monkeypatch.setattr(training.TrainingState, "warmed_up", watched)
    recipe = preset(
        "smoke", **TINY, objective="symmetric_only", distillation_warm_up=0.5, alpha=0.4
    )
    steps = 3 * -(-len(data.train) // 4)
    folder = fit(recipe, data, tmp_path, teacher=teacher)
    expected = [min(0.4, 0.4 * step / (steps / 2)) for step in range(steps)]
    assert seen == pytest.approx(expected) and seen[0] == 0 and seen[-1] == 0.4
    log = pd.read_csv(folder / "steps.csv")
    total = (1 - np.array(seen)) * (log["structure_1"] + log["structure_2"]) + np.array(seen) * log[
        "symmetric"
    ]
    np.testing.assert_allclose(log["total"], total, rtol=1e-5)


def test_without_a_warm_up_and_without_a_teacher_the_objective_is_the_plain_one():
    loss_fn = object()
    for recipe in (
        preset("smoke"),
        preset("smoke", distillation_warm_up=0.5, objective="supervised"),
    ):
        start = SimpleNamespace(recipe=recipe, steps_done=0, all_steps=10)
        assert training.TrainingState.warmed_up(start, loss_fn) is loss_fn


def test_one_teacher_serves_every_objective_alpha_and_student():
    r = preset("laptop", augment=False)
    same = [
        replace(r, objective="released"),
        replace(r, alpha=0.9),
        replace(r, epochs=99, learning_rate=1.0),
    ]
    same += [replace(r, student="pvt_v2_b1"), replace(r, teacher_graph=True)]
    same += [replace(r, image_size=64, teacher_image_size=128)]
    assert {x.for_teacher().fingerprint() for x in same} == {r.for_teacher().fingerprint()}
    assert replace(r, seed=1).for_teacher().fingerprint() != r.for_teacher().fingerprint()


def test_settings_are_read_with_the_types_of_the_hyperparameters():
    got = parse_settings(
        ["alpha=1", "scales=[0.75, 1]", "learning_rate=1e-3", "augment=true", "train_images=5"]
    )
    assert got == {
        "alpha": 1.0,
        "scales": (0.75, 1.0),
        "learning_rate": 1e-3,
        "augment": True,
        "train_images": 5,
    }


@pytest.mark.parametrize(
    "make, sentence",
    [
        (
            lambda: preset("toy"),
            'no preset "toy"; choose one of smoke, laptop, publish, colab, paper',
        ),
        (lambda: preset("smoke", tau=2), "no hyperparameter tau"),
        (lambda: preset("smoke", image_size=100), "multiple of 32"),
        (lambda: preset("smoke", teacher_image_size=64), "a multiple of 32, from image_size"),
        (lambda: preset("smoke", teacher_image_size=100), "a multiple of 32, from image_size"),
        (lambda: preset("smoke", alpha=1.5), r"alpha is 1.5"),
        (
            lambda: preset("smoke", distillation_warm_up=2),
            r"distillation_warm_up is 2\.0; it lies in",
        ),
        (lambda: preset("smoke", epochs=0), "epochs is 0"),
        (lambda: preset("smoke", schedule="step"), "constant or cosine"),
        (lambda: parse_settings(["alpha"]), "key=value"),
        (lambda: parse_settings(["aplha=0.1"]), "no hyperparameter aplha"),
        (lambda: parse_settings(["epochs=many"]), "epochs='many' does not fit"),
        (lambda: parse_settings(["augment=1"]), "augment=1 does not fit"),
        (lambda: Recipe.from_yaml("nowhere.yaml"), "nowhere.yaml does not exist"),
    ],
)
def test_a_wrong_recipe_is_told_in_a_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_a_recipe_file_with_an_unknown_hyperparameter_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"preset": "smoke", "momentum": 0.9}))
    with pytest.raises(UserError, match="r.yaml: there is no hyperparameter momentum"):
        Recipe.from_yaml(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "name, value",
    [("seed", "1"), ("seed", 1.5), ("seed", None), ("seed", True), ("epochs", "8"), ("alpha", "x")]
    + [("augment", 1), ("objective", 3), ("scales", 1.0), ("scales", ()), ("scales", ("a",))],
)
def test_a_value_of_another_type_is_refused_at_once(name, value):
    with pytest.raises(UserError, match=f"{'alpha' if value == ('a',) else name}=.* does not fit"):
        preset("smoke", **{name: value})


def test_numbers_of_numpy_and_yaml_are_numbers():
    recipe = preset("smoke", seed=np.int64(3), alpha=np.float32(0.5), learning_rate="1e-3")
    assert recipe == preset("smoke", seed=3, alpha=0.5, learning_rate=0.001)
    assert recipe.fingerprint() == preset("smoke", seed=3, alpha=0.5).fingerprint()
    assert preset("smoke", scales=[1]).scales == (1.0,)


# --- the loop --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files_and_its_best_epoch(tmp_path, data, teacher):
    recipe = preset("smoke", **TINY)
    folder = fit(recipe, data, tmp_path, teacher=teacher)
    assert {p.name for p in folder.iterdir()} == {
        "recipe.yaml",
        "history.csv",
        "steps.csv",
        "best.safetensors",
        "identity.json",
        "last.ckpt",
        "previous.ckpt",
        "metrics.json",
    }
    history, metrics = load_history(folder), json.loads((folder / "metrics.json").read_text())
    terms = ["structure_1", "structure_2", "attention_1", "attention_2", "symmetric", "total"]
    assert list(history.columns) == [
        "epoch",
        *(f"train_{t}" for t in terms),
        "val_loss",
        "val_dice",
        "seconds",
    ]
    assert list(history["epoch"]) == [1, 2, 3]
    assert metrics["val_dice"] == pytest.approx(
        history["val_dice"].max(), rel=1e-12
    )  # pandas 2.1 reads so
    assert metrics["best_epoch"] == history["epoch"][history["val_dice"].idxmax()]
    assert Recipe.from_yaml(folder / "recipe.yaml") == recipe


def test_training_lowers_the_loss(tmp_path, data):
    recipe = preset("smoke", **TINY | {"epochs": 12, "objective": "supervised"})
    history = load_history(fit(recipe, data, tmp_path))
    assert history["train_total"].iloc[-1] < 0.9 * history["train_total"].iloc[0]


def test_the_teacher_is_frozen_and_does_not_move(tmp_path, data, teacher):
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    fit(preset("smoke", **TINY), data, tmp_path, teacher=teacher)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert not teacher.training and all(
        p.grad is None and not p.requires_grad for p in teacher.parameters()
    )


def test_a_finished_run_is_not_trained_again(tmp_path, data, monkeypatch):
    recipe = preset("smoke", **TINY | {"objective": "supervised"})
    folder = fit(recipe, data, tmp_path)
    monkeypatch.setattr(training, "start_network", lambda *a: pytest.fail("trained again"))
    assert fit(recipe, data, tmp_path) == folder
    with pytest.raises(pytest.fail.Exception):
        fit(replace(recipe, seed=1), data, tmp_path)


def test_of_equally_good_epochs_the_first_is_kept_and_named(tmp_path, data, monkeypatch):
    monkeypatch.setattr(training, "validate", lambda *a: {"val_loss": 1.0, "val_dice": 0.5})
    folder = fit(preset("smoke", **TINY | {"objective": "supervised"}), data, tmp_path)
    about = metadata_of(folder / "best.safetensors")
    assert about == {
        "epoch": 1,
        "role": "student",
        "backbone": "pvt_v2_b0",
        "size": 32,
        "normalisation": "imagenet",
        "width": 32,
        "preset": "smoke",
    }
    assert json.loads((folder / "metrics.json").read_text())["best_epoch"] == 1


def test_a_narrow_decoder_is_the_students_alone_and_its_file_says_so(tmp_path, data):
    recipe = preset("smoke", **TINY | {"objective": "supervised", "decoder_width": 8})
    assert recipe.for_teacher().decoder_width == 32
    weights = fit(recipe, data, tmp_path) / "best.safetensors"
    net, _ = open_network(weights)
    assert net.head1.in_channels == net.fusion.squeeze.conv.out_channels == 8
    assert net(torch.zeros(1, 3, 32, 32), features=True)[1]["fused"].shape == (1, 8, 4, 4)
    assert count_parameters(net) < count_parameters(build("student"))
    with pytest.raises(UserError, match="of another shape"):
        build("student", weights, width=32)
    for said in ("wide", [8], 2**40, None):  # a file of others may say anything
        odd = save_weights(net, tmp_path / "odd.safetensors", role="student", width=said)
        with pytest.raises(UserError, match="of another shape"):
            open_network(odd)
    with pytest.raises(UserError, match="decoder_width is 8; fitnet compares it"):
        replace(recipe, objective="fitnet")


def test_students_of_one_seed_start_from_the_same_weights_whatever_the_objective():
    torch.manual_seed(0)
    a = training.start_network(preset("smoke"), "student")
    torch.manual_seed(0)
    b = training.start_network(preset("smoke", objective="released"), "student")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_sizes_of_the_three_scales_are_the_released_ones():
    batch = {"image": torch.zeros(1, 3, 352, 352), "mask": torch.zeros(1, 1, 352, 352)}
    sides = [training.batching.resized(batch, s, 352)[0].shape[-1] for s in preset("paper").scales]
    assert sides == [256, 352, 448]


def test_the_teacher_may_see_its_images_larger(tmp_path, data, teacher, monkeypatch):
    larger = {**TINY, "epochs": 1, "teacher_image_size": 64}
    sides = []
    teacher.register_forward_pre_hook(lambda net, given: sides.append(given[0].shape[-1]))
    for name in ("kdas", "fitnet", "attention_transfer_features", "region_affinity"):
        folder = fit(preset("smoke", objective=name, **larger), data, tmp_path, teacher=teacher)
        terms = load_history(folder)
        assert np.isfinite(terms.filter(like="train_")).all(axis=None)
        assert metadata_of(folder / "best.safetensors")["size"] == 32
    assert set(sides) == {64}
    of_teacher = preset("smoke", **larger).for_teacher()
    assert (of_teacher.image_size, of_teacher.teacher_image_size) == (64, None)


def test_what_a_larger_teacher_says_is_reduced_to_the_students_size():
    maps = (torch.full((1, 1, 96, 96), 2.0), torch.arange(96.0).expand(1, 1, 96, 96))
    features = {"stage1": torch.ones(1, 3, 24, 24), "stage4": torch.ones(1, 3, 3, 3)}
    said = reduced(Output(maps, features), 64 / 96)
    assert [f.shape[-1] for f in said.features.values()] == [16, 2]
    assert torch.equal(said.maps[0], torch.full((1, 1, 64, 64), 2.0))
    # Pixel k of 64 has its centre at (k + 1/2) · 96/64 - 1/2 of the 96.
    expected = (torch.arange(64) + 0.5) * 1.5 - 0.5
    torch.testing.assert_close(said.maps[1][0, 0, 0], expected)


def test_images_read_at_the_teachers_size_are_reduced_without_aliasing(data):
    read = PolypDataset(data.train, 64).batch(range(8))
    small = PolypDataset(data.train, 32).batch(range(8))["image"]
    images, mask = training.batching.resized(read, 1.0, 32)
    aliased = torch.nn.functional.interpolate(
        read["image"], (32, 32), mode="bilinear", align_corners=True
    )
    assert mask.shape == (8, 1, 32, 32) and mask.min() >= 0 and mask.max() <= 1
    assert (images - small).abs().mean() < 0.3 * (aliased - small).abs().mean()


@pytest.fixture(scope="module")
def partly(polyps, tmp_path_factory):
    """Half of the masks, and a folder of three images more."""
    more = tmp_path_factory.mktemp("more")
    for i in range(3):
        Image.fromarray(np.full((40, 50, 3), 60 * (i + 1), np.uint8)).save(more / f"frame{i}.png")
    return load_data(polyps, validation_fraction=0.2, labelled=0.5, unlabelled=more)


def test_masks_are_used_of_a_share_and_the_other_images_stay_at_hand(polyps, data, partly):
    half = {pair.image for pair in partly.train}
    others = {path for path in partly.unlabelled if path.is_relative_to(polyps)}
    assert len(half) == round(len(data.train) / 2) and not half & others
    assert half | others == {pair.image for pair in data.train}
    assert [p.name for p in partly.unlabelled[-3:]] == ["frame0.png", "frame1.png", "frame2.png"]
    quarter = load_data(polyps, validation_fraction=0.2, labelled=0.25)
    assert {pair.image for pair in quarter.train} < half
    assert partly.validation == data.validation and not data.unlabelled


def test_an_image_without_a_mask_has_no_part_in_the_structure_loss(data, partly):
    torch.manual_seed(0)
    student, teacher = (tuple(torch.randn(3, 1, 32, 32) for _ in range(2)) for _ in range(2))
    mask = (torch.rand(3, 1, 32, 32) > 0.5).float()
    loss_fn = objective("kdas", use_unlabelled=True)
    whole = loss_fn(student, teacher, mask)
    assert whole["total"] == objective("kdas")(student, teacher, mask)["total"]
    for number in (1, 3):
        given = [s.clone().requires_grad_() for s in student]
        partial = mask.clone()
        partial[:number] = torch.nan
        terms = loss_fn(tuple(given), teacher, partial)
        kept = tuple(s[number:] for s in student), tuple(t[number:] for t in teacher)
        for k, s in enumerate(kept[0], start=1):
            alone = structure_loss(s, mask[number:]) if number < 3 else torch.zeros(())
            torch.testing.assert_close(terms[f"structure_{k}"], alone)
        assert terms["attention_1"] == whole["attention_1"], "all images are distilled on"
        terms["total"].backward()
        assert all(torch.isfinite(s.grad).all() and s.grad[0].any() for s in given)


def test_a_student_trains_on_images_without_masks_and_the_teacher_does_not(
    tmp_path, partly, teacher
):
    recipe = preset("smoke", **TINY, use_unlabelled=True, augment=True)
    folder = fit(recipe, partly, tmp_path, teacher=teacher)
    steps = pd.read_csv(folder / "steps.csv")
    images = len(partly.train) + len(partly.unlabelled)
    assert len(steps) == recipe.epochs * -(-images // recipe.batch_size)
    assert np.isfinite(load_history(folder).filter(like="train_")).all(axis=None)
    without = fit(replace(recipe, use_unlabelled=False), partly, tmp_path, teacher=teacher)
    known = recipe.epochs * -(-len(partly.train) // recipe.batch_size)
    assert len(pd.read_csv(without / "steps.csv")) == known
    assert not recipe.for_teacher().use_unlabelled
    fewer = replace(partly, unlabelled=partly.unlabelled[1:])
    assert fit(recipe, fewer, tmp_path, teacher=teacher) != folder, "other images, another run"
    with pytest.raises(UserError, match="every image has a mask"):
        fit(recipe, replace(partly, unlabelled=()), tmp_path, teacher=teacher)


@pytest.mark.parametrize(
    "settings", [{"objective": "supervised"}, {"control": "oracle"}, {"control": "blurred"}]
)
def test_what_needs_every_mask_refuses_images_without(settings):
    with pytest.raises(UserError, match="needs the mask of every image"):
        preset("smoke", use_unlabelled=True, **settings)


def test_a_later_hyperparameter_at_its_default_changes_no_fingerprint(monkeypatch):
    recipe = preset("smoke", seed=3)
    earlier = recipe.fingerprint("student")
    monkeypatch.setitem(recipe_module._DEFAULTS, "added_later", 7)
    monkeypatch.setattr(recipe_module, "asdict", lambda recipe: {**vars(recipe), "added_later": 7})
    assert recipe.fingerprint("student") == earlier
    monkeypatch.setattr(recipe_module, "asdict", lambda recipe: {**vars(recipe), "added_later": 8})
    assert recipe.fingerprint("student") != earlier


def test_dice_at_half_counts_as_it_should():
    mask = torch.zeros(4, 1, 4, 4)
    mask[:3, :, :2] = 1
    logits = torch.full((4, 1, 4, 4), -1.0)
    logits[0, :, :2] = 1  # exact
    logits[1, :, 1:3] = 1  # half of it
    assert dice_at_half(logits, mask).tolist() == [
        1.0,
        0.5,
        0.0,
        1.0,
    ]  # missed; empty and rightly so


def test_an_unknown_objective_stops_before_anything_is_made(tmp_path, data):
    with pytest.raises(UserError, match='no objective "kdsa"'):
        fit(preset("smoke", **TINY, objective="kdsa"), data, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path, data):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written.*--runs-dir"):
        fit(preset("smoke", **TINY), data, tmp_path / "file" / "runs")
    assert (tmp_path / "file").read_text() == "in the way"


# --- the first cell and the command line ------------------------------------------------------------------------------


def test_begin_finds_data_or_makes_it_or_says_what_to_do(tmp_path, polyps, capsys, monkeypatch):
    monkeypatch.setattr("kdas_book.session.find_root", lambda: tmp_path)
    run = begin("smoke", str(polyps), str(tmp_path / "runs"))
    assert run.data.root == polyps and "synthetic polyps" in capsys.readouterr().out
    with pytest.raises(UserError, match="nowhere"):
        begin("smoke", str(tmp_path / "nowhere"), str(tmp_path / "runs"))
    for name in ("laptop", "colab", "paper"):
        with pytest.raises(UserError, match="data.TrainDataset is not there.*kdas data synthetic"):
            begin(name, "", str(tmp_path / "runs"))
    made = begin("smoke", "", str(tmp_path / "runs"), synthetic_images=6, synthetic_test_images=1)
    assert made.data.synthetic and len(made.data.train) + len(made.data.validation) == 6


def test_released_weights_are_the_teacher_where_they_are_and_change_the_students_run(
    tmp_path, polyps, monkeypatch
):
    monkeypatch.setattr("kdas_book.session.find_root", lambda: tmp_path)
    without = begin("paper", str(polyps), str(tmp_path / "runs"), teacher="pvt_v2_b0")
    assert without.released_teacher is None
    (tmp_path / "teacher_weights").mkdir()
    net = build("teacher", backbone="pvt_v2_b0")
    torch.save(net.state_dict(), tmp_path / "teacher_weights" / "PolypPVT.pth")
    having = begin("paper", str(polyps), str(tmp_path / "runs"), teacher="pvt_v2_b0")
    assert having.folder("teacher") is None and not having.teacher().training
    for asked in (having.history, having.metrics):
        with pytest.raises(
            UserError, match="PolypPVT.pth was not trained here and so has no history"
        ):
            asked("teacher")
    assert all(
        torch.equal(a, b.cpu())
        for a, b in zip(net.state_dict().values(), having.teacher().state_dict().values())
    )
    assert having.recipe.fingerprint() != without.recipe.fingerprint()


def test_a_network_that_a_chapter_trains_keeps_glimpses_of_its_training(
    tmp_path, polyps, monkeypatch
):
    monkeypatch.setattr("kdas_book.session.find_root", lambda: tmp_path)
    run = begin("smoke", str(polyps), str(tmp_path / "runs"), **{**TINY, "epochs": 2})
    seen = run.snapshots("supervised")
    assert list(seen) == [1, 2] and not torch.equal(seen[1], seen[2])
    best = run.metrics("supervised")["best_epoch"]
    with torch.inference_mode():
        maps = torch.stack(run.student("supervised")(run.batch(run.SNAPSHOTS)["image"]))
    torch.testing.assert_close(seen[best], maps, atol=0.01, rtol=0.001)
    (run.folder("supervised") / "snapshots.npz").unlink()
    assert run.snapshots("supervised") == {}


def kdas(*arguments):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "kdas_book.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "TQDM_DISABLE": "1"},
        timeout=300,
    )


def test_the_command_line_from_data_to_scores(tmp_path):
    """As a user would: make data, train, predict, evaluate; every step reads what the one before wrote."""
    data, runs, out = tmp_path / "data", tmp_path / "runs", tmp_path / "masks"
    assert kdas("data", "synthetic", "--out", data, "--train", 8, "--test", 2).returncode == 0
    assert "Problems: none" in kdas("data", "check", data).stdout
    settings = [
        f"--set={k}={v}"
        for k, v in (TINY | {"epochs": 1, "train_images": 4, "teacher": "pvt_v2_b0"}).items()
    ]
    trained = kdas(
        "train",
        "--objective",
        "kdas",
        "--data-root",
        data,
        "--runs-dir",
        runs,
        "--seed",
        3,
        *settings,
    )
    assert trained.returncode == 0, trained.stderr
    (folder,) = runs.glob("kdas-seed3-*")
    assert (folder / "metrics.json").is_file() and list(runs.glob("teacher-seed3-*"))
    for name in ("CVC-300", "Kvasir"):
        images = data / "TestDataset" / name / "images"
        made = kdas(
            "predict",
            "--weights",
            folder / "best.safetensors",
            "--images",
            images,
            "--out",
            out / name,
            "--size",
            32,
        )
        assert made.returncode == 0, made.stderr
    scored = kdas(
        *(
            "evaluate",
            "--pred-root",
            out,
            "--gt-root",
            data / "TestDataset",
            "--datasets",
            "CVC-300,Kvasir",
        ),
        *("--json", tmp_path / "out.json", "--verbose"),
    )
    assert scored.returncode == 0, scored.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    assert set(results) == {"CVC-300", "Kvasir"} and 0 <= results["Kvasir"]["dice"] <= 1
    assert len(results["Kvasir"]["per_image"]) == 2
    assert "CVC-300" in scored.stdout and "meanDic" in scored.stdout


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["train", "--preset", "toy"], 'There is no preset "toy"'),
        (["train", "--objective", "toy"], 'There is no objective "toy"'),
        (["train", "--set", "colour=red"], "there is no hyperparameter colour"),
        (["train", "--data-root", "/nowhere"], "/nowhere"),
        (["weights", "check", "/nowhere.pth"], "/nowhere.pth does not exist"),
        (
            ["predict", "--weights", "/nowhere.pth", "--images", "x", "--out", "y"],
            "/nowhere.pth does not exist",
        ),
        (["evaluate"], "--pred-root"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence_and_exit_code_2(
    arguments, sentence, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["kdas", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and sentence.lower() in error.lower() and error.count("\n") == 1


# --- hyperparameters of the optimisation ----------------------------------------------------------------------------------------

PLAIN = TINY | {"objective": "supervised"}


def final(folder) -> dict[str, torch.Tensor]:
    return latest_checkpoint(folder)["network"]


def test_the_average_of_the_weights_is_what_is_validated_and_saved(tmp_path, data):
    recipe = preset("smoke", **PLAIN | {"ema": 0.5, "epochs": 1, "batch_size": 8})
    folder = fit(recipe, data, tmp_path)
    state = latest_checkpoint(folder)
    torch.manual_seed(recipe.seed)
    start = training.start_network(recipe, "student").state_dict()
    kept = load_file(folder / "best.safetensors")
    name = "head1.weight"  # one step: the average takes the network as it is after the first update
    assert torch.equal(kept[name], state["ema"][f"module.{name}"]) and not torch.equal(
        kept[name], start[name]
    )
    many = fit(replace(recipe, epochs=3, batch_size=2), data, tmp_path)
    kept, last = load_file(many / "best.safetensors"), final(many)
    assert not torch.equal(kept[name], last[name]), "after several steps the average lags behind"


def test_patience_ends_a_run_that_no_longer_gets_better_also_after_a_restart(
    tmp_path, data, monkeypatch
):
    scores = iter([0.5, 0.6, 0.6, 0.4, 0.9])
    monkeypatch.setattr(
        training, "validate", lambda *a: {"val_loss": 1.0, "val_dice": next(scores)}
    )
    recipe = preset("smoke", **PLAIN | {"epochs": 9, "patience": 2})
    folder = fit(recipe, data, tmp_path)
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 4
    (folder / "metrics.json").unlink()  # killed just before the end
    assert len(load_history(fit(recipe, data, tmp_path))) == 4


def test_norm_clipping_keeps_the_direction_and_the_clamp_bends_it(tmp_path, data, monkeypatch):
    seen = {}

    def watched(name):
        step = torch.optim.AdamW.step

        def first(self, *a, **k):
            gradient = torch.cat(
                [
                    p.grad.flatten()
                    for g in self.param_groups
                    for p in g["params"]
                    if p.grad is not None
                ]
            )
            seen.setdefault(name, gradient.double())
            return step(self, *a, **k)

        return first

    for name, hyperparameters in {
        "free": {"gradient_clamp": 1e9},
        "clamp": {"gradient_clamp": 1e-4},
        "norm": {"gradient_norm": 1e-3},
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", watched(name))
            fit(preset("smoke", **PLAIN | {"epochs": 1} | hyperparameters), data, tmp_path / name)
    cosine = {
        name: float(torch.cosine_similarity(seen["free"], seen[name], dim=0))
        for name in ("clamp", "norm")
    }
    assert cosine["norm"] == pytest.approx(1, abs=1e-5) and cosine["clamp"] < 0.9
    assert (
        float(seen["norm"].norm()) == pytest.approx(1e-3, rel=1e-3)
        and float(seen["clamp"].abs().max()) <= 1e-4
    )


def test_a_random_scale_is_one_of_the_scales_and_the_same_after_a_restart():
    recipe = preset("smoke", scales=(0.75, 1.0, 1.25), random_scale=True)
    drawn = [
        training.batching.scales_of(recipe, epoch, step) for epoch in (1, 2) for step in range(50)
    ]
    assert {scales[0] for scales in drawn} == set(recipe.scales) and all(
        len(scales) == 1 for scales in drawn
    )
    assert drawn == [
        training.batching.scales_of(recipe, epoch, step) for epoch in (1, 2) for step in range(50)
    ]
    assert training.batching.scales_of(replace(recipe, random_scale=False), 1, 0) == recipe.scales


def test_every_term_is_recorded_at_every_step_and_the_epoch_is_their_mean(tmp_path, data, teacher):
    folder = fit(preset("smoke", **TINY | {"scales": (1.0, 2.0)}), data, tmp_path, teacher=teacher)
    steps, history = pd.read_csv(folder / "steps.csv"), load_history(folder)
    assert list(steps.columns[2:]) == [
        c.removeprefix("train_") for c in history if c.startswith("train_")
    ]
    assert len(steps) == 3 * 2 * 2  # epochs × batches × scales
    means = steps.groupby("epoch")["total"].mean()
    assert history["train_total"].to_numpy() == pytest.approx(means.to_numpy(), rel=1e-6)


@pytest.mark.parametrize("hyperparameters", [{"teacher_graph": True}, {"channels_last": True}])
def test_hyperparameters_of_speed_leave_the_numbers(tmp_path, data, teacher, hyperparameters):
    recipe = preset("smoke", **TINY | {"scales": (1.0, 2.0)})
    plain = fit(recipe, data, tmp_path / "plain", teacher=teacher)
    fast = fit(replace(recipe, **hyperparameters), data, tmp_path / "fast", teacher=teacher)
    ours, theirs = (pd.read_csv(f / "steps.csv")["total"].to_numpy() for f in (fast, plain))
    # The first step tells; later ones drift apart by rounding (another layout).
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours == pytest.approx(theirs, rel=1e-6 if "teacher_graph" in hyperparameters else 5e-3)
    assert teacher.requires_grad_(False) is teacher


def test_a_compiled_student_has_the_same_losses(tmp_path, data, monkeypatch):
    """By the whole way of torch.compile but its last step: minutes of a C++ compiler."""
    without_it = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", without_it)
    recipe = preset(
        "smoke", **TINY | {"objective": "supervised", "scales": (1.0, 2.0), "epochs": 1}
    )
    fast = fit(replace(recipe, compile=True), data, tmp_path / "fast")
    plain = fit(recipe, data, tmp_path / "plain")
    ours, theirs = (pd.read_csv(f / "steps.csv")["total"].to_numpy() for f in (fast, plain))
    assert ours == pytest.approx(theirs, rel=1e-4)
    kept = load_file(fast / "best.safetensors")
    assert kept.keys() == build("student", backbone=recipe.student).state_dict().keys()


@pytest.mark.slow
def test_this_machines_compiler_gives_the_same_numbers_or_is_said_not_to_work():
    net, images = torch.nn.Conv2d(3, 4, 3), torch.rand(2, 3, 8, 8)
    try:
        fast = compiled(net, torch.device("cpu"))
    except UserError as error:
        assert "torch.compile does not work on this machine" in str(error)
        return
    assert fast is not net and torch.allclose(fast(images), net(images), atol=1e-6)


def test_without_a_compiler_the_hyperparameter_is_refused_in_a_sentence(
    tmp_path, data, monkeypatch
):
    def none_here(*_, **__):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", none_here)
    with pytest.raises(
        UserError, match=r"does not work on this machine \(no compiler\); switch compile off"
    ):
        fit(preset("smoke", **TINY | {"objective": "supervised", "compile": True}), data, tmp_path)


def test_the_paper_presets_slips_are_the_released_ones_and_each_has_a_switch():
    paper = preset("paper")
    for hyperparameter, (released, mended, what) in RELEASED_SLIPS.items():
        assert what and released != mended
        both = {
            replace(paper, **{hyperparameter: value}).fingerprint() for value in (released, mended)
        }
        assert len(both) == 2, hyperparameter
    as_released = {
        hyperparameter
        for hyperparameter, (released, _, _) in RELEASED_SLIPS.items()
        if getattr(paper, hyperparameter) == released
    }
    assert as_released == {"augment", "schedule", "soft_masks", "weighted_bce"}


def test_bfloat16_trains_and_its_losses_are_float32(tmp_path, data, teacher, monkeypatch):
    kinds, make = set(), training.objective

    def noting(*a, **k):
        loss_fn = make(*a, **k)

        def call(student, teacher_maps, mask):
            terms = loss_fn(student, teacher_maps, mask)
            kinds.update(term.dtype for term in terms.values())
            return terms

        return call

    monkeypatch.setattr(training, "objective", noting)
    folder = fit(preset("smoke", **TINY | {"precision": "bf16"}), data, tmp_path, teacher=teacher)
    plain = fit(preset("smoke", **TINY), data, tmp_path, teacher=teacher)
    assert kinds == {torch.float32}
    ours, theirs = (load_history(f)["train_structure_1"] for f in (folder, plain))
    assert ours.iloc[0] == pytest.approx(theirs.iloc[0], rel=0.02) and not ours.equals(theirs)


@pytest.mark.parametrize(
    "hyperparameters, sentence",
    [
        ({"precision": "fp8"}, "float32 or bf16 or fp16"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"accumulate": 9}, "accumulate is 9"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(hyperparameters, sentence):
    with pytest.raises(UserError, match=sentence):
        preset("smoke", **hyperparameters)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_what_only_a_gpu_computes_is_refused_without_one(tmp_path, data, precision):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=f"{precision} needs a GPU"):
        fit(preset("smoke", **PLAIN | {"precision": precision}), data, tmp_path)


# --- the command line around a file of weights ------------------------------------------------------------------------


def test_predict_takes_network_and_size_from_the_file_and_refuses_what_contradicts_it(
    polyps, tmp_path, monkeypatch, capsys
):
    torch.manual_seed(0)
    net = build("teacher", backbone="resnet18")
    about = {"role": "teacher", "backbone": "resnet18", "size": 64}
    weights = save_weights(net, tmp_path / "w.safetensors", **about)
    images = next((polyps / "TestDataset").glob("*/images"))
    given = ["predict", "--weights", weights, "--images", images]
    assert command(monkeypatch, *given, "--out", tmp_path / "plain") == 0
    every = ["--role", "teacher", "--backbone", "resnet18", "--size", 64]
    assert command(monkeypatch, *given, "--out", tmp_path / "said", *every) == 0
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert len(names) == 3
    for name in names:
        one, other = ((tmp_path / how / name).read_bytes() for how in ("plain", "said"))
        assert one == other
    capsys.readouterr()
    for option, value in (("--size", 352), ("--role", "student"), ("--backbone", "pvt_v2_b0")):
        assert command(monkeypatch, *given, "--out", tmp_path / "no", option, value) == 2
        assert f"and {value} is asked for; leave that out." in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert command(monkeypatch, "weights", "check", weights) == 0
    said = capsys.readouterr().out
    assert "fits the teacher: " in said and "resnet18, for 64 px" in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_pipe_that_does_not_know_a_letter_gets_its_code(tmp_path, encoding):
    for part, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / part).mkdir()
        Image.new(mode, (64, 48), 255).save(tmp_path / part / "息肉.png")
    words = [sys.executable, "-m", "kdas_book.cli", "data", "check", str(tmp_path)]
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    done = subprocess.run(words, capture_output=True, env=environment)
    assert b"Traceback" not in done.stderr and done.returncode == 0
    assert rb"\u606f\u8089" in done.stdout


@pytest.mark.parametrize("name, value", [("data_root", 5), ("runs_dir", None), ("seed", "1")])
def test_begin_refuses_parameters_of_other_types(name, value):
    with pytest.raises(UserError, match=f"{name}(=| is )"):
        begin(**{"preset": "smoke", name: value})


@pytest.mark.parametrize("name", [*ON_FEATURES, "mse", "standardised_kd"])
@pytest.mark.parametrize("control", ["none", "shuffled"])
def test_the_rivals_train(tmp_path, data, teacher, name, control):
    recipe = preset("smoke", **{**TINY, "epochs": 1, "objective": name, "control": control})
    history = load_history(fit(recipe, data, tmp_path, teacher=teacher))
    own = [c for c in history if c.startswith("train_") and "structure" not in c]
    assert len(own) >= 2 and np.isfinite(history[own]).all(axis=None)


@pytest.mark.parametrize(
    "word",
    "weight_decay=-1 gradient_norm=-3 gradient_clamp=-1 patience=-2 warm_up=7 scales=[0] "
    "learning_rate=.inf teacher_learning_rate=0 attention_weight=.nan synthetic_images=-4".split(),
)
def test_numbers_that_make_no_sense_are_refused_by_name(word):
    name = word.partition("=")[0].replace("scales", "scales|alpha")
    with pytest.raises(UserError, match=name):
        preset("smoke", **parse_settings([word]))


@pytest.mark.parametrize("key", ["seed", "preset", "objective"])
def test_what_has_an_option_of_its_own_is_no_setting(key):
    with pytest.raises(UserError, match=f"{key} is an option of its own; write --{key} 1"):
        parse_settings([f"{key}=1"])


# --- batch norm and single images --------------------------------------------------------------------------------------

SMALL = TINY | {"epochs": 1, "objective": "supervised"}
ALONE = "leave one alone, and batch norm cannot be trained on one of .* pixels; choose another batch_size"


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 7},  # of 8 images
        {"batch_size": 1},
        {"batch_size": 7, "image_size": 64, "scales": (0.5, 1.0)},
        {"batch_size": 7, "image_size": 64, "scales": (1.0, 0.5), "random_scale": True},
        {"batch_size": 7, "image_size": 64, "student": "resnest14d"},  # has batch norm of means
    ],
)
def test_a_batch_of_one_image_with_one_value_per_channel_is_refused_before_training(
    tmp_path, data, settings
):
    assert len(data.train) == 8
    with pytest.raises(UserError, match=ALONE):
        fit(preset("smoke", **SMALL | settings), data, tmp_path)
    assert not list(tmp_path.glob("*/steps.csv"))
    frozen = preset("smoke", **SMALL | settings, freeze_statistics=True)
    assert (fit(frozen, data, tmp_path) / "metrics.json").exists(), "the way out is one"


def test_one_image_is_no_problem_where_its_maps_have_several_pixels(tmp_path, data):
    recipe = preset("smoke", **SMALL | {"batch_size": 7, "image_size": 64})
    assert (fit(recipe, data, tmp_path) / "metrics.json").exists()


def test_passes_have_two_images_where_one_has_one_value_per_channel(tmp_path, data):
    """Of batches of 5 and 3 images, in 5 passes or fewer."""
    recipe = preset("smoke", **SMALL | {"batch_size": 5, "accumulate": 5})
    assert (fit(recipe, data, tmp_path) / "metrics.json").exists()
    batch = {"image": torch.zeros(5, 1), "mask": torch.zeros(5, 1), "name": [*"abcde"]}
    batch |= {"weight": 1.0, "least": 5}
    parts = [micro["name"] for micro in batching.micro_batches(batch, 5, fewest=2)]
    assert parts == [["a", "b", "c"], ["d", "e"]]
    assert len(list(batching.micro_batches(batch, 5))) == 5


@pytest.mark.parametrize("images, processes, fits", [(8, 2, True), (8, 3, False), (7, 2, False)])
def test_the_part_of_a_process_counts(images, processes, fits):
    """Batches of 4: of 8 images each of two processes has 2; of 7 the last batch has 3."""
    net, recipe = build("student"), preset("smoke", **SMALL)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    if fits:
        assert batching.fewest_images(net, recipe, images, processes) == 2
        assert batching.fewest_images(net, replace(recipe, image_size=64), images, processes) == 1
    else:
        with pytest.raises(UserError, match=f"among {processes} processes {ALONE}"):
            batching.fewest_images(net, recipe, images, processes)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.manual_seed(3)))
