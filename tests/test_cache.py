"""From files to batches: decoded once, kept on disk, never wrong, never late, and the pixels that the released programs see."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from kdas_core import UserError
from kdas_core.data import cache
from kdas_core.data import dataset as polyps
from kdas_core.data.cache import mapped
from kdas_core.data.dataset import PolypDataset, normalise, normalise_batch
from kdas_core.data.layout import index_pairs
from kdas_core.training.batching import prefetch

ROOT = Path(__file__).parent.parent
SIZE = 48


@pytest.fixture
def folder(polyps, tmp_path, monkeypatch) -> Path:
    """Ten pairs of our own, and an empty cache."""
    monkeypatch.setenv("KDAS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(polyps / "TrainDataset", tmp_path / "train"))


def dataset(folder: Path, **options) -> PolypDataset:
    return PolypDataset(index_pairs(folder), SIZE, **options)


def everything(data: PolypDataset) -> torch.Tensor:
    batch = data.batch(range(len(data)))
    return torch.cat([batch["image"], batch["mask"]], dim=1)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the images that were decoded since, in this process."""
    names, read = [], polyps.read_image
    monkeypatch.setattr(
        polyps, "read_image", lambda path, *content: names.append(path.stem) or read(path, *content)
    )
    return names


# --- the same numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"soft_masks": True}, {"augment": True}, {"augment": True, "soft_masks": True}]
)
def test_a_cached_batch_is_the_items_bit_for_bit_and_a_file_is_decoded_once(
    folder, decoded, options
):
    plain, kept = dataset(folder, **options), dataset(folder, **options, cached=True)
    items = torch.stack([torch.cat([item["image"], item["mask"]]) for item in plain])
    decoded.clear()
    for epoch_of_the_same_numbers in range(3):
        assert torch.equal(everything(kept), items), epoch_of_the_same_numbers
    assert sorted(decoded) == sorted(plain.index.names)
    later = dataset(folder, **options, cached=True)
    assert torch.equal(everything(later), items) and len(decoded) == 10, (
        "a later run decodes nothing"
    )


def test_an_item_belongs_to_its_reader(folder):
    kept = dataset(folder, cached=True)
    first = kept[0]["image"].clone()
    kept[0]["image"].zero_()
    assert torch.equal(kept[0]["image"], first)
    with pytest.raises(ValueError, match="read-only"):
        kept._planes(0)[0] = 0


def test_soft_and_binary_masks_have_caches_of_their_own(folder):
    hard, soft = (
        everything(dataset(folder, cached=True)),
        everything(dataset(folder, cached=True, soft_masks=True)),
    )
    assert len(hard[:, 3].unique()) == 2 and len(soft[:, 3].unique()) > 10
    assert torch.equal(hard[:, :3], soft[:, :3])


def test_lookup_tables_give_the_numbers_of_normalise():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    looked_up = np.stack(
        [
            table[0, plane]
            for plane, table in zip(image.transpose(2, 0, 1), polyps._tables()[:, None])
        ]
    )
    assert np.array_equal(looked_up, normalise(image).numpy())
    assert torch.equal(normalise_batch(torch.from_numpy(image)[None])[0], normalise(image))


def released_pipeline(pair) -> torch.Tensor:
    """Pillow and torchvision, as the released programs feed their networks: image, and mask with its grey levels."""
    square, tensor = transforms.Resize((SIZE, SIZE)), transforms.ToTensor()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = transforms.Compose([square, tensor, transforms.Normalize(mean, std)])(
        Image.open(pair.image).convert("RGB")
    )
    return torch.cat(
        [image, transforms.Compose([square, tensor])(Image.open(pair.mask).convert("L"))]
    )


def test_pixels_are_those_of_the_released_input_pipeline(folder):
    data = dataset(folder, soft_masks=True)
    ours = everything(data)
    theirs = torch.stack([released_pipeline(pair) for pair in data.index])
    one_level = torch.tensor([1 / 0.229, 1 / 0.224, 1 / 0.225, 1]).view(4, 1, 1) / 255
    apart = (ours - theirs).abs() / one_level
    assert apart.max() < 1.001, "never more than one grey level"
    assert (apart > 0.5).double().mean() < 0.01, "and that seldom"


