"""Synthetic polyps: exact masks, the same pixels for the same seed, five looks that differ in what they claim; their statistics."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from kdas_book.data import image_statistics as statistics
from kdas_book.data import synthetic
from kdas_book.data.check import check_data
from kdas_book.data.synthetic import camera, dataset, debris, polyps, scene
from kdas_book.data.synthetic.fields import View
from kdas_core import UserError
from kdas_core.data import load_data
from kdas_core.data.augmentation import rng_for
from kdas_core.data.images import read_image
from kdas_core.data.layout import TEST_SETS, index_pairs, is_synthetic
from kdas_core.data.masks import read_mask

ROOT = Path(__file__).resolve().parents[1]


def replace(look: synthetic.styles.Style, **changes) -> synthetic.styles.Style:
    return type(look)(**vars(look) | changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return synthetic.make_dataset(
        tmp_path_factory.mktemp("data") / "polyps", train=24, test=3, size=64, seed=3
    )


# --- one picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", TEST_SETS)
def test_a_seed_fixes_the_picture(style):
    one, two, other = (synthetic.render(seed, (64, 80), style) for seed in (1, 1, 2))
    assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])
    assert one[0].shape == (64, 80, 3) and one[0].dtype == np.uint8 and one[1].dtype == bool


def test_the_same_seed_is_the_same_scene_at_every_size():
    for seed in range(5):
        small, large = (synthetic.render(seed, (n, n), polyps=1)[1] for n in (64, 256))
        coarse = large.reshape(64, 4, 64, 4).mean((1, 3)) >= 0.5
        assert (small & coarse).sum() / (small | coarse).sum() > 0.85


@pytest.mark.parametrize("style", TEST_SETS)
def test_a_mask_has_the_asked_polyps_and_none_when_none_is_asked(style):
    for seed in range(12):
        assert not synthetic.render(seed, (48, 64), style, polyps=0)[1].any()
        assert 0 < synthetic.render(seed, (48, 64), style, polyps=1)[1].mean() < 0.5


def test_polyps_lie_in_the_lit_picture_and_their_edge_is_where_the_mask_says():
    """The same scene without its polyp differs at the mask, and far from it not at all."""
    for style in TEST_SETS:
        with_polyp, mask = synthetic.render(11, (128, 128), style, polyps=1)
        without, _ = synthetic.render(11, (128, 128), style, polyps=0)
        change = np.abs(with_polyp.astype(int) - without).mean(2)
        far = ~cv2.dilate(mask.astype(np.uint8), np.ones((41, 41))).astype(bool)
        assert np.median(change[mask]) > 5 and change[far].mean() < 0.5, style
        assert with_polyp[mask].mean() > 25


def test_a_threshold_on_redness_does_not_solve_the_synthetic_polyps():
    """They must be learnable, not trivial: the best single threshold on one colour ratio leaves most of the overlap."""
    scores = []
    for seed in range(20):
        image, mask = synthetic.render(seed, (64, 64), polyps=1)
        red = image[..., 0] / (image.sum(2) + 1.0)
        found = [red > t for t in np.quantile(red, np.linspace(0.02, 0.98, 25))]
        scores.append(max(2 * (f & mask).sum() / (f.sum() + mask.sum()) for f in found))
    assert np.mean(scores) < 0.75


def test_another_process_draws_the_same_pixels():
    code = (
        "import hashlib; from kdas_book.data.synthetic import STYLES, render\n"
        "for style in STYLES: print(hashlib.sha256(b''.join(a.tobytes() for a in render(7, (72, 88), style))).hexdigest())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "5"}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    pictures = [synthetic.render(7, (72, 88), style) for style in synthetic.STYLES]
    here = [
        hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest() for image, mask in pictures
    ]
    assert there.stdout.split() == here


@pytest.mark.parametrize("style", TEST_SETS)
def test_the_frame_is_black_and_the_exposure_neither_dark_nor_burnt(style):
    means = []
    for seed in range(8):
        image, mask = synthetic.render(seed, (96, 112), style)
        for corner in (image[:4, :4], image[:4, -4:], image[-4:, -4:]):
            assert corner.mean() < 16
        view = View.of((96, 112))
        inside = camera.aperture(
            view, synthetic.STYLES[style], scene._generators(seed, style)["aperture"]
        )
        means.append(image[inside > 0.5].mean())
        assert not mask[inside < 0.5].any() and (image[inside > 0.5].min(1) > 250).mean() < 0.15
    assert 60 < np.mean(means) < 150 and min(means) > 30


# --- polyps -----------------------------------------------------------------------------------------------------------


def outline(polyp, view: View) -> np.ndarray:
    """The polyp's area from its outlines alone."""
    head = polyps.head_level(polyp, view.x, view.y) < 1
    return (
        head | (polyps.stalk_level(polyp, view.x, view.y) < 1)
        if polyp.kind == "pedunculated"
        else head
    )


