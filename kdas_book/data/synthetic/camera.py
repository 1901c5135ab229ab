"""From light to a file: the aperture, the lens, the sensor, and the recorder's JPEG."""

from __future__ import annotations

import math

import cv2
import numpy as np

from kdas_book.data.synthetic.fields import View, step
from kdas_book.data.synthetic.styles import Style


def aperture(view: View, look: Style, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel shows the body: float32 (H, W), 0 in the black frame, 1 inside."""
    half_x, half_y = view.half
    x, y = view.x, view.y[:, None]
    if look.frame == "circle":
        edge = rng.uniform(1.0, 1.1) * max(1.0, 0.93 * half_x) - np.sqrt(x * x + y * y)
    else:
        cut = rng.uniform(*look.cut)
        border_x, border_y = half_x * look.border[0], half_y * look.border[1]
        shift = rng.uniform(-1, 1) * 0.5 * (half_x - border_x)
        across, down = np.abs(x - np.float32(shift)), np.abs(y)
        corner = (border_x + border_y - cut - across - down) / math.sqrt(2)
        edge = np.minimum(np.minimum(border_x - across, border_y - down), corner)
    inside = step(edge, -0.006, 0.006)
    if rng.random() < look.box:
        inside = inside * ~(
            (x < -half_x + rng.uniform(0.6, 0.8)) & (y > half_y - rng.uniform(0.55, 0.75))
        )
    return inside.astype(np.float32)


def photograph(
    picture: np.ndarray, inside: np.ndarray, view: View, look: Style, rng: np.random.Generator
) -> np.ndarray:
    """Vignetting, exposure, blur of lens and motion, tone, edge enhancement, the frame, noise,
    JPEG.

    Args:
        picture: light (H, W, 3), 1 = well lit. inside: the aperture (H, W).

    Returns:
        uint8 RGB (H, W, 3).
    """
    half = max(view.half)
    far = (view.x * view.x + (view.y * view.y)[:, None]) * np.float32(1 / half**2)
    picture = picture * (rng.uniform(*look.light) * (1.06 - 0.30 * far))[..., None]
    picture = _blur(picture, look, rng)
    picture = np.maximum(1.15 * picture, 0)
    picture = picture / np.sqrt(
        np.sqrt(1 + (picture * picture) ** 2)
    )  # bright places saturate gently, red first
    if look.sharpen:
        smooth = cv2.GaussianBlur(picture, (0, 0), 0.005 * len(picture))
        picture = np.clip(picture + np.float32(look.sharpen) * (picture - smooth), 0, 1)
    picture *= inside[..., None]
    speckle = rng.standard_normal(picture.shape[:2], dtype=np.float32)[..., None]
    grain = 0.8 * speckle + 0.3 * np.roll(speckle, 7, (0, 1)) * np.array([1, 0, -1], np.float32)
    grain = grain * (0.3 + 0.7 * inside[..., None])
    sensor = np.clip(picture * 255 + (3.5 + look.noise * grain), 0, 255).astype(np.uint8)
    return _record(sensor, int(rng.integers(look.quality[0], look.quality[1] + 1)))


def _blur(picture: np.ndarray, look: Style, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, and where the camera moved while the shutter was open, drawn out along a line."""
    height = picture.shape[0]
    sigma = rng.uniform(*look.blur) * height / 1000
    moved, length, angle = (
        rng.random() < look.motion,
        rng.uniform(0.012, 0.045) * height,
        rng.uniform(0, math.pi),
    )
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    if moved and length > 1.5:
        side = 2 * math.ceil(length / 2) + 1
        kernel = np.zeros((side, side), np.uint8)
        way = np.array([math.cos(angle), math.sin(angle)]) * length / 2
        ends = np.round((side // 2 + np.outer((-1, 1), way)) * 16).astype(np.int32)
        cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 255, 1, cv2.LINE_AA, 4)
        picture = cv2.filter2D(picture, -1, kernel / np.float32(kernel.sum()))
    return picture


def _record(image: np.ndarray, quality: int) -> np.ndarray:
    """The picture as the endoscope's recorder keeps it: JPEG at that quality, blocks and all."""
    _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    recorded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert recorded is not None  # it was encoded just now
    return np.ascontiguousarray(recorded[..., ::-1])
