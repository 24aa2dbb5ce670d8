"""Depth and normals of what a render shows, against ray casting."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from deepenergy import Camera, Rig
from deepenergy.render import Renderer

CAMERA = Camera.look_at(64, 64, 230.0, (0.0, 0.0, 1.0))


def cast_rays(triangles: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moeller and Trumbore 1997, all against all: distance in lengths of the direction (inf: none) and the point."""
    nearest = np.full(len(origins), np.inf)
    for a, b, c in triangles:
        normal = np.cross(directions, c - a)
        determinant = normal @ (b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (normal * (origins - a)).sum(1) / determinant
            q = np.cross(origins - a, b - a)
            v = (directions * q).sum(1) / determinant
            t = q @ (c - a) / determinant
        nearest = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), np.minimum(nearest, t), nearest)
    return nearest, origins + np.where(np.isfinite(nearest), nearest, 0.0)[:, None] * directions


def test_depth_and_normal_agree_with_ray_casting() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    points = torch.tensor(np.asarray(ball.vertices), dtype=torch.float32)
    rig = Rig("ball", points, torch.tensor(np.asarray(ball.faces)), torch.zeros(0, len(points), 3), ())
    renderer = Renderer(rig, supersample=1, antialias=False)
    render = renderer(points[None], CAMERA)
    surface, normals, _ = renderer.surface(points[None], CAMERA)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    x, y = (columns - 32) / 230.0, (rows - 32) / 230.0
    # Camera +X right and +Y down, looking along -Z of the world.
    directions = torch.stack([x, -y, -torch.ones_like(x)], -1).reshape(-1, 3).double().numpy()
    origins = np.broadcast_to([0.0, 0.0, 1.0], directions.shape)
    expected, hit = cast_rays(np.asarray(ball.triangles), origins, directions)
    mask = (render.mask > 0).flatten().numpy()
    assert (mask == np.isfinite(expected)).mean() > 0.999
    both = mask & np.isfinite(expected)
    np.testing.assert_allclose(render.fragments.depth.flatten().numpy()[both], expected[both], atol=1e-5)
    assert np.array_equal(np.flatnonzero(mask), surface.where.numpy())
    found = normals.numpy()[np.isfinite(expected)[mask]]
    outward = hit[both] / np.linalg.norm(hit[both], axis=1, keepdims=True)
    assert float(np.quantile((found * outward).sum(1), 0.02)) > 0.99
