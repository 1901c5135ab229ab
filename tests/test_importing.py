"""Other people's layouts: what arrives is what was drawn, the source stays as it was, and faults are named all at once."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from kdas_book.data.check import check_data
from kdas_book.data.importing import NOTE, frames, import_data, output, shapes
from kdas_book.data.importing.frames import Shape
from kdas_core import UserError
from kdas_core.data.images import read_image
from kdas_core.data.layout import index_pairs, is_synthetic
from kdas_core.data.masks import read_mask

H, W = 48, 64


def disc(height: int = H, width: int = W) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    return (x - 26) ** 2 + (y - 28) ** 2 <= 12**2


def picture(seed: int = 0, height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def circle_points(count: int = 60, radius: float = 12.0) -> list[list[float]]:
    angle = np.arange(count) / count * 2 * np.pi
    return np.stack([26 + radius * np.cos(angle), 28 + radius * np.sin(angle)], 1).tolist()


def flat(points: list[list[float]]) -> list[float]:
    return [value for point in points for value in point]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def state(folder: Path) -> dict[str, tuple]:
    """Content and time of every file: what a source must look like before and after."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files
    }


def coco(
    folder: Path, annotations: list[dict], images: list[dict] | None = None, categories=("polyp",)
) -> Path:
    """A COCO file beside ``images/1.jpg … 3.jpg``."""
    for i in (1, 2, 3):
        save(folder / "images" / f"{i}.jpg", picture(i))
    listed = [{"id": i, "file_name": f"{i}.jpg", "width": W, "height": H} for i in (1, 2, 3)]
    content = {"images": listed if images is None else images, "annotations": annotations}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(categories, 1)]
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def outline(image: int = 1, category: int = 1, **more) -> dict:
    return {
        "id": image,
        "image_id": image,
        "category_id": category,
        "segmentation": [flat(circle_points())],
        **more,
    }


def train(out: Path):
    return index_pairs(out / "TrainDataset")


def mask_of(out: Path, name: str) -> np.ndarray:
    return read_mask(out / "TrainDataset" / "masks" / f"{name}.png")


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_many_frames_of_one_name_are_one_sentence(tmp_path):
    src = tmp_path / "src"
    for video in "abcd":
        save(src / "images" / video / "1.png", picture())
        save(src / "masks" / video / "1.png", disc().astype(np.uint8) * 255)
    with pytest.raises(
        UserError, match=r"a/1\.png, .*b/1\.png and 2 more would be called 1; say --prefix"
    ):
        import_data(src, "masks", tmp_path / "out")
    import_data(src, "masks", tmp_path / "out", prefix=True)
    assert train(tmp_path / "out").names == ("a_1", "b_1", "c_1", "d_1")


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_decode_as_the_formats_own_library_does(compressed):
    rng = np.random.default_rng(0)
    for i in range(60):
        height, width = rng.integers(1, 40, 2)
        mask = rng.random((height, width)) < rng.choice([0.02, 0.5, 0.98])
        mask[rng.integers(height), rng.integers(width)] = True
        code = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        if compressed:
            counts = code["counts"].decode()
        else:
            edges = np.flatnonzero(np.diff(np.r_[False, mask.T.ravel()].astype(int))).tolist()
            counts = np.diff([0, *edges, mask.size]).tolist()
        shape = Shape("rle", "polyp", ((int(height), int(width)), shapes.run_lengths(counts)))
        drawn, _ = shapes.draw(shape, int(width), int(height))
        np.testing.assert_array_equal(drawn, mask, err_msg=str(i))


@pytest.mark.parametrize("text", ["\x00", "o", "P", "ÿ", "oooooooooooo1", "5220300000"])
def test_damaged_run_lengths_are_an_error_and_never_a_wrong_mask(text):
    with pytest.raises(ValueError, match="run lengths|run-length"):
        shapes.draw(Shape("rle", "polyp", ((4, 4), shapes.run_lengths(text))), 4, 4)


def test_a_polygon_takes_the_pixels_whose_centres_it_holds():
    drawn, clipped = shapes.draw(
        Shape("polygon", "", [np.array([[1, 1], [4, 1], [4, 3], [1, 3.0]])]), 6, 5
    )
    assert drawn.sum() == 6 and drawn[1:3, 1:4].all() and not clipped
    circle, _ = shapes.draw(Shape("polygon", "", [np.array(circle_points(400))]), W, H)
    filled = np.zeros((H, W), np.uint8)
    cv2.fillPoly(filled, [np.round(circle_points(400)).astype(np.int32)], 1)
    assert (
        abs(int(circle.sum()) - np.pi * 12**2) < 8 < filled.sum() - np.pi * 12**2
    )  # no half pixel all around


