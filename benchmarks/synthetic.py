"""How many synthetic pictures one core draws in a second, 352×352 pixels, each style by itself.

    python benchmarks/synthetic.py [--pictures 20] [--side 352]

Seconds are those of the processor, one thread, best of three rounds, so a busy machine changes little. Drawing alone: no file is
written.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2

from kdas_book.data.synthetic import STYLES, render


def pictures_per_second(style: str, pictures: int = 20, side: int = 352, rounds: int = 3) -> float:
    """Of the fastest round; processor time, not the clock on the wall."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        for seed in range(pictures):
            render(seed, (side, side), style)
        seconds.append(time.process_time() - start)
    return pictures / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--side", type=int, default=352)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for style in STYLES:
        print(
            f"{style:18} {pictures_per_second(style, options.pictures, options.side):5.1f} pictures/s"
        )


if __name__ == "__main__":
    main()
