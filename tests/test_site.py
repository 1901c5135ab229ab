"""The last hand on a site: what is taken away, what is packed, and what a browser is told to refuse."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import sys

import numpy as np
import pytest
from PIL import Image

from kdas_book.build.pages import finish
from kdas_book.build.pdf import browser, print_book
from kdas_book.build.site import address
from kdas_core import UserError

HEAD = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8" /><meta name="viewport" content="a"><meta name="viewport" content="b">'
    "<title>2. The teacher &#8212; A book</title><script>let hint = 'a < b';</script><script>let hint = 'a < b';</script>"
    '<script defer src="../_static/scripts/fontawesome.js?digest=1"></script><script src="../_static/site.js"></script>'
    '<script src="../_static/documentation_options.js"></script>'
    '<script>const THEBE_JS_URL = "https://unpkg.com/thebe"; const more = ".cell"</script>'
    '<script async="async" src="../_static/sphinx-thebe.js?v=1"></script></head>'
)
CHAPTER = (
    "<body><h1>2. The teacher</h1><p><strong>You will learn</strong></p><ul><li><p>how <em>attention</em> &amp; size go together;</p></li></ul>"
    '<button onclick="window.print()"></button><button onclick="toggleFullScreen()"></button>'
    '<img alt="A map" src="../_images/map.png" /><a href="../_images/map.png">large</a>'
    '<img src="data:image/webp;base64,{frame}" alt="One" loading="lazy"><img src="data:image/webp;base64,{frame}" alt="Two" hidden>'
    '<script type="text/x-thebe-config">{{ "kernel": "x" }}</script><script>kernelName = \'python3\'</script></body></html>'
)


def webp(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(buffer, format="webp", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def site(tmp_path):
    for folder in ("book", "_images", "_static/scripts"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (
        "scripts/fontawesome.js",
        "scripts/bootstrap.js",
        "scripts/bootstrap.js.map",
        "sphinx-thebe.js",
    ):
        (tmp_path / "_static" / name).touch()
    drawing = np.full((60, 90, 3), 255, np.uint8)
    drawing[30] = 0
    Image.fromarray(drawing).save(tmp_path / "_images" / "map.png", compress_level=0)
    frame = base64.b64encode(webp(9)).decode()
    (tmp_path / "book" / "02_teacher.html").write_text(HEAD + CHAPTER.format(frame=frame))
    (tmp_path / "book" / "faq.html").write_text(
        f"{HEAD}<body><h1>Questions</h1><p>{'Why so? ' * 60}</p></body></html>"
    )
    return tmp_path


def page(site, name="02_teacher") -> str:
    return (site / "book" / f"{name}.html").read_text()


def test_what_runs_elsewhere_or_twice_is_gone_and_the_rest_stays(site):
    finish(site)
    text = page(site)
    for gone in ("thebe", "unpkg", "fontawesome", "kernelName", "onclick"):
        assert gone not in text
    assert text.count("let hint") == 1 and text.count("viewport") == 1
    assert '<script defer src="../_static/site.js">' in text  # and shown before its scripts run
    assert (
        '<script src="../_static/documentation_options.js">' in text
    )  # but for the one that others read at once
    assert 'data-does="print"' in text and 'data-does="full-screen"' in text
    assert sorted(f.name for f in (site / "_static").rglob("*.*")) == ["bootstrap.js"]


def test_a_script_that_stands_behind_each_of_two_sliders_stays_behind_both(site):
    slider = '<figure class="kdas-explore"></figure><script>for (const box of []) {}</script>'
    (site / "book" / "faq.html").write_text(
        f"{HEAD}<body><h1>Q</h1><p>Why.</p>{slider}{slider}</body></html>"
    )
    finish(site)
    assert page(site, "faq").count("<script>for (const box") == 2


def test_pictures_are_packed_without_a_loss_where_that_is_small_and_keep_their_room(site):
    before = (site / "_images" / "map.png").stat().st_size
    finish(site)
    assert (
        not list(site.glob("_images/*.png"))
        and (site / "_images" / "map.webp").stat().st_size < before / 10
    )
    image = re.search(r'<img alt="A map"[^>]*>', page(site))[0]
    assert 'src="../_images/map.webp"' in image and 'width="90" height="60"' in image
    assert '<a href="../_images/map.webp">' in page(site)
    pixels = np.asarray(Image.open(site / "_images" / "map.webp"))
    assert (pixels[30] == 0).all() and (np.delete(pixels, 30, 0) == 255).all()


def test_pictures_of_sliders_become_files_equal_ones_a_single_file(site):
    finish(site)
    assert "base64" not in page(site)
    names = re.findall(r'src="\.\./_images/([^"]+)" alt="(?:One|Two)"', page(site))
    assert len(names) == 2 and len(set(names)) == 1
    assert (site / "_images" / names[0]).read_bytes() == webp(9)


def test_a_page_runs_its_own_scripts_and_no_others(site):
    finish(site)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page(site))[1])
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (
        rules["default-src"] == rules["base-uri"] == "'none'"
        and "unsafe" not in rules["script-src"]
    )
    body = "let hint = 'a < b';"
    assert (
        f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
        in rules["script-src"]
    )
    assert len(re.findall("sha256-", rules["script-src"])) == 1
    assert not re.search(r"https?:|\*", policy)
    assert page(site).index("Content-Security-Policy") < page(site).index(
        "<script"
    )  # it holds from there on


def test_a_page_is_described_by_its_own_beginning(site):
    finish(site)
    said = re.search(r'name="description" content="([^"]*)"', page(site))[1]
    assert html.unescape(said) == "You will learn how attention & size go together."
    long = re.search(r'name="description" content="([^"]*)"', page(site, "faq"))[1]
    assert len(long) <= 202 and long.startswith("Why so? Why so?") and long.endswith(" …")
    assert 'property="og:title" content="2. The teacher — A book"' in page(site)
    assert (
        "og:url" not in page(site) and not (site / "sitemap.xml").exists()
    )  # nobody has said where it will be


def test_with_an_address_there_are_a_map_and_cards_and_a_lost_page_that_finds_home(site):
    finish(site, "https://example.org/kdas/")
    assert 'property="og:url" content="https://example.org/kdas/book/02_teacher.html"' in page(site)
    assert 'property="og:image" content="https://example.org/kdas/_static/card.png"' in page(site)
    listed = re.findall(r"<loc>([^<]*)</loc>", (site / "sitemap.xml").read_text())
    assert listed == [
        f"https://example.org/kdas/book/{name}.html" for name in ("02_teacher", "faq")
    ]
    assert 'href="https://example.org/kdas/index.html"' in (site / "404.html").read_text()


def test_an_entry_of_the_bibliography_leads_back_to_each_page_that_cites_it(site):
    cite = '<span class="bibtex-citation" id="id{}">[<a class="reference internal" href="bibliography.html#id{}">A, 2020</a>]</span>'
    for name, title, links in (
        ("03_student", "3. The student", cite.format(2, 7) + cite.format(4, 7)),
        ("faq", "Questions", cite.format(1, 7) + cite.format(9, 8)),
    ):
        head = HEAD.replace("2. The teacher", title)
        (site / "book" / f"{name}.html").write_text(
            f"{head}<body><h1>{title}</h1><p>Of {links}.</p></body></html>"
        )
    entries = "".join(
        f'<div class="citation" id="id{n}"><p>Entry {n}.</p></div>' for n in (7, 8, 9)
    )
    (site / "book" / "bibliography.html").write_text(
        f"{HEAD}<body><h1>B</h1><p>All.</p>{entries}</body></html>"
    )
    finish(site)
    said = re.findall(r'id="(id\d)"[^>]*><p>(.*?)</p>', page(site, "bibliography"))
    assert dict(said) == {
        "id7": 'Entry 7. <span class="cited-in">Cited in <a href="03_student.html#id2">chapter 3</a>, <a href="faq.html#id1">Questions</a>.</span>',
        "id8": 'Entry 8. <span class="cited-in">Cited in <a href="faq.html#id9">Questions</a>.</span>',
        "id9": "Entry 9.",
    }


def test_keyboards_reach_long_formulas_and_signatures_are_lists(site):
    (site / "book" / "api.html").write_text(
        HEAD
        + '<body><h1>F</h1><p>Functions.</p><div class="math notranslate">x</div><dl class="py"><dt><span class="sig-paren">(</span>\n'
        '<dl>\n<dd><em class="sig-param">a</em>,</dd></dl><span class="sig-paren">)</span></dt><dd><p>Says.</p></dd></dl></body></html>'
    )
    finish(site)
    text = page(site, "api")
    assert '<div tabindex="0" class="math notranslate">' in text
    assert '<li><em class="sig-param">a</em>,</li></ul><span' in text
    assert (
        '<dl class="py">' in text and "<dd><p>Says.</p></dd></dl>" in text
    )  # a real definition stays one


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("title: a\n", ""),
        ("html:\n  baseurl:\n", ""),
        ("html: {baseurl: https://a.b/c}\n", "https://a.b/c/"),
    ],
)
def test_the_address_is_what_the_configuration_says(tmp_path, config, expected):
    (tmp_path / "_config.yml").write_text(config)
    assert address(tmp_path) == expected


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
