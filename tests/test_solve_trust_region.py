"""The least-squares core against scipy, and its invariants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepenergy.solve import minimise

F64 = torch.float64
INF = torch.full((2,), torch.inf, dtype=F64)


def rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
    a, b = x.unbind(1)
    residual = torch.stack([10 * (b - a * a), 1 - a], 1)
    zero = torch.zeros_like(a)
    rows = [torch.stack([-20 * a, torch.full_like(a, 10.0)], 1), torch.stack([-torch.ones_like(a), zero], 1)]
    return residual, torch.stack(rows, 1)


def test_rosenbrock_from_its_standard_start() -> None:
    solution = minimise(rosenbrock, torch.tensor([[-1.2, 1.0]], dtype=F64), -INF, INF, max_iterations=200)
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.x, torch.ones(1, 2, dtype=F64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bounds", [((-2.0, -2.0), (0.5, 2.0)), ((-2.0, 1.5), (2.0, 3.0)), ((-2.0, -2.0), (2.0, 2.0))])
def test_bounded_rosenbrock_as_scipy_solves_it(bounds: tuple[tuple[float, float], tuple[float, float]]) -> None:
    start = np.array([-1.2, 1.6])

    def fun(x: np.ndarray) -> np.ndarray:
        return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])

    expected = scipy.optimize.least_squares(fun, start, bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    low, high = (torch.tensor(b, dtype=F64) for b in bounds)
    solution = minimise(
        rosenbrock,
        torch.from_numpy(start)[None],
        low,
        high,
        max_iterations=500,
        cost_tolerance=0.0,
        step_tolerance=1e-12,
    )
    assert float(solution.cost[0]) == pytest.approx(expected.cost, rel=1e-6, abs=1e-12)
    np.testing.assert_allclose(solution.x[0].numpy(), expected.x, atol=1e-5)


def random_linear(seed: int, count: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, rows, columns, generator=generator, dtype=F64),
        torch.randn(count, rows, generator=generator, dtype=F64),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 5))
def test_bounded_linear_as_scipy_solves_it(seed: int, count: int, columns: int) -> None:
    a, b = random_linear(seed, count, columns + 3, columns)
    low, high = torch.full((columns,), -0.3, dtype=F64), torch.full((columns,), 0.4, dtype=F64)

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("srp,sp->sr", a, x) - b, a

    solution = minimise(
        problem, torch.zeros(count, columns, dtype=F64), low, high, max_iterations=100, cost_tolerance=0.0
    )
    assert bool(((solution.x >= low) & (solution.x <= high)).all())
    for i in range(count):
        expected = scipy.optimize.lsq_linear(a[i].numpy(), b[i].numpy(), (low.numpy(), high.numpy()), tol=1e-12)
        assert float(solution.cost[i]) <= expected.cost * (1 + 1e-6) + 1e-9


def test_batched_equals_looped() -> None:
    starts = torch.tensor([[-1.2, 1.0], [3.0, -4.0], [0.5, 0.5], [1.0, 1.0]], dtype=F64)
    together = minimise(rosenbrock, starts, -INF, INF, max_iterations=60)
    for i in range(len(starts)):
        alone = minimise(rosenbrock, starts[i : i + 1], -INF, INF, max_iterations=60)
        torch.testing.assert_close(together.x[i], alone.x[0], atol=1e-12, rtol=1e-12)
        assert int(together.iterations[i]) == int(alone.iterations[0])


def test_a_nan_start_does_not_disturb_its_neighbours() -> None:
    starts = torch.tensor([[-1.2, 1.0], [torch.nan, 0.0]], dtype=F64)
    solution = minimise(rosenbrock, starts, -INF, INF, max_iterations=200)
    torch.testing.assert_close(solution.x[0], torch.ones(2, dtype=F64), atol=1e-6, rtol=0)
    assert solution.converged.tolist() == [True, False]


def test_held_parameters_do_not_move() -> None:
    start = torch.tensor([[-1.2, 1.0]], dtype=F64)
    solution = minimise(rosenbrock, start, -INF, INF, torch.tensor([False, True]), max_iterations=50)
    assert float(solution.x[0, 0]) == -1.2
    assert float(solution.x[0, 1]) == pytest.approx(1.44, abs=1e-6)


def test_cost_never_rises_with_more_iterations() -> None:
    start = torch.tensor([[-1.2, 1.0], [4.0, 4.0]], dtype=F64)
    costs = [minimise(rosenbrock, start, -INF, INF, max_iterations=n).cost for n in range(0, 30, 3)]
    for before, after in itertools.pairwise(costs):
        assert bool((after <= before + 1e-15).all())


def test_a_parameter_without_influence_stays() -> None:
    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = torch.zeros(len(x), 1, 2, dtype=F64)
        jacobian[:, 0, 0] = 1
        return x[:, :1] - 3, jacobian

    solution = minimise(problem, torch.zeros(1, 2, dtype=F64), -INF, INF)
    torch.testing.assert_close(solution.x, torch.tensor([[3.0, 0.0]], dtype=F64), atol=1e-6, rtol=0)


def test_a_trial_that_is_not_finite_is_rejected() -> None:
    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log(x), 1 / x[:, :, None]

    one = torch.full((1,), torch.inf, dtype=F64)
    solution = minimise(problem, torch.tensor([[20.0]], dtype=F64), -one, one, max_iterations=100)
    assert float(solution.x[0, 0]) == pytest.approx(1.0, abs=1e-5)


def test_bad_bounds_and_shapes() -> None:
    with pytest.raises(ValueError, match="lower bound above"):
        minimise(rosenbrock, torch.zeros(1, 2, dtype=F64), INF, -INF)
    with pytest.raises(ValueError, match="expected"):
        minimise(rosenbrock, torch.zeros(2, dtype=F64), -INF, INF)
