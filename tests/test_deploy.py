"""One file instead of a program: the same maps in every runtime, whole or not there, and nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, golden_checkpoint, kdas
from hazards import files_no_larger_than
from PIL import Image

from kdas_book.deploy import benchmark, costs, export, needed, quantise, runtimes
from kdas_book.deploy.graph import ImageToProbability, between, convolved
from kdas_core import UserError
from kdas_core.data.dataset import resize_image
from kdas_core.data.images import read_image
from kdas_core.data.masks import read_prediction
from kdas_core.inference import probability
from kdas_core.models import build, freeze, save_weights
from kdas_core.models.weights import translate_released

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")

SIZE = 64
SHAPES = [(64, 64), (70, 90), (33, 201), (150, 40)]


def picture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth colours, uint8 RGB (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def net():
    """A student whose maps are not flat: those of a freshly made one are, and would hide nearly any mistake."""
    torch.manual_seed(0)
    net = freeze(build("student"))
    net.load_state_dict(translate_released(golden_checkpoint("student", 0)))
    with torch.no_grad():  # centred, so that masks have edges
        maps = [sum(net(torch.randn(4, 3, SIZE, SIZE)))]
        net.head1.bias -= torch.stack(maps).median()
    return net


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory) -> Path:
    return save_weights(
        net, tmp_path_factory.mktemp("w") / "s.safetensors", role="student", size=SIZE
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Weights of a small convolutional student, which is exported in half the time."""
    torch.manual_seed(0)
    about = {"role": "student", "backbone": "lcnet_035", "size": SIZE}
    net = freeze(build("student", backbone=about["backbone"]))
    return save_weights(net, tmp_path_factory.mktemp("w") / "r.safetensors", **about)


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "student.onnx"
    export.export(weights, path)
    return path


@pytest.fixture(scope="module")
def exported_small(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    export.export(small, path)
    return path


@pytest.fixture
def ready(monkeypatch, exported_small):
    """From now on PyTorch's exporter answers at once, with the small student."""

    class Program:
        model_proto = onnx.load(exported_small)

    del Program.model_proto.metadata_props[:]
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: Program)


# --- the graph --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*SHAPES, (64, 511), (480, 200), (20, 31), (257, 64)])
def test_the_graph_resizes_an_image_to_the_very_grey_levels_of_predict(shape):
    graph, image = (
        ImageToProbability(None, SIZE),
        np.random.default_rng(1).integers(0, 256, (*shape, 3)),
    )
    image = image.astype(np.uint8)
    ours = graph.resized(torch.from_numpy(image)[None])[0].permute(1, 2, 0).numpy()
    off = np.abs(ours - resize_image(image, SIZE).astype(int))
    assert off.max() <= 1 and off.mean() < 3e-4, "a tie of PyTorch's own rounding, and no more"


@pytest.mark.parametrize("backbone", ["pvt_v2_b0", "resnet18"])
def test_mlps_made_of_convolutions_say_the_same(backbone):
    graph = ImageToProbability(freeze(build("student", backbone=backbone)), SIZE)
    images = torch.from_numpy(np.stack([picture((60, 80)), picture((60, 80))[::-1]]))
    with torch.inference_mode():
        before, said = graph(images), convolved(graph)(images)
        assert torch.equal(graph(images), before), "the graph itself stays as it was"
    torch.testing.assert_close(said, before, atol=1e-5, rtol=0)
    layers = [type(layer).__name__ for layer in convolved(graph).modules()]
    assert "MlpWithDepthwiseConv" not in layers
    assert layers.count("_Convolved") == (8 if backbone == "pvt_v2_b0" else 0)


