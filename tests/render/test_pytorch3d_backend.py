"""PyTorch3D as a renderer: its rasteriser sees what ours see, and a shot is solved to the same answer with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from small_shot import write_files, write_shot
from torch import Tensor
from typer.testing import CliRunner

from deepenergy import Camera, InputError, Plates, Rig, Solver, SolverConfig, State, Track
from deepenergy.commands.cli import app
from deepenergy.render import Fragments, Renderer, rasterize
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.render.operations import Backend
from deepenergy.render.pytorch3d_backend import INSTALL, rasterize_pytorch3d, to_ndc
from deepenergy.scene.rotation import euler_to_matrix, rotation_angle
from deepenergy.settings.schedule import DEFAULT_STAGES
from deepenergy.shot_file import Shot

VIEWS = 20
# A pixel centre this near to a projected edge lies on it as far as float32 coordinates can tell.
ON_EDGE_PX = 1e-3
# PyTorch3D rounds corners to float32 in units of half the shorter side. In triangles lower than this, that is more than
# 1e-4 of the barycentrics: there the same shift of the corners is allowed, and no more.
SLIVER_PX = 0.1


@pytest.fixture
def pytorch3d() -> None:
    pytest.importorskip(
        "pytorch3d._C", reason=f"PyTorch3D is not installed ({INSTALL}; docs/pytorch3d.md)", exc_type=ImportError
    )


@pytest.fixture
def without_pytorch3d(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pytorch3d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorch3d", None)


def random_views(points: Tensor, seed: int = 0) -> Iterator[Camera]:
    """Cameras all around, rolled, near and far, the mesh partly outside of some; landscape, portrait and square."""
    rng = np.random.default_rng(seed)
    centre = points.double().mean(0).numpy()
    radius = float((points.double() - torch.from_numpy(centre)).norm(dim=1).max())
    for view in range(VIEWS):
        width, height = ((96, 72), (72, 96), (84, 84))[view % 3]
        direction = rng.normal(size=3)
        distance = radius * rng.uniform(2, 5)
        eye = centre + direction / np.linalg.norm(direction) * distance
        target = centre + rng.normal(size=3) * radius * 0.15
        focal = 0.5 * min(width, height) * distance / radius * rng.uniform(0.7, 1.6)
        yield Camera.look_at(width, height, focal, tuple(eye), tuple(target), tuple(rng.normal(size=3)))


def mesh_named(name: str, request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    if name == "torus":
        torus = trimesh.creation.torus(0.1, 0.04, major_sections=40, minor_sections=20)
        return torch.tensor(np.asarray(torus.vertices), dtype=torch.float32), torch.tensor(np.asarray(torus.faces))
    if name == "builtin":
        rig = Rig.load("builtin")
    else:
        data: Path = request.getfixturevalue("test_data")
        actor = name == "ict actor"
        path = data / ("shots/ict_stereo/actor.glb" if actor else "rigs/facecap.glb")
        rig = Rig.load(path, landmarks=path.with_name("landmarks.json" if actor else "facecap.landmarks.json"))
    return rig.neutral.float(), rig.faces


def edge_distance(pixels: Tensor, faces: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pixel `[H, W]`: its centre's distance to the outline of its triangle, and that triangle's least height.

    In pixels; infinite on the background.
    """
    height, width = index.shape
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    point = torch.stack([column + 0.5, row + 0.5], -1).double()
    corners = pixels.double()[faces[index.clamp_min(0)]]
    least = torch.full((height, width), torch.inf, dtype=torch.float64)
    longest = torch.zeros(height, width, dtype=torch.float64)
    for k in range(3):
        a, side = corners[..., k, :], corners[..., (k + 1) % 3, :] - corners[..., k, :]
        length = side.square().sum(-1)
        along = (((point - a) * side).sum(-1) / length.clamp_min(1e-30)).clamp(0, 1)
        least = torch.minimum(least, (point - a - along[..., None] * side).norm(dim=-1))
        longest = torch.maximum(longest, length.sqrt())
    b, c = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    heights = (b[..., 0] * c[..., 1] - b[..., 1] * c[..., 0]).abs() / longest
    background = index < 0
    return least.masked_fill(background, torch.inf), heights.masked_fill(background, torch.inf)


