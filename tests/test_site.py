"""The pages of a site: what is taken away, what is packed, and what a browser is told to refuse."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import sys

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from small_book import ADDRESS, drawing, make_site, webp

from kdas_book.publishing.formulas import katex, typeset
from kdas_book.publishing.pdf import browser, print_book
from kdas_book.publishing.site import build_site
from kdas_core import UserError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The same, of a book that knows where its site will be."""
    return make_site(tmp_path_factory.mktemp("published"), ADDRESS.rstrip("/"))


def text_of(site, name="02_teacher") -> str:
    return (site / "book" / f"{name}.html").read_text()


def page(site, name="02_teacher") -> BeautifulSoup:
    return BeautifulSoup(text_of(site, name), "html.parser")


def about(site, fact: str, name="02_teacher") -> str | None:
    """What a page says of itself in its head."""
    tag = page(site, name).select_one(f'meta[name="{fact}"], meta[property="{fact}"]')
    return tag and tag["content"]


def test_what_runs_elsewhere_or_twice_is_gone_and_the_rest_stays(site):
    text, soup = text_of(site), page(site)
    for gone in ("thebe", "unpkg", "fontawesome.js", "kernelName", "onclick"):
        assert gone not in text
    assert text.count("let toggleHintShow") == 1 and text.count('name="viewport"') == 1
    inline = [tag.string for tag in soup.head("script") if not tag.get("src")]
    assert len(inline) == len(set(inline)) > 3
    at_once = [tag["src"] for tag in soup.select("script[src]:not([defer], [async])")]
    # The page is shown before its scripts run, but for the one that others read at once.
    assert len(at_once) == 1 and "documentation_options.js" in at_once[0]
    assert soup.select('script[src*="site.js"]')
    assert soup.select("[data-does=print]") and soup.select("[data-does=full-screen]")


def test_a_chapter_begins_with_links_to_all_chapters_and_no_other_page_does(site):
    strip = page(site).select_one("article nav.chapters")
    found = [(a["href"], a.get_text(), a.get("aria-current")) for a in strip("a")]
    assert found == [("#", "2 teacher", "page"), ("10_study.html", "10 study", None)]
    assert strip("a")[1]["title"] == "10. The study"
    assert not any(page(site, name).select("nav.chapters") for name in ("index", "faq", "api"))


def test_a_script_that_stands_behind_each_of_two_sliders_stays_behind_both(site):
    assert text_of(site).count("<script>for (const box") == 2


def test_pictures_are_packed_without_a_loss_where_that_is_small_and_keep_their_room(site):
    assert not list(site.glob("_images/*.png"))
    image = page(site).select_one('img[alt="A map"]')
    packed = site / "book" / image["src"]
    assert image["src"].startswith("../_images/") and image["src"].endswith(".webp")
    assert (image["width"], image["height"], image["loading"]) == ("90", "60", "lazy")
    assert packed.stat().st_size < len(drawing()) / 10
    pixels = np.asarray(Image.open(packed))
    assert (pixels[30] == 0).all() and (np.delete(pixels, 30, 0) == 255).all()


def test_a_picture_that_was_packed_before_is_taken_over(site):
    """As it is, even where packing would give another: its name is that of its content."""
    (packed,) = (f for f in site.glob("_images/*.webp") if len(f.stem) == 64)
    before, other = packed.read_bytes(), webp(7)
    packed.write_bytes(other)
    root = site.parent.parent
    try:
        chapters = [root / "book" / f"{name}.ipynb" for name in ("02_teacher", "10_study")]
        again = build_site(root, chapters).parent
        assert (again / "_images" / packed.name).read_bytes() == other
    finally:
        (site / "_images" / packed.name).write_bytes(before)


def test_pictures_of_sliders_become_files_equal_ones_a_single_file(site):
    assert "base64" not in text_of(site)
    pictures = page(site).select(".kdas-explore img")[:4]
    assert [p["alt"] for p in pictures] == ["One", "Two"] * 2
    assert ["hidden" in p.attrs for p in pictures] == [False, True] * 2
    assert len({p["src"] for p in pictures}) == 1
    assert (site / "book" / pictures[0]["src"]).read_bytes() == webp(9)


