"""Tables and figures of chapter 6: recipe, loop, clamp, costs, runs and accidents."""

import ast
import inspect
import math
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor, nn

from kdas_book.figures import basics as plots
from kdas_book.figures.basics import BLUE, COLOUR_OF, GREEN, ORANGE, RED, labelled, show
from kdas_book.figures.ch08_released_code import RELEASED_SLIPS
from kdas_core.recipe import PRESETS, Recipe, preset
from kdas_core.training.batching import scaled_size
from kdas_core.training.checkpoint import read_checkpoint


def differences(one: Recipe, two: Recipe) -> pd.DataFrame:
    """The hyperparameters in which two recipes differ, a column for each."""
    shown = {float: "{:.3g}".format}  # others as they are
    values = [{n: shown.get(type(v), str)(v) for n, v in asdict(r).items()} for r in (one, two)]
    table = pd.DataFrame(values, index=[one.preset, two.preset]).T.rename_axis("hyperparameter")
    return table[table.iloc[:, 0] != table.iloc[:, 1]]


def work_of_presets(benchmark: int) -> pd.DataFrame:
    """Steps and pixels of each preset; those that take all images train on the benchmark's."""
    rows = {}
    for name in PRESETS:
        r = preset(name)
        images = r.train_images or benchmark - round(benchmark * r.validation_fraction)
        sides = [scaled_size(scale, r.image_size) for scale in r.scales]
        steps = r.epochs * math.ceil(images / r.batch_size) * len(sides)
        pixels = r.epochs * images * sum(side**2 for side in sides) / 1e9
        rows[name] = [images, ", ".join(map(str, sides)), r.batch_size, r.epochs, steps, pixels]
    columns = ["images", "pixels a side", "batch", "epochs", "steps", "10⁹ pixels seen"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def slips() -> pd.DataFrame:
    """The slips of the released recipe: what happens, the values, the switch that mends each."""
    rows, paper = {}, preset("paper")
    for name, (released, mended, what) in RELEASED_SLIPS.items():
        switch = f"--objective {mended}" if name == "objective" else f"--set {name}={mended}"
        rows[name] = [what, str(released), str(getattr(paper, name)), switch]
    columns = ["in the release", "its value", 'in "paper"', "mended by"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def listing(function: Callable, start: str = "", stop: str = "") -> str:
    """A function's source as a block of Markdown, without its docstring: from the line that begins
    with ``start`` to the one before the line that begins with ``stop``.

    >>> print(listing(norm_clipped, "factor", "return"))
    ```python
    factor = min(1.0, limit / float(gradient.norm()))
    ```
    """
    source = textwrap.dedent(inspect.getsource(function))
    said, lines = ast.parse(source).body[0].body[0], source.splitlines()  # type: ignore[attr-defined]
    del lines[said.lineno - 1 : said.end_lineno]
    begins = [line.strip() for line in lines]
    first = next(i for i, line in enumerate(begins) if line.startswith(start))
    last = next((i for i, line in enumerate(begins) if stop and line.startswith(stop)), len(lines))
    indent = len(lines[first]) - len(begins[first])
    cut = [line[min(indent, len(line) - len(line.lstrip())) :] for line in lines[first:last]]
    shown = "\n".join(cut).strip()
    return f"```python\n{shown}\n```"


def scales_table(soft: Mapping[float, float], size: int) -> pd.DataFrame:
    """Sides and pixels at each scale; ``soft``: the share of mask pixels between 0 and 1."""
    rows = {}
    for scale, share in soft.items():
        side = scaled_size(scale, size)
        rows[scale] = [side, side / size, side // 32, f"{share:.2%}", (side / size) ** 2]
    columns = ["side", "true scale", "cells of the deepest stage"]
    columns += ["mask pixels between 0 and 1", "pixels, relative"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("scale")


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two gradients."""
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def angle(a: Tensor, b: Tensor) -> float:
    """Angle between two gradients in degrees."""
    return math.degrees(math.acos(min(1.0, cosine(a, b))))


def norm_clipped(gradient: Tensor, limit: float) -> Tensor:
    """The gradient, shortened to the length ``limit`` if it is longer."""
    factor = min(1.0, limit / float(gradient.norm()))
    return gradient * factor


def clamping(gradients: Mapping[str, Tensor], limit: float) -> pd.DataFrame:
    """What the clamp at ±``limit`` does to each gradient, and to AdamW's first step; in degrees."""
    rows: dict[str, list] = {}
    for name, g in gradients.items():
        cut, clamped = g.abs() > limit, g.clamp(-limit, limit)
        of_square = float(g[cut].double().square().sum() / g.double().square().sum())
        step, clamped_step = (h / (h.abs() + 1e-8) for h in (g, clamped))
        rows[name] = [float(g.norm()), float(g.abs().max()), f"{cut.double().mean():.4%}"]
        turned = angle(g, clamped), angle(g, step), angle(step, clamped_step)
        rows[name] += [f"{of_square:.0%}", *turned]
    columns = ["norm", "largest element", "elements cut", "share of ‖g‖²"]
    columns += ["clamp turns g", "AdamW against g", "clamp turns AdamW"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def shares(terms: pd.DataFrame, recipe: Recipe) -> tuple[pd.DataFrame, float]:
    """The share of each weighted term in the total of ``kdas``, epoch by epoch, and the largest
    difference between the sum of the weighted terms and the total that was recorded.
    """
    weight = {
        "structure": 1 - recipe.alpha,
        "attention": recipe.alpha * recipe.attention_weight,
        "symmetric": recipe.alpha * recipe.guiding_weight,
    }
    parts = terms.drop(columns="total")
    parts = parts.apply(lambda term: term * weight[str(term.name).split("_")[0]])
    total = parts.sum(axis=1)
    return parts.div(total, axis=0), float((total - terms["total"]).abs().max())


def kept_megabytes(loss: Callable[[], Tensor], nets: Sequence[nn.Module]) -> float:
    """What a forward pass keeps for its backward pass, the networks' weights left out."""
    weights = {p.untyped_storage().data_ptr() for net in nets for p in net.parameters()}
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(size for place, size in kept.items() if place not in weights) / 1e6


def step_seconds(loss: Callable[[], Tensor], nets: Sequence[nn.Module]) -> float:
    """How long a forward and a backward pass take."""
    for net in nets:
        net.zero_grad()
    started = time.perf_counter()
    loss().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def best_and_last(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Validation Dice of the best and of the last epoch of each run."""
    rows = {}
    for name, history in histories.items():
        best, last = history.loc[history["val_dice"].idxmax()], history.iloc[-1]
        rows[name] = [int(best["epoch"]), best["val_dice"], int(last["epoch"]), last["val_dice"]]
    columns = ["best epoch", "Dice, best", "last epoch", "Dice, last"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.assign(difference=table["Dice, best"] - table["Dice, last"])


def compare_runs(one: Path, two: Path) -> pd.DataFrame:
    """All that two finished runs leave behind, number by number."""
    rows, (a, b) = {}, (_left_behind(folder) for folder in (one, two))
    for name in a:
        apart = np.abs(a[name] - b[name]).max()
        rows[name] = [a[name].size, np.array_equal(a[name], b[name]), apart]
    columns = ["numbers", "all equal", "largest difference"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _left_behind(folder: Path) -> dict[str, np.ndarray]:
    saved = read_checkpoint(folder / "last.ckpt")
    history = pd.read_csv(folder / "history.csv").drop(columns="seconds")
    return {
        "history": history.to_numpy().ravel(),
        "steps": pd.read_csv(folder / "steps.csv").to_numpy().ravel(),
        "last weights": _numbers_in(saved["network"]),
        "AdamW": _numbers_in(saved["optimiser"]),
        "kept weights": _numbers_in(load_file(folder / "best.safetensors")),
        "random numbers": _numbers_in(saved["random"]),
    }


def _numbers_in(thing: Any) -> np.ndarray:
    """All numbers of nested dictionaries, lists and tensors in one flat array."""
    if isinstance(thing, (Tensor, int, float)):
        return torch.as_tensor(thing).double().flatten().cpu().numpy()
    parts = thing.values() if isinstance(thing, dict) else thing
    several = isinstance(thing, (dict, list, tuple))
    return np.concatenate([np.empty(0), *(map(_numbers_in, parts) if several else ())])


def at_true_size(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Images side by side, each as large as it is in pixels compared with the others."""
    heights, widths = zip(*(picture.shape[:2] for picture in pictures.values()))
    height, each = plots.WIDTH * max(heights) / sum(widths) + 0.4, plots.WIDTH / len(pictures)
    figure, axes = plots.side_by_side(len(pictures), each, height, width_ratios=widths)
    for axis, (title, picture) in zip(axes, pictures.items()):
        show(axis, picture, title)
        axis.set_anchor("S")
    return figure


def clamped_or_clipped(angle: float, length: float = 1.2, limit: float = 0.5) -> Figure:
    """A gradient of two elements, at ``angle`` degrees: clamped to ±limit, shortened to limit."""
    gradient = length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    border: dict[str, Any] = {"fill": False, "ls": "--", "ec": "#888888"}
    square = plt.Rectangle((-limit, -limit), 2 * limit, 2 * limit, **border)
    ways = {
        "elements clamped": (square, np.clip(gradient, -limit, limit)),
        "norm clipped": (plt.Circle((0, 0), limit, **border), gradient * min(1, limit / length)),
    }
    figure, axes = plots.side_by_side(2, 2.8, 2.9)
    for axis, (name, (edge, after)) in zip(axes, ways.items()):
        kept = min(1.0, float(after @ gradient / np.linalg.norm(after) / length))
        axis.add_patch(edge)
        for arrow, colour in ((gradient, "#bbbbbb"), (after, BLUE)):
            style = {"arrowstyle": "-|>", "color": colour, "lw": 2.5, "shrinkB": 0}
            axis.annotate("", arrow, (0, 0), arrowprops=style)
        plane = {"xlim": (-0.6, 1.3), "ylim": (-0.6, 1.3), "aspect": "equal"}
        axis.set(xticks=[-0.5, 0, 0.5, 1], yticks=[-0.5, 0, 0.5, 1], **plane)
        axis.set_title(f"{name}: turned by {np.degrees(np.arccos(kept)):.0f}°")
    return figure


def terms_and_dice(terms: pd.DataFrame, students: Mapping[str, pd.DataFrame]) -> Figure:
    """An objective's terms over the epochs; students' validation Dice, the best ringed."""
    figure, (left, right) = plots.side_by_side(2, 4.3, 3.1)
    shown = terms.clip(lower=1e-6).rename(columns=lambda name: name.replace("_", " "))
    shown.drop(columns="total").plot(ax=left, marker="o", logy=True)
    left.plot(shown["total"], "o--", color="black", label="total")
    labelled(left, "epoch", "", title="terms of the objective, training images")
    for name, history in students.items():
        dice, own = history.set_index("epoch")["val_dice"], COLOUR_OF.get(name)
        right.plot(dice, "o-", color=own, label=name)
        right.plot(dice.idxmax(), dice.max(), "o", ms=11, mfc="none", mec=own, mew=2)
    right.set(xlabel="epoch", title="Dice on the validation split", ylim=(0, 1))
    right.legend()
    return figure


def cut_and_resumed(died: int, read: int, each: int, epochs: int) -> Figure:
    """A run of ``epochs`` of ``each`` steps that ``died`` after a step, before its checkpoint, and
    the call that redoes what is missing since the step of the checkpoint that it ``read``.
    """
    figure, axis = plt.subplots(figsize=(plots.WIDTH, 2.1))
    last = each * epochs
    runs = {"left alone": (0, last), "cut off": (0, died), "called again": (read, last)}
    for row, (start, end) in enumerate(runs.values()):
        for step in range(start, end):
            colour = ORANGE if row and read <= step < died else BLUE
            axis.barh(row, 1, 0.5, step, color=colour, ec="white")
            axis.text(step + 0.5, row, f"{step + 1}", color="white", ha="center", va="center")
    bad = range(read + 1, died)  # checkpoints
    axis.plot(range(1, read + 1), [1.45] * read, "^", color=GREEN, ms=7)
    axis.plot([*bad, died + 0.2], [1.45] * len(bad) + [1], "X", color=RED, ms=9)
    axis.annotate("", (read, 2.1), (read, 1.45), arrowprops={"arrowstyle": "-|>", "color": GREEN})
    plots.key(figure, {"step": BLUE, "done again": ORANGE, "checkpoint": GREEN, "accident": RED})
    axis.set(yticks=range(3), yticklabels=runs, ylim=(2.4, -0.6), xticks=[])
    for epoch in range(epochs):
        axis.text(each * (epoch + 0.5), -0.45, f"epoch {epoch + 1}", ha="center", va="center")
        axis.axvline(each * epoch, color="#999999", lw=0.8, ls=":", zorder=0)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure
