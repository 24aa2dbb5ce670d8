"""Ambient occlusion baked on vertices: what keeps the throat dark and the nostrils shaded under SH lighting.

SH light knows nothing of cast shadows, so that an open mouth would shine inside, which no plate shows and no landmark
network expects. The share of the hemisphere that each vertex sees is measured once, on the face with its jaw half open,
so that the front teeth are in the open and the throat is not.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render.operations import rasterize, vertex_normals
from deepenergy.scene.rig import Rig

_DIRECTIONS = 64
_SIZE = 224
_TOLERANCE = 0.0025
# Light that has bounced: no vertex gets less than this share.
_BOUNCE = 0.12
_OPENING = 0.5


@torch.no_grad()
def ambient_occlusion(rig: Rig) -> Float[Tensor, " v"]:
    """The share of the sky that each vertex sees, weighted by the cosine.

    Args:
        rig: measured at its neutral with the jaw half open.

    Returns:
        In [0.12, 1]; 1 for a vertex without triangles.
    """
    vertices = _open_face(rig)
    normals = vertex_normals(vertices[None], rig.faces)[0]
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    around = vertices - centre
    radius = float(around.norm(dim=1).max())
    seen, total = torch.zeros_like(vertices[:, 0]), torch.zeros_like(vertices[:, 0])
    for direction in _fibonacci_sphere(_DIRECTIONS).to(vertices):
        cosine = (normals @ direction).clamp_min(0)
        # An orthographic view from `direction`: depth grows away from the eye.
        helper = torch.tensor([0.0, 1, 0] if abs(float(direction[1])) < 0.9 else [1.0, 0, 0]).to(vertices)
        right = torch.nn.functional.normalize(torch.linalg.cross(helper, direction), dim=0)
        up = torch.linalg.cross(direction, right)
        plane = (around @ torch.stack([right, up], 1) / radius + 1) * (_SIZE / 2)
        depth = 2 * radius - around @ direction
        # 1/z interpolation bends the depth of an orthographic view by far less than the tolerance at this distance.
        far = 50 * radius
        view = rasterize(plane[None], (depth + far)[None], rig.faces, (_SIZE, _SIZE))
        nearest = torch.where(view.face_index >= 0, view.depth - far, torch.full_like(view.depth, torch.inf))[0]
        # The nearest surface about the vertex's pixel, so that slanted surfaces do not shade themselves.
        open_sky = torch.nn.functional.max_pool2d(nearest[None, None], 3, 1, 1)[0, 0]
        column, row = plane.long().clamp(0, _SIZE - 1).unbind(1)
        visible = depth <= open_sky[row, column] + _TOLERANCE
        seen += cosine * visible
        total += cosine
    share = torch.where(total > 0, seen / total.clamp_min(1e-9), torch.ones_like(total))
    return _BOUNCE + (1 - _BOUNCE) * share


def _open_face(rig: Rig) -> Float[Tensor, "v 3"]:
    weights = torch.zeros(1, len(rig.weight_names)).to(rig.neutral)
    jaw = torch.zeros(1, 6).to(rig.neutral)
    if rig.jaw is not None:
        jaw[0, 0] = _OPENING * rig.jaw.upper[0]
    weights[0, list(rig.groups["jaw_open"])] = _OPENING
    return rig.local_vertices(weights, jaw)[0]


def _fibonacci_sphere(count: int) -> Float[Tensor, "n 3"]:
    """Evenly spread unit directions."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    y = 1 - 2 * index / count
    angle = math.pi * (3 - math.sqrt(5)) * index
    ring = (1 - y * y).sqrt()
    return torch.stack([ring * angle.cos(), y, ring * angle.sin()], 1)
