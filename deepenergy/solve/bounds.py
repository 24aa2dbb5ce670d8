"""Box bounds: which parameters they hold, and how far a path may go.

A parameter at a bound whose gradient pushes it outwards is active: it is taken out of the model until the gradient
turns. The others follow the path of the descent, a line from 0 to `first` and on to `last`, up to where it leaves the
box (Voglis and Lagaris 2004; scipy's dogbox). Every point before that lies lower in the model. Where many bounds are
met, stopping at the first makes for as many iterations as bounds; so the end of the path is also tried with each
parameter put back to its bound, and so is `first`; the lowest of the three in the model is taken.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def active_set(
    x: Float[Tensor, "s p"], gradient: Float[Tensor, "s p"], lower: Float[Tensor, "s p"], upper: Float[Tensor, "s p"]
) -> Bool[Tensor, "s p"]:
    """Parameters at a bound that steepest descent would push across it."""
    return ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0)) | (lower == upper)


def reach(
    start: Float[Tensor, "s p"], way: Float[Tensor, "s p"], low: Float[Tensor, "s p"], high: Float[Tensor, "s p"]
) -> Float[Tensor, " s"]:
    """The largest `t` in 0..1 for which `start + t way` stays between `low` and `high`; `start` lies there."""
    room = torch.where(way > 0, high - start, low - start)
    still = way == 0
    share = torch.where(still, torch.ones_like(way), room / torch.where(still, torch.ones_like(way), way))
    return share.amin(1).clamp(0, 1) if way.shape[1] else way.new_ones(len(way))


def cut(
    first: Float[Tensor, "s p"], last: Float[Tensor, "s p"], low: Float[Tensor, "s p"], high: Float[Tensor, "s p"]
) -> Float[Tensor, "s p"]:
    """How far the path from 0 over `first` to `last` goes within the box `low <= 0 <= high`."""
    corner = first * reach(torch.zeros_like(first), first, low, high)[:, None]
    way = last - corner
    end = corner + way * reach(corner, way, low, high)[:, None]
    return torch.minimum(torch.maximum(end, low), high)


def settle(
    x: Float[Tensor, "s p"],
    start: Float[Tensor, "s p"],
    lower: Float[Tensor, "s p"],
    upper: Float[Tensor, "s p"],
) -> Float[Tensor, "s p"]:
    """`x`, reached from `start`, within the bounds, and on them where only rounding keeps it off.

    A parameter left a hair inside would stop the next path before it has begun.
    """
    hair = 4 * torch.finfo(x.dtype).eps * torch.maximum(start.abs(), x.abs())
    x = torch.where(x - lower <= hair, lower, x)
    return torch.where(upper - x <= hair, upper, x)
