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

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled import array_of
from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges
from deepenergy.threads import map_in_threads

# In samples' own width at the surface: how far behind the edge Q has to lie for a fold to be one, and how far before
# and behind the edge the surface at P may lie. A lip that rolls inwards is 80 nearer one sample inside its outline.
_GAP, _BEFORE, _BEHIND = 0.02, 128.0, 4.0
# A short edge that lies almost along a line of centres says little about how the outline, of which it is a tooth, moves
# there: by as many samples as it is long along the line for one across. The other axis has it.
_STEEPEST = 2.0


@dataclass(frozen=True)
class Crossings:
    """Contours between M pairs of neighbouring samples; carries no gradient.

    Attributes:
        inside, outside: `[M]` flat index into `B * H * W` of P, which shows the surface, and of Q.
        ends: `[M, 2]` the edge's vertices, flat into `B * V`.
        axis: `[M]` 0 where Q is beside P in its row, 1 in its column.
    """

    inside: Tensor
    outside: Tensor
    ends: Tensor
    axis: Tensor


def find_crossings(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
    near: float = 1e-3,
    cull_backfaces: bool = False,
) -> Crossings:
    """Contours between the samples of `fragments`.

    Args:
        pixels, depth: projected vertices, in samples and metres.
        faces, edges: the mesh.
        fragments: its visibility.
        focal: focal length in samples.
        near, cull_backfaces: as in `rasterize`.
    """
    batch, height, width = fragments.face_index.shape
    in_one = _in_image_compiled if pixels.device.type == "cpu" else _in_image

    def one(b: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        xy, z = pixels[b].detach().double(), depth[b].detach().double()
        seen = (fragments.face_index[b], fragments.depth[b])
        found = in_one(xy, z, faces, edges, seen, 1.0 / float(focal[b]), near, cull_backfaces)
        inside, outside, edge, axis, reach = found
        kept = _farthest(inside, outside, axis, reach, height * width)
        at = b * height * width
        ends = edges.ends[edge[kept]] + b * pixels.shape[1]
        return inside[kept] + at, outside[kept] + at, ends, axis[kept]

    parts = list(map_in_threads(one, range(batch)))
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=pixels.device)
        return Crossings(none, none, none[:, None].expand(-1, 2), none)
    return Crossings(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _in_image_compiled(
    xy: Tensor,
    z: Tensor,
    faces: Tensor,
    edges: MeshEdges,
    seen: tuple[Tensor, Tensor],
    sample: float,
    near: float,
    cull: bool,
) -> tuple[Tensor, ...]:
    """Inside, outside, edge, axis and distance from P of every crossing of one image."""
    side = np.zeros(len(edges.ends), np.uint8)
    at, behind = xy.numpy(), z.numpy()
    _sides_compiled(at, behind, array_of(faces), edges.of_face.numpy(), near, cull, side)
    limits = (_GAP, _BEFORE, _BEHIND, _STEEPEST)
    found = _scan_compiled(at, behind, edges.ends.numpy(), side, seen[0].numpy(), seen[1].numpy(), sample, limits)
    return tuple(torch.from_numpy(part) for part in found)


def _in_image(
    xy: Tensor,
    z: Tensor,
    faces: Tensor,
    edges: MeshEdges,
    seen: tuple[Tensor, Tensor],
    sample: float,
    near: float,
    cull: bool,
) -> tuple[Tensor, ...]:
    """The same on any device."""
    side = _sides(xy, z, faces, edges, near, cull)
    one = ((side == 1) | (side == 2)).nonzero()[:, 0]
    behind = torch.where(seen[0] >= 0, seen[1].double(), torch.inf)
    inside, outside, edge, axis, reach = _scan(xy, z, edges.ends[one], side[one] == 1, behind, sample)
    return inside, outside, one[edge], axis, reach


def _sides(
    xy: Tensor, z: Tensor, faces: Tensor, edges: MeshEdges, near: float, cull_backfaces: bool
) -> Int[Tensor, " e"]:
    """Bit 1: a triangle on the left of the edge (from its first end), bit 2: on its right, as y grows downwards."""
    count, corners = len(edges.ends), xy[faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    forward = faces < faces.roll(-1, 1)
    left = forward == (area > 0)[:, None]
    bit = torch.where(left, 1, 2)
    crosses = (z[faces] < near).any(1)
    bit = torch.where(crosses[:, None], 3, bit)
    bit = torch.where(((area == 0) & ~crosses)[:, None], 0, bit)
    if cull_backfaces:
        bit = torch.where(((area > 0) & ~crosses)[:, None], 0, bit)
    flat = edges.of_face.reshape(-1)
    both = torch.zeros(2, count, dtype=torch.int64, device=xy.device)
    for k in (0, 1):
        both[k].scatter_reduce_(0, flat, ((bit >> k) & 1).reshape(-1), "amax")
    return (both[0] + 2 * both[1]).to(torch.uint8)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sides_compiled(
    xy: NDArray[np.float64],
    z: NDArray[np.float64],
    faces: NDArray[np.int64],
    of_face: NDArray[np.int64],
    near: float,
    cull_backfaces: bool,
    side: NDArray[np.uint8],
) -> None:
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if z[a] < near or z[b] < near or z[c] < near:
            for k in range(3):
                side[of_face[f, k]] = 3
            continue
        area = (xy[b, 0] - xy[a, 0]) * (xy[c, 1] - xy[a, 1]) - (xy[b, 1] - xy[a, 1]) * (xy[c, 0] - xy[a, 0])
        if area == 0 or (cull_backfaces and area > 0):
            continue
        for k in range(3):
            forward = faces[f, k] < faces[f, (k + 1) % 3]
            side[of_face[f, k]] |= 1 if forward == (area > 0) else 2


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _scan_compiled(
    xy: NDArray[np.float64],
    z: NDArray[np.float64],
    ends: NDArray[np.int64],
    side: NDArray[np.uint8],
    index: NDArray[np.int64],
    depth: NDArray[np.float32],
    sample: float,
    limits: tuple[float, float, float, float],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    height, width = index.shape
    room = 1024
    inside, outside = np.empty(room, np.int64), np.empty(room, np.int64)
    edge, axes, reach = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
    count = 0
    for e in range(ends.shape[0]):
        if side[e] != 1 and side[e] != 2:
            continue
        a, b = ends[e, 0], ends[e, 1]
        inv_a, inv_b = 1.0 / z[a], 1.0 / z[b]
        for axis in range(2):
            # u runs along the line of centres, v across it: (x, y) in rows, (y, x) in columns.
            ua, va, ub, vb = xy[a, axis], xy[a, 1 - axis], xy[b, axis], xy[b, 1 - axis]
            length, lines = (width, height) if axis == 0 else (height, width)
            if abs(ub - ua) > limits[3] * abs(vb - va):
                continue
            low, high = min(va, vb), max(va, vb)
            if not (high >= 0 and low <= lines and max(ua, ub) >= 0 and min(ua, ub) <= length):
                continue
            first, last = int(np.ceil(max(low, 0.0) - 0.5)), int(np.ceil(min(high, float(lines)) - 0.5)) - 1
            # The surface lies towards smaller u: on the left of an edge that runs down, above one that runs left.
            smaller = (side[e] == 1) == (vb > va)
            if axis == 1:
                smaller = not smaller
            for line in range(max(first, 0), min(last, lines - 1) + 1):
                share = (line + 0.5 - va) / (vb - va)
                u = ua + share * (ub - ua) - 0.5
                if not (u >= 0 and u <= length - 1):
                    continue
                # A centre on the contour itself shows the surface.
                before = int(np.floor(u)) if smaller else int(np.ceil(u)) - 1
                if before < 0 or before + 1 > length - 1:
                    continue
                p, q = (before, before + 1) if smaller else (before + 1, before)
                pi, pj, qi, qj = (line, p, line, q) if axis == 0 else (p, line, q, line)
                here = 1.0 / (inv_a + share * (inv_b - inv_a))
                unit = here * sample
                if index[pi, pj] < 0 or (index[qi, qj] >= 0 and depth[qi, qj] < here + limits[0] * unit):
                    continue
                if depth[pi, pj] < here - limits[1] * unit or depth[pi, pj] > here + limits[2] * unit:
                    continue
                if count == room:
                    room *= 2
                    inside, outside = _grown(inside, room), _grown(outside, room)
                    edge, axes = _grown(edge, room), _grown(axes, room)
                    longer = np.empty(room, np.float64)
                    longer[:count] = reach
                    reach = longer
                inside[count], outside[count] = pi * width + pj, qi * width + qj
                edge[count], axes[count], reach[count] = e, axis, abs(u - p)
                count += 1
    return inside[:count], outside[:count], edge[:count], axes[:count], reach[:count]


@numba.njit(cache=True, nogil=True)
def _grown(values: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    longer = np.empty(room, np.int64)
    longer[: len(values)] = values
    return longer


def _scan(
    xy: Tensor, z: Tensor, ends: Tensor, positive: Tensor, seen: Tensor, sample: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same as `_scan_compiled`, on any device."""
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
        steep = (u[:, 1] - u[:, 0]).abs() <= _STEEPEST * (v[:, 1] - v[:, 0]).abs()
        # A centre on the contour itself shows the surface.
        before = torch.where(smaller, torch.floor(at), torch.ceil(at) - 1)
        good = (before >= 0) & (before + 1 <= length - 1) & steep[edge]
        edge, line, at, smaller, here = (part[good] for part in (edge, line, at, smaller, here))
        before = before[good].long()
        p, q = before + (~smaller).long(), before + smaller.long()
        step, stride = (1, seen.shape[1]) if axis == 0 else (seen.shape[1], 1)
        inside, outside = p * step + line * stride, q * step + line * stride
        unit, flat = here * sample, seen.reshape(-1)
        good = flat[outside] >= here + _GAP * unit
        good &= (flat[inside] >= here - _BEFORE * unit) & (flat[inside] <= here + _BEHIND * unit)
        axes = torch.full_like(edge, axis)
        found.append(tuple(part[good] for part in (inside, outside, edge, axes, (at - p).abs())))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))  # type: ignore[return-value]


def _farthest(inside: Tensor, outside: Tensor, axis: Tensor, reach: Tensor, samples: int) -> Int[Tensor, " m"]:
    """Of the crossings in each gap the one farthest from P, by a stable order."""
    gap = torch.minimum(inside, outside) + samples * axis
    if gap.device.type == "cpu":
        return torch.from_numpy(_farthest_compiled(gap.numpy(), reach.numpy()))
    order = torch.argsort(reach, descending=True, stable=True)
    order = order[torch.argsort(gap[order], stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = gap[order][1:] != gap[order][:-1]
    return order[first]


@numba.njit(cache=True, nogil=True)
def _farthest_compiled(gap: NDArray[np.int64], reach: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.argsort(gap)
    # What is kept moves to the front, over places that have been read.
    count = 0
    for n in order:
        if count and gap[order[count - 1]] == gap[n]:
            # The sort is not stable: of equals the first that was found.
            last = order[count - 1]
            if reach[n] > reach[last] or (reach[n] == reach[last] and n < last):
                order[count - 1] = n
        else:
            order[count] = n
            count += 1
    return order[:count]
