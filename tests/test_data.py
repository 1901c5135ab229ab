"""Folders, pairs, splits, augmentation, batches: relations that hold, and what bad input gets to hear."""

from __future__ import annotations

import io
import os
import shutil
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from kdas_book.data import synthetic
from kdas_book.data.check import check_data
from kdas_book.figures.basics import as_picture
from kdas_core import UserError
from kdas_core.data import augmentation as augment
from kdas_core.data import dataset as polyps_module
from kdas_core.data import load_data, split_validation
from kdas_core.data.dataset import PolypDataset, normalise, resize_pair
from kdas_core.data.images import read_image
from kdas_core.data.layout import Pair, PairIndex, content_digest, index_pairs
from kdas_core.data.masks import read_mask
from kdas_core.training.batching import prefetch


def picture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def disc(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (x - width * 0.4) ** 2 + (y - height * 0.6) ** 2 < (height / 4) ** 2


def put(
    folder: Path, name: str, image_suffix=".png", mask_suffix=".png", size=(48, 64), mask=None
) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(len(name), *size)).save(folder / "images" / (name + image_suffix))
    mask = disc(*size) if mask is None else mask
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / (name + mask_suffix))


@pytest.fixture
def folder(tmp_path):
    for name in ("1", "2", "10"):
        put(tmp_path / "set", name)
    return tmp_path / "set"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return synthetic.make_dataset(
        tmp_path_factory.mktemp("data") / "polyps", train=24, test=3, size=64, seed=3
    )


def fake_index(count: int, order=None) -> PairIndex:
    names = [str(i) for i in (order if order is not None else range(count))]
    return PairIndex(Path("set"), tuple(Pair(n, Path(f"{n}.jpg"), Path(f"{n}.png")) for n in names))


# --- pairing ----------------------------------------------------------------------------------------------------------


def test_pairs_share_a_stem_and_come_in_natural_order(folder):
    index = index_pairs(folder)
    assert index.names == ("1", "2", "10")
    assert all(pair.image.stem == pair.mask.stem == pair.name for pair in index)
    assert index.take([2, 0]).names == ("10", "1")


def test_every_suffix_in_any_case_pairs_and_other_files_are_passed_over(folder):
    put(folder, "a.b", ".JPG", ".PNG")
    put(folder, "c", ".jpeg", ".tif")
    put(folder, "d", ".TIFF", ".bmp")
    (folder / "images" / ".hidden.png").write_bytes(b"no image")
    (folder / "images" / "Thumbs.db").write_bytes(b"no image")
    (folder / "images" / "folder.png").mkdir()
    assert index_pairs(folder).names == ("1", "2", "10", "a.b", "c", "d")


def test_names_in_any_alphabet_and_with_spaces_can_be_read(folder):
    put(folder, "polype nº 7 – ruột già")
    pair = index_pairs(folder)[3]
    assert read_image(pair.image).shape == (48, 64, 3) and read_mask(pair.mask).any()


def test_composed_and_decomposed_letters_are_the_same_stem(folder):
    put(folder, unicodedata.normalize("NFC", "é"))
    mask = folder / "masks" / (unicodedata.normalize("NFC", "é") + ".png")
    mask.rename(folder / "masks" / (unicodedata.normalize("NFD", "é") + ".png"))
    assert len(index_pairs(folder)) == 4


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_missing_data_folder_is_named_with_the_command_that_fills_it(tmp_path):
    with pytest.raises(
        UserError, match=r"nowhere/TrainDataset does not exist; .*kdas data synthetic --out"
    ):
        load_data(tmp_path / "nowhere")


