"""NIST StRD: models and data against the certified values, before anything is concluded from a solver's."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from benchmarks.nist import correct_digits
from benchmarks.peers import Result
from benchmarks.problems.nist import NistProblem, nist_problems
from deepenergy.solve import Solution, Status, covariance, difference_jacobian, minimise, reverse_jacobian

PROBLEMS = nist_problems()
every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)


def jacobian(problem: NistProblem, x: Tensor) -> Tensor:
    return reverse_jacobian(problem.residual)(x)[1]


def test_there_are_27_in_three_levels() -> None:
    assert len({p.name for p in PROBLEMS}) == 27
    assert [sum(p.difficulty == d for p in PROBLEMS) for d in ("lower", "average", "higher")] == [8, 11, 8]


@every_problem
def test_the_certified_values_fit_together(problem: NistProblem) -> None:
    count, parameters = problem.response.numel(), problem.certified.numel()
    assert problem.start.shape == (2, parameters)
    assert problem.deviations.shape == (parameters,)
    assert problem.predictors.shape[1] == count
    residual = problem.residual(problem.certified[None])
    assert residual.shape == (1, count)
    # Eleven digits of the parameters leave this much of the residual open, and rounding the last term.
    slack = (jacobian(problem, problem.certified[None])[0].abs() @ (5e-11 * problem.certified.abs())).square().sum()
    rounding = 1e-15 * float(problem.response.abs().max()) * count**0.5 * problem.sum_of_squares**0.5
    tolerance = 1e-9 * problem.sum_of_squares + float(slack) + rounding
    assert abs(float(residual.square().sum()) - problem.sum_of_squares) <= tolerance


@every_problem
def test_batched_is_looped(problem: NistProblem) -> None:
    x = torch.cat([problem.start, problem.certified[None], problem.certified[None] * 1.01])
    looped = torch.cat([problem.residual(row[None]) for row in x])
    torch.testing.assert_close(problem.residual(x), looped, rtol=1e-14, atol=0, equal_nan=True)


@every_problem
def test_jacobian_is_that_of_differences(problem: NistProblem) -> None:
    x = torch.stack([problem.certified, problem.certified * 1.001])
    by_differences = difference_jacobian(problem.residual, problem.certified.abs())(x)[1]
    # In the units of the parameters, so that one tolerance does for all.
    scale = problem.certified.abs()
    exact, near = jacobian(problem, x) * scale, by_differences * scale
    torch.testing.assert_close(near, exact, rtol=1e-6, atol=1e-8 * float(exact.abs().max()))


@every_problem
def test_standard_deviations_are_the_certified_ones(problem: NistProblem) -> None:
    x = problem.certified[None]
    residual, derivative = reverse_jacobian(problem.residual)(x)
    one = torch.ones(1, dtype=torch.int64)
    cost = torch.tensor([problem.sum_of_squares / 2], dtype=torch.float64)
    solution = Solution(
        x, cost, one * int(Status.GRADIENT), one.bool(), one, one, residual, derivative, torch.ones_like(x).bool()
    )
    found = covariance(solution).matrix[0].diagonal().sqrt()
    torch.testing.assert_close(found, problem.deviations, rtol=2e-9, atol=0)


def test_the_certified_values_are_the_minimum_for_scipy() -> None:
    """An oracle for a model that fits its sum of squares by accident."""
    for problem in PROBLEMS:

        def fun(b: object, problem: NistProblem = problem) -> object:
            return problem.residual(torch.as_tensor(b)[None])[0].numpy()

        def jac(b: object, problem: NistProblem = problem) -> object:
            return jacobian(problem, torch.as_tensor(b)[None])[0].numpy()

        start = (problem.certified * 1.0001).numpy()
        found = least_squares(fun, start, jac, x_scale="jac", ftol=1e-15, xtol=1e-15, gtol=1e-15)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(torch.as_tensor(found.x), problem.certified, rtol=1e-6, atol=0, msg=problem.name)


def test_the_near_start_is_solved() -> None:
    """What the benchmark counts, on those that NIST calls easy."""
    for problem in (p for p in PROBLEMS if p.difficulty == "lower"):
        solution = minimise(reverse_jacobian(problem.residual), problem.start[1:], max_iterations=200)
        torch.testing.assert_close(solution.x[0], problem.certified, rtol=1e-6, atol=0, msg=problem.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MGH09", "MGH17", "MGH10"])
def test_far_starts_through_nearly_singular_jacobians(name: str) -> None:
    problem = next(p for p in PROBLEMS if p.name == name)
    solution = minimise(reverse_jacobian(problem.residual), problem.start[:1], max_iterations=900, cost_tolerance=0.0)
    torch.testing.assert_close(solution.x[0], problem.certified, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("x", "digits"),
    [
        ([2.0, -4.0], 11.0),
        ([2.0 * (1 + 1e-14), -4.0], 11.0),
        ([2.0, -4.0 * (1 + 1e-5)], 5.0),
        ([2.0 * (1 + 1e-3), -4.0 * (1 + 1e-5)], 3.0),
        ([2.0, 4.0], 0.0),
        ([2.0, float("nan")], 0.0),
        ([2.0, float("inf")], 0.0),
    ],
)
def test_correct_digits_are_those_of_the_worst_parameter(x: list[float], digits: float) -> None:
    result = Result(torch.tensor(x, dtype=torch.float64), 0.0, 1, "")
    assert correct_digits(result, torch.tensor([2.0, -4.0], dtype=torch.float64)) == pytest.approx(digits, abs=1e-6)
