"""Masks from images: right, whole, resumed where it stopped, and of the network that was asked."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from kdas_core import UserError, inference
from kdas_core.data.images import read_image
from kdas_core.inference import fingerprint, predict_files, predict_folder, probability
from kdas_core.models import build, freeze


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return freeze(build("student"))


@pytest.fixture
def images(tmp_path) -> list[Path]:
    """Seven images of three sizes."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i}.png" for i in range(7)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (60 + 10 * (i % 3), 80, 3), dtype=np.uint8)).save(path)
        os.utime(path, (1e9, 1e9))
    return paths


def read(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())
    }


def test_masks_have_the_name_and_size_of_their_image(tmp_path, polyps):
    net = freeze(build("student"))
    images = polyps / "TestDataset" / "Kvasir" / "images"
    count = predict_folder(net, images, tmp_path / "out", size=64)
    files = sorted((tmp_path / "out").iterdir())
    assert count == 3 and [f.stem for f in files] == sorted(f.stem for f in images.iterdir())
    for f in files:
        grey = cv2.imread(str(f), cv2.IMREAD_UNCHANGED)
        image = read_image(next(images.glob(f"{f.stem}.*")))
        assert grey.dtype == np.uint8 and grey.shape == image.shape[:2]
        assert np.abs(grey / 255 - probability(net, image, 64)).max() <= 0.5 / 255 + 1e-6


