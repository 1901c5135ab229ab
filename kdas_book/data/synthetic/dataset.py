"""A synthetic benchmark on disk, in the layout of the real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

from kdas_book.data.synthetic.scene import render
from kdas_book.data.synthetic.styles import STYLES, VERSION
from kdas_core import UserError
from kdas_core.data.augmentation import rng_for
from kdas_core.data.layout import FULL_COUNTS, SYNTHETIC_NOTE, TEST_SETS
from kdas_core.files import atomic_write, staging_dir, unwritten


def make_dataset(
    out: str | Path,
    train: int = 64,
    test: int = 16,
    size: int = 288,
    seed: int = 0,
    jpeg: bool = True,
) -> Path:
    """Write a synthetic benchmark in the PraNet layout: a training set and five test sets, every
    picture with a polyp.

    Training pictures have the styles of Kvasir and CVC-ClinicDB in the benchmark's proportion, 900
    to 550; each test set has its own, so three of the five are unseen. The folder appears only when
    it is complete: it is written beside its place and then renamed. If it holds the same make
    already, nothing is done.

    Args:
        out: the folder to make. Its ``dataset.json`` keeps the parameters.
        train: training pictures. test: pictures of each test set; at most the real set's number are
            written.
        size: height of a Kvasir-style picture in pixels; the other styles are larger or smaller
            than that.
        jpeg: images as JPEG (quality 95), else PNG. Masks are PNG, 0 and 255.

    Returns:
        ``out`` as a Path.

    Raises:
        UserError: ``out`` holds something else, or cannot be written; a number is out of range.
    """
    out = Path(out)
    if train < 2 or test < 1 or size < 64:
        raise UserError(
            f"train is {train}, test is {test}, size is {size}; they must be at least 2, 1 and 64."
        )
    note = {"made_by": "kdas_book.data.synthetic", "version": VERSION}
    note |= {"train": train, "test": test, "size": size, "seed": seed, "jpeg": jpeg}
    if _is_taken(out, note):
        return out
    plan = [("TrainDataset", _train_style(i), i) for i in range(train)]
    plan += [
        (f"TestDataset/{name}", name, i)
        for name in TEST_SETS
        for i in range(min(test, FULL_COUNTS[name]))
    ]
    with staging_dir(out) as draft:
        try:
            for folder, style, i in plan:
                _write_pair(draft / folder, i, _picture_seed(seed, folder, i), style, size, jpeg)
            (draft / SYNTHETIC_NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
            os.replace(draft, out)  # onto nothing, or onto an empty folder
        except OSError as error:
            if not _is_taken(out, note):  # otherwise another process finished the same make first
                raise unwritten(out, error, "choose another folder") from error
    return out


def _is_taken(out: Path, note: dict) -> bool:
    """True if ``out`` is this very make, False if it is free; anything else there is an error."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / SYNTHETIC_NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == note:
        return True
    what = "synthetic polyps made with other parameters" if found else "other files"
    raise UserError(
        f"{out} already holds {what}, and nothing is written over; choose another folder or remove it."
    )


def _train_style(i: int) -> str:
    """Eighteen Kvasir pictures to eleven of CVC-ClinicDB, evenly mixed, as 900 to 550."""
    return "CVC-ClinicDB" if (i + 1) * 11 // 29 > i * 11 // 29 else "Kvasir"


def _picture_seed(seed: int, folder: str, i: int) -> int:
    """A seed of its own for every picture: no test scene is also a training scene."""
    part = 0 if folder == "TrainDataset" else 1 + TEST_SETS.index(Path(folder).name)
    return int(rng_for(seed, part, i).integers(2**32))


def _write_pair(folder: Path, i: int, seed: int, style: str, size: int, jpeg: bool) -> None:
    look = STYLES[style]
    height = round(size * look.height)
    shape = (height, round(height * look.aspect))
    count = int(rng_for(seed, 9).choice((1, 2, 3), p=(0.8, 0.15, 0.05)))
    image, mask = render(seed, shape, style, count)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if jpeg else []
    _write(folder / "images" / f"{i + 1}.{'jpg' if jpeg else 'png'}", image[..., ::-1], options)
    _write(folder / "masks" / f"{i + 1}.png", mask.astype(np.uint8) * 255, [])


def write_sheet(out: str | Path, columns: int = 6, seed: int = 0, height: int = 176) -> Path:
    """Write a sheet of pictures, a row for each style in the order of `STYLES`; every picture has
    one polyp or more.

    Args:
        out: a file, ``.jpg`` (quality 88) or ``.png``; it is replaced.
        columns: pictures of each style. seed: scene of the first column; the next ones follow.
        height: of one picture in pixels. Pictures are drawn at twice that and made smaller, and
            have equal widths.

    Raises:
        UserError: no column, another kind of file, or it cannot be written.
    """
    out = Path(out)
    if columns < 1 or out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UserError(
            f"{out} with {columns} columns cannot be made; name a .jpg or .png and at least one column."
        )
    size, shown = (2 * height, round(2.4 * height)), (round(1.2 * height), height)
    rows = []
    for style in STYLES:
        pictures = [render(seed + i, size, style, polyps=1 + (i == 3))[0] for i in range(columns)]
        rows.append(
            np.hstack(
                [cv2.resize(picture, shown, interpolation=cv2.INTER_AREA) for picture in pictures]
            )
        )
    options = [] if out.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 88]
    atomic_write(out, _encoded(out, np.vstack(rows)[..., ::-1], options), "choose another file")
    return out


def _write(path: Path, pixels: np.ndarray, options: list[int]) -> None:
    """Encode in memory and write with Python: names in any alphabet work, and a full disk is an
    error.
    """
    path.write_bytes(_encoded(path, pixels, options))


def _encoded(path: Path, pixels: np.ndarray, options: list[int]) -> bytes:
    done, code = cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)
    if not done:
        raise OSError(f"{path.name} could not be encoded")
    return code.tobytes()
