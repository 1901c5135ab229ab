"""How long until a reader sees a chapter, and how much is fetched for it: the built site, from a server on this machine, in Chromium.

    python benchmarks/site.py                  # _build/html; the processor slowed to a quarter

Prints for every page: the first contentful paint (median and largest of the repetitions, each in a new browser context with an empty
cache), the bytes of everything that is fetched up to the end of the page, and those of the pictures of its sliders.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import pandas as pd

from kdas_book.publishing.pdf import browser
from kdas_book.publishing.site import served

PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") done(entry.startTime);
}).observe({type: "paint", buffered: true}))"""
ALL = """async () => {
  for (const picture of document.images) picture.loading = "eager";
  await Promise.all([...document.images].map((picture) => picture.decode().catch(() => 0)));
  const sliders = new Set([...document.querySelectorAll(".kdas-explore img")].map((picture) => picture.src));
  const fetched = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  const sum = (entries) => entries.reduce((bytes, entry) => bytes + entry.encodedBodySize, 0);
  return [sum(fetched), sum(fetched.filter((entry) => sliders.has(entry.name)))];
}"""


def first_paint(chromium, url: str, slowdown: float) -> float:
    """Milliseconds from the request to the first text or picture on the screen."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    page.goto(url)
    paint = page.evaluate(PAINT)
    context.close()
    return paint


def weigh(chromium, url: str) -> tuple[float, float]:
    """Megabytes of a page with everything on it, and of the pictures of its sliders."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    every, sliders = page.evaluate(ALL)
    context.close()
    return every / 1e6, sliders / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=Path("_build/html"))
    parser.add_argument("--slowdown", type=float, default=4.0, help="of the processor")
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    rows = {}
    with served(given.site) as home, browser() as chromium:
        for file in sorted((given.site / "book").glob("*.html")):
            url = f"{home}book/{file.name}"
            paints = [first_paint(chromium, url, given.slowdown) for _ in range(given.repeat)]
            every, sliders = weigh(chromium, url)
            rows[file.stem] = {
                "first paint, ms": statistics.median(paints),
                "largest": max(paints),
                "page, MB": every,
                "sliders, MB": sliders,
            }
    print(f"first paint with the processor slowed {given.slowdown:g} times, of {given.repeat}")
    print(
        pd.DataFrame(rows)
        .T.round({"first paint, ms": 0, "largest": 0, "page, MB": 2, "sliders, MB": 2})
        .to_string()
    )


if __name__ == "__main__":
    main()
