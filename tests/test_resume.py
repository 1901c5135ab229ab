"""What a training survives: kill -9 anywhere, a damaged or unwritable file, SIGTERM, too little memory, a number that is none."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from kdas_core import UserError, files
from kdas_core.data import load_data
from kdas_core.models import build
from kdas_core.recipe import Recipe, preset
from kdas_core.training import checkpoint as runs
from kdas_core.training import fit
from kdas_core.training import loop as training
from kdas_core.training.checkpoint import (
    latest_checkpoint,
    load_history,
    read_checkpoint,
    write_checkpoint,
)

ROOT = Path(__file__).parent.parent
TINY = {
    "image_size": 32,
    "batch_size": 2,
    "epochs": 2,
    "train_images": None,
    "test_images": 2,
    "objective": "supervised",
}


@pytest.fixture(scope="session")
def data(polyps):
    return load_data(polyps, validation_fraction=0.2)


def same_run(one: Path, other: Path) -> None:
    """Two runs ended in the same numbers, to the last bit."""
    histories = [load_history(folder).drop(columns="seconds") for folder in (one, other)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert (one / "steps.csv").read_text() == (other / "steps.csv").read_text()
    states = [read_checkpoint(folder / "last.ckpt") for folder in (one, other)]
    for part in ("network", "optimiser", "random"):
        assert equal(*(state[part] for state in states)), part
    best = [load_file(folder / "best.safetensors") for folder in (one, other)]
    assert equal(*best)


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


# --- kill -9 ----------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from kdas_core.training import checkpoint as runs
from kdas_core.training import loop as training
from kdas_core.data import load_data
from kdas_core.models import build
from kdas_core.recipe import Recipe

torch.set_num_threads(1)
recipe, root, out, moment, count = Recipe.from_yaml(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
seen = 0

def die_at(*_):
    global seen
    seen += 1
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)

if moment == "step":            # between the optimiser's step and the checkpoint
    record = training.TrainingState.record
    training.TrainingState.record = lambda *a: (record(*a), die_at())
elif moment == "write":         # half of a checkpoint is written
    whole = runs.write
    def half(path, content):
        if path.name == "next.ckpt":
            global seen
            seen += 1
            if seen == count:
                path.with_name(path.name + ".part").write_bytes(bytes(content)[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        whole(path, content)
    runs.write = half
elif moment == "rename":        # last.ckpt has become previous.ckpt, and there is no last.ckpt
    rename = os.replace
    def between(source, target):
        rename(source, target)
        if str(target).endswith("previous.ckpt"):
            die_at()
    runs.os.replace = between
elif moment == "epoch":         # history.csv and best.safetensors are written, the checkpoint is not
    written = runs.write
    runs.write = lambda path, content: (written(path, content), path.name == "history.csv" and die_at())

torch.manual_seed(7)
training.fit(recipe, load_data(root, validation_fraction=0.2), out, teacher=build("student"), checkpoint_minutes=0)
"""


def start(
    tmp_path: Path, polyps: Path, recipe: Recipe, moment: str = "never", count: int = 0
) -> int:
    """Run the program above; returns its exit code."""
    (tmp_path / "asked.yaml").write_text(recipe.as_yaml())
    words = [tmp_path / "asked.yaml", polyps, tmp_path / "runs", moment, count]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "error::UserWarning", "-c", KILLED, *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
def test_five_kills_at_awkward_moments_change_no_bit(tmp_path, polyps, data):
    """10 pairs, 8 for training: 4 steps of 2 scales an epoch, 3 epochs, augmentation, EMA."""
    recipe = preset(
        "smoke",
        **TINY
        | {"objective": "kdas", "epochs": 3, "scales": (1.0, 2.0), "augment": True, "ema": 0.9},
    )
    moments = [("step", 3), ("write", 2), ("rename", 2), ("epoch", 1), ("step", 5)]
    for moment, count in moments:
        assert start(tmp_path, polyps, recipe, moment, count) == -signal.SIGKILL, (
            f"{moment} {count} was never reached"
        )
    assert start(tmp_path, polyps, recipe) == 0
    (survivor,) = (tmp_path / "runs").iterdir()
    (tmp_path / "straight").mkdir()
    assert start(tmp_path / "straight", polyps, recipe) == 0
    (straight,) = (tmp_path / "straight" / "runs").iterdir()
    same_run(survivor, straight)
    assert (
        not list(survivor.glob("*.part"))
        and json.loads((survivor / "metrics.json").read_text())["epochs"] == 3
    )


