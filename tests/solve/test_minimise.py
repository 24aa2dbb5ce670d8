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

from deepenergy.solve import Status, minimise
from deepenergy.solve.bounds import bound_damping

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


def test_no_bounds_need_be_given_and_the_advice_fits() -> None:
    solution = minimise(rosenbrock, torch.tensor([[-1.2, 1.0]], dtype=F64))
    torch.testing.assert_close(solution.x, torch.ones(1, 2, dtype=F64), atol=1e-12, rtol=0)
    assert solution.advice(0).startswith("Converged")
    short = minimise(rosenbrock, torch.tensor([[-1.2, 1.0]], dtype=F64), max_iterations=3)
    assert short.status.tolist() == [Status.ITERATION_LIMIT] and "more" in short.advice(0)
    assert short.iterations.tolist() == [3] and short.evaluations.tolist() == [4]
    assert all(status.advice.endswith(".") for status in Status)


@pytest.mark.parametrize("method", ["dogleg", "lm"])
@pytest.mark.parametrize("x", [(-1.2, 1.0), (10.0, -30.0), (0.0, 0.0)])
def test_both_methods_reach_the_valley(method, x: tuple[float, float]) -> None:
    solution = minimise(rosenbrock, torch.tensor([x], dtype=F64), method=method, max_iterations=300)
    torch.testing.assert_close(solution.x, torch.ones(1, 2, dtype=F64), atol=1e-9, rtol=0)


def test_residual_and_normal_are_those_of_the_solution() -> None:
    solution = minimise(rosenbrock, torch.tensor([[-1.2, 1.0], [2.0, 2.0]], dtype=F64), max_iterations=5)
    residual, jacobian = rosenbrock(solution.x)
    assert torch.equal(solution.residual, residual) and torch.equal(solution.jacobian, jacobian)
    torch.testing.assert_close(solution.normal, jacobian.mT @ jacobian)
    torch.testing.assert_close(solution.cost, 0.5 * residual.square().sum(1))


@pytest.mark.parametrize("method", ["dogleg", "lm"])
def test_many_active_bounds_in_few_iterations(method) -> None:
    """Dogbox stops at one bound after the other; the optimum has to be scipy's all the same."""
    a, b = random_linear(7, 8, 60, 30)
    low, high = torch.full((30,), -0.05, dtype=F64), torch.full((30,), 0.08, dtype=F64)

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        return (a @ x[:, :, None]).squeeze(2) - b, a

    solution = minimise(problem, torch.zeros(8, 30, dtype=F64), low, high, method=method)
    assert bool(solution.converged.all()) and int(solution.iterations.max()) <= 25
    for i in range(8):
        expected = scipy.optimize.lsq_linear(a[i].numpy(), b[i].numpy(), (low.numpy(), high.numpy()), method="bvls")
        assert float(solution.cost[i]) == pytest.approx(expected.cost, rel=1e-10)
        np.testing.assert_allclose(solution.x[i].numpy(), expected.x, atol=1e-7)


@pytest.mark.parametrize("method", ["dogleg", "lm"])
def test_a_bound_is_approached_by_halves_or_at_once(method) -> None:
    """`r = x`, `0 <= x`: the model alone would reach the bound in one step."""

    def step(approach) -> float:
        start, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64)
        one = minimise(
            lambda x: (x, torch.ones_like(x)[:, :, None]), start, zero, None,
            method=method, approach=approach, max_iterations=1,
        )  # fmt: skip
        return float(one.x)

    assert step("direct") == 0
    assert step("damped") == pytest.approx(0.5, rel=1e-12)


def test_bound_damping_known_values() -> None:
    x = torch.tensor([[0.25, 0.25, 0.25, 0.0, 1e-300]], dtype=F64)
    gradient = torch.tensor([[2.0, -3.0, 0.0, 1.0, 1.0]], dtype=F64)
    upper = torch.tensor([[torch.inf, 1.0, 1.0, 1.0, 1.0]], dtype=F64)
    found = bound_damping(x, gradient, torch.full_like(x, 2.0), torch.zeros_like(x), upper)
    most = 4 / torch.finfo(F64).eps ** 0.5
    torch.testing.assert_close(found, torch.tensor([[8.0, 4.0, 0.0, 0.0, most]], dtype=F64))
    assert float(bound_damping(x, -gradient, torch.full_like(x, 2.0), torch.zeros_like(x), upper)[0, 0]) == 0


def test_start_outside_at_and_between_equal_bounds() -> None:
    start = torch.tensor([[-5.0, 9.0], [0.5, 2.0], [0.3, 0.3]], dtype=F64)
    low = torch.tensor([[-2.0, -2.0], [0.5, -2.0], [0.4, -2.0]], dtype=F64)
    high = torch.tensor([[2.0, 2.0], [2.0, 2.0], [0.4, 2.0]], dtype=F64)
    solution = minimise(rosenbrock, start, low, high, max_iterations=200)
    torch.testing.assert_close(solution.x[:2], torch.ones(2, 2, dtype=F64), atol=1e-9, rtol=0)
    torch.testing.assert_close(solution.x[2], torch.tensor([0.4, 0.16], dtype=F64), atol=1e-9, rtol=0)
    assert solution.free.tolist() == [[True, True], [True, True], [False, True]]


