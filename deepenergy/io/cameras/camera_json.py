"""Calibrated cameras as JSON: `{"cameras": [{"name", "width", "height", "fx", "fy", "cx", "cy", "distortion", ...}]}`.

Every camera has `world_to_camera`, a 4x4 list of rows (OpenCV axes, metres), and `distortion` [k1, k2, p1, p2, k3].
Pixels count from the image's top-left corner (the centre of the first pixel is (0.5, 0.5)). Other keys are notes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera

CONVENTION = (
    "OpenCV camera axes (x right, y down, z forward); x_cam = world_to_camera @ [x_world, 1]; u = fx*x/z+cx, "
    "v = fy*y/z+cy; (0, 0) is the image's top-left corner, the centre of the top-left pixel is (0.5, 0.5); metres; "
    "distortion [k1, k2, p1, p2, k3] as OpenCV's"
)
LAYOUT = '{"cameras": [{"name": "left", "width": 720, ...}]}'
SHAPES: dict[str, tuple[int, ...]] = {"distortion": (5,), "world_to_camera": (4, 4)}


def read_camera(path: Path, name: str | None = None) -> Camera:
    """Read one camera of a file.

    Args:
        path: the JSON file.
        name: which camera; may be left out where the file holds one.

    Raises:
        InputError: no such camera, several without a name, or anything that `read_cameras` refuses.
    """
    cameras = read_cameras(path)
    names = ", ".join(cameras)
    if name is None and len(cameras) > 1:
        raise InputError(f"camera {path}", f"{len(cameras)} cameras and no name", f"one of {names}", "pass name=")
    if name is None:
        return next(iter(cameras.values()))
    if name not in cameras:
        raise InputError(f"camera {path}", f"no camera '{name}'", f"one of {names}", "check the name")
    return cameras[name]


def read_cameras(path: Path) -> dict[str, Camera]:
    """Read all cameras of a file, by name.

    Raises:
        InputError: not JSON, a key that is missing or of the wrong type or shape, NaN, a name used twice, a matrix
            that is not rigid.
    """
    path = Path(path)
    field = f"camera {path}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(field, f"no readable file ({error.strerror})", LAYOUT, "check the path") from error
    except ValueError as error:
        raise InputError(field, f"text that is not JSON ({error})", LAYOUT, "check the file") from error
    entries = data.get("cameras") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{field} cameras", f"{str(entries)[:60]}", LAYOUT, "list at least one camera")
    cameras: dict[str, Camera] = {}
    for position, entry in enumerate(entries):
        camera = _camera(entry, position, field)
        if camera.name in cameras:
            raise InputError(f"{field} cameras", f"'{camera.name}' twice", "one camera of each name", "rename one")
        cameras[camera.name] = camera
    return cameras


def write_cameras(path: Path, cameras: Mapping[str, Camera], notes: Mapping[str, Any] | None = None) -> None:
    """Write cameras in the layout that `read_cameras` reads, whole or not at all; numbers survive bit for bit.

    Args:
        path: the JSON file.
        cameras: name -> camera; the name is the key's.
        notes: further top-level keys (frame rate, ...).

    Raises:
        InputError: a batch of cameras, or a folder that cannot be written.
    """
    entries = []
    for name, camera in cameras.items():
        if camera.intrinsics.ndim != 1 or camera.world_to_camera.ndim != 2 or camera.distortion.ndim != 1:
            raise InputError(
                f"camera '{name}'", "a batch of cameras", "single cameras", "write the camera that the crops come from"
            )
        fx, fy, cx, cy = camera.intrinsics.tolist()
        entries.append(
            {
                "name": name,
                "width": camera.width,
                "height": camera.height,
                "fx": fx,
                "fy": fy,
                "cx": cx,
                "cy": cy,
                "distortion": camera.distortion.tolist(),
                "world_to_camera": camera.world_to_camera.tolist(),
            }
        )
    text = json.dumps({"convention": CONVENTION, **(notes or {}), "cameras": entries}, indent=1)
    with atomic_path(path, "camera output") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _camera(entry: Any, position: int, field: str) -> Camera:
    where = f"{field} cameras[{position}]"
    if not isinstance(entry, dict):
        raise InputError(where, f"{str(entry)[:60]}", "an object with name, width, height, ...", "check the layout")
    name = _value(entry, "name", where)
    if not isinstance(name, str) or not name:
        raise InputError(f"{where} name", f"{name!r}", "a text", "name the camera")
    where = f"{field} '{name}'"
    sizes = {key: _value(entry, key, where) for key in ("width", "height")}
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{where} {key}", f"{value!r}", "whole pixels", "give the image size as a whole number")
    intrinsics = [_number(_value(entry, key, where), f"{where} {key}") for key in ("fx", "fy", "cx", "cy")]
    arrays = {key: _array(_value(entry, key, where), shape, f"{where} {key}") for key, shape in SHAPES.items()}
    try:
        return Camera(
            width=sizes["width"],
            height=sizes["height"],
            intrinsics=torch.tensor(intrinsics, dtype=torch.float64),
            world_to_camera=torch.tensor(arrays["world_to_camera"], dtype=torch.float64),
            distortion=torch.tensor(arrays["distortion"], dtype=torch.float64),
            name=name,
        )
    except InputError as error:
        raise InputError(f"{field}: {error.field}", error.found, error.expected, error.remedy) from error


def _value(entry: dict[str, Any], key: str, where: str) -> Any:
    if key not in entry:
        remedy = "write [0, 0, 0, 0, 0] for a lens without distortion" if key == "distortion" else "add it"
        raise InputError(f"{where} {key}", f"no such key (there are {', '.join(entry) or 'none'})", "the key", remedy)
    return entry[key]


def _number(value: Any, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise InputError(where, f"{value!r}", "a finite number", "export the camera again")
    return float(value)


def _array(value: Any, shape: tuple[int, ...], where: str) -> list[Any]:
    length, inner = shape[0], shape[1:]
    if not isinstance(value, list) or len(value) != length:
        found = f"{len(value)} entries" if isinstance(value, list) else f"{value!r}"
        what = f"{length} rows of {inner[0]}" if inner else f"{length} numbers"
        raise InputError(where, found, what, "check the layout")
    return [_array(row, inner, where) if inner else _number(row, where) for row in value]
