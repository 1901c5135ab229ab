"""Diagrams of one training step (chapters 5 and 8) and of the book itself (the first page)."""

from typing import Any

from IPython.display import SVG

from kdas_book.figures.basics import BLUE, GREEN, ORANGE, PURPLE, RED
from kdas_book.figures.svg import PLAIN, STUDENT, TEACHER, Box, Canvas, tint
from kdas_core import UserError
from kdas_core.losses import hyperparameters_of

# a gradient's arrow; its orange is darker than that of the boxes
BACK: dict[str, Any] = {"colour": "#b35c00", "dashed": True}

# kind of framework: its objective, a title, what a screen reader says
FRAMEWORKS = {
    "figure": (
        "kdas",
        "One training step, as the paper's figure has it",
        "Teacher and student give two logit maps each. Attention and then a softmax over pixels "
        "come before the divergence of each pair; guiding compares the attended second pair, "
        "before that softmax, the structure loss each raw student map with the mask. Every loss "
        "sends a gradient to the student.",
    ),
    "released": (
        "released",
        "One training step, as released",
        "Only the teacher's maps pass the attention, and no softmax follows. The student's pass a "
        "softmax over their single channel, which is constant, so the gradient of the attention "
        "terms ends there. Symmetrical guiding compares the first pair of maps, raw.",
    ),
}


def framework(kind: str = "figure") -> SVG:
    """One training step of KDAS: maps, losses, and where gradients reach the student. ``"figure"``
    is what the paper's framework figure shows (objective ``kdas``), ``"released"`` what the
    released program computes, whose attention terms have no gradient; UserError for another kind.
    """
    if kind not in FRAMEWORKS:
        raise UserError(f'There is no framework "{kind}"; choose "figure" or "released".')
    released = kind == "released"
    objective, title, about = FRAMEWORKS[kind]
    canvas = Canvas(f"framework-{kind}", title, about, height=606)
    image = canvas.box((206, 24, 108, 46), "image")
    state = "fixed, keeps a graph" if released else "frozen, no graph"
    teacher = canvas.box((14, 24, 160, 46), "teacher", state, colour=TEACHER)
    student = canvas.box((346, 24, 160, 46), "student", "is trained", colour=STUDENT)
    canvas.arrow(image.left(), teacher.right())
    canvas.arrow(image.right(), student.left())
    second = _pair_of_maps(canvas, 1, 86, released)
    _pair_of_maps(canvas, 2, second, released)
    for top, end in ((86, 70), (second, 86 + 75)):  # the second line ends where it meets the first
        canvas.arrow((28, 70), (28, top + 58), (40, top + 58), colour=TEACHER)
        canvas.arrow((490, 70), (490, top + 47), (476, top + 47), colour=STUDENT)
        canvas.arrow((476, top + 75), (501, top + 75), (501, end), **BACK, head=end == 70)
    of = hyperparameters_of(objective)
    terms = "R₁ + R₂ + SG(S₁, T₁)" if released else "AS₁ + AS₂ + SG"
    total = f"(1 − α)·[St(S₁) + St(S₂)] + α·[{terms}]"
    how = f"is minimised; α = {of['alpha']:g}, τ = {of['temperature']:g}"
    canvas.box((14, 502, 492, 54), total, how, colour=ORANGE)
    for x, words, look in ((20, "values", {}), (124, "gradients", BACK)):
        canvas.arrow((x, 582), (x + 30, 582), **look)
        canvas.text(x + 38, 582, words, anchor="start")
    if released:
        canvas.cross(256, 582)
        canvas.text(270, 582, "a gradient of exactly zero", anchor="start")
    return canvas.svg()


def _pair_of_maps(canvas: Canvas, k: int, y: float, released: bool) -> float:
    """One band: the k-th maps and the losses that meet them. Returns where the next band begins."""
    guided = k == (1 if released else 2)
    n, row, height = " ₁₂"[k], y + 30, 224 if guided else 162
    canvas.add("rect", x=14, y=y, width=492, height=height, rx=8, fill=tint(PLAIN, 0.1))
    canvas.text(90, y + 15, ("first maps", "second maps")[k - 1], font_weight="600")
    of_teacher, attended, other, of_student = _compared(canvas, n, row, released)
    if guided:
        pair = f"S{n}, T{n}" if released else f"A(S{n}), A(T{n})"
        words = (f"SG({pair})", "mean square of (P + Pᵀ) − (Q + Qᵀ)")
        guide = canvas.box((98, row + 72, 318, 46), *words, colour=GREEN)
    if guided and released:  # the raw maps
        canvas.arrow(of_teacher.bottom(), (61, guide.left().y), guide.left(), colour=TEACHER)
        _there_and_back(canvas, guide, of_student, 0.12)
    elif guided:  # the attended ones, from which the gradient has a way back above
        canvas.arrow(attended.bottom(), (156, guide.top().y), colour=TEACHER)
        canvas.arrow(other.bottom(0.35), (340.6, guide.top().y))
        canvas.arrow((372, guide.top().y), (372, other.bottom().y), **BACK)
    below = y + height - 60
    mask = canvas.box((98, below, 116, 46), "mask M")
    structure = canvas.box((256, below, 160, 46), f"St(S{n}, M)", "structure loss", colour=BLUE)
    canvas.arrow(mask.right(), structure.left())
    _there_and_back(canvas, structure, of_student, 0.66)
    return y + height + 12