def test_a_folder_without_masks_or_with_other_names_is_told_apart(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(
        UserError, match="masks does not exist; a set has its pictures in images/ and masks/"
    ):
        index_pairs(tmp_path)
    (tmp_path / "mask").mkdir()
    with pytest.raises(UserError, match="rename it to masks"):
        index_pairs(tmp_path)


def test_an_empty_folder_is_no_data_set(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        index_pairs(tmp_path)


@pytest.mark.parametrize(
    "part, words",
    [("masks", r"images/2\.png has no mask"), ("images", r"masks/2\.png has no image")],
)
def test_a_missing_partner_is_named(folder, part, words):
    (folder / part / "2.png").unlink()
    with pytest.raises(UserError, match=words):
        index_pairs(folder)


def test_a_duplicate_stem_is_named_and_never_guessed(folder):
    Image.fromarray(picture()).save(folder / "images" / "2.jpg")
    with pytest.raises(UserError, match=r"one stem twice: 2\.jpg and 2\.png"):
        index_pairs(folder)


def test_sizes_that_differ_are_named_with_both_sizes(folder):
    Image.fromarray(disc(30, 40)).save(folder / "masks" / "10.png")
    with pytest.raises(
        UserError,
        match=r"10\.png is 40×30 but its image is 64×48; masks must have their image's size",
    ):
        index_pairs(folder)
    by_hand = PairIndex(
        folder, (Pair("10", folder / "images" / "10.png", folder / "masks" / "10.png"),)
    )
    with pytest.raises(UserError, match="40×30"):
        PolypDataset(by_hand, 32)[0]


def test_all_problems_of_a_folder_come_in_one_sentence_with_counts(folder):
    for i in range(20, 25):
        put(folder, str(i))
        (folder / "masks" / f"{i}.png").unlink()
    (folder / "images" / "1.png").write_bytes(b"not an image")
    (folder / "images" / "10.png").unlink()
    with pytest.raises(UserError) as error:
        index_pairs(folder)
    text = str(error.value)
    assert "5 images without a mask (20.png, 21.png, 22.png, …)" in text
    assert (
        "1 mask without an image (10.png)" in text
        and "1 file unreadable or truncated (images/1.png)" in text
    )
    assert len(check_data(folder).problems) == 7  # and here, each by itself


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow also warns of a short TIFF
@pytest.mark.parametrize(
    "suffix, options",
    [(".jpg", {}), (".jpg", {"progressive": True}), (".png", {}), (".tif", {}), (".bmp", {})],
)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_image_is_refused_by_name_and_never_read_in_part(folder, suffix, options, kept):
    whole = io.BytesIO()
    Image.fromarray(picture(5, 120, 160)).save(
        whole, Image.registered_extensions()[suffix], **options
    )
    (folder / "images" / "2.png").unlink()
    path = folder / "images" / f"2{suffix}"
    path.write_bytes(whole.getvalue()[: int(kept * len(whole.getvalue()))])
    for read in (read_image, lambda p: index_pairs(folder)):
        with pytest.raises(
            UserError, match=rf"images/2\{suffix} is (truncated or not an image|empty \(0 bytes\))"
        ):
            read(path)


def test_bytes_after_the_end_of_a_jpeg_are_no_fault(folder):
    (folder / "images" / "2.png").unlink()
    path = folder / "images" / "2.jpg"
    Image.fromarray(picture()).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 500)
    assert len(index_pairs(folder)) == 3


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "gone.png")


def test_an_empty_mask_can_be_read(folder):
    put(folder, "none", mask=np.zeros((48, 64), bool))
    assert len(index_pairs(folder)) == 4
    assert not read_mask(folder / "masks" / "none.png").any()


def test_a_jpeg_mask_with_grey_levels_is_thresholded(folder):
    (folder / "masks" / "2.png").unlink()
    Image.fromarray(disc().astype(np.uint8) * 255).save(folder / "masks" / "2.jpg", quality=70)
    mask = read_mask(folder / "masks" / "2.jpg")
    assert mask.dtype == bool and (mask != disc()).mean() < 0.01


