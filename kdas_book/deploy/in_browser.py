"""The student in the reader's browser: what a chapter shows, and what the site adds to it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import HTML
from PIL import Image

from kdas_book.explore import as_webp

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
NOT_HERE = (
    "These masks were computed when the book was built. Served from a site that was built where "
    "npm is, this section runs the network in your browser."
)


def in_browser(
    model: str | Path, images: Sequence[np.ndarray], shown: Sequence[np.ndarray]
) -> HTML:
    """The images with what the network said of them; on the site, buttons that run it.

    Args:
        model: a file of ``kdas export``; it goes into the notebook, so it should be a small one.
        images: uint8 (H, W, 3), what the reader can choose from.
        shown: the same with their masks drawn in, for pages on which nothing runs.
    """
    pictures = ""
    for i, (image, said) in enumerate(zip(images, shown, strict=True), 1):
        alt = f"Image {i} with the outline of what the network took for a polyp"
        drawn = base64.b64encode(as_webp(Image.fromarray(said))).decode()
        pictures += f'<img src="data:image/webp;base64,{drawn}" data-image="{_png(image)}" '
        pictures += f'alt="{alt}">'
    packed = base64.b64encode(Path(model).read_bytes()).decode()
    return HTML(
        f'<div class="kdas-live" data-model="data:application/octet-stream;base64,{packed}">'
        f'<div class="pictures">{pictures}</div><p class="said">{NOT_HERE}</p></div>'
    )


def _png(image: np.ndarray) -> str:
    """Every pixel as it is."""
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, format="png")
    return f"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"


def copy_runtime(folder: Path) -> bool:
    """Put onnxruntime-web (MIT licence) into the site if ``make`` could fetch it; is it there?"""
    runtime = Path(sys.prefix) / "share" / "onnxruntime-web"
    if not all((runtime / name).is_file() for name in RUNTIME):
        return False
    folder.mkdir(parents=True)
    for name in RUNTIME:
        shutil.copy2(runtime / name, folder)
    return True


def pack_model(soup: Any, page: Path, static: Path) -> bool:
    """Make a file of the model in a finished page, and add what runs it; is there something to run?
    Without the runtime the model goes, and the pictures stay.
    """
    live = soup.select_one(".kdas-live[data-model]")
    if not live:
        return False
    model = base64.b64decode(live["data-model"].partition(";base64,")[2])
    del live["data-model"]
    runtime = static / "onnxruntime-web"
    if not runtime.is_dir():
        return False
    file = static / f"student-{hashlib.sha256(model).hexdigest()[:16]}.onnx"
    file.write_bytes(model)
    live["data-model"] = os.path.relpath(file, page.parent)
    live["data-runtime"] = os.path.relpath(runtime / RUNTIME[0], page.parent)
    source = os.path.relpath(static / "live.js", page.parent)
    soup.body.append(soup.new_tag("script", attrs={"type": "module", "src": source}))
    return True
