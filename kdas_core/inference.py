"""From images to grey masks.

While a GPU works on one batch, threads decode the next and write the last. On a CPU the network
itself uses every core, and a thread beside it makes all of them wait; there the same threads share
the reading of a batch before it and the writing after it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.data.dataset import normalise, normalise_batch, resize_image
from kdas_core.data.images import read_image
from kdas_core.data.layout import list_images
from kdas_core.files import atomic_write
from kdas_core.models.weights import weights_digest

MARK = "network"  # the text field of a PNG that says which network drew it


@torch.inference_mode()
def probability(net: nn.Module, image: np.ndarray, size: int) -> np.ndarray:
    """How sure the network is of "polyp" at each pixel of one image.

    The image is resized to size × size, the sum of the two logit maps is resized back, and the
    sigmoid comes last, in the order of the released test programs.

    Args:
        net: in evaluation mode.
        image: uint8 RGB, shape (H, W, 3).
        size: side of the square that the network sees, a multiple of 32.

    Returns:
        float32, shape (H, W), in [0, 1].
    """
    device = next(net.parameters()).device
    p1, p2 = net(normalise(resize_image(image, size))[None].to(device))
    return to_native(p1 + p2, image.shape[:2]).cpu().numpy()


def to_native(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Logits (1, 1, h, w) as probabilities of shape (H, W), on their device."""
    resized = F.interpolate(logits.float(), size=shape, mode="bilinear", align_corners=False)
    return torch.sigmoid(resized)[0, 0]


def predict_maps(
    net: nn.Module, files: Sequence[Path], size: int, batch_size: int = 8
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and probability map, float32 at the image's own size, of each file in turn."""
    with torch.inference_mode():
        for file, p in _probabilities(net, files, size, batch_size):
            yield file.stem, p.cpu().numpy()


def predict_folder(
    net: nn.Module,
    images: str | Path,
    out: str | Path,
    size: int,
    limit: int | None = None,
    batch_size: int = 8,
    afresh: bool = False,
) -> int:
    """Write one 8-bit grey PNG per image of a folder, as :func:`predict_files` does.

    Args:
        net, out, size, batch_size, afresh: as there.
        images: a folder of images.
        limit: only the first so many images, in order of their names.

    Returns:
        How many images have their mask now.

    Raises:
        UserError: no images there, two images of one stem, or the folder cannot be written.
    """
    files = list_images(images)[:limit]
    if not files:
        raise UserError(
            f"{images} holds no images; it must contain .jpg, .png, .tif or .bmp files."
        )
    return predict_files(net, files, out, size, batch_size, afresh)


def predict_files(
    net: nn.Module,
    files: Sequence[Path],
    out: str | Path,
    size: int,
    batch_size: int = 8,
    afresh: bool = False,
) -> int:
    """Write one 8-bit grey PNG per image: ``round(255 · probability)``, same stem, same size as the
    image.

    Each file is written beside its target and then renamed, and carries the fingerprint of its
    network as a text field. So an interrupted run goes on where it stopped: a mask that this
    network drew at this size, for an image that is not newer, is kept. A mask of another network is
    replaced.

    Args:
        net: a network.
        files: the images, each of a stem of its own; a subset of a folder, say.
        out: the folder for the masks; made if needed.
        size: side of the square that the network sees.
        batch_size: images per forward pass. In exact arithmetic the masks do not depend on it.
        afresh: keep nothing.

    Returns:
        How many of the images have their mask now: all.

    Raises:
        UserError: an image cannot be read, or the folder cannot be written. Masks written before
            that stay.
    """
    out, mark = Path(out), fingerprint(net, size)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
    todo = [file for file in files if afresh or not _finished(out / f"{file.stem}.png", file, mark)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        bar = tqdm(
            total=len(files),
            initial=len(files) - len(todo),
            desc=f"masks to {out.name}",
            leave=False,
            disable="TQDM_DISABLE" in os.environ,
        )
        with ThreadPoolExecutor(_threads()) as writers, bar, torch.inference_mode():
            pending: deque[Future] = deque()
            allowed = 4 * batch_size if _is_gpu(net) else _threads()
            for file, p in _probabilities(net, todo, size, batch_size):
                grey = p.mul(255).round().byte().cpu().numpy()
                pending.append(writers.submit(_write, grey, out / f"{file.stem}.png", mark))
                while len(pending) >= allowed or (pending and pending[0].done()):
                    pending.popleft().result()
                    bar.update()
            for future in pending:
                future.result()
                bar.update()
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror}); choose another --out."
        ) from None
    return len(files)


