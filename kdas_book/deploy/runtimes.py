"""An exported network, or plain weights, in one of three runtimes; other files are refused."""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdas_book.deploy import LEAST, MOST, needed, refuse_size
from kdas_book.deploy.graph import ImageToProbability
from kdas_core import UserError
from kdas_core.data.images import opened, read_bytes, read_image
from kdas_core.data.layout import list_images
from kdas_core.inference import write_masks
from kdas_core.models import open_network
from kdas_core.models.weights import ABOUT, first_line

RUNTIMES = ("torch", "onnx", "openvino")
PROGRAM = ".pt2"  # suffix of what torch.export writes
IMAGE, PROBABILITY = "image", "probability"  # the names of the graph's input and output
_FIELDS = {"role": str, "backbone": str, "size": int, "precision": str, "weights_sha256": str}
_FOREIGN = 'only what "kdas export" wrote is run'


@dataclass(frozen=True)
class Runtime:
    """``runtime.run(images)``: uint8 RGB (B, H, W, 3) to float32 (B, H, W) in [0, 1].

    ``about`` is what the file says of itself, ``identity`` changes with the file and the runtime.
    """

    name: str
    path: Path
    about: dict[str, Any]
    run: Callable[[np.ndarray], np.ndarray]

    @property
    def identity(self) -> str:
        """16 hexadecimal digits."""
        return blake2b(self.name.encode() + read_bytes(self.path), digest_size=8).hexdigest()


def open_runtime(
    path: str | Path, runtime: str = "onnx", threads: int = 0, role: str = "", backbone="", size=0
) -> Runtime:
    """A network, ready to run on the processor.

    Args:
        path: an exported file; for the runtime ``torch`` also weights, as `open_network` takes.
        runtime: one of ``RUNTIMES``.
        threads: of one pass; 0: as many as the runtime likes. PyTorch has one number for all.
        role, backbone, size: what the file must be of, if given; of weights as `open_network`.

    A UserError for a file that is missing, is damaged, is no network of `kdas export`, is of
    another role or size, or keeps data outside itself; and for a runtime that is not installed.
    """
    path = Path(path)
    if runtime not in RUNTIMES:
        raise UserError(f'There is no runtime "{runtime}"; choose one of {", ".join(RUNTIMES)}.')
    if (runtime == "torch") == (path.suffix == ".onnx"):
        fits = "onnx or openvino" if path.suffix == ".onnx" else "torch"
        raise UserError(f"{path} is nothing for the runtime {runtime}; choose --runtime {fits}.")
    if runtime == "torch" and path.suffix != PROGRAM:
        about, run = _open_weights(path, role, backbone, size)
    else:
        about = read_about(path)
        for name, given in (("role", role), ("backbone", backbone), ("size", size)):
            if given and about[name] != given:
                fact = f"{path} was exported with {name} {about[name]}, and {given} is asked for"
                raise UserError(f"{fact}; leave that out.")
        try:
            run = _OPENERS[runtime](path, threads)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes the readers raise nearly anything
            raise UserError(f"{path} cannot be run by {runtime} ({first_line(error)}).") from None
    if threads and runtime == "torch":
        torch.set_num_threads(threads)
    return Runtime(runtime, path, about, _checked(run, path))