def test_the_threshold_lies_between_127_and_128(tmp_path):
    row = [0, 127, 128, 255] + 20 * [0]
    Image.fromarray(np.array([row], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[False, False, True, True] + 20 * [False]]


def test_colour_palette_alpha_and_one_bit_masks_read_alike(tmp_path):
    grey = Image.fromarray(disc().astype(np.uint8) * 255)
    for mode in ("L", "RGB", "RGBA", "P", "1"):
        grey.convert(mode).save(tmp_path / "m.png")
        assert np.array_equal(read_mask(tmp_path / "m.png"), disc()), mode
    Image.fromarray(disc().astype(np.uint16) * 65535).save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), disc())


def test_an_exif_turn_is_not_applied_since_masks_follow_the_stored_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "i.jpg", exif=exif)
    assert read_image(tmp_path / "i.jpg").shape == (48, 64, 3)


# --- split and benchmark ----------------------------------------------------------------------------------------------


def test_the_split_is_disjoint_complete_and_of_the_asked_size():
    index = fake_index(50)
    train, validation = split_validation(index, 0.1, 7)
    assert (len(train), len(validation)) == (45, 5)
    assert set(train.names) | set(validation.names) == set(index.names)
    assert not set(train.names) & set(validation.names)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_files():
    shuffled = fake_index(50, np.random.default_rng(0).permutation(50))
    assert split_validation(fake_index(50), 0.2, 7) == split_validation(shuffled, 0.2, 7)
    assert (
        split_validation(fake_index(50), 0.2, 7)[1] != split_validation(fake_index(50), 0.2, 8)[1]
    )


def test_the_smallest_splits_leave_something_on_both_sides():
    assert [len(part) for part in split_validation(fake_index(2), 0.01, 0)] == [1, 1]
    assert [len(part) for part in split_validation(fake_index(2), 0.99, 0)] == [1, 1]
    assert [len(part) for part in split_validation(fake_index(2), 0, 0)] == [2, 0]
    with pytest.raises(UserError, match="too few"):
        split_validation(fake_index(1), 0.1, 0)
    for fraction in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match="validation_fraction"):
            split_validation(fake_index(5), fraction, 0)


def test_fewer_training_images_are_a_subset_and_validation_shrinks_in_proportion(made):
    everything = load_data(made, validation_fraction=0.25, seed=1)
    eight = load_data(made, validation_fraction=0.25, seed=1, train_images=9)
    four = load_data(made, validation_fraction=0.25, seed=1, train_images=4)
    assert [len(d.train) for d in (everything, eight, four)] == [18, 9, 4]
    assert [len(d.validation) for d in (everything, eight, four)] == [6, 3, 1]
    assert set(four.train.names) < set(eight.train.names) < set(everything.train.names)
    assert set(eight.validation.names) < set(everything.validation.names)


def test_test_images_are_the_same_whatever_the_seed(made):
    one, two = (load_data(made, seed=seed, test_images=2) for seed in (1, 2))
    assert one.tests == two.tests and {len(index) for index in one.tests.values()} == {2}
    assert one.train != two.train


def test_test_sets_come_in_the_known_order_and_others_after(tmp_path):
    put(tmp_path / "TrainDataset", "1")
    put(tmp_path / "TrainDataset", "2")
    for name in ("Mine", "Kvasir", "CVC-300"):
        put(tmp_path / "TestDataset" / name, "1")
    data = load_data(tmp_path)
    assert list(data.tests) == ["CVC-300", "Kvasir", "Mine"] and not data.synthetic
    assert [data.label(name) for name in data.tests] == [
        "CVC-300 (1 of 60)",
        "Kvasir (1 of 100)",
        "Mine",
    ]


@pytest.mark.parametrize("hyperparameter", ["train_images", "test_images"])
def test_a_number_of_images_below_one_is_refused(made, hyperparameter):
    with pytest.raises(UserError, match=f"{hyperparameter} is 0"):
        load_data(made, **{hyperparameter: 0})


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_a_picture_undoes_normalise_exactly_and_the_values_are_imagenets():
    image = picture()
    tensor = normalise(image)
    assert tensor.dtype == torch.float32 and np.array_equal(as_picture(tensor), image)
    black = normalise(np.zeros((2, 2, 3), np.uint8))[:, 0, 0]
    assert torch.allclose(black, torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]))
    with pytest.raises(ValueError, match="uint8"):
        normalise(image / 255)


