"""Smooth vertex normals of deformed meshes, compiled for the CPU."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of
from deepenergy.render.reference.normals import SHORTEST


def vertex_normals_numba(vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b v 3"]:
    """Unit normals; see `operations.vertex_normals`. CPU tensors only."""
    return apply_compiled(_Normals, (faces,), (vertices,))


class _Normals:
    """The compiled operation, of vertices, given faces."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        return torch.from_numpy(_compute(array_of(inputs[0]), array_of(constants[0])))

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        # Tangents last, so that the inner loop runs along memory.
        last = array_of(tangents[0].permute(1, 2, 3, 0))
        return torch.from_numpy(_jvp(array_of(inputs[0]), array_of(constants[0]), last)).permute(3, 0, 1, 2)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        return (torch.from_numpy(_vjp(array_of(inputs[0]), array_of(constants[0]), array_of(cotangents))),)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sums(x: NDArray[np.float32], faces: NDArray[np.int64]) -> NDArray[np.float32]:
    total = np.zeros_like(x)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], x[b, 2] - x[a, 2]
        vx, vy, vz = x[c, 0] - x[a, 0], x[c, 1] - x[a, 1], x[c, 2] - x[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (a, b, c):
            total[v, 0] += nx
            total[v, 1] += ny
            total[v, 2] += nz
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compute(x: NDArray[np.float32], faces: NDArray[np.int64]) -> NDArray[np.float32]:
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        total = _sums(x[i], faces)
        for v in range(x.shape[1]):
            length = max(np.sqrt(total[v, 0] ** 2 + total[v, 1] ** 2 + total[v, 2] ** 2), SHORTEST)
            for k in range(3):
                out[i, v, k] = total[v, k] / length
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _jvp(x: NDArray[np.float32], faces: NDArray[np.int64], d: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.zeros_like(d)
    count = d.shape[3]
    change = np.empty((3, count), d.dtype)
    for i in range(x.shape[0]):
        total = _sums(x[i], faces)
        p, dp, sums = x[i], d[i], out[i]
        for f in range(faces.shape[0]):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            for k in range(3):
                m, n = (k + 1) % 3, (k + 2) % 3
                um, un, vm, vn = p[b, m] - p[a, m], p[b, n] - p[a, n], p[c, m] - p[a, m], p[c, n] - p[a, n]
                for t in range(count):
                    dum, dun = dp[b, m, t] - dp[a, m, t], dp[b, n, t] - dp[a, n, t]
                    dvm, dvn = dp[c, m, t] - dp[a, m, t], dp[c, n, t] - dp[a, n, t]
                    change[k, t] = dum * vn + um * dvn - dun * vm - un * dvm
            for v in (a, b, c):
                for k in range(3):
                    for t in range(count):
                        sums[v, k, t] += change[k, t]
        for v in range(x.shape[1]):
            length = np.sqrt(total[v, 0] ** 2 + total[v, 1] ** 2 + total[v, 2] ** 2)
            if length < SHORTEST:
                sums[v] /= SHORTEST
                continue
            nx, ny, nz = total[v, 0] / length, total[v, 1] / length, total[v, 2] / length
            for t in range(count):
                along = nx * sums[v, 0, t] + ny * sums[v, 1, t] + nz * sums[v, 2, t]
                sums[v, 0, t] = (sums[v, 0, t] - nx * along) / length
                sums[v, 1, t] = (sums[v, 1, t] - ny * along) / length
                sums[v, 2, t] = (sums[v, 2, t] - nz * along) / length
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vjp(x: NDArray[np.float32], faces: NDArray[np.int64], cotangents: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.zeros_like(cotangents)
    for i in range(x.shape[0]):
        total, p = _sums(x[i], faces), x[i]
        for t in range(cotangents.shape[0]):
            g = np.empty_like(p)
            for v in range(x.shape[1]):
                length = np.sqrt(total[v, 0] ** 2 + total[v, 1] ** 2 + total[v, 2] ** 2)
                if length < SHORTEST:
                    for k in range(3):
                        g[v, k] = cotangents[t, i, v, k] / SHORTEST
                    continue
                along = 0.0
                for k in range(3):
                    along += total[v, k] / length * cotangents[t, i, v, k]
                for k in range(3):
                    g[v, k] = (cotangents[t, i, v, k] - total[v, k] / length * along) / length
            to = out[t, i]
            for f in range(faces.shape[0]):
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                for k in range(3):
                    m, n = (k + 1) % 3, (k + 2) % 3
                    h = g[a, k] + g[b, k] + g[c, k]
                    um, un, vm, vn = p[b, m] - p[a, m], p[b, n] - p[a, n], p[c, m] - p[a, m], p[c, n] - p[a, n]
                    # The face's normal has u_m v_n - u_n v_m in this place.
                    to[b, m] += h * vn
                    to[b, n] -= h * vm
                    to[c, n] += h * um
                    to[c, m] -= h * un
                    to[a, m] -= h * (vn - un)
                    to[a, n] -= h * (um - vm)
    return out
