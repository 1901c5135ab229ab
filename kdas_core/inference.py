"""From images to grey masks.

While a GPU works on one batch, threads decode the next and write the last. On a CPU, where the
network itself uses every core, they read a batch before it and write it after it.
"""

import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.data.dataset import normalise, resize_image
from kdas_core.data.images import header_size, read_bytes, read_image
from kdas_core.data.layout import first_few, list_images
from kdas_core.data.masks import MARK, prediction_mark
from kdas_core.files import alone, atomic_write
from kdas_core.models.weights import weights_digest

THREADS = min(8, os.cpu_count() or 1)


@torch.inference_mode()
def probability(net: nn.Module, image: np.ndarray, size: int) -> np.ndarray:
    """How sure a network in evaluation mode is of "polyp" at each pixel: float32 (H, W) in [0, 1].

    The image, uint8 RGB (H, W, 3), is resized to size × size (a multiple of 32), the sum of the two
    logit maps is resized back, and the sigmoid comes last, in the order of the released programs.
    """
    device = next(net.parameters()).device
    p1, p2 = net(normalise(resize_image(image, size))[None].to(device))
    return _at_own_size(p1 + p2, image.shape[:2]).cpu().numpy()


def _at_own_size(logits: Tensor, shape: tuple[int, int]) -> Tensor:
    resized = F.interpolate(logits.float(), size=shape, mode="bilinear", align_corners=False)
    return torch.sigmoid(resized)[0, 0]


def predict_folder(
    net: nn.Module, images: str | Path, out: str | Path, size: int, batch_size=8, afresh=False
) -> int:
    """`predict_files` for a folder; a UserError also for no images, or two of one stem."""
    files = list_images(images)
    if not files:
        wanted = ".jpg, .png, .tif or .bmp files"
        raise UserError(f"{images} holds no images; it must contain {wanted}.")
    return predict_files(net, files, out, size, batch_size, afresh)


def predict_files(
    net: nn.Module, files: Sequence[Path], out: str | Path, size: int, batch_size=8, afresh=False
) -> int:
    """Write one 8-bit grey PNG per image: ``round(255 · probability)``, same stem and size.

    A mask that this network drew at this size, of the same picture, is kept, so an interrupted run
    goes on where it stopped. A mask of another network or picture is replaced, and no other file.

    Args:
        files: the images, each of a stem of its own.
        out: the folder for the masks; made if needed.
        size: side of the square that the network sees.
        batch_size: images per forward pass. In exact arithmetic the masks do not depend on it.
        afresh: keep nothing.

    Returns how many of the images have their mask now: all. A UserError where an image cannot be
    read, or ``out`` cannot be written; masks written before that stay. A UserError too, before
    anything is written, where ``out`` holds a PNG of such a name that was not written here.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1.")

    def maps(todo: Sequence[Path]) -> Iterator[Tensor]:
        return _probabilities(net, todo, size, batch_size)

    return write_masks(maps, fingerprint(net, size), files, out, afresh)


def write_masks(
    maps: Callable[[Sequence[Path]], Iterator[Tensor]],
    network: str,
    files: Sequence[Path],
    out: str | Path,
    afresh=False,
) -> int:
    """What `predict_files` does, whatever computes: ``maps(files)`` gives the map (H, W) in [0, 1]
    of each file, and ``network`` is a text that changes with anything that changes the maps.
    """
    out = Path(out)
    if any(os.path.realpath(f.parent) == os.path.realpath(out) for f in files):
        raise UserError(f"{out} is the folder of the images; choose another --out.")
    masks = {file: out / f"{file.stem}.png" for file in files}
    before = {file: _mark_of(mask) for file, mask in masks.items()}
    if others := [masks[file].name for file, mark in before.items() if mark == ""]:
        fact = f"{out} holds {len(others)} file(s) of other programs ({first_few(others)})"
        raise UserError(f"{fact}, which would be replaced; choose another --out, or remove them.")
    kept = {f for f, mark in before.items() if mark and not afresh and mark == _mark(network, f)}
    todo = [file for file in files if file not in kept]
    hidden = "TQDM_DISABLE" in os.environ
    bar = tqdm(total=len(files), desc=f"masks to {out.name}", leave=False, disable=hidden)
    drawing = alone(out, "Another program draws masks into", "choose another --out")
    with drawing, ThreadPoolExecutor(THREADS) as writers, bar, torch.inference_mode():
        bar.update(len(files) - len(todo))
        writing: deque[Future] = deque()
        for p, file in zip(maps(todo), todo):
            grey = p.mul(255).round().byte().cpu().numpy()
            writing.append(writers.submit(_write, grey, masks[file], network, file))
            if len(writing) >= THREADS:
                writing.popleft().result()
            bar.update()
        for future in writing:
            future.result()
    return len(files)


def fingerprint(net: nn.Module, size: int) -> str:
    """What decides the masks of a network, its weights and size, as 16 hexadecimal digits."""
    return blake2b(f"{weights_digest(net)} {size}".encode(), digest_size=8).hexdigest()


def _probabilities(
    net: nn.Module, files: Sequence[Path], size: int, batch_size: int
) -> Iterator[Tensor]:
    """The map (H, W) in [0, 1] of each file, on the network's device."""
    device = next(net.eval().parameters()).device
    ahead = 0 if device.type == "cpu" else 2 * batch_size
    with ThreadPoolExecutor(THREADS) as readers:
        reading: deque[Future] = deque()
        for start in range(0, len(files), batch_size):
            following = files[start + len(reading) : start + batch_size + ahead]
            reading.extend(readers.submit(_read, file, size) for file in following)
            batch = [reading.popleft().result() for _ in files[start : start + batch_size]]
            images = torch.from_numpy(np.stack([image for image, _ in batch]))
            p1, p2 = net(normalise(images.to(device, non_blocking=True)))
            for logits, (_, shape) in zip((p1 + p2).split(1), batch):
                yield _at_own_size(logits, shape)


def _read(file: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    image = read_image(file)
    return resize_image(image, size), image.shape[:2]  # and its own height and width


def _write(grey: np.ndarray, path: Path, network: str, image: Path) -> None:
    text, content = PngInfo(), io.BytesIO()
    text.add_text(MARK, _mark(network, image))
    Image.fromarray(grey).save(content, "PNG", pnginfo=text, compress_level=1)
    atomic_write(path, content.getvalue())


def _mark(network: str, image: Path) -> str:
    """Which network drew a map, and of which picture."""
    return f"{network} {blake2b(read_bytes(image), digest_size=8).hexdigest()}"


def _mark_of(mask: Path) -> str | None:
    """The mark of a map that is there; empty for a file of others; None where there is no file."""
    mark = "" if os.path.lexists(mask) else None
    with suppress(UserError):
        mark = prediction_mark(mask)
        header_size(mask)
        return mark
    return mark and "cut off, to be drawn anew"