def test_polygons_nearly_equal_those_of_the_formats_own_library():
    theirs = coco_masks.decode(coco_masks.frPyObjects([flat(circle_points(40))], H, W))[..., 0] > 0
    ours, _ = shapes.draw(Shape("polygon", "", [np.array(circle_points(40))]), W, H)
    assert dice(ours, theirs) > 0.98


def test_an_ellipse_fills_pi_quarters_of_its_box_and_a_rectangle_all():
    box = Shape("box", "", (4, 6, 44, 36))
    ellipse, rectangle = (shapes.draw(box, W, H, kind)[0] for kind in ("ellipse", "rectangle"))
    assert rectangle.sum() == 40 * 30
    assert ellipse.sum() == pytest.approx(40 * 30 * np.pi / 4, rel=0.01)
    assert not (ellipse & ~rectangle).any()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape("polygon", "", [np.array([[1, 1], [5, 5.0]])]), "has 2 points and encloses no area"),
        (Shape("polygon", "", [np.array([[1, 1], [5, 5], [9, 9.0]])]), "encloses no area"),
        (
            Shape("polygon", "", [np.array([[70, 1], [80, 1], [80, 9.0]])]),
            "outside the 64×48 picture",
        ),
        (Shape("polygon", "", [np.array([[1.6, 1.6], [1.9, 1.6], [1.9, 1.9]])]), "covers no pixel"),
        (Shape("box", "", (5, 5, 5, 9)), "no width or no height"),
        (Shape("rle", "", ((5, 5), np.array([25]))), "5×5 pixels, but the picture has 64×48"),
    ],
)
def test_a_shape_without_area_is_named(shape, words):
    with pytest.raises(ValueError, match=words):
        shapes.draw(shape, W, H, "rectangle")


def test_a_shape_that_sticks_out_is_cut_off_and_says_so():
    drawn, clipped = shapes.draw(
        Shape("polygon", "", [np.array([[-20, -20], [10, -20], [10, 10], [-20, 10.0]])]), W, H
    )
    assert clipped and drawn.sum() == 100 and drawn[:10, :10].all()


# --- COCO -------------------------------------------------------------------------------------------------------------


def test_coco_outlines_arrive_and_the_source_is_untouched(tmp_path):
    file = coco(tmp_path / "src", [outline(1), outline(2, iscrowd=1)])
    before = state(tmp_path / "src")
    report = import_data(file, "coco", tmp_path / "out")
    assert state(tmp_path / "src") == before
    assert train(tmp_path / "out").names == ("1", "2", "3")
    assert dice(mask_of(tmp_path / "out", "1"), disc()) > 0.99
    assert not mask_of(tmp_path / "out", "3").any()  # listed without an annotation: no polyp
    for i in (1, 2, 3):  # byte for byte, and no link to the source
        ours, theirs = (
            tmp_path / f"out/TrainDataset/images/{i}.jpg",
            tmp_path / f"src/images/{i}.jpg",
        )
        assert (
            ours.read_bytes() == theirs.read_bytes() and ours.stat().st_ino != theirs.stat().st_ino
        )
    assert (
        report.sets["TrainDataset"]["pairs"] == 3
        and report.sets["TrainDataset"]["without_polyp"] == 1
    )
    assert report.counts["copied"] == 3 and report.counts["outlines"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]  # no draft is left


def test_run_lengths_and_polygons_of_the_same_polyp_give_the_same_mask(tmp_path):
    code = coco_masks.encode(np.asfortranarray(disc().astype(np.uint8)))
    rle = {"size": [H, W], "counts": code["counts"].decode()}
    file = coco(tmp_path / "src", [outline(1), outline(2) | {"segmentation": rle}])
    import_data(file, "coco", tmp_path / "out")
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "2"), disc())
    assert dice(mask_of(tmp_path / "out", "1"), mask_of(tmp_path / "out", "2")) > 0.99


def test_parts_of_a_polygon_and_several_polyps_are_united(tmp_path):
    two = [[2, 2, 10, 2, 10, 10, 2, 10], [50, 30, 60, 30, 60, 40, 50, 40]]
    file = coco(tmp_path / "src", [outline(1) | {"segmentation": two}, outline(1) | {"id": 9}])
    import_data(file, "coco", tmp_path / "out")
    mask = mask_of(tmp_path / "out", "1")
    assert mask[2:10, 2:10].all() and mask[30:40, 50:60].all() and mask[28, 26] and not mask[45, 5]


def test_a_box_is_refused_until_it_is_said_how_to_draw_it_and_then_called_weak(tmp_path):
    box = outline(1) | {"segmentation": [], "bbox": [14, 16, 24, 24]}
    file = coco(tmp_path / "src", [box])
    with pytest.raises(
        UserError, match="is a box and no outline; say --box ellipse or --box rectangle"
    ):
        import_data(file, "coco", tmp_path / "out")
    import_data(file, "coco", tmp_path / "ellipse", box="ellipse")
    import_data(file, "coco", tmp_path / "rectangle", box="rectangle")
    good, bad = (dice(mask_of(tmp_path / kind, "1"), disc()) for kind in ("ellipse", "rectangle"))
    assert good > 0.98 > 0.9 > bad
    note = json.loads((tmp_path / "ellipse/TrainDataset" / NOTE).read_text())
    assert (
        note["weak_masks"] is True
        and note["counts"]["weak"] == 1
        and note["options"]["box"] == "ellipse"
    )


