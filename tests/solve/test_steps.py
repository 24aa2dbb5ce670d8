"""What holds for every step, whatever the problem: hypothesis draws the Jacobians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepenergy.solve import Status, minimise
from deepenergy.solve.bounds import active_set, cut, reach
from deepenergy.solve.descent import Descent
from deepenergy.solve.dogleg import DogLeg
from deepenergy.solve.kernels import weighting
from deepenergy.solve.levenberg_marquardt import LevenbergMarquardt
from deepenergy.solve.point import Point, evaluate

F64 = torch.float64
DESCENTS = [DogLeg(), LevenbergMarquardt()]


def draw(seed: int, rows: int, columns: int, count: int = 4) -> tuple[Point, Tensor]:
    """Random points: ordinary, rank-deficient, badly scaled, with an empty column."""
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, rows, columns, generator=generator, dtype=F64)
    jacobian[1, :, -1] = 2 * jacobian[1, :, 0]
    jacobian[2] *= 10.0 ** torch.randint(-8, 8, (columns,), generator=generator).to(F64)
    jacobian[3, :, 0] = 0
    residual = torch.randn(count, rows, generator=generator, dtype=F64)
    x = torch.zeros(count, columns, dtype=F64)
    point = evaluate(lambda _: (residual, jacobian), x, lambda r, device: weighting(None, r, device))
    scale = torch.where(point.norms > 0, point.norms, torch.ones_like(point.norms))
    return point, scale


def change(point: Point, step: Tensor) -> Tensor:
    """What the model says of a step: its cost less that of none."""
    linear = (point.jacobian @ step[:, :, None]).squeeze(2)
    return (point.gradient * step).sum(1) + 0.5 * linear.square().sum(1)


@pytest.mark.parametrize("descent", DESCENTS, ids=["dogleg", "lm"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), rows=st.integers(1, 9), columns=st.integers(2, 6), power=st.floats(-6, 6))
def test_path_keeps_to_the_radius_and_goes_down(
    descent: Descent, seed: int, rows: int, columns: int, power: float
) -> None:
    point, scale = draw(seed, rows, columns)
    active = torch.rand(scale.shape, generator=torch.Generator().manual_seed(seed), dtype=F64) < 0.2
    radius = torch.full((4,), 10.0**power, dtype=F64)
    path = descent.path(descent.model(point, scale, active), radius)
    tiny = 1e-12 * point.cost
    before = torch.zeros_like(point.cost)
    for share in (0.2, 0.6, 1.0):
        along = change(point, share * path.first)
        assert bool((along <= before + tiny).all())
        before = along
    for share in (0.3, 0.7, 1.0):
        along = change(point, path.first + share * (path.last - path.first))
        assert bool((along <= before + tiny).all())
        before = along
    for end in (path.first, path.last):
        assert bool(((end * scale).norm(dim=1) <= radius * (1 + 1e-9)).all())
        assert not bool(end[active].any())
    assert bool((path.full | ((path.last * scale).norm(dim=1) > 0) | (point.gradient * ~active == 0).all(1)).all())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), rows=st.integers(1, 9), columns=st.integers(2, 6), power=st.floats(-3, 3))
def test_path_cut_at_the_bounds(seed: int, rows: int, columns: int, power: float) -> None:
    point, scale = draw(seed, rows, columns)
    generator = torch.Generator().manual_seed(seed + 1)
    low, high = (torch.rand(scale.shape, generator=generator, dtype=F64) for _ in range(2))
    low, high = -low * (low > 0.2), high * (high > 0.2)
    active = active_set(torch.zeros_like(low), point.gradient, low, high)
    path = DogLeg().path(DogLeg().model(point, scale, active), torch.full((4,), 10.0**power, dtype=F64))
    step = cut(path.first, path.last, low, high)
    assert bool(((step >= low) & (step <= high)).all())
    assert bool((change(point, step) <= 1e-12 * point.cost).all())
    assert bool(((step * scale).norm(dim=1) <= 10.0**power * (1 + 1e-9)).all())


def test_reach_stops_at_the_nearest_side() -> None:
    way = torch.tensor([[1.0, -4.0], [0.0, 0.0], [0.1, 0.1]], dtype=F64)
    low, high = torch.full((3, 2), -1.0, dtype=F64), torch.full((3, 2), torch.inf, dtype=F64)
    assert reach(torch.zeros(3, 2, dtype=F64), way, low, high).tolist() == [0.25, 1.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), rows=st.integers(1, 12), columns=st.integers(2, 6), spread=st.floats(0, 7))
@example(seed=0, rows=2, columns=3, spread=4.0)
def test_the_whole_step_as_numpy_lstsq(seed: int, rows: int, columns: int, spread: float) -> None:
    """With room enough the path ends at the minimum of the linear model, however dependent its columns are."""
    drawn, _ = draw(seed, rows, columns)
    # Near-dependent columns, from harmless to beyond what the normal equations bear.
    jacobian = drawn.jacobian.clone()
    jacobian[0, :, 1] = jacobian[0, :, 0] + 10**-spread * jacobian[0, :, 1]
    point = evaluate(lambda _: (drawn.residual, jacobian), drawn.x, lambda r, device: weighting(None, r, device))
    scale = torch.where(point.norms > 0, point.norms, torch.ones_like(point.norms))
    model = DogLeg().model(point, scale, torch.zeros_like(scale, dtype=torch.bool))
    path = DogLeg().path(model, torch.full((4,), 1e60, dtype=F64))
    step = path.last
    assert bool(torch.isfinite(step).all()) and bool(path.full.all())
    for i in range(4):
        norms = np.linalg.norm(jacobian[i].numpy(), axis=0)
        unit = jacobian[i].numpy() / np.where(norms > 0, norms, 1)
        expected = np.linalg.lstsq(unit, -point.residual[i].numpy(), rcond=None)[0]
        left = np.linalg.norm(unit @ expected + point.residual[i].numpy())
        found = np.linalg.norm(unit @ (step[i].numpy() * norms) + point.residual[i].numpy())
        assert found == pytest.approx(left, rel=1e-9, abs=1e-10 + 1e-14 * np.linalg.norm(expected))
        np.testing.assert_allclose(step[i].numpy() * norms, expected, rtol=1e-6, atol=1e-7 * (1 + 10**spread))


def chain(target: Tensor, trials: list[Tensor] | None = None):
    """A curved residual of any size: Rosenbrock's valley along a chain of parameters."""

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        if trials is not None:
            trials.append(x.clone())
        count = x.shape[1]
        residual = torch.cat([3 * (x[:, 1:] - x[:, :-1] ** 2), target - x], 1)
        jacobian = torch.zeros(len(x), 2 * count - 1, count, dtype=x.dtype)
        row = torch.arange(count - 1)
        jacobian[:, row, row] = -6 * x[:, :-1]
        jacobian[:, row, row + 1] = 3
        jacobian[:, count - 1 + torch.arange(count), torch.arange(count)] = -1
        return residual, jacobian

    return problem


