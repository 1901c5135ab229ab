"""The path of a GPU where there is none: card_checks.py, in a process of its own, since a pretended card changes PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import pretended_card
import pytest


def test_everything_that_a_gpu_would_be_given_works_on_a_pretended_one(capsys):
    if pretended_card.LACKING:
        pytest.skip(f"no pretended card: {pretended_card.LACKING}")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "card_checks.py",
    ]
    environment = os.environ | {"PRETENDED_CARD": "1"}
    environment["OMP_NUM_THREADS"] = "1"  # hundreds of small operations
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    counted = [line for line in done.stdout.splitlines() if " a step {" in line]
    assert len(counted) >= 2
    with capsys.disabled():
        print("", *counted, sep="\n")
