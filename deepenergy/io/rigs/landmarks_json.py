"""Reads the 68 iBUG landmarks of a rig from JSON: vertex numbers, or points in triangles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import IBUG_68
from deepenergy.scene.rig import Rig

LAYOUT = '{"indices": [68 vertex numbers]} or {"faces": [68 triangle numbers], "barycentrics": [[a, b, c], ...]}'


def read_landmarks(path: Path, rig: Rig) -> Rig:
    """The rig with the landmarks of a JSON file: 68 points in iBUG 300-W / Multi-PIE order.

    `indices` are vertex numbers of the rig (of a glTF file's face mesh, which is the rig's first), or `faces` and
    `barycentrics` are points in triangles. Other keys are notes.

    Raises:
        InputError: no such file, not JSON, neither layout, another count than 68, numbers out of range, barycentrics
            that do not sum to one.
    """
    path = Path(path)
    field = f"landmarks {path}"
    data = _load(path, field)
    if "indices" in data:
        indices = _integers(data["indices"], f"{field} indices")
        _check_range(indices, rig.neutral.shape[0], f"{field} indices", "vertices")
        return rig.with_landmark_vertices(_on_triangles(indices, rig, field))
    if "faces" in data and "barycentrics" in data:
        faces = _integers(data["faces"], f"{field} faces")
        _check_range(faces, rig.faces.shape[0], f"{field} faces", "triangles")
        barycentrics = _barycentrics(data["barycentrics"], f"{field} barycentrics")
        return replace(rig, landmark_faces=faces, landmark_barycentrics=barycentrics)
    raise InputError(field, f"the keys {sorted(data)}", LAYOUT, "write the landmarks in one of these layouts")


def _load(path: Path, field: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(field, f"no readable file ({error.strerror})", LAYOUT, "check the path") from error
    except ValueError as error:
        raise InputError(field, f"text that is not JSON ({error})", LAYOUT, "check the file") from error
    if not isinstance(data, dict):
        raise InputError(field, f"a JSON {type(data).__name__}", LAYOUT, "wrap the list in an object")
    return data


def _integers(values: Any, field: str) -> Tensor:
    remedy = "give every iBUG point one number"
    if not isinstance(values, list) or any(not isinstance(v, int) or isinstance(v, bool) for v in values):
        raise InputError(field, f"{str(values)[:60]}", f"a list of {IBUG_68.count} whole numbers", remedy)
    if len(values) != IBUG_68.count:
        raise InputError(field, f"{len(values)} numbers", f"{IBUG_68.count}, in iBUG/Multi-PIE order", remedy)
    return torch.tensor(values, dtype=torch.int64)


def _check_range(numbers: Tensor, count: int, field: str, what: str) -> None:
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= count:
        raise InputError(field, f"{low}..{high}", f"0..{count - 1}, the rig's {what}", "use this rig's own landmarks")


def _barycentrics(values: Any, field: str) -> Tensor:
    remedy = "give three shares that sum to one for every point"
    try:
        barycentrics = torch.tensor(values, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise InputError(field, f"{str(values)[:60]}", f"{IBUG_68.count} triples of numbers", remedy) from error
    if barycentrics.shape != (IBUG_68.count, 3):
        raise InputError(field, f"shape {tuple(barycentrics.shape)}", f"({IBUG_68.count}, 3)", remedy)
    if not bool(((barycentrics.sum(-1) - 1).abs() < 1e-3).all()):
        worst = int((barycentrics.sum(-1) - 1).abs().nan_to_num(torch.inf).argmax())
        raise InputError(field, f"{barycentrics[worst].tolist()} at point {worst}", "shares that sum to one", remedy)
    return barycentrics


def _on_triangles(indices: Tensor, rig: Rig, field: str) -> Tensor:
    """Indices with every vertex that no triangle uses replaced by a used twin: readers join copies at UV seams."""
    used = torch.zeros(rig.neutral.shape[0], dtype=torch.bool)
    used[rig.faces.reshape(-1)] = True
    found = indices.clone()
    for point in torch.nonzero(~used[indices]).reshape(-1).tolist():
        vertex = int(indices[point])
        same = used & (rig.neutral == rig.neutral[vertex]).all(-1)
        same &= (rig.blendshapes == rig.blendshapes[:, vertex, None]).all(-1).all(0)
        if not bool(same.any()):
            raise InputError(
                f"{field} indices",
                f"vertex {vertex} at point {point}, which no triangle uses",
                "vertices of the surface",
                "choose a vertex of the face",
            )
        found[point] = int(torch.nonzero(same)[0])
    return found
