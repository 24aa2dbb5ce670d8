"""What every stage of the schedule did: parameters, residuals and overlays (figures 3 to 6 and 10 of the paper)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from deepenergy.camera import Camera
from deepenergy.errors import InputError
from deepenergy.io.atomic import atomic_path
from deepenergy.params import Parameters
from deepenergy.plates import Plates
from deepenergy.report.overlay import Overlay, to_image
from deepenergy.rig import Rig
from deepenergy.stages import Stage
from deepenergy.track import Track


class StageRecorder:
    """Writes `FOLDER/NN_stage/`: `state.npz`, and overlays of some frames; pass it as `on_stage` of `fit_sequence`.

    `state.npz` holds `frames` [B], `rotation` [B,3,3], `translation` [B,3] metres, `jaw` [B,6], `weights` [B,K],
    `weight_names` and `residual_px` [B]. Blocks of a long shot are written beside each other.

    Args:
        folder: made where it does not exist.
        plates, rig, cameras: the shot.
        frames: numbers of the frames to draw; the first, middle and last one when None.
    """

    def __init__(
        self,
        folder: Path,
        plates: Sequence[Plates],
        rig: Rig,
        cameras: Sequence[Camera],
        frames: Sequence[int] | None = None,
    ) -> None:
        self.folder, self.plates, self.rig, self.cameras = folder, plates, rig, cameras
        self.frames = frames
        self._first: int | None = None
        self._count = 0

    def __call__(self, frames: list[int], stage: Stage, state: Parameters, residual_px: Tensor) -> None:
        """Write one stage of one block of frames."""
        if self._first != frames[0]:
            self._first, self._count = frames[0], 0
        self._count += 1
        name = re.sub(r"[^a-z0-9]+", "_", stage.name.lower()).strip("_")
        folder = self.folder / f"{self._count:02d}_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        track = self._track(frames, state, residual_px)
        suffix = "" if frames[0] == min(min(p.frames) for p in self.plates) else f".{frames[0]}"
        with atomic_path(folder / f"state{suffix}.npz", "stage output") as path, path.open("wb") as file:
            np.savez(
                file,
                frames=track.frames,
                rotation=track.rotation,
                translation=track.translation,
                jaw=track.jaw,
                weights=track.weights,
                weight_names=np.array(track.weight_names, dtype=np.str_),
                residual_px=track.landmark_residual_px,
            )
        drawn = self.frames if self.frames is not None else (frames[0], frames[len(frames) // 2], frames[-1])
        for plate, camera in zip(self.plates, self.cameras, strict=True):
            overlay = Overlay(track, self.rig, camera)
            for frame in sorted(set(drawn) & set(frames) & set(plate.frames)):
                try:
                    image = to_image(plate.read(plate.frames.index(frame)).numpy())
                except InputError:
                    continue  # A frame that another camera has: nothing to draw on.
                with atomic_path(folder / f"overlay.{camera.name}.{frame}.jpg", "stage output") as path:
                    overlay.draw(frames.index(frame), image).save(path, quality=92)

    def _track(self, frames: list[int], state: Parameters, residual_px: Tensor) -> Track:
        count = len(frames)
        return Track(
            frames=np.array(frames),
            rotation=state.rotation.cpu().numpy(),
            translation=state.translation.cpu().numpy(),
            jaw=state.jaw.cpu().numpy(),
            weights=state.weights.cpu().numpy(),
            weight_names=self.rig.weight_names,
            status=np.full(count, "solved"),
            reason=np.full(count, ""),
            confidence=np.ones(count),
            landmark_residual_px=residual_px.cpu().numpy(),
            rig_name=self.rig.name,
        )
