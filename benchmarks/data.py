"""What the data side costs before and beside the network.

    python benchmarks/data.py --index 50000

``--index N``: N tiny pairs (2·N files) are written to a temporary folder, then indexed, several rounds; seconds.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

from PIL import Image

from kdas_core.data.pairs import index_pairs


def indexing(count: int, rounds: int = 3) -> None:
    """Seconds to index ``count`` pairs of 16×16 pixels, JPEG images and PNG masks, with every check that indexing makes."""
    with tempfile.TemporaryDirectory() as folder:
        for part, form, mode in (("images", "JPEG", "RGB"), ("masks", "PNG", "L")):
            code = io.BytesIO()
            Image.new(mode, (16, 16)).save(code, form)
            (Path(folder) / part).mkdir()
            for i in range(count):
                (Path(folder) / part / f"{i}.{form.lower()}").write_bytes(code.getvalue())
        for _ in range(rounds):
            start = time.perf_counter()
            found = len(index_pairs(folder))
            took = time.perf_counter() - start
            print(
                f"{found:,} pairs ({2 * found:,} files) indexed in {took:.1f} s, {1e6 * took / (2 * found):.0f} µs a file"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=int, default=0, metavar="PAIRS")
    arguments = parser.parse_args()
    if arguments.index:
        indexing(arguments.index)


if __name__ == "__main__":
    main()
