"""The site: executed chapters through Jupyter Book, then finished.

Jupyter Book's pages load a script for each icon of a font, an address of another host in a variable, and pictures that nobody has
packed. ``finish`` takes away what is not used, packs the pictures, and tells the browser to refuse whatever does not lie beside the page.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import yaml
from PIL import Image

from kdas_core import UserError
from kdas_core.execution import BuildError
from kdas_core.widgets import as_webp

EXECUTION = "execution_table.md"  # written beside book/execution.md, which includes it

# --- what Jupyter Book reads ------------------------------------------------------------------------------------------


def executed_copy(root: Path, notebook: Path) -> Path:
    """Where a chapter lies after it has been run."""
    return root / "_build" / "executed" / notebook.name


def note(executed: Path, peak_mb: float, machine: str) -> None:
    """Keep in an executed chapter what papermill does not: its peak memory, and the machine in words."""
    page = nbformat.read(executed, as_version=4)
    page.metadata["kdas"] = {"peak_mb": round(peak_mb), "machine": machine}
    nbformat.write(page, executed)


def stage(root: Path, notebooks: Sequence[Path]) -> Path:
    """Put together what Jupyter Book reads: the text pages as they are, the chapters as they were executed.

    The cell of parameters that papermill adds is left off the page, and what papermill notes of folders: the panel that every chapter
    prints says the rest.

    Raises:
        UserError: a chapter has not been run.
    """
    folder, rows, contents = root / "_build" / "stage", [], {}
    for file in [root / "_config.yml", root / "_toc.yml", *sorted((root / "book").rglob("*"))]:
        if file.is_file() and file.suffix != ".ipynb":
            contents[folder / file.relative_to(root)] = file.read_bytes()
    for notebook in notebooks:
        executed = executed_copy(root, notebook)
        if not executed.is_file():
            raise UserError(
                f"{executed} does not exist, so chapter {notebook.stem} has not been run; run the book first."
            )
        page = nbformat.read(executed, as_version=4)
        rows.append(_execution(notebook, page))
        contents[folder / notebook.relative_to(root)] = nbformat.writes(_without_our_machine(page)).encode()
    head = "| chapter | preset | seed | time | peak memory | machine | run on |\n|---|---|---|---|---|---|---|\n"
    contents[folder / "book" / EXECUTION] = (head + "".join(rows)).encode()
    _put(folder, contents)
    return folder


def _put(folder: Path, contents: dict[Path, bytes]) -> None:
    """Make the folder hold just these files; one that is there already keeps its date, by which Sphinx knows what is new."""
    for old in folder.rglob("*"):
        if old.is_file() and old not in contents:
            old.unlink()
    for file, content in contents.items():
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _execution(notebook: Path, page: nbformat.NotebookNode) -> str:
    """How a chapter was run: a row of the table that ``book/execution.md`` shows."""
    ran, more = page.metadata.get("papermill", {}), page.metadata.get("kdas", {})
    given, seconds = ran.get("parameters", {}), round(ran.get("duration") or 0)
    memory = f"{more['peak_mb'] / 1024:.1f} GB" if "peak_mb" in more else ""
    cells = [given.get("preset", ""), given.get("seed", ""), f"{seconds // 60}:{seconds % 60:02d}", memory]
    cells += [more.get("machine", ""), (ran.get("start_time") or "")[:10]]
    return f"| [{notebook.stem}]({notebook.name}) | {' | '.join(str(cell) for cell in cells)} |\n"


def _without_our_machine(page: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Folders of this machine, and widgets, which are dead without a kernel: the only ones were bars that showed some progress."""
    page.cells = [cell for cell in page.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for ours in ("widgets", "papermill", "kdas"):
        page.metadata.pop(ours, None)
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
            ]
    return page


