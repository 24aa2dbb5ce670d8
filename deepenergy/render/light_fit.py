"""The nine SH coefficients a channel that make renders as bright as the plates (paper, section 3: the precomputation).

With albedo and geometry held, radiance is linear in the coefficients: `plate = albedo * basis(normal) @ light`, so the
light of a shot is one linear least-squares problem over the skin pixels of a few frames, reweighted against speculars,
shadows and occluders.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render.lighting import sh_basis_cosine
from deepenergy.render.renderer import Renderer
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import srgb_to_linear

_ROUNDS = 5
# Ridge on the coefficients beyond the ambient one, as a share of the data's weight: what no normal sees stays dark.
_RIDGE = 3e-3


@torch.no_grad()
def fit_light(
    renderer: Renderer,
    vertices: Float[Tensor, "b v 3"],
    cameras: list[Camera],
    plates: Float[Tensor, "b 3 h w"],
) -> Float[Tensor, "9 3"]:
    """SH coefficients, world axes, from plates with known geometry.

    Args:
        renderer: whose rig and albedo are lit.
        vertices: world space, metres.
        cameras: one an image, of the plates' size (a crop's camera for a crop).
        plates: display-referred sRGB in [0, 1].

    Returns:
        The coefficients of each channel, in the order of `sh_basis`.
    """
    rows, values = [], []
    for i, camera in enumerate(cameras):
        surface, normals, albedo = renderer.surface(vertices[i : i + 1], camera)
        colour = srgb_to_linear(plates[i]).reshape(3, -1).T[surface.where]
        # Near-black and blown pixels say nothing about the light.
        good = ((colour > 0.004) & (colour < 0.95)).all(1) & (albedo > 0.01).all(1)
        rows.append(sh_basis_cosine(normals[good])[:, None, :] * albedo[good][:, :, None])
        values.append(colour[good])
    basis, target = torch.cat(rows).double(), torch.cat(values).double()
    weight = torch.ones_like(target)
    light = torch.zeros(9, 3, dtype=torch.float64)
    for _ in range(_ROUNDS):
        for c in range(3):
            a = basis[:, c] * weight[:, c : c + 1]
            normal = a.T @ basis[:, c]
            ridge = torch.full((9,), _RIDGE, dtype=torch.float64) * normal.diagonal().max()
            ridge[0] = 0
            light[:, c] = torch.linalg.solve(normal + torch.diag(ridge), a.T @ target[:, c])
        residual = target - torch.einsum("nck,kc->nc", basis, light)
        unit = 1.4826 * residual.abs().median(0).values.clamp_min(1e-6)
        # Geman-McClure.
        weight = 1 / (1 + (residual / (2 * unit)) ** 2) ** 2
    return light.float()
