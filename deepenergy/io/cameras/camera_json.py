"""Calibrated cameras as JSON: `{"cameras": [{"name", "width", "height", "fx", "fy", "cx", "cy", "distortion", ...}]}`.

Every camera has `world_to_camera`, a 4x4 list of rows (OpenCV axes, metres), and `distortion` [k1, k2, p1, p2, k3].
A camera that moves or zooms has `frames`, a list with an entry for each frame: `{"frame": 1001, "fx", "fy", "cx", "cy",
"distortion", "world_to_camera"}`; what an entry leaves out is the camera's own. Pixels count from the image's top-left
corner (the centre of the first pixel is (0.5, 0.5)). Other keys are notes.
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
INTRINSICS = ("fx", "fy", "cx", "cy")
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
        if camera.frames is None and (
            camera.intrinsics.ndim != 1 or camera.world_to_camera.ndim != 2 or camera.distortion.ndim != 1
        ):
            raise InputError(
                f"camera '{name}'",
                "a batch of cameras without frame numbers",
                "single cameras, or cameras with `frames`",
                "write the camera that the crops come from",
            )
        size = {"name": name, "width": camera.width, "height": camera.height}
        if camera.frames is None:
            entries.append(size | _values(camera))
        else:
            rows = [{"frame": n} | _values(camera[[i]], 0) for i, n in enumerate(camera.frames)]
            entries.append(size | {"frames": rows})
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
    moving = _frames(entry, where)
    numbers = None if moving is None else tuple(number for number, _ in moving)
    rows = [(entry, where)] if moving is None else [(values, f"{where} frame {n}") for n, values in moving]
    each = [_row(values, place) for values, place in rows]
    parts = [torch.tensor(part, dtype=torch.float64) for part in zip(*each, strict=True)]
    intrinsics, world_to_camera, distortion = parts if moving is not None else [part[0] for part in parts]
    try:
        return Camera(
            sizes["width"], sizes["height"], intrinsics, world_to_camera, distortion, name=name, frames=numbers
        )
    except InputError as error:
        raise InputError(f"{field}: {error.field}", error.found, error.expected, error.remedy) from error


def _frames(entry: dict[str, Any], where: str) -> list[tuple[int, dict[str, Any]]] | None:
    """Frame numbers in ascending order and each frame's values over the camera's own; None for a camera without."""
    if "frames" not in entry:
        return None
    frames = entry["frames"]
    expected = '[{"frame": 1001, "fx": ..., "world_to_camera": ...}, ...]'
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{where} frames", f"{str(frames)[:60]}", expected, "list the camera's values frame by frame")
    found: dict[int, dict[str, Any]] = {}
    for position, values in enumerate(frames):
        number = _value(values, "frame", f"{where} frames[{position}]")
        if not isinstance(number, int) or isinstance(number, bool):
            raise InputError(f"{where} frames[{position}] frame", f"{number!r}", "a frame number", "number the frames")
        if number in found:
            raise InputError(f"{where} frames", f"frame {number} twice", "each frame once", "remove one of them")
        unknown = sorted(values.keys() - {"frame", *INTRINSICS, *SHAPES})
        if unknown:
            known = ", ".join(("frame", *INTRINSICS, *SHAPES))
            raise InputError(f"{where} frame {number}", f"a key '{unknown[0]}'", f"any of {known}", "remove it")
        found[number] = {**{key: entry[key] for key in (*INTRINSICS, *SHAPES) if key in entry}, **values}
    return sorted(found.items())


def _row(entry: dict[str, Any], where: str) -> tuple[list[float], list[Any], list[Any]]:
    """Intrinsics, world-to-camera matrix and distortion."""
    intrinsics = [_number(_value(entry, key, where), f"{where} {key}") for key in INTRINSICS]
    arrays = {key: _array(_value(entry, key, where), shape, f"{where} {key}") for key, shape in SHAPES.items()}
    return intrinsics, arrays["world_to_camera"], arrays["distortion"]


def _values(camera: Camera, row: int | None = None) -> dict[str, Any]:
    """A camera's numbers as the file has them; of one row of a batch."""
    parts = (camera.intrinsics, camera.distortion, camera.world_to_camera)
    lens, distortion, matrix = (part if row is None else part[row] for part in parts)
    numbers = dict(zip(INTRINSICS, lens.tolist(), strict=True))
    return {**numbers, "distortion": distortion.tolist(), "world_to_camera": matrix.tolist()}


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
