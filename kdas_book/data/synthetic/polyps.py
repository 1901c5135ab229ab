"""Polyps: sessile, on a stalk, or flat; their outline, their shading, and the exact mask."""

import math
from types import SimpleNamespace

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from kdas_book.data.synthetic.debris import Instrument, distance
from kdas_book.data.synthetic.fields import View, log_uniform, noise, slope, step
from kdas_book.data.synthetic.styles import KINDS, Style
from kdas_book.data.synthetic.wall import Lumen, Surface

Polyp = SimpleNamespace  # as place_polyps makes one; lengths in half short sides or in radii


def place_polyps(
    count: int, view: View, lumen: Lumen, tool: Instrument | None, look: Style, rng: Generator
) -> list[Polyp]:
    """Draw shapes and places: on the wall, in the picture, apart, not under the instrument."""
    half_x, half_y = view.half
    placed: list[Polyp] = []
    for _ in range(count):
        kind = str(rng.choice(KINDS, p=(0.6, 0.18, 0.22)))
        radius = log_uniform(rng, *look.radius) * (0.8 if kind == "pedunculated" else 1.0)
        x, y = rng.uniform(-0.58, 0.58, (2, 60)) * np.array([[half_x], [half_y]])
        bad = np.maximum(lumen.radius + 0.6 * radius - np.hypot(x - lumen.x, y - lumen.y), 0)
        bad += np.maximum(np.hypot(x, y) + 0.5 * radius - 0.95, 0)
        for other in placed:
            bad += np.maximum(1.3 * (radius + other.radius) - np.hypot(x - other.x, y - other.y), 0)
        if look.box:
            bad += np.maximum(np.minimum(0.8 - half_x - x, y - half_y + 0.75) + 0.7 * radius, 0)
        if tool:
            bad += np.maximum(tool.width + 0.6 * radius - distance(tool, x, y), 0)
        best = int(np.argmin(bad))
        polyp = Polyp(kind=kind, x=float(x[best]), y=float(y[best]), radius=radius)
        _shape(polyp, lumen, look, rng)
        placed.append(polyp)
    return placed


def _shape(polyp: Polyp, lumen: Lumen, look: Style, rng: Generator) -> None:
    """The rest of a polyp. All kinds draw the same random numbers."""
    flat = polyp.kind == "flat"
    lobed = rng.random() < (0.5 if flat else 0.3)
    high = 0.18 if lobed else 0.07
    # Amplitude and phase of the outline's 2nd, 3rd, … harmonic.
    polyp.waves = [(rng.uniform(0, high / k), rng.uniform(0, 6.3)) for k in range(1, 6)]
    strength = max(rng.uniform(*look.contrast), 0.45 if flat else 0)  # flat: all it has is colour
    full = np.array([1.08, 0.72, 0.76] if rng.random() < 0.55 else [1.08, 1.20, 1.25])  # red, pale
    tint = 1 + strength * (full * (1 + 0.05 * rng.standard_normal(3)) - 1)
    polyp.tint = tint.astype(np.float32)  # factors on the wall's RGB
    heights = [rng.uniform(*limits) for limits in ((0.35, 0.95), (0.8, 1.0), (0.08, 0.2))]
    polyp.height = heights[KINDS.index(polyp.kind)]  # in radii: 0.1 flat, 1 a ball
    # Direction, head towards the lumen; length, half width, bend, in radii.
    away = math.atan2(polyp.y - lumen.y, polyp.x - lumen.x) + rng.uniform(-0.9, 0.9)
    polyp.stalk = away, rng.uniform(1.5, 2.2), rng.uniform(0.30, 0.48), rng.uniform(-0.25, 0.25)
    polyp.stretch = rng.uniform(1.0, 1.6)  # long axis / short axis
    polyp.turn = rng.uniform(0, np.pi)  # direction of the long axis
    polyp.lobes = 0.25 * rng.uniform(0, 1) ** 2 * lobed + 0.04  # how knobbly the dome is
    polyp.softness = rng.uniform(0.03, 0.10) * (2 if flat else 1)  # of the edge as it looks
    # Strength and fineness, bumps a radius, of the pattern on its surface.
    polyp.pits = rng.uniform(0, 0.15) * (rng.random() < 0.7), rng.uniform(6, 12)


def head_level(polyp: Polyp, x: ndarray, y: ndarray) -> ndarray:
    """0 at the centre of the head, 1 on its outline, growing outwards."""
    dx, dy = x - polyp.x, y - polyp.y
    u = (math.cos(polyp.turn) * dx + math.sin(polyp.turn) * dy) / math.sqrt(polyp.stretch)
    v = (-math.sin(polyp.turn) * dx + math.cos(polyp.turn) * dy) * math.sqrt(polyp.stretch)
    angle = np.arctan2(v, u)
    edge = np.ones_like(angle)
    for k, (amplitude, phase) in enumerate(polyp.waves, start=2):
        edge += amplitude * np.cos(k * angle + phase)
    return np.sqrt(u * u + v * v) / (polyp.radius * edge)


