"""How far the model is believed: the radius of each problem, after its last step (More 1978, Powell 1970).

The gain ratio is the decrease of the cost over the decrease that the model predicted. Near 1 the model is right and may
be followed further; near or below 0 it is not, and the next step is kept shorter.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEAST_GAIN = 1e-4


def first_radius(
    x: Float[Tensor, "s p"], scale: Float[Tensor, "s p"], residual: Float[Tensor, "s r"]
) -> Float[Tensor, " s"]:
    """The distance of the parameters from 0 in units of the scale, or the length of the residual if that is larger."""
    size = torch.linalg.vector_norm(scale * x, dim=1)
    need = torch.linalg.vector_norm(residual, dim=1)
    radius = torch.maximum(size, need)
    return torch.where(radius > 0, radius, torch.ones_like(radius))


def next_radius(
    radius: Float[Tensor, " s"],
    length: Float[Tensor, " s"],
    gain: Float[Tensor, " s"],
    slope: Float[Tensor, " s"],
    decrease: Float[Tensor, " s"],
    full: Bool[Tensor, " s"],
) -> Float[Tensor, " s"]:
    """The radius after a step.

    Args:
        radius: that the step was held to.
        length: of the step, scaled.
        gain: actual over predicted decrease; -inf where the cost was not finite.
        slope: directional derivative of the cost along the step, negative.
        decrease: of the cost; negative where it rose.
        full: whether the step was not cut short by the radius.
    """
    # The minimum of the parabola through cost and slope here and the cost there, as a fraction of the step.
    bend = torch.where(torch.isfinite(decrease), decrease - slope.abs(), -torch.inf)
    fraction = torch.where(bend < 0, slope.abs() / (-2 * bend).clamp_min(torch.finfo(radius.dtype).tiny), 0.5)
    shorter = torch.minimum(radius, length) * fraction.clamp(0.1, 0.5)
    # Its square must stay a number, however long the way along a parameter that has lost its influence.
    most = torch.finfo(radius.dtype).max ** 0.25
    longer = torch.where(full, torch.maximum(radius, 2 * length), 2 * radius).clamp_max(most)
    return torch.where(gain <= 0.25, shorter, torch.where(gain >= 0.75, longer, radius))