def fingerprint(net: nn.Module, size: int) -> str:
    """What decides the masks of a network: 16 hexadecimal digits of its weights and of the side of
    its square.
    """
    return sha256(f"{weights_digest(net)} {size}".encode()).hexdigest()[:16]


def _probabilities(
    net: nn.Module, files: Sequence[Path], size: int, batch_size: int
) -> Iterator[tuple[Path, Tensor]]:
    """Each file and its map (H, W) in [0, 1], on the network's device; to be used in inference
    mode.
    """
    net.eval()
    device = next(net.parameters()).device
    previous: list[tuple[Path, tuple[int, int]]] = []
    logits = torch.empty(0)
    for batch in _decoded(files, size, batch_size, prefetch=2 * batch_size if _is_gpu(net) else 0):
        images = torch.from_numpy(np.stack([small for _, small, _ in batch]))
        p1, p2 = net(normalise_batch(images.to(device, non_blocking=True)))
        # A GPU has only been asked so far. While it works, hand out the maps of the batch before.
        yield from _native(previous, logits)
        previous, logits = [(file, shape) for file, _, shape in batch], p1 + p2
    yield from _native(previous, logits)


def _native(
    of: Sequence[tuple[Path, tuple[int, int]]], logits: Tensor
) -> Iterator[tuple[Path, Tensor]]:
    for i, (file, shape) in enumerate(of):
        yield file, to_native(logits[i : i + 1], shape)


def _decoded(
    files: Sequence[Path], size: int, batch_size: int, prefetch: int
) -> Iterator[list[tuple[Path, np.ndarray, tuple]]]:
    """Batches of (file, resized image, own height and width), decoded in threads, so many images
    ahead of the batch.
    """
    with ThreadPoolExecutor(_threads()) as readers:
        asked: deque[Future] = deque()
        for start in range(0, len(files), batch_size):
            for file in files[start + len(asked) : start + batch_size + prefetch]:
                asked.append(readers.submit(_read, file, size))
            yield [asked.popleft().result() for _ in files[start : start + batch_size]]


def _is_gpu(net: nn.Module) -> bool:
    return next(net.parameters()).device.type != "cpu"


def _read(file: Path, size: int) -> tuple[Path, np.ndarray, tuple[int, int]]:
    image = read_image(file)
    return file, resize_image(image, size), image.shape[:2]


def _write(grey: np.ndarray, path: Path, mark: str) -> None:
    png = cv2.imencode(".png", grey)[
        1
    ].tobytes()  # twice as fast as Pillow's, which could write the text itself
    kind, text = b"tEXt", f"{MARK}\0{mark}".encode("latin-1")
    chunk = struct.pack(">I", len(text)) + kind + text + struct.pack(">I", zlib.crc32(kind + text))
    atomic_write(
        path, png[:33] + chunk + png[33:]
    )  # 8 bytes of signature and 25 of the header come first


def _finished(mask: Path, image: Path, mark: str) -> bool:
    """Is this mask the one that would be written now? Only headers are read: a file under its own
    name is whole.
    """
    try:
        if mask.stat().st_mtime < image.stat().st_mtime:
            return False
        with Image.open(mask) as drawn, Image.open(image) as picture:
            return drawn.size == picture.size and drawn.mode == "L" and drawn.info.get(MARK) == mark
    except (OSError, SyntaxError, ValueError):
        return False


def _threads() -> int:
    return min(8, os.cpu_count() or 1)
