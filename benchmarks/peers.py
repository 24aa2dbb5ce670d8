"""Our two methods and scipy's three on one problem, under the same conditions, for the tables that compare them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from torch import Tensor

from deepenergy.solve import Problem, Status, minimise

OURS = ("dogleg", "lm")
SCIPY = ("trf", "dogbox", "lm")
SOLVERS = (*OURS, *(f"scipy {name}" for name in SCIPY))

MAX_ITERATIONS = 1000
# The same for all. scipy's gradient tolerance is absolute in trf and dogbox, which no one value fits: it is set to the
# least that scipy takes without a warning, and the other two end the search.
STEP_TOLERANCE = 1e-12
COST_TOLERANCE = 1e-15
GRADIENT_TOLERANCE = 1e-12
_SCIPY_GRADIENT_TOLERANCE = 1e-15


@dataclass(frozen=True)
class Result:
    """Where a solver ended.

    Attributes:
        x: `[P]`; the start where scipy refused the problem.
        sum_of_squares: of the residuals there; infinite where there is none.
        evaluations: of the residual.
        ended: why, in a word or two.
    """

    x: Float[Tensor, " p"]
    sum_of_squares: float
    evaluations: int
    ended: str


def solve(
    solver: str,
    problem: Problem,
    start: Float[Tensor, " p"],
    lower: Float[Tensor, " p"] | None = None,
    upper: Float[Tensor, " p"] | None = None,
) -> Result | None:
    """Solve with one of `SOLVERS`; None for scipy's lm where there are bounds or fewer residuals than parameters."""
    if solver in OURS:
        solution = minimise(
            problem,
            start[None],
            lower,
            upper,
            method=solver,  # pyright: ignore[reportArgumentType]
            max_iterations=MAX_ITERATIONS,
            gradient_tolerance=GRADIENT_TOLERANCE,
            step_tolerance=STEP_TOLERANCE,
            cost_tolerance=COST_TOLERANCE,
        )
        status = Status(int(solution.status[0])).name.lower()
        return Result(solution.x[0], 2 * float(solution.cost[0]), int(solution.evaluations[0]), status)
    return _scipy(solver.removeprefix("scipy "), problem, start, lower, upper)


def _scipy(method: str, problem: Problem, start: Tensor, lower: Tensor | None, upper: Tensor | None) -> Result | None:
    low = torch.full_like(start, -torch.inf) if lower is None else lower
    high = torch.full_like(start, torch.inf) if upper is None else upper
    # scipy refuses a start outside of the bounds, where deepenergy moves it onto them, and bounds that are equal.
    begin = torch.minimum(torch.maximum(start, low), high)
    free = low < high

    # Residual and Jacobian come together, and scipy asks for them one after the other.
    @lru_cache(maxsize=1)
    def evaluate(key: bytes) -> tuple[np.ndarray, np.ndarray]:
        x = torch.tensor(np.frombuffer(key))
        residual, jacobian = problem(begin.masked_scatter(free, x)[None])
        return residual[0].numpy(), jacobian[0][:, free].contiguous().numpy()

    def fun(x: np.ndarray) -> np.ndarray:
        return evaluate(x.tobytes())[0].copy()

    def jac(x: np.ndarray) -> np.ndarray:
        return evaluate(x.tobytes())[1].copy()

    bounded = bool(torch.isfinite(torch.cat([low, high])).any())
    if method == "lm" and (bounded or len(fun(begin[free].numpy())) < int(free.sum())):
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Steps into overflow are the problems' nature.
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            found = least_squares(
                fun, begin[free].numpy(), jac,  # pyright: ignore[reportArgumentType]
                (low[free].numpy(), high[free].numpy()), method=method, x_scale="jac",
                ftol=COST_TOLERANCE, xtol=STEP_TOLERANCE, gtol=_SCIPY_GRADIENT_TOLERANCE, max_nfev=MAX_ITERATIONS,
            )  # fmt: skip
        except (ValueError, np.linalg.LinAlgError) as error:
            # A residual or Jacobian that is not finite, where trf and dogbox hand it to the SVD.
            return Result(begin, float("inf"), 0, str(error))
    ended = {0: "iteration_limit", 1: "gradient", 2: "cost", 3: "step", 4: "cost and step"}.get(found.status, "failed")
    x = begin.masked_scatter(free, torch.from_numpy(found.x))
    return Result(x, 2 * float(found.cost), int(found.nfev), ended)
