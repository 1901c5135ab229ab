"""What a reader gets of a small book in a real browser: ways around, formulas, code and tables, on a desk and on a phone."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_until
from PIL import Image, ImageFilter
from small_book import FORMULAS, LONGEST

from kdas_book.publishing.site import served

WIDE, TABLET, PHONE = 1400, 820, 390
each_width = pytest.mark.parametrize("width", [WIDE, TABLET, PHONE])
each_scheme = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(scope="module")
def home(site):
    with served(site) as address:
        yield address


@pytest.fixture
def read(visit):
    """Opens a page in a window of a width, by day or by night; narrow ones are touched."""

    def go(path: str, width: int = WIDE, scheme: str = "light"):
        small = width < 1000
        size = {"width": width, "height": 900}
        return visit(
            path, viewport=size, color_scheme=scheme, has_touch=small, is_mobile=width == PHONE
        )

    return go


FOCUSED = "place => document.querySelector(place)?.contains(document.activeElement) ?? false"


def press(page, button, how: str) -> None:
    if how == "key":
        button.focus()
        page.keyboard.press("Enter")
    else:
        button.tap() if how == "touch" else button.click()


@each_scheme
@pytest.mark.parametrize(
    ("width", "how"),
    [(WIDE, "mouse"), (WIDE, "key"), (TABLET, "mouse"), (TABLET, "touch"), (TABLET, "key")]
    + [(PHONE, "touch"), (PHONE, "key")],
)
def test_the_menu_lists_every_page_opens_by_its_button_and_gives_the_focus_back(
    read, width, how, scheme
):
    page = read("book/02_teacher.html", width, scheme)
    button = page.locator(".primary-toggle:visible")
    links = page.locator(".bd-links__title ~ * a, .bd-links a").filter(has_text="The study")
    assert button.get_attribute("aria-label") == "Menu"
    if width == WIDE:  # where the menu is there from the start
        assert links.first.is_visible() and button.get_attribute("aria-expanded") == "true"
        press(page, button, how)
        links.first.wait_for(state="hidden")
        wait_until(page, FOCUSED, ".primary-toggle")
    assert not links.first.is_visible() and button.get_attribute("aria-expanded") == "false"
    for close in ("Escape", "button"):
        press(page, button, how)
        links.first.wait_for(state="visible")
        panel = "#pst-primary-sidebar" if width == WIDE else "#pst-primary-sidebar-modal"
        wait_until(page, FOCUSED, panel)
        assert button.get_attribute("aria-expanded") == "true" or width < WIDE  # behind a dialog
        if close == "Escape" or width == WIDE:
            page.keyboard.press("Escape")
        else:  # beside the dialog
            spot = width - 10, 450
            page.touchscreen.tap(*spot) if how == "touch" else page.mouse.click(*spot)
        links.first.wait_for(state="hidden")
        wait_until(page, FOCUSED, ".primary-toggle")
        assert button.get_attribute("aria-expanded") == "false"
    press(page, button, how)
    press(page, links.first, how)
    page.wait_for_url("**/10_study.html")
    assert page.said == []


@each_scheme
@pytest.mark.parametrize(
    ("width", "how"), [(TABLET, "mouse"), (TABLET, "key"), (PHONE, "touch"), (PHONE, "key")]
)
def test_the_contents_of_a_page_open_by_their_button_and_lead_to_a_section(
    read, width, how, scheme
):
    page = read("book/10_study.html", width, scheme)
    button = page.locator(".secondary-toggle:visible")
    link = page.locator("#pst-page-toc-nav a").filter(has_text="An answer")
    assert button.get_attribute("aria-label") == "Contents of this page" and not link.is_visible()
    press(page, button, how)
    link.wait_for(state="visible")
    wait_until(page, FOCUSED, "#pst-secondary-sidebar-modal")
    page.keyboard.press("Escape")
    link.wait_for(state="hidden")
    wait_until(page, FOCUSED, ".secondary-toggle")
    press(page, button, how)
    press(page, link, how)
    link.wait_for(state="hidden")
    assert page.url.endswith("#an-answer") and page.locator("#an-answer").is_visible()


def test_in_a_wide_window_the_contents_need_no_button(read):
    page = read("book/10_study.html")
    assert page.locator("#pst-page-toc-nav a").filter(has_text="An answer").is_visible()
    assert page.locator(".secondary-toggle:visible").count() == 0


@each_scheme
@each_width
def test_the_strip_leads_from_each_chapter_to_each_other(read, width, scheme):
    page = read("book/02_teacher.html", width, scheme)
    link = page.get_by_role("navigation", name="Chapters").get_by_role("link", name="10 study")
    box = link.bounding_box()
    assert box["height"] >= 24 and box["width"] >= 24
    press(page, link, "touch" if width < WIDE else "mouse")
    page.wait_for_url("**/10_study.html")
    here = page.locator(".chapters [aria-current]")
    assert here.inner_text().split() == ["10", "study"]


# --- formulas ---------------------------------------------------------------------------------------------------------

PICTURES = Path(__file__).parent / "golden" / "formulas"


def grey(png: bytes | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Ink from 0 to 1, a little blurred, so that a pixel's shift of an edge is no difference."""
    with Image.open(png if isinstance(png, Path) else io.BytesIO(png)) as image:
        image = image.convert("L")
        image = image.resize(size) if size else image
        return 1 - np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), float) / 255


