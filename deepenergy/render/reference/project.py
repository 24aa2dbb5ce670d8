"""World points to the image, as a renderer needs them: `Camera.pixels` and the depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.scene.camera import Camera

# As the camera takes a point in its own plane.
NEAREST = 1e-9


def project_torch(
    vertices: Float[Tensor, "b v 3"], camera: Camera, scale: int = 1
) -> tuple[Float[Tensor, "b v 2"], Float[Tensor, "b v"]]:
    """Image points and depths; see `operations.project`. On any device, and through a distorting lens."""
    in_camera = camera.camera_points(vertices)
    depth = in_camera[..., 2]
    depth = torch.where(depth.abs() < NEAREST, torch.full_like(depth, NEAREST), depth)
    return camera.pixels(in_camera) * scale, depth
