"""Diagrams of networks, losses and of the book itself, drawn as SVG: chapters 2, 4, 5 and 8, and
the first page.

Text stays text, a title and a description stand inside for screen readers, and each drawing has a
white ground of its own, so that it reads the same by day and by night. Numbers of networks are read
off the built networks.

A drawing is a :class:`Canvas` with boxes, words and arrows at places that are written down; it is
about 520 units wide, so that its letters can still be read where a page is as narrow as a
telephone.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, cast

import timm
from IPython.display import SVG
from timm.models import FeatureInfo

from kdas_book.figures.basics import BLUE, GREEN, ORANGE, PURPLE, RED
from kdas_book.figures.svg import LARGE, PLAIN, STUDENT, TEACHER, Box, Canvas, tint
from kdas_core import UserError
from kdas_core.losses import hyperparameters_of
from kdas_core.models.polyp_pvt import STRIDES, WIDTH, SimilarityAggregation

# --- chapter 2: the network -------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """One stage of a PVT v2 backbone: channels, blocks, heads, and R, by which keys and values are
    reduced in each direction.
    """

    channels: int
    blocks: int
    heads: int
    reduction: int


@cache
def stages_of(backbone: str) -> list[Stage]:
    """The four stages of a PVT v2 as timm builds it.

    Raises:
        UserError: the network has no stages with reduced attention.
    """
    net = timm.create_model(backbone, pretrained=False, features_only=True)
    stages = []
    for i, channels in enumerate(cast(FeatureInfo, net.feature_info).channels()):
        blocks = getattr(getattr(net, f"stages_{i}", None), "blocks", None)
        if blocks is None or not hasattr(blocks[0].attn, "sr"):
            raise UserError(
                f"{backbone} is no PVT v2, and only that has spatial-reduction attention in four stages."
            )
        attention = blocks[0].attn
        stages.append(
            Stage(
                channels,
                len(blocks),
                attention.num_heads,
                attention.sr.stride[0] if attention.sr else 1,
            )
        )
    return stages


def pyramid(size: int = 352) -> SVG:
    """The PVT v2 pyramid: strides, shapes, channels, blocks and the reduction R of teacher (B2) and
    student (B0).

    Args:
        size: side of the image in pixels, a multiple of 32.
    """
    large, small = stages_of("pvt_v2_b2"), stages_of("pvt_v2_b0")
    shapes = ", ".join(
        f"stride {s}: {a.channels} or {b.channels} channels"
        for s, a, b in zip(STRIDES, large, small)
    )
    canvas = Canvas(
        "pyramid",
        "The pyramid of PVT v2",
        f"Four stages, one after the other, make maps that get coarser and deeper. B2 or B0 at {shapes}.",
        height=406,
    )
    for x, words in ((320, "R"), (386, "channels"), (467, "blocks")):
        canvas.text(x, 26, words, font_weight="600")
    for x in (386, 467):
        canvas.text(x - 17, 46, "B2", fill=TEACHER, font_weight="600")
        canvas.text(x + 17, 46, "B0", fill=STUDENT, font_weight="600")
    above = canvas.box((20, 20, 240, 40), f"image, {size} × {size} × 3")
    for i, (stride, a, b) in enumerate(zip(STRIDES, large, small)):
        width, y = 212 - 30 * i, 94 + 74 * i
        cells = size // stride
        here = canvas.box(
            (140 - width / 2, y, width, 46),
            f"f{'₁₂₃₄'[i]}, stride {stride}",
            f"{cells} × {cells}",
            colour=GREEN,
        )
        canvas.arrow(above.bottom(), here.top())
        canvas.parts.append(f'<path d="M290 {y - 14}h214" stroke="{tint(PLAIN, 0.5)}"/>')
        canvas.text(320, y + 23, str(a.reduction), LARGE)  # B0 reduces like B2
        for x, of_large, of_small in ((386, a.channels, b.channels), (467, a.blocks, b.blocks)):
            canvas.text(x - 8, y + 23, str(of_large), LARGE, fill=TEACHER, anchor="end")
            canvas.text(x + 8, y + 23, str(of_small), LARGE, fill=STUDENT, anchor="start")
        above = here
    canvas.text(
        20,
        386,
        "R: keys and values come from a map that is R times smaller each way",
        anchor="start",
    )
    return canvas.svg()


def attention_with_reduction(stage: int = 1, size: int = 352, backbone: str = "pvt_v2_b2") -> SVG:
    """Spatial-reduction attention of one stage: every token asks, and only the reduced tokens are
    asked.

    Args:
        stage: 1 to 4, counted from the largest map. size: side of the image in pixels. backbone: a
            PVT v2 of timm.
    """
    channels, _, heads, r = stages_of(backbone)[stage - 1]
    side = size // STRIDES[stage - 1]
    all_tokens, keys = f"{side**2:,}", f"{(side // r) ** 2:,}"
    how = (f"{r} × {r} convolution, stride {r}", "then layer normalisation")
    if r == 1:
        how = ("the map as it is", "R = 1: nothing to reduce")
    canvas = Canvas(
        "attention-with-reduction",
        "Attention with reduced keys and values",
        f"The queries come from all {all_tokens} tokens of the map, keys and values from {keys} tokens: {', '.join(how)}. So "
        f"there are {all_tokens} × {keys} weights, {all_tokens} × {all_tokens} divided by {r * r}.",
        height=466,
    )
    canvas.box(
        (20, 18, 480, 46),
        f"map X: {all_tokens} tokens",
        f"{side} × {side}, {channels} channels",
        colour=GREEN,
    )
    reduced = canvas.box((250, 100, 250, 64), f"SR: {keys} tokens", *how, colour=ORANGE)
    asks = canvas.box((20, 206, 150, 46), "Q", f"{all_tokens} queries")
    asked = canvas.box((250, 206, 115, 46), "K", f"{keys} keys")
    told = canvas.box((385, 206, 115, 46), "V", f"{keys} values")
    of = (
        "softmax over the keys of Q Kᵀ / √d",
        f"{heads} head{'s' * (heads > 1)}, d = {channels // heads}",
    )
    canvas.box((20, 290, 345, 64), f"{all_tokens} × {keys} weights", *of, colour=PURPLE)
    canvas.box((140, 386, 360, 40), f"weights · V, projected: {all_tokens} tokens", colour=GREEN)
    canvas.arrow((asks.top().x, 64), asks.top())
    canvas.arrow((reduced.top().x, 64), reduced.top())
    canvas.arrow((asked.top().x, 164), asked.top())
    canvas.arrow((told.top().x, 164), told.top())
    canvas.arrow(asks.bottom(), (asks.bottom().x, 290))
    canvas.arrow(asked.bottom(), (asked.bottom().x, 290))
    canvas.arrow((250, 354), (250, 386))
    canvas.arrow(told.bottom(), (told.bottom().x, 386))
    if r > 1:
        canvas.text(
            20,
            446,
            f"Without SR: {all_tokens} × {all_tokens} weights, {r * r} times as many.",
            anchor="start",
        )
    return canvas.svg()


def decoder() -> SVG:
    """The decoder of Polyp-PVT, from the four maps of the backbone to the prediction σ(P₁ + P₂)."""
    large, small = stages_of("pvt_v2_b2"), stages_of("pvt_v2_b0")
    anchors = SimilarityAggregation().grid ** 2
    canvas = Canvas(
        "decoder",
        "The decoder of Polyp-PVT",
        f"The deep maps f2, f3 and f4 are brought to {WIDTH} channels and joined by cascaded fusion to the map D. The shallow map "
        "f1 passes camouflage identification, channel and then spatial attention, and is brought to as many channels. "
        "Similarity aggregation puts its detail into D and gives J. One head makes P1 of D, another one P2 of J, and the "
        "prediction is the sigmoid of their sum.",
        height=548,
    )
    maps = []
    for i, (stride, a, b) in enumerate(zip(STRIDES, large, small)):
        lines = (f"f{'₁₂₃₄'[i]}", f"stride {stride}", f"{a.channels} / {b.channels} ch.")
        maps.append(canvas.box((20 + 124 * i, 16, 108, 64), *lines, colour=GREEN))
    gates = ("identification:", "channel, then", "spatial gates")
    camouflage = canvas.box((20, 106, 108, 82), "camouflage", *gates, colour=PURPLE)
    thin = [
        canvas.box((144 + 124 * i, 106, 108, 46), "1 × 1, BN", f"{WIDTH} channels")
        for i in range(3)
    ]
    joins = ("a deeper map multiplies a shallower one;", "the products are joined, deep to shallow")
    fusion = canvas.box((144, 182, 356, 64), "cascaded fusion", *joins, colour=PURPLE)
    detail = canvas.box((20, 214, 108, 46), "1 × 1, BN", f"{WIDTH} channels")
    talks = (f"{anchors} anchors, a graph convolution;", "its result is added to D")
    similar = canvas.box((20, 316, 256, 64), "similarity aggregation", *talks, colour=PURPLE)
    heads = [
        canvas.box((x, 420, 150, 46), f"head {k}: 1 × 1", "to 1 channel, × 8 up")
        for k, x in ((2, 73), (1, 327))
    ]
    canvas.box((165, 492, 220, 40), "prediction σ(P₁ + P₂)", colour=ORANGE)
    canvas.arrow(maps[0].bottom(), camouflage.top())
    canvas.arrow(camouflage.bottom(), detail.top())
    for source, reduced in zip(maps[1:], thin):
        canvas.arrow(source.bottom(), reduced.top())
        canvas.arrow(reduced.bottom(), (reduced.bottom().x, fusion.y))
    canvas.arrow(detail.bottom(), (74, 316))
    canvas.text(82, 288, "r₁, stride 4", anchor="start")
    canvas.arrow((402, 246), heads[1].top())
    canvas.text(410, 288, "D, stride 8", anchor="start")
    canvas.arrow((402, 348), similar.right())
    canvas.arrow(similar.bottom(), heads[0].top())
    canvas.text(156, 400, "J, stride 8", anchor="start")
    for head, side in zip(heads, (165, 385)):
        canvas.arrow(head.bottom(), (head.bottom().x, 512), (side, 512))
    canvas.text(140, 490, "P₂", LARGE, anchor="end")
    canvas.text(410, 490, "P₁", LARGE, anchor="start")
    return canvas.svg()


# --- chapters 5 and 8: one training step ------------------------------------------------------------------------------

GRADIENT = "#b35c00"  # a darker orange, which can be told from the boxes


def framework(kind: str = "figure") -> SVG:
    """One training step of KDAS: maps, losses, and where gradients reach the student.

    Args:
        kind: ``"figure"``, what the paper's framework figure shows (objective ``kdas``), or
            ``"released"``, what the released program computes, whose attention terms have no
            gradient.

    Raises:
        UserError: another kind.
    """
    if kind not in ("figure", "released"):
        raise UserError(f'There is no framework "{kind}"; choose "figure" or "released".')
    figure = kind == "figure"
    hyperparameters = hyperparameters_of("kdas" if figure else "released")
    alpha, temperature = hyperparameters["alpha"], hyperparameters["temperature"]
    guided = 2 if figure else 1
    about = (
        "Teacher and student give two logit maps each. Both sides of each pair pass the attention A and a softmax over pixels, and "
        "a divergence compares them; symmetrical guiding compares the second pair, the structure loss each student map with the mask. "
        "Every loss sends a gradient to the student, none to the teacher."
        if figure
        else "As in the framework figure, with three differences. Only the teacher's maps pass the attention, and no softmax follows. "
        "The student's maps pass a softmax over their single channel, which is constant, so that the gradient of the attention "
        "terms ends there. Symmetrical guiding compares the first pair of maps."
    )
    title = (
        "One training step, as the paper's figure has it"
        if figure
        else "One training step, as released"
    )
    canvas = Canvas(f"framework-{kind}", title, about, height=606)
    image = canvas.box((206, 24, 108, 46), "image")
    state = "frozen, no graph" if figure else "fixed, keeps a graph"
    teacher = canvas.box((14, 24, 160, 46), "teacher", state, colour=TEACHER)
    student = canvas.box((346, 24, 160, 46), "student", "is trained", colour=STUDENT)
    canvas.arrow(image.left(), teacher.right())
    canvas.arrow(image.right(), student.left())
    for k, top in ((1, 86), (2, 260 if figure else 322)):
        _pair_of_maps(canvas, k, top, released=not figure, guided=k == guided)
        canvas.arrow((28, 70), (28, top + 58), (40, top + 58), colour=TEACHER)
        canvas.arrow((490, 70), (490, top + 47), (476, top + 47), colour=STUDENT)
        upwards = 70 if k == 1 else 86 + 75  # the second line ends where it meets the first
        canvas.arrow(
            (476, top + 75),
            (501, top + 75),
            (501, upwards),
            colour=GRADIENT,
            dashed=True,
            head=k == 1,
        )
    terms = "AS₁ + AS₂ + SG(S₂, T₂)" if figure else "R₁ + R₂ + SG(S₁, T₁)"
    total = f"(1 − α)·[St(S₁) + St(S₂)] + α·[{terms}]"
    canvas.box(
        (14, 502, 492, 54),
        total,
        f"is minimised; α = {alpha:g}, τ = {temperature:g}",
        colour=ORANGE,
    )
    canvas.arrow((20, 582), (50, 582))
    canvas.text(58, 582, "values", anchor="start")
    canvas.arrow((124, 582), (154, 582), colour=GRADIENT, dashed=True)
    canvas.text(162, 582, "gradients", anchor="start")
    if not figure:
        canvas.cross(256, 582)
        canvas.text(270, 582, "a gradient of exactly zero", anchor="start")
    return canvas.svg()


def _pair_of_maps(canvas: Canvas, k: int, y: float, released: bool, guided: bool) -> None:
    """One band of :func:`framework`: the k-th maps of teacher and student, and the losses that meet
    them.
    """
    n, row = "₁₂"[k - 1], y + 30
    canvas.ground(14, y, 492, 224 if guided else 162, ("first maps", "second maps")[k - 1])
    left = ("attention A", "÷ τ, no softmax") if released else ("attention A", "softmax of A/τ")
    right = ("softmax = 1", "over 1 channel,", "÷ τ") if released else left
    of_teacher = canvas.box((40, row, 42, 56), f"T{n}", colour=TEACHER)
    attended = canvas.box((98, row, 116, 56), *left, colour=PURPLE)
    loss = canvas.box(
        (230, row, 48, 56),
        f"{'R' if released else 'AS'}{n}",
        "“KL”" if released else "τ² KL",
        colour=ORANGE,
    )
    other = canvas.box((300, row, 116, 56), *right, colour=RED if released else PURPLE)
    of_student = canvas.box((438, row, 38, 56), f"S{n}", colour=STUDENT)
    canvas.arrow(of_teacher.right(), attended.left(), colour=TEACHER)
    canvas.arrow(attended.right(), loss.left(), colour=TEACHER)
    canvas.arrow(of_student.left(0.3), other.right(0.3))
    canvas.arrow(other.left(0.3), loss.right(0.3))
    canvas.arrow(loss.right(0.8), other.left(0.8), colour=GRADIENT, dashed=True)
    if released:
        canvas.cross(427, other.right(0.8).y)
    else:
        canvas.arrow(other.right(0.8), of_student.left(0.8), colour=GRADIENT, dashed=True)
    if guided:
        guide = canvas.box(
            (98, row + 72, 318, 46),
            f"SG(S{n}, T{n})",
            "mean square of (S + Sᵀ) − (T + Tᵀ)",
            colour=GREEN,
        )
        canvas.arrow(of_teacher.bottom(), (61, guide.left().y), guide.left(), colour=TEACHER)
        _there_and_back(canvas, guide, of_student, at=0.12)
    below = row + (134 if guided else 72)
    mask = canvas.box((98, below, 116, 46), "mask M")
    structure = canvas.box((256, below, 160, 46), f"St(S{n}, M)", "structure loss", colour=BLUE)
    canvas.arrow(mask.right(), structure.left())
    _there_and_back(canvas, structure, of_student, at=0.66)


def _there_and_back(canvas: Canvas, loss: Box, student: Box, at: float) -> None:
    """From the student's map down to a loss beside it, and the gradient on the way back."""
    x = student.bottom(at).x
    canvas.arrow((x, student.bottom().y), (x, loss.right(0.28).y), loss.right(0.28))
    canvas.arrow(
        loss.right(0.76),
        (x + 9, loss.right(0.76).y),
        (x + 9, student.bottom().y),
        colour=GRADIENT,
        dashed=True,
    )


