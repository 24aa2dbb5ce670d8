"""From samples to the image: outlines blended, samples averaged, the background behind, sRGB.

On the CPU one compiled pass, with its tangents and its transpose; elsewhere the same in torch.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.colour import linear_to_srgb
from deepenergy.render.antialias import Blend
from deepenergy.render.compiled import Tensors, apply_compiled, array_of


def develop(
    samples: Float[Tensor, "b 4 h w"], blend: Blend | None, background: Float[Tensor, " 3"], supersample: int
) -> Float[Tensor, "b 4 h/s w/s"]:
    """The image (display-referred sRGB in [0, 1]) and its coverage.

    Args:
        samples: scene-linear colour, black where nothing is, and coverage.
        blend: what is mixed into samples at outlines.
        background: scene-linear colour behind.
        supersample: samples a pixel's side.
    """
    if samples.device.type != "cpu":
        return develop_in_torch(samples, blend, background, supersample)
    none = torch.zeros(0, dtype=torch.int64)
    target, source = (none, none) if blend is None else (blend.target, blend.source)
    share = samples.new_zeros(0) if blend is None else blend.share.to(samples)
    constants = (target, source, background.double(), torch.tensor(supersample))
    return apply_compiled(_Develop, constants, (samples, share))


def develop_in_torch(
    samples: Float[Tensor, "b 4 h w"], blend: Blend | None, background: Float[Tensor, " 3"], supersample: int
) -> Float[Tensor, "b 4 h/s w/s"]:
    """The same on any device."""
    if blend is not None:
        samples = blend.over(samples)
    if supersample > 1:
        samples = torch.nn.functional.avg_pool2d(samples, supersample)
    colour, mask = samples[:, :3], samples[:, 3:]
    behind = background.to(colour)[:, None, None]
    return torch.cat([linear_to_srgb((colour + (1 - mask) * behind).clamp(0, 1)), mask], 1)


class _Develop:
    """The compiled operation, of samples and shares, given who is mixed with whom, background and samples a side."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        return torch.from_numpy(_encoded(*_linear(constants, inputs), False))

    @staticmethod
    def push(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        target, source, back, side = _plain(constants)
        samples, share = (array_of(part) for part in inputs)
        linear, _ = _linear(constants, inputs)
        slope = _encoded(linear, back, True)
        moved, changed = (array_of(part) for part in tangents)
        out = np.empty((len(moved), *linear.shape), linear.dtype)
        for t in range(len(moved)):
            one = _averaged(moved[t], side)
            _mix(samples, target, source, changed[t], side, one)
            _mix(moved[t], target, source, share, side, one)
            _through(one, slope, back, out[t])
        return torch.from_numpy(out)

    @staticmethod
    def pull(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        target, source, back, side = _plain(constants)
        samples, share = (array_of(part) for part in inputs)
        linear, _ = _linear(constants, inputs)
        slope = _encoded(linear, back, True)
        given = array_of(cotangents)
        to_samples = np.empty((len(given), *samples.shape), samples.dtype)
        to_share = np.empty((len(given), len(share)), share.dtype)
        for t in range(len(given)):
            _back(given[t], slope, back, samples, target, source, share, side, to_samples[t], to_share[t])
        return torch.from_numpy(to_samples), torch.from_numpy(to_share)


def _plain(constants: Tensors) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]:
    target, source, back, side = constants
    return array_of(target), array_of(source), array_of(back), int(side)


def _linear(constants: Tensors, inputs: Tensors) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Blended and averaged samples; the background."""
    target, source, back, side = _plain(constants)
    samples, share = (array_of(part) for part in inputs)
    linear = _averaged(samples, side)
    _mix(samples, target, source, share, side, linear)
    return linear, back


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _averaged(samples: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    batch, channels, height, width = samples.shape
    if side == 1:
        return samples.copy()
    out = np.zeros((batch, channels, height // side, width // side), samples.dtype)
    share = samples.dtype.type(1.0 / (side * side))
    for b in range(batch):
        for k in range(channels):
            for i in range(height):
                row = out[b, k, i // side]
                for j in range(width // side):
                    total = samples[b, k, i, j * side]
                    for m in range(1, side):
                        total += samples[b, k, i, j * side + m]
                    row[j] += share * total
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mix(
    samples: NDArray[np.float32],
    target: NDArray[np.int64],
    source: NDArray[np.int64],
    share: NDArray[np.float32],
    side: int,
    out: NDArray[np.float32],
) -> None:
    height, width = samples.shape[2:]
    plane = height * width
    for n in range(len(target)):
        b, to, of = target[n] // plane, target[n] % plane, source[n] % plane
        i, j = to // width, to % width
        weight = share[n] / (side * side)
        for k in range(samples.shape[1]):
            change = samples[b, k, of // width, of % width] - samples[b, k, i, j]
            out[b, k, i // side, j // side] += weight * change


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _encoded(linear: NDArray[np.float32], back: NDArray[np.float64], slope: bool) -> NDArray[np.float32]:
    """sRGB over the background; or the derivative of that by the linear sum, zero where it is clipped."""
    out = linear.copy()
    for b in range(linear.shape[0]):
        for k in range(3):
            behind = _encoded_value(linear.dtype.type(back[k]), slope)
            for i in range(linear.shape[2]):
                for j in range(linear.shape[3]):
                    # Half of a plate and more shows nothing but the background.
                    if linear[b, 3, i, j] == 0 and linear[b, k, i, j] == 0:
                        out[b, k, i, j] = behind
                    else:
                        value = linear[b, k, i, j] + (1 - linear[b, 3, i, j]) * linear.dtype.type(back[k])
                        out[b, k, i, j] = _encoded_value(value, slope)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _encoded_value(value: Any, slope: bool) -> Any:
    """In the value's own precision: single powers take a third of the time."""
    kind = type(value)
    held = min(max(value, kind(0)), kind(1))
    if slope:
        if held != value:
            return kind(0)
        return kind(12.92) if held <= kind(0.0031308) else kind(1.055 / 2.4) * held ** kind(1 / 2.4 - 1)
    return kind(12.92) * held if held <= kind(0.0031308) else kind(1.055) * held ** kind(1 / 2.4) - kind(0.055)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _through(
    moved: NDArray[np.float32], slope: NDArray[np.float32], back: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    for b in range(moved.shape[0]):
        for k in range(3):
            behind = moved.dtype.type(back[k])
            for i in range(moved.shape[2]):
                for j in range(moved.shape[3]):
                    out[b, k, i, j] = slope[b, k, i, j] * (moved[b, k, i, j] - moved[b, 3, i, j] * behind)
        out[b, 3] = moved[b, 3]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _back(
    given: NDArray[np.float32],
    slope: NDArray[np.float32],
    back: NDArray[np.float64],
    samples: NDArray[np.float32],
    target: NDArray[np.int64],
    source: NDArray[np.int64],
    share: NDArray[np.float32],
    side: int,
    to_samples: NDArray[np.float32],
    to_share: NDArray[np.float32],
) -> None:
    batch, _, height, width = samples.shape
    each = given.copy()
    for b in range(batch):
        for k in range(3):
            for i in range(given.shape[2]):
                for j in range(given.shape[3]):
                    value = given[b, k, i, j] * slope[b, k, i, j] / (side * side)
                    each[b, k, i, j] = value
                    each[b, 3, i, j] -= value * back[k] * (side * side)
        each[b, 3] /= side * side
        for k in range(4):
            for i in range(height):
                for j in range(width):
                    to_samples[b, k, i, j] = each[b, k, i // side, j // side]
    plane = height * width
    for n in range(len(target)):
        b, to, of = target[n] // plane, target[n] % plane, source[n] % plane
        i, j, io, jo = to // width, to % width, of // width, of % width
        total = 0.0
        for k in range(4):
            value = each[b, k, i // side, j // side]
            total += value * (samples[b, k, io, jo] - samples[b, k, i, j])
            to_samples[b, k, io, jo] += share[n] * value
            to_samples[b, k, i, j] -= share[n] * value
        to_share[n] = total
