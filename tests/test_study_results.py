"""What a study says: its tables against numbers worked out by hand, what may not stand in one table, the ledger, and the plan."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from kdas_book.figures.display import use_style
from kdas_book.reports import comparison as statistics
from kdas_book.study import estimate as costs
from kdas_book.study import registered
from kdas_book.study.report import (
    averages,
    by_size,
    claims_table,
    compare_to_baseline,
    detectable,
    detectable_table,
    dice_table,
    last_or_best,
    power_of,
    seed_differences,
    seeds_for,
    summary,
    write_report,
)
from kdas_book.study.report import costs as cost_table
from kdas_book.study.results import collect, keep, load, open_results, restore, say_raw_guiding
from kdas_book.study.seeds import MEAN
from kdas_book.study.spec import SCHEMA, Study, read_study
from kdas_core import UserError
from kdas_core.evaluation import ALL_METRICS
from kdas_core.losses import objective
from kdas_core.recipe import preset
from kdas_core.training import objective_kwargs

STUDIES = Path(__file__).parent.parent / "book" / "studies"
SETS = {"Kvasir": 6, "ETIS-LaribPolypDB": 4}
SHARES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.03, 0.06, 0.12, 0.3])
BETTER = {"supervised": 0.0, "kdas": 0.05, "released": -0.04, "logit_kd": 0.0}


def dice_of(label: str, seed: int) -> np.ndarray:
    """Ten images: a label's effect, a little of the seed, a little of the image; kdas is better and released worse in each image."""
    rng = np.random.default_rng([seed, len(label)])
    return np.round(
        0.5 + SHARES / 2 + BETTER[label] + 0.01 * seed + rng.uniform(-0.02, 0.02, 10), 4
    )


