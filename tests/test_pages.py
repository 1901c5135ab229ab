"""The diagrams, and the pages beside the chapters: what they promise."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import typer
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from PIL import Image, ImageFont

from kdas_book import cli
from kdas_book.figures import basics, ch01_data, ch02_teacher, ch08_released_code, diagrams
from kdas_book.figures.display import use_style
from kdas_book.paths import find_root
from kdas_book.publishing import book
from kdas_book.publishing.sphinx_ext import size_figures
from kdas_book.publishing.tables import set_numbers
from kdas_book.records import laptop_maps, read_numbers
from kdas_core import UserError, recipe
from kdas_core.data.layout import FULL_COUNTS
from kdas_core.losses import objective, symmetric_guiding
from kdas_core.models import build

ROOT = find_root()
SVG = "{http://www.w3.org/2000/svg}"
SIDE_BY_SIDE = ("CVC-ClinicDB", "Kvasir", "ETIS-LaribPolypDB", "CVC-ColonDB", "CVC-300")
DRAWINGS = {
    "pyramid": ch02_teacher.pyramid,
    "attention_with_reduction": ch02_teacher.attention_with_reduction,
    "attention of stage 4": lambda: ch02_teacher.attention_with_reduction(stage=4),
    "decoder": ch02_teacher.decoder,
    "leaks": lambda: ch01_data.leaks(
        pd.read_csv(ROOT / "book/results/public_leaks.csv"),
        {"TrainDataset": 1450} | {name: FULL_COUNTS[name] for name in SIDE_BY_SIDE},
    ),
    "framework, figure": lambda: diagrams.framework("figure"),
    "framework, released": lambda: diagrams.framework("released"),
    "concept_map": diagrams.concept_map,
}

each_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


def words_of(draw) -> list[str]:
    return [text.text for text in ElementTree.fromstring(draw().data).iter(f"{SVG}text")]


# --- the diagrams -----------------------------------------------------------------------------------------------------


@each_drawing
def test_a_drawing_has_a_title_and_a_description_that_it_refers_to(draw):
    root = ElementTree.fromstring(draw().data)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    named = [root.find(f".//*[@id='{name}']") for name in root.get("aria-labelledby").split()]
    assert [element.tag for element in named] == [f"{SVG}title", f"{SVG}desc"]
    assert all(element.text.strip() for element in named)


def test_drawings_in_one_page_share_no_identifier():
    ids = [
        i
        for name in DRAWINGS
        if "stage 4" not in name
        for i in re.findall(r' id="([^"]+)"', DRAWINGS[name]().data)
    ]
    assert len(ids) == len(set(ids))


@each_drawing
def test_words_stay_in_their_boxes_and_on_the_drawing(draw):
    """Measured in DejaVu Sans, which is wider than the fonts that readers have."""
    fonts = {
        weight: matplotlib.get_data_path() + f"/fonts/ttf/DejaVuSans{weight}.ttf"
        for weight in ("", "-Bold")
    }
    root = ElementTree.fromstring(draw().data)
    _, _, width, height = map(float, root.get("viewBox").split())
    rects = [
        [float(r.get(k, 0)) for k in ("x", "y", "width", "height")] for r in root.iter(f"{SVG}rect")
    ]
    boxes = [rect for rect, r in zip(rects, root.iter(f"{SVG}rect")) if r.get("stroke")]
    for text in root.iter(f"{SVG}text"):
        font = ImageFont.truetype(
            fonts["-Bold" if text.get("font-weight") else ""], float(text.get("font-size"))
        )
        long, x, y = font.getlength(text.text), float(text.get("x")), float(text.get("y"))
        left = x - {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")] * long
        assert left >= 0 and left + long <= width and 0 < y < height, text.text
        for bx, by, bw, bh in boxes:
            if (
                by < y - 4 < by + bh and left < bx + bw and left + long > bx
            ):  # it touches this box: so it lies in it
                assert left >= bx and left + long <= bx + bw, text.text


@each_drawing
def test_boxes_do_not_overlap(draw):
    rects = [r for r in ElementTree.fromstring(draw().data).iter(f"{SVG}rect") if r.get("stroke")]
    sides = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in rects]
    for i, (x, y, w, h) in enumerate(sides):
        for a, b, c, d in sides[:i]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h


def test_the_pyramid_shows_the_numbers_of_the_networks():
    words = words_of(ch02_teacher.pyramid)
    for role in ("teacher", "student"):
        body = build(role).backbone.body
        assert [
            s.channels for s in ch02_teacher.stages_of(build(role).backbone.name)
        ] == body.feature_info.channels()
        for i, channels in enumerate(body.feature_info.channels()):
            blocks = getattr(body, f"stages_{i}").blocks
            assert {str(channels), str(len(blocks))} <= set(words)
    assert [s.reduction for s in ch02_teacher.stages_of("pvt_v2_b2")] == [
        s.reduction for s in ch02_teacher.stages_of("pvt_v2_b0")
    ]
    assert {"88 × 88", "44 × 44", "22 × 22", "11 × 11"} <= set(words)


def test_reduced_attention_asks_as_many_keys_as_the_network():
    for stage in (1, 2, 3, 4):
        words = words_of(lambda stage=stage: ch02_teacher.attention_with_reduction(stage))
        side = 352 // 2 ** (stage + 1)
        assert f"{side**2:,} × 121 weights" in words  # every stage asks a grid of 11 × 11


def test_the_frameworks_name_the_terms_of_their_objectives():
    """Which map is guided, and which attention term is dead: as the objectives have it."""
    torch = pytest.importorskip("torch")
    maps = [
        tuple(torch.randn(2, 1, 32, 32, requires_grad=True) for _ in range(2)) for _ in range(2)
    ]
    for kind, name in (("figure", "kdas"), ("released", "released")):
        words = words_of(lambda kind=kind: diagrams.framework(kind))
        terms = objective(name)(*maps, torch.rand(2, 1, 32, 32).round())
        reached = torch.autograd.grad(terms["symmetric"], maps[0], allow_unused=True)
        (guided,) = (k for k, gradient in enumerate(reached, 1) if gradient is not None)
        student, teacher = f"S{'₁₂'[guided - 1]}", f"T{'₁₂'[guided - 1]}"
        raw = terms["symmetric"].isclose(symmetric_guiding(*(m[guided - 1] for m in maps)))
        pair = f"({student}, {teacher})" if raw else f"(A({student}), A({teacher}))"
        assert f"SG{pair}" in words
        dead = any("inert" in term for term in terms)
        assert dead == ("a gradient of exactly zero" in words)
        assert dead == (RED_CROSS in diagrams.framework(kind).data)
    with pytest.raises(UserError, match="paper"):
        diagrams.framework("paper")


RED_CROSS = f'stroke="{basics.RED}" stroke-width="3"'


def test_the_map_names_every_chapter_and_links_those_that_exist():
    written = {page.stem for page in book.chapters(ROOT)}
    pages = {path.stem for path in (ROOT / "book").glob("*.md")} | written
    links = set(re.findall(r'href="([^"]+)\.html"', diagrams.concept_map().data))
    assert links <= pages
    assert written <= links


def test_the_map_of_the_first_page_is_the_one_that_the_code_draws():
    """After a change: python -c 'from kdas_book.figures import diagrams; print(diagrams.concept_map().data)' > book/_static/concept_map.svg"""
    stored = (ROOT / "book" / "_static" / "concept_map.svg").read_text(encoding="utf-8")
    assert stored == diagrams.concept_map().data + "\n"


def test_every_diagram_in_a_chapter_has_a_text_for_those_who_cannot_see_it():
    calls = re.compile(r"\.(pyramid|attention_with_reduction|decoder|framework|concept_map)\(")
    for chapter in book.chapters(ROOT):
        for cell in nbformat.read(chapter, as_version=4).cells:
            if cell.cell_type == "code" and calls.search(cell.source):
                assert cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip(), (
                    chapter.stem
                )


def test_an_arrow_of_leaks_leads_to_the_set_that_repeats_another():
    root = ElementTree.fromstring(DRAWINGS["leaks"]().data)
    words = words_of(DRAWINGS["leaks"])
    assert {"26 of 26 videos", "60 of 380 images", "34 of them repeated"} <= set(words)
    heights = {text.text: float(text.get("y")) for text in root.iter(f"{SVG}text")}
    ends = [line.get("points").split()[-1].split(",") for line in root.iter(f"{SVG}polyline")]
    for (_, y), name in zip(ends, ("CVC-ClinicDB", "CVC-ColonDB")):
        assert min(SIDE_BY_SIDE, key=lambda each: abs(heights[each] - float(y))) == name


def test_a_figure_of_many_pixels_an_inch_is_shown_at_its_inches_and_others_as_they_are(tmp_path):
    tree = new_document("")
    for name, dense in (("dense", 192), ("plain", 96), ("untold", None)):
        look = {"dpi": (dense, dense)} if dense else {}
        Image.new("RGB", (400, 200)).save(tmp_path / f"{name}.png", **look)
        tree += nodes.image(uri=f"{name}.png")
    size_figures(SimpleNamespace(srcdir=tmp_path), tree, "")
    assert [image.get("width") for image in tree.findall(nodes.image)] == ["200px", None, None]


def test_per_cent_stands_behind_a_thin_space_in_text_and_not_in_code():
    page = BeautifulSoup("<p>57% or 5 %, a % of <code>57%</code></p>", "html.parser")
    set_numbers(page)
    assert page.get_text() == "57\u202f% or 5\u202f%, a % of 57%"


# --- the glossary -----------------------------------------------------------------------------------------------------

GLOSSARY = ROOT / "book" / "glossary.md"
# What is no running text: fenced blocks (directives with their titles and options among them), formulas, comments, headings,
# tables, labels, code, roles, links, addresses and tags. What matches is left alone.
NO_PROSE = re.compile(
    r"^(?P<fence>`{3,}|~{3,}|:{3,})[^\n]*\n.*?^(?P=fence)[ \t]*$"
    r"|\$\$.*?\$\$|^[ \t]*%[^\n]*$|^[ \t]*#{1,6} [^\n]*$|^[ \t]*\|[^\n]*$|^\([\w-]+\)=$"
    r"|(?P<link>\{term\}(?P<tick>`+)(?P<text>.+?)(?P=tick))"
    r"|(?:\{[\w:-]+\})?(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)"
    r"|\$[^$\n]+(?:\n[^$\n]+)?\$|!?\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|<[^>\n]+>|https?://\S+",
    re.M | re.S,
)


def glossary_terms() -> list[list[str]]:
    """The names of each entry of the glossary, the first one first."""
    block = re.search(
        r"```\{glossary\}\n(.*?)\n```", GLOSSARY.read_text(encoding="utf-8"), re.S
    ).group(1)
    entries = re.split(r"\n\n(?=\S)", block)
    return [[line for line in entry.splitlines() if not line.startswith(" ")] for entry in entries]


def linked_terms() -> dict[str, list[str]]:
    """The terms that chapters link at first use, as the comment at the head of the glossary names them, with their other names."""
    head = GLOSSARY.read_text(encoding="utf-8").split("```{glossary}")[0]
    marked = " ".join(re.findall(r"^% (.*)$", head, re.M)).partition(":")[2]
    names = {entry[0]: entry for entry in glossary_terms()}
    return {term: names[term] for term in (part.strip() for part in marked.split("|")) if term}


def first_use(text: str, names: list[str]) -> re.Match | str | None:
    """Where a term first stands in running text: a match if it is plain, "linked" if it is a link, None if it does not occur."""
    longer = {
        n[: -len(name)]
        for names_ in glossary_terms()
        for n in names_
        for name in names
        if n.endswith(" " + name)
    }
    not_after = "".join(
        rf"(?<!{re.escape(p)})(?<!{re.escape(p.capitalize())})" for p in longer
    )  # IoU, but not boundary IoU
    either = "|".join(
        f"[{n[0].lower()}{n[0].upper()}]" + re.escape(n[1:]).replace(r"\ ", r"\s+") for n in names
    )
    plain = re.compile(rf"(?<![\w/_.-]){not_after}(?:{either})s?(?![\w/_-])")
    prose, end = text, len(text)
    for found in NO_PROSE.finditer(text):
        prose = prose[: found.start()] + "\0" * len(found.group()) + prose[found.end() :]
        if found["link"]:
            shown, _, target = found["text"].rstrip(">").rpartition(" <")
            if target.lower() in (name.lower() for name in names):
                end = min(end, found.start())
    return plain.search(prose, 0, end) or ("linked" if end < len(text) else None)


def cells_of(chapter: Path) -> list[str]:
    return [
        cell.source
        for cell in nbformat.read(chapter, as_version=4).cells
        if cell.cell_type == "markdown"
    ]


def unlinked(chapter: Path) -> Iterator[str]:
    """The terms of the glossary whose first use in this chapter's running text is no link to it."""
    for term, names in linked_terms().items():
        uses = (first_use(text, names) for text in cells_of(chapter))
        use = next((use for use in uses if use), None)
        if isinstance(use, re.Match):
            yield f"{term}: …{use.string[max(0, use.start() - 30) : use.end() + 20]!r}"


