"""Which prediction belongs to which mask, and everything that can be wrong with the two folders.

Nothing is computed here. All problems of all sets are collected, so that one run shows them all.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from kdas_core import UserError
from kdas_core.data.layout import SUFFIXES, natural
from kdas_core.evaluation.conventions import HALF, Convention

SHOWN = 40  # problems and names in one message; the rest are counted
MOST_GREY = 0.01  # share of a mask neither dark nor light; JPEG masks of the benchmark have 0.0005
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Match:
    """One prediction and its mask."""

    name: str
    pred: Path
    mask: Path


def match(
    folders: tuple[Path, Path],
    roots: tuple[Path, Path],
    chosen: Collection[str] | None,
    problems: list[str],
) -> tuple[list[Match], tuple[str, ...]]:
    """Pair by stem, never by place in a listing.

    Args:
        folders: of predictions and of masks. roots: the folders out of which no link may lead.
        chosen: only these names; all masks if None.
        problems: what is wrong is added here.

    Returns:
        One :class:`Match` a mask, sorted by file name, and the names of predictions of no mask.
    """
    pred_dir, gt_dir = folders
    masks = _by_stem(gt_dir, roots[1], "mask", problems)
    preds = _by_stem(pred_dir, roots[0], "prediction", problems)
    if not masks or not preds:
        return [], ()
    wanted = list(masks)
    if chosen is not None:
        stems = {unicodedata.normalize("NFC", name) for name in chosen}
        wanted = [name for name in masks if name in stems]
        if not stems:
            problems.append(f"No image of {gt_dir} was chosen; name some, or leave names out.")
        if absent := sorted(stems - masks.keys()):
            way_out = "take these names out, or add the masks"
            problems.append(f"{gt_dir} holds no mask for {listed(absent)}; {way_out}.")
    if missing := [name for name in wanted if name not in preds]:
        folded = {name.casefold(): path.name for name, path in preds.items()}
        near = [folded[name.casefold()] for name in missing if name.casefold() in folded]
        problems.append(
            f"{pred_dir} lacks the prediction of {len(missing)} of {len(wanted)} masks "
            f"({listed(f'{name}.png' for name in missing)})"
            + (f" but holds {listed(near)}, whose case differs" if near else "")
            + '; write them with "kdas predict".'
        )
    pairs = [Match(name, preds[name], masks[name]) for name in wanted if name in preds]
    return pairs, tuple(sorted(preds.keys() - set(wanted)))


def repeats(gt_dir: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Names whose image, in ``images`` beside the folder of masks, has the same bytes as that of an
    earlier name, in natural order. (Masks that were drawn twice may differ.)

    Raises:
        UserError: there is no such folder, or it lacks the image of a name.
    """
    folder = gt_dir.parent / "images"
    problems: list[str] = []
    images = _by_stem(folder, gt_dir.parent, "image", problems)
    names = sorted(names, key=natural)
    if lacking := [name for name in names if name not in images]:
        fact = f"{folder} lacks the image of {listed(lacking)}"
        problems.append(f"{fact}; without it no repeat can be found.")
    if problems:
        raise UserError(sentence(problems))
    first: dict[bytes, str] = {}
    hashes = {name: sha256(images[name].read_bytes()).digest() for name in names}
    return tuple(name for name in names if first.setdefault(hashes[name], name) != name)


def file_problems(pair: Match, rules: Convention) -> list[str]:
    """What is wrong with the two files of one pair; both are decoded in full."""
    arrays, problems = [], []
    for read, given in ((read_prediction, (pair.pred,)), (read_ground_truth, (pair.mask, rules))):
        try:
            arrays.append(read(*given))
        except UserError as error:
            problems.append(str(error))
    if problems:
        return problems
    pred, mask = ("×".join(map(str, array.shape[::-1])) for array in arrays)
    if pred != mask:
        fact = f"{pair.pred} is {pred} but its mask {pair.mask} is {mask}"
        return [f'{fact}; a prediction has its image\'s size, as "kdas predict" writes it.']
    if arrays[0].size < 2:
        return [f"{pair.mask} has one pixel, on which no E-measure is defined; remove it."]
    return []


