"""``kdas data check``: what it finds, what it calls wrong, and that sound data is left in peace; and every kind of file it may meet."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import unicodedata
import zlib
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from kdas_book.data.check import check_data
from kdas_book.data.duplicates import BITS, NEAR, NONE, SCENE, fingerprint, nearest
from kdas_book.data.synthetic import render
from kdas_book.data.videos import clinicdb_groups, clinicdb_sequence, read_groups, write_groups
from kdas_book.figures import ch01_data, display
from kdas_core import UserError
from kdas_core.data import layout as pairs_module
from kdas_core.data import load_data
from kdas_core.data.images import MAX_PIXELS, read_image
from kdas_core.data.layout import index_pairs, list_images
from kdas_core.data.masks import read_grey, read_mask
from kdas_core.evaluation import evaluate

ROOT = Path(__file__).parents[1]


def put(
    folder: Path,
    name: str,
    seed: int,
    suffix: str = ".png",
    mask: np.ndarray | None = None,
    **options,
) -> Path:
    """One drawn polyp and its mask; returns the image's path."""
    image, drawn = render(seed, (96, 112), polyps=1)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / "images" / (name + suffix), **options)
    Image.fromarray(255 * drawn.astype(np.uint8) if mask is None else mask).save(
        folder / "masks" / f"{name}.png"
    )
    return folder / "images" / (name + suffix)


@pytest.fixture
def root(tmp_path) -> Path:
    """A sound benchmark: four training pictures, and two test sets of three, all different."""
    for i in range(4):
        put(tmp_path / "TrainDataset", str(i), i)
    for k, name in enumerate(("Mine", "Yours")):
        for i in range(3):
            put(tmp_path / "TestDataset" / name, str(i), 10 * (k + 1) + i)
    return tmp_path


def run(*words: str | Path, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kdas_book.cli", "data", "check", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
        **options,
    )


def only(lines) -> str:
    (line,) = lines
    return line


# --- alike ------------------------------------------------------------------------------------------------------------


def grey(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).convert("L")


def apart(a: Image.Image, b: Image.Image) -> float:
    return float((BITS - fingerprint(a).astype(float) @ fingerprint(b)) / 2)


@pytest.mark.parametrize("seed", range(6))
def test_a_picture_saved_anew_is_near_itself_and_another_scene_is_not(seed):
    picture = render(seed, (192, 224))[0]
    whole, code = Image.fromarray(picture), io.BytesIO()
    whole.save(code, "JPEG", quality=50)
    for copy in (Image.open(code), whole.resize((112, 96)), whole.resize((352, 352))):
        assert apart(grey(picture), copy.convert("L")) <= NEAR
    assert apart(grey(picture), grey(render(seed + 100, (192, 224))[0])) > SCENE


def test_the_nearest_picture_of_each_folder_is_found_and_in_its_own_only_earlier_ones():
    rng = np.random.default_rng(0)
    bits = np.where(rng.random((9, BITS)) < 0.5, -1, 1).astype(np.int8)
    bits[4] = bits[1]
    bits[7] = bits[1]
    bits[7, :5] *= -1  # five bits from picture 1 and from its copy, 4
    distance, position = nearest(bits, np.array([3, 0, 4, 2]))
    wanted = (bits[:, None] != bits[None]).sum(-1)
    folder = np.array([0, 0, 0, 2, 2, 2, 2, 3, 3])
    for i in range(9):
        for f in range(4):
            others = [j for j in range(9) if folder[j] == f and (j < i or folder[i] != f)]
            assert distance[i, f] == min([wanted[i, j] for j in others], default=NONE)
            assert not others or wanted[i, position[i, f]] == distance[i, f]
    assert (distance[4, 0], distance[7, 2], position[7, 2], distance[0, 0]) == (0, 5, 4, NONE)


def test_comparing_in_blocks_gives_what_comparing_at_once_gives(monkeypatch):
    bits = np.where(np.random.default_rng(1).random((50, BITS)) < 0.5, -1, 1).astype(np.int8)
    whole = nearest(bits, np.array([20, 30]))
    monkeypatch.setattr("kdas_book.data.duplicates._ROWS", 7)
    assert all(
        np.array_equal(a, b) for a, b in zip(whole, nearest(bits, np.array([20, 30])), strict=True)
    )


