"""More-Garbow-Hillstrom: residuals, starts, minima and bounds against what is published, and against scipy."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from benchmarks.mgh import matched, metric, references
from benchmarks.peers import SOLVERS, Result, solve
from benchmarks.problems import mgh_residuals as residuals
from benchmarks.problems.mgh import MghProblem, mgh_problems
from deepenergy.solve import difference_jacobian, forward_jacobian, minimise, reverse_jacobian

PROBLEMS = mgh_problems()
BOUNDED = tuple(p for p in PROBLEMS if p.bounded)
every_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
every_bounded = pytest.mark.parametrize("problem", BOUNDED, ids=lambda p: p.name)

# Solutions from the paper, of those with residual zero: number -> parameters.
ZEROS: dict[int, list[float]] = {
    1: [1, 1],
    2: [5, 4],
    4: [1e6, 2e-6],
    5: [3, 0.5],
    7: [1, 0, 0],
    11: [50, 25, 1.5],
    12: [1, 10, 1],
    13: [0, 0, 0, 0],
    14: [1, 1, 1, 1],
    18: [1, 10, 1, 5, 4, 3],
    21: [1] * 10,
    22: [0] * 12,
    25: [1] * 10,
    27: [1] * 10,
}  # fmt: skip


def near(value: float, minima: tuple[float, ...]) -> bool:
    """Whether a sum of squares is one of the minima, in the six digits that are published."""
    return any(abs(value - m) <= (1e-5 * m if m else 1e-10) for m in minima)


def random_points(problem: MghProblem, count: int) -> Tensor:
    """Points about the start."""
    generator = torch.Generator().manual_seed(problem.number)
    noise = torch.rand(count, len(problem.start), generator=generator, dtype=torch.float64)
    return problem.start * (1 + 0.2 * noise) + 0.1 * noise


def test_all_35_are_there() -> None:
    assert {p.number for p in PROBLEMS} == set(range(1, 36))
    assert len({p.name for p in PROBLEMS}) == len(PROBLEMS)
    assert len(BOUNDED) >= 19


@every_problem
def test_batched_is_looped(problem: MghProblem) -> None:
    x = torch.cat([problem.start[None], random_points(problem, 4)])
    batched = problem.residual(x)
    assert batched.dtype == torch.float64
    assert len(batched) == 5
    assert batched.dim() == 2
    looped = torch.cat([problem.residual(row[None]) for row in x])
    torch.testing.assert_close(batched, looped, rtol=1e-13, atol=1e-14)


@every_problem
def test_jacobian_is_that_of_differences(problem: MghProblem) -> None:
    x = random_points(problem, 3)
    residual, by_differences = difference_jacobian(problem.residual)(x)
    forward, backward = forward_jacobian(problem.residual)(x)[1], reverse_jacobian(problem.residual)(x)[1]
    largest = float(forward.abs().max())
    # The last term is the rounding of a residual over the step of 6e-6 times the parameter, 1e-3 at least.
    atol = 1e-8 * largest + 1e-10 * float(residual.abs().max())
    torch.testing.assert_close(by_differences, forward, rtol=1e-6, atol=atol)
    torch.testing.assert_close(backward, forward, rtol=1e-10, atol=1e-12 * largest)


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.number in ZEROS], ids=lambda p: p.name)
def test_residual_is_zero_at_the_published_solution(problem: MghProblem) -> None:
    residual = problem.residual(torch.tensor([ZEROS[problem.number]], dtype=torch.float64))
    assert float(residual.abs().max()) < 1e-13
    assert min(problem.minima) == 0


def test_powell_badly_scaled_is_zero_where_published() -> None:
    x = torch.tensor([[1.0981593296999222e-5, 9.106146739867]], dtype=torch.float64)
    assert float(residuals.powell_badly_scaled(x).abs().max()) < 1e-6


def test_sums_of_squares_at_the_starts() -> None:
    """Values that follow from the definitions by hand."""
    at_start = {p.name: float(p.residual(p.start[None]).square().sum()) for p in PROBLEMS}
    assert at_start["Rosenbrock"] == pytest.approx(24.2)
    assert at_start["Freudenstein and Roth"] == pytest.approx(400.5)
    assert at_start["Helical valley"] == pytest.approx(2500)
    assert at_start["Powell singular"] == pytest.approx(215)
    assert at_start["Wood"] == pytest.approx(19192)
    assert at_start["Watson 6"] == pytest.approx(30)
    assert at_start["Broyden banded 10"] == pytest.approx(36 * 10)
    assert at_start["Broyden tridiagonal 10"] == pytest.approx(8 * 1 + (-5 + 0 + 2 + 1) ** 2 + (-5 + 1 + 0 + 1) ** 2)
    assert at_start["Extended Rosenbrock 10"] == pytest.approx(5 * 24.2)


def test_helical_valley_jumps_where_the_paper_says() -> None:
    x = torch.tensor([[-1e-9, 1.0, 0.0], [1e-9, 1.0, 0.0], [-1e-9, -1.0, 0.0], [1e-9, -1.0, 0.0]], dtype=torch.float64)
    turns = -residuals.helical_valley(x)[:, 0] / 100
    torch.testing.assert_close(turns, torch.tensor([0.25, 0.25, 0.75, -0.25], dtype=torch.float64))


def test_chebyquad_is_a_quadrature() -> None:
    """The equal weights of Chebyshev's rule with two and three nodes are exact, so that the residual is zero."""
    two = torch.tensor([[0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12)]], dtype=torch.float64)
    three = torch.tensor([[0.5 - math.sqrt(1 / 8), 0.5, 0.5 + math.sqrt(1 / 8)]], dtype=torch.float64)
    for nodes in (two, three):
        assert float(residuals.chebyquad(nodes).abs().max()) < 1e-15


