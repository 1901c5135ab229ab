"""What reading an image once is worth, and whether the disk keeps a network waiting; ratios measured in one run.

    python benchmarks/evaluate.py [--rounds 5] [--images 96] [--data DIR --predictions DIR]

1. The 13 metrics of one pair of 574×500 pixels, by ``kdas_core.evaluation`` and by a plain loop over the 256 thresholds.
   The loop is written out here from the formulas, and checked against the stored numbers of the released program first.
2. A set of 100 and a set of 600 pairs of that size: seconds, and how much the peak of memory grows from one to the other.
3. ``kdas predict`` against the bare forward pass of the same network, batch and number of images (``--images 0``: left
   out); the two take turns.
4. With ``--data`` (a folder in PraNet's layout) and ``--predictions`` (``DIR/<set>/*.png``): all test pairs there.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
from PIL import Image
from scipy import ndimage

from kdas_core.evaluation import METRICS, THRESHOLDS, evaluate, evaluate_sets, image_metrics

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "metrics_uacanet.npz"
EPS = np.finfo(float).eps


# --- the plain loop: every threshold cuts the whole image anew --------------------------------------------------------


def plain_metrics(pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """The 13 metrics of one image as the released evaluation computes them; pred uint8 (H, W), gt bool (H, W)."""
    grey = pred.astype(np.float64) / 255
    curves: dict[str, list[float]] = {name: [] for name in ("Dic", "IoU", "Sen", "Spe", "Em")}
    for threshold in THRESHOLDS:
        cut = grey >= threshold
        for name, value in plain_ratios(cut, gt).items():
            curves[name].append(value)
        curves["Em"].append(plain_e_measure(cut, gt))
    numbers = {
        "wFm": plain_weighted_f(grey, gt),
        "Sm": plain_s_measure(grey, gt),
        "mae": np.mean(np.abs(grey - gt)),
    }
    for name, values in curves.items():
        numbers |= {f"mean{name}": np.mean(values), f"max{name}": np.max(values)}
    return {name: float(numbers[name]) for name in METRICS}


def plain_ratios(cut: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """Four ratios of counts; all 0 where nothing overlaps."""
    both = np.sum(cut & gt)
    if both == 0:
        return dict.fromkeys(("Dic", "IoU", "Sen", "Spe"), 0.0)
    with np.errstate(invalid="ignore"):
        return {
            "Dic": 2 * both / (np.sum(cut) + np.sum(gt)),
            "IoU": both / np.sum(cut | gt),
            "Sen": both / np.sum(gt),
            "Spe": np.sum(~cut & ~gt) / np.sum(~gt),
        }


def plain_e_measure(cut: np.ndarray, gt: np.ndarray) -> float:
    """Enhanced alignment, pixel by pixel; the sum is divided by the number of pixels less one."""
    if not gt.any() or gt.all():
        return float(np.sum(cut == gt) / (gt.size - 1))
    a, b = cut.astype(np.float64) - cut.mean(), gt.astype(np.float64) - gt.mean()
    return float(np.sum((2 * a * b / (a * a + b * b) + 1) ** 2 / 4) / (gt.size - 1))


def plain_s_measure(grey: np.ndarray, gt: np.ndarray) -> float:
    """Half object, half region; the region's four parts meet at the centroid."""
    share = gt.mean()
    if share in (0, 1):
        return float(np.mean(grey) if share else 1 - np.mean(grey))

    def alike(x: np.ndarray) -> float:
        return 2 * x.mean() / (x.mean() ** 2 + 1 + x.std() + EPS)

    def similarity(x: np.ndarray, y: np.ndarray) -> float:
        (mx, my), n = (x.mean(), y.mean()), x.size - 1 + EPS
        covariance = np.sum((x - mx) * (y - my)) / n
        above = 4 * mx * my * covariance
        below = (mx**2 + my**2) * (np.sum((x - mx) ** 2) / n + np.sum((y - my) ** 2) / n)
        return above / (below + EPS) if above != 0 else float(below == 0)

    y, x = (int(np.rint(axis.mean())) for axis in np.nonzero(gt))
    parts = [(slice(None, y), slice(None, x)), (slice(None, y), slice(x, None))]
    parts += [(slice(y, None), slice(None, x)), (slice(y, None), slice(x, None))]
    region = sum(
        gt[p].size / gt.size * similarity(grey[p], gt[p].astype(float)) for p in parts if gt[p].size
    )
    objects = share * alike(grey[gt]) + (1 - share) * alike(1 - grey[~gt])
    return float(max(0.0, 0.5 * objects + 0.5 * region))