@pytest.mark.parametrize("method", ["dogleg", "lm"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), count=st.integers(1, 8), columns=st.integers(2, 5))
def test_a_whole_run(method, seed: int, count: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(count, columns, generator=generator, dtype=F64)
    start = 3 * torch.randn(count, columns, generator=generator, dtype=F64)
    low = torch.where(torch.rand(count, columns, generator=generator) < 0.5, -torch.inf, -0.5).to(F64)
    high = torch.where(torch.rand(count, columns, generator=generator) < 0.5, torch.inf, 0.7).to(F64)
    high[0, 0] = low[0, 0] = 0.1
    free = torch.rand(count, columns, generator=generator) < 0.9
    trials: list[Tensor] = []
    solution = minimise(chain(target, trials), start, low, high, free, method=method, history=True, max_iterations=100)
    # Fixed parameters far off leave residuals so large that Gauss-Newton may creep, but it never gives up.
    assert bool((solution.converged | (solution.status == Status.ITERATION_LIMIT)).all()), solution.status
    for x in trials:
        assert bool((((x >= low) & (x <= high)) | ~free).all())
        assert torch.equal(x[~free], start[~free])
    kept = solution.history
    assert kept is not None
    assert bool((kept.cost.diff(dim=1) <= 0).all())
    # Frozen means frozen: after its last step a problem is only ever evaluated where it ended.
    for i, steps in enumerate(solution.iterations.tolist()):
        assert all(torch.equal(x[i], solution.x[i]) for x in trials[steps + 1 :])
        assert not bool(kept.accepted[i, steps:].any())
        assert int(solution.evaluations[i]) == steps + 1
    # A refused step leaves the cost and shortens the radius; where the first trial is refused the next is closer.
    refused = ~kept.accepted & (torch.arange(kept.accepted.shape[1]) < solution.iterations[:, None])
    assert bool((kept.radius[:, 1:] < kept.radius[:, :-1])[refused].all())
    assert torch.equal(kept.cost[:, 1:][refused], kept.cost[:, :-1][refused])


@pytest.mark.parametrize("method", ["dogleg", "lm"])
@pytest.mark.parametrize("count", [1, 3, 64, 512])
def test_batched_equals_looped_in_any_order(method, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    target = torch.randn(count, 3, generator=generator, dtype=F64)
    start = 2 * torch.randn(count, 3, generator=generator, dtype=F64)
    low = torch.full((count, 3), -torch.inf, dtype=F64)
    low[::3] = -0.2
    together = minimise(chain(target), start, low, method=method, max_iterations=300)
    order = torch.randperm(count, generator=generator)
    shuffled = minimise(chain(target[order]), start[order], low[order], method=method, max_iterations=300)
    torch.testing.assert_close(shuffled.x, together.x[order], atol=1e-9, rtol=1e-9)
    for i in range(0, count, max(1, count // 8)):
        alone = minimise(chain(target[[i]]), start[[i]], low[[i]], method=method, max_iterations=300)
        torch.testing.assert_close(alone.x[0], together.x[i], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(alone.cost[0], together.cost[i], rtol=1e-12, atol=1e-25)


@pytest.mark.parametrize("method", ["dogleg", "lm"])
@pytest.mark.parametrize("count", [2, 33, 200])
def test_regular_and_singular_problems_do_not_notice_each_other(method, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    shapes = torch.randn(count, 6, 4, generator=generator, dtype=F64)
    shapes[::3, :, 3] = shapes[::3, :, 2] * (1 + 1e-9)
    target = 0.3 * torch.randn(count, 6, generator=generator, dtype=F64)
    start = torch.randn(count, 4, generator=generator, dtype=F64)
    start[1, 0] = torch.nan

    def some(rows: Tensor):
        def problem(x: Tensor) -> tuple[Tensor, Tensor]:
            response = torch.tanh((shapes[rows] @ x[:, :, None]).squeeze(2))
            return response - target[rows], (1 - response.square())[:, :, None] * shapes[rows]

        return problem

    low = torch.full((4,), -1.0, dtype=F64)
    together = minimise(some(torch.arange(count)), start, low, method=method, max_iterations=200)
    order = torch.randperm(count, generator=generator)
    shuffled = minimise(some(order), start[order], low, method=method, max_iterations=200)
    torch.testing.assert_close(shuffled.cost, together.cost[order], rtol=1e-9, atol=1e-18)
    for i in range(0, count, max(1, count // 8)):
        alone = minimise(some(torch.tensor([i])), start[[i]], low, method=method, max_iterations=200)
        torch.testing.assert_close(alone.cost[0], together.cost[i], rtol=1e-9, atol=1e-18)
        assert bool(alone.converged[0]) == bool(together.converged[i])
    assert together.status[1] == Status.NOT_FINITE_START


def test_the_same_twice() -> None:
    generator = torch.Generator().manual_seed(8)
    target, start = (torch.randn(20, 4, generator=generator, dtype=F64) for _ in range(2))
    one, two = (minimise(chain(target), start) for _ in range(2))
    assert torch.equal(one.x, two.x) and torch.equal(one.status, two.status)
