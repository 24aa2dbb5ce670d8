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
from deepenergy.energy.prior import Deviation
from deepenergy.scene.state import State
from deepenergy.solve import minimise
from deepenergy.temporal.chain import Chain
from deepenergy.temporal.solve_chain import inside

Bounds = tuple[Float[Tensor, " q"], Float[Tensor, " q"]]
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
            there = chain.points.pixels(state[[other]], camera)[0]
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
            targets[0, c] = chain.points.pixels(state[[row - 1, row + 1]], camera).mean(0)
            trust[0, c] = chain.visible(row, c).double()
    return targets, trust


def solve_rows(
    chain: Chain,
    state: State,
    rows: Sequence[int],
    targets: Float[Tensor, "b e c n 2"],
    trust: Float[Tensor, "b e c n"],
    prior: Deviation,
    flow: FlowWeight,
    free: Tensor,
    bounds: Bounds,
    iterations: int = 8,
) -> State:
    """The states with some frames solved for given targets, each alone."""
    index = torch.tensor(list(rows))
    units = torch.stack([chain.units(row) for row in rows])
    base = inside(state[index], bounds)
    energy = FlowEnergy(chain.points, tuple(chain.cameras), targets, trust, units, base, flow, prior.take(index))
    own = torch.cat([base.jaw, base.weights], 1)
    room = torch.full_like(own[:, :6], torch.inf)
    low, high = torch.cat([-room, bounds[0] - own], 1), torch.cat([room, bounds[1] - own], 1)
    solution = minimise(
        energy,
        torch.zeros_like(low),
        low,
        high,
        free[index],
        max_iterations=iterations,
        step_tolerance=1e-5,
        approach="direct",
        kernels=energy.kernels(),
    )
    return put(state, index, inside(base.retract(solution.x), bounds))


def put(state: State, rows: Tensor, part: State) -> State:
    """The states with some of them replaced."""
    names = ("rotation", "translation", "jaw", "weights")
    return State(*(getattr(state, n).index_copy(0, rows, getattr(part, n)) for n in names))


def jacobi(
    chain: Chain,
    state: State,
    prior: Deviation,
    flow: FlowWeight,
    free: Tensor,
    bounds: Bounds,
    sweeps: int = 1,
    own: bool = False,
) -> State:
    """Sweeps in which all free frames are solved in parallel.

    Args:
        own: self flow in place of the plates'.
    """
    rows = free.any(1).nonzero()[:, 0].tolist()
    for _ in range(sweeps if rows else 0):
        both = [self_targets(chain, state, r) if own else plate_targets(chain, state, r) for r in rows]
        targets, trust = torch.stack([t for t, _ in both]), torch.stack([t for _, t in both])
        state = solve_rows(chain, state, rows, targets, trust, prior, _own(flow, own), free, bounds)
    return state


def gauss_seidel(
    chain: Chain,
    state: State,
    prior: Deviation,
    flow: FlowWeight,
    free: Tensor,
    bounds: Bounds,
    sweeps: int = 1,
    own: bool = False,
    tolerance: float = 0.0,
) -> State:
    """Sweeps in which the free frames are solved one by one, forward and backward in turn.

    Args:
        own: self flow in place of the plates'.
        tolerance: stop after a forward and a backward sweep that moved no point by more unit pixels than this.
    """
    rows = free.any(1).nonzero()[:, 0].tolist()
    moved = float("inf")
    for sweep in range(sweeps if rows else 0):
        if sweep % 2 == 0:
            moved = 0.0
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            targets, trust = self_targets(chain, state, row) if own else plate_targets(chain, state, row)
            before = state
            state = solve_rows(chain, state, [row], targets[None], trust[None], prior, _own(flow, own), free, bounds, 4)
            for c, camera in enumerate(chain.cameras):
                shift = (chain.points.pixels(state[[row]], camera) - chain.points.pixels(before[[row]], camera)).norm(
                    dim=-1
                )
                moved = max(moved, float(shift.max() * chain.units(row)[c]))
        if sweep % 2 == 1 and moved < tolerance:
            break
    return state


def _own(flow: FlowWeight, own: bool) -> FlowWeight:
    """For self flow the residual is twice the distance from the middle."""
    return replace(flow, weight=4 * flow.weight, scale=flow.scale / 2) if own else flow
