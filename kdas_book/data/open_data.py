"""Polyp images and masks.

On disk: `pairs` (layout), `reading` (one file), `check` with `twins` and `videos`, `statistics`.
For a network: `polyps`, `augment`, `cache`. Where images come from: `download` with `fetch` and
`archives`, `importing`, `synthetic`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdas_core import UserError
from kdas_core.recipe import Recipe

if TYPE_CHECKING:
    from kdas_core.data import PolypData

SPLIT_SEED = 0  # one split for every run: runs with different seeds are compared on the same images


def open_data(recipe: Recipe, data_root: str | Path, default: Path, made: Path) -> PolypData:
    """The data of a recipe: the folder that the user names, else the default one, else synthetic
    polyps where it allows them.

    Args:
        data_root: the user's folder, or empty.
        default: where data is looked for if ``data_root`` is empty.
        made: synthetic polyps are written below this folder (once).

    Raises:
        UserError: the folder does not hold the layout, or there is no data and the preset needs
            some.
    """
    from kdas_book.data.synthetic import VERSION, make_dataset
    from kdas_core.data import load_data

    root = Path(data_root).expanduser() if data_root else default
    if not data_root and not (default / "TrainDataset").is_dir():
        if not recipe.synthetic_images:
            raise UserError(
                f'Preset "{recipe.preset}" trains on real images and {default / "TrainDataset"} is not there; fetch them '
                f'with "kdas data get --out {default}", or write synthetic polyps with "kdas data synthetic --out {default}".'
            )
        root = (
            made / f"synthetic-v{VERSION}-{recipe.synthetic_images}-{recipe.synthetic_test_images}"
        )
        make_dataset(root, train=recipe.synthetic_images, test=recipe.synthetic_test_images)
    return load_data(
        root, recipe.validation_fraction, SPLIT_SEED, recipe.train_images, recipe.test_images
    )
