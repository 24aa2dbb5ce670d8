"""The rigid start, at any head pose and with several cameras; OpenCV's solvePnP as the oracle."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from rigs import random_rig

from deepenergy import Camera
from deepenergy.fit.rigid_start import rigid_start
from deepenergy.scene.rotation import euler_to_matrix, rotation_angle

F64 = torch.float64


def posed(count: int, seed: int, camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """Heads turned up to profile as `camera` sees them."""
    generator = torch.Generator().manual_seed(seed)
    euler = (torch.rand(count, 3, generator=generator, dtype=F64) - 0.5) * torch.tensor([1.0, 2.9, 1.2])
    facing = camera.world_to_camera[:3, :3].T @ torch.diag(torch.tensor([1.0, -1, -1], dtype=F64))
    return facing @ euler_to_matrix(euler), (torch.rand(count, 3, generator=generator, dtype=F64) - 0.5) * 0.15


def test_exact_landmarks_give_the_exact_pose_up_to_profile() -> None:
    points = random_rig().landmarks(random_rig().neutral[None])[0].double()
    camera = Camera.look_at(720, 540, 1000.0, (0.4, 0.2, 0.9))
    rotation, translation = posed(24, 0, camera)
    pixels = camera.project(points @ rotation.transpose(1, 2) + translation[:, None])
    found, where, error = rigid_start(points, pixels[:, None], torch.ones(24, 1, 68, dtype=F64), (camera,))
    assert float(rotation_angle(rotation, found).max()) < 1e-3
    assert float((where - translation).norm(dim=1).max()) < 1e-4
    assert float(error.max()) < 0.05


def test_noisy_landmarks_as_opencv_solves_them() -> None:
    points = random_rig().landmarks(random_rig().neutral[None])[0].double()
    camera = Camera(
        720,
        540,
        torch.tensor([1000.0, 1000, 350, 275]),
        torch.eye(4, dtype=F64),
        torch.tensor([0.05, -0.1, 1e-3, -1e-3, 0]),
    )
    rotation, translation = posed(8, 1, camera)
    translation[:, 2] += 1.1
    generator = torch.Generator().manual_seed(2)
    exact = camera.project(points @ rotation.transpose(1, 2) + translation[:, None])
    pixels = exact + torch.randn(exact.shape, generator=generator, dtype=F64)
    found, where, error = rigid_start(points, pixels[:, None], torch.ones(8, 1, 68, dtype=F64), (camera,))
    matrix = np.array([[1000.0, 0, 350], [0, 1000, 275], [0, 0, 1]])
    for i in range(8):
        _, vector, t = cv2.solvePnP(points.numpy(), pixels[i].numpy(), matrix, camera.distortion.numpy())
        oracle = torch.from_numpy(cv2.Rodrigues(vector)[0])
        assert float(rotation_angle(oracle, found[i])) < 0.01
        assert float((torch.from_numpy(t[:, 0]) - where[i]).norm()) < 0.01
    assert float(error.max()) < 2.0


def test_two_cameras_pin_the_depth() -> None:
    points = random_rig().landmarks(random_rig().neutral[None])[0].double()
    cameras = (Camera.look_at(720, 540, 1000.0, (-0.4, 0, 1.1)), Camera.look_at(720, 540, 1000.0, (0.4, 0, 1.1)))
    rotation, translation = posed(6, 3, Camera.look_at(720, 540, 1000.0, (0, 0, 1.1)))
    world = points @ rotation.transpose(1, 2) + translation[:, None]
    generator = torch.Generator().manual_seed(4)
    pixels = torch.stack([c.project(world) for c in cameras], 1)
    pixels = pixels + torch.randn(pixels.shape, generator=generator, dtype=F64)
    weights = torch.ones(6, 2, 68, dtype=F64)
    weights[0, 0] = 0
    pixels[0, 0] = torch.nan
    _, where, _ = rigid_start(points, pixels, weights, cameras)
    error = (where - translation).norm(dim=1)
    assert float(error[1:].max()) < 2e-3
    assert float(error[0]) < 2e-2


def test_an_outlier_moves_the_pose_little() -> None:
    points = random_rig().landmarks(random_rig().neutral[None])[0].double()
    camera = Camera.look_at(720, 540, 1000.0, (0.0, 0.0, 1.0))
    rotation, translation = posed(4, 5, camera)
    pixels = camera.project(points @ rotation.transpose(1, 2) + translation[:, None])
    pixels[:, :3] += 80
    found, _, _ = rigid_start(points, pixels[:, None], torch.ones(4, 1, 68, dtype=F64), (camera,))
    assert float(rotation_angle(rotation, found).max()) < 0.05
