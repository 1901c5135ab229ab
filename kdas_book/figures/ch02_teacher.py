"""Figures of chapter 2: PVT v2 and the decoder, read off built networks; the teacher at work."""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import timm
from IPython.display import SVG
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import GREEN, ORANGE, PURPLE, YELLOW, as_picture, grid, outlined
from kdas_book.figures.svg import LARGE, PLAIN, STUDENT, TEACHER, Canvas, tint
from kdas_core.models.polyp_pvt import STRIDES, WIDTH, SimilarityAggregation

SIZE = 352  # of the paper's images, in pixels


# of a PVT v2; reduction is ρ, by which keys and values shrink each way
Stage = namedtuple("Stage", "stride channels blocks heads reduction")


@cache
def stages_of(backbone: str) -> list[Stage]:
    """The four stages of a PVT v2 as timm builds it."""
    net: Any = timm.create_model(backbone, pretrained=False, features_only=True)
    stages = []
    for i, stride in enumerate(STRIDES):
        blocks = getattr(net, f"stages_{i}").blocks
        of = blocks[0].attn
        r = of.sr.stride[0] if of.sr else 1
        stages.append(Stage(stride, of.dim, len(blocks), of.num_heads, r))
    return stages


def pyramid() -> SVG:
    """PVT v2 at 352 pixels: strides, channels, blocks, ρ of teacher (B2) and student (B0)."""
    pairs = list(zip(stages_of("pvt_v2_b2"), stages_of("pvt_v2_b0")))
    about = "Four stages, one after the other, make coarser and deeper maps; channels of B2 or B0: "
    about += "; ".join(f"stride {a.stride}: {a.channels} or {b.channels}" for a, b in pairs)
    canvas = Canvas("pyramid", "The pyramid of PVT v2", about, height=406)
    for x, words in ((320, "ρ"), (386, "channels"), (467, "blocks")):
        canvas.text(x, 26, words, font_weight="600")
    for x in (386, 467):
        canvas.text(x - 17, 46, "B2", fill=TEACHER, font_weight="600")
        canvas.text(x + 17, 46, "B0", fill=STUDENT, font_weight="600")
    above = canvas.box((20, 20, 240, 40), f"image, {SIZE} × {SIZE} × 3")
    for i, (a, b) in enumerate(pairs):
        width, y, side = 212 - 30 * i, 94 + 74 * i, SIZE // a.stride
        lines = (f"F{'₁₂₃₄'[i]}, stride {a.stride}", f"{side} × {side}")
        here = canvas.box((140 - width / 2, y, width, 46), *lines, colour=GREEN)
        canvas.arrow(above.bottom(), here.top())
        canvas.add("path", d=f"M290 {y - 14}h214", stroke=tint(PLAIN, 0.5))
        canvas.text(320, y + 23, str(a.reduction), LARGE)  # B0 reduces like B2
        for x, large, small in ((386, a.channels, b.channels), (467, a.blocks, b.blocks)):
            canvas.text(x - 8, y + 23, str(large), LARGE, fill=TEACHER, anchor="end")
            canvas.text(x + 8, y + 23, str(small), LARGE, fill=STUDENT, anchor="start")
        above = here
    canvas.text(260, 386, "ρ: keys and values come from a map that is ρ times smaller each way")
    return canvas.svg()


