"""The figures: what a reader takes from them lies where it is said to lie, and what is compared shares a scale."""

from __future__ import annotations

import ast
import base64
import io
import re

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image

from kdas_book.figures import (
    basics,
    ch02_teacher,
    ch03_student,
    ch06_training,
    ch07_metrics,
    ch08_released_code,
    ch10_study,
    display,
)
from kdas_book.figures import ch04_attention_maps as ch04
from kdas_book.figures import ch05_distillation_losses as ch05
from kdas_book.figures import ch09_rivals as ch09
from kdas_book.session import Session
from kdas_core import recipe
from kdas_core.models import build, freeze


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        display.use_style()
        yield
    plt.close("all")


def test_each_anchor_is_numbered_as_the_slider_counts_it():
    assignment = (
        torch.arange(16.0).view(16, 1, 1).expand(16, 3, 3) / 120
    )  # anchor k (from 0) has k/120 everywhere
    panels = [
        axis for axis in ch02_teacher.anchor_grid(assignment).axes if axis.get_title(loc="left")
    ]
    shown = {
        axis.get_title(loc="left"): float(np.asarray(axis.images[0].get_array()).mean())
        for axis in panels
    }
    assert shown == {f"anchor {k + 1}": pytest.approx(16 * k / 120) for k in range(16)}


def test_bars_of_ratios_have_a_line_where_nothing_differs():
    (plain,), (marked,) = (
        basics.bars({"a": 2.0, "b": 0.5}, "ratio", even=even).axes for even in (None, 1)
    )
    assert not plain.lines
    assert list(marked.lines[0].get_xdata()) == [1, 1]


def test_two_distributions_have_the_outline_of_the_mask_where_one_is_given():
    even, mask = torch.full((8, 8), 1 / 64), torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    for given, count in ((None, 0), (mask, 1)):
        panels = ch04.attention_pair(even, even, mask=given).axes[:2]
        assert [len(axis.collections) for axis in panels] == [count, count]


def test_the_legend_of_a_row_hides_no_part_of_its_curves():
    image, mask, logits = (
        torch.zeros(3, 8, 8),
        torch.zeros(1, 8, 8),
        torch.linspace(-3, 3, 64).view(8, 8),
    )
    figure = ch04.row_looks_at(image, mask, logits, torch.eye(8), logits, 3)
    figure.draw_without_rendering()
    right = figure.axes[2]
    assert right.get_legend().get_window_extent().x0 >= right.bbox.x1


def limits(figure):
    return [image.get_clim() for axis in figure.axes for image in axis.images]


def test_named_maps_have_the_given_scale_and_the_others_their_own():
    cells = {"a": np.full((4, 4), 0.3), "b": np.arange(16.0).reshape(4, 4), "c": np.eye(4)}
    assert limits(ch05.panels(cells, signed=["c"], limits={"a": (0, 1)}))[:3] == [
        (0, 1),
        (0, 15),
        (-1, 1),
    ]


def test_signed_maps_share_one_scale_and_the_outline_lies_on_the_first_row_alone():
    mask = np.zeros((8, 8))
    mask[2:5, 2:5] = 1
    rows = {"map": [np.full((8, 8), -3.0), np.eye(8)], "part": [np.eye(8), 0 * mask]}
    figure = ch05.signed_grid(rows, ["one", "two"], mask)
    assert set(limits(figure)[:4]) == {(-3, 3)}
    assert [len(axis.collections) > 0 for axis in figure.axes[:4]] == [True, True, False, False]


def test_shares_of_a_total_fill_the_bar_and_small_ones_bear_no_number():
    terms = {"structure_1": 1.0, "attention_1": 0.04, "attention_2": 1.0, "symmetric": 2.0}
    alpha, rows = 0.25, {}
    total = (1 - alpha) * terms["structure_1"] + alpha * 3.04
    values = {name: torch.tensor(value) for name, value in (terms | {"total": total}).items()}
    rows["one"] = ch05.parts_of_total(values, alpha)
    assert rows["one"].sum() == pytest.approx(1)
    assert rows["one"]["structure_1"] == pytest.approx(0.75 / total)
    (axis,) = ch05.term_shares(pd.DataFrame(rows).T).axes
    bars = [part.patches[0] for part in axis.containers]
    assert [bar.get_x() for bar in bars[1:]] == pytest.approx(
        [bar.get_x() + bar.get_width() for bar in bars[:-1]]
    )
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(1)
    assert [text.get_text() for text in axis.texts] == ["50\u202f%", "17\u202f%", "33\u202f%"]


def test_a_bar_of_a_verdict_ends_at_the_edge_and_its_number_does_not():
    figure = ch09.verdicts_on(
        torch.ones(1, 1, 8, 8), torch.eye(8)[None], {"KD": 0.5, "SG": 16.0}, ""
    )
    right = figure.axes[1]
    assert [bar.get_width() for bar in right.patches] == [0.5, ch09.SHOWN]
    assert [text.get_text() for text in right.texts] == ["0.5", "16"]
    assert right.get_xlim()[1] > ch09.SHOWN


