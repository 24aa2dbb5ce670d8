"""Failed frames from their neighbours by optical flow (sections 6 and 8.3).

A run of failed frames between two anchors is solved one by one from the left anchor on, each starting from the frame
before and from the flow into it; then back from the right anchor, against both neighbours. What the back and forth of
the paper converges to is then found at once (joint.py). At an end of the shot there is one anchor, and one direction.

Flow says little about depth, and errors add up over a run; so the pose is held near the interpolation between the
anchors, the more loosely the farther both are, and controls that no point shows stay near it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from deepenergy.energy.flow import FlowWeight
from deepenergy.energy.prior import Deviation
from deepenergy.energy.surface import face_points
from deepenergy.fit.frames import bounds as parameter_bounds
from deepenergy.flow import FlowNetwork
from deepenergy.flow.plate_flows import PlateFlows
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.temporal.chain import Chain
from deepenergy.temporal.interpolate import interpolate_states
from deepenergy.temporal.occluders import Appearance
from deepenergy.temporal.solve_chain import inside, solve_joint
from deepenergy.temporal.states import free_controls, states_of, with_states
from deepenergy.temporal.sweeps import BOTH, plate_targets, put, solve_rows

Progress = Callable[[str, int, int], None]
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


def infill(
    track: Track,
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    network: FlowNetwork | None,
    config: InfillConfig | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Track:
    """Give every failed frame a state from its neighbours; solved frames stay as they are, bit for bit.

    Args:
        track: the solved shot. Without a single usable frame it is given back as it is.
        plates, cameras: of all cameras, in the same order.
        rig: the rig that was solved.
        network: finds the flow between plates; not needed for "interpolation".
        config: settings.
        progress: called with (what, frames done, frames in all).

    Returns:
        the track with "infilled" frames, whose provenance names the anchors and whose reason still says why they
        failed.

    Raises:
        InputError: a rig that is not the track's, cameras that are not the plates', or flow without a network.
    """
    config = config or InfillConfig()
    track.check_rig(rig)
    runs = failed_runs(track.usable)
    if not runs or not track.usable.any():
        return track
    if config.method == "flow" and network is None:
        raise InputError("infill flow network", "none", "a flow network", "name one, or use method 'interpolation'")
    if len(plates) != len(cameras):
        raise InputError("cameras", f"{len(cameras)} for {len(plates)} plates", "one for each", "pass both in order")
    known = torch.from_numpy(track.usable)
    state = interpolate_states(track.frames, states_of(track), known)
    points = face_points(rig, config.points) if config.method == "flow" else None
    confidence, words = track.confidence.copy(), [str(w) for w in track.provenance]
    total, done = int((~track.usable).sum()), 0
    for first, last in runs:
        rows = torch.arange(first, last + 1)
        left = first - 1 if first > 0 else None
        right = last + 1 if last + 1 < len(track) else None
        anchors = [a for a in (left, right) if a is not None]
        names = " and ".join(str(int(track.frames[a])) for a in anchors)
        shares = torch.zeros(len(rows))
        if points is not None and network is not None:
            low, high = anchors[0] if left is not None else first, right if right is not None else last
            part = slice(low, high + 1)
            numbers = [int(f) for f in track.frames[part]]
            look = Appearance(plates, cameras, numbers, points, state[part], known[part])
            flows = PlateFlows(plates, numbers, network, config.size)
            chain = Chain(rig, points, cameras, flows, state[part], look)
            solved, shares = _fill(chain, rows - low, left is not None, right is not None, config, track.frames[part])
            state = put(state, rows, solved[rows - low])
        for i, row in enumerate(rows.tolist()):
            flowed = float(shares[i]) > 0
            words[row] = f"infilled by {'optical flow' if flowed else 'interpolation'} from {names}"
            nearest = min(abs(row - a) for a in anchors)
            trusted = min(float(track.confidence[a]) for a in anchors)
            # Half gone after a second's third away from what was solved; without flow, four times as fast.
            confidence[row] = trusted * 0.5 ** (nearest / (8 if flowed else 2))
        done += len(rows)
        progress("infill", done, total)
    status = np.where(track.usable, track.status, "infilled")
    return replace(with_states(track, state, status), confidence=confidence, provenance=np.array(words))


def _fill(
    chain: Chain, rows: Tensor, left: bool, right: bool, config: InfillConfig, numbers: np.ndarray
) -> tuple[State, Tensor]:
    """States of the chain with the run filled, and the share of flow that each of the run's frames had."""
    bounds = parameter_bounds(chain.rig)
    state = inside(chain.start, bounds)
    prior = _prior(chain, rows, left, right, config, numbers)
    free = torch.zeros(len(state), 12 + state.weights.shape[1], dtype=torch.bool)
    free[rows] = free_controls(chain.rig)
    order = rows.tolist()
    for sides, inward in ((order, -1), (order[::-1], 1)):
        if not (left if inward < 0 else right):
            continue
        # The first way knows one neighbour only; the way back knows both.
        seen = (inward,) if inward < 0 or not left else BOTH
        for row in sides:
            if inward < 0 or not left:
                state = put(state, torch.tensor([row]), state[[row + inward]])
            targets, trust = plate_targets(chain, state, row, seen)
            state = solve_rows(chain, state, [row], targets[None], trust[None], prior, config.flow, free, bounds)
    state = solve_joint(chain, state, prior, config.flow, free, bounds, config.iterations, 0.01)
    shares = torch.stack([plate_targets(chain, state, row)[1].mean() for row in order])
    return state, shares


def _prior(chain: Chain, rows: Tensor, left: bool, right: bool, config: InfillConfig, numbers: np.ndarray) -> Deviation:
    prior = Deviation.about(chain.start, chain.rig, controls=config.controls)
    rotation, translation = prior.rotation.clone(), prior.translation.clone()
    for row in rows.tolist():
        before, after = float(numbers[row] - numbers[0]), float(numbers[-1] - numbers[row])
        if left and right:
            far = before * after / 2
            turn, move = _TURN * far, _MOVE * far
        else:
            far = before if left else after
            turn, move = _TURN_AWAY * far, _MOVE_AWAY * far
        rotation[row], translation[row] = 1 / turn**2, 1 / move**2
    return replace(prior, rotation=rotation, translation=translation)
