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
from deepenergy.render.fragments import Fragments
from deepenergy.render.near_plane import clipped, crosses_near

# Below the inverse depth; of equals the lowest number wins.
_LAST = 0xFFFFFFFF
# Of an image, however many threads there are: each is as large as the image.
_BUFFERS = 4


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
    index = np.zeros((batch, height, width), np.int64)
    bary = np.empty((batch, height, width, 3), np.float32)
    z_out = np.empty((batch, height, width), np.float32)
    xy, z = pixels.detach().contiguous().numpy(), depth.detach().contiguous().numpy()
    triangles = np.ascontiguousarray(faces.numpy(), np.int64)
    own = np.empty(0, np.int64)
    # Where there are fewer images than threads each thread draws some triangles, into a buffer of its own.
    shares = bands(batch, len(triangles), 10, per_thread=1, most=_BUFFERS)
    pieces = max(1, len(shares) // max(batch, 1))
    more = np.zeros((batch, pieces - 1, height, width), np.int64)
    corners = [_corners(xy[b], z[b], near) for b in range(batch)]

    def draw(piece: int, b: int, first: int, last: int) -> None:
        buffer = index[b] if piece == 0 else more[b, piece - 1]
        _draw(corners[b], triangles[first:last], own, first, cull_backfaces, buffer)
        parts = _cut(pixels[b], depth[b], faces, near) if piece == 0 else None
        if parts is not None:
            # What lies on the near plane may be a rounding error before it.
            _draw(_corners(*parts[:2], 0.0), *parts[2:], 0, cull_backfaces, buffer)

    in_threads(draw, [(n % pieces, *share) for n, share in enumerate(shares)])

    def resolve(b: int, low: int, high: int) -> None:
        _resolve(xy[b], z[b], triangles, more[b], low, high, index[b], bary[b], z_out[b])

    in_threads(resolve, bands(batch, height, width, per_thread=1))
    return Fragments(torch.from_numpy(index), torch.from_numpy(bary), torch.from_numpy(z_out))


def _cut(
    pixels: Tensor, depth: Tensor, faces: Tensor, near: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Vertices, depths, triangles and whose they are: what is in front of the near plane of those that cross it."""
    # Nearly always nothing comes that near.
    if not bool((depth < near).any()):
        return None
    numbers = crosses_near(depth.detach(), faces, near).nonzero()[:, 0]
    if not numbers.numel():
        return None
    xy, z, parts, owner = clipped(pixels.detach().double(), depth.detach().double(), faces[numbers], near)
    return xy.numpy(), z.numpy(), parts.contiguous().numpy(), numbers[owner].numpy()


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _corners(xy: NDArray[np.float64], z: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """x, y and inverse depth of every vertex, the last below 0 for one before the near plane or nowhere."""
    out = np.empty((len(z), 3))
    for v in range(len(z)):
        out[v, 0], out[v, 1] = xy[v, 0], xy[v, 1]
        # NaN compares false, so that a broken vertex drops its triangles and nothing else.
        out[v, 2] = 1.0 / np.float64(z[v]) if z[v] >= near else -1.0
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw(
    corners: NDArray[np.float64],
    faces: NDArray[np.int64],
    owner: NDArray[np.int64],
    first: int,
    cull: bool,
    buffer: NDArray[np.int64],
) -> None:
    """Triangles over the buffer; their numbers are those of `owner` if any, else they begin with `first`."""
    bottom, right = float(buffer.shape[0]), float(buffer.shape[1])
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        # Held to the image before they become integers, which a vertex far away would overflow.
        ay, by, cy = corners[a, 1], corners[b, 1], corners[c, 1]
        i0, i1 = np.ceil(max(min(ay, by, cy), 0.0) - 0.5), np.floor(min(max(ay, by, cy), bottom) - 0.5)
        if not i0 <= i1:
            continue
        ax, bx, cx = corners[a, 0], corners[b, 0], corners[c, 0]
        j0, j1 = np.ceil(max(min(ax, bx, cx), 0.0) - 0.5), np.floor(min(max(ax, bx, cx), right) - 0.5)
        inv_a, inv_b, inv_c = corners[a, 2], corners[b, 2], corners[c, 2]
        if not (j0 <= j1 and min(inv_a, inv_b, inv_c) >= 0):
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not (abs(area) > 1e-12) or (cull and area > 0):
            continue
        sign, share = 1.0 if area > 0 else -1.0, 1.0 / abs(area)
        inv_a, inv_b, inv_c = share * inv_a, share * inv_b, share * inv_c
        number = np.int64(_LAST - (owner[f] if len(owner) else first + f))
        for i in range(int(i0), int(i1) + 1):
            y = i + 0.5
            for j in range(int(j0), int(j1) + 1):
                x = j + 0.5
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * sign
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * sign
                # By itself: what is left of the area is a rounding error below 0 on an edge that two triangles share.
                wc = ((ax - x) * (by - y) - (ay - y) * (bx - x)) * sign
                inverse = np.float32(wa * inv_a + wb * inv_b + wc * inv_c)
                key = (np.int64(inverse.view(np.int32)) << 32) | number
                seen = (min(wa, wb, wc) >= 0) & (inverse > 0)
                buffer[i, j] = max(buffer[i, j], key if seen else 0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(
    xy: NDArray[np.float64],
    z: NDArray[np.float64],
    faces: NDArray[np.int64],
    more: NDArray[np.int64],
    low: int,
    high: int,
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    depth: NDArray[np.float32],
) -> None:
    """Number, barycentrics and depth of what won in the buffers, `index` among them; it may reach behind the camera."""
    for i in range(low, high):
        y = i + 0.5
        for j in range(index.shape[1]):
            best = index[i, j]
            for n in range(more.shape[0]):
                best = max(best, more[n, i, j])
            if best == 0:
                index[i, j] = -1
                bary[i, j, 0], bary[i, j, 1], bary[i, j, 2], depth[i, j] = 0, 0, 0, 0
                continue
            f, x = _LAST - (best & _LAST), j + 0.5
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            za, zb, zc = np.float64(z[a]), np.float64(z[b]), np.float64(z[c])
            ax, ay = xy[a, 0] - x, xy[a, 1] - y
            bx, by = xy[b, 0] - x, xy[b, 1] - y
            cx, cy = xy[c, 0] - x, xy[c, 1] - y
            # Over the product of the depths, since three products are faster than three quotients.
            wa, wb, wc = (
                (bx * cy - by * cx) * (zb * zc),
                (cx * ay - cy * ax) * (zc * za),
                (ax * by - ay * bx) * (za * zb),
            )
            share = 1.0 / (wa + wb + wc)
            wa, wb, wc = wa * share, wb * share, wc * share
            index[i, j] = f
            bary[i, j, 0], bary[i, j, 1], bary[i, j, 2] = wa, wb, wc
            depth[i, j] = wa * za + wb * zb + wc * zc
