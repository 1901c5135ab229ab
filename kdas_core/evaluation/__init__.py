"""Scores of predicted masks: the 13 metrics of the released evaluation, and what else papers print.

:func:`evaluate` scores one test set, :func:`evaluate_sets` a benchmark of several (chapter 7).
Files are matched by stem. Everything that is wrong with the files of all sets (a missing
prediction, another size, a broken file) is said at once, before the first number is computed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.data.layout import is_synthetic, list_images, natural
from kdas_core.evaluation.boundary import SURFACE_METRICS
from kdas_core.evaluation.conventions import CONVENTIONS, Convention, convention, minmax_grey
from kdas_core.evaluation.files import (
    Match,
    file_problems,
    match,
    read_ground_truth,
    read_prediction,
    repeats,
    sentence,
)
from kdas_core.evaluation.metrics import ALL_METRICS, CURVES, METRICS, THRESHOLDS, image_curves
from kdas_core.evaluation.scores import (
    ImageScore,
    SetScore,
    calibration_error,
    image_metrics,
    score_image,
)

__all__ = [
    "ALL_METRICS",
    "CONVENTIONS",
    "CURVES",
    "METRICS",
    "SURFACE_METRICS",
    "THRESHOLDS",
    "EvaluationResult",
    "baselines",
    "evaluate",
    "evaluate_sets",
    "image_curves",
    "image_metrics",
    "minmax_grey",
    "read_prediction",
    "repeats",
]


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The scores of one test set.

    Attributes:
        summary: ``{metric: value}`` of the set, in the order of ``ALL_METRICS`` (the released 13,
            then ``dice``, ``iou`` and ``soft_dice``), then ``hd95`` and ``boundary_iou`` where they
            were asked for.
        per_image: one row an image, sorted by file name: ``name``, then the same metrics of that
            image alone.
        curves: ``{"Dic", "IoU", "Sen", "Spe", "Em"}``, averaged over the images, each (256,) in the
            order of ``THRESHOLDS``.
        calibration: columns ``weight``, ``predicted`` and ``observed``, one row a bin of predicted
            probability.
        convention: how maps and masks were read, a name from ``CONVENTIONS``.
        strict: are undefined values NaN as released, instead of defined as ``metrics`` says?
        ignored: names of predictions for which there is no mask (or that ``names`` left out); they
            count nowhere.
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
        return calibration_error(self.calibration)

    def worst(self, count: int, metric: str = "dice") -> pd.DataFrame:
        """The rows of ``per_image`` with the lowest values (``mae``, ``hd95``: the highest), worst
        first.
        """
        return self.per_image.sort_values(
            metric, ascending=metric not in ("mae", "hd95"), kind="stable"
        ).head(count)


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
        convention: how maps and masks are read, a name from ``CONVENTIONS``. It changes the
            numbers, so the result and every table say which.
        strict: as released, NaN included.
        surface: ``hd95`` and ``boundary_iou`` as well; they take about as long again.
        names: only these stems; all masks if left out.
        drop_repeats: count an image that repeats an earlier one byte by byte only once (see
            ``repeats``).
        workers: threads; as many as there are processors if left out. The numbers do not depend on
            it.

    Returns:
        An :class:`EvaluationResult`. Memory does not grow with the images, save for some 16 numbers
        each.

    Raises:
        UserError: with everything that is wrong with the two folders, before anything is computed.
    """
    plan = {"": (Path(pred_dir), Path(gt_dir))}
    chosen = None if names is None else {"": names}
    return _run(plan, plan[""], convention, strict, surface, chosen, drop_repeats, workers)[""]


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

    The other arguments are those of :func:`evaluate`; ``names`` is ``{data set: stems}`` and limits
    only the sets it mentions.

    Returns:
        ``{data set: EvaluationResult}`` in the order of ``datasets``.

    Raises:
        UserError: with everything that is wrong with any of the sets, before anything is computed.
    """
    if isinstance(datasets, str) or not datasets:
        raise UserError(
            f"datasets is {datasets!r}; give a list with the name of at least one data set."
        )
    roots = Path(pred_root), Path(gt_root)
    plan = {name: (roots[0] / name, roots[1] / name / "masks") for name in datasets}
    return _run(plan, roots, convention, strict, surface, names, drop_repeats, workers)


def baselines(
    masks: str | Path | Iterable[np.ndarray], strict: bool = False, convention: str = "released"
) -> dict[str, EvaluationResult]:
    """What two predictions score that never looked at an image: everything polyp, and nothing
    polyp.

    A metric on which they do well does not tell much about a network.

    Args:
        masks: a folder of masks, or bool arrays of shape (H, W) (in any iterable; they are read
            once).
        strict, convention: as in :func:`evaluate`. A stretched constant map is black, so by
            ``min-max`` the two agree.

    Returns:
        ``{"all foreground": EvaluationResult, "all background": EvaluationResult}``.

    Raises:
        UserError: the folder is missing, empty, or holds a file that is no mask.
    """
    rules, synthetic = _rules(convention), False
    if isinstance(masks, str | Path):
        paths = list_images(masks)
        synthetic = _of_synthetic_set(Path(masks))
        named: Iterable = ((path.stem, read_ground_truth(path, rules)) for path in paths)
    else:
        named = ((str(i), mask) for i, mask in enumerate(masks))
    sets = {"all foreground": (255, SetScore()), "all background": (0, SetScore())}
    for name, mask in named:
        for level, total in sets.values():
            total.add(name, score_image(np.full(mask.shape, level, np.uint8), mask, strict, rules))
    if not sets["all foreground"][1].names:
        where = masks if isinstance(masks, str | Path) else "The iterable of masks"
        raise UserError(f"{where} holds no masks; a baseline needs at least one.")
    settings = {"convention": convention, "strict": strict, "synthetic": synthetic}
    return {name: _result(total, **settings) for name, (_, total) in sets.items()}


# --- from folders to scores -------------------------------------------------------------------------------------------

_rules = (
    convention  # under this name too, since the public functions have an argument called convention
)


def find_problems(
    plan: Mapping[str, tuple[Path, Path]],
    roots: tuple[Path, Path],
    rules: Convention,
    names: Mapping[str, Collection[str]] | None = None,
    workers: int | None = None,
) -> tuple[dict[str, list[Match]], dict[str, tuple[str, ...]], list[str]]:
    """The pairs of each set, the predictions that belong to none, and all that is wrong; every file
    is decoded once.
    """
    problems: list[str] = []
    pairs, ignored = {}, {}
    for dataset, (pred_dir, gt_dir) in plan.items():
        chosen = (names or {}).get(dataset)
        pairs[dataset], ignored[dataset] = match(pred_dir, gt_dir, roots, chosen, problems)
    every = [pair for part in pairs.values() for pair in part]
    for found in _in_order(lambda pair: file_problems(pair, rules), every, workers):
        problems += found
    return pairs, ignored, problems


def _run(
    plan: Mapping[str, tuple[Path, Path]],
    roots: tuple[Path, Path],
    convention: str,
    strict: bool,
    surface: bool,
    names: Mapping[str, Collection[str]] | None,
    drop_repeats: bool,
    workers: int | None,
) -> dict[str, EvaluationResult]:
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it must be at least 1.")
    rules = _rules(convention)
    pairs, ignored, problems = find_problems(plan, roots, rules, names, workers)
    if problems:
        raise UserError(sentence(problems))
    dropped: dict[str, tuple[str, ...]] = dict.fromkeys(plan, ())
    if drop_repeats:
        dropped = {
            dataset: repeats(plan[dataset][1], (p.name for p in part))
            for dataset, part in pairs.items()
        }

    def score(pair: Match) -> ImageScore:
        return score_image(
            read_prediction(pair.pred), read_ground_truth(pair.mask, rules), strict, rules, surface
        )

    results = {}
    for dataset, part in pairs.items():
        kept = [pair for pair in part if pair.name not in dropped[dataset]]
        scores = _in_order(score, kept, workers)
        bar = tqdm(
            scores,
            total=len(kept),
            desc=dataset or "images",
            leave=False,
            disable="TQDM_DISABLE" in os.environ,
        )
        results[dataset] = _result(
            SetScore().extend(zip((pair.name for pair in kept), bar)),
            convention=convention,
            strict=strict,
            ignored=ignored[dataset],
            dropped=tuple(sorted(dropped[dataset], key=natural)),
            synthetic=_of_synthetic_set(plan[dataset][1]),
        )
    return results


def _in_order(
    work: Callable[[Match], Any], items: Sequence[Match], workers: int | None
) -> Iterator[Any]:
    """``map`` in threads, a few items ahead of whoever takes the results, so that memory stays
    flat.

    Threads are enough: decoding, distance transforms and filters all run outside Python's lock.
    """
    count = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        ahead: deque = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) >= 4 * count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _result(total: SetScore, **settings: Any) -> EvaluationResult:
    summary = total.summary()
    per_image = pd.DataFrame(total.rows, columns=list(summary))
    per_image.insert(0, "name", total.names)
    return EvaluationResult(summary, per_image, total.curves, total.calibration(), **settings)


def _of_synthetic_set(gt_dir: Path) -> bool:
    """Is this ``ROOT/TestDataset/NAME/masks`` (or any folder as near) of a ROOT that our generator
    wrote?
    """
    return any(is_synthetic(folder) for folder in (gt_dir, *gt_dir.absolute().parents[:3]))
