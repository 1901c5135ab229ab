"""Reading one map by the rules of several programs; agreement with pysodmetrics; outlines; calibration."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import py_sod_metrics as sod
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from py_sod_metrics import fmeasurev2
from scipy import ndimage

from kdas_core import UserError
from kdas_core.evaluation import CONVENTIONS, THRESHOLDS, image_curves, image_metrics
from kdas_core.evaluation.boundary import boundary_iou, hausdorff_95
from kdas_core.evaluation.metrics import soft_dice
from kdas_core.evaluation.scores import BINS, EvaluationResult, score_image, set_scores

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "metrics_uacanet.npz") as file:
        return [(file[f"pred_{i:02}"], file[f"gt_{i:02}"]) for i in range(8)]


def blob(seed: int, height: int = 61, width: int = 83) -> np.ndarray:
    """A smooth random mask."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 6)
    return field > np.quantile(field, 0.8)


# --- conventions ------------------------------------------------------------------------------------------------------


@given(arrays.arrays(np.uint8, (5, 6)))
def test_every_convention_keeps_the_order_of_grey_levels_and_the_range(pred):
    for rules in CONVENTIONS.values():
        values = rules.values(pred)
        assert values.shape == (256,) and values.min() >= 0 and values.max() <= 1
        assert np.all(np.diff(values) >= 0), rules.name


def test_binary_scores_a_map_as_the_map_cut_at_one_half_and_saved(golden):
    for pred, gt in golden:
        cut = np.where(pred >= 128, 255, 0).astype(np.uint8)
        mask = gt >= 128
        ours, saved = image_metrics(pred, mask, rules="binary"), image_metrics(cut, mask)
        assert all(ours[m] == saved[m] for m in ours if m != "soft_dice")


def stretched(pred: np.ndarray) -> np.ndarray:
    """The map as PraNet's script saves it."""
    return np.rint(255 * CONVENTIONS["min-max"].values(pred)).astype(np.uint8)[pred]


