"""Between tracks and batches of states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.scene.track import Track


def states_of(track: Track) -> State:
    """All states of a track, failed frames at the identity: finite, for batches that will not look at them."""
    usable = track.usable
    rotation = np.where(usable[:, None, None], track.rotation, np.eye(3))
    rest = (np.where(usable[:, None], a, 0.0) for a in (track.translation, track.jaw, track.weights))
    return State(torch.from_numpy(rotation), *(torch.from_numpy(a) for a in rest))


def with_states(track: Track, state: State, status: np.ndarray) -> Track:
    """The track with other states; NaN where the status is "failed"."""
    failed = status == "failed"
    rotation = np.where(failed[:, None, None], np.nan, state.rotation.numpy())
    rest = (np.where(failed[:, None], np.nan, a.numpy()) for a in (state.translation, state.jaw, state.weights))
    translation, jaw, weights = rest
    return replace(track, rotation=rotation, translation=translation, jaw=jaw, weights=weights, status=status)


def free_controls(rig: Rig) -> Bool[Tensor, " p"]:
    """Everything may move but the joint that a rig has not, and weights without a group (tongue and the like)."""
    free = torch.ones(12 + len(rig.weight_names), dtype=torch.bool)
    free[6:12] = rig.jaw is not None
    for group in ("tongue", "other"):
        free[[12 + i for i in rig.groups.get(group, ())]] = False
    return free