def _compared(canvas: Canvas, n: str, row: float, released: bool) -> tuple[Box, Box, Box, Box]:
    """Attention below, from which guiding goes on, and a softmax over its pixels above."""
    terms = (f"R{n}", "“KL”") if released else (f"AS{n}", "τ² KL")
    of_teacher = canvas.box((40, row, 42, 56), f"T{n}", colour=TEACHER)
    canvas.box((230, row, 48, 56), *terms, colour=ORANGE)
    of_student = canvas.box((438, row, 38, 56), f"S{n}", colour=STUDENT)
    high, low, purple = row + 11, row + 45, {"colour": PURPLE}
    canvas.box((98, row, 116, 22), "÷ τ only" if released else "softmax, τ", **purple)
    attended = canvas.box((98, row + 34, 116, 22), "attention A", **purple)
    for x, y, rise in ((82, low, (16, 0)), (156, row + 34, (0, -12)), (214, high, (16, 0))):
        canvas.arrow((x, y), (x + rise[0], y + rise[1]), colour=TEACHER)
    if released:
        other = canvas.box((300, row, 116, 56), "softmax = 1", "one channel, ÷ τ", colour=RED)
        canvas.cross(427, low + 6)
    else:
        canvas.box((300, row, 116, 22), "softmax, τ", **purple)
        other = canvas.box((300, row + 34, 116, 22), "attention A", **purple)
        canvas.arrow((340.6, row + 34), (340.6, row + 22))
        canvas.arrow((372, row + 22), (372, row + 34), **BACK)
    for start, end, level in ((438, 416, low), (300, 278, high)):
        canvas.arrow((start, level - 4), (end, level - 4))
        if not (released and level == low):
            canvas.arrow((end, level + 6), (start, level + 6), **BACK)
    return of_teacher, attended, other, of_student


def _there_and_back(canvas: Canvas, loss: Box, student: Box, at: float) -> None:
    """From the student down to a loss, and the gradient back."""
    (x, top), there, back = student.bottom(at), loss.right(0.28), loss.right(0.76)
    canvas.arrow((x, top), (x, there.y), there)
    canvas.arrow(back, (x + 9, back.y), (x + 9, top), **BACK)


# number: file, name, what it is about, colour, column and row on the map
CHAPTERS = {
    0: ("00_three_minutes", "In 3 minutes", "distil a student", GREEN, 2, 0),
    1: ("01_data", "Data", "images and masks", PLAIN, 1, 0),
    2: ("02_teacher", "Teacher", "pyramid, decoder", TEACHER, 0, 1),
    3: ("03_student", "Student", "the small network", STUDENT, 2, 1),
    4: ("04_attention_maps", "Attention", "A(P), temperature", PURPLE, 1, 2),
    5: ("05_distillation_losses", "Losses", "St, KD, AS, SG", PURPLE, 1, 3),
    6: ("06_training", "Training", "loop and recipe", PLAIN, 1, 4),
    7: ("07_evaluation", "Evaluation", "metrics, intervals", PLAIN, 1, 5),
    8: ("08_released_code", "The release", "what it really does", RED, 2, 3),
    9: ("09_rivals", "Rivals", "other losses", PURPLE, 0, 3),
    10: ("10_study", "The study", "objectives × seeds", GREEN, 2, 5),
    11: ("11_your_own_data", "Your data", "formats, videos", GREEN, 0, 0),
    12: ("12_running_it", "Running it", "export, trust", GREEN, 0, 5),
}
APPENDICES = ("notation Notation", "glossary Glossary", "faq Questions", "api Functions")


def concept_map() -> SVG:
    """The book in one picture: what each chapter, a link, is about and hands to which other one."""
    about = (
        "Data train teacher and student. Their logit maps become attention maps, these become "
        "losses, an objective drives the training, and its masks are evaluated. The released code, "
        "the rivals, the study, your own data and running it branch off."
    )
    title = "The chapters and what they hand to each other"
    canvas = Canvas("concept-map", title, about, height=568)
    box = {}
    for number, (file, name, what, colour, column, row) in CHAPTERS.items():
        place, title = (12 + 174 * column, 16 + 84 * row, 148, 50), f"{number} · {name}"
        box[number] = canvas.box(place, title, what, colour=colour, href=f"{file}.html")
    for i, (file, name) in enumerate(each.split() for each in APPENDICES):
        canvas.box((12 + 126 * i, 520, 118, 34), name, href=f"{file}.html")
    for number, side, end in ((2, 0.2, box[4].left()), (3, 0.8, box[4].right())):
        start, middle = box[1].bottom(side), box[number].top()
        canvas.arrow(start, (start.x, 83), (middle.x, 83), middle)
        canvas.arrow(box[number].bottom(), (middle.x, end.y), end)
    for i in (4, 5, 6):
        canvas.arrow(box[i].bottom(), box[i + 1].top())
    for i, right in ((11, 1), (5, 8), (7, 10)):
        canvas.arrow(box[i].right(), box[right].left())
    for i, left in ((5, 9), (7, 12)):
        canvas.arrow(box[i].left(), box[left].right())
    canvas.text(96, 198, "logit maps", anchor="start")
    for y, words in ((251, "compared"), (335, "objective"), (419, "masks")):
        canvas.text(268, y, words, anchor="start")
    return canvas.svg()
