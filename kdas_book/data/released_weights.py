"""Weights that others released: the Polyp-PVT teacher, and backbones trained on ImageNet (``kdas
weights get``).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kdas_book.data.download import record, verify
from kdas_book.data.fetch import RETRY_POLICY, RetryPolicy, fetch
from kdas_core import UserError

POLYP_PVT = "PolypPVT.pth"
# The Drive folder that the authors' page names for the trained network. The id of the file in it is
# stated nowhere, so the folder is listed each time.
DRIVE_FOLDER = "1xC5Opwu5Afz4xiK5O9v4NnQOZY0A9-2j"
BACKBONES = ("pvt_v2_b0", "pvt_v2_b2")
NAMES = {
    "polyp_pvt": "the Polyp-PVT teacher, about 100 MB; terms: its authors' page (https://github.com/DengPingFan/Polyp-PVT) "
    "allows research and education, commercial use with their permission.",
    "imagenet": "PVTv2-B0 and PVTv2-B2 trained on ImageNet-1k, 15 and 102 MB, from timm's pages on huggingface.co; terms: "
    "Apache-2.0; the images of ImageNet that they were trained on are for non-commercial research.",
}


def choose(names: Sequence[str] = ()) -> list[str]:
    """The names, each once; by default all.

    Raises:
        UserError: a name that is not in `NAMES`.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(
                f'There are no weights "{name}" to fetch; choose from {", ".join(NAMES)}.'
            )
    return list(dict.fromkeys(names or NAMES))


def is_there(out: str | Path) -> bool:
    """True where the teacher's file is in place, fits its network and is the one that was put
    there.

    Raises:
        UserError: the file in place is damaged, is for another network, or has changed.
    """
    target = Path(out) / POLYP_PVT
    if not target.exists():
        return False
    _must_fit(target)
    verify(Path(out), POLYP_PVT, target)
    return True


def get_polyp_pvt(out: str | Path, source: str = "", patience: RetryPolicy = RETRY_POLICY) -> str:
    """Put the teacher's weights in place, once they have been loaded into the teacher.

    Args:
        source: a file or an address to take them from; empty: the authors' Drive folder.

    Returns:
        A line that says what was done.

    Raises:
        UserError: the file cannot be had (the sentence says how to do it by hand), does not fit the
            teacher, holds code, or is not the one that was noted before.
    """
    out = Path(out)
    target, beside = out / POLYP_PVT, out / "PolypPVT.unchecked.pth"
    if is_there(out):
        return f"{target} is there already and fits the teacher; left as it is."
    try:
        out.mkdir(parents=True, exist_ok=True)
        address = _bring(source, beside, patience)
        _must_fit(beside, source or address)
        digest = verify(out, POLYP_PVT, beside)
        record(out, POLYP_PVT, address, beside.stat().st_size, digest)
        beside.replace(target)
    except OSError as error:
        raise UserError(
            f"{target} could not be written ({error.strerror}); mend that and run the command again."
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return f"{target} fits the teacher; SHA-256 {digest[:12]}… noted beside it."


def _bring(source: str, beside: Path, patience: RetryPolicy) -> str:
    """The file, not yet trusted, under a name that nothing loads; the address it came from."""
    if source and "://" not in source:
        if not Path(source).is_file():
            raise UserError(f"{source} does not exist; --from takes a file or an address.")
        shutil.copyfile(source, beside)
        return source
    hint = (
        f"open https://drive.google.com/drive/folders/{DRIVE_FOLDER} in a browser (or find it from "
        f'https://github.com/DengPingFan/Polyp-PVT), save {POLYP_PVT} and run "kdas weights get polyp_pvt --from FILE"'
    )
    return fetch([source or _listed(hint, patience)], beside, hint, patience)


def _listed(hint: str, patience: RetryPolicy) -> str:
    """The address of the one file of that name in the authors' folder, as gdown reads Drive's
    listing.
    """
    import gdown

    try:
        files = gdown.download_folder(
            id=DRIVE_FOLDER,
            skip_download=True,
            quiet=True,
            use_cookies=False,
            timeout=(patience.connect, patience.read),
        )
        entries = [
            file for file in files if not isinstance(file, str)
        ]  # texts are what a download leaves
        (file,) = (
            file
            for file in entries
            if PurePosixPath(file.path.replace("\\", "/")).name == POLYP_PVT
        )
    except (
        Exception
    ) as error:  # no network, a page that gdown cannot read, no such file: the way out is the same
        raise UserError(
            f"The Drive folder of {POLYP_PVT} could not be listed ({_cause(error)}); {hint}."
        ) from error
    return f"drive:{file.id}"


def _cause(error: Exception) -> str:
    import requests

    if isinstance(error, requests.ConnectionError):
        return "not reachable: no network, or it is blocked"
    return (" ".join(str(error).split()) or type(error).__name__)[:160].rstrip(". ")


def _must_fit(file: Path, called: str = "") -> None:
    """Load a file into the teacher, with tensors only; the sentence speaks of the name that the
    user knows.
    """
    from kdas_core.models import build

    try:
        build("teacher", weights=file)
    except UserError as error:
        text = str(error).replace(str(file), called or str(file), 1)
        raise UserError(
            text if called else f"{text.rstrip('.')} (move it away to fetch another)."
        ) from None


def get_imagenet() -> list[str]:
    """Fetch the ImageNet weights of both backbones into the cache of huggingface_hub, or find them
    there.

    Returns:
        A line for each backbone.

    Raises:
        UserError: they are not in the cache and cannot be fetched; the sentence says how to bring
            them by hand.
    """
    from kdas_core.models.imagenet import hub_file, load_imagenet_backbone
    from kdas_core.models.polyp_pvt import Backbone

    lines = []
    for name in BACKBONES:
        load_imagenet_backbone(
            Backbone(name)
        )  # the one way in; it fetches what is not there, and loads it
        lines.append(f"{name}: ImageNet weights in {hub_file(name)}")
    return lines