def seed_of(kind: str) -> int:
    return next(s for s in range(200) if scene.plan(s, (128, 128), "Kvasir", 1)[0][0].kind == kind)


def test_every_kind_of_polyp_is_drawn_and_sessile_ones_most_often():
    kinds = [scene.plan(seed, (64, 64), "CVC-300", 1)[0][0].kind for seed in range(200)]
    counts = {kind: kinds.count(kind) for kind in synthetic.KINDS}
    assert min(counts.values()) >= 20 and max(counts, key=counts.get) == "sessile"


def test_a_mask_is_the_outline_less_the_instrument_and_the_frame(monkeypatch):
    """Exactly, pixel by pixel, also where a tool lies across the polyp; and a tool never hides most of one."""
    style, size = "CVC-ColonDB", (120, 140)
    monkeypatch.setitem(synthetic.STYLES, style, replace(synthetic.STYLES[style], instrument=1.0))
    view, hidden = View.of(size), 0
    for seed in range(40):
        placed, tool = scene.plan(seed, size, style, 1)
        rng = scene._generators(seed, style)
        steel = debris.draw_instrument(np.zeros((*size, 3), np.float32), tool, rng["steel"])
        inside = camera.aperture(view, synthetic.STYLES[style], rng["aperture"]) > 0.5
        whole = outline(placed[0], view)
        _, mask = synthetic.render(seed, size, style, 1)
        assert np.array_equal(mask, whole & inside & ~steel), seed
        hidden += (whole & steel).any()
        assert (whole & steel).sum() < 0.6 * whole.sum()
    assert hidden >= 3  # otherwise the rule was not put to the test


def test_an_instrument_alone_is_no_polyp_but_is_seen(monkeypatch):
    with_tool, without = (
        replace(synthetic.STYLES["Kvasir"], instrument=chance) for chance in (1.0, 0.0)
    )
    for seed in range(4):
        monkeypatch.setitem(synthetic.STYLES, "Kvasir", with_tool)
        image, mask = synthetic.render(seed, (96, 96), polyps=0)
        monkeypatch.setitem(synthetic.STYLES, "Kvasir", without)
        plain, _ = synthetic.render(seed, (96, 96), polyps=0)
        assert not mask.any() and (np.abs(image.astype(int) - plain).max(2) > 40).mean() > 0.01


def test_instruments_come_now_and_then():
    tools = [scene.plan(seed, (64, 64), "Kvasir")[1] for seed in range(400)]
    assert 8 <= sum(tool is not None for tool in tools) <= 48


def test_a_stalk_belongs_to_the_mask_and_reaches_beyond_the_head():
    placed, _ = scene.plan(seed_of("pedunculated"), (128, 128), "Kvasir", 1)
    view = View.of((128, 128))
    head = polyps.head_level(placed[0], view.x, view.y) < 1
    _, mask = synthetic.render(seed_of("pedunculated"), (128, 128), polyps=1)
    assert (mask & ~head).sum() > 0.05 * head.sum()


def test_a_flat_polyp_rises_less_than_any_other():
    heights = {kind: [] for kind in synthetic.KINDS}
    for seed in range(150):
        polyp = scene.plan(seed, (64, 64), "Kvasir", 1)[0][0]
        heights[polyp.kind].append(polyp.height)
    assert max(heights["flat"]) < min(heights["sessile"]) and np.mean(
        heights["pedunculated"]
    ) > np.mean(heights["sessile"])