def test_a_fixed_parameter_may_lie_outside_of_its_bounds() -> None:
    start = torch.tensor([[3.0, 1.0]], dtype=F64)
    room = torch.full((2,), 20.0, dtype=F64)
    room[0] = 1.0
    solution = minimise(rosenbrock, start, -room, room, torch.tensor([False, True]))
    torch.testing.assert_close(solution.x, torch.tensor([[3.0, 9.0]], dtype=F64))


def test_all_fixed_ends_at_once() -> None:
    start = torch.tensor([[3.0, 1.0]], dtype=F64)
    solution = minimise(rosenbrock, start, free=torch.zeros(2, dtype=torch.bool))
    assert torch.equal(solution.x, start) and solution.iterations.tolist() == [0]


@pytest.mark.parametrize("method", ["dogleg", "lm"])
def test_dependent_columns_take_the_shortest_step(method) -> None:
    a = torch.tensor([[[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1e-9]]], dtype=F64)

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        return (a @ x[:, :, None]).squeeze(2) - torch.tensor([[3.0, 6.0, 2e-9]], dtype=F64), a

    solution = minimise(problem, torch.zeros(1, 3, dtype=F64), method=method)
    torch.testing.assert_close(solution.x, torch.tensor([[1.5, 1.5, 2.0]], dtype=F64))
    assert bool(solution.converged.all())


@pytest.mark.parametrize("method", ["dogleg", "lm"])
@pytest.mark.parametrize("exponent", [-150, -60, 0, 60, 140])
def test_units_of_parameters_and_residuals_do_not_matter(method, exponent: int) -> None:
    unit = torch.tensor([10.0**exponent, 10.0**-8], dtype=F64)

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        residual, jacobian = rosenbrock(x / unit)
        return residual, jacobian / unit

    start = torch.tensor([[-1.2, 1.0]], dtype=F64)
    solution = minimise(problem, start * unit, method=method, max_iterations=300)
    torch.testing.assert_close(solution.x / unit, torch.ones(1, 2, dtype=F64), atol=1e-8, rtol=0)


def test_what_is_not_finite_at_the_start_is_told_and_left() -> None:
    """A NaN start, a NaN residual, a NaN Jacobian and an overflow, among a healthy neighbour."""

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        residual, jacobian = rosenbrock(x)
        residual[2] = torch.nan
        jacobian[3, 0, 0] = torch.inf
        return residual, jacobian

    start = torch.tensor([[-1.2, 1.0], [torch.nan, 0.0], [1.0, 2.0], [1.0, 2.0], [1e200, 1.0]], dtype=F64)
    for method in ("dogleg", "lm"):
        solution = minimise(problem, start, method=method, max_iterations=200)
        torch.testing.assert_close(solution.x[0], torch.ones(2, dtype=F64), atol=1e-9, rtol=0)
        assert solution.converged.tolist() == [True, False, False, False, False]
        assert solution.status[1:].tolist() == [Status.NOT_FINITE_START] * 4
        assert solution.iterations[1:].tolist() == [0] * 4
        torch.testing.assert_close(solution.x[1:], start[1:], equal_nan=True, atol=0, rtol=0)
        alone = minimise(rosenbrock, start[:1], method=method, max_iterations=200)
        torch.testing.assert_close(solution.x[:1], alone.x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", ["dogleg", "lm"])
def test_a_wrong_jacobian_is_told(method) -> None:
    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        residual, jacobian = rosenbrock(x)
        return residual, -jacobian

    solution = minimise(problem, torch.tensor([[-1.2, 1.0]], dtype=F64), method=method, max_iterations=200)
    assert solution.status.tolist() == [Status.STALLED] and not bool(solution.converged.any())
    assert "Jacobian" in solution.advice(0)
    assert solution.x.tolist() == [[-1.2, 1.0]]


def test_the_first_radius_bounds_the_first_step() -> None:
    start = torch.tensor([[-1.2, 1.0]], dtype=F64)
    scale = rosenbrock(start)[1].norm(dim=1)
    solution = minimise(rosenbrock, start, radius=0.1, max_iterations=1)
    assert float(((solution.x - start) * scale).norm()) == pytest.approx(0.1, rel=1e-9)
    with pytest.raises(ValueError, match="radius"):
        minimise(rosenbrock, start, radius=0.0)


def test_an_empty_batch_and_float32() -> None:
    assert minimise(rosenbrock, torch.zeros(0, 2, dtype=F64)).x.shape == (0, 2)
    single = minimise(rosenbrock, torch.tensor([[-1.2, 1.0]], dtype=torch.float32))
    assert single.x.dtype == torch.float32 and bool(single.converged.all())
    torch.testing.assert_close(single.x, torch.ones(1, 2), atol=1e-3, rtol=0)


def test_arguments_that_do_not_fit() -> None:
    start = torch.zeros(1, 2, dtype=F64)
    with pytest.raises(ValueError, match="method"):
        minimise(rosenbrock, start, method="newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'at once': expected one of"):
        minimise(rosenbrock, start, approach="at once")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="free"):
        minimise(rosenbrock, start, free=torch.ones(2, dtype=F64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        minimise(rosenbrock, start, torch.tensor([torch.nan, 0.0], dtype=F64))
    with pytest.raises(ValueError, match=r"expected \[S, R\]"):
        minimise(lambda x: (x, x), start)
    with pytest.raises(ValueError, match="lower"):
        minimise(rosenbrock, start, torch.zeros(3, dtype=F64))