def unlike(drawn: bytes, stored: Path) -> float:
    """0: the same picture; 1: as much ink is in the wrong place as there is in all. Infinite: another size."""
    with Image.open(stored) as image:
        size = image.size
    with Image.open(io.BytesIO(drawn)) as image:
        if max(abs(a - b) for a, b in zip(image.size, size)) > 3:
            return float("inf")
    one, two = grey(drawn, size), grey(stored)
    return float(np.abs(one - two).sum() / two.sum())


def formula_pictures(page) -> dict[str, bytes]:
    page.add_style_tag(content="div.math > span { padding: 4px } article { background: white }")
    page.evaluate("document.fonts.ready")
    boxes = page.locator("article div.math > .katex-display > .katex > .katex-html")
    assert boxes.count() == len(FORMULAS) + 1
    page.evaluate(
        "for (const box of document.querySelectorAll('.katex-display .katex-html')) box.style.display = 'inline-block'"
    )
    return {name: boxes.nth(i).screenshot() for i, name in enumerate(FORMULAS)}


def test_formulas_look_as_they_did(read):
    """Set KDAS_DRAW=1 to store what they look like now, and look at it."""
    pictures = formula_pictures(read("book/10_study.html"))
    if os.environ.get("KDAS_DRAW"):
        PICTURES.mkdir(exist_ok=True)
        for name, png in pictures.items():
            (PICTURES / f"{name}.png").write_bytes(png)
    far = {name: unlike(png, PICTURES / f"{name}.png") for name, png in pictures.items()}
    assert {name: how for name, how in far.items() if how > 0.25} == {}


def test_formulas_in_other_fonts_would_be_noticed(visit, chromium, home):
    context = chromium.new_context(viewport={"width": WIDE, "height": 900})
    context.route("**/*.woff2", lambda route: route.abort())
    page = context.new_page()
    page.goto(f"{home}book/10_study.html")
    pictures = formula_pictures(page)
    context.close()
    far = [unlike(png, PICTURES / f"{name}.png") for name, png in pictures.items()]
    assert min(far) > 0.25, far


def test_a_formula_has_one_size_in_the_line_and_displayed_and_nothing_cuts_it(read):
    page = read("book/10_study.html")
    sizes = page.evaluate(
        "[...document.querySelectorAll('article .katex')].map(e => getComputedStyle(e).fontSize)"
    )
    assert len(sizes) == 2 * len(FORMULAS) + 1 and len(set(sizes)) == 1
    cut = page.evaluate("""[...document.querySelectorAll('.formula')].filter(box => {
        for (let e = box; e.tagName !== 'P'; e = e.parentElement) if (getComputedStyle(e).overflow !== 'visible') return true;
    }).length""")
    assert cut == 0


def test_a_screen_reader_gets_mathml_and_the_source_and_no_letters_twice(read):
    page = read("book/10_study.html")
    first = page.locator("div.math").first
    assert first.locator("math annotation").text_content().strip() == FORMULAS["aligned"]
    assert first.locator("math mtable mtr").count() == 2
    assert first.locator(".katex-html").get_attribute("aria-hidden") == "true"
    shown = page.evaluate(
        "[...document.querySelectorAll('.katex-mathml')].filter(e => e.clientWidth > 1).length"
    )
    assert shown == 0


