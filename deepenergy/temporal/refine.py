"""Temporal refinement (sections 7 and 8.5, appendix A): frames that were solved each for itself become a performance.

    averaging    weighted mean over three frames; Markley's mean for rotations (the default)
    self_flow    the render's own flow made even: || N(F1, F2) - N(F2, F3) ||
    plate_flow   the render's flow made that of the plates, with a prior on deviating from the solve
    hybrid       averaging, then plate flow from there (appendix A's choice)
    spline       smoothing splines through all parameters (section 7's "more traditional" way)

Where flow is involved, "jacobi" and "gauss_seidel" are the paper's sweeps over single frames, and "joint" is what they
converge to, found for all frames at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from deepenergy.energy.flow import FlowWeight
from deepenergy.energy.prior import Deviation
from deepenergy.energy.surface import SurfacePoints, face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.free_controls import free_in_time, limits_of
from deepenergy.runtime.errors import InputError
from deepenergy.scene.rotation import rotation_angle
from deepenergy.scene.state import State
from deepenergy.scene.track import REFINED, Track
from deepenergy.settings.config import SolverConfig
from deepenergy.temporal.averaging import THREE_FRAMES, average_states
from deepenergy.temporal.chain import Chain
from deepenergy.temporal.reference_frame import steady_frame
from deepenergy.temporal.solve_chain import ChainProblem, solve_joint
from deepenergy.temporal.spline import spline_states
from deepenergy.temporal.sweeps import gauss_seidel, jacobi

METHODS = ("averaging", "self_flow", "plate_flow", "hybrid", "spline")
ORDERS = ("joint", "gauss_seidel", "jacobi")
_WITH_FLOW = ("self_flow", "plate_flow", "hybrid")
# Frames that are refined together, and neighbours on either side that have a say in it.
_BLOCK, _MARGIN = 96, 12
# No head moves faster in a frame (radians, metres): beyond is a cut, across which nothing is refined.
_TURN_CUT, _MOVE_CUT = np.radians(20.0), 0.08


@dataclass(frozen=True)
class RefineConfig:
    """Settings of `refine`.

    Attributes:
        method: see above.
        order: how frames that depend on each other are solved; self flow knows sweeps only ("joint" counts as
            "gauss_seidel" there).
        sweeps: sweeps over single frames.
        averaging_sweeps: how often the window is applied.
        window: the averaging window's weights.
        size: side of the square that the flow network sees, pixels (512 in the paper).
        points: how many points of the face are followed.
        flow: how much flow counts.
        image, controls, rotation, translation: the prior on deviating from the start, see `Deviation`.
        prior: factor on all of it.
        smoothing: lambda of the splines, in frames; chosen by cross-validation when None.

    Raises:
        InputError: a value out of its range.
    """

    method: str = "averaging"
    order: str = "joint"
    sweeps: int = 4
    averaging_sweeps: int = 1
    window: tuple[float, ...] = THREE_FRAMES
    size: int = 512
    points: int = 600
    flow: FlowWeight = field(default_factory=FlowWeight)
    image: float = 1.0
    controls: float = 10.0
    rotation: float = 0.1
    translation: float = 0.1
    prior: float = 1.0
    smoothing: float | None = None

    @staticmethod
    def of(config: SolverConfig) -> RefineConfig:
        """As the solver's configuration has them; "averaging" where it wants no refinement."""
        method = "averaging" if config.refine == "none" else config.refine
        return RefineConfig(method, config.refine_order, config.refine_sweeps, prior=config.refine_prior)

    def __post_init__(self) -> None:
        checks = (
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("order", self.order in ORDERS, f"one of {', '.join(ORDERS)}"),
            ("sweeps", self.sweeps >= 1, "1 or more"),
            ("averaging_sweeps", self.averaging_sweeps >= 1, "1 or more"),
            ("size", self.size >= 128, "at least 128 pixels"),
            ("points", self.points >= 50, "at least 50"),
            ("smoothing", self.smoothing is None or self.smoothing >= 0, "0 or more"),
            *((name, getattr(self, name) >= 0, "0 or more") for name in ("image", "controls", "prior", *REFINED[:2])),
        )
        for name, good, expected in checks:
            if not good:
                raise InputError(f"refine.{name}", str(getattr(self, name)), expected, "correct the setting")


