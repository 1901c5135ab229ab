"""Five looks, one a test set, chosen by eye and then moved towards what
`kdas_book.data.image_statistics` says of the real sets; chapter 11 shows how far that went.
"""

from types import SimpleNamespace

from kdas_core.data.layout import TEST_SETS

VERSION = 2  # raise when the same seed would no longer give the same pictures
KINDS = ("sessile", "pedunculated", "flat")
Style = SimpleNamespace  # an attribute for each key of the table
# A column for each of TEST_SETS. Pairs are limits, and lengths are in half short sides.
_LOOKS = {
    "height": (0.95, 0.82, 1.0, 0.95, 1.2),  # of the picture, relative to the nominal size
    "aspect": (1.15, 1.33, 1.17, 1.15, 1.27),  # width / height
    "wall": (  # RGB of well-lit mucosa, 0–1
        (0.86, 0.51, 0.42),
        (0.92, 0.55, 0.32),
        (0.95, 0.46, 0.34),
        (0.88, 0.54, 0.34),
        (0.88, 0.52, 0.50),
    ),
    "spread": (0.05, 0.07, 0.07, 0.07, 0.05),  # how much that colour varies between pictures
    # Radius of a polyp; how far its colour leaves the wall's, 0–1; blur of the lens, standard
    # deviation in thousandths of the height.
    "radius": ((0.14, 0.30), (0.18, 0.46), (0.26, 0.72), (0.13, 0.36), (0.09, 0.24)),
    "contrast": ((0.2, 0.7), (0.3, 0.9), (0.45, 1.15), (0.2, 0.75), (0.15, 0.7)),
    "blur": ((1.5, 3.5), (0.5, 2.5), (0.5, 2), (2.5, 5), (0.5, 1.5)),
    "motion": (0.3, 0.1, 0.1, 0.5, 0.05),  # chance that the camera moves
    "noise": (1.5, 2.5, 1.5, 2.0, 2.0),  # of the sensor: standard deviation, grey levels
    "light": ((0.65, 0.95), (0.7, 1.1), (0.75, 1.1), (0.7, 1.05), (0.65, 1.0)),  # exposure
    "vessels": (0.3, 0.5, 0.6, 0.35, 1.0),  # how much they show, 0–1
    "residue": (0.15, 0.35, 0.25, 0.25, 0.2),  # chance of stool; half of it: of bubbles
    "frame": ("octagon", "octagon", "octagon", "octagon", "circle"),
    # The aperture's width and height as parts of the picture's; what the octagon's corners lack.
    "border": ((0.88, 0.97), (0.80, 0.93), (0.99, 0.99), (0.88, 0.97), (1.0, 1.0)),
    "cut": ((0.2, 0.32), (0.2, 0.35), (0.35, 0.55), (0.2, 0.32), (0.0, 0.0)),
    "sharpen": (0.5, 0.8, 1.3, 0.6, 0.7),  # edge enhancement of the video processor
    "quality": ((70, 90), (75, 92), (70, 92), (55, 80), (85, 96)),  # of the recorder's JPEG
    "box": (0.0, 0.0, 0.6, 0.0, 0.0),  # chance of a black inset at the lower left
    "instrument": (0.06, 0.06, 0.06, 0.06, 0.06),  # chance of a snare or forceps
}
STYLES = {
    name: Style(**dict(zip(_LOOKS, column))) for name, *column in zip(TEST_SETS, *_LOOKS.values())
}
