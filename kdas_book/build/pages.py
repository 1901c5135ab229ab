"""The last hand on the site's pages.

Jupyter Book's pages load a script for each icon of a font, an address of another host in a
variable, and pictures that nobody has packed. ``finish`` takes away what is not used, packs the
pictures, and tells the browser to refuse whatever does not lie beside the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kdas_book.explore import as_webp

# Not used here: cells that run on a server elsewhere, a script of 1.5 MB that draws icons (our
# style sheet takes them from the theme's font), maps for debuggers.
_UNUSED = (
    r"<script>const THEBE_JS_URL.*?</script>",
    r'<script[^>]*src="[^"]*/sphinx-thebe\.js[^>]*></script>',
    r'<link[^>]*href="[^"]*/sphinx-thebe\.css[^>]*>',
    r'<script type="text/x-thebe-config">.*?</script>',
    r"<script>kernelName = .*?</script>",
    r'<script[^>]*src="[^"]*/fontawesome\.js[^>]*></script>',
)
_UNUSED_FILES = ("sphinx-thebe.*", "fontawesome.js*", "*.js.map", "*.css.map")
# Handlers in attributes would need a browser that runs any script; book/_static/site.js listens
# instead.
_HANDLERS = {
    'onclick="window.print()"': 'data-does="print"',
    'onclick="toggleFullScreen()"': 'data-does="full-screen"',
}

# A formula that is too long scrolls in its own box, so the keyboard must get there; the other two
# are roles that do not fit where they stand.
_ACCESS = {
    '<div class="math': '<div tabindex="0" class="math',
    ' role="list" class="citation-list"': ' class="citation-list"',
    ' role="doc-biblioentry"': "",
}

_POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'"
)


def finish(site: Path, address: str = "", earlier: Path | None = None) -> None:
    """Finish the pages of a site in place.

    Args:
        address: where the site will be; with one there are a site map and addresses for cards.
        earlier: a folder of pictures that were packed before.
    """
    packed = {
        picture.name: _packed(picture, earlier)
        for picture in sorted((site / "_images").glob("*.png"))
    }
    pages = sorted(site.rglob("*.html"))
    cited = _citations(pages)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for change in (
            _without_the_unused,
            _accessible,
            functools.partial(_cited_in, places=cited.get(page.resolve(), {})),
            functools.partial(_with_pictures_beside, site=site, page=page, packed=packed),
            functools.partial(
                _described, at=address and address + page.relative_to(site).as_posix(), home=address
            ),
            _guarded,
        ):
            text = change(text)
        page.write_text(text, encoding="utf-8")
    for pattern in _UNUSED_FILES:
        for file in (site / "_static").rglob(pattern):
            file.unlink()
    (site / "404.html").write_text(_guarded(_lost_page(address)), encoding="utf-8")
    if address:
        listed = [address + page.relative_to(site).as_posix() for page in pages]
        (site / "sitemap.xml").write_text(
            _SITEMAP.format("".join(f"<url><loc>{html.escape(u)}</loc></url>" for u in listed))
        )


def _without_the_unused(text: str) -> str:
    for pattern in _UNUSED:
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    for before, after in _HANDLERS.items():
        text = text.replace(before, after)
    # A page is shown before its scripts run. The inline ones need one of them at once.
    text = re.sub(
        r'<script (?![^>]*\b(?:async|defer)\b)(?=[^>]*\bsrc="(?![^"]*documentation_options))',
        "<script defer ",
        text,
    )
    # Once each, but in the head alone: the script behind a slider is needed behind each of them.
    head, end, body = text.partition("</head>")
    head = _once(r"<script>(?:(?!</script>).)*</script>", head)
    return _once(r'<meta name="viewport"[^>]*>', head, lambda tag: "viewport") + end + body


def _accessible(text: str) -> str:
    """What keeps a screen reader or a keyboard from something."""
    for before, after in _ACCESS.items():
        text = text.replace(before, after)

    def as_list(
        match: re.Match[str],
    ) -> str:  # Sphinx writes a definition list that defines nothing
        items = match[2].replace("<dd>", "<li>").replace("</dd>", "</li>")
        return f'{match[1]}<ul class="sig-params">{items}</ul>'

    return re.sub(
        r'(<span class="sig-paren">\(</span>\s*)<dl>(.*?)</dl>', as_list, text, flags=re.DOTALL
    )


def _citations(pages: Sequence[Path]) -> dict[Path, dict[str, list[str]]]:
    """For each page with a bibliography and each entry in it: links to where it is first cited, one
    for each page that cites it.
    """
    cited: dict[Path, dict[str, list[str]]] = {}
    for page in pages:
        text, here, seen = page.read_text(encoding="utf-8"), "", set()
        title = _plain(_first(r"<title>(.*?)(?: — | &#8212; |</title>)", text))
        name = f"chapter {title.partition('.')[0]}" if re.match(r"\d+\. ", title) else title
        for match in re.finditer(
            r'<span class="bibtex-citation" id="(id\d+)">|href="([^"#]+)#(id\d+)"', text
        ):
            here = match[1] or here
            if match[3] and here and (match[2], match[3]) not in seen:
                seen.add((match[2], match[3]))
                target = (page.parent / match[2]).resolve()
                link = f'<a href="{os.path.relpath(page.resolve(), target.parent)}#{here}">{html.escape(name)}</a>'
                cited.setdefault(target, {}).setdefault(match[3], []).append(link)
    return cited


def _cited_in(text: str, places: dict[str, list[str]]) -> str:
    """An entry of the bibliography with links back to the text."""
    for entry, links in places.items():
        before, found, after = text.partition(f'<div class="citation" id="{entry}"')
        said, end, rest = after.partition("</p>")
        if end:
            text = f'{before}{found}{said} <span class="cited-in">Cited in {", ".join(links)}.</span>{end}{rest}'
    return text


def _once(pattern: str, text: str, key: Callable[[str], str] = lambda tag: tag) -> str:
    """Of tags that match and have the same key, the first; the theme writes some twice."""
    seen: set[str] = set()

    def keep(match: re.Match[str]) -> str:
        tag = match[0]
        if key(tag) in seen:
            return ""
        seen.add(key(tag))
        return tag

    return re.sub(pattern, keep, text, flags=re.DOTALL)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _packed(picture: Path, earlier: Path | None) -> tuple[str, tuple[int, int]]:
    """The picture as WebP in place of the PNG: without a loss, or, where that is large
    (photographs), with a small one.
    """
    target = picture.with_suffix(".webp")
    named_by_content = re.fullmatch("[0-9a-f]{64}", picture.stem)
    if earlier and named_by_content and (earlier / target.name).is_file():
        shutil.copy2(earlier / target.name, target)
    else:
        with Image.open(picture) as image:
            target.write_bytes(as_webp(image.convert("RGBA" if "A" in image.getbands() else "RGB")))
    picture.unlink()
    with Image.open(target) as image:
        return target.name, image.size


def _with_pictures_beside(
    text: str, site: Path, page: Path, packed: dict[str, tuple[str, tuple[int, int]]]
) -> str:
    """Names of packed pictures, room kept for each until it is there, and pictures of sliders in
    files of their own.
    """
    up = "../" * (len(page.relative_to(site).parts) - 1)

    def beside(match: re.Match[str]) -> str:
        name = f"{hashlib.sha256(match[1].encode()).hexdigest()[:32]}.webp"
        (site / "_images").mkdir(exist_ok=True)
        (site / "_images" / name).write_bytes(base64.b64decode(match[1]))
        return f'src="{up}_images/{name}"'

    def with_room(match: re.Match[str]) -> str:
        name, (width, height) = packed.get(match[2], (match[2], (0, 0)))
        room = f' width="{width}" height="{height}" loading="lazy"' if width else ""
        return f'{match[1]}_images/{name}"{room}'

    text = re.sub(r'src="data:image/webp;base64,([^"]+)"', beside, text)
    text = re.sub(r'(<img\b[^>]*\bsrc="(?:\.\./)*)_images/([\w.-]+)"', with_room, text)
    return re.sub(
        r"_images/([\w.-]+\.png)", lambda m: f"_images/{packed.get(m[1], (m[1],))[0]}", text
    )


# --- words for those who find the page, and the browser's rules -----------------------------------------------------------


def _described(text: str, at: str, home: str) -> str:
    """Description and card, from the page's own beginning."""
    title, said = _plain(_first(r"<title>(.*?)</title>", text)), _beginning(text)
    facts: dict[str, Any] = {
        "og:title": title,
        "og:description": said,
        "og:type": "article",
        "og:url": at,
    }
    facts |= {
        "og:image": home and f"{home}_static/card.png",
        "twitter:card": home and "summary_large_image",
    }
    tags = [f'<meta name="description" content="{html.escape(said)}">'] if said else []
    tags += [
        f'<meta property="{name}" content="{html.escape(value)}">'
        for name, value in facts.items()
        if value
    ]
    return text.replace("</title>", "</title>" + "".join(tags), 1)