def stalk_level(polyp: Polyp, x: ndarray, y: ndarray) -> ndarray:
    """0 on the stalk's axis, 1 on its outline, growing outwards; wider where it leaves the wall."""
    direction, length, width, bend = polyp.stalk
    dx, dy = (x - polyp.x) / polyp.radius, (y - polyp.y) / polyp.radius
    along = dx * math.cos(direction) + dy * math.sin(direction)
    across = dy * math.cos(direction) - dx * math.sin(direction) - bend * along * (length - along)
    t = np.clip(along / length, 0, 1)
    end = np.maximum(np.maximum(along - length + width, -along), 0)  # a rounded foot
    return np.sqrt(across**2 + end**2) / (width * (1 + 0.45 * t**4))


def draw_polyp(surface: Surface, polyp: Polyp, lumen: Lumen, rng: Generator) -> ndarray:
    """Lay one polyp on the wall, in place; returns its exact area, bool (H, W): the head, and the
    stalk where it shows. The visible edge is a little softer than the mask's.
    """
    on_stalk = polyp.kind == "pedunculated"
    at = surface.view.window(polyp.x, polyp.y, polyp.radius * (3.0 if on_stalk else 2.5))
    part = surface.crop(at)
    seen = part.view
    head = head_level(polyp, seen.x, seen.y)
    away = np.array([polyp.x - lumen.x, polyp.y - lumen.y])
    lamp = np.append(0.5 * away / (np.linalg.norm(away) + 1e-6), 1.0)  # it shines from the camera
    lamp = (lamp / np.linalg.norm(lamp)).astype(np.float32)
    near = (head > 1.1) & (head < 1.6)
    near = near if near.any() else head < 2
    around = max(float(part.light[near].mean()), 0.3)
    wall = part.colour[near].mean(0)

    back = 0.16 * polyp.radius * lamp  # the shadow on the wall, on the far side
    shadow = step(head_level(polyp, seen.x + back[0], seen.y + back[1]), 1.35, 0.85)
    part.light *= 1 - 0.5 * min(polyp.height, 0.8) * shadow
    area = np.zeros(surface.view.size, bool)
    area[at] = head < 1
    if on_stalk:
        level = stalk_level(polyp, seen.x, seen.y)
        lift = 0.5 * polyp.stalk[2] * np.sqrt(np.clip(1 - level**2, 0, 1))
        lift *= step(head, 0.9, 1.3) * 0.5 + 0.5
        light = around * (1 - 0.5 * step(head, 1.5, 1.0))
        _cover(part, polyp, lamp, level, lift, wall * (0.5 + 0.5 * polyp.tint), light)
        area[at] |= level < 1
    r = polyp.radius
    own = View((seen.x - polyp.x) / r, (seen.y - polyp.y) / r, seen.unit * r)  # in radii
    bumps = 1 + polyp.lobes * noise(own, 3, rng, 3)
    dome = np.clip(1 - head * head, 0, 1) ** 0.7 * bumps
    skin = wall * polyp.tint * _texture(own, polyp, rng)
    _cover(part, polyp, lamp, head, polyp.height * dome, skin, around)
    return area


def _texture(own: View, polyp: Polyp, rng: Generator) -> ndarray:
    """Factors on the skin's colour (h, w, 3): blotches, grain, and a pattern of pits or ridges."""
    blotches, grain = noise(own, 2, rng, 2), noise(own, 9, rng, 2)
    strength, fineness = polyp.pits
    ridges = 1 - np.abs(noise(own, 2 * fineness, rng))
    pattern = 0.07 * blotches + 0.04 * grain - strength * step(ridges, 0.35, 0.95)
    return 1 + pattern[..., None] * np.array([0.45, 1.0, 1.0], np.float32)


def _cover(part: Surface, polyp: Polyp, lamp, level, lift, skin, around) -> None:
    """Paint a raised body over a part of the wall, lit as a dome is by a lamp at the camera."""
    cover = step(level, 1 + polyp.softness, 1 - polyp.softness)
    rise = slope(lift, part.view) * polyp.radius
    facing = lamp[2] - lamp[0] * rise[0] - lamp[1] * rise[1]
    facing = facing / np.sqrt(1 + rise[0] ** 2 + rise[1] ** 2)
    shade = 0.32 + 0.68 * np.clip(facing, 0, None) / lamp[2]
    shade = shade * (1 + 0.25 * np.minimum(polyp.height, 0.6))
    keep = 0.45 if polyp.kind == "flat" else 0.1  # folds show through a flat one
    body = (keep * part.light + (1 - keep) * around) * shade
    part.light += cover * (body - part.light)
    part.colour += cover[..., None] * (skin - part.colour)
    part.slope *= 1 - 0.5 * cover
    part.slope += 0.5 * (rise + 0.5 * lamp[:2, None, None]) * cover
    part.wet += cover * (0.85 - part.wet)
