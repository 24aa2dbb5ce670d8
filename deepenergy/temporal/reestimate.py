"""Re-estimation (appendix A.1): the expression once more on the smoothed pose, smoothing again, until it settles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepenergy.energy.surface import SurfacePoints, face_points
from deepenergy.fit.frames import PlateCrop, fit_frames
from deepenergy.flow import FlowNetwork
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.landmarks.observe import Observations
from deepenergy.render import Renderer
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import PlateError, Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track
from deepenergy.scene.window import crop_and_resize
from deepenergy.settings.config import SolverConfig
from deepenergy.settings.schedule import Stage
from deepenergy.temporal.refine import RefineConfig, refine
from deepenergy.temporal.states import states_of, with_states
from deepenergy.temporal.sweeps import put

Progress = Callable[[str, int, int], None]
_AT_ONCE = 96
_POINTS = 200


@dataclass(frozen=True)
class ReestimateConfig:
    """Settings of `reestimate`.

    Attributes:
        rounds: most rounds of expression and smoothing; 0 for none.
        tolerance: ends the rounds when no more than this changed: root mean square of the face's points, metres.

    Raises:
        InputError: a value out of its range.
    """

    rounds: int = 1
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        checks = (("rounds", self.rounds >= 0, "0 or more"), ("tolerance", self.tolerance > 0, "more than 0 metres"))
        for name, good, expected in checks:
            if not good:
                raise InputError(f"reestimate.{name}", str(getattr(self, name)), expected, "correct the setting")


def expression_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The end of a schedule, from its last stage on pixels on (its last stage where it has none), the pose held."""
    first = max((i for i, stage in enumerate(stages) if stage.photometric), default=len(stages) - 1)
    return tuple(
        replace(stage, name=f"{stage.name}, again", translation=False, rotation=False, fit_light=False)
        for stage in stages[first:]
    )


def reestimate_expression(
    track: Track,
    observed: Observations,
    rig: Rig,
    cameras: Sequence[Camera],
    renderer: Renderer,
    network: HeatmapNetwork,
    config: SolverConfig,
    plates: Sequence[Plates] = (),
    progress: Progress = lambda what, done, total: None,
) -> Track:
    """Jaw and weights of the solved frames again, from the landmarks, the pose held (A.1).

    Args:
        track: T frames; those that are not "solved" stay as they are.
        observed: the landmarks on the plates of the same T frames.
        renderer: as the solve left it, with its light.
        config: of the solve; the end of its schedule says how.
        plates: of all cameras, for stages on pixels; without them landmarks alone count.

    Raises:
        InputError: observations of another number of frames.
    """
    if len(observed.points) != len(track):
        raise InputError(
            "observations", f"{len(observed.points)} frames", f"the track's {len(track)}", "observe the same frames"
        )
    track.check_rig(rig)
    seen = torch.isfinite(observed.points).all((-1, -2)).any(1)
    rows = (seen & torch.from_numpy(track.solved)).nonzero()[:, 0]
    state, again = states_of(track), replace(config, stages=expression_stages(config.stages))
    for part in rows.split(_AT_ONCE) if len(rows) else ():
        some = observed[part]
        crop = _plate_crop(plates, track.frames[part.numpy()]) if plates else None
        fit = fit_frames(some, rig, cameras, renderer, network, again, progress, start=state[part], plate_crop=crop)
        state = put(state, part, fit.state)
    words = np.array(track.provenance, dtype=np.str_).tolist()
    for row in rows.tolist():
        words[row] = "; ".join(filter(None, [words[row], "expression re-estimated"]))
    return replace(with_states(track, state, track.status), provenance=np.array(words))


def reestimate(
    track: Track,
    observed: Observations,
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    renderer: Renderer,
    network: HeatmapNetwork,
    flow: FlowNetwork | None,
    config: SolverConfig,
    refine_config: RefineConfig,
    settings: ReestimateConfig | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Track:
    """Rounds of expression and smoothing on a track that was smoothed once.

    Args:
        track, observed, renderer, network, config: see `reestimate_expression`.
        plates, flow, refine_config: see `refine`.
        settings: how many rounds.

    Raises:
        InputError: as `reestimate_expression` and `refine`.
    """
    settings = settings or ReestimateConfig()
    points = face_points(rig, _POINTS)
    for _ in range(settings.rounds):
        before = track
        track = reestimate_expression(track, observed, rig, cameras, renderer, network, config, plates, progress)
        track = refine(track, plates, rig, cameras, flow, refine_config, progress)
        if _change(points, before, track) < settings.tolerance:
            break
    return track


def _plate_crop(plates: Sequence[Plates], numbers: np.ndarray) -> PlateCrop:
    """Windows of the plates of these frames, as `fit_frames` wants them."""

    def crop(row: int, camera: int, box: Tensor, size: int) -> Tensor | None:
        plate, number = plates[camera], int(numbers[row])
        if number not in plate.frames:
            return None
        try:
            return crop_and_resize(plate.read(plate.frames.index(number))[None], box[None], size)[0]
        except PlateError:
            return None

    return crop


def _change(points: SurfacePoints, before: Track, after: Track) -> float:
    moved = points.world(states_of(after)) - points.world(states_of(before))
    return float(moved.square().sum(-1).mean().sqrt())
