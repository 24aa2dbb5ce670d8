"""Robust kernels against scipy's, their own derivatives, and hand-made outliers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from deepenergy.solve import Block, Cauchy, GemanMcClure, Huber, Kernel, Welsch, forward_jacobian, minimise
from deepenergy.solve.kernels import weighting

F64 = torch.float64
KERNELS = [Huber(0.7), Cauchy(0.7), GemanMcClure(0.7), Welsch(0.7)]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_derivative_and_behaviour_at_zero(kernel: Kernel) -> None:
    square = torch.tensor([0.0, 1e-9, 0.1, 0.4, 0.48, 0.5, 2.0, 50.0], dtype=F64, requires_grad=True)
    value, slope = kernel.rho(square)
    torch.testing.assert_close(slope, torch.autograd.grad(value.sum(), square)[0])
    square, value, slope = square.detach(), value.detach(), slope.detach()
    assert float(value[0]) == 0 and float(slope[0]) == 1
    assert bool((value <= square + 1e-15).all()) and bool((slope <= 1).all()) and bool((slope[1:] <= slope[:-1]).all())
    assert bool(torch.isfinite(kernel.rho(torch.tensor([1e300], dtype=F64))[0]).all())


def test_closed_forms() -> None:
    square = torch.tensor([0.25, 4.0], dtype=F64)
    expected = {
        Huber: [0.25, 3.0],
        Cauchy: [np.log(1.25), np.log(5.0)],
        GemanMcClure: [0.2, 0.8],
        Welsch: [1 - np.exp(-0.25), 1 - np.exp(-4.0)],
    }
    for kernel, values in expected.items():
        torch.testing.assert_close(kernel(1.0).rho(square)[0], torch.tensor(values, dtype=F64))
        # A kernel of another scale is the same curve in another unit.
        torch.testing.assert_close(kernel(10.0).rho(100 * square)[0], 100 * torch.tensor(values, dtype=F64))


def exponential(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 4, 40)
    y = 2.5 * np.exp(-0.8 * t) + 0.4 + rng.normal(0, 0.02, 40)
    y[rng.choice(40, 6, replace=False)] += rng.uniform(0.5, 2, 6)
    return t, y


@pytest.mark.parametrize(("kernel", "loss"), [(Huber(0.05), "huber"), (Cauchy(0.05), "cauchy")])
def test_fits_as_scipy_does(kernel: Kernel, loss: str) -> None:
    data = [exponential(seed) for seed in range(5)]
    t, y = torch.from_numpy(data[0][0]), torch.from_numpy(np.stack([d[1] for d in data]))

    def residual(x: Tensor) -> Tensor:
        return x[:, :1] * torch.exp(-x[:, 1:2] * t) + x[:, 2:] - y

    start = torch.ones(5, 3, dtype=F64)
    solution = minimise(forward_jacobian(residual), start, kernels=[Block(slice(None), kernel)], max_iterations=300)
    assert bool(solution.converged.all())
    for i, (time, value) in enumerate(data):
        expected = scipy.optimize.least_squares(
            lambda p, time=time, value=value: p[0] * np.exp(-p[1] * time) + p[2] - value,
            np.ones(3), loss=loss, f_scale=0.05, xtol=1e-12, ftol=1e-12, gtol=1e-12,
        )  # fmt: skip
        assert float(solution.cost[i]) == pytest.approx(expected.cost, rel=1e-7)
        np.testing.assert_allclose(solution.x[i].numpy(), expected.x, rtol=1e-4)


@pytest.mark.parametrize("kernel", [Cauchy(0.1), GemanMcClure(0.1), Welsch(0.1)], ids=lambda k: type(k).__name__)
def test_a_far_outlier_has_no_say(kernel: Kernel) -> None:
    points = torch.tensor([[0.0, 0.0], [0.02, 0.0], [0.0, 0.02], [0.02, 0.02], [30.0, -40.0]], dtype=F64)

    def residual(x: Tensor) -> Tensor:
        return (x[:, None] - points).flatten(1)

    start = torch.full((1, 2), 0.05, dtype=F64)
    block = Block(slice(None), kernel, group_size=2)
    solution = minimise(forward_jacobian(residual), start, kernels=[block])
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.x, torch.full((1, 2), 0.01, dtype=F64), atol=1e-4, rtol=0)


def test_a_group_counts_as_one_whichever_way_it_points() -> None:
    turned = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, -5.0]], dtype=F64)
    weigh = weighting([Block(slice(None), Huber(1.0), 2)], 2, torch.device("cpu"))
    cost, roots = weigh(turned)
    torch.testing.assert_close(cost, torch.full((3,), 4.5, dtype=F64))
    assert roots is not None
    torch.testing.assert_close(roots, torch.full((3, 2), 0.2**0.5, dtype=F64))


def test_gradient_of_the_weighted_residual_is_that_of_the_cost() -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 4, generator=generator, dtype=F64)
    blocks = [
        Block(slice(0, 4), Welsch(0.8), 2),
        Block(torch.tensor([9, 5, 7]), GemanMcClure(0.5), 3),
        Block(slice(10, 12), Cauchy(0.3)),
    ]
    weigh = weighting(blocks, 12, torch.device("cpu"))
    x = torch.randn(3, 4, generator=generator, dtype=F64, requires_grad=True)
    residual = x @ matrix.T
    cost, roots = weigh(residual)
    gradient = torch.autograd.grad(cost.sum(), x)[0]
    assert roots is not None
    torch.testing.assert_close((roots.square() * residual) @ matrix, gradient)


def test_blocks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="whole groups"):
        weighting([Block(slice(0, 3), Huber(), 2)], 4, torch.device("cpu"))
    with pytest.raises(ValueError, match="two blocks"):
        weighting([Block(slice(0, 3), Huber()), Block(slice(2, 4), Huber())], 4, torch.device("cpu"))
    with pytest.raises(ValueError, match="positive"):
        Huber(0.0)
