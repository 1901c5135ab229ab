"""Teacher and student in PyTorch, ONNX Runtime, OpenVINO (where installed) and int8: ``kdas benchmark``, kept with the machine's name.

    python benchmarks/deploy.py [--out deploy.json] [--batches 1,8] [--runs 50]

The networks take turns within each number of threads and each batch, so ratios are of one run. Untrained weights take the
same time as trained ones. On a busy machine ratios hold better than times do; the file says what load there was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kdas_book.cli_data import listed
from kdas_book.deploy.benchmark import RUNS, benchmark


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
    batches, threads = (
        tuple(map(int, listed(text))) for text in (options.batches, options.threads)
    )
    found = benchmark(None, None, options.size, options.runs, batches, threads)
    options.out.write_text(json.dumps(found, indent=1))
    print(found["text"])


if __name__ == "__main__":
    main()
