"""How well the data hold the parameters: covariance at a solution.

    C = s^2 (J^T J)^-1 over the free columns,    s^2 = 2 cost / (R - P_free)

the first-order covariance under residuals of equal, independent variance, which s^2 estimates. From the QR of J with
unit columns, never from the product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.solve.solution import Solution


class Covariance(NamedTuple):
    """Covariance `[S, P, P]` and whether it exists `[S]`; NaN where it does not, 0 in rows of fixed parameters."""

    matrix: Float[Tensor, "s p p"]
    exists: Bool[Tensor, " s"]


def covariance(solution: Solution, *, strict: bool = True) -> Covariance:
    """Covariance of the free parameters; those at a bound count as free.

    Args:
        solution: of `minimise`; with robust kernels its Jacobian and cost are the weighted ones.
        strict: raise where a problem has none, rather than tell it in `exists`.

    Raises:
        ValueError: `strict`, and a problem that has no more residuals than free parameters, whose Jacobian is singular
            to rounding, or that is not finite. Says which.
    """
    jacobian, free = solution.jacobian, solution.free.to(solution.jacobian)
    finite = torch.isfinite(jacobian).all(2).all(1) & torch.isfinite(solution.cost)
    jacobian = torch.where(finite[:, None, None], jacobian, torch.zeros_like(jacobian)) * free[:, None, :]
    norms = torch.linalg.vector_norm(jacobian, dim=1)
    inverse = 1 / torch.where(norms > 0, norms, torch.ones_like(norms))
    # A fixed column is made a unit row of its own: regular, and nothing to do with the others.
    scaled = torch.cat([jacobian * inverse[:, None, :], torch.diag_embed(1 - free)], 1)
    r = torch.linalg.qr(scaled, mode="r").R
    values = torch.linalg.svdvals(r)
    least = torch.finfo(values.dtype).eps * max(jacobian.shape[1:])
    spare = jacobian.shape[1] - solution.free.sum(1)
    regular = (values > least * values[:, :1]).all(1)
    exists = finite & (spare > 0) & regular & ((norms > 0) | ~solution.free).all(1)
    if strict and not bool(exists.all()):
        which = torch.nonzero(~exists).squeeze(1).tolist()
        raise ValueError(
            f"covariance: problems {which[:8]}{'...' if len(which) > 8 else ''}: the Jacobian is singular, not finite, "
            "or has no more rows than free parameters; fix the parameters that the residuals do not determine"
        )
    eye = torch.eye(r.shape[2], dtype=r.dtype, device=r.device).expand_as(r)
    root = torch.linalg.solve_triangular(torch.where(exists[:, None, None], r, eye), eye, upper=True)
    root = root * (inverse * free)[:, :, None]
    variance = 2 * solution.cost / spare.clamp_min(1)
    matrix = variance[:, None, None] * (root @ root.mT)
    return Covariance(torch.where(exists[:, None, None], matrix, torch.full_like(matrix, torch.nan)), exists)
