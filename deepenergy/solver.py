"""`Solver`: plates, rig and camera in, a track out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.identity import fit_identity
from deepenergy.fit.stage_result import OnStage
from deepenergy.landmarks import network_from_name
from deepenergy.landmarks.detector import Detector, detector_from_name
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.pipeline.refit import refit
from deepenergy.pipeline.shot import flow_network_of, solve_sequence
from deepenergy.render.operations import Backend
from deepenergy.render.pytorch3d_backend import load_pytorch3d
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.progress import Progress, silent
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views
from deepenergy.settings.config import SolverConfig

Image = Tensor | np.ndarray


class Solver:
    """Solves facial performances (Bao, Wu, Yao, Fedkiw 2018).

    Args:
        config: settings; the defaults need no file from outside of the package.
        detector, network: your own in place of those that the settings name.
        renderer: as in the settings, in place of theirs.

    Raises:
        InputError: an unknown detector, network or renderer, or one whose file or package is missing.
    """

    def __init__(
        self,
        config: SolverConfig | None = None,
        detector: Detector | None = None,
        network: HeatmapNetwork | None = None,
        renderer: Backend | None = None,
    ) -> None:
        self.config = config or SolverConfig()
        if renderer is not None:
            self.config = replace(self.config, renderer=renderer)
        if self.config.renderer == "pytorch3d":
            # Before hours of plates are read, not after.
            load_pytorch3d()
        self.detector = detector or detector_from_name(self.config.detector)
        self.network = network or network_from_name(
            self.config.network, self.config.network_weights, self.config.device
        )

    def fit_sequence(
        self,
        plates: Plates | Sequence[Plates],
        rig: Rig,
        camera: Camera | Sequence[Camera],
        progress: Progress | None = None,
        resume: Path | None = None,
        on_stage: OnStage | None = None,
    ) -> Track:
        """Solve a shot seen by one calibrated camera or several.

        Args:
            plates: one `Plates`, or one for each camera.
            rig: the actor's rig, with its landmarks.
            camera: one `Camera`, or as many as plates, in the same order.
            progress: called with (what, done, total).
            resume: folder for finished parts, from which a run that was stopped goes on; removed at the end.
            on_stage: called with every stage's `StageResult`, as `report.StageRecorder` is; not for parts that `resume`
                held already.

        Returns:
            the track of every frame that any camera has. A frame that could not be solved is "infilled" from its
            neighbours, or "failed" where there is none; `reason` says why.

        Raises:
            InputError: plates, rig and cameras that cannot be used together. Single bad frames do not raise.
        """
        context = self._context(plates, rig, camera, progress)
        return solve_sequence(replace(context, on_stage=on_stage), resume)

    def refit_frames(  # more than six: those of `fit_sequence`, and which frames of which track
        self,
        track: Track,
        frames: str,
        plates: Plates | Sequence[Plates],
        rig: Rig,
        camera: Camera | Sequence[Camera],
        progress: Progress | None = None,
        on_stage: OnStage | None = None,
    ) -> Track:
        """Solve a range of frames of a solved shot again, with these settings; the others stay bit for bit.

        Args:
            track: the solved shot.
            frames: a frame range ("1010-1020").
            plates, rig, camera: of the whole shot; like `progress` and `on_stage`, as for `fit_sequence`.

        Raises:
            InputError: as `fit_sequence`, and a range that the track or the plates do not have.
        """
        context = replace(self._context(plates, rig, camera, progress), on_stage=on_stage)
        alone = context.with_config(infill="none", refine="none", reestimate=0)
        again = solve_sequence(replace(alone, views=context.views.select(frames)))
        return refit(track, again, context)

    def fit_frame(self, image: Image | Sequence[Image], rig: Rig, camera: Camera | Sequence[Camera]) -> Track:
        """Solve one frame. A track of one frame, number 1001.

        Args:
            image: one image, or one for each camera: `[3, H, W]` or `[H, W, 3]`, tensor or array, display-referred sRGB
                as `Plates.from_array` takes it (floats in [0, 1], uint8 or uint16).
            rig, camera: as for `fit_sequence`.

        Raises:
            InputError: as `fit_sequence` and `Plates.from_array`.
        """
        images = [image] if isinstance(image, (Tensor, np.ndarray)) else list(image)
        cameras = [camera] if isinstance(camera, Camera) else list(camera)
        names = [c.name for c in cameras] if len(cameras) == len(images) else [f"camera{i}" for i in range(len(images))]
        plates = [Plates.from_array(i[None], name=n) for i, n in zip(images, names, strict=True)]
        return self.fit_sequence(plates, rig, cameras)

    def fit_identity(
        self,
        plates: Plates | Sequence[Plates],
        rig: Rig,
        camera: Camera | Sequence[Camera],
        progress: Progress | None = None,
    ) -> Rig:
        """The rig of this actor, from a rig with an identity basis: coarse, from landmarks of near-neutral frames.

        Raises:
            InputError: the rig has no identity basis, or no frame shows a face.
        """
        return fit_identity(self._context(plates, rig, camera, progress))

    def _context(
        self,
        plates: Plates | Sequence[Plates],
        rig: Rig,
        camera: Camera | Sequence[Camera],
        progress: Progress | None,
    ) -> FitContext:
        many, cameras = _lists(plates, rig, camera)
        rig.require_landmarks()
        return FitContext(
            Views.match(many, cameras),
            rig,
            self.config,
            self.detector,
            self.network,
            flow_network_of(self.config),
            progress=progress or silent,
        )


_MAKERS = {Plates: "Plates.open or Plates.from_array", Rig: "Rig.load", Camera: "Camera.load"}


def _lists(
    plates: Plates | Sequence[Plates], rig: Rig, camera: Camera | Sequence[Camera]
) -> tuple[list[Plates], list[Camera]]:
    many = [plates] if isinstance(plates, Plates) else list(plates)
    cameras = [camera] if isinstance(camera, Camera) else list(camera)
    for field, values, kind in (("plates", many, Plates), ("rig", [rig], Rig), ("camera", cameras, Camera)):
        for value in values:
            if not isinstance(value, kind):
                raise InputError(field, type(value).__name__, kind.__name__, f"make it with {_MAKERS[kind]}")
    return many, cameras


def fit_sequence(
    plates: Plates | Sequence[Plates], rig: Rig, camera: Camera | Sequence[Camera], progress: Progress | None = None
) -> Track:
    """`Solver().fit_sequence` with the default settings."""
    return Solver().fit_sequence(plates, rig, camera, progress)