def test_the_glossary_is_in_order_and_names_nothing_twice():
    entries = glossary_terms()
    first = [names[0].lower() for names in entries]
    assert first == sorted(first)
    every = [name.lower() for names in entries for name in names]
    assert len(every) == len(set(every))
    assert set(linked_terms()) <= {names[0] for names in entries}


def test_every_entry_of_the_glossary_says_where_it_comes_from():
    text = GLOSSARY.read_text(encoding="utf-8")
    for entry in re.split(
        r"\n\n(?=\S)", re.search(r"```\{glossary\}\n(.*?)\n```", text, re.S).group(1)
    ):
        explained = " ".join(line.strip() for line in entry.splitlines() if line.startswith(" "))
        assert "[chapter" in explained or "{term}" in explained, entry
        assert len(re.findall(r"[.:] (?=[A-Z])", explained)) <= 3, entry  # one to three sentences


def test_first_uses_are_found_in_running_text_alone():
    names = ["logit", "logits"]
    for nothing in (
        "# Logits",
        "| logit | x |",
        "```{note} Logits\n:class: tip\nlogit\n```",
        "`logit`, $logit$, {doc}`logit`",
        "[a logit](x.md)",
        "logit_kd and cross-logit",
        "$$\nlogit\n$$",
        "% logit",
    ):
        assert first_use(nothing, names) is None, nothing
    assert first_use("A {term}`logit map <logit>`, then a logit.", names) == "linked"
    assert first_use("Of boundary IoU, Boundary IoU.", ["IoU"]) is None
    assert (
        first_use("expected calibration\nerror", ["expected calibration error"]).group()
        == "expected calibration\nerror"
    )
    use = first_use("## Logits\n\n**Logits** are sums; {term}`logit` comes later.", names)
    assert (use.start(), use.group()) == (
        13,
        "Logits",
    )  # in the original text, so that it can be replaced there


