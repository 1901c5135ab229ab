"""Sliders on the static page."""

import html
import io
import json
import re

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

from kdas_book.explore import as_webp, explore


@pytest.fixture
def page(monkeypatch):
    """What a page without a kernel gets, for two sliders of 2 and 3 steps."""
    monkeypatch.setenv("KDAS_BATCH", "1")
    plt.close("all")  # what other tests left
    drawn = []

    def draw(row, τ):
        drawn.append((row, τ))
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.set_title(f"{row} {τ}")
        return figure

    return drawn, explore(
        draw, alt='a "map"', caption="Is a < b?", row=[0, 5], τ=[1, 2, "<4>"]
    ).data


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
    labels = [
        json.loads(html.unescape(text)) for text in re.findall(r'data-labels="([^"]*)"', page[1])
    ]
    assert labels == [["0", "5"], ["1", "2", "<4>"]] and "<4>" not in page[1]


def test_the_caption_stands_once_below_the_pictures(page):
    assert page[1].count("<figcaption>Is a &lt; b?</figcaption>") == 1
    assert page[1].rindex("<img") < page[1].index("<figcaption>")


def test_nothing_is_loaded_from_elsewhere(page):
    assert "http" not in page[1] and page[1].count('src="data:image/webp;base64,') == 6


def test_lines_are_kept_as_they_are_and_no_picture_is_larger_than_as_png():
    photo, lines = (plt.figure(figsize=(3, 2)) for _ in range(2))
    noise = np.random.default_rng(0).uniform(size=(12, 18, 3))
    photo.add_axes((0, 0, 1, 1)).imshow(cv2.resize(noise, (900, 600)))
    lines.add_axes((0, 0, 1, 1)).plot([1, 3, 2])
    for figure in (photo, lines):
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=80, bbox_inches="tight")
        packed = as_webp(Image.open(png).convert("RGB"))
        before, after = (
            np.asarray(Image.open(io.BytesIO(f)).convert("RGB"), int)
            for f in (png.getvalue(), packed)
        )
        assert len(packed) < len(png.getvalue()) and before.shape == after.shape
        assert np.abs(before - after).mean() < (4 if figure is photo else 1e-9)


def test_a_caller_names_choices_and_values_says_what_is_shown_first_and_gets_a_switch(monkeypatch):
    monkeypatch.setenv("KDAS_BATCH", "1")
    shown = []

    def draw(**values):
        shown.append(values)
        return plt.figure(figsize=(1, 1))

    names, start = {"t": "temperature"}, {"t": 8, "on": True}
    choices = {"t": {"low": 2, "high": 8}, "on": [False, True]}
    block = explore(draw, alt="", names=names, start=start, **choices).data
    assert [tuple(v.values()) for v in shown] == [(2, False), (2, True), (8, False), (8, True)]
    assert [" hidden" in p for p in re.findall(r"<img [^>]*>", block)] == [True, True, True, False]
    assert "<output>high</output>" in block and "temperature" in block and 'value="1"' in block
    assert '<label>on <input type="checkbox" role="switch" checked></label>' in block
    monkeypatch.delenv("KDAS_BATCH")
    slider, switch, *_ = explore(draw, alt="", names=names, start=start, **choices).children
    assert (slider.description, slider.value, switch.value) == ("temperature", 8, True)
    plt.close("all")


def test_with_a_kernel_there_are_real_sliders(monkeypatch):
    monkeypatch.delenv("KDAS_BATCH", raising=False)
    box = explore(lambda τ: plt.figure(), alt="nothing", caption="Is a < b?", τ=[1, 2])
    assert [child.options for child in box.children if hasattr(child, "options")] == [
        (("1", 1), ("2", 2))
    ]
    assert box.children[-1].value == "Is a &lt; b?"  # the caption, below the picture
    plt.close("all")


def test_in_a_kernel_the_slider_is_live_only_where_somebody_could_answer(monkeypatch):
    """Papermill and nbconvert run cells without the right to ask; a notebook that is open in a
    browser has it."""
    # What a build in this process leaves: its own kernel, whose environment has KDAS_BATCH.
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    monkeypatch.delenv("KDAS_BATCH", raising=False)
    code = (
        "import matplotlib.pyplot as plt\nfrom kdas_book.explore import explore\n"
        "shown = explore(lambda t: plt.figure(), 'nothing', t=[1, 2])"
    )
    kind = {"kind": "type(shown).__name__"}
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        shown = {}
        for somebody in (False, True):
            reply = client.execute(
                code, allow_stdin=somebody, user_expressions=kind, reply=True, timeout=120
            )
            assert reply["content"]["status"] == "ok", reply["content"]
            shown[somebody] = reply["content"]["user_expressions"]["kind"]["data"]["text/plain"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert shown == {False: "'HTML'", True: "'interactive'"}


def test_many_pictures_are_not_all_open_at_once(recwarn):
    before = plt.get_fignums()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDAS_BATCH", "1")
        shown = explore(lambda n: plt.figure(figsize=(1, 1)), alt="n", n=list(range(25)))
    assert shown.data.count("<img") == 25 and plt.get_fignums() == before
    assert not [w for w in recwarn if "figures have been opened" in str(w.message)]
