"""In an import nothing goes wrong in silence: whose picture an annotation means, what a mask file's pixels mean, and which files count."""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_masks
from scipy import ndimage
from test_importing import H, W, circle_points, dice, disc, labelme, outline, picture, save

from kdas_book.data.importing import NOTE, import_data, shapes
from kdas_book.data.importing.frames import Frame, Shape
from kdas_book.data.importing.places import Images, files_below
from kdas_core import UserError
from kdas_core.data.images import read_image
from kdas_core.data.layout import index_pairs
from kdas_core.data.masks import read_mask

RED, GREEN = (200, 40, 40), (40, 200, 40)
POLYP = [{"label": "polyp", "points": circle_points()}]
VOC = "<annotation><folder>{folder}</folder><filename>{name}</filename><object><name>polyp</name><bndbox><xmin>15</xmin><ymin>17</ymin><xmax>38</xmax><ymax>40</ymax></bndbox></object></annotation>"


def flat_picture(path: Path, colour=RED) -> Path:
    return save(path, np.full((H, W, 3), colour, np.uint8))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def coco_of(path: Path, *names: str) -> Path:
    images = [{"id": i, "file_name": n, "width": W, "height": H} for i, n in enumerate(names, 1)]
    content = {"images": images, "annotations": [outline(i["id"]) for i in images]}
    return write(path, json.dumps(content | {"categories": [{"id": 1, "name": "polyp"}]}))


def annotate(layout: str, root: Path, video: str, name: str = "0001") -> Path:
    """An annotation of ``video/name.png`` as each layout writes it; returns what is imported."""
    if layout == "coco":
        return coco_of(root / "instances.json", f"{video}/{name}.png")
    if layout == "labelme":
        labelme(root / video / f"{name}.json", POLYP)
    elif layout == "voc":
        text = VOC.format(folder=video, name=f"{name}.png")
        write(root / "Annotations" / video / f"{name}.xml", text)
    else:
        write(root / "labels" / video / f"{name}.txt", "0 0.2 0.2 0.6 0.2 0.6 0.6\n")
    return root


FOLDERS = {"coco": "frames", "labelme": ".", "voc": "JPEGImages", "yolo": "images"}
LAYOUTS = pytest.mark.parametrize("layout", FOLDERS)


