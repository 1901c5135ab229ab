"""From two folders, predicted grey maps and masks, to the numbers that papers print.

:func:`evaluate` scores one test set, :func:`evaluate_sets` a benchmark of several; :mod:`~kdas_core.evaluation.metrics`
holds the mathematics and says what each number means, :mod:`~kdas_core.evaluation.report` writes tables and files.

Files are matched by stem, never by their place in a listing. Everything that is wrong with the files of all sets (a
missing prediction, another size, a broken file, a stem that occurs twice) is found before the first number is computed,
and said at once.
"""

from __future__ import annotations

import multiprocessing
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kdas_core import UserError
from kdas_core.data.pairs import SUFFIXES, is_synthetic, list_images, read_mask
from kdas_core.evaluation.metrics import (
    ALL_METRICS,
    CURVES,
    METRICS,
    THRESHOLDS,
    ImageScore,
    SetScore,
    image_curves,
    image_metrics,
    minmax_grey,
    score_image,
)
from kdas_core.evaluation.report import from_config, table, write_json

__all__ = [
    "ALL_METRICS",
    "CURVES",
    "METRICS",
    "THRESHOLDS",
    "EvaluationResult",
    "baselines",
    "evaluate",
    "evaluate_sets",
    "from_config",
    "image_curves",
    "image_metrics",
    "minmax_grey",
    "read_prediction",
    "table",
    "write_json",
]

