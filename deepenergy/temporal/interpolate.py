"""Interpolated states for frames without one: linear, and spherical linear for the rotation (section 8.3, figure 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.runtime.errors import InputError
from deepenergy.scene.state import State


def interpolate_states(
    times: Sequence[int] | Float[np.ndarray, " t"], state: State, known: Bool[Tensor, " t"]
) -> State:
    """All states, with the unknown ones from their known neighbours in time; before the first and after the last known
    frame, that frame's.

    Args:
        times: `[T]` when each frame was taken, ascending; frame numbers will do.
        state: T states; what the unknown ones hold is not looked at.
        known: which states count.

    Raises:
        InputError: no state is known.
    """
    from scipy.spatial.transform import Rotation, Slerp

    rows = known.nonzero()[:, 0].tolist()
    if not rows:
        raise InputError("frames", "none that was solved", "at least one", "solve the shot first")
    if len(rows) == len(known):
        return state
    when = np.asarray(times, dtype=np.float64)
    at = when[rows]
    wanted = np.clip(when, at[0], at[-1])
    anchors = state[rows]
    if len(rows) > 1:
        slerp = Slerp(at, Rotation.from_matrix(anchors.rotation.numpy()))
        rotation = torch.from_numpy(np.asarray(slerp(wanted).as_matrix()))
    else:
        rotation = anchors.rotation.expand(len(when), 3, 3)

    def linear(values: Tensor) -> Tensor:
        columns = [np.interp(wanted, at, column) for column in values.numpy().T]
        return torch.from_numpy(np.stack(columns, 1)) if columns else values.new_zeros(len(when), 0)

    filled = State(rotation, *(linear(part) for part in (anchors.translation, anchors.jaw, anchors.weights)))
    # Known states come out bit for bit.
    return state.where(known, filled)