def test_channels_are_red_green_blue(tmp_path):
    Image.fromarray(np.full((4, 4, 3), (200, 100, 0), np.uint8)).save(tmp_path / "i.png")
    assert read_image(tmp_path / "i.png")[0, 0].tolist() == [200, 100, 0]


def test_resizing_keeps_the_mask_where_the_image_has_it():
    for height, width, size in ((97, 143, 64), (40, 50, 96)):
        mask = disc(height, width)
        painted = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
        image, hard = resize_pair(painted, mask, size)
        assert set(np.unique(hard)) == {0, 255}
        assert ((image[..., 0] >= 128) != (hard >= 128)).mean() < 0.01
        _, soft = resize_pair(painted, mask, size, soft=True)
        assert np.array_equal(soft, image[..., 0]) and len(np.unique(soft)) > 2


def test_the_default_collate_makes_the_contracts_batch(made):
    index = index_pairs(made / "TrainDataset")
    batch = next(
        iter(DataLoader(PolypDataset(index, 32, augment=True, soft_masks=True), batch_size=4))
    )
    assert batch["image"].shape == (4, 3, 32, 32) and batch["image"].dtype == torch.float32
    assert batch["mask"].shape == (4, 1, 32, 32) and batch["mask"].dtype == torch.float32
    assert 0 <= batch["mask"].min() and batch["mask"].max() <= 1
    assert batch["name"] == list(index.names[:4])


@pytest.mark.parametrize("do_augment", [False, True])
def test_hard_masks_are_binary_and_soft_masks_are_not(made, do_augment):
    index = index_pairs(made / "TrainDataset")
    hard = torch.cat([item["mask"] for item in PolypDataset(index, 40, do_augment)])
    soft = torch.cat(
        [item["mask"] for item in PolypDataset(index, 40, do_augment, soft_masks=True)]
    )
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert len(soft.unique()) > 10
    assert abs(float(hard.mean() - soft.mean())) < 0.01


def test_an_item_is_a_function_of_seed_epoch_and_position_only(made):
    index = index_pairs(made / "TrainDataset")

    def item(i=3, epoch=0, seed=0, warm=(), **options):
        dataset = PolypDataset(index, 32, augment=True, seed=seed, **options)
        for j in warm:
            dataset[j]
        dataset.epoch = epoch
        return dataset[i]["image"]

    first = item()
    np.random.seed(1)
    assert torch.equal(first, item(warm=(5, 3, 3)))
    assert torch.equal(first, item(cached=True, warm=(3, 3)))
    assert not torch.equal(first, item(epoch=1)) and not torch.equal(first, item(seed=1))


def test_workers_give_the_same_items_as_the_main_process(made):
    dataset = PolypDataset(index_pairs(made / "TrainDataset").take(range(4)), 32, augment=True)
    dataset.epoch = 2
    alone, helped = (list(DataLoader(dataset, batch_size=2, num_workers=n)) for n in (0, 1))
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(alone, helped, strict=True))


# --- augmentation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", [augment.random_flip, augment.random_quarter_turn, augment.random_affine]
)
@pytest.mark.parametrize("shape", [(64, 64), (48, 64)])
def test_what_moves_the_image_moves_the_mask(step, shape):
    mask = disc(*shape)
    painted = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    moved = 0
    for seed in range(12):
        image, binary = step(painted, mask, np.random.default_rng(seed))
        _, grey = step(painted, painted[..., 0], np.random.default_rng(seed))
        assert image.shape == painted.shape and binary.dtype == bool
        assert ((image[..., 0] >= 128) != binary).mean() < 0.01
        assert np.array_equal(grey, image[..., 0])
        moved += not np.array_equal(binary, mask)
    assert moved >= 6


