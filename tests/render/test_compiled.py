"""Compiled operations against torch, and derivatives of the whole renderer in both modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from spheres import sphere_rig, uv_sphere
from torch import Tensor
from torch.func import jacfwd, jvp, vjp, vmap

from deepenergy import Camera, Rig
from deepenergy.render import Renderer, rasterize
from deepenergy.render.blend import Blend, EdgePoints
from deepenergy.render.compiled.edge_points import edge_colours_numba
from deepenergy.render.compiled.interpolate import shade_numba
from deepenergy.render.compiled.lighting import reflected_numba
from deepenergy.render.compiled.normals import vertex_normals_numba
from deepenergy.render.compiled.operation import apply_compiled
from deepenergy.render.compiled.project import Project, project_numba
from deepenergy.render.compiled.resolve import resolve_numba
from deepenergy.render.fragments import Fragments
from deepenergy.render.lighting import frontal_light
from deepenergy.render.operations import project
from deepenergy.render.reference.interpolate import edge_colours_torch, edge_surface, shade_torch, surface_points
from deepenergy.render.reference.lighting import DARKEST, reflected_torch, sh_shade
from deepenergy.render.reference.normals import vertex_normals_torch
from deepenergy.render.reference.project import project_torch
from deepenergy.render.reference.resolve import resolve_torch
from deepenergy.scene.colour import srgb_to_linear

Function = Callable[..., Tensor]
CAMERA = Camera.look_at(30, 26, 44.0, (0.06, 0.04, 0.5))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _mesh() -> tuple[Tensor, Tensor]:
    points, faces = uv_sphere(4)
    return points.double()[None] * 3 + 0.05 * draw(2, len(points), 3), faces


def _normals() -> tuple[Function, Function, tuple[Tensor, ...]]:
    vertices, faces = _mesh()
    return lambda v: vertex_normals_numba(v, faces), lambda v: vertex_normals_torch(v, faces), (vertices,)


def _reflected() -> tuple[Function, Function, tuple[Tensor, ...]]:
    normals = torch.nn.functional.normalize(draw(2, 50, 3), dim=-1)
    occlusion = torch.linspace(0.1, 1, 50, dtype=torch.float64)
    inputs = (normals, draw(2, 9, 3, seed=1), draw(50, 3, seed=2))
    dark = sh_shade(normals.flatten(0, 1), inputs[1], torch.arange(2).repeat_interleave(50)) < DARKEST
    assert 50 < int(dark.sum()) < 250
    return (
        lambda n, light, albedo: reflected_numba(n, light, albedo, occlusion),
        lambda n, light, albedo: reflected_torch(n, light, albedo, occlusion),
        inputs,
    )


def _project() -> tuple[Function, Function, tuple[Tensor, ...]]:
    camera = Camera.look_at(64, 48, 70.0, (0.3, 0.2, 1.5))
    lens = torch.stack([camera.intrinsics, camera.intrinsics + torch.tensor([3.0, -2.0, 0.5, 1.5])]).double()
    pose = torch.stack([camera.world_to_camera] * 2).double()

    def in_torch(points: Tensor, matrix: Tensor, k: Tensor) -> Tensor:
        pixels, depth = project_torch(points, replace(camera, world_to_camera=matrix, intrinsics=k), 2)
        return torch.cat([pixels, depth[..., None]], -1)

    def compiled(points: Tensor, matrix: Tensor, k: Tensor) -> Tensor:
        # A camera checks itself, which a mapped one cannot.
        return apply_compiled(Project, (torch.tensor(2),), (points, matrix, k))

    return compiled, in_torch, (0.3 * draw(2, 11, 3), pose, lens)


def _shade() -> tuple[Function, Function, tuple[Tensor, ...]]:
    size = (9, 7)
    pixels = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 11 - 1
    depth = torch.rand(2, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    faces = torch.arange(12).view(4, 3)
    seen = rasterize(pixels, depth, faces, size)
    # The stored barycentrics are float32; the derivative is compared with differences of float64.
    exact = surface_points(seen, pixels.requires_grad_(), depth, faces).barycentrics.detach()
    pixels = pixels.detach()
    bary = torch.zeros(seen.face_index.shape + (3,), dtype=torch.float64)
    bary[seen.face_index >= 0] = exact

    def in_torch(xy: Tensor, z: Tensor, colour: Tensor) -> Tensor:
        return shade_torch(seen, faces, xy, z, colour)

    def compiled(xy: Tensor, z: Tensor, colour: Tensor) -> Tensor:
        return shade_numba(Fragments(seen.face_index, bary, seen.depth), faces, xy, z, colour)

    return compiled, in_torch, (pixels, depth, draw(2, 12, 3))


def _edge_points() -> EdgePoints:
    """Of edges whose triangles have them in either direction, in two images of twelve vertices."""
    ends = torch.tensor([[0, 1], [4, 5], [3, 5], [12, 14], [22, 23]])
    face = torch.tensor([0, 1, 1, 0, 3])
    return EdgePoints(ends, torch.tensor([0, 1, 0, 1, 0]), torch.tensor([2, 5, 4, 3, 6]), face)


def _edge_colours() -> tuple[Function, Function, tuple[Tensor, ...]]:
    points = _edge_points()
    pixels, depth = draw(2, 12, 2) * 0.2 + 4, draw(2, 12, seed=1).abs() + 0.5
    # Apart across the line of centres, as an edge is that crosses one.
    flat = pixels.view(-1, 2)
    for (a, b), axis, line in zip(points.ends.tolist(), points.axis.tolist(), points.line.tolist(), strict=True):
        flat[a, 1 - axis], flat[b, 1 - axis] = line - 0.4 - 0.1 * a, line + 0.8 + 0.1 * b
    return (
        lambda *given: edge_colours_numba(points, *given),
        lambda *given: edge_colours_torch(points, *given),
        (pixels, depth, draw(2, 12, 3, seed=2)),
    )


def _resolve(side: int) -> tuple[Function, Function, tuple[Tensor, ...]]:
    samples = torch.rand(2, 4, 4, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 0.3 + 0.01
    # One target twice, as a thin thing has it, and neighbours that are targets themselves; two points at edges.
    target, source = torch.tensor([3, 9, 9, 40, 47, 5, 30]), torch.tensor([9, 8, 10, 46, 41, 49, 48])
    share = torch.tensor([0.1, 0.4, 0.3, 0.25, 0.5, 0.2, 0.35], dtype=torch.float64)
    at_edges = torch.rand(2, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.3 + 0.01
    points = EdgePoints(*(part[:2] for part in vars(_edge_points()).values()))
    back = srgb_to_linear(torch.tensor([0.35, 0.2, 0.6], dtype=torch.float64))
    return (
        lambda x, s, e: resolve_numba(x, Blend(target, source, s, points), e, back, side),
        lambda x, s, e: resolve_torch(x, Blend(target, source, s, points), e, back, side),
        (samples, share, at_edges),
    )


OPERATIONS = {
    "normals": _normals,
    "reflected": _reflected,
    "project": _project,
    "shade": _shade,
    "edge colours": _edge_colours,
    "resolve": lambda: _resolve(1),
    "resolve supersampled": lambda: _resolve(2),
}


class TestOperations:
    @pytest.mark.parametrize("name", OPERATIONS)
    def test_values_and_cotangents_are_those_of_torch(self, name: str) -> None:
        compiled, in_torch, inputs = OPERATIONS[name]()
        inputs = tuple(x.requires_grad_() for x in inputs)
        found, expected = compiled(*inputs), in_torch(*inputs)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        u = draw(*expected.shape, seed=9)
        pairs = zip(torch.autograd.grad(found, inputs, u), torch.autograd.grad(expected, inputs, u), strict=True)
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_gradcheck_in_both_modes(self, name: str) -> None:
        compiled, _, inputs = OPERATIONS[name]()
        # The barycentrics of `shade` come with the visibility: its differences by place are zero, its derivatives not.
        fixed = inputs[:2] if name == "shade" else ()
        free = tuple(x.requires_grad_() for x in inputs[len(fixed) :])
        assert torch.autograd.gradcheck(lambda *x: compiled(*fixed, *x), free, check_forward_ad=True, fast_mode=True)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_mapped_derivatives_equal_looped(self, name: str) -> None:
        compiled, in_torch, inputs = OPERATIONS[name]()
        tangents = tuple(draw(4, *x.shape, seed=k) for k, x in enumerate(inputs))
        mapped = vmap(lambda *t: jvp(compiled, inputs, t)[1])(*tangents)
        for k in range(4):
            one = tuple(t[k] for t in tangents)
            torch.testing.assert_close(mapped[k], jvp(compiled, inputs, one)[1], rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(mapped[k], jvp(in_torch, inputs, one)[1], rtol=1e-8, atol=1e-10)
        # Tangents of a grid are mapped over twice, the second time along another axis.
        grid = tuple(t.unflatten(0, (2, 2)).movedim(1, -1) for t in tangents)
        twice = vmap(vmap(lambda *t: jvp(compiled, inputs, t)[1], in_dims=-1))(*grid)
        torch.testing.assert_close(twice.flatten(0, 1), mapped, rtol=1e-10, atol=1e-12)

        back_along = vjp(compiled, *inputs)[1]
        cotangents = draw(2, 2, *mapped.shape[1:], seed=7)
        back = vmap(vmap(back_along))(cotangents)
        for i in range(2):
            for j in range(2):
                for part, whole in zip(back_along(cotangents[i, j]), back, strict=True):
                    torch.testing.assert_close(whole[i, j], part, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_mapped_inputs_equal_looped(self, name: str) -> None:
        compiled, _, inputs = OPERATIONS[name]()
        several = tuple(x + 0.001 * draw(3, *x.shape, seed=k) for k, x in enumerate(inputs))
        if name == "shade":  # Its visibility holds for one set of barycentrics.
            several = (*(x.expand(3, *x.shape) for x in inputs[:2]), several[2])
        mapped = vmap(compiled)(*several)
        cotangent = draw(*mapped.shape[1:], seed=5)
        transposed = vmap(lambda *x: vjp(compiled, *x)[1](cotangent))(*several)
        moved = vmap(lambda *x: jvp(compiled, x, inputs)[1])(*several)
        for k in range(3):
            one = tuple(x[k] for x in several)
            torch.testing.assert_close(mapped[k], compiled(*one))
            torch.testing.assert_close(moved[k], jvp(compiled, one, inputs)[1])
            for part, whole in zip(vjp(compiled, *one)[1](cotangent), transposed, strict=True):
                torch.testing.assert_close(whole[k], part)

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_a_second_derivative_is_refused(self, name: str) -> None:
        compiled, _, inputs = OPERATIONS[name]()
        inputs = tuple(x.requires_grad_() for x in inputs)
        first = torch.autograd.grad(compiled(*inputs).square().sum(), inputs, create_graph=True)
        with pytest.raises(RuntimeError, match="second derivative of a compiled operation"):
            sum(g.square().sum() for g in first).backward()  # type: ignore[union-attr]
        plain = tuple(x.detach() for x in inputs)

        def gradient(x: Tensor) -> Tensor:
            return vjp(lambda y: compiled(y, *plain[1:]).square().sum(), x)[1](torch.tensor(1.0).double())[0]

        def along(x: Tensor) -> Tensor:
            return jvp(lambda y: compiled(y, *plain[1:]), (x,), (torch.ones_like(x),))[1]

        for function in (gradient, along):
            with pytest.raises(RuntimeError, match="second derivative of a compiled operation"):
                jvp(function, plain[:1], (torch.ones_like(plain[0]),))
        with pytest.raises(RuntimeError, match="second derivative of a compiled operation"):
            vjp(along, plain[0])[1](torch.ones_like(compiled(*plain)))

    def test_points_at_edges_are_points_of_their_triangles(self) -> None:
        found, _, (pixels, depth, colour) = _edge_colours()
        faces = torch.tensor([[0, 1, 2], [5, 4, 3], [6, 7, 8], [11, 9, 10]])
        surface = edge_surface(_edge_points(), pixels, depth, faces, 70)
        assert surface.where.tolist() == [70, 71, 72, 73, 74]
        torch.testing.assert_close(surface.interpolate(colour), found(pixels, depth, colour)[:, :3])

    def test_only_the_inputs_that_are_differentiated(self) -> None:
        compiled, in_torch, (normals, light, albedo) = _reflected()
        light = light.requires_grad_()
        (found,) = torch.autograd.grad(compiled(normals, light, albedo).sum(), light)
        (expected,) = torch.autograd.grad(in_torch(normals, light, albedo).sum(), light)
        torch.testing.assert_close(found, expected)

    def test_a_point_in_the_camera_s_own_plane_is_held_off_it(self) -> None:
        camera = Camera.look_at(64, 48, 70.0, (0.0, 0.0, 1.0))
        points = torch.tensor([[[0.1, 0.2, 1.0], [0.1, 0.2, 0.5]]], dtype=torch.float64)
        for function in (project_numba, project_torch):
            x = points.clone().requires_grad_()
            pixels, depth = function(x, camera)
            assert depth.tolist() == [[1e-9, 0.5]]
            torch.testing.assert_close(pixels[0, 1], torch.tensor([46.0, -4.0], dtype=torch.float64))
            depth.sum().backward()
            assert x.grad is not None and float(x.grad[0, 0].abs().max()) == 0

    def test_a_distorting_lens_is_projected_through(self) -> None:
        plain = Camera.look_at(64, 48, 70.0, (0.0, 0.0, 1.0))
        camera = replace(plain, distortion=torch.tensor([0.2, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64))
        points = draw(1, 4, 3) * 0.2
        torch.testing.assert_close(project(points, camera)[0], camera.project(points))
        assert float((project(points, plain)[0] - camera.project(points)).abs().max()) > 1e-3

    def test_vertices_of_no_triangle_have_no_normal_and_a_finite_derivative(self) -> None:
        vertices = draw(1, 5, 3)
        vertices[0, 1:3] = vertices[0, 0]
        faces = torch.tensor([[0, 1, 2]])
        for function in (vertex_normals_numba, vertex_normals_torch):
            x = vertices.clone().requires_grad_()
            normals = function(x, faces)
            assert bool((normals == 0).all())
            normals.sum().backward()
            assert x.grad is not None and bool(torch.isfinite(x.grad).all())

    def test_clipped_colours_have_no_derivative(self) -> None:
        samples = torch.full((1, 4, 1, 2), 0.5, dtype=torch.float64)
        samples[0, 0] = torch.tensor([1.5, -0.7])
        back = torch.zeros(3, dtype=torch.float64)
        for function in (resolve_numba, resolve_torch):
            x = samples.clone().requires_grad_()
            function(x, None, x.new_zeros(0, 4), back, 1).sum().backward()
            assert x.grad is not None
            assert bool((x.grad[0, 0] == 0).all()) and bool((x.grad[0, 1] > 0).all())

    def test_an_operation_runs_on_what_torch_func_wraps(self) -> None:
        vertices, faces = _mesh()
        scale = torch.tensor([1.0, 2.0, 0.5]).double()
        found = jacfwd(lambda s: vertex_normals_numba(vertices * s, faces).sum())(scale)
        expected = jacfwd(lambda s: vertex_normals_torch(vertices * s, faces).sum())(scale)
        torch.testing.assert_close(found, expected)


def _textured(rig: Rig) -> Rig:
    rings = 24
    rows, columns = torch.meshgrid(torch.arange(rings), torch.arange(2 * rings), indexing="ij")
    uvs = torch.stack([columns / (2 * rings), 1 - rows / (rings - 1)], -1).reshape(-1, 2)
    texture = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(5)) * 0.6 + 0.2
    return replace(rig, uvs=uvs, uv_faces=rig.faces, texture=texture)


def _scene(kind: str) -> tuple[Rig, Tensor]:
    points, _ = uv_sphere()
    albedo = torch.rand(len(points), 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    rig = sphere_rig(albedo)
    # A dent breaks the symmetry, and its edge hides a part of the sphere.
    vertices = points * (1 + 0.4 * torch.sin(20 * points[:, :1]))
    return (_textured(rig) if kind == "textured" else rig), vertices[None]


def _picture(kind: str, supersample: int, camera: Camera = CAMERA) -> tuple[Function, tuple[Tensor, ...]]:
    """A render as a function of vertices, light, and albedo or texture."""
    rig, vertices = _scene(kind)
    surface = rig.texture if kind == "textured" else rig.vertex_albedo
    assert surface is not None

    def picture(v: Tensor, light: Tensor, colours: Tensor) -> Tensor:
        coloured = replace(rig, **{"texture" if kind == "textured" else "vertex_albedo": colours})
        render = Renderer(coloured, light=light, supersample=supersample)(v, camera)
        return torch.cat([render.image, render.mask], 1)

    return picture, (vertices, frontal_light(), surface)


KINDS = ["plain", "textured"]


class TestRenderer:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("supersample", [1, 2])
    def test_forward_and_reverse_are_transposes(self, kind: str, supersample: int) -> None:
        picture, inputs = _picture(kind, supersample)
        image, back_along = vjp(picture, *inputs)[:2]
        u = draw(*image.shape, seed=1).float()
        back = back_along(u)
        for k, x in enumerate(inputs):
            v = draw(*x.shape, seed=2 + k).float() * 0.01
            along = jvp(lambda y, k=k: picture(*inputs[:k], y, *inputs[k + 1 :]), (x,), (v,))[1]
            products = along.double() * u.double(), v.double() * back[k].double()
            scale = float(products[0].abs().sum())
            assert float(products[0].sum() - products[1].sum()) == pytest.approx(0, abs=1e-5 * scale)
            assert scale > 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_tangents_mapped_over_and_without_grad(self, kind: str) -> None:
        picture, inputs = _picture(kind, 2)
        tangents = tuple(draw(5, *x.shape, seed=k).float() * 0.01 for k, x in enumerate(inputs))
        mapped = vmap(lambda *t: jvp(picture, inputs, t)[1])(*tangents)
        with torch.no_grad():
            quiet = vmap(lambda *t: jvp(picture, inputs, t)[1])(*tangents)
        torch.testing.assert_close(quiet, mapped, rtol=0, atol=0)
        for k in range(5):
            one = jvp(picture, inputs, tuple(t[k] for t in tangents))
            torch.testing.assert_close(mapped[k], one[1], rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            torch.testing.assert_close(one[0], picture(*inputs), rtol=0, atol=2e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_light_and_colours_against_central_differences(self, kind: str) -> None:
        picture, inputs = _picture(kind, 2)
        for k in (1, 2):
            v = draw(*inputs[k].shape, seed=k).float()
            v = v * (0.01 / float(v.abs().max()))

            def along(step: float, k: int = k, v: Tensor = v) -> Tensor:
                return picture(*inputs[:k], inputs[k] + step * v, *inputs[k + 1 :]).double()

            found = jvp(along_tensor(picture, inputs, k), (inputs[k],), (v,))[1].double()
            expected = (along(1.0) - along(-1.0)) / 2
            assert float((found - expected).norm()) < 0.01 * float(expected.norm())

    @pytest.mark.parametrize("name", ["focal", "principal point", "rotation", "translation"])
    def test_camera_against_central_differences(self, name: str) -> None:
        rig, vertices = _scene("plain")
        # Smooth colours: those that change from sample to sample are not resolved by either side.
        rig = replace(rig, vertex_albedo=0.4 + 2 * rig.neutral)
        # Slowly varying, so that the differences see how the outline moves and not which pixels it passes.
        rows, columns = torch.meshgrid(torch.arange(26) / 26, torch.arange(30) / 30, indexing="ij")
        u = torch.stack([rows + 0.3, columns - 0.2, rows * columns, 1 + rows - columns])[None]

        def camera(s: Tensor) -> Camera:
            k, m = CAMERA.intrinsics, CAMERA.world_to_camera
            if name == "focal":
                k = k * (1 + 0.1 * s * torch.tensor([1.0, 1, 0, 0]).double())
            elif name == "principal point":
                k = k + s * torch.tensor([0, 0, 3.0, -2]).double()
            elif name == "translation":
                step = torch.zeros(4, 4).double()
                step[:3, 3] = torch.tensor([0.02, 0.01, -0.03])
                m = m + s * step
            else:
                turn = torch.zeros(4, 4).double()
                turn[0, 1], turn[1, 0] = -0.2, 0.2
                turn[0, 2], turn[2, 0] = 0.1, -0.1
                m = torch.linalg.matrix_exp(s * turn) @ m
            return replace(CAMERA, intrinsics=k, world_to_camera=m)

        def terms(s: Tensor, supersample: int = 4, antialias: bool = True) -> Tensor:
            renderer = Renderer(rig, supersample=supersample, antialias=antialias)
            render = renderer(vertices, camera(s))
            return (torch.cat([render.image, render.mask], 1) * u).double().sum((2, 3))[0]

        zero = torch.tensor(0.0).double()
        forward = jvp(terms, (zero,), (torch.ones_like(zero),))[1]
        at = zero.clone().requires_grad_()
        for k in range(4):
            (backward,) = torch.autograd.grad(terms(at)[k], at)
            torch.testing.assert_close(backward, forward[k], rtol=1e-3, atol=1e-4)
        step = 0.05
        expected = (terms(zero + step, 16, False) - terms(zero - step, 16, False)) / (2 * step)
        assert float((forward - expected).norm()) < 0.05 * float(expected.norm())

    def test_mapped_vertices_are_refused(self) -> None:
        picture, inputs = _picture("plain", 1)
        with pytest.raises(ValueError, match=r"vertices mapped over by torch.func.vmap; map over tangents"):
            vmap(lambda v: picture(v, *inputs[1:]))(inputs[0][None].repeat(2, 1, 1, 1))

    def test_mapped_light_and_albedo_equal_looped(self) -> None:
        picture, inputs = _picture("plain", 1)
        lights = inputs[1] * torch.tensor([1.0, 0.5, 0.8])[:, None, None]
        colours = inputs[2] * torch.tensor([0.7, 1.0, 0.6])[:, None, None]
        mapped = vmap(lambda light, c: picture(inputs[0], light, c))(lights, colours)
        for k in range(3):
            torch.testing.assert_close(mapped[k], picture(inputs[0], lights[k], colours[k]), rtol=0, atol=1e-6)

    def test_float64_vertices_get_their_gradient_in_float64(self) -> None:
        picture, inputs = _picture("plain", 1)
        vertices = inputs[0].double().requires_grad_()
        picture(vertices, *inputs[1:]).sum().backward()
        assert vertices.grad is not None and vertices.grad.dtype == torch.float64


def along_tensor(picture: Function, inputs: tuple[Tensor, ...], k: int) -> Function:
    return lambda y: picture(*inputs[:k], y, *inputs[k + 1 :])
