"""World points to the image, compiled for the CPU: in one pass and in the caller's thread.

A dozen tensor operations each as large as the mesh cost more than they compute.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of
from deepenergy.render.reference.project import NEAREST
from deepenergy.scene.camera import Camera


def project_numba(
    vertices: Float[Tensor, "b v 3"], camera: Camera, scale: int = 1
) -> tuple[Float[Tensor, "b v 2"], Float[Tensor, "b v"]]:
    """Image points and depths; see `operations.project`. CPU tensors only, and no distorting lens."""
    batch = len(vertices)
    matrix = camera.world_to_camera.to(vertices).expand(batch, 4, 4)
    lens = camera.intrinsics.to(vertices).expand(batch, 4)
    found = apply_compiled(Project, (torch.tensor(scale),), (vertices, matrix, lens))
    return found[..., :2], found[..., 2]


class Project:
    """The compiled operation, of vertices, world-to-camera matrices and intrinsics, given samples a side."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        vertices, matrix, lens = (array_of(part) for part in inputs)
        out = np.empty_like(vertices)
        _compute(vertices, matrix, lens, float(constants[0]), out)
        return torch.from_numpy(out)

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        vertices, matrix, lens = (array_of(part) for part in inputs)
        moved, turned, zoomed = (array_of(part) for part in tangents)
        out = np.empty_like(moved)
        by_camera = bool(turned.any() or zoomed.any())
        _jvp(vertices, matrix, lens, float(constants[0]), moved, turned, zoomed, by_camera, out)
        return torch.from_numpy(out)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        vertices, matrix, lens = (array_of(part) for part in inputs)
        given = array_of(cotangents)
        found = [np.zeros((len(given), *part.shape), given.dtype) for part in inputs]
        _vjp(vertices, matrix, lens, float(constants[0]), given, *found)
        return tuple(torch.from_numpy(part) for part in found)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _in_camera(p: NDArray[np.float32], m: NDArray[np.float32]) -> tuple[float, float, float]:
    x, y, z = np.float64(p[0]), np.float64(p[1]), np.float64(p[2])
    return (
        m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3],
        m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3],
        m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3],
    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compute(
    vertices: NDArray[np.float32],
    matrix: NDArray[np.float32],
    lens: NDArray[np.float32],
    scale: float,
    out: NDArray[np.float32],
) -> None:
    for b in range(vertices.shape[0]):
        for v in range(vertices.shape[1]):
            x, y, z = _in_camera(vertices[b, v], matrix[b])
            if abs(z) < NEAREST:
                z = NEAREST
            out[b, v, 0] = (x / z * lens[b, 0] + lens[b, 2]) * scale
            out[b, v, 1] = (y / z * lens[b, 1] + lens[b, 3]) * scale
            out[b, v, 2] = z


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _jvp(
    vertices: NDArray[np.float32],
    matrix: NDArray[np.float32],
    lens: NDArray[np.float32],
    scale: float,
    moved: NDArray[np.float32],
    turned: NDArray[np.float32],
    zoomed: NDArray[np.float32],
    by_camera: bool,
    out: NDArray[np.float32],
) -> None:
    for t in range(moved.shape[0]):
        for b in range(vertices.shape[0]):
            m, dm, dk = matrix[b], turned[t, b], zoomed[t, b]
            fx, fy = scale * lens[b, 0], scale * lens[b, 1]
            for v in range(vertices.shape[1]):
                x, y, z = _in_camera(vertices[b, v], m)
                d = moved[t, b, v]
                dx = m[0, 0] * d[0] + m[0, 1] * d[1] + m[0, 2] * d[2]
                dy = m[1, 0] * d[0] + m[1, 1] * d[1] + m[1, 2] * d[2]
                dz = m[2, 0] * d[0] + m[2, 1] * d[1] + m[2, 2] * d[2]
                if by_camera:
                    ex, ey, ez = _in_camera(vertices[b, v], dm)
                    dx, dy, dz = dx + ex, dy + ey, dz + ez
                if abs(z) < NEAREST:
                    z, dz = NEAREST, 0.0
                over = 1.0 / z
                x, y = x * over, y * over
                out[t, b, v, 0] = fx * (dx - x * dz) * over
                out[t, b, v, 1] = fy * (dy - y * dz) * over
                out[t, b, v, 2] = dz
                if by_camera:
                    out[t, b, v, 0] += scale * (dk[0] * x + dk[2])
                    out[t, b, v, 1] += scale * (dk[1] * y + dk[3])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vjp(
    vertices: NDArray[np.float32],
    matrix: NDArray[np.float32],
    lens: NDArray[np.float32],
    scale: float,
    given: NDArray[np.float32],
    to_vertices: NDArray[np.float32],
    to_matrix: NDArray[np.float32],
    to_lens: NDArray[np.float32],
) -> None:
    turned, zoomed, g = np.empty((3, 4)), np.empty(4), np.empty(3)
    for t in range(given.shape[0]):
        for b in range(vertices.shape[0]):
            m = matrix[b]
            fx, fy = scale * lens[b, 0], scale * lens[b, 1]
            turned[:], zoomed[:] = 0, 0
            for v in range(vertices.shape[1]):
                gx, gy, gz = np.float64(given[t, b, v, 0]), np.float64(given[t, b, v, 1]), np.float64(given[t, b, v, 2])
                # Most of a mesh is not in the image.
                if gx == 0 and gy == 0 and gz == 0:
                    continue
                x, y, z = _in_camera(vertices[b, v], m)
                held = abs(z) < NEAREST
                if held:
                    z = NEAREST
                over = 1.0 / z
                x, y = x * over, y * over
                zoomed[0] += gx * x
                zoomed[1] += gy * y
                zoomed[2] += gx
                zoomed[3] += gy
                g[0], g[1] = gx * fx * over, gy * fy * over
                g[2] = 0.0 if held else gz - x * g[0] - y * g[1]
                for k in range(3):
                    to_vertices[t, b, v, k] = g[0] * m[0, k] + g[1] * m[1, k] + g[2] * m[2, k]
                    turned[k, 3] += g[k]
                    for n in range(3):
                        turned[k, n] += g[k] * vertices[b, v, n]
            for k in range(3):
                for n in range(4):
                    to_matrix[t, b, k, n] = turned[k, n]
            for k in range(4):
                to_lens[t, b, k] = scale * zoomed[k]
