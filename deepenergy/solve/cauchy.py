"""The Cauchy point: the minimum of the model along steepest descent, the least that a step has to achieve."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.solve.point import Point


def cauchy_point(
    point: Point, scale: Float[Tensor, "s p"], free: Float[Tensor, "s p"], well_conditioned: Bool[Tensor, " s"]
) -> Float[Tensor, "s p"]:
    """`-t D^-2 g` with the `t` that the model likes best, over the parameters where `free` is 1."""
    scaled = point.gradient / scale * free
    # A direction of length 1, so that its square neither overflows nor vanishes.
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    way = scaled / torch.where(length > 0, length, torch.ones_like(length)) / scale
    slope = point.stretch(way[:, :, None], well_conditioned).sqrt()
    falls = slope > 0
    far = torch.where(falls, length / torch.where(falls, slope, torch.ones_like(slope)).square(), slope)
    return -far * way


def shorten(step: Float[Tensor, "s p"], radius: Float[Tensor, " s"]) -> Float[Tensor, "s p"]:
    """The step, no longer than the radius."""
    length = torch.linalg.vector_norm(step, dim=1)
    longer = length > radius
    return torch.where(longer[:, None], step * (radius / torch.where(longer, length, radius))[:, None], step)