def attention_with_reduction(stage: int = 1) -> SVG:
    """Spatial-reduction attention of one stage (1 to 4) of the teacher at 352 pixels."""
    stride, channels, _, heads, r = stages_of("pvt_v2_b2")[stage - 1]
    side = SIZE // stride
    tokens, keys = f"{side**2:,}", f"{(side // r) ** 2:,}"
    how = (f"{r} × {r} convolution, stride {r}", "then layer normalisation")
    if r == 1:
        how = ("the map as it is", "ρ = 1: nothing to reduce")
    about = f"Queries come from all {tokens} tokens of the map, keys and values from {keys}: "
    about += f"{', '.join(how)}. So there are {tokens} × {keys} weights, 1 / {r * r} of all pairs."
    title = "Attention with reduced keys and values"
    canvas = Canvas("attention-with-reduction", title, about, height=466)
    shape = f"{side} × {side}, {channels} channels"
    canvas.box((20, 18, 480, 46), f"map X: {tokens} tokens", shape, colour=GREEN)
    reduced = canvas.box((250, 100, 250, 64), f"SR: {keys} tokens", *how, colour=ORANGE)
    asks = canvas.box((20, 206, 150, 46), "Q", f"{tokens} queries")
    asked = canvas.box((250, 206, 115, 46), "K", f"{keys} keys")
    told = canvas.box((385, 206, 115, 46), "V", f"{keys} values")
    how = ("softmax over the keys of Q Kᵀ / √d", f"heads: {heads}, d = {channels // heads}")
    canvas.box((20, 290, 345, 64), f"{tokens} × {keys} weights", *how, colour=PURPLE)
    canvas.box((140, 386, 360, 40), f"weights · V, projected: {tokens} tokens", colour=GREEN)
    for box, y in ((asks, 64), (reduced, 64), (asked, 164), (told, 164)):
        canvas.arrow((box.top().x, y), box.top())
    for start, y in ((asks.bottom(), 290), (asked.bottom(), 290), (told.bottom(), 386)):
        canvas.arrow(start, (start.x, y))
    canvas.arrow((250, 354), (250, 386))
    if r > 1:
        canvas.text(260, 446, f"Without SR: {tokens} × {tokens} weights, {r * r} times as many.")
    return canvas.svg()


def decoder() -> SVG:
    """The decoder of Polyp-PVT, from the four maps of the backbone to the prediction σ(P₁ + P₂)."""
    about = (
        f"The deep maps F2, F3 and F4 are brought to {WIDTH} channels and fused to the map D. The "
        "shallow map F1 passes camouflage identification; similarity aggregation puts its detail "
        "into D and gives J. One head makes P1 of D, another P2 of J; their sum is the prediction."
    )
    canvas = Canvas("decoder", "The decoder of Polyp-PVT", about, height=548)
    maps, thin = [], []
    for i, (a, b) in enumerate(zip(stages_of("pvt_v2_b2"), stages_of("pvt_v2_b0"))):
        lines = (f"F{'₁₂₃₄'[i]}", f"stride {a.stride}", f"{a.channels} / {b.channels} ch.")
        maps.append(canvas.box((20 + 124 * i, 16, 108, 64), *lines, colour=GREEN))
    reduction = ("1 × 1, BN", f"{WIDTH} channels")
    for i in (1, 2, 3):
        thin.append(canvas.box((20 + 124 * i, 106, 108, 46), *reduction))
        canvas.arrow(thin[-1].bottom(), (thin[-1].bottom().x, 182))
    gates = ("camouflage", "identification:", "channel, then", "spatial gates")
    camouflage = canvas.box((20, 106, 108, 82), *gates, colour=PURPLE)
    detail = canvas.box((20, 214, 108, 46), *reduction)
    joins = ("a deeper map multiplies a shallower one;", "the products are joined, deep to shallow")
    canvas.box((144, 182, 356, 64), "cascaded fusion", *joins, colour=PURPLE)
    anchors = SimilarityAggregation().grid ** 2
    talks = (f"{anchors} anchors, a graph convolution;", "its result is added to D")
    similar = canvas.box((20, 316, 256, 64), "similarity aggregation", *talks, colour=PURPLE)
    for k, x, side, source in ((2, 73, 165, similar.bottom()), (1, 327, 385, (402, 246))):
        head = canvas.box((x, 420, 150, 46), f"head {k}: 1 × 1", "to 1 channel, × 8 up")
        canvas.arrow(source, head.top())
        canvas.arrow(head.bottom(), (head.bottom().x, 512), (side, 512))
    canvas.box((165, 492, 220, 40), "prediction σ(P₁ + P₂)", colour=ORANGE)
    for shallow, reduced in zip(maps, (camouflage, *thin)):
        canvas.arrow(shallow.bottom(), reduced.top())
    canvas.arrow(camouflage.bottom(), detail.top())
    canvas.arrow(detail.bottom(), (74, 316))
    canvas.arrow((402, 348), similar.right())
    canvas.text(82, 288, "r₁, stride 4", anchor="start")
    canvas.text(410, 288, "D, stride 8", anchor="start")
    canvas.text(156, 400, "J, stride 8", anchor="start")
    for x, words in ((130, "P₂"), (420, "P₁")):
        canvas.text(x, 490, words, LARGE)
    return canvas.svg()