def test_one_channel_gives_one_whatever_the_logit_and_several_share_it():
    logits = torch.tensor([-3.0, 0.5, 2.0])
    shown = [[bar.get_height() for bar in axis.patches] for axis in ch05.one_channel(logits).axes]
    assert shown[0] == pytest.approx(logits.tolist())
    assert shown[1] == pytest.approx((logits.exp() / logits.exp().sum()).tolist())
    assert shown[2] == [1, 1, 1]


def test_a_bin_of_the_calibration_is_a_dot_as_large_as_it_has_pixels():
    bins = pd.DataFrame({"says": [5, 50, 95], "truth": [2, 40, 90], "pixels": [70, 10, 20]})
    (axis,) = ch03_student.calibration(bins).axes
    dots = axis.collections[-1]
    assert dots.get_offsets().tolist() == [[5, 2], [50, 40], [95, 90]]
    assert dots.get_sizes().argsort().tolist() == bins["pixels"].argsort().tolist()
    assert list(axis.lines[0].get_xdata()) == list(axis.lines[0].get_ydata()), "the diagonal"


def test_a_line_goes_through_the_places_of_a_prediction_and_two_cross_where_metrics_disagree():
    less, more = ["hd95", "mae"], ["dice", "meanDic", "wFm", "Sm", "meanEm", "boundary_iou"]
    made = pd.DataFrame({"a": 0.9, "b": 0.5}, index=more)
    made.loc["wFm"] = 0.1, 0.2
    made = pd.concat([made, pd.DataFrame({"a": 1.0, "b": 2.0}, index=less)])
    a, b = ch07_metrics.places(made).axes[0].lines
    at = list(ch07_metrics.rankings(made).index).index("wFm")
    assert [y for i, y in enumerate(a.get_ydata()) if i != at] == [1] * 7
    assert (a.get_ydata()[at], b.get_ydata()[at]) == (2, 1)


@pytest.mark.parametrize(("died", "read"), [(5, 3), (5, 4), (2, 1)])
def test_steps_between_the_checkpoint_and_the_end_are_done_twice_and_no_others(died, read):
    (axis,) = ch06_training.cut_and_resumed(died, read, each=3, epochs=3).axes
    orange = matplotlib.colors.to_rgba(basics.ORANGE)
    steps = {row: [b for b in axis.patches if round(b.get_y() + 0.25) == row] for row in range(3)}
    assert [len(steps[row]) for row in range(3)] == [9, died, 9 - read]
    for row in (1, 2):
        again = [round(b.get_x()) for b in steps[row] if b.get_facecolor() == orange]
        assert again == list(range(read, died))
    assert not any(b.get_facecolor() == orange for b in steps[0])


def test_a_claim_that_was_not_tested_has_a_badge_and_no_interval():
    ends = {"difference": [0.03, np.nan], "low": [0.02, np.nan], "high": [0.04, np.nan]}
    words = {"verdict": ["above here", "not tested"]}
    table = pd.DataFrame(ends | words, index=["1. one", "2. other"])
    (axis,) = ch10_study.contrasts_forest(table, {}, 0.01).axes
    assert [text.get_text() for text in axis.texts] == ["above", "not tested"]
    faces = [text.get_bbox_patch().get_facecolor() for text in axis.texts]
    assert faces == [matplotlib.colors.to_rgba(c) for c in (basics.BLUE, basics.GREY)]
    assert np.isfinite([line.get_xdata() for line in axis.lines[1::2]]).sum() == 2


def test_all_panels_of_a_study_share_one_scale():
    rows = [
        (objective, seed, dataset, dice)
        for dataset, dice in (("easy", 0.9), ("hard", 0.2))
        for objective in ("teacher", "supervised", "kdas")
        for seed in (1, 2)
    ]
    scores = pd.DataFrame(rows, columns=["objective", "seed", "dataset", "dice"])
    axes = ch10_study.scores_by_seed(scores, {"easy": "Easy", "hard": "Hard"}).axes
    assert len({axis.get_xlim() for axis in axes}) == 1
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["supervised", "kdas"]


