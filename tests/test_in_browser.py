"""The network in the reader's browser, with a network whose answer is known: the red channel is the probability of polyp."""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from PIL import Image

from kdas_book.deploy.in_browser import NOT_HERE, RUNTIME, copy_runtime, in_browser, pack_model
from kdas_book.publishing.pages import guard, pack_pictures
from kdas_book.publishing.site import served

expect = pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """uint8 (B, H, W, 3) → red / 255, float32 (B, H, W)."""
    onnx = pytest.importorskip("onnx")
    inputs = [
        onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["b", "h", "w", 3])
    ]
    outputs = [
        onnx.helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, ["b", "h", "w"])
    ]
    values = [
        onnx.numpy_helper.from_array(np.array(0), "red"),
        onnx.numpy_helper.from_array(np.array(255, np.float32), "most"),
    ]
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        make("Gather", ["floats", "red"], ["reds"], axis=3),
        make("Div", ["reds", "most"], ["probability"]),
    ]
    graph = onnx.helper.make_graph(nodes, "red", inputs, outputs, values)
    made = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    file = tmp_path_factory.mktemp("model") / "red.onnx"
    onnx.save(made, file)
    return file


def picture(red: int) -> np.ndarray:
    """32 × 24 pixels of which ``red`` columns are red."""
    image = np.zeros((24, 32, 3), np.uint8)
    image[:, :red, 0] = 255
    return image


@pytest.fixture
def page(tmp_path, model):
    """A page as a chapter's cell and the build leave it, and whether it runs the network."""

    def make(with_runtime: bool) -> tuple[Path, bool]:
        static = tmp_path / "_static"
        static.mkdir()
        (static / "live.js").write_bytes((ROOT / "book" / "_static" / "live.js").read_bytes())
        if with_runtime and not copy_runtime(static / "onnxruntime-web"):
            pytest.skip("onnxruntime-web is not there: `make` found no npm, or no registry")
        body = in_browser(model, [picture(8), picture(16)], [picture(0), picture(0)]).data
        head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"/><style>img { width: 90px }</style><title>t</title><link rel="icon" href="data:,"></head>'
        soup = BeautifulSoup(f"{head}<body>{body}</body></html>", "html.parser")
        file = tmp_path / "index.html"
        pack_pictures(soup, file, tmp_path / "_images", tmp_path / "nothing")
        runs = pack_model(soup, file, static)
        guard(soup, runs)
        file.write_text(str(soup), encoding="utf-8")
        return file, runs

    return make


def png(image: np.ndarray) -> bytes:
    packed = BytesIO()
    Image.fromarray(image).save(packed, format="png")
    return packed.getvalue()


@pytest.fixture
def home(page):
    file, runs = page(with_runtime=True)
    assert runs
    (file.parent / "404.html").write_text("not here")
    with served(file.parent) as address:
        yield address


def test_the_network_runs_in_the_page_and_takes_the_readers_own_image(visit, home):
    tab = visit("index.html")
    status = tab.locator(".said")
    expect(status).to_have_text("Choose an image: the network runs in this page.")
    assert not any("onnx" in url for url in tab.asked), "nothing of 14 MB is fetched before a click"
    tab.locator("button").nth(1).click()
    expect(status).to_contain_text("32 × 24 pixels", timeout=60_000)
    expect(status).to_contain_text("50.0 % of the image is polyp")
    row = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 32, 1).data]"
    colours = np.array(tab.evaluate(row)).reshape(32, 4)[:, :3]
    assert (colours[0] == [230, 159, 0]).all(), "the edge is amber"
    assert (colours[16:] == 0).all(), "what is no polyp is as it was"
    reader = tab.locator("input[type=file]")
    reader.set_input_files({"name": "own.png", "mimeType": "image/png", "buffer": png(picture(4))})
    expect(status).to_contain_text("12.5 % of the image is polyp")
    reader.set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"})
    expect(status).to_have_text("“notes.txt” is no image that this browser can read.")
    wide = np.zeros((100, 3200, 3), np.uint8)
    reader.set_input_files({"name": "wide.png", "mimeType": "image/png", "buffer": png(wide)})
    expect(status).to_contain_text("1600 × 50 pixels")
    assert tab.said == [] and all(url.startswith((home, "data:")) for url in tab.asked)


def test_without_the_runtime_the_page_shows_what_was_recorded_and_says_so(page):
    file, runs = page(with_runtime=False)
    soup = BeautifulSoup(file.read_text(), "html.parser")
    live = soup.select_one(".kdas-live")
    assert not runs and "data-model" not in live.attrs and not soup("script")
    assert live.select_one(".said").string == NOT_HERE and len(live("img")) == 2
    assert "wasm" not in soup.select_one("meta[http-equiv]")["content"]
    assert not list(file.parent.rglob("*.onnx"))


def test_a_page_without_a_network_is_left_alone(tmp_path):
    soup = BeautifulSoup("<html><body><p>text</p></body></html>", "html.parser")
    assert not pack_model(soup, tmp_path / "page.html", tmp_path) and not list(tmp_path.iterdir())


def test_half_a_runtime_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    there = tmp_path / "share" / "onnxruntime-web"
    there.mkdir(parents=True)
    (there / RUNTIME[0]).touch()
    assert not copy_runtime(tmp_path / "site") and not (tmp_path / "site").exists()
