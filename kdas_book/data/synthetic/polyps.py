"""Polyps: sessile, on a stalk, or flat; their outline, their shading, and the exact mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdas_book.data.synthetic.debris import Instrument
from kdas_book.data.synthetic.fields import View, noise, slope, step
from kdas_book.data.synthetic.styles import KINDS, Style
from kdas_book.data.synthetic.wall import Lumen, Surface


@dataclass(frozen=True)
class Polyp:
    """One polyp. Lengths are in half short sides, or in radii where it says so."""

    kind: str  # one of KINDS
    x: float
    y: float
    radius: float  # of the head
    stretch: float  # long axis / short axis
    turn: float  # direction of the long axis
    waves: tuple[
        tuple[float, float], ...
    ]  # amplitude and phase of the outline's 2nd, 3rd, … harmonic
    height: float  # how far it stands out, in radii: 0.1 flat, 1 a hyperparameter
    lobes: float  # how knobbly the dome is
    tint: tuple[float, float, float]  # colour, as factors on the wall's
    softness: float  # width of the edge as it looks; the mask's edge is sharp
    pits: tuple[float, float]  # strength and fineness (bumps a radius) of its surface pattern
    stalk: tuple[
        float, float, float, float
    ]  # direction, length from the centre, half width, bend; radii, 0 without


def place_polyps(
    count: int,
    view: View,
    lumen: Lumen,
    tool: Instrument | None,
    look: Style,
    rng: np.random.Generator,
) -> list[Polyp]:
    """Draw shapes and places: on the wall, in the picture, apart from one another, not under the
    instrument.
    """
    half_x, half_y = view.half
    placed: list[Polyp] = []
    for _ in range(count):
        kind = str(rng.choice(KINDS, p=(0.6, 0.18, 0.22)))
        radius = math.exp(rng.uniform(*np.log(look.radius))) * (
            0.8 if kind == "pedunculated" else 1.0
        )
        x, y = rng.uniform(-0.58, 0.58, (2, 60)) * np.array([[half_x], [half_y]])
        bad = np.maximum(lumen.radius + 0.6 * radius - np.hypot(x - lumen.x, y - lumen.y), 0)
        bad += np.maximum(np.hypot(x, y) + 0.5 * radius - 0.95, 0)
        for other in placed:
            bad += np.maximum(1.3 * (radius + other.radius) - np.hypot(x - other.x, y - other.y), 0)
        if look.box:
            bad += np.maximum(np.minimum(0.8 - half_x - x, y - half_y + 0.75) + 0.7 * radius, 0)
        if tool:
            bad += np.maximum(tool.width + 0.6 * radius - tool.distance(x, y), 0)
        best = int(np.argmax(bad <= bad.min()))
        placed.append(_shape(kind, float(x[best]), float(y[best]), radius, lumen, look, rng))
    return placed


def _shape(kind: str, x: float, y: float, radius: float, lumen: Lumen, look: Style, rng) -> Polyp:
    """Everything about a polyp but its kind, place and size. All kinds draw the same random
    numbers.
    """
    lobed = rng.random() < (0.5 if kind == "flat" else 0.3)
    waves = tuple(
        (rng.uniform(0, (0.18 if lobed else 0.07) / k), rng.uniform(0, 6.3)) for k in range(1, 6)
    )
    strength = max(
        rng.uniform(*look.contrast), 0.45 if kind == "flat" else 0
    )  # it has nothing but its colour
    full = (
        np.array([1.08, 0.72, 0.76]) if rng.random() < 0.55 else np.array([1.08, 1.20, 1.25])
    )  # red or pale
    tint = 1 + strength * (full * (1 + 0.05 * rng.standard_normal(3)) - 1)
    height = {
        "sessile": rng.uniform(0.35, 0.95),
        "pedunculated": rng.uniform(0.8, 1.0),
        "flat": rng.uniform(0.08, 0.2),
    }
    away = math.atan2(y - lumen.y, x - lumen.x) + rng.uniform(
        -0.9, 0.9
    )  # the head hangs towards the lumen
    stalk = (away, rng.uniform(1.5, 2.2), rng.uniform(0.30, 0.48), rng.uniform(-0.25, 0.25))
    return Polyp(
        kind=kind, x=x, y=y, radius=radius, stretch=rng.uniform(1.0, 1.6), turn=rng.uniform(0, np.pi), waves=waves,
        height=height[kind], lobes=0.25 * rng.uniform(0, 1) ** 2 * lobed + 0.04, tint=(*tint.tolist(),),
        softness=rng.uniform(0.03, 0.10) * (2 if kind == "flat" else 1),
        pits=(rng.uniform(0, 0.15) * (rng.random() < 0.7), rng.uniform(6, 12)),
        stalk=stalk if kind == "pedunculated" else (0, 0, 0, 0),
    )  # fmt: skip


def head_level(polyp: Polyp, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 at the centre of the head, 1 on its outline, growing outwards."""
    dx, dy = x - np.float32(polyp.x), y - np.float32(polyp.y)
    u = (math.cos(polyp.turn) * dx + math.sin(polyp.turn) * dy) / math.sqrt(polyp.stretch)
    v = (-math.sin(polyp.turn) * dx + math.cos(polyp.turn) * dy) * math.sqrt(polyp.stretch)
    angle = np.arctan2(v, u)
    edge = np.ones_like(angle)
    for k, (amplitude, phase) in enumerate(polyp.waves, start=2):
        edge += np.float32(amplitude) * np.cos(k * angle + np.float32(phase))
    return np.sqrt(u * u + v * v) / (np.float32(polyp.radius) * edge)


