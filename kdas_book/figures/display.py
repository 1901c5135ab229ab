"""How a figure looks and leaves: the style of the book, its display in a cell, its file."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.core.pylabtools import print_figure, retina_figure
from matplotlib.figure import Figure

from kdas_book.figures.basics import PALETTE
from kdas_book.files import refuse_foreign
from kdas_core import UserError
from kdas_core.files import atomic_write


def use_style() -> None:
    """Give every figure from here on the book's style: letters of 8 points, 11 pixels on a page."""
    plt.rc("figure", dpi=96, titlesize="medium", labelsize="medium")
    plt.rc("figure.constrained_layout", use=True)
    plt.rc("font", size=8)
    plt.rc("savefig", bbox="tight", pad_inches=0.04)
    plt.rc("svg", hashsalt="kdas")  # equal figures are equal files
    plt.rc("axes", titlesize="medium", titlelocation="left", prop_cycle=plt.cycler(color=PALETTE))
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("axes.formatter", useoffset=False)
    plt.rc("legend", fontsize="medium", frameon=False)
    plt.rc("lines", markersize=4)
    if shell := get_ipython():
        plt.switch_backend(plt.get_backend())  # whose own formats come first
        formats = shell.display_formatter.formatters
        formats["image/svg+xml"].for_type(Figure, as_svg)
        formats["image/png"].for_type(Figure, as_png)


def as_svg(figure: Figure) -> str | None:
    """A chart as SVG, which is sharp on any screen; None for a figure with pictures or maps."""
    pictured = any(axis.images for axis in figure.axes)
    return None if pictured else print_figure(figure, "svg", metadata={"Date": None})


def as_png(figure: Figure) -> tuple | None:
    """A figure with pictures or maps as PNG, at twice the pixels it is shown at, and these."""
    return retina_figure(figure) if any(axis.images for axis in figure.axes) else None


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format of the path's suffix; an older file stays until this is whole.
    UserError if matplotlib does not write such files, or the file cannot be written.
    """
    # What matplotlib writes into its files.
    refuse_foreign(path, "figure of kdas", lambda file: b"atplotlib" in file.read_bytes())
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, format=path.suffix[1:] or None)
    except ValueError as error:
        way_out = "give a path such as figure.png"
        raise UserError(f"{path} cannot be written ({error}); {way_out}.") from error
    atomic_write(path, drawn.getvalue())
