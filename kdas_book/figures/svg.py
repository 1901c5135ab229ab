"""The pen of the diagrams: boxes, words and arrows at places that are written down, as SVG. Text
stays text, and a white ground makes a drawing read the same by day and by night.
"""

from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from IPython.display import SVG

from kdas_book.figures.basics import BLUE, GREY, RED

INK, TEACHER, STUDENT, PLAIN = "#1f2933", GREY, BLUE, "#8795a1"
LARGE, SMALL = 15, 13  # heights of letters, in units of the drawing
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Point(NamedTuple):
    x: float
    y: float


class Box(NamedTuple):
    """A rectangle and the places where arrows begin and end; ``at`` moves along a side, 0 to 1."""

    x: float
    y: float
    width: float
    height: float

    def top(self, at: float = 0.5) -> Point:
        return Point(self.x + at * self.width, self.y)

    def bottom(self, at: float = 0.5) -> Point:
        return Point(self.x + at * self.width, self.y + self.height)

    def left(self, at: float = 0.5) -> Point:
        return Point(self.x, self.y + at * self.height)

    def right(self, at: float = 0.5) -> Point:
        return Point(self.x + self.width, self.y + at * self.height)


def tint(colour: str, share: float = 0.14) -> str:
    """The colour thinned with white."""
    levels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - level)):02x}" for level in levels)


class Canvas:
    """A drawing under way, 520 units wide, for telephones; a screen reader says title and about."""

    def __init__(self, name: str, title: str, about: str, height: float):
        self.root = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")
        size = {"viewBox": f"0 0 520 {height}", "width": "572", "height": f"{1.1 * height:g}"}
        said = {"aria-labelledby": f"{name}-title {name}-desc", "font-family": FONT}
        self.root.attrib |= size | {"style": "max-width: 100%; height: auto"} | said
        self.add("title", title, id=f"{name}-title")
        self.add("desc", about, id=f"{name}-desc")
        self.add("rect", width=520, height=height, rx=10, fill="#ffffff")

    def add(self, tag: str, content: Any = None, **attributes: Any) -> ElementTree.Element:
        """One SVG element; ``_`` in the name of an attribute stands for ``-``."""
        element = ElementTree.SubElement(self.root, tag)
        element.text = content
        for key, value in attributes.items():
            element.set(key.replace("_", "-"), value if isinstance(value, str) else f"{value:g}")
        return element

    def text(self, x: float, y: float, words: str, size: float = SMALL, **style: Any) -> None:
        """Words whose middle (or what ``anchor`` says) is at x and y."""
        look = {"fill": INK, "text_anchor": style.pop("anchor", "middle")} | style
        self.add("text", words, x=x, y=y + 0.36 * size, font_size=size, **look)

    def box(self, place: tuple, *lines: str, colour: str = PLAIN, href: str = "") -> Box:
        """A box, or link, at (x, y, width, height): a first line in bold, the others below."""
        box, drawing = Box(*place), self.root
        first: dict = {"size": LARGE, "font_weight": "600"}
        if href:
            self.root = self.add("a", href=href, style="text-decoration: none")
            first["text_decoration"] = "underline"
        edge: dict = {"fill": tint(colour), "stroke": colour, "stroke_width": 1.5}
        self.add("rect", **box._asdict(), rx=6, **edge)
        for i, line in enumerate(lines):
            y = box.left().y + 17 * (i - (len(lines) - 1) / 2)
            self.text(box.top().x, y, line, **({} if i else first))
        self.root = drawing
        return box

    def arrow(self, *points: tuple, dashed: bool = False, head: bool = True, colour: str = INK):
        """A line through the points, with a head at the last one; dashed lines are gradients."""
        way = np.array(points, float)
        along = (way[-1] - way[-2]) / np.linalg.norm(way[-1] - way[-2])
        corners = way[-1] - np.outer((0, 8, 8), along) + np.outer((0, 4, -4), along[::-1] * (-1, 1))
        way[-1] -= 6 * along * head
        look: dict = {"fill": "none", "stroke": colour, "stroke_width": 1.6}
        look |= {"stroke_dasharray": "4 3"} if dashed else {}
        self.add("polyline", points=_written(way), **look)
        if head:
            self.add("polygon", points=_written(corners), fill=colour)

    def cross(self, x: float, y: float) -> None:
        """A red cross: here no gradient passes."""
        way = f"M{x - 6:g} {y - 6:g}l12 12m0 -12l-12 12"
        self.add("path", d=way, stroke=RED, stroke_width=3, stroke_linecap="round")

    def svg(self) -> SVG:
        """The drawing, as the last line of a cell shows it."""
        links = self.root.find("a") is not None  # links inside stay links
        self.root.set("role", "group" if links else "img")
        ElementTree.indent(self.root, "")
        return SVG(ElementTree.tostring(self.root, encoding="unicode"))


def _written(points: np.ndarray) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
