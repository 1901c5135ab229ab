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

Draw = Callable[..., Figure]


def explore(draw: Draw, alt: str, caption: str = "", **choices: Sequence[Any]) -> Any:
    """Let the reader change the arguments of a figure: with a kernel and a person in front of it,
    one ipywidgets slider per argument draws anew. On the static page, under papermill, and wherever
    ``KDAS_BATCH`` is set, the sliders step through pictures drawn in advance.

    Args:
        draw: takes one value of each choice by name and returns a matplotlib figure.
        alt: what the picture shows, for readers who cannot see it.
        caption: plain text below the picture: what to do with the sliders and what to see.
        choices: the values of each argument; their product is drawn, so keep it under about 30.

    >>> explore(lambda t: plt.figure(), alt="", caption="Move t.", t=[1, 2])  # doctest: +SKIP
    """
    if _nobody_is_there():
        return HTML(_static(draw, alt, caption, choices))
    import ipywidgets

    def show(**values: Any) -> None:
        draw(**values)
        plt.show()

    sliders = {k: ipywidgets.SelectionSlider(options=list(v)) for k, v in choices.items()}
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


def _static(draw: Draw, alt: str, caption: str, choices: dict[str, Sequence[Any]]) -> str:
    """All pictures in one block, of which the sliders show one. The last choice varies fastest."""
    block = '<figure class="kdas-explore">'
    for name, values in choices.items():
        labels = [str(value) for value in values]
        first = html.escape(labels[0])
        block += (
            f'<label>{html.escape(name)} <input type="range" min="0" max="{len(values) - 1}" '
            f'value="0" aria-valuetext="{first}" data-labels="{html.escape(json.dumps(labels))}"> '
            f"<output>{first}</output></label> "
        )
    hidden = ""
    block += "<div>"
    for values in itertools.product(*choices.values()):
        source = f"data:image/webp;base64,{_webp(draw(**dict(zip(choices, values))))}"
        block += f'<img src="{source}" alt="{html.escape(alt)}" loading="lazy"{hidden}>'
        hidden = " hidden"
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"{block}</div>{below}</figure><script>{_STEP}</script>"


# Mixed radix: the picture's number is read off the sliders from left to right. Browsers keep a
# slider's place when a page is loaded again, so the picture is set at the start as well.
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
    """WebP: lossless, which is small for lines, or nearly so, which is small for photographs."""
    tries = io.BytesIO(), io.BytesIO()
    picture.save(tries[0], format="webp", method=4, lossless=True)
    picture.save(tries[1], format="webp", method=4, quality=88)
    return min((packed.getvalue() for packed in tries), key=len)


def _webp(figure: Figure) -> str:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80, bbox_inches="tight")
    plt.close(figure)
    with Image.open(png) as picture:
        return base64.b64encode(as_webp(picture.convert("RGB"))).decode()
