"""Three ways to a Jacobian: turn `residual(x [S, P]) -> [S, R]` into a problem.

The residual treats its S rows as independent problems, so that one derivative of the whole batch along the same
parameter (or back from the same residual) is S derivatives at once:

- reverse: R vector-Jacobian products (vjp), one row of every Jacobian each; for R < P.
- forward: P Jacobian-vector products (jvp), one column of every Jacobian each; for P < R.
- central differences: 2 P evaluations; for residuals that torch cannot differentiate. The error is
  `O(h^2) + O(eps / h)`, which `h ~ eps^(1/3)` balances at about ten digits of float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Residual = Callable[[Tensor], Tensor]
Problem = Callable[[Tensor], tuple[Tensor, Tensor]]


@runtime_checkable
class DivisibleProblem(Protocol):
    """A problem that can give some of its problems alone."""

    def __call__(self, x: Float[Tensor, "s p"], /) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        """Residuals and Jacobians at `x`."""
        ...

    def take(self, rows: Int[Tensor, " n"]) -> DivisibleProblem:
        """The problems of these rows."""
        ...


def reverse_jacobian(residual: Residual, chunk_size: int | None = None) -> Problem:
    """A problem whose Jacobian comes by reverse mode, `chunk_size` rows at a time (all at once when None)."""

    def problem(x: Float[Tensor, "s p"]) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        value, vjp = torch.func.vjp(residual, x)[:2]
        _check(x, value)
        rows = torch.eye(value.shape[1], dtype=value.dtype, device=value.device)
        if len(rows) == 0 or len(x) == 0:
            return value.detach(), x.new_zeros(*value.shape, x.shape[1])
        jacobian = torch.func.vmap(lambda row: vjp(row.expand_as(value))[0], chunk_size=chunk_size)(rows)
        return value.detach(), jacobian.detach().transpose(0, 1)

    return problem


def forward_jacobian(residual: Residual, chunk_size: int | None = None) -> Problem:
    """A problem whose Jacobian comes by forward mode, `chunk_size` columns at a time (all at once when None)."""

    def problem(x: Float[Tensor, "s p"]) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        if x.numel() == 0:
            value = residual(x)
            _check(x, value)
            return value, x.new_zeros(*value.shape, x.shape[1])
        columns = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

        def jvp(column: Tensor) -> tuple[Tensor, Tensor]:
            value, change = torch.func.jvp(residual, (x,), (column.expand_as(x),))[:2]
            _check(x, value)
            return value, change

        # The value does not depend on the column: out of each vmap once, which torch's annotations forget.
        once = cast(Any, (None, 2))
        parts = [torch.func.vmap(jvp, out_dims=once)(some) for some in columns.split(chunk_size or len(columns))]
        return parts[0][0].detach(), torch.cat([change for _, change in parts], 2).detach()

    return problem


def difference_jacobian(residual: Residual, typical: float | Float[Tensor, " p"] = 1e-3) -> Problem:
    """A problem whose Jacobian comes by central differences.

    Args:
        residual: also evaluated next to the bounds, up to `6e-6 max(|x|, typical)` outside of them.
        typical: size below which a parameter counts as zero; the differences of `x` are `eps^(1/3) max(|x|, typical)`.
    """

    def problem(x: Float[Tensor, "s p"]) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        value = residual(x)
        _check(x, value)
        least = torch.as_tensor(typical, dtype=x.dtype, device=x.device)
        length = torch.finfo(x.dtype).eps ** (1 / 3) * torch.maximum(x.abs(), least)
        jacobian = x.new_empty(*value.shape, x.shape[1])
        for p in range(x.shape[1]):
            ahead, behind = x.clone(), x.clone()
            ahead[:, p] += length[:, p]
            behind[:, p] -= length[:, p]
            # Divided by the difference that float arithmetic made of the wanted one.
            run = (ahead[:, p] - behind[:, p])[:, None]
            jacobian[:, :, p] = (residual(ahead) - residual(behind)) / run
        return value, jacobian

    return problem


def _check(x: Tensor, value: Tensor) -> None:
    if value.dim() != 2 or len(value) != len(x):
        raise ValueError(f"residual: {tuple(value.shape)} for parameters {tuple(x.shape)}: expected [S, R] for [S, P]")
