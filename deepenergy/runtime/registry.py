"""Which reader or writer serves which file ending.

The nouns (`Rig`, `Camera`, `Plates`, `Track`) load themselves, and yet import only torch and numpy: `deepenergy.io`
registers its functions here, by name, and a reader's library is imported when the first file of its kind is read.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from deepenergy.runtime.errors import InputError

_table: dict[tuple[str, str], str] = {}


def register(action: str, suffixes: tuple[str, ...], target: str) -> None:
    """Register `target` ("package.module:function") for an action ("read rig") on file endings (".glb")."""
    for suffix in suffixes:
        _table[(action, suffix)] = target


def suffixes(action: str) -> list[str]:
    """The file endings that an action is registered for."""
    return sorted(suffix for known, suffix in _table if known == action)


def lookup(action: str, path: Path, field: str) -> Callable[..., Any]:
    """The function for `path`; the longest matching ending wins, a folder matches the ending "/".

    Raises:
        InputError: no function is registered for this ending.
    """
    name = path.name.lower()
    known = sorted(suffixes(action), key=len, reverse=True)
    for suffix in known:
        if (suffix == "/" and path.is_dir()) or (suffix != "/" and name.endswith(suffix)):
            module, function = _table[(action, suffix)].split(":")
            return getattr(import_module(module), function)
    raise InputError(
        field,
        f"{path} (ending '{path.suffix}')",
        "one of " + ", ".join("a folder" if s == "/" else s for s in sorted(known)),
        "convert the file or give its path with one of these endings",
    )
