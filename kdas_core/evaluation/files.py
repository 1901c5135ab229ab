"""Which prediction belongs to which mask, and everything that can be wrong with the two folders."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from kdas_core import UserError
from kdas_core.data.images import SUFFIXES, UNREAD
from kdas_core.data.layout import by_stem, list_images, natural
from kdas_core.data.masks import prediction_mark, read_mask, read_prediction
from kdas_core.evaluation.conventions import Convention

SHOWN = 40  # problems and names in one message; the rest are counted


class Problems(list[str]):
    """All that is wrong with some input, a sentence each, so that one run shows everything."""

    def about(self, names: Iterable[object], text: str) -> None:
        """Add the sentence if there are names; its ``{n}`` and ``{names}`` stand for them."""
        if names := list(names):
            self.append(text.replace("{n}", str(len(names))).replace("{names}", listed(names)))

    def stop(self, not_done: str = "scored") -> None:
        """UserError: one problem as it is; several as a list of lines below what was not done."""
        if len(self) == 1:
            raise UserError(self[0])
        if self:
            head = f"Nothing was {not_done}, since {len(self)} things are wrong:"
            more = [f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
            raise UserError("\n- ".join([head, *self[:SHOWN], *more]))


def listed(names: Iterable[object]) -> str:
    """The first names of a list, and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


@dataclass(frozen=True)
class SetFolders:
    """Where the predictions and the masks of a data set are, and what of them is scored."""

    preds: Path
    masks: Path
    names: Collection[str] | None = None  # all masks if None


class Match(NamedTuple):
    """One prediction and its mask."""

    name: str
    pred: Path
    mask: Path


def benchmark(
    preds: str | Path, masks: str | Path, datasets: Iterable[str], names: Mapping | None = None
) -> dict[str, SetFolders]:
    """``{data set: its folders}`` below two roots; ``names`` limits the sets it mentions."""
    below, gt, chosen = Path(preds), Path(masks), names or {}
    return {key: SetFolders(below / key, gt / key / "masks", chosen.get(key)) for key in datasets}


def match(folders: SetFolders, problems: Problems) -> tuple[list[Match], tuple[str, ...]]:
    """Pairs by stem, in the order of file names, and the names of predictions without a mask."""
    pred_dir, gt_dir = folders.preds, folders.masks
    masks = _by_stem(gt_dir, "mask", problems)
    preds = _by_stem(pred_dir, "prediction", problems)
    if not masks or not preds:
        return [], ()
    chosen = masks if folders.names is None else folders.names
    stems = {normalize("NFC", name) for name in chosen}
    if not stems:
        problems.append(f"No image of {gt_dir} was chosen; name some, or leave names out.")
    way_out = "take these names out, or add the masks"
    problems.about(
        sorted(stems - masks.keys()), f"{gt_dir} holds no mask for {{names}}; {way_out}."
    )
    wanted = [name for name in masks if name in stems]
    missing = [name for name in wanted if name not in preds]
    folded = {name.casefold(): path.name for name, path in preds.items()}
    near = [folded[name.casefold()] for name in missing if name.casefold() in folded]
    but = f" but holds {listed(near)}, whose case differs" if near else ""
    fact = f"{pred_dir} lacks the prediction of {{n}} of {len(wanted)} masks ({{names}}){but}"
    problems.about((f"{name}.png" for name in missing), f'{fact}; write them with "kdas predict".')
    pairs = [Match(name, preds[name], masks[name]) for name in wanted if name in preds]
    return pairs, tuple(sorted(preds.keys() - set(wanted)))


def repeats(gt_dir: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Names whose image, in ``images`` beside the masks, has the same bytes as that of an earlier
    name, in natural order. UserError: such an image is missing.
    """
    folder, names = gt_dir.parent / "images", sorted(names, key=natural)
    images = {normalize("NFC", path.stem): path for path in list_images(folder)}
    if lacking := [name for name in names if name not in images]:
        raise UserError(f"{folder} lacks the image of {listed(lacking)}; add it, to find repeats.")
    first: dict[bytes, str] = {}
    hashes = [sha256(images[name].read_bytes()).digest() for name in names]
    return tuple(n for n, content in zip(names, hashes) if first.setdefault(content, n) != n)


def file_problems(pair: Match, rules: Convention) -> tuple[list[str], int, str]:
    """What is wrong with the two files; the prediction's largest value, 0 if constant; its mark."""
    arrays, problems = [], []
    for read, *given in (read_prediction, pair.pred), (read_mask, pair.mask, rules.polyp_from):
        try:
            arrays.append(read(*given))
        except UserError as error:
            problems.append(str(error))
    if problems:
        return problems, 0, ""
    pred, mask = ("×".join(map(str, array.shape[::-1])) for array in arrays)
    if pred != mask:
        fact = f"{pair.pred} is {pred} but its mask {pair.mask} is {mask}"
        problems = [f'{fact}; a prediction has its image\'s size, as "kdas predict" writes it.']
    elif arrays[0].size < 2:
        problems = [f"{pair.mask} has one pixel, on which no E-measure is defined; remove it."]
    largest = int(arrays[0].max()) if np.ptp(arrays[0]) else 0
    return problems, largest, prediction_mark(pair.pred)


def set_problems(folder: Path, largest: list, marks: list, rules: Convention) -> list[str]:
    """A sentence where a set's predictions are of two networks, as an interrupted run leaves them,
    or are 0 and 1 and not 0 to 255. Nothing where 1 is stretched to white, and for maps of ``kdas
    predict``, which may be that sure of background.
    """
    drawn = {mark.partition(" ")[0] for mark in marks if mark}
    if len(drawn) > 1:
        fact = f"{folder} holds maps of {len(drawn)} networks"
        return [f'{fact}; write them anew with "kdas predict".']
    if set(largest) - {0} != {1} or rules.levels.startswith("stretched") or drawn:
        return []
    fact = f"{folder}: the predictions have the values 0 and 1 alone"
    return [f"{fact}, and white is 255; multiply them by 255."]


def _by_stem(folder: Path, what: str, problems: Problems) -> dict[str, Path]:
    """The files of a folder by stem; none, and a problem, where there is nothing to match."""
    if not folder.is_dir():
        problems.append(f"{folder} is not a folder; a folder of {what}s is expected there.")
        return {}
    suffixes = SUFFIXES if what == "mask" else (".png",)
    stems, wrong = by_stem(folder, (*suffixes, *UNREAD) if what == "mask" else suffixes)
    problems += [f"{problem.text}; mend or remove it." for problem in wrong]
    if not stems:
        problems.append(f"{folder} holds no {what} ({', '.join(suffixes)}); check the path.")
    return stems