@pytest.mark.parametrize("chapter", book.chapters(ROOT), ids=lambda path: path.stem)
def test_a_chapter_links_each_term_at_its_first_use(chapter):
    if not any("{term}" in text for path in book.chapters(ROOT) for text in cells_of(path)):
        pytest.skip("no chapter links the glossary yet")
    assert list(unlinked(chapter)) == []


def test_every_term_that_is_marked_as_linked_occurs_in_a_page():
    texts = [text for chapter in book.chapters(ROOT) for text in cells_of(chapter)]
    texts.append((ROOT / "book" / "index.md").read_text(encoding="utf-8"))
    assert [
        term
        for term, names in linked_terms().items()
        if not any(first_use(text, names) for text in texts)
    ] == []


# --- the first page ---------------------------------------------------------------------------------------------------

FIRST = (ROOT / "book" / "index.md").read_text(encoding="utf-8")


def test_the_numbers_of_the_first_page_and_of_the_readme_are_those_of_the_results():
    nonzero = "nonzero elements in the gradient of the released attention term"
    losses, scores = (
        read_numbers(ROOT, name) for name in ("05_distillation_losses", "07_evaluation")
    )
    tuned = read_numbers(ROOT, "10_study")[
        "kdas_tuned (raw guiding) − supervised, mean of the sets"
    ]
    value, low, high = re.findall(r"[+-]?\d\.\d+", tuned.replace("−", "-"))
    told = f"{losses[nonzero]} of {losses['elements of it that were looked at']}"
    spread = scores["meanDic of one student, spread over conventions"]
    bold = re.findall(r"^\*\*(.+)\*\*$", FIRST, re.M)
    assert bold == [told, f"{value} Dice", f"{spread} Dice"]
    for text in (FIRST, (ROOT / "README.md").read_text(encoding="utf-8")):
        said = " ".join(text.replace("−", "-").split())
        assert f"interval {low} to {high}" in said and value in said


