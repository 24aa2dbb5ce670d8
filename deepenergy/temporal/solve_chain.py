"""All frames of a chain at once: the limit of the sweeps of section 7.

The energy is the sum of every pair's flow residuals (chain.py) and of the deviation prior. Its Hessian in
the Gauss-Newton sense is block tridiagonal, one block a frame, so that a step for the whole shot costs T small
factorisations. Sweeps over single frames lower the same energy, but carry a correction only one frame further at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.energy.flow import FlowWeight
from deepenergy.energy.prior import Deviation
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.state import State
from deepenergy.temporal.chain import Chain

# Share of the diagonal that is added to it: keeps what nothing sees where it is.
_DAMPING = 1e-6
# Frames whose priors are taken together.
_ROWS_AT_ONCE = 32


@dataclass
class _Frame:
    pixels: list[Tensor]
    slopes: list[Tensor]


def solve_joint(
    chain: Chain,
    state: State,
    prior: Deviation,
    flow: FlowWeight,
    free: Bool[Tensor, "t p"],
    bounds: tuple[Float[Tensor, " q"], Float[Tensor, " q"]],
    iterations: int = 6,
    tolerance: float = 1e-4,
) -> State:
    """Minimise over all free parameters of all frames.

    Args:
        chain: the shot.
        state: where to start.
        prior: what keeps each frame near its reference.
        flow: how much the flow counts.
        free: which parameters of which frames may move.
        bounds: of (jaw 6, weights K).
        tolerance: stop where no point moved by more unit pixels than this.
    """
    for _ in range(iterations):
        diagonal, beside, gradient = _normal_equations(chain, state, prior, flow)
        held = _active(state, gradient, bounds) | ~free
        step = _block_tridiagonal(diagonal, beside, gradient, held)
        before = _pixels(chain, state)
        state = inside(state.retract(step), bounds)
        after = _pixels(chain, state)
        if float((after - before).abs().max()) < tolerance:
            break
    return state


def inside(state: State, bounds: tuple[Tensor, Tensor]) -> State:
    """The state with jaw and weights put back into their bounds."""
    both = torch.cat([state.jaw, state.weights], 1).clamp(*bounds)
    return replace(state, jaw=both[:, :6], weights=both[:, 6:])


def _pixels(chain: Chain, state: State) -> Tensor:
    return torch.stack([chain.points.pixels(state, camera) for camera in chain.cameras])


def _active(state: State, gradient: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    value = torch.cat([state.jaw, state.weights], 1)
    low, high = bounds
    pushed = ((value <= low) & (gradient[:, 6:] > 0)) | ((value >= high) & (gradient[:, 6:] < 0)) | (low == high)
    return torch.cat([torch.zeros_like(pushed[:, :6]), pushed], 1)


def _normal_equations(
    chain: Chain, state: State, prior: Deviation, flow: FlowWeight
) -> tuple[Float[Tensor, "t p p"], Float[Tensor, "t-1 p p"], Float[Tensor, "t p"]]:
    """Diagonal blocks, blocks `[a, a + 1]`, gradient."""
    count, size = len(state), 12 + state.weights.shape[1]
    diagonal = torch.zeros(count, size, size, dtype=torch.float64)
    beside = torch.zeros(max(0, count - 1), size, size, dtype=torch.float64)
    gradient = torch.zeros(count, size, dtype=torch.float64)
    frames = list(map_in_threads(partial(_frame, chain, state), range(count)))
    units = torch.stack([chain.units(row) for row in range(count)])
    for rows in torch.arange(count).split(_ROWS_AT_ONCE):
        away, slope = prior.take(rows)(state[rows], chain.cameras, units[rows])
        diagonal[rows] = slope.mT @ slope
        gradient[rows] = (slope.mT @ away[..., None])[..., 0]

    def link(row: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [_link(chain, flow, frames, row, c) for c in range(len(chain.cameras))]

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
    both = [chain.points.project_with_jacobian(state[[row]], camera) for camera in chain.cameras]
    return _Frame([pixels[0] for pixels, _ in both], [slopes[0] for _, slopes in both])


def _block_tridiagonal(diagonal: Tensor, beside: Tensor, gradient: Tensor, held: Tensor) -> Float[Tensor, "t p"]:
    """Solve `H step = -g` with the held parameters at zero."""
    count = len(gradient)
    keep = (~held).to(gradient)
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
