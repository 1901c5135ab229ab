"""The data of a training run: the user's folder, the default one, or synthetic polyps."""

from pathlib import Path

from kdas_book.data.synthetic import VERSION, make_dataset
from kdas_core import UserError
from kdas_core.data import PolypData, load_data
from kdas_core.data.layout import content_digest
from kdas_core.recipe import Recipe

SPLIT_SEED = 0  # one split for every run: runs with different seeds are compared on the same images


def data_digest(data: PolypData) -> str:
    """Of all pictures that a run is trained, chosen and scored on."""
    pairs = [*data.train, *data.validation, *(p for index in data.tests.values() for p in index)]
    return content_digest(path for pair in pairs for path in (pair.image, pair.mask))


def open_data(
    recipe: Recipe, data_root: str | Path, default: Path, made: Path, unlabelled: str | Path = ""
) -> PolypData:
    """The data in ``data_root``, or, where that is empty, in ``default``, or else synthetic polyps,
    written once below ``made``, where the recipe allows them; and a folder of images without masks.
    UserError where there is no data.
    """
    root = Path(data_root).expanduser() if data_root else default
    if not data_root and not (default / "TrainDataset").is_dir():
        train, test = recipe.synthetic_images, recipe.synthetic_test_images
        if not train:
            raise UserError(
                f'Preset "{recipe.preset}" trains on real images and {default / "TrainDataset"} is '
                f'not there; "kdas data get --out {default}" fetches them, and '
                f'"kdas data synthetic --out {default}" writes synthetic polyps.'
            )
        root = make_dataset(made / f"synthetic-v{VERSION}-{train}-{test}", train, test)
    given = (recipe.validation_fraction, SPLIT_SEED, recipe.train_images, recipe.test_images)
    return load_data(root, *given, recipe.labelled, unlabelled)