def write_cell(folder: Path, label: str, seed: int, **changes) -> dict:
    """A finished cell with made-up numbers; ``changes`` go into its metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [(d, str(i)) for d, n in SETS.items() for i in range(n)]
    images = pd.DataFrame(names, columns=["dataset", "name"]).assign(
        share=SHARES, dice=dice_of(label, seed)
    )
    images = images.assign(iou=images["dice"] / 2, dice_last=images["dice"] - 0.01, agreement=0.6)
    images.to_csv(folder / "per_image.csv", index=False)
    pd.DataFrame({"epoch": [1, 2], "val_dice": [0.4, 0.5], "val_loss": [1.0, 0.9]}).to_csv(
        folder / "history.csv", index=False
    )
    means = images.groupby("dataset")["dice"].mean()
    sets = {
        name: {
            "n": count,
            "of": count,
            "best": dict.fromkeys(ALL_METRICS, means[name]),
            "last": dict.fromkeys(ALL_METRICS, means[name] - 0.01),
            "agreement": 0.6,
            "calibration_error": 0.02,
        }
        for name, count in SETS.items()
    }
    record = {
        "schema": SCHEMA,
        "label": label,
        "objective": label,
        "seed": seed,
        "sets": sets,
        "convention": "released",
    }
    record |= {
        "recipe": {"teacher": "big", "student": "small", "image_size": 96},
        "teacher": "a" * 64,
        "revision": "abc",
    }
    record |= {
        "versions": {},
        "hardware": "2 CPU cores, no GPU",
        "minutes": 2.0 + seed,
        "epochs": 2,
        "best_epoch": 2,
    }
    record |= {"false_alarms": 0.1, "validation_dice": 0.5, "parameters": 3_000_000, "macs": 10**9}
    record |= {"data": {"name": "d", "synthetic": False, "train": 8, "validation": 2}, **changes}
    (folder / "metrics.json").write_text(json.dumps(record))
    return record


@pytest.fixture
def folder(tmp_path) -> Path:
    """A study of four labels and three seeds, all finished; the teacher has no cell of its own here."""
    study = Study("made", {label: {} for label in BETTER}, (0, 1, 2))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "study.yaml").write_text(study.as_yaml())
    for label in BETTER:
        for seed in study.seeds:
            write_cell(tmp_path / "made" / f"{label}-seed{seed}", label, seed)
    return tmp_path / "made"


def by_hand(label: str, name: str) -> np.ndarray:
    """Mean Dice of a set, a value a seed."""
    where = slice(0, 6) if name == "Kvasir" else slice(6, 10)
    return np.array([dice_of(label, seed)[where].mean() for seed in (0, 1, 2)])


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_table_has_the_mean_and_the_sd_over_seeds(folder):
    table = dice_table(collect(folder))
    kvasir, etis = by_hand("kdas", "Kvasir"), by_hand("kdas", "ETIS-LaribPolypDB")
    row = table.loc["kdas"]
    assert row["Kvasir (6 of 100)"] == f"{kvasir.mean():.3f} ± {kvasir.std(ddof=1):.3f}"
    both = (kvasir + etis) / 2
    assert row[MEAN] == f"{both.mean():.3f} ± {both.std(ddof=1):.3f}"
    assert list(table.index) == list(BETTER)


def test_images_are_compared_over_the_means_of_the_seeds_and_all_p_values_corrected_together(
    folder,
):
    table = compare_to_baseline(collect(folder))
    means = {
        label: np.mean([dice_of(label, seed) for seed in (0, 1, 2)], axis=0) for label in BETTER
    }
    row = table.loc[("kdas", "Kvasir")]
    assert row["difference"] == pytest.approx(
        (means["kdas"] - means["supervised"])[:6].mean(), abs=1e-9
    )
    assert row["wins"] == 6 and row["low"] > 0
    assert table.loc[("released", "Kvasir"), "high"] < 0
    assert row["p"] == pytest.approx(
        stats.wilcoxon((means["kdas"] - means["supervised"])[:6]).pvalue
    )
    np.testing.assert_allclose(table["p_holm"], statistics.holm(table["p"]))
    assert (
        len(table) == 6
        and (table["p_holm"] >= table["p"]).all()
        and table["p_holm"].max() > table["p"].max() - 1e-12
    )
    with pytest.raises(UserError, match='no finished training called "alone"'):
        compare_to_baseline(collect(folder), base="alone")


def test_three_ways_to_one_number_weigh_sets_images_and_partial_sets(folder):
    found = collect(folder)
    kdas, plain = (
        {name: by_hand(label, name) for name in SETS} for label in ("kdas", "supervised")
    )
    rows = averages(found).loc["kdas"]
    sets = np.mean([kdas[name] - plain[name] for name in SETS], axis=0)
    images = (
        6 * (kdas["Kvasir"] - plain["Kvasir"])
        + 4 * (kdas["ETIS-LaribPolypDB"] - plain["ETIS-LaribPolypDB"])
    ) / 10
    assert rows.loc[MEAN, "difference"] == pytest.approx(sets.mean(), abs=1e-6)
    assert rows.loc["mean of the images", ["difference", "sd"]].tolist() == pytest.approx(
        [images.mean(), images.std(ddof=1)], abs=1e-6
    )
    assert "mean of the whole sets" not in rows.index  # 6 of 100 and 4 of 196: there is none


def test_frames_that_stand_in_two_sets_count_once_and_whole_sets_count_alone(folder):
    found = collect(folder)
    renamed = {"Kvasir": "CVC-300", "ETIS-LaribPolypDB": "CVC-ColonDB"}
    scores = found.scores.assign(dataset=found.scores["dataset"].map(renamed))
    scores["n_images"] = scores["dataset"].map({"CVC-300": 60, "CVC-ColonDB": 4})
    rows = averages(replace(found, scores=scores)).loc["released"]
    alone = seed_differences(replace(found, scores=scores)).loc["released"]
    assert rows.loc["mean of the images", "difference"] == alone.loc["CVC-ColonDB", "difference"]
    assert rows.loc["mean of the whole sets", "difference"] == alone.loc["CVC-300", "difference"]


def test_the_frames_of_clinicdb_are_drawn_video_by_video(folder):
    found = collect(folder)
    images = found.images.assign(dataset=found.images["dataset"].replace("Kvasir", "CVC-ClinicDB"))
    table = compare_to_baseline(
        replace(found, images=images, about=found.about | {"data": {"synthetic": False}})
    )
    assert (
        table.loc[("kdas", "CVC-ClinicDB"), "units"] == "2 groups"
    )  # frames 1 to 5 are one video; there is no frame 0
    assert table.loc[("kdas", "ETIS-LaribPolypDB"), "units"] == "4 images"


def test_the_interval_over_seeds_is_that_of_the_paired_t_test(folder):
    table = seed_differences(collect(folder))
    a, b = by_hand("kdas", "Kvasir"), by_hand("supervised", "Kvasir")
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    row = table.loc[("kdas", "Kvasir")]
    assert [row["low"], row["high"]] == pytest.approx([interval.low, interval.high], abs=1e-9)
    assert row["difference"] == pytest.approx((a - b).mean(), abs=1e-9)
    assert (
        row["sd"] == pytest.approx((a - b).std(ddof=1)) and row["seeds"] == 3 and row["same_sign"]
    )
    assert not table.loc["logit_kd"]["same_sign"].all()


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_a_difference_of_the_detectable_size_is_found_four_times_in_five(seeds):
    rng, size = np.random.default_rng(0), detectable(0.02, seeds)
    p = stats.ttest_1samp(rng.normal(size, 0.02, (4000, seeds)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.025)


def test_more_seeds_detect_less_and_one_seed_nothing(folder):
    table = detectable_table(collect(folder))
    columns = table.drop(columns=["sd of a difference", "seeds for 0.01"])
    for sd, seeds in zip(table["sd of a difference"], table["seeds for 0.01"]):
        assert detectable(sd, seeds) <= 0.01 and (seeds == 2 or detectable(sd, seeds - 1) > 0.01)
    assert (columns.diff(axis=1).iloc[:, 1:] < 0).all().all()
    spread = seed_differences(collect(folder)).xs("Kvasir", level="dataset")["sd"]
    assert table.loc["Kvasir", "sd of a difference"] == pytest.approx(np.sqrt((spread**2).mean()))
    with pytest.raises(UserError, match="no spread between seeds"):
        detectable(0.02, 1)


def test_statistics_of_the_recorded_study_are_those_that_were_published():
    """Numbers of the book's tables, taken down before SciPy and statsmodels computed them."""
    tuned = load(STUDIES.parent / "results" / "laptop_tuned_study.csv")
    seeds = seed_differences(tuned).xs(MEAN, level="dataset")[["difference", "sd", "low", "high"]]
    assert seeds.loc["kdas_tuned (raw guiding)"].tolist() == pytest.approx(
        [0.016538800000, 0.013236158523, -0.016341640545, 0.049419240545], abs=1e-6
    )
    holm = compare_to_baseline(tuned).loc["kdas_tuned (raw guiding)", "p_holm"]
    assert holm.tolist() == pytest.approx(
        [0.384697521055, 1.0, 0.001731090208, 0.000077855751, 0.989742279053], abs=1e-6
    )
    sets = detectable_table(tuned).loc[["Kvasir", "ETIS-LaribPolypDB", MEAN]]
    assert sets.drop(columns="sd of a difference").to_numpy() == pytest.approx(
        np.array(
            [
                [0.067226808832, 0.018998558554, 0.009790164673, 0.005797290036, 0.003844144112, 5],
                [
                    0.269153617324,
                    0.076063862730,
                    0.039196539027,
                    0.023210406845,
                    0.015390664994,
                    45,
                ],
                [
                    0.143961642610,
                    0.040684122067,
                    0.020964972342,
                    0.012414502648,
                    0.008231973382,
                    15,
                ],
            ]
        ),
        abs=1e-6,
    )
    found = [power_of(0.01, 0.01, 3), power_of(0.01, 0.004, 5), power_of(0.01, 0.023, 10)]
    assert found == pytest.approx([0.178610055248, 0.981730588449, 0.233089654364], abs=1e-6)
    needed = [seeds_for(difference, 0.01) for difference in (0.0005, 0.001, 0.005, 0.03, 0.1, 0.5)]
    assert needed == [3142, 787, 34, 4, 3, 2]


