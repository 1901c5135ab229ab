"""Synthetic polyps: drawn, not photographed, so that the whole book runs with no data set at hand.

A picture is built as an endoscope would see it: a tube wall with folds that darkens towards the lumen, vessels, one polyp
or a few with their own shading, colour and contact shadow, wet highlights, then the camera (blur, noise, the black frame).
The mask is exact: it comes from the same outline that draws the polyp. These pictures teach how the method works. A score
on them says nothing about real polyps, and the book labels it so.

Scenes are laid out in units of half the short side, so one seed gives the same scene at every size; only the camera's noise
differs.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kdas_core import UserError
from kdas_core.data.pairs import FULL_COUNTS, SYNTHETIC_NOTE, TEST_SETS
from kdas_core.data.polyps import rng_for

VERSION = 1  # raise when the same seed would no longer give the same pictures


@dataclass(frozen=True)
class Style:
    """How one test set looks: its camera, its light and its polyps. Chosen by eye; nothing here is measured."""

    height: float  # picture height, relative to the set's nominal size
    aspect: float  # width / height
    wall: tuple[float, float, float]  # RGB of well-lit mucosa, 0–1
    spread: float  # how much that colour varies from picture to picture
    radius: tuple[float, float]  # polyp radius, in half short sides
    contrast: tuple[float, float]  # how far a polyp's colour leaves the wall's, 0–1
    blur: tuple[float, float]  # standard deviation, as a fraction of the height / 1000
    noise: float  # standard deviation of the sensor noise, grey levels
    light: tuple[float, float]  # exposure
    vessels: float
    frame: str  # "octagon" or "circle"
    box: float = 0.0  # chance of a black inset at the lower left, as some endoscopes print


STYLES = {
    "CVC-300": Style(
        0.95, 1.15, (0.86, 0.52, 0.38), 0.03, (0.16, 0.34), (0.2, 0.7), (2, 5), 2.0, (0.75, 1.05), 0.3, "octagon"
    ),
    "CVC-ClinicDB": Style(
        0.82, 1.33, (0.92, 0.56, 0.30), 0.04, (0.18, 0.46), (0.3, 0.9), (1, 3), 2.5, (0.85, 1.15), 0.5, "octagon"
    ),
    "Kvasir": Style(
        1.0, 1.17, (0.95, 0.47, 0.36), 0.04, (0.22, 0.62), (0.3, 1.0), (1, 4), 2.0, (0.9, 1.2), 0.5, "octagon", 0.4
    ),
    "CVC-ColonDB": Style(
        0.95, 1.15, (0.80, 0.48, 0.38), 0.04, (0.13, 0.36), (0.15, 0.65), (3, 7), 3.0, (0.65, 1.0), 0.3, "octagon"
    ),
    "ETIS-LaribPolypDB": Style(
        1.2, 1.27, (0.86, 0.50, 0.50), 0.04, (0.09, 0.28), (0.15, 0.7), (0.5, 1.5), 3.0, (0.7, 1.05), 1.0, "circle"
    ),
}


def render(
    seed: int, size: tuple[int, int] = (352, 352), style: str = "Kvasir", polyps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture and its mask; the same arguments give the same pixels.

    Args:
        seed: which scene.
        size: (height, width) in pixels, at least 32 each.
        style: a key of `STYLES`, named as the five test sets.
        polyps: how many, 0 to 3; None draws the number: 5 % none, 75 % one, 15 % two, 5 % three. With 0 the scene is
            the one that the same seed shows with polyps, less the polyps.

    Returns:
        image uint8 RGB (H, W, 3) and mask bool (H, W), True = polyp. A polyp is never outside the round picture.

    Raises:
        UserError: unknown style, a size below 32, or a number of polyps outside 0–3.
    """
    if style not in STYLES:
        raise UserError(f"{style!r} is no style; there are {', '.join(STYLES)}.")
    if min(size) < 32:
        raise UserError(f"a picture of {size[0]}×{size[1]} pixels is too small to show a polyp; use 32 or more.")
    if polyps is not None and polyps not in range(4):
        raise UserError(f"polyps is {polyps}; a picture has 0 to 3.")
    look = STYLES[style]
    # Each stage has its own random numbers: a scene without its polyps is otherwise the same scene.
    draw_count, optics, tube, growth, water, sensor = (
        rng_for(seed, list(STYLES).index(style), stage) for stage in range(6)
    )
    drawn = int(draw_count.choice(4, p=(0.05, 0.75, 0.15, 0.05)))
    count = drawn if polyps is None else polyps
    x, y = _grid(size)
    inside, far = _frame(x, y, look, optics)
    lumen = _place_lumen(tube)
    colour, light, slope = _wall(x, y, lumen, look, tube)
    mask = np.zeros(size, bool)
    for polyp in _place_polyps(count, lumen, x, y, look, growth):
        colour, light, slope, area = _draw_polyp(colour, light, slope, x, y, polyp, lumen, growth)
        mask |= area
    picture = _wet(colour * light[..., None], light, slope, mask, lumen, x, y, water)
    return _camera(picture, inside, far, look, sensor), mask & (inside > 0.5)


