"""Visibility on the CPU: a z-buffer loop over the triangles, compiled by numba.

A place in the buffer is one integer, inverse depth above the triangle's number, so that nearest is largest and the
inner loop has no branch: triangles of a face are as small as samples, and which of them wins cannot be predicted.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.bands import bands, in_threads
from deepenergy.render.compiled import array_of
from deepenergy.render.fragments import Fragments
from deepenergy.render.near_plane import clipped, crosses_near

# Below the inverse depth; of equals the lowest number wins.
_LAST = 0xFFFFFFFF
# Below every place in the buffer that has a triangle, and the number of none.
_NOTHING = -1
# Of an image, however many threads there are: each is as large as the image.
_BUFFERS = 4
# Triangles at a time, in turns, so that no thread has all those of the face and another all those behind.
_TURN = 512


def rasterize_numba(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
    near: float = 1e-3,
    cull_backfaces: bool = False,
) -> Fragments:
    """Visibility of projected meshes; see `rasterize`. CPU tensors only."""
    batch, (width, height) = pixels.shape[0], size
    # First the buffer, then the triangles' numbers.
    index = np.empty((batch, height, width), np.int64)
    bary = np.empty((batch, height, width, 3), np.float32)
    z_out = np.empty((batch, height, width), np.float32)
    xy, z, triangles = array_of(pixels.detach()), array_of(depth.detach()), array_of(faces)
    own = np.empty(0, np.int64)
    # Where there are fewer images than threads each thread draws some triangles, into a buffer of its own.
    pieces = len(bands(1, len(triangles), 10 * batch, per_thread=1, most=_BUFFERS)) if batch else 1
    pieces = max(1, min(pieces, -(-torch.get_num_threads() // max(batch, 1))))
    more = np.empty((batch, pieces - 1, height, width), np.int64)

    corners = [_corners(xy[b], z[b], near) for b in range(batch)]

    def draw(b: int, piece: int) -> None:
        buffer = index[b] if piece == 0 else more[b, piece - 1]
        _empty(buffer)
        _draw(corners[b], triangles, own, (piece, pieces), cull_backfaces, buffer)
        # Nearly always nothing comes that near.
        parts = _cut(pixels[b], depth[b], faces, near) if piece == 0 and bool((z[b] < near).any()) else None
        if parts is not None:
            # What lies on the near plane may be a rounding error before it.
            _draw(_corners(*parts[:2], 0.0), *parts[2:], (0, 1), cull_backfaces, buffer)

    in_threads(draw, [(b, piece) for b in range(batch) for piece in range(pieces)])

    def resolve(b: int, low: int, high: int) -> None:
        _resolve(corners[b], triangles, more[b], low, high, index[b], bary[b], z_out[b])

    in_threads(resolve, bands(batch, height, width, per_thread=1))
    return Fragments(torch.from_numpy(index), torch.from_numpy(bary), torch.from_numpy(z_out))


def _cut(
    pixels: Tensor, depth: Tensor, faces: Tensor, near: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Vertices, depths, triangles and whose they are: what is in front of the near plane of those that cross it."""
    numbers = crosses_near(depth.detach(), faces, near).nonzero()[:, 0]
    if not numbers.numel():
        return None
    xy, z, parts, owner = clipped(pixels.detach().double(), depth.detach().double(), faces[numbers], near)
    return xy.numpy(), z.numpy(), parts.contiguous().numpy(), numbers[owner].numpy()


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _corners(xy: NDArray[np.float64], z: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """x, y and inverse depth of every vertex, and that once more, below 0 for one before the near plane or nowhere."""
    out = np.empty((len(z), 4))
    for v in range(len(z)):
        out[v, 0], out[v, 1] = xy[v, 0], xy[v, 1]
        out[v, 2] = 1.0 / np.float64(z[v])
        # NaN compares false, so that a broken vertex drops its triangles and nothing else.
        out[v, 3] = out[v, 2] if z[v] >= near else -1.0
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw(
    corners: NDArray[np.float64],
    faces: NDArray[np.int64],
    owner: NDArray[np.int64],
    turns: tuple[int, int],
    cull: bool,
    buffer: NDArray[np.int64],
) -> None:
    """Triangles of the turns `first::step` over the buffer; their numbers are those of `owner` if any."""
    bottom, right = float(buffer.shape[0]), float(buffer.shape[1])
    first, step = turns
    for turn in range(first * _TURN, faces.shape[0], step * _TURN):
        for f in range(turn, min(turn + _TURN, faces.shape[0])):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            # Held to the image before they become integers, which a vertex far away would overflow.
            ay, by, cy = corners[a, 1], corners[b, 1], corners[c, 1]
            i0, i1 = np.ceil(max(min(ay, by, cy), 0.0) - 0.5), np.floor(min(max(ay, by, cy), bottom) - 0.5)
            if not i0 <= i1:
                continue
            ax, bx, cx = corners[a, 0], corners[b, 0], corners[c, 0]
            j0, j1 = np.ceil(max(min(ax, bx, cx), 0.0) - 0.5), np.floor(min(max(ax, bx, cx), right) - 0.5)
            inv_a, inv_b, inv_c = corners[a, 3], corners[b, 3], corners[c, 3]
            if not (j0 <= j1 and min(inv_a, inv_b, inv_c) > 0):
                continue
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if not (abs(area) > 1e-12) or (cull and area > 0):
                continue
            if area < 0:
                bx, by, inv_b, cx, cy, inv_c = cx, cy, inv_c, bx, by, inv_b
            # Inverse depth is a plane over the image.
            up, over, scale = inv_b - inv_a, inv_c - inv_a, 1.0 / abs(area)
            by_x = (up * (cy - ay) - over * (by - ay)) * scale
            by_y = (over * (bx - ax) - up * (cx - ax)) * scale
            number = np.int64(_LAST - (owner[f] if len(owner) else f))
            # Each edge by itself, so that two triangles that share one get the same of opposite sign, and no sample is
            # missed between them.
            xa, ya, ka = by - cy, cx - bx, bx * cy - by * cx
            xb, yb, kb = cy - ay, ax - cx, cx * ay - cy * ax
            xc, yc, kc = ay - by, bx - ax, ax * by - ay * bx
            at_0 = inv_a - by_y * ay - by_x * ax
            for i in range(int(i0), int(i1) + 1):
                y = i + 0.5
                ra, rb, rc, here = ya * y + ka, yb * y + kb, yc * y + kc, by_y * y + at_0
                for j in range(int(j0), int(j1) + 1):
                    x = j + 0.5
                    # In bits, since a branch would be guessed wrongly every third time: all of them set, which is
                    # nothing, where the least is below 0 (and -0 is not).
                    least = np.float64(min(xa * x + ra, xb * x + rb, xc * x + rc) + 0.0)
                    outside = least.view(np.int64) >> 63
                    inverse = np.float32(by_x * x + here)
                    key = (np.int64(inverse.view(np.int32)) << 32) | number | outside
                    less = buffer[i, j] - key
                    buffer[i, j] -= less & (less >> 63)


@numba.njit(cache=True, nogil=True)
def _empty(buffer: NDArray[np.int64]) -> None:
    buffer[:] = _NOTHING


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(
    corners: NDArray[np.float64],
    faces: NDArray[np.int64],
    more: NDArray[np.int64],
    low: int,
    high: int,
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    depth: NDArray[np.float32],
) -> None:
    """Number, barycentrics and depth of what won in the buffers, `index` among them; it may reach behind the camera.

    Where nothing did, `index` says so already.
    """
    last, ia, ib, ic = -1, 0.0, 0.0, 0.0
    ax, ay, bx, by, cx, cy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(low, high):
        y = i + 0.5
        for j in range(index.shape[1]):
            best = index[i, j]
            for n in range(more.shape[0]):
                best = max(best, more[n, i, j])
            if best == _NOTHING:
                bary[i, j, 0], bary[i, j, 1], bary[i, j, 2], depth[i, j] = 0, 0, 0, 0
                continue
            f, x = _LAST - (best & _LAST), j + 0.5
            if f != last:
                last, a, b, c = f, faces[f, 0], faces[f, 1], faces[f, 2]
                ax, ay, ia = corners[a, 0], corners[a, 1], corners[a, 2]
                bx, by, ib = corners[b, 0], corners[b, 1], corners[b, 2]
                cx, cy, ic = corners[c, 0], corners[c, 1], corners[c, 2]
            ea, da, eb, db, ec, dc = ax - x, ay - y, bx - x, by - y, cx - x, cy - y
            wa, wb, wc = eb * dc - db * ec, ec * da - dc * ea, ea * db - da * eb
            area = wa + wb + wc
            wa, wb, wc = wa * ia, wb * ib, wc * ic
            share = 1.0 / (wa + wb + wc)
            index[i, j] = f
            bary[i, j, 0], bary[i, j, 1], bary[i, j, 2] = wa * share, wb * share, wc * share
            depth[i, j] = area * share
