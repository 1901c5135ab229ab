"""The benchmark for a GPU, small, on the CPU: the same code, whose times mean nothing."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_finds_a_cpu_equal_to_itself(tmp_path):
    out = tmp_path / "gpu.json"
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        "--device",
        "cpu",
        "--seconds",
        "120",
        "--out",
        out,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["forward"]["student"]["float32"] == 0 < found["forward"]["student"]["largest"]
    assert all(each["cosine"] > 0.9999 for each in found["objectives"].values())
    assert found["objectives"]["released"]["attention_gradient"] == 0
    assert (
        found["repeat"]["again"]["differ"] == found["repeat"]["without_inert_term"]["differ"] == 0
    )
    assert "compile" in found["skipped"]
