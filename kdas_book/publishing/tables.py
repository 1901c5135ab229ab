"""Tables and numbers of a page as a book sets them, whatever pandas makes of them."""

import re
from typing import Any

from bs4 import BeautifulSoup

UNIT = r"(?:\s?(?:%|ms|s|min|h|px|kB|MB|GB|M|×))?"
NUMBER = re.compile(rf"[^A-Za-z]*\d[^A-Za-z]*(?:e[+−-]?\d+)?{UNIT}")
NOTHING = {"", "-", "–", "—", "nan", "NaN", "None", "not measured yet"}
SHORT = 24  # characters that a line of a cell holds in any case
MINUS = re.compile(r"(?:(?<![^\s(\[,/])|(?<=\de))-(?=\.?\d)")
SET_ALREADY = ["code", "pre", "script", "style", "svg", "math", "annotation", "kbd"]


def set_numbers(article: Any) -> None:
    """True minus signs, a thin space before %, no line break around ±; not in code and formulas."""
    for text in article.find_all(string=re.compile(r"±|-\.?\d|\d\s?%")):
        if not text.find_parent(SET_ALREADY) and not text.find_parent(class_="katex"):
            signed = MINUS.sub("−", text).replace(" ± ", "\u00a0±\u00a0")
            text.replace_with(re.sub(r"(?<=\d)\s?%", "\u202f%", signed))


def set_table(table: Any) -> None:
    """Mark columns of numbers, which stand right, and what is not broken over lines; the name of
    the index moves into the heading; the looks that pandas brings go. A box around it scrolls.
    """
    for style in table.parent("style", recursive=False):
        if ".dataframe" in style.text:
            style.decompose()
    for tag in (table, *table("tr")):
        for look in ("border", "style"):
            tag.attrs.pop(look, None)
    if "dataframe" in table.get("class", []):
        table["class"] = ["numbers"]  # the theme's looks for the other name come before any of ours
    table.wrap(BeautifulSoup("", "html.parser").new_tag("div", attrs={"class": "table-box"}))
    _merge_headings(table)
    for cell in table(["td", "th"]):
        words = cell.get_text(" ", strip=True)
        if len(words) <= SHORT or NUMBER.fullmatch(words):
            _mark(cell, "unbroken")
    rows = [row("td") for body in table("tbody") for row in body("tr")]
    headings = table.thead("tr")[-1]("th") if table.thead and table.thead("tr") else []
    width = max(map(len, rows), default=0)
    for i in range(-width, 0):
        cells = [row[i] for row in rows if len(row) == width]
        told = [word for cell in cells if (word := cell.get_text(" ", strip=True)) not in NOTHING]
        if 2 * sum(1 for word in told if NUMBER.fullmatch(word)) > len(told):
            for cell in (*cells, *headings[i:][:1]):
                _mark(cell, "number")


def _mark(cell: Any, name: str) -> None:
    cell["class"] = [*cell.get("class", []), name]


def _merge_headings(table: Any) -> None:
    """pandas gives the names of the index a line of their own."""
    rows = table.thead("tr") if table.thead else []
    if len(rows) < 2 or any("colspan" in cell.attrs for cell in rows[-2]("th")):
        return
    upper, lower = rows[-2]("th"), rows[-1]("th")
    words = [[cell.get_text(strip=True) for cell in row] for row in (upper, lower)]
    if len(upper) == len(lower) and not any(a and b for a, b in zip(*words)):
        for cell, name in zip(upper, words[1]):
            if name:
                cell.string = name
        rows[-1].decompose()
