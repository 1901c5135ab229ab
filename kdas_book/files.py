"""Files that the workshop writes: none of others is replaced, and of several all appear or none."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kdas_core import UserError
from kdas_core.files import unwritten


def refuse_foreign(path: Path, kind: str, is_ours: Callable[[Path], object]) -> None:
    """A UserError where something stands in the place of a file that is to be written, and is no
    ``kind``, such as "figure of kdas". ``is_ours`` looks into it; an error there means no.
    """
    ours: object = not os.path.lexists(path)
    with suppress(OSError, ValueError):
        ours = ours or is_ours(path)
    if not ours:
        raise UserError(f"{path} is there already and is no {kind}; choose another place.")


def write_together(contents: Mapping[Path, bytes | str]) -> list[Path]:
    """Write all files or none: each beside its place first, renamed last. Returns their paths."""
    drafts = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            drafts[path].write_bytes(content.encode() if isinstance(content, str) else content)
        for path in contents:
            os.replace(drafts[path], path)
    except OSError as error:
        raise unwritten(path, error, "choose another place") from error
    finally:
        for draft in drafts.values():
            with suppress(OSError):  # such as a name that is too long
                draft.unlink()
    return list(contents)


@contextmanager
def staging_dir(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out``, to be renamed or emptied to it; gone at the end in any case.
    UserError where nothing can be written there.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise unwritten(out, error, "choose another folder") from error
    try:
        draft.chmod(0o755)  # mkdtemp makes it private
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
