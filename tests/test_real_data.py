"""The real images: facts of the copy that development uses. Skipped where it is not, unless KDAS_REAL_DATA promises it."""

from __future__ import annotations

import numpy as np
import pytest

from kdas_core.data.polyps import PolypDataset, index_pairs, load_data, read_image, read_mask

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
    assert data.label("ETIS-LaribPolypDB") == "ETIS-LaribPolypDB (20 of 196)" and data.label("Kvasir") == "Kvasir"
    item = PolypDataset(data.train, 352, augment=True)[0]
    assert item["image"].shape == (3, 352, 352) and set(np.unique(item["mask"])) <= {0.0, 1.0}
