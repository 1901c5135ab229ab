"""Scores of predicted masks: the 13 metrics of the released evaluation, and what else papers print.

:func:`evaluate` scores one test set, :func:`evaluate_sets` a benchmark of several (chapter 7).
Everything that is wrong with the files of all sets (a missing prediction, another size, a broken
file) is said at once, before the first number is computed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.data.layout import is_synthetic, list_images
from kdas_core.evaluation import files, scores
from kdas_core.evaluation.boundary import SURFACE_METRICS
from kdas_core.evaluation.conventions import CONVENTIONS, minmax_grey
from kdas_core.evaluation.files import read_ground_truth, read_prediction, repeats
from kdas_core.evaluation.metrics import ALL_METRICS, CURVES, METRICS, THRESHOLDS, image_curves
from kdas_core.evaluation.scores import Settings, image_metrics, score_image

__all__ = ["EvaluationResult", "baselines", "evaluate", "evaluate_sets", "image_curves"]
__all__ += ["image_metrics", "minmax_grey", "read_prediction", "repeats", "CONVENTIONS"]
__all__ += ["ALL_METRICS", "CURVES", "METRICS", "SURFACE_METRICS", "THRESHOLDS"]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The scores of one test set.

    Attributes:
        summary: ``{metric: value}`` of the set, in the order of ``ALL_METRICS``, then
            ``SURFACE_METRICS`` where they were asked for.
        per_image: a row an image, sorted by file name: ``name``, then the metrics of that image.
        curves: ``{"Dic", "IoU", "Sen", "Spe", "Em"}``, averaged over the images, each (256,) in the
            order of ``THRESHOLDS``.
        calibration: columns ``weight``, ``predicted`` and ``observed``, a row a bin of probability.
        convention, strict: as in :func:`evaluate`.
        ignored: names of predictions without a mask (or left out by ``names``); they do not count.
        dropped: names left out because their image repeats an earlier one.
        synthetic: were the masks written by our own generator?
    """

    summary: dict[str, float]
    per_image: pd.DataFrame
    curves: dict[str, np.ndarray]
    calibration: pd.DataFrame
    convention: str = "released"
    strict: bool = False
    ignored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.per_image)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]; less is better."""
        return scores.calibration_error(self.calibration)

    def worst(self, count: int, metric: str = "dice") -> pd.DataFrame:
        """The rows of ``per_image`` with the worst values, worst first."""
        more_is_better = metric not in ("mae", "hd95")
        return self.per_image.sort_values(metric, ascending=more_is_better, kind="stable")[:count]


def evaluate(
    pred_dir: str | Path,
    gt_dir: str | Path,
    convention: str = "released",
    strict: bool = False,
    surface: bool = False,
    names: Collection[str] | None = None,
    drop_repeats: bool = False,
    workers: int | None = None,
) -> EvaluationResult:
    """Score a folder of predictions against a folder of masks.

    Args:
        pred_dir: 8-bit grey ``.png`` files, one for each mask, of its stem and its size.
        gt_dir: the masks, any of the usual image formats.
        convention: how maps and masks are read, a name from ``CONVENTIONS``; changes the numbers.
        strict: undefined values are NaN, as released; else ``metrics`` says what they are.
        surface: ``hd95`` and ``boundary_iou`` as well; they take about as long again.
        names: only these stems; all masks if left out.
        drop_repeats: count an image that repeats an earlier one (:func:`repeats`) only once.
        workers: threads; as many as there are processors if left out.

    Raises:
        UserError: with everything that is wrong with the two folders, before anything is computed.
    """
    folders = Path(pred_dir), Path(gt_dir)
    sets = {"": files.SetFolders(*folders, roots=folders, names=names)}
    return _run(sets, Settings(convention, strict, surface, drop_repeats, workers))[""]


def evaluate_sets(
    pred_root: str | Path,
    gt_root: str | Path,
    datasets: Sequence[str],
    convention: str = "released",
    strict: bool = False,
    surface: bool = False,
    names: Mapping[str, Collection[str]] | None = None,
    drop_repeats: bool = False,
    workers: int | None = None,
) -> dict[str, EvaluationResult]:
    """Score ``pred_root/NAME/*.png`` against ``gt_root/NAME/masks/*`` for each data set named.

    The other arguments, and errors, are those of :func:`evaluate`; ``names`` is ``{data set:
    stems}`` and limits only the sets it mentions.

    Returns:
        ``{data set: EvaluationResult}`` in the order of ``datasets``.
    """
    if isinstance(datasets, str) or not datasets:
        raise UserError(f"datasets is {datasets!r}; give a list of at least one data set's name.")
    sets = files.benchmark(pred_root, gt_root, datasets, names)
    return _run(sets, Settings(convention, strict, surface, drop_repeats, workers))


def baselines(
    masks: str | Path | Iterable[np.ndarray], strict: bool = False, convention: str = "released"
) -> dict[str, EvaluationResult]:
    """What two predictions score that never looked at an image.

    Args:
        masks: a folder of masks, or bool arrays (H, W) in any iterable; they are read once.
        strict, convention: as in :func:`evaluate`; stretched, both maps are black.

    Returns:
        ``{"all foreground": EvaluationResult, "all background": EvaluationResult}``.

    Raises:
        UserError: the folder is missing, empty, or holds a file that is no mask.
    """
    settings, synthetic = Settings(convention, strict), False
    if isinstance(masks, str | Path):
        rules, synthetic = settings.rules, _of_synthetic_set(Path(masks))
        named = ((path.stem, read_ground_truth(path, rules)) for path in list_images(masks))
    else:
        named = ((str(i), mask) for i, mask in enumerate(masks))
    found: dict[str, list] = {"all foreground": [], "all background": []}
    for name, mask in named:
        for level, scored in zip((255, 0), found.values()):
            constant = np.full(mask.shape, level, np.uint8)
            scored.append((name, score_image(constant, mask, settings)))
    if not found["all foreground"]:
        where = masks if isinstance(masks, str | Path) else "The iterable of masks"
        raise UserError(f"{where} holds no masks; a baseline needs at least one.")
    results = {}
    for kind, scored in found.items():
        total = scores.set_scores(scored)
        results[kind] = EvaluationResult(*total, convention, strict, synthetic=synthetic)
    return results


def find_problems(sets: Mapping[str, files.SetFolders], settings: Settings):
    """The pairs of each set, the names of predictions of no mask, and all that is wrong (every file
    is decoded): ``({data set: [Match]}, {data set: names}, problems)``.
    """
    problems: list[str] = []
    found = {key: files.match(folders, problems) for key, folders in sets.items()}
    pairs = {key: matched for key, (matched, _) in found.items()}
    every = [pair for part in pairs.values() for pair in part]
    with ThreadPoolExecutor(settings.workers or os.cpu_count()) as pool:
        for wrong in pool.map(files.file_problems, every, repeat(settings.rules)):
            problems += wrong
    return pairs, {key: ignored for key, (_, ignored) in found.items()}, problems


def _run(sets: Mapping[str, files.SetFolders], settings: Settings) -> dict[str, EvaluationResult]:
    pairs, ignored, problems = find_problems(sets, settings)
    if problems:
        raise UserError(files.sentence(problems))
    dropped: dict[str, tuple[str, ...]] = dict.fromkeys(sets, ())
    if settings.drop_repeats:
        dropped = {key: repeats(sets[key].masks, [p.name for p in pairs[key]]) for key in sets}

    def score(pair: files.Match) -> tuple[str, scores.ImageScore]:
        mask = read_ground_truth(pair.mask, settings.rules)
        return pair.name, score_image(read_prediction(pair.pred), mask, settings)

    results = {}
    for key, part in pairs.items():
        kept = [pair for pair in part if pair.name not in dropped[key]]
        shown = {"desc": key or "images", "disable": "TQDM_DISABLE" in os.environ, "leave": False}
        # Threads are enough: decoding, distance transforms and filters run outside Python's lock.
        with ThreadPoolExecutor(settings.workers or os.cpu_count()) as pool:
            found = scores.set_scores(tqdm(pool.map(score, kept), total=len(kept), **shown))
        about = settings.convention, settings.strict, ignored[key], dropped[key]
        synthetic = _of_synthetic_set(sets[key].masks)
        results[key] = EvaluationResult(*found, *about, synthetic)
    return results


def _of_synthetic_set(gt_dir: Path) -> bool:
    """Is this ``ROOT/TestDataset/NAME/masks`` (or nearer) of a ROOT that our generator wrote?"""
    return any(is_synthetic(folder) for folder in (gt_dir, *gt_dir.absolute().parents[:3]))
