"""The paper's chain: points as the solver's, the Jacobian against finite differences, reverse mode and torch's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_shot import tiny_camera, tiny_rig
from torch import Tensor, nn
from torch.func import jvp, vmap

from deepenergy import Camera, Rig, State
from deepenergy.energy.deep_jacobian import deep_landmarks, heatmap_landmarks
from deepenergy.energy.network_tangents import network_tangents
from deepenergy.fit.render_landmarks import RenderReader
from deepenergy.landmarks.compact import Compact
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.landmarks.soft_argmax import local_soft_argmax
from deepenergy.render import Renderer
from deepenergy.runtime.errors import InputError
from deepenergy.scene.rotation import euler_to_matrix
from deepenergy.scene.window import heatmap_to_plate

# torch's first forward-mode call loads decompositions that use its own deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
F64 = torch.float64


class SmallNetwork(Compact):
    """Smooth, cheap and random, every landmark about a place of its own: no heatmap is flat or peaks at its border."""

    name = "small"

    def __init__(self) -> None:
        torch.manual_seed(0)
        last = nn.Conv2d(8, 68, 5, padding=2)
        self.network = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 8, 5, padding=2), nn.Softplus(), last)
        self.network.requires_grad_(False)
        last.weight *= 8
        centres = 12 + 40 * torch.rand(68, 2, 1, 1)
        grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"))
        self.places = -0.01 * (grid - centres).square().sum(1)[None]

    def __call__(self, crops: Tensor) -> Tensor:
        return self.network(crops) + self.places


class FrozenNetwork(SmallNetwork):
    """One that keeps its derivatives to itself."""

    def __call__(self, crops: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(crops)


class ForeignNetwork(SmallNetwork):
    """One that leaves torch."""

    def __call__(self, crops: Tensor) -> Tensor:
        return torch.from_numpy(self.network(crops).numpy())


def smooth(rig: Rig) -> Rig:
    """With a smooth pattern to see, and a jaw and blendshapes that do not fold the surface."""
    x = rig.neutral * 60
    waves = [0.004 * torch.sin(x.roll(k, 1) * 0.5 + k) for k in range(len(rig.weight_names))]
    assert rig.jaw is not None
    return replace(
        rig,
        vertex_albedo=0.35 + 0.2 * torch.sin(x + x.roll(1, 1)),
        blendshapes=torch.stack(waves),
        jaw=replace(rig.jaw, skin_weights=torch.sigmoid(-x[:, 1])),
    )


@pytest.fixture(scope="module")
def ball() -> Renderer:
    return Renderer(smooth(tiny_rig(4)), supersample=1)


def states(rig: Rig, count: int) -> tuple[State, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = len(rig.weight_names)
    base = replace(
        State.identity(count, shapes),
        rotation=euler_to_matrix((torch.rand(count, 3, generator=generator, dtype=F64) - 0.5) * 0.4),
        weights=0.3 * torch.rand(count, shapes, generator=generator, dtype=F64),
    )
    step = 0.02 * torch.randn(count, 12 + shapes, generator=generator, dtype=F64)
    step[:, 3:6] *= 0.2
    step[:, 9:12] *= 0.1
    return base, step


CAMERAS = (tiny_camera("left"), Camera.look_at(96, 80, 280.0, (-0.2, 0.0, 0.7), name="right"))


def windows(count: int, half: float = 34.0) -> Tensor:
    """The whole ball for `half` = 34; its inside, without a silhouette, for 12. Plate pixels."""
    centre = torch.tensor([48.0, 40.0], dtype=F64)
    return torch.cat([centre - half, centre + half]).expand(count, len(CAMERAS), 4).clone()


def test_points_are_those_of_the_solver(ball: Renderer) -> None:
    base, step = states(ball.rig, 2)
    crops = windows(2)
    free = torch.ones(step.shape[1], dtype=torch.bool)
    points, jacobian = deep_landmarks(ball, SmallNetwork(), base, step, CAMERAS, crops, free)
    expected = RenderReader(ball, SmallNetwork(), tuple(CAMERAS), crops).landmarks(base.retract(step))
    assert points.shape == (2, 2, 68, 2)
    assert points.dtype == jacobian.dtype == F64
    assert jacobian.shape == (2, 2, 68, 2, step.shape[1])
    assert not points.requires_grad and not jacobian.requires_grad
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-3)
    assert bool((jacobian.square().sum((0, 1, 2, 3)) > 0).all())


@pytest.mark.parametrize("resample", [False, True])
def test_forward_is_reverse(ball: Renderer, resample: bool) -> None:
    base, step = states(ball.rig, 1)
    free = torch.ones(step.shape[1], dtype=torch.bool)
    given = (ball, SmallNetwork(), base, step, CAMERAS[:1], windows(1)[:, :1], free)
    points, forward = deep_landmarks(*given, mode="forward", resample=resample)
    same, reverse = deep_landmarks(*given, mode="reverse", resample=resample)
    assert torch.equal(points, same)
    assert float((forward - reverse).norm()) < 1e-4 * float(forward.norm())


def test_against_finite_differences(ball: Renderer) -> None:
    """Where nothing jumps: the inside of a surface, a smooth network, landmarks whose highest pixel stays.

    Central differences over which the image changes by a thousandth on average: less is lost in the render's float32,
    and more in the edges between triangles, where colours have kinks.
    """
    base, step = states(ball.rig, 1)
    crops, network = windows(1, 12.0)[:, :1], SmallNetwork()
    free = torch.ones(step.shape[1], dtype=torch.bool)
    points, jacobian = deep_landmarks(ball, network, base, step, CAMERAS[:1], crops, free)

    def read(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vertices = ball.rig.vertices(base.retract(at)).float()
        image = ball(vertices, CAMERAS[0].crop(crops[0], 256)).image
        heatmaps = network(image)
        points = heatmap_to_plate(local_soft_argmax(heatmaps.double()), crops[0])[0]
        return points, heatmaps.flatten(2).argmax(-1)[0], image

    here, _, image = read(step)
    torch.testing.assert_close(points[0, 0], here, rtol=0, atol=1e-3)
    for p in range(step.shape[1]):
        one = torch.nn.functional.one_hot(torch.tensor(p), step.shape[1])
        reach = 1e-4 * 5e-4 / float((read(step + 1e-4 * one)[2] - image).abs().mean())
        (plus, peak_plus, _), (minus, peak_minus, _) = (read(step + sign * reach * one) for sign in (1, -1))
        steady = peak_plus == peak_minus
        assert float(steady.double().mean()) > 0.8
        difference = ((plus - minus) / (2 * reach))[steady]
        off = (jacobian[0, 0, ..., p][steady] - difference).norm() / difference.norm()
        assert float(off) < 0.06, (p, float(off))


def test_columns_that_are_not_free_are_zero_and_change_nothing(ball: Renderer) -> None:
    base, step = states(ball.rig, 1)
    cameras, crops, network = CAMERAS[:1], windows(1)[:, :1], SmallNetwork()
    free = torch.ones(step.shape[1], dtype=torch.bool)
    points, full = deep_landmarks(ball, network, base, step, cameras, crops, free)
    free[[0, 4, 7, 13]] = False
    for mode in ("forward", "reverse"):
        same, some = deep_landmarks(ball, network, base, step, cameras, crops, free, mode=mode)  # pyright: ignore
        assert torch.equal(points, same)
        assert float(some[..., ~free].abs().max()) == 0
        torch.testing.assert_close(some[..., free], full[..., free], rtol=1e-3, atol=1e-4 * float(full.abs().max()))
    none = torch.zeros_like(free)
    with torch.no_grad():
        same, nothing = deep_landmarks(ball, network, base, step, cameras, crops, none)
        without, _ = deep_landmarks(ball, network, base, step, cameras, crops, free)
    assert torch.equal(points, without)
    assert torch.equal(points, same)
    assert float(nothing.abs().max()) == 0


def test_batched_equals_looped_whatever_the_memory(ball: Renderer) -> None:
    base, step = states(ball.rig, 2)
    crops, network = windows(2), SmallNetwork()
    free = torch.ones(step.shape[1], dtype=torch.bool)
    points, jacobian = deep_landmarks(ball, network, base, step, CAMERAS, crops, free)
    for b in range(2):
        one = deep_landmarks(
            ball, network, base[[b]], step[[b]], CAMERAS, crops[[b]], free, memory_mb=1e-3
        )  # fmt: skip
        torch.testing.assert_close(points[[b]], one[0])
        assert float((jacobian[[b]] - one[1]).norm()) < 1e-4 * float(jacobian[b].norm())


def test_a_view_without_a_window(ball: Renderer) -> None:
    base, step = states(ball.rig, 2)
    crops, network = windows(2), SmallNetwork()
    free = torch.zeros(step.shape[1], dtype=torch.bool)
    free[3:6] = True
    whole = deep_landmarks(ball, network, base, step, CAMERAS, crops, free)
    crops[0, 1] = torch.nan
    crops[1] = torch.nan
    points, jacobian = deep_landmarks(ball, network, base, step, CAMERAS, crops, free)
    assert torch.equal(points[0, 0], whole[0][0, 0]) and torch.equal(jacobian[0, 0], whole[1][0, 0])
    for b, c in ((0, 1), (1, 0), (1, 1)):
        assert bool(torch.isnan(points[b, c]).all())
        assert float(jacobian[b, c].abs().max()) == 0


def test_crop_and_resize_of_the_full_frame_is_the_render_in_the_window(ball: Renderer) -> None:
    """The same to rounding when nothing has to be interpolated, and the same face when it has."""
    base, step = states(ball.rig, 1)
    free = torch.zeros(step.shape[1], dtype=torch.bool)
    free[:6] = True
    camera = CAMERAS[0].crop(torch.tensor([8.0, 0.0, 88.0, 80.0]), 256)
    for box, tolerance in ((torch.tensor([0.0, 0, 256, 256]), 1e-4), (torch.tensor([9.5, 12.25, 247.5, 250.25]), 0.4)):
        given = (ball, SmallNetwork(), base, step, [camera], box.double()[None, None], free)
        straight, resampled = (deep_landmarks(*given, resample=r) for r in (False, True))
        near = ((straight[0] - resampled[0]).abs() < 1).all(-1)
        assert float(near.double().mean()) > 0.9
        difference = (straight[1] - resampled[1])[near]
        assert float(difference.norm()) < tolerance * float(straight[1].norm())


@pytest.mark.parametrize("network", [FrozenNetwork(), ForeignNetwork()])
def test_a_network_without_derivatives(ball: Renderer, network: HeatmapNetwork) -> None:
    base, step = states(ball.rig, 1)
    free = torch.ones(step.shape[1], dtype=torch.bool)
    with pytest.raises(InputError, match="landmark network 'small': found .*'geometric'"):
        deep_landmarks(ball, network, base, step, CAMERAS, windows(1), free)


def test_bad_arguments(ball: Renderer) -> None:
    base, step = states(ball.rig, 1)
    free = torch.ones(step.shape[1], dtype=torch.bool)
    network, crops = SmallNetwork(), windows(1)
    with pytest.raises(InputError, match="jacobian mode: found 'backward'"):
        deep_landmarks(ball, network, base, step, CAMERAS, crops, free, mode="backward")  # pyright: ignore
    with pytest.raises(InputError, match="memory_mb: found 0"):
        deep_landmarks(ball, network, base, step, CAMERAS, crops, free, memory_mb=0)
    for changed in ({"step": step[:, :-1]}, {"windows": crops[:, :1]}, {"free": free[:-1]}):
        given = {"step": step, "windows": crops, "free": free, **changed}
        with pytest.raises(InputError, match=f"deep jacobian {next(iter(changed))}: found shape"):
            deep_landmarks(ball, network, base, given["step"], CAMERAS, given["windows"], given["free"])


# -- the network's part ------------------------------------------------------------------------------------------


def test_compact_in_double_against_finite_differences_and_jvp() -> None:
    """In float64, with a step so small that no unit flips; torch's own forward mode agrees to rounding."""
    network = Compact()
    network.network.double()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 256, 256, generator=generator, dtype=F64)
    tangents = torch.randn(2, 3, 256, 256, generator=generator, dtype=F64)
    points, slopes = heatmap_landmarks(network, image, tangents)
    heatmaps, moved = network_tangents(network, image, tangents)
    torch.testing.assert_close(heatmaps, network(image), rtol=1e-10, atol=1e-12)
    expected = jvp(network, (image,), (tangents[:1],))[1]
    torch.testing.assert_close(moved[:1], expected, rtol=1e-8, atol=1e-10)
    for tangent, slope in zip(tangents, slopes, strict=True):
        reach = 1e-7
        ends = [local_soft_argmax(network(image + sign * reach * tangent))[0] for sign in (1, -1)]
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * reach), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(points, local_soft_argmax(network(image))[0])


