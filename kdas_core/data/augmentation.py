"""Paired augmentation: what moves the image moves its mask, and what changes colours leaves the
mask alone.

Every step takes a NumPy generator and nothing else that is random, so a pair, a seed and an epoch
fix the result. Images are uint8 RGB (H, W, 3). Masks are (H, W): bool (stays binary, nearest pixel)
or uint8 (grey, bilinear).
"""

from __future__ import annotations

import cv2
import numpy as np

ImagePair = tuple[np.ndarray, np.ndarray]


def augment_pair(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImagePair:
    """Flips, quarter turns, a small affine move, a colour jitter, in this order; shapes and dtypes
    are kept.

    A quarter turn of an image that is not square would change its shape; such an image is turned by
    0° or 180° only. The inputs are not changed.

    Raises:
        ValueError: image and mask differ in height or width.
    """
    if image.shape[:2] != mask.shape[:2]:
        raise ValueError(
            f"image {image.shape[:2]} and mask {mask.shape[:2]} must have the same height and width"
        )
    image, mask = random_flip(image, mask, rng)
    image, mask = random_quarter_turn(image, mask, rng)
    image, mask = random_affine(image, mask, rng)
    return colour_jitter(image, rng), mask


def random_flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImagePair:
    """Mirror left–right and top–bottom, each with probability ½. A colon has no up and no left."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def random_quarter_turn(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImagePair:
    """Turn by 0°, 90°, 180° or 270°, equally likely; if height and width differ, by 0° or 180°."""
    turns = int(rng.integers(4))
    if image.shape[0] != image.shape[1]:
        turns = 2 * (turns // 2)
    return np.ascontiguousarray(np.rot90(image, turns)), np.ascontiguousarray(np.rot90(mask, turns))


def random_affine(
    image: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    degrees: float = 15.0,
    scale: tuple[float, float] = (0.85, 1.2),
    shift: float = 0.05,
) -> ImagePair:
    """Rotate by up to ±degrees, scale about the centre, shift by up to ±shift of the side. What
    comes in is black, like the frame around an endoscope's picture, and is not polyp."""
    height, width = image.shape[:2]
    angle = rng.uniform(-degrees, degrees)
    zoom = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))  # as likely ×1.2 as ÷1.2
    matrix: np.ndarray = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, zoom)
    matrix[:, 2] += rng.uniform(-shift, shift, 2) * (width, height)
    return apply_affine(image, mask, matrix)


def apply_affine(image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> ImagePair:
    """Move both by one 2×3 matrix (source → target pixel coordinates, OpenCV's convention)."""
    size = (image.shape[1], image.shape[0])
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    if mask.dtype == bool:
        return moved, cv2.warpAffine(
            mask.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST
        ).astype(bool)
    return moved, cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR)


def colour_jitter(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    cast: float = 0.05,
) -> np.ndarray:
    """Another lamp and another camera: each factor is drawn from 1 ± its argument (``cast``: one
    factor a channel).

    Brightness and cast scale values about 0, contrast about the image's mean, saturation about each
    pixel's grey.
    """
    gain = rng.uniform(1 - brightness, 1 + brightness) * rng.uniform(1 - cast, 1 + cast, 3)
    spread = rng.uniform(1 - contrast, 1 + contrast)
    colour = rng.uniform(1 - saturation, 1 + saturation)
    luma = np.array([0.299, 0.587, 0.114])
    # All steps are linear in RGB, so they are one 3×3 matrix and an offset.
    matrix = colour * np.eye(3) + (1 - colour) * np.outer(np.ones(3), luma)
    matrix = spread * matrix @ np.diag(gain)
    mean = float(np.dot(luma, gain * np.array(cv2.mean(image)[:3])))
    offset = np.full((3, 1), (1 - spread) * mean)
    return cv2.transform(image, np.hstack([matrix, offset]))