def strength(features: Tensor) -> Tensor:
    """Root mean square over channels at each position, (B, C, H, W) → (B, H, W)."""
    return features.square().mean(dim=1).sqrt()


def through_cells(image: Tensor, mask: Tensor) -> Figure:
    """The outline of a mask (1, L, L) on its image, then its share of each cell of each stride."""
    row: dict = {"image and mask": outlined(image, mask)}
    for stride in STRIDES:
        cells = avg_pool2d(mask, stride)
        row[f"stride {stride}\n{len(cells[0])} × {len(cells[0])} cells"] = cells
    figure = grid({"": list(row.values())}, list(row), vmin=0, vmax=1, cmap="gray")
    _outline(figure.axes[1:], mask, plots.OUTLINE["colors"])
    return figure


def beside(images: Tensor, masks: Tensor, maps: Mapping[str, Tensor | list], **imshow) -> Figure:
    """One row an image: its mask's outline, then the ``maps``, (B, C, H, W) by their strength."""
    columns = [m if isinstance(m, list) or m.shape[1] == 1 else strength(m) for m in maps.values()]
    rows = {}
    for i, pair in enumerate(zip(images, masks)):
        rows[f"image {i + 1}"] = [outlined(*pair), *(column[i] for column in columns)]
    figure = grid(rows, ["image and mask", *maps], size=1.35, **imshow)
    for i, mask in enumerate(masks):
        _outline(figure.axes[i * (len(maps) + 1) :][1 : len(maps) + 1], mask)
    return figure


def _outline(axes: Sequence, mask: Tensor, colour: str = "white") -> None:
    """The outline of a mask (1, L, L) on maps of fewer cells; not on a picture."""
    for axis in axes:
        drawn = axis.images[0]
        if drawn.get_array().ndim == 2:
            drawn.set_extent((-0.5, mask.shape[-1] - 0.5, mask.shape[-1] - 0.5, -0.5))
            axis.contour(
                plots.as_map(mask), **plots.OUTLINE | {"colors": colour, "linewidths": 1.2}
            )


def anchor_grid(assignment: Tensor) -> Figure:
    """The assignment maps (side², h, w) of the anchors in place, in units of an equal share."""
    side, relative = round(len(assignment) ** 0.5), assignment * len(assignment)
    rows = {" " * i: part for i, part in enumerate(relative.split(side))}  # blank labels
    titles = [f"anchor {number + 1}" for number in range(len(assignment))]
    scale = {"vmin": float(relative.min()), "vmax": float(relative.max())}
    figure = grid(rows, titles, size=1.1, bar="× equal share", **scale)
    figure.set_layout_engine("compressed")
    return figure


def anchor_on(image: Tensor, assignment: Tensor, anchor: int) -> Figure:
    """An inner cell of (side + 2)², framed in the image, and what is assigned to its anchor."""
    side, relative = round(len(assignment) ** 0.5), assignment * len(assignment)
    titles = (f"cell of anchor {anchor + 1}", "assigned to it")
    row = [as_picture(image), relative[anchor]]
    figure = grid({"": row}, titles, size=2.5, bar="× equal share")
    cell = image.shape[-1] / (side + 2)
    corner = ((anchor % side + 1) * cell - 0.5, (anchor // side + 1) * cell - 0.5)
    frame = plt.Rectangle(corner, cell, cell, fill=False, edgecolor=YELLOW, lw=2)
    figure.axes[0].add_patch(frame)
    return figure
