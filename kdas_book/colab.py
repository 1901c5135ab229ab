"""How a chapter gets to Colab, which opens its source: so that must know where the repository is.
``make repository URL=…`` writes it into ``_config.yml`` and the first cell of every chapter, which
fetches and installs the book where it is missing.
"""

import importlib.metadata
import platform
import re
import sys
from pathlib import Path

import yaml

from kdas_book.paths import find_root
from kdas_book.records import clock, read_times
from kdas_core import UserError
from kdas_core.files import atomic_write

# Minutes at preset "colab" on a T4, from a step's work and the card's bandwidth (0.33 s for a KDAS
# step of 16 images at 352 px), and what a chapter trains that finds nothing in runs_dir.
_MINUTES = {"teacher": 12, "supervised": 5, "distilled": 10}
_TRAINS = {
    "00_three_minutes": ["teacher"],
    "02_teacher": ["teacher"],
    "03_student": ["teacher", "supervised"],
    "04_attention_maps": ["teacher", "supervised", "distilled"],
    "05_distillation_losses": ["teacher", "distilled"],
    "06_training": ["teacher", "supervised", "distilled"],
    "07_evaluation": ["teacher", "supervised", "distilled", "distilled"],
    "08_released_code": ["teacher", *["supervised"] * 4],
    "09_rivals": ["teacher", "distilled", "distilled"],
    "12_running_it": ["teacher", "supervised", "distilled"],
}


def _expected(chapter: str) -> str:
    """How long the chapter takes: as measured at ``smoke``, as we estimate at ``colab``."""
    measured = read_times(find_root()).query("preset == 'smoke' and chapter == @chapter")
    said = [
        f'{clock(row.seconds)} minutes at preset "smoke" on {row.machine}, measured'
        for row in measured.itertuples()
    ]
    minutes = sum(_MINUTES[network] for network in _TRAINS.get(chapter, []))
    trains = f'at "colab" about {minutes} minutes of training on a T4, our estimate'
    said.append(f"{trains}, less what runs_dir holds" if minutes else "no long training")
    return f"This chapter: {'; '.join(said)}."


def welcome(chapter: str) -> None:
    """Versions, and what a reader on Colab should know: the GPU, how long this chapter takes, and
    where networks are kept.
    """
    import torch

    names = ("kdas_core", "torch", "timm", "numpy")
    print(*(f"{name} {importlib.metadata.version(name)}," for name in names), end=" ")
    print(f"Python {platform.python_version()}")
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        print(f"GPU: {card.name} with {card.total_memory / 2**30:.0f} GB.")
    else:
        way_out = "Runtime, Change runtime type, T4 GPU, and run this cell again"
        print(f"No GPU is on, and training will be slow: {way_out}.")
    print(_expected(chapter))
    mount = "from google.colab import drive; drive.mount('/content/drive')"
    keep = 'runs_dir = "/content/drive/MyDrive/kdas-runs"'
    print(f"Networks are lost with the session unless you keep them: run {mount}, set {keep}.")


def set_repository(root: Path, url: str, revision: str = "main") -> list[Path]:
    """Write an address such as ``https://github.com/owner/name``, and a branch or tag, into
    ``_config.yml`` and the chapters, which are returned; "" takes it out again. Colab opens public
    repositories of GitHub alone, and so their pages get buttons. UserError: no such address.
    """
    url = url.strip().rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"(https://[\w.:@-]+(/[\w.-]+){2,})? [\w./-]+", f"{url} {revision}"):
        example = "https://github.com/owner/name and main are such"
        wrong = f'"{url}" is no address of a repository, or "{revision}" no branch or tag'
        raise UserError(f"{wrong}; {example}.")
    hub = re.fullmatch("https://github.com/([^/]+)/(.+)", url)
    values = {
        "url": f'"{url}"',
        "branch": f'"{revision}"',
        "baseurl": f'"https://{hub[1]}.github.io/{hub[2]}/"' if hub else '""',
        "colab_url": '"https://colab.research.google.com"' if hub else '""',
        "binderhub_url": '"https://mybinder.org"' if hub else '""',
        "use_repository_button": "true" if url else "false",
    }
    lines = {rf'^(  {key}: )("[^"]*"|\w+)': value for key, value in values.items()}
    contents = {root / "_config.yml": _with(root / "_config.yml", lines)}
    cell = {r'(repository, revision = )\\".*?\\", \\".*?\\"': rf'\\"{url}\\", \\"{revision}\\"'}
    for chapter in sorted((root / "book").glob("[0-9][0-9]_*.ipynb")):
        contents[chapter] = _with(chapter, cell)
    for file, content in contents.items():
        atomic_write(file, content)
    return list(contents)


def _with(file: Path, values: dict[str, str]) -> bytes:
    """The file with other values behind what these patterns match, each in exactly one place."""
    text = file.read_text(encoding="utf-8")
    for pattern, value in values.items():
        text, times = re.subn(pattern, rf"\g<1>{value}", text, flags=re.M)
        if times != 1:
            raise UserError(f"{file} needs exactly one place for the address, like {pattern}")
    return text.encode()


def repository(root: Path) -> str:
    """The address in ``_config.yml``; empty as long as nobody has set it."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return str((config.get("repository") or {}).get("url") or "")


if __name__ == "__main__":
    try:
        print(*set_repository(find_root(), *sys.argv[1:3]), sep="\n")
    except UserError as error:
        sys.exit(f"make repository: {error}")