# --- the first page ---------------------------------------------------------------------------------------------------

# number: file, name, what it is about, colour, column and row on the map. A page without a file is
# not linked.
CHAPTERS: dict[int, tuple[str, str, str, str, int, int]] = {
    1: ("01_data", "Data", "images and masks", PLAIN, 1, 0),
    2: ("02_teacher", "Teacher", "pyramid, decoder", TEACHER, 0, 1),
    3: ("03_student", "Student", "the small network", STUDENT, 2, 1),
    4: ("04_attention_maps", "Attention", "A(P), temperature", PURPLE, 1, 2),
    5: ("05_distillation_losses", "Losses", "St, KD, AS, SG", PURPLE, 1, 3),
    6: ("06_training", "Training", "loop and recipe", PLAIN, 1, 4),
    7: ("07_evaluation", "Evaluation", "metrics, intervals", PLAIN, 1, 5),
    8: ("08_released_code", "The release", "what it really does", RED, 2, 3),
    9: ("09_study", "The study", "objectives × seeds", GREEN, 2, 5),
    11: ("11_your_own_data", "Your data", "formats, videos", GREEN, 0, 0),
}
APPENDICES = {
    "notation": "Notation",
    "glossary": "Glossary",
    "faq": "Questions",
    "api": "Functions",
}


