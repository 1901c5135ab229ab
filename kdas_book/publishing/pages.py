"""Finishing of a page: it carries only what it uses, reads well, and loads nothing of others."""

import base64
import hashlib
import os
import re
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup
from PIL import Image
from sphinx.application import Sphinx

from kdas_book.deploy.in_browser import pack_model
from kdas_book.explore import as_webp
from kdas_book.publishing.formulas import FIRST_FONTS
from kdas_book.publishing.tables import set_numbers, set_table

# Cells that run on a server elsewhere, and a script of 1.5 MB for icons that the theme's font has.
UNUSED = ("thebe", "THEBE", "kernelName", "fontawesome.js")
FOR_SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
SETUP = re.compile(r"\.(begin|times)\(")
# A policy allows no handlers in attributes; book/_static/site.js listens instead.
HANDLERS = {"window.print()": "print", "toggleFullScreen()": "full-screen"}
POLICY = (
    "default-src 'none'; script-src 'self' {}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'"
)


def finish_pages(app: Sphinx, exception: Exception | None) -> None:
    """Finish the pages that were written in this build."""
    if exception:
        return
    site, earlier = Path(app.outdir), Path(app.srcdir).parent / "html" / "_images"
    for page in site.rglob("*.html"):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        if soup.head and not soup.head.find("meta", {"http-equiv": True}):
            load_less(soup)
            make_accessible(soup)
            fold_setup(soup)
            for table in soup.select("article table:not(.genindextable, .kdas-map table)"):
                set_table(table)
            if soup.article:
                set_numbers(soup.article)
            fill_cards(soup, page)
            pack_pictures(soup, page, site / "_images", earlier)
            guard(soup, runs=pack_model(soup, page, site / "_static"))
            page.write_text(str(soup), encoding="utf-8")


def load_less(soup: Any) -> None:
    """Drop what is not used or stands twice in the head; a page is shown before scripts run."""
    seen: set[str] = set()
    unused = UNUSED if soup.select_one("#search-results") else (*UNUSED, *FOR_SEARCH)
    for tag in soup(["script", "link"]):
        text = str(tag)
        if any(word in text for word in unused) or (tag.parent is soup.head and text in seen):
            tag.decompose()
        seen.add(text)
    # What documentation_options defines, the inline scripts behind it need at once.
    for tag in soup.select('script[src]:not([async], [src*="documentation_options"])'):
        tag["defer"] = ""
    style = soup.select_one('link[href*="katex.min.css"]')
    if style and not soup.select_one(".katex"):
        style = style.decompose()
    text = soup.select_one('link[href*="custom.css"]')
    for tag, fonts in ((text, ("text.woff2",)), (style, FIRST_FONTS)):
        for font in fonts if tag else ():  # they come along with the style sheet, not after it
            href = re.sub(r"[\w.]+\.css.*", f"fonts/{font}", tag["href"])
            kind = {"rel": "preload", "as": "font", "type": "font/woff2", "crossorigin": ""}
            tag.insert_before(soup.new_tag("link", href=href, attrs=kind))
    local = 'meta[property="og:url"]:not([content^="http"])'
    for tag in soup.select(f'meta[name="viewport"] ~ meta[name="viewport"], {local}'):
        tag.decompose()


def make_accessible(soup: Any) -> None:
    """What keeps a screen reader, a keyboard or the policy from something."""
    for fold in soup.select("summary:has(.toctree-toggle)"):
        fold["aria-label"] = "The pages within"
    for button in soup.select("[onclick]"):
        button["data-does"] = HANDLERS[button.attrs.pop("onclick")]
    if header := soup.select_one("#pst-header"):  # repeats the search, and buttons that others need
        header.clear()
    for panel, label in (("primary", "Menu"), ("secondary", "Contents of this page")):
        for button in soup.select(f".{panel}-toggle"):
            button.attrs |= {"aria-label": label, "title": label, "aria-expanded": "false"}
            button["aria-controls"] = f"pst-{panel}-sidebar"
    for formula in soup.select("div.math"):  # a long one scrolls in its own box
        formula["tabindex"] = "0"
    for tag in soup.select('.citation-list, [role="doc-biblioentry"]'):
        del tag["role"]
    for listing in soup.select(".sig-paren + dl"):  # a definition list that defines nothing
        listing.name = "ul"
        listing["class"] = "sig-params"
        for item in listing("dd", recursive=False):
            item.name = "li"