# --- which picture is meant -------------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("chosen", [False, True])
def test_an_annotation_never_takes_the_picture_of_another_video(tmp_path, layout, chosen):
    flat_picture(tmp_path / "src" / FOLDERS[layout] / "videoA/0001.png")
    source = annotate(layout, tmp_path / "src", "videoB")
    there = {"images": tmp_path / "src" / FOLDERS[layout] / "videoA"} if chosen else {}
    with pytest.raises(
        UserError,
        match=r"the image videoB/0001\S* is not below .*(; name its folder with|by itself)",
    ):
        options = {"negatives": "drop", "box": "ellipse"} | there
        import_data(source, layout, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@LAYOUTS
def test_each_video_has_its_own_picture_of_the_same_number(tmp_path, layout):
    for video, colour in (("videoA", RED), ("videoB", GREEN)):
        flat_picture(tmp_path / "src" / FOLDERS[layout] / video / "0001.png", colour)
    source = annotate(layout, tmp_path / "src", "videoB")
    import_data(source, layout, tmp_path / "out", negatives="drop", box="ellipse")
    (pair,) = index_pairs(tmp_path / "out/TrainDataset")
    assert tuple(read_image(pair.image)[0, 0]) == GREEN


@settings(max_examples=150, deadline=None)
@given(
    pictures=st.sets(
        st.tuples(st.sampled_from(["", "a/", "b/", "c/a/"]), st.sampled_from("12")), min_size=1
    ),
    own=st.sampled_from(["", "a", "b", "c/a"]),
    named=st.sampled_from(["", "a/", "b/", "c/a/", "/home/x/a/", "D:\\y\\b\\"]),
    number=st.sampled_from("12"),
)
def test_a_picture_that_is_taken_contradicts_no_folder_that_is_stated(pictures, own, named, number):
    """Whatever lies where: the innermost folder that is stated is the picture's, or it has none."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "src"
        for place, digit in pictures:
            write(root / "images" / f"{place}{digit}.png", "")
        there, frame = Images(root), Frame("", "")
        there.place(frame, f"{named}{number}.png", root / "labels" / own / "1.xml", "here")
        assert bool(frame.image) != bool(frame.faults)
        if frame.image:
            stated = named.replace("\\", "/").split("/")[-2] if named else own[-1:]
            place = frame.image.parent.relative_to(root / "images").as_posix().strip(".")
            assert frame.image.stem == number and (not stated or not place or place[-1] == stated)
            if not named and place != own:  # it is the only one, or lies in a folder of the name
                only = [digit for _, digit in pictures].count(number) == 1
                assert only or (own and place and (own.endswith(place) or place.endswith(own)))
        if named in ("a/", "b/", "c/a/") and (named, number) in pictures:
            assert frame.image == root / "images" / f"{named}{number}.png"
        if not named and (f"{own}/".lstrip("/"), number) in pictures:
            assert frame.image == root / "images" / own / f"{number}.png"


def test_folders_of_another_computer_are_overlooked_if_they_are_the_same_for_all(tmp_path):
    for name in ("a/1", "b/1"):
        flat_picture(tmp_path / "src/images" / f"{name}.png")
    root = "C:\\Users\\anna\\export\\"
    same = coco_of(tmp_path / "src/same.json", f"{root}a\\1.png", f"{root}b\\1.png")
    import_data(same, "coco", tmp_path / "out", prefix=True)
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("images_a_1", "images_b_1")
    other = coco_of(tmp_path / "src/other.json", f"{root}a\\1.png", "/mnt/ward/b/1.png")
    with pytest.raises(UserError, match="has folders in front that others have not"):
        import_data(other, "coco", tmp_path / "again", prefix=True)


def test_a_folder_of_pictures_without_folders_is_not_another_videos(tmp_path):
    flat_picture(tmp_path / "src/videoA/0001.png")
    file = coco_of(tmp_path / "src/videoA/instances.json", "videoB/0001.png")
    with pytest.raises(UserError, match=r"the image videoB/0001\.png is not below"):
        import_data(file, "coco", tmp_path / "out")
    file = coco_of(tmp_path / "src/videoB/instances.json", "0001.png")  # it looks in the one above
    with pytest.raises(UserError, match=r"the image videoB/0001\.png is not below"):
        import_data(file, "coco", tmp_path / "out")


@pytest.mark.parametrize("images", ["JPEGImages", "JPEGImages/videoA"])
def test_two_folders_that_are_named_may_not_be_of_two_videos(tmp_path, images):
    flat_picture(tmp_path / "src/JPEGImages/videoA/0001.png")
    annotate("voc", tmp_path / "src", "videoB")
    coco_of(tmp_path / "src/Annotations/videoB/i.json", "0001.png")
    for layout, source in (("voc", "videoB"), ("coco", "videoB/i.json")):
        options = {"images": tmp_path / "src" / images, "box": "ellipse", "negatives": "drop"}
        with pytest.raises(UserError, match=r"0001\.png is not below"):
            import_data(tmp_path / "src/Annotations" / source, layout, tmp_path / "out", **options)
    flat_picture(tmp_path / "src/pictures_2019/0001.png")
    options = {"images": tmp_path / "src/pictures_2019", "box": "ellipse"}
    import_data(tmp_path / "src/Annotations/videoB", "voc", tmp_path / "out", **options)


def test_of_pictures_of_one_name_none_is_chosen(tmp_path):
    for video in "ab":
        flat_picture(tmp_path / "src/images" / video / "1.png")
    with pytest.raises(UserError, match=r"1\.png could be any of .*a/1\.png, .*b/1\.png"):
        import_data(coco_of(tmp_path / "src/i.json", "1.png"), "coco", tmp_path / "out")


def test_two_annotations_of_one_picture_are_a_fault_and_so_is_one_picture_by_two_links(tmp_path):
    flat_picture(tmp_path / "src/1.png")
    file = coco_of(tmp_path / "src/i.json", "1.png", "1.png")
    with pytest.raises(
        UserError, match=r"images\[0\].*and .*images\[1\].*are of one image, .*1\.png"
    ):
        import_data(file, "coco", tmp_path / "out")
    content = json.loads(file.read_text())
    content["annotations"][1]["segmentation"] = [[1, 1]]  # left out, its polyp would be missing
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="are of one image"):
        import_data(file, "coco", tmp_path / "out", skip=True)
    (tmp_path / "src/2.png").symlink_to(tmp_path / "src/1.png")
    file = coco_of(tmp_path / "src/i.json", "1.png", "2.png")
    with pytest.raises(UserError, match="are of one image"):
        import_data(file, "coco", tmp_path / "out")


def test_the_embedded_picture_wins_over_a_stranger_and_the_file_that_is_named_over_both(tmp_path):
    src, code = tmp_path / "src", io.BytesIO()
    Image.new("RGB", (W, H), GREEN).save(code, "PNG")
    flat_picture(src / "videoA/0001.png")
    data = base64.b64encode(code.getvalue()).decode()
    labelme(src / "videoB/0001.json", POLYP, imageData=data)
    import_data(src, "labelme", tmp_path / "out", negatives="drop")
    assert tuple(read_image(tmp_path / "out/TrainDataset/images/0001.png")[0, 0]) == GREEN
    flat_picture(src / "videoB/0001.png", (9, 9, 9))
    import_data(src, "labelme", tmp_path / "beside", negatives="drop")
    assert tuple(read_image(tmp_path / "beside/TrainDataset/images/0001.png")[0, 0]) == (9, 9, 9)


@pytest.mark.parametrize("name", ["1", "", "old.png", "1.tiff", "C:\\old\\1"])
def test_the_xml_counts_by_its_own_name_where_its_filename_is_of_no_picture(tmp_path, name):
    flat_picture(tmp_path / "src/1.png")
    write(tmp_path / "src/1.xml", VOC.format(folder="anything", name=name))
    import_data(tmp_path / "src", "voc", tmp_path / "out", box="ellipse")
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("1",)


def test_an_xml_whose_two_names_are_of_two_pictures_is_refused_with_both(tmp_path):
    for name in "23":
        flat_picture(tmp_path / f"src/{name}.png")
    write(tmp_path / "src/3.xml", VOC.format(folder="src", name="2.png"))
    with pytest.raises(
        UserError, match=r"3\.xml is of .*3\.png by its own name, but of .*2\.png by"
    ):
        import_data(tmp_path / "src", "voc", tmp_path / "out", box="ellipse", negatives="drop")


def test_the_folder_that_an_xml_states_is_not_another_pictures(tmp_path):
    flat_picture(tmp_path / "src/JPEGImages/videoA/0001.png")
    write(tmp_path / "src/Annotations/0001.xml", VOC.format(folder="videoB", name="0001.png"))
    with pytest.raises(UserError, match=r"the image videoB/0001\.png is not below"):
        import_data(tmp_path / "src", "voc", tmp_path / "out", box="ellipse", negatives="drop")


# --- which files count ------------------------------------------------------------------------------------------------


def test_links_are_followed_once_and_one_to_a_parent_ends(tmp_path):
    src, outside = tmp_path / "src", tmp_path / "store"
    flat_picture(src / "a/1.png")
    flat_picture(outside / "2.png")
    (src / "b").symlink_to(outside)
    (src / "a/up").symlink_to(src)
    (src / "0_again").symlink_to(src / "a")  # sorted before it, and yet the same
    (src / "lost.png").symlink_to(tmp_path / "nowhere.png")
    found = [path.relative_to(src).as_posix() for path in files_below(src, (".png",))]
    assert found == ["a/1.png", "b/2.png", "lost.png"]  # a link to nothing is named, not lost


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(UserError, match="a cannot be listed"):
        files_below(tmp_path, (".png",))


@LAYOUTS
def test_thumbnails_and_readme_files_are_no_pictures_and_no_annotations(tmp_path, layout):
    src = tmp_path / "src"
    flat_picture(src / FOLDERS[layout] / "v/0001.png")
    source = annotate(layout, src, "v")
    folders = ("", f"{FOLDERS[layout]}/v/", "labels/", "labels/v/")
    for folder in folders:
        for name in ("@eaDir/0001.png", "#recycle/0001.png", "__MACOSX/0001.png", "._0001.png"):
            flat_picture(src / folder / name)
        flat_picture(src / folder / ".thumbnails/0001.png")
        for name in ("Thumbs.db", ".DS_Store", "._0001.json", "._0001.txt", "._0001.xml"):
            write(src / folder / name, "x")
        for name in ("README.dataset.txt", "README.roboflow.txt", "classes.txt", "data.yaml"):
            write(src / folder / name, "polyp")
        for name in ("notes.json", "_annotations.coco.json"):
            write(src / folder / name, "{}")
    import_data(source, layout, tmp_path / "out", box="ellipse")
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("0001",)
    for part in ("images", "masks"):  # and the same where pairs are read
        flat_picture(tmp_path / f"out/TrainDataset/{part}/@eaDir/2.png")
        write(tmp_path / f"out/TrainDataset/{part}/._3.png", "x")
        write(tmp_path / f"out/TrainDataset/{part}/Thumbs.db", "x")
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("0001",)


def test_pictures_with_signs_in_their_names_are_pictures(tmp_path):
    names = ("#1", "$2", "@3", "recycle", "Thumbs")
    for part in ("images", "masks"):
        for name in names:
            save(tmp_path / "src" / part / f"{name}.png", disc().astype(np.uint8) * 255)
    import_data(tmp_path / "src", "masks", tmp_path / "out")
    assert set(index_pairs(tmp_path / "out/TrainDataset").names) == set(names)


def test_an_annotation_that_is_called_like_a_readme_is_one_if_it_has_a_picture(tmp_path):
    flat_picture(tmp_path / "src/images/test.png")
    write(tmp_path / "src/labels/test.txt", "0 0.2 0.2 0.6 0.2 0.6 0.6\n")
    import_data(tmp_path / "src", "yolo", tmp_path / "out")
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("test",)


@LAYOUTS
@pytest.mark.parametrize("suffix", [".webp", ".gif", ".heic"])
def test_pictures_of_a_kind_that_is_not_read_are_named_with_the_way_out(tmp_path, layout, suffix):
    write(tmp_path / "src" / FOLDERS[layout] / f"v/1{suffix}", "x")
    if layout == "coco":
        source = coco_of(tmp_path / "src/i.json", f"v/1{suffix}")
    else:
        source = annotate(layout, tmp_path / "src", "v", "1")
        for file in (tmp_path / "src").rglob("1.[jx][sm]*"):
            file.write_text(file.read_text().replace("1.png", f"1{suffix}"))
    with pytest.raises(
        UserError, match=rf"1\{suffix} is there, but \{suffix} files are not read; convert"
    ):
        import_data(source, layout, tmp_path / "out", box="ellipse")


def test_a_pair_of_a_kind_that_is_not_read_is_not_left_out_in_silence(tmp_path):
    for part in ("images", "masks"):
        save(tmp_path / "src" / part / "1.png", disc().astype(np.uint8) * 255)
        write(tmp_path / "src" / part / "2.webp", "x")
    with pytest.raises(
        UserError, match=r"(?s)images/2\.webp is there, but.*masks/2\.webp is there"
    ):
        import_data(tmp_path / "src", "masks", tmp_path / "out")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["_mask", "-mask", "_segmentation", ".seg"])
@pytest.mark.parametrize("apart", [True, False])
def test_the_suffix_that_all_masks_have_is_proposed(tmp_path, suffix, apart):
    for name in ("1", "10", "11"):
        save(tmp_path / "src" / ("images" if apart else "") / f"{name}.jpg", picture())
        mask = disc().astype(np.uint8) * 255
        save(tmp_path / "src" / ("masks" if apart else "") / f"{name}{suffix}.png", mask)
    with pytest.raises(UserError, match=rf"say --mask-suffix(, such as)? \{suffix}[.,]"):
        import_data(tmp_path / "src", "masks", tmp_path / "out")
    import_data(tmp_path / "src", "masks", tmp_path / "out", mask_suffix=suffix)
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("1", "10", "11")


def test_a_mask_without_the_suffix_that_was_named_is_not_passed_over(tmp_path):
    for name in ("images/1.png", "masks/1_mask.png", "images/2.png", "masks/2.png"):
        save(tmp_path / "src" / name, disc().astype(np.uint8) * 255)
    with pytest.raises(UserError, match=r"masks/2\.png is called otherwise than with _mask"):
        options = {"mask_suffix": "_mask", "negatives": "keep"}
        import_data(tmp_path / "src", "masks", tmp_path / "out", **options)


def test_pages_and_prefixes_never_give_one_name_to_two_frames(tmp_path):
    white = disc().astype(np.uint8) * 255
    for part, pixels in (("images", picture()[..., 0]), ("masks", white)):
        (tmp_path / "src" / part).mkdir(parents=True)
        cv2.imwritemulti(str(tmp_path / f"src/{part}/p.tif"), [pixels, pixels[::-1]])
        save(tmp_path / f"src/{part}/p_0001.tif", pixels)
    for prefix in (False, True):
        with pytest.raises(
            UserError, match=r"would be called p_0001; rename or remove all but one"
        ):
            import_data(tmp_path / "src", "masks", tmp_path / "out", prefix=prefix)
    for part in ("images", "masks"):
        for name in ("a_b/1.png", "a/b_1.png"):
            save(tmp_path / "two" / part / name, white)
    with pytest.raises(UserError, match=r"would be called a_b_1; rename or remove all but one"):
        import_data(tmp_path / "two", "masks", tmp_path / "out", prefix=True)


@pytest.mark.parametrize("negatives", [None, "keep", "drop"])
def test_two_images_of_one_name_are_never_chosen_between(tmp_path, negatives):
    for name in ("images/1.jpg", "images/1.png", "masks/1.png"):
        save(tmp_path / "src" / name, disc().astype(np.uint8) * 255)
    with pytest.raises(UserError, match=r"1\.jpg, .*1\.png would be called 1; rename or remove"):
        import_data(tmp_path / "src", "masks", tmp_path / "out", negatives=negatives)


def test_a_skipped_annotation_takes_no_other_picture_with_it(tmp_path):
    flat_picture(tmp_path / "src/images/videoA/0001.png")
    flat_picture(tmp_path / "src/images/videoC/0002.png")
    for video, name in (("videoB", "0001"), ("videoC", "0002")):
        annotate("yolo", tmp_path / "src", video, name)
    report = import_data(tmp_path / "src", "yolo", tmp_path / "out", skip=True)
    assert len(report.skipped) == 2 and any("image videoB/0001" in s for s in report.skipped)
    assert any("videoA/0001.png has no annotation" in s for s in report.skipped)
    assert index_pairs(tmp_path / "out/TrainDataset").names == ("0002",)


# --- EXIF: an image and its mask --------------------------------------------------------------------------------------


def exif(orientation: int) -> dict:
    block = Image.Exif()
    block[0x0112] = orientation
    return {"exif": block}


def turned_pair(folder: Path, image: int, mask: int, suffix: str = ".jpg", side: int = H) -> Path:
    """A white polyp on grey and its mask, saved with these orientations. They agree as stored."""
    polyp = np.zeros((side, W), bool)
    polyp[5:20, 10:30] = True
    grey = np.where(polyp, 250, 60).astype(np.uint8)
    plain = {"quality": 95} if suffix == ".jpg" else {}
    save(folder / f"images/a{suffix}", np.dstack([grey] * 3), **exif(image), **plain)
    save(folder / f"masks/a{suffix}", polyp.astype(np.uint8) * 255, **exif(mask), **plain)
    return folder


def agreement(out: Path) -> float:
    (pair,) = index_pairs(out / "TrainDataset")  # which refuses an orientation
    assert all(Image.open(path).getexif().get(0x0112, 1) == 1 for path in (pair.image, pair.mask))
    return dice(read_image(pair.image).mean(2) > 150, read_mask(pair.mask))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_and_its_mask_turn_together(tmp_path, suffix, orientation):
    src = turned_pair(tmp_path / "src", orientation, orientation, suffix)
    with pytest.raises(UserError, match="say --exif turned .* or --exif stored"):
        import_data(src, "masks", tmp_path / "out")
    for way in ("turned", "stored"):
        import_data(src, "masks", tmp_path / way, exif=way)
        assert agreement(tmp_path / way) == 1.0
        pixels = read_image(next((tmp_path / way / "TrainDataset/images").glob("a.*")))
        upright = orientation > 4 and way == "turned"
        assert pixels.shape[:2] == ((W, H) if upright else (H, W))
        stored = turned_pair(tmp_path / f"as{way}", 1, 1, suffix) / f"images/a{suffix}"
        expected = read_image(stored)
        if way == "turned":  # as viewers show it: Pillow's own reading of a JPEG
            code = io.BytesIO()
            Image.fromarray(expected).save(code, "PNG", **exif(orientation))
            from PIL import ImageOps

            expected = np.asarray(ImageOps.exif_transpose(Image.open(code)))
        np.testing.assert_array_equal(pixels, expected)


def test_different_orientations_are_decided_by_size_or_refused(tmp_path):
    src = turned_pair(tmp_path / "mask", 1, 6)  # stored alike, so the mask's is a left-over
    import_data(src, "masks", tmp_path / "a")
    assert agreement(tmp_path / "a") == 1.0
    src = turned_pair(tmp_path / "upright", 1, 1)
    polyp = read_mask(src / "masks/a.jpg")
    save(src / "masks/a.jpg", np.rot90(polyp).astype(np.uint8) * 255, **exif(6), quality=95)
    import_data(src, "masks", tmp_path / "b")
    assert agreement(tmp_path / "b") == 1.0
    for image, mask, side in ((1, 3, H), (3, 4, H), (6, 8, H), (1, 6, W)):
        src = turned_pair(tmp_path / f"{image}{mask}{side}", image, mask, side=side)
        for way in (None, "turned", "stored"):
            with pytest.raises(
                UserError, match="nothing tells how the two lie.*; save both without"
            ):
                import_data(src, "masks", tmp_path / "c", exif=way)


# --- colours ----------------------------------------------------------------------------------------------------------


def two_colours(
    first=(255, 0, 0), second=(0, 255, 0), x: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[8:48, x : x + 32], pixels[16:32, 68:88] = first, second
    return pixels, pixels.any(-1)


def as_pair(folder: Path, mask: np.ndarray, suffix: str = ".jpg", **options) -> Path:
    save(folder / "images/1.png", np.full((*mask.shape[:2], 3), 90, np.uint8))
    save(folder / f"masks/1{suffix}", mask, **options)
    return folder


def test_a_coloured_mask_is_refused_with_its_colours_and_the_option_and_that_works(tmp_path):
    pixels, polyp = two_colours()
    for suffix in (".png", ".jpg"):
        src = as_pair(tmp_path / suffix, pixels, suffix)
        option = r"--colours ff0000,00ff00\.$"
        with pytest.raises(UserError, match=rf"in colour; it has the colours 000000 .* {option}"):
            import_data(src, "masks", tmp_path / "no")
        import_data(src, "masks", tmp_path / f"out{suffix}", colours=["ff0000", "00ff00"])
        found = read_mask(tmp_path / f"out{suffix}/TrainDataset/masks/1.png")
        assert dice(found, polyp) == 1.0 if suffix == ".png" else dice(found, polyp) > 0.99


@settings(max_examples=30, deadline=None)
@given(
    quality=st.integers(60, 95),
    shift=st.integers(0, 40),
    x=st.integers(4, 30),
    sampling=st.sampled_from([0, 2]),
)
def test_jpeg_masks_go_to_the_nearest_named_colour(quality, shift, x, sampling):
    pixels, polyp = two_colours((255 - shift, 0, shift), (0, 255, 0), x)
    with tempfile.TemporaryDirectory() as folder:
        src = as_pair(Path(folder) / "src", pixels, quality=quality, subsampling=sampling)
        out = Path(folder) / "out"
        report = import_data(src, "masks", out, colours=["ff0000", "00ff00"])
        found = read_mask(out / "TrainDataset/masks/1.png")
        assert not (found ^ polyp)[ndimage.binary_erosion(polyp, iterations=2)].any()
        assert not found[~ndimage.binary_dilation(polyp, iterations=3)].any()
        assert report.off > shift * 2**0.5 - 12  # near borders JPEG may be off by more
        assert report.off < shift * 2**0.5 + 25 or quality < 85 or sampling
        off = f"1 masks are JPEGs; their colours were up to {report.off:.0f} levels away from"
        assert off in str(report)
        assert json.loads((out / "TrainDataset" / NOTE).read_text())["counts"]["jpeg"] == 1


@pytest.mark.parametrize("other", [(0, 0, 255), (128, 0, 0), (255, 255, 0)])
def test_a_colour_of_a_jpeg_that_is_not_named_is_a_fault_that_names_it(tmp_path, other):
    src = as_pair(tmp_path / "src", two_colours(second=other)[0], quality=95)
    with pytest.raises(
        UserError, match="of its pixels near [0-9a-f]{6}, which is none of"
    ) as error:
        import_data(src, "masks", tmp_path / "out", colours=["ff0000"])
    said = bytes.fromhex(str(error.value).split("near ")[1][:6])
    assert max(abs(a - b) for a, b in zip(said, other)) < 12


def test_every_refusal_of_values_names_the_option_that_works(tmp_path):
    palette = Image.fromarray(disc().astype(np.uint8) * 3)
    palette.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 128, 0, 0])
    kinds = {
        "palette": (palette, r"palette indices 0 \(#000000\), 3 \(#800000\); .* --values 3\."),
        "ones": (Image.fromarray(disc().astype(np.uint8)), r"values 0, 1; .* --values 1\."),
        "deep": (Image.fromarray(disc() * np.uint16(255)), r"values 0, 255; .* --values 255\."),
    }
    for kind, (image, words) in kinds.items():
        save(tmp_path / kind / "images/1.png", picture())
        (tmp_path / kind / "masks").mkdir()
        image.save(tmp_path / kind / "masks/1.png")
        with pytest.raises(UserError, match=words) as error:
            import_data(tmp_path / kind, "masks", tmp_path / "out")
        values = [int(str(error.value).rstrip(".").split()[-1])]
        import_data(tmp_path / kind, "masks", tmp_path / f"{kind}-out", values=values)
        found = read_mask(tmp_path / f"{kind}-out/TrainDataset/masks/1.png")
        np.testing.assert_array_equal(found, disc(), err_msg=kind)


def test_values_of_a_jpeg_and_values_under_transparency_are_refused(tmp_path):
    src = as_pair(tmp_path / "jpeg", disc().astype(np.uint8) * 255)
    with pytest.raises(
        UserError, match="is a JPEG, whose values are not exact; leave --values out"
    ):
        import_data(src, "masks", tmp_path / "out", values=[255])
    clear = np.dstack([disc().astype(np.uint8) * 255] * 3 + [np.full((H, W), 9, np.uint8)])
    src = as_pair(tmp_path / "clear", clear, ".png")
    for option in ({"values": [255]}, {"colours": ["ffffff"]}):
        with pytest.raises(UserError, match="is transparent in places; save it without"):
            import_data(src, "masks", tmp_path / "out", **option)


def test_each_page_of_a_stack_has_its_own_colours(tmp_path):
    pages = [
        np.roll(np.dstack([disc().astype(np.uint8) * 255] + [0 * disc()] * 2), i, 1) for i in (0, 9)
    ]
    pages = [page.astype(np.uint8) for page in pages]
    for part in ("images", "masks"):
        (tmp_path / "src" / part).mkdir(parents=True)
        cv2.imwritemulti(str(tmp_path / f"src/{part}/v.tif"), [page[..., ::-1] for page in pages])
    import_data(tmp_path / "src", "masks", tmp_path / "out", colours=["ff0000"])
    for pair, page in zip(index_pairs(tmp_path / "out/TrainDataset"), pages, strict=True):
        np.testing.assert_array_equal(read_mask(pair.mask), page[..., 0] > 0)


def test_a_mask_of_black_and_white_among_masks_of_0_and_1_is_not_read_as_empty(tmp_path):
    for i, white in enumerate((1, 255), 1):
        save(tmp_path / f"src/images/{i}.png", picture(i))
        save(tmp_path / f"src/masks/{i}.png", disc().astype(np.uint8) * white)
    with pytest.raises(
        UserError, match=r"2\.png is black and white, and 255 is not among --values"
    ):
        import_data(tmp_path / "src", "masks", tmp_path / "out", values=[1])


# --- polygons ---------------------------------------------------------------------------------------------------------


def even_odd(corners: np.ndarray) -> np.ndarray:
    """Counted pixel by pixel: how many edges lie to the right of a pixel's centre."""
    y, x = np.mgrid[:H, :W] + 0.5
    crossings = np.zeros((H, W), int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if y0 != y1:
            crossings += ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return crossings % 2 == 1


def distance_to_edges(corners: np.ndarray) -> np.ndarray:
    """Of each pixel's centre to the nearest edge, (H, W)."""
    centres = np.dstack(np.mgrid[:H, :W][::-1] + 0.5)
    nearest = np.full((H, W), np.inf)
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        along = end - start
        share = ((centres - start) @ along) / max(along @ along, 1e-300)
        foot = start + np.clip(share, 0, 1)[..., None] * along
        nearest = np.minimum(nearest, np.linalg.norm(centres - foot, axis=-1))
    return nearest


def star() -> np.ndarray:
    angle = np.arange(5) * 4 * np.pi / 5
    return np.column_stack([32 + 22 * np.sin(angle), 24 - 22 * np.cos(angle)])


def test_the_middle_of_a_pentagram_is_background_as_in_pycocotools():
    drawn, _ = shapes.draw(Shape("polygon", "", [star()]), W, H)
    theirs = coco_masks.decode(coco_masks.frPyObjects([star().ravel().tolist()], H, W))[..., 0] > 0
    assert not drawn[24, 32] and not theirs[24, 32] and dice(drawn, theirs) > 0.95
    np.testing.assert_array_equal(drawn, even_odd(star()))


def test_a_bow_tie_has_two_wings_and_parts_within_one_another_are_united():
    tie = np.array([[4.2, 4], [40.2, 30], [40.2, 4], [4.2, 30.0]])  # its signed area is 0
    drawn, _ = shapes.draw(Shape("polygon", "", [tie]), W, H)
    np.testing.assert_array_equal(drawn, even_odd(tie))
    square = np.array([[2, 2], [30, 2], [30, 30], [2, 30.0]])
    parts = [square, square / 2 + 8]
    united, _ = shapes.draw(Shape("polygon", "", parts), W, H)
    flat = [part.ravel().tolist() for part in parts]
    theirs = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(flat, H, W)))
    assert united[16, 16] and theirs[16, 16] and united.sum() == 28 * 28


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(1, W - 1), st.floats(1, H - 1)), min_size=3, max_size=9))
@example([(3.0, 1.0), (4.0, 1.0), (1.5, 1.5)])  # a corner on a pixel's centre
def test_any_polygon_follows_the_even_odd_rule(points):
    corners = np.array(points)
    sure = distance_to_edges(corners) > 1e-6  # a centre on an edge may fall either way
    try:
        drawn, _ = shapes.draw(Shape("polygon", "", [corners]), W, H)
    except ValueError:
        drawn = np.zeros((H, W), bool)
    np.testing.assert_array_equal(drawn[sure], even_odd(corners)[sure])
