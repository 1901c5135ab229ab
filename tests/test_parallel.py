"""Several processes divide a batch and end with the numbers of one; one that dies takes the others along."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kdas_core.data import load_data
from kdas_core.data.dataset import PolypDataset
from kdas_core.recipe import preset
from kdas_core.training.batching import batches, micro_batches

ROOT = Path(__file__).parent.parent
# 10 pairs, of which validation takes 2: 8 for training are two batches of 3 and one of 2, in 7 epochs 21 steps.
HYPERPARAMETERS = [
    "image_size=32",
    "epochs=7",
    "batch_size=3",
    "train_images=null",
    "validation_fraction=0.2",
    "freeze_statistics=true",
]


def train(polyps: Path, runs: Path, *more: str) -> subprocess.Popen:
    words = [
        "--preset",
        "smoke",
        "--objective",
        "supervised",
        "--data-root",
        str(polyps),
        "--runs-dir",
        str(runs),
    ]
    words += [word for hyperparameter in HYPERPARAMETERS for word in ("--set", hyperparameter)]
    words += more  # of two settings of a hyperparameter the last counts
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    # A shell that starts the tests in the background has Ctrl-C ignored, and that is inherited.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from kdas_book.cli import main; main()"
    command = [sys.executable, "-c", code, "train", *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def steps_in(runs: Path) -> pd.DataFrame:
    (file,) = runs.glob("*/steps.csv")
    return pd.read_csv(file)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_validate_every_image_once(tmp_path, polyps):
    for processes in ("1", "2"):
        process = train(polyps, tmp_path / processes, "--processes", processes)
        out, err = process.communicate()
        assert process.returncode == 0, err
    one, two = steps_in(tmp_path / "1"), steps_in(tmp_path / "2")
    assert len(one) == len(two) == 21
    assert np.abs(one["total"] - two["total"]).max() < 1e-5
    histories = [pd.read_csv(next((tmp_path / n).glob("*/history.csv"))) for n in ("1", "2")]
    assert np.abs(histories[0]["val_loss"] - histories[1]["val_loss"]).max() < 1e-5
    assert np.abs(histories[0]["val_dice"] - histories[1]["val_dice"]).max() < 1e-6
    assert out.count("preset") == 1, "the panel is printed once"


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_one_process_goes_on_from_there(tmp_path, polyps):
    job = train(polyps, tmp_path / "runs", "--processes", "2", "--set", "epochs=200")
    while job.poll() is None and not list((tmp_path / "runs").glob("*/last.ckpt")):
        time.sleep(0.05)
    children = [
        int(pid) for pid in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    ]
    os.kill(children[1], signal.SIGKILL)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 2
    assert re.search(r"Process 2 of 2 was killed \(signal 9\).*the same command", err)
    assert all(not Path(f"/proc/{pid}").exists() for pid in children), "nothing is left running"
    again = train(polyps, tmp_path / "runs", "--set", "epochs=200")
    while again.poll() is None and len(steps_in(tmp_path / "runs")) < 60:
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0 and "Stopped on request" in out, err
    steps = steps_in(tmp_path / "runs")
    place = steps["epoch"] * 3 + steps["step"]
    assert (np.diff(place) == 1).all(), "no step is missing, none was done twice"


@pytest.mark.slow
@pytest.mark.parametrize("request_", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_request_to_stop_reaches_all_processes_and_they_write_one_checkpoint(
    tmp_path, polyps, request_
):
    job = train(polyps, tmp_path / "runs", "--processes", "2", "--set", "epochs=200")
    while job.poll() is None and not list((tmp_path / "runs").glob("*/last.ckpt")):
        time.sleep(0.05)
    job.send_signal(request_)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 0 and out.count("Stopped on request") == 1, err


def test_processes_and_passes_divide_a_batch_without_losing_or_repeating_an_image(polyps):
    data = load_data(polyps, validation_fraction=0.2)
    dataset, recipe = PolypDataset(data.train, 32), preset("smoke", batch_size=3)
    whole = [batch["name"] for batch in batches(dataset, recipe, epoch=1)]
    assert sorted(name for names in whole for name in names) == sorted(data.train.names)
    for world in (2, 3):
        parts = [list(batches(dataset, recipe, 1, 0, rank, world)) for rank in range(world)]
        for step, names in enumerate(whole):
            mine = [part[step] for part in parts]
            counted = [name for batch in mine if batch["weight"] for name in batch["name"]]
            assert sorted(counted) == sorted(names)
            # The average over processes of (weight × mean) is the mean over the batch.
            assert sum(batch["weight"] for batch in mine) / world == pytest.approx(1)
    batch = next(batches(dataset, recipe, 1))
    pieces = list(micro_batches(batch, 2))
    assert [name for piece in pieces for name in piece["name"]] == batch["name"]
    assert (
        sum(piece["weight"] for piece in pieces) == pytest.approx(1)
        and len(list(micro_batches(batch, 99))) == 3
    )


def test_an_epoch_can_be_entered_at_any_step(polyps):
    dataset = PolypDataset(load_data(polyps, validation_fraction=0.2).train, 32, augment=True)
    recipe = preset("smoke", batch_size=3)
    straight, late = list(batches(dataset, recipe, 2)), list(batches(dataset, recipe, 2, first=1))
    assert [b["name"] for b in late] == [b["name"] for b in straight[1:]]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(late, straight[1:]))
