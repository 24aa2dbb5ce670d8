"""The boundary between visibility and shading: which triangle covers each pixel, and where."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """Visibility of a batch of meshes of one topology; carries no gradient.

    Pixel (row i, column j) is sampled at its centre, image coordinates (j + 0.5, i + 0.5).

    Attributes:
        face_index: `[B, H, W]` int64, the nearest triangle, -1 where there is none. Of triangles at equal depth the
            lowest index wins.
        barycentrics: `[B, H, W, 3]` perspective-correct barycentric coordinates, 0 on the background.
        depth: `[B, H, W]` camera Z in metres, 0 on the background.
    """

    face_index: Tensor
    barycentrics: Tensor
    depth: Tensor