def test_epochs_sizes_and_costs(folder):
    results = collect(folder)
    assert np.allclose(last_or_best(results), 0.01)
    table = by_size(results, bins=2)
    small, large = SHARES <= np.median(SHARES), SHARES > np.median(SHARES)
    means = np.mean([dice_of("kdas", seed) for seed in (0, 1, 2)], axis=0)
    assert table.loc["kdas"].tolist() == pytest.approx([means[small].mean(), means[large].mean()])
    row = cost_table(results).loc["kdas"]
    assert (
        row["minutes (quickest seed)"] == 2.0
        and row["parameters (M)"] == 3.0
        and row["MACs (G)"] == 1.0
    )


def test_each_image_counts_once_in_the_groups_by_size(folder):
    results = collect(folder)
    once = by_size(results, bins=2)
    # CVC-300 inside CVC-ColonDB, and an exact repeat there, both as far off as can be
    images = results.images.replace({"dataset": {"Kvasir": "CVC-ColonDB"}}).assign(repeat=False)
    again = images[images["dataset"] == "CVC-ColonDB"].assign(dice=0.0)
    twice = again.assign(name="r" + again["name"], repeat=True)
    inside = again.assign(dataset="CVC-300")
    more = replace(results, images=pd.concat([images, inside, twice]))
    pd.testing.assert_frame_equal(by_size(more, bins=2), once)
    # Without CVC-ColonDB nothing holds the frames of CVC-300.
    alone = results.images.replace({"dataset": {"Kvasir": "CVC-300"}})
    pd.testing.assert_frame_equal(by_size(replace(results, images=alone), bins=2), once)