def barycentrics_by_solve(pixels: Tensor, depth: Tensor, faces: Tensor, index: Tensor) -> Tensor:
    """Where the ray of every pixel meets its triangle's plane, as weights `[H, W, 3]`: a 3x3 solve, float64."""
    # Points of a camera with focal length 1 and its centre at pixel (0, 0).
    points = torch.cat([pixels.double() * depth.double()[:, None], depth.double()[:, None]], 1)
    height, width = index.shape
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ray = torch.stack([column + 0.5, row + 0.5, torch.ones(height, width)], -1).double()
    weights = torch.linalg.solve(points[faces[index.clamp_min(0)]].transpose(-1, -2), ray)
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.usefixtures("pytorch3d")
@pytest.mark.parametrize(
    "name",
    [
        "torus",
        pytest.param("builtin", marks=pytest.mark.slow),
        pytest.param("facecap", marks=pytest.mark.slow),
        pytest.param("ict actor", marks=pytest.mark.slow),
    ],
)
def test_twenty_random_views_are_seen_alike(name: str, request: pytest.FixtureRequest) -> None:
    points, faces = mesh_named(name, request)
    pixels_seen = on_edge = covered = 0
    differing = {"numba": 0, "torch": 0}
    for camera in random_views(points):
        in_camera = camera.camera_points(points[None])
        pixels, depth, size = camera.pixels(in_camera), in_camera[..., 2], (camera.width, camera.height)
        theirs = rasterize(pixels, depth, faces, size, backend="pytorch3d")
        their_index = theirs.face_index[0]
        their_edge, _ = edge_distance(pixels[0], faces, their_index)
        pixels_seen += their_index.numel()
        covered += int((their_index >= 0).sum())
        for backend in ("numba", "torch"):
            ours = rasterize(pixels, depth, faces, size, backend=backend)
            index = ours.face_index[0]
            edge, height = edge_distance(pixels[0], faces, index)
            edge = torch.minimum(edge, their_edge)
            differs = index != their_index
            assert float(edge[differs].max() if differs.any() else 0) < ON_EDGE_PX
            differing[backend] += int(differs.sum())
            on_edge += int((edge < ON_EDGE_PX).sum()) if backend == "numba" else 0

            same = (~differs & (index >= 0)).nonzero(as_tuple=True)
            apart = (ours.barycentrics - theirs.barycentrics)[0][same].abs().amax(-1)
            assert bool((apart <= 1e-4 * (SLIVER_PX / height[same]).clamp_min(1)).all())
            assert float((ours.depth - theirs.depth)[0][same].abs().max()) < 1e-4
            # Which of the two is off in slivers: not ours.
            exact = barycentrics_by_solve(pixels[0], depth[0], faces, index)[same]
            torch.testing.assert_close(ours.barycentrics[0][same].double(), exact, atol=1e-6, rtol=0)
    assert covered > 0.15 * pixels_seen
    # The exception is as rare as pixel centres in strips of 2e-3 px along the edges are.
    assert on_edge < 0.01 * pixels_seen
    for count in differing.values():
        assert count <= 1e-4 * pixels_seen


