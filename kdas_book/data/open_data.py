"""The data of a training run: the user's folder, the default one, or synthetic polyps."""

from pathlib import Path
from typing import TYPE_CHECKING

from kdas_core import UserError
from kdas_core.recipe import Recipe

if TYPE_CHECKING:
    from kdas_core.data import PolypData

SPLIT_SEED = 0  # one split for every run: runs with different seeds are compared on the same images


def open_data(recipe: Recipe, data_root: str | Path, default: Path, made: Path) -> "PolypData":
    """The data in ``data_root``, or, where that is empty, in ``default``, or else synthetic polyps,
    written once below ``made``, where the recipe allows them.

    Raises:
        UserError: the folder does not hold the layout, or there is no data and the preset needs
            some.
    """
    from kdas_book.data.synthetic import VERSION, make_dataset
    from kdas_core.data import load_data

    root = Path(data_root).expanduser() if data_root else default
    if not data_root and not (default / "TrainDataset").is_dir():
        train, test = recipe.synthetic_images, recipe.synthetic_test_images
        if not train:
            raise UserError(
                f'Preset "{recipe.preset}" trains on real images and {default / "TrainDataset"} is '
                f'not there; fetch them with "kdas data get --out {default}", or write synthetic '
                f'polyps with "kdas data synthetic --out {default}".'
            )
        root = made / f"synthetic-v{VERSION}-{train}-{test}"
        make_dataset(root, train=train, test=test)
    share = recipe.validation_fraction
    return load_data(root, share, SPLIT_SEED, recipe.train_images, recipe.test_images)
