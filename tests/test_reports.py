"""Files in, files out: what is matched, what is refused, and what evaluate, compare and an eval.yaml write."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kdas_book.reports.comparison import compare
from kdas_book.reports.release_config import from_config
from kdas_book.reports.tables import (
    claims_table,
    comparison_table,
    notes,
    read_per_image,
    table,
    verbose_table,
    write_all,
    write_json,
)
from kdas_core import UserError
from kdas_core.data.masks import read_mask
from kdas_core.evaluation import ALL_METRICS, evaluate, evaluate_sets, repeats

PUBLISHED = Path(__file__).parent.parent / "book" / "results" / "published_results.csv"


def save(path: Path, grey: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
    return path


def disc(height: int = 60, width: int = 80, radius: int = 14) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2


def white(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 255, 0).astype(np.uint8)


@pytest.fixture
def folders(tmp_path):
    """A sound set of three: (predictions, masks), with images beside the masks."""
    rng = np.random.default_rng(0)
    for name in ("1", "2", "10"):
        save(tmp_path / "P" / "A" / f"{name}.png", rng.integers(0, 256, (60, 80), dtype=np.uint8))
        save(tmp_path / "G" / "A" / "masks" / f"{name}.png", white(disc()))
        save(
            tmp_path / "G" / "A" / "images" / f"{name}.png",
            rng.integers(0, 256, (60, 80, 3), dtype=np.uint8),
        )
    return tmp_path / "P" / "A", tmp_path / "G" / "A" / "masks"


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
    monkeypatch.setattr(
        "kdas_core.evaluation.score_image", lambda *_: pytest.fail("scored in spite of problems")
    )
    with pytest.raises(UserError) as caught:
        evaluate_sets(pred_dir.parent, gt_dir.parent.parent, ["A", "B"])
    text = str(caught.value)
    for part in (
        "lacks the prediction of 1 of 3 masks (1.png)",
        "40×30",
        "80×60",
        "10.png",
        "2.bmp and 2.png",
        "B",
    ):
        assert part in text, part


def spoil_colour(pred_dir, gt_dir):
    save(pred_dir / "1.png", np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def spoil_depth(pred_dir, gt_dir):
    save(pred_dir / "1.png", np.full((60, 80), 40000, np.uint16))


def spoil_palette(pred_dir, gt_dir):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).convert("P").save(pred_dir / "1.png")


def spoil_mask_float(pred_dir, gt_dir):
    (gt_dir / "1.png").unlink()
    Image.fromarray(disc().astype(np.float32)).save(gt_dir / "1.tif")


def spoil_mask_depth(pred_dir, gt_dir):
    save(gt_dir / "1.png", np.where(disc(), 255, 0).astype(np.uint16))


def spoil_mask_ones(pred_dir, gt_dir):
    save(gt_dir / "1.png", disc().astype(np.uint8))


def spoil_mask_grey(pred_dir, gt_dir):
    save(gt_dir / "1.png", np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8))


def spoil_mask_colour(pred_dir, gt_dir):
    save(gt_dir / "1.png", np.stack([white(disc()), white(~disc()), white(disc())], axis=-1))


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
        (spoil_palette, r"1\.png is in colour"),
        (spoil_mask_float, r"1\.tif has floating-point numbers as pixels"),
        (spoil_mask_depth, r"1\.png has 16 bits, and its largest value, 255, is all but 0"),
        (spoil_mask_ones, r"masks.1\.png has 1 as its largest value, and polyp begins at 128"),
        (spoil_mask_grey, r"masks.1\.png is not a mask of two values"),
        (spoil_mask_colour, r"masks.1\.png is in colour"),
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


def test_links_are_followed_wherever_they_lead(folders, tmp_path):
    pred_dir, gt_dir = folders
    before = evaluate(pred_dir, gt_dir).summary
    for folder in folders:  # as datalad, git-annex and download caches lay files out
        (folder / "1.png").rename(tmp_path / f"{folder.name}.bin")
        (folder / "1.png").symlink_to(tmp_path / f"{folder.name}.bin")
    pred_dir.rename(tmp_path / "moved")
    pred_dir.symlink_to(tmp_path / "moved")
    found = evaluate_sets(pred_dir.parent, gt_dir.parent.parent, ["A"])
    assert found["A"].summary == before


def test_a_root_that_is_itself_a_link_is_no_problem(folders, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "G")
    assert evaluate_sets(folders[0].parent, tmp_path / "link", ["A"])["A"].n == 3


def test_names_that_differ_in_case_are_named_both(folders):
    pred_dir, gt_dir = folders
    save(gt_dir / "a.png", white(disc()))
    save(gt_dir / "A.png", white(disc()))
    save(pred_dir / "a.png", white(disc()))
    save(pred_dir / "A.png", white(disc()))
    with pytest.raises(UserError, match="one stem twice: A.png and a.png"):
        evaluate(pred_dir, gt_dir)
    for path in (gt_dir / "A.png", pred_dir / "a.png"):
        path.unlink()
    with pytest.raises(UserError, match="but holds A.png, whose case differs"):
        evaluate(pred_dir, gt_dir)


def test_a_grey_palette_is_read_as_grey(folders):
    pred_dir, gt_dir = folders
    before = evaluate(pred_dir, gt_dir).summary
    with Image.open(pred_dir / "1.png") as image:
        image.convert("P").save(pred_dir / "1.png")
    assert evaluate(pred_dir, gt_dir).summary == before


def test_a_jpeg_mask_passes_and_a_soft_one_does_not(tmp_path):
    large = disc(300, 400, 80)
    path = tmp_path / "mask.jpg"
    Image.fromarray(white(large)).save(path, quality=95)
    with Image.open(path) as image:
        assert len(np.unique(np.array(image))) > 2
    assert (read_mask(path) == large).mean() > 0.999
    rim = np.clip(255 * (disc(300, 400, 80).astype(float) + disc(300, 400, 20)) / 2, 0, 255).astype(
        np.uint8
    )
    with pytest.raises(UserError, match="not a mask of two values"):
        read_mask(save(tmp_path / "soft.png", rim))


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
    (gt_dir.parent.parent / "dataset.json").write_text('{"made_by": "kdas_book.data.synthetic"}')
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
    with pytest.raises(UserError, match="metrics.json cannot be written .*the disk is full"):
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


def test_all_that_is_wrong_with_a_config_and_its_images_comes_at_once(folders, tmp_path):
    (folders[0] / "2.png").unlink()
    path = released_config(
        folders, tmp_path, metrics=["meanDic", "meanDice"], cutoff=1, datasets=["A", "B"]
    )
    with pytest.raises(UserError) as caught:
        from_config(path)
    for part in ("meanDice", "Eval.cutoff", "lacks the prediction of 1 of 3 masks (2.png)", "B"):
        assert part in str(caught.value), part


def test_each_set_gets_the_released_csv_and_a_second_run_replaces_its_own_line_only(
    folders, tmp_path
):
    config = released_config(folders, tmp_path)
    file = tmp_path / "results" / "result_A.csv"
    file.parent.mkdir()
    file.write_text(
        "method, wFm, meanDic, mae\nUACANet-L,0.9000,0.8000,0.0100,\n"
    )  # as the released program writes it
    for _ in range(2):
        results = from_config(config)
    numbers = [f"{results['A'].summary[m]:.4f}" for m in ("wFm", "meanDic", "mae")]
    assert file.read_text().splitlines() == [
        "method,wFm,meanDic,mae",
        "UACANet-L,0.9000,0.8000,0.0100",
        ",".join(["P", *numbers]),
    ]
    with pytest.raises(UserError, match="result_A.csv holds other columns"):
        from_config(released_config(folders, tmp_path, metrics=["mae"]))
    assert len(file.read_text().splitlines()) == 3


def test_a_config_may_ask_for_surface_measures(folders, tmp_path):
    results = from_config(released_config(folders, tmp_path, metrics=["meanDic", "hd95"]))
    assert results["A"].summary["hd95"] > 0
    assert "hd95" in (tmp_path / "results" / "result_A.csv").read_text().splitlines()[0]


def test_the_verbose_table_has_three_decimals_and_says_how_many_images(folders):
    result = evaluate(*folders)
    text = verbose_table({"ETIS-LaribPolypDB": result}, ["meanDic", "mae"])
    lines = text.splitlines()
    assert lines[0].split() == ["dataset", "meanDic", "mae"]
    assert lines[2].split() == [
        "ETIS-LaribPolypDB",
        f"{result.summary['meanDic']:.3f}",
        f"{result.summary['mae']:.3f}",
    ]
    assert "3 of 196" in text and "Convention: released" in text


def test_five_files_hold_the_same_numbers(folders, tmp_path):
    results = {"CVC-300": evaluate(*folders)}
    paths = write_all(results, tmp_path / "out")
    assert [p.name for p in paths] == [
        "metrics.json",
        "metrics.csv",
        "metrics.md",
        "metrics.tex",
        "per_image.csv",
    ]
    value = results["CVC-300"].summary["wFm"]
    assert pd.read_csv(paths[1], index_col="dataset").loc["CVC-300", "wFm"] == pytest.approx(
        value, abs=1e-15
    )
    for path in paths[2:4]:
        assert f"{value:.3f}" in path.read_text() and "CVC-ColonDB" in path.read_text(), (
            "the note on CVC-300"
        )
    assert "\\toprule" in paths[3].read_text()
    per_image = pd.read_csv(paths[4], dtype={"name": str})
    assert per_image["name"].tolist() == results["CVC-300"].per_image["name"].tolist()
    assert (
        read_per_image(paths[0])["CVC-300"]["wFm"].tolist()
        == results["CVC-300"].per_image["wFm"].tolist()
    )


def test_of_several_files_all_are_written_or_none(folders, tmp_path):
    (tmp_path / "out" / "metrics.tex.d").mkdir(parents=True)
    (tmp_path / "out" / "per_image.csv").mkdir()  # in the way of the last one
    with pytest.raises(UserError, match="holds per_image.csv already"):
        write_all({"A": evaluate(*folders)}, tmp_path / "out")
    there = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert there == ["metrics.tex.d", "per_image.csv"]


def test_a_table_refuses_what_was_not_measured(folders):
    with pytest.raises(UserError, match="hd95 was not measured.*--surface"):
        table({"A": evaluate(*folders)}, ["hd95"])


def test_a_file_that_is_no_result_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="a.json cannot be read as a file of results"):
        read_per_image(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_per_image(tmp_path / "b.json")


# --- repeats, notes, the ledger ---------------------------------------------------------------------------------------


def test_a_repeated_image_counts_once_when_asked_and_the_table_says_so(folders):
    pred_dir, gt_dir = folders
    images = gt_dir.parent / "images"
    (images / "2.png").write_bytes((images / "10.png").read_bytes())
    assert repeats(gt_dir, ["1", "2", "10"]) == ("10",), "in natural order 2 comes first and stays"
    everything, once = evaluate(pred_dir, gt_dir), evaluate(pred_dir, gt_dir, drop_repeats=True)
    assert (everything.n, once.n, once.dropped) == (3, 2, ("10",))
    rows = everything.per_image.set_index("name")["dice"]
    assert once.summary["dice"] == pytest.approx(rows[["1", "2"]].mean())
    labels = table({"CVC-ColonDB": once, "mine": once})["images"].tolist()
    assert labels == ["2 of 380, no repeats", "2 of 3, no repeats"]


def test_repeats_cannot_be_found_without_images(folders):
    (folders[1].parent / "images" / "2.png").unlink()
    with pytest.raises(UserError, match="lacks the image of 2"):
        evaluate(*folders, drop_repeats=True)


def test_notes_are_said_of_the_real_sets_and_of_no_other(folders):
    result = evaluate(*folders)
    assert [note.split(":")[0] for note in notes({"CVC-300": result, "mine": result})] == [
        "CVC-300"
    ]


def test_the_ledger_sets_reported_beside_measured_and_says_why_they_must_not_be_compared(folders):
    results = {"Kvasir": evaluate(*folders), "CVC-300": evaluate(*folders, convention="min-max")}
    frame = claims_table(results, "kdas-seed0", PUBLISHED, model="KDAS")
    assert frame[["dataset", "metric"]].values.tolist() == [
        ["Kvasir", m] for m in ("meanDic", "meanIoU", "mae")
    ]
    first = frame.iloc[0]
    assert (first["reported"], first["images"], first["run"]) == (0.913, "3 of 100", "kdas-seed0")
    assert first["difference"] == pytest.approx(results["Kvasir"].summary["meanDic"] - 0.913)
    assert first["not_comparable"] == "only 3 of 100 images"
    everyone = claims_table(results, "x", PUBLISHED)
    stretched = everyone[everyone["dataset"] == "CVC-300"]
    assert len(stretched) > 3 and set(stretched["not_comparable"]) == {
        "only 3 of 60 images, convention min-max"
    }
    with pytest.raises(UserError, match="no row of KDSA; it has .*KDAS"):
        claims_table(results, "x", PUBLISHED, model="KDSA")


def test_a_full_set_in_the_released_convention_may_be_compared(tmp_path):
    for i in range(60):
        save(tmp_path / "P" / f"{i}.png", white(disc(20, 24, 5)))
        save(tmp_path / "G" / f"{i}.png", white(disc(20, 24, 6)))
    results = {"CVC-300": evaluate(tmp_path / "P", tmp_path / "G")}
    frame = claims_table(results, "x", PUBLISHED)
    assert set(frame["not_comparable"]) == {""} and set(frame["images"]) == {"60"}
    reserved = claims_table(
        results, "x", PUBLISHED, reservations=["other networks", "another recipe"]
    )
    assert set(reserved["not_comparable"]) == {"other networks, another recipe"}


def test_a_small_p_value_is_printed_as_it_is():
    noise = np.random.default_rng(0).uniform(0, 0.1, 60)
    tables = [
        {"A": pd.DataFrame({"name": range(60), "dice": values})}
        for values in (0.5 + noise, 0.3 + noise / 2)
    ]
    compared = compare(*tables)
    line = comparison_table(compared).splitlines()[2]
    assert (
        compared["p"]["A"] < 1e-9
        and f"{compared['p']['A']:.2g}" in line
        and f"{compared['mean_a']['A']:.3f}" in line
    )


def test_synthetic_results_are_marked_in_the_file_and_compared_without_notes_on_the_real_sets(
    folders, tmp_path
):
    (tmp_path / "G" / "dataset.json").write_text('{"made_by": "kdas_book.data.synthetic"}')
    write_json({"CVC-300": evaluate(*folders)}, tmp_path / "a.json")
    assert read_per_image(tmp_path / "a.json")["CVC-300"].attrs["synthetic"]
    done = kdas("compare", "a.json", "a.json", cwd=tmp_path)
    assert done.returncode == 0 and "CVC-ColonDB" not in done.stdout


# --- the command line -------------------------------------------------------------------------------------------------


def kdas(*words, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PUBLISHED.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kdas_book.cli", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_evaluate_by_config_prints_the_table_and_compare_reads_what_it_wrote(folders, tmp_path):
    for name in ("1", "2", "10"):
        save(tmp_path / "Q" / "A" / f"{name}.png", white(disc(radius=12)))
    config = released_config(folders, tmp_path)
    done = kdas("evaluate", "--config", config, "--verbose", "--json", "p.json", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[0].split() == [
        "dataset",
        "wFm",
        "meanDic",
        "mae",
    ]
    other = ("--pred-root", "Q", "--gt-root", "G", "--datasets", "A", "--out", "q", "--surface")
    assert kdas("evaluate", *other, cwd=tmp_path).returncode == 0
    compared = kdas("compare", "q/metrics.json", "p.json", "--csv", "c.csv", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    row = pd.read_csv(tmp_path / "c.csv", index_col="dataset").loc["A"]
    assert row["n"] == 3 and row["wins"] == 3
    assert row["difference"] == pytest.approx(row["mean_a"] - row["mean_b"])


def test_bad_input_ends_with_code_2_all_problems_and_no_file(folders, tmp_path):
    (folders[0] / "1.png").unlink()
    save(folders[0] / "2.png", np.zeros((30, 40), np.uint8))
    config = released_config(folders, tmp_path, metrics=["meanDice"])
    done = kdas("evaluate", "--config", config, "--json", "p.json", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("kdas: Nothing was scored") and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in ("1.png", "40×30", "meanDice"))
    assert not any((tmp_path / name).exists() for name in ("results", "p.json", "out"))


# --- what a number stands for travels with it -------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"convention": "min-max"}, {"strict": True}])
@pytest.mark.parametrize("kept", ["result", "file"])
def test_scores_of_different_rules_are_not_compared(folders, tmp_path, how, kept):
    one, other = ({"S": evaluate(*folders, **options)} for options in ({}, how))
    if kept == "file":
        one, other = (
            read_per_image(write_json(results, tmp_path / f"{i}.json"))
            for i, results in enumerate((one, other))
        )
    (key, value) = next(iter(how.items()))
    with pytest.raises(UserError, match=f"a was scored with {key} .* and b with {value}"):
        compare(one, other)
    assert compare(one, one)["difference"]["S"] == 0


def test_a_set_scored_on_fewer_images_than_were_predicted_says_so(folders):
    pred_dir, _ = folders
    save(pred_dir / "beyond.png", white(disc()))
    results = {"S": evaluate(*folders)}
    assert "S: 1 predictions were not scored." in verbose_table(results)
    assert "S: 1 predictions were not scored." in notes(results)


def test_a_comma_in_the_name_of_a_method_stays_in_its_column(folders, tmp_path, monkeypatch):
    pred_dir, gt_dir = folders
    preds = tmp_path / 'KDAS, "alpha"=0.5'
    pred_dir.parent.rename(preds)
    config = {
        "gt_root": str(gt_dir.parent.parent),
        "pred_root": str(preds),
        "result_path": str(tmp_path / "res"),
        "datasets": ["A"],
        "metrics": ["meanDic", "wFm"],
    }
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump({"Eval": config}))
    for _ in range(2):  # the second time it replaces its line
        from_config(tmp_path / "eval.yaml")
    with open(tmp_path / "res" / "result_A.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [len(row) for row in rows] == [3, 3]
    assert rows[1][0] == preds.name


@pytest.mark.parametrize("content", ['{"val_dice": 0.7, "seed": 0}', "[1, 2]", "notes"])
def test_a_file_of_others_is_not_replaced_by_scores(folders, tmp_path, content):
    results = {"S": evaluate(*folders)}
    target = tmp_path / "run" / "metrics.json"  # as a training run has one
    target.parent.mkdir()
    target.write_text(content)
    for write in (lambda: write_all(results, target.parent), lambda: write_json(results, target)):
        with pytest.raises(UserError, match="is there already and is no file of kdas evaluate"):
            write()
    assert target.read_text() == content and list(target.parent.iterdir()) == [target]
    target.unlink()
    for _ in range(2):  # our own are replaced
        assert len(write_all(results, target.parent)) == 5


def test_maps_of_two_networks_in_one_folder_are_not_scored_as_one(folders):
    pred_dir, gt_dir = folders
    for i, path in enumerate(sorted(pred_dir.iterdir())):
        about = PngInfo()
        about.add_text("network", f"{'ab'[i % 2]} {i}")
        Image.open(path).save(path, pnginfo=about)
    with pytest.raises(UserError, match="holds maps of 2 networks"):
        evaluate(pred_dir, gt_dir)


def test_a_mask_whose_link_leads_nowhere_is_not_left_out_of_the_score(folders):
    pred_dir, gt_dir = folders
    mask = sorted(gt_dir.iterdir())[0]
    mask.unlink()
    mask.symlink_to("../.git/annex/objects/absent")
    with pytest.raises(UserError, match="is a link to .*absent, which is not there"):
        evaluate(pred_dir, gt_dir)


def test_tables_of_the_user_are_not_replaced(folders, tmp_path):
    results = {"A": evaluate(*folders)}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "per_image.csv").write_text("mine")
    with pytest.raises(UserError, match=r"out holds per_image\.csv already"):
        write_all(results, tmp_path / "out")
    assert (tmp_path / "out" / "per_image.csv").read_text() == "mine"


def test_scores_against_other_masks_are_not_compared(folders, tmp_path):
    pred_dir, gt_dir = folders
    before = evaluate(pred_dir, gt_dir)
    mask = sorted(gt_dir.iterdir())[0]
    save(mask, white(np.roll(read_mask(mask), 3, axis=1)))
    with pytest.raises(UserError, match="a was scored with masks .* and b with"):
        compare({"A": before}, {"A": evaluate(pred_dir, gt_dir)})
    files = [write_json({"A": before}, tmp_path / f"{name}.json") for name in "ab"]
    table = compare(*map(read_per_image, files))
    assert table["difference"].tolist() == [0.0]
