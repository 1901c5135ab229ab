"""One picture and its mask, from the lumen to the JPEG."""

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from kdas_book.data.synthetic import camera, debris, wall
from kdas_book.data.synthetic.fields import View
from kdas_book.data.synthetic.polyps import Polyp, draw_polyp, place_polyps
from kdas_book.data.synthetic.styles import STYLES
from kdas_core import UserError
from kdas_core.data.augmentation import rng_for

_STAGES = "count aperture lumen wall residue tool places skin water steel sensor".split()


def render(
    seed: int, size: tuple[int, int] = (352, 352), style: str = "Kvasir", polyps: int | None = None
) -> tuple[ndarray, ndarray]:
    """Draw one picture, uint8 RGB (H, W, 3), and its mask, bool (H, W): the polyp *as it is seen*,
    head and stalk, without what lies behind the instrument or outside the aperture.

    Args:
        size: (height, width) in pixels, at least 32 each. style: a key of `STYLES`.
        polyps: how many, 0 to 3; None draws the number: 5 % none, 75 % one, 15 % two, 5 % three.
            With 0 the scene is the one that the same seed shows with polyps, less the polyps.

    Raises:
        UserError: unknown style, a size below 32, or a number of polyps outside 0–3.
    """
    if style not in STYLES or min(size) < 32 or polyps not in (None, 0, 1, 2, 3):
        asked = f"{polyps} polyps in {size[0]}×{size[1]} pixels of {style!r} cannot be drawn"
        raise UserError(f"{asked}: 0 to 3, in 32 or more, of {', '.join(STYLES)}.")
    look = STYLES[style]
    view = View.of(size)
    rng = _generators(seed, style)
    lumen = wall.place_lumen(rng["lumen"])
    surface = wall.build_wall(view, lumen, look, rng["wall"])
    stool, bubbles = rng["residue"].random(2)
    if stool < look.residue:
        debris.add_stool(surface, rng["residue"])
    if bubbles < look.residue / 2:
        debris.add_bubbles(surface, rng["residue"])
    placed, tool = plan(seed, size, style, polyps)
    mask = np.zeros(size, bool)
    for polyp in placed:
        mask |= draw_polyp(surface, polyp, lumen, rng["skin"])
    shine = wall.highlights(surface, lumen, rng["water"])[..., None]
    picture = surface.colour * surface.light[..., None]
    picture += shine * np.array([1.0, 0.98, 0.95], np.float32)
    if tool:
        mask &= ~debris.draw_instrument(picture, tool, rng["steel"])
    inside = camera.aperture(view, look, rng["aperture"])
    return camera.photograph(picture, inside, look, rng["sensor"]), mask & (inside > 0.5)


def plan(
    seed: int, size: tuple[int, int], style: str, polyps: int | None = None
) -> tuple[list[Polyp], debris.Instrument | None]:
    """The polyps of a scene and its instrument, if there is one. Arguments as of `render`."""
    look = STYLES[style]
    view = View.of(size)
    rng = _generators(seed, style)
    if polyps is None:
        polyps = int(rng["count"].choice(4, p=(0.05, 0.75, 0.15, 0.05)))
    tool = debris.place_instrument(view, look, rng["tool"])
    lumen = wall.place_lumen(rng["lumen"])
    return place_polyps(polyps, view, lumen, tool, look, rng["places"]), tool


def _generators(seed: int, style: str) -> dict[str, Generator]:
    """One a stage, so that a scene without its polyps is otherwise the same scene."""
    number = list(STYLES).index(style)
    return {stage: rng_for(seed, number, i) for i, stage in enumerate(_STAGES)}
