"""The rendered book in a real browser, from a server on this machine. Pictures of every page are left in ``_build/screenshots``."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import nbformat
import pytest
import torch
from conftest import CHAPTERS, ROOT, wait_until
from pypdf import PdfReader

from kdas_book.publishing.pdf import print_book
from kdas_book.publishing.site import served
from kdas_core.attention import attention_weights, self_attention

pytestmark = pytest.mark.slow
ANSWERS = "for (const button of document.querySelectorAll('.reveal')) button.click()"
SCREENSHOTS = ROOT / "_build" / "screenshots"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
TEXTS = ("index", "notation", "glossary", "faq", "api", "execution", "bibliography")
TEXTS += tuple(path.stem for path in sorted((ROOT / "book").glob("api_*.md")))
NAMES = [chapter.stem for chapter in CHAPTERS]
PAGES = [f"book/{name}.html" for name in (*TEXTS, *NAMES)]
PAGES += ["search.html", "genindex.html"]
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: Path(path).stem)


@pytest.fixture(scope="module")
def home(whole_book):
    """The site's address."""
    with served(whole_book / "_build" / "html") as address:
        yield address


def scroll_through(page) -> None:
    """So that what is loaded late is loaded."""
    page.evaluate("for (const picture of document.images) picture.loading = 'eager'")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    wait_until(page, "[...document.images].every(picture => picture.hidden || picture.complete)")


@each_page
def test_a_page_asks_nobody_else_and_complains_of_nothing(visit, home, path):
    page = visit(path)
    scroll_through(page)
    assert page.said == []
    assert [url for url in page.asked if not url.startswith((home, "data:", "blob:"))] == []
    empty = "[...document.images].filter(i => !i.hidden && !(i.complete && i.naturalWidth)).map(i => i.src)"
    assert page.evaluate(empty) == []
    assert page.context.cookies() == []


@each_page
def test_a_page_is_light_enough_for_a_slow_line(visit, path):
    page = visit(path)
    scroll_through(page)
    page.evaluate(
        "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))"
    )
    sliders = set(
        page.evaluate("[...document.querySelectorAll('.kdas-explore img')].map(i => i.src)")
    )
    entries = page.evaluate(
        "['navigation', 'resource'].flatMap(t => performance.getEntriesByType(t)).map(e => [e.name, e.encodedBodySize])"
    )
    sizes = dict(entries)
    assert sliders <= set(sizes) and all(sizes[name] for name in sliders)
    assert sum(sizes.values()) < 2.5e6
    assert sum(sizes[name] for name in sliders) < (1.5e6 if Path(path).stem in NAMES else 0.4e6)


@pytest.mark.parametrize("path", PAGES[:-2], ids=lambda path: Path(path).stem)
def test_a_page_has_a_title_a_description_and_headings_in_order(visit, path):
    page = visit(path)
    assert len(page.title()) > 5
    assert len(page.locator("meta[name=description]").get_attribute("content")) > 20
    levels = page.evaluate(
        "[...document.querySelectorAll('article :is(h1,h2,h3,h4,h5,h6)')].map(h => +h.tagName[1])"
    )
    assert levels.count(1) == 1 and levels[0] == 1
    assert [(a, b) for a, b in zip(levels, levels[1:]) if b > a + 1] == []


def test_every_link_within_the_book_leads_somewhere(visit, home):
    places, broken = defaultdict(set), []
    links = {}
    for path in PAGES:
        page = visit(path)
        places[home + path] = set(
            page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        )
        links[path] = page.evaluate(
            "[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))"
        )
    for path, targets in links.items():
        for target in targets:
            url, place = urldefrag(urljoin(home + path, target))
            if not url.startswith(home):
                continue
            if url in places:
                if place and place not in places[url]:
                    broken.append(f"{path}: {target}")
            elif page.request.get(url).status != 200:
                broken.append(f"{path}: {target}")
    assert broken == []


@each_page
def test_a_phone_scrolls_down_and_never_sideways(visit, path):
    page = visit(path, **PHONE)
    page.evaluate(ANSWERS)
    scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=SCREENSHOTS / f"{Path(path).stem}-phone.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@each_page
