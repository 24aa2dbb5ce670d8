"""Covariance against scipy's curve_fit and the textbook formula."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from deepenergy.solve import Problem, covariance, forward_jacobian, minimise

F64 = torch.float64


def decay(t: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return a * np.exp(-b * t) + c


def test_as_curve_fit() -> None:
    t = np.linspace(0, 3, 25)
    rng = np.random.default_rng(1)
    y = np.stack([decay(t, *p) + rng.normal(0, 0.05, 25) for p in ((2, 1, 0.5), (1000, 0.3, 4), (3, 2, -1))])
    time, values = torch.from_numpy(t), torch.from_numpy(y)

    def residual(x: Tensor) -> Tensor:
        return x[:, :1] * torch.exp(-x[:, 1:2] * time) + x[:, 2:] - values

    start = torch.tensor([[1.0, 1, 1], [500, 0.5, 1], [1, 1, 1]], dtype=F64)
    solution = minimise(forward_jacobian(residual), start, max_iterations=200)
    assert bool(solution.converged.all())
    found = covariance(solution)
    assert bool(found.exists.all())
    for i in range(3):
        _, expected = scipy.optimize.curve_fit(decay, t, y[i], p0=solution.x[i].numpy())
        np.testing.assert_allclose(found.matrix[i].numpy(), expected, rtol=1e-4)


def linear(matrix: Tensor, right: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda x: ((matrix @ x[:, :, None]).squeeze(2) - right, matrix)


def test_fixed_parameters_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix, right = (
        torch.randn(2, 9, 4, generator=generator, dtype=F64),
        torch.randn(2, 9, generator=generator, dtype=F64),
    )
    free = torch.tensor([True, False, True, True])
    solution = minimise(linear(matrix, right), torch.zeros(2, 4, dtype=F64), free=free)
    found = covariance(solution).matrix
    kept = matrix[:, :, free]
    variance = 2 * solution.cost / (9 - 3)
    torch.testing.assert_close(found[:, free][:, :, free], variance[:, None, None] * torch.linalg.inv(kept.mT @ kept))
    assert not bool(found[:, 1].any()) and not bool(found[:, :, 1].any())


@pytest.fixture
def mixed() -> Problem:
    """Regular, singular, and not finite."""
    generator = torch.Generator().manual_seed(5)
    matrix = torch.randn(3, 6, 2, generator=generator, dtype=F64)
    matrix[1, :, 1] = -2 * matrix[1, :, 0]
    matrix[2, 0, 0] = torch.nan
    return linear(matrix, torch.ones(3, 6, dtype=F64))


def test_refuses_where_singular(mixed: Problem) -> None:
    solution = minimise(mixed, torch.zeros(3, 2, dtype=F64))
    with pytest.raises(ValueError, match=r"problems \[1, 2\]"):
        covariance(solution)
    found = covariance(solution, strict=False)
    assert found.exists.tolist() == [True, False, False]
    assert bool(torch.isfinite(found.matrix[0]).all()) and bool(torch.isnan(found.matrix[1:]).all())


def test_refuses_without_spare_residuals() -> None:
    square = torch.eye(2, dtype=F64)[None]
    solution = minimise(linear(square, torch.ones(1, 2, dtype=F64)), torch.zeros(1, 2, dtype=F64))
    with pytest.raises(ValueError, match="no more rows"):
        covariance(solution)
