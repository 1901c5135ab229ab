"""Sliders that work with and without a kernel."""

from __future__ import annotations

import base64
import html
import io
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from IPython.display import HTML
from matplotlib.figure import Figure


def explore(draw: Callable[..., Figure], alt: str, caption: str = "", **choices: Sequence[Any]) -> Any:
    """Let the reader change the arguments of a figure.

    With a kernel and a person in front of it: one ipywidgets slider per argument, and the figure is drawn anew. On the static
    page, and wherever ``KDAS_BATCH`` is set: the same sliders step through pictures drawn in advance.

    Args:
        draw: takes one value of each choice by name and returns a matplotlib figure.
        alt: what the picture shows, for readers who cannot see it.
        caption: a sentence below the picture, in plain text: what to do with the sliders and what to see.
        choices: for each argument the values to step through; the product is drawn, so keep it under about 30 pictures.

    >>> explore(lambda t: plt.figure(), alt="nothing", caption="Move t.", t=[1, 2])  # doctest: +SKIP
    """
    if not os.environ.get("KDAS_BATCH"):
        import ipywidgets

        def show(**values: Any) -> None:
            draw(**values)
            plt.show()

        sliders = {name: ipywidgets.SelectionSlider(options=list(values)) for name, values in choices.items()}
        box = ipywidgets.interactive(show, **sliders)
        box.children += (ipywidgets.HTML(html.escape(caption)),)
        return box
    return HTML(_static(draw, alt, caption, choices))


def _static(draw: Callable[..., Figure], alt: str, caption: str, choices: dict[str, Sequence[Any]]) -> str:
    """All pictures in one block, of which the sliders show one. The last choice varies fastest."""
    frames = [_png(draw(**dict(zip(choices, values)))) for values in itertools.product(*choices.values())]
    sliders = []
    for name, values in choices.items():
        labels = html.escape("|".join(str(v) for v in values))
        sliders.append(
            f'<label>{html.escape(name)} <input type="range" min="0" max="{len(values) - 1}" value="0" '
            f'data-labels="{labels}" oninput="{html.escape(_STEP)}"> <output>{html.escape(str(values[0]))}</output></label>'
        )
    pictures = "".join(
        f'<img src="data:image/png;base64,{frame}" alt="{html.escape(alt)}" {"" if i == 0 else "hidden"}>'
        for i, frame in enumerate(frames)
    )
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="kdas-explore">{" ".join(sliders)}<div>{pictures}</div>{below}</figure>'


# Mixed radix: the picture's number is read off the sliders from left to right.
_STEP = (
    "const box=this.closest('.kdas-explore');let n=0;"
    "for(const s of box.querySelectorAll('input')){n=n*(+s.max+1)+ +s.value;"
    "s.parentNode.querySelector('output').textContent=s.dataset.labels.split('|')[s.value];}"
    "box.querySelectorAll('img').forEach((p,i)=>{p.hidden=i!==n;});"
)


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80, bbox_inches="tight")
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