def test_the_first_page_lists_each_chapter_once_and_its_button_leads_to_a_section():
    cards = re.findall(r"\{grid-item-card\} .*\n:link: (\w+)", FIRST)
    assert cards == [chapter.stem for chapter in book.chapters(ROOT)]
    page, anchor = re.search(r"\{button-link\} (\w+)\.html#(\S+)", FIRST).groups()
    headings = re.findall(r"^#+ (.*)$", "\n".join(cells_of(ROOT / "book" / f"{page}.ipynb")), re.M)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_the_picture_of_the_two_gradients_is_what_the_code_draws(tmp_path):
    """Set KDAS_DRAW=1 to store what it draws now, and look at it."""
    stored = ROOT / "book" / "_static" / "gradients.png"
    drawn = stored if os.environ.get("KDAS_DRAW") else tmp_path / "gradients.png"
    with plt.rc_context():
        use_style()
        ch08_released_code.released_and_repaired(laptop_maps(ROOT)).savefig(drawn, dpi=200)
    plt.close("all")
    sizes, pixels = zip(
        *(
            (p.size, np.asarray(p.convert("L").resize((300, 110)), float))
            for p in map(Image.open, (drawn, stored))
        )
    )
    assert max(abs(a - b) for a, b in zip(*sizes)) <= 8
    assert np.abs(pixels[0] - pixels[1]).mean() < 9


