"""Visibility in plain torch, on any device: triangles expanded to their candidate pixels, nearest by scatter."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.render.near_plane import clipped, crosses_near, face_barycentrics

_CANDIDATES_AT_ONCE = 4_000_000


def rasterize_torch(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
    near: float = 1e-3,
) -> Fragments:
    """Visibility of projected meshes; see `rasterize`. Memory is bounded by splitting the candidate pixels."""
    parts = [
        _one(pixels[b].detach().double(), depth[b].detach().double(), faces, size, near) for b in range(pixels.shape[0])
    ]
    if not parts:
        blank = torch.zeros(0, size[1], size[0], device=pixels.device)
        return Fragments(blank.long(), blank[..., None].expand(-1, -1, -1, 3), blank)
    return Fragments(*(torch.stack(column) for column in zip(*parts, strict=True)))


def _one(
    own_xy: Tensor, own_z: Tensor, own_faces: Tensor, size: tuple[int, int], near: float
) -> tuple[Tensor, Tensor, Tensor]:
    width, height = size
    device = own_xy.device
    xy, z, faces, owner = _with_clipped(own_xy, own_z, own_faces, near)
    corners, corner_z = xy[faces], z[faces]
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    low = torch.ceil(corners.amin(1) - 0.5).clamp_min(0)
    limit = torch.tensor([width - 1, height - 1], dtype=torch.float64, device=device)
    high = torch.minimum(torch.floor(corners.amax(1) - 0.5), limit)
    extent = (high - low + 1).clamp_min(0)
    usable = (area.abs() > 1e-12) & (corner_z >= near).all(1) & torch.isfinite(extent).all(1) & (extent > 0).all(1)
    kept = usable.nonzero().squeeze(1)
    extent, low = extent[kept].long(), low[kept].long()
    count = extent[:, 0] * extent[:, 1]

    # To single precision, as the compiled one compares.
    best = torch.zeros(height * width, dtype=torch.float32, device=device)
    winner = torch.full((height * width,), len(own_faces), dtype=torch.int64, device=device)
    cut = _cuts(count)
    for start, stop in cut:
        face, pixel, bary = _candidates(kept[start:stop], low[start:stop], extent[start:stop], corners, area, width)
        inverse = (bary / corner_z[face]).sum(1).float()
        before = best.clone()
        best.scatter_reduce_(0, pixel, inverse, "amax")
        nearer = (inverse == best[pixel]) & (inverse > 0)
        # A pixel taken over by a nearer triangle forgets its old winner; among equals the lowest index wins.
        winner = torch.where(best > before, torch.full_like(winner, len(own_faces)), winner)
        winner.scatter_reduce_(0, pixel[nearer], owner[face[nearer]], "amin")

    covered = winner < len(own_faces)
    index = torch.where(covered, winner, torch.full_like(winner, -1))
    bary_out = torch.zeros(height * width, 3, dtype=torch.float32, device=device)
    depth_out = torch.zeros(height * width, dtype=torch.float32, device=device)
    at = covered.nonzero().squeeze(1)
    point = torch.stack([at % width + 0.5, torch.div(at, width, rounding_mode="floor") + 0.5], 1).double()
    weights = face_barycentrics(own_xy, own_z, own_faces[winner[at]], point)
    bary_out[at] = weights.float()
    depth_out[at] = (weights * own_z[own_faces[winner[at]]]).sum(1).float()
    return index.view(height, width), bary_out.view(height, width, 3), depth_out.view(height, width)


def _with_clipped(xy: Tensor, z: Tensor, faces: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vertices and triangles, then the parts of those that cross the near plane; the triangle that each is of."""
    owner = torch.arange(len(faces), device=xy.device)
    crossing = crosses_near(z, faces, near).nonzero()[:, 0]
    if not crossing.numel():
        return xy, z, faces, owner
    xy, z, parts, of = clipped(xy, z, faces[crossing], near)
    return xy, z, torch.cat([faces, parts]), torch.cat([owner, crossing[of]])


def _cuts(count: Tensor) -> list[tuple[int, int]]:
    """Runs of triangles whose candidate pixels fit in memory; a triangle larger than the limit stands alone."""
    if count.numel() == 0:
        return []
    group = torch.div(count.cumsum(0) - 1, _CANDIDATES_AT_ONCE, rounding_mode="floor")
    edges = ((group[1:] != group[:-1]).nonzero().squeeze(1) + 1).tolist()
    return list(zip([0, *edges], [*edges, count.numel()], strict=True))


def _candidates(
    kept: Tensor, low: Tensor, extent: Tensor, corners: Tensor, area: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    count = extent[:, 0] * extent[:, 1]
    owner = torch.repeat_interleave(torch.arange(kept.numel(), device=kept.device), count)
    within = torch.arange(owner.numel(), device=kept.device) - (count.cumsum(0) - count)[owner]
    column = low[owner, 0] + within % extent[owner, 0]
    row = low[owner, 1] + torch.div(within, extent[owner, 0], rounding_mode="floor")
    face = kept[owner]
    bary = _barycentric(corners[face], area[face], torch.stack([column + 0.5, row + 0.5], 1).double())
    inside = (bary >= 0).all(1)
    return face[inside], (row * width + column)[inside], bary[inside]


def _barycentric(corners: Tensor, area: Tensor, point: Tensor) -> Tensor:
    """Screen-space barycentrics of points in triangles."""
    a, b, c = (corners[:, i] - point for i in range(3))
    # Each by itself: what is left of 1 is a rounding error below 0 on an edge that two triangles share.
    return torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) / area[:, None]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
