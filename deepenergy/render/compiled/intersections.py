"""Where neighbouring samples of one image show different things, compiled for the CPU: intersections and borders.

What `find_intersections` and `find_part_borders` find, in one pass over the samples.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from deepenergy.render.reference.intersections import LEAST_PARTING, LEAST_WITHIN

_ROOM = 1024

Pairs = NDArray[np.int64]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def intersections_of_image(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    faces: NDArray[np.int64],
    part: NDArray[np.int32],
    index: NDArray[np.int64],
    depth: NDArray[np.float32],
    focal: float,
) -> tuple[Pairs, Pairs]:
    """Intersections and borders, `[M, 3]` each: first and second sample (flat into the image), and axis; by rows.

    Args:
        xy, z: projected vertices, in samples and metres.
        faces: the mesh.
        part: which connected part each triangle belongs to.
        index, depth: its visibility.
        focal: focal length in samples.
    """
    slopes = _slopes(xy, z, faces)
    height, width = index.shape
    meetings, borders = np.empty((_ROOM, 3), np.int64), np.empty((_ROOM, 3), np.int64)
    met, ended = 0, 0
    for i in range(height):
        for axis in range(2 if i + 1 < height else 1):
            for j in range(width - 1 + axis):
                io, jo = (i, j + 1) if axis == 0 else (i + 1, j)
                p, q = index[i, j], index[io, jo]
                if p == q:
                    continue
                # The background is a part of its own.
                whole = p >= 0 and q >= 0
                if not whole or part[p] != part[q]:
                    if ended == len(borders):
                        borders = _longer(borders)
                    borders[ended, 0], borders[ended, 1], borders[ended, 2] = i * width + j, io * width + jo, axis
                    ended += 1
                if not whole:
                    continue
                here = np.float64(depth[i, j])
                rise = 1.0 / np.float64(depth[io, jo]) - 1.0 / here
                own, far = slopes[q, axis] - rise, rise - slopes[p, axis]
                if not (own > 0 and far > 0):
                    continue
                if (own + far) * here * focal <= (LEAST_WITHIN if part[p] == part[q] else LEAST_PARTING):
                    continue
                touching = False
                for m in range(3):
                    for n in range(3):
                        touching = touching or faces[p, m] == faces[q, n]
                if touching:
                    continue
                if met == len(meetings):
                    meetings = _longer(meetings)
                meetings[met, 0], meetings[met, 1], meetings[met, 2] = i * width + j, io * width + jo, axis
                met += 1
    return meetings[:met], borders[:ended]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _slopes(xy: NDArray[np.float32], z: NDArray[np.float32], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Derivative of every triangle's inverse depth by x and y."""
    corners = np.empty((len(z), 3))
    for v in range(len(z)):
        corners[v, 0], corners[v, 1], corners[v, 2] = xy[v, 0], xy[v, 1], 1.0 / np.float64(z[v])
    out = np.empty((len(faces), 2))
    for f in range(len(faces)):
        a, b, c = corners[faces[f, 0]], corners[faces[f, 1]], corners[faces[f, 2]]
        ux, uy, vx, vy = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
        up, over, share = b[2] - a[2], c[2] - a[2], 1.0 / (ux * vy - uy * vx)
        out[f, 0], out[f, 1] = (up * vy - over * uy) * share, (over * ux - up * vx) * share
    return out


@numba.njit(cache=True, nogil=True)
def _longer(pairs: Pairs) -> Pairs:
    longer = np.empty((2 * len(pairs), 3), np.int64)
    longer[: len(pairs)] = pairs
    return longer
