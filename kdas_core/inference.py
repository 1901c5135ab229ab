"""From images to grey masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdas_core import UserError
from kdas_core.data.pairs import list_images, read_image
from kdas_core.data.polyps import normalise, resize_image


@torch.inference_mode()
def probability(net: nn.Module, image: np.ndarray, size: int) -> np.ndarray:
    """How sure the network is of "polyp" at each pixel of one image.

    The image is resized to size × size, the sum of the two logit maps is resized back, and the sigmoid comes last, in the order of
    the released test programs.

    Args:
        net: in evaluation mode.
        image: uint8 RGB, shape (H, W, 3).
        size: side of the square that the network sees, a multiple of 32.

    Returns:
        float32, shape (H, W), in [0, 1].
    """
    device = next(net.parameters()).device
    p1, p2 = net(normalise(resize_image(image, size))[None].to(device))
    return to_native(p1 + p2, image.shape[:2])


def to_native(logits: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Logits (1, 1, h, w) as probabilities of shape (H, W)."""
    resized = F.interpolate(logits.float(), size=shape, mode="bilinear", align_corners=False)
    return torch.sigmoid(resized)[0, 0].cpu().numpy()


def predict_maps(net: nn.Module, files: list[Path], size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and probability map, at the image's own size, of each file in turn."""
    net.eval()
    for file in files:
        yield file.stem, probability(net, read_image(file), size)


def predict_folder(net: nn.Module, images: str | Path, out: str | Path, size: int, limit: int | None = None) -> int:
    """Write one 8-bit grey PNG per image of a folder, as :func:`predict_files` does.

    Args:
        net: a network.
        images: a folder of images.
        out: the folder for the masks; made if needed.
        size: side of the square that the network sees.
        limit: only the first so many images, in order of their names.

    Returns:
        How many masks were written.

    Raises:
        UserError: no images there, two images of one stem, or the folder cannot be written.
    """
    files = list_images(images)[:limit]
    if not files:
        raise UserError(f"{images} holds no images; it must contain .jpg, .png, .tif or .bmp files.")
    return predict_files(net, files, out, size)


def predict_files(net: nn.Module, files: list[Path], out: str | Path, size: int) -> int:
    """Write one 8-bit grey PNG per image: ``round(255 · probability)``, same stem, same size as the image.

    Files that are there already are written anew, each beside its target and then renamed.

    Args:
        net: a network.
        files: the images, each of a stem of its own; a subset of a folder, say.
        out: the folder for the masks; made if needed.
        size: side of the square that the network sees.

    Returns:
        How many masks were written.

    Raises:
        UserError: an image cannot be read, or the folder cannot be written.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        maps, quiet = predict_maps(net, files, size), "TQDM_DISABLE" in os.environ
        for name, p in tqdm(maps, total=len(files), desc=f"masks to {out.name}", leave=False, disable=quiet):
            encoded = cv2.imencode(".png", np.rint(p * 255).astype(np.uint8))[1]
            (out / f"{name}.png.part").write_bytes(encoded.tobytes())
            os.replace(out / f"{name}.png.part", out / f"{name}.png")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); choose another --out.") from None
    return len(files)
