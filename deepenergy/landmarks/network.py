"""What a landmark network is to the solver, and the pipeline from an image to landmarks in plate pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.landmarks.crop import check_boxes, crop_and_resize, heatmap_to_plate
from deepenergy.landmarks.soft_argmax import heatmap_spread, local_soft_argmax

LANDMARKS = 68
CROP_SIZE = 256
HEATMAP_SIZE = 64


class HeatmapNetwork(Protocol):
    """A network that gives a heatmap for each of the 68 landmarks (iBUG order)."""

    @property
    def name(self) -> str:
        """How configurations and reports name it."""
        ...

    def __call__(self, crops: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b 68 64 64"]:
        """Heatmaps of crops, which are float32 display-referred sRGB in [0, 1]."""
        ...

    def crop_boxes(self, face_boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
        """The square windows that the network wants to see, from a detector's face boxes; plate pixels."""
        ...

    def confidence(self, heatmaps: Float[Tensor, "b 68 64 64"]) -> Float[Tensor, "b 68"]:
        """How far each landmark is to be trusted, 0 to 1."""
        ...


@dataclass(frozen=True)
class LandmarkSet:
    """Landmarks of a batch of images; NaN points with zero confidence where there was no face.

    Attributes:
        points: `[B, 68, 2]` plate pixels (x, y).
        confidence: `[B, 68]`, 0 to 1.
        crops: `[B, 4]` the crop windows that the network saw, plate pixels; NaN where there was no face.
        spread: `[B, 68, 2, 2]` covariance of each position as its heatmap describes it, plate pixels squared.
    """

    points: Tensor
    confidence: Tensor
    crops: Tensor
    spread: Tensor


def find_landmarks(
    network: HeatmapNetwork, images: Float[Tensor, "b 3 h w"], boxes: Float[Tensor, "b 4"]
) -> LandmarkSet:
    """Landmarks of the faces in `boxes`: crop, resize, network, soft-argmax, back to plate pixels.

    Differentiable in the images as far as the network is.

    Args:
        images: float32 display-referred sRGB in [0, 1].
        boxes: face boxes as a detector gives them; a row of NaN says that this image has no face.

    Raises:
        ValueError: shapes that do not match, a box without area, or one that is partly NaN.
    """
    boxes = boxes.to(images.device, torch.float64)
    absent = torch.isnan(boxes).all(-1, keepdim=True)
    check_boxes(torch.where(absent, boxes.new_tensor([0, 0, 1, 1]), boxes), images.shape[0])
    found = (~absent[:, 0]).nonzero()[:, 0]
    crops = torch.full_like(boxes, torch.nan)
    points = torch.full((len(boxes), LANDMARKS, 2), torch.nan, dtype=torch.float64, device=images.device)
    confidence = torch.zeros(len(boxes), LANDMARKS, dtype=torch.float64, device=images.device)
    spread = torch.full((len(boxes), LANDMARKS, 2, 2), torch.nan, dtype=torch.float64, device=images.device)
    if len(found):
        windows = network.crop_boxes(boxes[found])
        heatmaps = network(crop_and_resize(images[found], windows, CROP_SIZE))
        in_plate = heatmap_to_plate(local_soft_argmax(heatmaps).to(torch.float64), windows, HEATMAP_SIZE)
        crops = crops.index_copy(0, found, windows)
        points = points.index_copy(0, found, in_plate)
        confidence = confidence.index_copy(0, found, network.confidence(heatmaps).to(torch.float64))
        unit = (windows[:, 2:] - windows[:, :2]) / HEATMAP_SIZE
        covariance = heatmap_spread(heatmaps).to(torch.float64) * (unit[:, :, None] * unit[:, None, :])[:, None]
        spread = spread.index_copy(0, found, covariance)
    return LandmarkSet(points, confidence, crops, spread)


def landmark_box(points: Float[Tensor, "b l 2"]) -> Float[Tensor, "b 4"]:
    """The tight box (x0, y0, x1, y1) around each image's landmarks."""
    return torch.cat([points.amin(-2), points.amax(-2)], -1)
