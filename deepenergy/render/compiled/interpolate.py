"""Vertex colours into samples on the CPU, compiled: the interpolation at every sample, its tangents and its transpose.

    out = (sum_i w_i c_i) / (sum_i w_i),   w_i = cross of the other two corners about the sample, over the depth of i

which is perspective-correct. One loop over the samples does what tensor operations do in ten passes over memory.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of
from deepenergy.render.compiled.rows import bands, in_threads
from deepenergy.render.fragments import Fragments

# Of a cotangent's rows, where there are fewer cotangents than that.
_PIECES = 4


def shade_numba(
    fragments: Fragments,
    faces: Int[Tensor, "f 3"],
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    colour: Float[Tensor, "b v 3"],
) -> Float[Tensor, "b 4 h w"]:
    """Colour and coverage of every sample; see `operations.shade`. CPU tensors only."""
    constants = (fragments.face_index, fragments.barycentrics, faces)
    return apply_compiled(_Shade, constants, (pixels, depth.to(pixels), colour.to(pixels)))


class _Shade:
    """The compiled operation, of projected vertices, depths and colours, given visibility and faces."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        index, bary, faces = (array_of(part) for part in constants)
        colour = array_of(inputs[2])
        out = np.empty((len(index), 4, *index.shape[1:]), colour.dtype)

        def rows(b: int, low: int, high: int) -> None:
            _compute(index[b], bary[b], faces, colour[b], low, high, out[b])

        in_threads(rows, bands(*index.shape))
        return torch.from_numpy(out)

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        index, _, faces = (array_of(part) for part in constants)
        pixels, depth, colour = (array_of(part) for part in inputs)
        moved, deeper, tinted = tangents
        # Tangents last, so that the inner loop runs along memory.
        place = array_of(torch.cat([moved, deeper[..., None]], -1).permute(1, 2, 3, 0))
        tint = array_of(tinted.permute(1, 2, 3, 0))
        out = np.zeros((len(moved), len(index), 4, *index.shape[1:]), pixels.dtype)

        def rows(b: int, low: int, high: int) -> None:
            _jvp(index[b], faces, pixels[b], depth[b], colour[b], place[b], tint[b], low, high, out[:, b])

        in_threads(rows, bands(*index.shape))
        return torch.from_numpy(out)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        index, _, faces = (array_of(part) for part in constants)
        pixels, depth, colour = (array_of(part) for part in inputs)
        given = array_of(cotangents)
        # In pieces that do not depend on the number of threads, and so neither do the sums of their rounding errors.
        count, height = len(given) * len(pixels), index.shape[1]
        pieces = max(1, _PIECES // max(count, 1))
        found = np.zeros((pieces, count, *pixels.shape[1:2], 6), pixels.dtype)

        def rows(piece: int, n: int) -> None:
            t, b = divmod(n, len(pixels))
            low, high = height * piece // pieces, height * (piece + 1) // pieces
            _vjp(index[b], faces, pixels[b], depth[b], colour[b], given[t, b], low, high, found[piece, n])

        in_threads(rows, [(piece, n) for n in range(count) for piece in range(pieces)])
        total = torch.from_numpy(found.sum(0)).view(len(given), *pixels.shape[:2], 6)
        return total[..., :2], total[..., 2], total[..., 3:]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compute(
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    faces: NDArray[np.int64],
    colour: NDArray[np.float32],
    low: int,
    high: int,
    out: NDArray[np.float32],
) -> None:
    for i in range(low, high):
        for j in range(index.shape[1]):
            f = index[i, j]
            if f < 0:
                out[0, i, j], out[1, i, j], out[2, i, j], out[3, i, j] = 0, 0, 0, 0
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb, wc = bary[i, j, 0], bary[i, j, 1], bary[i, j, 2]
            for k in range(3):
                out[k, i, j] = wa * colour[a, k] + wb * colour[b, k] + wc * colour[c, k]
            out[3, i, j] = 1


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _slopes(
    x: float,
    y: float,
    corners: tuple[int, int, int],
    pixels: NDArray[np.float32],
    depth: NDArray[np.float32],
    colour: NDArray[np.float32],
    share: NDArray[np.float64],
    slope: NDArray[np.float64],
) -> None:
    """Barycentrics of a sample, and its colour's derivative `[3 channels, 3 corners, (x, y, z)]`."""
    a, b, c = corners
    ax, ay = np.float64(pixels[a, 0]) - x, np.float64(pixels[a, 1]) - y
    bx, by = np.float64(pixels[b, 0]) - x, np.float64(pixels[b, 1]) - y
    cx, cy = np.float64(pixels[c, 0]) - x, np.float64(pixels[c, 1]) - y
    za, zb, zc = np.float64(depth[a]), np.float64(depth[b]), np.float64(depth[c])
    wa, wb, wc = (bx * cy - by * cx) / za, (cx * ay - cy * ax) / zb, (ax * by - ay * bx) / zc
    total = wa + wb + wc
    share[0], share[1], share[2] = wa / total, wb / total, wc / total
    for k in range(3):
        out = share[0] * colour[a, k] + share[1] * colour[b, k] + share[2] * colour[c, k]
        # By the crosses; a depth's own derivative is that of its weight alone.
        ha = (colour[a, k] - out) / (total * za)
        hb = (colour[b, k] - out) / (total * zb)
        hc = (colour[c, k] - out) / (total * zc)
        slope[k, 0, 0], slope[k, 0, 1], slope[k, 0, 2] = hc * by - hb * cy, hb * cx - hc * bx, -ha * wa
        slope[k, 1, 0], slope[k, 1, 1], slope[k, 1, 2] = ha * cy - hc * ay, hc * ax - ha * cx, -hb * wb
        slope[k, 2, 0], slope[k, 2, 1], slope[k, 2, 2] = hb * ay - ha * by, ha * bx - hb * ax, -hc * wc


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _jvp(
    index: NDArray[np.int64],
    faces: NDArray[np.int64],
    pixels: NDArray[np.float32],
    depth: NDArray[np.float32],
    colour: NDArray[np.float32],
    place: NDArray[np.float32],
    tint: NDArray[np.float32],
    low: int,
    high: int,
    out: NDArray[np.float32],
) -> None:
    count, width = out.shape[0], index.shape[1]
    share, slope = np.empty(3), np.empty((3, 3, 3))
    # A row of samples at a time, tangents last; then turned to rows of images.
    line = np.zeros((width, 3, count), out.dtype)
    for i in range(low, high):
        seen = False
        for j in range(width):
            f = index[i, j]
            for k in range(3):
                for t in range(count):
                    line[j, k, t] = 0
            if f < 0:
                continue
            seen = True
            corners = (faces[f, 0], faces[f, 1], faces[f, 2])
            _slopes(j + 0.5, i + 0.5, corners, pixels, depth, colour, share, slope)
            for n in range(3):
                v = corners[n]
                s = out.dtype.type(share[n])
                for k in range(3):
                    gx, gy = out.dtype.type(slope[k, n, 0]), out.dtype.type(slope[k, n, 1])
                    gz = out.dtype.type(slope[k, n, 2])
                    for t in range(count):
                        line[j, k, t] += (
                            gx * place[v, 0, t] + gy * place[v, 1, t] + gz * place[v, 2, t] + s * tint[v, k, t]
                        )
        if seen:
            for t in range(count):
                for k in range(3):
                    for j in range(width):
                        out[t, k, i, j] = line[j, k, t]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vjp(
    index: NDArray[np.int64],
    faces: NDArray[np.int64],
    pixels: NDArray[np.float32],
    depth: NDArray[np.float32],
    colour: NDArray[np.float32],
    given: NDArray[np.float32],
    low: int,
    high: int,
    out: NDArray[np.float32],
) -> None:
    for i in range(low, high):
        for j in range(index.shape[1]):
            f = index[i, j]
            if f < 0:
                continue
            r, g, b = np.float64(given[0, i, j]), np.float64(given[1, i, j]), np.float64(given[2, i, j])
            if r == 0 and g == 0 and b == 0:
                continue
            va, vb, vc = faces[f, 0], faces[f, 1], faces[f, 2]
            x, y = j + 0.5, i + 0.5
            ax, ay, ia = pixels[va, 0] - x, pixels[va, 1] - y, 1.0 / depth[va]
            bx, by, ib = pixels[vb, 0] - x, pixels[vb, 1] - y, 1.0 / depth[vb]
            cx, cy, ic = pixels[vc, 0] - x, pixels[vc, 1] - y, 1.0 / depth[vc]
            wa, wb, wc = (bx * cy - by * cx) * ia, (cx * ay - cy * ax) * ib, (ax * by - ay * bx) * ic
            over = 1.0 / (wa + wb + wc)
            sa, sb, sc = wa * over, wb * over, wc * over
            # As in `_slopes`, with the cotangent summed over the channels first.
            la = r * colour[va, 0] + g * colour[va, 1] + b * colour[va, 2]
            lb = r * colour[vb, 0] + g * colour[vb, 1] + b * colour[vb, 2]
            lc = r * colour[vc, 0] + g * colour[vc, 1] + b * colour[vc, 2]
            here = sa * la + sb * lb + sc * lc
            ha, hb, hc = (la - here) * over * ia, (lb - here) * over * ib, (lc - here) * over * ic
            _add(out[va], hc * by - hb * cy, hb * cx - hc * bx, -ha * wa, sa * r, sa * g, sa * b)
            _add(out[vb], ha * cy - hc * ay, hc * ax - ha * cx, -hb * wb, sb * r, sb * g, sb * b)
            _add(out[vc], hb * ay - ha * by, ha * bx - hb * ax, -hc * wc, sc * r, sc * g, sc * b)


@numba.njit(cache=True, nogil=True, inline="always")
def _add(to: NDArray[np.float32], x: float, y: float, z: float, r: float, g: float, b: float) -> None:
    to[0] += x
    to[1] += y
    to[2] += z
    to[3] += r
    to[4] += g
    to[5] += b
