"""The evaluation: equal to the released numbers, defined where those are not, and plain about bad input."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from kdas_core import UserError
from kdas_core.evaluation import (
    ALL_METRICS,
    CONVENTIONS,
    METRICS,
    THRESHOLDS,
    baselines,
    evaluate,
    evaluate_sets,
    image_curves,
    image_metrics,
    minmax_grey,
)
from kdas_core.evaluation.report import from_config, table, write_json

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = {**dict.fromkeys(METRICS, 1e-9), "wFm": 1e-6}


def close(ours: float, theirs: float, metric: str) -> bool:
    return math.isclose(ours, theirs, rel_tol=0, abs_tol=TOLERANCE[metric]) or (math.isnan(ours) and math.isnan(theirs))


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


def test_metrics_of_each_image_equal_the_released_evaluation(golden, golden_folders):
    rows = evaluate(*golden_folders).per_image
    assert rows["name"].tolist() == [f"{i:02}" for i in range(8)]
    assert not [(m, i) for m in METRICS for i in range(8) if not close(rows[m][i], golden[f"image_{m}"][i], m)]


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


def slow_curves(pred: np.ndarray, gt: np.ndarray) -> dict[str, list[float]]:
    """Pixel by pixel at each threshold, with nothing shared between thresholds."""
    grey, curves = pred.astype(np.float64) / 255, {name: [] for name in ("Dic", "IoU", "Sen", "Spe", "Em")}
    for threshold in np.linspace(1, 0, 256):
        cut = grey >= threshold
        overlap = np.sum(cut & gt)
        if overlap:
            curves["Dic"].append(2 * overlap / (cut.sum() + gt.sum()))
            curves["IoU"].append(overlap / np.sum(cut | gt))
            curves["Sen"].append(overlap / gt.sum())
            curves["Spe"].append(np.sum(~cut & ~gt) / np.sum(~gt) if not gt.all() else 1.0)
        else:
            for name in ("Dic", "IoU", "Sen", "Spe"):
                curves[name].append(0.0)
        if gt.all() or not gt.any():
            enhanced = (cut == gt).astype(float)
        else:
            a, b = cut - cut.mean(), gt - gt.mean()
            enhanced = (1 + 2 * a * b / (a * a + b * b)) ** 2 / 4
        curves["Em"].append(enhanced.sum() / (gt.size - 1))
    return curves


@st.composite
def pairs(draw):
    shape = draw(st.tuples(st.integers(1, 7), st.integers(2, 7)))
    levels = st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 254, 255]))
    return draw(arrays.arrays(np.uint8, shape, elements=levels)), draw(arrays.arrays(bool, shape))


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_curves_from_one_histogram_equal_a_loop_over_thresholds(pair):
    curves, slow = image_curves(*pair), slow_curves(*pair)
    assert all(np.allclose(curves[name], slow[name], rtol=0, atol=1e-12) for name in slow)


def test_every_grey_level_falls_on_the_side_that_a_float_comparison_puts_it():
    pred = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gt = np.ones((16, 16), bool)
    counted = np.rint(image_curves(pred, gt)["Sen"] * 256).astype(int)
    assert counted.tolist() == [int(np.sum(pred / 255 >= t)) for t in THRESHOLDS]
    assert counted.tolist() != list(range(1, 257)), "the ties that the comparison loses are what this test is about"


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
    assert all(ours[m] == pytest.approx(mirrored[m], abs=1e-12) for m in ALL_METRICS if m not in ("Sm", "wFm"))


# --- relations --------------------------------------------------------------------------------------------------------


def test_a_perfect_mask_scores_just_below_one_because_threshold_zero_counts():
    scores = image_metrics(white(disc()), disc())
    assert scores["dice"] == scores["iou"] == scores["maxDic"] == 1
    assert 0.99 < scores["meanDic"] < 1
    assert scores["maxEm"] == pytest.approx(4800 / 4799)


def test_a_better_map_scores_better_on_every_mean():
    gt, noise = disc(), np.random.default_rng(0).uniform(size=(60, 80))
    good, bad = (np.rint(255 * (share * noise + (1 - share) * gt)).astype(np.uint8) for share in (0.3, 0.7))
    better, worse = image_metrics(good, gt), image_metrics(bad, gt)
    assert better["mae"] < worse["mae"]
    for metric in ("meanDic", "meanIoU", "wFm", "Sm", "meanEm", "meanSen", "meanSpe", "dice", "iou"):
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


def test_minmax_stretches_to_the_full_range_and_makes_a_constant_map_black():
    assert minmax_grey(np.array([[50, 100, 75]], np.uint8)).tolist() == [[0, 255, 128]]
    assert minmax_grey(np.full((2, 2), 200, np.uint8)).tolist() == [[0, 0], [0, 0]]
    full = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(minmax_grey(full), full)


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
    assert baselines(disc() for _ in range(3))["all foreground"].summary == result["all foreground"].summary


# --- files: what is matched, what is refused --------------------------------------------------------------------------


def test_files_are_matched_by_stem_and_predictions_without_a_mask_are_named(folders):
    pred_dir, gt_dir = folders
    save(gt_dir / "11.jpg", white(disc()))
    save(pred_dir / "11.png", white(disc()))
    save(pred_dir / "zz.png", white(disc()))
    result = evaluate(pred_dir, gt_dir)
    assert set(result.per_image["name"]) == {"1", "2", "10", "11"} and result.n == 4
    assert result.per_image.set_index("name")["dice"]["11"] > 0.9
    assert result.ignored == ("zz",)


def test_names_limit_what_is_scored(folders):
    result = evaluate(*folders, names=["2"])
    assert result.per_image["name"].tolist() == ["2"] and result.ignored == ("1", "10")
    with pytest.raises(UserError, match="no mask for 3"):
        evaluate(*folders, names=["2", "3"])


def test_all_problems_of_all_sets_come_together_before_anything_is_computed(folders, monkeypatch):
    pred_dir, gt_dir = folders
    (pred_dir / "1.png").unlink()
    save(pred_dir / "2.png", np.zeros((30, 40), np.uint8))
    (pred_dir / "10.png").write_bytes((pred_dir / "10.png").read_bytes()[:200])
    save(gt_dir / "2.bmp", white(disc()))
    monkeypatch.setattr("kdas_core.evaluation.score_image", lambda *_: pytest.fail("scored in spite of problems"))
    with pytest.raises(UserError) as caught:
        evaluate_sets(pred_dir.parent, gt_dir.parent.parent, ["A", "B"])
    text = str(caught.value)
    for part in ("lacks the prediction of 1 of 3 masks (1.png)", "40×30", "80×60", "10.png", "2.bmp and 2.png", "B"):
        assert part in text, part


def spoil_colour(pred_dir, gt_dir):
    save(pred_dir / "1.png", np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def spoil_depth(pred_dir, gt_dir):
    save(pred_dir / "1.png", np.full((60, 80), 40000, np.uint16))


def spoil_mask(pred_dir, gt_dir):
    (gt_dir / "1.png").write_text("no image")


def spoil_all_masks(pred_dir, gt_dir):
    for path in gt_dir.iterdir():
        path.unlink()


def spoil_suffix(pred_dir, gt_dir):
    for path in pred_dir.iterdir():
        path.rename(path.with_suffix(".jpg"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_colour, r"1\.png is in colour"),
        (spoil_depth, r"1\.png does not have 8 bits"),
        (spoil_mask, r"masks.1\.png .*cannot be read"),
        (spoil_all_masks, "holds no mask"),
        (spoil_suffix, "holds no prediction"),
    ],
)
def test_bad_input_is_one_sentence_with_the_file(folders, spoil, says):
    spoil(*folders)
    with pytest.raises(UserError, match=says) as caught:
        evaluate(*folders)
    assert "\n" not in str(caught.value)


def test_grey_saved_as_colour_or_black_and_white_is_read_as_grey(folders):
    pred_dir, gt_dir = folders
    before = evaluate(pred_dir, gt_dir).summary
    with Image.open(pred_dir / "1.png") as image:
        grey = np.array(image)
    save(pred_dir / "1.png", np.stack([grey] * 3, axis=-1))
    assert evaluate(pred_dir, gt_dir).summary == before
    Image.fromarray(disc()).save(pred_dir / "1.png")
    assert evaluate(pred_dir, gt_dir, names=["1"]).summary["dice"] == 1


# --- tables and files -------------------------------------------------------------------------------------------------


def test_table_says_when_a_known_test_set_is_partial(folders):
    result = evaluate(*folders)
    rows = table({"ETIS-LaribPolypDB": result, "mine": result}, metrics=["meanDic"])
    assert rows["images"].tolist() == ["3 of 196", "3"] and rows["n"].tolist() == [3, 3]
    assert rows["meanDic"]["mine"] == result.summary["meanDic"]
    with pytest.raises(UserError, match="meanDice"):
        table({"mine": result}, metrics=["meanDice"])


def test_a_synthetic_set_is_never_labelled_as_the_real_one(folders, tmp_path):
    pred_dir, gt_dir = folders
    (gt_dir.parent.parent / "dataset.json").write_text('{"made_by": "kdas_core.data.synthetic"}')
    assert table({"Kvasir": evaluate(pred_dir, gt_dir)})["images"].tolist() == ["3 synthetic"]


def test_json_has_the_contract_form_and_nan_becomes_null(folders, tmp_path):
    pred_dir, gt_dir = folders
    save(gt_dir / "2.png", np.zeros((60, 80), np.uint8))
    results = evaluate_sets(pred_dir.parent, gt_dir.parent.parent, ["A"], strict=True)
    content = json.loads(write_json(results, tmp_path / "new" / "metrics.json").read_text())
    assert [key for key in content["A"] if key in ALL_METRICS] == list(ALL_METRICS)
    assert content["A"]["wFm"] is None and content["A"]["per_image"]["2"]["wFm"] is None
    assert content["A"]["meanDic"] == results["A"].summary["meanDic"]
    assert content["A"]["per_image"].keys() == {"1", "2", "10"}


def test_a_failed_write_leaves_the_old_file_and_no_other(folders, tmp_path, monkeypatch):
    results, path = {"A": evaluate(*folders)}, tmp_path / "out" / "metrics.json"
    write_json(results, path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="metrics.json cannot be written .*No space left"):
        write_json({}, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def released_config(folders, tmp_path, **changes) -> Path:
    pred_dir, gt_dir = folders
    section = {
        "gt_root": str(gt_dir.parent.parent),
        "pred_root": str(pred_dir.parent),
        "result_path": str(tmp_path / "results"),
        "datasets": ["A"],
        "metrics": ["wFm", "meanDic", "mae"],
    }
    section = {key: value for key, value in {**section, **changes}.items() if value is not None}
    path = tmp_path / "eval.yaml"
    path.write_text(yaml.safe_dump({"Eval": section}))
    return path


def test_a_released_eval_yaml_runs_unchanged_and_writes_the_metrics_it_chose(folders, tmp_path):
    results = from_config(released_config(folders, tmp_path))
    header, line = (tmp_path / "results" / "result_all.csv").read_text().splitlines()
    assert header == "dataset,n,images,convention,wFm,meanDic,mae"
    assert line.split(",")[:4] == ["A", "3", "3", "released"]
    assert float(line.split(",")[5]) == pytest.approx(results["A"].summary["meanDic"], abs=1e-6)


def test_relative_paths_of_a_config_start_at_the_working_directory(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from_config(released_config(folders, tmp_path, gt_root="./G", pred_root="P", result_path="r"))
    assert (tmp_path / "r" / "result_all.csv").is_file()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threshold": 0.5}, "unknown key Eval.threshold"),
        ({"metrics": ["meanDic", "meanDice"]}, "unknown metric meanDice"),
        ({"datasets": None}, "lacks Eval.datasets"),
        ({"datasets": "A"}, "must be a list"),
        ({"pred_root": 3}, "must be the path"),
    ],
)
def test_a_config_that_asks_for_what_does_not_exist_is_refused(folders, tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        from_config(released_config(folders, tmp_path, **changes))
    assert not (tmp_path / "results").exists()


def test_a_config_without_its_section_or_file_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("Train: {}\n")
    with pytest.raises(UserError, match="no section Eval"):
        from_config(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="b.yaml cannot be read"):
        from_config(tmp_path / "b.yaml")
