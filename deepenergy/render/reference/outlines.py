"""Analytic coverage at contours: the image varies continuously with the vertices, and so boundaries have gradients.

A sample shows what covers its centre. Where a contour passes between it and its neighbour at a distance d from the
centre (in samples), half a sample minus d of the other side shows in it: the sample is blended by that share with its
neighbour or, where the sample lies beyond the contour, with the colour of the surface at its edge (`edge_colours`). As
the contour reaches the centre the share is one half from either side, so nothing jumps. Of row and column the one with
the larger share is taken, which along a straight line is the one that it crosses more steeply: its shares add up to the
exact area under the line. Blending along rows and columns is that of Laine et al. 2020, Modular
Primitives for High-Performance Differentiable Rendering; finding the outlines by edges instead of by the triangles at
the samples is not, since triangles of a face are as small as samples.

On any device; compiled/outlines.py does the same for the CPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.render.blend import Blend, EdgePoints
from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges
from deepenergy.render.reference.depth_steps import DepthSteps, advance, find_depth_steps, find_part_borders
from deepenergy.render.reference.intersections import Intersections, apart, find_intersections, gap_of, meeting
from deepenergy.render.reference.silhouettes import Crossings, find_crossings


def find_outlines_torch(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
    near: float = 1e-3,
) -> tuple[Crossings, Intersections, DepthSteps]:
    """Where outlines pass between samples; see `operations.find_outlines`. On any device.

    Returns:
        Contours; intersections in gaps without a contour; depth steps away from both.
    """
    crossings = find_crossings(pixels, depth, edges, fragments, focal, near)
    intersections = find_intersections(pixels, depth, edges, fragments, focal)
    borders = find_part_borders(edges, fragments)
    samples = fragments.face_index.numel()
    kept = apart(intersections, gap_of(crossings.inside, crossings.outside, crossings.axis, samples), samples)
    fields = (intersections.first, intersections.second, intersections.corners, intersections.axis)
    intersections = Intersections(*(part[kept] for part in fields))
    gaps = [
        gap_of(crossings.inside, crossings.outside, crossings.axis, samples),
        gap_of(intersections.first, intersections.second, intersections.axis, samples),
    ]
    return crossings, intersections, find_depth_steps(pixels.shape[1], edges.faces, fragments, borders, torch.cat(gaps))


def blend_of(
    crossings: Crossings,
    intersections: Intersections,
    depth_steps: DepthSteps,
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    size: tuple[int, int],
) -> Blend:
    """The blend at outlines.

    Args:
        crossings, intersections, depth_steps: from `find_outlines_torch`.
        pixels, depth: projected vertices, in samples and metres.
        size: (width, height) in samples.

    Returns:
        Who is mixed with whom, and by how much.
    """
    ahead, behind = meeting(intersections, pixels.double(), depth.double(), size)
    distance = torch.cat([_distance(crossings, pixels, size), (ahead / (ahead + behind)).to(pixels)])
    inside = torch.cat([crossings.inside, intersections.first])
    outside = torch.cat([crossings.outside, intersections.second])
    axis = torch.cat([crossings.axis, intersections.axis])
    near = distance.detach() < 0.5
    target, source = torch.where(near, inside, outside), torch.where(near, outside, inside)
    # Rounding may put the outline a hair outside of the gap.
    share = torch.where(near, 0.5 - distance, distance - 0.5).clamp(0, 0.5)
    samples = len(pixels) * size[0] * size[1]
    kept = axis == _larger(share.detach(), target, axis, samples)
    step = 0.5 * advance(depth_steps, pixels, depth).to(share)
    # Beyond a contour the colour of the edge itself is mixed in.
    beyond = kept & ~near
    beyond[len(crossings.inside) :] = False
    source = torch.where(beyond, samples - 1 + beyond.cumsum(0), source)
    return Blend(
        torch.cat([target[kept], depth_steps.far, depth_steps.near]),
        torch.cat([source[kept], depth_steps.near, depth_steps.far]),
        torch.cat([share[kept], step, -step]),
        _points(crossings, beyond[: len(crossings.inside)], size),
    )


def _points(crossings: Crossings, kept: Bool[Tensor, " m"], size: tuple[int, int]) -> EdgePoints:
    """Where the edges of some contours cross the lines of centres."""
    row = torch.div(crossings.inside[kept] % (size[0] * size[1]), size[0], rounding_mode="floor")
    axis = crossings.axis[kept]
    line = torch.where(axis == 0, row, crossings.inside[kept] % size[0])
    return EdgePoints(crossings.ends[kept], axis, line, crossings.face[kept])


def _larger(share: Tensor, target: Tensor, axis: Tensor, samples: int) -> Int[Tensor, " m"]:
    """The axis along which more is mixed into each target."""
    total = torch.zeros(samples * 2, dtype=share.dtype, device=share.device).index_add(0, target * 2 + axis, share)
    both = total.view(-1, 2)[target]
    return (both[:, 1] > both[:, 0]).long()


def _distance(crossings: Crossings, pixels: Float[Tensor, "b v 2"], size: tuple[int, int]) -> Float[Tensor, " m"]:
    """From the centre of P to the contour, in samples, along the line to Q."""
    width, height = size
    within = crossings.inside % (width * height)
    row = torch.div(within, width, rounding_mode="floor")
    column, axis = within - row * width, crossings.axis
    in_row = axis == 0
    # Along the line of centres (u) and across it (v).
    centre_u = torch.where(in_row, column, row).to(pixels) + 0.5
    centre_v = torch.where(in_row, row, column).to(pixels) + 0.5
    flat, places = pixels.reshape(-1), 2 * crossings.ends
    (ua, ub), (va, vb) = (flat[places + k[:, None]].unbind(1) for k in (axis, 1 - axis))
    at = ua + (centre_v - va) / (vb - va) * (ub - ua)
    onwards = torch.where(crossings.outside > crossings.inside, 1.0, -1.0).to(pixels)
    return (at - centre_u) * onwards