def test_categories_must_be_chosen_where_there_are_several(tmp_path):
    file = coco(
        tmp_path / "src",
        [outline(1, 1), outline(2, 2), outline(3, 3)],
        categories=("polyp", "tool", "flat"),
    )
    with pytest.raises(
        UserError, match=r"categories flat \(1\), polyp \(1\), tool \(1\); say which .* --label"
    ):
        import_data(file, "coco", tmp_path / "out")
    with pytest.raises(UserError, match="no category adenoma; it has"):
        import_data(file, "coco", tmp_path / "out", labels=["adenoma"])
    report = import_data(file, "coco", tmp_path / "out", labels=["polyp", "flat"])
    assert [mask_of(tmp_path / "out", n).any() for n in "123"] == [True, False, True]
    assert report.counts["other_label"] == 1


def test_all_faults_of_a_source_come_in_one_message_and_nothing_is_written(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": W, "height": H} for i in (1, 2, 3, 4)]
    images[2]["width"] = 640
    faulty = [
        outline(1) | {"segmentation": [[1, 1, 2, 2]]},
        outline(2) | {"segmentation": [[1, 1, 2, "x", 3, 3]]},
        outline(3),
        outline(77),
        outline(2, 5),
        outline(1) | {"segmentation": [[900, 1, 990, 1, 990, 9]]},
        outline(1) | {"segmentation": [[float("nan"), 1, 990, 1, 990, 9]]},
    ]
    file = coco(tmp_path / "src", faulty, images)
    with pytest.raises(UserError) as error:
        import_data(file, "coco", tmp_path / "out")
    text = str(error.value)
    for words in (
        "8 things are wrong",
        "has 2 points and encloses no area",
        "no numbers",
        "3.jpg is 64×48, but its annotation is for 640×48",
        "annotations[3] (id 77) is for image 77",
        "category 5",
        "lies outside",
        "not finite",
        "the image 4.jpg is not below",
    ):
        assert words in text, words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_faults_can_be_skipped_and_are_then_listed_in_the_note(tmp_path):
    file = coco(
        tmp_path / "src", [outline(1) | {"segmentation": [[1, 1, 2, 2]]}, outline(2), outline(77)]
    )
    report = import_data(file, "coco", tmp_path / "out", skip=True)
    assert train(tmp_path / "out").names == (
        "2",
        "3",
    )  # a frame with a faulty outline would have a wrong mask
    skipped = json.loads((tmp_path / "out/TrainDataset" / NOTE).read_text())["skipped"]
    assert skipped == report.skipped and len(skipped) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[1, 2]", "is not a COCO file"),
        (b'{"images": {}, "annotations": [], "categories": []}', "is not a COCO file"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        import_data(tmp_path / "a.json", "coco", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": [1]}, r"category \[1\]"),
        ({"image_id": {}}, "is for image {}"),
        ({"segmentation": {"size": [48], "counts": "1"}}, "run-length mask without a size"),
        ({"segmentation": {"size": [48, 64], "counts": None}}, "has no run lengths"),
        ({"segmentation": {"size": [48, 64], "counts": [1, 2]}}, "do not add up to 64×48 pixels"),
        ({"segmentation": [[1, 2, 3]]}, "not pairs of x and y"),
        ({"segmentation": "1 2 3"}, "neither an outline nor a box"),
        ({"segmentation": [], "bbox": [1, 2, None, 4]}, "no numbers"),
    ],
)
def test_a_wrong_entry_is_a_sentence_and_no_traceback(tmp_path, change, words):
    file = coco(tmp_path / "src", [outline(1) | change])
    with pytest.raises(UserError, match=words):
        import_data(file, "coco", tmp_path / "out", box="ellipse")


@pytest.mark.parametrize("name", ["/", "..", "../../etc/passwd", "no.jpg"])
def test_an_image_that_is_not_below_the_folder_is_named(tmp_path, name):
    images = [{"id": 1, "file_name": name, "width": W, "height": H}]
    with pytest.raises(UserError, match="is not below"):
        import_data(coco(tmp_path / "src", [], images), "coco", tmp_path / "out")


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "LARGEST_JSON", 10)
    with pytest.raises(UserError, match="too much to read at once; divide it"):
        import_data(coco(tmp_path / "src", []), "coco", tmp_path / "out")


# --- Labelme ----------------------------------------------------------------------------------------------------------


