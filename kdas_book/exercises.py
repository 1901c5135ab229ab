"""Cells with a gap: what the reader wrote is compared with the function that the book uses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

GAP = "Still a gap: put your code in the place of the dots, and run both cells again."


def check(yours: Callable, ours: Callable, *inputs: Any) -> None:
    """Print whether the reader's function gives what the book's gives, and if not, where it
    differs: the kind of result, its shape, or its values (to a relative 1e-4).

    >>> check(lambda x: 2 * x, lambda x: x + x, torch.ones(3))
    Right: the same as the book's, 3 values.
    """
    try:
        result = yours(*inputs)
    except Exception as error:  # whatever the reader's code does, the notebook goes on
        said = f"Not yet: {type(error).__name__}: {error}"
        print(GAP if "ellipsis" in str(error) or "Ellipsis" in str(error) else said)
        return
    if result is None or result is ...:
        print(GAP)
        return
    print(_verdict(_array(result), _array(ours(*inputs))))


def _array(value: Any) -> np.ndarray:
    value = value.detach().cpu() if isinstance(value, torch.Tensor) else value
    return np.asarray(value, dtype=float)


def _verdict(yours: np.ndarray, ours: np.ndarray) -> str:
    scale = np.abs(ours).max()
    if yours.shape != ours.shape:
        return f"Not yet: your result has the shape {yours.shape}, and the book's {ours.shape}."
    if np.allclose(yours, ours, rtol=1e-4, atol=1e-5 * scale):
        values = f"{ours.size:,} values" if ours.ndim else f"{float(ours):.4g}"
        return f"Right: the same as the book's, {values}."
    with np.errstate(all="ignore"):
        ratio = yours[ours != 0] / ours[ours != 0]
    if len(ratio) and np.allclose(ratio, ratio[0], rtol=1e-3):
        return f"Not yet: your result is {ratio[0]:.4g} times the book's everywhere."
    if yours.ndim > 1 and yours.shape[-1] == yours.shape[-2]:
        if np.allclose(yours.swapaxes(-1, -2), ours, rtol=1e-4, atol=1e-5 * scale):
            return "Not yet: your result is the transpose of the book's."
    apart = np.where(np.isnan(yours), np.inf, np.abs(yours - ours))
    at = np.unravel_index(apart.argmax(), apart.shape)
    where = f" at {tuple(map(int, at))}" if at else ""
    return f"Not yet: the results differ, most{where}: {yours[at]:.4g} for {ours[at]:.4g}."
