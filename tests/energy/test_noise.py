"""Noise and bias of landmarks, measured on residuals whose statistics are known."""

from __future__ import annotations

import torch

from deepenergy.energy.landmark import inverse_root
from deepenergy.energy.noise import NOISE_LEAST, landmark_noise

FRAMES, CAMERAS = 4000, 2


def residuals(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian residuals of known covariance, `[F, C, 68, 2]` and `[C, 68, 2, 2]`."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(CAMERAS, 68, 2, 2, generator=generator, dtype=torch.float64)
    unit = torch.randn(FRAMES, CAMERAS, 68, 2, generator=generator, dtype=torch.float64)
    return (root @ unit[..., None]).squeeze(-1), root @ root.mT


def plain(frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    seen = torch.ones(frames, CAMERAS, dtype=torch.bool)
    spread = torch.eye(2, dtype=torch.float64).expand(frames, CAMERAS, 68, 2, 2)
    return seen, spread, torch.zeros(frames, CAMERAS, 68, dtype=torch.float64)


def test_the_covariance_is_found() -> None:
    residual, covariance = residuals()
    noise = landmark_noise(residual, *plain(FRAMES))
    expected = covariance + NOISE_LEAST**2 * torch.eye(2)
    difference = (noise.covariance[0] - expected).abs().amax((-1, -2)) / expected.diagonal(dim1=-2, dim2=-1).sum(-1)
    # Four thousand frames give 2 to 3 %; cutting at four typical lengths takes a little off.
    assert float(difference.max()) < 0.12
    assert torch.equal(noise.bias, torch.zeros(CAMERAS, 68, 2).double())


def test_outliers_do_not_count_as_noise() -> None:
    residual, _ = residuals()
    clean = landmark_noise(residual, *plain(FRAMES)).covariance
    spoilt = residual.clone()
    spoilt[::50] += 400
    found = landmark_noise(spoilt, *plain(FRAMES)).covariance
    # Uncut, 2 % of outliers of 400 px would add 3,200 px^2.
    assert float((found - clean).diagonal(dim1=-2, dim2=-1).sum(-1).amax()) < 30
    assert float((found / clean).diagonal(dim1=-2, dim2=-1).median()) < 2


def test_the_bias_comes_from_the_anchors_alone() -> None:
    residual, _ = residuals()
    bias = torch.linspace(-3, 3, 68, dtype=torch.float64)[None, :, None].expand(CAMERAS, 68, 2)
    anchors = torch.arange(FRAMES) % 2 == 0
    residual = torch.where(anchors[:, None, None, None], residual + bias, residual - 50)
    found = landmark_noise(residual, *plain(FRAMES), anchors).bias
    assert float((found - bias).abs().max()) < 0.35


def test_one_frame_has_a_sensible_noise() -> None:
    residual = torch.full((1, CAMERAS, 68, 2), 3.0, dtype=torch.float64)
    covariance = landmark_noise(residual, *plain(1)).covariance
    values = torch.linalg.eigvalsh(covariance)
    assert float(values.min()) > 0.5 and float(values.max()) < 6


def test_unseen_views_and_followed_landmarks() -> None:
    residual, _ = residuals()
    seen, spread, followed = plain(FRAMES)
    seen[:, 1] = False
    hidden = landmark_noise(torch.where(seen[..., None, None], residual, torch.nan), seen, spread, followed)
    assert bool(torch.isfinite(hidden.covariance).all())
    both = landmark_noise(residual, *plain(FRAMES)).covariance
    assert torch.allclose(hidden.covariance[:, 0], both[:, 0])
    # A landmark that half follows the parameters shows half of its noise.
    half = landmark_noise(residual, *plain(FRAMES)[:2], followed + 0.5).covariance
    floor = NOISE_LEAST**2 * torch.eye(2)
    assert torch.allclose((half - floor) / 2, both - floor, rtol=0.02, atol=0.02)


def test_a_frame_with_wide_heatmaps_counts_less() -> None:
    residual, _ = residuals()
    seen, spread, followed = plain(FRAMES)
    spread = spread.clone()
    spread[0] *= 9
    covariance = landmark_noise(residual, seen, spread, followed).covariance
    ratio = covariance[0].diagonal(dim1=-2, dim2=-1) / covariance[1].diagonal(dim1=-2, dim2=-1)
    assert bool((ratio > 2).all()) and bool((ratio <= 4.5).all())


def test_inverse_root() -> None:
    covariance = residuals(3)[1] + 0.1 * torch.eye(2)
    root = inverse_root(covariance)
    eye = torch.eye(2, dtype=torch.float64).expand_as(root)
    assert torch.allclose(root @ covariance @ root, eye, atol=1e-8)
