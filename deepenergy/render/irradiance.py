"""Spherical-harmonic light at the vertices of meshes: `sh_shade` of a batch, compiled for the CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled import Tensors, apply_compiled, array_of
from deepenergy.render.lighting import sh_shade

_C0, _C1, _C2 = math.sqrt(1 / (4 * math.pi)), math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
_C20 = math.sqrt(5 / (16 * math.pi))
# With the clamped cosine over pi: 1, 2/3 and 1/4 by degree (lighting.py).
_A1, _A2, _A20, _A22 = _C1 * 2 / 3, _C2 / 4, _C20 / 4, _C2 / 8


def irradiance(
    normals: Float[Tensor, "b v 3"], light: Float[Tensor, "9 3"] | Float[Tensor, "b 9 3"]
) -> Float[Tensor, "b v 3"]:
    """Irradiance / pi at unit normals, not clipped; differentiable in both, in either mode.

    Args:
        normals: in the light's axes.
        light: coefficients, one set or one a mesh.
    """
    batch, count = normals.shape[:2]
    if normals.device.type == "cpu":
        return apply_compiled(_Irradiance, (), (normals, light.expand(batch, 9, 3).to(normals)))
    image = torch.arange(batch, device=normals.device).repeat_interleave(count)
    return sh_shade(normals.flatten(0, 1), light.to(normals), image).view(batch, count, -1)


class _Irradiance:
    """The compiled operation."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        normals, light = (array_of(part) for part in inputs)
        out = np.empty_like(normals)
        _compute(normals, light, out)
        return torch.from_numpy(out)

    @staticmethod
    def push(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        normals, light = (array_of(part) for part in inputs)
        # Tangents last, so that the inner loop runs along memory.
        turned, changed = (array_of(part.permute(1, 2, 3, 0)) for part in tangents)
        out = np.empty_like(turned)
        _push(normals, light, turned, changed, bool(changed.any()), out)
        return torch.from_numpy(out).permute(3, 0, 1, 2)

    @staticmethod
    def pull(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        normals, light = (array_of(part) for part in inputs)
        given = array_of(cotangents)
        to_normals, to_light = np.empty_like(given), np.zeros((len(given), *light.shape), given.dtype)
        _pull(normals, light, given, to_normals, to_light)
        return torch.from_numpy(to_normals), torch.from_numpy(to_light)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _basis(n: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    x, y, z = np.float64(n[0]), np.float64(n[1]), np.float64(n[2])
    out[0], out[1], out[2], out[3] = _C0, _A1 * y, _A1 * z, _A1 * x
    out[4], out[5], out[6], out[7] = _A2 * x * y, _A2 * y * z, _A20 * (3 * z * z - 1), _A2 * x * z
    out[8] = _A22 * (x * x - y * y)


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _slope(n: NDArray[np.float32], light: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    """`[3 channels, 3 axes]`, the derivative by the normal."""
    x, y, z = np.float64(n[0]), np.float64(n[1]), np.float64(n[2])
    for c in range(3):
        e = light[:, c]
        out[c, 0] = _A1 * e[3] + _A2 * (y * e[4] + z * e[7]) + 2 * _A22 * x * e[8]
        out[c, 1] = _A1 * e[1] + _A2 * (x * e[4] + z * e[5]) - 2 * _A22 * y * e[8]
        out[c, 2] = _A1 * e[2] + _A2 * (y * e[5] + x * e[7]) + 6 * _A20 * z * e[6]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compute(normals: NDArray[np.float32], light: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    basis = np.empty(9)
    for b in range(normals.shape[0]):
        for v in range(normals.shape[1]):
            _basis(normals[b, v], basis)
            for c in range(3):
                total = 0.0
                for k in range(9):
                    total += basis[k] * light[b, k, c]
                out[b, v, c] = total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _push(
    normals: NDArray[np.float32],
    light: NDArray[np.float32],
    turned: NDArray[np.float32],
    changed: NDArray[np.float32],
    by_light: bool,
    out: NDArray[np.float32],
) -> None:
    basis, slope, count = np.empty(9), np.empty((3, 3)), out.shape[3]
    for b in range(normals.shape[0]):
        for v in range(normals.shape[1]):
            _slope(normals[b, v], light[b], slope)
            for c in range(3):
                gx, gy = out.dtype.type(slope[c, 0]), out.dtype.type(slope[c, 1])
                gz = out.dtype.type(slope[c, 2])
                for t in range(count):
                    out[b, v, c, t] = gx * turned[b, v, 0, t] + gy * turned[b, v, 1, t] + gz * turned[b, v, 2, t]
            if by_light:
                _basis(normals[b, v], basis)
                for c in range(3):
                    for k in range(9):
                        for t in range(count):
                            out[b, v, c, t] += basis[k] * changed[b, k, c, t]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pull(
    normals: NDArray[np.float32],
    light: NDArray[np.float32],
    given: NDArray[np.float32],
    to_normals: NDArray[np.float32],
    to_light: NDArray[np.float32],
) -> None:
    basis, slope, total = np.empty(9), np.empty((3, 3)), np.zeros((9, 3))
    for t in range(given.shape[0]):
        for b in range(normals.shape[0]):
            total[:] = 0
            for v in range(normals.shape[1]):
                _slope(normals[b, v], light[b], slope)
                _basis(normals[b, v], basis)
                g = given[t, b, v]
                for m in range(3):
                    to_normals[t, b, v, m] = g[0] * slope[0, m] + g[1] * slope[1, m] + g[2] * slope[2, m]
                for k in range(9):
                    for c in range(3):
                        total[k, c] += basis[k] * g[c]
            for k in range(9):
                for c in range(3):
                    to_light[t, b, k, c] = total[k, c]
