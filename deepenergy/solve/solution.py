"""What a minimisation returns."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.solve.status import Status


@dataclass(frozen=True)
class History:
    """What was tried, one column per iteration; a finished problem repeats its last cost and is not accepted.

    Attributes:
        cost: `[S, T + 1]`, from the start on.
        radius: `[S, T + 1]`, the radius that the next step was (or would be) held to.
        accepted: `[S, T]`.
        gain: `[S, T]`, actual over predicted decrease.
    """

    cost: Float[Tensor, "s t+1"]
    radius: Float[Tensor, "s t+1"]
    accepted: Bool[Tensor, "s t"]
    gain: Float[Tensor, "s t"]


@dataclass(frozen=True)
class Solution:
    """Where the problems ended.

    Attributes:
        x: `[S, P]`, within the bounds.
        cost: `[S]`, half the squared norm of the residual; with kernels half the sum of their values.
        status: `[S]` int64, values of `Status`.
        converged: `[S]` bool, whether the status is one of convergence.
        iterations: `[S]` int64, steps tried, accepted or not.
        evaluations: `[S]` int64, points at which the problem was evaluated while it was under way.
        residual: `[S, R]` at the solution, as the problem gave it.
        jacobian: `[S, R, P]` at the solution; with kernels its rows carry the roots of their weights.
        free: `[S, P]` bool, parameters that were not fixed by the mask or by equal bounds.
        history: on request.
    """

    x: Float[Tensor, "s p"]
    cost: Float[Tensor, " s"]
    status: Int[Tensor, " s"]
    converged: Bool[Tensor, " s"]
    iterations: Int[Tensor, " s"]
    evaluations: Int[Tensor, " s"]
    residual: Float[Tensor, "s r"]
    jacobian: Float[Tensor, "s r p"]
    free: Bool[Tensor, "s p"]
    history: History | None = None

    @property
    def normal(self) -> Float[Tensor, "s p p"]:
        """`J^T J` at the solution."""
        return self.jacobian.mT @ self.jacobian

    def advice(self, index: int) -> str:
        """Why problem `index` ended, in one sentence."""
        return Status(int(self.status[index])).advice