@each_width
def test_a_wide_formula_scrolls_in_its_own_box_from_its_beginning_to_its_number(read, width):
    page = read("book/10_study.html", width)
    box = page.locator("div.math").last
    left, right, scrolls = box.evaluate("""box => {
        const [frame, number] = [box, box.querySelector('.eqno')].map(e => e.getBoundingClientRect());
        const bases = [...box.querySelectorAll('.katex-html .base')].map(e => e.getBoundingClientRect());
        return [bases[0].left - frame.left, number.left - bases.at(-1).right, box.scrollWidth > box.clientWidth];
    }""")
    assert left >= -1 and right >= 0 and scrolls == (width == PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_fonts_come_from_the_site_and_a_page_without_formulas_loads_none(read, home):
    page = read("book/10_study.html")
    fonts = [url for url in page.asked if "KaTeX" in url]
    assert fonts and all(url.startswith(home) and ".woff2" in url for url in fonts)
    assert page.evaluate("document.fonts.check('16px KaTeX_Main')") and page.said == []
    assert page.evaluate("document.fonts.check('16px \"STIX Two Text\"')")
    assert not [url for url in page.asked if url.endswith(".js") and "katex" in url]
    assert not [url for url in read("book/faq.html").asked if "katex" in url.lower()]


# --- code, tables, captions -------------------------------------------------------------------------------------------


def test_88_columns_of_code_fit_beside_the_contents(read):
    page = read("book/02_teacher.html")
    page.locator("details.setup summary").click()
    wide = page.evaluate(
        "[...document.querySelectorAll('.cell_input pre')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    )
    assert LONGEST in page.locator("article").inner_text() and wide == []


@each_width
def test_a_sign_opens_the_code_of_a_sentence_and_takes_no_line_from_it(read, width):
    page = read("book/02_teacher.html", width)
    sign, sentence = page.locator("details.source > summary"), page.get_by_text("Better by")
    code = page.get_by_text("write()")
    one, two = sign.bounding_box(), sentence.bounding_box()
    assert one["height"] >= 20 and one["width"] < 60 and not code.is_visible()
    assert one["y"] + one["height"] < two["y"] + 30 and one["x"] > two["x"] + two["width"] * 0.8
    press(page, sign, "key")
    assert code.is_visible()


@each_scheme
def test_a_wide_table_scrolls_in_its_own_box_by_keyboard_too_and_breaks_no_number(read, scheme):
    page = read("book/02_teacher.html", PHONE, scheme)
    box = page.locator(".table-box").last
    box.scroll_into_view_if_needed()
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && e.tabIndex === 0")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert box.evaluate("e => e.scrollLeft") > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    heights = box.locator("td").evaluate_all("all => all.map(e => e.clientHeight)")
    assert max(heights) < 45
    assert page.locator(".table-box").first.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_the_edge_of_a_wide_table_is_shaded_until_its_end(read):
    page = read("book/02_teacher.html", PHONE)
    box = page.locator(".table-box").last
    box.scroll_into_view_if_needed()

    def edges() -> tuple[float, float]:
        ink = grey(box.screenshot())[-8:-3]  # below the last number
        return ink[:, 2:6].mean(), ink[:, -6:-2].mean()

    left, right = edges()
    assert right > 0.1 > left
    box.evaluate("e => { e.scrollLeft = e.scrollWidth }")
    left, right = edges()
    assert left > 0.1 > right


CONTRAST = """where => {
    const shine = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return [...document.querySelectorAll(where)].map(e => {
        let ground = e;
        while (ground && /, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
        const [a, b] = [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor].map(shine).sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    });
}"""


@each_scheme
def test_captions_numbers_titles_links_and_signs_are_read_by_day_and_by_night(read, scheme):
    page = read("book/02_teacher.html", WIDE, scheme)
    for where in ("figcaption", ".table-box td", ".table-box th", "details.source > summary"):
        contrasts = page.evaluate(CONTRAST, f"article {where}")
        assert contrasts and min(contrasts) >= 4.5, where
    for where in ("article h1", "article a[href]", ".chapters a", ".admonition-title", "summary"):
        contrasts = page.evaluate(CONTRAST, where)
        assert contrasts and min(contrasts) >= 4.5, where


def test_a_heading_weighs_more_than_those_below_it_and_links_have_one_colour(read):
    page = read("book/10_study.html")
    sizes = page.evaluate("""['h1', 'h2', 'h3'].map(name => {
        const made = document.querySelector('article').appendChild(document.createElement(name));
        const style = getComputedStyle(made);
        return [parseFloat(style.fontSize), +style.fontWeight];
    })""")
    assert sizes == sorted(sizes, reverse=True) and len({size for size, _ in sizes}) == 3
    colours = page.evaluate(
        "[...document.querySelectorAll('article a[href]:not(.headerlink, .chapters a), .prev-next-area a p')].map(a => getComputedStyle(a).color)"
    )
    page = read("book/bibliography.html")
    colours += page.evaluate(
        "[...document.querySelectorAll('article a[href]:not(.headerlink)')].map(a => getComputedStyle(a).color)"
    )
    assert len(colours) > 5


def test_a_result_of_the_search_opens_at_its_section(read):
    page = read("search.html?q=answer+given")
    page.wait_for_selector("#search-results li a")
    link = page.locator("#search-results li a").filter(has_text="The study").first
    for _ in range(50):
        if "#" in link.get_attribute("href"):
            break
        page.wait_for_timeout(100)
    assert link.get_attribute("href").endswith("10_study.html#an-answer")
    summary = page.locator("#search-results li p.context").first.inner_text()
    assert "displaystyle" not in summary and page.said == []


def test_a_lost_reader_sees_the_site_and_a_way_back(read, home):
    page = read("book/nowhere/at_all.html", PHONE)
    link = page.get_by_role("link", name="To the first page")
    assert "KaTeX" not in page.content() and page.locator(".primary-toggle:visible").count() == 1
    link.tap()
    page.wait_for_url(f"{home}book/index.html")


# --- links, figures, sliders ------------------------------------------------------------------------------------------

# A link of chapter 2 and what its card says, wherever that stands.
CARDS = {
    'a[href^="bibliography.html#"]': "Trinh. Of kdas",
    'a[href^="glossary.html#"]': "What comes before the sigmoid",
    'p a[href="#equation-one"]': "(2.1)",
    'a.reference[href="#fig-map"]': "Fig. 2.1 A line.",
    'p a[href="#ex-02-2"]': "Multiply.",
}
each_card = pytest.mark.parametrize(("link", "says"), CARDS.items())


def reach(page, link, how: str) -> None:
    if how == "key":
        link.evaluate("e => e.scrollIntoView({block: 'center'})")
        page.keyboard.press("Shift")  # a hand at the keyboard
        link.focus()
    else:
        link.tap() if how == "touch" else link.hover()


@each_card
@pytest.mark.parametrize(
    ("width", "how", "scheme"),
    [(WIDE, "mouse", "light"), (WIDE, "key", "dark"), (PHONE, "touch", "dark")],
)
def test_a_link_shows_in_a_card_what_it_leads_to(read, link, says, width, how, scheme):
    page = read("book/02_teacher.html", width, scheme)
    before, place = page.url, page.locator(f"article {link}").last
    reach(page, place, how)
    card = page.locator("#link-card")
    card.wait_for(state="visible")
    assert says in card.inner_text() and page.url == before
    assert place.get_attribute("aria-describedby") == "link-card"
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] >= 0
    assert min(page.evaluate(CONTRAST, "#link-card :is(p, dd, dt, a, figcaption)") or [21]) >= 4.5
    if "fig" in link:
        assert card.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    page.keyboard.press("Escape")
    assert not card.is_visible() and not place.get_attribute("aria-describedby")
    assert page.said == []


def test_a_pointer_may_move_onto_a_card_and_off_it(read):
    page = read("book/02_teacher.html")
    card = page.locator("#link-card")
    page.locator('article a[href^="glossary.html#"]').hover()
    card.wait_for(state="visible")
    card.hover()
    page.wait_for_timeout(600)
    assert card.is_visible()
    page.locator("article h1").hover()
    card.wait_for(state="hidden")


def test_a_card_of_a_figure_on_another_page_has_its_picture_and_is_fetched_once(read):
    page = read("book/10_study.html")
    link = page.locator('article a[href="02_teacher.html#fig-map"]')
    for _ in range(2):
        link.hover()
        card = page.locator("#link-card")
        card.wait_for(state="visible")
        assert "Fig. 2.1 A line." in card.inner_text()
        assert card.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") == 90
        page.keyboard.press("Escape")
        page.locator("article h1").hover()
    assert len([url for url in page.asked if url.endswith("02_teacher.html")]) == 1


def test_a_second_tap_follows_a_link_and_the_first_one_where_there_is_no_card(read):
    page = read("book/02_teacher.html", PHONE)
    link = page.locator('article a[href^="glossary.html#"]')
    link.tap()
    page.locator("#link-card").wait_for(state="visible")
    link.tap()
    page.wait_for_url("**/glossary.html#term-logit")
    page = read("book/faq.html", PHONE)
    page.route("**/bibliography.html", lambda route: route.abort())
    page.locator('article a[href^="bibliography.html#"]').first.tap()
    page.wait_for_timeout(500)
    assert not page.locator("#link-card").is_visible()


@pytest.mark.parametrize(("width", "how"), [(WIDE, "mouse"), (WIDE, "key"), (PHONE, "touch")])
def test_a_followed_link_marks_its_target_and_leaves_a_way_back(read, width, how):
    page = read("book/02_teacher.html", width)
    link, target = page.locator("article a[href='#fig-next']:not(.headerlink)"), "#fig-next"
    plain = page.locator(target).evaluate("e => getComputedStyle(e).backgroundColor")
    before = page.evaluate("scrollY")
    if how == "touch":
        link.tap()
        page.locator("#link-card").wait_for(state="visible")
    press(page, link, how)
    back = page.get_by_role("button", name="Back to where you were")
    back.wait_for(state="visible")
    wait_until(page, "least => scrollY > least", before + 300)
    assert page.locator(target).evaluate("e => getComputedStyle(e).backgroundColor") != plain
    if how == "key":  # the next stop after the target
        page.keyboard.press("Tab")
        assert back.evaluate("e => e === document.activeElement")
        page.keyboard.press("Enter")
    else:
        press(page, back, how)
    wait_until(page, "before => scrollY === before", before)
    assert back.count() == 0
    assert link.evaluate("e => e === document.activeElement")


def test_the_way_back_is_gone_when_the_reader_has_read_on(read):
    page = read("book/02_teacher.html")
    page.add_style_tag(content="article { padding-bottom: 3000px }")
    page.locator('article a.reference[href="#equation-one"]').click()
    back = page.locator("button.back")
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(500)
    assert back.is_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    back.wait_for(state="detached")


def test_figures_and_sliders_are_numbered_by_chapter_in_captions_and_references(read):
    page = read("book/02_teacher.html")
    captions = page.locator("article figcaption .caption-number").all_inner_texts()
    numbered = [*(f"Fig. 2.{n}" for n in range(1, 6)), "Table 2.1"]
    assert [said.strip() for said in captions] == numbered
    assert page.locator("a[href='#fig-next']").first.inner_text() == "Fig. 2.5"
    other = read("book/10_study.html").locator('a[href="02_teacher.html#fig-map"]')
    assert other.inner_text() == "Fig. 2.1"


@each_width
def test_the_caption_of_a_table_stands_above_it_and_a_wide_one_scrolls_alone(read, width):
    page = read("book/02_teacher.html", width)
    figure = page.locator("figure#tab-02-wide")
    caption, box = figure.locator("figcaption"), figure.locator(".table-box")
    assert caption.bounding_box()["y"] < box.bounding_box()["y"]
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "how"), [(WIDE, "mouse"), (WIDE, "key"), (PHONE, "touch")])
def test_a_picture_opens_at_its_full_size_and_escape_closes_it(read, width, how):
    page = read("book/02_teacher.html", width)
    figure = page.locator("#fig-map")
    press(page, figure.locator("button" if how == "key" else "img"), how)
    large = page.get_by_role("dialog", name="The picture at its full size")
    large.wait_for(state="visible")
    image = large.locator("img")
    assert image.get_attribute("alt") == "A map"
    assert image.evaluate("i => i.decode().then(() => i.clientWidth === i.naturalWidth)")
    page.keyboard.press("Escape")
    large.wait_for(state="hidden")
    if how == "key":
        assert figure.locator("button").evaluate("e => e === document.activeElement")