def test_steps_written_after_the_last_checkpoint_are_dropped_whole(tmp_path):
    """Three lives, each killed between its rows and its checkpoint: the size that they return is the file's."""
    rows = [{"epoch": 1, "step": step, "total": step / 3} for step in range(1, 4)]
    size = runs.append_steps(tmp_path, rows[:1], 0)
    for longer in (rows[1:], rows[1:2], rows[1:]):
        after = runs.append_steps(tmp_path, longer, size)
        assert after == (tmp_path / "steps.csv").stat().st_size
    assert pd.read_csv(tmp_path / "steps.csv")["step"].tolist() == [1, 2, 3]
    assert runs.append_steps(tmp_path, [], size) == size == (tmp_path / "steps.csv").stat().st_size


@pytest.mark.slow
def test_kills_at_random_times_change_no_bit(tmp_path, polyps):
    """Not at moments that we chose: after so many milliseconds, whatever the program is doing then."""
    recipe = preset("smoke", **TINY | {"epochs": 6})
    (tmp_path / "asked.yaml").write_text(recipe.as_yaml())
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYTHONPATH": str(ROOT),
    }
    words = [tmp_path / "asked.yaml", polyps, tmp_path / "runs", "never", 0]

    def written() -> int:
        """When the last checkpoint was; 0 without one, as between two renames."""
        with suppress(FileNotFoundError):
            return max((p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/last.ckpt")), default=0)
        return 0

    rng, kills = np.random.default_rng(), 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *map(str, words)],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
        )
        # wait for the first checkpoint of this life, then a random moment
        stamp = written()
        while process.poll() is None and written() <= stamp:
            try:
                process.wait(0.01)
            except subprocess.TimeoutExpired:
                pass
        try:
            process.wait(float(rng.uniform(0, 0.8)))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0 and kills >= 2
    (survivor,) = (tmp_path / "runs").iterdir()
    (tmp_path / "straight").mkdir()
    assert start(tmp_path / "straight", polyps, recipe) == 0
    (straight,) = (tmp_path / "straight" / "runs").iterdir()
    same_run(survivor, straight)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(tmp_path, data, monkeypatch):
    """A run cut off in its second epoch, with two checkpoints: (recipe, folder)."""
    recipe, record = preset("smoke", **TINY), training.TrainingState.record
    calls = []

    def cut(self, *terms):
        record(self, *terms)
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("cut")

    monkeypatch.setattr(training.TrainingState, "record", cut)
    with pytest.raises(RuntimeError, match="cut"):
        fit(recipe, data, tmp_path / "runs", checkpoint_minutes=0)
    monkeypatch.setattr(training.TrainingState, "record", record)
    (folder,) = (tmp_path / "runs").iterdir()
    return recipe, folder


def test_a_run_goes_on_at_the_step_where_it_stopped(interrupted, data, tmp_path):
    recipe, folder = interrupted
    state = read_checkpoint(folder / "last.ckpt")
    assert (state["epoch"], state["step"]) == (1, 2)
    resumed = fit(recipe, data, tmp_path / "runs")
    same_run(resumed, fit(recipe, data, tmp_path / "straight"))


