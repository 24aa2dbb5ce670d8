"""A shot of a few kilobytes that opens without error, for tests that spoil one part of it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from deepenergy import Rig

WIDTH, HEIGHT = 32, 24
FRAMES = range(1001, 1005)


def small_rig() -> Rig:
    """A fan of triangles with two blendshapes and 68 landmarks."""
    angle = torch.linspace(0, 6, 70)
    neutral = torch.cat([torch.zeros(1, 3), torch.stack([angle.cos(), angle.sin(), angle * 0], -1) * 0.1])
    faces = torch.stack([torch.zeros(69, dtype=torch.int64), torch.arange(1, 70), torch.arange(2, 71)], -1)
    rig = Rig("fan", neutral, faces, torch.full((2, 71, 3), 0.01), ("jawOpen", "browInnerUp"))
    return rig.with_landmark_vertices(torch.arange(1, 69))


def camera_entry(name: str = "left", **changes: object) -> dict[str, object]:
    """One camera of a camera file, a metre in front of the rig."""
    return {
        "name": name,
        "width": WIDTH,
        "height": HEIGHT,
        **{"fx": 40.0, "fy": 40.0, "cx": WIDTH / 2, "cy": HEIGHT / 2},
        "distortion": [0.0] * 5,
        "world_to_camera": [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1], [0, 0, 0, 1]],
        **changes,
    }


def write_cameras(folder: Path, *cameras: dict[str, object]) -> Path:
    """`cameras.json` with these cameras."""
    path = folder / "cameras.json"
    path.write_text(json.dumps({"cameras": cameras}))
    return path


def write_files(folder: Path) -> None:
    """Rig, the cameras `left` and `right`, and four plates of each."""
    small_rig().save(folder / "rig.npz")
    write_cameras(folder, camera_entry("left"), camera_entry("right"))
    (folder / "plates").mkdir()
    for name in ("left", "right"):
        for frame in FRAMES:
            Image.new("RGB", (WIDTH, HEIGHT), (60, frame - 1000, 60)).save(folder / "plates" / f"{name}.{frame}.png")


def write_shot(
    folder: Path, plates: dict[str, str] | None = None, rest: str = "", leave_out: str = "", **changes: str
) -> Path:
    """`shot.toml` with some of its values changed, as TOML text; `plates` replaces the whole table."""
    top = {
        "name": '"sh010"',
        "rig": '"rig.npz"',
        "cameras": '"cameras.json"',
        "frames": '"1001-1004"',
        "output": '"out"',
        **changes,
    }
    top.pop(leave_out, None)
    table = {"left": '"plates/left.####.png"'} if plates is None else plates
    lines = [f"{key} = {value}" for key, value in top.items()]
    lines += ["[plates]", *(f"{key} = {value}" for key, value in table.items()), rest]
    path = folder / "shot.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