# --- building blocks --------------------------------------------------------------------------------------------------


def _grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres; the short side runs from -1 to 1."""
    height, width = size
    unit = min(size) / 2
    x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / unit
    y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) / unit
    return np.meshgrid(x, y)


def _noise(size: tuple[int, int], cells: float, rng: np.random.Generator, octaves: int = 1) -> np.ndarray:
    """Smooth noise, mean about 0, deviation about 1; ``cells`` bumps along the short side. Octaves add finer detail.

    A coarse grid of random numbers, made smooth by cubic B-splines along each axis: rows · grid · columns.
    """
    total, power, unit = np.zeros(size, np.float32), 0.0, min(size)
    for octave in range(octaves):
        n, weight = cells * 2**octave, 0.5**octave
        grid = rng.standard_normal((int(2 * n) + 4,) * 2, dtype=np.float32)  # the same numbers whatever the size
        total += weight * (_spline(size[0], n / unit, len(grid)) @ grid @ _spline(size[1], n / unit, len(grid)).T)
        power += weight**2 * (151 / 315) ** 2  # what is left of the grid's variance, 151/315 along each axis
    return total / np.float32(np.sqrt(power))


def _spline(pixels: int, step: float, knots: int) -> np.ndarray:
    """Weights (pixels, knots) of a cubic B-spline, ``step`` knots a pixel; past the last knot comes the first."""
    place = (np.arange(pixels) + 0.5) * step
    first = place.astype(int)
    t = place - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((pixels, knots), np.float32)
    for k, weight in enumerate(weights):
        matrix[np.arange(pixels), (first + k) % knots] = weight / 6
    return matrix


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _frame(x, y, look: Style, rng) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel shows the body (0–1), and the distance from the middle for the fall-off of the light."""
    half_x, half_y = float(x.max()), float(y.max())
    far = np.hypot(x, y)
    if look.frame == "circle":
        edge = rng.uniform(1.02, 1.12) * max(1.0, 0.9 * half_x) - far
    else:
        cut = rng.uniform(0.3, 0.45)
        border_x, border_y = half_x * rng.uniform(0.94, 1.0), half_y * rng.uniform(0.94, 1.0)
        corner = (border_x + border_y - cut - np.abs(x) - np.abs(y)) / math.sqrt(2)
        edge = np.minimum(np.minimum(border_x - np.abs(x), border_y - np.abs(y)), corner)
    inside = _step(edge, -0.006, 0.006)
    if rng.random() < look.box:
        inside = inside * ~((x < -half_x + rng.uniform(0.5, 0.7)) & (y > half_y - rng.uniform(0.4, 0.6)))
    return inside.astype(np.float32), far / max(half_x, half_y)


# --- the scene --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lumen:
    """Where the tube leads to. Far from the middle: the camera looks at a wall."""

    x: float
    y: float
    radius: float
    folds: float  # folds per unit of log distance
    depth: float  # how dark it gets behind a fold, 0–1


def _place_lumen(rng) -> _Lumen:
    angle = rng.uniform(0, 2 * math.pi)
    far = rng.uniform(0.1, 0.75) if rng.random() < 0.6 else rng.uniform(1.3, 2.2)
    return _Lumen(
        far * math.cos(angle),
        far * math.sin(angle),
        rng.uniform(0.12, 0.3),
        rng.uniform(1.3, 2.6),
        rng.uniform(0.25, 0.6),
    )