def _beginning(text: str, length: int = 200) -> str:
    """What a chapter's first promise says, or a page's first sentences."""
    article = _first(r"</h1>(.*)", text)
    first = _plain(_first(r"<p>(.*?)</p>", article))
    if first == "You will learn":
        first = f"You will learn {_plain(_first(r'<li><p>(.*?)</p>', article)).rstrip(';.')}."
    return first if len(first) <= length else first[:length].rsplit(" ", 1)[0].rstrip(",;:") + " …"


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, flags=re.DOTALL)
    return found[1] if found else ""


def _plain(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", markup)).split())


def _guarded(text: str) -> str:
    """A policy that lets a page run its own scripts and load its neighbours, and nothing else."""
    bodies = dict.fromkeys(
        re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    )
    hashes = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
    policy = _POLICY.format(scripts=" ".join(f"'sha256-{value}'" for value in hashes))
    tag = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return re.sub(r"(<meta charset=[^>]*>)", lambda match: match[1] + tag, text, count=1)


def _lost_page(address: str) -> str:
    """Served for addresses that do not exist, whatever their depth; so it brings its own style and
    names the first page in full.
    """
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Not found</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="description" content="No such page.">'
        "<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}"
        "@media(prefers-color-scheme:dark){body{background:#121212;color:#ced6dd}a{color:#8fb8ff}}</style></head>"
        f'<body><main><h1>There is no page here</h1><p>It may have moved to another chapter. <a href="{address}index.html">The '
        "first page</a> lists all of them.</p></main></body></html>\n"
    )


_SITEMAP = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{}</urlset>\n'
