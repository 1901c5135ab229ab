"""Which prediction belongs to which mask, and everything that can be wrong with the two folders."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from kdas_core import UserError
from kdas_core.data.images import opened
from kdas_core.data.layout import SUFFIXES, list_images, natural
from kdas_core.evaluation.conventions import HALF, Convention

SHOWN = 40  # problems and names in one message; the rest are counted
MOST_GREY = 0.01  # share of a mask neither dark nor light; JPEG masks of the benchmark have 0.0005


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
    roots: tuple[Path, Path]  # of both, out of which no link may lead
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
    roots = below, gt = Path(preds), Path(masks)
    chosen = names or {}
    return {
        key: SetFolders(below / key, gt / key / "masks", roots, chosen.get(key)) for key in datasets
    }


def match(folders: SetFolders, problems: Problems) -> tuple[list[Match], tuple[str, ...]]:
    """Pair by stem: a :class:`Match` for each mask, sorted by file name, and the names of
    predictions of no mask. What is wrong is added to ``problems``.
    """
    pred_dir, gt_dir = folders.preds, folders.masks
    masks = _by_stem(gt_dir, folders.roots[1], "mask", problems)
    preds = _by_stem(pred_dir, folders.roots[0], "prediction", problems)
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


def file_problems(pair: Match, rules: Convention) -> list[str]:
    """What is wrong with the two files of one pair; both are decoded in full."""
    arrays, problems = [], []
    for read, *given in (read_prediction, pair.pred), (read_ground_truth, pair.mask, rules):
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
    """A predicted map as uint8, shape (H, W): 0 is surely background, 255 surely polyp. Colour
    files of equal channels count as grey; an alpha channel is not looked at.

    UserError: the file is missing, broken, in colour, or has more than 8 bits.
    """
    return _grey(Path(path), "prediction")


def read_ground_truth(path: str | Path, rules: Convention) -> np.ndarray:
    """A mask as bool, shape (H, W), by the rules of a convention.

    UserError: as of :func:`read_prediction`; or too many pixels are between black and white (the
    edges of a JPEG pass), or no pixel is polyp and not all are 0 (0 and 1 instead of 0 and 255).
    """
    grey = _grey(Path(path), "mask")
    middle = ((grey >= HALF // 4) & (grey < 256 - HALF // 4)).mean()
    if middle > MOST_GREY:
        fact = f"{100 * middle:.0f} % of its pixels are neither dark nor light"
        raise UserError(f"{path} is not a mask of two values, {fact}; masks are 0 and 255.")
    top = int(grey.max())
    if 0 < top < rules.polyp_from:
        fact = f"has {top} as its largest value, and polyp begins at {rules.polyp_from}"
        raise UserError(f"{path} {fact}; masks are 0 and 255.")
    return grey >= rules.polyp_from


def _grey(path: Path, what: str) -> np.ndarray:
    with opened(path) as image:
        if image.mode in ("1", "L", "LA"):
            return np.array(image.convert("L"))
        if image.mode not in ("P", "PA", "RGB", "RGBA"):
            fact = f"does not have 8 bits a pixel (Pillow's mode {image.mode})"
            raise UserError(f"{path} {fact}; save a {what} as 8-bit grey, 0 to 255.")
        colours = np.array(image.convert("RGB"))
    if (colours != colours[..., :1]).any():
        raise UserError(f"{path} is in colour; save the {what} itself as grey, and no overlay.")
    return colours[..., 0].copy()


def _by_stem(folder: Path, root: Path, what: str, problems: Problems) -> dict[str, Path]:
    """The files of a folder by stem; none, and a problem, where there is nothing to match."""
    inside, leads_out = root.resolve(), f"is a link that leads out of {root}"
    if not folder.is_dir():
        problems.append(f"{folder} is not a folder; a folder of {what}s is expected there.")
        return {}
    if not folder.resolve().is_relative_to(inside):
        problems.append(f"{folder} {leads_out}; copy what it points to there.")
        return {}
    suffixes = (".png",) if what == "prediction" else SUFFIXES
    stems: dict[str, Path] = {}
    folded: dict[str, Path] = {}
    paths = (p for p in folder.glob("[!.]*") if p.name.lower().endswith(suffixes))
    for path in sorted(paths):
        if not path.resolve().is_relative_to(inside):
            problems.append(f"{path} {leads_out}; copy what it points to there.")
        elif path.is_file():
            stem = normalize("NFC", path.stem)
            stems.setdefault(stem, path)
            first = folded.setdefault(stem.casefold(), path)
            if first is not path:
                fact = (
                    f"{folder} holds {first.name} and {path.name}, one name but for case or suffix"
                )
                problems.append(f"{fact}; remove or rename one of them.")
    if not stems:
        problems.append(f"{folder} holds no {what} ({', '.join(suffixes)}); check the path.")
    return stems
