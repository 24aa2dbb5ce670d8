"""Batched bounded least squares: a damped Gauss-Newton step per problem, accepted or rejected per problem.

    minimise  1/2 |r(x)|^2   subject to  lower <= x <= upper

for S independent problems at once. At an accepted point the variables at a bound whose gradient pushes outwards are
held (active set); the others take the step of `(J^T J + mu D) s = -J^T r`, D the largest diagonal of `J^T J` seen so
far (More 1978), clipped to the bounds. `mu` follows the gain ratio (Nielsen 1999): it shrinks as the model proves right
and doubles, ever faster, at each rejection. A finished problem no longer moves, a rejected step leaves its problem as
it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Problem = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Solution:
    """Where the problems ended.

    Attributes:
        x: `[S, P]`.
        cost: `[S]`, half the squared norm of the residual.
        converged: `[S]` bool; False where the iteration limit ended it or the start was not finite.
        iterations: `[S]` int64, accepted and rejected steps.
        normal: `[S, P, P]`, `J^T J` at the solution.
    """

    x: Tensor
    cost: Tensor
    converged: Tensor
    iterations: Tensor
    normal: Tensor


def minimise(
    problem: Problem,
    start: Float[Tensor, "s p"],
    lower: Float[Tensor, " p"],
    upper: Float[Tensor, " p"],
    free: Bool[Tensor, " p"] | None = None,
    max_iterations: int = 20,
    step_tolerance: float = 1e-7,
    cost_tolerance: float = 1e-7,
    damping: float = 1e-3,
) -> Solution:
    """Minimise S problems from `start`.

    Args:
        problem: `x [S, P]` to (residuals `[S, R]`, Jacobian `[S, R, P]`); rows of different problems are independent.
        start: float64; moved into the bounds where it is outside of them.
        lower, upper: `[P]` or `[S, P]` bounds, may be infinite.
        free: variables that may move; all when None.
        max_iterations: steps tried.
        step_tolerance: ends a problem whose step is shorter, relative to `1 + |x|`.
        cost_tolerance: ends a problem whose accepted step lowers the cost by a smaller share.
        damping: the first `mu`.

    Raises:
        ValueError: shapes that disagree, or bounds that cross.
    """
    if start.dim() != 2 or lower.shape[-1] != start.shape[1] or upper.shape[-1] != start.shape[1]:
        raise ValueError(f"start {tuple(start.shape)}, bounds {tuple(lower.shape)}: expected [S, P] and [P]")
    if bool((lower > upper).any()):
        raise ValueError("bounds: a lower bound above its upper bound")
    lower, upper = lower.to(start).expand_as(start), upper.to(start).expand_as(start)
    held = torch.zeros_like(start, dtype=torch.bool) if free is None else ~free.expand_as(start)
    x = torch.where(held, start, torch.minimum(torch.maximum(start, lower), upper))
    residual, jacobian = problem(x)
    cost = _cost(residual)
    broken = ~torch.isfinite(cost)
    done = broken.clone()
    gradient, normal, scale = _normal_equations(residual, jacobian, None)
    mu = torch.full_like(cost, damping)
    growth = torch.full_like(cost, 2.0)
    iterations = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    for _ in range(max_iterations):
        blocked = held | ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
        step = _step(gradient, normal, scale, mu, blocked | done[:, None])
        trial = torch.minimum(torch.maximum(x + step, lower), upper)
        trial = torch.where(held | done[:, None], x, trial)
        step = trial - x
        residual, jacobian = problem(trial)
        trial_cost = _cost(residual)
        predicted = -(gradient * step).sum(1) - 0.5 * torch.einsum("sp,spq,sq->s", step, normal, step)
        gain = (cost - trial_cost) / predicted.clamp_min(1e-300)
        accepted = (trial_cost < cost) & ~done
        iterations += (~done).long()
        small_step = step.norm(dim=1) <= step_tolerance * (1 + x.norm(dim=1))
        small_gain = accepted & (cost - trial_cost <= cost_tolerance * cost)
        new_gradient, new_normal, new_scale = _normal_equations(residual, jacobian, scale)
        x = torch.where(accepted[:, None], trial, x)
        cost = torch.where(accepted, trial_cost, cost)
        gradient = torch.where(accepted[:, None], new_gradient, gradient)
        normal = torch.where(accepted[:, None, None], new_normal, normal)
        scale = torch.where(accepted[:, None], new_scale, scale)
        shrink = (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 2)
        mu = torch.where(accepted, mu * shrink, mu * growth).clamp(1e-12, 1e12)
        growth = torch.where(accepted, torch.full_like(growth, 2.0), (growth * 2).clamp_max(1e6))
        done = done | small_step | small_gain
        if bool(done.all()):
            break
    return Solution(x, cost, done & ~broken, iterations, normal)


def _cost(residual: Tensor) -> Float[Tensor, " s"]:
    cost = 0.5 * (residual * residual).sum(1)
    return torch.where(torch.isfinite(cost), cost, torch.full_like(cost, torch.inf))


def _normal_equations(residual: Tensor, jacobian: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    # A non-finite trial is rejected, so that what stands here for it is never used.
    residual, jacobian = torch.nan_to_num(residual, 0, 0, 0), torch.nan_to_num(jacobian, 0, 0, 0)
    gradient = torch.einsum("srp,sr->sp", jacobian, residual)
    normal = jacobian.transpose(1, 2) @ jacobian
    diagonal = normal.diagonal(dim1=1, dim2=2)
    return gradient, normal, diagonal if seen is None else torch.maximum(diagonal, seen)


def _step(
    gradient: Float[Tensor, "s p"],
    normal: Float[Tensor, "s p p"],
    scale: Float[Tensor, "s p"],
    mu: Float[Tensor, " s"],
    blocked: Bool[Tensor, "s p"],
) -> Float[Tensor, "s p"]:
    """The damped step of the variables that may move; a variable that no residual depends on stays."""
    blocked = blocked | (scale <= 0)
    keep = (~blocked).to(normal)
    root = torch.where(blocked, torch.ones_like(scale), scale).sqrt()
    # Columns scaled to unit length first, so that radians, metres and weights weigh alike.
    matrix = normal / (root[:, :, None] * root[:, None, :]) * keep[:, :, None] * keep[:, None, :]
    matrix = matrix + torch.diag_embed(keep * mu[:, None] + (1 - keep))
    right = -gradient / root * keep
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool((failed > 0).any()):
        retry = matrix + 1e-9 * torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        factor = torch.where((failed > 0)[:, None, None], torch.linalg.cholesky_ex(retry)[0], factor)
    return torch.cholesky_solve(right[..., None], factor).squeeze(-1) / root * keep