def build_site(root: Path, notebooks: Sequence[Path], fresh: bool = True) -> Path:
    """Render the staged book to ``_build/html``; every warning counts as an error, and all of them are listed.

    What Sphinx writes is kept in ``_build/rendered``, and a finished copy of it becomes the site, so an earlier site stays until the
    new one is whole.

    Args:
        fresh: read and write every page, which is what finds every broken reference; False: only those that changed.

    Returns:
        The site's first page.

    Raises:
        BuildError: Jupyter Book failed or warned. The log is kept in ``_build/site.log``.
    """
    source, rendered = stage(root, notebooks), root / "_build" / "rendered"
    if fresh:
        shutil.rmtree(rendered, ignore_errors=True)
    try:
        _render(source, rendered, root / "_build" / "site.log")
    except BuildError:
        shutil.rmtree(rendered, ignore_errors=True)  # a page with a warning would not be read again, and would pass
        raise
    site, new = root / "_build" / "html", root / "_build" / "html-new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(rendered / "_build" / "html", new)
    finish(new, address(root), site / "_images")
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)
    return site / "index.html"


def _render(source: Path, rendered: Path, log: Path) -> None:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(source), "--path-output", str(rendered), "--warningiserror", "--keep-going"]
    with log.open("w", encoding="utf-8") as out:
        environment = os.environ | {"PYTHONUTF8": "1", "NO_COLOR": "1"}
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False)
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8"))
    text = text.replace(f"{source}{os.sep}", "")
    text = re.sub(r"\.ipynb:(\d+)\d{4}\b", r".ipynb, cell \1", text)  # MyST-NB counts 10,000 lines to a cell
    complaints = [line for line in text.splitlines() if re.search(r"\b(WARNING|ERROR)\b", line)]
    if done.returncode or complaints or not (rendered / "_build" / "html" / "index.html").is_file():
        listed = "\n".join(f"    {line}" for line in complaints or text.splitlines()[-20:])
        raise BuildError(f"The site was not built cleanly; the whole log is {log}.\n{listed}")


