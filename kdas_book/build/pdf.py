"""The book on paper: every page of the site printed by Chromium, bound into one PDF whose links
lead to its own pages.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from kdas_book.build.site import served
from kdas_core import UserError
from kdas_core.files import atomic_write

MARGIN = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
# Each page of the site is printed alone, so its leaves are counted within it.
_FOOT = (
    '<div style="font-size:8px;width:100%;text-align:center;color:#555"><span class="title"></span> · '
    '<span class="pageNumber"></span> of <span class="totalPages"></span></div>'
)


def print_book(site: Path, pages: Sequence[str], target: Path) -> Path:
    """Print pages of a site into one PDF, A4, with bookmarks.

    Args:
        site: a built site.
        pages: paths within it, such as ``book/index.html``, in the order of the PDF.
        target: the PDF; an older one stays until the new one is whole.

    Raises:
        UserError: no site, no Chromium, or the packages of ``kdas_core[pdf]`` are missing.
    """
    try:
        from pypdf import PdfReader, PdfWriter
    except ImportError:
        raise UserError('Printing needs two more packages: pip install "kdas_core[pdf]".') from None
    with served(site) as home, browser() as chromium:
        printed = {home + path: _printed(chromium, home + path) for path in pages}
    book, starts = PdfWriter(), {}
    for url, (title, content) in printed.items():
        starts[url] = len(book.pages)
        book.append(PdfReader(io.BytesIO(content)), outline_item=title, import_outline=False)
    _turn_inwards(book, starts, home)
    book.compress_identical_objects()
    buffer = io.BytesIO()
    book.write(buffer)
    atomic_write(target, buffer.getvalue())
    return target


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, the system's or Playwright's own, driven by Playwright.

    Raises:
        UserError: neither is there.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise UserError('Printing needs two more packages: pip install "kdas_core[pdf]".') from None
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    with sync_playwright() as playwright:
        try:
            # Chromium refuses to run in its sandbox as root.
            chromium = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox"] if _is_root() else []
            )
        except Error:
            raise UserError(
                "Printing needs Chromium: playwright install chromium, or your system's package."
            ) from None
        yield chromium
        chromium.close()


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _printed(chromium: Any, url: str) -> tuple[str, bytes]:
    """A page's title, and the page as a PDF; what folds is open, but for code that only writes a
    sentence.
    """
    page = chromium.new_page(color_scheme="light")
    page.goto(url)
    page.evaluate("""async () => {
      for (const folded of document.querySelectorAll("details:not(.above-input)")) folded.open = true;
      for (const picture of document.images) picture.loading = "eager";
      await Promise.all([...document.images].filter((picture) => !picture.hidden).map((picture) => picture.decode()));
    }""")
    title = page.title().split(" — ")[0]
    feet = {"display_header_footer": True, "header_template": "<i></i>", "footer_template": _FOOT}
    content = page.pdf(format="A4", margin=MARGIN, tagged=True, **feet)
    page.close()
    return title, content


def _turn_inwards(book: Any, starts: dict[str, int], home: str) -> None:
    """Links to a printed page lead to where it begins in the PDF; those to other files of the site
    go away.
    """
    from pypdf.generic import ArrayObject, NameObject

    for page in book.pages:
        kept = ArrayObject()
        for reference in page.get("/Annots", ArrayObject()):
            link = reference.get_object()
            url = str(link.get("/A", {}).get("/URI", ""))
            if url.startswith(home):
                if urldefrag(url).url not in starts:
                    continue
                del link["/A"]
                link[NameObject("/Dest")] = ArrayObject(
                    [book.pages[starts[urldefrag(url).url]].indirect_reference, NameObject("/Fit")]
                )
            kept.append(reference)
        page[NameObject("/Annots")] = kept
