"""Looking at a training: the plot that grows in a notebook, and TensorBoard's files."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from kdas_book.callbacks import LivePlot, PredictionSnapshots, TensorBoard, read_snapshots
from kdas_core.data import load_data
from kdas_core.data.dataset import PolypDataset
from kdas_core.models import build
from kdas_core.recipe import preset
from kdas_core.training import fit
from kdas_core.training import loop as training
from kdas_core.training.checkpoint import load_history

HYPERPARAMETERS = {
    "image_size": 32,
    "batch_size": 4,
    "epochs": 3,
    "train_images": None,
    "objective": "supervised",
}


@pytest.fixture(scope="module")
def data(polyps):
    return load_data(polyps, validation_fraction=0.2)  # 8 for training: two steps an epoch


class Shown:
    """What IPython's ``display`` hands out: it notes each figure that is shown in its place."""

    def __init__(self):
        self.figures = []

    def display(self, figure, display_id):
        self.update(figure)
        return self

    def update(self, figure):
        self.figures.append([len(line.get_xdata()) for axis in figure.axes for line in axis.lines])


def test_the_plot_grows_in_one_place_and_stays(tmp_path, data, monkeypatch):
    shown = Shown()
    monkeypatch.setattr("IPython.display.display", shown.display)
    fit(preset("smoke", **HYPERPARAMETERS), data, tmp_path, callback=LivePlot())
    assert shown.figures == [[1, 1], [2, 2], [3, 3]], "two panels, one point more after each epoch"


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_every_term_of_every_step_once_also_after_an_interruption(
    tmp_path, data, monkeypatch
):
    recipe, record = (
        preset("smoke", **HYPERPARAMETERS, scales=(1.0, 2.0)),
        training.TrainingState.record,
    )

    def power_cut(self, terms):
        record(self, terms)
        if self.global_step == 7:
            raise ConnectionError

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(training.TrainingState, "record", power_cut)
        fit(recipe, data, tmp_path, callback=TensorBoard())
    folder = fit(recipe, data, tmp_path, callback=TensorBoard())
    written, steps = scalars(folder), pd.read_csv(folder / "steps.csv")
    assert [step for step, _ in written["step/total"]] == list(range(1, 13)), (
        "12 steps: epochs × batches × scales"
    )
    for term in ("total", "structure_1", "structure_2"):
        assert [value for _, value in written[f"step/{term}"]] == pytest.approx(
            list(steps[term]), rel=1e-5
        )
    history = load_history(folder)
    assert written["epoch/val_dice"] == [
        (4 * epoch, pytest.approx(value, rel=1e-5))
        for epoch, value in zip(history["epoch"], history["val_dice"])
    ]


def test_the_bar_says_what_is_left_of_the_training(tmp_path, data, monkeypatch):
    """Every step takes ten seconds by this clock; four batches of one scale."""
    said, clock, train_step = [], [0.0], training.train_step

    def slowly(*batch):
        clock[0] += 10
        return train_step(*batch)

    monkeypatch.setattr(training, "train_step", slowly)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(
        "kdas_core.training.safety.tqdm.set_postfix",
        lambda bar, values, refresh: said.append(values),
    )
    fit(replace(preset("smoke", **HYPERPARAMETERS), epochs=2), data, tmp_path)
    assert [set(values) for values in said] == [
        {"structure_1", "structure_2", "total", "training"}
    ] * 4
    assert [values["training"] for values in said] == [
        "…",
        "0:00:20 left",
        "0:00:10 left",
        "0:00:00 left",
    ]


def test_glimpses_are_what_the_network_says_after_each_epoch_also_after_an_interruption(
    tmp_path, data, monkeypatch
):
    images = torch.stack([item["image"] for item in PolypDataset(data.validation, 32)])
    recipe, checkpoint = preset("smoke", **HYPERPARAMETERS), training.TrainingState.checkpoint

    def power_cut(self):
        checkpoint(self)
        if self.epoch == 2:
            raise ConnectionError

    whole = fit(recipe, data, tmp_path / "whole", callback=PredictionSnapshots(images))
    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(training.TrainingState, "checkpoint", power_cut)
        fit(recipe, data, tmp_path / "cut", callback=PredictionSnapshots(images))
    cut = fit(recipe, data, tmp_path / "cut", callback=PredictionSnapshots(images))
    kept, resumed = read_snapshots(whole), read_snapshots(cut)
    assert list(kept) == [1, 2, 3]
    assert list(resumed) == [1, 3], (
        "the moment after epoch 2 was lost, and nothing else is given out for it"
    )
    assert all((resumed[epoch] == kept[epoch]).all() for epoch in resumed)
    best = int(load_history(whole)["val_dice"].idxmax()) + 1
    with torch.inference_mode():
        p1, p2 = build("student", weights=whole / "best.safetensors").eval()(images)
    torch.testing.assert_close(
        torch.from_numpy(kept[best]).float(), torch.stack([p1, p2]), atol=0.01, rtol=0.001
    )


def test_of_a_long_training_a_few_glimpses_are_kept_and_the_last(tmp_path, data):
    images = torch.zeros(1, 3, 32, 32)
    folder = fit(
        replace(preset("smoke", **HYPERPARAMETERS), epochs=5),
        data,
        tmp_path,
        callback=PredictionSnapshots(images, at_most=2),
    )
    assert list(read_snapshots(folder)) == [3, 5]
    assert read_snapshots(tmp_path) == {}
