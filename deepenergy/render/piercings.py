"""Where one part of a mesh pierces another between two samples: an eyeball through a lid, teeth through a lip.

Such a line is no edge of the mesh. Two neighbouring samples show triangles of different parts; each triangle's plane is
carried on to the other's sample, and where each is the nearer at its own sample, the planes meet in between: inverse
depth is linear in the image, so where is a ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges

# By how much the surfaces must part over one sample, in samples' own width, to be told where they meet.
_LEAST_PARTING = 0.2


@dataclass(frozen=True)
class Piercings:
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


def find_piercings(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
) -> Piercings:
    """Pairs of samples of different parts whose planes meet between them; as `find_crossings` otherwise."""
    height, width = fragments.face_index.shape[1:]
    # The background, -1, is the last of the parts.
    part = torch.cat([edges.part, edges.part.new_full((1,), -1)])[fragments.face_index]
    covered = part >= 0
    found = []
    for axis, step in ((0, 1), (1, width)):
        one = (slice(None), slice(None), slice(-1)) if axis == 0 else (slice(None), slice(-1))
        two = (slice(None), slice(None), slice(1, None)) if axis == 0 else (slice(None), slice(1, None))
        image, row, column = ((part[one] != part[two]) & covered[one] & covered[two]).nonzero().unbind(1)
        first = (image * height + row) * width + column
        found.append((first, first + step, torch.full_like(first, axis)))
    first, second, axis = (torch.cat(column) for column in zip(*found, strict=True))
    face = fragments.face_index.reshape(-1)
    image = torch.div(first, height * width, rounding_mode="floor")
    corners = faces[torch.stack([face[first], face[second]], 1)] + (image * pixels.shape[1])[:, None, None]
    candidates = Piercings(first, second, corners, axis)
    own, other = meeting(candidates, pixels.detach().double(), depth.detach().double(), (width, height))
    # Inverse depth times depth squared is depth, and a sample is depth / focal wide.
    parting = (own + other) * fragments.depth.reshape(-1)[first] * focal.to(own)[image]
    kept = (own > 0) & (other > 0) & (parting > _LEAST_PARTING)
    return Piercings(first[kept], second[kept], corners[kept], axis[kept])


def meeting(
    piercings: Piercings, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"], size: tuple[int, int]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """By how much inverse depth of each sample's own plane is above the other's, at the first and at the second sample.

    The planes meet at `a / (a + b)` of the way. Differentiable in both modes.
    """
    difference = []
    for sample, sign in ((piercings.first, 1), (piercings.second, -1)):
        within = sample % (size[0] * size[1])
        row = torch.div(within, size[0], rounding_mode="floor")
        centre = torch.stack([within - row * size[0], row], 1).to(pixels) + 0.5
        inverse = [_inverse_depth(piercings.corners[:, k], pixels, depth, centre) for k in range(2)]
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


def apart(piercings: Piercings, others: Int[Tensor, " n"], samples: int) -> Bool[Tensor, " m"]:
    """Which lie in none of the gaps `others`, numbered as by `gap_of`."""
    return ~torch.isin(gap_of(piercings.first, piercings.second, piercings.axis, samples), others)


def gap_of(first: Tensor, second: Tensor, axis: Tensor, samples: int) -> Int[Tensor, " m"]:
    """One number for each pair of neighbouring samples."""
    return torch.minimum(first, second) + samples * axis