@pytest.mark.usefixtures("pytorch3d")
def test_triangles_that_cross_the_near_plane_are_clipped() -> None:
    """Against rays met with planes in float64: random triangles, most of them partly behind the camera."""
    generator = torch.Generator().manual_seed(0)
    camera = Camera(40, 30, torch.tensor([30.0, 30, 20, 15]), torch.eye(4), torch.zeros(5))
    face = torch.tensor([[0, 1, 2]])
    seen = wrong = crossing = 0
    for number in range(100):
        near = (1e-3, 0.1)[number % 2]
        triangle = torch.randn(3, 3, generator=generator) * torch.tensor([0.5, 0.4, 1]) + torch.tensor([0, 0, 0.5])
        crossing += int(0 < int((triangle[:, 2] < near).sum()) < 3)
        pixels = camera.pixels(triangle)
        found = rasterize_pytorch3d(pixels[None], triangle[None, :, 2], face, (40, 30), near)
        exact = barycentrics_by_solve(pixels, triangle[:, 2], face, torch.zeros(30, 40, dtype=torch.int64))
        depth = (exact * triangle[:, 2].double()).sum(-1)
        expected = (exact > 0).all(-1) & (depth > near)
        got = found.face_index[0] == 0
        wrong += int((got != expected).sum())
        seen += int(expected.sum())
        both = got & expected
        torch.testing.assert_close(found.barycentrics[0][both].double(), exact[both], atol=2e-3, rtol=0)
        torch.testing.assert_close(found.depth[0][both].double(), depth[both], atol=2e-3, rtol=0)
    assert crossing > 40 and seen > 5000
    assert wrong <= 1e-4 * seen


@pytest.mark.usefixtures("pytorch3d")
def test_broken_and_hidden_triangles_are_left_out() -> None:
    corners = torch.tensor([[[2.0, 1], [14, 2], [5, 13], [9, 9]]])
    faces = torch.tensor([[0, 3, 1], [0, 1, 2], [3, 3, 1]])
    whole = rasterize_pytorch3d(corners, torch.ones(1, 4), faces[1:], (16, 12))
    for value in (torch.nan, torch.inf):
        broken = corners.clone()
        broken[0, 3, 0] = value
        found = rasterize_pytorch3d(broken, torch.ones(1, 4), faces, (16, 12))
        # Of the whole triangle's indices, one more than without the first.
        assert torch.equal(found.face_index, torch.where(whole.face_index >= 0, 1, -1))
        assert bool(torch.isfinite(found.depth).all() and torch.isfinite(found.barycentrics).all())
    for depth in (torch.full((1, 4), -1.0), torch.full((1, 4), 1e-4)):
        empty = rasterize_pytorch3d(corners, depth, faces, (16, 12))
        assert int(empty.face_index.max()) == -1 and not empty.depth.any() and not empty.barycentrics.any()
    none = rasterize_pytorch3d(corners, torch.ones(1, 4), faces[:0], (16, 12))
    assert int(none.face_index.max()) == -1


@pytest.mark.usefixtures("pytorch3d")
def test_batched_equals_looped() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels, depth = torch.rand(3, 30, 2, generator=generator) * 24, torch.rand(3, 30, generator=generator) + 0.5
    depth[2] = -1
    faces = torch.arange(30).view(10, 3)
    both = rasterize_pytorch3d(pixels, depth, faces, (24, 20))
    assert tuple(both.face_index.shape) == (3, 20, 24) and both.face_index.dtype == torch.int64
    for i in range(3):
        alone = rasterize_pytorch3d(pixels[i : i + 1], depth[i : i + 1], faces, (24, 20))
        for name in Fragments.__dataclass_fields__:
            assert torch.equal(getattr(both, name)[i], getattr(alone, name)[0])
    assert int(both.face_index[:2].max()) > 0 and int(both.face_index[2].max()) == -1


