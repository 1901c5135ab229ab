"""The evaluation: equal to the released numbers, defined where those are not, and plain about bad input."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from kdas_book.figures.ch07_metrics import shifted_scores
from kdas_book.reports.tables import table
from kdas_core.evaluation import (
    ALL_METRICS,
    CONVENTIONS,
    METRICS,
    THRESHOLDS,
    baselines,
    evaluate,
    image_curves,
    image_metrics,
)

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = {**dict.fromkeys(METRICS, 1e-9), "wFm": 1e-6}


def close(ours: float, theirs: float, metric: str) -> bool:
    return math.isclose(ours, theirs, rel_tol=0, abs_tol=TOLERANCE[metric]) or (
        math.isnan(ours) and math.isnan(theirs)
    )


def save(path: Path, grey: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
    return path


def disc(height: int = 60, width: int = 80, radius: int = 14) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2


def white(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "metrics_uacanet.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def edge_cases():
    with np.load(GOLDEN / "metrics_uacanet_edge_cases.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden_folders(golden, tmp_path_factory):
    """The golden images as files: (predictions, masks)."""
    root = tmp_path_factory.mktemp("golden")
    for i in range(8):
        save(root / "P" / f"{i:02}.png", golden[f"pred_{i:02}"])
        save(root / "G" / f"{i:02}.png", golden[f"gt_{i:02}"])
    return root / "P", root / "G"


@pytest.fixture
def folders(tmp_path):
    """A sound set of three: (predictions, masks)."""
    rng = np.random.default_rng(0)
    for name in ("1", "2", "10"):
        save(tmp_path / "P" / "A" / f"{name}.png", rng.integers(0, 256, (60, 80), dtype=np.uint8))
        save(tmp_path / "G" / "A" / "masks" / f"{name}.png", white(disc()))
    return tmp_path / "P" / "A", tmp_path / "G" / "A" / "masks"


# --- the released numbers ---------------------------------------------------------------------------------------------


def test_metrics_of_the_set_equal_the_released_evaluation(golden, golden_folders):
    summary = evaluate(*golden_folders).summary
    assert not [m for m in METRICS if not close(summary[m], golden[f"dataset_{m}"], m)]


def test_no_bar_is_drawn_where_bars_are_switched_off(golden_folders, monkeypatch):
    hidden = []

    def bar(scored, *_, disable=None, **__):
        hidden.append(disable)
        return scored

    monkeypatch.setattr("kdas_core.evaluation.tqdm", bar)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # the notebook's bar does not read this itself
    evaluate(*golden_folders)
    monkeypatch.delenv("TQDM_DISABLE")
    evaluate(*golden_folders)
    assert hidden == [True, False]


def test_metrics_of_each_image_equal_the_released_evaluation(golden, golden_folders):
    rows = evaluate(*golden_folders).per_image
    assert rows["name"].tolist() == [f"{i:02}" for i in range(8)]
    assert not [
        (m, i)
        for m in METRICS
        for i in range(8)
        if not close(rows[m][i], golden[f"image_{m}"][i], m)
    ]


def test_edge_cases_equal_the_released_evaluation_when_strict_and_are_numbers_otherwise(edge_cases):
    for name in (key.removeprefix("pred_") for key in edge_cases if key.startswith("pred_")):
        pred, gt = edge_cases[f"pred_{name}"], edge_cases[f"gt_{name}"] >= 128
        strict, defined = image_metrics(pred, gt, strict=True), image_metrics(pred, gt)
        for m in METRICS:
            released = edge_cases[f"{name}__{m}"]
            assert close(strict[m], released, m), (name, m)
            assert math.isfinite(defined[m]), (name, m)
            assert math.isnan(released) or defined[m] == strict[m], (name, m)


def test_what_the_released_program_leaves_undefined():
    empty, full = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    black, speck = white(empty), white(empty)
    speck[3, 3] = 1
    assert image_metrics(black, empty)["wFm"] == 1 and image_metrics(speck, empty)["wFm"] == 0
    assert image_metrics(white(full), full)["maxSpe"] == 1
    corner = empty.copy()
    corner[0, 0] = True  # its centroid leaves three quadrants without a pixel
    assert image_metrics(white(corner), corner)["Sm"] == pytest.approx(1)
    assert math.isnan(image_metrics(white(corner), corner, strict=True)["Sm"])


def test_dice_and_iou_at_half_count_two_empty_maps_as_agreement():
    empty = np.zeros((20, 30), bool)
    almost = np.full(empty.shape, 127, np.uint8)
    scores = image_metrics(almost, empty)
    assert (scores["dice"], scores["iou"]) == (1, 1)
    assert image_metrics(almost + np.uint8(1), empty)["dice"] == 0


# --- the same numbers, the slow way -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    """The loop over 256 thresholds with which the benchmark compares us; nothing is shared between thresholds."""
    path = Path(__file__).parent.parent / "benchmarks" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("plain_loop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_loop_is_the_released_evaluation(plain, golden):
    assert plain.check(golden) < 1e-9


@st.composite
def pairs(draw):
    shape = draw(st.tuples(st.integers(1, 7), st.integers(2, 7)))
    levels = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 254, 255]))
    return draw(arrays.arrays(np.uint8, shape, elements=levels)), draw(arrays.arrays(bool, shape))


@settings(max_examples=60, deadline=None)
@given(pair=pairs())
def test_all_13_equal_a_plain_loop_over_thresholds(plain, pair):
    ours, slow = image_metrics(*pair, strict=True), plain.plain_metrics(*pair)
    for metric in METRICS:
        if metric == "Sm":  # the loop leaves out an empty quadrant, which strict calls undefined
            assert math.isnan(ours["Sm"]) or ours["Sm"] == pytest.approx(slow["Sm"], abs=1e-9)
        else:
            assert ours[metric] == pytest.approx(slow[metric], abs=1e-9, nan_ok=True), metric


def test_every_grey_level_falls_on_the_side_that_a_float_comparison_puts_it():
    pred = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gt = np.ones((16, 16), bool)
    counted = np.rint(image_curves(pred, gt)["Sen"] * 256).astype(int)
    assert counted.tolist() == [int(np.sum(pred / 255 >= t)) for t in THRESHOLDS]
    assert counted.tolist() != list(range(1, 257)), (
        "the ties that the comparison loses are what this test is about"
    )


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from(list(CONVENTIONS)))
def test_every_metric_is_a_number_in_its_range(pair, rules):
    pred, gt = pair
    scores = image_metrics(pred, gt, rules=rules)
    assert tuple(scores) == ALL_METRICS
    for metric, value in scores.items():
        most = gt.size / (gt.size - 1) if metric.endswith("Em") else 1
        assert -1e-12 <= value <= most + 1e-12, metric


def test_a_mirrored_pair_has_the_same_curves(golden):
    pred, gt = golden["pred_03"], golden["gt_03"] >= 128
    ours, mirrored = image_metrics(pred, gt), image_metrics(pred[:, ::-1], gt[:, ::-1])
    # The S-measure alone rounds the centroid to a pixel, which a mirror moves to the other side.
    assert all(
        ours[m] == pytest.approx(mirrored[m], abs=1e-12)
        for m in ALL_METRICS
        if m not in ("Sm", "wFm")
    )


# --- relations --------------------------------------------------------------------------------------------------------


def test_a_perfect_mask_scores_just_below_one_because_threshold_zero_counts():
    scores = image_metrics(white(disc()), disc())
    assert scores["dice"] == scores["iou"] == scores["maxDic"] == 1
    assert 0.99 < scores["meanDic"] < 1
    assert scores["maxEm"] == pytest.approx(4800 / 4799)


def test_a_better_map_scores_better_on_every_mean():
    gt, noise = disc(), np.random.default_rng(0).uniform(size=(60, 80))
    good, bad = (
        np.rint(255 * (share * noise + (1 - share) * gt)).astype(np.uint8) for share in (0.3, 0.7)
    )
    better, worse = image_metrics(good, gt), image_metrics(bad, gt)
    assert better["mae"] < worse["mae"]
    for metric in (
        "meanDic",
        "meanIoU",
        "wFm",
        "Sm",
        "meanEm",
        "meanSen",
        "meanSpe",
        "dice",
        "iou",
    ):
        assert better[metric] > worse[metric], metric


def test_an_unsure_map_loses_mean_dice_and_minmax_gives_it_back(tmp_path):
    """Two maps with the same cut at any sensible threshold; how they were saved decides the printed number."""
    save(tmp_path / "G" / "1.png", white(disc()))
    save(tmp_path / "P" / "1.png", np.where(disc(), 180, 75).astype(np.uint8))
    as_saved, stretched = (
        evaluate(tmp_path / "P", tmp_path / "G"),
        evaluate(tmp_path / "P", tmp_path / "G", convention="min-max"),
    )
    assert as_saved.summary["dice"] == stretched.summary["dice"] == 1
    assert as_saved.summary["meanDic"] < 0.7 < 0.99 < stretched.summary["meanDic"]
    assert (as_saved.convention, stretched.convention) == ("released", "min-max")
    assert table({"A": stretched})["convention"].tolist() == ["min-max"]


def test_maximum_of_a_set_is_taken_of_the_average_curve(golden_folders):
    result = evaluate(*golden_folders)
    assert result.summary["maxDic"] == pytest.approx(result.curves["Dic"].max())
    assert result.summary["maxDic"] < result.per_image["maxDic"].mean()
    for metric in ("meanDic", "meanEm", "wFm", "Sm", "mae", "dice", "iou"):
        assert result.summary[metric] == pytest.approx(result.per_image[metric].mean()), metric


def test_workers_do_not_change_a_digit(folders):
    assert evaluate(*folders, workers=3).summary == evaluate(*folders, workers=1).summary


def test_baselines_are_what_predicting_everything_or_nothing_scores(folders):
    _, gt_dir = folders
    result = baselines(gt_dir)
    share = disc().mean()
    assert result["all foreground"].summary["dice"] == pytest.approx(2 * share / (1 + share))
    assert result["all background"].summary["dice"] == 0
    assert result["all background"].summary["mae"] == pytest.approx(share)
    assert (
        baselines(disc() for _ in range(3))["all foreground"].summary
        == result["all foreground"].summary
    )


def test_a_perfect_mask_moved_sideways_loses_what_geometry_says():
    mask = np.zeros((60, 80), bool)
    mask[20:30, 30:50] = (
        True  # 10 × 20 pixels, so 5 columns of 20 are missed and as many marked in vain
    )
    still, moved = shifted_scores(mask, 0), shifted_scores(mask, 5)
    assert (still["dice"], still["boundary_iou"], still["1 − mae"], still["hd95"]) == (1, 1, 1, 0)
    assert moved["dice"] == pytest.approx(15 / 20)
    assert moved["iou"] == pytest.approx(15 / 25)
    assert moved["1 − mae"] == pytest.approx(1 - 100 / 4800)
    assert moved["hd95"] == pytest.approx(5)
