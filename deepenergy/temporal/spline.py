"""Smoothing splines through a performance (section 7), one for every parameter; rotations as quaternions."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.scene.rotation import matrix_to_quaternion, quaternion_to_matrix
from deepenergy.scene.state import State

# A cubic smoothing spline needs as many.
_FEWEST = 5


def smoothing_spline(values: Float[Tensor, "t d"], smoothing: float | None = None) -> Float[Tensor, "t d"]:
    """Cubic smoothing splines through the columns, at the frames themselves: the minimisers of

        sum_t (y_t - f(t))^2 + smoothing * integral f''^2 dt,      t in frames.

    Args:
        values: fewer than five frames come back as they are.
        smoothing: 0 keeps the values, infinity would fit a line; chosen by generalised cross-validation for each column
            when None.
    """
    from scipy.interpolate import make_smoothing_spline

    if len(values) < _FEWEST or smoothing == 0:
        return values.clone()
    times = np.arange(len(values), dtype=np.float64)
    result = values.clone()
    for column, series in enumerate(values.double().numpy().T):
        # Cross-validation has nothing to choose from where nothing moves.
        if float(np.ptp(series)) > 1e-12:
            result[:, column] = torch.from_numpy(make_smoothing_spline(times, series, lam=smoothing)(times))
    return result


def spline_rotations(rotation: Float[Tensor, "t 3 3"], smoothing: float | None = None) -> Float[Tensor, "t 3 3"]:
    """Smoothing splines through the quaternions, signs made continuous first, brought back to unit length."""
    quaternion = matrix_to_quaternion(rotation)
    flips = torch.where((quaternion[1:] * quaternion[:-1]).sum(1) < 0, -1.0, 1.0)
    signs = torch.cat([torch.ones(min(1, len(quaternion))).to(quaternion), flips.to(quaternion).cumprod(0)])
    return quaternion_to_matrix(smoothing_spline(quaternion * signs[:, None], smoothing))


def spline_states(state: State, smoothing: float | None = None) -> State:
    """Splines through all parameters of consecutive frames; bounds are the caller's."""
    return State(
        spline_rotations(state.rotation, smoothing),
        *(smoothing_spline(part, smoothing) for part in (state.translation, state.jaw, state.weights)),
    )