@pytest.mark.parametrize("n", [1, 31, 64, 65, 500])
def test_a_map_is_enlarged_as_pytorch_does(n):
    maps = torch.randn(2, SIZE, 40)
    theirs = F.interpolate(maps[:, None], size=(n, 40), mode="bilinear")[:, 0]
    torch.testing.assert_close(between(maps, n, SIZE, dim=1), theirs, atol=2e-5, rtol=0)
    turned = between(maps.transpose(1, 2).contiguous(), n, SIZE, dim=2)
    torch.testing.assert_close(turned.transpose(1, 2), theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_onnx_file_takes_any_size_and_any_batch(net, exported, shape):
    runtime = runtimes.open_runtime(exported, "onnx")
    images = np.stack([picture(shape, seed) for seed in range(3)])
    maps = runtime.run(images)
    assert maps.shape == (3, *shape) and maps.dtype == np.float32
    for image, found in zip(images, maps):
        expected = probability(net, image, SIZE)
        assert expected.std() > 0.02, "a flat map would agree with nearly anything"
        assert np.abs(found - expected).max() < 1e-4
        assert ((found >= 0.5) == (expected >= 0.5)).mean() >= 0.9999


def test_a_program_of_torch_export_gives_the_same(small, tmp_path):
    path = tmp_path / "s.pt2"
    about = export.export(small, path, "torch-export")
    assert about["probability_off"] < 1e-5
    program = runtimes.open_runtime(path, "torch", backbone="lcnet_035")
    eager = runtimes.open_runtime(small, "torch")
    for shape in SHAPES[1:]:
        images = np.stack([picture(shape), picture(shape, 1)])
        assert np.abs(program.run(images) - eager.run(images)).max() < 1e-5
    assert program.about["size"] == SIZE and program.identity != eager.identity


def test_a_file_says_what_it_is(exported, weights, net):
    about = runtimes.read_about(exported)
    assert about["role"] == "student" and about["backbone"] == "pvt_v2_b0" and about["size"] == SIZE
    assert about["weights_sha256"] == export.weights_digest(net) and about["precision"] == "float32"
    assert "no clinical use" in about["use"] and "terms of the images" in about["licence"]


def test_a_batch_is_its_images_one_by_one(exported):
    run = runtimes.open_runtime(exported, "onnx").run
    images = np.stack([picture((48, 80), seed) for seed in range(2)])
    together = run(images)
    assert np.abs(together[0] - together[1]).max() > 0.05
    for image, found in zip(images, together):
        assert np.abs(run(image[None])[0] - found).max() < 1e-5


# --- kdas predict by a runtime ----------------------------------------------------------------------------------------


def test_masks_of_a_runtime_are_those_of_predict_and_are_kept(
    monkeypatch, weights, exported, polyps, tmp_path, capsys
):
    images = polyps / "TestDataset" / "Kvasir" / "images"
    for runtime, file in (("torch", weights), ("onnx", exported)):
        out = tmp_path / runtime
        words = ["--weights", file, "--runtime", runtime, "--images", images, "--out", out]
        assert kdas(monkeypatch, "predict", *words) == 0
    differ, whites = [], []
    for mask in sorted((tmp_path / "torch").glob("*.png")):
        ours, theirs = (
            read_prediction(folder / mask.name) for folder in (mask.parent, tmp_path / "onnx")
        )
        differ.append(((ours >= 128) != (theirs >= 128)).mean())
        whites.append((ours >= 128).mean())
        assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert len(differ) == 3 and max(differ) <= 1e-4 and 0.02 < np.mean(whites) < 0.98
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "onnx").iterdir()}
    network = runtimes.open_runtime(exported, "onnx")
    runtimes.predict(network, runtimes.checked_images(images), tmp_path / "onnx")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "onnx").iterdir()}
    runtimes.predict(network, runtimes.checked_images(images), tmp_path / "onnx", afresh=True)
    assert before != {path: path.stat().st_mtime_ns for path in (tmp_path / "onnx").iterdir()}


def test_a_flipped_byte_in_a_file_is_noticed(exported_small, small, tmp_path):
    model = onnx.load(exported_small)
    kernel = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    content, at = bytearray(exported_small.read_bytes()), kernel.raw_data[1000:1040]
    content[content.index(at) + 3] ^= 0x40
    (tmp_path / "f.onnx").write_bytes(content)
    with pytest.raises(UserError, match="is damaged: its weights are not those that were written"):
        runtimes.open_runtime(tmp_path / "f.onnx")
    export.export(small, tmp_path / "f.pt2", "torch-export")
    content = bytearray((tmp_path / "f.pt2").read_bytes())
    with zipfile.ZipFile(tmp_path / "f.pt2") as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 0x40
    (tmp_path / "f.pt2").write_bytes(content)
    with pytest.raises(UserError, match=r"f\.pt2 is damaged"):
        runtimes.open_runtime(tmp_path / "f.pt2", "torch")


