"""Why a problem ended, and what to do about it."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """How a problem ended; `advice` says in one sentence what that means for its user."""

    ITERATION_LIMIT = 0
    GRADIENT = 1
    STEP = 2
    COST = 3
    ROUNDING = 4
    STALLED = 5
    NOT_FINITE_START = 6

    @property
    def converged(self) -> bool:
        """Whether the point is a solution as far as the tolerances ask."""
        return self in (Status.GRADIENT, Status.STEP, Status.COST, Status.ROUNDING)

    @property
    def advice(self) -> str:
        """One sentence for the user."""
        return _ADVICE[self]


_ADVICE = {
    Status.ITERATION_LIMIT: "The iterations ran out before a tolerance was met: allow more of them, or start closer.",
    Status.GRADIENT: "Converged: no free parameter away from its bounds changes the cost to first order.",
    Status.STEP: "Converged: the full step is shorter than the step tolerance.",
    Status.COST: "Converged: neither the model nor the last step lowers the cost by more than the cost tolerance.",
    Status.ROUNDING: "Converged: what is left to gain is lost in the rounding of the cost.",
    Status.STALLED: "Every step, however short, was refused: check the Jacobian against differences and the residual "
    "for jumps and for places where it is not finite.",
    Status.NOT_FINITE_START: "The residual or the Jacobian is not finite at the start: start where both are.",
}