def test_min_max_scores_a_map_as_the_map_stretched_and_saved(golden):
    for pred, gt in golden:
        dull = (60 + pred.astype(int) // 3).astype(np.uint8)
        mask = gt >= 128
        ours, saved = (
            image_metrics(dull, mask, rules="min-max"),
            image_metrics(stretched(dull), mask),
        )
        assert all(ours[m] == pytest.approx(saved[m], abs=1e-12) for m in ours if m != "soft_dice")
        assert ours["meanDic"] != image_metrics(dull, mask)["meanDic"]


def test_a_constant_map_is_black_where_maps_are_stretched_and_rounded_and_stays_in_matlab():
    grey = np.full((4, 4), 200, np.uint8)
    assert CONVENTIONS["min-max"].values(grey)[200] == 0
    assert stretched(np.array([[50, 100, 75]], np.uint8)).tolist() == [[0, 255, 128]]
    assert CONVENTIONS["pranet"].values(grey)[200] == 200 / 255


def test_grey_128_of_a_mask_is_polyp_as_released_and_background_by_pranets_rules():
    assert CONVENTIONS["released"].polyp_from == 128 and CONVENTIONS["pranet"].polyp_from == 129


def test_an_unknown_convention_is_refused_with_the_known_names():
    with pytest.raises(UserError, match="'minmax'; known are released, min-max, binary, pranet"):
        image_metrics(np.zeros((4, 4), np.uint8), np.ones((4, 4), bool), rules="minmax")


def test_one_map_has_as_many_scores_as_conventions():
    """The experiment of chapter 7, on a map that is unsure: each convention gives another meanDic."""
    mask = blob(0)
    noise = np.random.default_rng(1).uniform(-20, 20, mask.shape)
    pred = (np.where(mask, 150, 90) + noise).astype(np.uint8)
    scores = {name: image_metrics(pred, mask, rules=name)["meanDic"] for name in CONVENTIONS}
    assert len({round(score, 3) for score in scores.values()}) >= 3
    assert scores["binary"] > scores["min-max"] > scores["released"]


# --- pysodmetrics: an independent implementation of PraNet's MATLAB programs ------------------------------------------


def sod_score(kind, key: str, pred: np.ndarray, gt: np.ndarray) -> float:
    measure = kind()
    measure.step(pred=pred, gt=gt)
    return float(measure.get_results()[key])


def test_pranets_rules_agree_with_pysodmetrics(golden):
    for pred, gt in golden:
        ours = image_metrics(pred, gt > 128, rules="pranet")
        assert ours["mae"] == pytest.approx(sod_score(sod.MAE, "mae", pred, gt), abs=1e-12)
        assert ours["Sm"] == pytest.approx(sod_score(sod.Smeasure, "sm", pred, gt), abs=1e-9)
        assert ours["wFm"] == pytest.approx(
            sod_score(sod.WeightedFmeasure, "wfm", pred, gt), abs=1e-9
        )


def untied() -> np.ndarray:
    """Grey levels that both programs put on the same side of their own threshold: no rounding of floats decides."""
    levels = np.arange(256)
    kept_there = (levels / 255 * 255).astype(int) == levels
    kept_here = levels / 255 >= THRESHOLDS[255 - levels]
    return levels[kept_there & kept_here].astype(np.uint8)


def test_curves_agree_with_pysodmetrics_where_no_rounding_decides(golden):
    levels = untied()
    assert {0, 255} <= set(levels) and len(levels) > 128
    for pred, gt in golden:
        pred = levels[np.searchsorted(levels, np.minimum(pred, levels[-1]))]
        pred.flat[0], pred.flat[1] = 0, 255  # the range is full, so that stretching changes nothing
        ours = image_curves(pred, gt > 128, convention=CONVENTIONS["pranet"])
        measure = fmeasurev2.FmeasureV2(
            metric_handlers={
                "Dic": fmeasurev2.DICEHandler(with_dynamic=True, with_adaptive=False),
                "IoU": fmeasurev2.IOUHandler(with_dynamic=True, with_adaptive=False),
                "Sen": fmeasurev2.RecallHandler(with_dynamic=True, with_adaptive=False),
            }
        )
        measure.step(pred=pred, gt=gt)
        theirs = {name: result["dynamic"] for name, result in measure.get_results().items()}
        e_measure = sod.Emeasure()
        e_measure.step(pred=pred, gt=gt)
        theirs["Em"] = e_measure.get_results()["em"]["curve"]
        for name, curve in theirs.items():
            assert np.allclose(ours[name], curve, rtol=0, atol=1e-9), name


def test_where_the_released_rules_and_pysodmetrics_differ_each_for_a_reason_of_its_own(golden):
    differ = {"Sm": [], "wFm": [], "mae": []}
    for pred, gt in golden:
        released = image_metrics(pred, gt >= 128)
        differ["Sm"].append(abs(released["Sm"] - sod_score(sod.Smeasure, "sm", pred, gt)))
        differ["wFm"].append(
            abs(released["wFm"] - sod_score(sod.WeightedFmeasure, "wfm", pred, gt))
        )
        differ["mae"].append(abs(released["mae"] - sod_score(sod.MAE, "mae", pred, gt)))
    # Standard deviations over N − 1, and a centroid one row and column further.
    assert 0 < max(differ["Sm"]) < 0.05
    # A polyp at the border meets black beyond it there, its own values here; maps are stretched there.
    assert 0 < max(differ["wFm"]) < 0.2
    empty, speck = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    speck[3, 3] = 255
    # An empty mask: their weighted F-measure is 0 whatever is predicted; ours is 1 for a black map.
    assert sod_score(sod.WeightedFmeasure, "wfm", speck, empty) == 0
    assert image_metrics(empty, empty > 0)["wFm"] == 1
    # No overlap: the released specificity is 0, theirs counts the background that was left alone.
    left = np.zeros((20, 30), np.uint8)
    left[:, :3] = 255
    right = left[:, ::-1].copy()
    measure = fmeasurev2.FmeasureV2(
        metric_handlers={
            "Spe": fmeasurev2.SpecificityHandler(with_dynamic=True, with_adaptive=False)
        }
    )
    measure.step(pred=left, gt=right)
    assert measure.get_results()["Spe"]["dynamic"][0] > 0.8
    assert image_curves(left, right > 0)["Spe"][0] == 0


def test_grey_levels_on_a_threshold_fall_on_different_sides_in_different_programs():
    ties = [level for level in range(256) if level not in untied()]
    assert ties, "some grey levels are decided by the rounding of floats"


# --- soft Dice --------------------------------------------------------------------------------------------------------


def test_soft_dice_is_its_formula_on_the_stretched_map(golden):
    for pred, gt in golden:
        grey, mask = pred.astype(float), gt >= 128
        p = (grey - grey.min()) / (grey.max() - grey.min())
        assert soft_dice(pred, mask) == pytest.approx(
            (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
        )


def test_soft_dice_of_two_empty_maps_is_one_and_every_false_pixel_costs():
    empty = np.zeros((10, 10), bool)
    pred = empty.astype(np.uint8)
    assert soft_dice(pred, empty) == 1
    pred[0, :3] = 9  # stretched to 1, however faint
    assert soft_dice(pred, empty) == pytest.approx(1 / 4)


# --- outlines ---------------------------------------------------------------------------------------------------------


def brute_force_hd95(a: np.ndarray, b: np.ndarray) -> float:
    """Every point of one outline against every point of the other."""
    edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) for mask in (a, b)]
    distances = np.sqrt(((edges[0][:, None] - edges[1][None]) ** 2).sum(axis=-1))
    return max(np.quantile(distances.min(axis=0), 0.95), np.quantile(distances.min(axis=1), 0.95))


