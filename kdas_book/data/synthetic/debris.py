"""What else lies in a colon or enters it, and is never polyp: stool, bubbles, an instrument."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from kdas_book.data.synthetic.fields import View, log_uniform, noise, slope, step
from kdas_book.data.synthetic.styles import Style
from kdas_book.data.synthetic.wall import Surface


def add_stool(surface: Surface, rng: Generator) -> None:
    """A thin yellow film with thicker clots, on the side where fluid gathers."""
    view = surface.view
    down = rng.uniform(0, 2 * math.pi)
    low = math.cos(down) * view.x + math.sin(down) * view.y
    thick = noise(view, 3.5, rng, 4) + 0.7 * low - rng.uniform(0.9, 1.7)
    film, clot = step(thick, -0.3, 0.5), step(thick, 0.45, 0.6)
    ochre = np.array((0.72, 0.50, 0.15) if rng.random() < 0.7 else (0.42, 0.35, 0.15), np.float32)
    skin = ochre * (1 + 0.10 * noise(view, 25, rng, 2)[..., None])
    surface.colour += np.maximum(0.45 * film, 0.9 * clot)[..., None] * (skin - surface.colour)
    lean = slope(np.clip(thick, 0.4, 1.2) * np.float32(0.12), view) * clot
    surface.light *= np.clip(1 + 0.35 * (lean[0] + lean[1]), 0.5, 1.3)
    surface.slope += lean
    surface.wet = np.maximum(surface.wet, 0.6 * film)


def add_bubbles(surface: Surface, rng: Generator) -> None:
    """A few bubbles: a bright rim, a spot of the lamp near the top, the wall seen through them."""
    middle = rng.uniform(-0.7, 0.7, 2)
    for _ in range(int(rng.integers(3, 20))):
        x, y = middle + 0.16 * rng.standard_normal(2)
        radius = log_uniform(rng, 0.018, 0.06)
        part = surface.crop(surface.view.window(x, y, 1.15 * radius))
        u, v = (part.view.x - x) / radius, (part.view.y - y) / radius
        far = np.sqrt(u * u + v * v)
        rim = np.exp(-(((far - 0.88) / 0.10) ** 2)) * (0.55 - 0.45 * v)
        spot = np.exp(-((u + 0.35) ** 2 + (v + 0.4) ** 2) / 0.03)
        inside = step(far, 1.0, 0.9)
        part.light[:] = part.light * (1 - 0.12 * inside) + 0.5 * rim * inside + 1.4 * spot
        part.colour += (0.5 * rim + spot)[..., None].clip(0, 1) * (1 - part.colour)
        part.wet *= 1 - inside


Instrument = SimpleNamespace  # as place_instrument makes one


def place_instrument(view: View, look: Style, rng: Generator) -> Instrument | None:
    """A straight shaft that ends in a snare or forceps, in as many pictures as the style says."""
    here = rng.random() < look.instrument
    angle = rng.uniform(0.1, 0.9) * math.pi  # from below, where the working channel is
    tool = Instrument(towards=(math.cos(angle), math.sin(angle)))  # from the tip to where it enters
    tool.kind = "snare" if rng.random() < 0.6 else "forceps"
    tool.tip = (rng.uniform(-0.35, 0.35, 2) * view.half).tolist()
    tool.width = rng.uniform(0.045, 0.075)  # half the shaft's
    return tool if here else None


def distance(tool: Instrument, x: ndarray, y: ndarray) -> ndarray:
    """How far points are from the shaft's axis, the tip's own reach included."""
    dx, dy = x - tool.tip[0], y - tool.tip[1]
    along = np.maximum(dx * tool.towards[0] + dy * tool.towards[1], -0.3)
    return np.hypot(dx - along * tool.towards[0], dy - along * tool.towards[1])


def draw_instrument(picture: ndarray, tool: Instrument, rng: Generator) -> ndarray:
    """Draw it over the lit picture (H, W, 3), in place; returns what it hides, bool (H, W)."""
    view = View.of(picture.shape[:2])
    dx, dy = view.x - tool.tip[0], view.y - tool.tip[1]
    along = dx * tool.towards[0] + dy * tool.towards[1]
    across = (dy * tool.towards[0] - dx * tool.towards[1]) / tool.width
    edge = np.float32(1 / (tool.width * view.unit))
    shaft = step(np.abs(across), 1 + edge, 1 - edge)
    shaft *= step(along, -0.5 / view.unit, 0.5 / view.unit)
    shadow = step(np.abs(across - 0.8), 1.8, 0.6) * step(along, -0.05, 0.1)
    picture *= (1 - 0.45 * shadow)[..., None]
    body = np.sqrt(np.clip(1 - across**2, 0, 1)) * (0.35 + 0.65 * step(along, -0.3, 1.2))
    if tool.kind == "snare":  # a plastic sheath
        colours = (0.88, 0.90, 0.88), (0.30, 0.50, 0.80), (0.20, 0.62, 0.60)
        colour = np.array(colours[int(rng.integers(3))], np.float32)
    else:  # a metal coil
        colour = np.array([0.62, 0.64, 0.66], np.float32)
        body = body * (0.8 + 0.2 * np.sin(along * 120))
    shine = np.exp(-(((across + 0.35) / 0.16) ** 2))
    skin = body[..., None] * colour + 0.6 * shine[..., None]
    picture += shaft[..., None] * (skin - picture)
    tip = _tip(tool, view, rng)
    gleam = 0.75 + 0.25 * noise(view, 40, rng)[..., None]
    metal = np.array([0.75, 0.75, 0.72], np.float32) * gleam
    picture += (tip * np.float32(1 / 255))[..., None] * (metal - picture)
    return (shaft > 0.5) | (tip > 127)


def _tip(tool: Instrument, view: View, rng: Generator) -> ndarray:
    """The wire loop of a snare or the two cups of forceps, uint8 (H, W)."""
    canvas = np.zeros(view.size, np.uint8)
    back, side = np.array(tool.towards), np.array([-tool.towards[1], tool.towards[0]])
    if tool.kind == "snare":
        length = rng.uniform(0.25, 0.45)
        wide = rng.uniform(0.10, 0.2)
        turn = np.linspace(0, 2 * np.pi, 40)
        loop = tool.tip - np.outer((1 - np.cos(turn)) * length / 2, back)
        loop += np.outer(np.sin(turn) * wide, side)
        thick = max(1, round(0.014 * view.unit))
        cv2.polylines(canvas, [view.pixels(loop)], False, 255, thick, cv2.LINE_AA, 4)
    else:
        along = np.array([0.02, -0.06, -0.14, -0.17, -0.10, 0.0])
        across = np.array([0.2, 1.0, 1.3, 0.9, 0.35, 0.1])
        for sign in (-1, 1):
            cup = tool.tip + np.outer(along, back) + np.outer(sign * across * tool.width, side)
            cv2.fillPoly(canvas, [view.pixels(cup)], 255, cv2.LINE_AA, 4)
    return canvas
