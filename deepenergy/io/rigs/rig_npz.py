"""Rigs as `.npz`: everything a `Rig` holds, without pickle. Names and group overrides are JSON in string arrays.

A file that names no landmark scheme has the points of iBUG.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import IBUG_68, layout_from_name
from deepenergy.scene.rig import Jaw, Rig

FORMAT = "deepenergy.rig"
VERSION = 1
EXPECTED, REMEDY = "a rig written by deepenergy", "make it with `deepenergy rig convert`, or name the rig's file"

# Array -> its dimensions, of which letters must agree with each other.
_REQUIRED = {"neutral": "V3", "faces": "F3", "blendshapes": "KV3", "weight_bounds": "K2", "face_regions": "F"}
_OPTIONAL = {
    "landmark_faces": "L",
    "landmark_barycentrics": "L3",
    "uvs": "N2",
    "uv_faces": "F3",
    "vertex_albedo": "V3",
    "texture": "HW3",
    "identity_basis": "IV3",
}
_JAW = {"pivot": "3", "skin_weights": "V", "lower": "6", "upper": "6"}
_WHOLE = ("faces", "face_regions", "landmark_faces", "uv_faces")
_TEXTS = ("name", "weight_names", "region_names", "identity_names", "group_overrides")
_LAYOUT = "landmark_layout"


def write_rig(path: Path, rig: Rig) -> None:
    """Write a rig, whole or not at all; reading it back gives the same tensors bit for bit.

    Raises:
        InputError: a folder that does not exist or cannot be written.
    """
    content: dict[str, np.ndarray] = {"format": np.array(FORMAT), "version": np.array(VERSION)}
    texts: dict[str, Any] = {name: getattr(rig, name) for name in _TEXTS}
    texts["group_overrides"] = {group: list(names) for group, names in rig.group_overrides.items()}
    content |= {name: np.array(json.dumps(value)) for name, value in texts.items()}
    if rig.layout != IBUG_68:
        content[_LAYOUT] = np.array(rig.layout.name)
    tensors = {name: getattr(rig, name) for name in (*_REQUIRED, *_OPTIONAL)}
    if rig.jaw is not None:
        tensors |= {f"jaw_{name}": getattr(rig.jaw, name) for name in _JAW}
    content |= {name: value.detach().cpu().numpy() for name, value in tensors.items() if value is not None}
    with atomic_path(path, "rig output") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **content)  # pyright: ignore[reportArgumentType]


def read_rig(path: Path) -> Rig:
    """Read a rig.

    Raises:
        InputError: not a rig, of a newer format, truncated, or with missing or wrong arrays.
    """
    field = f"rig {path}"
    try:
        # Opened here, because numpy leaves a truncated archive open.
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(field, f"a file that cannot be read ({error})", EXPECTED, REMEDY) from error
    _check_format(content, field)
    texts = {name: _text(content, name, field) for name in _TEXTS}
    has_jaw = any(name.startswith("jaw_") for name in content)
    shapes = _REQUIRED | {name: shape for name, shape in _OPTIONAL.items() if name in content}
    shapes |= {f"jaw_{name}": shape for name, shape in _JAW.items()} if has_jaw else {}
    layout = layout_from_name(str(content[_LAYOUT])) if _LAYOUT in content else IBUG_68
    sizes = {"K": len(texts["weight_names"]), "L": layout.count, "I": len(texts["identity_names"])}
    tensors = {name: _tensor(content, name, shape, sizes, field) for name, shape in shapes.items()}
    jaw = Jaw(*(tensors.pop(f"jaw_{name}") for name in _JAW)) if has_jaw else None
    return Rig(
        name=texts["name"],
        weight_names=tuple(texts["weight_names"]),
        region_names=tuple(texts["region_names"]),
        identity_names=tuple(texts["identity_names"]),
        group_overrides=texts["group_overrides"],
        jaw=jaw,
        layout=layout,
        **tensors,  # pyright: ignore[reportArgumentType]
    )


def _check_format(content: dict[str, np.ndarray], field: str) -> None:
    if "format" not in content or str(content["format"]) != FORMAT:
        found = f"the format '{content['format']}'" if "format" in content else f"arrays {sorted(content)[:6]}"
        raise InputError(field, found, EXPECTED, REMEDY)
    version = content.get("version")
    if version is None or version.shape != () or version.dtype.kind not in "iu":
        raise InputError(f"{field} version", f"{version}", "a whole number", REMEDY)
    if int(version) > VERSION:
        raise InputError(f"{field} version", f"{version}", f"at most {VERSION}", "read it with a newer deepenergy")


def _text(content: dict[str, np.ndarray], name: str, field: str) -> Any:
    if name not in content:
        raise InputError(field, f"no array '{name}'", EXPECTED, REMEDY)
    try:
        value = json.loads(str(content[name]))
    except ValueError as error:
        raise InputError(f"{field} {name}", f"text that is not JSON ({error})", EXPECTED, REMEDY) from error
    kind = {"name": str, "group_overrides": dict}.get(name, list)
    if not isinstance(value, kind) or (kind is list and not all(isinstance(v, str) for v in value)):
        raise InputError(f"{field} {name}", f"{str(value)[:60]}", f"a {kind.__name__} of names", REMEDY)
    return value


def _tensor(content: dict[str, np.ndarray], name: str, shape: str, sizes: dict[str, int], field: str) -> torch.Tensor:
    """The array as a tensor; `sizes` learns the letters of its shape."""
    if name not in content:
        raise InputError(field, f"no array '{name}'", EXPECTED, REMEDY)
    value = content[name]
    kind = "iu" if name in _WHOLE else "f"
    wanted = [int(letter) if letter.isdigit() else sizes.get(letter) for letter in shape]
    fits = value.ndim == len(shape) and all(w in (None, n) for w, n in zip(wanted, value.shape, strict=True))
    if not fits or value.dtype.kind not in kind:
        letters = ", ".join(str(w) if w is not None else letter for w, letter in zip(wanted, shape, strict=True))
        raise InputError(
            f"{field} {name}",
            f"{value.dtype} of shape {value.shape}",
            f"{'integers' if kind == 'iu' else 'floats'} of shape ({letters})",
            REMEDY,
        )
    sizes |= dict(zip(shape, value.shape, strict=True))
    return torch.from_numpy(np.ascontiguousarray(value))
