"""Three ways to the same Jacobian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepenergy.solve import Problem, difference_jacobian, forward_jacobian, reverse_jacobian

F64 = torch.float64
OFFSET = torch.linspace(0, 1, 5, dtype=F64)[:, None]


def residual(x: Tensor) -> Tensor:
    """`[5, 3]` to `[5, 4]`, each problem with its own data."""
    offset = OFFSET[: len(x)]
    a, b, c = x[:, :1], x[:, 1:2], x[:, 2:]
    return torch.cat([a * b + offset, torch.exp(c * 0.3) - a, torch.sin(b * c) * offset, c**3 / (1 + a * a)], 1)


def expected(x: Tensor) -> Tensor:
    full = torch.autograd.functional.jacobian(residual, x)
    assert isinstance(full, Tensor)
    return full.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("problem", "digits"),
    [
        (reverse_jacobian(residual), 1e-13),
        (reverse_jacobian(residual, chunk_size=3), 1e-13),
        (forward_jacobian(residual), 1e-13),
        (forward_jacobian(residual, chunk_size=2), 1e-13),
        (difference_jacobian(residual), 1e-8),
    ],
)
def test_agrees_with_autograd(problem: Problem, digits: float) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    value, jacobian = problem(x)
    torch.testing.assert_close(value, residual(x))
    torch.testing.assert_close(jacobian, expected(x), atol=digits, rtol=digits)
    assert not value.requires_grad and not jacobian.requires_grad


@pytest.mark.parametrize("make", [reverse_jacobian, forward_jacobian, difference_jacobian])
def test_an_empty_batch(make) -> None:
    value, jacobian = make(residual)(torch.zeros(0, 3, dtype=F64))
    assert value.shape == (0, 4) and jacobian.shape == (0, 4, 3)


@pytest.mark.parametrize("make", [reverse_jacobian, forward_jacobian, difference_jacobian])
def test_a_residual_of_the_wrong_shape(make) -> None:
    with pytest.raises(ValueError, match=r"expected \[S, R\]"):
        make(lambda x: x.sum(1))(torch.ones(2, 3, dtype=F64))


def test_differences_of_small_and_large_parameters() -> None:
    x = torch.tensor([[1e-4, 1e6]], dtype=F64)
    _, jacobian = difference_jacobian(lambda x: torch.exp(x * torch.tensor([1e3, 1e-6], dtype=F64)), typical=1e-4)(x)
    wanted = torch.exp(torch.tensor([0.1, 1.0], dtype=F64)) * torch.tensor([1e3, 1e-6], dtype=F64)
    torch.testing.assert_close(jacobian[0].diagonal(), wanted, rtol=1e-8, atol=0)
