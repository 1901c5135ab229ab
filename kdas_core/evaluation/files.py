"""Which prediction belongs to which mask, and everything that can be wrong with the two folders.

Nothing is computed here. All problems of all sets are collected, so that one run shows them all and
a second succeeds.
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
MOST_GREY = 0.01  # share of pixels of a mask that may be neither dark nor light; JPEG masks of the benchmark have 0.0005
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Match:
    """One prediction and its mask."""

    name: str
    pred: Path
    mask: Path


def match(
    pred_dir: Path,
    gt_dir: Path,
    roots: tuple[Path, Path],
    chosen: Collection[str] | None,
    problems: list[str],
) -> tuple[list[Match], tuple[str, ...]]:
    """Pair by stem, never by place in a listing.

    Args:
        roots: the folders out of which no link may lead, of predictions and of masks.
        chosen: only these names; all masks if None.
        problems: what is wrong is added here.

    Returns:
        One :class:`Match` a mask, sorted by file name, and the names of predictions that belong to
        none.
    """
    masks = _by_stem(gt_dir, roots[1], SUFFIXES, "mask", problems)
    preds = _by_stem(pred_dir, roots[0], (".png",), "prediction", problems)
    if masks is None or preds is None:
        return [], ()
    wanted = list(masks)
    if chosen is not None:
        stems = {unicodedata.normalize("NFC", name) for name in chosen}
        wanted = [name for name in masks if name in stems]
        if not stems:
            problems.append(
                f"No image of {gt_dir} was chosen; name at least one, or leave names out to score all."
            )
        if absent := sorted(stems - masks.keys()):
            problems.append(
                f"{gt_dir} holds no mask for {listed(absent)}; take these names out, or add the masks."
            )
    if missing := [name for name in wanted if name not in preds]:
        problems.append(
            f"{pred_dir} lacks the prediction of {len(missing)} of {len(wanted)} masks "
            f"({listed([f'{name}.png' for name in missing])}){_other_case(missing, preds)}; "
            'write them with "kdas predict".'
        )
    pairs = [Match(name, preds[name], masks[name]) for name in wanted if name in preds]
    return pairs, tuple(sorted(preds.keys() - set(wanted)))


def repeats(gt_dir: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Names whose image has the same bytes as that of an earlier name, in natural order.

    Images are looked for in ``images`` beside the folder of masks, as in PraNet's layout.
    CVC-ColonDB holds such repeats; masks that were drawn twice may differ, so the images are
    compared and not the masks.

    Raises:
        UserError: there is no such folder, or it lacks the image of a name.
    """
    folder = gt_dir.parent / "images"
    problems: list[str] = []
    images = _by_stem(folder, gt_dir.parent, SUFFIXES, "image", problems) or {}
    names = sorted(names, key=natural)
    if lacking := [name for name in names if name not in images]:
        problems.append(
            f"{folder} lacks the image of {listed(lacking)}; without it no repeat can be found."
        )
    if problems:
        raise UserError(sentence(problems))
    seen: set[bytes] = set()
    found = []
    for name in names:
        digest = sha256(images[name].read_bytes()).digest()
        found += [name] if digest in seen else []
        seen.add(digest)
    return tuple(found)


def file_problems(pair: Match, rules: Convention) -> list[str]:
    """What is wrong with the two files of one pair; both are decoded in full, so that half a file
    is found here.
    """
    arrays, problems = [], []
    for read, path in (
        (read_prediction, pair.pred),
        (lambda p: read_ground_truth(p, rules), pair.mask),
    ):
        try:
            arrays.append(read(path))
        except UserError as error:
            problems.append(str(error))
    if not problems and arrays[0].shape != arrays[1].shape:
        (height, width), (mask_height, mask_width) = (array.shape for array in arrays)
        problems.append(
            f"{pair.pred} is {width}×{height} but its mask {pair.mask} is {mask_width}×{mask_height}; "
            'a prediction has its image\'s size, as "kdas predict" writes it.'
        )
    elif not problems and arrays[0].size < 2:
        problems.append(
            f"{pair.mask} has a single pixel, on which the E-measure is not defined; remove it."
        )
    return problems


