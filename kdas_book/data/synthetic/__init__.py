"""Synthetic polyps: drawn, not photographed, so that the whole book runs with no data set at hand.

A picture is built as an endoscope would see it: a tube wall with folds that darkens towards the
lumen (`wall`), stool, bubbles, now and then an instrument (`debris`), one polyp or a few with their
own shading, texture and contact shadow (`polyps`), wet highlights, then the camera: aperture, blur
of lens and motion, noise, JPEG (`camera`). Five `styles` stand in for the five test sets. The mask
is exact: it comes from the same outline that draws the polyp. These pictures teach how the method
works. A score on them says nothing about real polyps, and the book labels it so.

Scenes are laid out in units of half the short side, so one seed gives the same scene at every size;
only the camera's noise and JPEG differ.
"""

from kdas_book.data.synthetic.dataset import make_dataset, write_sheet
from kdas_book.data.synthetic.scene import plan, render
from kdas_book.data.synthetic.styles import KINDS, STYLES, VERSION, Style

__all__ = ["KINDS", "STYLES", "VERSION", "Style", "make_dataset", "plan", "render", "write_sheet"]