def _checked(run: Callable, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A UserError where a graph fails, or gives something else than a probability a pixel."""

    def checked(images: np.ndarray) -> np.ndarray:
        try:
            maps = run(images)
        except Exception as error:  # as when opening
            raise UserError(f"{path} failed ({first_line(error)}); export it again.") from None
        if maps.shape != images.shape[:3] or not (maps.min() >= 0 and maps.max() <= 1):
            raise UserError(f"{path} gives no probability for each pixel; export it again.")
        return maps

    return checked


def _open_weights(path: Path, role: str, backbone: str, size: int) -> tuple[dict, Callable]:
    net, side = open_network(path, role, backbone, size)
    return {"size": side, "precision": "float32"}, _of_module(ImageToProbability(net, side))


def _of_module(module: Callable) -> Callable[[np.ndarray], np.ndarray]:
    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return run


def _open_program(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    return _of_module(torch.export.load(path).module())


def _open_onnx(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    onnxruntime = needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors, no remarks on the graph
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([PROBABILITY], {IMAGE: images})[0]


def _open_openvino(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    openvino = needed("openvino")
    # Else it may compute in bfloat16, where the processor can.
    how = {"INFERENCE_PRECISION_HINT": "f32"} | (
        {"INFERENCE_NUM_THREADS": threads} if threads else {}
    )
    compiled = openvino.Core().compile_model(str(path), "CPU", how)
    return lambda images: compiled({IMAGE: images})[PROBABILITY].copy()


_OPENERS = {"torch": _open_program, "onnx": _open_onnx, "openvino": _open_openvino}


def read_about(path: Path) -> dict[str, Any]:
    """What `kdas export` wrote into a file: role, backbone, size, precision, weights_sha256 and
    more. A UserError where the file is none of its kind.
    """
    text = _about_program(path) if path.suffix == PROGRAM else _about_onnx(path)
    with suppress(ValueError, AttributeError, RecursionError):
        about = json.loads(text)
        known = all(type(about.get(name)) is kind for name, kind in _FIELDS.items())
        if known and LEAST <= about["size"] <= MOST:
            return about
    raise UserError(f"{path} does not say which network of KDAS it is; {_FOREIGN}.")


def _about_program(path: Path) -> str:
    """Read before anything else of the file is."""
    try:
        read_bytes(path)
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.endswith(f"extra/{ABOUT}")]
            if file.testzip():
                raise zipfile.BadZipFile
            return file.read(names[0]).decode() if names else ""
    except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError):
        raise UserError(f"{path} is damaged or no file of torch.export; {_FOREIGN}.") from None


def _about_onnx(path: Path) -> str:
    """The field of our metadata, of a model whose inputs, outputs and tensors are as expected."""
    onnx = needed("onnx")
    content = read_bytes(path)
    try:
        model = onnx.load_model_from_string(content)
        wanted = (
            (IMAGE, onnx.TensorProto.UINT8, 4, 3),
            (PROBABILITY, onnx.TensorProto.FLOAT, 3, 0),
        )
        found = tuple(map(_signature, (*model.graph.input, *model.graph.output)))
    except Exception:
        raise UserError(f"{path} is damaged or no ONNX file; {_FOREIGN}.") from None
    if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model)):
        raise UserError(f"{path} takes tensors from other files; {_FOREIGN}, which is one file.")
    if found != wanted:
        given = ", ".join(value[0] for value in found) or "nothing"
        rule = f"{IMAGE}, uint8 (B, H, W, 3), and {PROBABILITY}, float32 (B, H, W), are expected"
        raise UserError(f"{path} has other inputs and outputs ({given}): {rule}.")
    text = next((field.value for field in model.metadata_props if field.key == ABOUT), "")
    if '"role"' in text and _tensors_digest(model) not in text:
        fact = f"{path} is damaged: its weights are not those that were written"
        raise UserError(f"{fact}; copy it again, or export anew.")
    return text


def packed(model: Any, about: dict[str, Any]) -> bytes:
    """An ONNX model's file, which says what it is, with a digest of its tensors."""
    del model.metadata_props[:]
    content = json.dumps(about | {"tensors": _tensors_digest(model)})
    model.metadata_props.add(key=ABOUT, value=content)
    return model.SerializeToString()


def _tensors_digest(model: Any) -> str:
    digest = blake2b(digest_size=16)
    for tensor in _tensors(model):
        digest.update(tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _signature(value: Any) -> tuple[str, int, int, int]:
    """Name, type, rank and last side (0: any) of an input or output."""
    tensor = value.type.tensor_type
    sides = tensor.shape.dim
    return value.name, tensor.elem_type, len(sides), sides[-1].dim_value if sides else 0


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a model, also in the attributes of nodes and in inner graphs."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _tensors(part)


def checked_images(folder: str | Path) -> list[Path]:
    """The images of a folder. A UserError where there are none, or one is none or of a size that is
    refused: better before the first mask than after the last.
    """
    files = list_images(folder)
    if not files:
        raise UserError(
            f"{folder} holds no images; it must contain .jpg, .png, .tif or .bmp files."
        )
    for file in files:
        with opened(file) as picture:
            refuse_size(file, *picture.size)
    return files


def predict(runtime: Runtime, files: Sequence[Path], out: str | Path, afresh: bool = False) -> int:
    """`kdas_core.inference.predict_files` by a runtime, image by image: they differ in size."""

    def maps(todo: Sequence[Path]) -> Iterator[torch.Tensor]:
        for file in todo:
            yield torch.from_numpy(runtime.run(read_image(file)[None])[0])

    return write_masks(maps, runtime.identity, files, out, afresh)