@pytest.mark.usefixtures("pytorch3d")
@pytest.mark.slow
def test_a_shot_is_solved_to_the_same_answer() -> None:
    rig = front_half(Rig.load("builtin"))
    truth = State.identity(2, len(rig.weight_names))
    turn = euler_to_matrix(torch.tensor([[0.05, 0.3, -0.04], [0.0, -0.2, 0.03]], dtype=torch.float64))
    weights = truth.weights.clone()
    weights[:, rig.weight_names.index("mouthSmileLeft")] = 0.6
    truth = replace(truth, rotation=turn, weights=weights)
    face = rig.landmarks(rig.neutral[None])[0].mean(0).tolist()
    camera = Camera.look_at(240, 200, 450.0, (face[0], face[1] + 0.04, face[2] + 0.85), tuple(face))
    state = State(truth.rotation.float(), truth.translation.float(), truth.jaw.float(), truth.weights.float())
    with torch.no_grad():
        images = Renderer(rig, ambient_occlusion(rig))(rig.vertices(state), camera).image
    plates = Plates.from_array(images)

    # Every stage once; PyTorch3D takes seconds a render.
    stages = tuple(replace(stage, renders=min(stage.renders, 1), readings=1) for stage in DEFAULT_STAGES)

    def solved(given: Plates, count: int, renderer: Backend = "auto") -> Track:
        config = SolverConfig(supersample=1, readings=1, stages=stages[:count])
        track = Solver(config, renderer=renderer).fit_sequence(given, rig, camera)
        assert track.status.tolist() == ["solved"] * 2
        return track

    def apart(first: Track, second: Track) -> list[float]:
        angle = rotation_angle(torch.from_numpy(first.rotation), torch.from_numpy(second.rotation))
        ways = [first.translation - second.translation, first.jaw - second.jaw]
        mean = np.abs(first.weights - second.weights).mean()
        return [float(angle.max()), *(float(np.abs(way).max()) for way in ways), float(mean)]

    ours, theirs = solved(plates, 1), solved(plates, 1, "pytorch3d")
    assert max(apart(ours, theirs)) < 1e-4
    # With one render a stage the later ones have not converged, and a millionth of noise in the plates moves their
    # answers by more than a backend may.
    ours, theirs = solved(plates, len(stages)), solved(plates, len(stages), "pytorch3d")
    generator = torch.Generator().manual_seed(0)
    noise = [1e-6 * torch.randn(images.shape, generator=generator) for _ in range(6)]
    spread = [apart(ours, solved(Plates.from_array((images + part).clamp(0, 1)), len(stages))) for part in noise]
    for found, most, least in zip(apart(ours, theirs), map(max, *spread), (1e-3, 5e-4, 4e-3, 5e-3), strict=True):
        assert found < max(1.5 * most, least)
    assert max(map(max, *spread)) < 0.1
    assert np.abs(ours.weights).max() > 0.1


def front_half(rig: Rig) -> Rig:
    """The rig without the triangles behind its ears."""
    centre = rig.neutral[rig.faces].mean(1)[:, 2]
    kept = (centre > centre.median()) | torch.isin(torch.arange(len(rig.faces)), rig.require_landmarks()[0])
    position = kept.cumsum(0) - 1
    return replace(
        rig,
        faces=rig.faces[kept],
        uv_faces=None if rig.uv_faces is None else rig.uv_faces[kept],
        landmark_faces=position[rig.require_landmarks()[0]],
    )


# -- where it is not installed --------------------------------------------------------------------------------------


def test_device_coordinates() -> None:
    """By the package's own notes: +X left, +Y up, the shorter side from -1 to 1."""
    corners = torch.tensor([[0.0, 0], [128, 64], [64, 32], [96.5, 0.5]])
    expected = torch.tensor([[2, 1], [-2, -1], [0, 0], [-32.5 / 32, 31.5 / 32]])
    torch.testing.assert_close(to_ndc(corners, (128, 64)), expected)
    torch.testing.assert_close(to_ndc(corners.flip(1), (64, 128)), expected.flip(1))