# --- what may happen to a cache ---------------------------------------------------------------------------------------


def test_a_changed_image_is_noticed_though_its_name_size_and_time_are_the_same(folder, decoded):
    everything(dataset(folder, cached=True))
    path = folder / "images" / "3.jpg"
    before, bytes_before = path.stat(), bytearray(path.read_bytes())
    bytes_before[len(bytes_before) // 2] ^= 0x15
    path.write_bytes(bytes_before)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    decoded.clear()
    changed = everything(dataset(folder, cached=True))
    assert decoded == ["3"] and torch.equal(changed, everything(dataset(folder)))


def test_a_touched_file_with_the_same_bytes_is_not_decoded_again(folder, decoded):
    everything(dataset(folder, cached=True))
    (folder / "images" / "3.jpg").touch()
    decoded.clear()
    everything(dataset(folder, cached=True))
    assert decoded == []


def test_damage_on_the_disk_is_noticed(folder, decoded):
    sound = everything(dataset(folder, cached=True))
    (file,) = Path(os.environ["KDAS_CACHE"]).glob("pairs-*/pixels.u8")
    content = bytearray(file.read_bytes())
    content[5 * 4 * SIZE * SIZE + 77] ^= 1  # one bit of the sixth pair
    file.write_bytes(content)
    decoded.clear()
    assert torch.equal(everything(dataset(folder, cached=True)), sound)
    assert decoded == [index_pairs(folder)[5].name]


@pytest.mark.parametrize("cut", ["pixels.u8", "rows"])
def test_a_cache_that_was_cut_short_is_completed(folder, cut):
    sound = everything(dataset(folder, cached=True))
    (file,) = Path(os.environ["KDAS_CACHE"]).glob(f"pairs-*/{cut}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    assert torch.equal(everything(dataset(folder, cached=True)), sound)


def test_another_version_has_a_cache_of_its_own(folder, monkeypatch, decoded):
    everything(dataset(folder, cached=True))
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    decoded.clear()
    everything(dataset(folder, cached=True))
    assert len(decoded) == 10 and len(list(Path(os.environ["KDAS_CACHE"]).glob("pairs-*"))) == 2


def test_a_cache_that_nobody_used_for_a_month_makes_room(folder, tmp_path):
    everything(dataset(folder, cached=True))
    (old,) = Path(os.environ["KDAS_CACHE"]).glob("pairs-*")
    month_ago = time.time() - 31 * 86400
    os.utime(old, (month_ago, month_ago))
    everything(dataset(folder, cached=True, soft_masks=True))
    (left,) = Path(os.environ["KDAS_CACHE"]).glob("pairs-*")
    assert left != old


FILL = """
import hashlib, os, signal, sys
from kdas_core.data.layout import index_pairs
from kdas_core.data.dataset import PolypDataset
data = PolypDataset(index_pairs(sys.argv[1]), 48, cached=True)
if sys.argv[2] == "die":  # half of the fourth row is written
    rows = data._planes.__self__
    write = rows._write
    def struck(i, pixels):
        if i < 3:
            return write(i, pixels)
        rows._pixels[3, :2] = pixels[:2]
        os.kill(os.getpid(), signal.SIGKILL)
    rows._write = struck
    for i in range(len(data)):
        data[i]
batch = data.batch(range(len(data)))
print(hashlib.sha256(batch["image"].numpy().tobytes() + batch["mask"].numpy().tobytes()).hexdigest())
"""


def start_filling(folder: Path, how: str) -> subprocess.Popen:
    command = [sys.executable, "-c", FILL, str(folder), how]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )


def test_a_process_killed_while_it_writes_leaves_nothing_wrong(folder):
    killed = start_filling(folder, "die")
    assert killed.wait() == -signal.SIGKILL
    assert torch.equal(everything(dataset(folder, cached=True)), everything(dataset(folder)))


def test_two_processes_may_fill_one_cache_at_once(folder):
    both = [start_filling(folder, "live") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert said[0] == said[1] and len(said[0]) == 65
    assert len(list(Path(os.environ["KDAS_CACHE"]).glob("pairs-*"))) == 1
    assert torch.equal(everything(dataset(folder, cached=True)), everything(dataset(folder)))


def test_without_room_on_the_disk_the_pictures_stay_in_memory(folder, monkeypatch, decoded):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.warns(
        UserWarning,
        match=r"cannot be written \(No space left on device\).*stay in memory; set KDAS_CACHE",
    ):
        kept = dataset(folder, cached=True)
    assert torch.equal(everything(kept), everything(kept)) and len(decoded) == 10
    assert not list(Path(os.environ["KDAS_CACHE"]).glob("pairs-*")), "no half cache is left behind"
    assert torch.equal(everything(kept), everything(dataset(folder)))


def test_a_small_disk_that_is_really_full(folder, tmp_path, monkeypatch):
    """Not simulated: 64 kB of tmpfs for 92 kB of pixels. Without taking the space up front this would end in a bus error."""
    small = tmp_path / "small"
    small.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a small disk")
    try:
        monkeypatch.setenv("KDAS_CACHE", str(small))
        with pytest.warns(UserWarning, match="No space left on device"):
            kept = dataset(folder, cached=True)
        assert torch.equal(everything(kept), everything(dataset(folder)))
    finally:
        subprocess.run([shutil.which("umount"), small], check=True)


def test_a_cache_folder_that_cannot_be_made_is_no_obstacle(folder, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("KDAS_CACHE", str(tmp_path / "a file"))
    with pytest.warns(UserWarning, match="a file.* cannot be written"):
        kept = dataset(folder, cached=True)
    assert torch.equal(everything(kept), everything(dataset(folder)))


def test_an_image_that_vanishes_is_named_and_those_already_decoded_are_not_missed(folder):
    kept = dataset(folder, cached=True)
    kept[0]
    for name in (kept.index[0].image, kept.index[1].image):
        name.unlink()
    kept[0]
    with pytest.raises(UserError, match="does not exist"):
        kept.batch([0, 1, 2])


def test_an_array_in_a_file_keeps_what_is_there_and_grows_with_zeros(tmp_path):
    first = mapped(tmp_path / "a" / "x", np.dtype(np.int32), (3,))
    first[:] = [1, 2, 3]
    first.flush()
    assert mapped(tmp_path / "a" / "x", np.dtype(np.int32), (5,)).tolist() == [1, 2, 3, 0, 0]
    assert mapped(tmp_path / "empty", np.dtype(np.int32), (0,)).shape == (0,)


def test_an_empty_index_has_an_empty_cache(folder):
    data = PolypDataset(index_pairs(folder).take([]), SIZE, cached=True)
    assert len(data) == 0 and data.batch([])["image"].shape == (0, 3, SIZE, SIZE)


# --- one batch ahead --------------------------------------------------------------------------------------------------


def test_the_next_batch_is_made_while_the_present_one_is_used(folder):
    data, made = dataset(folder), []
    batch, second_is_made = data.batch, threading.Event()

    def noting(positions):
        made.append(list(positions))
        if len(made) == 2:
            second_is_made.set()
        return batch(positions)

    data.batch = noting
    stream = prefetch(data, [[0, 1], [2], [3, 4]])
    first = next(stream)
    assert second_is_made.wait(10), "before it was asked for"
    assert first["name"] == list(data.index.names[:2])
    assert [b["name"] for b in stream] == [list(data.index.names[2:3]), list(data.index.names[3:5])]
    assert made == [[0, 1], [2], [3, 4]]
    assert list(prefetch(data, [])) == []


def test_an_error_in_the_batch_ahead_reaches_the_one_who_asks(folder):
    data = dataset(folder)
    data.index[2].image.write_bytes(b"no image")
    stream = prefetch(data, [[0, 1], [2]])
    next(stream)
    with pytest.raises(UserError, match="not an image"):
        next(stream)
