"""What a reader gets of a small book in a real browser: ways around, formulas, code and tables, on a desk and on a phone."""

from __future__ import annotations

import pytest

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
        assert page.evaluate(FOCUSED, ".primary-toggle")
    assert not links.first.is_visible() and button.get_attribute("aria-expanded") == "false"
    for close in ("Escape", "button"):
        press(page, button, how)
        links.first.wait_for(state="visible")
        panel = "#pst-primary-sidebar" if width == WIDE else "#pst-primary-sidebar-modal"
        page.wait_for_timeout(100)
        assert page.evaluate(FOCUSED, panel)
        assert button.get_attribute("aria-expanded") == "true" or width < WIDE  # behind a dialog
        if close == "Escape" or width == WIDE:
            page.keyboard.press("Escape")
        else:  # beside the dialog
            spot = width - 10, 450
            page.touchscreen.tap(*spot) if how == "touch" else page.mouse.click(*spot)
        links.first.wait_for(state="hidden")
        page.wait_for_timeout(100)
        assert page.evaluate(FOCUSED, ".primary-toggle")
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
    assert page.evaluate(FOCUSED, "#pst-secondary-sidebar-modal")
    page.keyboard.press("Escape")
    link.wait_for(state="hidden")
    page.wait_for_timeout(100)
    assert page.evaluate(FOCUSED, ".secondary-toggle")
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