# --- the functions ----------------------------------------------------------------------------------------------------


# --- the page of symbols ----------------------------------------------------------------------------------------------

# Indices, placeholders, constants and operators, which no reader looks up. A bar is a mean.
EVERYWHERE = {*"ijklxye", r"\partial", r"\nabla", r"\Sigma", r"\pi"}
LETTER = re.compile(
    r"\\(?:mathbf|mathcal)\{?\s*[A-Za-z]\}?|\\(?:hat|tilde)\s*\{?\s*(?:\\[A-Za-z]+|[A-Za-z])\}?"
    r"|\\(?:alpha|beta|gamma|delta|epsilon|varepsilon|eta|theta|kappa|lambda|mu|nu|pi|rho|sigma|tau|phi|omega|Delta"
    r"|Omega|Pi|Phi|Theta|Gamma|Lambda)(?![A-Za-z])|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])"
)


def symbols(formula: str) -> set[str]:
    """The letters of a formula, with their accents, without what hangs on them."""
    kept = re.sub(r"\\(?:mathrm|text|operatorname|begin|end|label|tag)\*?\{[^{}]*\}", " ", formula)
    kept = re.sub(r"[_^](\{(?:[^{}]|\{[^{}]*\})*\}|\\[A-Za-z]+|.)", " ", kept)
    kept = re.sub(
        r"\\mathrm\s*[A-Za-z]|\\(?!mathbf|mathcal|hat|tilde|bar|overline)(?:[A-Z]?[a-z]{2,}|[,;!])(?![A-Za-z])",
        lambda m: m[0] if LETTER.fullmatch(m[0]) else " ",
        kept,
    )
    return {re.sub(r"[{}\s]", "", m) for m in LETTER.findall(kept)}


