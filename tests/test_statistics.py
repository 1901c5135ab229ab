"""The statistics of a comparison: intervals that cover, tests that agree with their definition, and plain errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdas_book.data.videos import read_groups
from kdas_book.reports.comparison import compare, holm, paired
from kdas_book.study.seeds import seed_table
from kdas_core import UserError

pytestmark = pytest.mark.filterwarnings(
    "error"
)  # nothing in this module may warn, least of all a degenerate case


def skewed(n: int, seed: int = 0) -> np.ndarray:
    """Differences with mean 0.1 and a long tail, as when a method finds polyps that the other misses altogether."""
    return np.random.default_rng(seed).exponential(0.3, n) - 0.2


def against_zero(differences, groups=None, **options):
    return paired(differences, np.zeros(len(differences)), groups, **options)


tenths = st.lists(
    st.integers(-4, 4), min_size=2, max_size=8
)  # small numbers: many ties, many zeros


# --- the interval -----------------------------------------------------------------------------------------------------


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    results = [against_zero(skewed(30, seed), resamples=999) for seed in range(200)]
    assert 0.88 < np.mean([result.low <= 0.1 <= result.high for result in results]) < 0.99


def test_interval_by_video_covers_where_the_interval_by_frame_does_not():
    """Frames of a video share most of their difference, so the frames pretend to know more than they do."""
    covered = {"frames": 0, "videos": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        videos = np.repeat(np.arange(25), rng.integers(3, 15, 25))
        differences = rng.normal(0.1, 0.2, 25)[videos] + rng.normal(0, 0.05, videos.size)
        for kind, groups in (("frames", None), ("videos", videos)):
            result = against_zero(differences, groups, resamples=499)
            covered[kind] += result.low <= 0.1 <= result.high
    assert covered["videos"] >= 86 and covered["frames"] <= 65


def test_interval_is_scipys_bca_of_the_mean_and_not_the_percentile_interval():
    d = skewed(25)
    ours = against_zero(d, resamples=999, seed=3)
    bca, percentile = (
        stats.bootstrap(
            (d,), np.mean, n_resamples=999, method=m, random_state=np.random.default_rng(3)
        )
        for m in ("BCa", "percentile")
    )
    assert (ours.low, ours.high) == pytest.approx(tuple(bca.confidence_interval), abs=1e-11)
    low, high = percentile.confidence_interval
    assert ours.low > low + 0.002 and ours.high > high + 0.005, "BCa moves towards the long tail"


def test_a_higher_level_gives_a_wider_interval_around_the_same_difference():
    half, most = (against_zero(skewed(40), level=level, resamples=999) for level in (0.5, 0.99))
    assert most.low < half.low < half.difference < half.high < most.high


def test_the_seed_decides_the_interval_and_nothing_else():
    once, again, other = (against_zero(skewed(20), resamples=499, seed=seed) for seed in (1, 1, 2))
    assert once == again and once.low != other.low
    assert replace(once, low=other.low, high=other.high) == other


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1, (-0.12655572, 0.03858745, 0.25224936, -0.27333333)),
        (3, (-0.09676506, 0.01618534, 0.1484375, -0.61111111)),
    ],
)
def test_interval_p_and_effect_size_keep_their_stored_values(size, expected):
    a, b = np.random.default_rng(7).beta(5, 2, (2, 24)).round(3)
    found = paired(a, b, np.arange(24) // size, resamples=999)
    assert (found.mean_a, found.mean_b) == pytest.approx((0.71779167, 0.764125), abs=1e-6)
    assert (found.low, found.high, found.p, found.effect_size) == pytest.approx(expected, abs=1e-6)
    assert (found.wins, found.ties, found.losses) == (10, 0, 14)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_copies_of_an_image_tell_nothing_new_if_they_are_one_group_and_deceive_if_they_are_not():
    d = skewed(15)
    once = against_zero(d, resamples=1999)
    grouped = against_zero(np.repeat(d, 8), np.repeat(np.arange(15), 8), resamples=1999)
    naive = against_zero(np.repeat(d, 8), resamples=1999)
    assert (grouped.n, grouped.groups, grouped.wins) == (120, 15, 8 * once.wins)
    for field in ("difference", "low", "high", "p", "effect_size"):
        assert getattr(grouped, field) == pytest.approx(getattr(once, field), abs=1e-12), field
    assert naive.high - naive.low < 0.5 * (once.high - once.low)
    assert naive.p < once.p


def test_groups_of_one_image_are_images():
    d = skewed(12)
    labels = [f"video {i}" for i in range(12)]
    assert against_zero(d, labels, resamples=499) == against_zero(d, resamples=499)


def test_difference_is_the_mean_over_images_but_the_test_asks_each_group_once():
    """One long video on which a is better, six short ones on which it is worse."""
    means = np.r_[0.035, -0.01 * np.arange(1, 7)]
    d = np.repeat(means, [60, 1, 1, 1, 1, 1, 1])
    result = against_zero(d, ["long"] * 60 + list("abcdef"), resamples=999)
    assert result.difference == pytest.approx(d.mean()) and result.difference > 0.02
    assert result.low < 0 < result.high
    assert result.effect_size == pytest.approx((4 - 24) / 28), (
        "0.035 is the fourth smallest of seven"
    )
    assert result.p == stats.wilcoxon(means).pvalue


def test_the_order_of_the_images_within_the_groups_does_not_matter():
    d, videos = skewed(40), np.repeat(np.arange(8), 5)
    order = np.r_[np.arange(0, 40, 5), np.delete(np.arange(40), np.arange(0, 40, 5))[::-1]]
    one, other = (against_zero(d[o], videos[o], resamples=499) for o in (np.arange(40), order))
    assert (one.low, one.high, one.p) == pytest.approx((other.low, other.high, other.p), abs=1e-12)


# --- test and effect size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 50, 80])
def test_p_equals_scipy_where_no_image_ties(n):
    a, b = np.random.default_rng(n).uniform(size=(2, n))
    assert paired(a, b, resamples=99).p == stats.wilcoxon(a, b).pvalue


def test_images_without_a_difference_are_dropped_and_leave_the_test_exact():
    d = skewed(20)
    with_zeros = against_zero(np.r_[np.zeros(5), d], resamples=99)
    assert with_zeros.p == stats.wilcoxon(d, method="exact").pvalue
    assert with_zeros.effect_size == against_zero(d, resamples=99).effect_size
    assert (with_zeros.wins + with_zeros.losses, with_zeros.ties) == (20, 5)


def enumerated_p(d: np.ndarray) -> float:
    """Twice the share of all sign patterns whose sum of positive ranks is as far on one side as the one seen."""
    ranks = stats.rankdata(np.abs(d))
    seen = ranks[d > 0].sum()
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=d.size)])
    return min(1.0, 2 * min(np.mean(sums >= seen), np.mean(sums <= seen)))


@settings(max_examples=40, deadline=None)
@given(tenths)
def test_p_of_few_images_is_the_share_of_sign_patterns_with_ties_and_zeros(numbers):
    d = np.array(numbers) / 10
    expected = enumerated_p(d[d != 0]) if d.any() else 1.0
    assert against_zero(d, resamples=19).p == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(tenths)
def test_effect_size_is_the_balance_of_the_pairs_of_images(numbers):
    """Ranks are counts of pairs: of all pairs that differ (an image pairs with itself too), how many lean to a?"""
    d = [number for number in numbers if number]
    leanings = [np.sign(x + y) for x, y in itertools.combinations_with_replacement(d, 2)]
    expected = np.mean(leanings) if d else 0.0
    result = against_zero(np.array(numbers) / 10, resamples=19)
    assert result.effect_size == pytest.approx(expected, abs=1e-12)
    assert -1 <= result.effect_size <= 1


def test_effect_size_reaches_one_when_a_is_never_smaller():
    assert against_zero([0.1, 0.3, 0.0, 0.2], resamples=99).effect_size == 1
    assert against_zero([-0.1, -0.3, 0.0, -0.2], resamples=99).effect_size == -1


def test_equal_up_to_rounding_is_equal():
    a, b = np.array([0.3, 0.8, 0.5, 0.9, 0.6, 0.7]), np.array([0.2, 0.7, 0.6, 0.6, 0.2, 0.2])
    assert len(set(np.abs(a - b)[:3])) > 1, (
        "differences of 0.1 that floats tell apart are what this is about"
    )
    ten_times = paired(np.rint(10 * a), np.rint(10 * b), resamples=99)
    assert paired(a, b, resamples=99).p == ten_times.p
    assert paired([0.1 + 0.2, 0.5], [0.3, 0.4], resamples=99).ties == 1


@pytest.mark.parametrize("factor", [100, 1e-15])
def test_the_unit_of_the_metric_changes_the_interval_in_proportion_and_the_test_not_at_all(factor):
    a, b = np.random.default_rng(0).uniform(size=(2, 30)).round(1)
    one, other = paired(a, b, resamples=499), paired(factor * a, factor * b, resamples=499)
    for field in ("difference", "low", "high"):
        assert getattr(other, field) == pytest.approx(factor * getattr(one, field), rel=1e-9), field
    for field in ("p", "effect_size", "wins", "ties", "losses"):
        assert getattr(other, field) == getattr(one, field), field


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=16
    )
)
def test_swapping_the_methods_flips_every_sign_exactly(rows):
    a, b, groups = np.array(rows).T
    for labels in (None, groups):
        one, other = (paired(x / 9, y / 9, labels, resamples=49) for x, y in ((a, b), (b, a)))
        mirrored = replace(
            other, mean_a=other.mean_b, mean_b=other.mean_a, difference=-other.difference, low=-other.high,
            high=-other.low, effect_size=-other.effect_size, wins=other.losses, losses=other.wins,
        )  # fmt: skip
        np.testing.assert_array_equal(
            astuple(one)[:-1], astuple(mirrored)[:-1]
        )  # NaN equals NaN here
        assert one.note == mirrored.note


# --- degenerate cases -------------------------------------------------------------------------------------------------


def test_one_unit_has_a_difference_but_no_interval_and_no_test():
    image, video = against_zero([0.2]), against_zero([0.1, 0.3, 0.2], ["v", "v", "v"])
    for result in (image, video):
        assert result.difference == pytest.approx(0.2) and result.groups == 1
        assert math.isnan(result.low) and math.isnan(result.high) and math.isnan(result.p)
        assert "no interval" in result.note


def test_two_equal_methods_differ_by_nothing_for_sure():
    result = paired(skewed(10), skewed(10))
    assert (result.difference, result.low, result.high, result.p, result.effect_size) == (
        0,
        0,
        0,
        1,
        0,
    )
    assert (result.ties, result.note) == (10, "no image differs")


def test_groups_that_cancel_within_themselves_leave_nothing_to_test():
    result = against_zero([0.1, 0.2, -0.3] * 6, np.repeat(np.arange(6), 3))
    assert (result.low, result.high, result.p, result.effect_size) == (0, 0, 1, 0)
    assert (result.wins, result.losses, result.note) == (12, 6, "no group differs in its mean")


def test_the_same_difference_everywhere_is_an_interval_of_no_width():
    b = np.random.default_rng(0).uniform(size=8)
    result = paired(b + 0.1, b)
    assert result.low == result.difference == result.high == pytest.approx(0.1)
    assert result.effect_size == 1 and result.p == 2 / 2**8
    assert result.note == "all units differ by the same amount"


def test_few_units_are_called_few_and_six_are_not():
    assert "fewer than 6 units:" in against_zero(skewed(5), resamples=99).note
    assert against_zero(skewed(6), resamples=99).note == ""
    assert "fewer than 6 units:" in against_zero(skewed(30), np.arange(30) % 5, resamples=99).note


def test_a_test_that_cannot_find_anything_says_so():
    result = against_zero(np.r_[0.1, 0.2, 0.3, 0.4, 0.5, np.zeros(40)], resamples=99)
    assert result.p == 2 / 2**5 and "p cannot fall below 0.05" in result.note
    assert against_zero(np.r_[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, np.zeros(40)], resamples=99).note == ""


def test_where_bca_is_not_defined_the_percentile_interval_stands_in_and_is_named():
    """With a single resample, all of the bootstrap distribution lies on one side of what was measured."""
    result = against_zero(skewed(20), resamples=1)
    assert math.isfinite(result.low) and result.low == result.high
    assert "percentile" in result.note
    assert "percentile" not in against_zero(skewed(20), resamples=99).note


@pytest.mark.parametrize(
    ("a", "b", "groups", "options", "says"),
    [
        ([], [], None, {}, "no image"),
        ([0.1, 0.2], [0.1], None, {}, "a has 2 numbers and b has 1"),
        ([0.1, np.nan, 0.3], [np.nan, np.nan, 0.3], None, {}, "2 of 3 images have NaN"),
        ([0.1, np.inf], [0.1, 0.2], None, {}, "1 of 2 images have NaN or infinity"),
        ([0.1, 0.2], [0.1, 0.2], ["v"], {}, "2 images and 1 group labels"),
        ([0.1, 0.2], [0.1, 0.2], ["v", None], {}, "1 of 2 images have no group"),
        ([[0.1, 0.2]], [[0.1, 0.2]], None, {}, r"a has the shape \(1, 2\)"),
        (["good", "bad"], [0.1, 0.2], None, {}, "a holds something else than numbers"),
        ([0.1, 0.2], [0.1, 0.3], None, {"level": 95}, "level is 95"),
        ([0.1, 0.2], [0.1, 0.3], None, {"resamples": 0}, "resamples 0"),
    ],
)
def test_input_that_cannot_be_compared_is_one_sentence(a, b, groups, options, says):
    with pytest.raises(UserError, match=says) as caught:
        paired(a, b, groups, **options)
    assert "\n" not in str(caught.value)


# --- several tests ----------------------------------------------------------------------------------------------------


def test_holm_of_a_worked_example():
    # Sorted: 0.005 · 4, 0.01 · 3, 0.03 · 2 and 0.04 · 1, which may not fall below the 0.06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


p_lists = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.01, 0.02, 0.05, 1.0])), max_size=12
)


@settings(max_examples=30, deadline=None)  # statsmodels collects garbage at each call
@given(p_lists)
def test_holm_stays_between_no_adjustment_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(p)
    assert np.all(adjusted >= p) and np.all(adjusted <= np.minimum(1, len(p) * np.array(p)))
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)


@settings(max_examples=30, deadline=None)
@given(p_lists, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    rejected = set()
    for step, i in enumerate(np.argsort(p)):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert set(np.flatnonzero(holm(p) <= level)) == rejected


def test_a_test_that_was_not_made_does_not_count():
    adjusted = holm([0.01, np.nan, 0.03])
    assert adjusted[[0, 2]].tolist() == holm([0.01, 0.03]).tolist() and math.isnan(adjusted[1])
    assert holm([]).shape == (0,) and np.isnan(holm([np.nan])).all()


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(UserError, match="1.5 is no p-value"):
        holm([0.1, 1.5])


# --- data sets --------------------------------------------------------------------------------------------------------


def scores(n: int, shift: float, seed: int = 0) -> pd.DataFrame:
    """A table as ``EvaluationResult.per_image``; the images are the same for every shift, the noise is not."""
    image, noise = (
        np.random.default_rng(seed).uniform(size=n),
        np.random.default_rng(round(100 * shift)).normal(size=n),
    )
    dice = np.clip(0.6 * image + 0.2 + shift + 0.05 * noise, 0, 1)
    return pd.DataFrame(
        {"name": [f"{i:03}" for i in range(n)], "dice": dice, "mae": 0.1 * (1 - dice)}
    )


@pytest.fixture
def tables():
    """Two data sets scored by a better and a worse method."""
    return {"Kvasir": scores(30, 0.05), "ETIS": scores(18, 0.04, 1)}, {
        "Kvasir": scores(30, 0),
        "ETIS": scores(18, 0, 1),
    }


def test_images_are_matched_by_name_and_never_by_row(tables):
    a, b = tables
    shuffled = {name: table.sample(frac=1, random_state=5) for name, table in b.items()}
    assert shuffled["Kvasir"]["name"].tolist() != b["Kvasir"]["name"].tolist()
    pd.testing.assert_frame_equal(
        compare(a, shuffled, resamples=499), compare(a, b, resamples=499), check_exact=True
    )


def test_each_row_is_the_paired_comparison_of_its_set_and_holm_counts_the_sets(tables):
    a, b = tables
    result = compare(a, b, resamples=499)
    assert result.index.tolist() == ["Kvasir", "ETIS"] and result.index.name == "dataset"
    assert result["units"].tolist() == ["30 images", "18 images"]
    for name in result.index:
        alone = paired(a[name]["dice"], b[name]["dice"], resamples=499)
        for field in (
            "n",
            "mean_a",
            "mean_b",
            "difference",
            "low",
            "high",
            "p",
            "effect_size",
            "wins",
            "note",
        ):
            assert result[field][name] == getattr(alone, field), (name, field)
    assert (
        result["p_holm"].tolist() == holm(result["p"]).tolist()
        and (result["p_holm"] > result["p"]).any()
    )
    assert (result["difference"] > 0).all() and (
        compare(a, b, "mae", resamples=499)["difference"] < 0
    ).all()


def test_results_of_the_evaluation_are_compared_as_their_tables_are(tables):
    a, b = tables
    results = [
        {name: SimpleNamespace(per_image=table) for name, table in side.items()} for side in tables
    ]
    pd.testing.assert_frame_equal(compare(*results, resamples=99), compare(a, b, resamples=99))


def test_groups_are_found_by_name_and_only_for_the_sets_that_have_them(tables):
    a, b = tables
    videos = {name: f"video {int(name) // 4}" for name in reversed(a["ETIS"]["name"])}
    result = compare(
        a, b, groups={"ETIS": videos | {"unused": "video 9"}, "elsewhere": {}}, resamples=499
    )
    assert result["units"].tolist() == ["30 images", "5 groups"]
    alone = paired(a["ETIS"]["dice"], b["ETIS"]["dice"], np.arange(18) // 4, resamples=499)
    assert (result["low"]["ETIS"], result["p"]["ETIS"]) == (alone.low, alone.p)
    assert result["low"]["Kvasir"] == compare(a, b, resamples=499)["low"]["Kvasir"]


def test_a_set_of_one_image_has_no_p_and_does_not_count_for_holm(tables):
    a, b = ({**side, "tiny": side["ETIS"].head(1)} for side in tables)
    result = compare(a, b, resamples=99)
    assert result["units"]["tiny"] == "1 image" and math.isnan(result["p_holm"]["tiny"])
    assert (
        result["p_holm"].drop("tiny").tolist() == compare(*tables, resamples=99)["p_holm"].tolist()
    )


def test_all_problems_of_all_sets_come_together(tables, monkeypatch):
    a, b = tables
    monkeypatch.setattr(
        "kdas_book.reports.comparison.paired", lambda *_: pytest.fail("compared in spite of them")
    )
    a["Kvasir"] = pd.concat([a["Kvasir"], a["Kvasir"].iloc[[3]]])
    b["Kvasir"] = b["Kvasir"].drop(index=[7, 9])
    a["ETIS"] = a["ETIS"].assign(dice=a["ETIS"]["dice"].where(a["ETIS"].index > 1))
    a["ColonDB"], b["CVC-300"] = a["ETIS"], b["ETIS"]
    with pytest.raises(UserError) as caught:
        compare(a, b, groups={"ETIS": {"000": "v"}})
    lines = str(caught.value).splitlines()
    expected = [
        "things are wrong",
        "a lacks the data set CVC-300",
        "b lacks the data set ColonDB",
        "Kvasir: a has more than one row for 003",
        "Kvasir: b lacks 2 of 31 images of a (007, 009)",
        "ETIS: 2 of 18 images have NaN",
        "ETIS: 17 of 18 images have no group (001, 002",
    ]
    assert len(lines) == len(expected) and all(
        part in line for part, line in zip(expected, lines)
    ), lines


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda a, b: a.clear(), {}, "a lacks the data set Kvasir, ETIS"),
        (lambda a, b: (a.clear(), b.clear()), {}, "no data set to compare"),
        (lambda a, b: b.pop("ETIS"), {}, "b lacks the data set ETIS"),
        (
            lambda a, b: a.update(ETIS=a["ETIS"].head(4)),
            {},
            "ETIS: a lacks 14 of 18 images of b .004, 005",
        ),
        (
            lambda a, b: a.update(ETIS=a["ETIS"].drop(columns="dice")),
            {},
            "ETIS: a has no metric dice; choose from mae",
        ),
        (
            lambda a, b: a.update(ETIS=a["ETIS"].drop(columns="name")),
            {},
            "ETIS: a is no table with a column name",
        ),
        (lambda a, b: a.update(ETIS=0.9), {}, "ETIS: a is no table"),
        (
            lambda a, b: a.update(ETIS=a["ETIS"].assign(dice="good")),
            {},
            "ETIS: dice of a holds something else",
        ),
        (
            lambda a, b: [side.update(ETIS=side["ETIS"].head(0)) for side in (a, b)],
            {},
            "ETIS: There is no image",
        ),
        (
            lambda a, b: None,
            {"groups": {"etis": {"000": "v"}}},
            "groups knows etis, but none of the data sets",
        ),
        (lambda a, b: None, {"level": 0}, "level is 0"),
    ],
)
def test_sets_that_cannot_be_compared_are_one_sentence(tables, change, options, says):
    change(*tables)
    with pytest.raises(UserError, match=says) as caught:
        compare(*tables, **options)
    assert "\n" not in str(caught.value)


def test_a_metric_that_no_table_has_is_refused_and_a_name_is_no_metric(tables):
    for metric in ("meanDice", "name"):
        with pytest.raises(
            UserError, match=f"ETIS: b has no metric {metric}; choose from dice, mae"
        ):
            compare(*tables, metric=metric)


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs():
    return pd.DataFrame(
        {
            "method": ["KDAS", "BCE", "KDAS", "BCE", "KDAS"],
            "seed": [0, 0, 1, 1, 2],
            "Kvasir": [0.90, 0.88, 0.92, 0.89, 0.94],
            "ETIS": [0.70, np.nan, 0.70, 0.66, 0.76],
        }
    )


def test_seeds_are_summed_up_for_each_method_and_column_in_the_order_given(runs):
    result = seed_table(runs)
    assert result.index.tolist() == [
        ("KDAS", "Kvasir"),
        ("KDAS", "ETIS"),
        ("BCE", "Kvasir"),
        ("BCE", "ETIS"),
    ]
    assert result.loc[("KDAS", "Kvasir"), "mean"] == pytest.approx(0.92)
    assert result.loc[("KDAS", "Kvasir"), "sd"] == pytest.approx(0.02), "divided by n - 1"
    assert result["n"].tolist() == [3, 3, 2, 1]
    assert result["mean ± sd"].tolist() == [
        "0.920 ± 0.020",
        "0.720 ± 0.035",
        "0.885 ± 0.007",
        "0.660 (one seed)",
    ]
    assert result["mean ± sd"].unstack().loc["BCE", "Kvasir"] == "0.885 ± 0.007"


def test_one_seed_says_nothing_about_luck_and_no_run_nothing_at_all(runs):
    assert math.isnan(seed_table(runs).loc[("BCE", "ETIS"), "sd"])
    empty = seed_table(runs.assign(ETIS=np.nan)).loc[("KDAS", "ETIS")]
    assert empty["n"] == 0 and math.isnan(empty["mean"]) and empty["mean ± sd"] == "no run"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda runs: runs.assign(seed=[0, 0, 1, 1, 1]), r"more than once \(KDAS with seed 1\)"),
        (
            lambda runs: runs.assign(seed=[0, 0, None, 1, 2]),
            "1 of 5 runs have no method or no seed",
        ),
        (lambda runs: runs.assign(ETIS="0.7"), "more than numbers in ETIS"),
        (lambda runs: runs.drop(columns="seed"), "5 of 5 runs have no method or no seed"),
        (lambda runs: runs[["method", "seed"]], "lacks rows or a column of numbers"),
        (lambda runs: runs.head(0), "lacks rows"),
    ],
)
def test_runs_that_cannot_be_summed_up_are_one_sentence(runs, change, says):
    with pytest.raises(UserError, match=says) as caught:
        seed_table(change(runs))
    assert "\n" not in str(caught.value)


# --- a file of groups -------------------------------------------------------------------------------------------------


def test_groups_from_a_file_are_text_and_fit_the_comparison(tables, tmp_path):
    path = tmp_path / "groups.csv"
    lines = [f"ETIS,{name},{int(name) % 6:02}" for name in tables[0]["ETIS"]["name"]]
    path.write_text(
        "\n".join(["dataset,name,group", *lines, "", 'PolypGen,"a, b" , Zürich ']), encoding="utf-8"
    )
    groups = read_groups(path)
    assert groups["ETIS"]["001"] == "01" and groups["PolypGen"] == {"a, b": "Zürich"}
    assert compare(*tables, groups=groups, resamples=99)["units"].tolist() == [
        "30 images",
        "6 groups",
    ]


def test_a_file_from_excel_or_with_accents_typed_in_two_parts_reads_the_same(tmp_path):
    (tmp_path / "plain.csv").write_text("dataset,name,group\nA,é,v\n", encoding="utf-8")
    (tmp_path / "other.csv").write_text(
        "dataset,name,group\r\nA,e\u0301,v\r\n", encoding="utf-8-sig", newline=""
    )
    assert (
        read_groups(tmp_path / "plain.csv")
        == read_groups(tmp_path / "other.csv")
        == {"A": {"é": "v"}}
    )


def test_an_image_may_be_named_twice_but_not_in_two_groups(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("dataset,name,group\nA,1,v\nA,1,v\nB,1,w\n")
    assert read_groups(path) == {"A": {"1": "v"}, "B": {"1": "w"}}


def test_all_lines_that_are_wrong_come_together_with_their_numbers(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("dataset,name,group\nA,1,v\nA,,v\n\nA,2\nA,3,v,w\nA,1,w\n")
    with pytest.raises(UserError) as caught:
        read_groups(path)
    lines = str(caught.value).splitlines()[1:]
    for line, part in zip(
        lines, ["line 3,", "line 5,", "line 6,", "line 7, puts 1 of A in w, not in v"]
    ):
        assert "groups.csv" in line and part in line
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "groups.csv cannot be read"),
        (
            "dataset,name,group\nA,é,v\n".encode("latin-1"),
            "groups.csv cannot be read .*give a UTF-8",
        ),
        (b"", "must have the header dataset,name,group"),
        (
            b"dataset;name;group\nA;1;v\n",
            'begins with "dataset;name;group", .*must have the header',
        ),
        (b"name,dataset,group\n1,A,v\n", 'begins with "name,dataset,group"'),
        (b"dataset,name,group\n", "a line for each image"),
        (b"dataset,name,group\nA, ,v\n", "line 2, lacks one of 3 cells"),
    ],
)
def test_a_file_that_does_not_group_is_refused_in_one_sentence(tmp_path, content, says):
    path = tmp_path / "groups.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_groups(path)
    assert "\n" not in str(caught.value)
