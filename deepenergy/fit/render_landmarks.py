"""`N(F(x_R))`: what the landmark network reads on renders of the rig."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.energy.deep_jacobian import deep_landmarks
from deepenergy.energy.landmark import DeepPoints
from deepenergy.landmarks.network import CROP_SIZE, HeatmapNetwork
from deepenergy.landmarks.readings import read_points
from deepenergy.render import Renderer
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State

_RENDERS_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class RenderReader:
    """Renders B frames for C cameras, and has the network read them.

    The render is made straight in the window (a cropped camera), at the network's size, so that plate and render are
    seen through the same window.

    Attributes:
        renderer: renders the rig.
        network: reads the renders.
        cameras: C cameras, each the same in every frame or with a row for each of the B.
        windows: `[B, C, 4]` what the network sees, plate pixels; NaN where a view has no face.
    """

    renderer: Renderer
    network: HeatmapNetwork
    cameras: tuple[Camera, ...]
    windows: Tensor

    def landmarks(
        self, state: State, readings: int = 1, progress: Callable[[int], None] = lambda done: None
    ) -> Float[Tensor, "b c l 2"]:
        """The network's landmarks on renders of the states, plate pixels; NaN where there is no window.

        Args:
            state: B states.
            readings: how often the network reads each render (`landmarks.readings`).
            progress: told how many renders were read.
        """
        layout = self.renderer.rig.require_landmarks()[0]
        shape = (*self.windows.shape[:2], len(layout), 2)
        points = torch.full(shape, torch.nan, dtype=torch.float64, device=self.windows.device)
        for c, camera in enumerate(self.cameras):
            rows = torch.isfinite(self.windows[:, c]).all(1).nonzero()[:, 0]

            def read(part: Tensor, c: int = c, camera: Camera = camera) -> int:
                vertices = self.renderer.rig.vertices(state[part].to(self.renderer.rig.neutral))
                own = camera[part]

                def image_in(windows: Tensor) -> Tensor:
                    return self.renderer(vertices, own.crop(windows, CROP_SIZE)).image

                with torch.no_grad():
                    found = read_points(self.network, image_in, self.windows[part, c], readings)
                points[part, c] = found.to(self.windows)
                return len(part)

            for count in map_in_threads(read, rows.split(_RENDERS_AT_ONCE)):
                progress(count)
        return points

    def deep_points(self, free: Bool[Tensor, " p"]) -> DeepPoints:
        """The network's points on the render and their derivative through network and render, as the energy wants."""

        def points(base: State, step: Tensor) -> tuple[Tensor, Tensor]:
            return deep_landmarks(self.renderer, self.network, base, step, self.cameras, self.windows, free)

        return points
