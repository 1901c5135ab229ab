"""One picture and its mask, from the lumen to the JPEG."""

from __future__ import annotations

import numpy as np

from kdas_book.data.synthetic.camera import aperture, photograph
from kdas_book.data.synthetic.debris import (
    Instrument,
    add_bubbles,
    add_stool,
    draw_instrument,
    place_instrument,
)
from kdas_book.data.synthetic.fields import View
from kdas_book.data.synthetic.polyps import Polyp, draw_polyp, place_polyps
from kdas_book.data.synthetic.styles import STYLES
from kdas_book.data.synthetic.wall import build_wall, highlights, place_lumen
from kdas_core import UserError
from kdas_core.data.augmentation import rng_for

_STAGES = (
    "count",
    "aperture",
    "lumen",
    "wall",
    "residue",
    "tool",
    "places",
    "skin",
    "water",
    "steel",
    "sensor",
)


def render(
    seed: int, size: tuple[int, int] = (352, 352), style: str = "Kvasir", polyps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture and its mask; the same arguments give the same pixels.

    The mask is the polyp *as it is seen*: head and stalk, without what lies behind the instrument
    or outside the aperture. (Annotators of the public sets differ on stalks: some outline the head
    alone.) Stool and bubbles lie on the wall and never on a polyp.

    Args:
        seed: which scene.
        size: (height, width) in pixels, at least 32 each.
        style: a key of `STYLES`, named as the five test sets.
        polyps: how many, 0 to 3; None draws the number: 5 % none, 75 % one, 15 % two, 5 % three.
            With 0 the scene is the one that the same seed shows with polyps, less the polyps.

    Returns:
        image uint8 RGB (H, W, 3) and mask bool (H, W), True = polyp.

    Raises:
        UserError: unknown style, a size below 32, or a number of polyps outside 0–3.
    """
    if style not in STYLES:
        raise UserError(f"{style!r} is no style; there are {', '.join(STYLES)}.")
    if min(size) < 32:
        raise UserError(
            f"a picture of {size[0]}×{size[1]} pixels is too small to show a polyp; use 32 or more."
        )
    if polyps is not None and polyps not in range(4):
        raise UserError(f"polyps is {polyps}; a picture has 0 to 3.")
    look, view, rng = STYLES[style], View.of(size), _generators(seed, style)
    inside = aperture(view, look, rng["aperture"])
    lumen = place_lumen(rng["lumen"])
    surface = build_wall(view, lumen, look, rng["wall"])
    chance = rng["residue"].random(2)
    if chance[0] < look.residue:
        add_stool(surface, view, rng["residue"])
    if chance[1] < look.residue / 2:
        add_bubbles(surface, view, rng["residue"])
    placed, tool = plan(seed, size, style, polyps)
    mask = np.zeros(size, bool)
    for polyp in placed:
        mask |= draw_polyp(surface, polyp, view, lumen, rng["skin"])
    picture = surface.colour * surface.light[..., None]
    picture += highlights(surface, lumen, view, rng["water"])[..., None] * np.array(
        [1.0, 0.98, 0.95], np.float32
    )
    if tool:
        mask &= ~draw_instrument(picture, tool, view, rng["steel"])
    return photograph(picture, inside, view, look, rng["sensor"]), mask & (inside > 0.5)


def plan(
    seed: int, size: tuple[int, int], style: str, polyps: int | None = None
) -> tuple[list[Polyp], Instrument | None]:
    """The polyps of a scene, kind and shape and place, and its instrument if there is one.
    Arguments as of `render`.
    """
    look, view, rng = STYLES[style], View.of(size), _generators(seed, style)
    drawn = int(rng["count"].choice(4, p=(0.05, 0.75, 0.15, 0.05)))
    tool = place_instrument(view, look, rng["tool"])
    count = drawn if polyps is None else polyps
    return place_polyps(count, view, place_lumen(rng["lumen"]), tool, look, rng["places"]), tool


def _generators(seed: int, style: str) -> dict[str, np.random.Generator]:
    """Random numbers of its own for each stage: a scene without its polyps is otherwise the same
    scene.
    """
    number = list(STYLES).index(style)
    return {stage: rng_for(seed, number, i) for i, stage in enumerate(_STAGES)}
