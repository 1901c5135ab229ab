"""Where the repository is."""

from __future__ import annotations

from pathlib import Path

import kdas_core


def find_root() -> Path:
    """The folder with ``_toc.yml``, above the working directory or above this package."""
    for start in (Path.cwd(), Path(kdas_core.__file__).parent):
        for folder in (start, *start.parents):
            if (folder / "_toc.yml").is_file():
                return folder
    return Path.cwd()
