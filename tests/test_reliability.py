"""Chapter 12: probabilities that hold, a promise about missed pixels, false alarms, strange and spoilt pictures."""

import dataclasses
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from scipy.special import expit
from torch import nn

from kdas_book.figures import ch12_running_it as figures
from kdas_book.reliability import calibration, detection, shift
from kdas_book.reliability.pictures import Answers, Pictures, ask, drawn, loaded, of_kind
from kdas_core import UserError
from kdas_core.data import load_data
from kdas_core.evaluation import image_metrics
from kdas_core.inference import probability
from kdas_core.models import build, freeze


@pytest.fixture(autouse=True)
def _no_figure_stays():
    yield
    plt.close("all")


def true_to_their_logits(seed=0, shape=(12, 24, 24), factor=1.0):
    """Logits that are ``factor`` times too sure: masks drawn from σ(logits / factor)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, shape)
    return factor * logits, rng.random(shape) < expit(logits)


# --- a temperature ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_factor_by_which_the_logits_are_too_sure(factor):
    logits, masks = true_to_their_logits(factor=factor)
    fitted = calibration.fit_temperature(logits, masks)
    assert fitted == pytest.approx(factor, rel=0.1)
    assert calibration.scored(logits, masks, fitted).calibration_error < 0.02
    if factor != 1:
        assert calibration.scored(logits, masks).calibration_error > 0.05


def test_no_other_temperature_has_a_lower_negative_log_likelihood():
    logits, masks = true_to_their_logits(1, factor=2.0)
    best = calibration.negative_log_likelihood(
        logits, masks, calibration.fit_temperature(logits, masks)
    )
    for other in np.geomspace(calibration.LOWEST, calibration.HIGHEST, 60):
        assert best <= calibration.negative_log_likelihood(logits, masks, other) + 1e-7


def test_a_temperature_leaves_dice_as_it_is_and_cannot_mend_what_is_claimed_everywhere():
    logits, masks = true_to_their_logits(2)
    first, second = (
        calibration.scored(logits, masks, t).per_image["dice"].to_numpy() for t in (1, 7)
    )
    assert first == pytest.approx(second, abs=0.01)  # in 8 bits, a hair below one half is one half
    claimed = logits + 4
    fitted = calibration.fit_temperature(claimed, masks)
    assert calibration.scored(claimed, masks, fitted).calibration_error > 0.1


def test_where_the_likelihood_has_no_maximum_the_search_ends_at_its_bounds():
    masks = np.arange(64).reshape(1, 8, 8) % 2 == 0
    logits = np.where(masks, 1.0, -1.0)
    assert calibration.fit_temperature(logits, masks) == pytest.approx(calibration.LOWEST, rel=0.01)
    assert calibration.fit_temperature(-logits, masks) == pytest.approx(
        calibration.HIGHEST, rel=0.01
    )


def test_a_temperature_is_not_fitted_to_nothing_or_to_what_is_not_finite():
    for logits in (np.zeros((0, 4, 4)), np.full((1, 4, 4), np.nan)):
        with pytest.raises(UserError, match="finite"):
            calibration.fit_temperature(logits, np.zeros(logits.shape, bool))
    with pytest.raises(ValueError, match="one shape"):
        calibration.fit_temperature(np.zeros((2, 4, 4)), np.zeros((2, 4, 5), bool))


# --- a promise about missed pixels ------------------------------------------------------------------------------------


def some_losses(rng, pictures: int, thresholds: int = 101) -> np.ndarray:
    """Rows that rise from 0 to at most 1, each in its own way."""
    steps = rng.dirichlet(np.full(thresholds, 0.2), pictures) * rng.random((pictures, 1))
    rising = np.cumsum(steps, axis=1)
    return np.concatenate([np.zeros((pictures, 1)), rising[:, 1:]], axis=1)


def expected_loss(pool: np.ndarray, n: int, choose) -> float:
    """The mean over every way to take n pictures of a pool, and every picture that is left."""
    losses = []
    for used in itertools.combinations(range(len(pool)), n):
        column = choose(pool[list(used)])
        losses += [pool[i, column] for i in range(len(pool)) if i not in used]
    return float(np.mean(losses))


def test_over_all_divisions_of_a_pool_the_loss_is_at_most_what_was_asked():
    """Exactly, whatever the pool: the pictures of a pool in random order are exchangeable."""
    rng, n, grid = np.random.default_rng(0), 6, np.linspace(0, 1, 101)
    ours, plain = [], []
    for _ in range(40):
        pool, alpha = some_losses(rng, 8), rng.uniform(1 / (n + 1), 0.5)

        def careful(used, alpha=alpha):
            return int(np.searchsorted(grid, calibration.largest_threshold(used, alpha, grid)))

        def careless(used, alpha=alpha):
            return int(np.flatnonzero(used.mean(axis=0) <= alpha)[-1])

        ours.append(expected_loss(pool, n, careful) - alpha)
        plain.append(expected_loss(pool, n, careless) - alpha)
    assert max(ours) <= 1e-12
    assert max(plain) > 0.01, "without the correction the promise is broken for some pools"


def test_over_repeated_draws_the_loss_is_near_what_was_asked_and_not_above():
    rng, n, alpha, draws = np.random.default_rng(1), 30, 0.2, 1500
    thresholds = np.linspace(0, 1, 401)
    outcomes = []
    for _ in range(draws):
        # A picture misses the share λ^k of its polyp below λ, and k differs between pictures.
        losses = thresholds ** rng.gamma(2.0, 1.0, (n + 1, 1))
        chosen = calibration.largest_threshold(losses[:n], alpha, thresholds)
        outcomes.append(losses[n, np.searchsorted(thresholds, chosen)])
    error = np.std(outcomes) / np.sqrt(draws)
    assert alpha - 2 / (n + 1) - 4 * error <= np.mean(outcomes) <= alpha + 3 * error


def test_too_few_pictures_cannot_promise_and_just_enough_can():
    losses = np.tile(np.linspace(0, 1, 11), (9, 1))
    grid = np.linspace(0, 1, 11)
    assert calibration.largest_threshold(losses, 0.1, grid) == 0
    with pytest.raises(UserError, match="cannot promise 0.09, only 0.1 or more; take 11 pictures"):
        calibration.largest_threshold(losses, 0.09, grid)
    with pytest.raises(UserError, match="take 19 pictures"):
        calibration.largest_threshold(losses[:0], 0.05, grid)
    with pytest.raises(UserError, match="above 0"):
        calibration.largest_threshold(losses, 0.0, grid)
    with pytest.raises(UserError, match="add 0"):
        calibration.largest_threshold(losses[:, 6:], 0.3, grid[6:])


def test_of_larger_risks_that_are_allowed_the_threshold_is_no_smaller():
    losses = some_losses(np.random.default_rng(3), 20)
    grid = np.linspace(0, 1, 101)
    chosen = [calibration.largest_threshold(losses, a, grid) for a in (0.05, 0.1, 0.2, 0.4)]
    assert chosen == sorted(chosen) and chosen[0] < chosen[-1]
    for alpha, threshold in zip((0.05, 0.1, 0.2, 0.4), chosen):
        column = int(np.searchsorted(grid, threshold))
        assert losses[:, column].sum() + 1 <= alpha * 21 + 1e-9
        assert column == 100 or losses[:, column + 1].sum() + 1 > alpha * 21


def test_pictures_without_a_polyp_change_nothing_and_as_losses_of_zero_they_would():
    grid = np.linspace(0, 1, 101)
    losses = some_losses(np.random.default_rng(4), 20)
    nothing = np.full((20, 101), np.nan)
    alone = calibration.largest_threshold(losses, 0.2, grid)
    assert calibration.largest_threshold(np.concatenate([losses, nothing]), 0.2, grid) == alone
    as_zero = np.concatenate([losses, np.nan_to_num(nothing)])
    assert calibration.largest_threshold(as_zero, 0.2, grid) > alone
    assert np.isnan(calibration.missed_shares(np.ones((1, 2, 2)), np.zeros((1, 2, 2), bool))).all()


def test_what_is_missed_is_what_counting_says():
    rng = np.random.default_rng(5)
    probabilities = rng.integers(0, 5, (4, 9, 9)) / 4  # many lie on a threshold
    masks, grid = rng.random((4, 9, 9)) < 0.3, np.array([0, 0.25, 0.3, 0.75, 1])
    shares = calibration.missed_shares(probabilities, masks, grid)
    for i, k in itertools.product(range(4), range(5)):
        missed = masks[i] & ~(probabilities[i] >= grid[k])
        assert shares[i, k] == pytest.approx(missed.sum() / masks[i].sum())
    assert (shares[:, 0] == 0).all(), "at threshold 0 nothing is missed"


def test_a_loss_that_falls_or_is_too_large_is_refused():
    grid = np.linspace(0, 1, 3)
    with pytest.raises(ValueError, match="must not fall"):
        calibration.largest_threshold(np.array([[0, 0.5, 0.4]] * 20), 0.1, grid)
    with pytest.raises(ValueError, match="exceeds the bound"):
        calibration.largest_threshold(np.array([[0, 0.5, 1.5]] * 20), 0.1, grid)
    with pytest.raises(ValueError, match="column for each"):
        calibration.largest_threshold(np.zeros((20, 4)), 0.1, grid)


def test_the_promise_is_kept_on_pictures_of_the_kind_and_broken_on_others():
    rng, grid = np.random.default_rng(6), np.linspace(0, 1, 101)
    here = grid ** rng.gamma(4.0, 1.0, (60, 1))
    harder = grid ** rng.gamma(1.0, 0.5, (60, 1))
    seen = calibration.over_splits(here, 0.15, 30, harder, splits=400, thresholds=grid)
    error = seen["here"].std() / np.sqrt(len(seen))
    assert 0.15 - 2 / 31 - 4 * error <= seen["here"].mean() <= 0.15 + 3 * error
    assert (seen["here"] > 0.15).any(), "it is kept on average, and not for each split"
    assert seen["elsewhere"].mean() > 0.3
    again = calibration.over_splits(here, 0.15, 30, harder, splits=400, thresholds=grid)
    pd.testing.assert_frame_equal(seen, again)
    with pytest.raises(UserError, match="left to look at"):
        calibration.over_splits(here, 0.15, 60, thresholds=grid)


# --- polyps found, and alarms -----------------------------------------------------------------------------------------


def discs(*places, side=60) -> np.ndarray:
    """A mask with a disc for each (row, column, radius)."""
    rows, columns = np.mgrid[:side, :side]
    inside = [(rows - y) ** 2 + (columns - x) ** 2 <= r * r for y, x, r in places]
    return np.any(inside, axis=0) if inside else np.zeros((side, side), bool)


def test_a_spot_counts_from_a_thousandth_of_the_picture_on():
    cut = np.zeros((100, 100), bool)
    cut[10, 10:19] = True  # nine pixels
    cut[50, 50:60] = True  # ten
    labels = detection.spots(cut)
    assert labels.max() == 1 and (labels > 0).sum() == 10 and labels[50, 50] == 1


def test_a_polyp_is_found_by_its_own_spot_and_not_by_paint_all_over():
    two = discs((15, 15, 8), (42, 42, 8))
    assert detection.found(two, two).tolist() == [True, True]
    assert detection.found(discs((15, 15, 7)), two).tolist() == [True, False]
    assert detection.found(np.ones((60, 60), bool), two).tolist() == [False, False]
    assert detection.found(np.zeros((60, 60), bool), two).tolist() == [False, False]
    assert detection.found(np.ones((60, 60), bool), np.zeros((60, 60), bool)).tolist() == []


def test_a_polyp_counts_as_found_from_the_overlap_on():
    mask, cut = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    cut[10:20, 10:13] = True  # IoU 0.3
    assert detection.found(cut, mask).tolist() == [True]
    assert detection.found(cut, mask, overlap=0.31).tolist() == [False]


def test_alarms_never_rise_with_the_threshold_and_a_perfect_network_has_none():
    masks = np.stack([discs((20, 20, 8)), discs((30, 30, 9), (10, 50, 6))])
    rng = np.random.default_rng(7)
    blurred = np.stack([rng.random((60, 60)).cumsum(0) / 60 for _ in range(6)])
    noisy = detection.froc(masks * 0.9, masks, blurred)
    assert (np.diff(noisy["alarms"]) <= 0).all() and noisy["alarms"].nunique() > 1
    perfect = detection.froc(masks * 0.9, masks, np.zeros((5, 60, 60)))
    below = perfect[perfect.index < 0.9]
    assert (below["found"] == 1).all() and (below["alarms"] == 0).all()
    assert (perfect[perfect.index > 0.9]["found"] == 0).all()
    assert detection.most_found(perfect, 0) == 1
    allowed = [detection.most_found(noisy, alarms) for alarms in (-1, 0, 50, 100)]
    assert allowed == sorted(allowed) and allowed[0] == 0


def test_alarms_are_counted_in_frames_and_not_in_spots():
    masks = discs((20, 20, 8))[None]
    two_spots = discs((15, 15, 6), (45, 45, 6)) * 0.9
    frames = np.stack([two_spots, np.zeros((60, 60))])
    assert detection.froc(masks * 0.9, masks, frames, cuts=[0.5])["alarms"].tolist() == [50]


def test_without_polyps_or_without_frames_there_is_no_curve():
    masks = discs((20, 20, 8))[None]
    for with_polyps, without in ((masks, masks[:0]), (masks & False, masks)):
        with pytest.raises(UserError, match="picture with a polyp and a frame without"):
            detection.froc(masks * 1.0, with_polyps, without * 1.0)


# --- pictures and answers ---------------------------------------------------------------------------------------------


def test_a_scene_without_its_polyps_is_otherwise_the_same_and_another_seed_is_another():
    with_polyps, without = drawn("Kvasir", 3, 64), drawn("Kvasir", 3, 64, polyps=0)
    assert not np.array_equal(*with_polyps.images[:2]), "each picture is a scene of its own"
    assert with_polyps.masks.any(axis=(1, 2)).all() and not without.masks.any()
    apart = np.abs(with_polyps.images.astype(int) - without.images).mean(axis=-1)
    assert apart[with_polyps.masks].mean() > 5 * apart[~with_polyps.masks].mean()
    assert (drawn("Kvasir", 2, 64, seed=1).images != with_polyps.images[:2]).mean() > 0.5
    with pytest.raises(UserError, match="cannot be drawn"):
        drawn("Kwasir", 3, 64)


def test_pictures_of_a_kind_are_fresh_where_the_set_is_drawn_and_else_the_set(polyps, tmp_path):
    data = load_data(polyps, 0.25, 0, None, None)
    assert data.synthetic
    fresh, of_set = of_kind(data, "CVC-300", 2, 64), loaded(data.tests["CVC-300"], 64)
    assert not any(np.array_equal(a, b) for a in fresh.images for b in of_set.images)
    real = dataclasses.replace(data, synthetic=False)
    assert np.array_equal(of_kind(real, "CVC-300", 99, 64).images, of_set.images)
    with pytest.raises(UserError, match="no test set Kwasir"):
        of_kind(real, "Kwasir", 2, 64)
    with pytest.raises(UserError, match="no pictures"):
        loaded([], 64)


def test_a_network_answers_as_it_predicts_in_batches_of_any_size():
    torch.manual_seed(0)
    net = freeze(build("student", backbone="resnet18"))
    pictures = drawn("Kvasir", 3, 64)
    answers = ask(net, pictures.images)
    for image, logits in zip(pictures.images, answers.logits):
        assert expit(logits) == pytest.approx(probability(net, image, 64), abs=1e-5)
    one_by_one = ask(net, pictures.images, batch_size=1)
    assert answers.logits == pytest.approx(one_by_one.logits, abs=1e-4)
    assert answers.features == pytest.approx(one_by_one.features, abs=1e-4)
    grey = (255 * (answers.logits >= 0)).astype(np.uint8)
    expected = [image_metrics(*pair)["dice"] for pair in zip(grey, pictures.masks)]
    assert answers.dice(pictures.masks) == pytest.approx(expected, abs=1e-6)


# --- strange and spoilt pictures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return drawn("Kvasir", 4, 96)


@pytest.mark.parametrize("kind", shift.LEVELS)
def test_each_level_spoils_a_picture_more_than_the_one_before(kind, pictures):
    before = pictures.images.copy()
    spoilt = [shift.corrupted(pictures.images, kind, level) for level in range(6)]
    apart = [np.abs(s.astype(int) - pictures.images).mean() for s in spoilt]
    assert apart[0] == 0 and (np.diff(apart) > 0).all()
    assert all(s.dtype == np.uint8 and s.shape == pictures.images.shape for s in spoilt)
    assert np.array_equal(pictures.images, before), "the pictures themselves stay as they were"
    assert np.array_equal(spoilt[3], shift.corrupted(pictures.images, kind, 3))


def test_chance_depends_on_the_seed_and_the_place_alone(pictures):
    for kind in ("noise", "specular spots"):
        all_four = shift.corrupted(pictures.images, kind, 2)
        assert np.array_equal(all_four[:2], shift.corrupted(pictures.images[:2], kind, 2))
        assert not np.array_equal(all_four, shift.corrupted(pictures.images, kind, 2, seed=1))
        same = np.stack([pictures.images[0]] * 2)
        first, second = shift.corrupted(same, kind, 2)
        assert not np.array_equal(first, second)


def test_spots_of_a_level_stay_where_more_are_added(pictures):
    black = np.zeros((2, 96, 96, 3), np.uint8)
    few, many = (shift.corrupted(black, "specular spots", level).astype(int) for level in (1, 5))
    assert few.max() > 200 and (many >= few - 1).all() and (many > 100).mean() > (few > 100).mean()


def test_colours_stay_colours_in_a_jpeg():
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    assert shift.corrupted(red, "JPEG", 1).reshape(-1, 3).mean(0) == pytest.approx(
        [200, 0, 0], abs=6
    )


def test_a_corruption_or_a_level_that_is_not_there_is_named():
    for kind, level in (("fog", 1), ("blur", 6), ("blur", -1)):
        with pytest.raises(UserError, match="specular spots"):
            shift.corrupted(np.zeros((1, 32, 32, 3), np.uint8), kind, level)


class Painter(nn.Module):
    """Calls polyp what is redder than a limit, or everything."""

    def __init__(self, limit: float):
        super().__init__()
        self.limit = nn.Parameter(torch.tensor(limit))

    def forward(self, images, features=False):
        logits = images[:, :1] - self.limit
        stages = {"stage4": images[:, :, ::32, ::32]}
        return ((logits, 0 * logits), stages) if features else (logits, 0 * logits)


def test_a_network_that_sees_loses_dice_and_one_that_paints_everything_loses_nothing():
    """Relative Dice alone does not tell a robust network from a blind one."""
    masks = np.stack([discs((20, 20, 9), side=64), discs((40, 30, 12), side=64)])
    images = np.full((2, 64, 64, 3), 60, np.uint8)
    images[masks] = 200
    networks = {"sees": Painter(0.5), "paints": Painter(-9.0)}
    table = shift.dice_when_corrupted(networks, Pictures(images, masks), ["darkness", "noise"])
    assert len(table) == 2 * 2 * 6 * 2
    relative = shift.relative_dice(table)
    assert relative.xs(0, level="level").tolist() == [1, 1, 1, 1]
    assert (relative["paints"] == 1).all()
    assert relative["sees", "darkness"].iloc[-1] < 0.1
    clean = table.query("level == 0").groupby("network").dice.mean()
    assert clean["sees"] == 1 and clean["paints"] < 0.5


def test_relative_dice_is_a_part_of_the_dice_on_clean_pictures_and_of_nothing_there_is_none():
    columns = ["network", "corruption", "level", "picture", "dice"]
    dice = {"b": (0.8, 0.4), "a": (0.0, 0.1)}
    rows = [
        (name, "blur", level, picture, 2 * picture * dice[name][level])  # its mean over the two
        for name in dice
        for level in (0, 1)
        for picture in (0, 1)
    ]
    relative = shift.relative_dice(pd.DataFrame(rows, columns=columns))
    assert relative["b"].tolist() == pytest.approx([1, 0.5])
    assert relative["a"].isna().all()


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(8)
    usual, strange = rng.integers(0, 6, 20), rng.integers(2, 9, 15)
    pairs = [(s > u) + 0.5 * (s == u) for u in usual for s in strange]
    assert shift.auroc(usual, strange) == pytest.approx(np.mean(pairs))
    assert shift.auroc(strange, usual) == pytest.approx(1 - np.mean(pairs))
    assert shift.auroc(usual, usual) == pytest.approx(0.5)
    with pytest.raises(UserError, match="both kinds"):
        shift.auroc(usual, strange[:0])


def test_a_picture_is_stranger_the_less_sure_the_map_and_the_farther_its_features():
    known = np.random.default_rng(9).normal((5, 0, 0), 0.1, (30, 3))
    logits = np.stack([np.full((4, 4), z) for z in (0.0, 2.0, 8.0)])
    features = np.array([[0, 5, 0], [5, 2, 0], [5, 0, 0]], float)
    scores = shift.strangeness(Answers(logits, features), known)
    assert (scores.diff().iloc[1:] < 0).all(axis=None), "each score falls from picture to picture"
    assert scores["entropy"][0] == pytest.approx(np.log(2))
    assert scores["energy"][0] == pytest.approx(-np.log(2))
    assert scores["1 − highest"].tolist() == pytest.approx((1 - expit([0, 2, 8])).tolist())
    assert scores["distance"][0] == pytest.approx(np.sqrt(2), abs=0.1)
    background = shift.strangeness(Answers(-logits, features), known)
    for sure in ("entropy", "energy"):  # of polyp or of background is the same
        assert background[sure].tolist() == pytest.approx(scores[sure].tolist())
    longer = shift.strangeness(Answers(logits, 3 * features), 7 * known)
    assert longer["distance"].to_numpy() == pytest.approx(scores["distance"].to_numpy())
    with pytest.raises(UserError, match="10 are needed"):
        shift.strangeness(Answers(logits, features), known[:9])


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_curve_of_alarms_never_falls_and_its_ring_is_at_one_half():
    curve = pd.DataFrame(
        {"found": [0.2, 0.8, 0.6, 0.1], "alarms": [100, 60, 20, 0]}, index=[0.1, 0.3, 0.52, 0.9]
    )
    step, dots, ring = figures.alarms({"kdas": curve}).axes[0].lines
    assert step.get_ydata().tolist() == [0, 0.1, 0.6, 0.8, 0.8, 0.8]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (20, 0.6)
    assert len(dots.get_xdata()) == 4


def test_the_lines_of_a_promise_are_its_mean_and_what_was_asked():
    splits = pd.DataFrame({"here": [0.05, 0.15], "elsewhere": [0.4, 0.5]})
    figure = figures.promises(splits, 0.1, {"here": "same kind", "elsewhere": "another"})
    places = [[line.get_xdata()[0] for line in axis.lines] for axis in figure.axes]
    assert places == [[pytest.approx(0.1), 0.1], [pytest.approx(0.45), 0.1]]
    assert [sum(bar.get_height() for bar in axis.patches) for axis in figure.axes] == [2, 2]


def test_a_panel_of_robustness_has_a_line_for_each_network_from_one_on():
    index = pd.MultiIndex.from_product(
        [["teacher", "kdas"], ["blur", "noise"], range(6)], names=["network", "corruption", "level"]
    )
    relative = pd.Series(np.tile([1, 0.9, 0.8, 0.7, 0.6, 0.5], 4), index)
    figure = figures.robustness(relative, {"teacher": 0.9, "kdas": 0.4})
    assert [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes] == [
        "blur",
        "noise",
    ]
    for axis in figure.axes:
        drawn_lines = axis.lines[:2]
        assert [line.get_ydata()[0] for line in drawn_lines] == [1, 1]
        assert "0.40" in drawn_lines[1].get_label()


# --- the model card ---------------------------------------------------------------------------------------------------

CARD = (ROOT / "book" / "model_card.md").read_text(encoding="utf-8")
RESULTS = ROOT / "book" / "results"
COLUMNS = ["CVC-300", "CVC-ClinicDB", "Kvasir", "CVC-ColonDB", "ETIS-LaribPolypDB"]


def card_row(name: str, values: pd.Series) -> str:
    return f"| {name} | " + " | ".join(f"{values[column]:.3f}" for column in COLUMNS) + " |"


def test_the_tables_of_the_model_card_are_those_of_the_recorded_files():
    study = pd.read_csv(RESULTS / "laptop_tuned_study.csv")
    photographs = study.groupby(["objective", "dataset"])["dice"].mean()
    drawings = pd.read_csv(RESULTS / "laptop_maps_dice.csv").groupby("set").mean(numeric_only=True)
    rows = [card_row(n, photographs[n]) for n in ("teacher", "supervised", "kdas_tuned")]
    rows += [card_row(n, drawings[n]) for n in ("teacher", "supervised", "kdas", "kdas_unit")]
    assert re.findall(r"^\| \w+ \| 0\..*$", CARD, re.M) == rows
    weaker = drawings["kdas_unit"] < drawings["supervised"]
    assert weaker.all(), "what the card says of unit weights"
    for table in (photographs.unstack(), drawings[list(drawings.columns[1:])].T):
        of_card = table.reindex(columns=COLUMNS).dropna()
        assert (of_card.idxmin(axis=1) == "ETIS-LaribPolypDB").all(), "all are worst there"


def test_the_failures_on_the_model_card_are_those_of_the_recorded_files():
    said = " ".join(CARD.split())
    images = pd.read_csv(RESULTS / "laptop_tuned_study_images.csv.gz")
    images = images.query("objective in ('supervised', 'kdas_tuned') and dataset != 'CVC-300'")
    low, high = images["share"].quantile([0.25, 0.75])
    small = images[images["share"] <= low].groupby("objective")["dice"].mean()
    large = images[images["share"] >= high].groupby("objective")["dice"].mean()
    order = ["supervised", "kdas_tuned"]
    assert "{:.3f} (`supervised`) and {:.3f} (`kdas_tuned`)".format(*small[order]) in said
    assert "largest {:.3f} and {:.3f}".format(*large[order]) in said
    missed = (images["dice"] < 0.1).groupby(images["objective"]).mean()
    assert "{:.0%} (`supervised`) and {:.0%}".format(*missed[order]).replace("%", " %") in said
    drawn_to_real = pd.read_csv(RESULTS / "synthetic_to_real.csv").query("dataset == 'Kvasir'")
    of_b0 = drawn_to_real[drawn_to_real["network"].str.startswith("PVTv2-B0")]
    dice = of_b0.set_index("trained_on")["dice"]
    assert f"{dice['drawings']:.2f} on the photographs of Kvasir" in said
    assert f"{dice['photographs']:.2f} when trained on photographs" in said
    leaks = pd.read_csv(RESULTS / "public_leaks.csv").set_index(["source", "target"])["shared"]
    assert f"all {leaks['TrainDataset', 'CVC-ClinicDB']} videos" in said
    assert f"all {leaks['CVC-300', 'CVC-ColonDB']} pictures" in said
    assert "not for clinical use" in said
