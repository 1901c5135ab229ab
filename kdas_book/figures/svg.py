"""The pen of the diagrams: boxes, words and arrows at places that are written down, as SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from IPython.display import SVG

from kdas_book.figures.basics import BLUE, RED

INK, TEACHER, STUDENT, PLAIN = "#1f2933", "#555555", BLUE, "#8795a1"
LARGE, SMALL = 15, 13  # heights of letters, in units of the drawing
FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True)
class Box:
    """A rectangle, and the places where arrows begin and end; ``at`` moves along the side, 0 to 1."""

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


@dataclass
class Canvas:
    """A drawing under way.

    Args:
        name: of the drawing; its identifiers begin with it, so that several drawings may stand in
            one page.
        title, description: what a screen reader says.
        height, width: in units; the drawing is scaled to the page.
    """

    name: str
    title: str
    description: str
    height: float
    width: float = 520
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, size: float = SMALL, **style: str) -> None:
        """Words whose middle (or what ``anchor`` says) is at x and y."""
        given = {"fill": INK, "text-anchor": "middle"} | {
            key.replace("_", "-"): v for key, v in style.items()
        }
        given["text-anchor"] = given.pop("anchor", given["text-anchor"])
        look = "".join(f" {key}={quoteattr(value)}" for key, value in given.items())
        self.parts.append(
            f'<text x="{x:g}" y="{y + 0.36 * size:g}" font-size="{size}"{look}>{escape(words)}</text>'
        )

    def box(
        self,
        place: tuple[float, float, float, float],
        *lines: str,
        colour: str = PLAIN,
        href: str = "",
    ) -> Box:
        """A box at (x, y, width, height) with a first line in bold and further ones below it; with
        ``href`` a link.
        """
        x, y, width, height = place
        if href:
            self.parts.append(f'<a href={quoteattr(href)} style="text-decoration: none">')
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{tint(colour)}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )
        top = y + height / 2 - (len(lines) - 1) * 17 / 2
        for i, line in enumerate(lines):
            look = (
                {}
                if i
                else {"font_weight": "600"} | ({"text_decoration": "underline"} if href else {})
            )
            self.text(x + width / 2, top + 17 * i, line, SMALL if i else LARGE, **look)
        if href:
            self.parts.append("</a>")
        return Box(*place)

    def ground(self, x: float, y: float, width: float, height: float, label: str) -> None:
        """A pale area behind boxes that belong together, with its name in the upper left corner."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{tint(PLAIN, 0.1)}"/>'
        )
        self.text(x + 26, y + 15, label, anchor="start", font_weight="600")

    def arrow(
        self,
        *points: tuple[float, float],
        colour: str = INK,
        dashed: bool = False,
        head: bool = True,
    ) -> None:
        """A line through the points, with a head at the last one; dashed lines are gradients."""
        (x0, y0), (x, y) = points[-2:]
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        dx, dy = (x - x0) / length, (y - y0) / length
        way = [*points[:-1], (x - 6 * dx, y - 6 * dy)] if head else points
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        line = " ".join(f"{a:g},{b:g}" for a, b in way)
        self.parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'
        )
        if head:
            tip = [
                (x, y),
                (x - 8 * dx - 4 * dy, y - 8 * dy + 4 * dx),
                (x - 8 * dx + 4 * dy, y - 8 * dy - 4 * dx),
            ]
            self.parts.append(
                f'<polygon points="{" ".join(f"{a:g},{b:g}" for a, b in tip)}" fill="{colour}"/>'
            )

    def cross(self, x: float, y: float) -> None:
        """A red cross: here no gradient passes."""
        path = f"M{x - 6:g} {y - 6:g}l12 12m0 -12l-12 12"
        self.parts.append(
            f'<path d="{path}" stroke="{RED}" stroke-width="3" stroke-linecap="round"/>'
        )

    def svg(self) -> SVG:
        """The drawing, as the last line of a cell shows it."""
        role = (
            "group" if any(part.startswith("<a ") for part in self.parts) else "img"
        )  # links inside stay links
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{1.3 * self.width:g}" height="{1.3 * self.height:g}" style="max-width: 100%; height: auto" '
            f'role="{role}" aria-labelledby="{self.name}-title {self.name}-desc" font-family="{FONT}">'
        )
        about = [
            f'<title id="{self.name}-title">{escape(self.title)}</title>',
            f'<desc id="{self.name}-desc">{escape(self.description)}</desc>',
            f'<rect width="{self.width:g}" height="{self.height:g}" rx="10" fill="#ffffff"/>',
        ]
        return SVG("\n".join([head, *about, *self.parts, "</svg>"]))


def tint(colour: str, share: float = 0.14) -> str:
    """The colour thinned with white."""
    levels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - level)):02x}" for level in levels)
