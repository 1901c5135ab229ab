"""The diagrams, and the pages beside the chapters: what they promise."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
import nbformat
import pytest
from PIL import ImageFont

from kdas_core import UserError, book, plots
from kdas_core.losses import objective
from kdas_core.models import build
from kdas_core.notebook import find_root
from kdas_core.plots import diagrams

ROOT = find_root()
SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = {
    "pyramid": plots.pyramid,
    "attention_with_reduction": plots.attention_with_reduction,
    "attention of stage 4": lambda: plots.attention_with_reduction(stage=4),
    "decoder": plots.decoder,
    "framework, figure": lambda: plots.framework("figure"),
    "framework, released": lambda: plots.framework("released"),
    "concept_map": plots.concept_map,
}

each_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


def words_of(draw) -> list[str]:
    return [text.text for text in ElementTree.fromstring(draw().data).iter(f"{SVG}text")]


# --- the diagrams -----------------------------------------------------------------------------------------------------


@each_drawing
def test_a_drawing_has_a_title_and_a_description_that_it_refers_to(draw):
    root = ElementTree.fromstring(draw().data)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    named = [root.find(f".//*[@id='{name}']") for name in root.get("aria-labelledby").split()]
    assert [element.tag for element in named] == [f"{SVG}title", f"{SVG}desc"]
    assert all(element.text.strip() for element in named)


def test_drawings_in_one_page_share_no_identifier():
    ids = [i for name in DRAWINGS if "stage 4" not in name for i in re.findall(r' id="([^"]+)"', DRAWINGS[name]().data)]
    assert len(ids) == len(set(ids))


@each_drawing
def test_words_stay_in_their_boxes_and_on_the_drawing(draw):
    """Measured in DejaVu Sans, which is wider than the fonts that readers have."""
    fonts = {weight: matplotlib.get_data_path() + f"/fonts/ttf/DejaVuSans{weight}.ttf" for weight in ("", "-Bold")}
    root = ElementTree.fromstring(draw().data)
    _, _, width, height = map(float, root.get("viewBox").split())
    rects = [[float(r.get(k, 0)) for k in ("x", "y", "width", "height")] for r in root.iter(f"{SVG}rect")]
    boxes = [rect for rect, r in zip(rects, root.iter(f"{SVG}rect")) if r.get("stroke")]
    for text in root.iter(f"{SVG}text"):
        font = ImageFont.truetype(fonts["-Bold" if text.get("font-weight") else ""], float(text.get("font-size")))
        long, x, y = font.getlength(text.text), float(text.get("x")), float(text.get("y"))
        left = x - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")] * long
        assert left >= 0 and left + long <= width and 0 < y < height, text.text
        for bx, by, bw, bh in boxes:
            if by < y - 4 < by + bh and left < bx + bw and left + long > bx:  # it touches this box: so it lies in it
                assert left >= bx and left + long <= bx + bw, text.text


@each_drawing
def test_boxes_do_not_overlap(draw):
    rects = [r for r in ElementTree.fromstring(draw().data).iter(f"{SVG}rect") if r.get("stroke")]
    sides = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in rects]
    for i, (x, y, w, h) in enumerate(sides):
        for a, b, c, d in sides[:i]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h


def test_the_pyramid_shows_the_numbers_of_the_networks():
    words = words_of(plots.pyramid)
    for role in ("teacher", "student"):
        body = build(role).backbone.body
        assert [s.channels for s in diagrams.stages_of(build(role).backbone.name)] == body.feature_info.channels()
        for i, channels in enumerate(body.feature_info.channels()):
            blocks = getattr(body, f"stages_{i}").blocks
            assert {str(channels), str(len(blocks))} <= set(words)
    assert [s.reduction for s in diagrams.stages_of("pvt_v2_b2")] == [
        s.reduction for s in diagrams.stages_of("pvt_v2_b0")
    ]
    assert {"88 × 88", "44 × 44", "22 × 22", "11 × 11"} <= set(words)


def test_reduced_attention_asks_as_many_keys_as_the_network():
    for stage in (1, 2, 3, 4):
        words = words_of(lambda stage=stage: plots.attention_with_reduction(stage))
        side = 352 // 2 ** (stage + 1)
        assert f"{side**2:,} × 121 weights" in words  # every stage asks a grid of 11 × 11


def test_a_backbone_without_reduced_attention_is_refused():
    with pytest.raises(UserError, match="resnet18 is no PVT v2"):
        diagrams.stages_of("resnet18")


def test_the_frameworks_name_the_terms_of_their_objectives():
    """Which map is guided, and which attention term is dead: as the objectives have it."""
    torch = pytest.importorskip("torch")
    maps = [tuple(torch.randn(2, 1, 32, 32, requires_grad=True) for _ in range(2)) for _ in range(2)]
    for kind, name in (("figure", "kdas"), ("released", "released")):
        words = words_of(lambda kind=kind: plots.framework(kind))
        terms = objective(name)(*maps, torch.rand(2, 1, 32, 32).round())
        reached = torch.autograd.grad(terms["symmetric"], maps[0], allow_unused=True)
        (guided,) = (k for k, gradient in enumerate(reached, 1) if gradient is not None)
        assert f"SG(S{'₁₂'[guided - 1]}, T{'₁₂'[guided - 1]})" in words
        dead = any("inert" in term for term in terms)
        assert dead == ("a gradient of exactly zero" in words)
        assert dead == (RED_CROSS in plots.framework(kind).data)
    with pytest.raises(UserError, match="paper"):
        plots.framework("paper")


RED_CROSS = f'stroke="{plots.RED}" stroke-width="3"'


def test_the_map_names_every_chapter_and_links_those_that_exist():
    written = {page.stem for page in book.chapters(ROOT)}
    pages = {path.stem for path in (ROOT / "book").glob("*.md")} | written
    links = set(re.findall(r'href="([^"]+)\.html"', plots.concept_map().data))
    assert links <= pages
    assert written - {"08_released_code"} <= links


def test_the_map_of_the_first_page_is_the_one_that_the_code_draws():
    """After a change: python -c 'from kdas_core import plots; print(plots.concept_map().data)' > book/_static/concept_map.svg"""
    stored = (ROOT / "book" / "_static" / "concept_map.svg").read_text(encoding="utf-8")
    assert stored == plots.concept_map().data + "\n"


def test_every_diagram_in_a_chapter_has_a_text_for_those_who_cannot_see_it():
    calls = re.compile(r"plots\.(pyramid|attention_with_reduction|decoder|framework|concept_map)\(")
    for chapter in book.chapters(ROOT):
        for cell in nbformat.read(chapter, as_version=4).cells:
            if cell.cell_type == "code" and calls.search(cell.source):
                assert cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip(), chapter.stem
