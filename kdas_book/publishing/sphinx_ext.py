"""Sphinx extension: addresses, descriptions, links between pages, formulas."""

import html
import re
import textwrap
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

import imagesize
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms import SphinxTransform
from sphinx.writers.html5 import HTML5Translator

from kdas_book.publishing.formulas import visit_displaymath, visit_math
from kdas_book.publishing.pages import finish_pages


def configure(app: Sphinx, config: Config) -> None:
    """Addresses, which only a book has that knows where its site will be."""
    base = config.html_baseurl and config.html_baseurl.rstrip("/") + "/"
    config.notfound_urls_prefix = top = urlsplit(base).path or "/"
    lost = config.notfound_context
    lost["body"] += f'<p><a href="{top}{config.root_doc}.html">To the first page</a></p>'
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
        links = ""
        for page, (number, name) in ((page, found.groups()) for page, found in numbered.items()):
            href = app.builder.get_relative_uri(pagename, page) or '#" aria-current="page'
            title = html.escape(app.env.titles[page].astext())
            name = name.replace("_", " ")
            links += f'<a href="{href}" title="{title}"><b>{number}</b> <span>{name}</span></a>'
        context["body"] = (
            f'<nav class="chapters" aria-label="Chapters">{links}</nav>' + context["body"]
        )


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


def number_by_chapter(app: Sphinx, env: Any) -> list[str]:
    """Figure 5.3 is the third one of chapter 5; exercise 5.2 is what the label ``ex-05-2`` says."""
    for page, kinds in env.toc_fignumbers.items():
        if chapter := re.search(r"/(\d+)_", page):
            for labels in kinds.values():
                for i, label in enumerate(labels, 1):
                    labels[label] = (int(chapter[1]), i)
        for label in kinds.get("exercise", {}):
            if found := re.fullmatch(r"ex-(\d+)-(\d+)", label):
                kinds["exercise"][label] = (int(found[1]), int(found[2]))
    return []  # no page is read anew for that


class NumberedTable(nodes.figure):
    """A table that a cell made, with a caption."""


class NumberOthers(SphinxTransform):
    """Sphinx numbers sliders with the figures, and what cells name ``tab-…`` as tables."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        block = re.compile(r"<figure (.*)<figcaption>(.*)</figcaption></figure>(.*)", re.S)
        sliders = (
            (raw, found)
            for raw in self.document.findall(nodes.raw)
            if "kdas-explore" in raw.astext() and (found := block.fullmatch(raw.astext().strip()))
        )
        for i, (raw, found) in enumerate(list(sliders), 1):
            live = nodes.raw("", f"<div {found[1]}</div>{found[3]}", format="html")
            words = html.unescape(found[2])
            figure = nodes.figure("", live, nodes.caption(words, words), ids=[f"slider-{i}"])
            raw.replace_self(figure)
        for figure in list(self.document.findall(nodes.figure)):
            if figure["ids"][0].startswith("tab-"):
                table = NumberedTable("", *figure.children, **figure.attributes)
                figure.replace_self(table)
                self.document.ids |= dict.fromkeys(table["ids"], table)


def link_exercises(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """ "Exercise 5.2" leads there from wherever it is named, "exercise 2" within chapter 5."""
    chapter = re.search(r"/(\d+)_", docname)
    known = getattr(app.env, "sphinx_exercise_registry", {})
    for text in list(tree.findall(nodes.Text)):
        if isinstance(text.parent, (nodes.reference, nodes.literal, nodes.title)):
            continue
        pieces: list[nodes.Node] = []
        end = 0
        for named in re.finditer(r"\b[Ee]xercise (?:(\d+)\.)?(\d+)\b", text):
            number = named[1] or (chapter[1] if chapter else 0)
            label = f"ex-{int(number):02}-{int(named[2])}"
            if place := known.get(label):
                uri = app.builder.get_relative_uri(docname, place["docname"])
                link = nodes.reference("", named[0], internal=True, refuri=f"{uri}#{label}")
                pieces += [nodes.Text(text[end : named.start()]), link]
                end = named.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def size_figures(app: Sphinx, tree: nodes.document, docname: str) -> None:
    """A figure with more pixels an inch than a screen's 96 is shown at its size in inches."""
    for image in tree.findall(nodes.image):
        file = app.srcdir / image["uri"].lstrip("/")
        if file.suffix == ".png" and file.is_file():
            (width, _), (dense, _) = imagesize.get(file), imagesize.getDPI(file)
            if dense > 96:
                image["width"] = f"{96 * width / dense:.0f}px"
                image["classes"].append("no-scaled-link")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx, which gets the site map only where it is known what to write into one."""
    if app.config.html_baseurl:
        app.setup_extension("sphinx_sitemap")
    app.add_html_math_renderer("katex", (visit_math, None), (visit_displaymath, None))
    app.add_transform(NumberOthers)
    as_figure = (HTML5Translator.visit_figure, HTML5Translator.depart_figure)
    app.add_enumerable_node(NumberedTable, "table", html=as_figure)
    app.connect("config-inited", configure, priority=950)  # after the first page is known
    app.connect("html-page-context", describe, priority=400)  # before opengraph reads it
    app.connect("html-page-context", link_chapters)
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx numbered them
    app.connect("doctree-resolved", cite_back)
    app.connect("doctree-resolved", link_exercises)
    app.connect("doctree-resolved", size_figures)
    app.connect("build-finished", finish_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
