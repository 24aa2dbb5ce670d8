"""Which solved frames are not to be believed, and why: against the limits of the settings and against the shot itself.

A frame fails for itself when its landmarks are weak or plate and render stay far apart. It fails beside the others when
its landmarks are much weaker than usual, when its residual, or how alike plate and render are, lies far outside of what
the shot's frames have, or when the head jumps away from its neighbours and back. "Far" is counted in robust standard
deviations (1.4826 median absolute deviations), and never less than a floor: in a shot of even frames the best of them
is no failure. Next to a failed frame half as far is far enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from deepenergy.scene.rotation import rotation_angle, so3_exp, so3_log
from deepenergy.scene.state import State
from deepenergy.scene.track import Cause
from deepenergy.settings.config import SolverConfig

# Robust standard deviations from which a frame is an outlier.
OUTLIER = 6.0
# Floors: crop pixels, correlation, degrees and metres.
RESIDUAL_FLOOR, CORRELATION_FLOOR, TURN_FLOOR, MOVE_FLOOR = 2.0, 0.15, 12.0, 0.04
# Share of the shot's usual confidence in landmarks that a face has (docs/decisions/0010).
LEAST_SURE = 0.75
# Frames of the running median that a jump is told from, and the fewest frames that say what is usual.
WINDOW, FEWEST = 9, 8


@dataclass(frozen=True)
class Evidence:
    """What speaks for T frames; NaN or not finite where a frame has no solve.

    Attributes:
        frames: `[T]` numbers.
        state: T states.
        confidence: `[T]` mean of the heatmaps' confidences over the views that have any.
        residual: `[T]` mean distance of plate and render landmarks, crop pixels.
        correlation: `[T]` correlation of plate and render, the worst view's; NaN where pixels were not compared.
        solved: `[T]` bool, frames that were solved at all.
    """

    frames: np.ndarray
    state: State
    confidence: np.ndarray
    residual: np.ndarray
    correlation: np.ndarray
    solved: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """Why a frame failed: a code for programs, and words; neither for one that did not."""

    cause: Cause = Cause.NONE
    words: str = ""


def judge(evidence: Evidence, config: SolverConfig) -> list[Verdict]:
    """Why each frame failed; nothing for one that did not, and for one that was not solved."""
    verdicts = [_alone(evidence, t, config) if there else Verdict() for t, there in enumerate(evidence.solved)]
    good = evidence.solved & _passed(verdicts)
    usual = float(np.median(evidence.confidence[good])) if good.sum() >= FEWEST else 0.0
    for t in np.flatnonzero(good & (evidence.confidence < LEAST_SURE * usual)):
        sure = float(evidence.confidence[t])
        words = f"weak landmarks on the plate (mean confidence {sure:.2f}, while {usual:.2f} is usual in this shot)"
        verdicts[t] = Verdict(Cause.WEAK_LANDMARKS, words)
    good &= _passed(verdicts)
    residual_limit = _limit(evidence.residual[good], RESIDUAL_FLOOR)
    correlation_limit = -_limit(-evidence.correlation[good], CORRELATION_FLOOR)
    for t in np.flatnonzero(good):
        off, correlation = float(evidence.residual[t]), float(evidence.correlation[t])
        if off > residual_limit:
            limit = f"{residual_limit:.2f} is the most for this shot"
            words = f"plate and render disagree ({off:.2f} crop pixels, while {limit})"
            verdicts[t] = Verdict(Cause.RESIDUAL, words)
        elif correlation < correlation_limit:
            limit = f"{correlation_limit:.2f} is the least for this shot"
            words = f"the plate does not look like the render (correlation {correlation:.2f}, while {limit})"
            verdicts[t] = Verdict(Cause.APPEARANCE, words)
    left = good & _passed(verdicts)
    # Halfway from what is usual to what fails a frame by itself.
    halves = (
        (-evidence.confidence, -usual * (1 + LEAST_SURE) / 2),
        (evidence.residual, _halfway(evidence.residual[good], residual_limit)),
        (-evidence.correlation, _halfway(-evidence.correlation[good], -correlation_limit)),
    )
    doubtful = np.any([values > limit for values, limit in halves], axis=0)
    for t in _spreading(left, doubtful):
        words = "beside a failed frame, and halfway to failing by itself (landmarks, residual or correlation)"
        verdicts[t] = Verdict(Cause.BESIDE_FAILED, words)
    good = left & _passed(verdicts)
    for t, words in _jumps(evidence, good).items():
        verdicts[t] = Verdict(Cause.JUMP, words)
    return verdicts


def _passed(verdicts: list[Verdict]) -> Bool[np.ndarray, " t"]:
    return np.array([verdict.cause == Cause.NONE for verdict in verdicts], dtype=bool)


def _halfway(values: Float[np.ndarray, " n"], limit: float) -> float:
    known = values[np.isfinite(values)]
    return (float(np.median(known)) + limit) / 2 if len(known) and np.isfinite(limit) else np.inf


def _spreading(good: np.ndarray, doubtful: np.ndarray) -> list[int]:
    """Good frames that are doubtful, and joined by such to one that failed: what covers a face comes and goes."""
    found: list[int] = []
    for order in (range(1, len(good)), range(len(good) - 2, -1, -1)):
        step = order.step
        failed = ~good
        for t in order:
            if good[t] and doubtful[t] and failed[t - step]:
                failed[t] = True
                found.append(t)
    return sorted(set(found))


def _alone(evidence: Evidence, t: int, config: SolverConfig) -> Verdict:
    off, sure = float(evidence.residual[t]), float(evidence.confidence[t])
    if not bool(torch.isfinite(evidence.state.translation[t]).all()) or not np.isfinite(off):
        return Verdict(Cause.NOT_FINITE, "the solve did not stay finite")
    if sure < config.min_confidence:
        words = f"weak landmarks on the plate (mean confidence {sure:.2f}, at least {config.min_confidence:.2f})"
        return Verdict(Cause.WEAK_LANDMARKS, words)
    if off > config.max_residual:
        words = f"plate and render disagree ({off:.1f} crop pixels, at most {config.max_residual:.1f})"
        return Verdict(Cause.RESIDUAL, words)
    return Verdict()


def _limit(values: Float[np.ndarray, " n"], floor: float) -> float:
    """The largest value that is no outlier."""
    known = values[np.isfinite(values)]
    if len(known) < FEWEST:
        return np.inf
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    return middle + max(floor, OUTLIER * spread)


def _jumps(evidence: Evidence, good: np.ndarray) -> dict[int, str]:
    """Frames that leave the running median of their neighbours and come back."""
    rows = np.flatnonzero(good)
    if len(rows) < FEWEST:
        return {}
    rotation, translation = evidence.state.rotation[rows], evidence.state.translation[rows].numpy()
    centre = _median_rotation(rotation)
    turn = so3_log(rotation @ centre.mT).numpy()
    numbers = evidence.frames[rows]
    turned, moved = np.zeros(len(rows)), np.zeros(len(rows))
    for i, number in enumerate(numbers):
        near = np.abs(numbers - number) <= WINDOW // 2
        # At a cut or the shot's end the window has one side, and its median is no place that the head passed.
        if near[:i].sum() < 2 or near[i + 1 :].sum() < 2:
            continue
        middle = torch.from_numpy(np.median(turn[near], axis=0))
        turned[i] = np.degrees(float(rotation_angle(so3_exp(middle) @ centre, rotation[i])))
        moved[i] = np.linalg.norm(translation[i] - np.median(translation[near], axis=0))
    found = {}
    for i, t in enumerate(rows):
        for value, floor, unit in ((turned, TURN_FLOOR, "°"), (moved * 1000, MOVE_FLOOR * 1000, " mm")):
            if value[i] > _limit(value, floor):
                found[int(t)] = f"the head jumps ({value[i]:.0f}{unit} from where its neighbours have it)"
    return found


def _median_rotation(rotation: Float[torch.Tensor, "n 3 3"]) -> Float[torch.Tensor, "3 3"]:
    """The frame's rotation that is nearest to all others, so that differences from it are small."""
    some = rotation[:: max(1, len(rotation) // 64)]
    apart = rotation_angle(some[:, None], some[None]).sum(1)
    return some[int(apart.argmin())]
