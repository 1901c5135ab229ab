"""The pen of the diagrams: boxes, words and arrows at places that are written down, as SVG. Text
stays text, and a white ground makes a drawing read the same by day and by night.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

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


@dataclass
class Canvas:
    """A drawing under way, 520 units wide, so that a telephone can show it. Its ``name`` begins its
    identifiers; a screen reader says ``title`` and ``description``.
    """

    name: str
    title: str
    description: str
    height: float
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, content: str = "", **attributes: Any) -> None:
        """One SVG element; ``_`` in the name of an attribute stands for ``-``."""
        written = f"<{tag}"
        for key, value in attributes.items():
            value = value if isinstance(value, str) else f"{value:g}"
            written += f' {key.replace("_", "-")}="{value}"'
        self.parts.append(f"{written}>{escape(content)}</{tag}>" if content else f"{written}/>")

    def text(self, x: float, y: float, words: str, size: float = SMALL, **style: str) -> None:
        """Words whose middle (or what ``anchor`` says) is at x and y."""
        look = {"fill": INK, "text_anchor": style.pop("anchor", "middle")} | style
        self.add("text", words, x=x, y=y + 0.36 * size, font_size=size, **look)

    def box(self, place: tuple, *lines: str, colour: str = PLAIN, href: str = "") -> Box:
        """A box at (x, y, width, height): a first line in bold, the others below; with ``href`` a
        link.
        """
        box, style = Box(*place), {"font_weight": "600"}
        if href:
            self.parts.append(f'<a href="{href}" style="text-decoration: none">')
            style["text_decoration"] = "underline"
        look: dict[str, Any] = {
            "rx": 6,
            "fill": tint(colour),
            "stroke": colour,
            "stroke_width": 1.5,
        }
        self.add("rect", **box._asdict(), **look)
        top = box.left().y - (len(lines) - 1) * 17 / 2
        self.text(box.top().x, top, lines[0], LARGE, **style)
        for i, line in enumerate(lines[1:], start=1):
            self.text(box.top().x, top + 17 * i, line)
        if href:
            self.parts.append("</a>")
        return box

    def arrow(self, *points: tuple, dashed: bool = False, head: bool = True, colour: str = INK):
        """A line through the points, with a head at the last one; dashed lines are gradients."""
        (x0, y0), (x, y) = points[-2:]
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        dx, dy = (x - x0) / length, (y - y0) / length
        way = [*points[:-1], (x - 6 * dx, y - 6 * dy)] if head else points
        look: dict[str, Any] = {"fill": "none", "stroke": colour, "stroke_width": 1.6}
        if dashed:
            look["stroke_dasharray"] = "4 3"
        self.add("polyline", points=" ".join(f"{a:g},{b:g}" for a, b in way), **look)
        if head:
            tip = [(x, y), (x - 8 * dx - 4 * dy, y - 8 * dy + 4 * dx)]
            tip.append((x - 8 * dx + 4 * dy, y - 8 * dy - 4 * dx))
            self.add("polygon", points=" ".join(f"{a:g},{b:g}" for a, b in tip), fill=colour)

    def cross(self, x: float, y: float) -> None:
        """A red cross: here no gradient passes."""
        way = f"M{x - 6:g} {y - 6:g}l12 12m0 -12l-12 12"
        self.add("path", d=way, stroke=RED, stroke_width=3, stroke_linecap="round")

    def svg(self) -> SVG:
        """The drawing, as the last line of a cell shows it."""
        role = "group" if "</a>" in self.parts else "img"  # links inside stay links
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {self.height:g}" '
            f'width="676" height="{1.3 * self.height:g}" '
            f'style="max-width: 100%; height: auto" role="{role}" '
            f'aria-labelledby="{self.name}-title {self.name}-desc" font-family="{FONT}">',
            f'<title id="{self.name}-title">{escape(self.title)}</title>',
            f'<desc id="{self.name}-desc">{escape(self.description)}</desc>',
            f'<rect width="520" height="{self.height:g}" rx="10" fill="#ffffff"/>',
        ]
        return SVG("\n".join([*lines, *self.parts, "</svg>"]))
