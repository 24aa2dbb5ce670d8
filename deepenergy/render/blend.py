"""What is mixed into samples at outlines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class EdgePoints:
    """E points of a batch; carries no gradient.

    Attributes:
        ends: `[E, 2]` the edge's vertices, flat into `B * V`.
        axis: `[E]` 0 where the line of centres is a row, 1 where it is a column.
        line: `[E]` which, counted from 0.
        face: `[E]` a triangle that the edge belongs to.
    """

    ends: Tensor
    axis: Tensor
    line: Tensor
    face: Tensor


@dataclass(frozen=True)
class Blend:
    """What is mixed into N samples.

    Attributes:
        target: `[N]` flat index of the sample, into `B * H * W`; may occur twice (a thin thing with the same behind it
            on both sides).
        source: `[N]` of the neighbour whose colour it takes; from `B * H * W` on, of one of `points`.
        share: `[N]` in [0, 0.5], differentiable in the projected vertices in both modes; 0 with a derivative of either
            sign at depth steps.
    """

    target: Tensor
    source: Tensor
    share: Tensor
    points: EdgePoints

    def over(self, samples: Float[Tensor, "b c h w"], at_edges: Float[Tensor, "e c"]) -> Float[Tensor, "b c h w"]:
        """Samples with their neighbours, and the values at `points`, mixed in.

        Args:
            samples: values of any number of channels.
            at_edges: those at `points`.

        Returns:
            What is shown at the samples.
        """
        batch, channels, height, width = samples.shape
        flat = samples.permute(0, 2, 3, 1).reshape(-1, channels)
        values = torch.cat([flat, at_edges.to(flat)])
        change = self.share[:, None].to(flat) * (values[self.source] - flat[self.target])
        mixed = flat.index_add(0, self.target, change)
        return mixed.view(batch, height, width, channels).permute(0, 3, 1, 2)
