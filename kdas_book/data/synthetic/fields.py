"""Where the pixels of a picture lie, and smooth random fields over them."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

Window = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True)
class View:
    """Pixel centres in units of half the short side, from the picture's middle; so one seed gives
    the same scene at every size. ``x`` has shape (W,) and ``y`` (H, 1): they broadcast.
    """

    x: ndarray
    y: ndarray
    unit: float  # pixels in half the short side

    @classmethod
    def of(cls, size: tuple[int, int]) -> "View":
        unit = min(size) / 2
        y, x = ((np.arange(n, dtype=np.float32) + 0.5 - n / 2) / unit for n in size)
        return cls(x, y[:, None], unit)

    @property
    def size(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def half(self) -> tuple[float, float]:
        """Half the picture's width and height."""
        return len(self.x) / 2 / self.unit, len(self.y) / 2 / self.unit

    def window(self, x: float, y: float, reach: float) -> Window:
        """What lies within ``reach`` of a point, cut at the border; at least one pixel."""
        corner = np.array(self.size) / 2
        middle = np.array([y, x]) * self.unit + corner
        first = np.clip(middle - reach * self.unit, 0, 2 * corner - 1).astype(int)
        last = np.clip(np.ceil(middle + reach * self.unit), first + 1, 2 * corner).astype(int)
        return slice(first[0], last[0]), slice(first[1], last[1])

    def crop(self, at: Window) -> "View":
        return View(self.x[at[1]], self.y[at[0]], self.unit)

    def pixels(self, points: ndarray) -> ndarray:
        """Points (…, 2) as OpenCV draws them: int32 (…, 2) with 4 fractional bits."""
        return np.round((points + self.half) * (self.unit * 16) - 8).astype(np.int32)


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A number whose logarithm is equally likely everywhere between the limits."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def step(value: ndarray, low: float | np.float32, high: float | np.float32) -> ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def noise(view: View, cells: float, rng: Generator, octaves: int = 1) -> ndarray:
    """Smooth noise (H, W), mean about 0, deviation about 1, ``cells`` bumps along 2 units: a coarse
    grid of random numbers, the same at every size, smoothed by B-splines; octaves add detail.
    """
    total = np.zeros(view.size, np.float32)
    power = 0.0
    for octave in range(octaves):
        n = cells * 2**octave
        weight = 0.5**octave
        grid = rng.standard_normal((int(2 * n) + 4,) * 2, dtype=np.float32)
        rows = _spline(view.y.ravel(), n, len(grid))
        total += weight * (rows @ grid @ _spline(view.x, n, len(grid)).T)
        power += (weight * (151 / 315)) ** 2  # the splines leave 151/315 of the variance an axis
    return total / math.sqrt(power)


def _spline(places: ndarray, cells: float, knots: int) -> ndarray:
    """Weights (len(places), knots) of a periodic cubic B-spline with ``cells / 2`` knots a unit."""
    place = (places + 2.0) * (cells / 2)
    first = np.floor(place).astype(int)
    t = place - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((len(places), knots), np.float32)
    for k, weight in enumerate(weights):
        matrix[np.arange(len(places)), (first + k) % knots] = weight / 6
    return matrix


def slope(height: ndarray, view: View) -> ndarray:
    """How steeply a height (H, W) rises per unit to the right and downwards: (2, H, W)."""
    scale = float(np.float32(view.unit / 32))  # Scharr's weights sum to 16 over 2 pixels
    return np.stack([cv2.Scharr(height, -1, *axis, scale=scale) for axis in ((1, 0), (0, 1))])
