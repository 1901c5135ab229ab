"""The commands ``kdas export``, ``kdas predict`` and ``kdas benchmark``."""

import re
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from kdas_book.cli_data import Backbone, File, Role
from kdas_core import UserError

Weights = Annotated[Path, Option(help="A .safetensors of ours or a released .pth")]
Size = Annotated[int, Option(help="Image size, where the file does not say it: 352")]


def export(
    weights: Weights,
    out: Annotated[Path, Option(help="The file: .onnx, or .pt2 for torch-export.")],
    format: Annotated[str, Option(help="onnx or torch-export")] = "onnx",
    int8: Annotated[bool, Option("--int8", help="8-bit weights and activations (onnx).")] = False,
    data_root: Annotated[File, Option(help="Its training images set the ranges of int8.")] = None,
    role: Role = "",
    backbone: Backbone = "",
    size: Size = 0,
) -> None:
    """Write one file that takes uint8 images and gives probabilities, checked against PyTorch."""
    from kdas_book.deploy.export import export as write
    from kdas_book.deploy.quantise import calibration_images
    from kdas_core.models import open_network

    images = []
    if int8:
        if data_root is None:
            raise UserError("int8 needs training images; say where they are with --data-root.")
        images = calibration_images(data_root, open_network(weights, role, backbone, size)[1])
    about = write(weights, out, format, role, backbone, size, int8=images)
    what = "{precision}, {role} {backbone} at {size} px".format(**about)
    off = "{probability_off:.1e} in probability, {dice_off:.1e} in Dice".format(**about)
    print(f"{out}: {what}, {out.stat().st_size / 1e6:.1f} MB; at most {off} from PyTorch")


def predict(
    weights: Annotated[Path, Option(help="Weights, or a file of kdas export.")],
    out: Annotated[Path, Option(help="Folder for the grey PNGs; with --video a video.")],
    images: Annotated[File, Option(help="Folder of images.")] = None,
    video: Annotated[File, Option(help="A video instead of images.")] = None,
    runtime: Annotated[str, Option(help="torch, onnx or openvino")] = "torch",
    role: Role = "",
    backbone: Backbone = "",
    size: Size = 0,
    batch_size: Annotated[int, Option(min=1, help="Images per forward pass.")] = 8,
    afresh: Annotated[bool, Option(help="Predict again what is there already.")] = False,
    smoothing: Annotated[float, Option(help="Of a video: weight of the past, in [0, 1).")] = 0.5,
) -> None:
    """Write one 8-bit grey PNG per image, same stem, same size, or a video with outlines; an
    interrupted run over images goes on.
    """
    if (images is None) == (video is None):
        raise UserError("Say either --images, a folder, or --video, a file.")
    if video:
        from kdas_book.deploy.runtimes import open_runtime
        from kdas_book.deploy.video import predict_video

        opened = open_runtime(weights, runtime, role=role, backbone=backbone, size=size)
        return print(predict_video(opened.run, video, out, smoothing))
    assert images
    count = _predict_images(weights, images, out, runtime, role, backbone, size, batch_size, afresh)
    print(f"{count} masks in {out}")


def _predict_images(weights, images, out, runtime, role, backbone, size, batch_size, afresh) -> int:
    import torch

    from kdas_book.deploy import runtimes
    from kdas_core.data.images import opened, orientation
    from kdas_core.inference import predict_files
    from kdas_core.models import open_network

    if runtime == "torch" and weights.suffix not in (".onnx", runtimes.PROGRAM):
        net, side = open_network(weights, role, backbone, size)
        files = runtimes.checked_images(images)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        count = predict_files(net.to(device), files, out, side, batch_size, afresh)
    else:
        network = runtimes.open_runtime(weights, runtime, 0, role, backbone, size)
        files = runtimes.checked_images(images)
        count = runtimes.predict(network, files, out, afresh)
    for file in files:
        with opened(file) as picture:
            if orientation(picture) != 1:
                print(f"{file} has an EXIF orientation: viewers show it turned, and its mask not")
    return count


def benchmark(
    files: Annotated[list[Path], Argument(help="Weights and files of kdas export, of one size.")],
    batches: Annotated[str, Option(help="Images at a time, with commas between.")] = "1,8",
    threads: Annotated[str, Option(help="Numbers of threads, with commas between.")] = "1,2",
    runs: Annotated[int, Option(min=50, help="Timed runs of each.")] = 50,
    csv: Annotated[File, Option(help="Write the times to this file as well.")] = None,
) -> None:
    """Time networks in each runtime, in turns; count parameters, operations and memory."""
    from kdas_book.deploy.benchmark import benchmark as measure
    from kdas_book.files import refuse_foreign
    from kdas_core.files import atomic_write

    both, numbers = (batches, threads), re.compile(r"[1-9]\d?(,[1-9]\d?)*", re.ASCII)
    if not all(map(numbers.fullmatch, both)):
        raise UserError("--batches and --threads take numbers from 1 to 99, such as 1,8.")
    if csv:
        begin = b"network,batch,median_ms"
        refuse_foreign(csv, "table of kdas benchmark", lambda f: f.read_bytes().startswith(begin))
    counts = [[int(n) for n in text.split(",")] for text in both]
    found = measure(files, counts[0], counts[1], runs)
    for frame in found.values():
        print(frame.round(3).to_string(), end="\n\n")
    if csv:
        atomic_write(csv, found["times"].to_csv(index=False).encode())
