"""Tables and figures of chapter 6: the recipe, the clamp, the schedule, runs and accidents."""

import math
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
from torch import Tensor

from kdas_book.figures.basics import BLUE, COLOUR_OF, labelled, show, side_by_side
from kdas_book.figures.ch08_released_code import RELEASED_SLIPS
from kdas_core.recipe import PRESETS, Recipe, preset
from kdas_core.training.batching import scaled_size
from kdas_core.training.checkpoint import read_checkpoint


def differences(one: Recipe, two: Recipe) -> pd.DataFrame:
    """The hyperparameters in which two recipes differ, a column for each."""
    values = [{name: str(value) for name, value in asdict(r).items()} for r in (one, two)]
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


def clamping(gradients: Mapping[str, Tensor], limits: Sequence, limit: float) -> tuple:
    """(cosine with the clamped gradient over the limits, what the clamp at ``limit`` does)."""
    turns = pd.DataFrame(index=limits, columns=list(gradients), dtype=float)
    rows = {}
    for name, g in gradients.items():
        turns[name] = [cosine(g, g.clamp(-c, c)) for c in limits]
        cut, shortened = g.abs() > limit, g * min(1, limit / float(g.norm()))
        of_square = float(g[cut].double().square().sum() / g.double().square().sum())
        kept = cosine(g, g.clamp(-limit, limit))
        angle = math.degrees(math.acos(min(1.0, kept)))
        of_elements = f"{cut.double().mean():.4%}", f"{of_square:.0%}"
        rows[name] = [float(g.norm()), float(g.abs().max()), int(cut.sum()), *of_elements]
        rows[name] += [kept, angle, cosine(g, shortened)]
    columns = ["norm", "largest element", "elements clamped", "share", "their share of ‖g‖²"]
    columns += ["cosine, clamped", "angle, degrees", "cosine, norm clipped"]
    return turns, pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def best_and_last(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Validation Dice of the best and of the last epoch of each run."""
    rows = {}
    for name, history in histories.items():
        best, last = history.loc[history["val_dice"].idxmax()], history.iloc[-1]
        epochs = int(best["epoch"]), int(last["epoch"])
        rows[name] = [epochs[0], best["val_dice"], epochs[1], last["val_dice"]]
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


def scaling(step_of: Callable, links: Mapping[str, float]) -> pd.DataFrame:
    """Speed-up on 1 to 8 devices, with 16 images in all and with 16 on each device."""
    rows, devices = {}, np.array([1, 2, 4, 8])
    for link, speed in links.items():
        for what, batches in (("16 in all", 0 * devices + 16), ("16 a device", 16 * devices)):
            paces = [b / sum(step_of(n, b, speed)) for n, b in zip(devices, batches)]
            rows[f"{link}, batch {what}"] = [f"{pace / paces[0]:.1f}×" for pace in paces]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["1 device", "2", "4", "8"])


def at_true_size(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Pictures side by side, each as large as it is in pixels compared with the others."""
    heights, widths = zip(*(picture.shape[:2] for picture in pictures.values()))
    height, each = 7 * max(heights) / sum(widths) + 0.4, 7 / len(pictures)
    figure, axes = side_by_side(len(pictures), each, height, width_ratios=widths)
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
    figure, axes = side_by_side(2, 2.8, 2.9)
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
    figure, (left, right) = side_by_side(2, 4.3, 3.1)
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
