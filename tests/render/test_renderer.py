"""Visibility, interpolation, lighting, texture and the renderer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay
from spheres import sphere_rig, uv_sphere
from torch import Tensor

from deepenergy import Camera, Rig
from deepenergy.render import Renderer, rasterize
from deepenergy.render.compiled import rasterize as rasterize_numba
from deepenergy.render.lighting import frontal_light, sh_basis
from deepenergy.render.operations import Backend, vertex_normals
from deepenergy.render.reference.interpolate import surface_points
from deepenergy.render.reference.lighting import sh_shade
from deepenergy.render.texture import sample_texture

TRIANGLE = torch.tensor([[[2.0, 1.0], [14.0, 2.0], [5.0, 13.0]]])


def soup(seed: int, triangles: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random triangles, some leaving the image, some degenerate."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(triangles, 1, 2, generator=generator) * size * 1.2 - size * 0.1
    corners = centre + torch.randn(triangles, 3, 2, generator=generator) * size * 0.15
    corners[::7, 2] = corners[::7, 1]
    depth = torch.rand(triangles, 3, generator=generator) * 2 + 0.5
    faces = torch.arange(triangles * 3).view(triangles, 3)
    return corners.reshape(1, -1, 2), depth.reshape(1, -1), faces


def test_covered_pixels_are_those_whose_centre_is_inside() -> None:
    fragments = rasterize(TRIANGLE, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), (16, 16), backend="numba")
    for i in range(16):
        for j in range(16):
            signs = []
            for k in range(3):
                a, b = TRIANGLE[0, k], TRIANGLE[0, (k + 1) % 3]
                x, y = j + 0.5 - float(a[0]), i + 0.5 - float(a[1])
                signs.append(float(b[0] - a[0]) * y - float(b[1] - a[1]) * x)
            assert (int(fragments.face_index[0, i, j]) == 0) == (min(signs) >= 0 or max(signs) <= 0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 60))
def test_torch_and_numba_see_the_same(seed: int, triangles: int) -> None:
    pixels, depth, faces = soup(seed, triangles, 40)
    a = rasterize(pixels, depth, faces, (40, 33), backend="numba")
    b = rasterize(pixels, depth, faces, (40, 33), backend="torch")
    assert torch.equal(a.face_index, b.face_index)
    torch.testing.assert_close(a.barycentrics, b.barycentrics, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.depth, b.depth, atol=1e-4, rtol=0)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 100_000), st.booleans(), st.integers(1, 5))
def test_torch_and_numba_see_the_same_through_many_layers(seed: int, turned: bool, threads: int) -> None:
    """A sheet that faces one way, with holes, and thousands of small triangles before, in and behind it."""
    generator = torch.Generator().manual_seed(seed)
    size, count = (83, 61), 6000
    centre = torch.rand(count, 1, 2, generator=generator) * torch.tensor(size)
    small = centre + 2 * torch.randn(count, 3, 2, generator=generator)
    near_one = 1 + 0.1 * torch.randn(count, 3, generator=generator)
    x, y = torch.meshgrid(torch.linspace(-3, 86, 8), torch.linspace(-3, 64, 7), indexing="xy")
    corner = (torch.arange(6)[:, None] * 8 + torch.arange(7)).reshape(-1, 1)
    sheet = torch.cat([corner + torch.tensor(k) for k in ([0, 1, 9], [0, 9, 8])])
    sheet = sheet[torch.rand(len(sheet), generator=generator) > 0.1]
    sheet = sheet.flip(1) if turned else sheet
    pixels = torch.cat([small.reshape(-1, 2), torch.stack([x, y], -1).reshape(-1, 2)])[None]
    depth = torch.cat([near_one.reshape(-1), torch.ones(56)])[None]
    faces = torch.cat([torch.arange(3 * count).view(-1, 3), sheet + 3 * count])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        a = rasterize(pixels, depth, faces, size, backend="numba")
    finally:
        torch.set_num_threads(before)
    b = rasterize(pixels, depth, faces, size, backend="torch")
    assert torch.equal(a.face_index, b.face_index)
    torch.testing.assert_close(a.depth, b.depth, atol=1e-4, rtol=0)
    # Of those behind the sheet some are seen through its holes, most are not.
    seen = a.face_index[(a.face_index >= 0) & (a.face_index < count)].unique()
    assert 1000 < len(seen) < 5000


def test_what_lies_behind_a_block_is_told() -> None:
    """Blocks of 8 x 8 samples; the second has a hole."""
    places = np.full((11, 20), (2 << 32) | 5, np.int64)
    places[9, 11] = -1
    farthest = rasterize_numba._farthest(places)
    assert farthest.shape == (2, 3) and farthest[1, 1] == -1
    behind, before = 1, 3
    rows, columns = rasterize_numba._first_and_last(0, 7), rasterize_numba._first_and_last(3, 19)
    assert (rows, columns) == (0, 2)
    assert rasterize_numba._hidden(farthest, rows, columns, behind)
    assert not rasterize_numba._hidden(farthest, rows, columns, before)
    assert not rasterize_numba._hidden(farthest, rasterize_numba._first_and_last(0, 8), columns, behind)


def test_memory_limit_does_not_change_the_torch_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, depth, faces = soup(3, 80, 40)
    whole = rasterize(pixels, depth, faces, (40, 40), backend="torch")
    monkeypatch.setattr("deepenergy.render.reference.rasterize._CANDIDATES_AT_ONCE", 50)
    split = rasterize(pixels, depth, faces, (40, 40), backend="torch")
    assert torch.equal(whole.face_index, split.face_index)
    torch.testing.assert_close(whole.depth, split.depth)


def test_nearest_wins_whatever_the_order() -> None:
    pixels = TRIANGLE.repeat(1, 2, 1)
    depth = torch.tensor([[2.0, 2, 2, 1, 1, 1]])
    for backend in ("numba", "torch"):
        for faces, nearest in (([[0, 1, 2], [3, 4, 5]], 1), ([[3, 4, 5], [0, 1, 2]], 0)):
            found = rasterize(pixels, depth, torch.tensor(faces), (16, 16), backend=backend).face_index  # type: ignore[arg-type]
            assert set(found.unique().tolist()) == {-1, nearest}


def test_batched_equals_looped() -> None:
    pixels, depth, faces = soup(1, 30, 32)
    other = pixels.flip(-1)
    for backend in ("numba", "torch"):
        both = rasterize(torch.cat([pixels, other]), depth.repeat(2, 1), faces, (32, 32), backend=backend)  # type: ignore[arg-type]
        for i, one in enumerate((pixels, other)):
            alone = rasterize(one, depth, faces, (32, 32), backend=backend)  # type: ignore[arg-type]
            assert torch.equal(both.face_index[i], alone.face_index[0])


def test_broken_and_hidden_triangles_are_left_out() -> None:
    behind = torch.tensor([[-1.0, -2, -1]])
    for backend in ("numba", "torch"):
        found = rasterize(TRIANGLE, behind, torch.tensor([[0, 1, 2]]), (16, 16), backend=backend)  # type: ignore[arg-type]
        assert int(found.face_index.max()) == -1
    broken = TRIANGLE.clone()
    broken[0, 0, 0] = torch.nan
    for backend in ("numba", "torch"):
        found = rasterize(broken, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), (16, 16), backend=backend)  # type: ignore[arg-type]
        assert int(found.face_index.max()) == -1


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_triangles_and_depths_of_another_mesh_are_refused(backend: Backend) -> None:
    depth, faces = torch.ones(1, 3), torch.tensor([[0, 1, 2]])
    for pixels, z, triangles in (
        (TRIANGLE, torch.ones(1, 4), faces),
        (TRIANGLE[0], depth, faces),
        (TRIANGLE, depth[0], faces),
        (TRIANGLE, depth, faces[0]),
    ):
        with pytest.raises(ValueError, match=r"found shapes .*expected \[B, V, 2\], \[B, V\] and \[F, 3\]"):
            rasterize(pixels, z, triangles, (8, 8), backend=backend)
    for wrong in (-1, 3):
        message = rf"found vertices {min(wrong, 0)}\.\.{max(wrong, 2)}; expected 0\.\.2"
        with pytest.raises(ValueError, match=message):
            rasterize(TRIANGLE, depth, torch.tensor([[0, 1, 2], [0, 1, wrong]]), (8, 8))


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="expected 'auto', 'numba' or 'torch'"):
        rasterize(TRIANGLE, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), (16, 16), backend="cuda")  # type: ignore[arg-type]


def test_barycentrics_are_perspective_correct() -> None:
    depth = torch.tensor([[0.5, 2.0, 1.0]])
    fragments = rasterize(TRIANGLE, depth, torch.tensor([[0, 1, 2]]), (16, 16))
    pixels = TRIANGLE.clone().requires_grad_()
    surface = surface_points(fragments, pixels, depth, torch.tensor([[0, 1, 2]]))
    # An attribute linear in camera space: X = x * z. Interpolated and divided by depth it is the pixel's own x.
    value = surface.interpolate(TRIANGLE[..., :1] * depth[..., None])
    z = surface.interpolate(depth[..., None])
    column = surface.where % 16 + 0.5
    torch.testing.assert_close((value / z).detach().squeeze(1), column, atol=1e-4, rtol=1e-4)
    stored = fragments.barycentrics.reshape(-1, 3)[surface.where]
    torch.testing.assert_close(surface.barycentrics.detach(), stored, atol=1e-5, rtol=1e-5)


def test_interpolation_gradient_against_finite_differences() -> None:
    depth = torch.tensor([[0.5, 2.0, 1.0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]])
    fragments = rasterize(TRIANGLE, depth.float(), faces, (16, 16))
    colours = torch.rand(1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def image(pixels: Tensor, z: Tensor, attribute: Tensor) -> Tensor:
        return surface_points(fragments, pixels, z, faces).interpolate(attribute)

    inputs = (TRIANGLE.double().requires_grad_(), depth.requires_grad_(), colours.requires_grad_())
    assert torch.autograd.gradcheck(image, inputs, check_forward_ad=True)


def test_sphere_normals_point_outwards() -> None:
    points, faces = uv_sphere()
    normals = vertex_normals(points[None], faces)[0]
    away = (normals * torch.nn.functional.normalize(points, dim=1)).sum(1)
    assert float(away[48:-48].min()) > 0.99


def test_sh_basis_is_orthonormal() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=generator, dtype=torch.float64), dim=1)
    basis = sh_basis(directions)
    gram = basis.T @ basis / len(basis) * 4 * math.pi
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=0.03, rtol=0)


def test_constant_light_shades_every_normal_alike() -> None:
    light = torch.zeros(9, 3)
    light[0] = math.sqrt(4 * math.pi)
    normals = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    batch = torch.zeros(50, dtype=torch.int64)
    torch.testing.assert_close(sh_shade(normals, light, batch), torch.ones(50, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(sh_shade(normals, light[None], batch), torch.ones(50, 3), atol=1e-5, rtol=0)


def test_texture_lookup() -> None:
    texture = torch.arange(8.0).view(2, 4, 1)
    centres = torch.tensor([[0.125, 0.75], [0.875, 0.25]])
    torch.testing.assert_close(sample_texture(texture, centres).squeeze(1), torch.tensor([0.0, 7.0]))
    between = torch.tensor([[0.25, 0.75]])
    torch.testing.assert_close(sample_texture(texture, between).squeeze(1), torch.tensor([0.5]))
    torch.testing.assert_close(sample_texture(texture, centres + 1), sample_texture(texture, centres))


def test_texture_gradient() -> None:
    texture = torch.rand(5, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    uv = torch.tensor([[0.31, 0.42], [0.77, 0.13]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_texture, (texture, uv), check_forward_ad=True)


def test_moving_the_mesh_by_a_pixel_moves_the_image() -> None:
    rig = sphere_rig(torch.rand(len(uv_sphere()[0]), 3, generator=torch.Generator().manual_seed(0)))
    camera = Camera.look_at(64, 64, 200.0, (0.0, 0.0, 1.0))
    vertices = rig.neutral[None]
    first = Renderer(rig, supersample=1)(vertices, camera).image
    moved = Camera(
        64, 64, camera.intrinsics + torch.tensor([0, 0, 3.0, -2.0]), camera.world_to_camera, camera.distortion
    )
    second = Renderer(rig, supersample=1)(vertices, moved).image
    torch.testing.assert_close(second[..., 4:50, 8:56], first[..., 6:52, 5:53], atol=2e-3, rtol=0)


def test_a_crop_is_the_same_picture() -> None:
    rig = sphere_rig(torch.full((len(uv_sphere()[0]), 3), 0.4))
    camera = Camera.look_at(80, 60, 150.0, (0.1, 0.05, 0.8))
    full = Renderer(rig)(rig.neutral[None], camera).image
    crop = Renderer(rig)(rig.neutral[None], camera.crop(torch.tensor([10.0, 5, 60, 55]), 50)).image
    torch.testing.assert_close(full[..., 5:55, 10:60], crop, atol=1e-3, rtol=0)


def test_batched_render_equals_looped_with_cameras_of_their_own() -> None:
    rig = sphere_rig(torch.full((len(uv_sphere()[0]), 3), 0.4))
    camera = Camera.look_at(80, 60, 150.0, (0.1, 0.05, 0.8))
    boxes = torch.tensor([[10.0, 5, 60, 55], [20.0, 0, 70, 50]])
    vertices = torch.stack([rig.neutral, rig.neutral * 1.2])
    both = Renderer(rig)(vertices, camera.crop(boxes, 48)).image
    for i in range(2):
        alone = Renderer(rig)(vertices[i : i + 1], camera.crop(boxes[i], 48)).image
        torch.testing.assert_close(both[i], alone[0], atol=1e-5, rtol=0)


def test_render_gradient_reaches_vertices() -> None:
    rig = sphere_rig(torch.rand(len(uv_sphere()[0]), 3, generator=torch.Generator().manual_seed(0)))
    camera = Camera.look_at(48, 48, 150.0, (0.0, 0.0, 1.0))
    vertices = rig.neutral[None].clone().requires_grad_()
    image = Renderer(rig, light=frontal_light())(vertices, camera).image
    image[..., 18:30, 18:30].square().sum().backward()
    assert vertices.grad is not None and float(vertices.grad.abs().sum()) > 0
    assert bool(torch.isfinite(vertices.grad).all())


def test_supersampled_mask_is_the_covered_area() -> None:
    rig = sphere_rig()
    camera = Camera.look_at(64, 64, 150.0, (0.0, 0.0, 1.0))
    mask = Renderer(rig, supersample=4)(rig.neutral[None], camera).mask
    seen_radius = 150.0 * 0.1 / math.sqrt(1 - 0.01)
    assert float(mask.sum()) == pytest.approx(math.pi * seen_radius**2, rel=0.02)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_compiled_shading_is_the_differentiable_one(samples: int) -> None:
    rig = sphere_rig(torch.rand(uv_sphere()[0].shape[0], 3, generator=torch.Generator().manual_seed(0)))
    light = frontal_light().expand(2, 9, 3) * torch.tensor([1.0, 0.5])[:, None, None]
    renderer = Renderer(rig, torch.linspace(0.5, 1, rig.neutral.shape[0]), light, supersample=samples)
    vertices = torch.stack([rig.neutral, rig.neutral * 0.7])
    camera = Camera.look_at(48, 40, 120.0, (0.1, 0.05, 0.5))
    with torch.no_grad():
        fast = renderer(vertices, camera)
    slow = renderer(vertices.requires_grad_(), camera)
    torch.testing.assert_close(fast.image, slow.image.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.mask, slow.mask.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_vertices_far_outside_of_numbers_neither_crash_nor_spoil_the_rest(backend: Backend) -> None:
    pixels = torch.tensor([[2.0, 2], [30, 2], [2, 30], [5, 5], [1e30, 5], [5, 1e25], [torch.inf, 3], [4, -torch.inf]])
    depth = torch.ones(8)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 6, 7]])
    found = rasterize(pixels[None], depth[None], faces[:1], (32, 32), backend=backend).face_index
    wild = rasterize(
        pixels[None], depth[None] * torch.tensor([1, 1, 1, 2, 2, 2, 2, 2]), faces, (32, 32), backend=backend
    )
    assert bool((wild.face_index[found == 0] == 0).all())
    assert bool((wild.face_index != 2).all())


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_no_hole_on_a_shared_edge_through_pixel_centres(backend: Backend) -> None:
    """Closed triangulations whose vertices lie on half pixels, so that edges run through centres."""
    draw = np.random.default_rng(0)
    corners = [[-5, -5], [40, -5], [-5, 40], [40, 40]]
    for _ in range(100):
        points = np.unique(np.round(draw.uniform(0, 32, (60, 2)) * 2) / 2, axis=0)
        points = np.concatenate([points, corners])
        faces = torch.from_numpy(Delaunay(points).simplices.astype(np.int64))
        pixels = torch.from_numpy(points.astype(np.float32))[None]
        depth = torch.from_numpy(draw.uniform(1, 2, (1, len(points))).astype(np.float32))
        found = rasterize(pixels, depth, faces, (32, 32), backend=backend)
        assert bool((found.face_index >= 0).all())


def test_of_triangles_at_one_depth_the_first_wins_in_every_backend() -> None:
    pixels, depth, faces = soup(3, 30, 32)
    twice = torch.cat([faces, faces.flip(0)])
    first, second = (rasterize(pixels, depth, twice, (32, 32), backend=b).face_index for b in ("numba", "torch"))
    assert bool((first < len(faces)).all())
    assert bool((second < len(faces)).all())


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_a_batch_of_nothing(backend: Backend) -> None:
    empty = rasterize(torch.zeros(0, 3, 2), torch.zeros(0, 3), torch.tensor([[0, 1, 2]]), (8, 6), backend=backend)
    assert empty.face_index.shape == (0, 6, 8)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_what_does_not_belong_to_the_rig_is_refused(backend: Backend) -> None:
    """Compiled code would read and write beyond its arrays."""
    rig = Rig.load("builtin")
    camera = Camera.look_at(16, 12, 20.0, (0.0, 0.0, 0.8))
    points = rig.neutral[None]
    renderer = Renderer(rig, backend=backend)
    for wrong in (points[:, :100], points[0], points[..., :2]):
        for function in (renderer, renderer.surface):
            with pytest.raises(ValueError, match=r"vertices: found shape .* expected \[B, 7451, 3\].* rig 'builtin'"):
                function(wrong, camera)
    pair = replace(
        camera, world_to_camera=camera.world_to_camera.repeat(2, 1, 1), intrinsics=camera.intrinsics.repeat(2, 1)
    )
    with pytest.raises(ValueError, match="camera: found a batch of shape .* one for each of 3 meshes"):
        renderer(points.expand(3, -1, -1), pair)
    assert renderer(points.expand(2, -1, -1), pair).image.shape == (2, 3, 12, 16)
    with pytest.raises(ValueError, match="albedo: found shape"):
        replace(renderer, albedo=torch.ones(5, 3))(points, camera)
    with pytest.raises(ValueError, match="occlusion: found shape"):
        replace(renderer, occlusion=torch.ones(5))(points, camera)
    assert renderer(points[:0], camera).image.shape == (0, 3, 12, 16)