_SHOWN = 40  # problems and names in one message; the rest are counted


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The scores of one test set.

    Attributes:
        summary: ``{metric: value}`` of the set, in the order of ``ALL_METRICS`` (the released 13, then ``dice`` and
            ``iou``).
        per_image: one row an image, sorted by file name: ``name``, then the same metrics of that image alone.
        curves: ``{"Dic", "IoU", "Sen", "Spe", "Em"}``, averaged over the images, each (256,) in the order of
            ``THRESHOLDS``.
        minmax: was each prediction stretched to 0 … 255 before it was scored?
        strict: are undefined values NaN as released, instead of defined as ``metrics`` says?
        ignored: names of predictions for which there is no mask (or that ``names`` left out); they count nowhere.
        synthetic: were the masks written by our own generator?
    """

    summary: dict[str, float]
    per_image: pd.DataFrame
    curves: dict[str, np.ndarray]
    minmax: bool = False
    strict: bool = False
    ignored: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.per_image)

    @property
    def convention(self) -> str:
        """How the maps were read, for a table: ``"as saved"`` or ``"min–max"``."""
        return "min–max" if self.minmax else "as saved"


def evaluate(
    pred_dir: str | Path,
    gt_dir: str | Path,
    minmax: bool = False,
    strict: bool = False,
    names: Collection[str] | None = None,
    processes: int = 1,
) -> EvaluationResult:
    """Score a folder of predictions against a folder of masks.

    Args:
        pred_dir: 8-bit grey ``.png`` files, one for each mask, of its stem and its size.
        gt_dir: the masks, any of the usual image formats; grey ≥ 128 is polyp.
        minmax: stretch each prediction to 0 … 255 first, as the saving scripts of PraNet and Polyp-PVT do. It changes
            the numbers (and forgives a network its lack of confidence), so the result and every table say so.
        strict: as released, NaN included.
        names: only these stems; all masks if left out.
        processes: score in so many processes. Each starts a fresh interpreter (a few seconds), so this pays from
            hundreds of images; the numbers are the same.

    Returns:
        An :class:`EvaluationResult`. Memory does not grow with the images, save for 15 numbers each.

    Raises:
        UserError: with everything that is wrong with the two folders, before anything is computed.
    """
    plan = {"": (Path(pred_dir), Path(gt_dir))}
    return _run(plan, minmax, strict, None if names is None else {"": names}, processes)[""]


def evaluate_sets(
    pred_root: str | Path,
    gt_root: str | Path,
    datasets: Sequence[str],
    minmax: bool = False,
    strict: bool = False,
    names: Mapping[str, Collection[str]] | None = None,
    processes: int = 1,
) -> dict[str, EvaluationResult]:
    """Score ``pred_root/NAME/*.png`` against ``gt_root/NAME/masks/*`` for each data set named.

    The other arguments are those of :func:`evaluate`; ``names`` is ``{data set: stems}`` and limits only the sets it
    mentions.

    Returns:
        ``{data set: EvaluationResult}`` in the order of ``datasets``.

    Raises:
        UserError: with everything that is wrong with any of the sets, before anything is computed.
    """
    if isinstance(datasets, str) or not datasets:
        raise UserError(f"datasets is {datasets!r}; give a list with the name of at least one data set.")
    plan = {name: (Path(pred_root) / name, Path(gt_root) / name / "masks") for name in datasets}
    return _run(plan, minmax, strict, names, processes)


def baselines(masks: str | Path | Iterable[np.ndarray], strict: bool = False) -> dict[str, EvaluationResult]:
    """What two predictions score that never looked at an image: everything polyp, and nothing polyp.

    A metric on which they do well does not tell much about a network.

    Args:
        masks: a folder of masks, or bool arrays of shape (H, W) (in any iterable; they are read once).
        strict: as released, NaN included.

    Returns:
        ``{"all foreground": EvaluationResult, "all background": EvaluationResult}``; no images, no numbers.

    Raises:
        UserError: the folder is missing, empty, or holds a file that is no mask.
    """
    synthetic = False
    if isinstance(masks, str | Path):
        paths = list_images(masks)
        synthetic = _of_synthetic_set(Path(masks))
        named: Iterable = ((path.stem, read_mask(path)) for path in paths)
    else:
        named = ((str(i), mask) for i, mask in enumerate(masks))
    sets = {"all foreground": (255, SetScore()), "all background": (0, SetScore())}
    for name, mask in named:
        for level, total in sets.values():
            total.add(name, score_image(np.full(mask.shape, level, np.uint8), mask, strict))
    if not sets["all foreground"][1].names:
        where = masks if isinstance(masks, str | Path) else "The iterable of masks"
        raise UserError(f"{where} holds no masks; a baseline needs at least one.")
    return {name: _result(total, strict=strict, synthetic=synthetic) for name, (_, total) in sets.items()}


def read_prediction(path: str | Path) -> np.ndarray:
    """A predicted map as uint8, shape (H, W): 0 is surely background, 255 surely polyp.

    Black-and-white files count as 0 and 255; of a colour file whose three channels agree one is taken, an alpha channel
    is not looked at.

    Raises:
        UserError: the file is missing or broken, is really in colour (an overlay?), or has more than 8 bits.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image, it is missing, cut off or of another kind; predict it again."
        ) from error
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L"))
    if image.mode not in ("P", "PA", "RGB", "RGBA"):
        raise UserError(f"{path} has more than 8 bits a pixel (mode {image.mode}); save predictions as 8-bit grey.")
    red, green, blue = np.moveaxis(np.array(image.convert("RGB")), -1, 0)
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise UserError(f"{path} is in colour; a prediction is a grey map, so save the map itself and no overlay.")
    return red.copy()


# --- from folders to scores -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """One prediction to score, with everything that a process of its own needs."""

    name: str
    pred: Path
    mask: Path
    minmax: bool
    strict: bool


def _run(
    plan: Mapping[str, tuple[Path, Path]],
    minmax: bool,
    strict: bool,
    names: Mapping[str, Collection[str]] | None,
    processes: int,
) -> dict[str, EvaluationResult]:
    if processes < 1:
        raise UserError(f"processes is {processes}; it must be at least 1.")
    problems: list[str] = []
    jobs, ignored = {}, {}
    for dataset, (pred_dir, gt_dir) in plan.items():
        chosen = (names or {}).get(dataset)
        pairs, ignored[dataset] = _match(pred_dir, gt_dir, chosen, problems)
        jobs[dataset] = [_Job(name, pred, mask, minmax, strict) for name, pred, mask in pairs]
    for job in (job for part in jobs.values() for job in part):
        problems += _file_problems(job)
    if problems:
        raise UserError(_sentence(problems))
    results = {}
    for dataset, part in jobs.items():
        total = SetScore().extend(_scores(part, processes))
        synthetic = _of_synthetic_set(plan[dataset][1])
        results[dataset] = _result(total, minmax, strict, ignored[dataset], synthetic)
    return results


def _scores(jobs: list[_Job], processes: int) -> Iterator[tuple[str, ImageScore]]:
    """Scores in the order of the jobs, so that no last digit depends on the number of processes."""
    if processes == 1:
        yield from map(_score, jobs)
        return
    # A forked copy of a process in which PyTorch runs threads can hang; a fresh one cannot.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_score, jobs, chunksize=8)


def _score(job: _Job) -> tuple[str, ImageScore]:
    pred = read_prediction(job.pred)
    return job.name, score_image(minmax_grey(pred) if job.minmax else pred, read_mask(job.mask), job.strict)


def _result(
    total: SetScore, minmax: bool = False, strict: bool = False, ignored: tuple[str, ...] = (), synthetic: bool = False
) -> EvaluationResult:
    per_image = pd.DataFrame(total.rows, columns=list(ALL_METRICS))
    per_image.insert(0, "name", total.names)
    return EvaluationResult(total.summary(), per_image, total.curves, minmax, strict, ignored, synthetic)


def _of_synthetic_set(gt_dir: Path) -> bool:
    """Is this ``ROOT/TestDataset/NAME/masks`` (or any folder as near) of a ROOT that our generator wrote?"""
    return any(is_synthetic(folder) for folder in (gt_dir, *gt_dir.absolute().parents[:3]))


# --- what can be wrong with the files ---------------------------------------------------------------------------------


def _match(
    pred_dir: Path, gt_dir: Path, chosen: Collection[str] | None, problems: list[str]
) -> tuple[list[tuple[str, Path, Path]], tuple[str, ...]]:
    """(name, prediction, mask) for each mask, and the names of the predictions that belong to none."""
    masks = _by_stem(gt_dir, SUFFIXES, "mask", problems)
    preds = _by_stem(pred_dir, (".png",), "prediction", problems)
    if masks is None or preds is None:
        return [], ()
    wanted = list(masks)
    if chosen is not None:
        stems = {unicodedata.normalize("NFC", name) for name in chosen}
        wanted = [name for name in masks if name in stems]
        if not stems:
            problems.append(f"No image of {gt_dir} was chosen; name at least one, or leave names out to score all.")
        if absent := sorted(stems - masks.keys()):
            problems.append(f"{gt_dir} holds no mask for {_listed(absent)}; take these names out, or add the masks.")
    if missing := [name for name in wanted if name not in preds]:
        problems.append(
            f"{pred_dir} lacks the prediction of {len(missing)} of {len(wanted)} masks "
            f'({_listed([f"{name}.png" for name in missing])}); write them with "kdas predict".'
        )
    pairs = [(name, preds[name], masks[name]) for name in wanted if name in preds]
    return pairs, tuple(sorted(preds.keys() - set(wanted)))


def _by_stem(folder: Path, suffixes: tuple[str, ...], what: str, problems: list[str]) -> dict[str, Path] | None:
    """The files of a folder by stem, or None where there is nothing to match."""
    if not folder.is_dir():
        problems.append(f"{folder} is not a folder; a folder of {what}s is expected there.")
        return None
    stems: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        first = stems.setdefault(unicodedata.normalize("NFC", path.stem), path)
        if first is not path:
            problems.append(
                f"{folder} holds {first.name} and {path.name}, two {what}s of one name; remove one of them."
            )
    if not stems:
        problems.append(f"{folder} holds no {what} ({', '.join(suffixes)}); check the path.")
        return None
    return stems


def _file_problems(job: _Job) -> list[str]:
    """What is wrong with the two files of one job; both are decoded in full, so that half a file is found here."""
    arrays, problems = [], []
    for read, path in ((read_prediction, job.pred), (read_mask, job.mask)):
        try:
            arrays.append(read(path))
        except UserError as error:
            problems.append(str(error))
    if not problems and arrays[0].shape != arrays[1].shape:
        (height, width), (mask_height, mask_width) = (array.shape for array in arrays)
        problems.append(
            f"{job.pred} is {width}×{height} but its mask {job.mask} is {mask_width}×{mask_height}; "
            'a prediction has its image\'s size, as "kdas predict" writes it.'
        )
    elif not problems and arrays[0].size < 2:
        problems.append(f"{job.mask} has a single pixel, on which the E-measure is not defined; remove it.")
    return problems


def _sentence(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    rest = len(problems) - _SHOWN
    lines = [f"- {problem}" for problem in problems[:_SHOWN]] + ([f"- and {rest} more"] if rest > 0 else [])
    return "\n".join([f"Nothing was scored, since {len(problems)} things are wrong with the files:", *lines])


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
