"""The blend at outlines on the CPU, compiled: what `find_outlines_torch` and `blend_of` find.

Which samples are mixed is decided without a gradient. The shares of those are functions of a few vertices each, whose
derivatives are written down with them; that makes both modes one sparse product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.blend import Blend, EdgePoints
from deepenergy.render.compiled.intersections import intersections_of_image
from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of
from deepenergy.render.compiled.rows import in_threads
from deepenergy.render.compiled.silhouettes import AXIS, EDGE, FIRST_END, INSIDE, OUTSIDE, SECOND_END, contours_of_image
from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges

# Of vertices that a share depends on.
_MOST = 6


@dataclass(frozen=True)
class LinearBlend:
    """A blend at one place of the vertices, and the derivative of its shares; carries no gradient itself.

    Attributes:
        target, source: `[N]` as in `Blend`.
        share: `[N]` float64.
        corners: `[N, 6]` vertices that the share depends on, flat into `B * V`; -1 after the last.
        slope: `[N, 6, 3]` derivative of the share by x, y (samples) and depth (metres) of those.
        ends, axis, line, face: of the `EdgePoints`.
    """

    target: Tensor
    source: Tensor
    share: Tensor
    corners: Tensor
    slope: Tensor
    ends: Tensor
    axis: Tensor
    line: Tensor
    face: Tensor

    def at(self, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"]) -> Blend:
        """The blend, differentiable in the vertices that it was found for."""
        constants = (self.share, self.corners, self.slope)
        share = apply_compiled(_Shares, constants, (pixels, depth.to(pixels)))
        return Blend(self.target, self.source, share, EdgePoints(self.ends, self.axis, self.line, self.face))


def find_blend_numba(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
    near: float = 1e-3,
) -> LinearBlend:
    """The blend at outlines; see `operations.find_outlines`. CPU tensors only."""
    xy, z, triangles = array_of(pixels), array_of(depth.to(pixels)), array_of(edges.faces)
    index, seen, bary = (array_of(t) for t in (fragments.face_index, fragments.depth, fragments.barycentrics))
    ends, of_face, part = (array_of(t) for t in (edges.ends, edges.of_face, edges.part))
    lens = focal.tolist()

    def search(b: int, kind: int) -> tuple[NDArray[np.int64], ...]:
        if kind == 0:
            given = (xy[b], z[b], triangles, ends, of_face, index[b], seen[b], 1.0 / lens[b])
            return (contours_of_image(*given, near),)
        return intersections_of_image(xy[b], z[b], triangles, part, index[b], seen[b], lens[b])

    found = in_threads(search, [(b, kind) for b in range(len(xy)) for kind in range(2)])

    def mix(b: int) -> tuple[NDArray[np.generic], ...]:
        contours, meetings, borders = *found[2 * b], *found[2 * b + 1]
        return _mixed(contours, meetings, borders, triangles, xy[b], z[b], index[b], seen[b], bary[b], b)

    columns = zip(*in_threads(mix, [(b,) for b in range(len(xy))]), strict=True)
    joined = [c[0] if len(c) == 1 else np.concatenate(c) for c in columns] or _none()
    target, source, share, corners, slope, axis, edge = joined
    height, width = index.shape[1:]
    beyond = np.flatnonzero(edge >= 0)
    source[beyond] = index.size + np.arange(len(beyond))
    axis = axis[beyond]
    line = np.where(axis == 0, target[beyond] // width % height, target[beyond] % width)
    points = (corners[beyond, :2], axis, line, array_of(edges.face)[edge[beyond]])
    return LinearBlend(*(torch.from_numpy(part) for part in (target, source, share, corners, slope, *points)))


def _none() -> list[NDArray[Any]]:
    number, real = np.zeros(0, np.int64), np.zeros(0)
    return [number, number, real, np.zeros((0, _MOST), np.int64), np.zeros((0, _MOST, 3)), number, number]


class _Shares:
    """The compiled operation, of projected vertices and depths, given shares, corners and slopes."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        return constants[0].to(inputs[0].dtype, copy=True)

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        _, corners, slope = (array_of(part) for part in constants)
        moved, deeper = (array_of(part) for part in tangents)
        out = np.empty((len(moved), len(corners)), moved.dtype)
        _jvp(corners, slope, moved.reshape(len(moved), -1, 2), deeper.reshape(len(moved), -1), out)
        return torch.from_numpy(out)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        _, corners, slope = (array_of(part) for part in constants)
        given = array_of(cotangents)
        found = [np.zeros((len(given), *part.shape), given.dtype) for part in inputs]
        _vjp(corners, slope, given, found[0].reshape(len(given), -1, 2), found[1].reshape(len(given), -1))
        return tuple(torch.from_numpy(part) for part in found)


