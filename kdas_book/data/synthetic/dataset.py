"""A synthetic benchmark on disk, in the layout of the real one."""

import io
import json
import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from kdas_book.data.synthetic.scene import render
from kdas_book.data.synthetic.styles import STYLES, VERSION
from kdas_book.files import staging_dir
from kdas_core import UserError
from kdas_core.data.augmentation import rng_for
from kdas_core.data.layout import FULL_COUNTS, SYNTHETIC_NOTE, TEST_SETS
from kdas_core.files import atomic_write, unwritten


def make_dataset(
    out: str | Path, train: int = 64, test: int = 16, size: int = 288, seed: int = 0
) -> Path:
    """Write a synthetic benchmark in the PraNet layout, every picture with a polyp: a training set
    in the styles of Kvasir and CVC-ClinicDB, 900 to 550, and five test sets in their own. Images
    are JPEG, masks PNG, 0 and 255.

    Args:
        out: the folder to make; with its ``dataset.json`` of the parameters it appears when it is
            complete. If it holds the same make already, nothing is done.
        train: training pictures. test: pictures of each test set, at most the real set's number.
        size: height of a Kvasir-style picture in pixels; other styles are larger or smaller.

    Raises:
        UserError: ``out`` holds something else, or cannot be written; a number is out of range.
    """
    out = Path(out)
    if train < 2 or test < 1 or size < 64:
        raise UserError(f"train {train}, test {test}, size {size} must be at least 2, 1 and 64.")
    note = {"version": VERSION, "train": train, "test": test, "size": size, "seed": seed}
    if _is_taken(out, note):
        return out
    tests = {f"TestDataset/{name}": min(test, FULL_COUNTS[name]) for name in TEST_SETS}
    with staging_dir(out) as draft:
        try:
            for part, (folder, count) in enumerate({"TrainDataset": train, **tests}.items()):
                for i in range(count):
                    style = TEST_SETS[part - 1] if part else _train_style(i)
                    # Its own seed for each picture: no test scene is also a training scene.
                    scene = int(rng_for(seed, part, i).integers(2**32))
                    _write_pair(draft / folder, str(i + 1), scene, style, size)
            content = json.dumps({"made_by": "kdas_book.data.synthetic", **note}, indent=1)
            (draft / SYNTHETIC_NOTE).write_text(content + "\n", encoding="utf-8")
            os.replace(draft, out)  # onto nothing, or onto an empty folder
        except OSError as error:
            if not _is_taken(out, note):  # otherwise another process finished the same make first
                raise unwritten(out, error, "choose another folder") from error
    return out


def _is_taken(out: Path, note: dict) -> bool:
    """True if ``out`` is this very make, False if it is free; anything else there is an error."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    found: dict = {}
    with suppress(OSError, TypeError, ValueError):
        found = dict(json.loads((out / SYNTHETIC_NOTE).read_text(encoding="utf-8")))
    if note.items() <= found.items():
        return True
    what = "synthetic polyps made with other parameters" if found else "other files"
    raise UserError(f"{out} already holds {what}; choose another folder or remove this one.")


def _train_style(i: int) -> str:
    """Eighteen Kvasir pictures to eleven of CVC-ClinicDB, evenly mixed, as 900 to 550."""
    return "CVC-ClinicDB" if (i + 1) * 11 // 29 > i * 11 // 29 else "Kvasir"


def draw_pair(seed: int, style: str, size: int, polyps: int | None = None):
    """A picture and its mask, as `render`, of the height that `make_dataset` gives the style; with
    one to three polyps where their number is not given.
    """
    height = round(size * STYLES[style].height)
    if polyps is None:
        polyps = int(rng_for(seed, 9).choice((1, 2, 3), p=(0.8, 0.15, 0.05)))
    return render(seed, (height, round(height * STYLES[style].aspect)), style, polyps)


def _write_pair(folder: Path, name: str, seed: int, style: str, size: int) -> None:
    image, mask = draw_pair(seed, style, size)
    _write(folder / "images" / f"{name}.jpg", image[..., ::-1])
    _write(folder / "masks" / f"{name}.png", mask * np.uint8(255))


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def write_sheet(out: Path, columns: int = 6, seed: int = 0, height: int = 176) -> Path:
    """Write a sheet of pictures with polyps as ``.jpg`` or ``.png``: a row for each of `STYLES`,
    with the seeds from ``seed`` on, drawn at twice the height. UserError if that cannot be done.
    """
    size = (2 * height, round(2.4 * height))
    shown = (round(1.2 * height), height)
    rows = []
    kinds = {".jpg": "JPEG", ".png": "PNG"}
    if out.suffix.lower() not in kinds:
        raise UserError(f"{out} is no name of a picture; name a .jpg or .png file.")
    if out.exists():
        raise UserError(f"{out} is there already; remove it, or choose another place.")
    for style in STYLES:
        drawn = [render(seed + i, size, style, polyps=1 + (i == 3))[0] for i in range(columns)]
        rows.append(np.hstack([cv2.resize(p, shown, interpolation=cv2.INTER_AREA) for p in drawn]))
    sheet = io.BytesIO()
    Image.fromarray(np.vstack(rows)).save(sheet, kinds[out.suffix.lower()], quality=88)
    atomic_write(out, sheet.getvalue())
    return out