def concept_map() -> SVG:
    """The book in one picture: what each chapter is about, and what it hands to which other one.
    Chapters are links.
    """
    canvas = Canvas(
        "concept-map",
        "The chapters and what they hand to each other",
        "Data train teacher and student. Their logit maps become attention maps, these become losses, an objective drives the "
        "training, and its masks are evaluated. The reading of the released code starts from the losses; the study repeats "
        "training and evaluation over objectives and seeds; your own data can take the place of the book's.",
        height=568,
    )
    box = {}
    for number, (file, name, about, colour, column, row) in CHAPTERS.items():
        place = (12 + 174 * column, 16 + 84 * row, 148, 50)
        box[number] = canvas.box(
            place, f"{number} · {name}", about, colour=colour, href=file and f"{file}.html"
        )
    for i, (file, name) in enumerate(APPENDICES.items()):
        canvas.box((12 + 126 * i, 520, 118, 34), name, href=f"{file}.html")
    for side, number in ((0.2, 2), (0.8, 3)):
        start, end = box[1].bottom(side), box[number].top()
        canvas.arrow(start, (start.x, 83), (end.x, 83), end)
    for number, end in ((2, box[4].left()), (3, box[4].right())):
        canvas.arrow(box[number].bottom(), (box[number].bottom().x, end.y), end)
    for i in (4, 5, 6):
        canvas.arrow(box[i].bottom(), box[i + 1].top())
    canvas.arrow(box[11].right(), box[1].left())
    canvas.arrow(box[5].right(), box[8].left())
    canvas.arrow(box[7].right(), box[9].left())
    for x, y, words in (
        (96, 198, "logit maps"),
        (268, 251, "compared"),
        (268, 335, "objective"),
        (268, 419, "masks"),
    ):
        canvas.text(x, y, words, anchor="start")
    return canvas.svg()
