"""Weights in and out of files, and the names under which other programs know our parameters.

Only tensors are read: ``.safetensors`` cannot hold code, and ``weights_only=True`` refuses any.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.files import atomic_write

ABOUT = "kdas"  # the field of a safetensors file that holds our metadata, as JSON
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


# What training scripts call the state dict in their checkpoints, outermost first.
_WRAPPERS = "state_dict model_state_dict model_state model net network weights params".split()
# Of DataParallel, torch.compile, FSDP; and the attribute that holds the network in Lightning.
_PREFIXES = r"^((module|_orig_mod|_fsdp_wrapped_module|model|net|network)\.)+"
_LEFT_OVER = ("total_ops", "total_params", "__flops__", "__params__", "n_averaged")  # of profilers


def translate_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A released Polyp-PVT or KDAS checkpoint under our names; keys that are ours stay."""
    renamed = {}
    for key, value in state.items():
        rules = (re.subn(f"^{pattern}", ours, key) for pattern, ours in RELEASED_NAMES)
        ours = next((name for name, hits in rules if hits), key)
        renamed[ours.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv.")] = value
    return renamed


def read_state(path: str | Path) -> dict[str, Tensor]:
    """A state dict from safetensors or a file of ``torch.save``, whatever its suffix. What training
    scripts wrap it in, prefix its keys with, or leave in it is taken off. A UserError for a file
    that is missing, is damaged, holds anything but tensors, or would need code to be run.
    """
    path = Path(path)
    if not path.is_file():
        way_out = "teacher_weights/README.md says where released weights come from"
        fact = "is a folder, and a file is expected" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {fact}; {way_out}.")
    start = b""
    try:
        with open(path, "rb") as file:
            start = file.read(256)
            # Eight bytes of a length, then JSON.
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**27:
                return load_file(path)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the readers raise nearly anything
        raise UserError(f"{path} {_not_weights(start, error)}.") from None
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    values = list(state.values()) if isinstance(state, dict) else []
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise UserError(f"{path} is not a state dict; names and their tensors are expected.")
    keys = {key: re.sub(_PREFIXES, "", str(key)) for key in state}
    if len(set(keys.values())) < len(keys):
        raise UserError(f"{path} holds several networks; save the state dict of one.")
    return {keys[key]: state[key] for key in state if not keys[key].endswith(_LEFT_OVER)}


def _not_weights(start: bytes, error: Exception) -> str:
    """Why a file cannot be read as weights, and the way out."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{")):
        return "is a web page and no weights; the download needed a login or a confirmation"
    if start.startswith((b"version https://git-lfs", b"/annex/objects/")):
        get = '"git lfs pull" or "git annex get"'
        return f"is a pointer of Git LFS or git-annex and no weights; fetch the file with {get}"
    if any(words in str(error).lower() for words in ("weights_only", "unsupported global")):
        fact = "holds Python objects besides tensors, which could run foreign code"
        return f"{fact}; save the plain state dict of the network"
    return f"is damaged or not a checkpoint ({first_line(error)}); fetch or write it again"


def metadata_of(path: str | Path) -> dict[str, Any]:
    """What :func:`save_weights` wrote beside the tensors, such as ``role``; else nothing."""
    with suppress(OSError, SafetensorError, ValueError), safe_open(path, "pt") as file:
        return dict(json.loads((file.metadata() or {}).get(ABOUT, "{}")))
    return {}


def refuse_not_finite(state: Mapping[str, Tensor], where: str | Path) -> None:
    """A UserError where a tensor has NaN or an infinite value."""
    faulty = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if faulty:
        fact = f"{where}: {len(faulty)} of {len(state)} tensors have NaN or infinite values"
        raise UserError(f"{fact} (first: {faulty[0]}); the network that was trained had diverged.")


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names, as hexadecimal digits."""
    digest = sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Fill a network from a file of ours or a released one. A UserError as `read_state`, or where
    a key does not fit, which the sentence names; then nothing is loaded.
    """
    found, wanted = translate_released(read_state(path)), net.state_dict()
    refuse_not_finite(found, path)
    both = wanted.keys() & found.keys()
    misfits = {
        "missing": wanted.keys() - both,
        "unexpected": found.keys() - both,
        "of another shape": {key for key in both if wanted[key].shape != found[key].shape},
    }
    facts = [f"{len(keys)} {what} (first: {min(keys)})" for what, keys in misfits.items() if keys]
    if facts:
        given = f"{path} is for another network"
        raise UserError(f"{given}: of {len(wanted)} keys, {', '.join(facts)}.")
    net.load_state_dict(found)


def save_weights(net: nn.Module, path: str | Path, **metadata: object) -> Path:
    """Write a network's weights as safetensors, all or nothing; a UserError where that fails."""
    path = Path(path)
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    # One text: of several, safetensors writes them in a new order each time.
    data = save(tensors, metadata={ABOUT: json.dumps(metadata)})
    atomic_write(path, data, "make room and start the same command again", durable=True)
    return path


def first_line(error: BaseException) -> str:
    """An error's first line, short enough to stand inside a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160].rstrip(". ")
