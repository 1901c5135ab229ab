"""Paired augmentation: what moves the image moves its mask; what changes colours leaves it alone.

Images are uint8 RGB (H, W, 3). Masks are (H, W): bool (stays binary, nearest pixel) or uint8 (grey,
bilinear). All chance comes from the NumPy generator, so a pair and a seed fix the result.
"""

import cv2
import numpy as np
from numpy.random import Generator, default_rng

ImagePair = tuple[np.ndarray, np.ndarray]


def rng_for(*words: int) -> Generator:
    """A generator that depends on these integers and nothing else."""
    return default_rng([int(word) % 2**32 for word in words])


def augment_pair(image: np.ndarray, mask: np.ndarray, rng: Generator) -> ImagePair:
    """Flips, quarter turns, a small affine move, a colour jitter, in this order. Shapes and dtypes
    are kept, inputs not changed; a ValueError where image and mask differ in height or width.
    """
    if image.shape[:2] != mask.shape[:2]:
        sizes = f"image {image.shape[:2]} and mask {mask.shape[:2]}"
        raise ValueError(f"{sizes} must have the same height and width")
    for move in (random_flip, random_quarter_turn, random_affine):
        image, mask = move(image, mask, rng)
    return colour_jitter(image, rng), mask


def random_flip(image: np.ndarray, mask: np.ndarray, rng: Generator) -> ImagePair:
    """Mirror left–right and top–bottom, each with probability ½. A colon has no up and no left."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, mask = np.flip(image, axis), np.flip(mask, axis)
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def random_quarter_turn(image: np.ndarray, mask: np.ndarray, rng: Generator) -> ImagePair:
    """Turn by 0°, 90°, 180° or 270°, equally likely; if height and width differ, by 0° or 180°."""
    turns = int(rng.integers(4))
    if image.shape[0] != image.shape[1]:
        turns = 2 * (turns // 2)
    return np.ascontiguousarray(np.rot90(image, turns)), np.ascontiguousarray(np.rot90(mask, turns))


def random_affine(image: np.ndarray, mask: np.ndarray, rng: Generator) -> ImagePair:
    """Rotate by up to ±15°, scale by 0.85 to 1.2 about the centre, shift by up to ±5 % of the side.
    What comes in is black, like the frame around an endoscope's picture, and is not polyp.
    """
    height, width = image.shape[:2]
    angle = rng.uniform(-15, 15)
    zoom = float(np.exp(rng.uniform(np.log(0.85), np.log(1.2))))  # as likely ×1.1 as ÷1.1
    matrix: np.ndarray = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, zoom)
    matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * (width, height)
    size = (width, height)
    moved = cv2.warpAffine(image, matrix, size)
    if mask.dtype != bool:
        return moved, cv2.warpAffine(mask, matrix, size)
    ones = cv2.warpAffine(mask.astype(np.uint8), matrix, size, flags=cv2.INTER_NEAREST)
    return moved, ones.astype(bool)


def colour_jitter(
    image: np.ndarray, rng: Generator, brightness=0.2, contrast=0.2, saturation=0.2, cast=0.05
) -> np.ndarray:
    """Another lamp and another camera. Each factor is drawn from 1 ± its argument (``cast``: one a
    channel): brightness and cast scale values about 0, contrast about the image's mean, saturation
    about each pixel's grey.
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
