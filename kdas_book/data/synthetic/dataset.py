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
    """Write a synthetic benchmark in the PraNet layout, every picture with a polyp: a training set
    in the styles of Kvasir and CVC-ClinicDB, 900 to 550, and five test sets in their own.

    Args:
        out: the folder to make; with its ``dataset.json`` of the parameters it appears when it is
            complete. If it holds the same make already, nothing is done.
        train: training pictures. test: pictures of each test set, at most the real set's number.
        size: height of a Kvasir-style picture in pixels; other styles are larger or smaller.
        jpeg: images as JPEG (quality 95), else PNG. Masks are PNG, 0 and 255.

    Raises:
        UserError: ``out`` holds something else, or cannot be written; a number is out of range.
    """
    out = Path(out)
    if train < 2 or test < 1 or size < 64:
        found = f"train is {train}, test is {test}, size is {size}"
        raise UserError(f"{found}; they must be at least 2, 1 and 64.")
    note = {"made_by": "kdas_book.data.synthetic", "version": VERSION}
    note |= {"train": train, "test": test, "size": size, "seed": seed, "jpeg": jpeg}
    if _is_taken(out, note):
        return out
    counts = {"TrainDataset": train}
    counts |= {f"TestDataset/{name}": min(test, FULL_COUNTS[name]) for name in TEST_SETS}
    with staging_dir(out) as draft:
        try:
            for folder, count in counts.items():
                for i in range(count):
                    style = _train_style(i) if folder == "TrainDataset" else Path(folder).name
                    _write_pair(
                        draft / folder, i, _picture_seed(seed, folder, i), style, size, jpeg
                    )
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
    older = note | {"made_by": "kdas_core.data.synthetic"}  # where this package was before
    if found in (note, older):
        return True
    what = "synthetic polyps made with other parameters" if found else "other files"
    way_out = "choose another folder or remove it"
    raise UserError(f"{out} already holds {what}, and nothing is written over; {way_out}.")


def _train_style(i: int) -> str:
    """Eighteen Kvasir pictures to eleven of CVC-ClinicDB, evenly mixed, as 900 to 550."""
    return "CVC-ClinicDB" if (i + 1) * 11 // 29 > i * 11 // 29 else "Kvasir"


def _picture_seed(seed: int, folder: str, i: int) -> int:
    """A seed of its own for every picture: no test scene is also a training scene."""
    part = 0 if folder == "TrainDataset" else 1 + TEST_SETS.index(Path(folder).name)
    return int(rng_for(seed, part, i).integers(2**32))


def _write_pair(folder: Path, i: int, seed: int, style: str, size: int, jpeg: bool) -> None:
    height = round(size * STYLES[style].height)
    shape = (height, round(height * STYLES[style].aspect))
    count = int(rng_for(seed, 9).choice((1, 2, 3), p=(0.8, 0.15, 0.05)))
    image, mask = render(seed, shape, style, count)
    _write(folder / "images" / f"{i + 1}.{'jpg' if jpeg else 'png'}", _encoded(image, jpeg and 95))
    _write(folder / "masks" / f"{i + 1}.png", _encoded(mask * np.uint8(255)))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _encoded(pixels: np.ndarray, quality: int = 0) -> bytes:
    """RGB or grey pixels as a JPEG file of that quality, or as a PNG file."""
    suffix, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]) if quality else (".png", [])
    pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def write_sheet(out: str | Path, columns: int = 6, seed: int = 0, height: int = 176) -> Path:
    """Write a sheet of pictures with polyps, a row for each style in the order of `STYLES`.

    Args:
        out: a file, ``.jpg`` (quality 88) or ``.png``; it is replaced.
        columns: pictures of each style, with the seeds from ``seed`` on.
        height: of one picture in pixels, which is drawn at twice that.

    Raises:
        UserError: no column, another kind of file, or it cannot be written.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if columns < 1 or suffix not in (".jpg", ".jpeg", ".png"):
        fact = f"{out} with {columns} columns cannot be made"
        raise UserError(f"{fact}; name a .jpg or .png and at least one column.")
    size = (2 * height, round(2.4 * height))
    shown = (round(1.2 * height), height)
    rows = []
    for style in STYLES:
        drawn = [render(seed + i, size, style, polyps=1 + (i == 3))[0] for i in range(columns)]
        rows.append(np.hstack([cv2.resize(p, shown, interpolation=cv2.INTER_AREA) for p in drawn]))
    quality = 0 if suffix == ".png" else 88
    atomic_write(out, _encoded(np.vstack(rows), quality), "choose another file")
    return out
