"""Visibility on the CPU: a z-buffer loop over the triangles, compiled by numba.

A place in the buffer is one integer, inverse depth above the triangle's number, so that nearest is largest and the
inner loop has no branch: triangles of a face are as small as samples, and which of them wins cannot be predicted.

Those that face the camera come first. Of the others, half of a head, most lie behind blocks of samples that are covered
by then, which a few blocks show. Each thread has rows of its own.
"""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled.operation import array_of
from deepenergy.render.compiled.rows import in_threads
from deepenergy.render.fragments import Fragments
from deepenergy.render.near_plane import clipped, crosses_near

# Below the inverse depth; of equals the lowest number wins.
_LAST = 0xFFFFFFFF
# Below every place in the buffer that has a triangle, and the number of none.
_NOTHING = -1
# Samples along a block's side, as a power of two.
_BLOCK = 3
# What a thread has to have to be worth waking.
_LEAST_TRIANGLES = 2_000
# When rows are dealt out: the vertices that are looked at, and the work that a sample is beside a vertex and all its
# triangles.
_EVERY, _SAMPLE_PER_VERTEX = 8, 0.15
_Parts = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]
_NO_PARTS: _Parts = (np.empty((0, 4)), np.empty((0, 3), np.int64), np.empty(0, np.int64))


