"""The photometric energy: the render's own pixels against the plate's, beyond the landmarks of the paper.

Landmarks tie a few dozen points to the plate, each with the error that the network makes on it. The render has a value
for every point of the skin: at vertices spread evenly over the visible face,

    r_m = F*(q_m(x)) - F(q_m(x0)),

with `F*` a band-passed, locally normalised luminance of the plate, `F` that of the render at the last state `x0`, and
`q_m(x)` the point's projection at `x`. The appearance of a point is held between renders, as an inverse compositional
tracker does (Baker and Matthews 2004), so that the Jacobian is the plate's gradient times the rig's: no derivative goes
through the renderer. Local normalisation leaves little of what light, exposure or an albedo of another contrast change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.energy.stack import RowPlaces
from deepenergy.energy.surface import SurfacePoints, world_vjp
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State
from deepenergy.solve import Block
from deepenergy.solve.kernels import Kernel

# Pixels of the 256x256 window: over what contrast is measured.
NEIGHBOURHOOD = 5.0
# Display-referred luminance: contrast below this is grain, which is not to be blown up.
LEAST_CONTRAST = 0.03
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class PhotometricEnergy:
    """Residuals of B frames seen by C cameras at M surface points, camera by camera.

    Attributes:
        points: the surface points.
        cameras: C cameras.
        windows: `[B, C, 4]` windows of the images, plate pixels; anything where the weights are 0.
        plates: `[B, C, S, S]` features of the plates in their windows (`luminance_features`).
        reference: `[B, C, M]` features of the render at the points.
        weights: `[B, C, M]` factors; 0 where a point is hidden.
        base: where steps are taken from; `x` is a flat step for `State.retract`.
        kernel: robust kernel on each point's residual, in the residual's units; None for plain squares.
    """

    points: SurfacePoints
    cameras: tuple[Camera, ...]
    windows: Tensor
    plates: Tensor
    reference: Tensor
    weights: Tensor
    base: State
    kernel: Kernel | None = None

    def take(self, rows: Int[Tensor, " n"]) -> PhotometricEnergy:
        """Some of the frames."""
        parts = {name: getattr(self, name)[rows] for name in ("windows", "plates", "reference", "weights", "base")}
        return replace(self, cameras=tuple(camera[rows] for camera in self.cameras), **parts)

    def kernels(self) -> list[Block]:
        """The kernel on each point's row."""
        return [] if self.kernel is None else [Block(slice(0, self.reference[0].numel()), self.kernel)]

    def places(self) -> RowPlaces:
        """The points on the neutral face."""
        return RowPlaces(self.points.neutral, torch.arange(len(self.points)).repeat(len(self.cameras)))

    def __call__(self, x: Float[Tensor, "b p"]) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at steps `x` from the base; a point that leaves its window counts nothing."""
        state = self.base.retract(x)
        world = self.points.world(state)
        residuals, jacobians = [], []
        for c in range(len(self.cameras)):
            value, gradient, inside = self._look(c, world)
            weight = self.weights[:, c] * inside
            # A weight of nothing keeps nothing, not even what is not finite.
            seen = weight > 0
            difference = torch.where(seen, value - self.reference[:, c], torch.zeros_like(value))
            residuals.append(weight * difference)
            force = torch.where(seen[..., None], gradient * weight[..., None], torch.zeros_like(gradient))
            jacobians.append(world_vjp(self.points, state, x[:, :3], force))
        if len(self.cameras) == 1:
            # A thousand rows a frame, not to be copied for nothing.
            return residuals[0], jacobians[0]
        return torch.cat(residuals, 1), torch.cat(jacobians, 1)

    def correlation(self, x: Float[Tensor, "b p"]) -> Float[Tensor, "b c"]:
        """Correlation of plate and render over the points that count, at steps `x`; NaN for fewer than ten."""
        world = self.points.world(self.base.retract(x))
        found = []
        for c in range(len(self.cameras)):
            value, _, inside = self._look(c, world)
            seen = ((self.weights[:, c] > 0) & inside).to(value)
            count = seen.sum(1)
            pair = torch.stack([value, self.reference[:, c]]) * seen
            pair = (pair - (pair.sum(2) / count.clamp_min(1))[..., None]) * seen
            size = pair.square().sum(2).sqrt().prod(0)
            correlation = (pair[0] * pair[1]).sum(1) / size.clamp_min(1e-12)
            found.append(torch.where(count >= 10, correlation, torch.full_like(correlation, torch.nan)))
        return torch.stack(found, 1)

    def _look(self, c: int, world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The plates' features at the points, their derivative by the world's axes, and who is inside."""
        pixels, slope = self.cameras[c].project_with_jacobian(world)
        box = torch.nan_to_num(self.windows[:, c], nan=1.0).to(world)
        extent = (box[:, None, 2:] - box[:, None, :2]).clamp_min(1e-6)
        scale = self.plates.shape[-1] / extent
        value, gradient, inside = look_up(self.plates[:, c], (pixels - box[:, None, :2]) * scale)
        return value, torch.einsum("bmi,bmij->bmj", gradient * scale, slope), inside


