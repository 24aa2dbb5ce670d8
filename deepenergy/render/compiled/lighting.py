"""What the vertices of meshes reflect of spherical-harmonic light: `sh_shade` of a batch, compiled for the CPU."""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of
from deepenergy.render.compiled.rows import bands, in_threads
from deepenergy.render.reference.lighting import DARKEST

_C0, _C1, _C2 = math.sqrt(1 / (4 * math.pi)), math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
_C20 = math.sqrt(5 / (16 * math.pi))
# With the clamped cosine over pi: 1, 2/3 and 1/4 by degree (see `sh_basis_cosine`).
_A1, _A2, _A20, _A22 = _C1 * 2 / 3, _C2 / 4, _C20 / 4, _C2 / 8


def reflected_numba(
    normals: Float[Tensor, "b v 3"],
    light: Float[Tensor, "9 3"] | Float[Tensor, "b 9 3"],
    albedo: Float[Tensor, "v 3"],
    occlusion: Float[Tensor, " v"],
) -> Float[Tensor, "b v 3"]:
    """Light that vertices reflect; see `operations.reflected`. CPU tensors only."""
    inputs = (normals, light.expand(len(normals), 9, 3).to(normals), albedo.to(normals))
    return apply_compiled(_Reflected, (occlusion.to(normals),), inputs)


class _Reflected:
    """The compiled operation, of normals, light and albedo, given the occlusion."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        normals, light, albedo = (array_of(part) for part in inputs)
        open_to = array_of(constants[0])
        out = np.empty_like(normals)

        def part(b: int, low: int, high: int) -> None:
            _compute(normals[b], light[b], albedo, open_to, low, high, out[b])

        in_threads(part, bands(len(normals), normals.shape[1], 4, per_thread=1))
        return torch.from_numpy(out)

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        normals, light, albedo = (array_of(part) for part in inputs)
        # Tangents last, so that the inner loop runs along memory.
        turned, changed = (array_of(part.permute(1, 2, 3, 0)) for part in tangents[:2])
        painted = array_of(tangents[2].permute(1, 2, 0))
        out = np.empty_like(turned)
        which = (bool(changed.any()), bool(painted.any()))
        _jvp(normals, light, albedo, array_of(constants[0]), turned, changed, painted, which, out)
        return torch.from_numpy(out).permute(3, 0, 1, 2)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        normals, light, albedo = (array_of(part) for part in inputs)
        given = array_of(cotangents)
        found = [np.zeros((len(given), *part.shape), given.dtype) for part in inputs]
        _vjp(normals, light, albedo, array_of(constants[0]), given, *found)
        return tuple(torch.from_numpy(part) for part in found)


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


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _arriving(basis: NDArray[np.float64], light: NDArray[np.float32], channel: int) -> float:
    total = 0.0
    for k in range(9):
        total += basis[k] * light[k, channel]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compute(
    normals: NDArray[np.float32],
    light: NDArray[np.float32],
    albedo: NDArray[np.float32],
    open_to: NDArray[np.float32],
    low: int,
    high: int,
    out: NDArray[np.float32],
) -> None:
    """Some vertices of one mesh."""
    basis = np.empty(9)
    for v in range(low, high):
        _basis(normals[v], basis)
        for c in range(3):
            out[v, c] = max(_arriving(basis, light, c), DARKEST) * open_to[v] * albedo[v, c]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _jvp(
    normals: NDArray[np.float32],
    light: NDArray[np.float32],
    albedo: NDArray[np.float32],
    open_to: NDArray[np.float32],
    turned: NDArray[np.float32],
    changed: NDArray[np.float32],
    painted: NDArray[np.float32],
    which: tuple[bool, bool],
    out: NDArray[np.float32],
) -> None:
    """`which`: whether the light and the albedo change at all."""
    basis, slope, count = np.empty(9), np.empty((3, 3)), out.shape[3]
    for b in range(normals.shape[0]):
        for v in range(normals.shape[1]):
            _slope(normals[b, v], light[b], slope)
            _basis(normals[b, v], basis)
            for c in range(3):
                arriving = _arriving(basis, light[b], c)
                share = np.float64(open_to[v]) * albedo[v, c] if arriving >= DARKEST else 0.0
                gx, gy = out.dtype.type(share * slope[c, 0]), out.dtype.type(share * slope[c, 1])
                gz = out.dtype.type(share * slope[c, 2])
                for t in range(count):
                    out[b, v, c, t] = gx * turned[b, v, 0, t] + gy * turned[b, v, 1, t] + gz * turned[b, v, 2, t]
                if which[0]:
                    for k in range(9):
                        for t in range(count):
                            out[b, v, c, t] += share * basis[k] * changed[b, k, c, t]
                if which[1]:
                    own = max(arriving, DARKEST) * open_to[v]
                    for t in range(count):
                        out[b, v, c, t] += own * painted[v, c, t]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vjp(
    normals: NDArray[np.float32],
    light: NDArray[np.float32],
    albedo: NDArray[np.float32],
    open_to: NDArray[np.float32],
    given: NDArray[np.float32],
    to_normals: NDArray[np.float32],
    to_light: NDArray[np.float32],
    to_albedo: NDArray[np.float32],
) -> None:
    basis, slope, total, g = np.empty(9), np.empty((3, 3)), np.zeros((9, 3)), np.empty(3)
    for t in range(given.shape[0]):
        for b in range(normals.shape[0]):
            total[:] = 0
            for v in range(normals.shape[1]):
                # Most of a mesh is not in the image.
                if given[t, b, v, 0] == 0 and given[t, b, v, 1] == 0 and given[t, b, v, 2] == 0:
                    continue
                _slope(normals[b, v], light[b], slope)
                _basis(normals[b, v], basis)
                for c in range(3):
                    arriving = _arriving(basis, light[b], c)
                    value = np.float64(given[t, b, v, c]) * open_to[v]
                    to_albedo[t, v, c] += value * max(arriving, DARKEST)
                    g[c] = value * albedo[v, c] if arriving >= DARKEST else 0.0
                for m in range(3):
                    to_normals[t, b, v, m] = g[0] * slope[0, m] + g[1] * slope[1, m] + g[2] * slope[2, m]
                for k in range(9):
                    for c in range(3):
                        total[k, c] += basis[k] * g[c]
            for k in range(9):
                for c in range(3):
                    to_light[t, b, k, c] = total[k, c]
