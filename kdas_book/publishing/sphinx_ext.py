"""Sphinx extension: pages carry only what they use, and refuse what is not of the site."""

import base64
import hashlib
import html
import os
import re
import shutil
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bs4 import BeautifulSoup
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

from kdas_book.explore import as_webp

# Cells that run on a server elsewhere, and a script of 1.5 MB for icons that the theme's font has.
UNUSED = ("thebe", "THEBE", "kernelName", "fontawesome.js")
# A policy allows no handlers in attributes; book/_static/site.js listens instead.
HANDLERS = {"window.print()": "print", "toggleFullScreen()": "full-screen"}
POLICY = (
    "default-src 'none'; script-src 'self' {}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'"
)


def configure(app: Sphinx, config: Config) -> None:
    """Addresses, which only a book has that knows where its site will be."""
    base = config.html_baseurl and config.html_baseurl.rstrip("/") + "/"
    config.notfound_urls_prefix = urlsplit(base).path or "/"
    config.ogp_site_name = config.html_title
    if base:
        config.html_baseurl = config.ogp_site_url = base
        config.ogp_image = f"{base}_static/card.png"
        config.sitemap_url_scheme = "{link}"
        config.sitemap_excludes = ["404.html", "genindex.html", "search.html"]


def describe(app: Sphinx, pagename: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """A page is described by its first sentences, a chapter by the first thing to learn in it."""
    if tree:
        text = next((p.astext() for p in tree.findall(nodes.paragraph)), "")
        if text == "You will learn":
            text += f" {next(tree.findall(nodes.list_item)).astext().rstrip(';.')}."
        said = html.escape(textwrap.shorten(text, 200, placeholder=" …"))
        context["metatags"] += f'<meta name="description" content="{said}">'
        context["meta"] = {**(context["meta"] or {}), "og:description": said}


def link_chapters(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], tree: Any
) -> None:
    """A chapter begins with a strip of links to all of them."""
    pages = app.env.toctree_includes.get(app.config.root_doc, [])
    numbered = {page: found for page in pages if (found := re.search(r"/0?(\d+)_(\w+)$", page))}
    if pagename in numbered:
        strip = BeautifulSoup('<nav class="chapters" aria-label="Chapters"></nav>', "html.parser")
        for page, found in numbered.items():
            title = app.env.titles[page].astext()
            link = strip.new_tag(
                "a", href=app.builder.get_relative_uri(pagename, page), title=title
            )
            if page == pagename:
                link["aria-current"] = "page"
            number, name = strip.new_tag("b"), strip.new_tag("span")
            number.string, name.string = found[1], found[2].replace("_", " ")
            link.extend([number, " ", name])
            strip.nav.append(link)
        context["body"] = f"{strip}{context['body']}"


def cite_back(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """An entry of the bibliography links to where it is first cited, on each page that does so."""
    domain: Any = app.env.get_domain("cite")
    first: dict[str, dict[str, str]] = defaultdict(dict)  # of a key: page → anchor
    for ref in domain.citation_refs:
        for target in ref.targets:
            first[target.key].setdefault(ref.docname, ref.citation_ref_id)
    keys = {c.citation_id: c.key for c in domain.citations if c.bibliography_key.docname == docname}
    for entry in tree.findall(nodes.citation):
        note = nodes.inline(classes=["cited-in"])
        for page, anchor in sorted(first[keys.get(entry["ids"][0], "")].items()):
            title = app.env.titles[page].astext()
            name = re.sub(r"^(\d+)\. .*", r"chapter \1", title, flags=re.S)
            uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
            note += nodes.Text(", " if note.children else " Cited in ")
            note += nodes.reference("", name, internal=True, refuri=uri)
        if note.children:
            note += nodes.Text(".")
            entry[-1] += note


def number_exercises(app: Sphinx, env: Any) -> list[str]:
    """Exercise 5.2 is the second one of chapter 5, as its label ``ex-05-2`` says."""
    for numbers in env.toc_fignumbers.values():
        for label in numbers.get("exercise", {}):
            if found := re.fullmatch(r"ex-(\d+)-(\d+)", label):
                numbers["exercise"][label] = (int(found[1]), int(found[2]))
    return []  # no page is read anew for that


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
            pack_pictures(soup, page, site / "_images", earlier)
            guard(soup)
            page.write_text(str(soup), encoding="utf-8")


def load_less(soup: Any) -> None:
    """Drop what is not used or stands twice in the head; a page is shown before scripts run."""
    seen: set[str] = set()
    for tag in soup(["script", "link"]):
        text = str(tag)
        if any(word in text for word in UNUSED) or (tag.parent is soup.head and text in seen):
            tag.decompose()
        seen.add(text)
    # What documentation_options defines, the inline scripts behind it need at once.
    for tag in soup.select('script[src]:not([async], [src*="documentation_options"])'):
        tag["defer"] = ""
    local = 'meta[property="og:url"]:not([content^="http"])'
    for tag in soup.select(f'meta[name="viewport"] ~ meta[name="viewport"], {local}'):
        tag.decompose()


def make_accessible(soup: Any) -> None:
    """What keeps a screen reader, a keyboard or the policy from something."""
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


def guard(soup: Any) -> None:
    """A policy that lets a page run its own scripts and load its neighbours, and nothing else."""
    bodies = dict.fromkeys(tag.string or "" for tag in soup("script") if "src" not in tag.attrs)
    digests = (base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies)
    policy = POLICY.format(" ".join(f"'sha256-{digest}'" for digest in digests))
    tag = soup.new_tag("meta", attrs={"http-equiv": "Content-Security-Policy", "content": policy})
    soup.head.find("meta", charset=True).insert_after(tag)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx, which gets the site map only where it is known what to write into one."""
    if app.config.html_baseurl:
        app.setup_extension("sphinx_sitemap")
    app.connect("config-inited", configure)
    app.connect("html-page-context", describe, priority=400)  # before opengraph reads it
    app.connect("html-page-context", link_chapters)
    app.connect("env-get-updated", number_exercises, priority=900)  # after Sphinx has numbered them
    app.connect("doctree-resolved", cite_back)
    app.connect("build-finished", finish_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
