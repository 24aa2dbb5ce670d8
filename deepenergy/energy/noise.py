"""How far plate and render disagree, landmark by landmark: measured on the shot itself.

A network errs differently on renders and on photographs. What is left between the two once the frames have been solved
tells, for each landmark and camera, a typical covariance (noise) and, on anchor frames, a constant offset (bias).
The noise takes the place of the heatmaps' own account of themselves as the weight W of equation 2: it is in real crop
pixels, so that the solver's covariance can be believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Crop pixels: no landmark is ever better known than that.
NOISE_LEAST = 0.5
# The heatmaps' account counts as much as this many frames.
_PRIOR_FRAMES = 5.0
# A residual longer than this many typical ones is an outlier, not noise.
_OUTLIER = 4.0
# A landmark that the parameters follow wherever it goes would seem to have no noise.
_MOST_FOLLOWED = 0.8


@dataclass(frozen=True)
class LandmarkNoise:
    """Statistics of plate minus render, crop pixels.

    Attributes:
        covariance: `[B, C, L, 2, 2]`, for each frame.
        bias: `[C, L, 2]`, zero where it was not asked for.
    """

    covariance: Tensor
    bias: Tensor


def landmark_noise(
    residual: Float[Tensor, "b c l 2"],
    seen: Bool[Tensor, "b c"],
    covariance: Float[Tensor, "b c l 2 2"],
    followed: Float[Tensor, "b c l"],
    anchors: Bool[Tensor, " b"] | None = None,
) -> LandmarkNoise:
    """Noise and bias of every landmark in every camera.

    The covariance is the mean over the frames of the residuals' squares, outliers cut, with the heatmaps' account as a
    prior worth a few frames; so that a single frame has a sensible one too. A frame whose heatmaps are wider than usual
    gets so much more.

    Args:
        residual: plate minus model, crop pixels.
        seen: views that have landmarks.
        covariance: covariances by the heatmaps, crop pixels squared.
        followed: share of a landmark's residual that the free parameters take up (leverage), 0 to 1.
        anchors: frames to measure the bias on; no bias when None.
    """
    count = seen.sum(0).clamp_min(1)
    view = seen[..., None, None]
    residual = torch.where(view, residual, torch.zeros_like(residual))
    bias = torch.zeros_like(residual[0])
    if anchors is not None:
        chosen = seen & anchors[:, None]
        known = torch.where(chosen[..., None, None], residual, torch.full_like(residual, torch.nan))
        bias = torch.nan_to_num(known.nanmedian(0).values)
        residual = torch.where(view, residual - bias, residual)
    length = residual.norm(dim=-1)
    typical = torch.where(seen[..., None], length, torch.full_like(length, torch.nan)).nanmedian(0).values
    limit = _OUTLIER * torch.nan_to_num(typical).clamp_min(NOISE_LEAST)
    cut = residual * (limit / length.clamp_min(1e-9)).clamp_max(1)[..., None]
    square = (cut[..., :, None] * cut[..., None, :]).sum(0)
    kept = 1 - (followed * seen[..., None]).sum(0) / count[:, None]
    measured = square / count[:, None, None, None] / kept.clamp_min(1 - _MOST_FOLLOWED)[..., None, None]
    known = torch.where(view[..., None], torch.nan_to_num(covariance), torch.zeros_like(covariance))
    usual = known.sum(0) / count[:, None, None, None]
    eye = NOISE_LEAST**2 * torch.eye(2).to(residual)
    share = count[:, None, None, None] / (count[:, None, None, None] + _PRIOR_FRAMES)
    shot = share * measured + (1 - share) * usual + eye
    widths = (known + eye).diagonal(dim1=-2, dim2=-1).sum(-1) / (usual + eye).diagonal(dim1=-2, dim2=-1).sum(-1)
    return LandmarkNoise(shot * widths.clamp(0.5, 4)[..., None, None], bias)
