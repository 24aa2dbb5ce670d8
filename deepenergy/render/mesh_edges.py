"""The edges of a triangle mesh, which triangles meet at each, and which hang together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor


@dataclass(frozen=True)
class MeshEdges:
    """Every edge once.

    Attributes:
        faces: `[F, 3]` the triangles.
        ends: `[E, 2]` vertices, the lower index first.
        of_face: `[F, 3]` edge from corner 0 to 1, 1 to 2, 2 to 0 of every triangle.
        face: `[E]` one of the triangles with three different corners that meet at the edge; 0 where there is none.
        part: `[F]` int32, the connected part that a triangle belongs to.
    """

    faces: Tensor
    ends: Tensor
    of_face: Tensor
    face: Tensor
    part: Tensor

    def to(self, device: torch.device) -> MeshEdges:
        """The same on a device."""
        return MeshEdges(*(part.to(device) for part in vars(self).values()))


def mesh_edges(faces: Int[Tensor, "f 3"]) -> MeshEdges:
    """The edges of triangles.

    Args:
        faces: triangles, of which any number may share an edge.

    Returns:
        Every edge once.
    """
    pairs = torch.stack([faces, faces.roll(-1, 1)], -1).reshape(-1, 2)
    pairs = pairs.sort(1).values
    # As one number a pair, which `unique` sorts ten times as fast.
    span = int(faces.max()) + 1 if faces.numel() else 1
    keys, edge = torch.unique(pairs[:, 0] * span + pairs[:, 1], return_inverse=True)
    ends = torch.stack([torch.div(keys, span, rounding_mode="floor"), keys % span], 1)
    first, second = ends.cpu().numpy().T
    graph = coo_matrix((np.ones(len(first)), (first, second)), (span, span))
    part = torch.from_numpy(connected_components(graph, directed=False)[1]).to(faces.device)
    whole = (faces != faces.roll(-1, 1)).all(1)
    triangle = torch.arange(len(faces), device=faces.device) * whole
    face = torch.zeros_like(keys).scatter_reduce_(0, edge.reshape(-1), triangle.repeat_interleave(3), "amax")
    return MeshEdges(faces, ends, edge.view(-1, 3), face, part[faces[:, 0]])
