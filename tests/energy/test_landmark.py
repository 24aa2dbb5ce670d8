"""The landmark energy: values, Jacobian against finite differences, batches, and recovery of a known face."""

from __future__ import annotations

from dataclasses import replace

import torch
from rigs import random_rig

from deepenergy import Camera, Rig, State
from deepenergy.energy import LandmarkEnergy
from deepenergy.fit.free_controls import free_in_stage, limits_of
from deepenergy.scene.rotation import euler_to_matrix, rotation_angle
from deepenergy.settings.schedule import DEFAULT_STAGES, LANDMARK_SETS, Stage
from deepenergy.solve import minimise

F64 = torch.float64
CAMERAS = (Camera.look_at(720, 540, 1000.0, (-0.3, 0.1, 1.0)), Camera.look_at(640, 480, 800.0, (0.4, 0.0, 0.9)))


def random_state(rig: Rig, count: int, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=F64)

    jaw = (uniform(count, 6) - 0.3) * torch.tensor([0.3, 0.1, 0.1, 0.005, 0.005, 0.005]).double()
    return State(
        euler_to_matrix((uniform(count, 3) - 0.5) * 0.8),
        (uniform(count, 3) - 0.5) * 0.1,
        jaw if rig.jaw is not None else jaw * 0,
        uniform(count, len(rig.weight_names)) * 0.8,
    )


def energy_of(rig: Rig, base: State, truth: State, cameras: tuple[Camera, ...] = CAMERAS) -> LandmarkEnergy:
    shape = (len(base), len(cameras), 68)
    zeros = torch.zeros(*shape, 2, dtype=F64)
    scale = torch.full(shape[:2], 0.7, dtype=F64)
    blank = LandmarkEnergy(rig, cameras, zeros, torch.ones(shape, dtype=F64), zeros, scale, base)
    return replace(blank, targets=blank.points(truth))


def test_jacobian_against_finite_differences() -> None:
    rig = random_rig()
    energy = replace(
        energy_of(rig, random_state(rig, 2, 0), random_state(rig, 2, 1)), edge_weight=0.5, l2=100.0, rigid_prior=2.0
    )
    x = torch.randn(2, 18, dtype=F64, generator=torch.Generator().manual_seed(2)) * 0.02
    residual, jacobian = energy(x)
    assert jacobian.shape == (2, residual.shape[1], 18)
    for p in range(18):
        step = torch.zeros_like(x)
        step[:, p] = 1e-6
        difference = (energy(x + step)[0] - energy(x - step)[0]) / 2e-6
        torch.testing.assert_close(jacobian[:, :, p], difference, rtol=1e-5, atol=1e-4)


def test_residual_is_the_pixel_distance_in_crop_pixels() -> None:
    rig = random_rig(jaw=False)
    base, truth = random_state(rig, 1, 0), random_state(rig, 1, 1)
    energy = energy_of(rig, base, truth)
    expected = (energy.points(base) - energy.points(truth)) * 0.7
    torch.testing.assert_close(energy(torch.zeros(1, 18, dtype=F64))[0], expected.reshape(1, -1))


def test_offsets_cancel_a_bias_that_plate_and_render_share() -> None:
    rig = random_rig()
    truth = random_state(rig, 2, 1)
    energy = energy_of(rig, truth, truth)
    bias = torch.randn(2, 2, 68, 2, dtype=F64)
    biased = replace(energy, targets=energy.targets + bias)
    exact = biased.with_offsets(truth, biased.points(truth) + bias)
    assert float(exact(torch.zeros(2, 18, dtype=F64))[0].abs().max()) < 1e-9


def test_a_landmark_of_weight_zero_does_not_count_even_when_nan() -> None:
    rig = random_rig()
    energy = energy_of(rig, random_state(rig, 1, 0), random_state(rig, 1, 1))
    targets, weights = energy.targets.clone(), energy.weights.clone()
    targets[0, 0, 5], weights[0, 0, 5] = torch.nan, 0.0
    residual, jacobian = replace(energy, targets=targets, weights=weights)(torch.zeros(1, 18, dtype=F64))
    assert bool(torch.isfinite(residual).all() and torch.isfinite(jacobian).all())
    assert float(residual[0, 10:12].abs().max()) == 0 and float(jacobian[0, 10:12].abs().max()) == 0


def test_batched_equals_looped() -> None:
    rig = random_rig()
    base, truth = random_state(rig, 3, 0), random_state(rig, 3, 1)
    x = torch.randn(3, 18, dtype=F64, generator=torch.Generator().manual_seed(2)) * 0.02
    residual, jacobian = energy_of(rig, base, truth)(x)
    for i in range(3):
        one = energy_of(rig, base[[i]], truth[[i]])(x[i : i + 1])
        torch.testing.assert_close(residual[i], one[0][0])
        torch.testing.assert_close(jacobian[i], one[1][0])


def test_exact_landmarks_give_the_face_back() -> None:
    rig = random_rig()
    base, truth = State.identity(5, 6), random_state(rig, 5, 7)
    energy = energy_of(rig, base, truth)
    lower, upper = limits_of(rig)
    room = torch.full((6,), torch.inf, dtype=F64)
    truth = replace(truth, jaw=truth.jaw.clamp(lower[:6], upper[:6]))
    energy = replace(energy, targets=energy.points(truth))
    solution = minimise(
        energy, torch.zeros(5, 18, dtype=F64), torch.cat([-room, lower]), torch.cat([room, upper]), max_iterations=100,
        cost_tolerance=0.0,
    )  # fmt: skip
    found = base.retract(solution.x)
    assert float(rotation_angle(found.rotation, truth.rotation).max()) < 1e-4
    assert float((found.translation - truth.translation).norm(dim=1).max()) < 1e-4
    assert float((found.weights - truth.weights).abs().max()) < 1e-3
    assert float((found.jaw - truth.jaw).abs().max()) < 1e-3


def test_l2_shrinks_the_controls() -> None:
    rig = random_rig(jaw=False)
    base, truth = State.identity(1, 6), random_state(rig, 1, 7)
    limit = torch.full((18,), torch.inf, dtype=F64)
    norms = []
    for l2 in (0.0, 100.0, 10_000.0):
        energy = replace(energy_of(rig, base, truth), l2=l2)
        norms.append(
            float(minimise(energy, torch.zeros(1, 18, dtype=F64), -limit, limit, max_iterations=50).x[:, 12:].norm())
        )
    assert norms[0] > norms[1] > norms[2]


def test_default_stages_are_those_of_the_paper_in_order() -> None:
    names = [stage.name for stage in DEFAULT_STAGES]
    assert (
        names.index("rigid, non-jaw")
        < names.index("rigid, jaw only")
        < names.index("rigid, all")
        < names.index("jaw open")
    )
    first = DEFAULT_STAGES[0]
    assert first.translation and not first.rotation and not first.groups
    assert float(first.weights()[LANDMARK_SETS["jaw"]].sum()) == 0


def test_free_parameters_of_a_stage() -> None:
    rig = random_rig()
    stage = Stage("test", True, False, ("jaw_open", "mouth"), {"jaw": 1.0})
    free = free_in_stage(rig, stage)
    assert free.tolist() == [False] * 3 + [True] * 3 + [True] + [False] * 5 + [True, True, True, False, False, False]
    assert not bool(free_in_stage(random_rig(jaw=False), stage)[6:12].any())
