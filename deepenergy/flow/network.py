"""What an optical flow network is to the solver, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.runtime.errors import InputError


@dataclass(frozen=True)
class Flow:
    """Optical flow of a batch of pairs of images.

    Attributes:
        pixels: `[B, 2, H, W]`: what `a` shows at pixel centre (x, y), `b` shows at (x + pixels[0], y + pixels[1]).
        validity: `[B, 1, H, W]` in [0, 1]: 1 where the flow leads to a place inside `b`, 0 elsewhere. It carries no
            gradient, and says nothing about occlusion: `deepenergy.flow.consistency` does.
    """

    pixels: Tensor
    validity: Tensor


class FlowNetwork(Protocol):
    """A network (or another method) that finds the flow from one image to another."""

    @property
    def name(self) -> str:
        """How configurations and reports name it."""
        ...

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"], /) -> Flow:
        """The flow from `a` to `b`, which are float display-referred sRGB in [0, 1].

        Raises:
            InputError: images too small for the network.
            ValueError: images of other shapes.
        """
        ...


def landing_validity(pixels: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 1 h w"]:
    """1 where a flow is finite and leads to a place inside the image, 0 elsewhere."""
    height, width = pixels.shape[-2:]
    pixels = pixels.detach()
    x = pixels[:, :1] + torch.arange(width, device=pixels.device, dtype=pixels.dtype) + 0.5
    y = pixels[:, 1:] + torch.arange(height, device=pixels.device, dtype=pixels.dtype)[:, None] + 0.5
    # Comparisons with NaN are false.
    return ((x >= 0) & (x <= width) & (y >= 0) & (y <= height)).to(pixels.dtype)


def check_pair(name: str, a: Tensor, b: Tensor, smallest: int) -> None:
    """Refuse what is no pair of batches of images, and images with a side shorter than `smallest` pixels.

    Raises:
        InputError: too small.
        ValueError: of other shapes.
    """
    if a.ndim != 4 or a.shape[1] != 3 or a.shape != b.shape:
        raise ValueError(f"flow: found shapes {tuple(a.shape)} and {tuple(b.shape)}; expected [B, 3, H, W] twice")
    if min(a.shape[-2:]) < smallest:
        raise InputError(
            f"flow network '{name}'",
            f"images of {a.shape[-1]} x {a.shape[-2]} pixels",
            f"at least {smallest} pixels on each side",
            "enlarge the images, or the window that is cut out of them",
        )
