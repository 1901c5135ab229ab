"""How a chapter gets to Colab, which opens its source: so that must know where the repository is.
``make repository URL=…`` writes it into ``_config.yml`` and the first cell of every chapter.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

import yaml

from kdas_core import UserError
from kdas_core.files import atomic_write

TAG = "setup"
SETUP = """# On Colab, or wherever this notebook lies alone: fetch the book and install what is
# missing. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys
from pathlib import Path

repository, revision = "{url}", "{revision}"
if importlib.util.find_spec("kdas_core") is None:
    book = Path("kdas-book").absolute()
    if not repository:
        raise RuntimeError(
            "This copy does not know its repository; clone that, and open the notebook"
            " there."
        )
    if not book.is_dir():
        clone = ["git", "clone", "-q", "--depth", "1", "--branch", revision]
        subprocess.run([*clone, repository, book], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "-e"]
    subprocess.run([*pip, book], check=True)
    sys.path.insert(0, str(book))  # a running kernel misses what pip has just installed
if "google.colab" in sys.modules:
    from kdas_book.colab import welcome

    welcome()"""


def welcome() -> None:
    """Versions, and what a reader on Colab should know: is a GPU on, where are networks kept."""
    import torch

    names = ("kdas_core", "torch", "timm", "numpy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    print(f"{', '.join(versions)} Python {sys.version.split()[0]}")
    if not torch.cuda.is_available():
        print(
            "No GPU is on, and training will be slow: Runtime, Change runtime type, T4 GPU, and "
            "run this cell again."
        )
    print(
        "Networks are lost with the session unless they are kept on Drive: run "
        "\"from google.colab import drive; drive.mount('/content/drive')\" and set "
        'runs_dir = "/content/drive/MyDrive/kdas-runs".'
    )


def setup_cell(url: str = "", revision: str = "main") -> str:
    """The first code cell of every chapter."""
    return SETUP.format(url=url, revision=revision)


def set_repository(root: Path, url: str, revision: str = "main") -> list[Path]:
    """Write the repository's address into ``_config.yml`` and the chapters; "" takes it out again.

    Args:
        url: such as ``https://github.com/owner/name``. Colab opens public repositories of GitHub
            alone, and so their pages get buttons.
        revision: branch or tag.

    Returns:
        The files that were written.

    Raises:
        UserError: no address of a repository, or a chapter without a setup cell.
    """
    url = url.strip().rstrip("/").removesuffix(".git")
    if url and not re.fullmatch(r"https://[\w.:@-]+(/[\w.-]+){2,}", url):
        raise UserError(
            f'"{url}" is no address of a repository, such as https://github.com/owner/name.'
        )
    if not re.fullmatch(r"[\w./-]+", revision):
        raise UserError(f'"{revision}" is no name of a branch or tag.')
    hub = re.fullmatch("https://github.com/([^/]+)/(.+)", url)
    values = {
        "url": f'"{url}"',
        "branch": f'"{revision}"',
        "baseurl": f'"https://{hub[1]}.github.io/{hub[2]}/"' if hub else '""',
        "colab_url": '"https://colab.research.google.com"' if hub else '""',
        "binderhub_url": '"https://mybinder.org"' if hub else '""',
        "use_repository_button": "true" if url else "false",
    }
    config = root / "_config.yml"
    text = config.read_text(encoding="utf-8")
    for key, value in values.items():
        text, times = re.subn(rf'^(  {key}: )("[^"]*"|\w+)', rf"\g<1>{value}", text, flags=re.M)
        if times != 1:
            raise UserError(f'{config} needs exactly one line "  {key}: …", its value in quotes.')
    chapters = sorted((root / "book").glob("[0-9][0-9]_*.ipynb"))
    contents = {chapter: _with_setup(chapter, setup_cell(url, revision)) for chapter in chapters}
    for file, content in {config: text, **contents}.items():
        atomic_write(file, content.encode())
    return [config, *chapters]


def _with_setup(chapter: Path, source: str) -> str:
    import nbformat  # not on every machine that runs a chapter

    notebook = nbformat.read(chapter, as_version=4)
    found = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
    if len(found) != 1:
        raise UserError(f'{chapter} needs exactly one cell with the tag "{TAG}".')
    found[0].source = source
    return nbformat.writes(notebook) + "\n"


def repository(root: Path) -> str:
    """The address in ``_config.yml``; empty as long as nobody has set it."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return str((config.get("repository") or {}).get("url") or "")


if __name__ == "__main__":
    from kdas_book.paths import find_root

    try:
        print(*set_repository(find_root(), *sys.argv[1:3]), sep="\n")
    except UserError as error:
        sys.exit(f"make repository: {error}")
