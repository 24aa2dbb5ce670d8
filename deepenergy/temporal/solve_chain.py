"""All frames of a chain at once: the limit of the sweeps of section 7.

The energy is the sum of every pair's flow residuals (chain.py) and of the deviation prior. Its Hessian in
the Gauss-Newton sense is block tridiagonal, one block a frame, so that a step for the whole shot costs T small
factorisations. Sweeps over single frames lower the same energy, but carry a correction only one frame further at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.energy.flow import FlowWeight
from deepenergy.energy.prior import Deviation
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.state import Limits, State
from deepenergy.temporal.chain import Chain

# Share of the diagonal that is added to it: keeps what nothing sees where it is.
_DAMPING = 1e-6
# Frames whose priors are taken together.
_ROWS_AT_ONCE = 32


@dataclass
class _Frame:
    pixels: list[Tensor]
    slopes: list[Tensor]


@dataclass(frozen=True)
class ChainProblem:
    """A chain and what is to be minimised over it.

    Attributes:
        chain: the shot.
        prior: what keeps each of the T frames near its reference.
        flow: how much the flow counts.
        free: `[T, P]` which parameters of which frames may move.
        limits: of (jaw 6, weights K).
    """

    chain: Chain
    prior: Deviation
    flow: FlowWeight
    free: Bool[Tensor, "t p"]
    limits: Limits


def solve_joint(problem: ChainProblem, state: State, iterations: int = 6, tolerance: float = 1e-4) -> State:
    """Minimise over all free parameters of all frames.

    Args:
        problem: the chain and its terms.
        state: where to start.
        iterations: limit of steps for the whole chain.
        tolerance: stop where no point moved by more plate pixels than this.
    """
    for _ in range(iterations):
        diagonal, beside, gradient = _normal_equations(problem, state)
        fixed = _active(state, gradient, problem.limits) | ~problem.free
        step = _block_tridiagonal(diagonal, beside, gradient, fixed)
        before = _pixels(problem.chain, state)
        state = state.retract(step).clamped(problem.limits)
        after = _pixels(problem.chain, state)
        if float((after - before).abs().max()) < tolerance:
            break
    return state


def _pixels(chain: Chain, state: State) -> Tensor:
    return torch.stack([chain.points.pixels(state, camera) for camera in chain.cameras])


def _active(state: State, gradient: Tensor, limits: Limits) -> Tensor:
    value, (low, high) = state.controls, limits
    pushed = ((value <= low) & (gradient[:, 6:] > 0)) | ((value >= high) & (gradient[:, 6:] < 0)) | (low == high)
    return torch.cat([torch.zeros_like(pushed[:, :6]), pushed], 1)


def _normal_equations(
    problem: ChainProblem, state: State
) -> tuple[Float[Tensor, "t p p"], Float[Tensor, "t-1 p p"], Float[Tensor, "t p"]]:
    """Diagonal blocks, blocks `[a, a + 1]`, gradient."""
    chain, count, size = problem.chain, len(state), state.size
    diagonal = torch.zeros(count, size, size, dtype=torch.float64)
    beside = torch.zeros(max(0, count - 1), size, size, dtype=torch.float64)
    gradient = torch.zeros(count, size, dtype=torch.float64)
    frames = list(map_in_threads(partial(_frame, chain, state), range(count)))
    units = torch.stack([chain.units(row) for row in range(count)])
    for rows in torch.arange(count).split(_ROWS_AT_ONCE):
        views = [camera[rows] for camera in chain.cameras]
        away, slope = problem.prior.take(rows)(state[rows], views, units[rows])
        diagonal[rows] = slope.mT @ slope
        gradient[rows] = (slope.mT @ away[..., None])[..., 0]

    def link(row: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [_link(chain, problem.flow, frames, row, c) for c in range(len(chain.cameras))]

    for row, links in enumerate(map_in_threads(link, range(1, count)), 1):
        for own, across, slope in links:
            diagonal[row - 1 : row + 1] += own
            beside[row - 1] += across
            gradient[row - 1 : row + 1] += slope
    return diagonal, beside, gradient


def _link(
    chain: Chain, flow: FlowWeight, frames: Sequence[_Frame], row: int, c: int
) -> tuple[Float[Tensor, "2 p p"], Float[Tensor, "p p"], Float[Tensor, "2 p"]]:
    """What the flow of one camera between a frame and the one before adds to the blocks and the gradient."""
    before, frame = frames[row - 1], frames[row]
    moved, trust = chain.motion(row - 1, c, before.pixels[c], frame.pixels[c])
    unit = float(chain.units(row)[c])
    residual = (frame.pixels[c] - before.pixels[c] - moved) * unit
    share = trust / (1 + trust * residual.square().sum(1) / flow.scale**2) * (flow.weight / len(trust))
    both = torch.stack([-before.slopes[c], frame.slopes[c]]) * unit
    flat, weighted = both.flatten(1, 2), (both * share[:, None, None]).flatten(1, 2)
    own = weighted.mT @ flat
    return own, weighted[0].T @ flat[1], (weighted.mT @ residual.flatten()[:, None])[..., 0]


def _frame(chain: Chain, state: State, row: int) -> _Frame:
    for c in range(len(chain.cameras)):
        # Kept by the chain; two links of one frame would both find it.
        chain.visible(row, c)
    both = [chain.points.project_with_jacobian(state[[row]], camera[[row]]) for camera in chain.cameras]
    return _Frame([pixels[0] for pixels, _ in both], [slopes[0] for _, slopes in both])


def _block_tridiagonal(diagonal: Tensor, beside: Tensor, gradient: Tensor, fixed: Tensor) -> Float[Tensor, "t p"]:
    """Solve `H step = -g` with the fixed parameters at zero."""
    count = len(gradient)
    keep = (~fixed).to(gradient)
    diagonal = diagonal * keep[:, :, None] * keep[:, None, :]
    scale = diagonal.diagonal(dim1=1, dim2=2)
    lost = (1 - keep) + (scale <= 0).to(scale) * keep
    diagonal = diagonal + torch.diag_embed(scale * _DAMPING + lost)
    right = -gradient * keep
    factors, ratios, reduced = [], [], []
    for row in range(count):
        block, value = diagonal[row], right[row]
        if row:
            across = beside[row - 1] * keep[row - 1][:, None] * keep[row][None, :]
            ratio = torch.cholesky_solve(across, factors[-1])
            block = block - across.T @ ratio
            value = value - ratio.T @ reduced[-1]
            ratios.append(ratio)
        factors.append(torch.linalg.cholesky(block))
        reduced.append(value)
    step = torch.zeros_like(gradient)
    for row in range(count - 1, -1, -1):
        value = reduced[row][:, None]
        solved = torch.cholesky_solve(value, factors[row])[:, 0]
        step[row] = solved if row == count - 1 else solved - ratios[row] @ step[row + 1]
    return step
