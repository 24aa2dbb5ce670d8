"""From samples to the image: outlines blended, samples averaged, the background behind, sRGB."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render.blend import Blend
from deepenergy.scene.colour import linear_to_srgb


def resolve_torch(
    samples: Float[Tensor, "b 4 h w"],
    blend: Blend | None,
    at_edges: Float[Tensor, "e 4"],
    background: Float[Tensor, " 3"],
    supersample: int,
) -> Float[Tensor, "b 4 h/s w/s"]:
    """The image and its coverage; see `operations.resolve`. On any device."""
    if blend is not None:
        samples = blend.over(samples, at_edges)
    if supersample > 1:
        samples = torch.nn.functional.avg_pool2d(samples, supersample)
    colour, mask = samples[:, :3], samples[:, 3:]
    behind = background.to(colour)[:, None, None]
    return torch.cat([linear_to_srgb((colour + (1 - mask) * behind).clamp(0, 1)), mask], 1)
