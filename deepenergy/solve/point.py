"""The accepted points of a batch: what was evaluated there, and what steps are measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.solve.jacobians import Problem
from deepenergy.solve.kernels import Weighting


@dataclass
class Point:
    """An evaluation of every problem.

    `raw` is the residual as given; `residual` and `jacobian` carry the roots of the kernels' weights. `gradient` is
    `J^T r`, `normal` is `J^T J`, `norms` are the column lengths of the Jacobian, `damping` is what bounds add to
    the diagonal of `J^T J` (bounds.py), 0 when evaluated. `finite` says where everything is
    finite; elsewhere the cost is infinite and the rest is zero, so that no operation on the batch meets a NaN.
    """

    x: Float[Tensor, "s p"]
    cost: Float[Tensor, " s"]
    raw: Float[Tensor, "s r"]
    residual: Float[Tensor, "s r"]
    jacobian: Float[Tensor, "s r p"]
    gradient: Float[Tensor, "s p"]
    normal: Float[Tensor, "s p p"]
    norms: Float[Tensor, "s p"]
    damping: Float[Tensor, "s p"]
    finite: Bool[Tensor, " s"]

    def accept(self, other: Point, accepted: Bool[Tensor, " s"]) -> Point:
        """The point with the rows of `other` where accepted."""
        if bool(accepted.all()):
            return other
        row, column, matrix = accepted, accepted[:, None], accepted[:, None, None]
        return Point(
            torch.where(column, other.x, self.x),
            torch.where(row, other.cost, self.cost),
            torch.where(column, other.raw, self.raw),
            torch.where(column, other.residual, self.residual),
            torch.where(matrix, other.jacobian, self.jacobian) if bool(accepted.any()) else self.jacobian,
            torch.where(column, other.gradient, self.gradient),
            torch.where(matrix, other.normal, self.normal),
            torch.where(column, other.norms, self.norms),
            torch.where(column, other.damping, self.damping),
            torch.where(row, other.finite, self.finite),
        )

    def stretch(self, steps: Float[Tensor, "s p k"], well_conditioned: Bool[Tensor, " s"]) -> Float[Tensor, "s k"]:
        """`|J s|^2`, and the damping: from `J^T J` where that is as good, from J elsewhere."""
        return self._stretch(steps, well_conditioned) + (self.damping[:, :, None] * steps.square()).sum(1)

    def _stretch(self, steps: Tensor, well_conditioned: Tensor) -> Tensor:
        if bool(well_conditioned.any()):
            square = (steps * (self.normal @ steps)).sum(1).clamp_min(0)
            hard = torch.nonzero(~well_conditioned).squeeze(1)
            if len(hard) == 0:
                return square
            return square.index_copy(0, hard, (self.jacobian[hard] @ steps[hard]).square().sum(1))
        return (self.jacobian @ steps).square().sum(1)

    def rows(self, rows: Int[Tensor, " n"]) -> Point:
        """The points of some problems."""
        return Point(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


Weigher = Callable[[int, torch.device], Weighting]


def evaluate(problem: Problem, x: Float[Tensor, "s p"], weigher: Weigher) -> Point:
    """Evaluate the batch at `x`.

    Raises:
        ValueError: shapes that do not fit.
    """
    raw, jacobian = problem(x)
    if raw.dim() != 2 or len(raw) != len(x) or jacobian.shape != (*raw.shape, x.shape[1]):
        raise ValueError(
            f"problem: residual {tuple(raw.shape)}, Jacobian {tuple(jacobian.shape)} for parameters {tuple(x.shape)}: "
            "expected [S, R] and [S, R, P] for [S, P]"
        )
    raw, jacobian = raw.detach(), jacobian.detach()
    cost, roots = weigher(raw.shape[1], raw.device)(raw)
    residual = raw if roots is None else raw * roots
    jacobian = jacobian if roots is None else jacobian * roots[:, :, None]
    normal = jacobian.mT @ jacobian
    norms = normal.diagonal(dim1=1, dim2=2).sqrt()
    finite = torch.isfinite(x).all(1) & torch.isfinite(cost) & torch.isfinite(norms).all(1)
    if not bool(finite.all()):
        cost = torch.where(finite, cost, torch.full_like(cost, torch.inf))
        residual = torch.where(finite[:, None], residual, torch.zeros_like(residual))
        jacobian = torch.where(finite[:, None, None], jacobian, torch.zeros_like(jacobian))
        normal = torch.where(finite[:, None, None], normal, torch.zeros_like(normal))
        norms = torch.where(finite[:, None], norms, torch.zeros_like(norms))
    gradient = (residual[:, None, :] @ jacobian).squeeze(1)
    return Point(x, cost, raw, residual, jacobian, gradient, normal, norms, torch.zeros_like(x), finite)
