"""What a network takes besides time: operations, memory; and what its time goes into."""

import json
import multiprocessing
import os
import platform
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdas_book.deploy import needed
from kdas_book.deploy.runtimes import IMAGE, open_runtime
from kdas_core.models import count_parameters


def network_cost(net: torch.nn.Module, size: int) -> dict[str, float]:
    """Parameters, and multiply-accumulate operations of one image of size × size, in millions. Of
    PyTorch's own count, which has the products of convolutions, linear layers and attention.
    """
    # The count knows attention's products only where they are written out.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            net(torch.zeros(1, 3, size, size, device=next(net.parameters()).device))
    operations = counter.get_total_flops() / 2
    return {"parameters, M": count_parameters(net) / 1e6, "MACs, M": operations / 1e6}


def peak_memory(path: Path, runtime: str, size: int, batch: int = 1) -> float:
    """By how many MB a process grows, at most, that opens a file and runs it three times, over what
    it held with its libraries loaded. A process of its own, since memory once taken stays taken.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(sender, path, runtime, size, batch))
    process.start()
    sender.close()  # else a child that dies is waited for without end
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"measuring the memory of {path} in {runtime} failed") from None
    finally:
        process.join()


def _peak(sender: Any, path: Path, runtime: str, size: int, batch: int) -> None:
    if runtime != "torch":
        import_module({"onnx": "onnxruntime"}.get(runtime, runtime))
    before = psutil.Process().memory_info().rss
    run = open_runtime(path, runtime, threads=1).run
    for _ in range(3):
        run(np.zeros((batch, size, size, 3), np.uint8))
    sender.send((_most_memory() - before) / 1e6)


def _most_memory() -> int:
    """The most bytes that this process ever held. Linux's ``ru_maxrss`` counts the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def profile(net: torch.nn.Module, size: int, runs: int = 5) -> pd.DataFrame:
    """Which operators take a CPU's time, of one image on one thread: a row an operator, longest
    first, with ``ms`` and ``calls`` of one pass and ``share`` of its time, without what it calls.
    """
    before, image = torch.get_num_threads(), torch.zeros(1, 3, size, size)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler says that it starts and stops
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            net(image)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
                for _ in range(runs):
                    net(image)
    finally:
        torch.set_num_threads(before)
    rows = {
        event.key.removeprefix("aten::"): {
            "ms": event.self_cpu_time_total / 1000 / runs,
            "calls": event.count / runs,
        }
        for event in seen.key_averages()
    }
    table = pd.DataFrame(rows).T.sort_values("ms", ascending=False)
    return table.assign(share=table["ms"] / table["ms"].sum())


def operators(path: Path, size: int, runs: int = 5) -> pd.DataFrame:
    """`profile` of an ONNX file by ONNX Runtime, whose operators are those that it made of ours."""
    onnxruntime, images = needed("onnxruntime"), np.zeros((1, size, size, 3), np.uint8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/run"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(1 + runs):
            session.run(None, {IMAGE: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    seen = [e for e in events if e["name"].endswith("_kernel_time")]
    frame = pd.DataFrame([{"name": e["args"]["op_name"], "ms": e["dur"] / 1000} for e in seen])
    sums = frame.groupby("name")["ms"].agg(["sum", "count"]) / (1 + runs)
    table = sums.set_axis(["ms", "calls"], axis=1).sort_values("ms", ascending=False)
    return table.assign(share=table["ms"] / table["ms"].sum())
