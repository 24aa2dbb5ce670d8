"""Crop a box out of an image and resize it, and carry coordinates between crop, heatmap and plate.

Boxes are (x0, y0, x1, y1) in pixels, (0, 0) the image's top-left corner, pixel centres at half-integers. They may be
fractional and may leave the image: what is outside is black.

The resize is a separable triangle filter. Output pixel `i` has its centre at `c = x0 + (i + 0.5) s`, where
`s = (x1 - x0) / size`, and input pixel `j` gets a weight proportional to `max(0, 1 - |j + 0.5 - c| / r)`. Enlarging,
`r = 1` and this is bilinear interpolation; reducing, `r = s`, so that no input pixel is stepped over (the filter of
Pillow's BILINEAR). Weights are normalised over the infinite pixel grid, not over the image, so that a crop fades to
black over its border instead of stretching the border pixels. The crop is linear in the image, and made of
`index_select`, multiply and add only: reverse mode, forward mode (which `grid_sample` lacks) and `vmap` all work.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def crop_and_resize(
    images: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b 4"], size: int = 256, antialias: bool = True
) -> Float[Tensor, "b c size size"]:
    """The boxes' contents, resized to `size` x `size`, black where a box leaves its image.

    Differentiable in the images. Boxes are constants (the paper's dD/dF = 0): they get no derivative.

    Args:
        images: any floating dtype and number of channels.
        boxes: one box an image, pixels; non-square boxes are squeezed.
        size: output side in pixels.
        antialias: False gives plain bilinear samples also where the box is larger than the output.

    Raises:
        ValueError: wrong shapes, a size below 1, or a box that is not finite or has no area.
    """
    if images.ndim != 4:
        raise ValueError(f"images: found shape {tuple(images.shape)}; expected [B, C, H, W]")
    check_boxes(boxes, images.shape[0])
    if size < 1:
        raise ValueError(f"size: found {size}; expected 1 pixel or more")
    crops = []
    for image, (x0, y0, x1, y1) in zip(images, boxes.detach().to("cpu", torch.float64).tolist(), strict=True):
        rows = _filter_taps(y0, y1, size, image.shape[1], antialias)
        columns = _filter_taps(x0, x1, size, image.shape[2], antialias)
        top, bottom = int(rows[0].min()), int(rows[0].max()) + 1
        left, right = int(columns[0].min()), int(columns[0].max()) + 1
        # Along rows first, then along columns as rows of the transpose.
        squeezed = _resize_rows(image[:, top:bottom, left:right], rows[0] - top, rows[1])
        crops.append(_resize_rows(squeezed.transpose(-1, -2), columns[0] - left, columns[1]).transpose(-1, -2))
    return torch.stack(crops) if crops else images.new_zeros(0, images.shape[1], size, size)


def check_boxes(boxes: Tensor, batch: int) -> None:
    """Refuse boxes that are not `[batch, 4]`, finite, with area.

    Raises:
        ValueError: says which.
    """
    if boxes.shape != (batch, 4):
        raise ValueError(f"boxes: found shape {tuple(boxes.shape)}; expected [{batch}, 4], one box an image")
    extent = boxes[:, 2:] - boxes[:, :2]
    wrong = ~(torch.isfinite(boxes).all(-1) & (extent > 0).all(-1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(f"boxes[{row}]: found {boxes[row].tolist()}; expected finite x0 < x1 and y0 < y1 in pixels")


def _resize_rows(image: Tensor, taps: Int[Tensor, "k size"], weights: Float[Tensor, "k size"]) -> Tensor:
    taps, weights = taps.to(image.device), weights.to(image.device, image.dtype)
    image = image.contiguous()  # index_select copies whole rows of a contiguous image, and is ten times slower else
    total = image.index_select(1, taps[0]) * weights[0][:, None]
    for k in range(1, len(taps)):
        total = torch.addcmul(total, image.index_select(1, taps[k]), weights[k][:, None])
    return total


def _filter_taps(
    start: float, stop: float, size: int, length: int, antialias: bool
) -> tuple[Int[Tensor, "k size"], Float[Tensor, "k size"]]:
    """Input pixels and weights (float64) of every output pixel along one axis."""
    step = (stop - start) / size
    radius = max(1.0, step) if antialias else 1.0
    centres = start + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    first = torch.floor(centres - radius - 0.5).long() + 1
    taps = first + torch.arange(math.ceil(2 * radius))[:, None]
    weights = (1 - (taps + 0.5 - centres).abs() / radius).clamp_min(0)
    weights = weights / weights.sum(0)
    inside = (taps >= 0) & (taps < length)
    return taps.clamp(0, length - 1), torch.where(inside, weights, 0.0)


def heatmap_to_plate(
    points: Float[Tensor, "b l 2"], boxes: Float[Tensor, "b 4"], heatmap_size: int = 64
) -> Float[Tensor, "b l 2"]:
    """Heatmap coordinates to plate pixels: the inverse of crop and resize.

    Args:
        points: (x, y) in heatmap pixels, the heatmap's top-left corner is (0, 0).
        boxes: the crop windows, plate pixels.
        heatmap_size: side of the heatmap in pixels.
    """
    origin, extent = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    return origin + points * (extent / heatmap_size)