def test_flat_pictures_are_like_nothing():
    black, white = (Image.new("L", (80, 60), value) for value in (0, 255))
    assert apart(black, white) == apart(black, black) == BITS / 2


# --- findings ---------------------------------------------------------------------------------------------------------


def test_sound_data_is_left_in_peace(root):
    check = check_data(root)
    assert check.problems == check.findings == check.near == ()
    assert check.table["pairs"].to_dict() == {"TrainDataset": 4, "Mine": 3, "Yours": 3}
    assert check.table[["empty", "grey", "repeats", "near", "problems"]].to_numpy().sum() == 0
    assert set(check.table["sizes"]) == {"112×96"}
    shares = [
        100 * read_mask(pair.mask).mean() for pair in index_pairs(root / "TestDataset" / "Mine")
    ]
    assert check.table.loc["Mine", "polyp, %"] == round(float(np.median(shares)), 1)


def test_a_repeat_within_a_set_is_counted_once_and_named_with_the_earlier_one(root):
    mine = root / "TestDataset" / "Mine"
    for new in ("10", "11"):
        for part in ("images", "masks"):
            shutil.copy(mine / part / "2.png", mine / part / f"{new}.png")
    check = check_data(root)
    assert (
        only(check.findings)
        == "Mine: 2 of 5 pictures equal to an earlier one, byte for byte (10.png = 2.png, 11.png = 2.png)."
    )
    assert check.table.loc["Mine", ["repeats", "near"]].tolist() == [2, 0] and not check.problems


def test_a_picture_saved_anew_is_a_near_duplicate_with_its_distance(root):
    put(root / "TestDataset" / "Mine", "new", 11, ".jpg", quality=60)
    check = check_data(root)
    assert (
        only(check.findings)
        == "Mine: 1 of 4 pictures nearly equal to an earlier one (new.jpg ~ 1.png)."
    )
    twins = only(check.near)
    assert twins.sets == ("Mine", "Mine") and twins.distance <= NEAR and check.closest[0] == twins


def test_sets_that_share_pictures_are_named_from_the_smaller_one(root):
    for i in range(2):
        for part in ("images", "masks"):
            shutil.copy(
                root / "TestDataset" / "Yours" / part / f"{i}.png",
                root / "TestDataset" / "Mine" / part / f"y{i}.png",
            )
    (root / "TestDataset" / "Yours" / "images" / "2.png").unlink()
    (root / "TestDataset" / "Yours" / "masks" / "2.png").unlink()
    check = check_data(root)
    assert only(check.findings).startswith("Yours: all 2 pictures in Mine as well, byte for byte")
    assert not check.problems


def test_a_test_picture_that_is_a_training_picture_is_a_problem(root):
    for part in ("images", "masks"):
        shutil.copy(
            root / "TrainDataset" / part / "3.png", root / "TestDataset" / "Yours" / part / "9.png"
        )
    check = check_data(root)
    assert only(check.problems).startswith(
        "Yours: 1 of 4 pictures in TrainDataset as well, byte for byte (9.png)"
    )
    assert check.table["problems"].to_dict() == {"TrainDataset": 0, "Mine": 0, "Yours": 1}


def test_a_training_picture_saved_anew_in_a_test_set_is_a_finding_that_names_both(root):
    put(root / "TestDataset" / "Mine", "new", 3, ".jpg", quality=60)
    lines = check_data(root).findings
    assert (
        "Mine: 1 of 4 pictures nearly equal to one of TrainDataset (Mine/new.jpg ~ TrainDataset/3.png)."
        in lines
    )


def test_one_folder_of_pairs_can_be_checked_by_itself(root):
    check = check_data(root / "TestDataset" / "Mine")
    assert check.table.index.tolist() == ["Mine"] and check.table.loc["Mine", "pairs"] == 3


def test_a_partial_public_set_is_named_unless_it_is_drawn(root, polyps):
    (root / "TestDataset" / "Mine").rename(root / "TestDataset" / "Kvasir")
    assert (
        only(check_data(root).findings)
        == "Kvasir: 3 of the benchmark's 100 pairs; a score on it must say so."
    )
    check = check_data(polyps)
    assert check.problems == check.findings == () and check.videos == {}


# --- videos -----------------------------------------------------------------------------------------------------------