def formulas(text: str) -> list[str]:
    text = re.sub(r"```(?!\{math\}).*?```|`[^`]*`", " ", text, flags=re.S)
    found = re.findall(r"```\{math\}\n(.*?)```", text, flags=re.S)
    text = re.sub(r"```\{math\}\n(.*?)```", " ", text, flags=re.S)
    return found + [a or b for a, b in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, flags=re.S)]


def notation_rows() -> list[tuple[set[str], str]]:
    text = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| $")]
    names = [re.sub(r"\([^()]*\)", "", row[0]) for row in rows]  # without what a function is of
    return [(set().union(*map(symbols, formulas(name))), row[1]) for name, row in zip(names, rows)]


def test_letters_are_found_with_their_accents_and_without_what_hangs_on_them():
    attended = r"A(P) = \mathrm{softmax}\!\bigl(P P^\top / \sqrt{W}\bigr)\, P, \quad \overline m_i"
    assert symbols(attended) == {"A", "P", "W", "m"}
    assert symbols(r"\hat y = \sigma(P_1), \mathbf{W}_Q, \mathcal L_{\text{kdas}}") == {
        r"\haty",
        r"\sigma",
        "P",
        r"\mathbfW",
        r"\mathcalL",
    }


def test_a_letter_has_one_meaning():
    rows = notation_rows()
    assert len(rows) > 50
    seen = [letter for letters, _ in rows for letter in letters]
    assert sorted({letter for letter in seen if seen.count(letter) > 1}) == []


@pytest.mark.parametrize("chapter", book.chapters(ROOT), ids=lambda path: path.stem)
def test_every_letter_of_a_chapters_formulas_is_on_the_page_of_symbols(chapter):
    known = set().union(*(letters for letters, _ in notation_rows())) | EVERYWHERE
    cells = nbformat.read(chapter, as_version=4).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    text = text.split("## Exercises")[0]
    unknown = {s: f for f in formulas(text) for s in symbols(f) if s not in known}
    assert unknown == {}


def test_the_page_of_functions_has_the_public_names_of_each_room():
    from kdas_core import attention, evaluation, losses, models, training

    pages = sorted((ROOT / "book").glob("api_*.md"))
    page = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    documented = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", page, re.M))
    for room in (attention, evaluation, losses, models, training):
        names = getattr(room, "__all__", None) or [
            n for n, v in vars(room).items() if getattr(v, "__module__", "") == room.__name__
        ]
        public = {name for name in names if callable(getattr(room, name)) and not name.isupper()}
        missing = {f"{room.__name__}.{name}" for name in public} - documented
        assert missing <= {
            "kdas_core.training.TrainingState",
            "kdas_core.attention.rows_as_tokens",
        }  # what only the loop itself uses
    for name in documented:
        module, _, attribute = name.rpartition(".")
        thing = getattr(importlib.import_module(module), attribute)
        assert (thing.__doc__ or "").strip(), name


def test_the_table_of_hyperparameters_is_the_recipe():
    page = (ROOT / "book" / "api_recipe.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", page, re.M)
    table = {}
    for names, defaults in rows:
        values = ast.literal_eval(f"[{defaults.replace('`', '')}]")
        table |= dict(zip(re.findall(r"\w+", names), values, strict=True))
    assert table == {
        hyperparameter.name: hyperparameter.default
        for hyperparameter in dataclasses.fields(recipe.Recipe)
    }


# --- the questions ----------------------------------------------------------------------------------------------------


def test_every_command_among_the_questions_exists_with_its_options():
    """In blocks and in running text; what stands for a file or a folder is not looked at."""
    text = (ROOT / "book" / "faq.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:^ *|[`!])(kdas [^`\n]+)", text, re.M)
    assert len(commands) > 20
    for line in commands:
        words = shlex.split(line.replace("…", ""), comments=True)[1:]
        command = typer.main.get_command(cli.app)
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= known, line
        cli.parse_settings([value for word, value in zip(words, words[1:]) if word == "--set"])
