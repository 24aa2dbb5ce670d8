"""TOML files from users: read, with every way that the text can be wrong reported in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deepenergy.runtime.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LONGEST = 80


def read_toml(path: str | Path, what: str, expected: str, remedy: str) -> dict[str, Any]:
    """The content of a TOML file; a byte order mark is no error.

    Args:
        path: the file.
        what: what errors call it ("shot", ...).
        expected, remedy: what to say where there is no such file.

    Raises:
        InputError: no such file, a folder, bytes that are not UTF-8, a syntax error (with its line).
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(what, f"a folder, {path}" if path.is_dir() else f"no file {path}", expected, remedy)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{what} {path.name}", f"a syntax error: {error}", "TOML", "correct that line") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} {path.name}",
            f"bytes that are not UTF-8 at {error.start}",
            "a TOML text file",
            f"save it as UTF-8, or check that it is {expected.partition(' (')[0]}",
        ) from None


def shown(value: object) -> str:
    """A value as an error shows it: short."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