@each_width
@each_scheme
def test_a_slider_is_as_wide_as_the_text_begins_as_told_and_names_its_stops(read, width, scheme):
    page = read("book/02_teacher.html", width, scheme)
    box = page.locator(".kdas-explore").last
    box.scroll_into_view_if_needed()
    wide = page.locator("article section > p").first.bounding_box()["width"]
    picture = box.locator("img:not([hidden])")
    assert picture.bounding_box()["width"] >= wide - 2
    assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") > 500
    slider = box.get_by_role("slider", name="the level")
    assert slider.get_attribute("aria-valuetext") == box.locator("output").inner_text() == "middle"
    ticks = box.locator("i")
    assert ticks.all_inner_texts() == ["low", "middle", "high"]
    edge = [tick.bounding_box() for tick in ticks.all()]
    assert edge[0]["x"] >= 0 and edge[-1]["x"] + edge[-1]["width"] <= width
    colours = page.evaluate(CONTRAST, ".kdas-explore :is(label, output, i)")
    assert min(colours) >= 4.5
    first = picture.get_attribute("src")
    switch = box.get_by_role("switch", name="line")
    switch.focus()
    page.keyboard.press("Space")
    assert switch.is_checked()
    assert box.locator("img:not([hidden])").get_attribute("src") != first
    sizes = box.locator("img").evaluate_all("all => all.map(i => i.width / i.height)")
    assert max(sizes) - min(sizes) < 0.01  # so nothing below it jumps


