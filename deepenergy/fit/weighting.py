"""How much each row counts: the network's confidence, the noise that solved frames show, robust kernels."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.energy.landmark import MEASURED_UNIT, LandmarkEnergy, inverse_root
from deepenergy.energy.noise import landmark_noise
from deepenergy.energy.stack import Stack
from deepenergy.energy.uncertainty import parameter_sigma
from deepenergy.landmarks.observe import Observations
from deepenergy.scene.state import State
from deepenergy.settings.config import KERNELS, SolverConfig
from deepenergy.solve import Kernel, Solution
from deepenergy.solve.kernels import weighting


def confidence_weight(confidence: Tensor) -> Tensor:
    """Row weights from the network's confidence: full from 0.5 upwards, never quite nothing."""
    return (confidence / 0.5).clamp(0.05, 1.0)


def landmark_kernel(config: SolverConfig) -> Kernel | None:
    """The robust kernel on each landmark's residual; None for plain squares."""
    kernel = KERNELS[config.kernel]
    return None if kernel is None else kernel(MEASURED_UNIT * config.kernel_scale)


def parameter_sigmas(solution: Solution, problem: Stack) -> Float[Tensor, "b p"]:
    """Standard deviations of the parameters by the solve of a problem (`energy.uncertainty`)."""
    patch = problem.patches()
    kernels = problem.kernels() or None
    roots = weighting(kernels, solution.residual.shape[1], patch.device)(solution.residual)[1]
    return parameter_sigma(
        solution, torch.ones_like(solution.residual) if roots is None else roots, patch, MEASURED_UNIT
    )


def reweighted(
    energy: LandmarkEnergy, state: State, solution: Solution, observed: Observations, bias: bool
) -> LandmarkEnergy:
    """The energy with the noise, and the bias if asked for, that the solved frames show.

    Args:
        energy: of B frames.
        state: where they were solved to.
        solution: of the last solve by landmarks alone, whose first rows are theirs.
        observed: the landmarks on the plates.
        bias: whether a constant offset of each landmark is taken out, too.
    """
    targets = torch.nan_to_num(observed.points)
    seen = torch.isfinite(observed.points).all((-1, -2))
    scale = energy.pixel_scale[..., None, None]
    residual = (targets - energy.points(state) - energy.offsets) * scale
    rows = targets[0].numel()
    free = solution.free.to(solution.jacobian)[:, None, :]
    basis = torch.linalg.qr(solution.jacobian * free + 0.0).Q[:, :rows]
    followed = basis.square().sum(2).view(*targets.shape).mean(-1)
    anchors = None
    if bias:
        # Near neutral, where the expression cannot take up the bias.
        moved = state.weights.square().sum(1)
        anchors = moved <= moved.quantile(0.3)
    noise = landmark_noise(residual, seen, observed.covariance * scale[..., None] ** 2, followed, anchors)
    return replace(
        energy, precision=MEASURED_UNIT * inverse_root(noise.covariance), targets=targets - noise.bias / scale
    )