class _Layers(nn.Module):
    """Every layer that has a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 1, groups=2)
        self.norm, self.bare = nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.a(x * 2 - 0.5)))
        y = nn.functional.relu(self.bare(self.b(y) + 0.3), inplace=True)
        z = nn.functional.interpolate(nn.functional.avg_pool2d(y, 2, stride=2), scale_factor=2, mode="bilinear")
        z += y
        z = (torch.cat((z, y), 1) / 3).contiguous()
        z -= 0.1
        return z.relu_() - z[..., :0].sum() if z.shape[0] == 0 else z.relu_()


@pytest.mark.parametrize(
    "make",
    [
        _Layers,
        # Layers without a rule go to torch's own forward mode.
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid()),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.MaxPool2d(2)),
    ],
)
def test_tangent_batch_against_torch(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    module = make().double().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    image, tangents = torch.randn(1, 3, 16, 16, dtype=F64), torch.randn(5, 3, 16, 16, dtype=F64)
    with torch.no_grad():
        value, slopes = network_tangents(module, image, tangents)
        expected = vmap(lambda d: jvp(module, (image,), (d[None],))[1][0])(tangents)
        torch.testing.assert_close(value, module(image))
    torch.testing.assert_close(slopes, expected)


def test_a_constant_tensor_in_the_network_is_not_taken_for_a_tangent() -> None:
    shift = torch.randn(1, 3, 8, 8, dtype=F64)
    image, tangents = torch.randn(1, 3, 8, 8, dtype=F64), torch.randn(2, 3, 8, 8, dtype=F64)
    value, slopes = network_tangents(lambda x: x + shift, image, tangents)
    assert torch.equal(value, image + shift) and torch.equal(slopes, tangents)
    _, slopes = network_tangents(lambda x: torch.cat([x, shift.expand(len(x), -1, -1, -1)], 1), image, tangents)
    assert torch.equal(slopes, torch.cat([tangents, torch.zeros_like(tangents)], 1))
    _, slopes = network_tangents(lambda x: x * x, image, tangents)
    torch.testing.assert_close(slopes, 2 * image * tangents)


# -- the networks that are shipped or named -----------------------------------------------------------------------


def test_compact_on_the_built_in_head() -> None:
    """One view: the points are the solver's, and moving the head moves every landmark with it."""
    rig = Rig.load("builtin")
    camera = Camera.look_at(720, 540, 1000.0, (0.0, 0.0, 1.0))
    renderer, network = Renderer(rig, supersample=1), Compact()
    base = State.identity(1, len(rig.weight_names))
    step = torch.zeros(1, 12 + len(rig.weight_names), dtype=F64)
    marks = camera.project(rig.landmarks(rig.vertices(base).float()))[0].double()
    crops = network.crop_boxes(torch.cat([marks.amin(0), marks.amax(0)])[None])[None]
    free = torch.zeros(step.shape[1], dtype=torch.bool)
    free[3:6] = True
    points, jacobian = deep_landmarks(renderer, network, base, step, [camera], crops, free)
    expected = RenderReader(renderer, network, tuple([camera]), crops).landmarks(base)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-3)
    # 1000 pixels a metre to the right, and downwards.
    inner = slice(27, 68)
    # The slope of a local soft-argmax between two jumps is its heatmap's, and not one: it follows within a half.
    assert float(jacobian[0, 0, inner, 0, 3].median()) == pytest.approx(1000, rel=0.5)
    assert float(jacobian[0, 0, inner, 1, 4].median()) == pytest.approx(-1000, rel=0.5)