def address(root: Path) -> str:
    """Where the site will be, from ``_config.yml``; empty as long as nobody has said so."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    given = str((config.get("html") or {}).get("baseurl") or "").rstrip("/")
    return given and f"{given}/"


# --- the last hand ----------------------------------------------------------------------------------------------------

# Not used here: cells that run on a server elsewhere, a script of 1.5 MB that draws icons (our style sheet takes them from the
# theme's font), maps for debuggers.
_UNUSED = (
    r"<script>const THEBE_JS_URL.*?</script>",
    r'<script[^>]*src="[^"]*/sphinx-thebe\.js[^>]*></script>',
    r'<link[^>]*href="[^"]*/sphinx-thebe\.css[^>]*>',
    r'<script type="text/x-thebe-config">.*?</script>',
    r"<script>kernelName = .*?</script>",
    r'<script[^>]*src="[^"]*/fontawesome\.js[^>]*></script>',
)
_UNUSED_FILES = ("sphinx-thebe.*", "fontawesome.js*", "*.js.map", "*.css.map")
# Handlers in attributes would need a browser that runs any script; book/_static/site.js listens instead.
_HANDLERS = {'onclick="window.print()"': 'data-does="print"', 'onclick="toggleFullScreen()"': 'data-does="full-screen"'}

# A formula that is too long scrolls in its own box, so the keyboard must get there; the other two are roles that do not fit where
# they stand.
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
    packed = {picture.name: _packed(picture, earlier) for picture in sorted((site / "_images").glob("*.png"))}
    pages = sorted(site.rglob("*.html"))
    cited = _citations(pages)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for change in (
            _without_the_unused,
            _accessible,
            functools.partial(_cited_in, places=cited.get(page.resolve(), {})),
            functools.partial(_with_pictures_beside, site=site, page=page, packed=packed),
            functools.partial(_described, at=address and address + page.relative_to(site).as_posix(), home=address),
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
        r'<script (?![^>]*\b(?:async|defer)\b)(?=[^>]*\bsrc="(?![^"]*documentation_options))', "<script defer ", text
    )
    # Once each, but in the head alone: the script behind a slider is needed behind each of them.
    head, end, body = text.partition("</head>")
    head = _once(r"<script>(?:(?!</script>).)*</script>", head)
    return _once(r'<meta name="viewport"[^>]*>', head, lambda tag: "viewport") + end + body


def _accessible(text: str) -> str:
    """What keeps a screen reader or a keyboard from something."""
    for before, after in _ACCESS.items():
        text = text.replace(before, after)

    def as_list(match: re.Match[str]) -> str:  # Sphinx writes a definition list that defines nothing
        items = match[2].replace("<dd>", "<li>").replace("</dd>", "</li>")
        return f'{match[1]}<ul class="sig-params">{items}</ul>'

    return re.sub(r'(<span class="sig-paren">\(</span>\s*)<dl>(.*?)</dl>', as_list, text, flags=re.DOTALL)


def _citations(pages: Sequence[Path]) -> dict[Path, dict[str, list[str]]]:
    """For each page with a bibliography and each entry in it: links to where it is first cited, one for each page that cites it."""
    cited: dict[Path, dict[str, list[str]]] = {}
    for page in pages:
        text, here, seen = page.read_text(encoding="utf-8"), "", set()
        title = _plain(_first(r"<title>(.*?)(?: — | &#8212; |</title>)", text))
        name = f"chapter {title.partition('.')[0]}" if re.match(r"\d+\. ", title) else title
        for match in re.finditer(r'<span class="bibtex-citation" id="(id\d+)">|href="([^"#]+)#(id\d+)"', text):
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
        text = (
            f'{before}{found}{said} <span class="cited-in">Cited in {", ".join(links)}.</span>{end}{rest}'
            if end
            else text
        )
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
    """The picture as WebP in place of the PNG: without a loss, or, where that is large (photographs), with a small one."""
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


def _with_pictures_beside(text: str, site: Path, page: Path, packed: dict[str, tuple[str, tuple[int, int]]]) -> str:
    """Names of packed pictures, room kept for each until it is there, and pictures of sliders in files of their own."""
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
    return re.sub(r"_images/([\w.-]+\.png)", lambda m: f"_images/{packed.get(m[1], (m[1],))[0]}", text)


# --- words for those who find the page, and the browser's rules -----------------------------------------------------------


def _described(text: str, at: str, home: str) -> str:
    """Description and card, from the page's own beginning."""
    title, said = _plain(_first(r"<title>(.*?)</title>", text)), _beginning(text)
    facts: dict[str, Any] = {"og:title": title, "og:description": said, "og:type": "article", "og:url": at}
    facts |= {"og:image": home and f"{home}_static/card.png", "twitter:card": home and "summary_large_image"}
    tags = [f'<meta name="description" content="{html.escape(said)}">'] if said else []
    tags += [f'<meta property="{name}" content="{html.escape(value)}">' for name, value in facts.items() if value]
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
    bodies = dict.fromkeys(re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", text, flags=re.DOTALL))
    hashes = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
    policy = _POLICY.format(scripts=" ".join(f"'sha256-{value}'" for value in hashes))
    tag = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return re.sub(r"(<meta charset=[^>]*>)", lambda match: match[1] + tag, text, count=1)


def _lost_page(address: str) -> str:
    """Served for addresses that do not exist, whatever their depth; so it brings its own style and names the first page in full."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Not found</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="description" content="No such page.">'
        "<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}"
        "@media(prefers-color-scheme:dark){body{background:#121212;color:#ced6dd}a{color:#8fb8ff}}</style></head>"
        f'<body><main><h1>There is no page here</h1><p>It may have moved to another chapter. <a href="{address}index.html">The '
        "first page</a> lists all of them.</p></main></body></html>\n"
    )


_SITEMAP = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{}</urlset>\n'
)


# --- on this machine --------------------------------------------------------------------------------------------------


class _Pages(SimpleHTTPRequestHandler):
    """Files of a folder, and its 404.html for what is not there."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        lost = Path(self.directory) / "404.html"
        if code != HTTPStatus.NOT_FOUND or not lost.is_file():
            return super().send_error(code, message, explain)
        body = lost.read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Nothing: one reader at the same desk needs no log."""


def server(site: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the site for this machine alone; ``server_port`` says where, and its caller starts and closes it.

    Raises:
        UserError: no site was built, or the port is taken.
    """
    if not (site / "index.html").is_file():
        raise UserError(f"{site} holds no site; make book builds one.")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Pages, directory=str(site)))
    except OSError as error:
        raise UserError(f"Port {port} cannot be used ({error.strerror}); name another one with --port.") from None


def serve(site: Path, port: int) -> None:
    """Show the site until Ctrl-C."""
    with server(site, port) as running:
        print(f"http://127.0.0.1:{running.server_port}/ shows {site} to this machine; Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            running.serve_forever()
