"""What a landmark network is to the solver, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.scene.landmark_layout import IBUG_68, LandmarkLayout

LANDMARKS = IBUG_68.count
CROP_SIZE = 256
HEATMAP_SIZE = 64


class HeatmapNetwork(Protocol):
    """A network that gives a heatmap for every landmark of its scheme."""

    @property
    def name(self) -> str:
        """How configurations and reports name it."""
        ...

    @property
    def layout(self) -> LandmarkLayout:
        """The scheme of the landmarks that it finds."""
        ...

    def __call__(self, crops: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b l 64 64"]:
        """Heatmaps of crops, which are float32 display-referred sRGB in [0, 1]."""
        ...

    def crop_boxes(self, face_boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
        """The square windows that the network wants to see, from a detector's face boxes; plate pixels."""
        ...

    def confidence(self, heatmaps: Float[Tensor, "b l 64 64"]) -> Float[Tensor, "b l"]:
        """How far each landmark is to be trusted, 0 to 1."""
        ...


@dataclass(frozen=True)
class LandmarkSet:
    """Landmarks of a batch of images; NaN points with zero confidence where there was no face.

    Attributes:
        points: `[B, L, 2]` plate pixels (x, y).
        confidence: `[B, L]`, 0 to 1.
        windows: `[B, 4]` the windows that the network saw, plate pixels; NaN where there was no face.
        covariance: `[B, L, 2, 2]` covariance of each position as its heatmap describes it, plate pixels squared.
    """

    points: Tensor
    confidence: Tensor
    windows: Tensor
    covariance: Tensor


def landmark_box(points: Float[Tensor, "b l 2"]) -> Float[Tensor, "b 4"]:
    """The tight box (x0, y0, x1, y1) around each image's landmarks."""
    return torch.cat([points.amin(-2), points.amax(-2)], -1)
