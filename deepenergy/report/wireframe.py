"""Which lines stand for a rig's surface in an overlay, and which of them the camera sees.

A coarse mesh shows its own edges. The edges of a dense mesh would paint the face over, so it shows a lattice instead:
lines of equal height and of equal angle about the head's axis on the neutral, which move with the surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from deepenergy.render.operations import rasterize
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig

# A line on the visible surface may lie this share of the face's depth range behind the depth buffer's sample.
_DEPTH_SLACK = 0.02


@dataclass(frozen=True)
class SurfaceLines:
    """Line segments that are fixed on a mesh. A point is `(1 - s) * vertex a + s * vertex b`.

    Attributes:
        vertices: `[S, 2, 2]` int64, for both ends of each segment the vertices (a, b).
        shares: `[S, 2]` float64, their s in [0, 1].
        faces: `[S]` int64, a triangle that the segment lies in.
    """

    vertices: np.ndarray
    shares: np.ndarray
    faces: np.ndarray

    def points(self, vertices: Float[np.ndarray, "v n"]) -> Float[np.ndarray, "s 2 n"]:
        """The ends of the segments on a deformed mesh."""
        a, b = vertices[self.vertices[..., 0]], vertices[self.vertices[..., 1]]
        return a + self.shares[..., None] * (b - a)


def surface_lines(rig: Rig, spacing: float) -> SurfaceLines:
    """Lines about `spacing` metres apart: the mesh's own edges where they are as long, a lattice where they are not."""
    neutral = rig.neutral.cpu().numpy().astype(np.float64)
    faces = _skin_faces(rig)
    triangles = rig.faces.cpu().numpy()[faces]
    edges, first = _edges(triangles)
    length = np.linalg.norm(neutral[edges[:, 0]] - neutral[edges[:, 1]], axis=1)
    if np.median(length) >= 0.8 * spacing:
        shares = np.broadcast_to(np.array([0.0, 1.0]), (len(edges), 2)).copy()
        return SurfaceLines(np.stack([edges, edges], 1), shares, faces[first])
    centre, radius = _head_axis(rig, neutral)
    angle = np.arctan2(neutral[:, 0] - centre[0], neutral[:, 2] - centre[2])
    lattice = [
        _isolines(neutral[:, 1] - centre[1], triangles, faces, spacing, period=None),
        _isolines(angle * radius, triangles, faces, spacing, period=2 * np.pi * radius),
    ]
    fields = ("vertices", "shares", "faces")
    return SurfaceLines(*(np.concatenate([getattr(part, name) for part in lattice]) for name in fields))


def visible_lines(
    lines: SurfaceLines,
    camera_points: Float[np.ndarray, "v 3"],
    pixels: Float[np.ndarray, "v 2"],
    faces: Int[np.ndarray, "f 3"],
    camera: Camera,
) -> Bool[np.ndarray, " s"]:
    """Segments that face the camera, are in the image and not hidden by the mesh itself.

    Args:
        lines: the segments.
        camera_points: the mesh's vertices in camera axes (metres).
        pixels: the same, projected.
        faces: all triangles of the mesh.
        camera: gives the image size.
    """
    a, b, c = (camera_points[faces[lines.faces, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    facing = (normal * a).sum(1) < 0
    middle = lines.points(np.concatenate([pixels, camera_points[:, 2:]], 1)).mean(1)
    inside = (middle[:, 0] > 0) & (middle[:, 1] > 0) & (middle[:, 0] < camera.width) & (middle[:, 1] < camera.height)
    nearest = _depth_buffer(camera_points, pixels, faces, camera)
    candidates = facing & inside & (middle[:, 2] > 0)
    column = middle[:, 0].clip(0, camera.width - 1).astype(np.int64)
    row = middle[:, 1].clip(0, camera.height - 1).astype(np.int64)
    extent = np.ptp(camera_points[:, 2])
    return candidates & (middle[:, 2] < nearest[row, column] + _DEPTH_SLACK * extent)


def _depth_buffer(camera_points: np.ndarray, pixels: np.ndarray, faces: np.ndarray, camera: Camera) -> np.ndarray:
    fragments = rasterize(
        torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))[None],
        torch.from_numpy(np.ascontiguousarray(camera_points[:, 2], dtype=np.float32))[None],
        torch.from_numpy(faces),
        (camera.width, camera.height),
    )
    depth = fragments.depth[0].numpy()
    return np.where(fragments.face_index[0].numpy() < 0, np.inf, depth)


def _skin_faces(rig: Rig) -> np.ndarray:
    """Indices of the triangles of the skin; all where the rig names no such region."""
    if rig.face_regions is not None and "skin" in rig.region_names:
        skin = np.flatnonzero(rig.face_regions.cpu().numpy() == rig.region_names.index("skin"))
        if skin.size:
            return skin
    return np.arange(rig.faces.shape[0])


def _edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique edges `[E, 2]` and a triangle of each `[E]`."""
    pairs = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, first = np.unique(pairs, axis=0, return_index=True)
    return edges, first // 3


def _head_axis(rig: Rig, neutral: np.ndarray) -> tuple[np.ndarray, float]:
    """A point of the head's vertical axis, and the head's radius: from ear to ear where the landmarks tell."""
    if rig.landmark_faces is not None:
        ears = rig.landmarks(rig.neutral[None])[0, list(rig.layout.jaw_ends)].cpu().numpy().astype(np.float64)
        return ears.mean(0), float(np.linalg.norm(ears[0] - ears[1])) / 2
    low, high = neutral.min(0), neutral.max(0)
    return (low + high) / 2, float(high[0] - low[0]) / 2


def _isolines(
    values: np.ndarray, triangles: np.ndarray, faces: np.ndarray, spacing: float, period: float | None
) -> SurfaceLines:
    """Segments where a vertex function crosses the odd multiples of `spacing` / 2."""
    corner = values[triangles]
    if period is not None:
        # Triangles over the seam at the back of the head would see all levels at once.
        usable = np.ptp(corner, axis=1) < period / 2
        corner, triangles, faces = corner[usable], triangles[usable], faces[usable]
    low, high = (np.round(v / spacing) for v in (corner.min(1), corner.max(1)))
    vertices, shares, owners = [], [], []
    for level in np.arange(low.min(), high.max()):
        height = (level + 0.5) * spacing
        above = corner > height
        count = above.sum(1)
        hit = np.flatnonzero((count == 1) | (count == 2))
        # The corner that is alone on its side of the level: both its edges are crossed.
        alone = np.where(count[hit] == 1, above[hit].argmax(1), (~above[hit]).argmax(1))
        others = np.stack([(alone + 1) % 3, (alone + 2) % 3], 1)
        rows = np.arange(len(hit))
        start, ends = corner[hit][rows, alone], corner[hit][rows[:, None], others]
        shares.append((height - start[:, None]) / (ends - start[:, None]))
        a = np.repeat(triangles[hit][rows, alone][:, None], 2, 1)
        vertices.append(np.stack([a, triangles[hit][rows[:, None], others]], -1))
        owners.append(faces[hit])
    return SurfaceLines(np.concatenate(vertices), np.concatenate(shares), np.concatenate(owners))
