"""Files that appear whole or not at all: written beside their place, then moved there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepenergy.runtime.errors import InputError


@contextmanager
def atomic_path(path: str | Path, field: str = "output") -> Iterator[Path]:
    """A temporary path beside `path`, with its ending; moved to `path` when the block ends without an error.

    A reader never sees half a file, and a run that is killed leaves the old file as it was.

    Args:
        path: where the file belongs.
        field: what an error calls it.

    Raises:
        InputError: the folder does not exist or cannot be written, or `path` is a folder.
    """
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        raise InputError(field, f"no folder {folder}", "a folder that exists", "make the folder or change the path")
    if path.is_dir():
        raise InputError(field, f"a folder at {path}", "a file's path", "add a file name")
    if not os.access(folder, os.W_OK):
        raise InputError(field, f"the folder {folder} read-only", "a folder to write in", "change the path")
    temporary = folder / f".{path.stem}.{os.getpid()}.tmp{path.suffix}"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
