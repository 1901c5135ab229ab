"""Scores of predicted masks: the 13 metrics of the released evaluation, and what else papers print.

:func:`evaluate` scores one test set, :func:`evaluate_sets` a benchmark of several (chapter 7).
Everything that is wrong with the files of all sets (a missing prediction, another size, a broken
file) is said at once, before the first number is computed.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import repeat
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.data.layout import is_synthetic, list_images
from kdas_core.data.masks import read_mask, read_prediction
from kdas_core.evaluation import files, scores
from kdas_core.evaluation.boundary import SURFACE_METRICS
from kdas_core.evaluation.conventions import CONVENTIONS
from kdas_core.evaluation.files import repeats
from kdas_core.evaluation.metrics import ALL_METRICS, CURVES, METRICS, THRESHOLDS, image_curves
from kdas_core.evaluation.scores import EvaluationResult, Settings, image_metrics, score_image

__all__ = ["EvaluationResult", "baselines", "evaluate", "evaluate_sets", "image_curves"]
__all__ += ["image_metrics", "read_prediction", "repeats", "CONVENTIONS"]
__all__ += ["ALL_METRICS", "CURVES", "METRICS", "SURFACE_METRICS", "THRESHOLDS"]


def evaluate(
    pred_dir: str | Path,
    gt_dir: str | Path,
    convention: str = "released",
    names: Collection[str] | None = None,
    strict: bool = False,
    surface: bool = False,
    drop_repeats: bool = False,
    workers: int | None = None,
) -> EvaluationResult:
    """Score a folder of predictions against a folder of masks.

    Args:
        pred_dir: 8-bit grey ``.png`` files, one for each mask, of its stem and its size.
        gt_dir: the masks, any of the usual image formats.
        convention: how maps and masks are read, a name from ``CONVENTIONS``; changes the numbers.
        names: only these stems; all masks if left out.
        strict: undefined values are NaN, as released; else ``metrics`` says what they are.
        surface: ``hd95`` and ``boundary_iou`` as well, which take about as long again.
        drop_repeats: an image that repeats an earlier one (:func:`repeats`) counts once.
        workers: threads, else as many as there are processors.

    Raises:
        UserError: with everything that is wrong with the two folders, before anything is computed.
    """
    folders = Path(pred_dir), Path(gt_dir)
    sets = {"": files.SetFolders(*folders, names)}
    return _run(sets, Settings(convention, strict, surface, drop_repeats, workers))[""]


def evaluate_sets(
    pred_root: str | Path,
    gt_root: str | Path,
    datasets: Sequence[str],
    convention: str = "released",
    names: Mapping[str, Collection[str]] | None = None,
    strict: bool = False,
    surface: bool = False,
    drop_repeats: bool = False,
    workers: int | None = None,
) -> dict[str, EvaluationResult]:
    """Score ``pred_root/NAME/*.png`` against ``gt_root/NAME/masks/*`` for each data set named.

    The other arguments and the errors are those of :func:`evaluate`; ``names`` is a mapping of
    data sets to stems, and limits only those it mentions. Returns ``{data set: EvaluationResult}``.
    """
    if isinstance(datasets, str) or not datasets:
        raise UserError(f"datasets is {datasets!r}; give a list of at least one data set's name.")
    sets = files.benchmark(pred_root, gt_root, datasets, names)
    return _run(sets, Settings(convention, strict, surface, drop_repeats, workers))


def baselines(
    masks: str | Path | Iterable[np.ndarray], strict: bool = False, convention: str = "released"
) -> dict[str, EvaluationResult]:
    """What two predictions score that never looked at an image, ``all foreground`` and ``all
    background`` (stretched, both maps are black): ``{name: EvaluationResult}``.

    Args:
        masks: a folder of masks, or bool arrays (H, W) in any iterable, which is read once.
            UserError: the folder is missing, empty, or holds a file that is no mask.
        strict, convention: as in :func:`evaluate`.
    """
    settings, synthetic = Settings(convention, strict), False
    if isinstance(masks, str | Path):
        white, synthetic = settings.rules.polyp_from, _of_synthetic_set(Path(masks))
        named = ((path.stem, read_mask(path, white)) for path in list_images(masks))
    else:
        named = ((str(i), mask) for i, mask in enumerate(masks))
    scored: dict[str, list] = {"all foreground": [], "all background": []}
    for name, mask in named:
        for level, found in zip((255, 0), scored.values()):
            found.append((name, score_image(np.full(mask.shape, level, np.uint8), mask, settings)))
    if not scored["all foreground"]:
        where = masks if isinstance(masks, str | Path) else "The iterable of masks"
        raise UserError(f"{where} holds no masks; a baseline needs at least one.")
    return {
        key: scores.set_scores(found, settings, synthetic=synthetic)
        for key, found in scored.items()
    }


def find_problems(sets: Mapping[str, files.SetFolders], settings: Settings):
    """``({data set: ([Match], ignored names)}, problems)``; every file is decoded."""
    problems = files.Problems()
    found = {key: files.match(folders, problems) for key, folders in sets.items()}
    rules = settings.rules
    with ThreadPoolExecutor(settings.workers or os.cpu_count()) as pool:
        for key, (pairs, _) in found.items():
            seen = list(pool.map(files.file_problems, pairs, repeat(rules)))
            problems += [text for texts, *_ in seen for text in texts]
            of_maps = [largest for _, largest, _ in seen], [mark for *_, mark in seen]
            problems += files.set_problems(sets[key].preds, *of_maps, rules)
    return found, problems


def _run(sets: Mapping[str, files.SetFolders], settings: Settings) -> dict[str, EvaluationResult]:
    found, problems = find_problems(sets, settings)
    problems.stop()
    dropped: dict[str, tuple[str, ...]] = dict.fromkeys(sets, ())
    if settings.drop_repeats:
        for key, (pairs, _) in found.items():
            dropped[key] = repeats(sets[key].masks, [pair.name for pair in pairs])
    digests: dict[str, bytes] = {}

    def score(pair: files.Match) -> tuple[str, scores.ImageScore]:
        mask = read_mask(pair.mask, settings.rules.polyp_from)
        digests[pair.name] = blake2b(mask.tobytes(), digest_size=8).digest()
        return pair.name, score_image(read_prediction(pair.pred), mask, settings)

    results = {}
    for key, (pairs, ignored) in found.items():
        kept = [pair for pair in pairs if pair.name not in dropped[key]]
        about = {"ignored": ignored, "dropped": dropped[key]}
        about["synthetic"] = _of_synthetic_set(sets[key].masks)
        # Threads are enough: decoding, distance transforms and filters run outside Python's lock.
        with ThreadPoolExecutor(settings.workers or os.cpu_count()) as pool:
            scored = pool.map(score, kept)
            hidden = "TQDM_DISABLE" in os.environ  # a bar in a notebook does not read this itself
            named = list(tqdm(scored, key or "images", len(kept), False, disable=hidden))
        about["masks"] = blake2b(b"".join(digests[p.name] for p in kept), digest_size=8).hexdigest()
        results[key] = scores.set_scores(named, settings, **about)
    return results


def _of_synthetic_set(gt_dir: Path) -> bool:
    """Is this ``ROOT/TestDataset/NAME/masks`` (or nearer) of a ROOT that our generator wrote?"""
    return any(is_synthetic(folder) for folder in (gt_dir, *gt_dir.absolute().parents[:3]))
