"""Passes, the render over its plate, and material regions; golden images in tests/golden."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from golden_images import assert_golden
from spheres import sphere_rig, uv_sphere

from deepenergy import Camera, Rig
from deepenergy.render import Renderer
from deepenergy.render.materials import EYES, HAIR, MATERIALS, MOUTH, SKIN, TEETH, face_skin, material_regions
from deepenergy.render.passes import (
    Passes,
    depth_image,
    normal_image,
    over_plate,
    render_passes,
    wireframe_over,
)
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear

CAMERA = Camera.look_at(64, 64, 230.0, (0.0, 0.0, 1.0))


@pytest.fixture(scope="module")
def passes() -> Passes:
    rig = Rig.load("builtin")
    camera = Camera.look_at(96, 96, 260.0, (0.25, 0.05, 0.8), (0.0, 0.0, 0.02))
    return render_passes(Renderer(rig), rig.neutral[None], camera)


def test_a_failed_comparison_leaves_the_actual_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("golden_images.GOLDEN", tmp_path)
    with pytest.raises(AssertionError, match="no such image"):
        assert_golden(torch.zeros(3, 4, 4), "a")
    (tmp_path / "a.actual.png").rename(tmp_path / "a.png")
    assert_golden(torch.zeros(3, 4, 4), "a")
    with pytest.raises(AssertionError, match="another image"):
        assert_golden(torch.full((3, 4, 4), 0.1), "a")
    assert (tmp_path / "a.actual.png").exists()


@pytest.mark.parametrize("name", ["normal", "depth", "uv", "mask", "material"])
def test_golden_images_of_the_head(passes: Passes, name: str) -> None:
    images = {
        "normal": lambda: normal_image(passes),
        "depth": lambda: depth_image(passes),
        "uv": lambda: torch.cat([passes.uv, torch.zeros_like(passes.mask).float()], 1),
        "mask": lambda: passes.mask.float(),
        "material": lambda: (passes.material + 1) / len(MATERIALS),
    }
    assert_golden(images[name]()[0], f"head_{name}")


def test_golden_wireframe_of_a_coarse_sphere() -> None:
    points, faces = uv_sphere(9)
    rig = Rig("sphere", points, faces, torch.zeros(0, len(points), 3), ())
    passes = render_passes(Renderer(rig), points[None], CAMERA)
    assert_golden(wireframe_over(torch.zeros(1, 3, 64, 64), passes)[0], "sphere_wireframe")


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
    passes = render_passes(Renderer(rig), points[None], CAMERA)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    x, y = (columns - 32) / 230.0, (rows - 32) / 230.0
    # Camera +X right and +Y down, looking along -Z of the world.
    directions = torch.stack([x, -y, -torch.ones_like(x)], -1).reshape(-1, 3).double().numpy()
    origins = np.broadcast_to([0.0, 0.0, 1.0], directions.shape)
    expected, hit = cast_rays(np.asarray(ball.triangles), origins, directions)
    mask = passes.mask.flatten().numpy()
    assert (mask == np.isfinite(expected)).mean() > 0.999
    both = mask & np.isfinite(expected)
    np.testing.assert_allclose(passes.depth.flatten().numpy()[both], expected[both], atol=1e-5)
    found = passes.normal.permute(0, 2, 3, 1).reshape(-1, 3).numpy()[both]
    outward = hit[both] / np.linalg.norm(hit[both], axis=1, keepdims=True)
    assert float(np.quantile((found * outward).sum(1), 0.02)) > 0.99
    assert bool(torch.isinf(passes.depth[~passes.mask]).all())
    assert bool((passes.material[~passes.mask] == -1).all())


def test_the_uv_pass_is_the_interpolated_coordinate() -> None:
    corners = torch.tensor([[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [0.1, 0.1, 0.0], [-0.1, 0.1, 0.0]])
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    rig = Rig("card", corners, faces, torch.zeros(0, 4, 3), (), uvs=uvs)
    passes = render_passes(Renderer(rig), corners[None], CAMERA)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    expected = torch.stack([(columns - 32) / 46 + 0.5, 0.5 - (rows - 32) / 46])
    inside = passes.mask[0, 0]
    assert int(inside.sum()) == 46 * 46
    torch.testing.assert_close(passes.uv[0][:, inside], expected[:, inside], atol=1e-4, rtol=0)


def test_wireframe_lines_have_the_width_that_was_asked_for() -> None:
    # One large triangle with an upright edge at x = 20.
    corners = torch.tensor([[20.0, 4.0], [20.0, 60.0], [60.0, 4.0]])
    world = torch.stack([(corners[:, 0] - 32) / 230, -(corners[:, 1] - 32) / 230, torch.zeros(3)], 1)
    rig = Rig("triangle", world, torch.tensor([[0, 1, 2]]), torch.zeros(0, 3, 3), ())
    for width in (1.0, 3.0):
        line = render_passes(Renderer(rig), world[None], CAMERA, width).wireframe[0, 0, 20, 20:30]
        # Half of the line lies inside the triangle.
        assert float(line.sum()) == pytest.approx(width / 2, abs=0.15)
        assert float(line[-1]) == 0
    with pytest.raises(ValueError, match="line_px"):
        render_passes(Renderer(rig), world[None], CAMERA, 0.0)


def test_batches_equal_loops() -> None:
    rig = sphere_rig()
    moved = torch.stack([rig.neutral, rig.neutral * 0.8])
    boxes = torch.tensor([[0.0, 0, 64, 64], [16, 16, 48, 48]])
    both = render_passes(Renderer(rig), moved, CAMERA.crop(boxes, 48))
    for i in range(2):
        one = render_passes(Renderer(rig), moved[i : i + 1], CAMERA.crop(boxes[i], 48))
        for name, value in vars(one).items():
            torch.testing.assert_close(vars(both)[name][i : i + 1], value)


def test_over_its_plate_the_render_shows_the_plate_where_it_covers_nothing() -> None:
    rig = sphere_rig(torch.full((len(sphere_rig().neutral), 3), 0.5))
    plate = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    renderer = Renderer(rig, supersample=4)
    render = renderer(rig.neutral[None], CAMERA)
    found = over_plate(renderer, render, plate)
    empty, full = render.mask[0, 0] == 0, render.mask[0, 0] == 1
    torch.testing.assert_close(found[0][:, empty], plate[0][:, empty], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0][:, full], render.image[0][:, full], atol=1e-5, rtol=0)
    # A plate of the background's own colour changes nothing at the edges either.
    own = torch.tensor(renderer.background)[None, :, None, None].expand_as(plate)
    torch.testing.assert_close(over_plate(renderer, render, own), render.image, atol=1e-5, rtol=0)
    other = replace(renderer, background=(0.8, 0.1, 0.3))
    flat = torch.tensor(other.background)[None, :, None, None].expand_as(plate)
    same = other(rig.neutral[None], CAMERA).image
    torch.testing.assert_close(over_plate(renderer, render, flat), same, atol=1e-4, rtol=0)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(plate)), plate)
    with pytest.raises(ValueError, match="plates"):
        over_plate(renderer, render, plate[..., :32])


def test_regions_by_name() -> None:
    rig = Rig.load("builtin")
    found = material_regions(rig)
    assert rig.face_regions is not None
    by_name = {"skin": SKIN, "lips": SKIN, "brows": SKIN, "hair": HAIR, "eyes": EYES, "teeth": TEETH, "mouth": MOUTH}
    for index, name in enumerate(rig.region_names):
        assert set(found[rig.face_regions == index].tolist()) == {by_name[name]}


def test_regions_by_place_are_those_by_name() -> None:
    rig = Rig.load("builtin")
    named = material_regions(rig)
    nameless = replace(rig, face_regions=torch.zeros_like(named), region_names=("skin",))
    found = material_regions(nameless)
    assert float((found[named == EYES] == EYES).float().mean()) > 0.95
    # A row of teeth in one part with its gums may be either.
    inside = (found == TEETH) | (found == MOUTH)
    assert float(inside[named == TEETH].float().mean()) > 0.95
    assert float((found[named == SKIN] == SKIN).float().mean()) > 0.97


def test_regions_of_an_actor_in_one_mesh(test_data: Path) -> None:
    folder = test_data / "shots" / "ict_stereo"
    rig = Rig.load(folder / "actor.glb", landmarks=folder / "landmarks.json")
    found = material_regions(rig)
    assert rig.uvs is not None and rig.uv_faces is not None
    # The kit's tiles: gums in the third, teeth in the fourth, the face in the first (which the eyes use too).
    tile = rig.uvs[rig.uv_faces].mean(1)[:, 0].floor()
    assert set(found[tile == 2].tolist()) <= {MOUTH, TEETH}
    assert float((found[tile == 3] == TEETH).float().mean()) > 0.95
    assert int((found == EYES).sum()) == 2 * 1536
    assert bool((tile[found == EYES] == 0).all())
    skin = face_skin(rig)
    assert bool((found[skin] == SKIN).all()) and bool((tile[skin] <= 1).all())
    landmark_faces = rig.require_landmarks()[0]
    assert float(skin[landmark_faces[17:60]].float().mean()) > 0.9
