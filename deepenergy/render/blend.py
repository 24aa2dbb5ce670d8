"""What is mixed into samples at outlines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Blend:
    """What is mixed into N samples.

    Attributes:
        target, source: `[N]` flat index of the sample and of the neighbour whose colour it takes; a target may occur
            twice (a thin thing with the same behind it on both sides).
        share: `[N]` in [0, 0.5], differentiable in the projected vertices in both modes; 0 with a derivative of either
            sign at cliffs.
    """

    target: Tensor
    source: Tensor
    share: Tensor

    def over(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Samples with their neighbours mixed in."""
        batch, channels, height, width = samples.shape
        plane = height * width
        # Channels are planes, so that a sample's are far apart.
        offset = plane * torch.arange(channels, device=samples.device)

        def places(sample: Tensor) -> Tensor:
            image = torch.div(sample, plane, rounding_mode="floor")
            return (image * channels * plane + sample % plane)[:, None] + offset

        flat, to = samples.reshape(-1), places(self.target)
        change = self.share[:, None].to(flat) * (flat[places(self.source)] - flat[to])
        return flat.index_add(0, to.reshape(-1), change.reshape(-1)).view(batch, channels, height, width)
