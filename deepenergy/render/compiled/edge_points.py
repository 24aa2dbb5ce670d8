"""The colour of a surface where it ends: at points of the mesh's edges, where outlines cross lines of samples' centres.

Near its outline a surface is seen from the side, so that its colour changes within less than a sample: what is mixed
into a sample beyond the outline has to be the colour of the edge. That of the last sample before it would jump as the
outline passes a centre.

    colour = (w_a c_a + w_b c_b) / (w_a + w_b),   w_a = (1 - s) / z_a,   w_b = s / z_b,   s = (line - v_a) / (v_b - v_a)

where v is the ends' coordinate across the line of centres.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.blend import EdgePoints
from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of


def edge_colours_numba(
    points: EdgePoints, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"], colour: Float[Tensor, "b v 3"]
) -> Float[Tensor, "e 4"]:
    """Colour and coverage at points of edges; see `operations.edge_colours`. CPU tensors only."""
    constants = (points.ends, points.axis, points.line)
    return apply_compiled(_Colours, constants, (pixels, depth.to(pixels), colour.to(pixels)))


class _Colours:
    """The compiled operation, of projected vertices, depths and colours, given ends, axes and lines."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        given = _plain(constants, inputs)
        out = np.empty((len(constants[0]), 4), given[-1].dtype)
        _compute(given, out)
        return torch.from_numpy(out)

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        # Vertices of the batch in one row.
        moved, deeper, tinted = (array_of(part.flatten(1, 2)) for part in tangents)
        out = np.empty((len(moved), len(constants[0]), 4), moved.dtype)
        _jvp(_plain(constants, inputs), moved, deeper, tinted, out)
        return torch.from_numpy(out)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        given = array_of(cotangents)
        found = [np.zeros((len(given), *part.shape), given.dtype) for part in inputs]
        to_pixels, to_depth, to_colour = (part.reshape(len(given), -1, *part.shape[3:]) for part in found)
        _vjp(_plain(constants, inputs), given, to_pixels, to_depth, to_colour)
        return tuple(torch.from_numpy(part) for part in found)


_Plain = tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.float32],
]


def _plain(constants: Tensors, inputs: Tensors) -> _Plain:
    """Ends, axes, lines; and places, depths and colours of the batch's vertices in one row."""
    ends, axis, line = (array_of(part) for part in constants)
    pixels, depth, colour = (array_of(part.flatten(0, 1)) for part in inputs)
    return ends, axis, line, pixels, depth, colour


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _weights(
    pixels: NDArray[np.float32], depth: NDArray[np.float32], a: int, b: int, across: int, line: int
) -> tuple[float, float, float, float]:
    """Of the two ends, summing to 1; by what they were multiplied for that; and 1 / (v_b - v_a)."""
    va = np.float64(pixels[a, across])
    span = 1.0 / (pixels[b, across] - va)
    share = (line + 0.5 - va) * span
    wa, wb = (1.0 - share) / depth[a], share / depth[b]
    total = 1.0 / (wa + wb)
    return wa * total, wb * total, total, span


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _compute(plain: _Plain, out: NDArray[np.float32]) -> None:
    ends, axis, line, pixels, depth, colour = plain
    for e in range(len(ends)):
        a, b = ends[e, 0], ends[e, 1]
        wa, wb, _, _ = _weights(pixels, depth, a, b, 1 - axis[e], line[e])
        for k in range(3):
            out[e, k] = wa * colour[a, k] + wb * colour[b, k]
        out[e, 3] = 1


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _jvp(
    plain: _Plain,
    moved: NDArray[np.float32],
    deeper: NDArray[np.float32],
    tinted: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    ends, axis, line, pixels, depth, colour = plain
    for t in range(len(out)):
        for e in range(len(ends)):
            a, b, across = ends[e, 0], ends[e, 1], 1 - axis[e]
            wa, wb, total, span = _weights(pixels, depth, a, b, across, line[e])
            # d wb: by s as total^2 / (za zb), and ds = -(1 - s) span dva - s span dvb, with 1 - s = wa za / total.
            turn = -span * total * (wa * moved[t, a, across] / depth[b] + wb * moved[t, b, across] / depth[a])
            turn += wa * wb * (deeper[t, a] / depth[a] - deeper[t, b] / depth[b])
            for k in range(3):
                shift = turn * (colour[b, k] - colour[a, k])
                out[t, e, k] = wa * tinted[t, a, k] + wb * tinted[t, b, k] + shift
            out[t, e, 3] = 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _vjp(
    plain: _Plain,
    given: NDArray[np.float32],
    to_pixels: NDArray[np.float32],
    to_depth: NDArray[np.float32],
    to_colour: NDArray[np.float32],
) -> None:
    ends, axis, line, pixels, depth, colour = plain
    for t in range(len(given)):
        for e in range(len(ends)):
            a, b, across = ends[e, 0], ends[e, 1], 1 - axis[e]
            wa, wb, total, span = _weights(pixels, depth, a, b, across, line[e])
            turn = 0.0
            for k in range(3):
                value = given[t, e, k]
                to_colour[t, a, k] += wa * value
                to_colour[t, b, k] += wb * value
                turn += value * (colour[b, k] - colour[a, k])
            # As in `_jvp`.
            to_pixels[t, a, across] -= turn * span * total * wa / depth[b]
            to_pixels[t, b, across] -= turn * span * total * wb / depth[a]
            to_depth[t, a] += turn * wa * wb / depth[a]
            to_depth[t, b] -= turn * wa * wb / depth[b]
