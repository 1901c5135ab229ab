"""From light to a file: the aperture, the lens, the sensor, and the recorder's JPEG."""

import math

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from kdas_book.data.synthetic.fields import View, step
from kdas_book.data.synthetic.styles import Style


def aperture(view: View, look: Style, rng: Generator) -> ndarray:
    """How much of each pixel shows the body: float32 (H, W), 0 in the black frame, 1 inside."""
    half_x, half_y = view.half
    x, y = view.x, view.y
    if look.frame == "circle":
        edge = rng.uniform(1.0, 1.1) * max(1.0, 0.93 * half_x) - np.sqrt(x * x + y * y)
    else:
        cut = rng.uniform(*look.cut)
        border_x, border_y = half_x * look.border[0], half_y * look.border[1]
        across = np.abs(x - rng.uniform(-1, 1) * 0.5 * (half_x - border_x))
        corner = (border_x + border_y - cut - across - np.abs(y)) / math.sqrt(2)
        edge = np.minimum(np.minimum(border_x - across, border_y - np.abs(y)), corner)
    inside = step(edge, -0.006, 0.006)
    if rng.random() < look.box:
        left = x < -half_x + rng.uniform(0.6, 0.8)
        inside = inside * ~(left & (y > half_y - rng.uniform(0.55, 0.75)))
    return inside


def photograph(picture: ndarray, inside: ndarray, look: Style, rng: Generator) -> ndarray:
    """Vignetting, exposure, blur, tone, edge enhancement, the frame, noise, JPEG of the light
    (H, W, 3), 1 = well lit, that an aperture (H, W) lets pass: uint8 RGB (H, W, 3).
    """
    view = View.of(picture.shape[:2])
    far = (view.x * view.x + view.y * view.y) * np.float32(1 / max(view.half) ** 2)
    picture = picture * (rng.uniform(*look.light) * (1.06 - 0.30 * far))[..., None]
    picture = np.maximum(1.15 * _blur(picture, look, rng), 0)
    picture /= np.sqrt(np.sqrt(1 + (picture * picture) ** 2))  # bright places saturate gently
    if look.sharpen:
        smooth = cv2.GaussianBlur(picture, (0, 0), 0.005 * len(picture))
        picture = np.clip(picture + look.sharpen * (picture - smooth), 0, 1)
    picture *= inside[..., None]
    speckle = rng.standard_normal(picture.shape[:2], dtype=np.float32)[..., None]
    grain = 0.8 * speckle + 0.3 * np.roll(speckle, 7, (0, 1)) * np.array([1, 0, -1], np.float32)
    grain *= 0.3 + 0.7 * inside[..., None]
    sensor = np.clip(picture * 255 + (3.5 + look.noise * grain), 0, 255).astype(np.uint8)
    quality = int(rng.integers(look.quality[0], look.quality[1] + 1))
    _, code = cv2.imencode(".jpg", sensor[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB))


def _blur(picture: ndarray, look: Style, rng: Generator) -> ndarray:
    """Out of focus, and drawn out along a line where the camera moved during the exposure."""
    height = len(picture)
    sigma = rng.uniform(*look.blur) * height / 1000
    moved = rng.random() < look.motion
    length = rng.uniform(0.012, 0.045) * height
    angle = rng.uniform(0, math.pi)
    if sigma > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    if moved and length > 1.5:
        side = 2 * math.ceil(length / 2) + 1
        kernel = np.zeros((side, side), np.uint8)
        way = np.array([math.cos(angle), math.sin(angle)]) * length / 2
        start, end = np.round((side // 2 + np.outer((-1, 1), way)) * 16).astype(np.int32).tolist()
        cv2.line(kernel, start, end, 255, 1, cv2.LINE_AA, 4)
        picture = cv2.filter2D(picture, -1, kernel / np.float32(kernel.sum()))
    return picture
