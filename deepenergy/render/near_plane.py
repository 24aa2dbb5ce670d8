"""Triangles that cross the near plane: the part in front of it, as triangles of its own."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def crosses_near(depth: Float[Tensor, " v"], faces: Int[Tensor, "f 3"], near: float) -> Bool[Tensor, " f"]:
    """Which triangles have vertices on both sides of the near plane.

    Args:
        depth: camera Z of the vertices, metres.
        faces: triangles.
        near: metres, more than 0.

    Returns:
        One flag a triangle.
    """
    behind = depth[faces] < near
    return behind.any(1) & ~behind.all(1)


def clipped(
    pixels: Float[Tensor, "v 2"], depth: Float[Tensor, " v"], faces: Int[Tensor, "n 3"], near: float
) -> tuple[Float[Tensor, "v+m 2"], Float[Tensor, " v+m"], Int[Tensor, "k 3"], Int[Tensor, " k"]]:
    """Triangles cut off at the near plane.

    A vertex behind the camera is projected through its centre to the other side, so that `pixels * depth` is linear in
    space whatever the sign of the depth, and the cut is found there.

    Args:
        pixels, depth: projected vertices, float64; no depth is 0.
        faces: triangles that cross the near plane.
        near: metres, more than 0.

    Returns:
        vertices and depths with those on the near plane behind the others; one or two triangles for each; which of
        `faces` each of them is a part of.
    """
    corners = faces
    # Turn each triangle so that its odd vertex out comes first.
    behind = depth[corners] < near
    alone = torch.where(behind.sum(1, keepdim=True) == 1, behind, ~behind).long().argmax(1)
    corners = corners.gather(1, (alone[:, None] + torch.arange(3, device=faces.device)) % 3)
    first, second, third = corners.unbind(1)
    in_front = depth[first] >= near
    ways = torch.stack([torch.stack([first, second], 1), torch.stack([first, third], 1)], 1)
    z = depth[ways]
    share = ((near - z[..., 0]) / (z[..., 1] - z[..., 0]))[..., None]
    space = pixels[ways] * z[..., None]
    cut = (space[..., 0, :] + share * (space[..., 1, :] - space[..., 0, :])) / near
    new = len(depth) + torch.arange(2 * len(faces), device=faces.device).view(-1, 2)
    a, b = new.unbind(1)
    # The tip alone, or the trapezium without it.
    tips = torch.stack([first, a, b], 1)
    lower = torch.stack([torch.stack([a, second, third], 1), torch.stack([a, third, b], 1)], 1)
    number = torch.arange(len(faces), device=faces.device)
    parts = torch.cat([tips[in_front], lower[~in_front].view(-1, 3)])
    owner = torch.cat([number[in_front], number[~in_front].repeat_interleave(2)])
    return (
        torch.cat([pixels, cut.view(-1, 2)]),
        torch.cat([depth, depth.new_full((2 * len(faces),), near)]),
        parts,
        owner,
    )


def face_barycentrics(
    pixels: Float[Tensor, "v 2"], depth: Float[Tensor, " v"], corners: Int[Tensor, "n 3"], point: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 3"]:
    """Where image points lie in triangles, behind the camera or not.

    Args:
        pixels, depth: projected vertices, in pixels and metres.
        corners: the triangle of each point.
        point: pixels.

    Returns:
        Perspective-correct barycentrics.
    """
    a, b, c = (pixels[corners[:, k]] - point for k in range(3))
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) / depth[corners]
    return weights / weights.sum(1, keepdim=True)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
