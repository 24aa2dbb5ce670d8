"""Failed frames from their neighbours by optical flow (sections 6 and 8.3).

A run of failed frames between two anchors is solved one by one from the left anchor on, each starting from the frame
before and from the flow into it; then back from the right anchor, against both neighbours. What the back and forth of
the paper converges to is then found at once (solve_chain.py). At an end of the shot there is one anchor, and one
direction.

Flow says little about depth, and errors add up over a run; so the pose is held near the interpolation between the
anchors, the more loosely the farther both are, and controls that no point shows stay near it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from deepenergy.energy.flow import FlowWeight
from deepenergy.energy.prior import Deviation
from deepenergy.energy.surface import face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.free_controls import free_in_time, limits_of
from deepenergy.runtime.errors import InputError
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.temporal.chain import Chain
from deepenergy.temporal.interpolate import interpolate_states
from deepenergy.temporal.reference_frame import steady_frame
from deepenergy.temporal.solve_chain import ChainProblem, solve_joint
from deepenergy.temporal.sweeps import BOTH, plate_targets, solve_rows

METHODS = ("flow", "interpolation")
# How fast an interpolation goes wrong: the head's acceleration, in degrees and millimetres a frame squared. A frame at
# distances l and r from its anchors is off by about acceleration * l * r / 2.
_TURN, _MOVE = 0.6, 0.64
# And one that has an anchor on one side only: the head's speed, in degrees and millimetres a frame.
_TURN_AWAY, _MOVE_AWAY = 1.0, 2.0


@dataclass(frozen=True)
class InfillConfig:
    """Settings of `infill`.

    Attributes:
        method: "flow", or "interpolation": linear, and spherical linear for the rotation.
        size: side of the square that the flow network sees, pixels (512 in the paper).
        points: how many points of the face are followed.
        flow: how much flow counts.
        controls: weight that holds controls near the interpolation, see `Deviation`.
        iterations: limit of the joint solve of a run.

    Raises:
        InputError: a value out of its range.
    """

    method: str = "flow"
    size: int = 512
    points: int = 600
    flow: FlowWeight = field(default_factory=lambda: FlowWeight(200.0))
    controls: float = 1.0
    iterations: int = 8

    def __post_init__(self) -> None:
        checks = (
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("size", self.size >= 128, "at least 128 pixels"),
            ("points", self.points >= 50, "at least 50"),
            ("controls", self.controls > 0, "more than 0"),
            ("iterations", self.iterations >= 1, "1 or more"),
        )
        for name, good, expected in checks:
            if not good:
                raise InputError(f"infill.{name}", str(getattr(self, name)), expected, "correct the setting")


def failed_runs(usable: np.ndarray) -> list[tuple[int, int]]:
    """`(first, last)` rows of every run of frames that are not usable."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], usable.astype(bool), [True]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def infill(track: Track, context: FitContext, settings: InfillConfig | None = None) -> Track:
    """Give every failed frame a state from its neighbours; solved frames stay as they are, bit for bit.

    Args:
        track: the solved shot. Without a single usable frame it is given back as it is.
        context: its views and rig; its flow network, which "interpolation" does not need.
        settings: as the context's configuration has the method when None.

    Returns:
        the track with "infilled" frames, whose provenance names the anchors and whose reason still says why they
        failed.

    Raises:
        InputError: a rig that is not the track's, or flow without a network.
    """
    settings = settings or InfillConfig(method="interpolation" if context.config.infill == "interpolation" else "flow")
    track.check_rig(context.rig)
    if not failed_runs(track.usable) or not track.usable.any():
        return track
    if settings.method == "flow" and context.flow is None:
        raise InputError("infill flow network", "none", "a flow network", "name one, or use method 'interpolation'")
    known = torch.from_numpy(track.usable)
    axes = steady_frame(context.views, track.frames, track.states(), known)
    filled = _infilled(axes.track_here(track), axes.context(context), settings)
    if axes.transform is None:
        return filled
    # There and back is not to the bit; what was solved stays.
    state = track.states().where(known, axes.track_back(filled).states())
    return replace(filled.with_states(state, filled.status), before=track.before, sigma=track.sigma)