@pytest.mark.parametrize("written", [3, 10], ids=["within an epoch", "the last of the run"])
def test_a_run_cut_off_between_the_renames_of_a_checkpoint_ends_with_all_its_files(
    data, tmp_path, monkeypatch, written
):
    """2 epochs of 4 steps: 10 checkpoints; after the last one a run that goes on has nothing more to write."""
    recipe, rename, renames = preset("smoke", **TINY), os.replace, []

    def cut(source, target):
        rename(source, target)
        renames.append(Path(target).name)
        if renames.count("previous.ckpt") == written - 1:  # the first checkpoint has none before it
            raise RuntimeError("cut")

    monkeypatch.setattr(runs.os, "replace", cut)
    with pytest.raises(RuntimeError, match="cut"):
        fit(recipe, data, tmp_path / "runs", checkpoint_minutes=0)
    monkeypatch.undo()
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "last.ckpt").exists() and not (folder / "metrics.json").exists()
    same_run(fit(recipe, data, tmp_path / "runs"), fit(recipe, data, tmp_path / "straight"))
    assert not (folder / "next.ckpt").exists()


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    interrupted, data, tmp_path, harm
):
    recipe, folder = interrupted
    content = bytearray((folder / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    harmed = {"truncated": content[:-1000], "flipped": content, "empty": b""}[harm]
    (folder / "last.ckpt").write_bytes(harmed)
    with pytest.warns(
        UserWarning, match="last.ckpt is cut short or damaged.*goes on from previous.ckpt"
    ):
        resumed = fit(recipe, data, tmp_path / "runs")
    same_run(resumed, fit(recipe, data, tmp_path / "straight"))


def test_without_a_sound_checkpoint_the_run_starts_anew_and_says_so(interrupted, data, tmp_path):
    recipe, folder = interrupted
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / name).write_bytes(b"no checkpoint")
    with pytest.warns(UserWarning, match="No other is left, so the run starts anew"):
        resumed = fit(recipe, data, tmp_path / "runs")
    same_run(resumed, fit(recipe, data, tmp_path / "straight"))


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    write_checkpoint(tmp_path, {"x": Harm()})
    with pytest.raises(UserError, match="cannot read it"):
        read_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "harm").exists()


def test_another_recipe_in_the_same_folder_is_refused(interrupted, data, tmp_path, monkeypatch):
    recipe, folder = interrupted
    monkeypatch.setattr(training, "run_dir", lambda *a: folder)
    with pytest.raises(UserError, match="holds the run of another recipe"):
        fit(replace(recipe, alpha=0.5), data, tmp_path / "runs")
    (folder / "recipe.yaml").unlink()
    with pytest.raises(UserError, match="is of another recipe; choose"):
        fit(replace(recipe, alpha=0.5), data, tmp_path / "runs")


