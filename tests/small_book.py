"""A small book as if it had been executed, and the site that is rendered of it."""

from __future__ import annotations

import base64
import io
import re
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes
from PIL import Image

from kdas_book.explore import explore
from kdas_book.publishing.site import build_site

CHAPTER = """# 2. The teacher

**You will learn**
- how *attention* & size go together;
- more, of {cite}`kdas` and {cite}`kdas,hinton`.

A {term}`logit` enters {eq}`one`, {numref}`fig-map` shows it and {numref}`fig-next` another.

$$x = 1$$ (one)

````{exercise} Another
:label: ex-02-2
Multiply.
````

````{solution} ex-02-2
:class: dropdown
It is {ref}`ex-02-2`.
````

See exercise 2.2, exercise 2 of this chapter, or exercise 9.9, which is not there.
"""
FORMULAS = {
    "aligned": r"\begin{aligned} a &= b + c \\ abcd &= \tfrac{1}{2} \end{aligned}",
    "norm": r"\left\lVert \frac{A(P)}{\lVert A(P) \rVert_2} \right\rVert_2^2",
    "functions": r"-\sum_i m_i \log p_i + \max_j \log_2 q_j",
    "softmax": r"\operatorname{softmax}\!\left(\frac{P P^\top}{\sqrt{W}}\right) P",
    "divergence": r"\tau^2 \,\mathrm{KL}\bigl(\sigma(t/\tau) \,\big\|\, \sigma(s/\tau)\bigr)",
    "cases": r"f(x) = \begin{cases} 0 & x < 0 \\ x & \text{otherwise} \end{cases}",
    "matrix": r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^{\!\top}",
    "hats": r"\widehat{abc} + \bar{S} + \tilde{T}",
    "sets": r"\mathcal{L} : \mathbb{R}^{H \times W} \to [0, 1]",
    "root": r"\sqrt{\frac{1}{N} \sum_{n=1}^{N} (x_n - \mu)^2}",
    "brace": r"\underbrace{(1 - \alpha)\, S}_{\text{masks}} + \alpha K",
}
# Each displayed, then in a sentence; the last is numbered and wider than a phone.
SHOWN = "\n\n".join(
    f"$$\n{tex}\n$$\n\nIn the line ${tex}$ it is as large." for tex in FORMULAS.values()
)
WIDE = r"$$ \sum_i a_i + \sum_i b_i + \sum_i c_i + \sum_i d_i + \sum_i e_i + \sum_i f_i + \sum_i g_i = 0 $$ (wide)"
LAST = f"# 10. The study\n\nA question: exercise 2.2, and {{numref}}`fig-map`.\n\n## An answer\n\nIt is given.\n\n{SHOWN}\n\n{WIDE}\n"
# The first screen of the book itself, whose links lead to what is here; and a card of a chapter.
FIRST = (ROOT / "book" / "index.md").read_text().partition("## ")[0]
FIRST = re.sub(r"\b\d\d_\w+(\.ipynb|\.html#[\w-]+)?", r"02_teacher\1", FIRST).replace(
    "usage", "faq"
)
CARD = """
````{grid} 1
:class-container: chapter-cards

```{grid-item-card} 2 · Teacher
:link: 02_teacher
:link-type: doc

How does it see?

{numref}`fig-map`
```
````
"""
TEXTS = {
    "glossary": "# Words\n\n```{glossary}\nlogit\n  What comes before the sigmoid, $x$.\n```\n",
    "index": FIRST + CARD,
    "faq": f"# Questions\n\n{'Why so? ' * 60}\n\nOf {{cite}}`kdas` and, once more, {{cite}}`kdas`.\n",
    "api": "# Functions\n\nAll.\n\n```{eval-rst}\n.. py:function:: combine(first_of_many_arguments, "
    "second_of_many_arguments, third_of_many_arguments, fourth_of_many_arguments)\n\n   Says.\n```\n",
    "bibliography": "# Bibliography\n\nAll.\n\n```{bibliography}\n:all:\n```\n",
}
BIB = "".join(
    f"@article{{{key}, author = {{{name}}}, title = {{Of {key}}}, journal = {{J}}, year = {{2020}}}}\n"
    for key, name in (("kdas", "Trinh, A."), ("hinton", "Hinton, G."), ("other", "Nobody, B."))
)
ADDRESS = "https://example.org/kdas/"