def rasterize_numba(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
    near: float = 1e-3,
) -> Fragments:
    """Visibility of projected meshes; see `rasterize`. CPU tensors only."""
    batch, (width, height) = pixels.shape[0], size
    # First the buffer, then the triangles' numbers.
    index = np.empty((batch, height, width), np.int64)
    bary = np.empty((batch, height, width, 3), np.float32)
    z_out = np.empty((batch, height, width), np.float32)
    xy, z, triangles = array_of(pixels.detach()), array_of(depth.detach()), array_of(faces)
    corners, cut = [], []
    for b in range(batch):
        whole, nearer = _corners(xy[b], z[b], near)
        corners.append(whole)
        # Nearly always nothing comes that near.
        cut.append(_cut(pixels[b], depth[b], faces, near) if nearer else _NO_PARTS)

    def draw(b: int, low: int, high: int) -> bool:
        out = (index[b], bary[b], z_out[b])
        return _draw_rows(corners[b], triangles, cut[b], low, high, *out)

    # Where there are fewer images than threads each thread has some rows.
    pieces = min(-(-torch.get_num_threads() // max(batch, 1)), max(1, len(triangles) // _LEAST_TRIANGLES))
    cuts = [_cuts(corners[b], width, height, pieces) if pieces > 1 else [0, height] for b in range(batch)]
    good = in_threads(draw, [(b, *rows) for b in range(batch) for rows in pairwise(cuts[b])])
    if not all(good):
        found = f"{triangles.min()}..{triangles.max()}"
        raise ValueError(f"faces: found vertices {found}; expected 0..{pixels.shape[1] - 1}, those of the mesh")
    return Fragments(torch.from_numpy(index), torch.from_numpy(bary), torch.from_numpy(z_out))


def _cut(pixels: Tensor, depth: Tensor, faces: Tensor, near: float) -> _Parts:
    """Corners, triangles and whose they are: what is in front of the near plane of those that cross it."""
    numbers = crosses_near(depth.detach(), faces, near).nonzero()[:, 0]
    xy, z, parts, owner = clipped(pixels.detach().double(), depth.detach().double(), faces[numbers], near)
    # What lies on the near plane may be a rounding error before it.
    return _corners(xy.numpy(), z.numpy(), 0.0)[0], parts.contiguous().numpy(), numbers[owner].numpy()


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _corners(xy: NDArray[np.float64], z: NDArray[np.float64], near: float) -> tuple[NDArray[np.float64], bool]:
    """x, y and inverse depth of every vertex, and that once more, below 0 for one before the near plane or nowhere.

    And whether one is before the near plane.
    """
    out, nearer = np.empty((len(z), 4)), False
    for v in range(len(z)):
        out[v, 0], out[v, 1] = xy[v, 0], xy[v, 1]
        out[v, 2] = 1.0 / np.float64(z[v])
        # NaN compares false, so that a broken vertex drops its triangles and nothing else.
        out[v, 3] = out[v, 2] if z[v] >= near else -1.0
        nearer |= z[v] < near
    return out, nearer


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _cuts(corners: NDArray[np.float64], width: int, height: int, pieces: int) -> list[int]:
    """First row of each of some pieces of the image that are about as much work, and the image's height.

    They begin where blocks do, so that what is found does not depend on how many there are.
    """
    count = ((height - 1) >> _BLOCK) + 1
    work, left, right = np.zeros(count), np.full(count, float(width)), np.zeros(count)
    for v in range(0, len(corners), _EVERY):
        x, y = corners[v, 0], corners[v, 1]
        if x >= 0 and x < width and y >= 0 and y < height:
            n = int(y) >> _BLOCK
            work[n] += _EVERY
            left[n], right[n] = min(left[n], x), max(right[n], x)
    for n in range(count):
        work[n] += _SAMPLE_PER_VERTEX * max(right[n] - left[n], 0.0) * (1 << _BLOCK)
    cuts, done, total = [0], 0.0, work.sum()
    for n in range(count - 1):
        done += work[n]
        if done * pieces >= total * len(cuts) > 0:
            cuts.append((n + 1) << _BLOCK)
    cuts.append(height)
    return cuts


@numba.njit(cache=True, nogil=True)
def _draw_rows(
    corners: NDArray[np.float64],
    faces: NDArray[np.int64],
    cut: _Parts,
    low: int,
    high: int,
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    depth: NDArray[np.float32],
) -> bool:
    """Rows of one image, of a mesh and of the parts of triangles that were cut; whether all of these have vertices."""
    index[low:high] = _NOTHING
    cut_corners, cut_faces, owner = cut
    if not _draw(corners, faces, owner[:0], low, high, index):
        return False
    if len(cut_faces):
        _draw(cut_corners, cut_faces, owner, low, high, index)
    _resolve(corners, faces, low, high, index, bary, depth)
    return True


# Indices are unsigned, since signed ones are looked at for being negative at every access.
@numba.njit(cache=True, nogil=True, error_model="numpy")
def _draw(
    corners: NDArray[np.float64],
    faces: NDArray[np.int64],
    owner: NDArray[np.int64],
    low: int,
    high: int,
    buffer: NDArray[np.int64],
) -> bool:
    """Triangles over rows of the buffer; their numbers are those of `owner` if any.

    False, and nothing more is drawn, for a triangle of a vertex that there is not.
    """
    # Which triangle, the blocks that it may touch (first and last, in rows and columns) and the bits of its greatest
    # inverse depth.
    later = np.empty((len(faces), 4), np.int32)
    top, bottom, right = float(low), float(high), float(buffer.shape[1])
    owned, vertices = len(owner) > 0, np.uint64(len(corners))
    count = np.uint64(0)
    farthest = np.empty((0, 0), np.int64)
    for turn in range(2):
        if turn == 1:
            if count == np.uint64(0):
                return True
            farthest = _farthest(buffer[low:high])
        for n in range(np.uint64(len(faces)) if turn == 0 else count):
            f = n
            if turn == 1:
                if _hidden(farthest, later[n, 1], later[n, 2], later[n, 3]):
                    continue
                f = np.uint64(later[n, 0])
            a, b, c = np.uint64(faces[f, 0]), np.uint64(faces[f, 1]), np.uint64(faces[f, 2])
            if max(a, b, c) >= vertices:
                return False
            # Held to the image before they become integers, which a vertex far away would overflow.
            ay, by, cy = corners[a, 1], corners[b, 1], corners[c, 1]
            i0, i1 = np.ceil(max(min(ay, by, cy), top) - 0.5), np.floor(min(max(ay, by, cy), bottom) - 0.5)
            if not i0 <= i1:
                continue
            ax, bx, cx = corners[a, 0], corners[b, 0], corners[c, 0]
            j0, j1 = np.ceil(max(min(ax, bx, cx), 0.0) - 0.5), np.floor(min(max(ax, bx, cx), right) - 0.5)
            inv_a, inv_b, inv_c = corners[a, 3], corners[b, 3], corners[c, 3]
            if not (j0 <= j1 and min(inv_a, inv_b, inv_c) > 0):
                continue
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if not (abs(area) > 1e-12):
                continue
            if turn == 0 and area > 0:
                later[count, 0] = f
                later[count, 1] = _first_and_last(int(i0) - low, int(i1) - low)
                later[count, 2] = _first_and_last(int(j0), int(j1))
                # At the samples it may be a rounding error more.
                later[count, 3] = np.float32(max(inv_a, inv_b, inv_c) * 1.000001).view(np.int32)
                count += np.uint64(1)
                continue
            if area < 0:
                bx, by, inv_b, cx, cy, inv_c = cx, cy, inv_c, bx, by, inv_b
            # Inverse depth is a plane over the image.
            up, over, scale = inv_b - inv_a, inv_c - inv_a, 1.0 / abs(area)
            by_x = (up * (cy - ay) - over * (by - ay)) * scale
            by_y = (over * (bx - ax) - up * (cx - ax)) * scale
            number = np.int64(_LAST - (owner[f] if owned else np.int64(f)))
            # Each edge by itself, so that two triangles that share one get the same of opposite sign, and no sample is
            # missed between them.
            xa, ya, ka = by - cy, cx - bx, bx * cy - by * cx
            xb, yb, kb = cy - ay, ax - cx, cx * ay - cy * ax
            xc, yc, kc = ay - by, bx - ax, ax * by - ay * bx
            at_0 = inv_a - by_y * ay - by_x * ax
            first, after = np.uint64(int(j0)), np.uint64(int(j1) + 1)
            y = i0 + 0.5
            for i in range(np.uint64(int(i0)), np.uint64(int(i1) + 1)):
                ra, rb, rc, here = ya * y + ka, yb * y + kb, yc * y + kc, by_y * y + at_0
                x = j0 + 0.5
                for j in range(first, after):
                    # In bits, since a branch would be guessed wrongly every third time: all of them set, which is
                    # nothing, where the least is below 0 (and -0 is not).
                    least = np.float64(min(xa * x + ra, xb * x + rb, xc * x + rc) + 0.0)
                    outside = least.view(np.int64) >> 63
                    inverse = np.float32(by_x * x + here)
                    key = (np.int64(inverse.view(np.int32)) << 32) | number | outside
                    less = buffer[i, j] - key
                    buffer[i, j] -= less & (less >> 63)
                    x += 1.0
                y += 1.0
    return True


@numba.njit(cache=True, nogil=True, inline="always")
def _first_and_last(low: int, high: int) -> int:
    """The blocks of the first and of the last of some rows or columns, as one number."""
    return (low >> _BLOCK << 16) | (high >> _BLOCK)


@numba.njit(cache=True, nogil=True, inline="always")
def _hidden(farthest: NDArray[np.int64], rows: int, columns: int, nearest: int) -> bool:
    """Whether every block is covered by what is nearer than that; as `later` has them in `_draw`."""
    key = (np.int64(nearest) << 32) | _LAST
    for i in range(np.uint64(rows >> 16), np.uint64((rows & 0xFFFF) + 1)):
        for j in range(np.uint64(columns >> 16), np.uint64((columns & 0xFFFF) + 1)):
            if farthest[i, j] < key:
                return False
    return True


@numba.njit(cache=True, nogil=True)
def _farthest(buffer: NDArray[np.int64]) -> NDArray[np.int64]:
    """The farthest of every block: the least of its places in the buffer."""
    height, width = buffer.shape
    out = np.empty((((height - 1) >> _BLOCK) + 1, ((width - 1) >> _BLOCK) + 1), np.int64)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            least = buffer[i << _BLOCK, j << _BLOCK]
            for y in range(i << _BLOCK, min((i + 1) << _BLOCK, height)):
                for x in range(j << _BLOCK, min((j + 1) << _BLOCK, width)):
                    least = min(least, buffer[y, x])
            out[i, j] = least
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _resolve(
    corners: NDArray[np.float64],
    faces: NDArray[np.int64],
    low: int,
    high: int,
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    depth: NDArray[np.float32],
) -> None:
    """Number, barycentrics and depth of what won in the buffer, `index`; it may reach behind the camera.

    Where nothing did, `index` says so already.
    """
    for i in range(np.uint64(low), np.uint64(high)):
        y, x = np.float64(i) + 0.5, -0.5
        for j in range(np.uint64(index.shape[1])):
            x += 1.0
            best = index[i, j]
            if best == _NOTHING:
                bary[i, j, 0], bary[i, j, 1], bary[i, j, 2], depth[i, j] = 0, 0, 0, 0
                continue
            f = np.uint64(_LAST - (best & _LAST))
            a, b, c = np.uint64(faces[f, 0]), np.uint64(faces[f, 1]), np.uint64(faces[f, 2])
            ea, da, ia = corners[a, 0] - x, corners[a, 1] - y, corners[a, 2]
            eb, db, ib = corners[b, 0] - x, corners[b, 1] - y, corners[b, 2]
            ec, dc, ic = corners[c, 0] - x, corners[c, 1] - y, corners[c, 2]
            wa, wb, wc = eb * dc - db * ec, ec * da - dc * ea, ea * db - da * eb
            area = wa + wb + wc
            wa, wb, wc = wa * ia, wb * ib, wc * ic
            share = 1.0 / (wa + wb + wc)
            index[i, j] = np.int64(f)
            bary[i, j, 0], bary[i, j, 1], bary[i, j, 2] = wa * share, wb * share, wc * share
            depth[i, j] = area * share