def labelme(path: Path, entries: list[dict], **more) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "shapes": entries,
        "imagePath": f"{path.stem}.png",
        "imageData": None,
        "imageHeight": H,
        "imageWidth": W,
    }
    path.write_text(json.dumps(content | more))
    return path


def test_labelme_shapes_of_every_kind_give_the_polyp(tmp_path):
    small = io.BytesIO()
    Image.fromarray(disc()[10:45, 10:50]).save(small, "PNG")
    kinds = {
        "polygon": {"points": circle_points()},
        "circle": {"points": [[26, 28], [38, 28]]},
        "rectangle": {"points": [[38, 40], [14, 16]]},
        "mask": {
            "points": [[10, 10], [49, 44]],
            "mask": base64.b64encode(small.getvalue()).decode(),
        },
    }
    for kind, entry in kinds.items():
        save(tmp_path / "src" / f"{kind}.png", picture())
        labelme(
            tmp_path / "src" / f"{kind}.json", [{"label": "polyp", "shape_type": kind, **entry}]
        )
    report = import_data(tmp_path / "src", "labelme", tmp_path / "out", box="ellipse")
    assert {
        kind: dice(mask_of(tmp_path / "out", kind), disc()) > 0.98 for kind in kinds
    } == dict.fromkeys(kinds, True)
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "mask"), disc())
    assert report.counts["weak"] == 1 and report.counts["outlines"] == 3


def test_labelme_pictures_are_found_beside_elsewhere_and_inside(tmp_path):
    src, shape = (
        tmp_path / "src",
        [{"label": "polyp", "shape_type": "polygon", "points": circle_points()}],
    )
    for video in "ab":  # the same name in two folders, each beside its own file
        save(src / video / "001.png", picture(ord(video)))
        labelme(src / video / "001.json", shape)
    save(src / "pictures" / "polype nº 7 – ruột già.png", picture(7))
    labelme(src / "json" / "7.json", shape, imagePath="..\\pictures\\polype nº 7 – ruột già.png")
    code = io.BytesIO()
    Image.fromarray(picture(9)).save(code, "JPEG")
    labelme(
        src / "inside.json",
        shape,
        imagePath="C:\\gone.jpg",
        imageData=base64.b64encode(code.getvalue()).decode(),
    )
    with pytest.raises(UserError, match="would be called 001; say --prefix"):
        import_data(src, "labelme", tmp_path / "out")
    import_data(src, "labelme", tmp_path / "out", prefix=True)
    images = tmp_path / "out/TrainDataset/images"
    assert set(train(tmp_path / "out").names) == {
        "a_001",
        "b_001",
        "pictures_polype nº 7 – ruột già",
        "inside",
    }
    np.testing.assert_array_equal(read_image(images / "b_001.png"), picture(ord("b")))
    assert (images / "inside.jpg").read_bytes() == code.getvalue()


def test_an_image_without_annotation_is_a_fault_until_it_is_said_what_that_means(tmp_path):
    save(tmp_path / "src" / "1.png", picture())
    save(tmp_path / "src" / "2.png", picture())
    labelme(tmp_path / "src" / "1.json", [{"label": "polyp", "points": circle_points()}])
    with pytest.raises(
        UserError, match=r"2\.png has no annotation; say --negatives keep .* or --negatives drop"
    ):
        import_data(tmp_path / "src", "labelme", tmp_path / "out")
    import_data(tmp_path / "src", "labelme", tmp_path / "kept", negatives="keep")
    import_data(tmp_path / "src", "labelme", tmp_path / "dropped", negatives="drop")
    assert (
        train(tmp_path / "kept").names == ("1", "2") and not mask_of(tmp_path / "kept", "2").any()
    )
    assert train(tmp_path / "dropped").names == ("1",)


def test_a_line_and_a_file_of_another_program_are_named_together(tmp_path):
    save(tmp_path / "src" / "1.png", picture())
    labelme(
        tmp_path / "src" / "1.json",
        [{"label": "polyp", "shape_type": "line", "points": [[1, 1], [9, 9]]}],
    )
    (tmp_path / "src" / "settings.json").write_text("{}")
    with pytest.raises(
        UserError,
        match=r"(?s)is a line, which encloses no area.*settings\.json is not a Labelme file",
    ):
        import_data(tmp_path / "src", "labelme", tmp_path / "out")


# --- boxes ------------------------------------------------------------------------------------------------------------

