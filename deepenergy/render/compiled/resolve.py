"""From samples to the image in one pass, with its tangents and its transpose, compiled for the CPU."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.blend import Blend
from deepenergy.render.compiled.operation import Tensors, apply_compiled, array_of
from deepenergy.render.compiled.rows import bands, in_threads
from deepenergy.runtime.threads import map_in_threads


def resolve_numba(
    samples: Float[Tensor, "b 4 h w"],
    blend: Blend | None,
    at_edges: Float[Tensor, "e 4"],
    background: Float[Tensor, " 3"],
    supersample: int,
) -> Float[Tensor, "b 4 h/s w/s"]:
    """The image and its coverage; see `operations.resolve`. CPU tensors only."""
    none = torch.zeros(0, dtype=torch.int64)
    target, source = (none, none) if blend is None else (blend.target, blend.source)
    share = samples.new_zeros(0) if blend is None else blend.share.to(samples)
    constants = (target, source, background.double(), torch.tensor(supersample))
    return apply_compiled(_Resolve, constants, (samples, share, at_edges.to(samples)))


class _Resolve:
    """The compiled operation, of samples, shares and colours at edges.

    Given are who is mixed with whom, the background and samples a side.
    """

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        linear, back = _linear(constants, inputs)
        return torch.from_numpy(_in_display(linear, back, False))

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        target, source, back, side = _plain(constants)
        samples, share, at_edges = (array_of(part) for part in inputs)
        linear, _ = _linear(constants, inputs)
        slope = _in_display(linear, back, True)
        moved, changed, moved_edges = (array_of(part) for part in tangents)
        out = np.empty((len(moved), *linear.shape), linear.dtype)

        def one(t: int) -> None:
            for b in range(len(linear)):
                _averaged(moved[t, b], side, 0, linear.shape[2], out[t, b])
            _mix(samples, at_edges, target, source, changed[t], side, out[t])
            _mix(moved[t], moved_edges[t], target, source, share, side, out[t])
            _through(slope, back, out[t])

        list(map_in_threads(one, range(len(moved))))
        return torch.from_numpy(out)

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        target, source, back, side = _plain(constants)
        samples, share, at_edges = (array_of(part) for part in inputs)
        linear, _ = _linear(constants, inputs)
        slope = _in_display(linear, back, True)
        given = array_of(cotangents)
        each = np.empty_like(given)
        to_samples = np.empty((len(given), *samples.shape), samples.dtype)
        to_share = np.empty((len(given), len(share)), share.dtype)
        to_edges = np.zeros((len(given), *at_edges.shape), at_edges.dtype)

        def spread(n: int, low: int, high: int) -> None:
            t, b = divmod(n, len(samples))
            _spread(given[t, b], slope[b], back, side, low, high, each[t, b], to_samples[t, b])

        in_threads(spread, bands(len(given) * len(samples), *linear.shape[2:]))
        for t in range(len(given)):
            _unmix(each[t], samples, at_edges, target, source, share, side, to_samples[t], to_share[t], to_edges[t])
        return torch.from_numpy(to_samples), torch.from_numpy(to_share), torch.from_numpy(to_edges)


def _plain(constants: Tensors) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]:
    target, source, back, side = constants
    return array_of(target), array_of(source), array_of(back), int(side)


def _linear(constants: Tensors, inputs: Tensors) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Blended and averaged samples; the background."""
    target, source, back, side = _plain(constants)
    samples, share, at_edges = (array_of(part) for part in inputs)
    batch, channels, height, width = samples.shape
    linear = np.empty((batch, channels, height // side, width // side), samples.dtype)
    rows = bands(batch, height // side, width)
    in_threads(lambda b, low, high: _averaged(samples[b], side, low, high, linear[b]), rows)
    _mix(samples, at_edges, target, source, share, side, linear)
    return linear, back


def _in_display(linear: NDArray[Any], back: NDArray[np.float64], slope: bool) -> NDArray[Any]:
    out = np.empty_like(linear)
    rows = bands(len(linear), *linear.shape[2:])
    in_threads(lambda b, low, high: _encoded(linear[b], back, slope, low, high, out[b]), rows)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _averaged(samples: NDArray[np.float32], side: int, low: int, high: int, out: NDArray[np.float32]) -> None:
    """Rows of one image, of all channels."""
    share = samples.dtype.type(1.0 / (side * side))
    for k in range(samples.shape[0]):
        for i in range(low, high):
            for j in range(out.shape[2]):
                out[k, i, j] = 0
            for n in range(side):
                for j in range(out.shape[2]):
                    total = samples[k, i * side + n, j * side]
                    for m in range(1, side):
                        total += samples[k, i * side + n, j * side + m]
                    out[k, i, j] += share * total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mix(
    samples: NDArray[np.float32],
    at_edges: NDArray[np.float32],
    target: NDArray[np.int64],
    source: NDArray[np.int64],
    share: NDArray[np.float32],
    side: int,
    out: NDArray[np.float32],
) -> None:
    height, width = samples.shape[2:]
    plane = height * width
    total = len(samples) * plane
    for n in range(len(target)):
        b, to, of = target[n] // plane, target[n] % plane, source[n] % plane
        i, j = to // width, to % width
        weight = share[n] / (side * side)
        for k in range(samples.shape[1]):
            value = samples[b, k, of // width, of % width] if source[n] < total else at_edges[source[n] - total, k]
            out[b, k, i // side, j // side] += weight * (value - samples[b, k, i, j])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _encoded(
    linear: NDArray[np.float32], back: NDArray[np.float64], slope: bool, low: int, high: int, out: NDArray[np.float32]
) -> None:
    """Rows of one image: sRGB over the background; or the derivative of that by the linear sum, zero where clipped."""
    kind = linear.dtype.type
    zero, one, knee, steep = kind(0), kind(1), kind(0.0031308), kind(12.92)
    for i in range(low, high):
        mask = linear[3, i]
        shown = False
        for j in range(linear.shape[2]):
            shown |= mask[j] != 0
        for k in range(3):
            behind = kind(back[k])
            # Half of a plate and more shows nothing but the background.
            last = linear.shape[2] if shown else 1
            for j in range(last):
                value = linear[k, i, j] + (one - mask[j]) * behind
                held = min(max(value, knee), one)
                root = _root(held)
                if slope:
                    curve = kind(1.055 / 2.4) * root / held if value > knee else steep
                    out[k, i, j] = curve if (value >= zero) & (value <= one) else zero
                else:
                    curve = kind(1.055) * root - kind(0.055)
                    out[k, i, j] = curve if value > knee else steep * max(value, zero)
            for j in range(last, linear.shape[2]):
                out[k, i, j] = out[k, i, 0]
        for j in range(linear.shape[2]):
            out[3, i, j] = mask[j]


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _root(x: Any) -> Any:
    """`x ** (1 / 2.4)` to rounding, for x in [0.003, 1]: square and cube roots, which compile to whole vectors."""
    kind = type(x)
    root = np.sqrt(x)
    # The cube root within a tenth, then Halley's iteration, whose error is cubed each time.
    cube_root = kind(0.35788) + root * (kind(1.16277) - kind(0.55107) * root)
    for _ in range(3):
        cube = cube_root * cube_root * cube_root
        cube_root = cube_root * (cube + root + root) / (cube + cube + root)
    return cube_root * np.sqrt(root)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _through(slope: NDArray[np.float32], back: NDArray[np.float64], moved: NDArray[np.float32]) -> None:
    """A tangent of linear light to one of the image, in place."""
    for b in range(moved.shape[0]):
        for k in range(3):
            behind = moved.dtype.type(back[k])
            for i in range(moved.shape[2]):
                for j in range(moved.shape[3]):
                    moved[b, k, i, j] = slope[b, k, i, j] * (moved[b, k, i, j] - moved[b, 3, i, j] * behind)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _spread(
    given: NDArray[np.float32],
    slope: NDArray[np.float32],
    back: NDArray[np.float64],
    side: int,
    low: int,
    high: int,
    each: NDArray[np.float32],
    to_samples: NDArray[np.float32],
) -> None:
    """Rows of one image: a cotangent to one of every sample of the pixel (`each`), and to the samples."""
    kind = given.dtype.type
    share = kind(1.0 / (side * side))
    for i in range(low, high):
        for j in range(given.shape[2]):
            each[3, i, j] = given[3, i, j] * share
        for k in range(3):
            behind = kind(back[k])
            for j in range(given.shape[2]):
                value = given[k, i, j] * slope[k, i, j] * share
                each[k, i, j] = value
                each[3, i, j] -= value * behind
        for k in range(4):
            for n in range(side):
                for j in range(given.shape[2]):
                    for m in range(side):
                        to_samples[k, i * side + n, j * side + m] = each[k, i, j]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _unmix(
    each: NDArray[np.float32],
    samples: NDArray[np.float32],
    at_edges: NDArray[np.float32],
    target: NDArray[np.int64],
    source: NDArray[np.int64],
    share: NDArray[np.float32],
    side: int,
    to_samples: NDArray[np.float32],
    to_share: NDArray[np.float32],
    to_edges: NDArray[np.float32],
) -> None:
    """The transpose of `_mix`, by samples, shares and colours at edges."""
    height, width = samples.shape[2:]
    plane = height * width
    total = len(samples) * plane
    for n in range(len(target)):
        b, to, of = target[n] // plane, target[n] % plane, source[n] % plane
        i, j, io, jo = to // width, to % width, of // width, of % width
        turn = 0.0
        for k in range(4):
            value = each[b, k, i // side, j // side]
            if source[n] < total:
                turn += value * (samples[b, k, io, jo] - samples[b, k, i, j])
                to_samples[b, k, io, jo] += share[n] * value
            else:
                turn += value * (at_edges[source[n] - total, k] - samples[b, k, i, j])
                to_edges[source[n] - total, k] += share[n] * value
            to_samples[b, k, i, j] -= share[n] * value
        to_share[n] = turn
