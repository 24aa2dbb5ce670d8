"""Choosing the visibility backend."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.compiled.rasterize import rasterize_numba
from deepenergy.render.fragments import Fragments
from deepenergy.render.pytorch3d_backend import rasterize_pytorch3d
from deepenergy.render.reference.rasterize import rasterize_torch

Backend = Literal["auto", "numba", "torch", "pytorch3d"]


def rasterize(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
    near: float = 1e-3,
    backend: Backend = "auto",
    cull_backfaces: bool = False,
) -> Fragments:
    """Which triangle covers each pixel, nearest first; no gradient.

    Args:
        pixels: projected vertices (x, y), pixel centres at half-integers.
        depth: camera Z of the vertices in metres.
        faces: triangles, shared by the batch.
        size: (width, height).
        near: nothing nearer than this (metres, more than 0) is seen; triangles that cross it are cut there.
        backend: "numba" (CPU), "torch" (any device), "auto": numba for CPU tensors, torch elsewhere; "pytorch3d": that
            package's rasteriser, where it is installed.
        cull_backfaces: leave out triangles that are seen from behind, clockwise in the image.

    Raises:
        ValueError: an unknown backend, a near plane not in front, wrong shapes, triangles of vertices there are not,
            or numba asked for tensors that are not on the CPU.
    """
    batch, count = depth.shape if depth.dim() == 2 else (-1, -1)
    if pixels.shape != (batch, count, 2) or faces.dim() != 2 or faces.shape[1] != 3:
        found = ", ".join(str(tuple(part.shape)) for part in (pixels, depth, faces))
        raise ValueError(f"pixels, depth, faces: found shapes {found}; expected [B, V, 2], [B, V] and [F, 3]")
    if backend not in get_args(Backend):
        raise ValueError(f"backend: found {backend!r}; expected 'auto', 'numba' or 'torch' (ours), or 'pytorch3d'")
    if not near > 0:
        raise ValueError(f"near: found {near}; expected more than 0 metres")
    if backend == "pytorch3d":
        return rasterize_pytorch3d(pixels, depth, faces, size, near, cull_backfaces)
    on_cpu = pixels.device.type == "cpu"
    if backend == "numba" and not on_cpu:
        raise ValueError(f"backend 'numba' needs CPU tensors, found {pixels.device}; use 'torch'")
    if backend == "torch" or not on_cpu:
        return rasterize_torch(pixels, depth, faces, size, near, cull_backfaces)
    return rasterize_numba(pixels, depth, faces, size, near, cull_backfaces)
