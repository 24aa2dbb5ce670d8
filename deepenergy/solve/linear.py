"""The linear least-squares problem at a point: `min |J s + r|` over the free columns, for a batch.

Columns are brought to unit length first, so that the condition is that of the problem and not that of its units. The
quick way is the Cholesky factor of `J^T J`, refined once or twice with residuals formed from J itself (the corrected
seminormal equations, Bjorck 1987), which gives the accuracy of a QR while `cond(J)^2 eps` is well below 1. Small pivots
say that it is not; those problems take the orthogonal way: QR, then the singular values of R, of which those below
`eps max(R, P)` times the largest count as zero. Their step is the shortest of the minimisers, in units of the scaled
columns, so that a parameter without influence stays where it is.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# With unit columns a pivot is the distance of a column from the span of those before it: the condition is at least 1
# over it, and below about this the refinement no longer gains six digits a time.
_SMALLEST_PIVOT = 1e-5
_SMALLEST_PRODUCT = 1e-6
# Above this one refinement is enough, ...
_FAIR_PIVOT = 0.03
# ... and above this products with J^T J keep twelve digits.
_EASY_PIVOT = 0.1


def gauss_newton(
    jacobian: Float[Tensor, "s r p"],
    residual: Float[Tensor, "s r"],
    gradient: Float[Tensor, "s p"],
    normal: Float[Tensor, "s p p"],
    free: Float[Tensor, "s p"],
) -> tuple[Float[Tensor, "s p"], Bool[Tensor, " s"]]:
    """The step to the minimum of the linear model over the columns where `free` is 1; 0 elsewhere.

    `gradient` is `J^T r`, `normal` is `J^T J`. Also says where the columns are so far from dependent that products with
    `normal` are as good as those with J.
    """
    norms = normal.diagonal(dim1=1, dim2=2).sqrt()
    free = free * (norms > 0)
    inverse = free / torch.where(norms > 0, norms, torch.ones_like(norms))
    normal = normal * inverse[:, :, None] * inverse[:, None, :]
    normal.diagonal(dim1=1, dim2=2).add_(1 - free)
    factor, failed = torch.linalg.cholesky_ex(normal)
    pivots = torch.nan_to_num(factor.diagonal(dim1=1, dim2=2), nan=0.0).sort(1).values
    pivot = pivots[:, 0]
    # Behind one small pivot another can be rounding alone: its square is known to about eps over the other's.
    known = pivot * pivots[:, 1] > _SMALLEST_PRODUCT if pivots.shape[1] > 1 else pivot > 0
    good = (failed == 0) & (pivot > _SMALLEST_PIVOT) & known
    step = torch.zeros_like(free)
    if bool(good.any()):
        step = -inverse * torch.cholesky_solve((inverse * gradient)[:, :, None], factor).squeeze(2)
        step = _refine(step, jacobian, residual, inverse, factor)
        again = torch.nonzero(good & (pivot < _FAIR_PIVOT)).squeeze(1)
        if len(again):
            better = _refine(step[again], jacobian[again], residual[again], inverse[again], factor[again])
            step = step.index_copy(0, again, better)
        good = good & torch.isfinite(step).all(1)
    if not bool(good.all()):
        poor = torch.nonzero(~good).squeeze(1)
        step = step.index_copy(0, poor, _orthogonal(jacobian[poor], residual[poor], inverse[poor]))
    return step, good & (pivot >= _EASY_PIVOT)


def _refine(step: Tensor, jacobian: Tensor, residual: Tensor, inverse: Tensor, factor: Tensor) -> Tensor:
    left = residual + (jacobian @ step[:, :, None]).squeeze(2)
    right = inverse * (left[:, None, :] @ jacobian).squeeze(1)
    return step - inverse * torch.cholesky_solve(right[:, :, None], factor).squeeze(2)


def _orthogonal(jacobian: Tensor, residual: Tensor, inverse: Tensor) -> Tensor:
    q, r = torch.linalg.qr(jacobian * inverse[:, None, :])
    u, values, vt = torch.linalg.svd(r, full_matrices=False)
    least = torch.finfo(values.dtype).eps * max(jacobian.shape[1:]) * values[:, :1]
    kept = values > least
    turned = u.mT @ (q.mT @ residual[:, :, None])
    share = torch.where(kept, 1 / torch.where(kept, values, torch.ones_like(values)), torch.zeros_like(values))
    return -(vt.mT @ (share[:, :, None] * turned)).squeeze(2) * inverse
