"""Schedules of stages as TOML: `[[stage]]` tables with the fields of `Stage`, in their own file or in a shot file."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from deepenergy.control_groups import GROUPS
from deepenergy.errors import InputError
from deepenergy.stages import LANDMARK_SETS, Stage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FIELDS = {field.name: field for field in dataclasses.fields(Stage)}


def read_stages(path: str | Path) -> tuple[Stage, ...]:
    """Read a schedule.

    Raises:
        InputError: no such file, a TOML syntax error, or what `stages_of` refuses.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError("stages", f"no file {path}", "a schedule (TOML)", "print the default: `deepenergy stages`")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"stages {path.name}", f"a syntax error: {error}", "TOML", "mend that line") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"stages {path.name}", f"bytes that are not UTF-8 ({error})", "text", "save as UTF-8"
        ) from None
    odd = sorted(set(data) - {"stage"})
    if odd:
        raise InputError(f"stages {path.name}", f"an unknown key '{odd[0]}'", "[[stage]] tables alone", "remove it")
    return stages_of(data.get("stage", []))


def stages_of(tables: Sequence[Mapping[str, Any]]) -> tuple[Stage, ...]:
    """Stages from tables, in order.

    Raises:
        InputError: no table, an unknown, missing or wrong field, an unknown control group or landmark set.
    """
    if not tables:
        raise InputError("stages", "none", "one [[stage]] table or more", "print the default: `deepenergy stages`")
    hints = get_type_hints(Stage)
    stages = []
    for number, table in enumerate(tables, 1):
        name = str(table.get("name", number))
        values: dict[str, Any] = {}
        for key, value in table.items():
            field = f"stage '{name}' {key}"
            if key not in hints:
                raise InputError(field, "an unknown key", f"one of {', '.join(hints)}", _near(key, hints))
            try:
                # A list is how TOML writes the tuple of groups.
                values[key] = TypeAdapter(hints[key]).validate_python(tuple(value) if key == "groups" else value)
            except (ValidationError, TypeError):
                raise InputError(field, repr(value), _expected(hints[key]), f"correct `{key}`") from None
        for key, known in (("groups", GROUPS), ("landmark_weights", LANDMARK_SETS)):
            for entry in values.get(key, ()):
                if entry not in known:
                    field = f"stage '{name}' {key}"
                    raise InputError(field, f"'{entry}'", f"one of {', '.join(known)}", _near(entry, known))
        absent = [k for k, f in _FIELDS.items() if f.default is dataclasses.MISSING and k not in values]
        if absent:
            raise InputError(f"stage '{name}'", f"no {', '.join(absent)}", "these fields", "add them")
        stages.append(Stage(**values))
    return tuple(stages)


def format_stages(stages: Sequence[Stage]) -> str:
    """The schedule as TOML that `read_stages` reads back; fields at their default are left out."""
    parts = ["# In order. Fields that are left out have their defaults: deepenergy.stages.Stage says which.\n"]
    for stage in stages:
        lines = ["[[stage]]"]
        for key, field in _FIELDS.items():
            value = getattr(stage, key)
            if field.default is dataclasses.MISSING or value != field.default:
                lines.append(f"{key} = {_toml(value)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + " }"
    return repr(value)


def _near(key: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    found = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean '{found[0]}'?" if found else "remove it"


def _expected(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(hint, "a list of control groups" if "tuple" in str(hint) else "a table: landmark set = factor")