@each_width
@each_scheme
def test_the_first_page_says_the_finding_shows_it_and_leads_on(read, width, scheme):
    page = read("book/index.html", width, scheme)
    shown = [
        page.locator(where).first.bounding_box()["y"]
        for where in ("figure.strip", "text=A published loss term", "figure.gradients", ".sd-btn")
    ]
    assert shown == sorted(shown) and shown[-1] < (800 if width > PHONE else 1000)
    names = ["Read from the start", "See the finding, five minutes", "Run it"]
    assert page.locator("article .sd-btn").all_inner_texts() == names
    assert "None of these is a photograph." in page.locator("figure.strip").inner_text()
    assert "Fig." not in page.locator("article").inner_text()
    assert page.locator(".facts strong").count() == 3
    pictures = page.locator("article img")
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(CONTRAST, "article :is(.sd-btn, .facts p, .sd-card-title, .sd-card p)")
    assert min(colours) >= 4.5
    assert page.said == []


def test_a_card_of_a_chapter_has_its_picture_its_question_and_its_minutes(read):
    page = read("book/index.html")
    card = page.locator(".chapter-cards .sd-card")
    assert card.inner_text().split("\n\n")[:3] == ["2 · Teacher", "How does it see?", "1 min"]
    assert card.locator("img").get_attribute("alt") == "A map"
    card.click()
    page.wait_for_url("**/02_teacher.html")