# --- what lies about, and the camera ----------------------------------------------------------------------------------


def test_residue_changes_the_picture_and_never_the_mask(monkeypatch):
    clean, dirty = (
        replace(synthetic.STYLES["CVC-ClinicDB"], residue=chance) for chance in (0.0, 2.0)
    )
    for seed in range(4):
        found = []
        for look in (clean, dirty):
            monkeypatch.setitem(synthetic.STYLES, "CVC-ClinicDB", look)
            found.append(synthetic.render(seed, (96, 128), "CVC-ClinicDB", polyps=1))
        assert np.array_equal(found[0][1], found[1][1])
        assert np.abs(found[0][0].astype(int) - found[1][0])[~found[0][1]].mean() > 0.5


def photographed(**changes) -> np.ndarray:
    """A chessboard of light as a style with these changes shows it."""
    board = 0.3 + 0.3 * ((np.add.outer(np.arange(160) // 13, np.arange(160) // 13)) % 2)
    picture = np.repeat(board[..., None], 3, 2).astype(np.float32)
    look = replace(synthetic.STYLES["CVC-ClinicDB"], **changes)
    return camera.photograph(
        picture, np.ones((160, 160), np.float32), look, np.random.default_rng(0)
    )


def test_motion_blur_and_defocus_take_sharpness_and_edge_enhancement_adds_it():
    still = {"blur": (0, 0), "motion": 0.0, "sharpen": 0.0, "noise": 0.0}
    sharp = statistics.sharpness(photographed(**still))
    assert statistics.sharpness(photographed(**still | {"motion": 1.0})) < 0.8 * sharp
    assert statistics.sharpness(photographed(**still | {"blur": (8, 8)})) < 0.8 * sharp
    assert statistics.sharpness(photographed(**still | {"sharpen": 1.0})) > 1.1 * sharp


def blockiness(image: np.ndarray) -> float:
    """Mean step between columns at borders of 8×8 blocks, over that elsewhere."""
    steps = np.abs(np.diff(image.astype(float).mean(2), axis=1)).mean(0)
    border = np.arange(len(steps)) % 8 == 7
    return steps[border].mean() / steps[~border].mean()


def test_the_recorder_leaves_traces_of_jpeg_the_more_the_lower_its_quality():
    low, high = (photographed(noise=6.0, quality=(q, q)) for q in (25, 98))
    assert blockiness(low) > 1.15 * blockiness(high)


# --- five looks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looks():
    """Medians of each style over 24 pictures."""
    tables = {}
    for name, look in synthetic.STYLES.items():
        height = round(120 * look.height)
        size = (height, round(height * look.aspect))
        rows = [
            statistics.describe_pair(*synthetic.render(seed, size, name, 1)) for seed in range(24)
        ]
        tables[name] = {key: float(np.median([row[key] for row in rows])) for key in rows[0]}
    return tables


def test_styles_differ_in_what_they_claim(looks):
    cast = {name: look["blue"] / look["green"] for name, look in looks.items()}
    assert max(cast, key=cast.get) == "ETIS-LaribPolypDB" and min(cast, key=cast.get) in (
        "CVC-ClinicDB",
        "CVC-ColonDB",
    )
    area = {name: look["area"] for name, look in looks.items()}
    assert max(area, key=area.get) == "Kvasir" and min(area, key=area.get) == "ETIS-LaribPolypDB"
    assert area["Kvasir"] > 1.3 * area["CVC-ClinicDB"] > 1.3 * area["CVC-ColonDB"]
    sharp = {name: look["sharpness"] for name, look in looks.items()}
    assert (
        min(sharp, key=sharp.get) == "CVC-ColonDB" and sharp["Kvasir"] > 1.5 * sharp["CVC-ColonDB"]
    )
    shapes = {round(look.aspect, 2) for look in synthetic.STYLES.values()}
    assert len(shapes) >= 4 and synthetic.STYLES["ETIS-LaribPolypDB"].frame == "circle"


def test_a_sheet_has_a_row_for_each_style_and_bad_names_are_refused(tmp_path):
    sheet = cv2.imread(str(synthetic.write_sheet(tmp_path / "s.png", columns=2, height=40)))
    assert sheet.shape == (5 * 40, 2 * 48, 3) and os.listdir(tmp_path) == ["s.png"]
    for wrong in (tmp_path / "s.txt", tmp_path / "nowhere" / "s.png"):
        with pytest.raises(UserError):
            synthetic.write_sheet(wrong, columns=1, height=40)


# --- statistics -------------------------------------------------------------------------------------------------------


def square(inner, outer, side: int = 60):
    mask = np.zeros((side, side), bool)
    mask[20:40, 20:40] = True
    return np.where(mask[..., None], np.uint8(inner), np.uint8(outer)), mask


def test_edge_contrast_is_the_colour_difference_at_the_outline():
    lab = lambda rgb: cv2.cvtColor(np.float32([[rgb]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]  # noqa: E731
    a, b = (200, 90, 70), (180, 110, 80)
    assert statistics.edge_contrast(*square(a, b)) == pytest.approx(
        np.linalg.norm(lab(a) - lab(b)), rel=1e-3
    )
    assert statistics.edge_contrast(*square(a, a)) == pytest.approx(0, abs=1e-3)
    image, mask = square(a, b)
    image[:5] = 255  # far from the outline: nothing changes
    assert statistics.edge_contrast(image, mask) == pytest.approx(
        np.linalg.norm(lab(a) - lab(b)), rel=1e-3
    )
    assert np.isnan(
        statistics.edge_contrast(*square(a, (0, 0, 0)))
    )  # beside the frame there is no wall to compare with
    assert np.isnan(statistics.edge_contrast(image, np.zeros_like(mask)))


def test_the_frame_counts_neither_for_colour_nor_for_sharpness():
    rng = np.random.default_rng(0)
    image = rng.integers(100, 140, (288, 288, 3), dtype=np.uint8)
    framed = image.copy()
    framed[:, :60] = 0
    mask = np.zeros((288, 288), bool)
    whole, part = (statistics.describe_pair(one, mask) for one in (image, framed))
    for channel in ("red", "green", "blue"):
        assert part[channel] == pytest.approx(whole[channel], abs=0.5)
    assert statistics.sharpness(framed) == pytest.approx(statistics.sharpness(image), rel=0.05)
    assert np.isnan(statistics.sharpness(np.zeros_like(image)))


def test_a_larger_copy_is_about_as_sharp_and_a_blurred_one_is_not():
    image, _ = synthetic.render(3, (288, 288), "CVC-ClinicDB")
    large = cv2.resize(image, (576, 576), interpolation=cv2.INTER_CUBIC)
    assert statistics.sharpness(large) == pytest.approx(statistics.sharpness(image), rel=0.25)
    assert statistics.sharpness(cv2.GaussianBlur(image, (0, 0), 3)) < 0.6 * statistics.sharpness(
        image
    )


def test_describing_a_set_gives_a_row_a_picture_and_areas_of_the_masks():
    pictures = [synthetic.render(seed, (64, 64), polyps=1) for seed in range(3)]
    table = statistics.describe(pictures)
    assert table["area"].tolist() == [pytest.approx(100 * mask.mean()) for _, mask in pictures]
    assert table["red"].tolist() == [
        pytest.approx(image[statistics.lit(image)][:, 0].mean()) for image, _ in pictures
    ]
    with pytest.raises(ValueError, match="no picture"):
        statistics.describe([])


def test_drawn_pictures_are_near_the_real_ones_in_colour_and_size(real_data):
    """Near, not equal; chapter 11 says how near."""
    for name in ("Kvasir", "CVC-ClinicDB"):
        pairs = index_pairs(real_data / "TestDataset" / name)
        some = pairs.take(range(0, len(pairs), 4))
        real = [(read_image(pair.image), read_mask(pair.mask)) for pair in some]
        size = (176, round(176 * synthetic.STYLES[name].aspect))
        drawn = [synthetic.render(s, size, name, 1) for s in range(16)]
        seen = [
            np.concatenate([image[statistics.lit(image)][::50] for image, _ in pictures])
            for pictures in (real, drawn)
        ]
        apart = [wasserstein_distance(*channel) for channel in zip(*(c.T for c in seen))]
        assert np.mean(apart) < 25, "grey levels of 255"
        areas = [statistics.describe(pictures)["area"].median() for pictures in (real, drawn)]
        assert 0.4 < areas[1] / areas[0] < 2.5


# --- a data set on disk -----------------------------------------------------------------------------------------------


def test_a_synthetic_data_set_loads_like_a_real_one(made):
    data = load_data(made)
    assert data.synthetic and list(data.tests) == list(TEST_SETS)
    assert len(data.train) + len(data.validation) == 24 and {
        len(i) for i in data.tests.values()
    } == {3}
    assert data.label("Kvasir") == "Kvasir (synthetic, 3)"
    check = check_data(made)
    assert check.problems == check.findings == ()
    sizes = {read_mask(index[0].mask).shape for index in data.tests.values()}
    assert len(sizes) >= 4  # as many camera sizes as that


def test_written_masks_are_the_rendered_ones_and_images_those_of_good_jpegs(tmp_path):
    out = synthetic.make_dataset(tmp_path / "d", train=2, test=1, size=64, seed=5)
    seed = int(rng_for(5, 0, 0).integers(2**32))
    pair = index_pairs(out / "TrainDataset")[0]
    mask = read_mask(pair.mask)
    style = dataset._train_style(0)
    found = [synthetic.render(seed, mask.shape, style, polyps=n) for n in (1, 2, 3)]
    (image,) = (i for i, m in found if np.array_equal(m, mask))
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert pair.image.read_bytes() == jpeg


def test_training_mixes_two_styles_in_the_benchmarks_proportion():
    styles = [dataset._train_style(i) for i in range(1450)]
    assert styles.count("Kvasir") == 900 and styles.count("CVC-ClinicDB") == 550


def test_the_same_make_returns_at_once_and_another_is_refused(tmp_path):
    out = synthetic.make_dataset(tmp_path / "d", train=2, test=1, size=64)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert synthetic.make_dataset(out, train=2, test=1, size=64) == out
    with pytest.raises(UserError, match="other parameters"):
        synthetic.make_dataset(out, train=2, test=1, size=64, seed=1)
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_a_make_under_the_packages_former_name_is_the_same_make(tmp_path):
    out = synthetic.make_dataset(tmp_path / "d", train=2, test=1, size=64)
    note = out / "dataset.json"
    note.write_text(note.read_text().replace("kdas_book.", "kdas_core."))
    assert is_synthetic(out) and synthetic.make_dataset(out, train=2, test=1, size=64) == out
    assert "kdas_core" in note.read_text()  # it was left as it is
    with pytest.raises(UserError, match="other parameters"):
        synthetic.make_dataset(out, train=3, test=1, size=64)


def test_foreign_files_are_never_written_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds other files"):
        synthetic.make_dataset(tmp_path, train=2, test=1, size=64)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="already holds other files"):
        synthetic.make_dataset(tmp_path / "file", train=2, test=1, size=64)
    with pytest.raises(UserError, match="cannot be written"):
        synthetic.make_dataset(tmp_path / "file" / "below", train=2, test=1, size=64)
    assert sorted(os.listdir(tmp_path)) == ["file", "thesis.txt"]


def test_a_make_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full_disk(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "_write", full_disk)
    with pytest.raises(UserError, match="the disk is full"):
        synthetic.make_dataset(tmp_path / "d", train=2, test=1, size=64)
    assert os.listdir(tmp_path) == []


def test_the_parameters_stand_in_the_data_set(made):
    note = json.loads((made / "dataset.json").read_text())
    assert (note["train"], note["test"], note["size"], note["seed"]) == (24, 3, 64, 3)


@pytest.mark.parametrize("wrong", [{"style": "Unknown"}, {"size": (8, 8)}, {"polyps": 4}])
def test_render_refuses_what_it_cannot_draw(wrong):
    with pytest.raises(UserError):
        synthetic.render(0, **wrong)