def read_prediction(path: str | Path) -> np.ndarray:
    """A predicted map as uint8, shape (H, W): 0 is surely background, 255 surely polyp.

    Black-and-white files count as 0 and 255; of a colour or palette file whose three channels agree
    one is taken, an alpha channel is not looked at.

    Raises:
        UserError: the file is missing or broken, is really in colour (an overlay?), or has more
            than 8 bits.
    """
    return _grey(Path(path), "prediction", "predict it again")


def read_ground_truth(path: str | Path, rules: Convention) -> np.ndarray:
    """A mask as bool, shape (H, W), by the rules of a convention.

    Masks kept as JPEG have some grey at their edges and pass; a file that is mostly between black
    and white, or that is not black and yet has no polyp by the rules (0 and 1 instead of 0 and
    255), is no mask, and saying nothing would give wrong numbers.

    Raises:
        UserError: the file is missing, broken, in colour, has more than 8 bits, or is no mask as
            above.
    """
    grey = _grey(Path(path), "mask", "restore it")
    middle = ((grey >= HALF // 4) & (grey < 256 - HALF // 4)).mean()
    if middle > MOST_GREY:
        raise UserError(
            f"{path} is not a mask of two values, {100 * middle:.0f} % of its pixels are neither dark nor light; "
            "masks are 0 and 255."
        )
    top = int(grey.max())
    if 0 < top < rules.polyp_from:
        raise UserError(
            f"{path} has {top} as its largest value, and polyp begins at {rules.polyp_from}; masks are 0 and 255."
        )
    return grey >= rules.polyp_from


def sentence(problems: list[str], not_done: str = "scored") -> str:
    """One problem as it is; several as a list of lines below what was not done."""
    if len(problems) == 1:
        return problems[0]
    rest = len(problems) - SHOWN
    lines = [f"- {problem}" for problem in problems[:SHOWN]] + (
        [f"- and {rest} more"] if rest > 0 else []
    )
    return "\n".join([f"Nothing was {not_done}, since {len(problems)} things are wrong:", *lines])


def listed(names: Iterable[object]) -> str:
    """The first names of a list, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:SHOWN]) + (
        f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    )


def _by_stem(
    folder: Path, root: Path, suffixes: tuple[str, ...], what: str, problems: list[str]
) -> dict[str, Path] | None:
    """The files of a folder by stem, or None where there is nothing to match."""
    if not folder.is_dir():
        problems.append(f"{folder} is not a folder; a folder of {what}s is expected there.")
        return None
    inside, leads_out = (
        root.resolve(),
        f"is a link that leads out of {root}; copy what it points to there",
    )
    if not folder.resolve().is_relative_to(inside):
        problems.append(f"{folder} {leads_out}.")
        return None
    stems: dict[str, Path] = {}
    folded: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if not path.resolve().is_relative_to(inside):
            problems.append(f"{path} {leads_out}.")
            continue
        if not path.is_file():
            continue
        stem = unicodedata.normalize("NFC", path.stem)
        stems.setdefault(stem, path)
        first = folded.setdefault(stem.casefold(), path)
        if first is not path:
            differ = (
                "two names that differ only in case"
                if first.stem != path.stem
                else f"two {what}s of one name"
            )
            problems.append(
                f"{folder} holds {first.name} and {path.name}, {differ}; remove or rename one of them."
            )
    if not stems:
        problems.append(f"{folder} holds no {what} ({', '.join(suffixes)}); check the path.")
        return None
    return stems


def _other_case(missing: list[str], preds: dict[str, Path]) -> str:
    """A hint where a missing prediction is there under a name that differs in case."""
    folded = {name.casefold(): path.name for name, path in preds.items()}
    near = [folded[name.casefold()] for name in missing if name.casefold() in folded]
    return f" but holds {listed(near)}, whose case differs" if near else ""


def _grey(path: Path, what: str, remedy: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
    except _BROKEN as error:
        raise UserError(
            f"{path} cannot be read as an image, it is missing, cut off or of another kind; {remedy}."
        ) from error
    if image.mode in ("1", "L", "LA"):
        return np.array(image.convert("L"))
    if image.mode not in ("P", "PA", "RGB", "RGBA"):
        raise UserError(
            f"{path} does not have 8 bits a pixel (Pillow's mode {image.mode}); save a {what} as 8-bit grey, 0 to 255."
        )
    red, green, blue = np.moveaxis(np.array(image.convert("RGB")), -1, 0)
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise UserError(
            f"{path} is in colour; a {what} is a grey picture, so save that itself and no overlay."
        )
    return red.copy()
