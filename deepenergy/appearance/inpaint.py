"""Albedo where no plate shows it: mirrored from the other side of the face, else carried on smoothly over the mesh."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import cg
from scipy.spatial import KDTree
from torch import Tensor

from deepenergy.scene.rig import Rig

# How far (metres) the mirror image of a point may lie from the surface point that it is matched with.
_REACH = 0.006


def mirror_points(rig: Rig, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Points of the neutral, reflected at the face's plane of symmetry (object x = the midline landmarks' mean)."""
    if rig.landmark_faces is not None:
        middle = rig.landmarks(rig.neutral[None])[0, list(rig.layout.midline), 0].mean()
    else:
        middle = (rig.neutral[:, 0].amin() + rig.neutral[:, 0].amax()) / 2
    mirrored = points.clone()
    mirrored[:, 0] = 2 * middle - points[:, 0]
    return mirrored


def mirror_values(
    rig: Rig,
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    values: Float[Tensor, "n 3"],
    known: Bool[Tensor, " n"],
    material: Int[Tensor, " n"],
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
    """Values at unknown points from the known point nearest to their mirror image.

    Args:
        rig: gives the plane of symmetry.
        points, normals: of the neutral surface, where the values are.
        values, known: what is to be mirrored, and where it is known.
        material: only points of the same material are matched: a lip lies close to a tooth.

    Returns:
        The values, and which points were filled: those with a known match within 6 mm that faces the same way.
    """
    values, filled = values.clone(), torch.zeros_like(known)
    flip = torch.tensor([-1.0, 1, 1]).to(normals)
    for label in material.unique():
        source = (known & (material == label)).nonzero()[:, 0]
        target = (~known & (material == label)).nonzero()[:, 0]
        if len(source) == 0 or len(target) == 0:
            continue
        wanted = mirror_points(rig, points[target]).cpu().numpy()
        distance, nearest = KDTree(points[source].cpu().numpy()).query(wanted, distance_upper_bound=_REACH)
        found = torch.from_numpy(np.isfinite(distance)).to(target.device)
        match = source[torch.from_numpy(np.where(np.isfinite(distance), nearest, 0)).to(target.device)]
        # The back of an ear lies close to its front; normals tell them apart.
        alike = (normals[target] * flip * normals[match]).sum(1) > 0.5
        target, match = target[found & alike], match[found & alike]
        values[target] = values[match]
        filled[target] = True
    return values, filled


def inpaint(
    rig: Rig, values: Float[Tensor, "v d"], known: Bool[Tensor, " v"], pull: float = 2e-3
) -> Float[Tensor, "v d"]:
    """Harmonic continuation of vertex values over the mesh, slowly falling back to the median of what is known.

    Args:
        rig: whose triangles connect the vertices.
        values: anything at unknown vertices is not looked at.
        known: which vertices keep their values.
        pull: weight of the fall-back against that of an edge; the continuation reaches about `pull ** -0.5` edges.
    """
    if not bool(known.any()) or bool(known.all()):
        return values
    faces = rig.faces.cpu().numpy()
    count = len(values)
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ones = np.ones(len(pairs))
    adjacency = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), (count, count)).tocsr()
    adjacency = adjacency + adjacency.T
    adjacency.data[:] = 1
    fixed = known.cpu().numpy()
    free = np.flatnonzero(~fixed)
    degree = np.asarray(adjacency.sum(1)).reshape(-1)
    rows = adjacency[free]
    system = diags(degree[free] + pull * np.maximum(degree[free], 1)) - rows[:, free]
    held = values.detach().double().cpu().numpy()
    fallback = np.median(held[fixed], 0)
    result = held.copy()
    for c in range(held.shape[1]):
        right = rows[:, np.flatnonzero(fixed)] @ held[fixed, c] + pull * np.maximum(degree[free], 1) * fallback[c]
        start = np.full(len(free), fallback[c])
        result[free, c] = cg(system, right, x0=start, rtol=1e-5, maxiter=400)[0]
    return torch.from_numpy(result).to(values)
