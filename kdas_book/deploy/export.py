"""One file that holds everything between an image and its map of probabilities (`kdas export`)."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdas_book.data.synthetic import render
from kdas_book.deploy import LEAST, MOST, needed
from kdas_book.deploy.graph import ImageToProbability
from kdas_book.deploy.quantise import quantise
from kdas_book.deploy.runtimes import IMAGE, PROBABILITY, PROGRAM, open_runtime, read_about
from kdas_book.files import refuse_foreign, staging_dir
from kdas_core import UserError, __version__
from kdas_core.files import atomic_write, unwritten
from kdas_core.models import BACKBONE_OF_ROLE, open_network
from kdas_core.models.weights import ABOUT, first_line, weights_digest

FORMATS = {"onnx": ".onnx", "torch-export": PROGRAM}
OPSET = 20
PROBABILITY_OFF, DICE_OFF = 1e-4, 1e-3  # how far an exported graph may be from PyTorch
USE = "Research and teaching; no clinical use."
LICENCE = "MIT for the graph; for the weights the terms of the images they were trained on"


def export(
    weights: str | Path,
    out: str | Path,
    format: str = "onnx",
    role: str = "",
    backbone: str = "",
    size: int = 0,
    images: Sequence[np.ndarray] = (),
    int8: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """Write a network as one file that takes uint8 RGB images (B, H, W, 3) of any size and gives
    probabilities, float32 (B, H, W). It gets its name only after it agreed with PyTorch.

    Args:
        weights, role, backbone, size: as `kdas_core.models.open_network`.
        format: one of ``FORMATS``.
        images: uint8 RGB (H, W, 3), on which the two are compared; otherwise drawn polyps.
        int8: training images by which an ONNX file is made int8; without them it stays float32.

    Returns what the file says of itself, with ``probability_off`` and ``dice_off``, the largest
    differences from PyTorch. A UserError where these are above ``PROBABILITY_OFF`` or ``DICE_OFF``
    (an int8 file is not held to them), where the place is taken by a file of others or cannot be
    written, and as `open_network`; then nothing is left, and an older file stays as it was.
    """
    out = Path(out)
    if format not in FORMATS:
        raise UserError(f'There is no format "{format}"; choose one of {", ".join(FORMATS)}.')
    if out.suffix != FORMATS[format]:
        raise UserError(f"{out} must end in {FORMATS[format]}, for the format {format}.")
    if int8 and format != "onnx":
        raise UserError("int8 is made of ONNX files only; leave --format out.")
    net, size = open_network(weights, role, backbone, size)
    refuse_foreign(out, "network that kdas exported", read_about)
    role = role or ("teacher" if net.backbone.name == BACKBONE_OF_ROLE["teacher"] else "student")
    graph = ImageToProbability(net, size)
    about, images = describe(graph, role), list(images) or drawn_images()
    with staging_dir(out) as folder:
        draft = folder / out.name
        (write_onnx if format == "onnx" else write_program)(graph, draft, about)
        off = compare(graph, draft, images)
        if off["probability_off"] > PROBABILITY_OFF or off["dice_off"] > DICE_OFF:
            raise UserError(_disagreement(out, off))
        if int8:
            about["precision"] = "int8"
            quantise(draft, draft, int8, about)
            off = compare(graph, draft, images)
        try:
            os.replace(draft, out)
        except OSError as error:
            raise unwritten(out, error, "choose another place") from None
    return about | off


def describe(graph: ImageToProbability, role: str) -> dict[str, Any]:
    """What a file says of itself."""
    about: dict[str, Any] = {"role": role, "backbone": graph.net.backbone.name, "size": graph.size}
    about |= {"precision": "float32", "weights_sha256": weights_digest(graph.net)}
    return about | {"licence": LICENCE, "use": USE, "kdas_core": __version__}


def _disagreement(out: Path, off: dict[str, float]) -> str:
    fact = "The exported graph is {probability_off:.1e} in probability and {dice_off:.4f} in Dice"
    return f"{fact.format(**off)} away from PyTorch; {out} was not written."


def drawn_images() -> list[np.ndarray]:
    """Six drawn polyps of three shapes, uint8 RGB (H, W, 3)."""
    sides = [(288, 384), (500, 574), (96, 128)] * 2
    return [render(seed, side)[0] for seed, side in enumerate(sides)]


def compare(
    graph: ImageToProbability, file: Path, images: Sequence[np.ndarray]
) -> dict[str, float]:
    """How far a file is from PyTorch running the same graph: of all images the largest difference
    in probability, and the largest distance from 1 of the Dice of the two masks (cut at 0.5).
    """
    runtime = open_runtime(file, "torch" if file.suffix == PROGRAM else "onnx")
    probability_off = dice_off = 0.0
    for image in images:
        batch = np.stack([image, image[::-1]])  # two, so that the batch is not one throughout
        with torch.inference_mode():
            ours = graph(torch.from_numpy(batch)).numpy()
        theirs = runtime.run(batch)
        if theirs.shape != ours.shape or not np.isfinite(theirs).all():
            raise UserError(f"{file.name} gives no finite map of its image's size; report this.")
        probability_off = max(probability_off, float(np.abs(ours - theirs).max()))
        a, b = ours >= 0.5, theirs >= 0.5
        both = (a & b).sum() * 2 / max(1, a.sum() + b.sum()) if (a | b).any() else 1.0
        dice_off = max(dice_off, 1 - float(both))
    return {"probability_off": probability_off, "dice_off": dice_off}


@contextmanager
def _exporting() -> Iterator[None]:
    """Exporters remark on many things that a reader cannot change; what they cannot do is said."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # whatever it is that PyTorch cannot do
            told = f"PyTorch {torch.__version__} cannot export this network"
            knows = hasattr(torch.export.Dim, "DYNAMIC")
            way_out = "report this" if knows else "take PyTorch 2.9 or newer"
            raise UserError(f"{told} ({first_line(error)}); {way_out}.") from None


def _arguments() -> tuple[tuple, tuple]:
    """An example for the exporters, and which of its sides may change: all but the colours."""
    batch = torch.export.Dim.DYNAMIC  # PyTorch 2.9 refuses min=1, and takes one image
    height, width = (torch.export.Dim(side, min=LEAST, max=MOST) for side in ("height", "width"))
    example = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    return (example,), ({0: batch, 1: height, 2: width},)


def write_onnx(graph: ImageToProbability, path: Path, about: dict[str, Any]) -> None:
    """Through torch.export, batch and sides free; UserError where PyTorch cannot, or the disk."""
    needed("onnx"), needed("onnxscript"), needed("onnxruntime")
    with _exporting():
        example, dynamic = _arguments()
        program: Any = torch.onnx.export(
            graph, example, dynamo=True, dynamic_shapes=dynamic, opset_version=OPSET,
            input_names=[IMAGE], output_names=[PROBABILITY], verbose=False,
        )  # fmt: skip
    model = program.model_proto
    model.metadata_props.add(key=ABOUT, value=json.dumps(about))
    atomic_write(path, model.SerializeToString(), durable=True)


def write_program(graph: ImageToProbability, path: Path, about: dict[str, Any]) -> None:
    content = BytesIO()
    with _exporting():
        example, dynamic = _arguments()
        program = torch.export.export(graph, example, dynamic_shapes=dynamic)
        torch.export.save(program, content, extra_files={ABOUT: json.dumps(about)})
    atomic_write(path, content.getvalue(), durable=True)
