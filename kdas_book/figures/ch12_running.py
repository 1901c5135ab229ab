"""Chapter 12: how long a pass takes in each runtime, and where the time of a pass goes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure


def latency(times: pd.DataFrame) -> Figure:
    """Median time of an image, a bar a network, up to the 95th percentile a line, a panel for each
    batch and number of threads. ``times``: as `kdas_book.deploy.benchmark.measure_all`.
    """
    groups = list(times.groupby(["threads", "batch"]))
    names = list(dict.fromkeys(times["network"]))
    size = (1.2 + 2.9 * len(groups), 0.6 + 0.34 * len(names))
    fig, axes = plt.subplots(1, len(groups), figsize=size, sharey=True, squeeze=False)
    for ax, ((threads, batch), rows) in zip(axes[0], groups):
        rows = rows.set_index("network").loc[names]
        centre, late = (rows[column].to_numpy() / batch for column in ("median_ms", "p95_ms"))
        ax.barh(names, centre, color="#7f9fc4")
        ax.hlines(range(len(names)), centre, late, color="#33475b")
        for i, value in enumerate(centre):
            ax.text(late[i], i, f" {value:.0f}", va="center", fontsize=8)
        ax.set_title(f"batch {batch}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        ax.set_xlabel("ms an image")
        ax.set_xlim(0, 1.12 * late.max())
    axes[0][0].invert_yaxis()
    fig.tight_layout()
    return fig


def time_shares(profiles: Mapping[str, pd.DataFrame], most: int = 6) -> Figure:
    """Where the time of a pass goes: a bar a network, divided among its longest operators. The
    frames are those of `kdas_book.deploy.costs.profile` and `operators`.
    """
    fig, axes = plt.subplots(len(profiles), 1, figsize=(8, 1.25 * len(profiles)), squeeze=False)
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
                ax.text(start + share / 2, 0, text, ha="center", va="center", fontsize=7,
                        color="white" if i < 2 else "black")  # fmt: skip
        ax.set_title(name, loc="left", fontsize=10)
        ax.set_xlim(0, 1)
        ax.axis("off")
    fig.tight_layout()
    return fig
