"""Face boxes over a shot: overlap, square windows, short gaps, temporal smoothing.

Boxes are (x0, y0, x1, y1) in plate pixels. A frame without a face is a row of NaN.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def iou(a: Float[Tensor, "*#b 4"], b: Float[Tensor, "*#b 4"]) -> Float[Tensor, "*#b"]:
    """Intersection over union of boxes, 0 to 1 (leading axes broadcast); 0 where either has no area or is NaN."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    union = box_area(a) + box_area(b) - overlap
    return torch.where(union > 0, overlap / union, 0.0)


def box_area(boxes: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b"]:
    """Areas in square pixels; 0 for a box that is inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def square_boxes(boxes: Float[Tensor, "*b 4"], scale: float, shift_y: float = 0.0) -> Float[Tensor, "*b 4"]:
    """Square windows of side `scale * (width + height) / 2`, the centre moved down by `shift_y * height`.

    Raises:
        ValueError: a scale that is not positive.
    """
    if scale <= 0:
        raise ValueError(f"scale: found {scale}; expected a positive factor")
    extent = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    centre = torch.stack([centre[..., 0], centre[..., 1] + shift_y * extent[..., 1]], -1)
    half = scale * extent.mean(-1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], -1)


def fill_gaps(boxes: Float[Tensor, "t 4"], max_gap: int) -> Float[Tensor, "t 4"]:
    """Fill runs of up to `max_gap` frames without a box by linear interpolation between their neighbours.

    Longer runs, and runs at the shot's ends, stay NaN.

    Raises:
        ValueError: a wrong shape, a row that is partly NaN, or a negative gap.
    """
    present = _present(boxes)
    if max_gap < 0:
        raise ValueError(f"max_gap: found {max_gap}; expected 0 frames or more")
    filled = boxes.clone()
    known = present.nonzero()[:, 0].tolist()
    for before, after in pairwise(known):
        if 0 < after - before - 1 <= max_gap:
            share = torch.arange(1, after - before, device=boxes.device, dtype=boxes.dtype)[:, None] / (after - before)
            filled[before + 1 : after] = torch.lerp(boxes[before], boxes[after], share)
    return filled


def smooth_boxes(boxes: Float[Tensor, "t 4"], window: int) -> Float[Tensor, "t 4"]:
    """Centred moving average over `window` frames; a window of 1 changes nothing.

    Frames t - k and t + k count only where both have a box. So nothing lags: boxes in uniform motion come out as they
    were, next to a gap and at the ends of the shot too. Frames without a box stay without.

    Raises:
        ValueError: a wrong shape, a row that is partly NaN, or an even or non-positive window.
    """
    present = _present(boxes)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: found {window}; expected an odd number of frames, 1 or more")
    if window == 1:
        return boxes.clone()
    solid = torch.where(present[:, None], boxes, 0.0)
    total, count = solid.clone(), present.to(boxes.dtype)
    for k in range(1, min(window // 2, (len(boxes) - 1) // 2) + 1):
        pair = (present[: -2 * k] & present[2 * k :]).to(boxes.dtype)
        total[k:-k] += (solid[: -2 * k] + solid[2 * k :]) * pair[:, None]
        count[k:-k] += 2 * pair
    return torch.where(present[:, None], total / count.clamp_min(1)[:, None], torch.nan)


def _present(boxes: Tensor) -> Bool[Tensor, " t"]:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes: found shape {tuple(boxes.shape)}; expected [T, 4], one box a frame")
    missing = torch.isnan(boxes)
    partly = missing.any(-1) & ~missing.all(-1)
    if bool(partly.any()):
        row = int(partly.nonzero()[0])
        raise ValueError(f"boxes[{row}]: found {boxes[row].tolist()}; expected four numbers, or four NaN for no face")
    return ~missing.any(-1)
