"""The shape of the two packages: their sizes against their limits, and a picture of who imports whom.

    python .ci/structure.py                              sizes; exit code 1 past a limit (part of `make lint`)
    python .ci/structure.py --picture .github/imports.svg

Who may import whom stands in pyproject.toml, under [tool.importlinter].
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

import grimp
import networkx as nx

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("kdas_core", "kdas_book")
# The sizes as they are: more needs a reason in the commit. Of kdas_core 320 lines and four files
# are the rivals of KDAS. Of all lines 1,800 are chapter 12: export, runtimes, video, and trust, with
# what it refuses: files that lie, videos that change, graphs that give no probabilities.
CORE_LINES, CORE_FILES, ALL_LINES = 4_400, 40, 17_230
FILE_LINES, FUNCTION_LINES = 280, 40
COLOURS = {"kdas_core": "#dbe7f5", "kdas_book": "#fbead0"}


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def long_functions(path: Path) -> list[str]:
    """Functions whose body, without its docstring, has too many lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
        length = node.end_lineno - first.lineno + 1
        if length > FUNCTION_LINES:
            found.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines of body")
    return found


def check() -> int:
    """Print the sizes and what is too large; the number of such things."""
    files = {name: sorted((ROOT / name).rglob("*.py")) for name in PACKAGES}
    lines = {name: sum(map(lines_of, paths)) for name, paths in files.items()}
    limits = [
        ("lines of kdas_core", lines["kdas_core"], CORE_LINES),
        ("files of kdas_core", len(files["kdas_core"]), CORE_FILES),
        ("lines of both packages", sum(lines.values()), ALL_LINES),
    ]
    problems = []
    for what, count, limit in limits:
        print(f"{what:24s} {count:6d}   limit {limit}")
        if count > limit:
            problems.append(f"{what}: {count}, more than {limit}")
    for path in (path for paths in files.values() for path in paths):
        if lines_of(path) > FILE_LINES:
            problems.append(f"{path.relative_to(ROOT)} has {lines_of(path)} lines")
        problems += long_functions(path)
    for problem in problems:
        print(f"too large: {problem}", file=sys.stderr)
    return len(problems)


def rooms() -> nx.DiGraph:
    """The files and folders directly inside the packages; an edge for every room another imports."""
    graph, picture = grimp.build_graph(*PACKAGES), nx.DiGraph()
    for module in graph.modules - set(PACKAGES):
        room = ".".join(module.split(".")[:2])
        picture.add_node(room)
        for imported in graph.find_modules_directly_imported_by(module):
            other = ".".join(imported.split(".")[:2])
            if other not in (room, *PACKAGES):
                picture.add_edge(room, other)
    return picture


def draw(picture: nx.DiGraph) -> str:
    """An SVG: who imports stands above, arrows point to what is imported; implied arrows are left out."""
    floors = list(nx.topological_generations(picture.reverse()))  # raises if there is a circle
    width, box, step = 1180, (128, 40), 96
    places = {}
    for floor, names in enumerate(floors):
        y = 30 + step * (len(floors) - 1 - floor)
        # The method left, the workshop right.
        for i, name in enumerate(sorted(names, key=lambda n: (n.startswith("kdas_book"), n))):
            places[name] = (width * (i + 1) / (len(names) + 1) - box[0] / 2, y)
    parts = []
    for upper, lower in nx.transitive_reduction(picture).edges:
        x1, y1 = places[upper][0] + box[0] / 2, places[upper][1] + box[1]
        x2, y2 = places[lower][0] + box[0] / 2, places[lower][1]
        parts.append(
            f'<path d="M{x1:.0f},{y1} C{x1:.0f},{y1 + 28} {x2:.0f},{y2 - 28} {x2:.0f},{y2 - 2}" '
            'fill="none" stroke="#8a93a0" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in places.items():
        package, room = name.split(".")
        where = ROOT / package / room
        files = sorted(where.rglob("*.py")) if where.is_dir() else [where.with_suffix(".py")]
        count = sum(map(lines_of, files))
        parts.append(
            f'<rect x="{x:.0f}" y="{y}" width="{box[0]}" height="{box[1]}" rx="6" fill="{COLOURS[package]}" stroke="#5b6673"/>'
            f'<text x="{x + box[0] / 2:.0f}" y="{y + 17}" text-anchor="middle">{room}</text>'
            f'<text x="{x + box[0] / 2:.0f}" y="{y + 32}" text-anchor="middle" font-size="10" fill="#4a5461">{count:,} lines</text>'
        )
    height = step * len(floors) + 20
    legend = "".join(
        f'<rect x="{16 + 120 * i}" y="{height - 18}" width="12" height="12" fill="{COLOURS[name]}" stroke="#5b6673"/>'
        f'<text x="{34 + 120 * i}" y="{height - 8}">{name}</text>'
        for i, name in enumerate(PACKAGES)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="#8a93a0"/></marker></defs><rect width="{width}" height="{height}" fill="white"/>'
        f"{''.join(parts)}{legend}</svg>\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--picture", type=Path, help="write the picture of imports to this SVG file"
    )
    options = parser.parse_args()
    if options.picture:
        options.picture.write_text(draw(rooms()), encoding="utf-8")
    else:
        sys.exit(check() > 0)