@pytest.mark.parametrize("value", [np.nan, -0.01, 1.01, "shape", "fails"])
def test_what_a_graph_gives_must_be_a_probability_for_each_pixel(
    monkeypatch, exported_small, tmp_path, value
):
    def run(images):
        if value == "fails":
            raise RuntimeError("GatherND: index out of range")
        sides = (5, 5) if value == "shape" else images.shape[1:3]
        return np.full((len(images), *sides), 0.5 if value == "shape" else value, np.float32)

    monkeypatch.setitem(runtimes._OPENERS, "onnx", lambda *args: run)
    opened = runtimes.open_runtime(exported_small)
    image = tmp_path / "a.png"
    Image.fromarray(picture((64, 80))).save(image)
    wanted = (
        "failed (.*index out of range)" if value == "fails" else "gives no probability for each"
    )
    with pytest.raises(UserError, match=wanted.replace("(", r"\(").replace(")", r"\)")):
        runtimes.predict(opened, [image], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.png"))


def refused(monkeypatch, capsys, *words) -> str:
    """The sentence with which a command ends, exit code 2."""
    capsys.readouterr()
    assert kdas(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("kdas: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize("side", [(31, 64), (8193, 32)])
@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_a_picture_too_small_or_too_large_is_refused_before_the_first_mask(
    monkeypatch, capsys, weights, exported, tmp_path, side, runtime
):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture((64, 64))).save(tmp_path / "in" / "a.png")
    Image.new("RGB", side).save(tmp_path / "in" / "b.png")
    file = weights if runtime == "torch" else exported
    words = ["--images", tmp_path / "in", "--out", tmp_path / "out", "--runtime", runtime]
    said = refused(monkeypatch, capsys, "predict", "--weights", file, *words)
    assert f"b.png is {side[0]}×{side[1]}, and sides of 32 to 8,192 pixels are taken" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "b.png").write_text("no picture")
    assert "b.png is truncated or not an image" in refused(
        monkeypatch, capsys, "predict", "--weights", file, *words
    )
    shutil.rmtree(tmp_path / "in"), (tmp_path / "in").mkdir()
    assert "holds no images" in refused(monkeypatch, capsys, "predict", "--weights", file, *words)


def test_images_or_a_video_and_not_both(monkeypatch, capsys, weights, tmp_path):
    words = ["predict", "--weights", weights, "--out", tmp_path / "o"]
    both = ["--images", tmp_path, "--video", tmp_path / "a.mp4"]
    for more in ([], both):
        assert "Say either --images" in refused(monkeypatch, capsys, *words, *more)


# --- what is refused --------------------------------------------------------------------------------------------------


def spoiled(source: Path, target: Path, how: str) -> Path:
    """An exported file with one thing changed, at ``target``."""
    model = onnx.load(source)
    field, image = model.metadata_props[0], model.graph.input[0]
    about = json.loads(field.value)
    if how == "unmarked":
        del model.metadata_props[:]
    elif how == "not JSON":
        field.value = "{"
    elif how == "a list":
        field.value = "[]"
    elif how == "no size":
        field.value = json.dumps({k: v for k, v in about.items() if k != "size"})
    elif how == "size as text":
        field.value = json.dumps(about | {"size": "64"})
    elif how == "name":
        for node in model.graph.node:
            node.input[:] = ["x" if name == image.name else name for name in node.input]
        image.name = "x"
    elif how == "type":
        image.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    elif how == "rank":
        image.type.tensor_type.shape.dim.add()
    elif how == "planes first":
        image.type.tensor_type.shape.dim[3].dim_value = 4
    elif how == "another input":
        model.graph.input.append(onnx.helper.make_tensor_value_info("y", 1, [1]))
    elif how in ("outside", "in an attribute"):
        tensor = model.graph.initializer[0]
        if how == "in an attribute":
            node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
            model.graph.node.insert(0, node)
            tensor = model.graph.node[0].attribute[0].t
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")
    target.write_bytes(model.SerializeToString())
    return target


FACTS = {"name": "other inputs and outputs", "type": "other inputs", "rank": "other inputs"}
FACTS |= {"planes first": "other inputs", "another input": r"other inputs and outputs \(image, y"}
FACTS |= {"outside": "tensors from other files", "in an attribute": "tensors from other files"}
FACTS |= dict.fromkeys(
    ("unmarked", "not JSON", "a list", "no size", "size as text"), "does not say which network"
)


@pytest.mark.parametrize("how", FACTS)
def test_an_onnx_file_from_elsewhere_is_not_run(exported_small, tmp_path, how):
    path = spoiled(exported_small, tmp_path / "s.onnx", how)
    for runtime in ("onnx", "openvino"):
        with pytest.raises(UserError, match=FACTS[how]):
            runtimes.open_runtime(path, runtime)
    assert runtimes.open_runtime(spoiled(exported_small, path, "not at all"), "onnx")


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("content", [b"", b"<html>", bytes(range(256)) * 9])
def test_a_damaged_file_is_a_sentence(tmp_path, suffix, content):
    path = tmp_path / f"s{suffix}"
    runtime = "torch" if suffix == ".pt2" else "onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"s\.(onnx|pt2) (is damaged or no|has other inputs)"):
        runtimes.open_runtime(path, runtime)
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        runtimes.open_runtime(path, runtime)


def test_a_file_is_of_the_role_the_size_and_the_runtime_that_are_asked_for(
    monkeypatch, capsys, exported, weights, tmp_path
):
    words = ["predict", "--images", tmp_path, "--out", tmp_path / "o", "--weights"]
    Image.fromarray(picture((64, 64))).save(tmp_path / "a.png")
    said = refused(monkeypatch, capsys, *words, exported, "--runtime", "onnx", "--role", "teacher")
    assert "was exported with role student, and teacher is asked for" in said
    said = refused(monkeypatch, capsys, *words, exported, "--runtime", "onnx", "--size", 96)
    assert "was exported with size 64, and 96 is asked for" in said
    assert "choose --runtime onnx or openvino" in refused(monkeypatch, capsys, *words, exported)
    said = refused(monkeypatch, capsys, *words, weights, "--runtime", "onnx")
    assert "is nothing for the runtime onnx; choose --runtime torch" in said
    said = refused(monkeypatch, capsys, *words, weights, "--runtime", "tpu")
    assert 'There is no runtime "tpu"' in said
    assert not (tmp_path / "o").exists()


def test_a_teacher_is_no_student(monkeypatch, capsys, tmp_path, released_file):
    out, teacher = tmp_path / "s.onnx", released_file("teacher", 0)
    said = refused(
        monkeypatch, capsys, "export", "--weights", teacher, "--role", "student", "--out", out
    )
    assert "is for another network" in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "onnxscript", "openvino"])
