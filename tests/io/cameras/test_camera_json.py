"""Camera files: lossless, and refused with the key's name where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from deepenergy import Camera, InputError
from deepenergy.io.cameras.camera_json import read_camera, read_cameras, write_cameras


def entry(name: str = "left", **changes: Any) -> dict[str, Any]:
    good = {
        "name": name,
        "width": 720,
        "height": 540,
        "fx": 1566.0,
        "fy": 1560,
        "cx": 356.4,
        "cy": 272.9,
        "distortion": [0.1, 0, 0, 0, 0],
        "world_to_camera": [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 1.2], [0, 0, 0, 1]],
        "plates": "a note",
    }
    return good | changes


def write(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps({"fps": 24, "cameras": list(entries)}))
    return path


def test_values_end_up_where_they_belong(tmp_path: Path) -> None:
    cam = read_camera(write(tmp_path / "c.json", entry()))
    assert (cam.width, cam.height, cam.name) == (720, 540, "left")
    assert cam.intrinsics.tolist() == [1566.0, 1560.0, 356.4, 272.9]
    assert cam.distortion.tolist() == [0.1, 0, 0, 0, 0]
    assert cam.world_to_camera[:3, 3].tolist() == [0.5, 0, 1.2]
    assert {t.dtype for t in (cam.intrinsics, cam.distortion, cam.world_to_camera)} == {torch.float64}


def test_the_shots_file(test_data: Path) -> None:
    path = test_data / "shots/ict_stereo/cameras.json"
    cameras = read_cameras(path)
    assert list(cameras) == ["left", "right"]
    written = json.loads(path.read_text())["cameras"][1]
    right = Camera.load(path, name="right")
    assert right.intrinsics.tolist() == [written[key] for key in ("fx", "fy", "cx", "cy")]
    assert right.world_to_camera.tolist() == written["world_to_camera"]


@given(st.lists(st.floats(1e-3, 1e5), min_size=4, max_size=4), st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_round_trip_is_bit_exact(tmp_path_factory: pytest.TempPathFactory, k: list[float], d: list[float]) -> None:
    path = tmp_path_factory.mktemp("cameras") / "c.json"
    look = Camera.look_at(640, 480, 900, (0.1, 0.2, k[0] / 1e3))
    cameras = {
        "a": Camera(
            640, 480, torch.tensor(k, dtype=torch.float64), look.world_to_camera, torch.tensor(d).double(), "a"
        ),
        "b": look,
    }
    write_cameras(path, cameras, {"fps": 24})
    again = read_cameras(path)
    assert list(again) == ["a", "b"]
    assert again["b"].name == "b"
    for name, cam in cameras.items():
        for attribute in ("intrinsics", "world_to_camera", "distortion"):
            assert torch.equal(getattr(again[name], attribute), getattr(cam, attribute))
    assert json.loads(path.read_text())["fps"] == 24
    assert list(path.parent.iterdir()) == [path]


def test_one_of_several(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", entry("left"), entry("right", fx=1551))
    assert read_camera(path, "right").intrinsics[0] == 1551
    with refused(found="2 cameras", expected="left, right"):
        Camera.load(path)
    with refused(found="'middle'", expected="left, right"):
        Camera.load(path, name="middle")
    with refused(found="'right'", expected="left"):
        Camera.load(write(path, entry("left")), name="right")


@pytest.mark.parametrize("key", ["name", "width", "height", "fx", "fy", "cx", "cy", "distortion", "world_to_camera"])
def test_every_missing_key_is_named(tmp_path: Path, key: str) -> None:
    lacking = {k: v for k, v in entry().items() if k != key}
    with pytest.raises(InputError, match=rf"c\.json.* {key}: found no such key"):
        read_camera(write(tmp_path / "c.json", lacking))


EYE = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 720.5}, "'left' width: found 720.5; expected whole pixels"),
        ({"width": "720"}, "width: found '720'"),
        ({"height": True}, "height: found True"),
        ({"width": 0}, "size: found 0x540"),
        ({"fx": "1566"}, "'left' fx: found '1566'; expected a finite number"),
        ({"fx": None}, "fx: found None"),
        ({"fx": float("nan")}, "fx: found nan"),
        ({"cy": float("inf")}, "cy: found inf"),
        ({"cx": False}, "cx: found False"),
        ({"fy": -1560}, "positive focal lengths"),
        ({"name": ""}, "name: found ''"),
        ({"name": 3}, "name: found 3"),
        ({"distortion": [0, 0, 0, 0]}, "distortion: found 4 entries; expected 5 numbers"),
        ({"distortion": [0, 0, float("nan"), 0, 0]}, "distortion: found nan"),
        ({"distortion": 0}, "distortion: found 0"),
        ({"world_to_camera": EYE[:3]}, "world_to_camera: found 3 entries; expected 4 rows of 4"),
        ({"world_to_camera": [*EYE[:3], [0, 0, 1]]}, "world_to_camera: found 3 entries; expected 4 numbers"),
        ({"world_to_camera": [*EYE[:3], [0, 0, 0, "1"]]}, "world_to_camera: found '1'"),
        ({"world_to_camera": [1.0] * 16}, "world_to_camera: found 16 entries"),
        ({"world_to_camera": [list(row) for row in zip(*EYE, strict=True)]}, "last row.*transpose"),
        ({"world_to_camera": [[1, 0, 0, 0], [0, -1, 0, 0], *EYE[2:]]}, "mirrored"),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_camera(write(tmp_path / "c.json", entry(**changes)))
    assert "c.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "cameras: found None"),
        ("{}", "cameras: found None"),
        ('{"cameras": []}', "at least one camera"),
        ('{"cameras": {"left": {}}}', "cameras: found"),
        ('{"cameras": [3]}', r"cameras\[0\]: found 3"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        Camera.load(path)


def test_absent_binary_and_doubled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json: found no readable file"):
        Camera.load(tmp_path / "absent.json")
    path = tmp_path / "c.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not JSON"):
        Camera.load(path)
    with pytest.raises(InputError, match="'left' twice"):
        Camera.load(write(path, entry(), entry()))
    with pytest.raises(InputError, match="camera: found .*ending"):
        Camera.load(tmp_path / "c.xml")


def test_a_batch_of_cameras_is_not_written(tmp_path: Path) -> None:
    crops = Camera.look_at(64, 64, 50, (0, 0, 1)).crop(torch.tensor([[0.0, 0, 32, 32], [0, 0, 64, 64]]), 16)
    with pytest.raises(InputError, match="a batch of cameras"):
        write_cameras(tmp_path / "c.json", {"crop": crops})
    assert not list(tmp_path.iterdir())