def webp(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(buffer, format="webp", lossless=True)
    return buffer.getvalue()


def drawing() -> bytes:
    """A line on white, as PNG that nobody has packed."""
    pixels, buffer = np.full((60, 90, 3), 255, np.uint8), io.BytesIO()
    pixels[30] = 0
    Image.fromarray(pixels).save(buffer, format="png", compress_level=0)
    return buffer.getvalue()


def slider() -> str:
    frame = f"data:image/webp;base64,{base64.b64encode(webp(9)).decode()}"
    return (
        f'<figure class="kdas-explore"><img src="{frame}" alt="One" loading="lazy"><img src="{frame}" '
        'alt="Two" hidden><figcaption>Move it.</figcaption></figure><script>for (const box of []) {}</script>'
    )


def real_slider() -> str:
    """Two choices as the book's own function draws them: a slider with names, and a switch."""

    def draw(level, line):
        figure, axis = plt.subplots(figsize=(4, 2))
        axis.set_title(f"level {level} {'with' if line else 'without'} a line")
        if line:
            axis.plot([0, level])
        return figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDAS_BATCH", "1")
        return explore(
            draw,
            alt="A level",
            caption="Raise it.",
            names={"level": "the level"},
            start={"level": 2},
            level={"low": 1, "middle": 2, "high": 3},
            line=[False, True],
        ).data


def showing(source: str, data: dict):
    cell = new_code_cell(source)
    cell.outputs = [new_output("display_data", data)]
    return cell


PREDICT = """## A guess

```{admonition} Predict before you run
:class: tip
How many?
```
"""


def asked() -> list:
    """A question, the two cells that answer it, the paragraph that reads them, and the text that goes on."""
    answer = showing("count()", {"text/plain": "forty-two"})
    told = new_code_cell("tell()", metadata={"tags": ["hide-input"]})
    told.outputs = [new_output("display_data", {"text/markdown": "There are forty-two."})]
    return [
        new_markdown_cell(PREDICT),
        answer,
        told,
        new_markdown_cell("A large number.\n\nIt goes on."),
    ]


SETUP = [
    new_code_cell('preset: str = "smoke"', metadata={"tags": ["parameters"]}),
    new_code_cell("import kdas_book\n\nrun = kdas_book.begin(preset)"),
    new_markdown_cell("Time and memory, as measured:"),
    new_code_cell('run.times("02_teacher")'),
]
LONGEST = f"{'ab = cd; ' * 9}efghijk"  # 88 columns


def told() -> list:
    """A sentence and two tables that cells have made, the second wider than a phone, and a long line of code."""
    code = new_code_cell(LONGEST)
    sentence = new_code_cell("write()", metadata={"tags": ["hide-input"]})
    said = "Better by -0.25, which is 0.62 ± 0.02 and no minus in `x-1`."
    sentence.outputs = [new_output("display_data", {"text/markdown": said})]
    named = pd.DataFrame({"of": ["a word", "word-1"], "Dice": [-0.5, 12.25]}, ["one", "two"])
    named.index.name = "student"
    spread = pd.DataFrame({f"measured {i}": ["0.622 ± 0.020", "-0.1 ± 0.020"] for i in range(9)})
    tables = [new_code_cell("table()") for _ in range(2)]
    for cell, table in zip(tables, (named, spread)):
        cell.outputs = [new_output("display_data", {"text/html": table.to_html()})]
    about = {"caption": "Nine columns.", "name": "tab-02-wide"}
    tables[1].metadata["mystnb"] = {"figure": about}
    return [code, sentence, *tables]


def make_site(folder, baseurl: str = ""):
    """A small book of one chapter, as if it had been executed, and what is rendered of it."""
    (folder / "book").mkdir(parents=True)
    (folder / "_build" / "executed").mkdir(parents=True)
    config = (ROOT / "_config.yml").read_text()
    (folder / "_config.yml").write_text(config.replace('baseurl: ""', f'baseurl: "{baseurl}"'))
    chapters = [folder / "book" / f"{name}.ipynb" for name in ("02_teacher", "10_study")]
    names = [*(chapter.stem for chapter in chapters), "faq", "glossary", "api", "bibliography"]
    listed = "".join(f"  - file: book/{name}\n" for name in names)
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{listed}")
    for name, text in TEXTS.items():
        (folder / "book" / f"{name}.md").write_text(text)
    (folder / "book" / "references.bib").write_text(BIB)
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    figures = [
        showing("draw()", {"image/png": base64.b64encode(drawing()).decode()}) for _ in range(2)
    ]
    for cell, name in zip(figures, ("fig-map", "fig-next")):
        about = {"image": {"alt": "A map"}, "figure": {"caption": "A line.", "name": name}}
        cell.metadata["mystnb"] = about
    sliders = [showing(f"explore({i})", {"text/html": slider()}) for i in range(2)]
    sliders.append(showing("explore()", {"text/html": real_slider()}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [new_markdown_cell(CHAPTER), *SETUP, figures[0], *sliders, figures[1], *told()]
    for chapter, shown in zip(chapters, (cells, [new_markdown_cell(LAST), *asked()])):
        notebook = writes(new_notebook(metadata={"kernelspec": kernel}, cells=shown))
        (folder / "_build" / "executed" / chapter.name).write_text(notebook)
    return build_site(folder, chapters).parent