def test_a_package_that_is_missing_is_named_with_its_command(
    monkeypatch, exported_small, small, tmp_path, package
):
    monkeypatch.setitem(sys.modules, package, None)
    extra = "openvino" if package == "openvino" else r'"kdas_core\[deploy\]"'
    with pytest.raises(UserError, match=rf"^{package} is not installed; .*pip install {extra}$"):
        if package == "onnxscript":
            export.export(small, tmp_path / "s.onnx")
        else:
            runtimes.open_runtime(exported_small, "openvino" if extra == package else "onnx")
    assert not list(tmp_path.iterdir())


# --- a file is whole, right, or not there -----------------------------------------------------------------------------


def test_an_export_that_disagrees_with_pytorch_is_not_written(ready, weights, small, tmp_path):
    """What the exporter answers is the small student; the weights are another network's."""
    out = tmp_path / "s.onnx"
    export.export(small, out)
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"away from PyTorch; .*s.onnx was not written"):
        export.export(weights, out)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]
    export.export(small, out)  # ours may be replaced


@pytest.mark.parametrize("off", ["probability_off", "dice_off"])
def test_either_difference_is_enough_to_refuse(monkeypatch, ready, small, tmp_path, off):
    limit = {"probability_off": export.PROBABILITY_OFF, "dice_off": export.DICE_OFF}
    for value, refuses in ((0.99, False), (1.01, True)):
        found = dict.fromkeys(limit, 0.0) | {off: value * limit[off]}
        monkeypatch.setattr(export, "compare", lambda *args, found=found: found)
        if refuses:
            with pytest.raises(UserError, match="was not written"):
                export.export(small, tmp_path / "new" / "s.onnx")
            assert not list((tmp_path / "new").iterdir())
        else:
            export.export(small, tmp_path / "s.onnx")


