"""Where the pixels of a picture lie, and smooth random fields over them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class View:
    """Pixel centres in units of half the short side: the short side runs from -1 to 1, the
    picture's middle is 0.

    ``x`` has shape (W,) and ``y`` shape (H,), so ``view.x`` and ``view.y[:, None]`` broadcast to
    the picture.
    """

    x: np.ndarray
    y: np.ndarray
    unit: float  # pixels in half the short side

    @classmethod
    def of(cls, size: tuple[int, int]) -> View:
        height, width = size
        unit = min(size) / 2
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / unit
        y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / unit
        return cls(x.astype(np.float32), y.astype(np.float32), unit)

    @property
    def size(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def half(self) -> tuple[float, float]:
        """Half the picture's width and height."""
        return len(self.x) / 2 / self.unit, len(self.y) / 2 / self.unit

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns within ``reach`` of a point, cut at the picture's border; at least one
        of each.
        """
        found = []
        for middle, length, centre in (
            (self.half[1], len(self.y), y),
            (self.half[0], len(self.x), x),
        ):
            first = int(np.clip((centre - reach + middle) * self.unit, 0, length - 1))
            last = int(np.clip(np.ceil((centre + reach + middle) * self.unit), first + 1, length))
            found.append(slice(first, last))
        return found[0], found[1]

    def crop(self, rows: slice, columns: slice) -> View:
        return View(self.x[columns], self.y[rows], self.unit)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (…, 2) as OpenCV draws them: fixed-point numbers with 4 fractional bits, int32 (…,
        2).
        """
        return np.round((points + self.half) * (self.unit * 16) - 8).astype(np.int32)


def step(value: np.ndarray, low: float | np.float32, high: float | np.float32) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def noise(view: View, cells: float, rng: np.random.Generator, octaves: int = 1) -> np.ndarray:
    """Smooth noise (H, W), mean about 0, deviation about 1; ``cells`` bumps along 2 units. Octaves
    add finer detail.

    A coarse grid of random numbers, made smooth by cubic B-splines along each axis: rows · grid ·
    columns. It is a function of the place, so the same generator gives the same field at every size
    of the picture.
    """
    total, power = np.zeros(view.size, np.float32), 0.0
    for octave in range(octaves):
        n, weight = cells * 2**octave, 0.5**octave
        grid = rng.standard_normal(
            (int(2 * n) + 4,) * 2, dtype=np.float32
        )  # the same numbers whatever the size
        total += weight * (_spline(view.y, n, len(grid)) @ grid @ _spline(view.x, n, len(grid)).T)
        power += (
            weight**2 * (151 / 315) ** 2
        )  # what is left of the grid's variance, 151/315 along each axis
    return total / np.float32(np.sqrt(power))


def _spline(places: np.ndarray, cells: float, knots: int) -> np.ndarray:
    """Weights (len(places), knots) of a cubic B-spline with ``cells / 2`` knots a unit; past the
    last knot comes the first.
    """
    place = (places + 2.0) * (cells / 2)
    first = np.floor(place).astype(int)
    t = place - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((len(places), knots), np.float32)
    rows = np.arange(len(places))
    for k, weight in enumerate(weights):
        matrix[rows, (first + k) % knots] = weight / 6
    return matrix


def slope(height: np.ndarray, view: View) -> np.ndarray:
    """How steeply a height (H, W) rises per unit to the right and downwards: (2, H, W)."""
    scale = float(
        np.float32(view.unit / 32)
    )  # Scharr's weights sum to 16 over a distance of 2 pixels
    return np.stack(
        [cv2.Scharr(height, -1, 1, 0, scale=scale), cv2.Scharr(height, -1, 0, 1, scale=scale)]
    )
