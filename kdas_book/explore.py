"""Sliders that work with and without a kernel."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image


def explore(
    draw: Callable[..., Figure], alt: str, caption: str = "", **choices: Sequence[Any]
) -> Any:
    """Let the reader change the arguments of a figure.

    With a kernel and a person in front of it: one ipywidgets slider per argument, and the figure is
    drawn anew. On the static page, under papermill, and wherever ``KDAS_BATCH`` is set: the same
    sliders step through pictures drawn in advance, with a mouse, a finger or the arrow keys.

    Args:
        draw: takes one value of each choice by name and returns a matplotlib figure.
        alt: what the picture shows, for readers who cannot see it.
        caption: a sentence below the picture, in plain text: what to do with the sliders and what
            to see.
        choices: for each argument the values to step through; the product is drawn, so keep it
            under about 30 pictures.

    >>> explore(lambda t: plt.figure(), alt="nothing", caption="Move t.", t=[1, 2])  # doctest: +SKIP
    """
    if not _nobody_is_there():
        import ipywidgets

        def show(**values: Any) -> None:
            draw(**values)
            plt.show()

        sliders = {
            name: ipywidgets.SelectionSlider(options=list(values))
            for name, values in choices.items()
        }
        box = ipywidgets.interactive(show, **sliders)
        box.children += (ipywidgets.HTML(html.escape(caption)),)
        return box
    return HTML(_static(draw, alt, caption, choices))


def _nobody_is_there() -> bool:
    """Who runs a notebook for nobody, as papermill and nbconvert do, tells the kernel that no
    question will be answered.
    """
    if os.environ.get("KDAS_BATCH"):
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel else {}
    return not request.get("content", {}).get("allow_stdin", True)


def _static(
    draw: Callable[..., Figure], alt: str, caption: str, choices: dict[str, Sequence[Any]]
) -> str:
    """All pictures in one block, of which the sliders show one. The last choice varies fastest."""
    frames = [
        _webp(draw(**dict(zip(choices, values)))) for values in itertools.product(*choices.values())
    ]
    sliders = []
    for name, values in choices.items():
        labels = [str(value) for value in values]
        sliders.append(
            f'<label>{html.escape(name)} <input type="range" min="0" max="{len(values) - 1}" value="0" '
            f'aria-valuetext="{html.escape(labels[0])}" data-labels="{html.escape(json.dumps(labels))}"> '
            f"<output>{html.escape(labels[0])}</output></label>"
        )
    pictures = "".join(
        f'<img src="data:image/webp;base64,{frame}" alt="{html.escape(alt)}" loading="lazy"{" hidden" if i else ""}>'
        for i, frame in enumerate(frames)
    )
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="kdas-explore">{" ".join(sliders)}<div>{pictures}</div>{below}</figure><script>{_STEP}</script>'


# Mixed radix: the picture's number is read off the sliders from left to right. Browsers keep a
# slider's place when a page is loaded again, so the picture is set at the start as well. Pictures
# that wait are fetched when a reader comes near.
_STEP = """
for (const box of document.querySelectorAll(".kdas-explore:not([data-live])")) {
  box.dataset.live = "";
  const sliders = [...box.querySelectorAll("input")], pictures = [...box.querySelectorAll("img")];
  const step = () => {
    let n = 0;
    for (const slider of sliders) {
      const label = JSON.parse(slider.dataset.labels)[slider.value];
      n = n * (+slider.max + 1) + +slider.value;
      slider.parentNode.querySelector("output").textContent = label;
      slider.setAttribute("aria-valuetext", label);
    }
    pictures.forEach((picture, i) => { picture.hidden = i !== n; });
  };
  const fetch = () => pictures.forEach((picture) => { picture.loading = "eager"; });
  box.addEventListener("input", step);
  for (const event of ["pointerenter", "focusin"]) box.addEventListener(event, fetch, {once: true});
  step();
}
"""


def as_webp(picture: Image.Image) -> bytes:
    """WebP, lossless or nearly so, whichever is smaller: lines are small without a loss,
    photographs with one.
    """
    tries = []
    for how in ({"lossless": True}, {"quality": 88}):
        packed = io.BytesIO()
        picture.save(packed, format="webp", method=4, **how)
        tries.append(packed.getvalue())
    return min(tries, key=len)


def _webp(figure: Figure) -> str:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80, bbox_inches="tight")
    plt.close(figure)
    with Image.open(png) as picture:
        return base64.b64encode(as_webp(picture.convert("RGB"))).decode()
