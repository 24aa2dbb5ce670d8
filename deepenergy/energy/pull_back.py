"""Derivatives of projected surface points by the parameters, from the image backwards.

Contracting with the directions in the image before the blendshapes come in is what makes a thousand points affordable:
one product with `[3, K]` a point and direction, and no derivative of the points themselves.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.energy.surface import SurfacePoints
from deepenergy.scene.rotation import left_jacobian, so3_exp
from deepenergy.scene.state import State


def pull_back(
    points: SurfacePoints, state: State, turn: Float[Tensor, "b 3"], force: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b m p"]:
    """`force . d world / d step`, a row for each point.

    Args:
        points: M surface points.
        state: where a step of `State.retract` led.
        turn: the rotation part of that step.
        force: a direction in world axes for each point.
    """
    shapes = points.shapes.to(force)
    local = points.neutral.to(force) + torch.einsum("njk,bk->bnj", shapes, state.weights)
    inner = force @ state.rotation
    jaw = force.new_zeros(*force.shape[:2], 6)
    if points.jaw is not None:
        skin, pivot = points.jaw.skin_weights.to(force)[:, None], points.jaw.pivot.to(force)
        hinge = so3_exp(state.jaw[:, :3])
        arm = (local - pivot) @ hinge.mT
        share = inner * skin
        jaw = torch.cat([torch.linalg.cross(arm, share) @ left_jacobian(state.jaw[:, :3]), share], 2)
        inner = inner - share + share @ hinge
        local = local + skin * (arm + pivot + state.jaw[:, None, 3:] - local)
    spin = torch.linalg.cross(local @ state.rotation.mT, force) @ left_jacobian(turn)
    return torch.cat([spin, force, jaw, torch.einsum("bmc,mck->bmk", inner, shapes)], 2)
