"""Synthetic polyps: drawn, not photographed, so that the whole book runs with no data set at hand.

A picture is built as an endoscope would see it: a tube wall with folds (`wall`), stool, bubbles, at
times an instrument (`debris`), polyps (`polyps`), then aperture, lens, sensor, JPEG (`camera`), in
one of five `styles` that stand in for the five test sets. The mask is exact: it comes from the
outline that draws the polyp. A score on these pictures says nothing about real polyps.
"""

from kdas_book.data.synthetic.dataset import make_dataset, write_sheet
from kdas_book.data.synthetic.scene import plan, render
from kdas_book.data.synthetic.styles import KINDS, STYLES, VERSION

__all__ = ["KINDS", "STYLES", "VERSION", "make_dataset", "plan", "render", "write_sheet"]