def test_a_slider_plays_to_its_end_and_stops_when_told(read):
    page = read("book/02_teacher.html")
    box = page.locator(".kdas-explore").last
    slider, play = box.get_by_role("slider"), box.get_by_role("button", name="Play the level")
    play.click()  # from the middle
    page.wait_for_timeout(200)
    assert slider.input_value() == "2" and play.inner_text() == "▶"
    play.click()  # from the end, so from the beginning
    assert slider.input_value() == "0" and play.inner_text() == "⏸"
    page.wait_for_timeout(1000)
    assert slider.input_value() == "1"
    play.click()
    page.wait_for_timeout(1200)
    assert slider.input_value() == "1" and play.inner_text() == "▶"


@each_scheme
def test_the_answer_waits_under_a_predict_box_until_it_is_asked_for(read, scheme):
    page = read("book/10_study.html", PHONE, scheme)
    answers = [
        page.get_by_text(words, exact=True)
        for words in ("forty-two", "There are forty-two.", "A large number.")
    ]
    button = page.get_by_role("button", name="Show the answer")
    assert page.get_by_text("It goes on.").is_visible()
    assert [answer.bounding_box() for answer in answers] == [None, None, None]
    button.tap()
    assert all(answer.is_visible() for answer in answers) and not button.count()
    wait_until(page, FOCUSED, ".cell:focus")


def test_on_paper_every_answer_is_there(read):
    page = read("book/10_study.html")
    page.emulate_media(media="print")
    assert page.get_by_text("There are forty-two.").bounding_box()["height"] > 5
    assert not page.get_by_role("button", name="Show the answer").count()
