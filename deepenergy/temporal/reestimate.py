"""Re-estimation (appendix A.1): the expression once more on the smoothed pose, smoothing again, until it settles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from deepenergy.energy.surface import SurfacePoints, face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.frames import fit_frames
from deepenergy.landmarks.observe import Observations
from deepenergy.runtime.errors import InputError
from deepenergy.scene.track import Track
from deepenergy.settings.schedule import Stage
from deepenergy.temporal.refine import refine

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


def reestimate_expression(track: Track, observed: Observations, context: FitContext) -> Track:
    """Jaw and weights of the solved frames again, from what the plates show, the pose held (A.1).

    Args:
        track: T frames; those that are not "solved" stay as they are.
        observed: the landmarks on the plates of the same T frames.
        context: of the solve, with the renderer as the solve left it; the end of its schedule says how.

    Raises:
        InputError: observations of another number of frames.
    """
    if len(observed.points) != len(track):
        raise InputError(
            "observations", f"{len(observed.points)} frames", f"the track's {len(track)}", "observe the same frames"
        )
    track.check_rig(context.rig)
    seen = torch.isfinite(observed.points).all((-1, -2)).any(1)
    rows = (seen & torch.from_numpy(track.solved)).nonzero()[:, 0]
    state = track.states()
    again = replace(context.with_config(stages=expression_stages(context.config.stages)), on_stage=None)
    for part in rows.split(_AT_ONCE) if len(rows) else ():
        fit = fit_frames(again, track.frames[part.numpy()].tolist(), observed[part], start=state[part])
        state = state.put(part, fit.state)
    words = np.array(track.provenance, dtype=np.str_).tolist()
    for row in rows.tolist():
        words[row] = "; ".join(filter(None, [words[row], "expression re-estimated"]))
    return replace(track.with_states(state, track.status), provenance=np.array(words))


def reestimate(
    track: Track, observed: Observations, context: FitContext, settings: ReestimateConfig | None = None
) -> Track:
    """Rounds of expression and smoothing on a track that was smoothed once.

    Args:
        track, observed, context: see `reestimate_expression` and `refine`.
        settings: how many rounds.

    Raises:
        InputError: as `reestimate_expression` and `refine`.
    """
    settings = settings or ReestimateConfig()
    points = face_points(context.rig, _POINTS)
    for _ in range(settings.rounds):
        before = track
        track = refine(reestimate_expression(track, observed, context), context)
        if _change(points, before, track) < settings.tolerance:
            break
    return track


def _change(points: SurfacePoints, before: Track, after: Track) -> float:
    moved = points.world(after.states()) - points.world(before.states())
    return float(moved.square().sum(-1).mean().sqrt())
