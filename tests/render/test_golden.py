"""Golden images of the renderer, from either visibility backend, in tests/golden."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_images import assert_golden
from spheres import uv_sphere
from torch import Tensor

from deepenergy import Camera, Rig
from deepenergy.render import Renderer
from deepenergy.render.operations import Backend


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_the_shaded_head(backend: Backend) -> None:
    rig = Rig.load("builtin")
    camera = Camera.look_at(96, 96, 260.0, (0.25, 0.05, 0.8), (0.0, 0.0, 0.02))
    assert_golden(Renderer(rig, backend=backend)(rig.neutral[None], camera).image[0], "head_shaded")


def card(texture: Tensor, tilt: float) -> Rig:
    c, s = math.cos(tilt), math.sin(tilt)
    points = torch.tensor([[x, y * c, y * s] for x, y in ((-0.3, -0.9), (0.3, -0.9), (0.3, 0.9), (-0.3, 0.9))])
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Rig("card", points, faces, torch.zeros(0, 4, 3), (), uvs=uvs, uv_faces=faces, texture=texture)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_checker_that_shrinks_into_the_distance(backend: Backend) -> None:
    index = torch.arange(256) // 8
    checker = ((index[:, None] + index) % 2).float()[..., None] * torch.tensor([0.7, 0.5, 0.2]) + 0.05
    rig = card(checker, -1.2)
    # Small triangles: a footprint is one a triangle.
    for _ in range(4):
        corners, uvs = rig.neutral[rig.faces], rig.uvs[rig.uv_faces]  # type: ignore[index]
        order = torch.tensor([[0, 3, 5], [3, 1, 4], [5, 4, 2], [3, 4, 5]])

        def split(of: Tensor, order: Tensor = order) -> Tensor:
            six = torch.cat([of, (of + of.roll(-1, 1)) / 2], 1)
            return six[:, order].reshape(-1, of.shape[-1])

        faces = torch.arange(12 * len(corners)).view(-1, 3)
        none = torch.zeros(0, len(faces) * 3, 3)
        regions = torch.zeros(len(faces), dtype=torch.int64)
        rig = replace(
            rig, neutral=split(corners), uvs=split(uvs), faces=faces, uv_faces=faces, blendshapes=none,
            face_regions=regions,
        )  # fmt: skip
    camera = Camera.look_at(96, 64, 90.0, (0.0, 0.1, 1.0))
    assert_golden(Renderer(rig, backend=backend, antialias=False)(rig.neutral[None], camera).image[0], "checker_far")


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_outlines_blended_by_coverage(backend: Backend) -> None:
    """One sample a pixel: a ball, and a blade narrower at one end than a pixel."""
    ball, faces = uv_sphere(16, 0.09)
    blade = torch.tensor([[-0.2, -0.15, 0.1], [0.19, -0.12, 0.1], [-0.2, -0.12, 0.1]])
    points = torch.cat([ball, blade])
    rig = Rig("scene", points, torch.cat([faces, torch.tensor([[0, 1, 2]]) + len(ball)]),
              torch.zeros(0, len(points), 3), (), vertex_albedo=torch.full_like(points, 0.7))  # fmt: skip
    camera = Camera.look_at(48, 48, 110.0, (0.0, 0.0, 1.0))
    assert_golden(Renderer(rig, supersample=1, backend=backend)(points[None], camera).image[0], "outlines")


def test_a_failed_comparison_leaves_the_actual_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("golden_images.GOLDEN", tmp_path)
    with pytest.raises(AssertionError, match="no such image"):
        assert_golden(torch.zeros(3, 4, 4), "a")
    (tmp_path / "a.actual.png").rename(tmp_path / "a.png")
    assert_golden(torch.zeros(3, 4, 4), "a")
    with pytest.raises(AssertionError, match="another image"):
        assert_golden(torch.full((3, 4, 4), 0.1), "a")
    assert (tmp_path / "a.actual.png").exists()
