"""The registered analysis, on studies made up for the purpose and on the recorded ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdas_book.figures.basics import COLOUR_OF
from kdas_book.figures.ch10_study import contrasts_forest, dice_by_share
from kdas_book.study import registered
from kdas_book.study.results import Results, load, open_results
from kdas_book.study.spec import read_study
from kdas_core import UserError

ROOT = Path(__file__).parents[1]
SETS = {"Kvasir": 6, "CVC-300": 3, "CVC-ColonDB": 8}


def made_up(gain=0.0, spread=0.0, seeds=10, labels=("supervised", "kdas"), synthetic=True):
    """Dice .7 in all images for the first label; others by ``gain`` ± ``spread`` (by seed) more."""
    rng = np.random.default_rng(1)
    images, scores = [], []
    for label in labels:
        moved = np.zeros(seeds) if label == labels[0] else gain + spread * rng.normal(size=seeds)
        for seed in range(seeds):
            for name, count in SETS.items():
                dice = np.full(count, 0.7 + moved[seed])
                names = [str(i) for i in range(count)]
                rows = {"objective": label, "seed": seed, "dataset": name, "name": names}
                repeat = [name == "CVC-ColonDB" and i == 7 for i in range(count)]
                rows |= {"repeat": repeat, "dice": dice, "dice_last": dice, "agreement": 0.5}
                images.append(pd.DataFrame(rows))
                row = {"objective": label, "seed": seed, "dataset": name, "n_images": count}
                row |= {"false_alarms": 0.1, "calibration_error": 0.01 * count}
                scores.append(row | {"validation_dice": 0.8})
    about = {"recipes": dict.fromkeys(labels, {}), "data": {"synthetic": synthetic}}
    return Results("made up", pd.DataFrame(scores), pd.concat(images), pd.DataFrame(), about)


def test_each_image_counts_once():
    found = made_up(seeds=1)
    found.images.loc[found.images["dataset"] == "CVC-300", "dice"] = 0.0  # has no say
    found.images.loc[found.images["repeat"], "dice"] = 0.0  # nor has this one
    first = (found.images["dataset"] == "Kvasir") & (found.images["name"] == "0")
    found.images.loc[first, "dice"] = 0.04  # missed: 1 of 6 + 7
    row = registered.endpoints(found).loc[("kdas", 0)]
    assert row["dice"] == pytest.approx((12 * 0.7 + 0.04) / 13)
    assert row["missed"] == pytest.approx(1 / 13)
    assert row["false_alarms"] == 0.1
    assert row["calibration_error"] == pytest.approx((6 * 0.06 + 8 * 0.08) / 14)


def test_without_the_marks_of_repeats_only_cvc_300_is_left_out():
    rows = made_up(seeds=1).images.drop(columns="repeat")
    assert set(registered.pooled(rows)["dataset"]) == {"Kvasir", "CVC-ColonDB"}
    assert len(registered.pooled(rows)) == 2 * 14


def test_likeness_where_the_teacher_errs():
    found = made_up(seeds=2, labels=("teacher", "supervised", "kdas"))
    wrong = (found.images["dataset"] == "Kvasir") & (found.images["name"].isin(["1", "2"]))
    found.images.loc[wrong & (found.images["objective"] == "teacher"), "dice"] = 0.4
    found.images.loc[wrong & (found.images["objective"] == "kdas"), "agreement"] = 0.9
    seen = registered.agreement_in_error(found)
    assert seen["kdas"].tolist() == [0.9, 0.9] and seen["supervised"].tolist() == [0.5, 0.5]
    assert "teacher" not in seen.index


def test_a_contrast_is_a_paired_t_test():
    values = registered.endpoints(made_up(0.02, 0.03))["dice"]
    row = registered.contrasts(values, [("kdas", "supervised")]).loc["kdas − supervised"]
    gain = (values["kdas"] - values["supervised"]).to_numpy()
    expected = stats.ttest_rel(values["kdas"], values["supervised"])
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(expected.confidence_interval(0.95))
    assert (row["low_90"], row["high_90"]) == pytest.approx(expected.confidence_interval(0.90))
    assert row["sd"] == pytest.approx(gain.std(ddof=1)) and row["seeds"] == 10


@pytest.mark.parametrize(
    "gain, spread, expected",
    [
        (0.05, 0.01, "above here"),
        (-0.05, 0.01, "below here"),
        (0.0, 0.004, "equivalent here"),
        (0.005, 0.001, "above and equivalent here"),
        (0.0, 0.1, "undecided here"),
    ],
)
def test_the_verdict_follows_the_intervals(gain, spread, expected):
    assert registered.primary(made_up(gain, spread))["verdict"] == expected


def test_there_is_no_verdict_on_the_primary_contrast_below_eight_seeds():
    assert registered.primary(made_up(0.05, 0.001, seeds=8))["verdict"] == "above here"
    row = registered.primary(made_up(0.05, 0.001, seeds=7))
    assert row["verdict"] == "undecided here" and row["low"] > 0


def test_a_single_seed_decides_nothing():
    values = registered.endpoints(made_up(0.3, 0.0, seeds=1))["dice"]
    assert registered.contrasts(values, [registered.PRIMARY])["verdict"].item() == "undecided here"


def test_the_crossed_bootstrap_feels_the_images_and_the_seeds():
    same = made_up(0.02, 0.0)
    assert registered.crossed(same, *registered.PRIMARY, draws=500) == pytest.approx((0.02, 0.02))
    low, high = registered.crossed(made_up(0.02, 0.05), *registered.PRIMARY, draws=2000)
    values = registered.endpoints(made_up(0.02, 0.05))["dice"]
    sd = (values["kdas"] - values["supervised"]).std()
    assert high - low == pytest.approx(2 * 1.96 * sd / np.sqrt(10), rel=0.15)
    uneven = made_up(0.02, 0.0)
    kdas = uneven.images["objective"] == "kdas"
    uneven.images.loc[kdas & (uneven.images["dataset"] == "Kvasir"), "dice"] += 0.3
    low, high = registered.crossed(uneven, *registered.PRIMARY, draws=2000)
    assert high - low > 0.1, "all seeds agree, and other images might not"


def test_frames_of_a_video_are_drawn_together():
    assert registered._video("CVC-ClinicDB", "1") == registered._video("CVC-ClinicDB", "25")
    assert registered._video("CVC-ClinicDB", "25") != registered._video("CVC-ClinicDB", "26")
    assert registered._video("Kvasir", "1") != registered._video("Kvasir", "2")


def test_where_the_intervals_disagree_the_wider_one_decides():
    found = made_up(0.02, 0.005)
    kdas = found.images["objective"] == "kdas"
    step = {"Kvasir": 0.5, "CVC-ColonDB": -0.42}
    found.images.loc[kdas, "dice"] += found.images.loc[kdas, "dataset"].map(step).fillna(0)
    row = registered.primary(found)
    assert row["low"] > 0 > row["crossed"][0] and row["verdict"] == "undecided here"


def tries(**reached):
    """Tries with a learning rate and a strength in the label, as ``arm_lr<rate>_a<strength>``."""
    recipes, rows = {}, []
    for label, dice in reached.items():
        rate, _, strength = label.partition("_lr")[2].partition("_a")
        values = {"learning_rate": float(rate or 5) / 1e4, "alpha": 0.3}
        recipes[label] = values | {"attention_weight": float(strength or 0)}
        rows.append({"objective": label, "seed": 10, "dataset": "x", "validation_dice": dice})
    rows.append({"objective": "teacher", "seed": 0, "dataset": "x", "validation_dice": 0.85})
    about = {"recipes": recipes | {"teacher": {}}}
    return Results("tries", pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame(), about)


def test_the_best_try_is_chosen_on_validation_and_of_near_ties_the_gentler():
    found = tries(
        supervised=0.80,
        supervised_lr10=0.82,
        supervised_lr20=0.8205,
        kdas_lr5_a1=0.80,
        kdas_lr5_a3=0.8005,
        kdas_lr2_a3=0.79,
        kdas_lr10_a1=0.81,
    )
    chosen = registered.choose(found)
    assert chosen["label"].to_dict() == {"supervised": "supervised_lr10", "kdas": "kdas_lr10_a1"}
    assert chosen["tries"].to_dict() == {"supervised": 3, "kdas": 4}
    assert chosen["at_edge"].to_dict() == {"supervised": False, "kdas": True}
    assert registered.gate(found) == (pytest.approx(0.03), True)
    near = tries(supervised=0.8, kdas_lr5_a3=0.8005, kdas_lr5_a1=0.8)
    assert registered.choose(near).loc["kdas", "label"] == "kdas_lr5_a1", "the weaker of two"


def test_the_ablation_uses_the_tries_that_the_rule_chooses():
    """Of the arms whose four tries are recorded."""
    tried = read_study(ROOT / "book/studies/ablation_tuning.yaml")
    chosen = registered.choose(open_results(ROOT / "book/results/ablation_tuning_study.csv"))
    done = chosen[chosen["tries"] == 4]
    assert {"supervised", "supervised_0.7"} <= set(done.index)
    for file in ("ablation", "ablation_more", "labels_10", "labels_25"):
        arms = read_study(ROOT / f"book/studies/{file}.yaml").objectives
        for arm in set(done.index) & set(arms):
            of_try = tried.objectives[done.loc[arm, "label"]]
            assert {"objective": arm, **arms[arm]} == {"objective": arm, **of_try}, (file, arm)


def few(gain):
    """A study of few masks in which both kinds of distillation on all images gain."""
    labels = ("supervised", "logit_kd", "kdas", "logit_kd_all", "kdas_all")
    found = made_up(0.0, 0.001, seeds=5, labels=labels)
    found.images["dice_last"] += gain * found.images["objective"].str.endswith("_all")
    return found


def test_few_masks_are_judged_by_the_last_epoch():
    table = registered.few_masks(few(0.05))
    assert list(table.index) == [
        "logit_kd − supervised",
        "logit_kd_all − supervised",
        "kdas − supervised",
        "kdas_all − supervised",
        "logit_kd_all − logit_kd",
        "kdas_all − kdas",
    ]
    gains = [0.05 * ("_all" in name) for name in table.index]
    assert table["difference"].to_numpy() == pytest.approx(gains, abs=0.003)
    assert (table["p_holm"] >= table["p"]).all()
    assert [verdict.split()[0] for verdict in table["verdict"]] == [
        "equivalent" if not g else "above" for g in gains
    ]


def test_what_was_registered_is_in_the_report_of_such_a_study():
    whole = made_up(
        0.02, 0.005, labels=("supervised", "logit_kd", "channel_wise", "attention_only", "kdas")
    )
    found = registered.tables(whole)
    assert list(found) == ["endpoints", "contrasts"]
    contrasts = found["contrasts"][1]
    assert contrasts.index[0] == "kdas − supervised" and len(contrasts) == 6
    assert found["endpoints"][1].loc["supervised", "dice"] == "0.700 ± 0.000"
    assert list(registered.tables(few(0.0))) == ["endpoints", "few_masks"]
    recipe = {"learning_rate": 1e-3, "attention_weight": 1.0, "alpha": 0.3}
    recipes = {"supervised": recipe, "supervised_lr2": recipe}
    again = made_up(labels=tuple(recipes), seeds=1)
    again.about["recipes"] = recipes
    assert list(registered.tables(again)) == ["chosen"]
    assert registered.tables(made_up(labels=("supervised", "mse"))) == {}


def test_a_released_teacher_has_no_gate():
    found = tries(supervised=0.8)
    found.scores.loc[found.scores["objective"] == "teacher", "validation_dice"] = np.nan
    with pytest.raises(UserError, match="no validation Dice"):
        registered.gate(found)


def test_the_recorded_study_has_these_endpoints():
    found = load(ROOT / "book" / "results" / "laptop_study.csv")
    values = registered.endpoints(found)
    whole = found.images[found.images["dataset"] != "CVC-300"]
    expected = whole.groupby(["objective", "seed"])["dice"].mean()
    pd.testing.assert_series_equal(
        values["dice"].sort_index(), expected.sort_index(), check_names=False
    )
    assert values["missed"].between(0, 1).all() and values.loc["teacher", "missed"].item() < 0.1


def test_the_forest_shows_each_contrast_with_its_seeds_and_verdict():
    values = registered.endpoints(made_up(0.05, 0.01))["dice"]
    pairs = [("kdas", "supervised"), ("supervised", "kdas")]
    table = registered.contrasts(values, pairs)
    gains = {f"{a} − {b}": values[a] - values[b] for a, b in pairs}
    (axis,) = contrasts_forest(table, gains, 0.01).axes
    assert [text.get_text() for text in axis.texts] == ["above", "below"]
    dots = next(line for line in axis.lines if len(line.get_xdata()) == 10)
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(gains["kdas − supervised"]))


def test_few_masks_are_drawn_by_share_with_each_seed_and_each_mean():
    shares = {}
    for share, gain in (("10 %", 0.05), ("25 %", 0.02)):
        shares[share] = registered.endpoints(few(gain))["dice_last"].drop(
            "teacher", errors="ignore"
        )
    (axis,) = dice_by_share(shares, {"10 %": 0.6, "25 %": 0.65}).axes
    drawn = {line.get_label(): line for line in axis.lines if line.get_label()[0] != "_"}
    assert list(drawn) == ["supervised", "logit_kd", "kdas", "logit_kd_all", "kdas_all", "teacher"]
    for label, line in list(drawn.items())[:-1]:
        means = [dice[label].mean() for dice in shares.values()]
        assert line.get_ydata() == pytest.approx(means)
        of_all = label.endswith("_all")
        assert (line.get_linestyle() == "--", line.get_mfc() == "white") == (of_all, of_all)
        assert [round(x) for x in line.get_xdata()] == [0, 1]
    dots = [line for line in axis.lines if line.get_marker() == "_"]
    assert [len(line.get_ydata()) for line in dots] == [10] * 5, "five seeds of two shares"
    grey = [line.get_ydata() for line in axis.lines if line.get_color() == COLOUR_OF["teacher"]]
    assert sorted(ends[0] for ends in grey if len(ends)) == [0.6, 0.65]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["10 %", "25 %"]
