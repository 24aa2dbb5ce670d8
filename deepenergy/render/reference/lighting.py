"""What the vertices of meshes reflect of spherical-harmonic light."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.lighting import sh_basis_cosine

# Nine coefficients can give negative light; a black hole in the face would be worse than a little too much.
DARKEST = 0.02


def sh_shade(
    normals: Float[Tensor, "n 3"], light: Float[Tensor, "9 c"] | Float[Tensor, "b 9 c"], batch: Int[Tensor, " n"]
) -> Float[Tensor, "n c"]:
    """Irradiance / pi at normals, not clipped, so that it stays linear in the light.

    Args:
        normals: unit, in the light's axes.
        light: coefficients, one set or one an image.
        batch: image of every normal; not looked at when there is one set.

    Returns:
        Scene-linear radiance of a white diffuser.
    """
    basis = sh_basis_cosine(normals)
    if light.dim() == 2:
        return basis @ light
    return torch.einsum("nk,nkc->nc", basis, light[batch])


def reflected_torch(
    normals: Float[Tensor, "b v 3"],
    light: Float[Tensor, "9 3"] | Float[Tensor, "b 9 3"],
    albedo: Float[Tensor, "v 3"],
    occlusion: Float[Tensor, " v"],
) -> Float[Tensor, "b v 3"]:
    """Light that vertices reflect; see `operations.reflected`. On any device."""
    batch, count = normals.shape[:2]
    image = torch.arange(batch, device=normals.device).repeat_interleave(count)
    arriving = sh_shade(normals.flatten(0, 1), light.to(normals), image).view(batch, count, -1)
    return arriving.clamp_min(DARKEST) * (occlusion[:, None] * albedo).to(normals)
