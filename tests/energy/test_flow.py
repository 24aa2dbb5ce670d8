"""The flow energy: rig motion, visibility, Jacobians, the deviation prior."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracle_flow import camera as oracle_camera
from rigs import random_rig
from tiny_shot import tiny_rig

from deepenergy import Camera, Rig
from deepenergy.energy.flow import FlowEnergy, FlowWeight, deep_flow
from deepenergy.energy.prior import Deviation
from deepenergy.energy.surface import SurfacePoints, face_points, face_window, visible_points
from deepenergy.render import Renderer
from deepenergy.scene.rotation import so3_exp
from deepenergy.scene.state import State
from deepenergy.solve import difference_jacobian, minimise

F64 = torch.float64


def lens(name: str = "left", side: float = 0.1) -> Camera:
    """A camera with distortion."""
    view = Camera.look_at(320, 240, 600.0, (side, 0.05, 0.9), name=name)
    return replace(view, distortion=torch.tensor([0.1, -0.05, 0.002, -0.001, 0.01], dtype=F64))


def states(rig: Rig, batch: int = 2, seed: int = 0) -> State:
    g = torch.Generator().manual_seed(seed)
    shapes = len(rig.weight_names)
    return State(
        so3_exp(0.3 * torch.randn(batch, 3, generator=g, dtype=F64)),
        0.02 * torch.randn(batch, 3, generator=g, dtype=F64),
        (0.0 if rig.jaw is None else 0.1) * torch.rand(batch, 6, generator=g, dtype=F64),
        torch.rand(batch, shapes, generator=g, dtype=F64),
    )


def points_of(rig: Rig) -> SurfacePoints:
    return SurfacePoints.of(rig, torch.arange(0, len(rig.neutral), 7))


def flow_energy(rig: Rig, base: State, prior: bool = True, cameras: int = 2) -> FlowEnergy:
    points = SurfacePoints.of(rig, torch.arange(0, len(rig.neutral), 13))
    views = (lens(), lens("right", -0.2))[:cameras]
    g = torch.Generator().manual_seed(5)
    batch = len(base)
    targets = torch.stack([points.pixels(base, v) for v in views], 1)[:, None].repeat(1, 2, 1, 1, 1)
    targets = targets + torch.randn(targets.shape, generator=g, dtype=F64)
    trust = torch.rand(targets.shape[:-1], generator=g, dtype=F64)
    units = 0.5 + torch.rand(batch, cameras, generator=g, dtype=F64)
    hold = Deviation.about(states(rig, batch, 9), rig, 1.0, 2.0, 0.3, 0.4) if prior else None
    return FlowEnergy(points, views, targets, trust, units, base, FlowWeight(), hold)


@pytest.mark.parametrize("jaw", [True, False])
def test_points_are_the_rig_s_vertices(jaw: bool) -> None:
    rig = random_rig(jaw=jaw)
    points, state = points_of(rig), states(rig)
    torch.testing.assert_close(points.world(state), rig.vertices(state)[:, points.indices])
    torch.testing.assert_close(points.pixels(state, lens()), lens().project(rig.vertices(state)[:, points.indices]))


@pytest.mark.parametrize("jaw", [True, False])
def test_derivative_of_the_pixels_is_that_of_finite_differences(jaw: bool) -> None:
    rig = random_rig(jaw=jaw)
    points, state, view = points_of(rig), states(rig), lens()
    pixels, slopes = points.project_with_jacobian(state, view)
    torch.testing.assert_close(pixels, points.pixels(state, view))
    step = torch.zeros(2, 12 + len(rig.weight_names), dtype=F64)
    measured = difference_jacobian(lambda x: points.pixels(state.retract(x), view).flatten(1))(step)[1]
    expected = slopes.flatten(1, 2)
    if not jaw:
        assert float(expected[..., 6:12].abs().max()) == 0
    torch.testing.assert_close(expected, measured, rtol=1e-6, atol=1e-5)


def test_batch_is_the_frames_one_by_one() -> None:
    rig = random_rig()
    points, state = points_of(rig), states(rig, 3)
    pixels, slopes = points.project_with_jacobian(state, lens())
    for i in range(3):
        one = points.project_with_jacobian(state[[i]], lens())
        torch.testing.assert_close(one[0][0], pixels[i])
        torch.testing.assert_close(one[1][0], slopes[i])


def test_points_behind_another_surface_or_turned_away_are_not_visible() -> None:
    # A wall of 21 x 21 vertices facing the camera, a small screen before it, and a wall that is seen along its surface.
    side = torch.linspace(-0.1, 0.1, 21)
    x, y = torch.meshgrid(side, side, indexing="ij")
    wall = torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3)
    corner = (torch.arange(20)[:, None] * 21 + torch.arange(20)).flatten()
    faces = torch.stack([corner, corner + 21, corner + 22, corner, corner + 22, corner + 1], 1).view(-1, 3)
    screen = torch.tensor([[-0.031, -0.031, 0.1], [0.031, -0.031, 0.1], [0.031, 0.031, 0.1], [-0.031, 0.031, 0.1]])
    edge = torch.tensor([[0.15, -0.1, 0.0], [0.16, -0.1, -0.1], [0.16, 0.1, -0.1], [0.15, 0.1, 0.0]])
    quad = torch.tensor([[0, 1, 2], [0, 2, 3]])
    rig = Rig(
        "walls", torch.cat([wall, screen, edge]), torch.cat([faces, quad + 441, quad + 445]),
        torch.zeros(0, 449, 3), (),
    )  # fmt: skip
    view = Camera.look_at(400, 400, 800.0, (0.0, 0.0, 1.0))
    seen = visible_points(rig, rig.neutral[None].double(), view, torch.arange(449))[0]
    shadow = 0.031 / 0.9
    hidden = (wall[:, 0].abs() < shadow) & (wall[:, 1].abs() < shadow)
    assert torch.equal(seen[:441], ~hidden)
    assert seen[441:445].all()
    assert not seen[445:].any()


def test_what_is_outside_of_the_image_is_not_visible() -> None:
    rig = tiny_rig()
    whole = Camera.look_at(400, 400, 1500.0, (0.0, 0.0, 0.8))
    every = torch.arange(len(rig.neutral))
    left = visible_points(
        rig, rig.neutral[None].double(), whole.crop(torch.tensor([0.0, 0, 200, 400]), (200, 400)), every
    )
    places = whole.project(rig.neutral.double())
    assert not left[0][places[:, 0] > 200].any()
    assert left[0][places[:, 0] < 195].any()


def test_face_points_lie_on_the_face_and_are_spread() -> None:
    rig = Rig.load("builtin")
    points = face_points(rig, 150)
    assert len(points) == 150
    marks = rig.landmark_rig()
    ears = marks.landmarks(marks.neutral[None].double())[0]
    assert float(points.neutral[:, 1].min()) >= float(ears[:, 1].min()) - 1e-6
    for eye in (slice(36, 42), slice(42, 48)):
        away = (points.neutral[:, :2] - ears[eye, :2].mean(0)).norm(dim=1)
        assert float(away.min()) > 0.004
    distance = torch.cdist(points.neutral, points.neutral) + torch.eye(150)
    assert float(distance.amin(1).min()) > 0.003
    again = face_points(rig, 150)
    assert torch.equal(points.indices, again.indices)


def test_face_window_is_square_and_holds_the_points() -> None:
    window = face_window(torch.tensor([[[10.0, 20.0], [50.0, 30.0]]]), margin=0.25)
    assert window.tolist() == [0.0, -5.0, 60.0, 55.0]


def test_residual_is_zero_at_the_targets_and_counts_unit_pixels() -> None:
    rig = random_rig()
    base = states(rig, 1)
    energy = flow_energy(rig, base, prior=False, cameras=1)
    exact = torch.stack([energy.points.pixels(base, v) for v in energy.cameras], 1)[:, None].expand_as(energy.targets)
    zero = torch.zeros(1, 18, dtype=F64)
    energy = replace(energy, trust=torch.ones_like(energy.trust), targets=exact)
    assert float(energy(zero)[0].abs().max()) < 1e-9
    beside = replace(energy, targets=exact + torch.tensor([1.0, 0.0]))
    mean_square = energy.flow.weight * float(energy.units[0, 0]) ** 2 * 2
    assert float(beside(zero)[0].square().sum()) == pytest.approx(mean_square)


def test_points_without_trust_do_not_count_whatever_they_are() -> None:
    rig = random_rig()
    base = states(rig, 1)
    energy = flow_energy(rig, base)
    trust, targets = energy.trust.clone(), energy.targets.clone()
    trust[0, 0, 0, 3], targets[0, 0, 0, 3] = 0.0, torch.nan
    with_nan = replace(energy, trust=trust, targets=targets)(torch.zeros(1, 18, dtype=F64))
    targets[0, 0, 0, 3] = 7.0
    without = replace(energy, trust=trust, targets=targets)(torch.zeros(1, 18, dtype=F64))
    for a, b in zip(with_nan, without, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("at", [0.0, 0.1])
def test_jacobian_of_the_energy_is_that_of_finite_differences(at: float) -> None:
    rig = random_rig()
    energy = flow_energy(rig, states(rig))
    g = torch.Generator().manual_seed(3)
    x = at * torch.randn(2, 18, generator=g, dtype=F64)
    measured = difference_jacobian(lambda step: energy(step)[0])(x)[1]
    jacobian = energy(x)[1]
    assert float((jacobian - measured).norm() / measured.norm()) < 1e-7
    torch.testing.assert_close(jacobian, measured, rtol=1e-5, atol=1e-4)


def test_take_is_the_rows_of_the_whole() -> None:
    rig = random_rig()
    energy = flow_energy(rig, states(rig, 3))
    x = 0.05 * torch.randn(3, 18, generator=torch.Generator().manual_seed(1), dtype=F64)
    rows = torch.tensor([2, 0])
    for whole, part in zip(energy(x), energy.take(rows)(x[rows]), strict=True):
        torch.testing.assert_close(whole[rows], part)


def test_minimise_finds_the_state_that_the_flow_leads_to() -> None:
    rig = random_rig()
    start = states(rig, 2)
    g = torch.Generator().manual_seed(2)
    end = start.retract(0.03 * torch.randn(2, 18, generator=g, dtype=F64))
    energy = flow_energy(rig, start, prior=False)
    energy = replace(energy, trust=torch.ones_like(energy.trust))
    free = torch.ones(18, dtype=torch.bool)
    # The jaw's six and the shapes act alike on these few points; the others are unique.
    free[6:12] = False
    end = replace(end, jaw=start.jaw)
    exact = torch.stack([energy.points.pixels(end, v) for v in energy.cameras], 1)[:, None].expand_as(energy.targets)
    # A fifth of the points are led astray.
    lost = torch.rand(exact.shape[:-1], generator=g) < 0.2
    energy = replace(energy, targets=torch.where(lost[..., None], exact + 30.0, exact))
    solution = minimise(energy, torch.zeros(2, 18, dtype=F64), free=free, kernels=energy.kernels(), max_iterations=200)
    found = start.retract(solution.x)
    error = (energy.points.world(found) - energy.points.world(end)).norm(dim=-1)
    assert float(error.max()) < 2e-4, "kernels bound the pull of the lost points"
    plain = minimise(energy, torch.zeros(2, 18, dtype=F64), free=free, max_iterations=200)
    astray = (energy.points.world(start.retract(plain.x)) - energy.points.world(end)).norm(dim=-1)
    assert float(astray.mean()) > 10 * float(error.mean())


def test_deviation_is_zero_at_the_reference_and_has_its_units() -> None:
    rig = random_rig()
    reference = states(rig, 1)
    prior = Deviation.about(reference, rig, controls=4.0, rotation=9.0, translation=0.25)
    units = torch.ones(1, 1, dtype=F64)
    assert float(prior(reference, [lens()], units)[0].abs().max()) < 1e-12
    step = torch.zeros(1, 18, dtype=F64)
    for column, size, cost in ((1, math.radians(1), 9.0), (4, 0.001, 0.25), (13, 1.0, 4.0)):
        moved = step.clone()
        moved[0, column] = size
        residual, _ = prior(reference.retract(moved), [lens()], units)
        assert float(residual.square().sum()) == pytest.approx(cost)


def test_image_part_of_the_deviation_counts_mean_squared_pixels() -> None:
    rig = random_rig()
    reference = states(rig, 1)
    prior = Deviation.about(reference, rig, image=2.0)
    step = torch.zeros(1, 18, dtype=F64)
    step[0, 3] = 0.01
    units = torch.full((1, 1), 0.5, dtype=F64)
    residual, _ = prior(reference.retract(step), [lens()], units)
    moved = prior.marks.pixels(reference.retract(step), lens()) - prior.marks.pixels(reference, lens())
    expected = 2.0 * 0.25 * float(moved.square().sum(-1).mean())
    assert float(residual.square().sum()) == pytest.approx(expected)


def test_deep_flow_is_that_of_finite_differences() -> None:
    rig = tiny_rig(2)
    colour = 0.2 + 0.6 * torch.rand(len(rig.neutral), 3, generator=torch.Generator().manual_seed(0))
    renderer = Renderer(replace(rig, vertex_albedo=colour), supersample=1)
    view = Camera.look_at(48, 48, 150.0, (0.05, 0.02, 0.8))
    first = State.identity(1, 3)
    base = first.retract(torch.tensor([[0.02, -0.03, 0.01, 0.001, 0.0, 0.0, *[0.0] * 6, 0.1, 0.2, 0.1]], dtype=F64))
    mix = torch.tensor([[3.0, -2.0, 1.0], [0.5, 2.0, -4.0]])

    def network(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # Stands for a flow network: smooth in both images, different at every pixel.
        return torch.einsum("ij,bjhw->bihw", mix, torch.tanh(2 * (b - a)))

    free = torch.ones(15, dtype=torch.bool)
    free[6:12] = False
    free[14] = False
    zero = torch.zeros(1, 15, dtype=F64)
    flow, jacobian, at = deep_flow(renderer, network, first, base, zero, view, free, most_points=12)
    assert flow.shape == (len(at), 2) and jacobian.shape == (len(at), 2, 15) and 6 <= len(at) <= 12
    assert float(jacobian[..., ~free].abs().max()) == 0
    for column in torch.nonzero(free)[:, 0].tolist():
        h = 2e-4
        ends = []
        for sign in (1, -1):
            x = zero.clone()
            x[0, column] = sign * h
            ends.append(deep_flow(renderer, network, first, base, x, view, free, most_points=12)[0])
        measured = (ends[0] - ends[1]) / (2 * h)
        # Where the triangle under a pixel changes, or colours are cut at 0, the difference is none of the derivative's.
        off = (jacobian[..., column] - measured).norm(dim=1) / measured.norm(dim=1).clamp_min(1e-2)
        assert float(off.median()) < 0.02, column


def test_deep_flow_of_a_view_without_the_face_is_empty() -> None:
    rig = tiny_rig(2)
    view = replace(oracle_camera(), width=32, height=32).crop(torch.tensor([-500.0, -500, -400, -400]), 32)
    state = State.identity(1, 3)
    zero = torch.zeros(1, 15, dtype=F64)
    everything = torch.ones(15, dtype=torch.bool)
    flow, jacobian, _ = deep_flow(Renderer(rig), lambda a, b: (b - a)[:, :2], state, state, zero, view, everything)
    assert flow.shape == (0, 2) and jacobian.shape == (0, 2, 15)