def test_an_exercise_has_the_number_of_its_chapter_and_its_solution_refers_to_that(site):
    titles = [tag.get_text(" ", strip=True) for tag in page(site).select(".admonition-title")]
    assert titles == ["Exercise 2.2 (Another)", "Solution to Exercise 2.2 (Another)"]
    assert "It is Exercise 2.2 ." in page(site).get_text(" ", strip=True)


def test_an_exercise_that_a_text_names_is_a_link_and_one_that_is_not_there_is_none(site):
    links = [(a["href"], a.text) for a in page(site).select('article a[href="#ex-02-2"]')]
    assert links[-2:] == [("#ex-02-2", "exercise 2.2"), ("#ex-02-2", "exercise 2")]
    assert "or exercise 9.9, which" in page(site).text
    (link,) = page(site, "10_study").select('article a[href="02_teacher.html#ex-02-2"]')
    assert link.text == "exercise 2.2"
    assert page(site).select("#ex-02-2") and not page(site).select(".admonition-title a a")


def test_numbers_in_text_and_tables_have_true_minus_signs_and_code_keeps_its_own(site):
    text = page(site).article.get_text(" ")
    assert "Better by −0.25, which is 0.62\u00a0±\u00a00.02 and no minus in" in text
    assert "x-1" in text and "word-1" in text
    named = page(site).select("article table.numbers")[0]
    assert [row.get_text(" ", strip=True) for row in named("tr")] == [
        "student of Dice",
        "one a word −0.50",
        "two word-1 12.25",
    ]
    marked = [[("number" in c.get("class", [])) for c in row(["td", "th"])] for row in named("tr")]
    assert marked == [[False, False, True]] * 3
    assert not named.has_attr("border") and not page(site).select("article style")


def test_the_setup_of_a_chapter_is_one_line_and_the_code_of_a_sentence_a_sign(site):
    (fold,) = page(site).select("details.setup")
    code = [cell.get_text().strip() for cell in fold.select(".cell_input")]
    assert code[0].startswith("preset") and code[-1].startswith("run.times") and len(code) == 3
    assert "open" not in fold.attrs and "Time and memory, as measured" in fold.text
    (sign,) = page(site).select("details.source > summary")
    assert sign.text == "</>" and sign["aria-label"] == "Code of what follows"
    assert "write()" in sign.parent.text and "Show code cell source" not in page(site).text


