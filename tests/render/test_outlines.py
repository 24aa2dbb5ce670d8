"""Outlines: coverage against exact areas, continuity, boundary derivatives, and what must not change the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spheres import uv_sphere
from torch import Tensor
from torch.func import jvp

from deepenergy import Camera, Rig
from deepenergy.render import Renderer, rasterize
from deepenergy.render.blend import Blend
from deepenergy.render.compiled import silhouettes as contours_numba
from deepenergy.render.compiled.outlines import find_blend_numba
from deepenergy.render.mesh_edges import mesh_edges
from deepenergy.render.reference import silhouettes as contours
from deepenergy.render.reference.depth_steps import advance, find_depth_steps, find_part_borders
from deepenergy.render.reference.intersections import gap_of
from deepenergy.render.reference.outlines import blend_of, find_outlines_torch
from deepenergy.render.reference.silhouettes import find_crossings
from deepenergy.render.texture import mip_texture
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear

SIDE = 32
# At Z = 0 a metre is 100 pixels.
CAMERA = Camera.look_at(SIDE, SIDE, 100.0, (0.0, 0.0, 1.0))


def rig_of(points: Tensor, faces: Tensor, albedo: Tensor | None = None) -> Rig:
    colours = torch.full((len(points), 3), 0.6) if albedo is None else albedo
    return Rig("mesh", points, faces, torch.zeros(0, len(points), 3), (), vertex_albedo=colours)


def placed(image_points: Tensor, z: float = 0.0) -> Tensor:
    """Image points to world points on a plane."""
    scale = (1.0 - z) / 100.0
    x, y = (image_points[:, 0] - SIDE / 2) * scale, -(image_points[:, 1] - SIDE / 2) * scale
    return torch.stack([x, y, torch.full_like(x, z)], 1).float()


def shoelace(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def clip_to_pixel(polygon: np.ndarray, row: int, column: int) -> float:
    """Area of a convex polygon in a pixel (Sutherland and Hodgman 1974)."""
    for axis, sign, limit in ((0, 1, column), (0, -1, -column - 1), (1, 1, row), (1, -1, -row - 1)):
        kept = []
        for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            da, db = sign * a[axis] - limit, sign * b[axis] - limit
            if da >= 0:
                kept.append(a)
            if da * db < 0:
                kept.append(a + (b - a) * da / (da - db))
        if len(kept) < 3:
            return 0.0
        polygon = np.array(kept)
    return shoelace(polygon)


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 2 * math.pi), st.floats(0, 1), st.floats(0, 1))
def test_the_mask_is_the_exact_area(angle: float, dx: float, dy: float) -> None:
    c, s = math.cos(angle), math.sin(angle)
    corners = np.array([[-9.0, -9], [9, -9], [9, 9], [-9, 9]]) @ np.array([[c, s], [-s, c]]) + [15.5 + dx, 15.5 + dy]
    world = placed(torch.from_numpy(corners))
    rig = rig_of(world, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    mask = Renderer(rig, supersample=1)(world[None], CAMERA).mask[0, 0]
    # Along an edge the shares add up to the area; at a corner they need not:
    # one on a centre is shown as all of its pixel, a quarter in truth.
    assert float(mask.sum()) == pytest.approx(shoelace(corners), abs=4 * 0.75)
    exact = np.array([[clip_to_pixel(corners, i, j) for j in range(SIDE)] for i in range(SIDE)])
    off = np.abs(mask.numpy() - exact)
    corner_pixels = np.zeros_like(off, dtype=bool)
    for x, y in np.floor(corners).astype(int):
        corner_pixels[y - 1 : y + 2, x - 1 : x + 2] = True
    assert float(off[~corner_pixels].max()) < 0.13
    assert float(off.max()) < 0.76


@settings(max_examples=12, deadline=None)
@given(st.floats(0, 2 * math.pi), st.floats(-3, 3))
def test_a_half_plane_is_its_exact_area(angle: float, offset: float) -> None:
    along = np.array([math.cos(angle), math.sin(angle)])
    inwards = np.array([-along[1], along[0]])
    middle = np.array([SIDE / 2, SIDE / 2]) + offset * inwards
    corners = np.array([middle - 200 * along, middle + 200 * along, middle + 200 * inwards])
    world = placed(torch.from_numpy(corners))
    mask = Renderer(rig_of(world, torch.tensor([[0, 1, 2]])), supersample=1)(world[None], CAMERA).mask[0, 0].numpy()
    exact = np.array([[clip_to_pixel(corners, i, j) for j in range(SIDE)] for i in range(SIDE)])
    # At the image's border the outline may leave between a centre and the border, beyond the last gap.
    within = np.abs(mask - exact)[1:-1, 1:-1]
    assert float(within.max()) < 0.13
    assert float(mask[1:-1, 1:-1].sum()) == pytest.approx(float(exact[1:-1, 1:-1].sum()), rel=1e-3)


def sphere(radius: float = 0.08, rings: int = 10) -> tuple[Tensor, Tensor]:
    return uv_sphere(rings, radius)


@pytest.mark.parametrize("shape", ["triangle", "sphere"])
def test_the_image_moves_continuously(shape: str) -> None:
    if shape == "triangle":
        points, faces = placed(torch.tensor([[8.1, 6.3], [24.2, 10.4], [13.7, 25.9]])), torch.tensor([[0, 1, 2]])
    else:
        points, faces = sphere()
    rig = rig_of(points, faces)
    step = torch.tensor([0.013, 0.009, 0.0]) / 100.0 * 1.25  # A fiftieth of a pixel.
    moved = torch.stack([points + k * step for k in range(60)])
    jumps = {}
    for antialias in (True, False):
        mask = Renderer(rig, supersample=1, antialias=antialias)(moved, CAMERA).mask[:, 0]
        jumps[antialias] = (mask[1:] - mask[:-1]).abs()
    # At the tip of a corner between two lines of centres, and there alone, the blend may jump by less than one.
    assert int((jumps[False] > 0.1).sum()) > 10
    assert int((jumps[True] > 0.1).sum()) <= 0.1 * int((jumps[False] > 0.1).sum())
    assert float(jumps[True].max()) < 0.7


def smooth_weights(channels: int = 4) -> Tensor:
    t = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
    rows, columns = torch.meshgrid(t, t, indexing="ij")
    maps = [1 + rows * 0.5, columns - 0.3 * rows, rows * columns + 0.4, torch.cos(2 * rows + columns)]
    return torch.stack(maps[:channels])


def box() -> tuple[Tensor, Tensor]:
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)]) * 0.06
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]]
    faces += [[2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
    tilt = torch.linalg.matrix_exp(torch.tensor([[0, 0.3, 0.5], [-0.3, 0, 0.4], [-0.5, -0.4, 0]]))
    return corners @ tilt.T, torch.tensor(faces)


Scene = tuple[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]]


def translating_sphere() -> Scene:
    points, faces = sphere(rings=16)
    return points, faces, torch.full_like(points, 0.5), lambda s: points + s * torch.tensor([0.01, 0.004, 0.003])


def rotating_box() -> Scene:
    points, faces = box()
    turn = torch.tensor([[0.0, -1, 0.2], [1, 0, 0.1], [-0.2, -0.1, 0]])
    return points, faces, torch.full_like(points, 0.5), lambda s: points @ torch.linalg.matrix_exp(s * 0.15 * turn).T


def intersecting_sphere() -> Scene:
    """A sphere moves through a wall: their line of meeting is no edge."""
    ball, faces = sphere(0.08, 20)
    wall = torch.tensor([[-0.3, -0.3, 0.02], [0.3, -0.3, 0.03], [0.3, 0.3, 0.05], [-0.3, 0.3, 0.04]])
    points = torch.cat([ball, wall])
    faces = torch.cat([faces, torch.tensor([[0, 1, 2], [0, 2, 3]]) + len(ball)])
    colour = torch.full_like(points, 0.8)
    colour[len(ball) :] = 0.15
    moves = torch.zeros_like(points)
    moves[: len(ball)] = torch.tensor([0.004, -0.003, 0.008])
    return points, faces, colour, lambda s: points + s * moves


def curling_flap() -> Scene:
    """One sheet that folds over itself, as a lip does: its edge hides the sheet."""
    u = torch.linspace(0, 1, 25)
    profile_y = torch.where(u < 0.5, -0.12 + 0.36 * u, 0.06 - 0.2 * (u - 0.5))
    profile_z = torch.where(u < 0.5, torch.zeros_like(u), 0.05 * torch.sin((u - 0.5) * math.pi))
    x = torch.linspace(-0.25, 0.25, 9)
    points = torch.stack(
        [x[None].expand(25, 9), profile_y[:, None] + 0.1 * x[None], profile_z[:, None].expand(25, 9)], -1
    ).reshape(-1, 3)
    index = torch.arange(24 * 9).view(24, 9)[:, :-1].reshape(-1, 1)
    faces = torch.cat([index + torch.tensor([0, 1, 10]), index + torch.tensor([0, 10, 9])])
    colour = torch.lerp(torch.tensor(0.1), torch.tensor(0.8), u)[:, None].expand(25, 9).reshape(-1, 1).expand(-1, 3)
    bend = (u > 0.5)[:, None].expand(25, 9).reshape(-1, 1) * torch.tensor([0.0, 0.006, 0.002])
    return points, faces, colour, lambda s: points + s * bend * (1 + points[:, :1])


@pytest.mark.parametrize("scene", [translating_sphere, rotating_box, intersecting_sphere, curling_flap])
def test_boundary_derivatives_against_central_differences(scene: Callable[[], Scene]) -> None:
    points, faces, colour, move = scene()
    rig = rig_of(points, faces, colour.contiguous())

    def terms(s: Tensor, supersample: int, antialias: bool) -> Tensor:
        render = Renderer(rig, supersample=supersample, antialias=antialias)(move(s)[None], CAMERA)
        both = torch.cat([render.image[:, :1], render.mask], 1)[0].double()
        return (both[:, None] * smooth_weights()).sum((2, 3)).flatten()

    zero = torch.tensor(0.0)
    expected = (terms(zero + 0.5, 16, False) - terms(zero - 0.5, 16, False)).detach()

    def mean_error(antialias: bool) -> float:
        # At one pose a few dozen samples of outline tell little: the mean along the way is the difference of its ends.
        poses = (torch.arange(16) + 0.5) / 16 - 0.5
        found = [jvp(lambda s: terms(s, 4, antialias), (s,), (torch.ones(()),))[1] for s in poses]
        return float((torch.stack(found).mean(0) - expected).norm() / expected.norm())

    # Where surfaces pierce each other the derivative is less exact than where an edge ends one.
    assert mean_error(True) < (0.15 if scene is intersecting_sphere else 0.05)
    assert mean_error(False) > 0.1


def test_every_edge_knows_a_whole_triangle_at_it() -> None:
    faces = torch.tensor([[7, 8, 9], [0, 1, 2], [2, 1, 3], [1, 2, 2], [4, 4, 5]])
    edges = mesh_edges(faces)
    known = dict(zip(map(tuple, edges.ends.tolist()), edges.face.tolist(), strict=True))
    assert known[1, 2] == 2 and known[0, 1] == 1 and known[1, 3] == 2
    assert known[4, 5] == known[2, 2] == 0


@pytest.mark.parametrize("textured", [False, True])
@pytest.mark.parametrize("along", [0, 1])
def test_a_rim_that_darkens_within_a_sample_moves_continuously(textured: bool, along: int) -> None:
    """As teeth do: what is mixed in beyond the outline is the colour of the edge, not of the last sample before it."""
    across = torch.tensor([[4.0, 0.7], [14.2, 0.7], [14.9, 0.05]])
    strip = torch.stack([torch.stack([u.expand(2), torch.tensor([9.0, 23.0])], 1) for u, _ in across]).reshape(-1, 2)
    colour = across[:, 1:].repeat_interleave(2, 0).expand(-1, 3).contiguous()
    points = placed(strip if along == 0 else strip.flip(1))
    faces = torch.tensor([[0, 1, 3], [0, 3, 2], [2, 3, 5], [2, 5, 4]])
    light = torch.zeros(9, 3)
    light[0] = math.sqrt(4 * math.pi)
    rig = rig_of(points, faces, colour)
    if textured:
        # As many texels to a sample everywhere; from one to the next the colour changes.
        texels = linear_to_srgb(torch.tensor([0.7] * 41 + [0.05] * 23))
        u = (40.5 + (across[:, 0] - 14.2) / 0.7).repeat_interleave(2) / 64
        uvs = torch.stack([u, torch.tensor([0.2, 0.8]).repeat(3)], 1)
        texture = texels[:, None].expand(20, 64, 3).contiguous()
        rig = replace(rig, vertex_albedo=None, texture=texture, uvs=uvs, uv_faces=faces)
    renderer = Renderer(rig, supersample=1, light=light, background=(0.0, 0.0, 0.0))
    step = torch.zeros(3)
    step[along] = (1 if along == 0 else -1) * 0.02 / 100
    moved = torch.stack([points + k * step for k in range(120)])
    sums = srgb_to_linear(renderer(moved, CAMERA).image)[:, 0].sum((1, 2)) / 14
    # The strip keeps its width: a step of 0.02 sample exchanges colours of at most 0.7, at both of its ends.
    assert float(sums.diff().abs().max()) < 0.05
    at = moved[37].clone()[None]
    change = step.expand_as(points)[None]
    slope = jvp(lambda v: srgb_to_linear(renderer(v, CAMERA).image)[:, 0].sum() / 14, (at,), (change,))[1]
    assert float(slope) == pytest.approx(float(sums[38] - sums[36]) / 2, abs=2e-3)


@pytest.fixture(scope="module")
def head() -> Rig:
    return Rig.load("builtin")


def rows_of(*columns: Tensor) -> dict[tuple[int, ...], float]:
    """The last column by all others."""
    *keys, values = columns
    return dict(zip(map(tuple, torch.stack(keys, 1).tolist()), values.tolist(), strict=True))


@settings(max_examples=6, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3))
def test_the_compiled_blend_is_that_in_torch(across: float, above: float) -> None:
    rig = Rig.load("builtin")
    camera = Camera.look_at(80, 72, 200.0, (across, above, 0.7))
    seen = camera.camera_points(torch.stack([rig.neutral, rig.neutral * 0.9]))
    counts = assert_blends_agree(camera.pixels(seen), seen[..., 2], rig.faces, (80, 72))
    assert counts[0] > 100
    assert counts[1]


def test_the_compiled_blend_is_that_in_torch_at_depth_steps() -> None:
    """Deep boxes before a wall whose sides are seen so steeply that no contour is found at their front."""
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    pixels = torch.cat([square * 10 + 30.2, square * 10.3 + 30.2, square * 25 + 30])
    depth = torch.cat([torch.full((4,), z) for z in (1.0, 5.0, 8.0)])
    sides = [[k, (k + 1) % 4, 4 + (k + 1) % 4] for k in range(4)] + [[k, 4 + (k + 1) % 4, 4 + k] for k in range(4)]
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], *sides, [8, 9, 10], [8, 10, 11]])
    moved = torch.stack([pixels, pixels + torch.tensor([1.3, 2.4])])
    assert assert_blends_agree(moved, depth.expand(2, -1), faces, (60, 64))[2] > 50


def origin(blend: Blend, samples: int) -> tuple[Tensor, ...]:
    """What a source is, whatever its number: whether an edge, the sample or 0, and the fields of the point or 0."""
    beyond = blend.source >= samples
    point = (blend.source - samples).clamp_min(0)
    points = blend.points
    fields = (*points.ends.unbind(1), points.axis, points.line)
    known = [torch.where(beyond, part[point], 0) if len(part) else torch.zeros_like(point) for part in fields]
    return (beyond.long(), torch.where(beyond, 0, blend.source), *known)


def assert_blends_agree(pixels: Tensor, depth: Tensor, faces: Tensor, size: tuple[int, int]) -> tuple[int, int, int]:
    """In float64: who is mixed with whom, by how much, and all derivatives in both modes. How much of what there is."""
    xy, z = pixels.double(), depth.double()
    edges, focal = mesh_edges(faces), torch.full((len(xy),), 200.0)
    fragments = rasterize(xy, z, faces, size)
    given = (edges, fragments, focal, 1e-3)
    crossings, intersections, steps = find_outlines_torch(xy, z, *given)
    table = find_blend_numba(xy, z, *given)

    both = [table.at, lambda x, d: blend_of(crossings, intersections, steps, x, d, size)]
    samples = len(xy) * size[0] * size[1]
    found = [blend(xy, z) for blend in both]
    shares = [rows_of(blend.target, *origin(blend, samples), blend.share) for blend in found]
    assert shares[0].keys() == shares[1].keys()
    assert shares[0] == pytest.approx(shares[1], abs=1e-9)
    for blend in found:
        beyond = blend.source >= samples
        assert torch.equal(blend.source[beyond].sort().values, samples + torch.arange(len(blend.points.line)))
        assert bool((blend.source[beyond] != blend.target[beyond]).all())
        # The triangle has the edge.
        corners = faces[blend.points.face] + (blend.points.ends[:, :1] // len(xy[0])) * len(xy[0])
        assert bool((corners[:, :, None] == blend.points.ends[:, None]).any(1).all())

    generator = torch.Generator().manual_seed(0)
    along = tuple(torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in (xy, z))
    weights = torch.randn(3, max(samples, xy[..., 0].numel()), generator=generator, dtype=torch.float64)

    def mixed(blend: Callable[[Tensor, Tensor], Blend], x: Tensor, d: Tensor) -> Tensor:
        """A sum that does not depend on the rows' order."""
        made = blend(x, d)
        _, plain, first, _, _, _ = origin(made, samples)
        return (made.share * (weights[0][made.target] - weights[1][plain] * weights[2][first])).sum()

    slopes = [jvp(lambda x, d, blend=blend: mixed(blend, x, d), (xy, z), along)[1] for blend in both]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)
    inputs = (xy.clone().requires_grad_(), z.clone().requires_grad_())
    gradients = [torch.autograd.grad(mixed(blend, *inputs), inputs) for blend in both]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    return len(crossings.inside), len(intersections.first), len(steps.near)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_of_several_crossings_in_a_gap_the_farthest_counts() -> None:
    """Against numpy's stable sort, with gaps and distances that occur more than once."""
    random = np.random.default_rng(0)
    for count in (0, 1, 7, 300):
        inside, axis = random.integers(0, 40, count), random.integers(0, 2, count)
        reach = random.integers(0, 4, count) / 4
        gap = inside + 1000 * axis
        order = np.lexsort((np.arange(count), -reach, gap))
        expected = order[np.unique(gap[order], return_index=True)[1]]
        i, j, a, r = (torch.from_numpy(part) for part in (inside, inside + 1, axis, reach))
        assert contours._farthest(i, j, a, r, 1000).tolist() == expected.tolist()
        assert contours_numba._farthest(gap, reach).tolist() == expected.tolist()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("supersample", [1, 2])
