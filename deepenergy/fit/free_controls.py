"""Which parameters may move, and how far."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from deepenergy.scene.rig import Rig
from deepenergy.scene.state import Limits
from deepenergy.settings.schedule import Stage


def limits_of(rig: Rig) -> Limits:
    """Lowest and highest (jaw 6, weights K), float64; a rig without the jaw joint has its six at zero."""
    weights = rig.weight_bounds
    assert weights is not None
    six = torch.zeros(6)
    low, high = (six, six) if rig.jaw is None else (rig.jaw.lower, rig.jaw.upper)
    return torch.cat([low, weights[:, 0]]).double(), torch.cat([high, weights[:, 1]]).double()


def free_in_stage(rig: Rig, stage: Stage) -> Bool[Tensor, " p"]:
    """Which of (rotation 3, translation 3, jaw 6, weights K) a stage may move."""
    free = torch.zeros(12 + len(rig.weight_names), dtype=torch.bool)
    free[0:3] = stage.rotation
    free[3:6] = stage.translation
    if rig.jaw is not None:
        free[6] = "jaw_open" in stage.groups
        if "jaw" in stage.groups:
            free[6:12] = True
    groups = rig.groups
    for group in stage.groups:
        free[[12 + i for i in groups.get(group, ())]] = True
    return free


def free_in_time(rig: Rig) -> Bool[Tensor, " p"]:
    """Everything may move but the joint that a rig has not, and weights without a group (tongue and the like)."""
    free = torch.ones(12 + len(rig.weight_names), dtype=torch.bool)
    free[6:12] = rig.jaw is not None
    for group in ("tongue", "other"):
        free[[12 + i for i in rig.groups.get(group, ())]] = False
    return free
