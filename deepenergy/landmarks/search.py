"""Searching an image for a face with the landmark network alone, where the detector found none.

A detector of upright, well-lit, frontal faces misses heads that are dark, small or turned away, which the landmark
network reads well once it is shown the right window. It says so itself: beside a face its confidence is about half of
that on one, and half a box off it still points to the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.landmarks.network import HeatmapNetwork, landmark_box
from deepenergy.landmarks.readings import find_landmarks

# Sides of the boxes as shares of the image's shorter side, and their spacing as a share of their own side: within what
# the network finds its way back from.
_SIDES = (0.8, 0.55, 0.37, 0.25, 0.17, 0.115)
_SPACING = 0.5
# Smaller boxes are not searched (pixels).
_SMALLEST = 40.0
_AT_ONCE = 16
# How many of the best windows are looked at again, and what their face must have.
_AGAIN = 4
LEAST_CONFIDENCE = 0.75
# Standard deviation of an image in which there is nothing to see at all, as a black or grey frame.
_LEAST_CONTRAST = 0.01


@dataclass(frozen=True)
class FoundFace:
    """A face: its landmarks' `box` `[4]`, plate pixels, and the mean `confidence` of its landmarks."""

    box: Tensor
    confidence: float


@torch.no_grad()
def search_face(network: HeatmapNetwork, image: Float[Tensor, "3 h w"]) -> FoundFace | None:
    """The surest face of an image, or None where the network is sure of none (`LEAST_CONFIDENCE`).

    It takes several hundred passes of the network.

    Args:
        image: float32 display-referred sRGB in [0, 1].
    """
    if float(image.std()) < _LEAST_CONTRAST:
        return None
    windows = _windows(image.shape[2], image.shape[1])
    boxes, confidence = _look(network, image, windows)
    best = confidence.topk(min(_AGAIN, len(confidence))).indices
    boxes, confidence = _look(network, image, boxes[best])
    surest = int(confidence.argmax())
    if float(confidence[surest]) < LEAST_CONFIDENCE:
        return None
    return FoundFace(boxes[surest], float(confidence[surest]))


def _look(network: HeatmapNetwork, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes that the landmarks seen through boxes have, and how sure they are."""
    found, confidence = [], []
    for part in boxes.split(_AT_ONCE):
        marks = find_landmarks(network, image.expand(len(part), -1, -1, -1), part)
        found.append(landmark_box(marks.points).cpu())
        confidence.append(marks.confidence.mean(1).cpu())
    return torch.cat(found), torch.cat(confidence)


def _windows(width: int, height: int) -> Float[Tensor, "n 4"]:
    shorter = min(width, height)
    boxes = []
    for share in _SIDES:
        side = share * shorter
        if side < _SMALLEST:
            continue
        x, y = (
            torch.linspace(0, size - side, 1 + round((size - side) / (_SPACING * side))) for size in (width, height)
        )
        corner = torch.cartesian_prod(x, y).reshape(-1, 2).double()
        boxes.append(torch.cat([corner, corner + side], 1))
    return torch.cat(boxes) if boxes else torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64)