@pytest.mark.parametrize("seed", range(5))
def test_hd95_equals_a_search_over_all_pairs_of_outline_points(seed):
    a, b = blob(seed), blob(seed + 100)
    assert hausdorff_95(a, b) == pytest.approx(brute_force_hd95(a, b), abs=1e-4)
    assert hausdorff_95(a, b) == hausdorff_95(b, a) and hausdorff_95(a, a) == 0


def test_hd95_of_a_shift_is_the_shift():
    mask = np.zeros((80, 90), bool)
    mask[20:50, 20:60] = True
    assert hausdorff_95(np.roll(mask, 7, axis=1), mask) == 7


def test_a_missed_polyp_costs_the_diagonal_and_is_nan_when_strict():
    mask, empty = blob(0), np.zeros((61, 83), bool)
    assert (
        hausdorff_95(empty, mask) == hausdorff_95(mask, empty) == pytest.approx(math.hypot(61, 83))
    )
    assert math.isnan(hausdorff_95(empty, mask, strict=True))
    assert hausdorff_95(empty, empty) == hausdorff_95(empty, empty, strict=True) == 0


def test_boundary_iou_looks_at_the_rim_alone():
    mask = np.zeros((200, 200), bool)
    mask[40:160, 40:160] = True
    hole = mask.copy()
    hole[90:110, 90:110] = False  # well inside: far from the outer rim, and with a rim of its own
    eroded = ndimage.binary_erosion(mask, iterations=3)
    iou = (eroded & mask).sum() / (eroded | mask).sum()
    assert boundary_iou(mask, mask) == 1 and boundary_iou(hole, mask) < 1
    assert boundary_iou(eroded, mask) < 0.5 < 0.9 < iou


def test_boundary_iou_is_the_ordinary_iou_where_the_polyp_is_all_rim():
    a, b = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    a[50:57, 50:57], b[52:59, 50:57] = True, True
    assert boundary_iou(a, b) == (a & b).sum() / (a | b).sum()


def test_surface_metrics_come_when_asked_for_and_by_the_convention():
    mask = blob(3)
    pred = np.where(mask, 120, 10).astype(np.uint8)  # below one half as saved, above when stretched
    assert "hd95" not in image_metrics(pred, mask)
    as_saved, stretched = (
        image_metrics(pred, mask, rules=rules, surface=True) for rules in ("released", "min-max")
    )
    assert as_saved["hd95"] == pytest.approx(math.hypot(*mask.shape)) and stretched["hd95"] == 0
    assert (as_saved["boundary_iou"], stretched["boundary_iou"]) == (0, 1)


# --- calibration ------------------------------------------------------------------------------------------------------


def of_set(*pairs: tuple[np.ndarray, np.ndarray]) -> EvaluationResult:
    return set_scores((str(i), score_image(*pair)) for i, pair in enumerate(pairs))


def test_a_map_that_says_what_comes_true_is_calibrated():
    rng = np.random.default_rng(0)
    p = rng.integers(0, 256, (300, 400), dtype=np.uint8)
    result = of_set((p, rng.uniform(size=p.shape) < p / 255))
    frame = result.calibration
    assert len(frame) == BINS and frame["weight"].sum() == pytest.approx(1)
    assert result.calibration_error < 0.01
    assert np.abs(frame["observed"] - frame["predicted"]).max() < 0.03


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), st.integers(1, 99))
def test_the_error_of_a_constant_map_is_its_distance_from_the_polyps_share(level, polyp):
    mask = np.zeros((10, 10), bool)
    mask.flat[:polyp] = True
    result = of_set((np.full((10, 10), level, np.uint8), mask))
    assert len(result.calibration) == 1
    assert result.calibration_error == pytest.approx(abs(level / 255 - polyp / 100))


def test_each_image_counts_the_same_in_calibration_whatever_its_size():
    sure, unsure = np.full((4, 4), 255, np.uint8), np.zeros((40, 40), np.uint8)
    result = of_set((sure, np.ones((4, 4), bool)), (unsure, np.zeros((40, 40), bool)))
    assert result.calibration["weight"].tolist() == [0.5, 0.5]
