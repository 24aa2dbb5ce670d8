"""The render over its plate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render.renderer import Render, Renderer
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear


def over_plate(renderer: Renderer, render: Render, plates: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The render over its plates instead of the renderer's plain background, mixed in linear light by coverage.

    Args:
        renderer: that made the render.
        render: B images.
        plates: display-referred sRGB in [0, 1], of the render's size.

    Returns:
        Display-referred sRGB in [0, 1].

    Raises:
        ValueError: plates of another size.
    """
    if plates.shape != render.image.shape:
        raise ValueError(f"plates: found shape {tuple(plates.shape)}; expected {tuple(render.image.shape)}")
    back = srgb_to_linear(torch.as_tensor(renderer.background).to(render.image))[:, None, None]
    behind = (srgb_to_linear(plates.to(render.image)) - back) * (1 - render.mask)
    return linear_to_srgb((srgb_to_linear(render.image) + behind).clamp(0, 1))
