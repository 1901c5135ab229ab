"""Synthetic polyps: drawn, not photographed, so that the whole book runs with no data set at hand.

A picture is built as an endoscope would see it: a tube wall with folds that darkens towards the
lumen (`wall`), stool, bubbles, at times an instrument (`debris`), one polyp or a few with shading,
texture and contact shadow (`polyps`), wet highlights, then aperture, blur of lens and motion,
noise, JPEG (`camera`). Five `styles` stand in for the five test sets. The mask is exact: it comes
from the outline that draws the polyp. These pictures teach how the method works. A score on them
says nothing about real polyps, and the book labels it so.
"""

from kdas_book.data.synthetic.dataset import make_dataset, write_sheet
from kdas_book.data.synthetic.scene import plan, render
from kdas_book.data.synthetic.styles import KINDS, STYLES, VERSION, Style

__all__ = ["KINDS", "STYLES", "VERSION", "Style", "make_dataset", "plan", "render", "write_sheet"]