def test_the_comparison_sees_one_pixel(monkeypatch, small, exported_small):
    graph = ImageToProbability(export.open_network(small)[0], SIZE)
    images = [picture((60, 80))]
    assert export.compare(graph, exported_small, images)["probability_off"] < 1e-5
    opened = runtimes.open_runtime(exported_small)

    def off(images):
        maps = opened.run(images).copy()
        maps[1, 5, 7] += 0.01
        return maps

    monkeypatch.setattr(
        export, "open_runtime", lambda *args: runtimes.Runtime("onnx", exported_small, {}, off)
    )
    assert export.compare(graph, exported_small, images)["probability_off"] == pytest.approx(
        0.01, abs=1e-4
    )


def test_a_full_disk_leaves_the_old_file(monkeypatch, capsys, ready, small, tmp_path):
    out = tmp_path / "s.onnx"
    words = ["export", "--weights", small, "--out", out]
    with files_no_larger_than(100_000):
        assert "s.onnx cannot be written" in refused(monkeypatch, capsys, *words)
    assert not list(tmp_path.iterdir())
    assert kdas(monkeypatch, *words) == 0
    before = out.read_bytes()
    with files_no_larger_than(100_000):
        refused(monkeypatch, capsys, *words)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_a_file_of_others_stays(monkeypatch, capsys, ready, small, tmp_path):
    out = tmp_path / "s.onnx"
    out.write_text("my thesis")
    said = refused(monkeypatch, capsys, "export", "--weights", small, "--out", out)
    assert "is there already and is no network that kdas exported" in said
    assert out.read_text() == "my thesis" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "words, fact",
    [
        (["--format", "tflite", "--out", "s.onnx"], 'no format "tflite"; choose one of onnx'),
        (["--format", "torch-export", "--out", "s.onnx"], r"must end in .pt2"),
        (["--out", "s.bin"], r"must end in .onnx"),
        (["--int8", "--out", "s.onnx"], "needs training images"),
    ],
)
def test_what_cannot_be_exported_is_said_at_once(monkeypatch, capsys, small, tmp_path, words, fact):
    monkeypatch.chdir(tmp_path)
    assert fact in refused(monkeypatch, capsys, "export", "--weights", small, *words)
    assert not list(tmp_path.iterdir())


# --- int8 -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def int8(exported, polyps, tmp_path_factory) -> Path:
    """Of the transformer: its products of attention, and both resizes, must stay as they are."""
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    images = quantise.calibration_images(polyps, SIZE, 4)
    quantise.quantise(exported, path, images, runtimes.read_about(exported) | {"precision": "int8"})
    return path


def test_calibration_images_are_training_images_of_the_networks_size(polyps):
    images = quantise.calibration_images(polyps, SIZE, 4)
    files = sorted((polyps / "TrainDataset" / "images").iterdir())
    known = [resize_image(read_image(file), SIZE) for file in files]
    assert len(images) == 4 and len({image.tobytes() for image in images}) == 4
    assert all(any((image == other).all() for other in known) for image in images)
    assert len(quantise.calibration_images(polyps, SIZE)) == 10  # all that there are