def test_a_picture_with_verdicts_says_what_their_colours_mean_once_and_others_say_nothing():
    image, half, mask = np.zeros((8, 8, 3), np.uint8), np.eye(8), np.tri(8)
    verdict = basics.error_overlay(image, half, mask)
    (legend,) = basics.grid({"one": [verdict, verdict]}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["found", "missed", "false alarm"]
    assert not basics.grid({"one": [image, mask]}).legends


def test_charts_are_svg_and_pictures_have_twice_the_pixels_that_they_are_shown_at():
    chart = basics.bars({"a": 2.0, "b": 0.5}, "ratio")
    assert display.as_png(chart) is None
    one, two = display.as_svg(chart), display.as_svg(chart)
    if matplotlib.__version_info__ < (
        3,
        11,
    ):  # names of clipping paths come from addresses in memory
        one, two = (re.sub(r"\bp[0-9a-f]{10}\b", "", svg) for svg in (one, two))
    assert one == two, "equal figures are equal files"
    picture = basics.grid({"": [np.eye(8)] * 9}, size=3)
    png, shown = display.as_png(picture)
    pixels = Image.open(io.BytesIO(base64.b64decode(png) if isinstance(png, str) else png)).size
    assert display.as_svg(picture) is None
    assert pixels == pytest.approx((2 * shown["width"], 2 * shown["height"]), abs=2)
    assert shown["width"] <= 768, "no wider than the text, or its letters shrink"


def test_numbers_in_cells_have_true_minus_signs_and_are_white_where_the_ground_is_dark():
    (axis,) = ch04.in_cells({"P": torch.tensor([[-2.0, 0.0], [0.0, 2.0]])}).axes
    shown = {text.get_text(): text.get_color() for text in axis.texts}
    assert shown == {"−2": "white", "0": "black", "2": "white"} or shown["−2"] == "white"
    assert shown["0"] == "black"


def test_the_teacher_is_grey_and_the_student_blue_under_any_longer_name():
    names = ("teacher", "teacher, P₂ itself", "student, A(P₂)", "student (supervised)")
    grey, blue = basics.GREY, basics.BLUE
    assert [basics.colour_of(name) for name in names] == [grey, grey, blue, blue]
    table = pd.DataFrame(dict.fromkeys(names[:2], [1.0, 2.0]))
    assert [line.get_linestyle() for line in basics.lines(table, "", "").axes[0].lines] == [
        "-",
        "--",
    ]


def logged(**ends: tuple[str, float]) -> pd.DataFrame:
    """Runs of two epochs: the number of a run → its script and its last score."""
    rows = [
        (int(n[1:]), s, epoch, end - 0.1 * (2 - epoch))
        for n, (s, end) in ends.items()
        for epoch in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["run", "script", "epoch", "pooled"])


def test_runs_are_parted_by_what_they_reach_and_the_rarest_script_is_drawn_last():
    log = logged(
        r0=("rare.py", 0.8), r1=("often.py", 0.81), r2=("often.py", 0.8), r3=("often.py", 0.2)
    )
    upper, lower = ch08_released_code.training_log(log).axes
    assert [round(line.get_ydata()[-1], 2) for line in upper.lines] == [0.81, 0.8, 0.8]
    assert upper.lines[-1].get_color() != upper.lines[0].get_color() == lower.lines[0].get_color()
    assert [text.get_text() for text in lower.texts] == ["3"]


def test_numbers_of_runs_that_end_together_do_not_overlap():
    log = logged(r0=("a.py", 0.8), r1=("a.py", 0.8), r2=("a.py", 0.799))
    figure = ch08_released_code.training_log(log)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_card_that_goes_with_a_link_has_the_size_that_networks_show():
    with Image.open(ROOT / "book" / "_static" / "card.png") as stored:
        assert stored.size == (1200, 630)


@pytest.mark.parametrize("chapter", ["05_distillation_losses", "09_rivals"])
def test_losses_are_explained_with_networks_that_find_nothing(chapter, tmp_path, monkeypatch):
    """Every cell but for drawing, on noise; a student that says what its teacher says makes losses
    that are exactly 0.
    """
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "TrainDataset" / part).mkdir(parents=True)
    for i in range(6):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "TrainDataset" / "images" / f"{i}.png")
        Image.fromarray(np.tri(64, k=-20 - i) > 0).save(
            tmp_path / "TrainDataset" / "masks" / f"{i}.png"
        )

    def untrained(session, what, **_):
        torch.manual_seed(0)
        role = "teacher" if what == "teacher" else "student"
        net = freeze(build(role, backbone=getattr(session.recipe, role)))
        for head in (net.head1, net.head2):
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.constant_(head.bias, -20.0)
        return net

    history = pd.DataFrame({"epoch": [1, 2], "val_dice": [0.0, 0.0]})
    kept = {"best_epoch": 1, "val_dice": 0.0}
    monkeypatch.setattr(Session, "_network", untrained)
    monkeypatch.setattr(Session, "history", lambda *_: history)
    monkeypatch.setattr(Session, "metrics", lambda *_: kept)
    monkeypatch.setitem(recipe._PRESETS, "smoke", recipe._PRESETS["smoke"] | {"image_size": 64})
    monkeypatch.chdir(ROOT / "book")
    here = {"__name__": "__main__"}
    for cell in nbformat.read(f"{chapter}.ipynb", 4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "setup" not in tags:
            tree = ast.parse(cell.source)
            drawing = re.match(r"(figures|plots|explore|framework)\b", ast.unparse(tree.body[-1]))
            tree.body = tree.body[:-1] if drawing else tree.body
            exec(compile(tree, f"cell {cell.id}", "exec"), here)
        if "parameters" in tags:
            here |= {"data_root": str(tmp_path), "runs_dir": str(tmp_path / "runs")}
    assert here["findings"].count("**") > 8