def test_nothing_serious_stands_between_a_page_and_those_who_cannot_see_or_point(
    visit, path, scheme
):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(path, color_scheme=scheme, viewport={"width": 1400, "height": 900})
    page.evaluate(ANSWERS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{Path(path).stem}-{scheme}.png")
    found = [
        v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")
    ]
    assert [f"{v['id']}: {node['html'][:150]}" for v in found for node in v["nodes"][:3]] == []


@pytest.mark.parametrize("how", [{}, PHONE], ids=["desk", "phone"])
def test_no_formula_loses_its_beginning_or_its_number(visit, how):
    """One that is wider than its column scrolls; a centred one would stick out on the left, where nothing scrolls to."""
    for chapter in CHAPTERS:
        page = visit(f"book/{chapter.stem}.html", **how)
        page.evaluate(ANSWERS)
        lost = page.evaluate("""[...document.querySelectorAll('div.math')].filter(box => {
            const [number, frame] = [box.querySelector('.eqno'), box].map(e => e?.getBoundingClientRect());
            const bases = [...box.querySelectorAll('.katex-html .base')].map(e => e.getBoundingClientRect());
            return !bases.length || bases[0].left < frame.left - 1 || (number && bases.at(-1).right > number.left + 1);
        }).map(box => box.id || box.textContent.slice(0, 80))""")
        assert lost == [], chapter.stem


# --- what moves -------------------------------------------------------------------------------------------------------

SHOWN = "box => [...box.querySelectorAll('img')].filter(i => !i.hidden).map(i => i.src)"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_the_arrow_keys_step_through_every_picture_of_a_slider(visit, chapter):
    page = visit(f"book/{chapter.stem}.html")
    page.evaluate(ANSWERS)
    boxes = page.locator(".kdas-explore")
    assert boxes.count() >= (chapter.stem != "00_three_minutes")  # which has nothing to move
    for box in boxes.all():
        slider = box.locator("input").last
        slider.scroll_into_view_if_needed()
        slider.focus()
        page.keyboard.press("Home")
        seen, labels = [box.evaluate(SHOWN)], [slider.get_attribute("aria-valuetext")]
        for _ in range(int(slider.get_attribute("max"))):
            page.keyboard.press("ArrowRight")
            seen.append(box.evaluate(SHOWN))
            labels.append(slider.get_attribute("aria-valuetext"))
        assert all(len(shown) == 1 for shown in seen) and len(set(labels)) == len(labels)
        assert len({shown[0] for shown in seen}) > 1
        assert box.locator("output").last.inner_text() == labels[-1]
        wait_until(
            page,
            "[...document.querySelectorAll('.kdas-explore[data-live]:focus-within img')].every(i => i.complete)",
        )
        assert box.evaluate(
            "box => [...box.querySelectorAll('img')].every(i => i.hidden || i.naturalWidth > 0)"
        )
    assert page.said == []


@pytest.mark.parametrize("how", ["mouse", "touch"])
def test_a_mouse_and_a_finger_move_a_slider(visit, how):
    page = visit("book/05_distillation_losses.html", **(PHONE if how == "touch" else {}))
    page.evaluate(ANSWERS)
    box = page.locator(".kdas-explore").first
    slider = box.locator("input").first
    slider.scroll_into_view_if_needed()
    before, area = box.evaluate(SHOWN), slider.bounding_box()
    place = area["x"] + area["width"] - 4, area["y"] + area["height"] / 2
    page.touchscreen.tap(*place) if how == "touch" else page.mouse.click(*place)
    assert slider.input_value() == slider.get_attribute("max")
    assert box.evaluate(SHOWN) != before


WIDE_PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("how", [{}, WIDE_PHONE], ids=["desk", "phone"])
def test_a_reader_changes_the_small_map_and_its_attention_is_that_of_the_package(visit, how):
    page = visit("book/04_attention_maps.html", **how)
    page.evaluate(ANSWERS)
    tables = page.locator(".kdas-map table")

    def shown(number: int) -> torch.Tensor:
        read = (
            "t => [...t.tBodies[0].rows].map(r => [...r.cells].slice(1).map(c => +c.dataset.value))"
        )
        return torch.tensor(tables.nth(number).evaluate(read), dtype=torch.float32)

    def agrees(P: torch.Tensor) -> None:
        scores = P @ P.T / P.shape[1] ** 0.5
        expected = [
            P,
            scores,
            attention_weights(P[None, None])[0],
            self_attention(P[None, None])[0],
        ]
        for number, values in enumerate(expected):
            torch.testing.assert_close(shown(number), values, atol=1e-3, rtol=0)

    P = shown(0)
    first = P.clone()
    agrees(P)
    cell = tables.first.locator("tbody tr").nth(1).locator("td").nth(2)
    cell.scroll_into_view_if_needed()
    cell.tap() if how else cell.click()
    P[1, 2] *= -1  # polyp becomes background, or the other way round
    agrees(P)
    for key in ("ArrowDown", "3", "-", "ArrowRight", " "):
        page.keyboard.press(key)
    P[2, 2] = 3 * P[2, 2].sign() - 0.5
    P[2, 3] *= -1
    agrees(P)
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused.startswith("row 2, column 3: logit ")
    assert page.locator(".kdas-map [role=grid] [tabindex='0']").count() == 1
    assert "Row 2 looks most at " in page.locator(".kdas-map [role=status]").inner_text()
    page.get_by_role("button", name="turn by 90°").click()
    agrees(torch.rot90(P))
    page.get_by_role("button", name="reset").click()
    page.get_by_role("button", name="twice as sure").click()
    agrees(2 * first)
    width = how["viewport"]["width"] if how else 1280
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.said == []


def test_the_search_finds_what_the_book_explains(visit):
    page = visit("search.html?q=symmetrical+guiding")
    page.wait_for_selector("#search-results li a")
    found = " ".join(page.locator("#search-results li a").all_inner_texts())
    assert "Distillation losses" in found


def test_the_dark_is_chosen_and_remembered(visit, home):
    page = visit("book/05_distillation_losses.html", color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    button = page.locator(".theme-switch-button").first
    for _ in range(3):
        if page.evaluate(theme) == "dark":
            break
        button.click()
    assert page.evaluate(theme) == "dark"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", ground)[:3]) < 60
    page.goto(home + "book/faq.html")
    assert page.evaluate(theme) == "dark"


def test_on_paper_there_is_the_chapter_and_not_its_surroundings(visit):
    page = visit("book/05_distillation_losses.html")
    page.emulate_media(media="print")
    assert (
        not page.locator(".bd-sidebar-primary").is_visible()
        and not page.locator(".bd-sidebar-secondary").is_visible()
    )
    assert (
        page.locator("#jb-print-docs-body h1").is_visible()
        and page.locator("article p").first.is_visible()
    )


def test_the_download_of_a_chapter_is_the_notebook_that_was_executed(visit, home):
    page = visit("book/05_distillation_losses.html")
    (link,) = {
        a
        for a in page.locator(".btn-download-source-button").evaluate_all(
            "all => all.map(a => a.href)"
        )
    }
    notebook = nbformat.reads(page.request.get(link).text(), as_version=4)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(ran) > 20 and link.startswith(home) and "/tmp/" not in nbformat.writes(notebook)


def test_on_paper_links_lead_to_pages_of_the_same_pdf(chromium, whole_book, tmp_path, monkeypatch):
    monkeypatch.setattr("kdas_book.publishing.pdf.browser", lambda: nullcontext(chromium))
    paths = ["book/index.html", "book/01_data.html"]
    book = PdfReader(print_book(whole_book / "_build" / "html", paths, tmp_path / "book.pdf"))
    titles = [entry.title for entry in book.outline]
    assert (
        titles[0].startswith("Knowledge distillation")
        and titles[1].startswith("1. Data")
        and len(titles) == 2
    )
    second = book.get_destination_page_number(book.outline[1])
    assert second >= 1 and "1. Data" in book.pages[second].extract_text()
    assert "Solution to" in "".join(page.extract_text() for page in book.pages[second:])
    links = [a.get_object() for page in book.pages for a in page.get("/Annots", [])]
    assert not [a for a in links if "127.0.0.1" in str(a.get("/A", ""))]
    inwards = [a["/Dest"] for a in links[:40] if "/Dest" in a and not isinstance(a["/Dest"], str)]
    assert book.pages[second].indirect_reference in [place[0] for place in inwards]


def test_an_address_that_does_not_exist_leads_home(visit, home):
    page = visit("book/nowhere/at_all.html")
    assert "no page here" in page.inner_text("h1")
    assert "status of 404" in " ".join(page.said)


def test_the_buttons_whose_handlers_were_moved_still_do_something(visit):
    page = visit("book/faq.html")
    page.evaluate("window.print = () => { document.title = 'printed'; }")
    page.locator("[data-does=print]").evaluate("button => button.click()")
    assert page.title() == "printed"
    page.locator("[data-does=full-screen]").evaluate("button => button.click()")
    wait_until(page, "document.fullscreenElement !== null")


def test_the_student_of_this_build_runs_in_the_page(visit, whole_book):
    if not (whole_book / "_build" / "html" / "_static" / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not there: `make` found no npm, or no registry")
    page = visit("book/12_running_it.html")
    said = page.locator(".kdas-live .said")
    page.locator(".kdas-live button").nth(1).click()
    for _ in range(300):
        if "in this browser" in said.inner_text():
            break
        page.wait_for_timeout(100)
    assert re.search(r"\d+ × \d+ pixels in \d+ ms, in this browser", said.inner_text())
    assert page.locator(".kdas-live canvas").is_visible() and page.said == []