def test_the_sequences_of_clinicdb_are_29_and_hold_612_frames():
    sequences = [clinicdb_sequence(str(i)) for i in range(1, 613)]
    assert sorted(set(sequences)) == list(range(1, 30)) and sequences == sorted(sequences)
    assert [clinicdb_sequence(name) for name in ("0", "613", "a", "", "-1", "²")] == [None] * 6
    assert clinicdb_groups([("7", (384, 288)), ("8", (100, 100))]) == {"7": "ClinicDB-01"}


def test_shared_videos_are_found_and_written_as_compare_reads_them(tmp_path):
    blank = np.zeros((288, 384), np.uint8)
    blank[100:150, 100:150] = 255
    for folder, names in (
        ("TrainDataset", ("1", "2", "30")),
        ("TestDataset/CVC-ClinicDB", ("3", "60")),
    ):
        for name in names:
            path = put(tmp_path / folder, name, int(name), mask=blank)
            Image.fromarray(render(int(name), (288, 384))[0]).save(path)
    done = run(tmp_path, "--groups", tmp_path / "videos.csv")
    assert (
        done.returncode == 0
        and "CVC-ClinicDB: 1 of 2 videos behind its 2 frames in TrainDataset" in done.stdout
    )
    groups = {"TrainDataset": {"1": "ClinicDB-01", "2": "ClinicDB-01", "30": "ClinicDB-02"}}
    assert read_groups(tmp_path / "videos.csv") == groups | {
        "CVC-ClinicDB": {"3": "ClinicDB-01", "60": "ClinicDB-03"}
    }


# --- masks ------------------------------------------------------------------------------------------------------------


def drawn(root: Path) -> np.ndarray:
    return read_grey(root / "TrainDataset" / "masks" / "0.png")


def with_mask(root: Path, mask: np.ndarray) -> tuple[str, str]:
    """(problem, finding) after the mask of training picture 0 is this one; empty strings where there is none."""
    Image.fromarray(mask).save(root / "TrainDataset" / "masks" / "0.png")
    check = check_data(root)
    return "".join(check.problems), "".join(check.findings)


