"""Tables and figures of chapter 6: the recipe, the clamp, the schedule, runs and accidents."""

from __future__ import annotations

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

from kdas_book.figures.basics import BLUE, COLOUR_OF, GREEN, ORANGE, PALETTE, PURPLE, RED, SKY
from kdas_core.recipe import PRESETS, RELEASED_SLIPS, Recipe, preset
from kdas_core.training.batching import scaled_size
from kdas_core.training.checkpoint import read_checkpoint

# --- the recipe -----------------------------------------------------------------------------------


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
        rows[name] = {
            "images": images,
            "pixels a side": ", ".join(map(str, sides)),
            "batch": r.batch_size,
            "epochs": r.epochs,
            "steps": r.epochs * math.ceil(images / r.batch_size) * len(r.scales),
            "10⁹ pixels seen": r.epochs * images * sum(side**2 for side in sides) / 1e9,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


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


# --- gradients ------------------------------------------------------------------------------------


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two gradients."""
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def clamping(
    gradients: Mapping[str, Tensor], limits: Sequence[float], limit: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(cosine with the clamped gradient over the limits, what the clamp at ``limit`` does)."""
    turns = pd.DataFrame(index=limits, columns=list(gradients), dtype=float)
    rows = {}
    for name, g in gradients.items():
        turns[name] = [cosine(g, g.clamp(-c, c)) for c in limits]
        cut, shortened = g.abs() > limit, g * min(1, limit / float(g.norm()))
        of_square = float(g[cut].double().square().sum() / g.double().square().sum())
        kept = cosine(g, g.clamp(-limit, limit))
        rows[name] = {
            "norm": float(g.norm()),
            "largest element": float(g.abs().max()),
            "elements clamped": int(cut.sum()),
            "share": f"{cut.double().mean():.4%}",
            "their share of ‖g‖²": f"{of_square:.0%}",
            "cosine, clamped": kept,
            "angle, degrees": math.degrees(math.acos(min(1.0, kept))),
            "cosine, norm clipped": cosine(g, shortened),
        }
    return turns, pd.DataFrame.from_dict(rows, orient="index")


# --- runs -----------------------------------------------------------------------------------------


def best_and_last(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Validation Dice of the best and of the last epoch of each run."""
    rows = {}
    for name, history in histories.items():
        best, last = history.loc[history["val_dice"].idxmax()], history.iloc[-1]
        gain = best["val_dice"] - last["val_dice"]
        rows[name] = [
            int(best["epoch"]),
            best["val_dice"],
            int(last["epoch"]),
            last["val_dice"],
            gain,
        ]
    columns = ["best epoch", "Dice, best", "last epoch", "Dice, last", "difference"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


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
    if isinstance(thing, Tensor):
        return thing.double().flatten().cpu().numpy()
    if isinstance(thing, (int, float)):
        return np.array([thing], float)
    if not isinstance(thing, (dict, list, tuple)):
        return np.empty(0)
    parts = thing.values() if isinstance(thing, dict) else thing
    return np.concatenate([np.empty(0), *map(_numbers_in, parts)])


def scaling(step_of: Callable, links: Mapping[str, float]) -> pd.DataFrame:
    """Speed-up on 1 to 8 devices, with 16 images in all and with 16 on each device."""
    rows, devices = {}, (1, 2, 4, 8)
    for link, speed in links.items():
        for what, each in (("16 in all", False), ("16 a device", True)):
            batches = [16 * n if each else 16 for n in devices]
            paces = [b / sum(step_of(n, b, speed)) for n, b in zip(devices, batches)]
            rows[f"{link}, batch {what}"] = [f"{pace / paces[0]:.1f}×" for pace in paces]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["1 device", "2", "4", "8"])


# --- figures --------------------------------------------------------------------------------------


def at_true_size(pictures: Mapping[str, np.ndarray], inches: float = 7.0) -> Figure:
    """Pictures side by side, each as large as it is in pixels compared with the others."""
    heights, widths = zip(*(picture.shape[:2] for picture in pictures.values()))
    size = (inches, inches * max(heights) / sum(widths) + 0.4)
    figure, axes = plt.subplots(1, len(pictures), figsize=size, width_ratios=widths)
    for axis, (title, picture) in zip(np.atleast_1d(axes), pictures.items()):
        axis.imshow(picture)
        axis.set(xticks=[], yticks=[], title=title, anchor="S")
        axis.spines[:].set_visible(False)
    return figure


def clamped_or_clipped(angle: float, length: float = 1.2, limit: float = 0.5) -> Figure:
    """A gradient of two elements, at ``angle`` degrees: clamped to ±limit, shortened to limit."""
    gradient = length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    square = plt.Rectangle(
        (-limit, -limit), 2 * limit, 2 * limit, fill=False, ls="--", ec="#888888"
    )
    circle = plt.Circle((0, 0), limit, fill=False, ls="--", ec="#888888")
    ways = {
        "elements clamped": (square, np.clip(gradient, -limit, limit)),
        "norm clipped": (circle, gradient * min(1, limit / length)),
    }
    figure, axes = plt.subplots(1, 2, figsize=(5.6, 2.9))
    for axis, (name, (border, after)) in zip(axes, ways.items()):
        kept = min(1.0, float(after @ gradient / np.linalg.norm(after) / length))
        axis.add_patch(border)
        for arrow, colour in ((gradient, "#bbbbbb"), (after, BLUE)):
            style: dict[str, Any] = {"arrowstyle": "-|>", "color": colour, "lw": 2.5, "shrinkB": 0}
            axis.annotate("", arrow, (0, 0), arrowprops=style)
        ticks = [-0.5, 0, 0.5, 1]
        axis.set(xlim=(-0.6, 1.3), ylim=(-0.6, 1.3), xticks=ticks, yticks=ticks, aspect="equal")
        axis.set_title(f"{name}: turned by {np.degrees(np.arccos(kept)):.0f}°")
    return figure


def _lines(table: pd.DataFrame, height: float, **style: Any) -> tuple[Figure, Any]:
    """A line for each column over the index."""
    figure, axis = plt.subplots(figsize=(6, height))
    for name, colour in zip(table, PALETTE):
        axis.plot(table.index, table[name], color=colour, label=name, **style)
    return figure, axis


def _mark(axis: Any, x: float, y: float, text: str, **place: Any) -> None:
    """A dashed upright line with a word beside it, ``y`` in parts of the axis."""
    axis.axvline(x, color="#888888", ls="--", lw=1)
    axis.annotate(text, (x, y), color="#555555", xycoords=("data", "axes fraction"), **place)


def cosine_by_limit(cosines: pd.DataFrame, limit: float) -> Figure:
    """Cosine between a gradient and its clamped self over the limit; ``limit`` is marked."""
    figure, axis = _lines(cosines, 2.8, marker="o", ms=3)
    _mark(axis, limit, 0.02, f" ±{limit:g}, the recipe's")
    across = "every element clamped to ± this"
    axis.set(xscale="log", xlabel=across, ylabel="cosine", ylim=(None, 1.02))
    axis.legend(loc="best")
    return figure


def schedules(rates: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rates over the batches of a training run."""
    table = pd.DataFrame(rates)
    figure, axis = _lines(table.set_axis(table.index + 1), 2.6, lw=2)
    axis.set(xlabel="batch", ylabel="learning rate", ylim=(0, None))
    axis.legend(loc="lower left", bbox_to_anchor=(0.1, 0))
    return figure


def optimism(bias: pd.DataFrame, epochs: int) -> Figure:
    """How much too high a reported score is, over the number of checkpoints; one is marked."""
    figure, axis = _lines(bias, 3, marker="o", ms=3)
    _mark(axis, epochs, 0.5, f"{epochs} epochs ", ha="right")
    axis.set(xscale="log", xlabel="checkpoints to choose from", ylabel="reported − true Dice")
    axis.axhline(0, color="#888888", lw=0.8)
    axis.legend(loc="upper left", title="the best is chosen on")
    return figure


def terms_and_dice(terms: pd.DataFrame, students: Mapping[str, pd.DataFrame]) -> Figure:
    """Left: the terms of an objective over the epochs. Right: validation Dice of several runs.

    The epoch that is kept, the one with the highest validation Dice, has a ring.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.1))
    for name, colour in zip(terms, (BLUE, SKY, ORANGE, RED, GREEN, PURPLE)):
        style = {"color": "black", "ls": "--"} if name == "total" else {"color": colour}
        shown = terms[name].clip(lower=1e-6)
        left.plot(shown, marker="o", ms=3, label=name.replace("_", " "), **style)
    left.set(yscale="log", xlabel="epoch", title="terms of the objective, training images")
    left.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    for name, history in students.items():
        best = history.loc[history["val_dice"].idxmax()]
        own = COLOUR_OF.get(name)
        right.plot(history["epoch"], history["val_dice"], marker="o", ms=3, color=own, label=name)
        right.plot(best["epoch"], best["val_dice"], "o", ms=11, mfc="none", mec=own, mew=2)
    right.set(xlabel="epoch", title="Dice on the validation split", ylim=(0, 1))
    right.legend()
    return figure