VOC = """<annotation><filename>{name}</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>polyp</name><bndbox><xmin>15</xmin><ymin>17</ymin><xmax>38</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def test_voc_boxes_count_pixels_from_one_and_hold_the_last(tmp_path):
    save(tmp_path / "src/JPEGImages/a.jpg", picture())
    (tmp_path / "src/Annotations").mkdir()
    (tmp_path / "src/Annotations/a.xml").write_text(VOC.format(name="a.jpg"))
    import_data(tmp_path / "src/Annotations", "voc", tmp_path / "out", box="rectangle")
    expected = np.zeros((H, W), bool)
    expected[16:40, 14:38] = True
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "a"), expected)


def test_an_entity_bomb_in_xml_is_refused_unread(tmp_path):
    save(tmp_path / "src/a.jpg", picture())
    levels = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "polyp">{levels}]>' + VOC.format(name="&l9;")
    (tmp_path / "src/a.xml").write_text(bomb)
    (tmp_path / "src/b.xml").write_text(
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">' + VOC.format(name="a.jpg")
    )
    (tmp_path / "src/c.xml").write_text("<annotation>")
    with pytest.raises(UserError) as error:
        import_data(tmp_path / "src", "voc", tmp_path / "out", box="ellipse", negatives="drop")
    assert [f"{n}.xml is not the XML of Pascal VOC" in str(error.value) for n in "abc"] == [
        True
    ] * 3


def test_yolo_lines_hold_boxes_and_polygons_in_fractions(tmp_path):
    for name in ("box", "outline", "nothing"):
        save(tmp_path / f"src/images/{name}.png", picture())
    labels = tmp_path / "src/labels"
    labels.mkdir()
    (labels / "box.txt").write_text(f"0 {26 / W} {28 / H} {24 / W} {24 / H}\n1 0.5 0.5 1 1\n")
    (labels / "outline.txt").write_text(
        "0 " + " ".join(f"{x / W} {y / H}" for x, y in circle_points())
    )
    (labels / "nothing.txt").write_text("")
    import_data(tmp_path / "src", "yolo", tmp_path / "out", labels=["0"], box="ellipse")
    assert all(dice(mask_of(tmp_path / "out", name), disc()) > 0.98 for name in ("box", "outline"))
    assert not mask_of(tmp_path / "out", "nothing").any()
    (labels / "box.txt").write_text("0 300 200 24 24\n")
    with pytest.raises(UserError, match=r"box\.txt, line 1 has coordinates that are no fractions"):
        import_data(tmp_path / "src", "yolo", tmp_path / "again")


# --- mask files -------------------------------------------------------------------------------------------------------


def test_one_folder_with_suffixes(tmp_path):
    save(tmp_path / "src/v1/7.jpg", picture())
    save(tmp_path / "src/v1/7_mask.png", disc().astype(np.uint8) * 255)
    with pytest.raises(UserError, match="say --mask-suffix, such as _mask"):
        import_data(tmp_path / "src", "masks", tmp_path / "out")
    import_data(tmp_path / "src", "masks", tmp_path / "out", mask_suffix="_mask")
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "7"), disc())
    (tmp_path / "src/v1/7.jpg").rename(tmp_path / "src/v1/8.jpg")
    with pytest.raises(
        UserError,
        match=r"(?s)2 things.*7_mask\.png is a mask without an image.*8\.jpg has no annotation",
    ):
        import_data(tmp_path / "src", "masks", tmp_path / "again", mask_suffix="_mask")


def test_several_classes_by_value_palette_index_and_colour(tmp_path):
    classes = np.where(disc(), 1, 0).astype(np.uint8)
    classes[:5] = 3
    classes[40:] = 2
    palette = Image.fromarray(classes)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    for name, mask in (
        ("grey", Image.fromarray(classes)),
        ("palette", palette),
        ("colour", palette.convert("RGB")),
    ):
        save(tmp_path / name / "images/1.png", picture())
        (tmp_path / name / "masks").mkdir()
        mask.save(tmp_path / name / "masks/1.png")
    with pytest.raises(
        UserError, match="has the values 0, 1, 2, 3; say which are polyp, such as --values 1,2,3"
    ):
        import_data(tmp_path / "grey", "masks", tmp_path / "out")
    with pytest.raises(UserError, match="is a mask in colours; say which are polyp with --colours"):
        import_data(tmp_path / "colour", "masks", tmp_path / "out", values=[1])
    with pytest.raises(UserError, match="No mask holds 9"):
        import_data(tmp_path / "grey", "masks", tmp_path / "out", values=[9])
    import_data(tmp_path / "grey", "masks", tmp_path / "a", values=[1, 3])
    import_data(tmp_path / "palette", "masks", tmp_path / "b", values=[1, 3])
    import_data(tmp_path / "colour", "masks", tmp_path / "c", colours=["ff0000", "#0000ff"])
    for out in "abc":
        np.testing.assert_array_equal(
            mask_of(tmp_path / out, "1"), np.isin(classes, (1, 3)), err_msg=out
        )


def test_tiff_stacks_become_frames_and_twelve_bits_fill_eight(tmp_path):
    deep = [
        (np.random.default_rng(i).integers(0, 2**12, (H, W), dtype=np.uint16)) for i in range(3)
    ]
    deep[0][0, 0] = 4095
    masks = [np.roll(disc(), i, 1).astype(np.uint8) * 255 for i in range(3)]
    (tmp_path / "src").mkdir()
    cv2.imwritemulti(str(tmp_path / "src/v.tif"), deep)
    cv2.imwritemulti(str(tmp_path / "src/v_mask.tif"), masks)
    import_data(tmp_path / "src", "masks", tmp_path / "out", mask_suffix="_mask")
    assert train(tmp_path / "out").names == ("v_0001", "v_0002", "v_0003")
    for i in range(3):
        image = read_image(tmp_path / f"out/TrainDataset/images/v_{i + 1:04}.png")
        np.testing.assert_array_equal(image[..., 1], deep[i] >> 4)
        np.testing.assert_array_equal(mask_of(tmp_path / "out", f"v_{i + 1:04}"), masks[i] > 0)
    cv2.imwritemulti(str(tmp_path / "src/v_mask.tif"), masks[:2])
    with pytest.raises(UserError, match=r"has 3 pages, but its mask .* has 2"):
        import_data(tmp_path / "src", "masks", tmp_path / "again", mask_suffix="_mask")


def test_sixteen_bit_colours_keep_their_order(tmp_path):
    deep = np.zeros((H, W, 3), np.uint16)
    deep[..., 0], deep[..., 1] = 0xFF00, 0x1234  # red and some green
    for suffix in ("png", "tif"):
        (tmp_path / suffix / "images").mkdir(parents=True)
        (tmp_path / suffix / f"images/1.{suffix}").write_bytes(
            cv2.imencode(f".{suffix}", deep[..., ::-1])[1].tobytes()
        )
        save(tmp_path / suffix / "masks/1.png", disc().astype(np.uint8) * 255)
        import_data(tmp_path / suffix, "masks", tmp_path / f"{suffix}-out")
        image = read_image(tmp_path / f"{suffix}-out/TrainDataset/images/1.png")
        assert image[0, 0].tolist() == [0xFF, 0x12, 0]


def test_a_mask_of_sixteen_bit_colours_is_read_as_grey(tmp_path):
    deep = np.repeat(disc()[..., None] * np.uint16(65535), 3, 2)
    for name, channels in (("white", 3), ("blue", 1)):
        save(tmp_path / name / "images/1.png", picture())
        (tmp_path / name / "masks").mkdir()
        code = cv2.imencode(".png", deep * (np.arange(3) < channels).astype(np.uint16))[1]
        (tmp_path / name / "masks/1.png").write_bytes(code.tobytes())
    import_data(tmp_path / "white", "masks", tmp_path / "out")
    np.testing.assert_array_equal(mask_of(tmp_path / "out", "1"), disc())
    with pytest.raises(UserError, match="is in colour; it has the colours .* --colours 0000ff"):
        import_data(tmp_path / "blue", "masks", tmp_path / "again")


def test_an_unequal_pair_and_a_cut_off_image_are_named_together(tmp_path):
    save(tmp_path / "src/images/1.png", picture(height=40))
    cut = save(tmp_path / "src/images/2.jpg", picture())
    cut.write_bytes(cut.read_bytes()[:900])
    for i in (1, 2):
        save(tmp_path / f"src/masks/{i}.png", disc().astype(np.uint8) * 255)
    with pytest.raises(
        UserError,
        match=r"(?s)1\.png is 64×40, but its annotation is for 64×48.*2\.jpg is truncated",
    ):
        import_data(tmp_path / "src", "masks", tmp_path / "out")


# --- EXIF -------------------------------------------------------------------------------------------------------------


def turned_jpeg(path: Path, orientation: int) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.kron(picture(5, H // 8, W // 8), np.ones((8, 8, 1), np.uint8))
    save(path, stored, exif=exif, quality=95)
    return np.asarray(Image.open(path).convert("RGB"))


def test_exif_turns_a_picture_only_where_its_annotation_was_drawn_turned(tmp_path):
    upright = np.rot90(disc(), -1)
    stored = turned_jpeg(
        tmp_path / "turned/images/1.jpg", 6
    )  # 6: turn by 90° clockwise to see it upright
    save(tmp_path / "turned/masks/1.png", upright.astype(np.uint8) * 255)
    turned_jpeg(tmp_path / "stored/images/1.jpg", 6)
    save(tmp_path / "stored/masks/1.png", disc().astype(np.uint8) * 255)
    for name, expected in (("turned", np.rot90(stored, -1)), ("stored", stored)):
        import_data(tmp_path / name, "masks", tmp_path / f"{name}-out")
        pair = train(tmp_path / f"{name}-out")[0]
        np.testing.assert_array_equal(read_image(pair.image), expected)
        assert not Image.open(pair.image).getexif()  # no viewer turns it once more


def test_half_a_turn_shows_in_no_size_and_must_be_said(tmp_path):
    stored = turned_jpeg(tmp_path / "src/images/1.jpg", 3)
    save(tmp_path / "src/masks/1.png", disc().astype(np.uint8) * 255)
    with pytest.raises(
        UserError, match="nothing tells if it was annotated turned; say --exif turned"
    ):
        import_data(tmp_path / "src", "masks", tmp_path / "out")
    import_data(tmp_path / "src", "masks", tmp_path / "out", exif="turned")
    np.testing.assert_array_equal(read_image(train(tmp_path / "out")[0].image), stored[::-1, ::-1])


# --- names, groups, places --------------------------------------------------------------------------------------------


def videos(folder: Path, lengths: dict[str, int]) -> Path:
    for video, length in lengths.items():
        for i in range(length):
            save(folder / "images" / f"{video}_{i:03}.png", picture(i, 32, 32))
            save(folder / "masks" / f"{video}_{i:03}.png", disc(32, 32).astype(np.uint8) * 255)
    return folder


def test_frames_of_one_video_are_never_on_both_sides(tmp_path):
    src = videos(tmp_path / "src", {"a": 4, "b": 4, "c": 4, "d": 8})
    for seed in range(4):
        out = tmp_path / f"out{seed}"
        report = import_data(
            src, "masks", out, split=0.4, group_by="^[a-z]+", seed=seed, test_name="Ours"
        )
        sides = [
            {n[0] for n in index_pairs(out / part).names}
            for part in ("TrainDataset", "TestDataset/Ours")
        ]
        assert sides[0] | sides[1] == set("abcd") and not sides[0] & sides[1]
        assert report.sets["TestDataset/Ours"]["pairs"] == 8
    assert "Divided frame by frame" not in str(report)
    assert "Divided frame by frame" in str(
        import_data(src, "masks", tmp_path / "by_frame", split=0.4)
    )


def test_groups_from_a_table_and_frames_without_one(tmp_path):
    src = videos(tmp_path / "src", {"a": 2, "b": 2})
    table = tmp_path / "patients.csv"
    table.write_text("name,group\na_000,p1\na_001,p2\nb_000,p1\n")
    with pytest.raises(UserError, match=r"patients\.csv has no group for b_001"):
        import_data(src, "masks", tmp_path / "out", split=0.5, groups=str(table))
    table.write_text("name,group\na_000,p1\na_001,p2\nb_000,p1\nb_001,p2\n")
    import_data(src, "masks", tmp_path / "out", split=0.5, groups=str(table))
    assert set(train(tmp_path / "out").names) in ({"a_000", "b_000"}, {"a_001", "b_001"})


def test_the_division_is_as_near_to_the_share_as_groups_allow_and_leaves_neither_side_empty():
    groups = [g for g, n in {"a": 10, "b": 7, "c": 2, "d": 1}.items() for _ in range(n)]
    for seed in range(10):
        for share in (0.01, 0.3, 0.99):
            testing = output.divide(groups, share, seed)
            assert 0 < sum(testing) < len(groups)
            assert all(len({t for g, t in zip(groups, testing) if g == one}) == 1 for one in "abcd")
    assert output.divide(groups, 0.3, 5) == output.divide(groups, 0.3, 5)
    with pytest.raises(UserError, match='of one group, "a", which cannot be divided'):
        output.divide(["a", "a"], 0.5, 0)


def test_a_test_set_joins_others_and_nothing_is_written_over(tmp_path):
    src, out = videos(tmp_path / "src", {"a": 2}), tmp_path / "out"
    import_data(src, "masks", out)
    import_data(src, "masks", out, split=1, test_name="MyHospital")
    before = state(out)
    assert index_pairs(out / "TestDataset/MyHospital").names == ("a_000", "a_001")
    for split in (0, 0.5, 1):
        with pytest.raises(UserError, match="exist.* already, and nothing is written over"):
            import_data(src, "masks", out, split=split, test_name="MyHospital")
    assert state(out) == before
    assert check_data(out / "TrainDataset").problems == ()


def test_where_an_import_must_not_go(tmp_path, polyps):
    src = videos(tmp_path / "src", {"a": 2})
    with pytest.raises(UserError, match="lies inside the source"):
        import_data(src, "masks", src / "out")
    with pytest.raises(UserError, match="holds synthetic polyps"):
        import_data(src, "masks", polyps, split=1)
    assert not (polyps / "TestDataset/Own").exists()
    import_data(src, "masks", tmp_path / "out")
    assert not is_synthetic(tmp_path / "out") and not is_synthetic(tmp_path / "out/TrainDataset")


def test_what_was_written_under_the_packages_former_name_counts_the_same(tmp_path):
    src, out = videos(tmp_path / "src", {"a": 2}), tmp_path / "out"
    import_data(src, "masks", out)
    note = out / "TrainDataset" / NOTE
    assert json.loads(note.read_text())["made_by"] == "kdas_book.data.importing"
    note.write_text(note.read_text().replace("kdas_book.", "kdas_core."))
    before = state(out)
    with pytest.raises(UserError, match="exist already, and nothing is written over"):
        import_data(src, "masks", out)
    import_data(src, "masks", out, split=1)  # another set joins it
    assert {path: about for path, about in state(out).items() if path in before} == before
    assert not is_synthetic(out) and check_data(out / "TrainDataset").problems == ()
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    (drawn / "dataset.json").write_text('{"made_by": "kdas_core.data.synthetic"}')
    with pytest.raises(UserError, match="holds synthetic polyps"):
        import_data(src, "masks", drawn)


def test_an_import_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    src, out = videos(tmp_path / "src", {"a": 2}), tmp_path / "out"
    import_data(src, "masks", out)
    before = state(out)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.rename", full)
    with pytest.raises(UserError, match="cannot be written"):
        import_data(src, "masks", out, split=1)
    assert state(out) == before and sorted(p.name for p in tmp_path.iterdir()) == ["out", "src"]


def test_two_names_that_differ_only_in_case_are_refused(tmp_path):
    src = videos(tmp_path / "src", {"a": 1})
    for part in ("images", "masks"):
        (src / part / "A_000.png").write_bytes((src / part / "a_000.png").read_bytes())
    with pytest.raises(UserError, match=r"A_000\.png.*a_000\.png would be called"):
        import_data(src, "masks", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": 1.5}, "between 0 and 1"),
        ({"box": "oval"}, 'box is "oval"; choose ellipse or rectangle'),
        ({"test_name": "../x"}, "must be the name of a folder"),
        ({"colours": ["red"]}, "six hexadecimal digits"),
        ({"split": 0.5, "group_by": "("}, "is no regular expression"),
        ({"split": 0.5, "group_by": "video"}, "finds nothing in"),
    ],
)
def test_wrong_options_are_said_in_a_sentence(tmp_path, options, words):
    src = videos(tmp_path / "src", {"a": 2})
    with pytest.raises(UserError, match=words):
        import_data(src, "masks", tmp_path / "out", **options)


def test_the_command_prints_counts_and_what_to_do_next(tmp_path):
    file, out = (
        coco(tmp_path / "src", [outline(1), outline(2)], categories=("polyp", "tool")),
        tmp_path / "out",
    )
    words = [
        sys.executable,
        "-m",
        "kdas_book.cli",
        "data",
        "import",
        str(file),
        "--as",
        "coco",
        "--out",
        str(out),
    ]
    refused = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (
        refused.returncode == 2
        and "say which are polyps" in refused.stderr
        and "Traceback" not in refused.stderr
    )
    done = subprocess.run(
        [*words, "--label", "polyp", "--split", "0.34"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 pairs from coco" in done.stdout and f'Next: "kdas data check {out}"' in done.stdout
    assert len(index_pairs(out / "TestDataset/Own")) == 1 and len(train(out)) == 2


def import_coco(folder: Path, annotation: dict, categories=None, **size):
    """One picture of 64 × 48 pixels and one annotation of it."""
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    entry = {"id": 1, "file_name": "a.png"} | size
    content = {"images": [entry], "annotations": [{"id": 1, "image_id": 1, "category_id": 1}]}
    content["annotations"][0] |= annotation
    content["categories"] = categories or [{"id": 1, "name": "polyp"}]
    (folder / "c.json").write_text(json.dumps(content))
    return import_data(folder / "c.json", "coco", folder.parent / "out")


@pytest.mark.parametrize(
    "polygon, more, fact",
    [
        ([0.1, 0.1, 0.5, 0.1, 0.5, 0.5], {}, "are fractions and no pixels"),
        ([9, 9, 20, 9, 20, 20], {"width": "32", "height": "24"}, "its annotation is for 32×24"),
        ([9, 9, 20, 9, 20, 20], {"width": 32.0, "height": 24.0}, "its annotation is for 32×24"),
    ],
)
def test_coordinates_of_another_scale_are_refused(tmp_path, polygon, more, fact):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=fact):
        import_coco(tmp_path / "in", {"segmentation": [polygon]}, **more)


def test_an_id_of_two_categories_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    two = [{"id": 1, "name": "polyp"}, {"id": 1, "name": "water"}]
    with pytest.raises(UserError, match="two categories of one id"):
        import_coco(tmp_path / "in", {"segmentation": [[9, 9, 20, 9, 20, 20]]}, two)


def test_the_outline_of_an_xml_is_not_replaced_by_its_box(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "in" / "a.png")
    box = "<xmin>9</xmin><ymin>9</ymin><xmax>20</xmax><ymax>20</ymax>"
    shape = f"<name>polyp</name><bndbox>{box}</bndbox><polygon><x1>9</x1></polygon>"
    text = f"<annotation><object>{shape}</object></annotation>"
    (tmp_path / "in" / "a.xml").write_text(text)
    with pytest.raises(UserError, match="has an outline .polygon., which is not read"):
        import_data(tmp_path / "in", "voc", tmp_path / "out", box="rectangle")
