"""Smooth vertex normals of deformed meshes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def vertex_normals(vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b v 3"]:
    """Unit normals, area-weighted over the adjoining triangles; zero for a vertex of degenerate triangles only."""
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    face = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for i in range(3):
        total = total.index_add(1, faces[:, i], face)
    return total / total.norm(dim=-1, keepdim=True).clamp_min(1e-12)
