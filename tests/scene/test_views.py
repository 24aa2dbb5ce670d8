"""Plates and cameras matched once, addressed by frame number; cameras that move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepenergy import Camera, InputError, PlateError, Plates
from deepenergy.io.cameras.camera_json import read_cameras, write_cameras
from deepenergy.scene.rotation import so3_exp
from deepenergy.scene.views import Views

F64 = torch.float64


def moving(frames: tuple[int, ...], name: str = "main", size: tuple[int, int] = (96, 80)) -> Camera:
    """A camera that walks and zooms, with some distortion."""
    generator = torch.Generator().manual_seed(len(frames))
    turn = so3_exp(0.1 * torch.randn(len(frames), 3, generator=generator, dtype=F64))
    base = Camera.look_at(*size, 100.0, (0.0, 0.0, 1.0), name=name)
    matrix = base.world_to_camera.repeat(len(frames), 1, 1)
    matrix[:, :3, :3] = turn @ matrix[:, :3, :3]
    matrix[:, :3, 3] += 0.05 * torch.randn(len(frames), 3, generator=generator, dtype=F64)
    lens = base.intrinsics + torch.arange(len(frames))[:, None] * torch.tensor([1.0, 1.0, 0.0, 0.0])
    distortion = torch.tensor([-0.1, 0.02, 0.0, 0.0, 0.0], dtype=F64).repeat(len(frames), 1)
    return Camera(*size, lens, matrix, distortion, name, frames)


def plates(frames: int = 4, first: int = 1001, name: str = "main") -> Plates:
    values = np.arange(frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, 80, 96, 3), np.uint8)
    return Plates.from_array(values, first_frame=first, name=name)


def points(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 0.1 * torch.randn(batch, 5, 3, generator=generator, dtype=F64)


def test_a_moving_camera_is_a_batch_over_frames() -> None:
    camera, world = moving((1001, 1002, 1004)), points(3)
    view = camera.at([1004, 1001, 1004])
    for row, index in enumerate((2, 0, 2)):
        one = Camera(
            96, 80, camera.intrinsics[index], camera.world_to_camera[index], camera.distortion[index], camera.name
        )
        torch.testing.assert_close(view.project(world)[row], one.project(world[row]), rtol=0, atol=1e-9)
        pixels, slope = (part[row] for part in view.project_with_jacobian(world))
        torch.testing.assert_close(pixels, one.project(world[row]), rtol=0, atol=1e-9)
        torch.testing.assert_close(slope, one.project_with_jacobian(world[row])[1])
        torch.testing.assert_close(view.undistort(pixels[None].expand(3, -1, -1))[row], one.undistort(pixels))
    torch.testing.assert_close(view.unsqueeze().project(world[:, None])[:, 0], view.project(world))
    assert camera.at([1002])[[0]].intrinsics.shape == (1, 4)


def test_a_still_camera_is_itself_in_every_frame() -> None:
    camera = Camera.look_at(96, 80, 100.0, (0.0, 0.0, 1.0))
    assert camera.at([5, 6]) is camera and camera[torch.tensor([0, 1])] is camera and camera.unsqueeze() is camera


def test_a_moved_world_gives_the_same_pixels() -> None:
    generator = torch.Generator().manual_seed(3)
    transform = torch.eye(4, dtype=F64).repeat(4, 1, 1)
    transform[:, :3, :3] = so3_exp(torch.randn(4, 3, generator=generator, dtype=F64))
    transform[:, :3, 3] = torch.randn(4, 3, generator=generator, dtype=F64)
    still, world = Camera.look_at(96, 80, 100.0, (0.0, 0.1, 1.0)), points(4)
    there = world @ transform[:, :3, :3].mT + transform[:, None, :3, 3]
    torch.testing.assert_close(still.moved(transform).project(there), still.project(world), rtol=0, atol=1e-9)
    views = Views.match(plates(), still).moved((1001, 1002, 1003, 1004), transform)
    torch.testing.assert_close(
        views.camera(0, [1003]).project(there[[2]]), still.project(world[[2]]), rtol=0, atol=1e-9
    )


def test_frames_are_found_by_number() -> None:
    views = Views.match([plates(3), plates(3, 1002, "right")], [moving((1001, 1002, 1003)), moving((1002, 1003, 1004))])
    assert views.frames == (1001, 1002, 1003, 1004) and len(views) == 2 and views.names == ("main", "right")
    image = views.image(1, 1003)
    assert image is not None and round(float(image[0, 0, 0]) * 255) == 1
    assert views.image(0, 1004) is None
    with pytest.raises(PlateError, match=r"plates 'main' frame 1004: found no such frame"):
        views.read(0, 1004)
    window = views.window(0, 1002, torch.tensor([10.0, 10.0, 30.0, 30.0], dtype=F64), 8)
    assert window is not None and window.shape == (3, 8, 8)
    # Where a camera has no plate nothing depends on its values, but the batch is whole.
    assert views.cameras_at(views.frames)[0].intrinsics.shape == (4, 4)
    assert views.select("1002-1003").frames == (1002, 1003)


def test_a_plate_is_decoded_once() -> None:
    reads: list[int] = []

    class Counting:
        frames = (1, 2)

        def size(self, frame: int) -> tuple[int, int]:
            return 96, 80

        def read(self, frame: int) -> Tensor:
            reads.append(frame)
            return torch.zeros(3, 80, 96)

        def problems(self, frames: object) -> dict[int, str]:
            return {}

    views = Views.match(Plates(Counting()), Camera.look_at(96, 80, 100.0, (0.0, 0.0, 1.0)))
    for frame in (1, 2, 1, 2):
        assert views.image(0, frame) is not None
    assert reads == [1, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: Views.match([plates()], []), ("cameras", "0 for 1 plates")),
        (lambda: Views.match(plates(), moving((1001, 1002))), ("camera 'main' frames", "1003", "1001-1002")),
        (lambda: Views.match(plates(), moving((1001, 1002, 1003, 1004), size=(90, 80))), ("size", "90x80", "96x80")),
        (lambda: replace(moving((1, 2)), frames=(2, 1)), ("camera 'main' frames", "[2, 1]")),
        (lambda: replace(moving((1, 2)), frames=(1, 2, 3)), ("intrinsics", "a row for each of 3 frames")),
    ],
)
def test_what_does_not_belong_together_is_refused(given, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        given()
    assert all(word in str(caught.value) for word in words)


def test_a_moving_camera_survives_its_file(tmp_path: Path) -> None:
    camera, still = moving((1001, 1002, 1005)), Camera.look_at(96, 80, 100.0, (0.0, 0.0, 1.0), name="still")
    write_cameras(tmp_path / "cameras.json", {"main": camera, "still": still})
    read = read_cameras(tmp_path / "cameras.json")
    assert read["main"].frames == camera.frames and read["still"].frames is None
    for name in ("intrinsics", "world_to_camera", "distortion"):
        assert torch.equal(getattr(read["main"], name), getattr(camera, name))
        assert torch.equal(getattr(read["still"], name), getattr(still, name))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ("5", ("frames", "5")),
        ("[]", ("frames", "[]")),
        ('[{"fx": 1.0}]', ("frames[0] frame",)),
        ('[{"frame": 1}, {"frame": 1}]', ("frame 1 twice",)),
        ('[{"frame": 1, "focal": 3}]', ("frame 1", "focal")),
        ('[{"frame": 1, "fx": "wide"}]', ("frame 1 fx", "wide")),
        ('[{"frame": 1.5}]', ("frame", "1.5")),
        ('[{"frame": 1}, {"frame": 2, "fx": -5}]', ("fx, fy", "-5", "frame 2")),
    ],
)
def test_wrong_frames_of_a_camera_are_named(frames: str, words: tuple[str, ...], tmp_path: Path) -> None:
    own = '"fx": 100, "fy": 100, "cx": 48, "cy": 40, "distortion": [0, 0, 0, 0, 0], "world_to_camera": '
    matrix = "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]"
    text = f'{{"cameras": [{{"name": "main", "width": 96, "height": 80, {own}{matrix}, "frames": {frames}}}]}}'
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(InputError) as caught:
        Camera.load(tmp_path / "cameras.json")
    assert all(word in str(caught.value) for word in words)


def test_the_captured_moving_camera(test_data: Path) -> None:
    folder = test_data / "shots" / "ict_moving"
    camera = Camera.load(folder / "cameras.json")
    with np.load(folder / "ground_truth.npz") as truth:
        world, pixels = torch.from_numpy(truth["landmarks_world"]), torch.from_numpy(truth["landmarks_main"])
        found = camera.at(truth["frame"].tolist()).project(world.double())
    assert float((found - pixels).abs().max()) < 0.01
