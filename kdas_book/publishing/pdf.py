"""The book on paper: every page of the site printed by Chromium and bound into one PDF."""

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from kdas_book.publishing.site import served
from kdas_core import UserError
from kdas_core.files import atomic_write

MISSING = 'Printing needs two more packages: pip install "kdas_core[pdf]".'
PAPER = {
    "format": "A4",
    "tagged": True,
    "margin": {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
    "display_header_footer": True,
    "header_template": "<i></i>",
    # Each page of the site is printed alone, so its leaves are counted within it.
    "footer_template": '<div style="font-size:8px;width:100%;text-align:center;color:#555">'
    '<span class="title"></span> · <span class="pageNumber"></span> of '
    '<span class="totalPages"></span></div>',
}
# What folds is open, but for code that only writes a sentence.
UNFOLD = """async () => {
  for (const folded of document.querySelectorAll("details:not(.source)")) folded.open = true;
  for (const picture of document.images) picture.loading = "eager";
  const shown = [...document.images].filter((picture) => !picture.hidden);
  await Promise.all([document.fonts.ready, ...shown.map((picture) => picture.decode())]);
}"""


def print_book(site: Path, pages: Sequence[str], target: Path) -> Path:
    """Print pages of a site, such as ``book/index.html``, into one PDF, A4, with bookmarks; links
    lead to pages of that PDF. UserError where the site, Chromium or a package is missing.
    """
    try:
        from pypdf import PdfReader, PdfWriter
    except ImportError:
        raise UserError(MISSING) from None
    book = PdfWriter()
    starts = {}
    with served(site) as home, browser() as chromium:
        for url in (home + path for path in pages):
            page = chromium.new_page(color_scheme="light")
            page.goto(url)
            page.evaluate(UNFOLD)
            starts[url] = len(book.pages)
            title = page.title().split(" — ")[0]
            printed = PdfReader(io.BytesIO(page.pdf(**PAPER)))
            book.append(printed, outline_item=title, import_outline=False)
            page.close()
    _turn_inwards(book, starts, home)
    book.compress_identical_objects()
    buffer = io.BytesIO()
    book.write(buffer)
    atomic_write(target, buffer.getvalue())
    return target


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, the system's or Playwright's own, driven by Playwright."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise UserError(MISSING) from None
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:  # root gets no sandbox from Chromium, and Playwright asks for none
            chromium = playwright.chromium.launch(executable_path=found)
        except Error:
            raise UserError(
                "Printing needs Chromium: playwright install chromium, or your system's package."
            ) from None
        yield chromium
        chromium.close()


def _turn_inwards(book: Any, starts: dict[str, int], home: str) -> None:
    """Links to printed pages lead there; those to other files of the site go away."""
    from pypdf.generic import ArrayObject, NameObject

    for page in book.pages:
        kept = ArrayObject()
        for reference in page.get("/Annots", ArrayObject()):
            link = reference.get_object()
            url = urldefrag(str(link.get("/A", {}).get("/URI", ""))).url
            if url in starts:
                del link["/A"]
                first = book.pages[starts[url]].indirect_reference
                link[NameObject("/Dest")] = ArrayObject([first, NameObject("/Fit")])
            if url in starts or not url.startswith(home):
                kept.append(reference)
        page[NameObject("/Annots")] = kept
