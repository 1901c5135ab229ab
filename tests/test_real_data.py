"""The real images: facts of the copy that development uses. Skipped where it is not, unless KDAS_REAL_DATA promises it."""

from __future__ import annotations

import numpy as np
import pytest

from kdas_core.data import load_data
from kdas_core.data.dataset import PolypDataset
from kdas_core.data.images import read_image
from kdas_core.data.layout import index_pairs
from kdas_core.data.masks import read_mask
from kdas_core.evaluation import baselines, evaluate
from kdas_core.inference import predict_folder
from kdas_core.models import build, freeze
from kdas_core.recipe import preset
from kdas_core.training import fit, load_history

COUNTS = {
    "TrainDataset": 1450,
    "TestDataset/Kvasir": 100,
    "TestDataset/CVC-ClinicDB": 62,
    "TestDataset/CVC-ColonDB": 380,
    "TestDataset/CVC-300": 60,
    "TestDataset/ETIS-LaribPolypDB": 20,  # of 196
}


def test_there_are_2072_real_pairs():
    assert sum(COUNTS.values()) == 2072


@pytest.mark.parametrize("folder, count", COUNTS.items())
def test_every_real_pair_loads_pairs_up_and_shows_a_polyp(real_data, folder, count):
    index = index_pairs(real_data / folder)
    assert len(index) == count
    for pair in index:
        image, mask = read_image(pair.image), read_mask(pair.mask)
        assert pair.image.stem == pair.mask.stem == pair.name
        assert image.shape == (*mask.shape, 3), pair.name
        assert 0 < mask.mean() < 1, pair.name


def test_the_real_benchmark_loads_and_a_partial_set_says_so(real_data):
    data = load_data(real_data, validation_fraction=0.1, seed=0)
    assert (len(data.train), len(data.validation), data.synthetic) == (1305, 145, False)
    assert (
        data.label("ETIS-LaribPolypDB") == "ETIS-LaribPolypDB (20 of 196)"
        and data.label("Kvasir") == "Kvasir"
    )
    item = PolypDataset(data.train, 352, augment=True)[0]
    assert item["image"].shape == (3, 352, 352) and set(np.unique(item["mask"])) <= {0.0, 1.0}


@pytest.fixture(scope="module")
def trained(real_data, tmp_path_factory):
    """A student after a few epochs on a slice of the real training pairs."""
    recipe = preset(
        "smoke",
        objective="supervised",
        epochs=8,
        learning_rate=5e-4,
        image_size=64,
        train_images=240,
    )
    data = load_data(
        real_data, recipe.validation_fraction, seed=0, train_images=recipe.train_images
    )
    return fit(recipe, data, tmp_path_factory.mktemp("runs")), recipe


def test_a_student_learns_from_a_slice_of_the_real_pairs(trained):
    history = load_history(trained[0])
    assert history["val_loss"].iloc[-2:].mean() < 0.95 * history["val_loss"].iloc[0]
    assert history["val_dice"].max() > 0.25


def test_masks_of_all_of_cvc_300_are_written_and_scored(trained, real_data, tmp_path):
    folder, recipe = trained
    images, masks = (real_data / "TestDataset" / "CVC-300" / part for part in ("images", "masks"))
    net = freeze(build("student", weights=folder / "best.safetensors"))
    assert predict_folder(net, images, tmp_path / "CVC-300", recipe.image_size) == 60
    result = evaluate(tmp_path / "CVC-300", masks)
    assert result.n == 60 and not result.per_image.isna().any().any()
    assert all(
        0 <= value <= 1.01 for value in result.summary.values()
    )  # the E-measure may exceed 1 slightly
    # even this little training is better than calling everything polyp
    assert result.summary["maxDic"] > baselines(masks)["all foreground"].summary["dice"]
