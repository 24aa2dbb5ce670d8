"""The sRGB transfer function (IEC 61966-2-1), piecewise and exact, between scene-linear and display-referred values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# The two pieces of the standard meet here: 0.04045 = 12.92 * 0.0031308, to the digits that it prints.
_LINEAR_KNEE = 0.0031308
_SRGB_KNEE = 0.04045


def linear_to_srgb(linear: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Encode scene-linear values (BT.709 primaries) as display-referred sRGB.

    Any shape, any floating dtype; 0 -> 0, 1 -> 1, not clipped. Negative values continue the straight piece, so that
    the function is defined, monotonic and has a finite derivative everywhere.
    """
    # The power's argument is held at the knee, so that its gradient stays finite where the other piece is taken.
    curve = 1.055 * linear.clamp(min=_LINEAR_KNEE) ** (1 / 2.4) - 0.055
    return torch.where(linear <= _LINEAR_KNEE, 12.92 * linear, curve)


def srgb_to_linear(srgb: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Decode display-referred sRGB values to scene-linear: the inverse of `linear_to_srgb`."""
    curve = ((srgb.clamp(min=_SRGB_KNEE) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= _SRGB_KNEE, srgb / 12.92, curve)
