"""The workshop around the method: what draws, runs, renders, fetches, imports, and reports. The
method itself is ``kdas_core``, which imports nothing from here.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """``kdas_book.begin`` loads PyTorch; whoever only wants the command line does without."""
    if name == "begin":
        from kdas_book.session import begin

        return begin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
