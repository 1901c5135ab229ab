"""The one rule by which a mask file is read: import, check, training and evaluation read the same mask, or all four refuse it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kdas_book.data.check import check_data
from kdas_book.data.importing import import_data
from kdas_core import UserError
from kdas_core.data import load_data
from kdas_core.data.masks import read_mask, read_prediction
from kdas_core.evaluation import evaluate

SIZE = (40, 56)


def blob(x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def turned(grey: np.ndarray, orientation: int) -> dict:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


def palette(mask: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8))
    image = image.convert("P")
    image.putdata(mask.astype(np.uint8).ravel())
    image.putpalette(colours)
    return image


def save_as(kind: str, mask: np.ndarray, path: Path) -> Path:
    """The mask in one of the ways in which programs save masks."""
    grey = np.where(mask, 255, 0).astype(np.uint8)
    plain, options, suffix = Image.fromarray(grey), {}, ".png"
    if kind in ("1", "L", "LA", "RGB", "RGBA", "P"):
        plain = plain.convert(kind)
    elif kind == "tif":
        suffix = ".tif"
    elif kind == "bmp":
        suffix = ".bmp"
    elif kind in ("jpeg", "jpeg in colour"):
        plain = plain.convert("L" if kind == "jpeg" else "RGB")
        suffix, options = ".jpg", {"quality": 90}
    elif kind == "16 bits":
        plain = Image.fromarray(np.where(mask, 65535, 0).astype(np.uint16))
    elif kind == "soft edges":
        doubled = plain.resize((2 * SIZE[1], 2 * SIZE[0]), Image.BILINEAR)
        plain = doubled.resize((SIZE[1], SIZE[0]), Image.BILINEAR)
    elif kind == "palette, grey":
        plain = palette(mask, [0, 0, 0, 255, 255, 255])
    elif kind == "palette, red":
        plain = palette(mask, [0, 0, 0, 128, 0, 0])
    elif kind == "0 and 1":
        plain = Image.fromarray(mask.astype(np.uint8))
    elif kind == "16 bits, 0 and 255":
        plain = Image.fromarray(grey.astype(np.uint16))
    elif kind == "float":
        plain, suffix = Image.fromarray(mask.astype(np.float32)), ".tif"
    elif kind == "red":
        plain = Image.fromarray(np.stack([grey, 0 * grey, 0 * grey], axis=-1))
    elif kind == "red and green":
        left = np.arange(SIZE[1]) < SIZE[1] // 2
        plain = Image.fromarray(np.stack([grey * left, grey * ~left, 0 * grey], axis=-1))
    elif kind == "in the alpha channel":
        plain = Image.merge("LA", (Image.new("L", plain.size), plain))
    elif kind == "hidden white":
        plain = Image.merge("LA", (Image.new("L", plain.size, 255), plain))
    elif kind == "EXIF, half a turn":
        options, suffix = turned(grey, 3), ".jpg"
    elif kind == "photograph":
        noise = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
        plain = Image.fromarray(noise)
    path = path.with_suffix(suffix)
    plain.save(path, **options)
    return path


READ = ["1", "L", "LA", "RGB", "RGBA", "P", "tif", "bmp", "jpeg", "jpeg in colour", "16 bits"]
READ += ["soft edges", "palette, grey"]
REFUSED = ["palette, red", "0 and 1", "16 bits, 0 and 255", "float", "red", "red and green"]
REFUSED += ["in the alpha channel", "hidden white", "EXIF, half a turn", "photograph"]


def outcome(use) -> np.ndarray | str:
    try:
        return use()
    except UserError as error:
        return str(error)


def four_users(folder: Path, kind: str, mask: np.ndarray) -> dict[str, np.ndarray | str]:
    """What each user of the rule makes of the mask: the mask, or the sentence with which it refuses."""
    root = folder / "root"
    train = root / "TrainDataset"
    for part in ("images", "masks"):
        (train / part).mkdir(parents=True)
    for i in range(3):  # two of them, so that there is one to train and one to validate
        Image.new("RGB", SIZE[::-1], (120, 60 + i, 50)).save(train / "images" / f"{i}.png")
        save_as(kind if i == 0 else "L", mask if i == 0 else blob(20, 20, 9), train / f"masks/{i}")
    (path,) = (train / "masks").glob("0.*")
    (folder / "pred").mkdir()
    save_as("L", mask, folder / "pred" / "0")

    def training() -> np.ndarray:
        data = load_data(root, 0.4)
        data.check_masks()
        return read_mask(path)

    def check() -> np.ndarray | str:
        problems = check_data(root).problems
        return " ".join(problems) if problems else read_mask(path)

    def evaluation() -> np.ndarray | str:
        found = evaluate(folder / "pred", train / "masks", names=["0"]).summary
        return mask if found["dice"] == 1 else f"Dice {found['dice']}"

    def imported() -> np.ndarray:
        import_data(train, "masks", folder / "out", images=train / "images", masks=train / "masks")
        (written,) = (folder / "out" / "TrainDataset" / "masks").glob("0.*")
        return read_mask(written)

    uses = {"training": training, "check": check, "evaluation": evaluation, "import": imported}
    return {name: outcome(use) for name, use in uses.items()}


masks = st.builds(blob, st.integers(12, 44), st.integers(12, 28), st.integers(6, 11))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(READ + REFUSED), mask=masks)
def test_a_mask_is_read_alike_by_all_four_or_refused_by_all_four(kind, mask):
    with tempfile.TemporaryDirectory() as folder:
        for user, found in four_users(Path(folder), kind, mask).items():
            if kind in REFUSED:
                assert isinstance(found, str), f"{user} takes {kind}"
                assert "Dice" not in found, f"{user} scores {kind}: {found}"
            elif "jpeg" in kind or kind == "soft edges":  # a pixel of an edge may fall either way
                assert not isinstance(found, str), f"{user} refuses {kind}: {found}"
                assert (found != mask).mean() < 0.01, f"{user}, {kind}"
            else:
                assert not isinstance(found, str), f"{user} refuses {kind}: {found}"
                assert np.array_equal(found, mask), f"{user}, {kind}"


@pytest.mark.parametrize(
    "kind, fact",
    [
        ("palette, red", "is in colour"),
        ("0 and 1", "has 1 as its largest value, and polyp begins at 128"),
        ("16 bits, 0 and 255", "has 16 bits, and its largest value, 255, is all but 0"),
        ("float", "floating-point numbers as pixels"),
        ("red and green", "is in colour"),
        ("in the alpha channel", "is transparent in places"),
        ("hidden white", "is transparent in places"),
        ("EXIF, half a turn", "has an EXIF orientation"),
        ("photograph", "of its pixels are neither dark nor light"),
    ],
)
def test_each_refusal_names_the_file_and_the_fact(tmp_path, kind, fact):
    path = save_as(kind, blob(20, 20, 9), tmp_path / "mask")
    with pytest.raises(UserError, match=fact) as raised:
        read_mask(path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("kind", REFUSED)
def test_check_names_each_mask_that_is_refused_once_and_says_nothing_else_of_it(tmp_path, kind):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    noise = np.random.default_rng(0)
    for i in range(3):
        pixels = noise.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        path = save_as("L" if i == 2 else kind, blob(20, 20, 9), tmp_path / "masks" / f"{i}")
    assert path.name == "2.png"
    check = check_data(tmp_path)
    assert check.findings == () and len(check.problems) == 2
    for i, problem in enumerate(check.problems):
        assert problem.startswith(str(tmp_path / "masks" / f"{i}.")), problem


def test_an_empty_frame_is_a_mask(tmp_path):
    for kind in READ:
        mask = read_mask(save_as(kind, np.zeros(SIZE, bool), tmp_path / f"{kind}"))
        assert mask.shape == SIZE and not mask.any(), kind


def test_a_picture_with_an_exif_orientation_is_no_half_of_a_pair(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "TrainDataset" / part).mkdir(parents=True)
    for i in range(2):
        save_as("L", blob(20, 20, 9), tmp_path / "TrainDataset" / "masks" / f"{i}")
        image = Image.new("RGB", SIZE[::-1])
        options = turned(np.zeros(SIZE), 3) if i else {}
        image.save(tmp_path / "TrainDataset" / "images" / f"{i}.jpg", **options)
    with pytest.raises(UserError, match=r"1\.jpg has an EXIF orientation.*--exif"):
        load_data(tmp_path, 0.4)
    (problem,) = check_data(tmp_path).problems
    assert "1.jpg has an EXIF orientation" in problem


def test_a_damaged_exif_block_is_no_fault_of_the_pixels(tmp_path):
    Image.fromarray(255 * blob(20, 20, 9).astype(np.uint8)).save(
        tmp_path / "m.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"
    )
    assert read_mask(tmp_path / "m.jpg").any()


@pytest.mark.parametrize("convention", ["released", "binary"])
def test_predictions_of_0_and_1_are_refused(tmp_path, convention):
    truth = blob(20, 20, 9)
    for name in ("pred", "gt"):
        (tmp_path / name).mkdir()
    for i in range(3):
        save_as("L", truth, tmp_path / "gt" / f"{i}")
        saved = truth if i else np.zeros(SIZE, bool)  # one found nothing
        Image.fromarray(saved.astype(np.uint8)).save(tmp_path / "pred" / f"{i}.png")
    with pytest.raises(UserError, match="the values 0 and 1 alone, and white is 255; multiply"):
        evaluate(tmp_path / "pred", tmp_path / "gt", convention)
    # Stretched, 1 is white.
    assert evaluate(tmp_path / "pred", tmp_path / "gt", "min-max").per_image["dice"][1] == 1
    # One map that is not of 0 and 1 shows that they are maps: so dark ones are sure of background.
    Image.fromarray(np.where(truth, 200, 0).astype(np.uint8)).save(tmp_path / "pred" / "0.png")
    assert evaluate(tmp_path / "pred", tmp_path / "gt", convention).per_image["dice"][0] == 1


def test_a_map_of_ours_may_be_of_0_and_1(tmp_path):
    import torch

    from kdas_core.inference import predict_files
    from kdas_core.models import build, freeze

    torch.manual_seed(0)
    net = freeze(build("student"))
    for name in ("images", "gt"):
        (tmp_path / name).mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "images" / "0.png")
    save_as("L", blob(20, 20, 9), tmp_path / "gt" / "0")
    with torch.no_grad():  # grey 0.4 to 0.6: sure of background
        p1, p2 = net(torch.randn(1, 3, 32, 32))
        net.head1.bias -= (p1 + p2).mean() + 6.24
    predict_files(net, [tmp_path / "images" / "0.png"], tmp_path / "pred", 32)
    assert read_prediction(tmp_path / "pred" / "0.png").max() == 1
    assert evaluate(tmp_path / "pred", tmp_path / "gt").summary["dice"] == 0


@pytest.mark.parametrize("polyp, border", [(1, 255), (20, 255), (255, 128)])
def test_areas_of_a_third_value_are_no_mask_for_any_of_the_four(tmp_path, polyp, border):
    """As of VOC: 1 is the object and 255 a border that does not count."""
    y, x = np.mgrid[:48, :64]
    far = (x - 30) ** 2 + (y - 24) ** 2
    classes = np.where(far < 81, polyp, np.where(far < 144, border, 0)).astype(np.uint8)
    for part, pixels in (("images", np.zeros((48, 64, 3), np.uint8)), ("masks", classes)):
        for name in "12":
            (tmp_path / "TrainDataset" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "TrainDataset" / part / f"{name}.png")
    masks = tmp_path / "TrainDataset" / "masks"
    fact = "has areas of more than two values"
    assert fact in check_data(tmp_path).problems[0]
    for refused in (
        lambda: load_data(tmp_path).check_masks(),
        lambda: evaluate(masks, masks),
        lambda: import_data(tmp_path / "TrainDataset", "masks", tmp_path / "out"),
    ):
        with pytest.raises(UserError, match="more than two values|has 6 mask|has 2 mask|2 things"):
            refused()
    out = tmp_path / "chosen"
    import_data(tmp_path / "TrainDataset", "masks", out, values=(polyp,))
    assert read_mask(out / "TrainDataset/masks/1.png").sum() == (far < 81).sum()
