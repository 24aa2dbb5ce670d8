"""The photometric energy: features, Jacobian against finite differences, batches, and recovery of a known face."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rigs import random_rig
from scipy.ndimage import gaussian_filter, map_coordinates
from torch.func import jacfwd

from deepenergy import Camera, Plates, Rig, State
from deepenergy.energy.photometric import PhotometricEnergy, look_up, luminance_features
from deepenergy.energy.stack import Stack
from deepenergy.energy.surface import SurfacePoints, world_vjp
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.photometry import Photometry, is_comparable
from deepenergy.render import Renderer
from deepenergy.scene.rotation import euler_to_matrix, rotation_angle, so3_exp
from deepenergy.scene.views import Views
from deepenergy.solve import minimise

F64 = torch.float64
CAMERA = Camera.look_at(640, 480, 1200.0, (0.1, 0.05, 0.9), name="main")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textured(seed: int, count: int = 1, size: int = 64) -> torch.Tensor:
    noise = torch.rand(count, 3, size, size, generator=generator(seed), dtype=F64).numpy()
    return torch.from_numpy(gaussian_filter(noise, (0, 0, 2, 2)) * 3 - 1).clamp(0, 1)


def test_features_of_a_flat_image_are_nothing_and_forget_brightness() -> None:
    assert luminance_features(torch.full((1, 3, 32, 32), 0.4, dtype=F64), 1.0).abs().max() < 1e-9
    image = textured(0)
    plain = luminance_features(image, 1.0)
    torch.testing.assert_close(luminance_features(image + 0.2, 1.0), plain, rtol=1e-6, atol=1e-6)
    # Twice the contrast is nearly the same: the floor under the contrast takes a little.
    assert torch.corrcoef(torch.stack([plain.flatten(), luminance_features(2 * image, 1.0).flatten()]))[0, 1] > 0.99
    assert (luminance_features(2 * image, 1.0) - plain).abs().mean() < 0.25 * plain.abs().mean()


def test_features_as_scipy_filters_them() -> None:
    image = textured(1)
    luma = np.tensordot([0.299, 0.587, 0.114], image[0].numpy(), 1)
    mean = gaussian_filter(luma, 5.0, mode="nearest", truncate=3.0)
    contrast = gaussian_filter((luma - mean) ** 2, 5.0, mode="nearest", truncate=3.0)
    expected = (gaussian_filter(luma, 1.5, mode="nearest", truncate=3.0) - mean) / np.sqrt(contrast + 0.03**2)
    torch.testing.assert_close(luminance_features(image, 1.5)[0], torch.from_numpy(expected), rtol=0, atol=0.02)


def test_lookup_as_scipy_interpolates_and_its_gradient() -> None:
    image = textured(2)[:, 0]
    pixels = 1 + 61 * torch.rand(1, 200, 2, generator=generator(3), dtype=F64)
    value, gradient, inside = look_up(image, pixels)
    expected = map_coordinates(image[0].numpy(), (pixels[0].numpy()[:, ::-1] - 0.5).T, order=1)
    torch.testing.assert_close(value[0], torch.from_numpy(expected))
    assert bool(inside.all())
    for axis in range(2):
        step = torch.zeros(2, dtype=F64)
        step[axis] = 1e-7
        difference = (look_up(image, pixels + step)[0] - look_up(image, pixels - step)[0]) / 2e-7
        torch.testing.assert_close(gradient[..., axis], difference, rtol=1e-5, atol=1e-5)
    outside = look_up(image, torch.tensor([[[-3.0, 5.0], [5.0, 70.0]]], dtype=F64))
    assert not bool(outside[2].any())
    assert float(outside[0].abs().max()) == 0


def states(rig: Rig, count: int, seed: int) -> State:
    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=draw, dtype=F64)

    draw = generator(seed)
    jaw = (uniform(count, 6) - 0.3) * torch.tensor([0.3, 0.1, 0.1, 0.005, 0.005, 0.005]).double()
    return State(
        euler_to_matrix((uniform(count, 3) - 0.5) * 0.4),
        (uniform(count, 3) - 0.5) * 0.02,
        jaw if rig.jaw is not None else jaw * 0,
        uniform(count, len(rig.weight_names)) * 0.5,
    )


def test_pull_back_is_the_transpose_of_the_points_motion() -> None:
    rig = random_rig()
    points = SurfacePoints.of(rig, torch.arange(20))
    state = states(rig, 1, 0)
    step = 0.1 * torch.randn(1, 12 + len(rig.weight_names), generator=generator(1), dtype=F64)
    force = torch.randn(1, 20, 3, generator=generator(2), dtype=F64)
    moved = jacfwd(lambda x: points.world(state.retract(x[None]))[0])(step[0])
    expected = torch.einsum("mc,mcp->mp", force[0], moved)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(world_vjp(points, state.retract(step), step[:, :3], force)[0], expected)


def random_energy(count: int = 3) -> PhotometricEnergy:
    rig = random_rig()
    points = SurfacePoints.of(rig, torch.arange(30))
    state = states(rig, count, 5)
    pixels = CAMERA.project(points.world(state))
    centre, half = pixels.mean(1), float((pixels - pixels.mean(1, keepdim=True)).abs().max()) * 1.2
    crops = torch.cat([centre - half, centre + half], 1)[:, None]
    # A plane wave: smooth enough that its bilinear derivative is that of finite differences away from pixel borders.
    plates = textured(6, count)[:, :1]
    reference = torch.rand(count, 1, 30, generator=generator(7), dtype=F64)
    weights = torch.rand(count, 1, 30, generator=generator(8), dtype=F64)
    weights[:, :, ::7] = 0
    return PhotometricEnergy(points, (CAMERA,), crops, plates, reference, weights, state)


def test_jacobian_against_finite_differences() -> None:
    energy = random_energy()
    count = 12 + energy.base.weights.shape[1]
    x = 0.01 * torch.randn(3, count, generator=generator(9), dtype=F64)
    jacobian = energy(x)[1]
    wrong = 0
    for p in range(count):
        step = torch.zeros_like(x)
        step[:, p] = 1e-8
        difference = (energy(x + step)[0] - energy(x - step)[0]) / 2e-8
        off = (jacobian[..., p] - difference).abs() > 1e-4 * (1 + difference.abs())
        wrong += int(off.sum())
    # A point on a border between pixels has two derivatives.
    assert wrong <= 0.002 * jacobian.numel()


def test_batched_equals_looped_and_hidden_points_count_nothing() -> None:
    energy = random_energy()
    x = 0.01 * torch.randn(3, 12 + energy.base.weights.shape[1], generator=generator(9), dtype=F64)
    residual, jacobian = energy(x)
    assert float(residual[:, ::7].abs().max()) == 0
    assert float(jacobian[:, ::7].abs().max()) == 0
    for i in range(3):
        one = torch.tensor([i])
        alone = energy.take(one)(x[one])
        torch.testing.assert_close(alone[0], residual[one])
        torch.testing.assert_close(alone[1], jacobian[one])
    broken = replace(energy, reference=torch.where(energy.weights > 0, energy.reference, torch.nan))
    torch.testing.assert_close(broken(x)[0], residual)
    both = Stack((energy, energy))(x)
    torch.testing.assert_close(both[0], torch.cat([residual, residual], 1))
    assert both[1].shape == (3, 60, x.shape[1])


def test_likeness_is_the_correlation_of_what_counts() -> None:
    energy = random_energy()
    x = torch.zeros(3, 12 + energy.base.weights.shape[1], dtype=F64)
    found = energy.correlation(x)
    seen = energy.weights[0, 0] > 0
    value = energy(x)[0][0] / energy.weights[0, 0] + energy.reference[0, 0]
    expected = np.corrcoef(value[seen].numpy(), energy.reference[0, 0][seen].numpy())[0, 1]
    assert float(found[0, 0]) == pytest.approx(expected)
    nothing = replace(energy, weights=energy.weights * 0)
    assert bool(torch.isnan(nothing.correlation(x)).all())
    assert not is_comparable(nothing.correlation(x))
    assert is_comparable(torch.tensor([[0.9, 0.8], [0.2, torch.nan]]))


@pytest.mark.slow
def test_a_known_pose_is_found_again_from_its_pixels() -> None:
    rig = Rig.load("builtin")
    truth = states(rig, 2, 11)
    truth = replace(truth, weights=truth.weights * 0.6)
    renderer = Renderer(rig)
    camera = Camera.look_at(640, 480, 1200.0, (0.02, 0.0, 0.8), name="main")
    single = State(*(part.float() for part in (truth.rotation, truth.translation, truth.jaw, truth.weights)))
    with torch.no_grad():
        plates = renderer(rig.vertices(single), camera).image
    # Another exposure and grain.
    plates = (plates * 0.8 + 0.02 * torch.randn(plates.shape, generator=generator(12))).clamp(0, 1)
    small = rig.landmark_rig()
    marks = camera.project(small.landmarks(small.vertices(truth)))
    low, high = marks.amin(1), marks.amax(1)
    half = (high - low).amax(1, keepdim=True) * 0.7
    crops = torch.cat([(low + high) / 2 - half, (low + high) / 2 + half], 1)[:, None]

    state = replace(
        truth,
        rotation=so3_exp(torch.tensor([[0.02, -0.02, 0.01], [-0.02, 0.01, 0.02]], dtype=F64)) @ truth.rotation,
        translation=truth.translation + torch.tensor([[0.001, -0.001, 0.006], [-0.001, 0.001, -0.006]], dtype=F64),
    )
    before = rotation_angle(state.rotation, truth.rotation)
    views = Views.match(Plates.from_array(plates), camera)
    context = FitContext(views, rig, renderer=renderer)
    pixels = Photometry.read(context, views.frames, crops)
    limit = torch.full((2, 12 + state.weights.shape[1]), torch.inf, dtype=F64)
    # The expression is held: without landmarks and prior a closed mouth says little about what is open.
    free = torch.arange(limit.shape[1]) < 6
    for blur in (3.0, 1.5, 0.8, 0.8):
        energy = pixels.energy(state, renderer, blur, torch.ones(2, 1, dtype=F64))
        solution = minimise(energy, torch.zeros_like(limit), -limit, limit, free, max_iterations=6)
        state = state.retract(solution.x)
        assert is_comparable(energy.correlation(solution.x))
    after = rotation_angle(state.rotation, truth.rotation)
    assert float(before.min()) > 0.02
    assert float(after.max()) < np.radians(0.2)
    assert float(before.min()) > np.radians(1)
    found = camera.project(small.landmarks(small.vertices(state)))
    assert float((found - marks).norm(dim=-1).mean()) < 0.4
