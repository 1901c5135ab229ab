"""Five looks, one for each test set: another camera, colour cast, size of polyp, resolution and
blur.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 2  # raise when the same seed would no longer give the same pictures
KINDS = ("sessile", "pedunculated", "flat")


@dataclass(frozen=True)
class Style:
    """How one test set looks: its camera, its light and its polyps.

    Chosen by eye and then moved towards what `kdas_book.data.image_statistics` says of the real
    set; chapter 1 shows how far that went.
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
    border: tuple[
        float, float
    ]  # half width and half height of the aperture, in parts of the picture's
    cut: tuple[float, float]  # how much the octagon's corners lack, in half short sides
    sharpen: float  # edge enhancement of the video processor, 0 none
    quality: tuple[int, int]  # of the recorder's JPEG
    box: float = 0.0  # chance of a black inset at the lower left, as some endoscopes print
    instrument: float = 0.06  # chance of a snare or forceps


STYLES = {
    "CVC-300": Style(
        height=0.95, aspect=1.15, wall=(0.86, 0.51, 0.42), spread=0.05, radius=(0.14, 0.30), contrast=(0.2, 0.7),
        blur=(1.5, 3.5), motion=0.3, noise=1.5, light=(0.65, 0.95), vessels=0.3, residue=0.15, frame="octagon",
        border=(0.88, 0.97), cut=(0.2, 0.32), sharpen=0.5, quality=(70, 90),
    ),
    "CVC-ClinicDB": Style(
        height=0.82, aspect=1.33, wall=(0.92, 0.55, 0.32), spread=0.07, radius=(0.18, 0.46), contrast=(0.3, 0.9),
        blur=(0.5, 2.5), motion=0.1, noise=2.5, light=(0.7, 1.1), vessels=0.5, residue=0.35, frame="octagon",
        border=(0.80, 0.93), cut=(0.2, 0.35), sharpen=0.8, quality=(75, 92),
    ),
    "Kvasir": Style(
        height=1.0, aspect=1.17, wall=(0.95, 0.46, 0.34), spread=0.07, radius=(0.26, 0.72), contrast=(0.45, 1.15),
        blur=(0.5, 2), motion=0.1, noise=1.5, light=(0.75, 1.1), vessels=0.6, residue=0.25, frame="octagon",
        border=(0.99, 0.99), cut=(0.35, 0.55), sharpen=1.3, quality=(70, 92), box=0.6,
    ),
    "CVC-ColonDB": Style(
        height=0.95, aspect=1.15, wall=(0.88, 0.54, 0.34), spread=0.07, radius=(0.13, 0.36), contrast=(0.2, 0.75),
        blur=(2.5, 5), motion=0.5, noise=2.0, light=(0.7, 1.05), vessels=0.35, residue=0.25, frame="octagon",
        border=(0.88, 0.97), cut=(0.2, 0.32), sharpen=0.6, quality=(55, 80),
    ),
    "ETIS-LaribPolypDB": Style(
        height=1.2, aspect=1.27, wall=(0.88, 0.52, 0.50), spread=0.05, radius=(0.09, 0.24), contrast=(0.15, 0.7),
        blur=(0.5, 1.5), motion=0.05, noise=2.0, light=(0.65, 1.0), vessels=1.0, residue=0.2, frame="circle",
        border=(1.0, 1.0), cut=(0.0, 0.0), sharpen=0.7, quality=(85, 96),
    ),
}  # fmt: skip
