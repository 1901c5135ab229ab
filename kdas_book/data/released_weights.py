"""``kdas weights get``: weights that others released, the Polyp-PVT teacher and two backbones."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdas_book.data import fetch
from kdas_book.data.download import record, verify
from kdas_core import UserError
from kdas_core.files import unwritten

POLYP_PVT = "PolypPVT.pth"
# The authors' page names this Drive folder and no file in it, so the folder is listed each time.
DRIVE_FOLDER = "1xC5Opwu5Afz4xiK5O9v4NnQOZY0A9-2j"
BACKBONES = ("pvt_v2_b0", "pvt_v2_b2")
NAMES = {
    "polyp_pvt": "the Polyp-PVT teacher, about 100 MB; terms: its authors' page "
    "(https://github.com/DengPingFan/Polyp-PVT) allows research and education, commercial use "
    "with their permission.",
    "imagenet": "PVTv2-B0 and PVTv2-B2 trained on ImageNet-1k, 15 and 102 MB, from timm's pages on "
    "huggingface.co; terms: Apache-2.0; the images of ImageNet that they were trained on are for "
    "non-commercial research.",
}
BY_HAND = (
    f"open https://drive.google.com/drive/folders/{DRIVE_FOLDER} in a browser (or find it from "
    f"https://github.com/DengPingFan/Polyp-PVT), save {POLYP_PVT} and run "
    '"kdas weights get polyp_pvt --from FILE"'
)


def choose(names: Sequence[str] = ()) -> list[str]:
    """The names, each once, by default all; `UserError` if one is not in `NAMES`."""
    for name in names:
        if name not in NAMES:
            choices = ", ".join(NAMES)
            raise UserError(f'There are no weights "{name}" to fetch; choose from {choices}.')
    return list(dict.fromkeys(names or NAMES))


def is_there(out: str | Path) -> bool:
    """Whether the teacher's file is in place; `UserError` if it is damaged, is for another
    network, or is not the one that was noted.
    """
    target = Path(out) / POLYP_PVT
    if target.exists():
        _must_fit(target)
        verify(Path(out), target, POLYP_PVT)
    return target.exists()


def get_polyp_pvt(out: str | Path, source: str = "") -> str:
    """Put the teacher's weights in place, once they have been loaded into it; says what was done.
    ``source`` is the file or address to take them from, by default the authors' Drive folder.

    UserError: the file cannot be had (the sentence says how to do it by hand), does not fit the
    teacher, holds code, or is not the one that was noted before.
    """
    out = Path(out)
    target, beside = out / POLYP_PVT, out / "PolypPVT.unchecked.pth"  # a name that nothing loads
    if is_there(out):
        return f"{target} is there already and fits the teacher; left as it is."
    try:
        out.mkdir(parents=True, exist_ok=True)
        if "://" in source or not source:
            source = fetch.fetch([source or _listed()], beside, BY_HAND)
        elif Path(source).is_file():
            shutil.copyfile(source, beside)
        else:
            raise UserError(f"{source} does not exist; --from takes a file or an address.")
        _must_fit(beside, source)
        digest = verify(out, beside, POLYP_PVT)
        record(out, beside, POLYP_PVT, source, digest)
        beside.replace(target)
    except OSError as error:
        raise unwritten(target, error, "mend that and run the command again") from error
    finally:
        beside.unlink(missing_ok=True)
    return f"{target} fits the teacher; SHA-256 {digest[:12]}… noted beside it."


def _listed() -> str:
    """The address of the one file of that name in the authors' folder."""
    fetch.require_gdown()
    how: dict[str, Any] = {"quiet": True, "use_cookies": False, "timeout": fetch.TIMEOUT}
    try:
        files = fetch.gdown.download_folder(id=DRIVE_FOLDER, skip_download=True, **how)
        named = [f for f in files if not isinstance(f, str) and Path(f.path).name == POLYP_PVT]
        if len(named) == 1:
            return f"drive:{named[0].id}"
        why = f"it holds {len(named)} files of this name"
    except Exception as error:  # no network, or a page that gdown cannot read
        why = fetch.short(error)
    raise UserError(f"The Drive folder of {POLYP_PVT} could not be listed ({why}); {BY_HAND}.")


def _must_fit(file: Path, called: str = "") -> None:
    """Load a file into the teacher, tensors only; errors speak of the name that the user knows."""
    from kdas_core.models import build

    try:
        build("teacher", weights=file)
    except UserError as error:
        text = str(error).replace(str(file), called or str(file), 1)
        away = "" if called else " (move it away to fetch another)"
        raise UserError(f"{text.rstrip('.')}{away}.") from None


def get_imagenet() -> list[str]:
    """Bring the ImageNet weights of both backbones into huggingface_hub's cache; a line for each.
    `UserError` says how to bring them by hand where they cannot be fetched.
    """
    from kdas_core.models.imagenet import hub_file, load_imagenet_backbone
    from kdas_core.models.polyp_pvt import Backbone

    for name in BACKBONES:
        load_imagenet_backbone(Backbone(name))  # fetches what is not there
    return [f"{name}: ImageNet weights in {hub_file(name)}" for name in BACKBONES]
