"""Synthetic polyps: drawn, not photographed, so that the whole book runs with no data set at hand.

A picture is a tube wall with folds (`wall`), stool, bubbles, at times an instrument (`debris`),
polyps, then aperture, lens, sensor, JPEG (`camera`), in one of five `styles` for the five test
sets. The mask is exact. A score on these pictures says nothing about real polyps.
"""

from kdas_book.data.synthetic.dataset import draw_pair, make_dataset, write_sheet
from kdas_book.data.synthetic.scene import plan, render
from kdas_book.data.synthetic.styles import KINDS, STYLES, VERSION

__all__ = ["KINDS", "STYLES", "VERSION", "draw_pair", "make_dataset", "plan", "render"]
__all__ += ["write_sheet"]
