"""Sliders that work with and without a kernel."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

Draw = Callable[..., Figure]
Options = dict[str, list[tuple[str, Any]]]  # of a choice: (its name, its value)
WIDTH = 1100  # pixels of a picture, for a column of about 770


def explore(
    draw: Draw,
    alt: str,
    caption: str = "",
    names: Mapping[str, str] | None = None,
    start: Mapping[str, Any] | None = None,
    **choices: Sequence[Any] | Mapping[str, Any],
) -> Any:
    """Let the reader change the arguments of a figure: with a kernel and a person in front of it,
    one ipywidgets slider per argument draws anew. On the static page, under papermill, and wherever
    ``KDAS_BATCH`` is set, the sliders step through pictures drawn in advance.

    Args:
        draw: takes one value of each choice by name and returns a matplotlib figure.
        alt: what the picture shows, for readers who cannot see it.
        caption: plain text below the picture: what to do with the sliders and what to see.
        names: what a choice is called on the page, where its own name does not read.
        start: the values that are shown first; the first ones otherwise.
        choices: the values of each argument, or name → value; ``[False, True]`` becomes a switch.
            Their product is drawn, so keep it under about 30.

    >>> explore(lambda t: plt.figure(), alt="", caption="Move t.", t=[1, 2])  # doctest: +SKIP
    """
    options = {
        key: list(values.items() if isinstance(values, Mapping) else ((str(v), v) for v in values))
        for key, values in choices.items()
    }
    called = {key: key.replace("_", " ") for key in choices} | dict(names or {})
    first = {key: values[0][1] for key, values in options.items()} | dict(start or {})
    if _nobody_is_there():
        return HTML(_static(draw, alt, caption, options, called, first))
    import ipywidgets

    def show(**values: Any) -> None:
        draw(**values)
        plt.show()

    sliders = {
        key: ipywidgets.SelectionSlider(options=values, value=first[key], description=called[key])
        for key, values in options.items()
    }
    box = ipywidgets.interactive(show, **sliders)
    box.children += (ipywidgets.HTML(html.escape(caption)),)
    return box


def _nobody_is_there() -> bool:
    """Papermill and nbconvert tell the kernel that no question will be answered."""
    if os.environ.get("KDAS_BATCH"):
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel else {}
    return not request.get("content", {}).get("allow_stdin", True)


def _static(draw: Draw, alt: str, caption: str, options: Options, called: dict, first: dict) -> str:
    """All pictures in one block, of which the sliders show one. The last choice varies fastest."""
    controls = "".join(_control(called[k], values, first[k]) for k, values in options.items())
    combined = itertools.product(*options.values())
    drawn = [{key: value for key, (_, value) in zip(options, values)} for values in combined]
    pictures = "".join(
        f'<img src="data:image/webp;base64,{packed}" alt="{html.escape(alt)}" loading="lazy"'
        f"{'' if values == first else ' hidden'}>"
        for values, packed in zip(drawn, _webp([_closed(draw(**values)) for values in drawn]))
    )
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="kdas-explore">{controls}<div>{pictures}</div>{below}</figure>'
        f"<script>{files(__package__).joinpath('explore.js').read_text('utf-8')}</script>"
    )


def _control(called: str, values: list[tuple[str, Any]], first: Any) -> str:
    """A switch for off and on; else a slider with its ticks, where they have room, that plays."""
    labels, title = [label for label, _ in values], html.escape(called)
    at = [value for _, value in values].index(first)
    if labels == ["False", "True"]:
        checked = " checked" if at else ""
        return f'<label>{title} <input type="checkbox" role="switch"{checked}></label> '
    ticks = "".join(f"<i>{html.escape(label)}</i>" for label in labels)
    room = len("".join(labels)) + len(labels) <= 50
    scale = f'<span aria-hidden="true">{ticks}</span>' if room else ""
    now, stops = html.escape(labels[at]), html.escape(json.dumps(labels))
    return (
        f'<div><button type="button" aria-label="Play {title}">▶</button><label>{title} '
        f"<output>{now}</output></label><div>"
        f'<input type="range" min="0" max="{len(labels) - 1}" value="{at}" aria-label="{title}" '
        f'aria-valuetext="{now}" data-labels="{stops}">{scale}</div></div> '
    )


def as_webp(picture: Image.Image) -> bytes:
    """WebP: lossless, which is small for lines, or nearly so, which is small for photographs."""
    tries = io.BytesIO(), io.BytesIO()
    picture.save(tries[0], format="webp", method=4, lossless=True)
    picture.save(tries[1], format="webp", method=4, quality=80)
    return min((packed.getvalue() for packed in tries), key=len)


def _closed(figure: Figure) -> Figure:
    """It can still be drawn; pyplot, which warns of many open figures, no longer keeps it."""
    plt.close(figure)
    return figure


def _webp(figures: list[Figure]) -> Iterator[str]:
    """Pictures of one size, so that nothing jumps: what each figure shows lies within it."""
    for figure in figures:
        figure.draw_without_rendering()
    around = Bbox.union([figure.get_tightbbox() for figure in figures]).padded(0.05)
    dpi = min(max(WIDTH / around.width, 80), 160)
    for figure in figures:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=dpi, bbox_inches=around)
        with Image.open(png) as picture:
            yield base64.b64encode(as_webp(picture.convert("RGB"))).decode()
