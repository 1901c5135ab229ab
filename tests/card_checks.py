"""The path of a GPU, on a pretended card; test_card.py runs this in a process of its own.

Whatever training, prediction and a chapter do with tensors is done once, small. A tensor left on the wrong side raises, as on a
GPU. Printed are uploads and waits of a training step.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from functools import partial

os.environ |= {"KDAS_BATCH": "1", "TQDM_DISABLE": "1", "MPLBACKEND": "agg"}

import kdas_core  # noqa: F401  before PyTorch: it chooses how OpenMP waits

# isort: split
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pretended_card as card
import pytest
import torch
from conftest import CHAPTERS

from kdas_book.callbacks import PredictionSnapshots, read_snapshots
from kdas_book.data.synthetic import make_dataset
from kdas_book.figures import basics, ch02_teacher, ch03_student, ch04_attention_maps
from kdas_book.figures import ch05_distillation_losses as ch05
from kdas_book.figures import ch06_training as ch06
from kdas_book.session import Session
from kdas_book.study.cell import count_macs
from kdas_core import attention, inference, recipe
from kdas_core.data import load_data
from kdas_core.data.dataset import PolypDataset
from kdas_core.losses import OBJECTIVES, ON_FEATURES, objective
from kdas_core.models import build, freeze, teacher_logits
from kdas_core.training import fit, load_history
from kdas_core.training import loop as training
from kdas_core.training.state import TrainingState, output_of, start_accelerator

card.install()

TINY = {"image_size": 32, "batch_size": 2, "epochs": 1, "teacher_epochs": 1, "train_images": 4}
BASE = recipe.preset("smoke", teacher="lcnet_035", student="lcnet_035", objective="kdas", **TINY)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    made = make_dataset(tmp_path_factory.mktemp("polyps") / "data", train=6, test=2, size=64)
    return load_data(made, validation_fraction=1 / 3)


@pytest.fixture(scope="module")
def teacher():
    return build("teacher", backbone="lcnet_035")


@pytest.fixture(scope="module")
def batch(data):
    found = PolypDataset(data.train, 64).batch(range(2))
    return found["image"].to("cuda"), found["mask"].to("cuda")


@pytest.fixture(scope="module")
def net():
    return freeze(build("student")).to("cuda")  # PVTv2: layer norm, attention, gelu


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """Teacher and student, both on the card."""
    teacher, student = (build(role, backbone="lcnet_035") for role in ("teacher", "student"))
    return freeze(teacher).to("cuda"), student.to("cuda")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_teaches(name, pair, batch):
    (teacher, student), (images, mask) = pair, batch
    features = name in ON_FEATURES
    taught_by = partial(teacher_logits, teacher)
    of_teacher = None if name == "supervised" else output_of(taught_by, images, features)
    terms = objective(name)(output_of(student, images, features), of_teacher, mask)
    assert all(term.device.type == "cuda" and term.isfinite().item() for term in terms.values())
    student.zero_grad()
    terms["total"].backward()
    assert all(weights.grad.isfinite().all().item() for weights in student.parameters())
    moved = [weights.grad.abs().max().item() > 0 for weights in student.parameters()]
    assert sum(moved) > 0.75 * len(moved)  # some units of a new network are silent


FOR_SPEED = [
    {"precision": "bf16", "channels_last": True},
    {"precision": "fp16", "gradient_norm": 1.0},
    {"accumulate": 2, "image_size": 64, "teacher_graph": True},
    {"ema": 0.9, "freeze_statistics": True, "augment": True, "scales": (1.0, 2.0)},
    {"teacher_image_size": 64, "distillation_warm_up": 0.5, "objective": "fitnet"},
    {"student": "pvt_v2_b0", "precision": "fp16"},
]


@pytest.mark.parametrize("hyperparameters", FOR_SPEED, ids=",".join)
def test_every_hyperparameter_of_speed_trains(hyperparameters, data, teacher, batch, tmp_path):
    snapshots = PredictionSnapshots(batch[0])
    folder = fit(
        replace(BASE, **{"train_images": 2, **hyperparameters}),
        data,
        tmp_path,
        teacher=teacher,
        callback=snapshots,
    )
    assert np.isfinite(load_history(folder).train_total).all()
    assert read_snapshots(folder)[1].shape[:2] == (2, 2)


def test_an_interrupted_run_goes_on_and_ends_the_same(data, teacher, tmp_path, monkeypatch):
    longer = replace(BASE, epochs=2)
    straight = fit(longer, data, tmp_path / "straight", teacher=teacher)
    record = TrainingState.record

    def cut(state, terms):
        record(state, terms)
        if state.global_step == 3:
            raise ConnectionError

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(TrainingState, "record", cut)
        fit(longer, data, tmp_path / "cut", teacher=teacher, checkpoint_minutes=0)
    resumed = fit(longer, data, tmp_path / "cut", teacher=teacher)
    one, two = (load_history(folder).drop(columns="seconds") for folder in (straight, resumed))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize("objective", ["supervised", "kdas"])
def test_a_step_uploads_and_waits_once(objective, data, teacher, tmp_path):
    uploads, waits, steps = Counter(), Counter(), []

    def note(state):
        if len(steps) and state.sums:  # after a step, not after an epoch; not the first step
            uploads.update(card.uploads), waits.update(card.waits)
        steps.append(bool(state.sums))
        card.uploads.clear(), card.waits.clear()

    several = replace(BASE, objective=objective, scales=(1.0, 2.0))
    with card.counted():
        fit(replace(several, epochs=2), data, tmp_path, teacher=teacher, callback=note)
    counted = sum(steps) - 1
    print(f"\n{objective}: {uploads.total() / counted:.2f} uploads a step {dict(uploads)}")
    print(f"{objective}: {waits.total() / counted:.2f} waits a step {dict(waits)}")
    assert 0 < uploads.total() <= counted and 0 < waits.total() <= counted


# --- after training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native, precision", [(True, "bf16"), (False, "fp16")])
def test_bf16_is_taken_where_the_card_has_it(monkeypatch, capsys, native, precision):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native)
    accelerator = start_accelerator(replace(BASE, precision="bf16"))
    assert accelerator.mixed_precision == precision
    assert ("the run is in fp16" in capsys.readouterr().out) is not native


@pytest.mark.parametrize("precision, allowed", [("tf32", "high"), ("float32", "highest")])
def test_products_are_rounded_only_if_the_recipe_says_so(precision, allowed):
    assert start_accelerator(replace(BASE, precision=precision)).mixed_precision == "no"
    assert torch.get_float32_matmul_precision() == allowed
    assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")


def test_masks_are_predicted(net, data, tmp_path):
    files = [pair.image for pair in data.train]
    assert inference.predict_files(net, files, tmp_path, 64, batch_size=2) == len(files)
    assert inference.probability(net, np.zeros((50, 60, 3), np.uint8), 64).shape == (50, 60)
    assert count_macs(net, 64) > 0


def test_figures_take_what_lies_on_the_card(net, batch):
    images, mask = batch
    (p1, p2), found = teacher_logits(net, images, features=True)
    first = images[0], mask[0]
    attended = attention.self_attention(p1)[0]
    basics.grid(
        {
            "": [
                basics.outlined(*first),
                basics.error_overlay(*first[:1], p1[0].sigmoid(), mask[0]),
                p1[0],
            ]
        }
    )
    basics.verdicts(images, mask, {"student": p1.sigmoid()}, ["a", "b"])
    ch02_teacher.through_cells(*first)
    ch02_teacher.beside(images, mask, {"F1": found["stage1"]})
    ch02_teacher.anchor_grid(torch.rand(16, 8, 8).to("cuda"))
    ch02_teacher.anchor_on(images[0], torch.rand(16, 8, 8).to("cuda"), 2)
    ch03_student.beside_teacher(
        images[0], {"a": p1[0].sigmoid(), "b": p2[0].sigmoid()}, mask[0], 0.5
    )
    ch03_student.probabilities_by_place(p1.sigmoid(), {"edge": basics.edge_band(mask, 3) > 0})
    ch04_attention_maps.map_table(
        images, mask, {"P": p1}, {"D": attention.attention_distribution(p1, 2.0)}
    )
    weights = attention.attention_weights(p1)[0]
    ch04_attention_maps.row_looks_at(*first, p1[0, 0], weights, attended, 3)
    ch04_attention_maps.attention_pair(p1[0], p2[0], "", mask[0])
    ch04_attention_maps.editable_map(p1[0, 0, :6, :6])
    ch05.panels({"a": p1[0]}, signed=["a"])
    ch05.signed_grid({"a": [p1[0]]}, ["a"], mask[0])
    ch06.clamping({"a": torch.randn(5).to("cuda")}, 0.5)
    plt.close("all")


def test_a_chapter_runs(tmp_path, monkeypatch):
    """Chapter 5, on untrained networks; what its cells print is not looked at."""
    small = {
        "image_size": 64,
        "train_images": 8,
        "synthetic_images": 10,
        "synthetic_test_images": 1,
    }
    for name, value in small.items():
        monkeypatch.setitem(recipe._PRESETS["smoke"], name, value)
    monkeypatch.setattr(Session, "folder", lambda *_, **__: None)
    chapter = next(path for path in CHAPTERS if path.name.startswith("05"))
    scope = {"__name__": "__main__", "display": lambda *_: None}
    for i, cell in enumerate(nbformat.read(chapter, as_version=4).cells):
        tags = set(cell.metadata.get("tags", []))
        if (
            cell.cell_type == "code"
            and not tags & {"setup", "fill-in"}
            and "check(" not in cell.source
        ):
            source = cell.source.replace('runs_dir: str = ""', f"runs_dir: str = {str(tmp_path)!r}")
            exec(compile(source, f"<cell {i} of {chapter.stem}>", "exec"), scope)
            plt.close("all")
    assert scope["run"].device.type == "cuda"


# --- the card can fail ------------------------------------------------------------------------------------------------

MISTAKES = {
    "an operation on both places": lambda host, there: host + there,
    "a product of both places": lambda host, there: there @ host,
    "a list of both places": lambda host, there: torch.cat([host, there]),
    "a result added to the host's": lambda host, there: host.add_(there),
    "numpy": lambda host, there: there.numpy(),
    "numpy in passing": lambda host, there: np.asarray(there),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_card_refuses_what_a_gpu_refuses(mistake):
    with pytest.raises((RuntimeError, TypeError), match="same device|can't convert cuda"):
        mistake(torch.ones(2), torch.ones(2, device="cuda"))


def test_the_card_allows_what_a_gpu_allows():
    there = torch.arange(4.0, device="cuda").requires_grad_()
    total = (there * torch.tensor(2.0))[torch.tensor([1, 2])].sum()
    total.backward()
    assert there.grad.device.type == "cuda" and there.grad.tolist() == [0, 2, 2, 0]


def test_autocast_lowers_products_and_leaves_sums_alone():
    there = torch.ones(2, 2, device="cuda")
    with torch.autocast("cuda", torch.float16):
        product = there @ there
        assert product.dtype == torch.float16 and torch.softmax(product, 1).dtype == torch.float32


def test_uploads_and_waits_are_counted():
    with card.counted() as (uploads, waits):
        there = torch.ones(3).to("cuda")
        there.sum().item(), there.tolist(), there.cpu(), bool((there > 0).all()), there[there > 0]
    assert uploads.total() == 1 and waits.total() == 5


def left_on_the_host(batch, scale, size):
    images, mask = resized(batch, scale, size)
    return images, mask.cpu()


def waited_for_each_term(state, *rest):
    terms = forward_backward(state, *rest)
    return {name: torch.full_like(value, float(value)) for name, value in terms.items()}


resized, forward_backward = training.batching.resized, training.forward_backward


def test_a_mask_left_on_the_host_is_found(data, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(training.batching, "resized", left_on_the_host)
    with pytest.raises(RuntimeError, match="same device"):
        fit(BASE, data, tmp_path, teacher=teacher)


def test_waiting_for_every_term_is_found(data, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "forward_backward", waited_for_each_term)
    with pytest.raises(AssertionError):
        test_a_step_uploads_and_waits_once("kdas", data, teacher, tmp_path)
    capsys.readouterr()  # the counts of a faulty step are nothing to show