def _wall(x, y, lumen: _Lumen, look: Style, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The empty colon: colour (H, W, 3), light (H, W) and a bumpiness (2, H, W) that the highlights use."""
    size = x.shape
    dx, dy = x - lumen.x, y - lumen.y
    angle = np.arctan2(dy, dx)
    far = np.hypot(dx, dy) + 1e-3
    lobes = 1 + 0.10 * np.cos(3 * angle + rng.uniform(0, 6.3)) + 0.05 * np.cos(2 * angle + rng.uniform(0, 6.3))
    depth = np.log(far / lobes) + 0.10 * _noise(size, 2.5, rng, 2)

    # Seen from outside in, every fold is a lit rim with a shadow right behind it, out of which the next rim rises.
    phase = -depth * lumen.folds + rng.uniform(0, 1)
    saw = phase - np.floor(phase)
    rim = _step(saw, 0, 0.10) * (0.25 + 0.75 * saw**0.8)
    strength = lumen.depth * np.clip(0.75 + 0.5 * _noise(size, 2, rng), 0.1, 1.2)
    light = 1 - strength * (1 - rim)
    # Less light returns from further down the tube, and none from the lumen.
    light *= _step(far / lobes, 0.25 * lumen.radius, 1.2 + 2 * lumen.radius) * 0.8 + 0.2
    light *= 0.12 + 0.88 * _step(far / lobes + 0.04 * _noise(size, 4, rng), 0.5 * lumen.radius, 1.4 * lumen.radius)
    light *= 1 + 0.10 * _noise(size, 2, rng, 2)

    base = np.array(look.wall) * (1 + look.spread * rng.standard_normal(3))
    colour = np.broadcast_to(base.astype(np.float32), (*size, 3)).copy()
    warmth = 0.05 * _noise(size, 2.5, rng, 3)
    colour *= 1 + warmth[..., None] * np.array([0.3, 1.0, 1.3], np.float32)
    colour *= 1 - _vessels(size, look, rng)[..., None] * np.array([0.10, 0.38, 0.34], np.float32)
    bumps = np.stack([_noise(size, 14, rng, 2), _noise(size, 14, rng, 2)]) * 0.22
    return colour, light.astype(np.float32), bumps


def _vessels(size, look: Style, rng) -> np.ndarray:
    """Branching lines: the zero crossings of smooth noise, where a second noise lets them show."""
    lines = np.zeros(size, np.float32)
    for cells, width, weight in ((3.5, 0.05, 1.0), (8, 0.08, 0.6)):
        shown = _step(_noise(size, 2, rng), 0.0, 1.2)
        lines = np.maximum(lines, weight * shown * np.exp(-((_noise(size, cells, rng, 3) / width) ** 2)))
    return lines * look.vessels * rng.uniform(0.3, 1.0)


@dataclass(frozen=True)
class _Polyp:
    x: float
    y: float
    radius: float  # half short sides
    stretch: float  # long axis / short axis
    turn: float  # direction of the long axis
    waves: tuple[tuple[float, float], ...]  # amplitude and phase of the outline's 2nd, 3rd, … harmonic
    height: float  # how far it stands out: 0.2 flat, 1 a knob
    tint: tuple[float, float, float]  # colour, as factors on the wall's
    softness: float  # width of the edge as it looks; the mask's edge is sharp


def _place_polyps(count: int, lumen: _Lumen, x, y, look: Style, rng) -> list[_Polyp]:
    """Draw shapes and places: on the wall, in the picture, apart from one another."""
    half_x, half_y = float(x.max()), float(y.max())
    placed: list[_Polyp] = []
    for _ in range(count):
        radius = math.exp(rng.uniform(*np.log(look.radius)))
        for _ in range(30):  # tries; the last one is kept
            px, py = rng.uniform(-0.62, 0.62) * half_x, rng.uniform(-0.62, 0.62) * half_y
            far = np.hypot(px - lumen.x, py - lumen.y)
            free = all(np.hypot(px - p.x, py - p.y) > 1.3 * (radius + p.radius) for p in placed)
            in_box = look.box and px < -0.2 * half_x and py > 0.2 * half_y
            if free and far > lumen.radius + 0.6 * radius and not in_box:
                break
        lobed = rng.random() < 0.3
        waves = tuple((rng.uniform(0, (0.16 if lobed else 0.07) / k), rng.uniform(0, 6.3)) for k in range(1, 5))
        strength = rng.uniform(*look.contrast)
        full = np.array([1.06, 0.72, 0.74]) if rng.random() < 0.6 else np.array([1.10, 1.16, 1.14])  # red or pale
        tint = 1 + strength * (full * (1 + 0.05 * rng.standard_normal(3)) - 1)
        placed.append(
            _Polyp(px, py, radius, rng.uniform(1.0, 1.6), rng.uniform(0, np.pi), waves, rng.uniform(0.25, 0.9),
                   tuple(tint), rng.uniform(0.03, 0.12))
        )  # fmt: skip
    return placed


def _outline(polyp: _Polyp, x, y) -> np.ndarray:
    """0 at the polyp's centre, 1 on its outline, growing outwards."""
    dx, dy = x - polyp.x, y - polyp.y
    u = (math.cos(polyp.turn) * dx + math.sin(polyp.turn) * dy) / math.sqrt(polyp.stretch)
    v = (-math.sin(polyp.turn) * dx + math.cos(polyp.turn) * dy) * math.sqrt(polyp.stretch)
    angle = np.arctan2(v, u)
    edge = np.ones_like(x)
    for k, (amplitude, phase) in enumerate(polyp.waves, start=2):
        edge += amplitude * np.cos(k * angle + phase)
    return np.hypot(u, v) / (polyp.radius * edge)


def _draw_polyp(colour, light, slope, x, y, polyp: _Polyp, lumen: _Lumen, rng):
    """Lay one polyp on the wall. Returns the new colour, light and bumpiness, and the polyp's exact area (bool)."""
    size = x.shape
    level = _outline(polyp, x, y)
    cover = 1 - _step(level, 1 - polyp.softness, 1 + polyp.softness)

    # A dome and its slope; the lamp sits at the camera, so the side that faces the lumen is the dark one.
    dome = polyp.height * np.clip(1 - level**2, 0, 1) ** 0.75
    dome = dome + 0.04 * _noise(size, 1.5 / polyp.radius + 2, rng, 3) * cover * polyp.height
    pixel = 2 / min(size)
    rise = np.stack([cv2.Scharr(dome, -1, 1, 0), cv2.Scharr(dome, -1, 0, 1)])
    rise *= np.float32(polyp.radius / (32 * pixel))
    away = np.array([polyp.x - lumen.x, polyp.y - lumen.y])
    lamp = np.append(0.55 * away / (np.linalg.norm(away) + 1e-6), 1.0)
    lamp = (lamp / np.linalg.norm(lamp)).astype(np.float32)
    facing = (lamp[2] - lamp[0] * rise[0] - lamp[1] * rise[1]) / np.sqrt(1 + rise[0] ** 2 + rise[1] ** 2)
    shade = 0.35 + 0.65 * np.clip(facing, 0, 1) / lamp[2]

    # Its own light is that of the wall around it: folds do not show through.
    around = float(light[level < 1.2].mean()) if (level < 1.2).any() else 1.0
    body = (0.1 * light + 0.9 * max(around, 0.4)) * shade

    # A shadow on the wall, on the far side, where it touches.
    behind = _outline(polyp, x + 0.18 * polyp.radius * lamp[0], y + 0.18 * polyp.radius * lamp[1])
    shadow = 0.45 * polyp.height * (1 - _step(behind, 0.9, 1.3))
    light = light * (1 - shadow) * (1 - cover) + body * cover

    grain = 0.06 * _noise(size, 3 / polyp.radius + 4, rng, 3)
    skin = colour * np.array(polyp.tint, np.float32) * (1 + grain[..., None] * np.array([0.4, 1, 1], np.float32))
    colour = colour + cover[..., None] * (skin - colour)
    slope = slope * (1 - 0.5 * cover) + 0.5 * (rise + 0.5 * lamp[:2, None, None]) * cover
    return colour, light.astype(np.float32), slope.astype(np.float32), level < 1


def _wet(picture, light, slope, cover, lumen: _Lumen, x, y, rng) -> np.ndarray:
    """Highlights: where the bumpy, wet surface mirrors the lamp into the camera."""
    size = x.shape
    far = np.hypot(x - lumen.x, y - lumen.y) + 0.3
    tilt = 0.35 / far
    nx, ny = slope[0] + tilt * (x - lumen.x) * 0.6 - 0.1 * x, slope[1] + tilt * (y - lumen.y) * 0.6 - 0.1 * y
    mirror = np.exp(-(nx**2 + ny**2) / 0.012)
    wet = np.maximum(_step(_noise(size, 4, rng), 0.3, 1.4) * rng.uniform(0.3, 1.0), 0.8 * cover)
    shine = _step(mirror * wet, 0.25, 0.6) * _step(light, 0.2, 0.6)
    glow = cv2.GaussianBlur(shine, (0, 0), 0.02 * min(size))
    return picture + (shine * 0.9 + glow * 0.25)[..., None] * np.array([1.0, 0.98, 0.95], np.float32)


def _camera(picture, inside, far, look: Style, rng) -> np.ndarray:
    """Lens and sensor: fall-off, exposure, blur, noise, the black frame. Returns uint8."""
    height = picture.shape[0]
    picture = picture * (rng.uniform(*look.light) * (1.08 - 0.38 * far**2))[..., None]
    sigma = rng.uniform(*look.blur) * height / 1000
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    picture = np.maximum(1.3 * picture, 0)
    picture = picture / np.sqrt(np.sqrt(1 + picture**4))  # bright places saturate gently, red first
    picture = picture * inside[..., None] + np.float32(0.03) * (1 - inside[..., None])
    grain = rng.standard_normal(picture.shape[:2], dtype=np.float32)[..., None]
    picture = picture * 255 + look.noise * (0.8 * grain + 0.3 * np.roll(grain, 7, (0, 1)) * np.float32([1, 0, -1]))
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


# --- a data set on disk -----------------------------------------------------------------------------------------------


def make_dataset(
    out: str | Path, train: int = 64, test: int = 16, size: int = 288, seed: int = 0, jpeg: bool = True
) -> Path:
    """Write a synthetic benchmark in the PraNet layout: a training set and five test sets, every picture with a polyp.

    Training pictures have the styles of Kvasir and CVC-ClinicDB in the benchmark's proportion, 900 to 550; each test set has
    its own, so three of the five are unseen. The folder appears only when it is complete: it is written beside its place
    and then renamed. If it holds the same make already, nothing is done.

    Args:
        out: the folder to make. Its ``dataset.json`` keeps the parameters.
        train: training pictures. test: pictures of each test set; at most the real set's number are written.
        size: height of a Kvasir-style picture in pixels; the other styles are larger or smaller than that.
        jpeg: images as JPEG (quality 95), else PNG. Masks are PNG, 0 and 255.

    Returns:
        ``out`` as a Path.

    Raises:
        UserError: ``out`` holds something else, or cannot be written; a number is out of range.
    """
    out = Path(out)
    if train < 2 or test < 1 or size < 64:
        raise UserError(f"train is {train}, test is {test}, size is {size}; they must be at least 2, 1 and 64.")
    note = {"made_by": "kdas_core.data.synthetic", "version": VERSION}
    note |= {"train": train, "test": test, "size": size, "seed": seed, "jpeg": jpeg}
    if _is_taken(out, note):
        return out
    plan = [("TrainDataset", _train_style(i), i) for i in range(train)]
    plan += [(f"TestDataset/{name}", name, i) for name in TEST_SETS for i in range(min(test, FULL_COUNTS[name]))]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another folder.") from error
    try:
        for folder, style, i in plan:
            _write_pair(draft / folder, i, _picture_seed(seed, folder, i), style, size, jpeg)
        (draft / SYNTHETIC_NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        draft.chmod(0o755)  # mkdtemp makes it private
        os.replace(draft, out)  # onto nothing, or onto an empty folder
    except OSError as error:
        if _is_taken(out, note):  # another process finished the same make first
            return out
        raise UserError(f"{out} cannot be written ({error.strerror or error}); choose another folder.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def _is_taken(out: Path, note: dict) -> bool:
    """True if ``out`` is this very make, False if it is free; anything else there is an error."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == note:
        return True
    what = "synthetic polyps made with other parameters" if found else "other files"
    raise UserError(f"{out} already holds {what}, and nothing is written over; choose another folder or remove it.")


def _train_style(i: int) -> str:
    """Eighteen Kvasir pictures to eleven of CVC-ClinicDB, evenly mixed, as 900 to 550."""
    return "CVC-ClinicDB" if (i + 1) * 11 // 29 > i * 11 // 29 else "Kvasir"


def _picture_seed(seed: int, folder: str, i: int) -> int:
    """A seed of its own for every picture: no test scene is also a training scene."""
    part = 0 if folder == "TrainDataset" else 1 + TEST_SETS.index(Path(folder).name)
    return int(rng_for(seed, part, i).integers(2**32))


def _write_pair(folder: Path, i: int, seed: int, style: str, size: int, jpeg: bool) -> None:
    look = STYLES[style]
    height = round(size * look.height)
    shape = (height, round(height * look.aspect))
    count = int(rng_for(seed, 9).choice((1, 2, 3), p=(0.8, 0.15, 0.05)))
    image, mask = render(seed, shape, style, count)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if jpeg else []
    _write(folder / "images" / f"{i + 1}.{'jpg' if jpeg else 'png'}", image[..., ::-1], options)
    _write(folder / "masks" / f"{i + 1}.png", mask.astype(np.uint8) * 255, [])


def _write(path: Path, pixels: np.ndarray, options: list[int]) -> None:
    """Encode in memory and write with Python: names in any alphabet work, and a full disk is an error."""
    done, code = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)
    if not done:
        raise OSError(f"{path.name} could not be encoded")
    path.write_bytes(code.tobytes())
