"""Teacher and student in PyTorch, ONNX Runtime, OpenVINO (where installed) and int8: ``kdas benchmark``, and what is behind it.

    python benchmarks/deploy.py [--out deploy.json] [--batches 1,8] [--threads 1,2] [--runs 50]

The networks take turns within each number of threads and each batch, so ratios are of one run. Weights are random: untrained
ones take the same time. "narrow" is the student with 16 channels in its decoder instead of 32. On a busy machine ratios hold
better than times do; the file names the machine and its load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from kdas_book.cli_data import listed
from kdas_book.deploy.benchmark import RUNS, benchmark, measure, ratios
from kdas_book.deploy.costs import network_cost, operators, profile
from kdas_book.deploy.export import describe, drawn_images, export, write_onnx
from kdas_book.deploy.graph import ImageToProbability, convolved
from kdas_book.deploy.runtimes import Runtime, open_runtime
from kdas_book.deploy.video import predict_video
from kdas_book.figures.ch12_running_it import film
from kdas_book.reliability.pictures import drawn
from kdas_core.data.dataset import resize_image
from kdas_core.models import build, freeze, open_network, save_weights

PAIRS = [("student, torch", "student, onnx"), ("teacher, torch", "teacher, onnx")]
PAIRS += [("teacher, torch", "student, torch"), ("teacher, onnx", "student, onnx")]
PAIRS += [("student, onnx", "int8, onnx"), ("student, onnx", "narrow, onnx")]
PAIRS += [("student, onnx", "student, openvino"), ("student, openvino", "int8, openvino")]


def prepare(folder: Path, size: int) -> list[Path]:
    """Weights and ONNX files of teacher and student, an int8 and a narrow student."""
    for role in ("student", "teacher"):
        net = freeze(build(role))
        about = {"role": role, "size": size, "backbone": net.backbone.name}
        export(save_weights(net, folder / f"{role}.safetensors", **about), folder / f"{role}.onnx")
    images = [resize_image(image, size) for image in drawn_images()]
    export(folder / "student.safetensors", folder / "int8.onnx", int8=images)
    narrow = convolved(ImageToProbability(freeze(build("student", width=16)), size))
    write_onnx(narrow, folder / "narrow.onnx", describe(narrow, "student"))
    return sorted(folder.iterdir())


def machine() -> dict[str, Any]:
    """What the figures are of: processor, its instructions for int8, cores, load now, versions."""
    facts, flags = {}, []
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            facts = dict(line.split("\t", 1) for line in file if "\t" in line)
        flags = facts.get("flags", "").split()
    about: dict[str, Any] = {
        "processor": facts.get("model name", platform.machine()).strip("\t: \n")
    }
    about["int8"] = [name for name in ("avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    about |= {"cores": os.cpu_count(), "load": psutil.getloadavg()[0]}
    about |= {"system": platform.platform(), "torch": torch.__version__}
    for package in ("onnxruntime", "openvino"):
        with suppress(ImportError):
            about[package] = import_module(package).__version__
    return about


def layouts(student: Path, onnx: Path, size: int, runs: int) -> pd.DataFrame:
    """Times of one image on one thread: PyTorch as it is and with channels last, ONNX Runtime with and without `convolved`.

    PyTorch's convolutions take channels first, its linear layers last; a transformer copies from one to the other.
    """
    net, before = open_network(student)[0], torch.get_num_threads()
    plain, graph = onnx.with_name("plain.onnx"), ImageToProbability(net, size)
    write_onnx(graph, plain, describe(graph, "student"))
    last = ImageToProbability(net.to(memory_format=torch.channels_last), size)

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return last(torch.from_numpy(images)).numpy()

    runtimes = {"channels first": open_runtime(student, "torch")}
    runtimes["channels last"] = Runtime("torch", student, {}, run)
    runtimes["onnx, linear layers"] = open_runtime(plain, "onnx", threads=1)
    runtimes["onnx, 1 × 1 convolutions"] = open_runtime(onnx, "onnx", threads=1)
    try:
        torch.set_num_threads(1)
        return measure(runtimes, size, runs=runs)
    finally:
        torch.set_num_threads(before)


def video(student: Path, folder: Path) -> pd.DataFrame:
    """Milliseconds of a frame of 576 × 720 pixels in `kdas predict --video`: each part, which run side by side, the whole, and the
    network alone on the same frames. Medians of five films, each between two turns of the network alone.
    """
    scene = drawn("Kvasir", 1, 800, seed=1).images[0]
    frames = [scene[100:676, x : x + 720] for x in range(80)]
    source, run = film(folder / "film.mp4", frames), open_runtime(student, "onnx").run
    rows = []
    for _ in range(6):
        for frame in frames[:5]:
            run(frame[None])
        start = time.perf_counter()
        for frame in frames:
            run(frame[None])
        alone = time.perf_counter() - start
        report = predict_video(run, source, folder / "outlined.mp4")
        rows.append(report.seconds | {"whole": report.elapsed, "network alone": alone})
    table = 1000 * pd.DataFrame(rows) / len(frames)
    # A row's turn of the network was before its film, the next row's after it.
    table["network alone"] = (table["network alone"] + table["network alone"].shift(-1)) / 2
    return table[:-1].median().to_frame("ms a frame")


def measured(size: int, runs: int, batches: list[int], threads: list[int]) -> dict[str, Any]:
    """Everything, ready for a JSON file; ``text`` has the tables to be read."""
    with tempfile.TemporaryDirectory() as name:
        files = prepare(Path(name), size)
        about = machine()
        tables = benchmark(files, batches, threads, runs)
        about["load afterwards"] = machine()["load"]
        known = set(tables["times"]["network"])
        faster = ratios(tables["times"], [pair for pair in PAIRS if known.issuperset(pair)])
        faster.columns = [f"batch {batch}, threads {count}" for batch, count in faster.columns]
        tables["ratios"] = faster
        student, exported = Path(name) / "student.safetensors", Path(name) / "student.onnx"
        tables["layouts"] = layouts(student, exported, size, runs)
        tables["video"] = video(exported, Path(name))
        net = open_network(student)[0]
        tables["student, torch: operators"] = profile(net, size).head(12)
        for file in ("student", "int8"):
            found = operators(Path(name) / f"{file}.onnx", size).head(12)
            tables[f"{file}, onnx: operators"] = found
    narrow = network_cost(build("student", width=16).eval(), size)
    tables["cost"].loc["narrow"] = narrow
    text = "\n\n".join(f"{what}\n{frame.round(3).to_string()}" for what, frame in tables.items())
    return {"machine": about, "size": size, "runs": runs, "text": text} | {
        what: frame.to_dict("split") for what, frame in tables.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("deploy.json"))
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--threads", default="1,2")
    options = parser.parse_args()
    batches, threads = ([int(n) for n in listed(x)] for x in (options.batches, options.threads))
    found = measured(options.size, options.runs, batches, threads)
    options.out.write_text(json.dumps(found, indent=1))
    print(found["text"])


if __name__ == "__main__":
    main()
