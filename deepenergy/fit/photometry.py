"""Pixels of plates and renders for the photometric energy, and whether they are alike enough to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.energy.photometric import PhotometricEnergy, look_up, luminance_features
from deepenergy.energy.surface import SurfacePoints, face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.render import Render, Renderer
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State

WINDOW = 256
POINTS = 1500
# A vertex is hidden where the surface before it is nearer by more than this (metres).
_HIDDEN_BY = 0.003
_AT_ONCE = 4
# Correlation of a view's features below which its pixels are not used, and the shot's typical one.
LEAST_CORRELATION = 0.4
_TYPICAL_CORRELATION = 0.7


@dataclass(frozen=True)
class Photometry:
    """The plates of B frames and C cameras in their windows.

    Attributes:
        points: where plates and renders are compared.
        cameras: C cameras.
        windows: `[B, C, 4]` windows, plate pixels.
        images: `[B, C, 3, S, S]` display-referred sRGB; NaN where there is none.
    """

    points: SurfacePoints
    cameras: tuple[Camera, ...]
    windows: Tensor
    images: Tensor

    @staticmethod
    def read(context: FitContext, frames: Sequence[int], windows: Float[Tensor, "b c 4"]) -> Photometry:
        """Read the windows of the plates of B frames."""
        images = torch.full((*windows.shape[:2], 3, WINDOW, WINDOW), torch.nan)
        for b, c in torch.isfinite(windows).all(-1).nonzero().tolist():
            image = context.views.window(c, int(frames[b]), windows[b, c], WINDOW)
            if image is not None:
                images[b, c] = image.to(images)
        points = face_points(context.render.rig, POINTS)
        return Photometry(points, context.views.cameras_at(frames), windows, images)

    @torch.no_grad()
    def energy(
        self,
        state: State,
        renderer: Renderer,
        blur: float,
        share: Float[Tensor, "b c"],
        report: Callable[[int], None] = lambda count: None,
    ) -> PhotometricEnergy:
        """The energy about `state`, in standard deviations of what plates and renders differ by there.

        Args:
            blur: smoothing of both, window pixels.
            share: factor on each view.
            report: told how many views were rendered.
        """
        shape = (*self.windows.shape[:2], len(self.points))
        plates = torch.zeros(*shape[:2], WINDOW, WINDOW)
        reference = torch.zeros(shape, dtype=torch.float64)
        visible = torch.zeros(shape, dtype=torch.float64)
        for c, camera in enumerate(self.cameras):
            rows = (torch.isfinite(self.images[:, c, 0, 0, 0]) & (share[:, c] > 0)).nonzero()[:, 0]

            def render(part: Tensor, c: int = c, camera: Camera = camera) -> int:
                through = camera[part].crop(self.windows[part, c], WINDOW)
                drawn = renderer(renderer.rig.vertices(state[part].to(renderer.rig.neutral)), through)
                image = self.images[part, c].to(drawn.image)
                plates[part, c] = luminance_features(image, blur).cpu()
                # The plate behind the render, so that both are alike beyond the head's outline.
                features = luminance_features(drawn.image * drawn.mask + image * (1 - drawn.mask), blur)
                world = self.points.world(state[part])
                reference[part, c], visible[part, c] = _seen(drawn, features.cpu(), through, world)
                return len(part)

            for count in map_in_threads(render, rows.split(_AT_ONCE)):
                report(count)
        energy = PhotometricEnergy(self.points, self.cameras, self.windows, plates, reference, visible, state)
        residual = energy(torch.zeros(len(state), state.size, dtype=torch.float64))[0]
        counted = residual.view(len(state), len(self.cameras), -1).abs()[visible > 0]
        noise = 1.4826 * float(counted.median()) if len(counted) else 1.0
        weights = visible * share[..., None] / max(noise, 1e-3)
        return PhotometricEnergy(self.points, self.cameras, self.windows, plates, reference, weights, state)


def _seen(
    render: Render, features: Tensor, camera: Camera, world: Float[Tensor, "b m 3"]
) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b m"]]:
    """The render's features at the points, and 1 for those that it shows."""
    in_camera = camera.camera_points(world)
    pixels, own = camera.pixels(in_camera), in_camera[..., 2]
    depth = render.fragments.depth.cpu()
    samples = depth.shape[-1] // WINDOW
    at = (pixels * samples).floor().long()
    inside = ((at >= 0) & (at < depth.shape[-1])).all(-1) & (own > 0)
    at = at.clamp(0, depth.shape[-1] - 1)
    before = depth[torch.arange(len(world))[:, None], at[..., 1], at[..., 0]].double()
    shown = inside & (before > 0) & (own - before < _HIDDEN_BY)
    return look_up(features, pixels)[0], shown.double()


def is_comparable(correlation: Float[Tensor, "b c"]) -> bool:
    """Whether the rig's appearance resembles the plates' at all, by the median of all views."""
    known = correlation[torch.isfinite(correlation)]
    return bool(len(known)) and float(known.median()) >= _TYPICAL_CORRELATION