def plain_weighted_f(grey: np.ndarray, gt: np.ndarray) -> float:
    """Weighted F-measure with a two-dimensional Gaussian, 49 products a pixel."""
    if not gt.any():
        return float("nan")
    error = np.abs(grey - gt)
    distance, nearest = ndimage.distance_transform_edt(~gt, return_indices=True)
    carried = np.where(gt, error, error[nearest[0], nearest[1]])
    y, x = np.mgrid[-3:4, -3:4]
    kernel = np.exp(-(x**2 + y**2) / 50)
    eased = ndimage.correlate(carried, kernel / kernel.sum(), mode="nearest")
    weighted = np.where(gt & (eased < error), eased, error) * np.where(
        gt, 1, 2 - 0.5 ** (distance / 5)
    )
    true_positive, false_positive = gt.sum() - weighted[gt].sum(), weighted[~gt].sum()
    recall, precision = (
        1 - weighted[gt].mean(),
        true_positive / (true_positive + false_positive + EPS),
    )
    return float(2 * recall * precision / (recall + precision + EPS))


# --- measuring --------------------------------------------------------------------------------------------------------


def check(stored: dict[str, np.ndarray]) -> float:
    """Largest distance of the plain loop from the stored numbers of the released program; stops if it is not that loop."""
    worst = 0.0
    for i in range(8):
        ours = plain_metrics(stored[f"pred_{i:02}"], stored[f"gt_{i:02}"] >= 128)
        worst = max(worst, *(abs(ours[name] - stored[f"image_{name}"][i]) for name in METRICS))
    if worst > 1e-9:
        raise SystemExit(
            f"The plain loop is {worst:.1e} away from the stored numbers; its time means nothing."
        )
    return worst


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_pair(pred: np.ndarray, gt: np.ndarray, rounds: int) -> None:
    plain = statistics.median(
        seconds(lambda: plain_metrics(pred, gt)) for _ in range(max(2, rounds // 2))
    )
    ours = statistics.median(seconds(lambda: image_metrics(pred, gt)) for _ in range(4 * rounds))
    height, width = gt.shape
    print(
        f"one pair, {width}×{height}: plain loop {1000 * plain:.0f} ms, ours {1000 * ours:.1f} ms, {plain / ours:.0f} times"
    )


def many_pairs(pred: np.ndarray, gt: np.ndarray, folder: Path) -> None:
    peaks = {}
    for part in ("pred", "gt"):
        (folder / part).mkdir()
    for count in (100, 600):
        for i in range(count):
            for part, picture in (("pred", pred), ("gt", np.where(gt, 255, 0).astype(np.uint8))):
                Image.fromarray(np.roll(picture, 7 * i, axis=1)).save(
                    folder / part / f"{i}.png", compress_level=1
                )
        took = seconds(lambda: evaluate(folder / "pred", folder / "gt"))
        peaks[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{count} pairs: {took:.1f} s, {1000 * took / count:.1f} ms a pair, peak memory {peaks[count]:.0f} MB"
        )
    print(f"500 more images: {peaks[600] - peaks[100]:+.0f} MB")


def prediction(role: str, count: int, size: int, batch: int, rounds: int, folder: Path) -> None:
    import torch

    from kdas_core.inference import predict_folder
    from kdas_core.models import build, freeze

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng, net = np.random.default_rng(0), freeze(build(role)).to(device)
    for i in range(count):
        smooth = ndimage.gaussian_filter(rng.uniform(0, 255, (125, 144, 3)), (3, 3, 0)).astype(
            np.uint8
        )
        Image.fromarray(smooth).resize((574, 500)).save(folder / f"{i}.jpg", quality=95)
    images = torch.randn(batch, 3, size, size, device=device)

    @torch.inference_mode()
    def bare() -> None:
        for i in range(0, count, batch):
            net(images[: min(batch, count - i)])
        if device == "cuda":
            torch.cuda.synchronize()

    def through() -> None:
        with tempfile.TemporaryDirectory() as out:
            predict_folder(net, folder, out, size, batch_size=batch)

    bare()
    pairs = [(seconds(bare), seconds(through)) for _ in range(rounds)]
    forward, predicted = (statistics.median(column) for column in zip(*pairs))
    print(
        f"{role}, {size} px, batch {batch}, {device}: bare forward {count / forward:.1f} images/s, predict "
        f"{count / predicted:.1f} images/s, {100 * statistics.median(a / b for a, b in pairs):.0f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--predictions", type=Path)
    arguments = parser.parse_args()

    with np.load(GOLDEN) as file:
        stored = dict(file)
    print(f"plain loop against the released program's numbers: within {check(stored):.0e}")
    pred, gt = stored["pred_04"], stored["gt_04"] >= 128
    one_pair(pred, gt, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        many_pairs(pred, gt, Path(folder))
    for role in ("student", "teacher") if arguments.images else ():
        with tempfile.TemporaryDirectory() as folder:
            prediction(role, arguments.images, 352, 8, max(3, arguments.rounds // 2), Path(folder))
    if arguments.data and arguments.predictions:
        tests = arguments.data / "TestDataset"
        names = sorted(
            path.name for path in tests.iterdir() if (arguments.predictions / path.name).is_dir()
        )
        results: dict = {}
        took = seconds(lambda: results.update(evaluate_sets(arguments.predictions, tests, names)))
        total = sum(result.n for result in results.values())
        print(f"{total} pairs of {', '.join(names)}: {took:.1f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