@pytest.mark.parametrize("name", ["book/02_teacher", "book/faq", "genindex", "search", "404"])
def test_a_page_runs_its_own_scripts_and_no_others(site, name):
    text = (site / f"{name}.html").read_text()
    policy = html.unescape(re.search(r'<meta content="([^"]*)" http-equiv="Content-Sec', text)[1])
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    bodies = set(re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", text, flags=re.S))
    digests = {base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies}
    assert set(re.findall("sha256-([^']+)'", rules["script-src"])) == digests
    assert not re.search(r"https?:|\*", policy)
    assert text.index("Content-Security-Policy") < text.index("<script")  # it holds from there on


def test_a_page_is_described_by_its_own_beginning(site):
    said = "You will learn how attention & size go together."
    assert about(site, "description") == about(site, "og:description") == said
    long = about(site, "description", "faq")
    assert len(long) <= 202 and long.startswith("Why so? Why so?") and long.endswith(" …")
    assert about(site, "og:title") == "2. The teacher"
    assert about(site, "og:site_name") == "Knowledge Distillation via Attention Supervision"
    # Nobody has said where it will be.
    assert "og:url" not in text_of(site) and "og:image" not in text_of(site)
    assert "http://" not in text_of(site, "faq") and not (site / "sitemap.xml").exists()


def test_with_an_address_there_are_a_map_and_cards_and_a_lost_page_that_finds_home(published):
    assert about(published, "og:url") == f"{ADDRESS}book/02_teacher.html"
    assert about(published, "og:image") == f"{ADDRESS}_static/card.png"
    assert about(published, "twitter:card") == "summary_large_image"
    listed = re.findall(r"<loc>([^<]*)</loc>", (published / "sitemap.xml").read_text())
    names = ("02_teacher", "10_study", "api", "bibliography", "faq", "glossary", "index")
    assert sorted(listed) == [f"{ADDRESS}book/{name}.html" for name in names]
    assert 'href="/kdas/book/index.html">To the first' in (published / "404.html").read_text()


def test_a_lost_page_loads_and_links_from_the_top_whatever_its_depth(site):
    soup = BeautifulSoup((site / "404.html").read_text(), "html.parser")
    assert "There is no page here" in soup.select_one("article h1").text
    assert soup.select_one('article a[href="/book/index.html"]').text == "To the first page"
    places = [tag.get("href") or tag.get("src") for tag in soup.select("[href], [src]")]
    assert len(places) > 20
    assert [place for place in places if not place.startswith(("/", "#"))] == []
    for place in places:
        if place.startswith("/"):
            assert (site / place[1:].partition("?")[0].partition("#")[0]).is_file(), place


def test_an_entry_of_the_bibliography_leads_back_to_each_page_that_cites_it(site):
    said = {}
    for entry in page(site, "bibliography").select("div.citation"):
        links = [(link["href"], link.text) for link in entry.select(".cited-in a")]
        said[re.search(r"Of (\w+)", entry.text)[1]] = links
        if links:
            shown = entry.select_one(".cited-in").text
            assert shown.strip() == f"Cited in {', '.join(name for _, name in links)}."
    assert {key: [name for _, name in links] for key, links in said.items()} == {
        "kdas": ["chapter 2", "Questions"],
        "hinton": ["chapter 2"],
        "other": [],
    }
    for links in said.values():
        for target, _ in links:
            file, anchor = target.split("#")
            place = page(site, file.removesuffix(".html")).select_one(f"#{anchor}")
            assert place.name == "span" and "bibtex-citation" in place["class"]
    first = page(site, "faq").select_one(".bibtex-citation")["id"]
    assert said["kdas"][1][0] == f"faq.html#{first}"


def test_keyboards_reach_long_formulas_and_signatures_are_lists(site):
    formulas = page(site).select("div.math")
    assert formulas and all(formula["tabindex"] == "0" for formula in formulas)
    soup = page(site, "api")
    listing = soup.select_one(".sig-paren + ul.sig-params")
    assert [item.name for item in listing.find_all(recursive=False)] == ["li"] * 4
    assert "first_of_many_arguments" in listing.li.text
    assert soup.select_one("dl.py > dd > p").text == "Says."  # a real definition stays one
    assert not page(site, "bibliography").select("[role=doc-biblioentry], .citation-list[role]")


def test_without_katex_nothing_is_begun_and_a_wrong_formula_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"Undefined control sequence: \\foo"):
        typeset(r"a + \foo{b}")
    with pytest.raises(ValueError, match="expected '}'"):
        typeset(r"\frac{a}{b")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps djangocms-katex"):
        katex()


def test_a_book_is_printed_from_a_site_and_with_the_packages_that_it_needs(
    site, tmp_path, monkeypatch
):
    with pytest.raises(UserError, match="holds no site; make book builds one"):
        print_book(tmp_path / "nowhere", [], tmp_path / "book.pdf")
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(UserError, match=r"pip install \"kdas_core\[pdf\]\""):
        print_book(site, ["book/faq.html"], tmp_path / "book.pdf")
    assert not (tmp_path / "book.pdf").exists()


def test_without_chromium_nothing_is_printed_and_the_way_to_get_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with (
        pytest.raises(UserError, match="Printing needs Chromium: playwright install chromium"),
        browser(),
    ):
        pass
