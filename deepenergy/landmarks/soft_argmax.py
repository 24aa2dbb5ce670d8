"""Local soft-argmax (equation 3): from heatmaps to landmark coordinates, differentiably.

Around the highest pixel `m` of a heatmap `H`, over the patch `M` of `window` x `window` pixels,

    m_hat = sum_M m exp(beta H(m)) / sum_M exp(beta H(m)).

The place of the highest pixel is held constant in the derivative, so `m_hat` is piecewise smooth: it is within one
pixel of `m` (for a 3x3 window), and jumps by a fraction of a pixel where another pixel becomes the highest.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def local_soft_argmax(
    heatmaps: Float[Tensor, "*b l h w"], beta: float = 50.0, window: int = 3
) -> Float[Tensor, "*b l 2"]:
    """Coordinates (x, y) of the heatmaps' peaks, in heatmap pixels.

    (0, 0) is the heatmap's top-left corner; the centre of its top-left pixel is (0.5, 0.5). Neighbours outside the
    heatmap are left out of the sums. Of equal highest pixels one is taken, the same one every time.

    Works in reverse mode, forward mode (`torch.func.jvp`) and under `torch.func.vmap`.

    Args:
        heatmaps: any floating dtype; float16 and bfloat16 are computed and returned in float32, for they cannot hold
            a fraction of a pixel.
        beta: sharpness, over the heatmap's units (the paper's 50 is for heatmaps with peaks near 1).
        window: side of the patch in pixels, odd.

    Raises:
        ValueError: fewer than three axes, an empty heatmap, or an even or non-positive window.
    """
    if heatmaps.ndim < 3 or heatmaps.shape[-1] == 0 or heatmaps.shape[-2] == 0:
        raise ValueError(f"heatmaps: found shape {tuple(heatmaps.shape)}; expected [..., L, H, W] with pixels")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: found {window}; expected an odd number of pixels, 1 or more")
    if heatmaps.dtype in (torch.float16, torch.bfloat16):
        heatmaps = heatmaps.float()
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.flatten(-2)
    peak = flat.detach().argmax(-1, keepdim=True)
    reach = torch.arange(window, device=heatmaps.device) - window // 2
    rows = torch.div(peak, width, rounding_mode="floor") + reach.repeat_interleave(window)
    columns = peak % width + reach.repeat(window)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    # softmax subtracts the patch's maximum, so that exp() cannot overflow.
    logits = torch.where(inside, beta * flat.gather(-1, index), -torch.inf)
    share = torch.softmax(logits, -1)
    positions = torch.stack([columns, rows], -1).to(share.dtype) + 0.5
    return (share[..., None] * positions).sum(-2)


def heatmap_covariance(
    heatmaps: Float[Tensor, "b l h w"], beta: float = 50.0, window: int = 13
) -> Float[Tensor, "b l 2 2"]:
    """Covariance of the position that a heatmap describes, in heatmap pixels squared.

    The heatmap is read as logits, `softmax(beta H)` over `window` x `window` pixels about the peak: narrow where the
    network is sure, long along an edge (a jaw line) that it cannot tell positions along. Not differentiated.

    Raises:
        ValueError: an even or non-positive window.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: found {window}; expected an odd number of pixels, 1 or more")
    with torch.no_grad():
        heatmaps = heatmaps.detach().float()
        height, width = heatmaps.shape[-2:]
        flat = heatmaps.flatten(-2)
        peak = flat.argmax(-1, keepdim=True)
        reach = torch.arange(window, device=heatmaps.device) - window // 2
        dy, dx = reach.repeat_interleave(window), reach.repeat(window)
        rows, columns = torch.div(peak, width, rounding_mode="floor") + dy, peak % width + dx
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        share = torch.softmax(torch.where(inside, beta * flat.gather(-1, index), -torch.inf), -1)
        offset = torch.stack([dx, dy], -1).to(share)
        mean = share @ offset
        second = torch.einsum("blk,ki,kj->blij", share, offset, offset)
        return second - mean[..., :, None] * mean[..., None, :]
