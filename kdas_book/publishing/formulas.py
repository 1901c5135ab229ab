"""Formulas as KaTeX sets them, ready in the page: it needs a style sheet and fonts, no script."""

import functools
import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from kdas_core import UserError

MISSING = "Formulas need KaTeX: pip install quickjs-ng; pip install --no-deps djangocms-katex"
FONT = "KaTeX_{}.woff2"
FIRST_FONTS = (FONT.format("Main-Regular"), FONT.format("Math-Italic"))  # in nearly every formula
log = logging.getLogger(__name__)


def katex() -> Path:
    """KaTeX's own distribution, of which djangocms-katex has a copy; nothing else of that package
    is used, so it is installed without what it needs. UserError where it is not.
    """
    found = importlib.util.find_spec("djangocms_katex")
    if not (found and importlib.util.find_spec("quickjs")):
        raise UserError(f"{MISSING}.")
    return Path(str(found.origin)).parent / "static" / "djangocms_katex" / "vendor" / "katex"


def copy_katex(folder: Path) -> None:
    """Style sheet, fonts and licence, as much of them as today's browsers take."""
    (folder / "fonts").mkdir(parents=True)
    for font in (katex() / "fonts").glob(FONT.format("*")):
        shutil.copy2(font, folder / "fonts")
    shutil.copy2(katex() / "LICENSE", folder)
    style = (katex() / "katex.min.css").read_text(encoding="utf-8")
    older = r',url\([^)]*\) format\("(?:woff|truetype)"\)'
    (folder / "katex.min.css").write_text(re.sub(older, "", style), encoding="utf-8")


@functools.cache
def _engine() -> Callable[[str, bool], str]:
    import quickjs

    context = quickjs.Context()
    context.eval((katex() / "katex.min.js").read_text(encoding="utf-8"))
    # JSON is a string in one piece; the text itself is one of pieces, which quickjs cannot return.
    call = "(tex, displayMode) => JSON.stringify(katex.renderToString(tex, {displayMode}))"
    return context.eval(call)


@functools.cache
def typeset(tex: str, displayed: bool = False) -> str:
    """HTML of a formula, hidden from screen readers, and MathML, which is for them; ValueError for
    what is no formula.
    """
    import quickjs

    try:
        return json.loads(_engine()(tex, displayed))
    except quickjs.JSException as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def _typeset(node: nodes.Element, displayed: bool) -> str:
    try:
        return typeset(node.astext(), displayed)
    except ValueError as error:
        log.warning("%s", error, location=node)
        return ""


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(self.starttag(node, "span", "", CLASS="formula") + _typeset(node, False))
    self.body.append("</span>")
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", "", CLASS="math"))
    self.body.append(_typeset(node, True))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise nodes.SkipNode