def test_the_whole_chain_keeps_image_and_mask_aligned():
    mask = disc(96, 96)
    painted = np.where(mask[..., None], np.uint8(230), np.uint8(20)) * np.ones(3, np.uint8)
    for seed in range(20):
        image, moved = augment.augment_pair(painted, mask, np.random.default_rng(seed))
        bright = image.mean(2) > (float(image[moved].mean()) + float(image[~moved].mean())) / 2
        assert (bright != moved).mean() < 0.02


def test_augmentation_leaves_its_inputs_alone_and_repeats_with_its_seed():
    image, mask = picture(), disc()
    before = image.copy(), mask.copy()
    one, two = (augment.augment_pair(image, mask, np.random.default_rng(4)) for _ in range(2))
    assert all(
        np.array_equal(a, b) for a, b in zip((image, mask, *one), (*before, *two), strict=True)
    )


def test_colour_jitter_of_strength_zero_is_the_identity_and_black_stays_dark():
    image = picture()
    same = augment.colour_jitter(image, np.random.default_rng(0), 0, 0, 0, 0)
    assert np.abs(same.astype(int) - image).max() <= 1
    changed = augment.colour_jitter(image, np.random.default_rng(0))
    assert changed.dtype == np.uint8 and np.abs(changed.astype(int) - image).mean() > 3


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="same height and width"):
        augment.augment_pair(picture(), disc(10, 10), np.random.default_rng(0))


# --- decoded once, and one batch ahead --------------------------------------------------------------------------------


@pytest.fixture
def train(polyps, tmp_path) -> Path:
    """Ten pairs of our own."""
    return Path(shutil.copytree(polyps / "TrainDataset", tmp_path / "train"))


def dataset(folder: Path, **options) -> PolypDataset:
    return PolypDataset(index_pairs(folder), 48, **options)


