"""The landmark energy E1 (paper, equation 2 and section 8.1), the edge-preserving E2, and L2 on the controls.

With `N*` the network on the plate and `N(p)` the network on the render, the residual is `N(p) - N*`. Between
renders `N` is modelled as the projected landmark points of the rig plus an offset,

    N(p) ~ project(landmarks(p)) + offset,    offset = N(p0) - project(landmarks(p0)),

exact at the last render `p0`; the offset is the network's own bias on this face, which cancels against the same bias
on the plate. This is the `geometric` Jacobian: no derivative goes through network or pixels. With `deep` the points
are `N(p)` itself at every step, and the Jacobian is the paper's, through the network (deep_jacobian.py).

Units: residuals are pixels of the landmark network's 256x256 crop, so that one weight means the same at every plate
size. The paper gives `lambda = 1e2` (section 8.2) without the pixels that it goes with; here it goes with pixels of a
face crop of 512x512, so that in crop pixels `lambda w^2` counts a quarter. That is what statistics asks for: whitened
landmark noise of about two against weights that vary by about 0.4. A shape that moves ten landmarks by ten crop
pixels then shrinks by a fortieth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.energy.stack import RowPlaces
from deepenergy.energy.surface import SurfacePoints, world_vjp
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.solve import Block
from deepenergy.solve.kernels import Kernel

CROP_PIXELS = 256.0
# Lambda's pixels (of a 512x512 crop) in crop pixels.
L2_UNIT = 0.5
# Crop pixels: what no heatmap knows of its own error, and the noise that counts once.
NOISE_FLOOR = 1.5
PRECISION_UNIT = 4.0
# Where the noise was measured, one sigma of it counts as two: what whitened residuals are like before.
MEASURED_UNIT = 2.0


DeepPoints = Callable[[State, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LandmarkEnergy:
    """Landmark residuals of B frames seen by C cameras.

    Attributes:
        rig: the small rig of the landmarks (`Rig.landmark_rig()`).
        cameras: C cameras.
        targets: `[B, C, L, 2]` plate pixels; anything where the weight is 0.
        weights: `[B, C, L]` factors on the residuals.
        offsets: `[B, C, L, 2]` plate pixels.
        precision: `[B, C, L, 2, 2]` applied to each landmark's residual (see `precision_of`); identity when None.
        pixel_scale: `[B, C]` crop pixels in a plate pixel.
        base: where steps are taken from; `x` is a flat step for `State.retract`.
        edge_weight: factor on E2.
        l2: lambda, on squared weights and on the jaw joint in shares of its range.
        rigid_prior: see `Stage`.
        kernel: robust kernel on each landmark's residual, in the residual's units; None for plain squares.
        deep: `(base, x)` to the network's points `[B, C, L, 2]` on the render at `x`, plate pixels, and their Jacobian
            `[B, C, L, 2, P]`; None for the geometric model.
    """

    rig: Rig
    cameras: tuple[Camera, ...]
    targets: Tensor
    weights: Tensor
    offsets: Tensor
    pixel_scale: Tensor
    base: State
    precision: Tensor | None = None
    edge_weight: float = 0.0
    l2: float = 0.0
    rigid_prior: float = 0.0
    kernel: Kernel | None = None
    deep: DeepPoints | None = None

    def points(self, state: State) -> Float[Tensor, "b c l 2"]:
        """The rig's own landmark points in plate pixels."""
        world = self.rig.landmarks(self.rig.vertices(state))
        return torch.stack([camera.project(world) for camera in self.cameras], 1)

    def with_offsets(self, state: State, rendered: Float[Tensor, "b c l 2"]) -> LandmarkEnergy:
        """The energy that is exact at `state`, whose renders gave the landmarks `rendered` (NaN: offset kept)."""
        offsets = rendered - self.points(state)
        return replace(self, offsets=torch.where(torch.isfinite(offsets), offsets, self.offsets))

    def take(self, rows: Int[Tensor, " n"]) -> LandmarkEnergy:
        """Some of the frames; `deep` is for all of them or none."""
        assert self.deep is None
        return replace(
            self,
            cameras=tuple(camera[rows] for camera in self.cameras),
            targets=self.targets[rows],
            weights=self.weights[rows],
            offsets=self.offsets[rows],
            pixel_scale=self.pixel_scale[rows],
            base=self.base[rows],
            precision=None if self.precision is None else self.precision[rows],
        )

    def kernels(self) -> list[Block]:
        """The kernel on each landmark's two rows."""
        return [] if self.kernel is None else [Block(slice(0, self.targets[0].numel()), self.kernel, 2)]

    def places(self) -> RowPlaces:
        """The landmarks on the neutral face; a difference of two counts as the first one's."""
        position = self.rig.landmarks(self.rig.neutral[None].double())[0]
        marks = torch.arange(len(position)).repeat_interleave(2)
        rows = [marks.repeat(len(self.cameras))]
        if self.edge_weight:
            rows.append(marks[:-2].repeat(len(self.cameras)))
        priors = 6 if self.rigid_prior else 0
        if self.l2:
            priors += self.base.size - (6 if self.rig.jaw is not None else 12)
        return RowPlaces(position, torch.cat([*rows, marks.new_full((priors,), -1)]))

    def __call__(self, x: Float[Tensor, "b p"]) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at steps `x` from the base."""
        state = self.base.retract(x)
        if self.deep is not None:
            # The network's points as they move with the step, to first order about x; the rest is exact.
            points, slope = (torch.nan_to_num(part) for part in self.deep(self.base, x))
            target = self.targets
        else:
            points, slope = self._moving_points(state, x)
            target = self.targets - self.offsets
        seen = (self.weights > 0)[..., None]
        scale = self.pixel_scale[..., None, None]
        difference = torch.where(seen, (points - target) * scale, torch.zeros_like(points))
        slope = torch.where(seen[..., None], slope * scale[..., None], torch.zeros_like(slope))
        if self.precision is not None:
            difference = (self.precision @ difference[..., None]).squeeze(-1)
            slope = self.precision @ slope
        factor = self.weights[..., None]
        rows, columns = [(difference * factor).flatten(1)], [(slope * factor[..., None]).flatten(1, 3)]
        if self.edge_weight:
            pair = torch.minimum(self.weights[..., 1:], self.weights[..., :-1])[..., None] * self.edge_weight
            rows.append(((difference[:, :, 1:] - difference[:, :, :-1]) * pair).flatten(1))
            columns.append(((slope[:, :, 1:] - slope[:, :, :-1]) * pair[..., None]).flatten(1, 3))
        count = x.shape[1]

        def pull(value: Tensor, first: int, factor: Tensor) -> None:
            rows.append(factor * value)
            one = x.new_zeros(value.shape[1], count)
            one[:, first : first + value.shape[1]] = torch.diag(factor.expand(value.shape[1]))
            columns.append(one.expand(len(x), -1, -1))

        unit = x.new_tensor(L2_UNIT * self.l2**0.5)
        if self.l2:
            pull(state.weights, 12, unit)
            if self.rig.jaw is not None:
                pull(state.jaw, 6, unit / (self.rig.jaw.upper - self.rig.jaw.lower).to(x))
        if self.rigid_prior:
            # One degree and one per cent of a face's 0.2 m weigh alike.
            pull(x[:, :3], 0, x.new_tensor(self.rigid_prior * 180 / torch.pi))
            pull(x[:, 3:6], 3, x.new_tensor(self.rigid_prior / 0.002))
        return torch.cat(rows, 1), torch.cat(columns, 1)

    def _moving_points(self, state: State, step: Tensor) -> tuple[Tensor, Tensor]:
        """The rig's own landmark points in plate pixels, and their Jacobian."""
        faces, barycentrics = self.rig.require_landmarks()
        corners = self.rig.faces[faces]
        vertices = self.rig.vertices(state)
        share = barycentrics.to(vertices)
        world = (vertices[:, corners] * share[:, :, None]).sum(2)
        # Every corner of every landmark by itself: skinning is linear in corners, not in points between them.
        moving = SurfacePoints.of(self.rig, corners.flatten())
        points, slopes = [], []
        for camera in self.cameras:
            pixels, slope = camera.project_with_jacobian(world)
            force = (slope[:, :, :, None, :] * share[None, :, None, :, None]).transpose(1, 2).flatten(2, 3)
            each = [world_vjp(moving, state, step[:, :3], force[:, axis]) for axis in range(2)]
            points.append(pixels)
            slopes.append(torch.stack([part.unflatten(1, (-1, 3)).sum(2) for part in each], 2))
        return torch.stack(points, 1), torch.stack(slopes, 1)


def precision_of(covariance: Float[Tensor, "*b 2 2"]) -> Float[Tensor, "*b 2 2"]:
    """`PRECISION_UNIT (covariance + FLOOR^2 I)^(-1/2)`: what whitens a landmark's residual by its own uncertainty.

    Noise of four crop pixels a direction gives the identity, so that residuals stay crop pixels in kind; a jaw point
    that may slide along the jaw line counts across it alone.

    Args:
        covariance: covariances in crop pixels squared; NaN gives the identity.
    """
    eye = torch.eye(2).to(covariance)
    known = torch.isfinite(covariance).all(-1).all(-1)[..., None, None]
    root = PRECISION_UNIT * inverse_root(torch.where(known, covariance, eye) + NOISE_FLOOR**2 * eye)
    return torch.where(known, root, eye.expand_as(root))


def inverse_root(covariance: Float[Tensor, "*b 2 2"]) -> Float[Tensor, "*b 2 2"]:
    """`covariance^(-1/2)`, for covariances in crop pixels squared."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag_embed(values.clamp_min(1e-6).rsqrt()) @ vectors.transpose(-1, -2)
