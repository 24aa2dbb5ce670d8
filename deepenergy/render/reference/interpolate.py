"""Attributes at pixels: everything differentiable begins here, from the winners of the visibility."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.blend import EdgePoints
from deepenergy.render.derivatives import differentiated
from deepenergy.render.fragments import Fragments


@dataclass(frozen=True)
class Surface:
    """The covered pixels of a batch as a flat list of N surface points.

    Attributes:
        where: `[N]` flat index into `B * H * W`.
        batch: `[N]` image of each point.
        corners: `[N, 3]` vertex indices of the covering triangle.
        face: `[N]` that triangle.
        barycentrics: `[N, 3]` perspective-correct, differentiable in the projected vertices.
    """

    where: Tensor
    batch: Tensor
    corners: Tensor
    face: Tensor
    barycentrics: Tensor

    def and_then(self, other: Surface) -> Surface:
        """Both lists as one.

        Args:
            other: comes behind this one.

        Returns:
            All points.
        """
        return Surface(*(torch.cat([getattr(self, part.name), getattr(other, part.name)]) for part in fields(self)))

    def interpolate(self, attribute: Float[Tensor, "b v d"]) -> Float[Tensor, "n d"]:
        """A per-vertex attribute at the points.

        Args:
            attribute: of any number of channels; `[V, D]` is shared by the batch.

        Returns:
            Its values.
        """
        rows = self.corners
        if attribute.dim() == 3:
            rows = rows + (self.batch * attribute.shape[1])[:, None]
            attribute = attribute.reshape(-1, attribute.shape[-1])
        w = self.barycentrics.to(attribute)
        return sum(attribute[rows[:, i]] * w[:, i : i + 1] for i in range(3))  # type: ignore[return-value]


def surface_points(
    fragments: Fragments,
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
) -> Surface:
    """Covered pixels with barycentrics recomputed from the vertices, so that derivatives flow in either mode.

    Where nothing is differentiated those of the visibility are taken as they are.

    Args:
        fragments: visibility.
        pixels, depth: projected vertices, in samples and metres.
        faces: triangles.

    Returns:
        The covered pixels, in the order of `fragments`.
    """
    _, height, width = fragments.face_index.shape
    flat = fragments.face_index.reshape(-1)
    where = (flat >= 0).nonzero().squeeze(1)
    face = flat[where]
    per_image = height * width
    batch = torch.div(where, per_image, rounding_mode="floor")
    corners = faces[face]
    if not differentiated(pixels, depth):
        return Surface(where, batch, corners, face, fragments.barycentrics.reshape(-1, 3)[where])
    within = where - batch * per_image
    row = torch.div(within, width, rounding_mode="floor")
    point = torch.stack([within - row * width + 0.5, row + 0.5], 1).to(pixels)
    index = corners + (batch * pixels.shape[1])[:, None]
    xy = pixels.reshape(-1, 2)
    a, b, c = (xy[index[:, i]] - point for i in range(3))
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) / depth.reshape(-1)[index]
    return Surface(where, batch, corners, face, weights / weights.sum(1, keepdim=True))


def edge_surface(
    points: EdgePoints,
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    first: int,
) -> Surface:
    """Points of edges as surface points of their triangles.

    Args:
        points: where.
        pixels, depth: projected vertices, in samples and metres.
        faces: triangles.
        first: number of the first point, as `where` has it.

    Returns:
        The points, in their order.
    """
    count, weight = pixels.shape[1], _edge_weights(points, pixels, depth)
    batch = torch.div(points.ends[:, 0], count, rounding_mode="floor")
    corners = faces[points.face]
    here = corners[:, :, None] == (points.ends - count * batch[:, None])[:, None]
    where = first + torch.arange(len(batch), device=batch.device)
    return Surface(where, batch, corners, points.face, (here * weight[:, None]).sum(2))


def shade_torch(
    fragments: Fragments,
    faces: Int[Tensor, "f 3"],
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    colour: Float[Tensor, "b v 3"],
) -> Float[Tensor, "b 4 h w"]:
    """Colour and coverage of every sample; see `operations.shade`. On any device."""
    surface = surface_points(fragments, pixels, depth, faces)
    flat = scattered(surface, surface.interpolate(colour), fragments.face_index.numel())
    return flat.view(*fragments.face_index.shape, 4).permute(0, 3, 1, 2)


def scattered(surface: Surface, colour: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "count 4"]:
    """The colours of surface points in their places.

    Args:
        surface: numbered within `count`.
        colour: of its points.
        count: of samples.

    Returns:
        Colour and coverage; black and 0 where no surface point is.
    """
    flat = torch.zeros(count, 4, dtype=colour.dtype, device=colour.device)
    return flat.index_copy(0, surface.where, torch.cat([colour, torch.ones_like(colour[:, :1])], 1))


def edge_colours_torch(
    points: EdgePoints, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"], colour: Float[Tensor, "b v 3"]
) -> Float[Tensor, "e 4"]:
    """Colour and coverage at points of edges; see `operations.edge_colours`. On any device."""
    weight = _edge_weights(points, pixels, depth).to(colour)
    value = (weight[..., None] * colour.reshape(-1, 3)[points.ends]).sum(1)
    return torch.cat([value, torch.ones_like(value[:, :1])], 1)


def _edge_weights(points: EdgePoints, pixels: Tensor, depth: Tensor) -> Float[Tensor, "e 2"]:
    """Perspective-correct weights of the ends of the points' edges."""
    flat = pixels.reshape(-1)
    va, vb = flat[2 * points.ends + (1 - points.axis)[:, None]].unbind(1)
    share = (points.line + 0.5 - va) / (vb - va)
    weight = torch.stack([1 - share, share], 1) / depth.reshape(-1)[points.ends].to(pixels)
    return weight / weight.sum(1, keepdim=True)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
