"""Schedules of stages as TOML: `[[stage]]` tables with the fields of `Stage`, in their own file or in a shot file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from deepenergy.runtime.errors import InputError, did_you_mean
from deepenergy.runtime.toml_input import read_toml, shown
from deepenergy.scene.control_groups import GROUPS
from deepenergy.scene.landmark_layout import SETS
from deepenergy.settings.schedule import Stage, check_groups

_PRINT = "`deepenergy stages` prints the default one"
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
# One line for each field of `Stage`, for those who read the printed schedule.
MEANINGS = {
    "name": "shown in the progress",
    "translation": "whether the rigid translation moves",
    "rotation": "whether the rigid rotation moves",
    "groups": "control groups that move, see `deepenergy rig info`; jaw_open and jaw move a jaw joint too",
    "landmark_weights": "factors on landmarks: jaw, brows, nose, eyes, mouth, or numbers (30, 48-59); else 0",
    "edge_weight": "factor on differences of neighbouring landmarks",
    "renders": "how often the render is made and read by the network",
    "iterations": "most least-squares steps for each render",
    "rigid_prior": "penalty on leaving the rigid pose at the stage's start, crop pixels for each degree or 2 mm",
    "fit_light": "whether the light is estimated from the plates before the stage",
    "reweight": "whether landmarks are weighted by the noise that the solved frames show",
    "readings": "how often the network reads each render; 0: what it said of the last one holds",
    "photometric": "factor on the render's own pixels against the plate's; 0 leaves them out",
    "blur": "smoothing under which pixels are compared, crop pixels",
    "fallback": "whether the stage is only for shots whose pixels cannot be compared",
}


def read_stages(path: str | Path, groups: Iterable[str] = ()) -> tuple[Stage, ...]:
    """Read a schedule.

    Args:
        path: the TOML file.
        groups: control groups that the rig has besides the usual ones.

    Raises:
        InputError: no such file, a TOML syntax error, or what `stages_of` refuses.
    """
    data = read_toml(path, "stages", "a schedule of stages (TOML)", _PRINT)
    for key in data:
        if key != "stage":
            remedy = did_you_mean(key, ["stage"])
            raise InputError(f"stages {key}", "an unknown key", "[[stage]] tables and nothing else", remedy)
    return stages_of(data.get("stage", []), groups)


def stages_of(tables: object, groups: Iterable[str] = ()) -> tuple[Stage, ...]:
    """Stages from the value of `stage` in a TOML file, in order.

    Args:
        tables: a list of tables.
        groups: control groups that the rig has besides the usual ones.

    Raises:
        InputError: no table, an unknown, missing or wrong field, an unknown control group or landmark set, a value out
            of its range.
    """
    expected = "one [[stage]] table or more"
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        remedy = "write [[stage]] with two brackets" if isinstance(tables, dict) else _PRINT
        raise InputError("stage", shown(tables), expected, remedy)
    if not tables:
        raise InputError("stage", "none", expected, _PRINT)
    stages = tuple(_stage(table, number) for number, table in enumerate(tables, 1))
    check_groups(stages, (*GROUPS, *groups))
    return stages


def _stage(table: Mapping[str, Any], number: int) -> Stage:
    # Here and not above: what prints a schedule does not need it, and it takes longer to import than all the rest.
    from pydantic import TypeAdapter, ValidationError

    label = f"stage '{table['name']}'" if isinstance(table.get("name"), str) else f"stage {number}"
    hints = get_type_hints(Stage)
    values: dict[str, Any] = {}
    for key, value in table.items():
        field = f"{label} {key}"
        if key not in hints:
            raise InputError(field, "an unknown key", f"one of {', '.join(hints)}", did_you_mean(key, hints))
        try:
            # TOML has lists for the tuple of groups.
            given = tuple(value) if key == "groups" and isinstance(value, list) else value
            values[key] = TypeAdapter(hints[key]).validate_python(given, strict=True)
        except ValidationError:
            what = _EXPECTED.get(hints[key], "a list of control groups" if key == "groups" else "set = factor")
            raise InputError(field, shown(value), what, f"{key}: {MEANINGS[key]}") from None
    for field in dataclasses.fields(Stage):
        if field.default is dataclasses.MISSING and field.name not in values:
            remedy = f"add `{field.name} = ...`: {MEANINGS[field.name]}"
            raise InputError(f"{label} {field.name}", "nothing", "a value", remedy)
    return Stage(**values)


def format_stages(stages: Sequence[Stage]) -> str:
    """The schedule as TOML that `read_stages` reads back; fields at their default are left out."""
    lines = [
        "# A schedule of stages, solved in this order. `deepenergy solve SHOT --stages FILE` reads it; the same tables",
        "# in a shot file replace the default schedule too. The fields, with their defaults:",
    ]
    for field in dataclasses.fields(Stage):
        default = "" if field.default is dataclasses.MISSING else f" = {_toml(field.default)}"
        lines.append(f"#   {field.name + default:22s} {MEANINGS[field.name]}")
    for number, stage in enumerate(stages, 1):
        lines += ["", f"# {number} of {len(stages)}: {describe(stage)}", "[[stage]]"]
        for field in dataclasses.fields(Stage):
            value = getattr(stage, field.name)
            if field.default is dataclasses.MISSING or value != field.default:
                lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def describe(stage: Stage) -> str:
    """What a stage does, in a line: what moves, and by what."""
    moved = ["pose"] if stage.translation and stage.rotation else []
    moved = moved or [word for word in ("translation", "rotation") if getattr(stage, word)]
    moved += stage.groups if len(stage.groups) <= 2 else [f"{len(stage.groups)} control groups"]
    sets = [name for name in SETS if stage.landmark_weights.get(name)]
    sets += [name for name in stage.landmark_weights if name not in SETS and stage.landmark_weights[name]]
    everything = all(factor > 0 for factor in stage.factors())
    data = ["all landmarks" if everything else f"the landmarks of {', '.join(sets)}"] if sets else []
    data += ["pixels"] if stage.photometric else []
    parts = [f"{' and '.join(moved)}, by {' and '.join(data)}"]
    parts += ["light first"] if stage.fit_light else []
    parts += ["only where pixels cannot be compared"] if stage.fallback else []
    return "; ".join(parts)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for the one control character that JSON allows.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + " }"
    return repr(value)