@every_problem
def test_scipy_finds_a_published_minimum(problem: MghProblem) -> None:
    """The oracle for residual, start and minima at once: only with all three right does scipy arrive there."""
    found = solve("scipy trf", forward_jacobian(problem.residual), problem.start)
    assert found is not None
    assert near(found.sum_of_squares, problem.minima)


@pytest.mark.slow
@every_bounded
def test_scipy_finds_a_published_minimum_within_the_bounds(problem: MghProblem) -> None:
    assert problem.lower is not None
    assert problem.upper is not None
    begin = problem.bounded_start()
    assert bool(((problem.lower <= begin) & (begin <= problem.upper)).all())
    found = solve("scipy trf", forward_jacobian(problem.residual), problem.start, problem.lower, problem.upper)
    assert found is not None
    assert near(found.sum_of_squares, problem.bounded_minima)
    # Bounds can only raise the least value, but for the digits that were published.
    assert min(problem.bounded_minima) >= min(problem.minima) * (1 - 1e-5)
    assert all(low < high for low, high in pairwise(problem.bounded_minima))


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dogleg", "lm"])
def test_bounds_approached_by_halves_lead_to_the_lower_of_two_minima(solver: str) -> None:
    """As trf's do. Going there at once ends in the higher, as dogbox does."""
    (problem,) = (p for p in BOUNDED if p.name == "Chebyquad 10")
    assert problem.lower is not None
    found = solve(solver, forward_jacobian(problem.residual), problem.start, problem.lower, problem.upper)
    assert found is not None
    assert found.sum_of_squares == pytest.approx(problem.bounded_minima[0], rel=1e-5)


# -- what the benchmark makes of it -------------------------------------------------------------------------------


def results(dogleg: float, trf: float, dogbox: float) -> dict[str, Result | None]:
    values = {"dogleg": dogleg, "lm": dogleg, "scipy trf": trf, "scipy dogbox": dogbox}
    found: dict[str, Result | None] = {s: Result(torch.zeros(1), v, 1, "") for s, v in values.items()}
    return {**found, "scipy lm": None}


def test_only_what_scipy_solves_counts() -> None:
    assert references((2.0, 3.0), results(9, 2.000001, 3)) == [2.000001, 3]
    assert references((2.0, 3.0), results(9, 2.5, 3)) == [3]
    assert references((2.0,), results(9, 2.5, 7)) == []
    assert references((2.0,), results(9, 1.5, 2)) == [1.5, 2]
    assert references((0.0,), results(9, 1e-11, 1e-3)) == [1e-11]


def test_matched_is_as_low_as_scipy() -> None:
    for value, target, minima, expected in [
        (2.000001, 2.0, (2.0,), True),
        (2.00001, 2.0, (2.0,), False),
        (1.0, 2.0, (2.0,), True),
        (9e-11, 1e-30, (0.0,), True),
        (2e-10, 1e-30, (0.0,), False),
        (math.inf, 2.0, (2.0,), False),
    ]:
        assert matched(Result(torch.zeros(1), value, 1, ""), target, minima) == expected
    assert not matched(None, 1.0, (1.0,))


def test_the_metric_counts_and_names() -> None:
    by_name = {p.name: p for p in PROBLEMS}
    chosen = [by_name["Bard"], by_name["Rosenbrock"], by_name["Meyer"]]
    minima = chosen[0].minima[0]
    made = metric(chosen, [results(minima, minima, 1), results(1, 0, 0), results(1, 1000, 1000)], False, "matched")
    assert made.name == "mgh.unbounded.matched"
    assert made.value == 0.5
    assert made.context["of"] == 2
    assert made.context["missed"] == "Rosenbrock"
    assert made.context["scipy trf"] == 2
    assert made.context["scipy dogbox"] == 1
    assert set(SOLVERS) <= {*made.context, "dogleg"}


def test_the_higher_of_two_known_minima_is_reached_and_not_matched() -> None:
    problem = next(p for p in PROBLEMS if p.name == "Chebyquad 10")
    low, high = problem.minima
    found = [results(high, low, high)]
    assert metric([problem], found, True, "matched").value == 0
    assert metric([problem], found, True, "reached").value == 1
    assert metric([problem], [results(high * 1.00001, low, high)], True, "reached").value == 0
    assert metric([problem], [results(high, low, 1)], True, "reached").value == 0


@pytest.mark.parametrize("name", ["Biggs EXP6", "Gulf, 3 residuals"])
def test_a_singular_jacobian_on_the_way(name: str) -> None:
    """Two columns are equal, or nearly; scipy's dogbox needs 516 evaluations for the one and fails at the other."""
    problem = next(p for p in PROBLEMS if p.name == name)
    solution = minimise(forward_jacobian(problem.residual), problem.start[None], max_iterations=600)
    assert bool(solution.converged.all())
    assert 2 * float(solution.cost[0]) < 1e-20


def test_ours_on_small_ones() -> None:
    """What the benchmark counts, where it is quick: the problems of up to three parameters, without and with bounds."""
    for problem in (p for p in PROBLEMS if len(p.start) <= 3 and p.name != "Gulf, 3 residuals"):
        solution = minimise(forward_jacobian(problem.residual), problem.start[None], max_iterations=400)
        assert near(2 * float(solution.cost[0]), problem.minima), problem.name
        if problem.bounded:
            bounds = problem.lower, problem.upper
            solution = minimise(forward_jacobian(problem.residual), problem.start[None], *bounds, max_iterations=400)
            assert near(2 * float(solution.cost[0]), problem.bounded_minima), problem.name
