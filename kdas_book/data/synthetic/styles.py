"""Five looks, one a test set: camera, colour cast, size of polyps, resolution and blur differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kdas_core.data.layout import TEST_SETS

VERSION = 2  # raise when the same seed would no longer give the same pictures
KINDS = ("sessile", "pedunculated", "flat")


@dataclass(frozen=True)
class Style:
    """How one test set looks. Chosen by eye and then moved towards what
    `kdas_book.data.image_statistics` says of the real set; chapter 1 shows how far that went.
    """

    height: float  # picture height, relative to the set's nominal size
    aspect: float  # width / height
    wall: tuple[float, float, float]  # RGB of well-lit mucosa, 0–1
    spread: float  # how much that colour varies from picture to picture
    radius: tuple[float, float]  # polyp radius, in half short sides
    contrast: tuple[float, float]  # how far a polyp's colour leaves the wall's, 0–1
    blur: tuple[float, float]  # lens: standard deviation, in thousandths of the height
    motion: float  # chance that the camera moves
    noise: float  # standard deviation of the sensor noise, grey levels
    light: tuple[float, float]  # exposure
    vessels: float  # how much they show, 0–1
    residue: float  # chance of stool; half of it: of bubbles
    frame: str  # "octagon" or "circle"
    border: tuple[float, float]  # width and height of the aperture, as parts of the picture's
    cut: tuple[float, float]  # how much the octagon's corners lack, in half short sides
    sharpen: float  # edge enhancement of the video processor, 0 none
    quality: tuple[int, int]  # of the recorder's JPEG
    box: float  # chance of a black inset at the lower left, as some endoscopes print
    instrument: float = 0.06  # chance of a snare or forceps


_LOOKS: dict[str, tuple[Any, ...]] = {  # a column for each of TEST_SETS
    "height": (0.95, 0.82, 1.0, 0.95, 1.2),
    "aspect": (1.15, 1.33, 1.17, 1.15, 1.27),
    "wall": (
        (0.86, 0.51, 0.42),
        (0.92, 0.55, 0.32),
        (0.95, 0.46, 0.34),
        (0.88, 0.54, 0.34),
        (0.88, 0.52, 0.50),
    ),
    "spread": (0.05, 0.07, 0.07, 0.07, 0.05),
    "radius": ((0.14, 0.30), (0.18, 0.46), (0.26, 0.72), (0.13, 0.36), (0.09, 0.24)),
    "contrast": ((0.2, 0.7), (0.3, 0.9), (0.45, 1.15), (0.2, 0.75), (0.15, 0.7)),
    "blur": ((1.5, 3.5), (0.5, 2.5), (0.5, 2), (2.5, 5), (0.5, 1.5)),
    "motion": (0.3, 0.1, 0.1, 0.5, 0.05),
    "noise": (1.5, 2.5, 1.5, 2.0, 2.0),
    "light": ((0.65, 0.95), (0.7, 1.1), (0.75, 1.1), (0.7, 1.05), (0.65, 1.0)),
    "vessels": (0.3, 0.5, 0.6, 0.35, 1.0),
    "residue": (0.15, 0.35, 0.25, 0.25, 0.2),
    "frame": ("octagon", "octagon", "octagon", "octagon", "circle"),
    "border": ((0.88, 0.97), (0.80, 0.93), (0.99, 0.99), (0.88, 0.97), (1.0, 1.0)),
    "cut": ((0.2, 0.32), (0.2, 0.35), (0.35, 0.55), (0.2, 0.32), (0.0, 0.0)),
    "sharpen": (0.5, 0.8, 1.3, 0.6, 0.7),
    "quality": ((70, 90), (75, 92), (70, 92), (55, 80), (85, 96)),
    "box": (0.0, 0.0, 0.6, 0.0, 0.0),
}
_COLUMNS = zip(TEST_SETS, *_LOOKS.values())
STYLES = {name: Style(**dict(zip(_LOOKS, column))) for name, *column in _COLUMNS}
