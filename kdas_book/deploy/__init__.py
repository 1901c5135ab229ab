"""Running a trained network elsewhere: one file, three runtimes, int8, a benchmark, videos.

`graph` is the network with all that `kdas predict` does around it; `export` writes it, `runtimes`
read it, `quantise` makes it smaller, `benchmark` and `costs` measure, `video` draws on films. The
packages that they need (extras ``deploy`` and ``video``) are imported where they are used.
"""

from importlib import import_module
from types import ModuleType

from kdas_core import UserError

LEAST, MOST = 32, 8192  # pixels: sides of an image or a frame that is taken


def needed(name: str, extra: str = "deploy") -> ModuleType:
    """A package of an extra; where it is missing, a UserError with the command that installs it."""
    try:
        return import_module(name)
    except ImportError:
        package = name.split(".")[0]
        get = package if package == "openvino" else f'"kdas_core[{extra}]"'
        raise UserError(f"{package} is not installed; get it with: pip install {get}") from None


def refuse_size(what: object, width: int, height: int) -> None:
    """A UserError where an image or a frame is too small or too large for the exported graph."""
    if not LEAST <= min(width, height) <= max(width, height) <= MOST:
        rule = f"sides of {LEAST} to {MOST:,} pixels are taken"
        raise UserError(f"{what} is {width}×{height}, and {rule}; resize or leave it out.")
