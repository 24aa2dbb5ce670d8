"""Spherical-harmonic lighting: nine coefficients a channel (Ramamoorthi and Hanrahan 2001; paper, section 3)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sh_basis(normals: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 9"]:
    """The nine real spherical harmonics to degree 2.

    Args:
        normals: unit directions.

    Returns:
        Their values, in the order (l, m) = 00, 1-1, 10, 11, 2-2 .. 22.
    """
    x, y, z = normals.unbind(-1)
    c1, c2 = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    return torch.stack(
        [
            torch.full_like(x, math.sqrt(1 / (4 * math.pi))),
            c1 * y,
            c1 * z,
            c1 * x,
            c2 * x * y,
            c2 * y * z,
            math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
            c2 * x * z,
            c2 / 2 * (x * x - y * y),
        ],
        -1,
    )


# Degree-wise factors of the clamped-cosine convolution, divided by pi: light coefficients in, reflected radiance of
# a white diffuser out.
_COSINE = torch.tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5, dtype=torch.float64)


def sh_basis_cosine(normals: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 9"]:
    """The basis convolved with the clamped cosine, over pi (Ramamoorthi and Hanrahan 2001).

    Args:
        normals: unit directions, in the light's axes.

    Returns:
        The derivative of `sh_shade` by the light.
    """
    return sh_basis(normals) * _COSINE.to(normals)


def frontal_light(intensity: float = 1.0) -> Float[Tensor, "9 3"]:
    """A soft key from the front and above (world +Z, +Y) with ambient fill: what a render uses before an estimate.

    Args:
        intensity: factor on all of it.

    Returns:
        Coefficients, the same for every channel.
    """
    light = torch.zeros(9, 3)
    light[0] = 0.62 * math.sqrt(4 * math.pi)
    light[1] = 0.16 * math.sqrt(4 * math.pi)
    light[2] = 0.34 * math.sqrt(4 * math.pi)
    return light * intensity