def _infilled(track: Track, context: FitContext, settings: InfillConfig) -> Track:
    known = torch.from_numpy(track.usable)
    state = interpolate_states(track.frames, track.states(), known)
    points = face_points(context.rig, settings.points) if settings.method == "flow" else None
    confidence, words = track.confidence.copy(), [str(w) for w in track.provenance]
    total, done = int((~track.usable).sum()), 0
    for first, last in failed_runs(track.usable):
        rows = torch.arange(first, last + 1)
        left = first - 1 if first > 0 else None
        right = last + 1 if last + 1 < len(track) else None
        anchors = [a for a in (left, right) if a is not None]
        names = " and ".join(str(int(track.frames[a])) for a in anchors)
        shares = torch.zeros(len(rows))
        if points is not None:
            low, high = anchors[0] if left is not None else first, right if right is not None else last
            part = slice(low, high + 1)
            chain = Chain.along(context, track.frames[part], state[part], known[part], points, settings.size)
            run = _Run(rows - low, left is not None, right is not None, track.frames[part])
            solved, shares = _fill(chain, run, settings)
            state = state.put(rows, solved[rows - low])
        for i, row in enumerate(rows.tolist()):
            flowed = float(shares[i]) > 0
            words[row] = f"infilled by {'optical flow' if flowed else 'interpolation'} from {names}"
            nearest = min(abs(row - a) for a in anchors)
            trusted = min(float(track.confidence[a]) for a in anchors)
            # Half gone after a second's third away from what was solved; without flow, four times as fast.
            confidence[row] = trusted * 0.5 ** (nearest / (8 if flowed else 2))
        done += len(rows)
        context.progress("infill", done, total)
    status = np.where(track.usable, track.status, "infilled")
    return replace(track.with_states(state, status), confidence=confidence, provenance=np.array(words))


@dataclass(frozen=True)
class _Run:
    """A run of failed frames within a chain: their rows, whether there are anchors beside it, the chain's frames."""

    rows: Tensor
    left: bool
    right: bool
    numbers: np.ndarray


def _fill(chain: Chain, run: _Run, settings: InfillConfig) -> tuple[State, Tensor]:
    """States of the chain with the run filled, and the share of flow that each of the run's frames had."""
    limits = limits_of(chain.rig)
    state = chain.start.clamped(limits)
    free = torch.zeros(len(state), state.size, dtype=torch.bool)
    free[run.rows] = free_in_time(chain.rig)
    problem = ChainProblem(chain, _prior(chain, run, settings), settings.flow, free, limits)
    order = run.rows.tolist()
    for sides, inward in ((order, -1), (order[::-1], 1)):
        if not (run.left if inward < 0 else run.right):
            continue
        # The first way knows one neighbour only; the way back knows both.
        seen = (inward,) if inward < 0 or not run.left else BOTH
        for row in sides:
            if inward < 0 or not run.left:
                state = state.put(torch.tensor([row]), state[[row + inward]])
            targets, weight = plate_targets(chain, state, row, seen)
            state = solve_rows(problem, state, [row], targets[None], weight[None])
    state = solve_joint(problem, state, settings.iterations, 0.01)
    shares = torch.stack([plate_targets(chain, state, row)[1].mean() for row in order])
    return state, shares


def _prior(chain: Chain, run: _Run, settings: InfillConfig) -> Deviation:
    prior = Deviation.about(chain.start, chain.rig, controls=settings.controls)
    rotation, translation = prior.rotation.clone(), prior.translation.clone()
    for row in run.rows.tolist():
        before, after = float(run.numbers[row] - run.numbers[0]), float(run.numbers[-1] - run.numbers[row])
        if run.left and run.right:
            far = before * after / 2
            turn, move = _TURN * far, _MOVE * far
        else:
            far = before if run.left else after
            turn, move = _TURN_AWAY * far, _MOVE_AWAY * far
        rotation[row], translation[row] = 1 / turn**2, 1 / move**2
    return replace(prior, rotation=rotation, translation=translation)
