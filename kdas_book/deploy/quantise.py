"""Weights and activations in eight bits."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdas_book.deploy import needed
from kdas_book.deploy.runtimes import IMAGE, packed
from kdas_core import UserError
from kdas_core.data.dataset import resize_image
from kdas_core.data.images import read_image
from kdas_core.data.layout import index_pairs
from kdas_core.files import atomic_write
from kdas_core.models.weights import first_line

CALIBRATION_IMAGES = 64


def calibration_images(data_root: str | Path, size: int, count: int = CALIBRATION_IMAGES):
    """So many training images, evenly spaced, uint8 RGB (size, size, 3) each. Test images would
    tell the network something of the test. UserError as `index_pairs`.
    """
    pairs = index_pairs(Path(data_root) / "TrainDataset")
    chosen = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
    return [resize_image(read_image(pairs[i].image), size) for i in chosen]


def quantise(path: Path, out: Path, images: Sequence[np.ndarray], about: dict[str, Any]) -> None:
    """Write an exported ONNX network with 8-bit weights, a scale for each channel, and 8-bit
    activations, whose ranges are the smallest and largest values of an image, in the mean over
    ``images`` (uint8 RGB, of the network's size). Static, as pairs of QuantizeLinear and
    DequantizeLinear around convolutions and products with weights. In float32 stay both resizes,
    the products of attention, which are no faster in eight bits, and the first three convolutions:
    these, and ranges that one odd image stretched, cost an EfficientNet-Lite 0.05 Dice.
    """
    onnx, tools = needed("onnx"), needed("onnxruntime.quantization")
    prepare = needed("onnxruntime.quantization.shape_inference").quant_pre_process
    with _tools(), tempfile.TemporaryDirectory(dir=out.parent) as folder:
        whole, small = (str(Path(folder) / name) for name in ("whole.onnx", "small.onnx"))
        prepare(str(path), whole, skip_symbolic_shape=True)
        left_out = _in_float(onnx.load(whole))
        tools.quantize_static(
            whole, small, _reader(images), tools.QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"], nodes_to_exclude=left_out,
            activation_type=tools.QuantType.QUInt8, weight_type=tools.QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
        )  # fmt: skip
        model = onnx.load(small)
    atomic_write(out, packed(model, about), durable=True)


def _reader(images: Sequence[np.ndarray]):
    base: Any = needed("onnxruntime.quantization").CalibrationDataReader

    class Images(base):
        def __init__(self):
            self.batches = iter(images)

        def get_next(self):
            image = next(self.batches, None)
            return None if image is None else {IMAGE: image[None]}

    return Images()


def _in_float(model) -> list[str]:
    """The nodes outside the network, its first convolutions, its products of two activations."""
    nodes, stored = list(model.graph.node), {tensor.name for tensor in model.graph.initializer}
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    outside = nodes[: convolutions[2] + 1] + nodes[convolutions[-1] + 1 :]
    moving = [n for n in nodes if n.op_type == "MatMul" and not stored.intersection(n.input)]
    return [node.name for node in (*outside, *moving)]


@contextmanager
def _tools() -> Iterator[None]:
    """Silent, and with one sentence for all that they raise, most often for a full disk."""
    logging.disable(logging.WARNING)
    try:
        yield
    except Exception as error:
        fact = f"The network cannot be made int8 ({first_line(error)})"
        raise UserError(f"{fact}; make room on its disk and in {tempfile.gettempdir()}.") from None
    finally:
        logging.disable(logging.NOTSET)