@pytest.mark.parametrize("name, count, steps", [("next.ckpt", 4, 3), ("best.safetensors", 1, 4)])
def test_a_full_disk_stops_clearly_and_the_run_goes_on_when_there_is_room(
    data, tmp_path, monkeypatch, name, count, steps
):
    """The disk is full when a third of the fourth checkpoint, or of the first epoch's best weights, is written."""
    recipe, whole, writes = preset("smoke", **TINY), open, []

    class Full:
        def __init__(self, path, *mode, **options):
            self.file, self.counts = (
                whole(path, *mode, **options),
                str(path).endswith(f"{name}.part"),
            )

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content):
            writes.append(self.counts)
            if self.counts and sum(writes) == count:
                self.file.write(content[: len(content) // 3])
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

    monkeypatch.setattr(files, "open", Full, raising=False)
    with pytest.raises(
        UserError, match=f"{name} cannot be written .the disk is full.; .*start the same command"
    ):
        fit(recipe, data, tmp_path / "runs", checkpoint_minutes=0)
    monkeypatch.undo()
    (folder,) = (tmp_path / "runs").iterdir()
    assert not list(folder.glob("*.part")) and latest_checkpoint(folder)["step"] == steps
    same_run(fit(recipe, data, tmp_path / "runs"), fit(recipe, data, tmp_path / "straight"))


# --- requests to stop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, ends_in", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_request_to_stop_waits_for_a_checkpoint(
    data, tmp_path, monkeypatch, capsys, number, ends_in
):
    recipe, record, calls = preset("smoke", **TINY), training.TrainingState.record, []
    before = signal.getsignal(number)

    def asked(self, *terms):
        record(self, *terms)
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(training.TrainingState, "record", asked)
    with pytest.raises(ends_in) as ended:
        fit(recipe, data, tmp_path / "runs")
    monkeypatch.setattr(training.TrainingState, "record", record)
    (folder,) = (tmp_path / "runs").iterdir()
    assert latest_checkpoint(folder)["step"] == 3 and signal.getsignal(number) == before
    if number == signal.SIGTERM:
        assert (
            ended.value.code == 0
            and "the same command goes on from there" in capsys.readouterr().out
        )
    same_run(fit(recipe, data, tmp_path / "runs"), fit(recipe, data, tmp_path / "straight"))


# --- memory, and numbers that are none --------------------------------------------------------------------------------


def run_with_little_memory(recipe, data, folder, monkeypatch, room: int):
    """``fit`` on a device where a forward pass of more than ``room`` images runs out of memory."""
    forward = training.forward_backward

    def limited(state, batch, *rest):
        if -(-len(batch["name"]) // state.accumulation_steps) > room:
            state.net(batch["image"])  # the running statistics have moved when the memory ends
            raise torch.OutOfMemoryError("simulated")
        return forward(state, batch, *rest)

    monkeypatch.setattr(training, "forward_backward", limited)
    result = fit(recipe, data, folder)
    monkeypatch.setattr(training, "forward_backward", forward)
    return result


def steps_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "steps.csv")


def test_out_of_memory_takes_more_passes_and_leaves_the_losses(data, tmp_path, monkeypatch):
    recipe = preset("smoke", **TINY | {"batch_size": 8, "epochs": 4, "freeze_statistics": True})
    little = run_with_little_memory(recipe, data, tmp_path / "little", monkeypatch, room=2)
    enough = fit(recipe, data, tmp_path / "enough")
    assert json.loads((little / "metrics.json").read_text())["passes"] == 4
    np.testing.assert_allclose(steps_of(little)["total"], steps_of(enough)["total"], atol=1e-5)
    assert read_checkpoint(little / "last.ckpt")["accumulation_steps"] == 4, (
        "a resumed run does not try again what did not fit"
    )


def test_accumulated_passes_are_one_batch_also_where_they_do_not_divide_it(data, tmp_path):
    recipe = preset("smoke", **TINY | {"batch_size": 8, "freeze_statistics": True})
    whole, parts = fit(recipe, data, tmp_path), fit(replace(recipe, accumulate=3), data, tmp_path)
    np.testing.assert_allclose(steps_of(whole)["total"], steps_of(parts)["total"], atol=1e-5)


@pytest.mark.parametrize("size, passes", [(32, "1 pass"), (64, "2 passes")])
def test_one_image_that_does_not_fit_is_the_end(data, tmp_path, monkeypatch, size, passes):
    """Of 32 pixels one image alone would leave batch norm one value per channel."""
    recipe = preset("smoke", **TINY | {"image_size": size})
    said = f"memory does not suffice for {passes} a batch; choose a smaller image_size"
    with pytest.raises(UserError, match=said):
        run_with_little_memory(recipe, data, tmp_path, monkeypatch, room=0)


def test_a_number_that_is_none_stops_with_step_term_images_and_a_file(data, tmp_path, monkeypatch):
    def spoiled(*_, **__):
        calls = []

        def terms(student, teacher, mask):
            calls.append(1)
            bad = student.maps[0].mean() * (float("nan") if len(calls) == 3 else 1.0)
            return {
                "structure_1": bad,
                "structure_2": student.maps[1].mean(),
                "total": bad + student.maps[1].mean(),
            }

        return terms

    monkeypatch.setattr(training, "objective", spoiled)
    with pytest.raises(
        UserError, match=r"epoch 1, step 3: structure_1, total is no finite number, on .*failure.pt"
    ):
        fit(preset("smoke", **TINY), data, tmp_path, checkpoint_minutes=0)
    (folder,) = tmp_path.iterdir()
    assert latest_checkpoint(folder)["step"] == 2, "the checkpoint before is sound"
    failure = torch.load(folder / "failure.pt", weights_only=True)
    assert (
        failure["image"].shape == (2, 3, 32, 32)
        and len(failure["name"]) == 2
        and failure["scale"] == 1.0
    )
    net = build("student")
    net.load_state_dict(failure["network"])


def test_a_gradient_that_is_none_is_found_before_it_reaches_the_weights(
    data, tmp_path, monkeypatch
):
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * float("inf")

    monkeypatch.setattr(
        training,
        "objective",
        lambda *a, **k: lambda s, t, m: {"total": Spoil.apply(s.maps[0]).mean()},
    )
    with pytest.raises(UserError, match="epoch 1, step 1: the gradient is no finite number"):
        fit(preset("smoke", **TINY), data, tmp_path)
    (folder,) = tmp_path.iterdir()
    weights = torch.load(folder / "failure.pt", weights_only=True)["network"].values()
    assert all(torch.isfinite(w).all() for w in weights if w.is_floating_point())


def test_a_mounted_drive_that_cannot_push_to_the_disk_serves_as_well(data, tmp_path, monkeypatch):
    """Google Drive in Colab is such a folder: whole files, renamed, but ``fsync`` may be refused."""

    def refused(_descriptor):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    recipe = preset("smoke", **TINY)
    plain = fit(recipe, data, tmp_path / "disk")
    monkeypatch.setattr(os, "fsync", refused)
    same_run(fit(recipe, data, tmp_path / "My Drive" / "polyps"), plain)


# --- a run is what decides it -----------------------------------------------------------------------------------------


def corrected(root: Path, part: str) -> None:
    """One picture of the training set is exchanged; name, size in bytes of the folder's other files and times stay."""
    path = next((root / "TrainDataset" / part).iterdir())
    before = path.stat()
    with Image.open(path) as image:
        ImageOps.mirror(image).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("part", ["images", "masks"])
def test_corrected_pictures_are_trained_on_and_it_is_said(polyps, tmp_path, capsys, part):
    root, recipe = shutil.copytree(polyps, tmp_path / "data"), preset("smoke", **TINY, seed=3)
    first = fit(recipe, load_data(root, 0.2), tmp_path / "runs")
    assert fit(recipe, load_data(root, 0.2), tmp_path / "runs") == first
    moved = root.rename(tmp_path / "elsewhere")  # the same pictures under another name
    assert fit(recipe, load_data(moved, 0.2), tmp_path / "runs") == first
    capsys.readouterr()
    corrected(moved, part)
    second = fit(recipe, load_data(moved, 0.2), tmp_path / "runs")
    assert second != first
    assert f"is trained anew: {part} differ from those of {first.name}" in capsys.readouterr().out
    fresh = fit(recipe, load_data(moved, 0.2), tmp_path / "fresh")
    same_run(second, fresh)
    assert fresh.name == second.name


def test_another_teacher_makes_another_student(data, tmp_path, capsys):
    recipe = preset("smoke", **{**TINY, "objective": "kdas", "epochs": 1})
    teachers = [build("student") for _ in range(2)]
    first, second = (fit(recipe, data, tmp_path, teacher=net) for net in teachers)
    assert first != second
    assert f"is trained anew: teacher differ from those of {first.name}" in capsys.readouterr().out
    assert fit(recipe, data, tmp_path, teacher=teachers[0]) == first


def test_masks_that_evaluation_would_refuse_stop_the_training_before_it_begins(polyps, tmp_path):
    root = shutil.copytree(polyps, tmp_path / "data")
    path = next((root / "TestDataset").glob("*/masks/*"))
    with Image.open(path) as mask:
        Image.fromarray((np.asarray(mask) > 0).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match=f"{path.name} has 1 as its largest value"):
        fit(preset("smoke", **TINY), load_data(root, 0.2), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/steps.csv"))


TWICE = """
import sys
from kdas_core.data import load_data
from kdas_core.recipe import preset
from kdas_core.training import fit
print(fit(preset("smoke", **{tiny!r}), load_data({root!r}, 0.2), {runs!r}))
"""


def test_two_programs_in_one_run_take_turns(polyps, data, tmp_path):
    code = TWICE.format(tiny=TINY, root=str(polyps), runs=str(tmp_path / "runs"))
    command = [sys.executable, "-c", code]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as `fit` below
    options = {"stdout": subprocess.PIPE, "text": True, "env": threads}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("Another program trains in" in text for text in said) == 1
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1]
    same_run(Path(said[0].splitlines()[-1]), fit(preset("smoke", **TINY), data, tmp_path / "alone"))


def test_a_checkpoint_with_weights_that_are_not_finite_is_not_gone_on_from(data, tmp_path):
    recipe = preset("smoke", **TINY)
    folder = fit(recipe, data, tmp_path)
    (folder / "metrics.json").unlink()
    state = read_checkpoint(folder / "last.ckpt")
    next(iter(state["network"].values())).view(-1)[0] = float("nan")
    write_checkpoint(folder, state)
    with pytest.raises(
        UserError, match=r"last\.ckpt: 1 of \d+ tensors have NaN or infinite values"
    ):
        fit(recipe, data, tmp_path)


def test_training_needs_no_home(data, tmp_path, monkeypatch):
    """As of a user id without an entry and without HOME, in a container."""

    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    folder = fit(preset("smoke", **{**TINY, "epochs": 1}), data, tmp_path)
    assert (folder / "metrics.json").is_file()