def stalk_level(polyp: Polyp, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 on the axis of the stalk, 1 on its outline, growing outwards; it widens where it leaves the
    wall.
    """
    direction, length, width, bend = polyp.stalk
    dx, dy = (x - polyp.x) / polyp.radius, (y - polyp.y) / polyp.radius
    along = dx * math.cos(direction) + dy * math.sin(direction)
    across = dy * math.cos(direction) - dx * math.sin(direction) - bend * along * (length - along)
    t = np.clip(along / length, 0, 1)
    end = np.maximum(np.maximum(along - length + width, -along), 0)  # a rounded foot
    return (np.sqrt(across**2 + end**2) / (width * (1 + 0.45 * t**4))).astype(np.float32)


def draw_polyp(
    surface: Surface, polyp: Polyp, view: View, lumen: Lumen, rng: np.random.Generator
) -> np.ndarray:
    """Lay one polyp on the wall, in place; returns its exact area, bool (H, W): the head, and the
    stalk where it shows.

    The mask is cut from the same outline that draws the polyp, at the outline itself; the visible
    edge is a little softer.
    """
    at = view.window(
        polyp.x, polyp.y, polyp.radius * (3.0 if polyp.kind == "pedunculated" else 2.5)
    )
    seen = view.crop(*at)
    x, y = seen.x, seen.y[:, None]
    head = head_level(polyp, x, y)
    away = np.array([polyp.x - lumen.x, polyp.y - lumen.y])
    lamp = np.append(
        0.5 * away / (np.linalg.norm(away) + 1e-6), 1.0
    )  # what faces the lumen faces away from the lamp
    lamp = (lamp / np.linalg.norm(lamp)).astype(np.float32)
    near = (head > 1.1) & (head < 1.6)
    near = near if near.any() else head < 2
    around = max(float(surface.light[at][near].mean()), 0.3)
    wall = surface.colour[at][near].mean(0)

    back = 0.16 * polyp.radius * lamp  # the shadow on the wall, on the far side
    dark = (
        0.5 * min(polyp.height, 0.8) * step(head_level(polyp, x + back[0], y + back[1]), 1.35, 0.85)
    )
    surface.light[at] *= 1 - dark
    area = np.zeros(view.size, bool)
    if polyp.kind == "pedunculated":
        level = stalk_level(polyp, x, y)
        lift = 0.5 * polyp.stalk[2] * np.sqrt(np.clip(1 - level**2, 0, 1))
        lift *= step(head, 0.9, 1.3) * 0.5 + 0.5
        skin = (
            wall
            * (0.5 + 0.5 * np.array(polyp.tint, np.float32))
            * np.ones((*level.shape, 1), np.float32)
        )
        _cover(
            surface,
            at,
            seen,
            polyp,
            level,
            lift,
            skin,
            around * (1 - 0.5 * step(head, 1.5, 1.0)),
            lamp,
        )
        area[at] = level < 1
    bumps = noise(_local(seen, polyp), 3, rng, 3)
    dome = np.clip(1 - head * head, 0, 1) ** 0.7 * (1 + np.float32(polyp.lobes) * bumps)
    skin = wall * np.array(polyp.tint, np.float32) * _texture(seen, polyp, rng)
    _cover(surface, at, seen, polyp, head, polyp.height * dome, skin, around, lamp)
    area[at] |= head < 1
    return area


def _local(seen: View, polyp: Polyp) -> View:
    """The window in radii of the polyp, so that its texture is its own and not that of its place."""
    r = polyp.radius
    return View(
        ((seen.x - polyp.x) / r).astype(np.float32),
        ((seen.y - polyp.y) / r).astype(np.float32),
        seen.unit * r,
    )


def _texture(seen: View, polyp: Polyp, rng) -> np.ndarray:
    """Factors on the skin's colour (h, w, 3): blotches, grain, and a pattern of pits or ridges."""
    own = _local(seen, polyp)
    blotches, grain = noise(own, 2, rng, 2), noise(own, 9, rng, 2)
    strength, fineness = polyp.pits
    ridges = 1 - np.abs(noise(own, 2 * fineness, rng))
    pattern = 0.07 * blotches + 0.04 * grain - np.float32(strength) * step(ridges, 0.35, 0.95)
    return 1 + pattern[..., None] * np.array([0.45, 1.0, 1.0], np.float32)


def _cover(surface: Surface, at, seen: View, polyp: Polyp, level, lift, skin, around, lamp) -> None:
    """Paint a raised body over the wall within a window: its skin, lit as a dome is by a lamp
    beside the camera.
    """
    cover = step(level, 1 + polyp.softness, 1 - polyp.softness)
    rise = slope(np.ascontiguousarray(lift, np.float32), seen) * np.float32(polyp.radius)
    facing = (lamp[2] - lamp[0] * rise[0] - lamp[1] * rise[1]) / np.sqrt(
        1 + rise[0] ** 2 + rise[1] ** 2
    )
    shade = (0.32 + 0.68 * np.clip(facing, 0, None) / lamp[2]) * (
        1 + 0.25 * np.minimum(polyp.height, 0.6)
    )
    keep = 0.45 if polyp.kind == "flat" else 0.1  # folds show through a flat one
    body = (keep * surface.light[at] + (1 - keep) * around) * shade
    surface.light[at] += cover * (body - surface.light[at])
    surface.colour[at] += cover[..., None] * (skin - surface.colour[at])
    surface.slope[:, at[0], at[1]] *= 1 - 0.5 * cover
    surface.slope[:, at[0], at[1]] += 0.5 * (rise + 0.5 * lamp[:2, None, None]) * cover
    surface.wet[at] += cover * (0.85 - surface.wet[at])
