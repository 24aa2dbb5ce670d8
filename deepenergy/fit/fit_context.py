"""What a fit is made with: the views, the rig, the networks and the settings, which travel together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from deepenergy.fit.stage_result import OnStage
from deepenergy.flow import FlowNetwork
from deepenergy.landmarks.detector import Detector
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.progress import Progress, silent
from deepenergy.scene.rig import Rig
from deepenergy.scene.views import Views
from deepenergy.settings.config import SolverConfig


@dataclass(frozen=True, eq=False)
class FitContext:
    """Everything that solving a shot needs beside the states themselves.

    Attributes:
        views: cameras and plates.
        rig: the actor's rig.
        config: the settings.
        detector: finds faces; needed to observe plates.
        network: finds landmarks, on plates and renders alike; needed to observe and to fit.
        flow: finds optical flow between plates; needed for infill and refinement by flow.
        renderer: renders the rig; made from the settings, without the shot's light, when None.
        progress: told how far the work is.
        on_stage: told what every stage made of the frames.
    """

    views: Views
    rig: Rig
    config: SolverConfig = field(default_factory=SolverConfig)
    detector: Detector | None = None
    network: HeatmapNetwork | None = None
    flow: FlowNetwork | None = None
    renderer: Renderer | None = None
    progress: Progress = silent
    on_stage: OnStage | None = None

    def with_config(self, **settings: object) -> FitContext:
        """The same with some settings changed, by their names in `SolverConfig`."""
        return replace(self, config=replace(self.config, **settings))  # pyright: ignore[reportArgumentType]

    def rendering(self) -> FitContext:
        """The same with a renderer, as the settings want it; as it is where it has one."""
        return self if self.renderer is not None else replace(self, renderer=renderer_for(self.rig, self.config))

    @property
    def render(self) -> Renderer:
        """The renderer; `rendering` gives a context that has one."""
        if self.renderer is None:
            raise InputError("fit context renderer", "none", "a renderer", "call `context.rendering()` first")
        return self.renderer

    @property
    def landmark_network(self) -> HeatmapNetwork:
        """The landmark network.

        Raises:
            InputError: there is none.
        """
        if self.network is None:
            raise InputError("fit context network", "none", "a landmark network", "pass one, or use `Solver`")
        return self.network

    @property
    def face_detector(self) -> Detector:
        """The face detector.

        Raises:
            InputError: there is none.
        """
        if self.detector is None:
            raise InputError("fit context detector", "none", "a face detector", "pass one, or use `Solver`")
        return self.detector


@torch.no_grad()
def renderer_for(rig: Rig, config: SolverConfig) -> Renderer:
    """The renderer that a solve by these settings looks through, before it knows the light."""
    shadow = ambient_occlusion(rig).to(config.device)
    # Outlines have derivatives only where the network reads them on every step.
    return Renderer(
        rig.to(config.device),
        shadow,
        supersample=config.supersample,
        backend=config.renderer,
        antialias=config.jacobian == "deep",
    )
