"""Which flow to believe: forward and backward flow must undo each other, and stay on the face.

A point that is occluded in the other image has no match there; the backward flow from wherever the forward flow leads
is then that of something else. The test is that of Sundaram, Brox and Keutzer (2010): a pixel is occluded if

    |f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5        (pixels squared)

with `f` the forward flow at the pixel and `b` the backward flow at the place where `f` leads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from deepenergy.flow.network import Flow

RELATIVE, ABSOLUTE = 0.01, 0.5
# Disagreement of the two directions, pixels, at which a pixel counts 60 %.
SPREAD = 0.7


@dataclass(frozen=True)
class Consistency:
    """How well the flows of two directions agree, at the pixels of the first image. No gradients.

    Attributes:
        distance: `[B, 1, H, W]` pixels: how far off the way back ends; infinite where there is no way.
        occluded: `[B, 1, H, W]`: not seen in the other image, or outside of it.
        weight: `[B, 1, H, W]` in [0, 1]: exp(-(distance / spread)^2 / 2), 0 where occluded; times the flows' validity.
    """

    distance: Tensor
    occluded: Tensor
    weight: Tensor


def consistency(forward: Flow, backward: Flow, spread: float = SPREAD) -> Consistency:
    """Compare the flow from `a` to `b` with the flow from `b` to `a`; for occlusion in `b`, exchange them.

    Args:
        forward, backward: flows of images of one size.
        spread: pixels, for `weight`.

    Raises:
        ValueError: flows of different shapes, or a spread that is not positive.
    """
    if forward.pixels.shape != backward.pixels.shape:
        found = f"{tuple(forward.pixels.shape)} and {tuple(backward.pixels.shape)}"
        raise ValueError(f"consistency: found flows of shapes {found}; expected the same shape twice")
    if not spread > 0:
        raise ValueError(f"spread: found {spread}; expected more than 0 pixels")
    there = forward.pixels.detach()
    seen, inside = warp(torch.cat([backward.pixels, backward.validity], 1).detach(), there)
    back, valid = seen[:, :2], seen[:, 2:] * forward.validity.detach()
    squared = ((there + back) ** 2).sum(1, keepdim=True)
    bound = RELATIVE * ((there**2).sum(1, keepdim=True) + (back**2).sum(1, keepdim=True)) + ABSOLUTE
    # A comparison with NaN is false, so a flow that is not finite counts as occluded.
    seen_there = inside & (squared <= bound)
    weight = torch.exp(-0.5 * squared / spread**2) * valid
    return Consistency(
        torch.where(inside & torch.isfinite(squared), squared.sqrt(), torch.inf),
        ~seen_there,
        torch.where(seen_there, weight, torch.zeros_like(weight)),
    )


def face_region(
    face_a: Float[Tensor, "b 1 h w"], face_b: Float[Tensor, "b 1 h w"], flow: Flow, margin: int = 2
) -> Bool[Tensor, "b 1 h w"]:
    """Pixels of `a` that lie on the face, away from its outline, and whose flow leads onto the face in `b`.

    Args:
        face_a, face_b: coverage of the face in [0, 1], as the renderer gives it; a pixel counts from one half on.
        flow: from `a` to `b`.
        margin: how far from the outline, in pixels; there a flow is a mixture of face and background.

    Raises:
        ValueError: shapes that do not fit, or a negative margin.
    """
    shape = (flow.pixels.shape[0], 1, *flow.pixels.shape[2:])
    if face_a.shape != shape or face_b.shape != shape:
        found = f"{tuple(face_a.shape)} and {tuple(face_b.shape)}"
        raise ValueError(f"face_region: found masks of shapes {found}; expected {shape}")
    if margin < 0:
        raise ValueError(f"margin: found {margin}; expected 0 pixels or more")
    inner = []
    for face in (face_a, face_b):
        off = (face.detach() < 0.5).to(flow.pixels.dtype)
        inner.append(1 - F.max_pool2d(off, 2 * margin + 1, 1, margin))
    landed, inside = warp(inner[1], flow.pixels.detach())
    return (inner[0] > 0.5) & inside & (landed > 0.5)


def warp(
    values: Float[Tensor, "b c i j"], pixels: Float[Tensor, "b 2 h w"]
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b 1 h w"]]:
    """The values at (x + pixels[0], y + pixels[1]) for every pixel centre (x, y): what a flow from here to there sees.

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
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x, y = (torch.where(inside, v, torch.zeros_like(v)) for v in (x, y))
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
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
