"""Sliders on the static page."""

import re

import matplotlib.pyplot as plt
import pytest

from kdas_core.widgets import explore


@pytest.fixture
def page(monkeypatch):
    """What a page without a kernel gets, for two sliders of 2 and 3 steps."""
    monkeypatch.setenv("KDAS_BATCH", "1")
    drawn = []

    def draw(row, τ):
        drawn.append((row, τ))
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.set_title(f"{row} {τ}")
        return figure

    return drawn, explore(draw, alt='a "map"', caption="Is a < b?", row=[0, 5], τ=[1, 2, "<4>"]).data


def test_every_combination_is_drawn_once_and_the_last_choice_varies_fastest(page):
    drawn, _ = page
    assert drawn == [(0, 1), (0, 2), (0, "<4>"), (5, 1), (5, 2), (5, "<4>")]
    assert not plt.get_fignums()  # and no figure is left open


def test_one_picture_is_shown_and_each_has_its_alt_text(page):
    pictures = re.findall(r"<img [^>]*>", page[1])
    assert len(pictures) == 6 and all('alt="a &quot;map&quot;"' in p for p in pictures)
    assert ["hidden" in p for p in pictures] == [False] + [True] * 5


def test_sliders_carry_their_labels_escaped(page):
    assert re.findall(r'max="(\d)"', page[1]) == ["1", "2"]
    assert 'data-labels="1|2|&lt;4&gt;"' in page[1] and "<4>" not in page[1]


def test_the_caption_stands_once_below_the_pictures(page):
    assert page[1].count("<figcaption>Is a &lt; b?</figcaption>") == 1
    assert page[1].rindex("<img") < page[1].index("<figcaption>")


def test_nothing_is_loaded_from_elsewhere(page):
    assert "http" not in page[1] and 'src="data:image/png;base64,' in page[1]


def test_with_a_kernel_there_are_real_sliders(monkeypatch):
    monkeypatch.delenv("KDAS_BATCH", raising=False)
    box = explore(lambda τ: plt.figure(), alt="nothing", caption="Is a < b?", τ=[1, 2])
    assert [child.options for child in box.children if hasattr(child, "options")] == [(1, 2)]
    assert box.children[-1].value == "Is a &lt; b?"  # the caption, below the picture
    plt.close("all")
