"""Smooth vertex normals of deformed meshes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# No sum of a vertex's triangles is divided by less.
SHORTEST = 1e-12


def vertex_normals_torch(vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b v 3"]:
    """Unit normals, area-weighted over the adjoining triangles; see `operations.vertex_normals`. On any device."""
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    face = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for i in range(3):
        total = total.index_add(1, faces[:, i], face)
    return total / total.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
