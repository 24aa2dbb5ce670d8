"""Visibility on the CPU: one z-buffer loop over the triangles, compiled by numba."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.render.near_plane import clipped, crosses_near, face_barycentrics


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    xy: NDArray[np.float64],
    z: NDArray[np.float64],
    faces: NDArray[np.int64],
    near: float,
    cull: bool,
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    depth: NDArray[np.float32],
    inverse: NDArray[np.float64],
) -> None:
    height, width = index.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if z[a] < near or z[b] < near or z[c] < near:
            continue
        ax, ay = np.float64(xy[a, 0]), np.float64(xy[a, 1])
        bx, by = np.float64(xy[b, 0]), np.float64(xy[b, 1])
        cx, cy = np.float64(xy[c, 0]), np.float64(xy[c, 1])
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # NaN compares false, so that a broken vertex drops its triangles and nothing else.
        if not (abs(area) > 1e-12) or (cull and area > 0):
            continue
        low_x, high_x = min(ax, bx, cx), max(ax, bx, cx)
        low_y, high_y = min(ay, by, cy), max(ay, by, cy)
        if high_x < 0 or high_y < 0 or low_x > width or low_y > height:
            continue
        # Held to the image before they become integers, which a vertex far away would overflow.
        j0, j1 = int(np.ceil(max(low_x, 0.0) - 0.5)), int(np.floor(min(high_x, float(width)) - 0.5))
        i0, i1 = int(np.ceil(max(low_y, 0.0) - 0.5)), int(np.floor(min(high_y, float(height)) - 0.5))
        j0, i0, j1, i1 = max(j0, 0), max(i0, 0), min(j1, width - 1), min(i1, height - 1)
        inv_a, inv_b, inv_c, share = 1.0 / z[a], 1.0 / z[b], 1.0 / z[c], 1.0 / area
        for i in range(i0, i1 + 1):
            y = i + 0.5
            for j in range(j0, j1 + 1):
                x = j + 0.5
                wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) * share
                wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) * share
                # By itself: what is left of 1 is a rounding error below 0 on an edge that two triangles share.
                wc = ((ax - x) * (by - y) - (ay - y) * (bx - x)) * share
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                inv = wa * inv_a + wb * inv_b + wc * inv_c
                if inv > inverse[i, j]:
                    inverse[i, j] = inv
                    index[i, j] = f
                    here = 1.0 / inv
                    bary[i, j, 0] = wa * inv_a * here
                    bary[i, j, 1] = wb * inv_b * here
                    bary[i, j, 2] = wc * inv_c * here
                    depth[i, j] = here


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
    index = np.full((batch, height, width), -1, np.int64)
    bary = np.zeros((batch, height, width, 3), np.float32)
    z_out = np.zeros((batch, height, width), np.float32)
    xy, z = pixels.detach().contiguous().numpy(), depth.detach().contiguous().numpy()
    triangles = np.ascontiguousarray(faces.numpy(), np.int64)
    inverse = np.empty((height, width), np.float64)
    for b in range(batch):
        inverse.fill(0)
        out = (index[b], bary[b], z_out[b], inverse)
        _fill(xy[b], z[b], triangles, near, cull_backfaces, *out)
        # Nearly always nothing comes that near.
        crossing = crosses_near(depth[b].detach(), faces, near) if z[b].min(initial=np.inf) < near else None
        if crossing is not None and bool(crossing.any()):
            _fill_clipped(pixels[b].detach(), depth[b].detach(), faces, crossing, near, cull_backfaces, *out)
    return Fragments(torch.from_numpy(index), torch.from_numpy(bary), torch.from_numpy(z_out))


def _fill_clipped(
    pixels: Tensor,
    depth: Tensor,
    faces: Tensor,
    crossing: Tensor,
    near: float,
    cull: bool,
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    z_out: NDArray[np.float32],
    inverse: NDArray[np.float64],
) -> None:
    """Draw what is in front of the near plane of triangles that cross it, over what is there."""
    numbers = crossing.nonzero()[:, 0]
    xy, z, parts, owner = clipped(pixels.double(), depth.double(), faces[numbers], near)
    # Of equals the triangle drawn first wins, so that these come after all others whatever their number.
    mine = np.full_like(index, -1)
    _fill(xy.numpy(), z.numpy(), parts.numpy(), 0.0, cull, mine, bary, z_out, inverse)
    row, column = np.nonzero(mine >= 0)
    face = numbers[owner[torch.from_numpy(mine[row, column])]]
    index[row, column] = face.numpy()
    point = torch.from_numpy(np.stack([column, row], 1)) + 0.5
    bary[row, column] = face_barycentrics(pixels.double(), depth.double(), faces[face], point).float().numpy()
