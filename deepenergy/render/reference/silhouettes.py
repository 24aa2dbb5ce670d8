"""Where the outlines of a mesh pass between two samples: what antialiasing blends at, and boundary gradients come from.

An edge is a contour where all its triangles lie on one side of it in the image: a silhouette (the front of the nose
over its back) or the border of an open mesh. The winding of the triangles plays no part. A contour is looked for where
it crosses the lines through the samples' centres, rows and columns, so that it is found however small the triangles
are: between neighbouring centres P, on its own side, and Q, beyond it. It counts where P shows the surface that ends
there and Q something behind it. Of several in one gap the farthest from P counts, where the surface ends.

A surface that pierces another without an edge (an eyeball through a lid) leaves no contour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges

# In samples' own width at the surface: how far behind the edge Q has to lie for a fold to be one, and how far before
# and behind the edge the surface at P may lie. A lip that rolls inwards is 80 nearer one sample inside its outline.
GAP, BEFORE, BEHIND = 0.02, 128.0, 4.0
# A short edge that lies almost along a line of centres says little about how the outline, of which it is a tooth, moves
# there: by as many samples as it is long along the line for one across. The other axis has it.
STEEPEST = 2.0


@dataclass(frozen=True)
class Crossings:
    """Contours between M pairs of neighbouring samples; carries no gradient.

    Attributes:
        inside, outside: `[M]` flat index into `B * H * W` of P, which shows the surface, and of Q.
        ends: `[M, 2]` the edge's vertices, flat into `B * V`.
        face: `[M]` a triangle at the edge.
        axis: `[M]` 0 where Q is beside P in its row, 1 in its column.
    """

    inside: Tensor
    outside: Tensor
    ends: Tensor
    face: Tensor
    axis: Tensor


def find_crossings(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
    near: float = 1e-3,
) -> Crossings:
    """Contours between the samples of `fragments`.

    Args:
        pixels, depth: projected vertices, in samples and metres.
        edges: the mesh.
        fragments: its visibility.
        focal: focal length in samples.
        near: as in `rasterize`.

    Returns:
        One in each gap, by image.
    """
    batch, height, width = fragments.face_index.shape

    def one(b: int) -> tuple[Tensor, ...]:
        xy, z = pixels[b].detach().double(), depth[b].detach().double()
        seen = (fragments.face_index[b], fragments.depth[b])
        found = _in_image(xy, z, edges, seen, 1.0 / float(focal[b]), near)
        inside, outside, edge, axis, reach = found
        kept = _farthest(inside, outside, axis, reach, height * width)
        at = b * height * width
        edge = edge[kept]
        ends = edges.ends[edge] + b * pixels.shape[1]
        return inside[kept] + at, outside[kept] + at, ends, edges.face[edge], axis[kept]

    parts = [one(b) for b in range(batch)]
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=pixels.device)
        return Crossings(none, none, none[:, None].expand(-1, 2), none, none)
    return Crossings(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _in_image(
    xy: Tensor,
    z: Tensor,
    edges: MeshEdges,
    seen: tuple[Tensor, Tensor],
    sample: float,
    near: float,
) -> tuple[Tensor, ...]:
    """Inside, outside, edge, axis and distance from P of every crossing of one image."""
    side = _sides(xy, z, edges, near)
    one = ((side == 1) | (side == 2)).nonzero()[:, 0]
    behind = torch.where(seen[0] >= 0, seen[1].double(), torch.inf)
    inside, outside, edge, axis, reach = _scan(xy, z, edges.ends[one], side[one] == 1, behind, sample)
    return inside, outside, one[edge], axis, reach


def _sides(xy: Tensor, z: Tensor, edges: MeshEdges, near: float) -> Int[Tensor, " e"]:
    """Bit 1: a triangle on the left of the edge (from its first end), bit 2: on its right, as y grows downwards."""
    faces = edges.faces
    count, corners = len(edges.ends), xy[faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    forward = faces < faces.roll(-1, 1)
    left = forward == (area > 0)[:, None]
    bit = torch.where(left, 1, 2)
    crosses = (z[faces] < near).any(1)
    bit = torch.where(crosses[:, None], 3, bit)
    bit = torch.where(((area == 0) & ~crosses)[:, None], 0, bit)
    flat = edges.of_face.reshape(-1)
    both = torch.zeros(2, count, dtype=torch.int64, device=xy.device)
    for k in (0, 1):
        both[k].scatter_reduce_(0, flat, ((bit >> k) & 1).reshape(-1), "amax")
    return (both[0] + 2 * both[1]).to(torch.uint8)


def _scan(
    xy: Tensor, z: Tensor, ends: Tensor, positive: Tensor, seen: Tensor, sample: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Inside, outside, number of the edge, axis and distance from P, before the farthest is chosen.

    Args:
        ends: of edges that are contours.
        positive: whether the surface lies on the left of each.
        seen: depth of the samples, infinite where nothing is.
        sample: width of a sample at a depth of 1.
    """
    found = []
    for axis in (0, 1):
        lines, length = seen.shape if axis == 0 else seen.shape[::-1]
        u, v = xy[ends][..., axis], xy[ends][..., 1 - axis]
        bounds = torch.stack([v.amin(1).clamp_min(0), v.amax(1).clamp_max(float(lines))], 1)
        first, last = torch.ceil(bounds - 0.5).unbind(1)
        count = (last - first).nan_to_num(0).clamp_min(0).long()
        edge = torch.repeat_interleave(torch.arange(len(ends), device=xy.device), count)
        line = torch.arange(len(edge), device=xy.device) - (count.cumsum(0) - count)[edge] + first.long()[edge]
        share = (line + 0.5 - v[edge, 0]) / (v[edge, 1] - v[edge, 0])
        at = u[edge, 0] + share * (u[edge, 1] - u[edge, 0]) - 0.5
        smaller = (positive == (v[:, 1] > v[:, 0]))[edge] ^ (axis == 1)
        inverse = 1 / z[ends[edge]]
        here = 1 / (inverse[:, 0] + share * (inverse[:, 1] - inverse[:, 0]))
        steep = (u[:, 1] - u[:, 0]).abs() <= STEEPEST * (v[:, 1] - v[:, 0]).abs()
        # A centre on the contour itself shows the surface.
        before = torch.where(smaller, torch.floor(at), torch.ceil(at) - 1)
        good = (before >= 0) & (before + 1 <= length - 1) & steep[edge]
        edge, line, at, smaller, here = (part[good] for part in (edge, line, at, smaller, here))
        before = before[good].long()
        p, q = before + (~smaller).long(), before + smaller.long()
        step, stride = (1, seen.shape[1]) if axis == 0 else (seen.shape[1], 1)
        inside, outside = p * step + line * stride, q * step + line * stride
        unit, flat = here * sample, seen.reshape(-1)
        good = flat[outside] >= here + GAP * unit
        good &= (flat[inside] >= here - BEFORE * unit) & (flat[inside] <= here + BEHIND * unit)
        axes = torch.full_like(edge, axis)
        found.append(tuple(part[good] for part in (inside, outside, edge, axes, (at - p).abs())))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))  # type: ignore[return-value]


def _farthest(inside: Tensor, outside: Tensor, axis: Tensor, reach: Tensor, samples: int) -> Int[Tensor, " m"]:
    """Of the crossings in each gap the one farthest from P, by a stable order."""
    gap = torch.minimum(inside, outside) + samples * axis
    order = torch.argsort(reach, descending=True, stable=True)
    order = order[torch.argsort(gap[order], stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = gap[order][1:] != gap[order][:-1]
    return order[first]