def test_no_images_or_no_place_for_masks_are_told_in_a_sentence(tmp_path):
    net = freeze(build("student"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        predict_folder(net, tmp_path / "empty", tmp_path / "out", size=64)
    with pytest.raises(UserError, match="not a folder"):
        predict_folder(net, tmp_path / "missing", tmp_path / "out", size=64)
    cv2.imwrite(str(tmp_path / "empty" / "a.png"), np.zeros((40, 50, 3), np.uint8))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        predict_folder(net, tmp_path / "empty", tmp_path / "file", size=64)


def test_masks_hardly_depend_on_the_batch_and_come_in_order(net, images, tmp_path):
    predict_files(net, images, tmp_path / "one", 64, batch_size=1)
    predict_files(net, images, tmp_path / "three", 64, batch_size=3)
    one, three = read(tmp_path / "one"), read(tmp_path / "three")
    assert one.keys() == three.keys() == {path.stem for path in images}
    for name in one:  # sums in another order may turn a rounding
        assert np.abs(one[name].astype(int) - three[name]).max() <= 1
    for path in images:
        assert one[path.stem].shape == read_image(path).shape[:2]
        assert np.abs(one[path.stem] / 255 - probability(net, read_image(path), 64)).max() < 1 / 255


def test_an_interrupted_run_goes_on_where_it_stopped(net, images, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    predict_files(net, images, whole, 64, batch_size=2)
    broken = images[4].read_bytes()
    images[4].write_bytes(broken[:100])
    with pytest.raises(UserError, match="4.png is truncated"):
        predict_files(net, images, out, 64, batch_size=2)
    done = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert 0 < len(done) < 7 and not any(name.endswith(".part") for name in done)
    images[4].write_bytes(broken)
    os.utime(images[4], (1e9, 1e9))
    seen = []
    monkeypatch.setattr(
        inference, "read_image", lambda path: seen.append(path.name) or read_image(path)
    )
    assert predict_files(net, images, out, 64, batch_size=2) == 7
    assert set(seen) == {path.name for path in images} - done.keys(), (
        "finished masks are kept, all others are made"
    )
    assert all((out / name).stat().st_mtime_ns == when for name, when in done.items())
    for name, grey in read(whole).items():
        assert np.abs(grey.astype(int) - read(out)[name]).max() <= 1


def kept(net, images, out, size=64, **options) -> set[str]:
    """Names of the masks that a further run leaves alone."""
    before = {path.stem: path.stat().st_mtime_ns for path in out.iterdir()}
    predict_files(net, images, out, size, **options)
    return {path.stem for path in out.iterdir() if before.get(path.stem) == path.stat().st_mtime_ns}


def test_a_mask_of_another_network_size_or_image_is_drawn_anew(net, images, tmp_path):
    out, every = tmp_path / "out", {path.stem for path in images}
    predict_files(net, images, out, 64)
    assert kept(net, images, out) == every
    assert kept(net, images, out, size=96) == set()
    torch.manual_seed(1)
    assert kept(freeze(build("student")), images, out, size=96) == set()
    assert kept(net, images, out, size=96) == set()
    older = tmp_path / "older.jpg"
    Image.fromarray(255 - read_image(images[2])).save(older, quality=95)
    os.utime(older, (1e9, 1e9))
    older.replace(images[2])  # another picture, however old the file
    assert kept(net, images, out, size=96) == every - {"2"}
    images[3].touch()  # the same picture
    assert kept(net, images, out, size=96) == every
    assert kept(net, images, out, size=96, afresh=True) == set()


@pytest.mark.parametrize("content", ["mask", "photograph", "damaged", "link"])
def test_no_file_of_others_is_replaced(net, images, tmp_path, content):
    out = tmp_path / "out"
    predict_files(net, images, out, 64)
    foreign = out / "5.png"
    whole = foreign.read_bytes()
    foreign.unlink()
    if content == "damaged":
        foreign.write_bytes(whole[:50])
    elif content == "link":
        foreign.symlink_to(tmp_path / "nowhere")
    else:
        mode = {"mask": "L", "photograph": "RGB"}[content]
        Image.new(mode, (80, 60)).save(foreign)
    before = foreign.lstat()
    for afresh in (False, True):
        with pytest.raises(UserError, match=r"out holds 1 file\(s\) of other programs \(5\.png\)"):
            predict_files(net, images, out, 64, afresh=afresh)
    assert foreign.lstat() == before


def test_a_mask_that_is_cut_off_is_drawn_anew(net, images, tmp_path):
    predict_files(net, images, tmp_path / "out", 64)
    first = tmp_path / "out" / f"{images[0].stem}.png"
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    predict_files(net, images, tmp_path / "out", 64)
    assert first.read_bytes() == whole


def test_masks_do_not_go_among_their_images(net, images, tmp_path):
    before = sorted(images[0].parent.iterdir())
    with pytest.raises(UserError, match="is the folder of the images; choose another --out"):
        predict_files(net, images, images[0].parent, 64)
    assert sorted(images[0].parent.iterdir()) == before


def test_masks_do_not_go_among_links_to_images(net, images, tmp_path):
    (tmp_path / "links").mkdir()
    for file in images:
        (tmp_path / "links" / file.name).symlink_to(file)
    before = sorted((tmp_path / "links").iterdir())
    with pytest.raises(UserError, match="is the folder of the images"):
        predict_folder(net, tmp_path / "links", tmp_path / "links", 64)
    assert sorted((tmp_path / "links").iterdir()) == before


def test_the_fingerprint_is_of_the_weights_and_the_size(net):
    torch.manual_seed(0)
    again = freeze(build("student"))
    assert fingerprint(net, 64) == fingerprint(again, 64) != fingerprint(net, 96)
    with torch.no_grad():
        again.head2.bias += 1e-6
    assert fingerprint(again, 64) != fingerprint(net, 64)


def test_a_batch_needs_an_image(net, images, tmp_path):
    with pytest.raises(UserError, match="batch_size is 0"):
        predict_files(net, images, tmp_path / "out", 64, batch_size=0)


def test_a_picture_of_a_kind_that_is_not_read_is_named(net, images, tmp_path):
    Image.open(images[0]).save(images[0].with_name("later.webp"))
    with pytest.raises(UserError, match="later.webp is of a kind that is not read"):
        predict_folder(net, images[0].parent, tmp_path / "out", 32)


def test_a_name_too_long_for_the_disk_is_a_sentence(net, images, tmp_path):
    long = images[0].rename(images[0].with_name("x" * 251 + ".png"))
    with pytest.raises(UserError, match="cannot be written .File name too long"):
        predict_files(net, [long], tmp_path / "out", 32)
