"""A decoded video picture (YCbCr, 8 to 16 bit, limited or full range) as display-referred RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# FFmpeg's numbers: AVCOL_SPC_UNSPECIFIED; the matrices that swscale knows as BT.709 and BT.601.
_UNSPECIFIED, _BT709, _BT601 = 2, 1, 5
_HD_LINES = 720
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def picture_to_tensor(picture: Any) -> Float[Tensor, "3 height width"]:
    """RGB float32 in [0, 1] of a PyAV `VideoFrame`, turned upright by its rotation (a multiple of 90 degrees).

    The picture's own matrix and range count; an untagged one is BT.709 from 720 lines up and BT.601 below, as players
    have it. Pictures of more than 8 bits are converted with 16.
    """
    deep = max(component.bits for component in picture.format.components) > 8
    matrix = int(picture.colorspace)
    if matrix == _UNSPECIFIED:
        matrix = _BT709 if picture.height >= _HD_LINES else _BT601
    array = picture.to_ndarray(format="rgb48le" if deep else "rgb24", src_colorspace=matrix)
    turns = round(picture.rotation / 90) % 4
    # FFmpeg's rotation and numpy's are both counterclockwise.
    array = np.rot90(array, turns).transpose(2, 0, 1)
    rgb = torch.from_numpy(np.ascontiguousarray(array).astype(np.float32))
    return (rgb / (_deep_white(picture) if deep else 255.0)).clamp_(max=1.0)


def _deep_white(picture: Any) -> float:
    """The 16-bit value that swscale converts white to: it shifts samples up to 16 bits, and does not stretch them."""
    bits = max(component.bits for component in picture.format.components)
    if picture.format.is_rgb:
        return 65535.0
    if int(picture.color_range) == _FULL_RANGE or picture.format.name.startswith("gray"):
        return float(((1 << bits) - 1) << (16 - bits))
    # Limited range: the 8-bit white, 255, shifted.
    return float(255 << 8)