def fold_setup(soup: Any) -> None:
    """A chapter's parameters, imports and times in one line that opens; the code behind a sentence
    or a table in a small sign.
    """
    for sign in soup.select("details.above-input > summary"):
        sign.parent["class"], sign.string = ["source"], "</>"
        sign["aria-label"] = sign["title"] = "Code of what follows"
    if first := soup.select_one(".cell.tag_parameters"):
        begins = [first, *takewhile(lambda tag: tag.name != "section", first.find_next_siblings())]
        last = max(i for i, tag in enumerate(begins) if not i or SETUP.search(tag.get_text()))
        fold = first.insert_before(soup.new_tag("details", attrs={"class": "setup"}))[0]
        said = soup.new_tag("summary")
        said.string = "Setup: parameters, imports, time and memory"
        fold.extend([said, *begins[: last + 1]])


def fill_cards(soup: Any, page: Path) -> None:
    """The card of a chapter shows the figure that it names, and how long the chapter is read."""
    for named in soup.select('.chapter-cards a[href*="#fig-"]'):
        name, _, figure = named["href"].partition("#")
        chapter = BeautifulSoup((page.parent / name).read_text(encoding="utf-8"), "html.parser")
        for formula in chapter.select(".katex"):
            formula.decompose()
        words = sum(len(text.get_text().split()) for text in chapter.select("article p"))
        named.find_parent(class_="sd-card").insert(0, chapter.select_one(f"#{figure} img"))
        named.replace_with(f"{max(1, round(words / 200))} min")  # 200 words a minute


def pack_pictures(soup: Any, page: Path, images: Path, earlier: Path) -> None:
    """Pictures become WebP files, with room kept for each until it is there."""
    for picture in soup.select('img[src^="data:image/webp"], img[src*="_images/"][src$=".png"]'):
        if picture["src"].startswith("data:"):
            frame = base64.b64decode(picture["src"].partition(";base64,")[2])
            file = images / f"{hashlib.sha256(frame).hexdigest()[:32]}.webp"
            images.mkdir(exist_ok=True)
            file.write_bytes(frame)
        else:
            file = packed(images / Path(picture["src"]).name, earlier)
        picture["src"] = os.path.relpath(file, page.parent)
        picture["loading"] = "lazy"
        with Image.open(file) as image:
            picture["width"], picture["height"] = image.size
        if "style" in picture.attrs:  # on a narrow screen the height follows the width
            picture["style"] = picture["style"].partition(" height")[0]
    for link in soup.select('a[href*="_images/"][href$=".png"]'):
        link["href"] = link["href"].removesuffix("png") + "webp"


def packed(picture: Path, earlier: Path) -> Path:
    """The picture as WebP in place of the PNG, copied from an earlier site if it is there."""
    target = picture.with_suffix(".webp")
    known = earlier / target.name
    if len(picture.stem) == 64 and known.is_file():  # MyST-NB names pictures by their content
        shutil.copy2(known, target)
    elif picture.is_file():
        with Image.open(picture) as image:
            target.write_bytes(as_webp(image))
    picture.unlink(missing_ok=True)
    return target


def guard(soup: Any, runs: bool = False) -> None:
    """A policy that lets a page run its own scripts and load its neighbours, and nothing else; one
    that runs a network also lets it compile WebAssembly.
    """
    bodies = dict.fromkeys(tag.string or "" for tag in soup("script") if "src" not in tag.attrs)
    digests = (base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies)
    allowed = [f"'sha256-{digest}'" for digest in digests] + ["'wasm-unsafe-eval'"] * runs
    policy = POLICY.format(" ".join(allowed))
    tag = soup.new_tag("meta", attrs={"http-equiv": "Content-Security-Policy", "content": policy})
    soup.head.find("meta", charset=True).insert_after(tag)
