"""Where the repository is."""

from pathlib import Path

import kdas_core


def find_root() -> Path:
    """The folder with ``_toc.yml``, above the working directory or above this package."""
    starts = Path.cwd() / "here", Path(kdas_core.__file__)
    folders = (folder for start in starts for folder in start.parents)
    return next((f for f in folders if (f / "_toc.yml").is_file()), Path.cwd())
