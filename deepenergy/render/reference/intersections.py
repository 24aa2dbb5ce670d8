"""Where a surface pierces another between two samples: an eyeball through a lid, a lip through the other.

Such a line is no edge of the mesh. Two neighbouring samples show triangles that share no vertex; each plane is carried
on to the other sample, and where each is the nearer at its own sample, the planes meet in between: inverse
depth is linear in the image, so where is a ratio. The folds of one smooth surface do the same, only less sharply.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges

# By how much the surfaces must part over one sample, in samples' own width, for their intersection to count; and within
# one connected part of the mesh, where a fold is more likely.
LEAST_PARTING, LEAST_WITHIN = 0.2, 1.0


@dataclass(frozen=True)
class Intersections:
    """M pairs of neighbouring samples between which two triangles meet; carries no gradient.

    Attributes:
        first, second: `[M]` flat index into `B * H * W`; the second is right of the first or below it.
        corners: `[M, 2, 3]` vertices of the first's and the second's triangle, flat into `B * V`.
        axis: `[M]` 0 in a row, 1 in a column.
    """

    first: Tensor
    second: Tensor
    corners: Tensor
    axis: Tensor


def find_intersections(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
) -> Intersections:
    """Pairs of samples whose surfaces meet between them.

    Args:
        pixels, depth: projected vertices, in samples and metres.
        edges: of the mesh.
        fragments: its visibility.
        focal: focal length in samples.

    Returns:
        Those pairs, also in gaps that have a contour.
    """
    height, width = fragments.face_index.shape[1:]
    found = _in_images(pixels.detach(), depth.detach(), edges, fragments, focal)
    none = torch.zeros(0, dtype=torch.int64, device=pixels.device)
    first, second, axis = (torch.cat([none, *column]) for column in zip(*found, strict=True)) if found else (none,) * 3
    face = fragments.face_index.reshape(-1)
    image = torch.div(first, height * width, rounding_mode="floor")
    corners = edges.faces[torch.stack([face[first], face[second]], 1)] + (image * pixels.shape[1])[:, None, None]
    return Intersections(first, second, corners, axis)


def _in_images(
    pixels: Tensor, depth: Tensor, edges: MeshEdges, fragments: Fragments, focal: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """First, second and axis of the pairs of every image."""
    found = []
    for b, (xy, z) in enumerate(zip(pixels.double(), depth.double(), strict=True)):
        index, seen = fragments.face_index[b], fragments.depth[b].double()
        first, second, axis = _pairs(index, seen, _slopes(xy, z, edges.faces), edges.faces, edges.part, float(focal[b]))
        found.append((first + b * index.numel(), second + b * index.numel(), axis))
    return found


def _slopes(xy: Tensor, z: Tensor, faces: Tensor) -> Float[Tensor, "f 2"]:
    """Derivative of every triangle's inverse depth by x and y."""
    a, b, c = xy[faces].unbind(1)
    first, second, inverse = b - a, c - a, 1 / z[faces]
    up, over = inverse[:, 1] - inverse[:, 0], inverse[:, 2] - inverse[:, 0]
    area = _cross(first, second)
    return (
        torch.stack([up * second[:, 1] - over * first[:, 1], over * first[:, 0] - up * second[:, 0]], 1) / area[:, None]
    )


def _pairs(
    index: Tensor, seen: Tensor, slopes: Tensor, faces: Tensor, part: Tensor, focal: float
) -> tuple[Tensor, Tensor, Tensor]:
    """First, second and axis of the pairs of one image."""
    width = index.shape[1]
    columns = []
    for axis in (0, 1):
        ways = ((slice(None), slice(-1)), (slice(None), slice(1, None))) if axis == 0 else (slice(-1), slice(1, None))
        p, q = index[ways[0]], index[ways[1]]
        row, column = ((p != q) & (p >= 0) & (q >= 0)).nonzero().unbind(1)
        first = row * width + column
        second = first + (1 if axis == 0 else width)
        p, q = index.reshape(-1)[first], index.reshape(-1)[second]
        z, other = seen.reshape(-1)[first], seen.reshape(-1)[second]
        rise = 1 / other - 1 / z
        own, far = slopes[q, axis] - rise, rise - slopes[p, axis]
        least = torch.where(part[p] == part[q], LEAST_WITHIN, LEAST_PARTING)
        apart = ~(faces[p][:, :, None] == faces[q][:, None]).any(2).any(1)
        kept = (own > 0) & (far > 0) & ((own + far) * z * focal > least) & apart
        columns.append((first[kept], second[kept], torch.full_like(first[kept], axis)))
    return tuple(torch.cat(column) for column in zip(*columns, strict=True))  # type: ignore[return-value]


def meeting(
    intersections: Intersections, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"], size: tuple[int, int]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Where the planes of pairs of samples meet: at `a / (a + b)` of the way. Differentiable in both modes.

    Args:
        intersections: the pairs.
        pixels, depth: projected vertices, in samples and metres.
        size: (width, height) in samples.

    Returns:
        By how much inverse depth of a sample's own plane is above the other's, at the first (a) and the second (b).
    """
    difference = []
    for sample, sign in ((intersections.first, 1), (intersections.second, -1)):
        within = sample % (size[0] * size[1])
        row = torch.div(within, size[0], rounding_mode="floor")
        centre = torch.stack([within - row * size[0], row], 1).to(pixels) + 0.5
        inverse = [_inverse_depth(intersections.corners[:, k], pixels, depth, centre) for k in range(2)]
        difference.append(sign * (inverse[0] - inverse[1]))
    return difference[0], difference[1]


def _inverse_depth(corners: Tensor, pixels: Tensor, depth: Tensor, point: Tensor) -> Float[Tensor, " m"]:
    xy = pixels.reshape(-1, 2)[corners.reshape(-1)].view(-1, 3, 2) - point[:, None]
    a, b, c = xy.unbind(1)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)
    inverse = 1 / depth.reshape(-1)[corners.reshape(-1)].view(-1, 3)
    return (weights * inverse).sum(1) / weights.sum(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def apart(intersections: Intersections, others: Int[Tensor, " n"], samples: int) -> Bool[Tensor, " m"]:
    """Which lie in gaps of their own.

    Args:
        intersections: some.
        others: gaps, numbered as by `gap_of`.
        samples: of all images.

    Returns:
        False for those whose gap is among `others`.
    """
    return ~marked(others, 2 * samples)[gap_of(intersections.first, intersections.second, intersections.axis, samples)]


def marked(places: Int[Tensor, " n"], count: int) -> Bool[Tensor, " count"]:
    """Which places are among some.

    Args:
        places: in [0, count).
        count: of all places.

    Returns:
        One flag a place.
    """
    flags = torch.zeros(count, dtype=torch.bool, device=places.device)
    flags[places] = True
    return flags


def gap_of(first: Tensor, second: Tensor, axis: Tensor, samples: int) -> Int[Tensor, " m"]:
    """Gaps between neighbouring samples, numbered.

    Args:
        first, second: samples, in either order.
        axis: 0 in a row, 1 in a column.
        samples: of all images.

    Returns:
        In [0, 2 * samples).
    """
    return torch.minimum(first, second) + samples * axis