def test_int8_is_smaller_still_ours_and_computes_what_it_should_in_int8(exported, int8):
    assert int8.stat().st_size < exported.stat().st_size / 3
    assert runtimes.read_about(int8)["precision"] == "int8"
    model = onnx.load(int8)
    made = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name for tensor in model.graph.initializer}

    def quantised(node) -> bool:
        return all(
            made[name].op_type == "DequantizeLinear" for name in node.input[:2] if name in made
        )

    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions and all(map(quantised, convolutions))
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    with_weights = [node for node in products if quantised(node)]
    assert with_weights and all(made[node.input[1]].input[0] in stored for node in with_weights), (
        "products of two activations stay"
    )
    assert not quantised(products[0]) and not quantised(products[1]), "the resize is exact"
    scales = [t for t in model.graph.initializer if t.name.endswith("_scale") and t.dims]
    assert any(len(onnx.numpy_helper.to_array(t)) > 8 for t in scales), "a scale for each channel"


def test_the_table_compares_with_the_first_file(exported, int8, polyps, tmp_path):
    test_set = polyps / "TestDataset" / "Kvasir"
    table = benchmark.precision_table(
        {"float32": exported, "int8": int8}, test_set, tmp_path, runs=3
    )
    first, last = table.loc["float32"], table.loc["int8"]
    assert first["times as fast"] == 1 and first["same pixels"] == 1
    assert last["times as fast"] == pytest.approx(first["latency, ms"] / last["latency, ms"])
    assert last["size, MB"] == int8.stat().st_size / 1e6
    assert 0.5 < last["same pixels"] < 1, "eight bits are not thirty-two"
    assert (
        first["Dice"]
        == benchmark.evaluate(tmp_path / "float32", test_set / "masks").summary["dice"]
    )
    assert first["calibration error"] != last["calibration error"] > 0


@pytest.mark.parametrize(
    "fast, words",
    [
        (1.4999, "1.49 times the speed of float32, so it does not reach 1.5"),
        (1.5, "1.50 times the speed of float32, so it reaches 1.5"),
        (0.8391, "0.83 times the speed of float32, so it does not reach 1.5"),
    ],
)
def test_no_gain_is_rounded_up(fast, words):
    columns = ["size, MB", "latency, ms", "times as fast", "Dice", "calibration error"]
    rows = [[16, 10, 1, 0.8, 0.01, 1], [4.2, 10 / fast, fast, 0.7912, 0.02, 0.99989]]
    frame = benchmark.pd.DataFrame(
        rows, index=["float32", "int8"], columns=[*columns, "same pixels"]
    )
    said = benchmark.verdict(frame)
    assert (
        words in said
        and "3.80 times smaller" in said
        and "-0.0088" in said
        and "99.98 % of" in said
    )


def test_int8_by_the_command_line(monkeypatch, capsys, ready, small, polyps, tmp_path):
    out = tmp_path / "s.onnx"
    words = ["export", "--weights", small, "--out", out, "--int8", "--data-root", polyps]
    assert kdas(monkeypatch, *words) == 0
    assert "int8, student lcnet_035 at 64 px" in capsys.readouterr().out
    assert runtimes.read_about(out)["precision"] == "int8" and list(tmp_path.iterdir()) == [out]
    words[words.index(out)] = tmp_path / "s.pt2"
    said = refused(monkeypatch, capsys, *words, "--format", "torch-export")
    assert "int8 is made of ONNX files only" in said


# --- measuring --------------------------------------------------------------------------------------------------------


def test_runtimes_take_turns_of_ten_passes_and_the_two_before_them_do_not_count():
    now, order = [0.0], []

    def takes(name: str, seconds: list[float]):
        def run(images):
            assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
            fresh = order[-2:] != [name, name]  # another one's turn is hardly over
            order.append(name)
            now[0] += 99 if fresh else seconds[order.count(name) % len(seconds)]

        return runtimes.Runtime(name, Path(), {}, run)

    pair = {"a": takes("a", [1, 3]), "b": takes("b", [2])}
    table = benchmark.measure(pair, 32, batch=2, runs=14, clock=lambda: now[0])
    assert "".join(order) == 12 * "a" + 12 * "b" + 6 * "a" + 6 * "b"
    rows = table.set_index("network")
    assert rows.loc["b", "median_ms"] == rows.loc["b", "p95_ms"] == 2000
    assert rows.loc["a", "median_ms"] == 2000 and rows.loc["a", "p95_ms"] == 3000
    assert set(table["batch"]) == {2}