def test_a_mask_of_zeros_and_ones_is_a_problem_that_says_so(root):
    problem, finding = with_mask(root, drawn(root) // 255)
    assert "0.png has 1 as its largest value, and polyp begins at 128" in problem and not finding


def test_a_mask_too_dark_to_count_is_a_problem(root):
    mask = drawn(root)
    red = np.zeros((96, 112, 3), np.uint8)
    red[..., 0] = mask  # pure red is grey 76
    problem, finding = with_mask(root, mask // 255 * 76)
    assert "0.png has 76 as its largest value, and polyp begins at 128" in problem and not finding
    problem, finding = with_mask(root, red)
    assert "0.png is in colour" in problem and not finding


def test_names_that_differ_in_case_alone_are_a_problem_as_evaluation_refuses_them(root):
    put(root / "TestDataset/Mine", "a", 40)
    put(root / "TestDataset/Mine", "A", 41)
    for part, problem in zip(("images", "masks"), check_data(root).problems, strict=True):
        assert f"{part} has one stem twice: A.png and a.png" in problem
    masks = root / "TestDataset/Mine/masks"
    with pytest.raises(UserError, match="one stem twice: A.png and a.png"):
        evaluate(masks, masks)


def test_a_folder_among_the_images_is_passed_over_and_named(root):
    put(root / "TestDataset/Mine/images/more", "9", 9)
    (root / "TestDataset/Mine/masks/@eaDir").mkdir()
    check = check_data(root)
    assert "Mine: folders inside are passed over (images/more)." in check.findings
    assert len(load_data(root, 0.25).tests["Mine"]) == check.table.loc["Mine", "pairs"]


def test_thumbnails_are_no_test_set(root):
    for name in ("@eaDir", "#recycle", "__MACOSX", ".thumbnails"):
        put(root / "TestDataset" / name, "0", 0)
    check = check_data(root)
    assert check.table.index.tolist() == ["TrainDataset", "Mine", "Yours"] and not check.problems
    assert set(load_data(root, 0.25).tests) == {"Mine", "Yours"}


def test_empty_full_and_inverted_masks_are_findings(root):
    black = np.zeros((96, 112), np.uint8)
    for mask, words in (
        (black, "black all over"),
        (black + 255, "polyp in every pixel"),
        (255 - drawn(root), "four corners"),
    ):
        problem, finding = with_mask(root, mask)
        assert not problem and words in finding and "(0.png)" in finding
        assert len(index_pairs(root / "TrainDataset")) == 4  # training accepts them
    assert check_data(root).table["empty"].sum() == 0
    with_mask(root, black)
    assert check_data(root).table.loc["TrainDataset", "empty"] == 1


def test_a_polyp_in_one_corner_does_not_look_inverted(root):
    corner = np.zeros((96, 112), np.uint8)
    corner[:40, :40] = 255
    assert with_mask(root, corner) == ("", "")


def test_grey_levels_are_counted_and_found(root):
    (root / "TrainDataset" / "masks" / "0.png").unlink()
    mask = render(0, (96, 112), polyps=1)[1]
    Image.fromarray(255 * mask.astype(np.uint8)).save(
        root / "TrainDataset" / "masks" / "0.jpg", quality=70
    )
    check = check_data(root)
    assert check.table.loc["TrainDataset", "grey"] == 1 and "grey levels between 0 and 255" in only(
        check.findings
    )


# --- kinds of files ---------------------------------------------------------------------------------------------------


def as_bytes(image: Image.Image, form: str, **options) -> bytes:
    code = io.BytesIO()
    image.save(code, form, **options)
    return code.getvalue()


PICTURE = render(5, (48, 64))[0]
MASK = np.where(np.hypot(*np.mgrid[-20:28, -30:34]) < 14, 250, 3).astype(np.uint8)


def test_alpha_is_dropped_and_the_colour_under_it_is_read(tmp_path):
    clear = np.dstack([PICTURE, np.zeros((48, 64), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)
    palette = Image.fromarray(PICTURE).quantize(200)
    palette.save(tmp_path / "p.png", transparency=3)
    assert np.array_equal(read_image(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb_and_sixteen_bits_keep_the_upper_eight(tmp_path):
    flat = np.full((48, 64, 3), (200, 90, 60), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - flat).max() <= 4
    deep = PICTURE.astype(np.uint16) * 256 + 77
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"deep{suffix}"), deep[..., ::-1])
        assert np.array_equal(read_image(tmp_path / f"deep{suffix}"), PICTURE), suffix
        cv2.imwrite(str(tmp_path / f"grey{suffix}"), MASK.astype(np.uint16) * 256 + 77)
        assert np.array_equal(read_grey(tmp_path / f"grey{suffix}"), MASK), suffix


@pytest.mark.parametrize(
    "kind, words", [(np.float32, "floating-point"), (np.int32, "32-bit whole")]
)
def test_numbers_without_a_defined_white_are_refused(root, kind, words):
    path = root / "TrainDataset" / "masks" / "0.tif"
    (root / "TrainDataset" / "masks" / "0.png").unlink()
    Image.fromarray(np.ones((96, 112), kind)).save(path)
    with pytest.raises(
        UserError, match=rf"0\.tif has {words} numbers as pixels.*save it with 8 bits"
    ):
        read_mask(path)
    assert words in only(check_data(root).problems)


def test_a_transparent_and_a_many_paged_file_are_read_as_defined_and_a_turned_one_is_refused(root):
    images, exif = root / "TrainDataset" / "images", Image.Exif()
    exif[0x0112] = 6
    first, second = (render(seed, (96, 112))[0] for seed in (50, 51))
    Image.fromarray(first).save(images / "0.png", exif=exif)
    Image.fromarray(np.dstack([second, np.full((96, 112), 128, np.uint8)])).save(images / "1.png")
    (images / "2.png").unlink()
    Image.fromarray(first[::-1]).save(
        images / "2.tif", save_all=True, append_images=[Image.fromarray(second)]
    )
    assert np.array_equal(read_image(images / "0.png"), first) and np.array_equal(
        read_image(images / "1.png"), second
    )
    assert np.array_equal(read_image(images / "2.tif"), first[::-1])
    check = check_data(root)
    assert "0.png has an EXIF orientation" in only(check.problems)
    transparent, pages = check.findings
    assert "transparent pixels" in transparent and "(1.png)" in transparent
    assert "several pages" in pages and "(2.png)" in pages


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def jpeg_of(width: int, height: int) -> bytes:
    code = as_bytes(Image.fromarray(PICTURE), "JPEG")
    at = code.index(b"\xff\xc0") + 5
    return code[:at] + struct.pack(">HH", height, width) + code[at + 4 :]


def tiff_of(width: int, height: int) -> bytes:
    code = as_bytes(Image.fromarray(PICTURE), "TIFF")
    start = struct.unpack("<I", code[4:8])[0]
    entries = bytearray(code)
    for k in range(struct.unpack("<H", code[start : start + 2])[0]):
        at = start + 2 + 12 * k
        tag = struct.unpack("<H", code[at : at + 2])[0]
        if tag in (256, 257):
            entries[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(entries)


@pytest.mark.parametrize("make, suffix", [(png_of, ".png"), (jpeg_of, ".jpg"), (tiff_of, ".tif")])
@pytest.mark.filterwarnings(
    "error::PIL.Image.DecompressionBombWarning"
)  # as reading.py sets it; pytest sets filters anew
@pytest.mark.parametrize(
    "size", [(60000, 60000), (10000, 9000)]
)  # where Pillow refuses, and where it would only warn
def test_a_decompression_bomb_is_refused_by_its_header(root, make, suffix, size):
    (root / "TrainDataset" / "images" / "0.png").unlink()
    bomb = root / "TrainDataset" / "images" / f"0{suffix}"
    bomb.write_bytes(make(*size))
    for read in (read_image, lambda path: index_pairs(path.parents[1])):
        with pytest.raises(
            UserError, match=rf"0\{suffix} declares more than {MAX_PIXELS:,} pixels"
        ):
            read(bomb)
    done = run(root / "TrainDataset")
    assert done.returncode == 1 and "declares more than" in done.stdout and not done.stderr


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on damaged tags
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
def test_damaged_bytes_give_a_picture_or_a_clear_error_and_nothing_else(tmp_path, form):
    whole, rng = as_bytes(Image.fromarray(PICTURE), form), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        code = bytearray(whole)
        for at in rng.integers(0, min(len(code), 400), 4):
            code[at] = rng.integers(256)
        (tmp_path / "x.png").write_bytes(code)
        try:
            image = read_image(tmp_path / "x.png")
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        except UserError as error:
            refused += 1
            assert "x.png" in str(error)
    assert refused > 10


PLAIN = [
    ("JPEG", {"quality": q, "subsampling": s, "progressive": p})
    for q, s, p in [(95, 0, False), (60, 2, True)]
]


def by_pillow(code: bytes, mode: str) -> np.ndarray | None:
    """What Pillow alone makes of a file; None where it refuses."""
    try:
        return np.array(Image.open(io.BytesIO(code)).convert(mode))
    except Exception:  # damaged bytes make it raise nearly anything
        return None


KINDS = [(form, options, mode) for form, options in [*PLAIN, ("BMP", {})] for mode in ("RGB", "L")]
KINDS += [
    (form, {}, mode) for form in ("PNG", "TIFF") for mode in ("RGB", "L", "P", "LA", "RGBA", "1")
]


@pytest.mark.parametrize("form, options, mode", [*KINDS, ("PNG", {"bits": 4}, "P")])
def test_each_kind_of_file_has_the_pixels_that_pillow_finds(tmp_path, form, options, mode):
    """Most of them are decoded by OpenCV."""
    for pixels, read, shown in ((PICTURE, read_image, "RGB"), (MASK, read_grey, "L")):
        code = io.BytesIO()
        whole = Image.fromarray(pixels)
        few = pixels is MASK and "bits" in options  # two colours in a palette of sixteen
        (whole.quantize(2) if few else whole.convert(mode)).save(code, form, **options)
        (tmp_path / "x").write_bytes(code.getvalue())
        assert np.array_equal(read(tmp_path / "x"), by_pillow(code.getvalue(), shown))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form, options", [*PLAIN, ("PNG", {})])
def test_of_damaged_bytes_opencv_never_makes_another_picture_than_pillow(tmp_path, form, options):
    whole, rng, same = io.BytesIO(), np.random.default_rng(1), 0
    Image.fromarray(PICTURE).save(whole, form, **options)
    for kind in range(300):
        code = bytearray(whole.getvalue())
        at = int(rng.integers(len(code) - 70))
        if kind % 3:  # bytes are lost, or others come in between
            code[at : at + 9 * (kind % 3 == 1)] = rng.bytes(9 * (kind % 3 == 2))
        else:
            code[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "x").write_bytes(code)
        expected = by_pillow(bytes(code), "RGB")
        try:
            found = read_image(tmp_path / "x")
        except UserError:
            assert expected is None
            continue
        same += 1
        # OpenCV accepts a few damaged JPEGs more than Pillow, which itself accepts most; of PNG files neither accepts any.
        assert np.array_equal(found, expected) if expected is not None else form == "JPEG"
    assert same > (0 if form == "PNG" else 100)


# --- folders that are not as they seem --------------------------------------------------------------------------------


def test_links_are_followed_wherever_they_lead_and_broken_ones_are_named(root, tmp_path_factory):
    train, outside = root / "TrainDataset", tmp_path_factory.mktemp("elsewhere")
    for part in ("images", "masks"):
        shutil.move(train / part / "0.png", outside / f"{part}.png")
        (train / part / "0.png").symlink_to(outside / f"{part}.png")
    assert index_pairs(train).names == ("0", "1", "2", "3")
    (outside / "masks.png").unlink()
    with pytest.raises(
        UserError, match=r"masks/0\.png is a link to .*masks\.png, which is not there"
    ):
        index_pairs(train)
    (outside / "images.png").unlink()  # both halves of a pair: it must not vanish without a word
    assert len([line for line in check_data(root).problems if "is a link to" in line]) == 2


def test_a_file_that_vanishes_while_a_folder_is_read_is_named(root, monkeypatch):
    victim, natural = root / "TrainDataset" / "images" / "2.png", pairs_module.natural

    def sort_key(name):  # called between listing and opening
        victim.unlink(missing_ok=True)
        return natural(name)

    monkeypatch.setattr(pairs_module, "natural", sort_key)
    with pytest.raises(UserError, match=r"images/2\.png does not exist"):
        index_pairs(root / "TrainDataset")


def test_two_spellings_of_one_accented_stem_in_one_folder_are_refused(root):
    for form in ("NFC", "NFD"):
        put(root / "TrainDataset", unicodedata.normalize(form, "ruột già 7"), 60)
    with pytest.raises(UserError, match="2 stems seen twice"):
        index_pairs(root / "TrainDataset")
    with pytest.raises(UserError, match="one stem twice"):
        list_images(root / "TrainDataset" / "images")


@pytest.fixture
def ordinary_user(root):
    """Root may read everything, so what root tests, it tests as somebody else."""
    if os.geteuid() != 0:
        yield
        return
    modes = {folder: folder.stat().st_mode for folder in root.parents[:-2]}
    for folder in (root, *modes):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in modes.items():
            folder.chmod(mode)


@pytest.fixture
def closed(root):
    """Nobody may read training picture 2, nor list the folder of images of the set Mine."""
    paths = root / "TrainDataset" / "images" / "2.png", root / "TestDataset" / "Mine" / "images"
    for path in paths:
        path.chmod(0)
    yield paths
    for path in paths:
        path.chmod(0o755)


def test_what_may_not_be_read_is_named_with_the_reason(closed, ordinary_user):
    file, folder = closed
    with pytest.raises(
        UserError,
        match=r"images/2\.png may not be read \(permission denied\); change its permissions",
    ):
        index_pairs(file.parents[1])
    with pytest.raises(UserError, match=r"Mine/images cannot be listed \(Permission denied\)"):
        index_pairs(folder.parent)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_clean_or_not_and_draws(root):
    figure = root / "figure.png"
    done = run(root, "--figure", figure)
    assert (
        done.returncode == 0 and "Problems: none" in done.stdout and "Findings: none" in done.stdout
    )
    assert Image.open(figure).width > 300
    (root / "TrainDataset" / "masks" / "1.png").unlink()
    (root / "TestDataset" / "Mine" / "images" / "1.png").write_bytes(b"")
    done = run(root)
    assert done.returncode == 1 and "Problems: 2" in done.stdout
    assert (
        "1.png has no mask of the same stem" in done.stdout and "is empty (0 bytes)" in done.stdout
    )
    assert run(root / "nowhere").returncode == 2


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    figure = ch01_data.near_duplicates(())
    for name in ("no/figure.png", "figure.text"):
        with pytest.raises(UserError, match=f"{name} cannot be written"):
            display.save(figure, tmp_path / name)
    with pytest.raises(UserError, match=r"no/videos\.csv cannot be written"):
        write_groups({"A": {"1": "v"}}, tmp_path / "no" / "videos.csv")
    assert list(tmp_path.iterdir()) == []
    plt.close("all")


def test_the_figure_shows_each_pair_in_a_column_with_its_distance(root):
    put(root / "TestDataset" / "Mine", "new", 11, ".jpg", quality=60)
    check = check_data(root)
    figure = ch01_data.near_duplicates(check.closest)
    assert len(figure.axes) == 2 * len(check.closest)
    below = [axis.get_xlabel() for axis in figure.axes[len(check.closest) :]]
    drawn_twice = ["\nDice of the masks 1.00"] + [""] * (len(below) - 1)
    assert below == [
        f"{t.distance} of 256 bits apart{dice}"
        for t, dice in zip(check.closest, drawn_twice, strict=True)
    ]
    assert (
        figure.axes[0].get_title() == "Mine\nnew"
        and check.closest[0].distance <= NEAR < check.closest[1].distance
    )
    plt.close("all")


# --- the public images ------------------------------------------------------------------------------------------------


def test_the_facts_of_the_public_sets_are_found(real_data):
    check = check_data(real_data)
    assert check.problems == ()
    assert check.table["pairs"].sum() == 2072 and check.table.loc["CVC-ColonDB", "repeats"] == 34
    text = "\n".join(check.findings)
    assert not [line for line in check.findings if line.startswith("Kvasir:") and "Train" in line]
    assert "CVC-300: all 60 pictures in CVC-ColonDB as well, byte for byte" in text
    assert "ETIS-LaribPolypDB: 20 of the benchmark's 196 pairs" in text
    assert "CVC-ClinicDB: all 26 videos behind its 62 frames in TrainDataset" in text
    kvasir = [t for t in check.near if not any(pair.name.isdigit() for pair in t.pairs)]
    assert len(kvasir) == 3 and {t.sets for t in kvasir} == {("TrainDataset", "TrainDataset")}


def test_neighbouring_frames_differ_most_where_the_table_has_a_border(real_data):
    """At every border, the cut that leaves the least difference within the two sequences is the table's."""
    folders = (real_data / "TrainDataset", real_data / "TestDataset" / "CVC-ClinicDB")
    frames = {
        int(p.name): p.image for f in folders for p in index_pairs(f) if clinicdb_sequence(p.name)
    }
    assert sorted(frames) == list(range(1, 613))
    small = [
        cv2.resize(read_image(frames[i]), (32, 32), interpolation=cv2.INTER_AREA)
        for i in range(1, 613)
    ]
    flat = np.array(small, dtype=np.float32).reshape(612, -1)
    sequence = np.array([clinicdb_sequence(str(i)) for i in range(1, 613)])
    for k in range(1, 29):
        part = flat[(sequence == k) | (sequence == k + 1)]
        apart = np.array([np.abs(part - row).mean(1) for row in part])
        cuts = range(3, len(part) - 2)
        cost = [apart[:c, :c].sum() / c + apart[c:, c:].sum() / (len(part) - c) for c in cuts]
        assert cuts[int(np.argmin(cost))] == (sequence == k).sum(), k


def test_groups_that_were_corrected_by_hand_are_not_replaced(tmp_path):
    path = tmp_path / "groups.csv"
    for _ in range(2):
        write_groups({"S": {"1": "a", "2": "a"}}, path)
    path.write_text(path.read_text().replace("2,a", "2,b"))
    with pytest.raises(UserError, match="is there already, with other groups"):
        write_groups({"S": {"1": "a", "2": "a"}}, path)
    assert "2,b" in path.read_text()


def test_a_pair_of_a_kind_that_is_not_read_is_a_problem_and_not_passed_over(root):
    for part in ("images", "masks"):
        folder = root / "TestDataset/Mine" / part
        Image.open(folder / "0.png").convert("RGB").save(folder / "9.webp")
    problems = check_data(root).problems
    assert [p.count("9.webp is of a kind that is not read") for p in problems] == [1, 1]
    with pytest.raises(UserError, match="of a kind that is not read"):
        evaluate(root / "TestDataset/Mine/masks", root / "TestDataset/Mine/masks")


def test_a_picture_of_the_user_is_not_replaced_by_a_figure(root):
    mine = root / "mine.png"
    shutil.copy(root / "TestDataset/Mine/images/0.png", mine)
    figure, before = plt.figure(), mine.read_bytes()
    with pytest.raises(UserError, match="mine.png is there already"):
        display.save(figure, mine)
    assert mine.read_bytes() == before
    for _ in range(2):  # its own it does replace
        display.save(figure, root / "figure.png")
