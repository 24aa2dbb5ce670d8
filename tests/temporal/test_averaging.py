"""Averaging, interpolation, splines and the one-euro filter: what needs no plates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_smoothing_spline
from scipy.spatial.transform import Rotation, Slerp

from deepenergy.landmarks.one_euro import one_euro
from deepenergy.runtime.errors import InputError
from deepenergy.scene.rotation import rotation_angle, so3_exp
from deepenergy.scene.state import State
from deepenergy.temporal.averaging import average_states, mean_rotation
from deepenergy.temporal.interpolate import interpolate_states
from deepenergy.temporal.spline import smoothing_spline, spline_rotations, spline_states

F64 = torch.float64


def rotations(count: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return so3_exp(size * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=F64))


def line(count: int) -> State:
    """A steady motion: constant turn, constant speed."""
    t = torch.arange(count, dtype=F64)[:, None]
    axis = torch.tensor([[0.02, -0.03, 0.01]], dtype=F64)
    return State(so3_exp(axis * t), 0.01 * t.expand(-1, 3), 0.001 * t.expand(-1, 6), 0.01 * t.expand(-1, 2))


def noisy(state: State, seed: int = 0) -> State:
    g = torch.Generator().manual_seed(seed)
    return state.retract(0.01 * torch.randn(len(state), 12 + state.weights.shape[1], generator=g, dtype=F64))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_mean_rotation_against_scipy(seed: int) -> None:
    turn = rotations(5, seed)
    weights = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=F64) + 0.01
    expected = Rotation.from_matrix(turn.numpy()).mean(weights.numpy()).as_matrix()
    np.testing.assert_allclose(mean_rotation(turn, weights).numpy(), expected, atol=1e-9)


def test_mean_rotation_in_batches_and_across_the_half_turn() -> None:
    turn = so3_exp(torch.tensor([[math.pi - 0.1, 0, 0], [-math.pi + 0.1, 0, 0]], dtype=F64))
    half = so3_exp(torch.tensor([math.pi, 0, 0], dtype=F64))
    both = mean_rotation(torch.stack([turn, turn.flip(0)]), torch.ones(2, 2, dtype=F64))
    assert float(rotation_angle(both, half.expand(2, 3, 3)).max()) < 1e-7


def test_averaging_leaves_steady_motion_alone_and_has_its_weights() -> None:
    state = line(7)
    moved = average_states(state, range(7))
    for a, b in zip(vars(state).values(), vars(moved).values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    peak = State(state.rotation, torch.zeros(7, 3, dtype=F64), state.jaw, state.weights)
    peak.translation[3] = 4e-5
    found = average_states(peak, range(7)).translation[:, 0]
    torch.testing.assert_close(found, torch.tensor([0, 0, 1e-5, 2e-5, 1e-5, 0, 0], dtype=F64), rtol=1e-4, atol=0)
    found = average_states(peak, range(7), sweeps=2).translation[:, 0]
    expected = torch.tensor([0, 0.25e-5, 1e-5, 1.5e-5, 1e-5, 0.25e-5, 0], dtype=F64)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    # Far more than noise: the head moved.
    peak.translation[3] = 0.2
    torch.testing.assert_close(average_states(peak, range(7)).translation, peak.translation, rtol=0.01, atol=2e-3)


def test_a_blink_of_a_steady_head_stays_and_noise_beside_it_goes() -> None:
    still = line(7)
    weights = torch.zeros_like(still.weights)
    weights[3, 0], weights[3, 1] = 1.0, 0.004
    jaw = torch.zeros_like(still.jaw)
    jaw[3, 0], jaw[3, 1], jaw[3, 3] = 0.5, 0.0004, 0.2
    pose = (still.rotation[:1].expand(7, 3, 3), torch.zeros(7, 3, dtype=F64))
    found = average_states(State(*pose, jaw, weights), range(7))
    assert float(found.weights[3, 0]) > 0.99 and float(found.weights[2, 0]) < 0.3 * 0.25
    assert float(found.jaw[3, 0]) > 0.49 and float(found.jaw[3, 3]) > 0.19
    for values, peak in ((found.weights[:, 1], 0.004), (found.jaw[:, 1], 0.0004)):
        torch.testing.assert_close(values[2:5], peak * torch.tensor([0.25, 0.5, 0.25], dtype=F64), rtol=1e-3, atol=0)


def test_averaging_stops_at_gaps_and_unusable_frames() -> None:
    state = noisy(line(6))
    frames = [1, 2, 3, 10, 11, 12]
    moved = average_states(state, frames)
    for row in (0, 2, 3, 5):
        assert torch.equal(moved.translation[row], state.translation[row])
    torch.testing.assert_close(moved.rotation[2], state.rotation[2])
    usable = torch.tensor([True, True, True, True, False, True])
    moved = average_states(state, range(6), usable=usable)
    for row in (3, 4, 5):
        assert torch.equal(moved.weights[row], state.weights[row])
    assert not torch.equal(moved.weights[1], state.weights[1])


@pytest.mark.parametrize("window", [(1.0, 1.0), (1.0, 0.0, 1.0), (-1.0, 2.0, -1.0)])
def test_averaging_refuses_a_wrong_window(window: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="averaging window"):
        average_states(line(3), range(3), window)


def test_interpolation_against_scipy_and_its_ends() -> None:
    state = noisy(line(8))
    times = [1, 2, 3, 5, 6, 7, 8, 9]
    known = torch.tensor([False, True, False, False, True, True, False, False])
    filled = interpolate_states(times, state, known)
    slerp = Slerp([2, 6], Rotation.from_matrix(state.rotation[[1, 4]].numpy()))
    np.testing.assert_allclose(filled.rotation[2:4].numpy(), slerp([3, 5]).as_matrix(), atol=1e-12)
    torch.testing.assert_close(filled.weights[2], 0.75 * state.weights[1] + 0.25 * state.weights[4])
    torch.testing.assert_close(filled.jaw[3], 0.25 * state.jaw[1] + 0.75 * state.jaw[4])
    for row, anchor in ((0, 1), (6, 5), (7, 5)):
        torch.testing.assert_close(filled.translation[row], state.translation[anchor])
        torch.testing.assert_close(filled.rotation[row], state.rotation[anchor])
    for row in (1, 4, 5):
        assert torch.equal(filled.rotation[row], state.rotation[row])


def test_interpolation_from_one_frame_from_all_and_from_none() -> None:
    state = noisy(line(3))
    one = interpolate_states(range(3), state, torch.tensor([False, True, False]))
    torch.testing.assert_close(one.rotation, state.rotation[[1, 1, 1]])
    assert interpolate_states(range(3), state, torch.ones(3, dtype=torch.bool)) is state
    with pytest.raises(InputError, match="none that was solved"):
        interpolate_states(range(3), state, torch.zeros(3, dtype=torch.bool))


def test_spline_is_scipy_s_and_takes_noise_out() -> None:
    t = torch.linspace(0, 6, 60, dtype=F64)
    clean = torch.stack([torch.sin(t), torch.cos(t), torch.full_like(t, 2.0)], 1)
    rough = clean + 0.05 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    rough[:, 2] = 2.0
    smooth = smoothing_spline(rough, 20.0)
    expected = make_smoothing_spline(np.arange(60.0), rough[:, 0].numpy(), lam=20.0)(np.arange(60.0))
    np.testing.assert_allclose(smooth[:, 0].numpy(), expected)
    assert torch.equal(smooth[:, 2], rough[:, 2])
    free = smoothing_spline(rough)
    assert float((free - clean)[:, :2].std()) < 0.6 * float((rough - clean)[:, :2].std())
    assert torch.equal(smoothing_spline(rough, 0), rough)
    assert torch.equal(smoothing_spline(rough[:4]), rough[:4])


def test_spline_of_rotations_through_the_half_turn() -> None:
    t = torch.linspace(0, 2 * math.pi, 50, dtype=F64)
    clean = so3_exp(torch.stack([t, 0.2 * t, -0.1 * t], 1))
    noise = so3_exp(0.03 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=F64))
    smooth = spline_rotations(noise @ clean)
    assert float(rotation_angle(smooth, clean).mean()) < 0.5 * float(rotation_angle(noise @ clean, clean).mean())
    whole = spline_states(noisy(line(20)))
    assert whole.weights.shape == (20, 2)


def test_one_euro_keeps_what_is_still_and_follows_what_is_fast() -> None:
    still = torch.full((40, 2), 5.0, dtype=F64)
    torch.testing.assert_close(one_euro(still), still)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 3, generator=g, dtype=F64)
    assert float(one_euro(noise).std()) < 0.5 * float(noise.std())
    ramp = 30.0 * torch.arange(60, dtype=F64)[:, None]
    lag = (one_euro(ramp, both_ways=False) - ramp)[20:]
    assert float(lag.max()) < 0
    assert float((one_euro(ramp) - ramp)[25:35].abs().max()) < 0.01


def test_one_euro_first_values_by_hand() -> None:
    values = torch.tensor([0.0, 1.0], dtype=F64)
    rate, cutoff, beta, speed_cutoff = 24.0, 2.0, 0.05, 1.0

    def share(hertz: float) -> float:
        tau = 1 / (2 * math.pi * hertz)
        return 1 / (1 + tau * rate)

    speed = share(speed_cutoff) * rate
    expected = share(cutoff + beta * speed)
    found = one_euro(values, rate, cutoff, beta, speed_cutoff, both_ways=False)
    assert found.tolist() == pytest.approx([0.0, expected])


def test_one_euro_starts_anew_after_a_gap() -> None:
    values = torch.tensor([0.0, 1.0, math.nan, 50.0, 51.0], dtype=F64)
    found = one_euro(values)
    assert torch.isnan(found[2]) and float(found[3]) > 49
    torch.testing.assert_close(found[3:], one_euro(values[3:]))
    assert one_euro(values[:0]).shape == (0,)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"cutoff": -1.0}, {"beta": -0.1}, {"speed_cutoff": 0.0}])
def test_one_euro_refuses_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="one-euro"):
        one_euro(torch.zeros(3), **wrong)  # type: ignore[arg-type]
