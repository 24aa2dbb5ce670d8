"""Where one part of a mesh ends before another and no outline was found: it is thinner than a sample there, or
dives into the surface behind.

Such an outline is taken to lie midway between two samples, so that it mixes nothing, and to move with the nearer
surface. Of samples in a staircase each counts its own axis: the flux through the stairs is that through the line that
they follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges
from deepenergy.render.reference.intersections import marked


@dataclass(frozen=True)
class DepthSteps:
    """M pairs of neighbouring samples; carries no gradient.

    Attributes:
        near, far: `[M]` flat index into `B * H * W` of the sample with the nearer surface, and of the other.
        corners: `[M, 3]` vertices of the nearer's triangle, flat into `B * V`.
        barycentrics: `[M, 3]` of the nearer sample.
        axis: `[M]` 0 in a row, 1 in a column.
    """

    near: Tensor
    far: Tensor
    corners: Tensor
    barycentrics: Tensor
    axis: Tensor


Borders = tuple[Int[Tensor, " m"], Int[Tensor, " m"]]


def find_part_borders(edges: MeshEdges, fragments: Fragments) -> Borders:
    """Neighbouring samples of different parts.

    Args:
        edges: of the mesh.
        fragments: its visibility.

    Returns:
        The first of each pair (flat into `B * H * W`), and the axis.
    """
    part, index = edges.part, fragments.face_index
    height, width = index.shape[1:]
    # The background, -1, is the last of the parts.
    part = torch.cat([part, part.new_full((1,), -1)])[index]
    columns = []
    for axis in (0, 1):
        ahead = part[:, :, 1:] != part[:, :, :-1] if axis == 0 else part[:, 1:] != part[:, :-1]
        image, row, column = ahead.nonzero().unbind(1)
        first = (image * height + row) * width + column
        columns.append((first, torch.full_like(first, axis)))
    first, axis = (torch.cat(parts) for parts in zip(*columns, strict=True))
    return first, axis


def find_depth_steps(
    vertices: int, faces: Int[Tensor, "f 3"], fragments: Fragments, borders: Borders, found: Int[Tensor, " n"]
) -> DepthSteps:
    """Pairs of samples of different parts whose gap is none of `found` (numbered as by `gap_of`).

    Args:
        vertices: of one mesh.
        faces: the mesh.
        fragments: its visibility.
        borders: from `find_part_borders`.
        found: gaps that have an outline.

    Returns:
        Those pairs.
    """
    height, width = fragments.face_index.shape[1:]
    first, axis = borders
    second = first + torch.where(axis == 0, 1, width)
    samples = fragments.face_index.numel()
    left = ~marked(found, 2 * samples)[first + samples * axis]
    # Samples that an outline was found at, along either axis, have what moves there already.
    gap, of = found % samples, torch.div(found, samples, rounding_mode="floor")
    known = marked(torch.cat([gap, gap + torch.where(of == 0, 1, width)]), samples)
    left &= ~(known[first] | known[second])
    first, second, axis = first[left], second[left], axis[left]
    face, depth = fragments.face_index.reshape(-1), fragments.depth.reshape(-1)
    nearer = (face[first] >= 0) & ((face[second] < 0) | (depth[first] <= depth[second]))
    near, far = torch.where(nearer, first, second), torch.where(nearer, second, first)
    image = torch.div(near, height * width, rounding_mode="floor")
    corners = faces[face[near]] + (image * vertices)[:, None]
    return DepthSteps(near, far, corners, fragments.barycentrics.reshape(-1, 3)[near], axis)


def advance(
    depth_steps: DepthSteps, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"]
) -> Float[Tensor, " m"]:
    """How far each nearer surface moves from its own sample towards the other.

    Args:
        depth_steps: pairs of samples.
        pixels, depth: projected vertices, in samples and metres.

    Returns:
        0, with a derivative in both modes.
    """
    flat = depth_steps.corners.reshape(-1)
    weight = depth_steps.barycentrics.to(pixels) * depth.reshape(-1)[flat].view(-1, 3)
    corner = pixels.reshape(-1, 2)[flat].view(-1, 3, 2)
    at = (weight[..., None] * corner).sum(1) / weight.sum(1, keepdim=True)
    along = torch.where(depth_steps.axis == 0, at[:, 0], at[:, 1])
    return (along - along.detach()) * torch.where(depth_steps.far > depth_steps.near, 1.0, -1.0).to(pixels)
