"""How long a pass takes, in which runtime and precision, and what is lost by going faster."""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kdas_book.deploy.costs import network_cost, peak_memory
from kdas_book.deploy.runtimes import PROGRAM, Runtime, open_runtime, predict
from kdas_core import UserError
from kdas_core.data.layout import index_pairs
from kdas_core.data.masks import THRESHOLD, read_prediction
from kdas_core.evaluation import evaluate
from kdas_core.models import open_network

RUNS, BLOCK = 50, 10


def measure(
    runtimes: Mapping[str, Runtime],
    size: int,
    batch: int = 1,
    runs: int = RUNS,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Time passes of images of the network's size. The runtimes take turns, so that what else the
    machine does meets all alike, after ten passes each: of two untimed ones before them, the first
    meets the threads of another runtime, which wait busily for a while.

    Returns a row a runtime: ``network`` (its name), ``batch``, ``median_ms`` and ``p95_ms`` of so
    many runs, of a whole batch each.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    for begun in range(0, runs, BLOCK):
        for name, runtime in runtimes.items():
            for turn in range(-2, min(BLOCK, runs - begun)):
                start = clock()
                runtime.run(images)
                if turn >= 0:
                    times[name].append(1000 * (clock() - start))
    rows = [
        {"network": name, "batch": batch, "median_ms": np.median(took)}
        | {"p95_ms": np.percentile(took, 95)}
        for name, took in times.items()
    ]
    return pd.DataFrame(rows)


def measure_all(
    files: Mapping[str, tuple[Path, str]],
    size: int,
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    runs: int = RUNS,
) -> pd.DataFrame:
    """`measure` of ``{name: (file, runtime)}`` for each number of threads and each batch, with a
    column ``threads``. PyTorch's number of threads is afterwards what it was.
    """
    before, tables = torch.get_num_threads(), []
    try:
        for count in threads:
            opened = {name: open_runtime(*file, threads=count) for name, file in files.items()}
            torch.set_num_threads(count)
            for batch in batches:
                tables.append(measure(opened, size, batch, runs).assign(threads=count))
    finally:
        torch.set_num_threads(before)
    return pd.concat(tables, ignore_index=True)


def ratios(times: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """How many times faster the second of each pair is than the first, by the medians of one run:
    a row a pair, a column for each (batch, threads).
    """
    medians = times.set_index(["network", "batch", "threads"])["median_ms"].unstack([1, 2])
    rows = {f"{fast} against {slow}": medians.loc[slow] / medians.loc[fast] for slow, fast in pairs}
    return pd.DataFrame(rows).T


def precision_table(
    files: Mapping[str, Path], test_set: str | Path, masks: str | Path, runs: int = 50
) -> pd.DataFrame:
    """What each exported file is worth, the first being what the others are compared with.

    Args:
        files: name → ONNX file, such as ``{"float32": …, "int8": …}``.
        test_set: a folder with ``images`` and ``masks``.
        masks: a folder for the predictions, ``masks/<name>/*.png``.
        runs: timed passes of each, in turn, of one image of the network's size on one thread.

    Returns a row a file: size (MB), latency (median, ms), times as fast as the first, Dice and
    calibration error on the test set, and the share of its pixels whose mask is the first one's.
    """
    opened = {name: open_runtime(path, "onnx", threads=1) for name, path in files.items()}
    size = opened[next(iter(files))].about["size"]
    times = measure(opened, size, runs=runs).set_index("network")["median_ms"]
    images = [pair.image for pair in index_pairs(test_set)]
    rows: dict[str, dict[str, float]] = {}
    reference: dict[str, np.ndarray] = {}
    for name, runtime in opened.items():
        found = _predicted(runtime, images, Path(masks) / name)
        result = evaluate(Path(masks) / name, Path(test_set) / "masks")
        reference = reference or found
        same = np.mean([np.mean(found[stem] == reference[stem]) for stem in found])
        rows[name] = {
            "size, MB": files[name].stat().st_size / 1e6,
            "latency, ms": times[name],
            "times as fast": times.iloc[0] / times[name],
            "Dice": result.summary["dice"],
            "calibration error": result.calibration_error,
            "same pixels": same,
        }
    return pd.DataFrame(rows).T


def _predicted(runtime: Runtime, images: Sequence[Path], out: Path) -> dict[str, np.ndarray]:
    predict(runtime, images, out)
    return {file.stem: read_prediction(out / f"{file.stem}.png") >= THRESHOLD for file in images}


def verdict(table: pd.DataFrame, least: float = 1.5) -> str:
    """Two sentences on the last row of `precision_table`, true whatever it holds."""
    first, last = table.iloc[0], table.iloc[-1]
    speed, lost = last["times as fast"], last["Dice"] - first["Dice"]
    reached = "reaches" if speed >= least else "does not reach"
    smaller = _down(first["size, MB"] / last["size, MB"])
    return (
        f"{table.index[-1]} runs at {_down(speed)} times the speed of {table.index[0]}, so it "
        f"{reached} {least} times; its file is {smaller} times smaller. Its Dice is {lost:+.4f} "
        f"from the other's, and the masks agree in {_down(100 * last['same pixels'])} % of pixels."
    )


def _down(number: float, places: int = 2) -> str:
    """Cut, not rounded: no gain is said to be larger than it was."""
    return f"{np.floor(number * 10**places + 1e-9) / 10**places:.{places}f}"


def benchmark(
    files: Sequence[Path],
    batches: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1, 2),
    runs: int = RUNS,
) -> dict[str, pd.DataFrame]:
    """``times`` (`measure_all`), ``memory`` (MB: the file, and `peak_memory`) and, of weights,
    ``cost`` (`network_cost`). Weights run in PyTorch, ONNX files in every runtime that is there. A
    UserError where the files are of networks for images of several sizes, and as `open_runtime`.
    """
    ways = ["onnx"] + ["openvino"] * bool(find_spec("openvino"))
    named = {
        f"{path.stem}, {way}": (path, way)
        for path in files
        for way in (ways if path.suffix == ".onnx" else ["torch"])
    }
    sizes = {open_runtime(*file).about["size"] for file in named.values()}
    if len(sizes) != 1 or len({(p.stem, p.suffix == ".onnx") for p in files}) < len(files):
        fact = f"The networks see images of {len(sizes)} sizes, or two files have one name"
        raise UserError(f"{fact}; give at least one, of one size, each of a name of its own.")
    (size,) = sizes
    times = measure_all(named, size, batches, threads, runs)
    memory = {
        name: {"file": path.stat().st_size / 1e6, "peak": peak_memory(path, way, size)}
        for name, (path, way) in named.items()
    }
    weights = [path for path in files if path.suffix not in (".onnx", PROGRAM)]
    cost = {path.stem: network_cost(open_network(path)[0], size) for path in weights}
    found = {"times": times, "memory": pd.DataFrame(memory).T, "cost": pd.DataFrame(cost).T}
    return {name: frame for name, frame in found.items() if len(frame)}