def test_the_number_of_threads_changes_nothing(head: Rig, batch: int, supersample: int) -> None:
    camera = Camera.look_at(61, 47, 120.0, (0.2, 0.1, 0.7))
    vertices = head.neutral * torch.linspace(1, 1.1, batch)[:, None, None]
    weight = torch.randn(batch, 3, 47, 61, generator=torch.Generator().manual_seed(0))
    renderer = Renderer(head, supersample=supersample)
    found = []
    for count in (1, 2, 9):
        torch.set_num_threads(count)
        at = vertices.clone().requires_grad_()
        render = renderer(at, camera)
        (slope,) = torch.autograd.grad((render.image * weight).sum(), at)
        moved = jvp(lambda v: renderer(v, camera).image, (vertices,), (0.01 * vertices.flip(1),))[1]
        found.append((render.image.detach(), render.mask.detach(), *vars(render.fragments).values(), slope, moved))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_winding_of_triangles_plays_no_part(head: Rig) -> None:
    camera = Camera.look_at(64, 64, 170.0, (0.2, 0.05, 0.7))
    turned = rig_of(head.neutral, head.faces.flip(1), head.vertex_albedo)
    first, second = (Renderer(r)(head.neutral[None], camera) for r in (head, turned))
    torch.testing.assert_close(first.mask, second.mask, atol=1e-6, rtol=0)
    points, faces = sphere()
    mixed = faces.clone()
    mixed[::3] = mixed[::3].flip(1)
    masks = [Renderer(rig_of(points, f))(points[None], CAMERA).mask for f in (faces, mixed)]
    torch.testing.assert_close(masks[0], masks[1], atol=1e-6, rtol=0)


