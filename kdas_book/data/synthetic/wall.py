"""The empty colon: a tube with folds and a dark lumen, mucosa, vessels, and the wet film that
mirrors the lamp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from kdas_book.data.synthetic.fields import View, noise, slope, step
from kdas_book.data.synthetic.styles import Style


@dataclass
class Surface:
    """What the camera looks at, pixel by pixel. The painters of residue and polyps change it in
    place.
    """

    colour: np.ndarray  # float32 (H, W, 3), 0–1
    light: np.ndarray  # float32 (H, W): how much of the lamp's light comes back, 1 = well lit
    slope: np.ndarray  # float32 (2, H, W): how the surface leans, for the highlights
    wet: np.ndarray  # float32 (H, W): how readily it mirrors the lamp, 0–1


@dataclass(frozen=True)
class Lumen:
    """Where the tube leads to. Far from the middle: the camera looks at a wall."""

    x: float
    y: float
    radius: float
    reach: float  # distance at which the light has begun to fall
    folds: float  # folds per unit of log distance
    depth: float  # how dark it gets behind a fold, 0–1


def place_lumen(rng: np.random.Generator) -> Lumen:
    angle = rng.uniform(0, 2 * math.pi)
    far = rng.uniform(0.1, 0.8) if rng.random() < 0.6 else rng.uniform(1.2, 2.0)
    return Lumen(
        far * math.cos(angle),
        far * math.sin(angle),
        rng.uniform(0.07, 0.20),
        rng.uniform(0.3, 0.7),
        math.exp(rng.uniform(math.log(0.7), math.log(3.2))),
        rng.uniform(0.15, 0.75),
    )


def build_wall(view: View, lumen: Lumen, look: Style, rng: np.random.Generator) -> Surface:
    """The wall with nothing on it."""
    dx, dy = view.x - np.float32(lumen.x), (view.y - np.float32(lumen.y))[:, None]
    angle = np.arctan2(dy, dx)
    far = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    lobes = (
        1
        + 0.12 * np.cos(3 * angle + rng.uniform(0, 6.3))
        + 0.07 * np.cos(2 * angle + rng.uniform(0, 6.3))
    )
    round_far = far / lobes * np.exp(0.09 * noise(view, 3, rng, 2))
    light, rim = _folds(view, round_far, lumen, rng)

    # In a tube of radius 1 the wall at distance z shows at 1/z from the lumen, and its light falls
    # with the distance.
    light *= (1 + (np.float32(lumen.reach) / round_far) ** 2) ** -0.9 * (
        1 + 0.45 * step(far, 0.9, 2.4)
    )
    light *= 0.15 + 0.85 * step(round_far, 0.3 * lumen.radius, 1.6 * lumen.radius)
    relief = noise(view, 3.5, rng, 3)
    lean = slope(relief, view) * np.float32(rng.uniform(0.01, 0.035))
    light *= np.clip(1 - (lean[0] * dx + lean[1] * dy) / far + 0.03 * relief, 0.5, 1.5)

    base, tinge = np.array(look.wall, np.float32), np.array([0.6, 1.0, -1.2], np.float32)
    base = base * (1 + look.spread * rng.standard_normal() * tinge)
    base = base * (1 + 0.4 * look.spread * rng.standard_normal(3, dtype=np.float32))
    patches = (0.05 * noise(view, 2.5, rng, 3) + 0.03 * noise(view, 45, rng, 2))[..., None]
    colour = base.astype(np.float32) * (1 + patches * np.array([0.3, 1.0, 1.3], np.float32))
    colour *= 1 - _vessels(view, look, rng)[..., None] * np.array([0.16, 0.46, 0.40], np.float32)
    grain = np.stack([noise(view, cells, rng, 2) for cells in (32, 32)]) * np.float32(0.24)
    patchy = step(noise(view, 4, rng, 2), 0.4, 1.6) * np.float32(rng.uniform(0.4, 1.0))
    return Surface(colour, light, grain + lean, np.maximum(patchy, 0.5 * rim * patchy + 0.35 * rim))


def _folds(view: View, far: np.ndarray, lumen: Lumen, rng) -> tuple[np.ndarray, np.ndarray]:
    """Light (H, W) that the folds leave, and the crests (0–1), where the film is thin and shines.

    Seen from outside in, a fold is a lit crest with a shadow right behind it, out of which the next
    one rises. Few folds are whole rings: their strength comes and goes along the wall.
    """
    phase = -np.log(far) * lumen.folds + 0.22 * noise(view, 2, rng, 2) + rng.uniform(0, 1)
    saw = phase - np.floor(phase)
    strength = np.float32(lumen.depth) * np.clip(0.55 + 0.6 * noise(view, 2.2, rng), 0, 1.15)
    pixel = (
        np.float32(1.5 * lumen.folds / view.unit) / far
    )  # how far a pixel and a half go in phase: smooths the jump
    behind = np.clip(saw / pixel, 0, 1)
    ramp = 1 - behind * (1 - (0.12 + 0.88 * np.sqrt(saw)))
    crest = step(saw, 0.72, 0.93) * step(saw, 1.0, 0.95)
    return 1 - strength * (1 - ramp) + 0.22 * strength * crest, (
        crest * np.minimum(1.6 * strength, 1)
    ).astype(np.float32)


def _vessels(view: View, look: Style, rng) -> np.ndarray:
    """Branching vessels (H, W), 0–1: trees that grow from a few roots, thinner at each fork, seen
    where the mucosa is thin.
    """
    show = look.vessels * rng.uniform(0.2, 1.0)
    clear = step(noise(view, 1.7, rng, 2), -0.6, 1.0)
    canvas = np.zeros(view.size, np.uint8)
    for places, width in reversed(_grow_tree(int(rng.integers(5, 11)), rng)):
        pixels = width * view.unit
        shade = int(255 * min(1.0, max(pixels, 0.35) / max(1, round(pixels))))
        cv2.polylines(
            canvas, list(view.pixels(places)), False, shade, max(1, round(pixels)), cv2.LINE_AA, 4
        )
    soft = cv2.GaussianBlur(canvas, (0, 0), max(0.4, 0.004 * view.unit))
    return soft * clear * np.float32(show / 255)


def _grow_tree(roots: int, rng, forks: int = 5, steps: int = 9) -> list[tuple[np.ndarray, float]]:
    """For every generation of branches their points, (branches, steps, 2), and their width, in half
    short sides.
    """
    start = rng.uniform(-1.3, 1.3, (roots, 2)).astype(np.float32)
    heading, grown = rng.uniform(0, 2 * np.pi, roots), []
    for generation in range(forks):
        turns = (
            np.cumsum(0.22 * rng.standard_normal((len(start), steps)), axis=1) + heading[:, None]
        )
        stride = 0.055 * 0.85**generation * rng.uniform(0.6, 1.3, (len(start), 1))
        walk = np.stack([np.cos(turns), np.sin(turns)], axis=2) * stride[..., None]
        lines = np.concatenate([start[:, None], start[:, None] + np.cumsum(walk, axis=1)], axis=1)
        grown.append((lines, 0.022 * 0.7**generation))
        middles = lines[:, steps // 2 : steps // 2 + 1][:, 0]
        start = np.concatenate([lines[:, -1], lines[:, -1], middles])
        spread = rng.uniform(0.25, 0.8, (3, len(turns)))
        heading = np.concatenate(
            [
                turns[:, -1] + spread[0],
                turns[:, -1] - spread[1],
                turns[:, steps // 2] + 2 * spread[2],
            ]
        )
    return grown


def highlights(surface: Surface, lumen: Lumen, view: View, rng: np.random.Generator) -> np.ndarray:
    """What the wet surface mirrors, (H, W), 0 and more: where it leans so that the lamp shines back
    into the camera.
    """
    dx, dy = view.x - np.float32(lumen.x), (view.y - np.float32(lumen.y))[:, None]
    tilt = np.float32(0.2) / (np.sqrt(dx * dx + dy * dy) + np.float32(0.3))
    nx, ny = (
        surface.slope[0] + tilt * dx - 0.1 * view.x,
        surface.slope[1] + tilt * dy - 0.1 * view.y[:, None],
    )
    mirror = np.exp((nx * nx + ny * ny) * np.float32(-1 / 0.014))
    shine = step(mirror * surface.wet, rng.uniform(0.2, 0.4), 0.65) * step(
        surface.light, 0.12, 0.45
    )
    glow = cv2.GaussianBlur(shine, (0, 0), 0.012 * 2 * view.unit)
    return 0.95 * shine + 0.3 * glow
