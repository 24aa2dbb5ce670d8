"""Looking values up where a flow leads, bilinearly, with derivatives in both modes (`grid_sample` lacks one)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def warp(
    values: Float[Tensor, "b c i j"], pixels: Float[Tensor, "b 2 h w"]
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b 1 h w"]]:
    """The values at (x + pixels[0], y + pixels[1]) for every pixel centre (x, y): what a flow from here to there sees.

    Differentiable in the values and in the flow.

    Args:
        values: the other image, or anything else given at its pixels.
        pixels: the flow that leads there.

    Returns:
        Bilinear values, the border's beyond the centres of its pixels, 0 outside the image and where the flow is not
        finite; and which places are inside.

    Raises:
        ValueError: shapes that do not fit.
    """
    if values.ndim != 4 or pixels.ndim != 4 or pixels.shape[1] != 2 or values.shape[0] != pixels.shape[0]:
        raise ValueError(f"warp: found {tuple(values.shape)}, {tuple(pixels.shape)}; expected [B,C,I,J], [B,2,H,W]")
    height, width = values.shape[2:]
    rows = torch.arange(pixels.shape[2], device=pixels.device, dtype=pixels.dtype)
    columns = torch.arange(pixels.shape[3], device=pixels.device, dtype=pixels.dtype)
    # In units of which the first pixel's centre is 0.
    x, y = pixels[:, 0] + columns, pixels[:, 1] + rows[:, None]
    inside = ((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)).detach()
    x, y = (torch.where(inside, v, torch.zeros_like(v)) for v in (x, y))
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.detach().floor().clamp(max=max(width - 2, 0)), y.detach().floor().clamp(max=max(height - 2, 0))
    right, lower = (x - left)[:, None], (y - top)[:, None]
    flat, found = values.flatten(2), []
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = (top.long() + dy).clamp(max=height - 1), (left.long() + dx).clamp(max=width - 1)
            index = (row * width + column).flatten(1)[:, None].expand(-1, values.shape[1], -1)
            found.append(flat.gather(2, index).unflatten(2, tuple(pixels.shape[2:])))
    upper = found[0] + right * (found[1] - found[0])
    under = found[2] + right * (found[3] - found[2])
    return (upper + lower * (under - upper)) * inside[:, None].to(values.dtype), inside[:, None]
