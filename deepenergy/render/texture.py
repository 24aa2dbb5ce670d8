"""Bilinear texture lookup by gathers: torch's `grid_sample` has no forward mode."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sample_texture(texture: Float[Tensor, "h w c"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """Bilinear lookup; uv origin bottom-left, +v up, texel centres at half-integers, repeating outside [0, 1]."""
    height, width = texture.shape[:2]
    x = (uv[:, 0] * width) - 0.5
    y = ((1 - uv[:, 1]) * height) - 0.5
    x0, y0 = torch.floor(x), torch.floor(y)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    left, top = x0.long() % width, y0.long() % height
    right, bottom = (left + 1) % width, (top + 1) % height
    flat = texture.reshape(height * width, -1)
    upper = flat[top * width + left] * (1 - fx) + flat[top * width + right] * fx
    lower = flat[bottom * width + left] * (1 - fx) + flat[bottom * width + right] * fx
    return upper * (1 - fy) + lower * fy