def test_a_ratio_says_how_many_times_faster_the_second_is():
    rows = [("slow", 1, 1, 30.0), ("fast", 1, 1, 10.0), ("slow", 1, 2, 20.0), ("fast", 1, 2, 40.0)]
    times = benchmark.pd.DataFrame(rows, columns=["network", "batch", "threads", "median_ms"])
    found = benchmark.ratios(times, [("slow", "fast")]).loc["fast against slow"]
    assert found[(1, 1)] == 3 and found[(1, 2)] == 0.5


def test_threads_are_afterwards_what_they_were(small, exported_small):
    before = torch.get_num_threads()
    files = {"torch": (small, "torch"), "onnx": (exported_small, "onnx")}
    table = benchmark.measure_all(files, 32, batches=(1,), threads=(1, 3), runs=2)
    assert torch.get_num_threads() == before
    assert list(table["threads"]) == [1, 1, 3, 3] and (table["median_ms"] > 0).all()


@pytest.fixture(scope="module")
def program():
    """benchmarks/deploy.py"""
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "benchmarks" / "deploy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_compares_what_it_timed(monkeypatch, ready, small, program):
    """With one small network in all roles, and without the processes that measure memory."""
    net = export.open_network(small)[0]
    thin = build("student", backbone=net.backbone.name, width=16)
    monkeypatch.setattr(program, "build", lambda role, width=0: thin if width else net)
    monkeypatch.setattr(benchmark, "peak_memory", lambda *file: 1.0)
    found = json.loads(json.dumps(program.measured(SIZE, 2, [1, 2], [1])))
    took = frame_of(found["times"]).set_index(["network", "batch"])["median_ms"]
    ratios = frame_of(found["ratios"])
    for pair in program.PAIRS[:6]:
        for batch in (1, 2):
            ratio = ratios.loc["{1} against {0}".format(*pair), f"batch {batch}, threads 1"]
            assert ratio == pytest.approx(took[pair[0], batch] / took[pair[1], batch])
    assert len(frame_of(found["layouts"])) == 4
    of_frame = frame_of(found["video"])["ms a frame"]
    assert of_frame["whole"] > max(of_frame["decoding"], of_frame["network"]) > 0
    assert of_frame["network alone"] > 0
    cost = frame_of(found["cost"])
    assert cost.loc["narrow", "MACs, M"] < cost.loc["student", "MACs, M"]
    assert any("QLinear" in name for name in found["int8, onnx: operators"]["index"])
    assert found["machine"]["cores"] >= 1 and found["machine"]["processor"] in json.dumps(found)


def frame_of(split: dict):
    return benchmark.pd.DataFrame(**split)


def test_the_command_times_files_of_one_size(
    monkeypatch, capsys, small, exported_small, weights, tmp_path
):
    monkeypatch.setattr(benchmark, "peak_memory", lambda *file: 77.0)
    words = ["benchmark", small, exported_small, "--batches", "1", "--threads", "1"]
    assert kdas(monkeypatch, *words, "--csv", tmp_path / "t.csv") == 0
    said = capsys.readouterr().out
    assert "r, torch" in said and "small, onnx" in said and "MACs" in said and "77.0" in said
    table = benchmark.pd.read_csv(tmp_path / "t.csv")
    assert list(table["network"]) == ["r, torch", "small, onnx"]
    other = save_weights(
        export.open_network(small)[0], tmp_path / "o.safetensors", size=96, backbone="lcnet_035"
    )
    said = refused(monkeypatch, capsys, *words, other)
    assert "images of 2 sizes" in said
    said = refused(monkeypatch, capsys, "benchmark", small, small)
    assert "two files have one name" in said
    save_weights(
        export.open_network(small)[0], tmp_path / "r.safetensors", size=SIZE, backbone="lcnet_035"
    )
    said = refused(monkeypatch, capsys, "benchmark", small, tmp_path / "r.safetensors")
    assert "two files have one name" in said
    for counts in ("none", "1,,8", "0", "-1", "100", "²", "1,x"):
        said = refused(monkeypatch, capsys, *words[:-1], counts)
        assert "numbers from 1 to 99" in said
    before = (tmp_path / "t.csv").read_text()
    assert kdas(monkeypatch, *words, "--csv", tmp_path / "t.csv") == 0, "ours is replaced"
    assert (tmp_path / "t.csv").read_text() != before
    (tmp_path / "t.csv").write_text("mine")
    said = refused(monkeypatch, capsys, *words, "--csv", tmp_path / "t.csv")
    assert "no table of kdas benchmark" in said and (tmp_path / "t.csv").read_text() == "mine"