def refine(track: Track, context: FitContext, settings: RefineConfig | None = None) -> Track:
    """Make a track consistent in time.

    Args:
        track: solved, and best infilled: across a failed frame nothing is refined.
        context: its views and rig; its flow network, which "averaging", "self_flow" and "spline" do not need.
        settings: as the context's configuration has them when None.

    Returns:
        the refined track; `before` holds the values from before the first refinement, `provenance` says what was done.

    Raises:
        InputError: a rig that is not the track's, or plate flow without a network.
    """
    settings = settings or RefineConfig.of(context.config)
    track.check_rig(context.rig)
    if settings.method in ("plate_flow", "hybrid") and context.flow is None:
        raise InputError("refine flow network", "none", "a flow network", "name one, or use method 'averaging'")
    axes = steady_frame(context.views, track.frames, track.states(), torch.from_numpy(track.usable))
    here, words = axes.track_here(track), [str(w) for w in track.provenance]
    stretches = segments(track.frames, track.usable, here.states())
    state = _all_refined(here, stretches, axes.context(context), settings)
    for first, last in stretches:
        for row in range(first, last + 1 if last > first else first):
            words[row] = "; ".join(filter(None, [words[row], f"refined by {settings.method}"]))
    before = track.before or {name: getattr(track, name) for name in REFINED}
    result = axes.track_back(here.with_states(state, track.status))
    return replace(result, provenance=np.array(words), before=before, sigma=track.sigma)


def _all_refined(track: Track, stretches: list[tuple[int, int]], context: FitContext, settings: RefineConfig) -> State:
    """All states, each stretch in blocks."""
    state = result = track.states()
    points = face_points(context.rig, settings.points) if settings.method in _WITH_FLOW else None
    done, total = 0, int(track.usable.sum())
    for first, last in stretches:
        for start in range(first, last + 1, _BLOCK):
            stop = min(start + _BLOCK, last + 1)
            low, high = max(first, start - _MARGIN), min(last + 1, stop + _MARGIN)
            solved = torch.from_numpy(track.solved[low:high])
            part = _refined(state[low:high], track.frames[low:high], solved, points, context, settings)
            result = result.put(torch.arange(start, stop), part[start - low : stop - low])
            done += stop - start
            context.progress("refine", done, total)
    return result


def segments(frames: np.ndarray, usable: np.ndarray, state: State | None = None) -> list[tuple[int, int]]:
    """`(first, last)` rows of every stretch of usable frames without a gap in time, nor a cut between two poses."""
    if len(frames) == 0:
        return []
    steps = np.diff(frames)
    step = steps.min() if len(steps) else 1
    apart = (steps > step) | ~usable[1:] | ~usable[:-1]
    if state is not None:
        apart |= rotation_angle(state.rotation[1:], state.rotation[:-1]).numpy() > _TURN_CUT
        apart |= (state.translation[1:] - state.translation[:-1]).norm(dim=1).numpy() > _MOVE_CUT
    cut = np.flatnonzero(apart) + 1
    parts = np.split(np.arange(len(frames)), cut)
    return [(int(part[0]), int(part[-1])) for part in parts if usable[part].all()]


def _refined(
    state: State,
    frames: np.ndarray,
    solved: Tensor,
    points: SurfacePoints | None,
    context: FitContext,
    settings: RefineConfig,
) -> State:
    """One stretch of frames."""
    if len(state) < 2:
        return state
    limits = limits_of(context.rig)
    if settings.method == "spline":
        return spline_states(state, settings.smoothing).clamped(limits)
    if settings.method in ("averaging", "hybrid"):
        state = average_states(state, range(len(state)), settings.window, settings.averaging_sweeps)
    if points is None:
        return state
    chain = Chain.along(context, frames, state, solved, points, settings.size)
    names = ("image", "controls", "rotation", "translation")
    prior = Deviation.about(state, context.rig, **{n: settings.prior * getattr(settings, n) for n in names})
    free = free_in_time(context.rig).expand(len(state), -1)
    problem = ChainProblem(chain, prior, settings.flow, free, limits)
    if settings.method != "self_flow" and settings.order == "joint":
        return solve_joint(problem, state, 6, 0.01)
    sweep = jacobi if settings.order == "jacobi" else gauss_seidel
    return sweep(problem, state, settings.sweeps, settings.method == "self_flow")