def luminance_features(
    images: Float[Tensor, "b 3 s s"], blur: float, neighbourhood: float = NEIGHBOURHOOD
) -> Float[Tensor, "b s s"]:
    """Band-passed luminance over its local contrast: `(G_blur L - G_n L) / sqrt(G_n (L - G_n L)^2 + LEAST_CONTRAST^2)`.

    Args:
        images: display-referred sRGB in [0, 1].
        blur: standard deviation of the smoothing, pixels.
        neighbourhood: that of the window in which contrast is measured, pixels; at least twice the blur is used.
    """
    wide = max(neighbourhood, 2 * blur)
    luma = (images * torch.tensor(_LUMA).to(images)[:, None, None]).sum(1, keepdim=True)
    mean = _gaussian(luma, wide)
    contrast = _gaussian((luma - mean).square(), wide)
    return ((_gaussian(luma, blur) - mean) / (contrast + LEAST_CONTRAST**2).sqrt())[:, 0]


def look_up(
    images: Float[Tensor, "b s s"], pixels: Float[Tensor, "b m 2"]
) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b m 2"], Bool[Tensor, "b m"]]:
    """Bilinear value, its gradient by (x, y), and whether the pixel is inside (0 where not); in the pixels' dtype."""
    size = images.shape[-1]
    at = pixels - 0.5
    inside = ((at >= 0) & (at <= size - 1)).all(-1)
    at = torch.where(inside[..., None], at, torch.zeros_like(at))
    corner = at.floor().clamp_max(size - 2)
    fx, fy = (at - corner).unbind(-1)
    index = (corner[..., 1] * size + corner[..., 0]).long()
    flat = images.reshape(len(images), -1)
    nw, ne, sw, se = (flat.gather(1, index + offset).to(pixels) for offset in (0, 1, size, size + 1))
    upper, lower = nw + fx * (ne - nw), sw + fx * (se - sw)
    gradient = torch.stack([(1 - fy) * (ne - nw) + fy * (se - sw), lower - upper], -1)
    return (upper + fy * (lower - upper)) * inside, gradient * inside[..., None], inside


def _gaussian(image: Float[Tensor, "b 1 s s"], sigma: float) -> Float[Tensor, "b 1 s s"]:
    """Smoothed along rows and columns, the border carried on."""
    matrix = _smoothing(image.shape[-1], sigma).to(image)
    return matrix @ image @ matrix.T


@lru_cache(maxsize=16)
def _smoothing(size: int, sigma: float) -> Float[Tensor, "s s"]:
    """As a matrix: for an image of a few hundred pixels that is several times as fast as a convolution."""
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    row = torch.arange(size)[:, None].expand(-1, len(at))
    column = (row + at.long()).clamp(0, size - 1)
    weight = (kernel / kernel.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).index_put((row, column), weight, accumulate=True)