# --- what may stand in one table --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"convention": "binary"}, "the convention of kdas-seed1 differs"),
        ({"teacher": "b" * 64}, "the teacher of kdas-seed1 differs"),
        (
            {"data": {"name": "other", "synthetic": False, "train": 8, "validation": 2}},
            "the data of kdas-seed1 differs",
        ),
    ],
)
def test_cells_that_were_measured_otherwise_are_refused(folder, changes, words):
    write_cell(folder / "kdas-seed1", "kdas", 1, **changes)
    with pytest.raises(UserError, match=words):
        collect(folder)


def test_a_part_of_a_test_set_is_refused_beside_the_whole_one_and_labelled_alone(folder):
    record = json.loads((folder / "kdas-seed1" / "metrics.json").read_text())
    record["sets"]["Kvasir"]["n"] = 5
    (folder / "kdas-seed1" / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="the numbers of test images of kdas-seed1 differs"):
        collect(folder)
    for metrics in folder.glob("*/metrics.json"):
        record = json.loads(metrics.read_text())
        record["sets"]["Kvasir"]["n"] = 5
        metrics.write_text(json.dumps(record))
    assert "Kvasir (5 of 100)" in dice_table(collect(folder))


def test_other_images_of_the_same_number_are_refused(folder):
    file = folder / "released-seed2" / "per_image.csv"
    file.write_text(file.read_text().replace("Kvasir,3,", "Kvasir,33,"))
    with pytest.raises(UserError, match="the names of test images of released-seed2 differs"):
        collect(folder)


def test_a_record_cut_short_and_a_missing_table_are_named(folder):
    metrics = folder / "kdas-seed0" / "metrics.json"
    whole = metrics.read_text()
    metrics.write_text(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match=r"kdas-seed0/metrics\.json is missing, cut short or damaged"
    ):
        collect(folder)
    metrics.write_text(whole)
    (folder / "kdas-seed0" / "per_image.csv").unlink()
    with pytest.raises(UserError, match=r"lacks kdas-seed0/per_image\.csv; run the study again"):
        collect(folder)