def test_a_name_too_long_and_too_much_memory_are_sentences(monkeypatch, capsys, small, tmp_path):
    long = tmp_path / f"{'a' * 300}.safetensors"
    said = refused(monkeypatch, capsys, "export", "--weights", long, "--out", tmp_path / "o.onnx")
    assert "File name too long" in said and "choose a shorter name" in said

    def read(path):
        raise MemoryError

    monkeypatch.setattr(runtimes, "read_bytes", read)  # as for a file of terabytes
    huge = tmp_path / "huge.onnx"
    huge.touch()
    (tmp_path / "in").mkdir()
    Image.fromarray(picture((64, 64))).save(tmp_path / "in" / "a.png")
    words = ["--images", tmp_path / "in", "--out", tmp_path / "out", "--runtime", "onnx"]
    said = refused(monkeypatch, capsys, "predict", "--weights", huge, *words)
    assert "too little memory" in said


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, images):
        tokens = self.conv(images).flatten(2).transpose(1, 2)[:, None]
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize("name", ["p.onnx", "p.pt2"])
def test_what_pytorch_cannot_export_is_a_sentence_and_leaves_nothing(
    small, tmp_path, monkeypatch, name
):
    kind = "onnx" if name.endswith(".onnx") else "torch-export"
    monkeypatch.setattr(torch.export, "Dim", SimpleNamespace())  # as before it had DYNAMIC
    with pytest.raises(UserError, match=r"cannot export this network .*take PyTorch 2\.9 or newer"):
        export.export(small, tmp_path / name, kind)
    assert list(tmp_path.iterdir()) == []


def test_operations_are_counted_by_hand_as_well():
    found = costs.network_cost(Attention(), 8)
    assert found["parameters, M"] == (3 * 8 * 9 + 8) / 1e6
    assert found["MACs, M"] == (64 * 3 * 8 * 9 + 2 * 64 * 64 * 8) / 1e6


def test_memory_is_at_least_the_weights_and_grows_with_the_batch(weights):
    small, large = (costs.peak_memory(weights, "torch", 128, batch) for batch in (1, 16))
    assert weights.stat().st_size / 1e6 < small < large < 2000


def test_a_failed_measurement_of_memory_does_not_wait(tmp_path):
    with pytest.raises(RuntimeError, match="measuring the memory of"):
        costs.peak_memory(tmp_path / "none.onnx", "onnx", 64)


def test_a_profile_shares_out_the_whole_time(net):
    table = costs.profile(net, 64, runs=1)
    assert table["share"].sum() == pytest.approx(1) and table["share"].is_monotonic_decreasing
    convolution = next(name for name in table.index if "conv" in name)
    assert table.loc[convolution, "calls"] >= 1


def test_a_narrower_decoder_has_fewer_parameters_and_the_same_backbone():
    wide, narrow = build("student"), build("student", width=16)
    maps = freeze(narrow)(torch.zeros(1, 3, 64, 64))
    assert [tuple(p.shape) for p in maps] == [(1, 1, 64, 64)] * 2

    def decoder(net):
        return costs.count_parameters(net) - costs.count_parameters(net.backbone)

    assert decoder(narrow) < decoder(wide) / 3


def test_a_package_that_is_there_is_given():
    assert needed("json") is json