@numba.njit(cache=True, nogil=True)
def _jvp(
    corners: NDArray[np.int64],
    slope: NDArray[np.float64],
    moved: NDArray[np.float32],
    deeper: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    for t in range(len(out)):
        for n in range(len(corners)):
            total = 0.0
            for k in range(corners.shape[1]):
                v = corners[n, k]
                if v < 0:
                    break
                total += (
                    slope[n, k, 0] * moved[t, v, 0] + slope[n, k, 1] * moved[t, v, 1] + slope[n, k, 2] * deeper[t, v]
                )
            out[t, n] = total


@numba.njit(cache=True, nogil=True)
def _vjp(
    corners: NDArray[np.int64],
    slope: NDArray[np.float64],
    given: NDArray[np.float32],
    to_pixels: NDArray[np.float32],
    to_depth: NDArray[np.float32],
) -> None:
    for t in range(len(given)):
        for n in range(len(corners)):
            value = np.float64(given[t, n])
            for k in range(corners.shape[1]):
                v = corners[n, k]
                if v < 0:
                    break
                to_pixels[t, v, 0] += slope[n, k, 0] * value
                to_pixels[t, v, 1] += slope[n, k, 1] * value
                to_depth[t, v] += slope[n, k, 2] * value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mixed(
    contours: NDArray[np.int64],
    meetings: NDArray[np.int64],
    borders: NDArray[np.int64],
    faces: NDArray[np.int64],
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    index: NDArray[np.int64],
    depth: NDArray[np.float32],
    bary: NDArray[np.float32],
    image: int,
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.int64],
    NDArray[np.int64],
]:
    """Of one image, of the batch's places: the first fields of a `LinearBlend`, the axis, and the edge or -1."""
    width, samples = index.shape[1], index.size
    # Gaps that have an outline, by the sample that comes first and the axis, and samples at one.
    taken, known = np.zeros((2, samples), np.bool_), np.zeros(samples, np.bool_)
    most = len(contours) + len(meetings) + 2 * len(borders)
    target, source = np.empty(most, np.int64), np.empty(most, np.int64)
    axes, edge, share = np.empty(most, np.int64), np.full(most, -1, np.int64), np.empty(most)
    corners, slope = np.full((most, _MOST), -1, np.int64), np.empty((most, _MOST, 3))
    count = 0
    for m in range(len(contours)):
        p, q, axis = contours[m, INSIDE], contours[m, OUTSIDE], contours[m, AXIS]
        taken[axis, min(p, q)], known[p], known[q] = True, True, True
        corners[count, 0], corners[count, 1] = contours[m, FIRST_END], contours[m, SECOND_END]
        distance = _contour(xy, corners[count], p, q, axis, width, slope[count])
        _share(distance, p, q, axis, count, target, source, axes, share, slope)
        if target[count] == q:
            edge[count] = contours[m, EDGE]
        count += 1
    for m in range(len(meetings)):
        p, q, axis = meetings[m, 0], meetings[m, 1], meetings[m, 2]
        # The contour has the gap.
        if taken[axis, p]:
            continue
        known[p], known[q] = True, True
        corners[count, :3] = faces[index[p // width, p % width]]
        corners[count, 3:] = faces[index[q // width, q % width]]
        distance = _meeting(xy, z, corners[count], p, q, width, slope[count])
        _share(distance, p, q, axis, count, target, source, axes, share, slope)
        count += 1
    count = _along_the_larger(count, target, source, axes, share, corners, slope, edge)
    for m in range(len(borders)):
        p, q, axis = borders[m, 0], borders[m, 1], borders[m, 2]
        if known[p] or known[q]:
            continue
        i, j, io, jo = p // width, p % width, q // width, q % width
        if not (index[i, j] >= 0 and (index[io, jo] < 0 or depth[i, j] <= depth[io, jo])):
            p, q, i, j = q, p, io, jo
        for sign in (1.0, -1.0):
            corners[count, :3], corners[count, 3:] = faces[index[i, j]], -1
            _depth_step(xy, z, corners[count], bary[i, j], axis, 0.5 * sign if q > p else -0.5 * sign, slope[count])
            target[count], source[count] = (q, p) if sign > 0 else (p, q)
            axes[count], edge[count], share[count] = axis, -1, 0.0
            count += 1
    target, source, corners = target[:count], source[:count], corners[:count]
    for n in range(count):
        target[n] += image * samples
        source[n] += image * samples
        for k in range(_MOST):
            if corners[n, k] >= 0:
                corners[n, k] += image * len(z)
    return target, source, share[:count], corners, slope[:count], axes[:count], edge[:count]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _contour(
    xy: NDArray[np.float32],
    ends: NDArray[np.int64],
    inside: int,
    outside: int,
    axis: int,
    width: int,
    slope: NDArray[np.float64],
) -> float:
    """From the centre of P to the edge, in samples, along the line to Q; and its derivative."""
    row, column = inside // width, inside % width
    # Along the line of centres (u) and across it (v).
    centre_u, centre_v = (column + 0.5, row + 0.5) if axis == 0 else (row + 0.5, column + 0.5)
    a, b = ends[0], ends[1]
    ua, va = np.float64(xy[a, axis]), np.float64(xy[a, 1 - axis])
    ub, vb = np.float64(xy[b, axis]), np.float64(xy[b, 1 - axis])
    share = (centre_v - va) / (vb - va)
    onwards = 1.0 if outside > inside else -1.0
    lean = onwards * (ub - ua) / (vb - va)
    slope[:2] = 0
    slope[0, axis], slope[0, 1 - axis] = onwards * (1 - share), -lean * (1 - share)
    slope[1, axis], slope[1, 1 - axis] = onwards * share, -lean * share
    return (ua + share * (ub - ua) - centre_u) * onwards


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _meeting(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    corners: NDArray[np.int64],
    first: int,
    second: int,
    width: int,
    slope: NDArray[np.float64],
) -> float:
    """Where two planes meet, as a share of the way from the first sample to the second; and its derivative."""
    there = np.empty((6, 3))
    x, y = first % width + 0.5, first // width + 0.5
    ahead = _inverse_depth(xy, z, corners[:3], x, y, slope[:3]) - _inverse_depth(xy, z, corners[3:], x, y, slope[3:])
    x, y = second % width + 0.5, second // width + 0.5
    behind = _inverse_depth(xy, z, corners[3:], x, y, there[3:]) - _inverse_depth(xy, z, corners[:3], x, y, there[:3])
    total = ahead + behind
    for n in range(6):
        sign = 1.0 if n < 3 else -1.0
        for k in range(3):
            slope[n, k] = sign * (slope[n, k] * behind + there[n, k] * ahead) / (total * total)
    return ahead / total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _inverse_depth(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    corners: NDArray[np.int64],
    x: float,
    y: float,
    slope: NDArray[np.float64],
) -> float:
    """Of a triangle's plane at a place of the image; and its derivative."""
    a, b, c = corners[0], corners[1], corners[2]
    ax, ay, bx, by, cx, cy = xy[a, 0] - x, xy[a, 1] - y, xy[b, 0] - x, xy[b, 1] - y, xy[c, 0] - x, xy[c, 1] - y
    ia, ib, ic = 1.0 / np.float64(z[a]), 1.0 / np.float64(z[b]), 1.0 / np.float64(z[c])
    wa, wb, wc = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = wa + wb + wc
    value = (wa * ia + wb * ib + wc * ic) / area
    ga, gb, gc = (ia - value) / area, (ib - value) / area, (ic - value) / area
    slope[0, 0], slope[0, 1], slope[0, 2] = gc * by - gb * cy, gb * cx - gc * bx, -wa / area * ia * ia
    slope[1, 0], slope[1, 1], slope[1, 2] = ga * cy - gc * ay, gc * ax - ga * cx, -wb / area * ib * ib
    slope[2, 0], slope[2, 1], slope[2, 2] = gb * ay - ga * by, ga * bx - gb * ax, -wc / area * ic * ic
    return value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _depth_step(
    xy: NDArray[np.float32],
    z: NDArray[np.float32],
    corners: NDArray[np.int64],
    bary: NDArray[np.float32],
    axis: int,
    share: float,
    slope: NDArray[np.float64],
) -> None:
    """Derivative of a share of how far the surface at a sample moves along an axis."""
    total, along = 0.0, 0.0
    for k in range(3):
        weight = np.float64(bary[k]) * z[corners[k]]
        total += weight
        along += weight * xy[corners[k], axis]
    along /= total
    slope[:] = 0
    for k in range(3):
        at = np.float64(bary[k]) / total
        slope[k, axis] = share * at * z[corners[k]]
        slope[k, 2] = share * at * (xy[corners[k], axis] - along)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _share(
    distance: float,
    first: int,
    second: int,
    axis: int,
    at: int,
    target: NDArray[np.int64],
    source: NDArray[np.int64],
    axes: NDArray[np.int64],
    share: NDArray[np.float64],
    slope: NDArray[np.float64],
) -> None:
    """The row of an outline at a distance from the first of two samples."""
    near = distance < 0.5
    target[at], source[at] = (first, second) if near else (second, first)
    axes[at] = axis
    wanted = 0.5 - distance if near else distance - 0.5
    # Rounding may put the outline a hair outside of the gap.
    share[at] = min(wanted, 0.5)
    slope[at] *= 0.0 if wanted > 0.5 else (-1.0 if near else 1.0)


@numba.njit(cache=True, nogil=True)
def _along_the_larger(
    count: int,
    target: NDArray[np.int64],
    source: NDArray[np.int64],
    axes: NDArray[np.int64],
    share: NDArray[np.float64],
    corners: NDArray[np.int64],
    slope: NDArray[np.float64],
    edge: NDArray[np.int64],
) -> int:
    """Of each target's rows keep those of the axis along which more is mixed; how many are left, moved to the front."""
    order = np.argsort(target[:count])
    keep = np.empty(count, np.bool_)
    start = 0
    while start < count:
        end, row, column = start, 0.0, 0.0
        while end < count and target[order[end]] == target[order[start]]:
            if axes[order[end]] == 0:
                row += share[order[end]]
            else:
                column += share[order[end]]
            end += 1
        for n in order[start:end]:
            keep[n] = axes[n] == (1 if column > row else 0)
        start = end
    left = 0
    for n in range(count):
        if keep[n]:
            target[left], source[left], share[left] = target[n], source[n], share[n]
            corners[left], slope[left] = corners[n], slope[n]
            axes[left], edge[left] = axes[n], edge[n]
            left += 1
    return left
