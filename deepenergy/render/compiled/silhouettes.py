"""The contours of one image, compiled for the CPU: what `find_crossings` finds."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from deepenergy.render.reference.silhouettes import BEFORE, BEHIND, GAP, STEEPEST

_ROOM = 1024
# Columns of what is found.
INSIDE, OUTSIDE, FIRST_END, SECOND_END, AXIS, EDGE = range(6)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def contours_of_image(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    faces: NDArray[np.int64],
    ends: NDArray[np.int64],
    of_face: NDArray[np.int64],
    index: NDArray[np.int64],
    depth: NDArray[np.float32],
    sample: float,
    near: float,
) -> NDArray[np.int64]:
    """`[M, 6]`: inside and outside (flat into the image), the edge's two vertices, the axis, and the edge; by gap.

    Args:
        xy, z: projected vertices, in samples and metres.
        faces, ends, of_face: the mesh and its edges.
        index, depth: its visibility.
        sample: width of a sample at a depth of 1.
        near: as in `rasterize`.
    """
    side = _sides(xy, z, faces, of_face, near, len(ends))
    found, reach = _scan(xy, z, ends, side, index, depth, sample)
    return found[_farthest(np.minimum(found[:, 0], found[:, 1]) + index.size * found[:, 4], reach)]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sides(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    faces: NDArray[np.int64],
    of_face: NDArray[np.int64],
    near: float,
    edges: int,
) -> NDArray[np.uint8]:
    """Bit 1: a triangle on the left of the edge (from its first end), bit 2: on its right, as y grows downwards."""
    side = np.zeros(edges, np.uint8)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if z[a] < near or z[b] < near or z[c] < near:
            for k in range(3):
                side[of_face[f, k]] = 3
            continue
        ax, ay = np.float64(xy[a, 0]), np.float64(xy[a, 1])
        area = (xy[b, 0] - ax) * (xy[c, 1] - ay) - (xy[b, 1] - ay) * (xy[c, 0] - ax)
        if area == 0:
            continue
        # What a forward edge gets, or the other: 1 xor 3 is 2, 2 xor 3 is 1.
        bit = np.uint8(1) if area > 0 else np.uint8(2)
        side[of_face[f, 0]] |= bit if a < b else bit ^ 3
        side[of_face[f, 1]] |= bit if b < c else bit ^ 3
        side[of_face[f, 2]] |= bit if c < a else bit ^ 3
    return side


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    ends: NDArray[np.int64],
    side: NDArray[np.uint8],
    index: NDArray[np.int64],
    depth: NDArray[np.float32],
    sample: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every crossing, and its distance from P."""
    height, width = index.shape
    found, reach = np.empty((_ROOM, 6), np.int64), np.empty(_ROOM, np.float64)
    count = 0
    for e in range(ends.shape[0]):
        if side[e] != 1 and side[e] != 2:
            continue
        a, b = ends[e, 0], ends[e, 1]
        inv_a, inv_b = 1.0 / np.float64(z[a]), 1.0 / np.float64(z[b])
        for axis in range(2):
            # u runs along the line of centres, v across it: (x, y) in rows, (y, x) in columns.
            ua, va = np.float64(xy[a, axis]), np.float64(xy[a, 1 - axis])
            ub, vb = np.float64(xy[b, axis]), np.float64(xy[b, 1 - axis])
            length, lines = (width, height) if axis == 0 else (height, width)
            if abs(ub - ua) > STEEPEST * abs(vb - va):
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
                if index[pi, pj] < 0 or (index[qi, qj] >= 0 and depth[qi, qj] < here + GAP * unit):
                    continue
                if depth[pi, pj] < here - BEFORE * unit or depth[pi, pj] > here + BEHIND * unit:
                    continue
                if count == len(reach):
                    more, farther = np.empty((2 * count, 6), np.int64), np.empty(2 * count, np.float64)
                    more[:count], farther[:count] = found, reach
                    found, reach = more, farther
                found[count, 0], found[count, 1] = pi * width + pj, qi * width + qj
                found[count, 2], found[count, 3], found[count, 4], found[count, 5] = a, b, axis, e
                reach[count] = abs(u - p)
                count += 1
    return found[:count], reach[:count]


@numba.njit(cache=True, nogil=True)
def _farthest(gap: NDArray[np.int64], reach: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of the crossings in each gap the one farthest from P; of equals the first that was found."""
    order = np.argsort(gap)
    # What is kept moves to the front, over places that have been read.
    count = 0
    for n in order:
        if count and gap[order[count - 1]] == gap[n]:
            # The sort is not stable.
            last = order[count - 1]
            if reach[n] > reach[last] or (reach[n] == reach[last] and n < last):
                order[count - 1] = n
        else:
            order[count] = n
            count += 1
    return order[:count]
