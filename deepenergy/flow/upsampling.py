"""Flow at a fraction of the resolution to all pixels by learned weights."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def convex_upsampling(
    flow: Float[Tensor, "b 2 h w"],
    logits: Float[Tensor, "b m h w"],
    factor: int,
    border: Literal["replicate", "constant"] = "replicate",
) -> Float[Tensor, "b 2 fh fw"]:
    """Each fine pixel's flow as a learned convex combination of the 3x3 coarse cells around it (RAFT, section 3.3).

    Args:
        flow: in coarse cells.
        logits: m = 9 factor^2, the nine cells (row by row) slow, the fine pixels (row by row) fast.
        factor: how many times finer.
        border: what lies beyond it: the border's own flow, or none ("constant", as in RAFT).

    Returns:
        Flow in fine pixels.
    """
    batch, _, height, width = flow.shape
    weights = torch.softmax(logits.permute(0, 2, 3, 1).reshape(batch, height, width, 9, factor**2), 3)
    padded = F.pad(factor * flow, (1, 1, 1, 1), mode=border)
    fine = torch.zeros_like(weights[:, :, :, :2])
    for cell in range(9):
        i, j = divmod(cell, 3)
        shifted = padded[:, :, i : i + height, j : j + width].permute(0, 2, 3, 1)
        fine = fine + shifted[..., None] * weights[:, :, :, cell, None]
    fine = fine.view(batch, height, width, 2, factor, factor).permute(0, 3, 1, 4, 2, 5)
    return fine.reshape(batch, 2, factor * height, factor * width)