def test_a_study_without_a_finished_student_says_so(folder):
    for metrics in folder.glob("*/metrics.json"):
        metrics.unlink()
    with pytest.raises(UserError, match="no finished training yet"):
        collect(folder)


def test_a_partial_study_is_called_partial_everywhere(folder, tmp_path):
    (folder / "kdas-seed2" / "metrics.json").unlink()
    results = collect(folder)
    assert results.completeness == "partial: 11 of 12 trainings"
    assert seed_differences(results).loc[("kdas", "Kvasir"), "seeds"] == 2
    use_style()
    write_report(results, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("partial: 11 of 12 trainings") == 1 + text.count("## ")
    assert "partial" in (tmp_path / "report" / "dice.tex").read_text()


# --- files ------------------------------------------------------------------------------------------------------------


def test_kept_results_are_read_again_and_the_same_results_are_the_same_bytes(folder, tmp_path):
    files = keep(folder, tmp_path / "kept")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in keep(folder, tmp_path / "kept")] == before
    found, again = collect(folder), load(files[0])
    other = tmp_path / "other" / "made"
    other.mkdir(parents=True)
    shutil.copy(folder / "study.yaml", other)
    (other / "kdas-seed1").mkdir()
    (other / "kdas-seed1" / "metrics.json").write_text("newer")
    restore(other, tmp_path / "kept")
    assert (other / "kdas-seed1" / "metrics.json").read_text() == "newer", "what is there stays"
    shutil.copy(folder / "kdas-seed1" / "metrics.json", other / "kdas-seed1")
    pd.testing.assert_frame_equal(collect(other).images, found.images)
    pd.testing.assert_frame_equal(collect(other).scores, found.scores)
    assert again.name == "made" and again.about == found.about
    pd.testing.assert_frame_equal(again.images, found.images, atol=5e-5, check_dtype=False)
    pd.testing.assert_frame_equal(again.scores, found.scores, atol=1e-6, check_dtype=False)
    pd.testing.assert_frame_equal(again.curves, found.curves, atol=1e-5, check_dtype=False)
    for i, file in enumerate(files[:4]):
        file.write_bytes(before[i][: len(before[i]) // 3])
        with pytest.raises(UserError, match="and its companions cannot be read"):
            load(files[0]) if i else load(tmp_path / "gone.csv")
        file.write_bytes(before[i])


def test_the_report_has_every_table_in_three_forms_and_every_figure_in_two(folder, tmp_path):
    use_style()
    files = write_report(collect(folder), tmp_path / "report")
    assert all(file.stat().st_size > 50 for file in files)
    by_stem: dict[str, set] = {}
    for file in files:
        by_stem.setdefault(file.stem, set()).add(file.suffix)
    assert {frozenset(s) for s in by_stem.values()} == {
        frozenset({".md"}),
        frozenset({".csv", ".md", ".tex"}),
        frozenset({".png", ".svg"}),
    }
    table = pd.read_csv(tmp_path / "report" / "against_supervised.csv")
    assert table["difference"].tolist() == pytest.approx(
        compare_to_baseline(collect(folder))["difference"].tolist()
    )
    drawn = [file for file in files if file.suffix == ".png"]
    assert len(drawn) == 5 and all(
        f"({file.name})" in (tmp_path / "report" / "report.md").read_text() for file in drawn
    )


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_the_ledger_judges_by_the_interval_over_seeds(folder, tmp_path):
    rows = [
        ("kdas helps", "paper", "kdas", "supervised", "small"),
        ("released helps", "paper", "released", "supervised", ""),
        ("logits help", "us", "logit_kd", "supervised", ""),
        ("another helps", "paper", "attention_only", "supervised", ""),
        ("0.913 on Kvasir", "paper", "", "", "needs a GPU"),
    ]
    pd.DataFrame(rows, columns=["claim", "source", "better", "than", "caveat"]).to_csv(
        tmp_path / "claims.csv", index=False
    )
    table = claims_table(collect(folder), tmp_path / "claims.csv")
    states = table["state"].tolist()
    assert states[:2] == ["above here", "below here"]
    assert states[2] in ("undecided here", "below here", "equivalent here")
    assert states[3:] == ["not tested", "not tested"]
    assert (
        table.loc[3, "evidence"] == "attention_only not trained"
        and table.loc[4, "caveat"] == "needs a GPU"
    )
    dice = registered.endpoints(collect(folder))["dice"]
    whole = registered.contrasts(dice, [("kdas", "supervised")]).iloc[0]
    number = f"{whole['difference']:+.3f} [{whole['low']:+.3f}, {whole['high']:+.3f}]"
    assert table["number"].tolist()[::3] == [number, ""]
    assert table.loc[0, "evidence"].startswith(
        f"{whole['difference']:+.3f} Dice over 3 seeds, interval {whole['low']:+.3f}"
    )
    with pytest.raises(UserError, match=r"no table of claims .*\['caveat'\] not in index"):
        (tmp_path / "claims.csv").write_text("claim,source,better,than\n")
        claims_table(collect(folder), tmp_path / "claims.csv")


def test_a_claim_is_judged_by_the_first_study_that_has_both_labels(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for cell in [*other.glob("released-*"), *folder.glob("kdas-*")]:
        shutil.rmtree(cell)
    (tmp_path / "claims.csv").write_text(
        "claim,source,better,than,caveat\na,,released,supervised,\nb,,kdas,supervised,\nc,,kdas,released,\nd,,kdas,new,\n"
    )
    first, second = collect(folder), collect(other)
    table = claims_table(first, tmp_path / "claims.csv", second)
    assert table["state"].tolist() == ["below here", "above here", "not tested", "not tested"]
    assert table["evidence"].tolist()[2:] == ["not trained in one study", "new not trained"]
    assert claims_table(first, tmp_path / "claims.csv")["evidence"][1] == "kdas not trained"


def test_one_seed_decides_nothing(folder, tmp_path):
    for metrics in folder.glob("*-seed[12]/metrics.json"):
        metrics.unlink()
    (tmp_path / "claims.csv").write_text(
        "claim,source,better,than,caveat\na,paper,kdas,supervised,\nb,paper,released,supervised,\n"
    )
    table = claims_table(collect(folder), tmp_path / "claims.csv")
    assert (table["state"] == "undecided here").all() and table["evidence"].str.endswith(
        "over 1 seed"
    ).all()


def test_two_labels_that_hardly_differ_are_equivalent_in_the_ledger(folder, tmp_path):
    labels = ("supervised", "logit_kd")
    for seed in (0, 1, 2):
        plain, other = (folder / f"{name}-seed{seed}/per_image.csv" for name in labels)
        images = pd.read_csv(plain, dtype={"name": str})
        for column in ("dice", "dice_last"):
            images[column] += 0.004 + 0.001 * seed
        images.to_csv(other, index=False)
    (tmp_path / "claims.csv").write_text(
        "claim,source,better,than,caveat\na,us,logit_kd,supervised,\nb,us,kdas,supervised,\n"
    )
    table = claims_table(collect(folder), tmp_path / "claims.csv")
    assert table["state"].tolist() == ["above and equivalent here", "above here"]
    assert table["evidence"][0].startswith("+0.005 Dice over 3 seeds, interval +0.003 to +0.007")


def test_the_books_own_claims_name_objectives_that_exist(folder):
    table = claims_table(collect(folder), STUDIES.parent / "results" / "claims.csv")
    assert set(table["state"]) >= {"above here", "below here", "not tested"}


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch):
    """Steps take as long as we say: a second, with a teacher two."""
    monkeypatch.setattr(
        costs, "_seconds_a_step", lambda cell, recipe, _: 1.0 + (recipe.objective != "supervised")
    )


def test_the_plan_counts_steps_images_and_what_is_finished(timed, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "find_root", lambda: tmp_path)
    study = Study("made", {"supervised": {}, "kdas": {}}, (0, 3), settings={"epochs": 4})
    found = costs.plan(study, folder.parent)
    smoke = preset("smoke")
    train, validation, test = found.images
    assert (train, validation, test) == (
        smoke.synthetic_images * 5 // 6,
        smoke.synthetic_images // 6,
        5 * 8,
    )
    cells = found.cells
    assert cells.loc["kdas-seed3", "steps"] == 4 * train // smoke.batch_size
    assert cells["state"].to_dict() == {
        "teacher": "to do",
        "supervised-seed0": "finished",
        "kdas-seed0": "finished",
        "supervised-seed3": "to do",
        "kdas-seed3": "to do",
    }
    beside = (4 * validation + 2 * test) / smoke.batch_size / 3 + 2 * test * costs._SCORING
    steps = cells.loc["kdas-seed3", "steps"]
    assert cells.loc["kdas-seed3", "hours here"] == pytest.approx((2 * steps + beside) / 3600)
    assert cells.loc["supervised-seed3", "hours here"] == pytest.approx((steps + beside) / 3600)
    assert "3 of 5 cells to do" in str(found) and "an estimate" in str(found)
    longer = costs.plan(replace(study, settings={"epochs": 8}), tmp_path / "elsewhere")
    assert (
        longer.cells.loc["kdas-seed0", "steps"] == 2 * steps
        and (longer.cells["state"] == "to do").all()
    )


def test_the_papers_study_can_be_planned_without_data(timed, monkeypatch, tmp_path):
    monkeypatch.setattr(costs, "find_root", lambda: tmp_path)
    found = costs.plan(read_study(STUDIES / "paper.yaml"), tmp_path / "runs")
    assert found.images == (1305, 145, 798) and "the full public sets" in str(found)
    assert found.cells.loc["kdas-seed0", "steps"] == 99 * 82 * 3
    assert len(found.cells) == 1 + 9 * 3


def test_the_papers_study_has_the_arms_of_the_ablation():
    """The same objectives under the same labels: its endpoints and tests are those that were registered."""
    paper, ablation = (read_study(STUDIES / f"{name}.yaml") for name in ("paper", "ablation"))
    arms = [
        {cell.label: study.recipe(cell).objective for cell in study.cells()[1:]}
        for study in (paper, ablation)
    ]
    assert arms[0] == arms[1]


def test_a_step_is_really_timed():
    study = Study("t", {"kdas": {}}, (0,), settings={"image_size": 32, "batch_size": 2})
    teacher, cell = study.cells()
    recipe = study.recipe(cell)
    on_features = replace(recipe, objective="fitnet", teacher_image_size=64)
    seconds = [costs._seconds_a_step(cell, some, 8) for some in (recipe, on_features)]
    seconds.append(costs._seconds_a_step(teacher, study.recipe(teacher), 8))
    assert all(0 < s < 60 for s in seconds)


def test_every_arm_of_the_ablation_has_four_tries_one_of_which_it_is():
    """Of the same length, student and teacher, and with a seed that has no part in the ablation itself."""
    main, tuning = (
        read_study(STUDIES / f"{name}.yaml") for name in ("ablation", "ablation_tuning")
    )
    assert len(main.seeds) == 10 and not set(main.seeds) & set(tuning.seeds)
    assert (main.settings, main.preset) == (tuning.settings, tuning.preset)
    tries = {arm: [] for arm in main.objectives}
    for cell in tuning.cells()[1:]:
        tries[cell.label.partition("_lr")[0]].append(replace(tuning.recipe(cell), seed=0))
    for cell in main.cells()[1 : 1 + len(tries)]:
        assert len(tries[cell.label]) == 4 and main.recipe(cell) in tries[cell.label]
    said = (STUDIES / "registration.md").read_text()
    assert all(f"`{arm}`" in said for arm in tries)


def test_the_weight_alone_is_an_arm_without_a_teachers_say():
    main = read_study(STUDIES / "ablation.yaml")
    (cell,) = [c for c in main.cells() if c.name == "supervised_0.7-seed0"]
    recipe = main.recipe(cell)
    (s1, s2, t1, t2), mask = torch.randn(4, 2, 1, 32, 32), torch.ones(2, 1, 32, 32)
    total = objective(recipe.objective, **objective_kwargs(recipe))((s1, s2), (t1, t2), mask)
    plain = objective("supervised")((s1, s2), None, mask)
    assert float(total["total"]) == pytest.approx(0.7 * float(plain["total"]), rel=1e-6)


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_books_studies_can_be_read(file):
    study = read_study(file)
    assert study.name == file.stem and "supervised" in study.objectives
    assert len(study.cells()) == 1 + len(study.objectives) * len(study.seeds)


# --- what the recorded studies guided ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["laptop", "laptop_tuning", "laptop_tuned"])
def test_recorded_labels_that_guided_the_raw_maps_say_so_and_no_others(name):
    kept = STUDIES.parent / "results" / f"{name}_study.csv"
    found = open_results(kept)
    labels = {label for label in found.labels if label.endswith(" (raw guiding)")}
    of_guiding = {
        label
        for label in found.labels
        if found.about["recipes"][label]["objective"] in ("kdas", "symmetric_only")
    }
    assert labels == of_guiding and labels
    assert labels <= set(found.scores["objective"]) & set(found.curves["objective"])
    assert labels <= set(found.images["objective"])
    stored = pd.read_csv(kept)["objective"]
    assert not stored.str.contains("raw guiding").any()  # the files keep their own words
    assert found.scores["dice"].tolist() == pd.read_csv(kept)["dice"].tolist()


@pytest.mark.parametrize("name", ["laptop", "laptop_tuning", "laptop_tuned"])
def test_a_recorded_study_still_means_what_was_recorded(name):
    """The study's file, read today, gives the recipe of each label that the record holds."""
    study = read_study(STUDIES / f"{name}.yaml")
    recorded = load(STUDIES.parent / "results" / f"{name}_study.csv").about["recipes"]
    # What there was before these were a choice.
    new = {"reduction": "sum", "control": "none", "teacher_image_size": None}
    new |= {"labelled": 1.0, "use_unlabelled": False, "decoder_width": 32}
    for cell in study.cells()[1:]:
        guides = cell.objective in ("kdas", "symmetric_only")
        then = recorded[f"{cell.label} (raw guiding)" if guides else cell.label] | new
        now = json.loads(json.dumps(asdict(study.recipe(cell)))) | {"seed": None}
        assert {key: then[key] for key in now if key != "guide"} == {
            key: value for key, value in now.items() if key != "guide"
        }
        assert now["guide"] == "raw" or not guides


def test_a_run_that_guides_attended_maps_keeps_its_label(folder):
    recipes = {label: asdict(preset("laptop", objective=label)) for label in BETTER}
    found = collect(folder)
    live = replace(found, about=found.about | {"recipes": recipes})
    assert say_raw_guiding(live).labels == list(BETTER)
    recipes["kdas"]["guide"] = "raw"
    assert say_raw_guiding(live).labels[1] == "kdas (raw guiding)"
    assert "kdas" not in set(say_raw_guiding(live).scores["objective"])
    recipes["kdas_raw_lr1e-3"] = recipes.pop("kdas")
    assert "kdas_raw_lr1e-3" in say_raw_guiding(live).labels  # says it already


def test_the_summary_has_the_students_size_not_the_teachers(folder):
    found = collect(folder)
    recipes = {
        "teacher": asdict(preset("laptop", image_size=192)),
        **{label: asdict(preset("laptop")) for label in BETTER},
    }
    told = summary(replace(found, about=found.about | {"recipes": recipes}))
    assert ", 128 px, " in told