def read_prediction(path: str | Path) -> np.ndarray:
    """A predicted map as uint8, shape (H, W): 0 is surely background, 255 surely polyp.

    Black-and-white files count as 0 and 255, colour files of equal channels as grey; an alpha
    channel is not looked at.

    Raises:
        UserError: the file is missing, broken, in colour, or has more than 8 bits.
    """
    return _grey(Path(path), "prediction", "predict it again")


def read_ground_truth(path: str | Path, rules: Convention) -> np.ndarray:
    """A mask as bool, shape (H, W), by the rules of a convention.

    Raises:
        UserError: the file is missing, broken, in colour, has more than 8 bits, is mostly between
            black and white (the grey edges of a JPEG pass), or is not black and has no polyp by the
            rules (0 and 1 instead of 0 and 255).
    """
    grey = _grey(Path(path), "mask", "restore it")
    middle = ((grey >= HALF // 4) & (grey < 256 - HALF // 4)).mean()
    if middle > MOST_GREY:
        fact = f"{100 * middle:.0f} % of its pixels are neither dark nor light"
        raise UserError(f"{path} is not a mask of two values, {fact}; masks are 0 and 255.")
    top = int(grey.max())
    if 0 < top < rules.polyp_from:
        fact = f"has {top} as its largest value, and polyp begins at {rules.polyp_from}"
        raise UserError(f"{path} {fact}; masks are 0 and 255.")
    return grey >= rules.polyp_from


def sentence(problems: list[str], not_done: str = "scored") -> str:
    """One problem as it is; several as a list of lines below what was not done."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"Nothing was {not_done}, since {len(problems)} things are wrong:"]
    lines += [f"- {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"- and {len(problems) - SHOWN} more")
    return "\n".join(lines)


def listed(names: Iterable[object]) -> str:
    """The first names of a list, and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _by_stem(folder: Path, root: Path, what: str, problems: list[str]) -> dict[str, Path]:
    """The files of a folder by stem; none, and a problem, where there is nothing to match."""
    suffixes = (".png",) if what == "prediction" else SUFFIXES
    inside = root.resolve()
    leads_out = f"is a link that leads out of {root}; copy what it points to there."
    if not folder.is_dir():
        problems.append(f"{folder} is not a folder; a folder of {what}s is expected there.")
        return {}
    if not folder.resolve().is_relative_to(inside):
        problems.append(f"{folder} {leads_out}")
        return {}
    stems: dict[str, Path] = {}
    folded: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if not path.resolve().is_relative_to(inside):
            problems.append(f"{path} {leads_out}")
        elif path.is_file():
            stem = unicodedata.normalize("NFC", path.stem)
            stems.setdefault(stem, path)
            first = folded.setdefault(stem.casefold(), path)
            if first is not path:
                alike = f"two {what}s of one name"
                differ = alike if first.stem == path.stem else "two names that differ only in case"
                fact = f"{folder} holds {first.name} and {path.name}, {differ}"
                problems.append(f"{fact}; remove or rename one of them.")
    if not stems:
        problems.append(f"{folder} holds no {what} ({', '.join(suffixes)}); check the path.")
    return stems


def _grey(path: Path, what: str, remedy: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
    except _BROKEN as error:
        fact = "cannot be read as an image, it is missing, cut off or of another kind"
        raise UserError(f"{path} {fact}; {remedy}.") from error
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L"))
    if image.mode not in ("P", "PA", "RGB", "RGBA"):
        fact = f"does not have 8 bits a pixel (Pillow's mode {image.mode})"
        raise UserError(f"{path} {fact}; save a {what} as 8-bit grey, 0 to 255.")
    colours = np.array(image.convert("RGB"))
    if (colours != colours[..., :1]).any():
        raise UserError(f"{path} is in colour; save the {what} itself as grey, and no overlay.")
    return colours[..., 0].copy()
