"""Weights in and out of files, and the names under which other programs know our parameters.

Only tensors are ever read: ``.safetensors`` cannot hold code, and ``.pth`` files are opened with
``weights_only=True``, which refuses to run any.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.files import atomic_write

# Released name -> ours. The first pattern that matches the start of a key is used.
RELEASED_NAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"backbone\.patch_embed1\.", "backbone.body.patch_embed."),
    (r"backbone\.patch_embed(\d)\.", lambda m: f"backbone.body.stages_{int(m[1]) - 1}.downsample."),
    (r"backbone\.block(\d)\.", lambda m: f"backbone.body.stages_{int(m[1]) - 1}.blocks."),
    (r"backbone\.norm(\d)\.", lambda m: f"backbone.body.stages_{int(m[1]) - 1}.norm."),
    (r"Translayer2_0\.", "reduce1."),
    (r"Translayer(\d)_1\.", r"reduce\1."),
    (r"CFM\.conv_upsample1\.", "fusion.gate_34."),
    (r"CFM\.conv_upsample2\.", "fusion.gate_24."),
    (r"CFM\.conv_upsample3\.", "fusion.gate_23."),
    (r"CFM\.conv_upsample4\.", "fusion.carry_4."),
    (r"CFM\.conv_upsample5\.", "fusion.carry_34."),
    (r"CFM\.conv_concat2\.", "fusion.join_34."),
    (r"CFM\.conv_concat3\.", "fusion.join_234."),
    (r"CFM\.conv4\.", "fusion.squeeze."),
    (r"ca\.fc1\.", "camouflage.channel.squeeze."),
    (r"ca\.fc2\.", "camouflage.channel.expand."),
    (r"sa\.conv1\.", "camouflage.spatial.conv."),
    (r"SAM\.conv_state\.", "similarity.state."),
    (r"SAM\.conv_proj\.", "similarity.project."),
    (r"SAM\.gcn\.conv1\.", "similarity.mix_nodes."),
    (r"SAM\.gcn\.conv2\.", "similarity.mix_states."),
    (r"SAM\.conv_extend\.", "similarity.extend."),
    (r"out_CFM\.", "head1."),
    (r"out_SAM\.", "head2."),
]


def translate_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a released Polyp-PVT or KDAS checkpoint; keys that are already ours stay
    as they are.
    """
    return {_our_name(key): value for key, value in state.items()}


def _our_name(key: str) -> str:
    for pattern, ours in RELEASED_NAMES:
        renamed, hits = re.subn(f"^{pattern}", ours, key)
        if hits:
            return renamed.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv.")
    return key


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors`` or from a ``.pth`` that holds tensors only.

    Raises:
        UserError: no such file, damaged or truncated, holds anything but tensors, or would need
            code to be run.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; teacher_weights/README.md says where released weights come from."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        # torch reports a refused global as pickle.UnpicklingError, everything below is a damaged
        # file
        raise UserError(
            f"{path} is damaged or cut short ({_first_sentence(error)}); fetch or write it again."
        ) from None
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported global" in str(error).lower():
            raise UserError(
                f"{path} holds Python objects besides tensors, and opening them could run foreign code; "
                "save the plain state dict of the network instead."
            ) from None
        raise UserError(
            f"{path} is damaged or not a checkpoint ({_first_sentence(error)})."
        ) from None
    return _tensors_of(state, path)


def _tensors_of(state: object, path: Path) -> dict[str, Tensor]:
    """Unwrap the usual ``{"state_dict": ...}`` and ``module.`` of training scripts."""
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(v, Tensor) for v in state.values())
    ):
        raise UserError(
            f"{path} is not a state dict: a dictionary of names and tensors is expected."
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names, as hexadecimal digits."""
    digest = sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Fill a network from a file of ours or a released one; nothing is loaded unless every key
    fits.

    Raises:
        UserError: as :func:`read_state`, or the file is for another network; the sentence names the
            keys that do not fit.
    """
    found = translate_released(read_state(path))
    wanted = net.state_dict()
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    other_shape = sorted(
        k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape
    )
    if missing or unexpected or other_shape:
        reasons = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for keys, what in (
                (missing, "missing"),
                (unexpected, "unexpected"),
                (other_shape, "of another shape"),
            )
            if keys
        ]
        raise UserError(
            f"{path} is for another network: of {len(wanted)} keys, {', '.join(reasons)}."
        )
    net.load_state_dict(found)


def save_weights(net: nn.Module, path: str | Path, **metadata: object) -> Path:
    """Write a network's weights as safetensors, beside the target and then renamed, so that no half
    file is ever seen.

    Raises:
        UserError: the disk is full, or the file cannot be written; an older file is as it was.
    """
    path = Path(path)
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    data = save(tensors, metadata={key: str(value) for key, value in metadata.items()})
    atomic_write(path, data, "make room and start the same command again", durable=True)
    return path


def _first_sentence(error: BaseException) -> str:
    """The first line of an error, short enough to stand inside a sentence."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160].rstrip(". ")
