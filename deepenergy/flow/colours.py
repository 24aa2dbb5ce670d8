"""Flow as colours, by the code of the Middlebury benchmark (Baker et al. 2011): hue is direction, saturation length."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# How many steps the wheel takes from red to yellow, green, cyan, blue, magenta and back.
_STEPS = (15, 6, 4, 11, 13, 6)


def colour_wheel() -> Float[Tensor, "55 3"]:
    """The wheel's colours in [0, 1]; the first is red, which is flow to the right."""
    # Between corners one channel rises or falls, in whole bytes.
    corners = [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)]
    rows = []
    for count, start, end in zip(_STEPS, corners[:-1], corners[1:], strict=True):
        for step in range(count):
            part = 255 * step // count
            rows.append([255 * s + (e - s) * part for s, e in zip(start, end, strict=True)])
    return torch.tensor(rows) / 255


def flow_colours(
    pixels: Float[Tensor, "b 2 h w"],
    validity: Float[Tensor, "b 1 h w"] | None = None,
    longest: float | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Images of a flow, sRGB in [0, 1], white where nothing moves.

    Args:
        pixels: the flow.
        validity: where it is 0 the image is black, as it is where the flow is not finite.
        longest: the length with full saturation, pixels; longer flows are darkened. None: the longest valid one of each
            image.

    Raises:
        ValueError: another shape, or a `longest` that is not positive.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 2:
        raise ValueError(f"flow_colours: found shape {tuple(pixels.shape)}; expected [B, 2, H, W]")
    if longest is not None and not longest > 0:
        raise ValueError(f"longest: found {longest}; expected more than 0 pixels")
    known = torch.isfinite(pixels).all(1, keepdim=True)
    known = known if validity is None else known & (validity > 0)
    u, v = torch.where(known, pixels.detach(), torch.zeros_like(pixels)).float().split(1, 1)
    length = torch.sqrt(u**2 + v**2)
    unit = length.amax((2, 3), keepdim=True).clamp_min(1e-12) if longest is None else longest
    wheel = colour_wheel().to(u)
    place = (torch.atan2(-v, -u) / math.pi + 1) / 2 * (len(wheel) - 1)
    low = place.floor().long().clamp(0, len(wheel) - 1)
    share = (place - low)[:, 0, ..., None]
    colour = (1 - share) * wheel[low[:, 0]] + share * wheel[(low[:, 0] + 1) % len(wheel)]
    colour = colour.permute(0, 3, 1, 2)
    radius = length / unit
    return torch.where(radius <= 1, 1 - radius * (1 - colour), 0.75 * colour) * known
