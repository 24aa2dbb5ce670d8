"""Box bounds: which parameters they hold, and how far a path may go.

A parameter at a bound whose gradient pushes it outwards is active: it is taken out of the model until the gradient
turns. The others follow the path of the descent, a line from 0 to `first` and on to `last`, up to where it leaves the
box (Voglis and Lagaris 2004; scipy's dogbox). Every point before that lies lower in the model. Where many bounds are
met, stopping at the first makes for as many iterations as bounds; so the end of the path is also tried with each
parameter put back to its bound, and so is `first`; the lowest of the three in the model is taken.

A path that runs up to a bound at once trusts a linear model over all that way, and what it puts there pulls the others
after it, sometimes into a worse minimum. `bound_damping` makes the model stiffer towards a bound, so that its minimum
lies short of it, by half where the model alone would just reach it (Coleman and Li 1996, the term that scipy's trf has,
too). It vanishes with the gradient and so leaves the minima as they are.
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


def bound_damping(
    x: Float[Tensor, "s p"],
    gradient: Float[Tensor, "s p"],
    norms: Float[Tensor, "s p"],
    lower: Float[Tensor, "s p"],
    upper: Float[Tensor, "s p"],
) -> Float[Tensor, "s p"]:
    """`|g| / room`, the room being that to the bound that steepest descent leads to; 0 where there is no such bound.

    Added to the diagonal of `J^T J`. No more than `1 / sqrt(eps)` times what stands there: where that is too little,
    the gradient will be the same at the bound in half of all digits, and the step goes there.
    """
    room = torch.where(gradient > 0, x - lower, upper - x)
    near = torch.isfinite(room) & (room > 0)
    wanted = torch.where(near, gradient.abs() / torch.where(near, room, torch.ones_like(room)), torch.zeros_like(x))
    return torch.minimum(wanted, norms.square() / torch.finfo(x.dtype).eps ** 0.5)


def reach(
    start: Float[Tensor, "s p"], way: Float[Tensor, "s p"], low: Float[Tensor, "s p"], high: Float[Tensor, "s p"]
) -> Float[Tensor, " s"]:
    """The largest `t` in 0..1 for which `start + t way` stays between `low` and `high`; `start` lies there."""
    room = torch.where(way > 0, high - start, low - start)
    still = way == 0
    fraction = torch.where(still, torch.ones_like(way), room / torch.where(still, torch.ones_like(way), way))
    return fraction.amin(1).clamp(0, 1) if way.shape[1] else way.new_ones(len(way))


def cut(
    first: Float[Tensor, "s p"], last: Float[Tensor, "s p"], low: Float[Tensor, "s p"], high: Float[Tensor, "s p"]
) -> Float[Tensor, "s p"]:
    """How far the path from 0 over `first` to `last` goes within the box `low <= 0 <= high`."""
    corner = first * reach(torch.zeros_like(first), first, low, high)[:, None]
    way = last - corner
    end = corner + way * reach(corner, way, low, high)[:, None]
    return torch.minimum(torch.maximum(end, low), high)


def project_to_bounds(
    x: Float[Tensor, "s p"],
    start: Float[Tensor, "s p"],
    lower: Float[Tensor, "s p"],
    upper: Float[Tensor, "s p"],
) -> Float[Tensor, "s p"]:
    """`x`, reached from `start`, within the bounds, and on them where only rounding keeps it off.

    A parameter left a hair inside would stop the next path before it has begun.
    """
    hair = 64 * torch.finfo(x.dtype).eps * torch.maximum(start.abs(), x.abs())
    x = torch.where(x - lower <= hair, lower, x)
    return torch.where(upper - x <= hair, upper, x)
