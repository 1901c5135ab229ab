"""The empty colon: a tube with folds and a dark lumen, mucosa, vessels, and a film that shines."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from kdas_book.data.synthetic.fields import View, Window, log_uniform, noise, slope, step
from kdas_book.data.synthetic.styles import Style


@dataclass
class Surface:
    """What the camera looks at, float32; residue and polyps change it in place."""

    view: View
    colour: ndarray  # (H, W, 3), 0–1
    light: ndarray  # (H, W): how much of the lamp's light comes back, 1 = well lit
    slope: ndarray  # (2, H, W): how the surface leans, for the highlights
    wet: ndarray  # (H, W): how readily it mirrors the lamp, 0–1

    def crop(self, at: Window) -> "Surface":
        """A part of it, in the same memory."""
        lean = self.slope[:, at[0], at[1]]
        return Surface(self.view.crop(at), self.colour[at], self.light[at], lean, self.wet[at])


Lumen = SimpleNamespace  # as place_lumen makes one


def place_lumen(rng: Generator) -> Lumen:
    """Where the tube leads to. Far from the middle: the camera looks at a wall."""
    angle = rng.uniform(0, 2 * math.pi)
    far = rng.uniform(0.1, 0.8) if rng.random() < 0.6 else rng.uniform(1.2, 2.0)
    return Lumen(
        x=far * math.cos(angle),
        y=far * math.sin(angle),
        radius=rng.uniform(0.07, 0.20),
        reach=rng.uniform(0.3, 0.7),  # distance at which the light has begun to fall
        folds=log_uniform(rng, 0.7, 3.2),  # folds per unit of log distance
        depth=rng.uniform(0.15, 0.75),  # how dark it gets behind a fold, 0–1
    )


def build_wall(view: View, lumen: Lumen, look: Style, rng: Generator) -> Surface:
    """The wall with nothing on it."""
    dx, dy = view.x - lumen.x, view.y - lumen.y
    angle = np.arctan2(dy, dx)
    far = np.sqrt(dx * dx + dy * dy) + np.float32(1e-3)
    phases = rng.uniform(0, 6.3, 2).tolist()
    lobes = 1 + 0.12 * np.cos(3 * angle + phases[0]) + 0.07 * np.cos(2 * angle + phases[1])
    round_far = far / lobes * np.exp(0.09 * noise(view, 3, rng, 2))
    light, rim = _folds(view, round_far, lumen, rng)

    # In a tube of radius 1 the wall at distance z shows at 1/z from the lumen, and its light falls
    # with the distance.
    light *= (1 + (lumen.reach / round_far) ** 2) ** -0.9 * (1 + 0.45 * step(far, 0.9, 2.4))
    light *= 0.15 + 0.85 * step(round_far, 0.3 * lumen.radius, 1.6 * lumen.radius)
    relief = noise(view, 3.5, rng, 3)
    lean = slope(relief, view) * rng.uniform(0.01, 0.035)
    light *= np.clip(1 - (lean[0] * dx + lean[1] * dy) / far + 0.03 * relief, 0.5, 1.5)

    tinge = np.array([0.6, 1.0, -1.2], np.float32)
    base = np.array(look.wall, np.float32) * (1 + look.spread * rng.standard_normal() * tinge)
    base *= 1 + 0.4 * look.spread * rng.standard_normal(3, dtype=np.float32)
    patches = (0.05 * noise(view, 2.5, rng, 3) + 0.03 * noise(view, 45, rng, 2))[..., None]
    colour = base * (1 + patches * np.array([0.3, 1.0, 1.3], np.float32))
    colour *= 1 - _vessels(view, look, rng)[..., None] * np.array([0.16, 0.46, 0.40], np.float32)
    grain = np.stack([noise(view, 32, rng, 2), noise(view, 32, rng, 2)]) * np.float32(0.24)
    patchy = step(noise(view, 4, rng, 2), 0.4, 1.6) * rng.uniform(0.4, 1.0)
    wet = np.maximum(patchy, 0.5 * rim * patchy + 0.35 * rim)
    return Surface(view, colour, light, grain + lean, wet)


def _folds(view: View, far: ndarray, lumen: Lumen, rng: Generator) -> tuple[ndarray, ndarray]:
    """Light (H, W) that the folds leave, and the crests (0–1), where the film is thin and shines.
    A fold is a lit crest with a shadow behind it; its strength comes and goes along the wall.
    """
    phase = -np.log(far) * lumen.folds + 0.22 * noise(view, 2, rng, 2) + rng.uniform(0, 1)
    saw = phase - np.floor(phase)
    strength = lumen.depth * np.clip(0.55 + 0.6 * noise(view, 2.2, rng), 0, 1.15)
    pixel = 1.5 * lumen.folds / view.unit / far  # a pixel and a half in phase: smooths the jump
    ramp = 1 - np.clip(saw / pixel, 0, 1) * (1 - (0.12 + 0.88 * np.sqrt(saw)))
    crest = step(saw, 0.72, 0.93) * step(saw, 1.0, 0.95)
    light = 1 - strength * (1 - ramp) + 0.22 * strength * crest
    return light, crest * np.minimum(1.6 * strength, 1)


def _vessels(view: View, look: Style, rng: Generator) -> ndarray:
    """Branching vessels (H, W), 0–1, seen where the mucosa is thin."""
    show = look.vessels * rng.uniform(0.2, 1.0)
    clear = step(noise(view, 1.7, rng, 2), -0.6, 1.0)
    canvas = np.zeros(view.size, np.uint8)
    for places, width in reversed(_grow_tree(int(rng.integers(5, 11)), rng)):
        lines = list(view.pixels(places))
        pixels = width * view.unit
        thick = max(1, round(pixels))
        shade = int(255 * min(1.0, max(pixels, 0.35) / thick))
        cv2.polylines(canvas, lines, False, shade, thick, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(canvas, (0, 0), max(0.4, 0.004 * view.unit))
    return soft * clear * np.float32(show / 255)


def _grow_tree(roots: int, rng: Generator) -> list[tuple[ndarray, float]]:
    """For every generation of branches their points, (branches, steps, 2), and their width."""
    steps = 9
    start = rng.uniform(-1.3, 1.3, (roots, 2)).astype(np.float32)
    heading = rng.uniform(0, 2 * np.pi, roots)
    grown = []
    for generation in range(5):
        bends = np.cumsum(0.22 * rng.standard_normal((len(start), steps)), axis=1)
        turns = bends + heading[:, None]
        stride = 0.055 * 0.85**generation * rng.uniform(0.6, 1.3, (len(start), 1))
        walk = np.stack([np.cos(turns), np.sin(turns)], axis=2) * stride[..., None]
        lines = np.concatenate([start[:, None], start[:, None] + np.cumsum(walk, axis=1)], axis=1)
        grown.append((lines, 0.022 * 0.7**generation))
        start = np.concatenate([lines[:, -1], lines[:, -1], lines[:, steps // 2]])
        spread = rng.uniform(0.25, 0.8, (3, len(turns))) * [[1], [-1], [2]]
        heading = (turns[:, [-1, -1, steps // 2]].T + spread).ravel()
    return grown


def highlights(surface: Surface, lumen: Lumen, rng: Generator) -> ndarray:
    """What the wet surface mirrors, (H, W), ≥ 0: where it leans so that the lamp shines back."""
    view = surface.view
    dx, dy = view.x - lumen.x, view.y - lumen.y
    tilt = np.float32(0.2) / (np.sqrt(dx * dx + dy * dy) + np.float32(0.3))
    nx = surface.slope[0] + tilt * dx - 0.1 * view.x
    ny = surface.slope[1] + tilt * dy - 0.1 * view.y
    mirror = np.exp((nx * nx + ny * ny) * (-1 / 0.014)) * surface.wet
    shine = step(mirror, rng.uniform(0.2, 0.4), 0.65) * step(surface.light, 0.12, 0.45)
    glow = cv2.GaussianBlur(shine, (0, 0), 0.012 * 2 * view.unit)
    return 0.95 * shine + 0.3 * glow
