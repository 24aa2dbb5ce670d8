"""Averaging parameters over a window of frames (section 7 and appendix A): weighted means, and Markley's for rotations.

Markley, Cheng, Crassidis, Oshman, "Averaging Quaternions" (2007): the mean is the unit quaternion q that maximises
`q^T M q`, `M = sum_i w_i q_i q_i^T`, its eigenvector of the largest eigenvalue. Signs of the quaternions do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.runtime.errors import InputError
from deepenergy.scene.rotation import matrix_to_quaternion, quaternion_to_matrix, rotation_angle
from deepenergy.scene.state import State

# The current frame counts more heavily (appendix A).
THREE_FRAMES = (1.0, 2.0, 1.0)
# How far a frame may lie from the mean of its neighbours and be smoothed: noise of a solve, and neither a whip of the
# head nor a blink. Radians and metres for pose and jaw, and controls' weights.
_TURN, _MOVE, _CONTROL = math.radians(4.0), 0.02, 0.3


def mean_rotation(rotation: Float[Tensor, "*b n 3 3"], weights: Float[Tensor, "*b n"]) -> Float[Tensor, "*b 3 3"]:
    """Markley's weighted mean of rotations; weights are 0 or more, one at least is positive."""
    quaternion = matrix_to_quaternion(rotation)
    matrix = torch.einsum("...n,...ni,...nj->...ij", weights, quaternion, quaternion)
    return quaternion_to_matrix(torch.linalg.eigh(matrix).eigenvectors[..., -1])


def average_states(
    state: State,
    frames: Sequence[int],
    window: Sequence[float] = THREE_FRAMES,
    sweeps: int = 1,
    usable: Bool[Tensor, " t"] | None = None,
) -> State:
    """Every state as the weighted mean of its window; at the ends and beside gaps the window keeps its symmetry.

    A neighbour counts only if its mirror image about the current frame does: a one-sided mean would lag behind motion.
    Neighbours count less and less where their mean is farther from the frame than a solve's noise: a jolt is motion.
    The pose goes as one; jaw and weights each for themselves too, so that a blink of a steady head stays one.

    Args:
        state: T states.
        frames: T frame numbers; neighbours are those at distances 1, 2, ... in frames.
        window: odd number of weights, the middle one for the frame itself.
        sweeps: how often.
        usable: frames that take part; the others stay as they are.

    Raises:
        InputError: a window of an even length, with negative weights, or without weight in the middle.
    """
    reach = len(window) // 2
    if len(window) % 2 == 0 or min(window) < 0 or window[reach] <= 0:
        raise InputError("averaging window", str(tuple(window)), "an odd number of weights, as (1, 2, 1)", "correct it")
    numbers = torch.as_tensor(list(frames))
    row_of = {int(number): row for row, number in enumerate(numbers)}
    good = torch.ones(len(numbers), dtype=torch.bool) if usable is None else usable
    index = torch.arange(len(numbers))[:, None].repeat(1, len(window))
    weights = torch.zeros(len(numbers), len(window), dtype=torch.float64)
    weights[:, reach] = 1
    for row in torch.nonzero(good)[:, 0].tolist():
        weights[row, reach] = window[reach]
        for away in range(1, reach + 1):
            both = [row_of.get(int(numbers[row]) + sign * away) for sign in (-1, 1)]
            if both[0] is None or both[1] is None or not (bool(good[both[0]]) and bool(good[both[1]])):
                break
            index[row, reach - away], index[row, reach + away] = both[0], both[1]
            weights[row, reach - away], weights[row, reach + away] = window[reach - away], window[reach + away]
    for _ in range(sweeps):
        share = _trusted(state, index, weights)

        def mean(values: Tensor, share: Tensor = share) -> Tensor:
            return (values[index] * share[..., None]).sum(1)

        span = torch.tensor([_TURN] * 3 + [_MOVE] * 3).to(state.jaw)
        moved = State(
            mean_rotation(state.rotation[index], share),
            mean(state.translation),
            _calmed(state.jaw, mean(state.jaw), share[:, reach], span),
            _calmed(state.weights, mean(state.weights), share[:, reach], torch.full((1,), _CONTROL).to(state.weights)),
        )
        state = moved.where(good, state)
    return state


def _calmed(
    values: Float[Tensor, "t d"], smoothed: Float[Tensor, "t d"], own: Float[Tensor, " t"], span: Float[Tensor, " d"]
) -> Float[Tensor, "t d"]:
    """Smoothed values, each the less the farther its neighbours' mean is from it (Geman-McClure's weight).

    Args:
        own: share of the frame itself in `smoothed`.
        span: how far a value's noise reaches.
    """
    # The window's mean lies a share of the way from the frame to its neighbours.
    away = (smoothed - values) / (1 - own[:, None]).clamp_min(1e-9)
    return values + (smoothed - values) * (1 + (away / span).square()) ** -2


def _trusted(state: State, index: Tensor, weights: Float[Tensor, "t n"]) -> Float[Tensor, "t n"]:
    """The windows' shares, neighbours by how near their mean is to the frame (Geman-McClure's weight)."""
    middle = weights.shape[1] // 2
    others = weights.clone()
    others[:, middle] = 0
    alone = others.sum(1) == 0
    others[alone, middle] = 1
    share = others / others.sum(1, keepdim=True)
    turn = rotation_angle(mean_rotation(state.rotation[index], share), state.rotation)
    move = ((state.translation[index] * share[..., None]).sum(1) - state.translation).norm(dim=1)
    factor = (1 + (turn / _TURN).square() + (move / _MOVE).square()) ** -2
    held = weights * factor[:, None]
    held[:, middle] = weights[:, middle]
    return held / held.sum(1, keepdim=True)
