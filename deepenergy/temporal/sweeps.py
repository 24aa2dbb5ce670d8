"""Sweeps over the frames of a chain: each frame is solved against its neighbours as they are (section 7).

Jacobi: every frame from the neighbours of the last sweep, all in parallel. Gauss-Seidel: one after the other, with the
newest neighbours, forward and backward in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.energy.flow import FlowEnergy, FlowWeight
from deepenergy.scene.state import State
from deepenergy.solve import minimise
from deepenergy.temporal.chain import Chain
from deepenergy.temporal.solve_chain import ChainProblem

BOTH = (-1, 1)


def plate_targets(
    chain: Chain, state: State, row: int, sides: Sequence[int] = BOTH
) -> tuple[Float[Tensor, "e c n 2"], Float[Tensor, "e c n"]]:
    """Where the neighbours and the plates' flow want a frame's points, plate pixels, and how far to believe it.

    Args:
        sides: of -1 (the frame before) and 1 (the frame after).
    """
    cameras = len(chain.cameras)
    targets = torch.zeros(len(sides), cameras, len(chain.points), 2, dtype=torch.float64)
    trust = torch.zeros(len(sides), cameras, len(chain.points), dtype=torch.float64)
    for e, side in enumerate(sides):
        other = row + side
        if not 0 <= other < len(state):
            continue
        for c, camera in enumerate(chain.cameras):
            there = chain.points.pixels(state[[other]], camera[[other]])[0]
            # The flow is read where the neighbour's points are: that place is known.
            places = (there, None) if side < 0 else (None, there)
            moved, trust[e, c] = chain.motion(min(row, other), c, *places)
            targets[e, c] = there + moved if side < 0 else there - moved
    return targets, trust


def self_targets(chain: Chain, state: State, row: int) -> tuple[Tensor, Tensor]:
    """Midway between the neighbours' points: `|| N(F1, F2) - N(F2, F3) ||` of section 7 with the rig's own flow."""
    cameras = len(chain.cameras)
    targets = torch.zeros(1, cameras, len(chain.points), 2, dtype=torch.float64)
    trust = torch.zeros(1, cameras, len(chain.points), dtype=torch.float64)
    if 0 < row < len(state) - 1:
        for c, camera in enumerate(chain.cameras):
            beside = [row - 1, row + 1]
            targets[0, c] = chain.points.pixels(state[beside], camera[beside]).mean(0)
            trust[0, c] = chain.visible(row, c).double()
    return targets, trust


def solve_rows(
    problem: ChainProblem,
    state: State,
    rows: Sequence[int],
    targets: Float[Tensor, "b e c n 2"],
    weight: Float[Tensor, "b e c n"],
    iterations: int = 8,
) -> State:
    """The states with some frames solved for given targets, each alone.

    Args:
        problem: the chain and its terms.
        state: T states.
        rows: B of them.
        targets: where E neighbours want the points in each camera, plate pixels.
        weight: how far to believe it, in [0, 1].
        iterations: limit of steps.
    """
    chain, index = problem.chain, torch.tensor(list(rows))
    units = torch.stack([chain.units(row) for row in rows])
    base = state[index].clamped(problem.limits)
    cameras, prior = tuple(camera[index] for camera in chain.cameras), problem.prior.take(index)
    energy = FlowEnergy(chain.points, cameras, targets, weight, units, base, problem.flow, prior)
    low, high = base.step_bounds(problem.limits)
    solution = minimise(
        energy,
        torch.zeros_like(low),
        low,
        high,
        problem.free[index],
        max_iterations=iterations,
        step_tolerance=1e-5,
        approach="direct",
        kernels=energy.kernels() or None,
    )
    return state.put(index, base.retract(solution.x).clamped(problem.limits))


def jacobi(problem: ChainProblem, state: State, sweeps: int = 1, own: bool = False) -> State:
    """Sweeps in which all free frames are solved in parallel.

    Args:
        problem: the chain and its terms.
        state: where to start.
        sweeps: how many.
        own: self flow in place of the plates'.
    """
    chain, problem = problem.chain, _with_own(problem, own)
    rows = problem.free.any(1).nonzero()[:, 0].tolist()
    for _ in range(sweeps if rows else 0):
        both = [self_targets(chain, state, r) if own else plate_targets(chain, state, r) for r in rows]
        targets, weight = torch.stack([t for t, _ in both]), torch.stack([w for _, w in both])
        state = solve_rows(problem, state, rows, targets, weight)
    return state


def gauss_seidel(
    problem: ChainProblem, state: State, sweeps: int = 1, own: bool = False, tolerance: float = 0.0
) -> State:
    """Sweeps in which the free frames are solved one by one, forward and backward in turn.

    Args:
        problem: the chain and its terms.
        state: where to start.
        sweeps: how many.
        own: self flow in place of the plates'.
        tolerance: stop after a forward and a backward sweep that moved no point by more unit pixels than this.
    """
    chain, problem = problem.chain, _with_own(problem, own)
    rows = problem.free.any(1).nonzero()[:, 0].tolist()
    moved = float("inf")
    for sweep in range(sweeps if rows else 0):
        if sweep % 2 == 0:
            moved = 0.0
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            targets, weight = self_targets(chain, state, row) if own else plate_targets(chain, state, row)
            before = state
            state = solve_rows(problem, state, [row], targets[None], weight[None], 4)
            for c, camera in enumerate(chain.cameras):
                now, then = (chain.points.pixels(s[[row]], camera[[row]]) for s in (state, before))
                moved = max(moved, float((now - then).norm(dim=-1).max() * chain.units(row)[c]))
        if sweep % 2 == 1 and moved < tolerance:
            break
    return state


def _with_own(problem: ChainProblem, own: bool) -> ChainProblem:
    """For self flow the residual is twice the distance from the middle."""
    flow = problem.flow
    return replace(problem, flow=FlowWeight(4 * flow.weight, flow.scale / 2)) if own else problem
