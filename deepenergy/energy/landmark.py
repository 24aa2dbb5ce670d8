"""The landmark energy E1 (paper, equation 2 and section 8.1), the edge-preserving E2, and L2 on the controls.

With `N*` the network on the plate and `N(p)` the network on the render, the residual is `N(p) - N*`. Between
renders `N` is modelled as the projected landmark points of the rig plus an offset,

    N(p) ~ project(landmarks(p)) + offset,    offset = N(p0) - project(landmarks(p0)),

exact at the last render `p0`; the offset is the network's own bias on this face, which cancels against the same bias
on the plate. This is the `geometric` Jacobian: no derivative goes through network or pixels. With `deep` the points
are `N(p)` itself at every step, and the Jacobian is the paper's, through the network (deep.py).

Units: residuals are pixels of the landmark network's 256x256 crop, so that one weight means the same at every plate
size. The paper gives `lambda = 1e2` (section 8.2) without the pixels that it goes with; here it goes with pixels of a
face crop of 512x512, so that in crop pixels `lambda w^2` counts a quarter. That is what statistics asks for: whitened
landmark noise of about two against weights that spread by about 0.4. A shape that moves ten landmarks by ten crop
pixels then shrinks by a fortieth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd, vmap

from deepenergy.camera import Camera
from deepenergy.params import Parameters
from deepenergy.rig import Rig

CROP_PIXELS = 256.0
# Lambda's pixels (of a 512x512 crop) in crop pixels.
L2_UNIT = 0.5
# Crop pixels: what no heatmap knows of its own error, and the noise that counts once.
NOISE_FLOOR = 1.5
PRECISION_UNIT = 4.0
# Where the noise was measured, one sigma of it counts as two: what whitened residuals are like before.
MEASURED_UNIT = 2.0


DeepPoints = Callable[[Parameters, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LandmarkEnergy:
    """Landmark residuals of B frames seen by C cameras.

    Attributes:
        rig: the small rig of the landmarks (`Rig.landmark_rig()`).
        cameras: C cameras.
        targets: `[B, C, 68, 2]` plate pixels; anything where the weight is 0.
        weights: `[B, C, 68]` factors on the residuals.
        offsets: `[B, C, 68, 2]` plate pixels.
        precision: `[B, C, 68, 2, 2]` applied to each landmark's residual (see `precision_of`); identity when None.
        pixel_scale: `[B, C]` crop pixels in a plate pixel.
        base: where steps are taken from; `x` is a flat step for `Parameters.retract`.
        edge_weight: factor on E2.
        l2: lambda, on squared weights and on the jaw joint in shares of its range.
        rigid_prior: see `Stage`.
        deep: `(base, x)` to the network's points `[B, C, 68, 2]` on the render at `x`, plate pixels, and their Jacobian
            `[B, C, 68, 2, P]`; None for the geometric model.
    """

    rig: Rig
    cameras: tuple[Camera, ...]
    targets: Tensor
    weights: Tensor
    offsets: Tensor
    pixel_scale: Tensor
    base: Parameters
    precision: Tensor | None = None
    edge_weight: float = 0.0
    l2: float = 0.0
    rigid_prior: float = 0.0
    deep: DeepPoints | None = None

    def points(self, state: Parameters) -> Float[Tensor, "b c 68 2"]:
        """The rig's own landmark points in plate pixels."""
        world = self.rig.landmarks(self.rig.vertices(state))
        return torch.stack([camera.project(world) for camera in self.cameras], 1)

    def with_offsets(self, state: Parameters, rendered: Float[Tensor, "b c 68 2"]) -> LandmarkEnergy:
        """The energy that is exact at `state`, whose renders gave the landmarks `rendered` (NaN: offset kept)."""
        offsets = rendered - self.points(state)
        return replace(self, offsets=torch.where(torch.isfinite(offsets), offsets, self.offsets))

    def __call__(self, x: Float[Tensor, "b p"]) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at steps `x` from the base."""
        frames = (
            self.base.rotation,
            self.base.translation,
            self.base.jaw,
            self.base.weights,
            self.targets if self.deep is not None else self.targets - self.offsets,
            self.weights,
            self.pixel_scale,
            self._precision(),
        )
        if self.deep is not None:
            # The network's points as they move with the step, to first order about x; the rest is exact.
            points, jacobian = (torch.nan_to_num(part) for part in self.deep(self.base, x))
            frames = (*frames, points, jacobian, x)

        def both(step: Tensor, *frame: Tensor) -> tuple[Tensor, Tensor]:
            residual = self._residual(step, *frame)
            return residual, residual

        jacobian, residual = vmap(jacfwd(both, has_aux=True))(x, *frames)
        return residual, jacobian

    def _precision(self) -> Tensor:
        if self.precision is not None:
            return self.precision
        return torch.eye(2).to(self.targets).expand(*self.targets.shape, 2)

    def _residual(
        self,
        step: Tensor,
        rotation: Tensor,
        translation: Tensor,
        jaw: Tensor,
        weights: Tensor,
        target: Tensor,
        factor: Tensor,
        scale: Tensor,
        precision: Tensor,
        *deep: Tensor,
    ) -> Tensor:
        base = Parameters(rotation[None], translation[None], jaw[None], weights[None])
        state = base.retract(step[None])
        if deep:
            points, slope, at = deep
            points = points + slope @ (step - at)
        else:
            points = self.points(state)[0]
        difference = (points - target) * scale[:, None, None]
        seen = factor > 0
        difference = torch.where(seen[..., None], difference, torch.zeros_like(difference))
        difference = (precision @ difference[..., None]).squeeze(-1)
        rows = [(difference * factor[..., None]).reshape(-1)]
        if self.edge_weight:
            pair = torch.minimum(factor[:, 1:], factor[:, :-1])[..., None] * self.edge_weight
            rows.append(((difference[:, 1:] - difference[:, :-1]) * pair).reshape(-1))
        if self.l2:
            rows.append(L2_UNIT * self.l2**0.5 * state.weights[0])
            if self.rig.jaw is not None:
                span = (self.rig.jaw.upper - self.rig.jaw.lower).to(step)
                rows.append(L2_UNIT * self.l2**0.5 * state.jaw[0] / span)
        if self.rigid_prior:
            # One degree and one per cent of a face's 0.2 m weigh alike.
            rows.append(self.rigid_prior * step[:3] * (180 / torch.pi))
            rows.append(self.rigid_prior * step[3:6] / 0.002)
        return torch.cat(rows)


def precision_of(spread: Float[Tensor, "*b 2 2"]) -> Float[Tensor, "*b 2 2"]:
    """`PRECISION_UNIT (spread + FLOOR^2 I)^(-1/2)`: what whitens a landmark's residual by its own uncertainty.

    Noise of four crop pixels a direction gives the identity, so that residuals stay crop pixels in kind; a jaw point
    that may slide along the jaw line counts across it alone.

    Args:
        spread: covariances in crop pixels squared; NaN gives the identity.
    """
    eye = torch.eye(2).to(spread)
    known = torch.isfinite(spread).all(-1).all(-1)[..., None, None]
    root = PRECISION_UNIT * inverse_root(torch.where(known, spread, eye) + NOISE_FLOOR**2 * eye)
    return torch.where(known, root, eye.expand_as(root))


def inverse_root(covariance: Float[Tensor, "*b 2 2"]) -> Float[Tensor, "*b 2 2"]:
    """`covariance^(-1/2)`, for covariances in crop pixels squared."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag_embed(values.clamp_min(1e-6).rsqrt()) @ vectors.transpose(-1, -2)