def everything(data: PolypDataset) -> torch.Tensor:
    batch = data.batch(range(len(data)))
    return torch.cat([batch["image"], batch["mask"]], dim=1)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the images that were decoded since, in this process."""
    names, read = [], polyps_module.read_image
    monkeypatch.setattr(
        polyps_module, "read_image", lambda path: names.append(path.stem) or read(path)
    )
    return names


@pytest.mark.parametrize(
    "options", [{}, {"soft_masks": True}, {"augment": True}, {"augment": True, "soft_masks": True}]
)
def test_a_cached_batch_is_the_items_bit_for_bit_and_a_file_is_decoded_once(
    train, decoded, options
):
    plain, kept = dataset(train, **options), dataset(train, **options, cached=True)
    items = torch.stack([torch.cat([item["image"], item["mask"]]) for item in plain])
    decoded.clear()
    for epoch_of_the_same_numbers in range(3):
        assert torch.equal(everything(kept), items), epoch_of_the_same_numbers
    assert sorted(decoded) == sorted(plain.index.names)


def test_an_item_belongs_to_its_reader(train):
    kept = dataset(train, cached=True)
    first = kept[0]["image"].clone()
    kept[0]["image"].zero_()
    assert torch.equal(kept[0]["image"], first)


def test_threads_that_meet_at_one_pair_find_the_same_numbers(train):
    first = dataset(train)[3]
    batch = dataset(train, cached=True).batch([3] * 64)
    assert all(torch.equal(image, first["image"]) for image in batch["image"])
    assert all(torch.equal(mask, first["mask"]) for mask in batch["mask"])


def test_a_batch_has_the_numbers_of_normalise_and_of_its_masks(train):
    data = dataset(train, soft_masks=True)
    item, (image, mask) = data[2], (data._planes(2)[:3], data._planes(2)[3])
    assert torch.equal(item["image"], normalise(image.transpose(1, 2, 0)))
    assert np.array_equal(item["mask"][0].numpy(), mask / np.float32(255))
    image = image.transpose(1, 2, 0).copy()
    assert torch.equal(normalise(torch.from_numpy(image)[None])[0], normalise(image))


def released_pipeline(pair) -> torch.Tensor:
    """Pillow and torchvision, as the released programs feed their networks: image, and mask with its grey levels."""
    square, tensor = transforms.Resize((48, 48)), transforms.ToTensor()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = transforms.Compose([square, tensor, transforms.Normalize(mean, std)])(
        Image.open(pair.image).convert("RGB")
    )
    return torch.cat(
        [image, transforms.Compose([square, tensor])(Image.open(pair.mask).convert("L"))]
    )


def test_pixels_are_those_of_the_released_input_pipeline(train):
    data = dataset(train, soft_masks=True)
    ours = everything(data)
    theirs = torch.stack([released_pipeline(pair) for pair in data.index])
    one_level = torch.tensor([1 / 0.229, 1 / 0.224, 1 / 0.225, 1]).view(4, 1, 1) / 255
    apart = (ours - theirs).abs() / one_level
    assert apart.max() < 1.001, "never more than one grey level"
    assert (apart > 0.5).double().mean() < 0.01, "and that seldom"


def test_an_image_that_vanishes_is_named_and_those_already_decoded_are_not_missed(train):
    kept = dataset(train, cached=True)
    kept[0]
    for name in (kept.index[0].image, kept.index[1].image):
        name.unlink()
    kept[0]
    with pytest.raises(UserError, match="does not exist"):
        kept.batch([0, 1, 2])


def test_an_empty_index_can_be_cached(train):
    data = PolypDataset(index_pairs(train).take([]), 48, cached=True)
    assert len(data) == 0 and data.batch([])["image"].shape == (0, 3, 48, 48)


def test_the_next_batch_is_made_while_the_present_one_is_used(train):
    data, made = dataset(train), []
    batch, second_is_made = data.batch, threading.Event()

    def noting(positions, device):
        made.append(list(positions))
        if len(made) == 2:
            second_is_made.set()
        return batch(positions, device)

    data.batch = noting
    stream = prefetch(data, [[0, 1], [2], [3, 4]])
    first = next(stream)
    assert second_is_made.wait(10), "before it was asked for"
    assert first["name"] == list(data.index.names[:2])
    assert [b["name"] for b in stream] == [list(data.index.names[2:3]), list(data.index.names[3:5])]
    assert made == [[0, 1], [2], [3, 4]]
    assert list(prefetch(data, [])) == []


def test_an_error_in_the_batch_ahead_reaches_the_one_who_asks(train):
    data = dataset(train)
    data.index[2].image.write_bytes(b"no image")
    stream = prefetch(data, [[0, 1], [2]])
    next(stream)
    with pytest.raises(UserError, match="not an image"):
        next(stream)


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_utf8_is_refused_before_it_meets_a_table(tmp_path):
    folder = tmp_path / "TrainDataset"
    for part, mode in (("images", "RGB"), ("masks", "L")):
        (folder / part).mkdir(parents=True)
        for name in (os.fsdecode(b"\xcf\xa2\xc8\xe2_1"), "息肉", "a b", "e\u0301"):
            content = io.BytesIO()
            Image.new(mode, (64, 48)).save(content, "PNG")
            (folder / part / f"{name}.png").write_bytes(content.getvalue())
    with pytest.raises(UserError, match="2 names not in UTF-8") as raised:
        index_pairs(folder)
    assert "息肉" not in str(raised.value)
    for path in folder.glob("*/*_1.png"):
        path.rename(path.with_name("1.png"))
    assert len(index_pairs(folder)) == 4


def test_a_file_that_was_exchanged_and_kept_its_date_has_another_digest(tmp_path):
    path = tmp_path / "a.bmp"
    path.write_bytes(b"first")
    before, times = content_digest([path]), path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p and rsync do
    assert path.stat().st_mtime_ns == times.st_mtime_ns and content_digest([path]) != before
