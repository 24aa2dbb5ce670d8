"""Triangles that cross the near plane, against rays in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from deepenergy import Camera, Rig
from deepenergy.render import Renderer, rasterize
from deepenergy.render.compiled.rasterize import rasterize_numba
from deepenergy.render.near_plane import face_barycentrics
from deepenergy.render.operations import Backend
from deepenergy.render.reference.rasterize import rasterize_torch

SIZE, FOCAL, NEAR = (24, 20), 15.0, 0.3
BACKENDS = ("numba", "torch")


def projected(points: Tensor) -> tuple[Tensor, Tensor]:
    """`[V, 3]` in the camera's axes to pixels and depths of a batch of one, float64."""
    centre = torch.tensor([SIZE[0] / 2, SIZE[1] / 2], dtype=torch.float64)
    return (points[:, :2] / points[:, 2:] * FOCAL + centre)[None], points[None, :, 2]


def crossing_triangles(seed: int, count: int) -> Tensor:
    """`[F, 3, 3]` with vertices on both sides of the camera."""
    draw = np.random.default_rng(seed)
    points = draw.normal(size=(count, 3, 3)) * [1.0, 1.0, 0.8] + [0, 0, 0.6]
    points[..., 2] = np.where(np.abs(points[..., 2]) < 0.02, 0.02, points[..., 2])
    return torch.from_numpy(points)


def cast(corners: NDArray[np.float64], near: float) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Nearest triangle beyond the near plane under every pixel's centre, by planes; depth; what is a close call."""
    rows, columns = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5, indexing="ij")
    rays = np.stack([(columns - SIZE[0] / 2) / FOCAL, (rows - SIZE[1] / 2) / FOCAL, np.ones_like(rows)], -1)
    nearest = np.full(rows.shape, np.inf)
    index = np.full(rows.shape, -1)
    close = np.zeros(rows.shape, bool)
    for f, triangle in enumerate(corners):
        # Coordinates in the triangle's own corners, up to the depth along the ray.
        weights = np.linalg.solve(triangle.T, rays.reshape(-1, 3).T).T.reshape(rays.shape)
        z = 1 / weights.sum(-1)
        weights = weights * z[..., None]
        hit = (weights >= 0).all(-1) & (z >= near)
        close |= (np.abs(weights).min(-1) < 1e-4) | (np.abs(z - near) < 1e-4) | (np.abs(z - nearest) < 1e-4)
        index[hit & (z < nearest)] = f
        nearest = np.where(hit, np.minimum(nearest, z), nearest)
    return index, nearest, close


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 8))
def test_what_lies_before_the_near_plane_is_what_rays_find(seed: int, count: int) -> None:
    corners = crossing_triangles(seed, count)
    pixels, depth = projected(corners.reshape(-1, 3))
    faces = torch.arange(3 * count).view(-1, 3)
    expected, z, close = cast(corners.numpy(), NEAR)
    sure = torch.from_numpy(~close)
    for backend in BACKENDS:
        found = rasterize(pixels, depth, faces, SIZE, NEAR, backend)
        assert torch.equal(found.face_index[0][sure], torch.from_numpy(expected)[sure])
        seen = sure & (found.face_index[0] >= 0)
        np.testing.assert_allclose(found.depth[0][seen].numpy(), z[seen.numpy()], rtol=1e-4)
        # The point that the barycentrics name lies on the ray, at that depth.
        point = (corners[found.face_index[0][seen]] * found.barycentrics[0][seen][..., None]).sum(1)
        row, column = seen.nonzero().unbind(1)
        centre = torch.stack([column + 0.5 - SIZE[0] / 2, row + 0.5 - SIZE[1] / 2], 1) / FOCAL
        torch.testing.assert_close(point[:, :2], centre * point[:, 2:], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(point[:, 2].numpy(), z[seen.numpy()], rtol=1e-3, atol=1e-4)
        assert bool((found.barycentrics[0][seen] >= -1e-4).all())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100_000))
def test_backends_agree(seed: int) -> None:
    corners = crossing_triangles(seed, 12)
    pixels, depth = projected(corners.reshape(-1, 3))
    faces = torch.arange(36).view(-1, 3)
    a, b = (form(pixels, depth, faces, SIZE, NEAR) for form in (rasterize_numba, rasterize_torch))
    assert torch.equal(a.face_index, b.face_index)
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(a.barycentrics, b.barycentrics, rtol=1e-4, atol=1e-5)


def test_barycentrics_of_a_face_behind_the_camera_in_part() -> None:
    corners = crossing_triangles(0, 1)[0]
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)
    pixels, depth = projected(corners)
    points, _ = projected(weights @ corners)
    found = face_barycentrics(pixels[0], depth[0], torch.tensor([[0, 1, 2]]).expand(2, 3), points[0])
    torch.testing.assert_close(found, weights)


@pytest.mark.parametrize("near", [0.0, -1.0, float("nan")])
def test_a_near_plane_that_is_not_in_front_is_refused(near: float) -> None:
    with pytest.raises(ValueError, match="near: found"):
        rasterize(torch.zeros(1, 3, 2), torch.ones(1, 3), torch.tensor([[0, 1, 2]]), (4, 4), near)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("behind", [0.0, -0.4])
def test_a_floor_under_the_camera_is_drawn_and_has_finite_gradients(backend: Backend, behind: float) -> None:
    camera = Camera.look_at(*SIZE, FOCAL, (0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    floor = torch.tensor([[-3.0, -0.4, -behind], [3.0, -0.4, -behind], [0.0, -0.4, -8.0]])
    rig = Rig("floor", floor, torch.tensor([[0, 1, 2]]), torch.zeros(0, 3, 3), ())
    vertices = floor[None].clone().requires_grad_()
    render = Renderer(rig, backend=backend)(vertices, camera)
    covered = render.mask.detach()[0, 0]
    assert float(covered[-1].min()) == 1  # The nearest row of the floor,
    assert float(covered[: SIZE[1] // 2].max()) == 0  # and nothing above the horizon.
    assert bool(torch.isfinite(render.image).all())
    (render.image * torch.linspace(0, 1, SIZE[0])).sum().backward()
    assert vertices.grad is not None and bool(torch.isfinite(vertices.grad).all())


def test_a_vertex_in_the_cameras_own_plane_for_both_backends() -> None:
    camera = Camera.look_at(*SIZE, FOCAL, (0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    floor = torch.tensor([[-3.0, -0.4, 0.0], [3.0, -0.4, -1e-9], [0.0, -0.4, -8.0]])
    rig = Rig("floor", floor, torch.tensor([[0, 1, 2]]), torch.zeros(0, 3, 3), ())
    a, b = (Renderer(rig, backend=x)(floor[None], camera) for x in BACKENDS)
    torch.testing.assert_close(a.image, b.image, atol=1e-4, rtol=0)