@settings(max_examples=8, deadline=None)
@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 1000))
def test_moving_by_whole_pixels_moves_the_image(dx: int, dy: int, seed: int) -> None:
    points, faces = sphere(0.06)
    points = points + torch.randn(len(points), 3, generator=torch.Generator().manual_seed(seed)) * 0.004
    rig = rig_of(points, faces)
    moved = replace(CAMERA, intrinsics=CAMERA.intrinsics + torch.tensor([0.0, 0, dx, dy]).double())
    first, second = (Renderer(rig, supersample=1)(points[None], c).mask[0, 0] for c in (CAMERA, moved))
    off = (torch.roll(first, (dy, dx), (0, 1)) - second).abs()
    # A centre that an edge passes through may fall to either side; the blend makes nothing of it.
    assert float(off.max()) < 2e-3


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_splitting_triangles_changes_nothing(seed: int, at_centroid: bool) -> None:
    points, faces = sphere(0.07, 6)
    points = points + torch.randn(len(points), 3, generator=torch.Generator().manual_seed(seed)) * 0.002
    a, b, c = faces.unbind(1)
    if at_centroid:
        more = points[faces].mean(1)
        m = len(points) + torch.arange(len(faces))
        split = torch.cat([torch.stack(t, 1) for t in ((a, b, m), (b, c, m), (c, a, m))])
    else:
        edges = mesh_edges(faces)
        more = points[edges.ends].mean(1)
        ab, bc, ca = (edges.of_face + len(points)).unbind(1)
        split = torch.cat([torch.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    finer = torch.cat([points, more])
    first = Renderer(rig_of(points, faces), supersample=1)(points[None], CAMERA).mask
    second = Renderer(rig_of(finer, split), supersample=1)(finer[None], CAMERA).mask
    off = (first - second).abs()
    # Whether a shallow fold begins here or at the next edge is decided by rounding, in a pixel or two, as is which way
    # a part of a triangle faces that is seen edge-on.
    assert float((off > 5e-3).float().mean()) < 1e-3
    assert float(off.max()) < 0.5


def test_an_image_of_the_background_alone() -> None:
    points, faces = sphere()
    vertices = (points + torch.tensor([5.0, 0, 0]))[None].requires_grad_()
    render = Renderer(rig_of(points, faces))(vertices, CAMERA)
    assert bool((render.mask == 0).all())
    torch.testing.assert_close(render.image, torch.full_like(render.image, 0.35), atol=1e-5, rtol=0)
    render.image.sum().backward()
    assert vertices.grad is not None and bool((vertices.grad == 0).all())


def test_a_batch_equals_a_loop() -> None:
    points, faces = sphere()
    rig = rig_of(points, faces)
    moved = torch.stack([points, points * 0.7 + 0.01, points + 5.0, points * torch.tensor([1.0, 0.4, 1])])
    both = Renderer(rig)(moved, CAMERA)
    for k in range(4):
        one = Renderer(rig)(moved[k : k + 1], CAMERA)
        torch.testing.assert_close(both.image[k], one.image[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(both.mask[k], one.mask[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", ["larger than the image", "smaller than a sample", "degenerate"])
def test_extreme_triangles_are_finite(size: str) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(40, 1, 3, generator=generator) * 0.3 - 0.15
    spread = {"larger than the image": 2.0, "smaller than a sample": 0.001, "degenerate": 0.05}[size]
    points = (centres + (torch.rand(40, 3, 3, generator=generator) - 0.5) * spread).reshape(-1, 3)
    if size == "degenerate":
        points[1::3], points[5::6] = points[0::3], points[3::6]
    faces = torch.arange(120).view(-1, 3)
    for backend in ("numba", "torch"):
        vertices = points[None].clone().requires_grad_()
        render = Renderer(rig_of(points, faces), supersample=1, backend=backend)(vertices, CAMERA)
        (render.image.sum() + render.mask.square().sum()).backward()
        assert bool(torch.isfinite(render.image).all())
        assert vertices.grad is not None and bool(torch.isfinite(vertices.grad).all())


def test_no_crossings_of_an_empty_batch() -> None:
    points, faces = sphere()
    none = rasterize(torch.zeros(0, len(points), 2), torch.zeros(0, len(points)), faces, (8, 8))
    found = find_crossings(
        torch.zeros(0, len(points), 2), torch.zeros(0, len(points)), mesh_edges(faces), none, torch.zeros(0)
    )
    assert found.inside.shape == (0,) and found.ends.shape == (0, 2)


def test_a_far_checker_shows_its_mean_and_its_gradient_is_the_coverage() -> None:
    corners = torch.tensor([[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [0.1, 0.1, 0.0], [-0.1, 0.1, 0.0]])
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    index = torch.arange(512)
    checker = ((index[:, None] + index) % 2).float()[..., None].expand(-1, -1, 3) * 0.8 + 0.1
    light = torch.zeros(9, 3)
    light[0] = math.sqrt(4 * math.pi)
    plain = Rig("card", corners, faces, torch.zeros(0, 4, 3), (), uvs=uvs, uv_faces=faces, texture=checker)
    grey = replace(plain, texture=torch.full_like(checker, 0.5))
    first, second = (Renderer(r, light=light)(corners[None], CAMERA) for r in (plain, grey))
    torch.testing.assert_close(first.image, second.image, atol=2e-3, rtol=0)

    texture = checker.clone().requires_grad_()
    surface, _, albedo = Renderer(replace(plain, texture=texture), light=light).surface(corners[None], CAMERA)
    albedo.sum().backward()
    assert texture.grad is not None
    assert float(texture.grad.sum()) == pytest.approx(3 * len(surface.where), rel=1e-4)
    assert float(mip_texture(checker).texels[-1].mean()) == pytest.approx(0.5, abs=1e-4)


def test_depth_steps_mix_nothing_and_move_with_the_nearer_surface() -> None:
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    pixels = torch.cat([corners * 5.3 + 10, corners * 9 + 10])[None]
    depth = torch.cat([torch.ones(4), torch.full((4,), 2.0)])[None]
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    fragments = rasterize(pixels, depth, faces, (20, 20))
    none = torch.zeros(0, dtype=torch.int64)
    steps = find_depth_steps(8, faces, fragments, find_part_borders(mesh_edges(faces), fragments), none)
    seen = torch.where(fragments.face_index[0] >= 0, fragments.depth[0], 9.0)
    assert len(steps.near) == int((seen.diff(dim=0) != 0).sum() + (seen.diff(dim=1) != 0).sum())
    speed = torch.tensor([0.3, -0.7])
    at, moved = jvp(lambda x: advance(steps, x, depth), (pixels,), (speed.expand_as(pixels),))[:2]
    assert not at.any()
    onwards = torch.where(steps.far > steps.near, 1.0, -1.0)
    torch.testing.assert_close(moved, speed[steps.axis] * onwards, atol=1e-5, rtol=0)
    found = gap_of(steps.near[:1], steps.far[:1], steps.axis[:1], 400)
    fewer = find_depth_steps(8, faces, fragments, find_part_borders(mesh_edges(faces), fragments), found)
    assert len(fewer.near) < len(steps.near)
