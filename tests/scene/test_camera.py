"""Cameras against OpenCV, and the errors of cameras that cannot be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from scipy.spatial.transform import Rotation
from torch import Tensor

from deepenergy import Camera, InputError

F64 = torch.float64
DISTORTION = (-0.21, 0.09, 0.0012, -0.0023, -0.015)


def camera(distortion: tuple[float, ...] = (0.0,) * 5, seed: int = 0) -> Camera:
    matrix = torch.eye(4, dtype=F64)
    rotvec = np.random.default_rng(seed).normal(size=3) * 0.2
    matrix[:3, :3] = torch.from_numpy(Rotation.from_rotvec(rotvec).as_matrix())
    matrix[:3, 3] = torch.tensor([0.03, -0.05, 1.2])
    return Camera(720, 540, torch.tensor([1566.0, 1540, 356.4, 272.9]), matrix, torch.tensor(distortion), "left")


def points(count: int = 50, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.15, 0.15, (count, 3)))


def opencv_pixels(cam: Camera, world: Tensor) -> Tensor:
    fx, fy, cx, cy = cam.intrinsics.tolist()
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    rvec = Rotation.from_matrix(cam.world_to_camera[:3, :3].numpy()).as_rotvec()
    pixels, _ = cv2.projectPoints(world.numpy(), rvec, cam.world_to_camera[:3, 3].numpy(), k, cam.distortion.numpy())
    return torch.from_numpy(pixels[:, 0])


@pytest.mark.parametrize("distortion", [(0.0,) * 5, DISTORTION, (0.3, 0, 0, 0, 0), (0, 0, 0.01, -0.02, 0)])
def test_project_is_opencvs(distortion: tuple[float, ...]) -> None:
    cam = camera(distortion)
    torch.testing.assert_close(cam.project(points()), opencv_pixels(cam, points()), atol=1e-9, rtol=0)


def test_a_point_on_the_axis_falls_on_the_principal_point() -> None:
    cam = Camera.look_at(640, 480, 900, eye=(0.1, 0.2, 1.0), target=(0, 0, 0))
    torch.testing.assert_close(cam.project(torch.zeros(1, 3, dtype=F64)), torch.tensor([[320.0, 240.0]], dtype=F64))


def test_look_at_keeps_the_world_upright() -> None:
    cam = Camera.look_at(640, 480, 900, eye=(0, 0, 2), target=(0, 0, 0))
    centre, up, left = cam.project(torch.tensor([[0, 0, 0], [0, 0.1, 0], [0.1, 0, 0]], dtype=F64))
    assert up[1] < centre[1]  # +Y of the world is up, pixels run down
    assert left[0] > centre[0]  # +X, the subject's left, is on the right of the image
    assert float(cam.camera_points(torch.zeros(1, 3, dtype=F64))[0, 2]) == pytest.approx(2)


def test_look_at_along_up_is_refused() -> None:
    with pytest.raises(InputError, match="look_at.*up"):
        Camera.look_at(64, 64, 100, eye=(0, 1, 0))


boxes = st.tuples(st.floats(-200, 500), st.floats(-200, 400), st.floats(5, 600), st.floats(5, 600))


@settings(max_examples=50)
@given(boxes, st.integers(1, 512), st.integers(1, 512))
def test_crop_maps_pixels_linearly(box: tuple[float, float, float, float], width: int, height: int) -> None:
    cam = camera(DISTORTION)
    x0, y0, w, h = box
    cropped = cam.crop(torch.tensor([x0, y0, x0 + w, y0 + h], dtype=F64), (width, height))
    expected = (cam.project(points()) - torch.tensor([x0, y0], dtype=F64)) * torch.tensor(
        [width / w, height / h], dtype=F64
    )
    assert (cropped.width, cropped.height) == (width, height)
    torch.testing.assert_close(cropped.project(points()), expected, atol=1e-6, rtol=1e-9)


def test_a_crop_of_a_crop_is_one_crop() -> None:
    cam = camera(DISTORTION)
    twice = cam.crop(torch.tensor([100.0, 50, 500, 450]), 256).crop(torch.tensor([64.0, 64, 192, 192]), 128)
    once = cam.crop(torch.tensor([200.0, 150, 400, 350]), 128)
    torch.testing.assert_close(twice.project(points()), once.project(points()))


def test_a_batch_of_boxes_is_a_batch_of_cameras() -> None:
    cam = camera(DISTORTION)
    box = torch.tensor([[0.0, 0, 720, 540], [100, 100, 300, 300], [-50, -50, 60, 60]])
    batch = cam.crop(box, 64).project(points())
    assert batch.shape == (3, 50, 2)
    for i in range(3):
        torch.testing.assert_close(batch[i], cam.crop(box[i], 64).project(points()))


def test_resize_scales_pixels_from_the_corner() -> None:
    cam = camera(DISTORTION)
    half = cam.resize(360, 270)
    torch.testing.assert_close(half.project(points()), cam.project(points()) / 2)
    torch.testing.assert_close(half.resize(720, 540).intrinsics, cam.intrinsics)


def test_undistort_is_the_inverse_and_opencvs() -> None:
    cam = camera(DISTORTION)
    local = cam.camera_points(points())
    found = cam.undistort(cam.pixels(local))
    torch.testing.assert_close(found, local[:, :2] / local[:, 2:], atol=1e-10, rtol=0)
    fx, fy, cx, cy = cam.intrinsics.tolist()
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    # OpenCV stops after five iterations.
    theirs = cv2.undistortPoints(cam.pixels(local).numpy()[:, None], k, cam.distortion.numpy())
    torch.testing.assert_close(found, torch.from_numpy(theirs[:, 0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("distortion", [(0.0,) * 5, DISTORTION])
def test_gradient_is_the_finite_difference(distortion: tuple[float, ...]) -> None:
    cam = camera(distortion)
    assert torch.autograd.gradcheck(cam.project, (points(4).requires_grad_(),), check_forward_ad=True)


@pytest.mark.parametrize("distortion", [(0.0,) * 5, DISTORTION, (0, 0, 0.01, -0.02, 0)])
def test_the_derivative_by_the_point_is_opencvs_and_forward_modes(distortion: tuple[float, ...]) -> None:
    cam, world = camera(distortion), points()
    pixels, slope = cam.project_with_jacobian(world)
    torch.testing.assert_close(pixels, cam.project(world), atol=1e-9, rtol=0)
    fx, fy, cx, cy = cam.intrinsics.tolist()
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    turn = cam.world_to_camera[:3, :3]
    rvec, tvec = Rotation.from_matrix(turn.numpy()).as_rotvec(), cam.world_to_camera[:3, 3].numpy()
    # OpenCV's columns 3 to 5: by the camera's translation, which moves points as their own motion in its axes does.
    _, theirs = cv2.projectPoints(world.numpy(), rvec, tvec, k, cam.distortion.numpy())
    by_camera = torch.from_numpy(theirs[:, 3:6]).view(-1, 2, 3)
    torch.testing.assert_close(slope, by_camera @ turn, atol=1e-7, rtol=1e-9)
    along = torch.eye(3, dtype=F64)[2].expand_as(world)
    forward = torch.func.jvp(cam.project, (world,), (along,))[1]
    torch.testing.assert_close(slope[..., 2], forward, atol=1e-9, rtol=1e-9)


def test_derivatives_of_batches_and_behind_the_camera() -> None:
    box = torch.tensor([[0.0, 0, 720, 540], [100, 100, 300, 300]])
    batch = camera(DISTORTION).crop(box, 64)
    world = torch.stack([points(seed=1), points(seed=2)])
    slope = batch.project_with_jacobian(world)[1]
    for i in range(2):
        torch.testing.assert_close(slope[i], camera(DISTORTION).crop(box[i], 64).project_with_jacobian(world[i])[1])
    at_the_lens = camera().world_to_camera.inverse()[:3, 3]
    assert bool(torch.isfinite(camera().project_with_jacobian(at_the_lens[None])[1]).all())


def test_batched_equals_looped() -> None:
    cam, world = camera(DISTORTION), torch.stack([points(seed=1), points(seed=2)])
    looped = torch.stack([cam.project(w) for w in world])
    torch.testing.assert_close(cam.project(world), looped)


def test_float32_points_stay_float32() -> None:
    assert camera(DISTORTION).project(points().float()).dtype == torch.float32


def test_points_behind_the_camera_stay_finite() -> None:
    cam = camera()
    behind = torch.tensor([[0.0, 0, -5], [0, 0, 0]], dtype=F64)
    assert bool(torch.isfinite(cam.pixels(behind)).all())


def matrix_with(**changes: Tensor) -> dict[str, Any]:
    good = {
        "intrinsics": torch.tensor([500.0, 500, 320, 240]),
        "world_to_camera": torch.eye(4),
        "distortion": torch.zeros(5),
    }
    return good | changes


def sheared() -> Tensor:
    matrix = torch.eye(4)
    matrix[0, 1] = 0.1
    return matrix


def transposed() -> Tensor:
    matrix = torch.eye(4)
    matrix[3, :3] = torch.tensor([0.0, 0.1, 1.0])
    return matrix


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intrinsics": torch.tensor([math.nan, 500, 320, 240])}, "intrinsics: found NaN"),
        ({"distortion": torch.tensor([0, 0, math.inf, 0, 0])}, "distortion: found NaN or infinity"),
        ({"world_to_camera": torch.full((4, 4), math.nan)}, "world_to_camera: found NaN"),
        ({"intrinsics": torch.tensor([500.0, 500, 320])}, "intrinsics: found shape"),
        ({"distortion": torch.zeros(4)}, "distortion: found shape"),
        ({"world_to_camera": torch.eye(3)}, "world_to_camera: found shape"),
        ({"intrinsics": torch.tensor([500.0, -500, 320, 240])}, "fx, fy.*positive.*flip"),
        ({"intrinsics": torch.tensor([0.0, 500, 320, 240])}, "fx, fy.*positive"),
        ({"world_to_camera": torch.diag(torch.tensor([2.0, 2, 2, 1]))}, "not a rotation.*scale"),
        ({"world_to_camera": sheared()}, "not a rotation"),
        ({"world_to_camera": torch.diag(torch.tensor([1.0, -1, 1, 1]))}, "mirrored.*flip Y and Z"),
        ({"world_to_camera": transposed()}, r"last row.*\[0, 0, 0, 1\].*transpose"),
    ],
)
def test_impossible_cameras_are_refused(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Camera(640, 480, **matrix_with(**changes), name="witness")
    assert "camera 'witness'" in str(caught.value)


@pytest.mark.parametrize(("width", "height"), [(0, 480), (640, -1)])
def test_an_image_without_pixels_is_refused(width: int, height: int) -> None:
    with pytest.raises(InputError, match="size.*at least 1x1"):
        Camera(width, height, **matrix_with())


@pytest.mark.parametrize("box", [[10.0, 10, 10, 20], [10, 20, 20, 10], [0, 0, math.nan, 5]])
def test_a_box_without_area_is_refused(box: list[float]) -> None:
    with pytest.raises(InputError, match="crop box"):
        camera().crop(torch.tensor(box), 64)


def test_a_plate_of_another_size_is_refused() -> None:
    camera().check_plate_size(720, 540)
    with refused("camera", found="720x540", remedy="resize"):
        camera().check_plate_size(1920, 1080)


def test_a_face_behind_the_camera_is_refused() -> None:
    camera().check_in_front(points(), "the head")
    away = Camera.look_at(640, 480, 900, eye=(0, 0, 1), target=(0, 0, 2))
    with pytest.raises(InputError, match=r"the head 1\.1\d* m behind the camera.*invert"):
        away.check_in_front(points(200), "the head")


def test_to_moves_every_tensor() -> None:
    moved = camera().to("cpu")
    assert {moved.intrinsics.device.type, moved.world_to_camera.device.type, moved.distortion.device.type} == {"cpu"}


def test_ground_truth_shot_projects_to_its_pixels(test_data: Path) -> None:
    truth = np.load(test_data / "shots/ict_stereo/ground_truth.npz")
    for name in ("left", "right"):
        cam = Camera.load(test_data / "shots/ict_stereo/cameras.json", name=name)
        found = cam.project(torch.from_numpy(truth["landmarks_world"]).double())
        assert np.abs(found.numpy() - truth[f"landmarks_{name}"]).max() < 1e-2
