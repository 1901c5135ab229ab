"""Figures of chapter 12: the time of a pass, promises kept and broken, alarms, spoilt pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdas_book.figures import basics as plots


def latency(times: pd.DataFrame) -> Figure:
    """Median time of an image, a bar a network, up to the 95th percentile a line, a panel for each
    batch and number of threads. ``times``: as `kdas_book.deploy.benchmark.measure_all`.
    """
    groups = list(times.groupby(["threads", "batch"]))
    names = list(dict.fromkeys(times["network"]))
    size = (plots.WIDTH, 0.9 + 0.3 * len(names))
    fig, axes = plt.subplots(1, len(groups), figsize=size, sharey=True, squeeze=False)
    for ax, ((threads, batch), rows) in zip(axes[0], groups):
        rows = rows.set_index("network").loc[names]
        centre, late = (rows[column].to_numpy() / batch for column in ("median_ms", "p95_ms"))
        ax.barh(names, centre, color=plots.BLUE)
        ax.hlines(range(len(names)), centre, late, color="black")
        for i, value in enumerate(centre):
            ax.text(late[i], i, f" {value:.0f}", va="center", fontsize=9)
        ax.set_title(f"batch {batch}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        ax.set_xlabel("ms an image")
        ax.set_xlim(0, 1.12 * late.max())
    axes[0][0].invert_yaxis()
    return fig


def time_shares(profiles: Mapping[str, pd.DataFrame], most: int = 6) -> Figure:
    """Where the time of a pass goes: a bar a network, divided among its longest operators. The
    frames are those of `kdas_book.deploy.costs.profile` and `operators`.
    """
    fig, axes = plt.subplots(
        len(profiles), 1, figsize=(plots.WIDTH, 1.1 * len(profiles)), squeeze=False
    )
    for ax, (name, table) in zip(axes[:, 0], profiles.items()):
        parts = table["share"].head(most)
        parts = pd.concat([parts, pd.Series({"the rest": max(0.0, 1 - parts.sum())})])
        starts = np.cumsum([0, *parts[:-1]])
        colours = plt.get_cmap("Blues")(np.linspace(0.75, 0.15, len(parts)))
        ax.barh([0] * len(parts), parts, left=starts, color=colours, edgecolor="white")
        for i, (start, (operator, share)) in enumerate(zip(starts, parts.items())):
            label = operator.replace("_scaled_dot_product_flash_attention_for_cpu", "attention")
            text = f"{label.replace('mkldnn_', '').replace('native_', '')}\n{100 * share:.0f} %"
            if share > 0.045:
                ax.text(start + share / 2, 0, text, ha="center", va="center", fontsize=8,
                        color="white" if i < 2 else "black")  # fmt: skip
        ax.set_title(name, loc="left", fontsize=10)
        ax.set_xlim(0, 1)
        ax.axis("off")
    return fig


def film(path: Path, pictures: Iterable[np.ndarray], rate: int = 25) -> Path:
    """Write pictures, uint8 RGB of one even size, as a video."""
    import av  # of the extra "video"

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        for i, picture in enumerate(pictures):
            if i == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def stills(path: Path, numbers: Iterable[int]) -> list[np.ndarray]:
    """Some frames of a video, uint8 RGB."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [frames[i] for i in numbers]


def promises(splits: pd.DataFrame, allowed: float, names: Mapping[str, str]) -> Figure:
    """How much was missed after each split of `over_splits`: a histogram for each column in
    ``names``, with its mean, and a line at what was allowed.
    """
    figure, axes = plt.subplots(len(names), 1, figsize=(plots.WIDTH, 3.4), sharex=True)
    edges = np.linspace(0, splits[list(names)].to_numpy().max() * 1.05 + 1e-9, 50)
    for axis, (column, label), colour in zip(axes, names.items(), (plots.BLUE, plots.RED)):
        axis.hist(splits[column], edges, color=colour, alpha=0.5)
        mean = splits[column].mean()
        axis.axvline(mean, color=colour, lw=2, label=f"mean of all splits, {mean:.3f}")
        axis.axvline(allowed, color="black", ls="--", lw=1, label=f"allowed, {allowed:g}")
        axis.set(title=label, ylabel="splits")
        axis.legend(**plots.BESIDE)
    axes[-1].set_xlabel("share of the polyps' pixels that was missed, mean over the other pictures")
    return figure


def alarms(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """The most polyps that a network finds at so many alarms or fewer, from `froc`; a ring at the
    threshold that is nearest to 0.5.
    """
    axis = plt.figure(figsize=(plots.WIDTH, 3)).subplots()
    for name, curve in curves.items():
        colour, rows = plots.colour_of(name), curve.sort_values(["alarms", "found"])
        best = rows["found"].cummax()
        steps = [0, *rows["alarms"], 100], [0, *best, best.iloc[-1]]
        axis.step(*steps, where="post", color=colour, label=name)
        half = curve.iloc[np.abs(curve.index - 0.5).argmin()]
        axis.plot(curve["alarms"], curve["found"], ".", color=colour, alpha=0.5)
        axis.plot(half["alarms"], half["found"], "o", mfc="none", ms=9, color=colour)
    limits = {"xlim": (-2, 102), "ylim": (-0.03, 1.03)}
    x = "frames with a false alarm, of 100 without polyp"
    return plots.labelled(axis, x, "share of polyps found", **limits)


def robustness(relative: pd.Series, clean: Mapping[str, float]) -> Figure:
    """Dice as a part of what it is on clean pictures, from `relative_dice`, a panel a corruption;
    ``clean``: each network's Dice there, for the legend.
    """
    kinds = list(relative.index.unique("corruption"))
    rows = relative.unstack("level")
    figure, axes = plots.side_by_side(len(kinds), 1.6, 2.6, sharey=True)
    for axis, kind in zip(axes, kinds):
        for name, dice in clean.items():
            label = f"{name}, {dice:.2f} on clean pictures"
            axis.plot(rows.loc[(name, kind)], "o-", color=plots.colour_of(name), label=label)
        axis.axhline(1, color="#999999", lw=1, ls=":")
        axis.set(title=kind, xlabel="level", xticks=range(6))
    top = 1.05 * max(1, relative.max())
    axes[0].set(ylabel="Dice / Dice on clean pictures", ylim=(0, top))
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(clean), **plots.BELOW)
    return figure