@pytest.mark.usefixtures("without_pytorch3d")
def test_the_absent_package_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="renderer: found no package pytorch3d; expected .*; pip install .*pytorch3d"):
        Solver(renderer="pytorch3d")
    with pytest.raises(InputError, match="no package pytorch3d"):
        Solver(SolverConfig(renderer="pytorch3d"))
    with pytest.raises(InputError, match="no package pytorch3d"):
        rasterize(torch.zeros(1, 3, 2), torch.ones(1, 3), torch.tensor([[0, 1, 2]]), (4, 4), backend="pytorch3d")
    write_files(tmp_path)
    result = CliRunner().invoke(app, ["solve", str(write_shot(tmp_path)), "--renderer", "pytorch3d"])
    (line,) = result.stderr.split("\n")[1:-1]
    assert result.exit_code == 2 and line.startswith("error: renderer: found no package pytorch3d")


def test_a_package_that_does_not_load(without_pytorch3d: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "pytorch3d")
    folder = tmp_path / "pytorch3d" / "renderer" / "mesh"
    folder.mkdir(parents=True)
    module = folder / "rasterize_meshes.py"
    for package in (tmp_path / "pytorch3d", folder.parent, folder):
        (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for line, told in (
        ("raise ImportError('_C.so: undefined symbol:\\n _ZN3c10')", "undefined symbol: _ZN3c10.*build it again"),
        ("import package_that_is_absent", "package_that_is_absent.*install that too"),
    ):
        module.write_text(line)
        with pytest.raises(InputError, match=told):
            Solver(renderer="pytorch3d")
    for name in [name for name in sys.modules if name.startswith("pytorch3d")]:
        del sys.modules[name]


@pytest.mark.parametrize("message", ["Not compiled with GPU support", "another failure"])
def test_a_build_without_cuda(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(
        "deepenergy.render.pytorch3d_backend.load_pytorch3d", lambda: (kernel, lambda verts, faces: None)
    )
    expected = InputError if "GPU" in message else RuntimeError
    with pytest.raises(expected, match="built without CUDA.*'torch'" if "GPU" in message else message):
        rasterize_pytorch3d(torch.rand(1, 3, 2) * 4, torch.ones(1, 3), torch.tensor([[0, 1, 2]]), (4, 4))


def test_the_renderer_is_chosen_by_name(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert SolverConfig().renderer == "auto"
    assert Solver(SolverConfig(renderer="torch")).config.renderer == "torch"
    assert Solver(SolverConfig(renderer="torch"), renderer="numba").config.renderer == "numba"
    shot = write_shot(tmp_path, rest='[solver]\nrenderer = "pytorch3d"')
    assert Shot.load(shot).solver_config().renderer == "pytorch3d"
    with pytest.raises(InputError, match=r"solver.renderer: found opengl; expected one of auto, numba, torch, pytorch"):
        SolverConfig(renderer="opengl")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"solver.renderer: found numba; expected 'torch' on device 'cuda'"):
        SolverConfig(renderer="numba", device="cuda")
    with pytest.raises(InputError, match=r"shot.solver.renderer: found 'opengl'; expected .*'pytorch3d'"):
        Shot.load(write_shot(tmp_path, rest='[solver]\nrenderer = "opengl"')).solver_config()
    result = CliRunner().invoke(app, ["solve", str(write_shot(tmp_path)), "--renderer", "opengl"])
    assert result.exit_code == 2 and "solver.renderer" in result.stderr


def test_the_solver_renders_with_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name reaches the rasteriser, whether or not the package is there to serve it."""
    asked: list[str] = []

    class Stop(Exception):
        pass

    def spy(*_: object, backend: str, **__: object) -> None:
        asked.append(backend)
        raise Stop

    rig = Rig.load("builtin")
    face = rig.landmarks(rig.neutral[None])[0].mean(0).tolist()
    camera = Camera.look_at(240, 200, 450.0, (face[0], face[1], face[2] + 0.85), tuple(face))
    with torch.no_grad():
        image = Renderer(rig)(rig.neutral[None], camera).image[0]
    monkeypatch.setattr("deepenergy.render.renderer.rasterize", spy)
    for name in ("auto", "torch"):
        with pytest.raises(Stop):
            Solver(renderer=name).fit_frame(image, rig, camera)
    assert asked == ["auto", "torch"]
