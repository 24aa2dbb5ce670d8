"""The linear least-squares problem at a point: `min |J s + r|` over the free columns, for a batch.

Columns are brought to unit length first, so that the condition is that of the problem and not that of its units. The
Cholesky factor of `J^T J`, refined once or twice with residuals formed from J itself (the corrected seminormal
equations, Bjorck 1987), gives the accuracy of a QR while `cond(J)^2 eps` is well below 1. Small pivots say that it is
not: such problems are left to their singular values.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.solve.point import Point

# With unit columns a pivot is the distance of a column from the span of those before it, and the condition is at least
# 1 over it. The refinement gains six digits a time down to 1e-5, but long before that the Gauss-Newton point is decided
# by what the residuals hardly determine, and lies outside of any radius in which the model holds.
_SMALLEST_PIVOT = 1e-3
_SMALLEST_PRODUCT = 1e-6
# Above this one refinement is enough, ...
_FAIR_PIVOT = 0.03
# ... and above this products with J^T J keep twelve digits.
_EASY_PIVOT = 0.1


def gauss_newton(
    point: Point, free: Float[Tensor, "s p"]
) -> tuple[Float[Tensor, "s p"], Bool[Tensor, " s"], Bool[Tensor, " s"]]:
    """The step to the minimum of the linear model over the columns where `free` is 1; 0 elsewhere.

    Also says which problems are regular (the step of the others is to be disregarded), and where the columns are so far
    from dependent that products with `J^T J` are as good as those with J.
    """
    norms = (point.norms.square() + point.damping).sqrt()
    free = free * (norms > 0)
    inverse = free / torch.where(norms > 0, norms, torch.ones_like(norms))
    normal = point.normal * inverse[:, :, None] * inverse[:, None, :]
    normal.diagonal(dim1=1, dim2=2).add_(1 - free + point.damping * inverse.square())
    factor, failed = torch.linalg.cholesky_ex(normal)
    pivots = torch.nan_to_num(factor.diagonal(dim1=1, dim2=2), nan=0.0).sort(1).values
    pivot = pivots[:, 0]
    # Behind one small pivot another can be rounding alone: its square is known to about eps over the other's.
    known = pivot * pivots[:, 1] > _SMALLEST_PRODUCT if pivots.shape[1] > 1 else pivot > 0
    good = (failed == 0) & (pivot > _SMALLEST_PIVOT) & known
    step = torch.zeros_like(free)
    if bool(good.any()):
        step = -inverse * torch.cholesky_solve((inverse * point.gradient)[:, :, None], factor).squeeze(2)
        step = _refine(step, point.jacobian, point.residual, point.damping, inverse, factor)
        again = torch.nonzero(good & (pivot < _FAIR_PIVOT)).squeeze(1)
        if len(again):
            some = (point.jacobian[again], point.residual[again], point.damping[again])
            better = _refine(step[again], *some, inverse[again], factor[again])
            step = step.index_copy(0, again, better)
        good = good & torch.isfinite(step).all(1)
    return torch.where(good[:, None], step, torch.zeros_like(step)), good, good & (pivot >= _EASY_PIVOT)


def _refine(
    step: Tensor, jacobian: Tensor, residual: Tensor, damping: Tensor, inverse: Tensor, factor: Tensor
) -> Tensor:
    left = residual + (jacobian @ step[:, :, None]).squeeze(2)
    right = inverse * ((left[:, None, :] @ jacobian).squeeze(1) + damping * step)
    return step - inverse * torch.cholesky_solve(right[:, :, None], factor).squeeze(2)
