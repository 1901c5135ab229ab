"""The figures: what a reader takes from them lies where it is said to lie."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from kdas_core import plots


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("here", ["data", "attention", "study"])
def test_the_strip_joins_its_boxes_from_edge_to_edge_and_fills_one(here):
    figure = plots.story(here)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    boxes = [text.get_bbox_patch().get_window_extent() for text in axis.texts]
    ends = [axis.transData.transform(line.get_xydata())[:, 0] for line in axis.lines]
    assert len(ends) == len(boxes) - 1
    for one, two, (left, right) in zip(boxes, boxes[1:], ends):
        assert left == pytest.approx(one.x1, abs=1) and right == pytest.approx(two.x0, abs=1)
    assert np.ptp([right - left for left, right in ends]) < 0.1 and min(right - left for left, right in ends) > 5
    assert boxes[0].x0 > 0 and boxes[-1].x1 < figure.bbox.width
    assert [text.get_text().split()[1] for text in axis.texts if text.get_weight() == "bold"] == [here]


def test_a_step_of_the_strip_bears_the_number_of_its_chapter():
    words = [text.get_text() for text in plots.story("study").axes[0].texts]
    assert words[0] == "1  data" and words[-1] == "9  study"


def test_each_anchor_is_numbered_as_the_slider_counts_it():
    assignment = torch.arange(16.0).view(16, 1, 1).expand(16, 3, 3) / 120  # anchor k (from 0) has k/120 everywhere
    panels = [axis for axis in plots.anchor_grid(assignment).axes if axis.get_title(loc="left")]
    shown = {axis.get_title(loc="left"): float(np.asarray(axis.images[0].get_array()).mean()) for axis in panels}
    assert shown == {f"anchor {k + 1}": pytest.approx(16 * k / 120) for k in range(16)}


def test_bars_of_ratios_have_a_line_where_nothing_differs():
    (plain,), (marked,) = (plots.bars({"a": 2.0, "b": 0.5}, "ratio", even=even).axes for even in (None, 1))
    assert not plain.lines
    assert list(marked.lines[0].get_xdata()) == [1, 1]


def test_two_distributions_have_the_outline_of_the_mask_where_one_is_given():
    even, mask = torch.full((8, 8), 1 / 64), torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    for given, count in ((None, 0), (mask, 1)):
        panels = plots.looking(even, even, mask=given).axes[:2]
        assert [len(axis.collections) for axis in panels] == [count, count]


def test_the_legend_of_a_row_hides_no_part_of_its_curves():
    image, mask, logits = torch.zeros(3, 8, 8), torch.zeros(1, 8, 8), torch.linspace(-3, 3, 64).view(8, 8)
    figure = plots.row_looks_at(image, mask, logits, torch.eye(8), logits, 3)
    figure.draw_without_rendering()
    right = figure.axes[2]
    assert right.get_legend().get_window_extent().x0 >= right.bbox.x1
