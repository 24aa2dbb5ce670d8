"""A scripted performance of the built-in head: talking and emoting, for the demo."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.builtin_head.expressions import NAMES
from deepenergy.runtime.errors import InputError
from deepenergy.scene.rotation import euler_to_matrix
from deepenergy.scene.state import State

FPS = 24.0

# (time in seconds, value) knots; between them the curve eases from one to the next.
Knots = tuple[tuple[float, float], ...]

_YAW: Knots = ((0, 0), (0.5, -6), (1.1, -25), (1.7, -18), (2.5, 20), (3.1, 25), (3.7, 6), (4.0, 0))
_PITCH: Knots = ((0, 0), (0.4, 5), (1.0, -3), (1.6, -10), (2.3, 4), (2.9, 10), (3.5, -2), (4.0, 0))
_ROLL: Knots = ((0, 0), (0.7, 3), (1.3, -6), (2.2, 2), (3.0, 6), (3.6, -1), (4.0, 0))
_SHIFT: tuple[Knots, Knots, Knots] = (
    ((0, 0), (1.1, -0.02), (2.4, 0.015), (3.1, 0.025), (4.0, 0)),
    ((0, 0), (0.5, 0.006), (1.5, -0.014), (2.8, 0.012), (4.0, 0)),
    ((0, 0), (1.0, 0.02), (2.2, -0.02), (3.2, 0.015), (4.0, 0)),
)
_JAW: Knots = (
    *(
        (0, 0),
        (0.15, 0.02),
        (0.3, 0.2),
        (0.45, 0.05),
        (0.6, 0.16),
        (0.72, 0.03),
        (0.88, 0.26),
        (1.05, 0.08),
        (1.2, 0.18),
    ),
    *((1.35, 0.02), (1.75, 0.02), (1.9, 0.22), (2.05, 0.06), (2.2, 0.3), (2.4, 0.1), (2.55, 0.2), (2.7, 0.03)),
    *((3.0, 0.42), (3.25, 0.35), (3.5, 0.06), (3.75, 0.0), (4.0, 0)),
)
_BLINK: Knots = (
    *((0, 0), (0.98, 0), (1.08, 1), (1.14, 1), (1.3, 0), (2.62, 0), (2.71, 1), (2.77, 1), (2.94, 0), (4.0, 0)),
)
_SMILE: Knots = ((0, 0), (1.25, 0.05), (1.6, 0.75), (1.95, 0.55), (2.3, 0.1), (3.3, 0.1), (3.7, 0.45), (4.0, 0.1))
_PUCKER: Knots = (
    (0, 0),
    (0.3, 0),
    (0.46, 0.55),
    (0.6, 0.05),
    (2.0, 0.05),
    (2.42, 0.0),
    (2.56, 0.7),
    (2.75, 0.1),
    (4.0, 0),
)
_FUNNEL: Knots = ((0, 0), (0.65, 0), (0.86, 0.45), (1.1, 0), (2.0, 0), (2.2, 0.4), (2.4, 0), (4.0, 0))
_BROW_UP: Knots = (
    (0, 0),
    (0.3, 0.1),
    (0.8, 0.7),
    (1.2, 0.1),
    (2.6, 0.0),
    (3.0, 0.95),
    (3.4, 0.6),
    (3.8, 0.0),
    (4.0, 0),
)
_BROW_DOWN: Knots = ((0, 0), (1.3, 0.0), (2.0, 0.1), (2.35, 0.7), (2.65, 0.1), (4.0, 0))
_LOOK_SIDE: Knots = ((0, 0), (0.6, -0.1), (0.75, -0.6), (1.5, -0.4), (1.62, 0.4), (2.6, 0.3), (3.5, 0.1), (4.0, 0))
_LOOK_UP: Knots = ((0, 0), (1.4, -0.1), (1.6, -0.5), (2.0, -0.1), (2.9, 0.3), (3.4, 0.1), (4.0, 0))

# Which weights follow which curve, and how strongly.
_DRIVEN: tuple[tuple[Knots, tuple[tuple[str, float], ...]], ...] = (
    (_BLINK, (("eyeBlinkLeft", 1.0), ("eyeBlinkRight", 1.0))),
    (
        _SMILE,
        (
            *(("mouthSmileLeft", 1.0), ("mouthSmileRight", 0.86), ("cheekSquintLeft", 0.7), ("cheekSquintRight", 0.6)),
            *(("mouthUpperUpLeft", 0.2), ("mouthUpperUpRight", 0.18), ("eyeSquintLeft", 0.3), ("eyeSquintRight", 0.3)),
        ),
    ),
    (_PUCKER, (("mouthPucker", 1.0),)),
    (_FUNNEL, (("mouthFunnel", 1.0),)),
    (
        _BROW_UP,
        (
            ("browInnerUp", 0.9),
            ("browOuterUpLeft", 0.8),
            ("browOuterUpRight", 0.65),
            ("eyeWideLeft", 0.45),
            ("eyeWideRight", 0.45),
        ),
    ),
    (_BROW_DOWN, (("browDownLeft", 1.0), ("browDownRight", 0.9), ("noseSneerLeft", 0.3), ("noseSneerRight", 0.4))),
)


def _curve(knots: Knots, time: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """A smooth curve through knots that never leaves the range of its neighbours (quintic ease between knots)."""
    at = torch.tensor([k[0] for k in knots], dtype=torch.float64)
    value = torch.tensor([k[1] for k in knots], dtype=torch.float64)
    right = torch.searchsorted(at, time, right=True).clamp(1, len(knots) - 1)
    share = ((time - at[right - 1]) / (at[right] - at[right - 1])).clamp(0, 1)
    ease = share**3 * (10 + share * (6 * share - 15))
    return torch.lerp(value[right - 1], value[right], ease)


def performance(frames: int) -> State:
    """A few seconds of talking and emoting at 24 frames a second, for the rig of `builtin_head()`.

    Head turns (yaw +-25, pitch +-10, roll +-6 degrees, a few centimetres), speech, a smile, puckers, raised and
    lowered brows, two blinks. The script lasts four seconds; a longer performance plays it again, a shorter one fits
    all of it only from 96 frames on: below that it is played faster, at most twice as fast.

    Args:
        frames: how many, at least 1.

    Returns:
        `frames` states; every weight and jaw component is inside its bounds.

    Raises:
        InputError: fewer than 1 frame.
    """
    if frames < 1:
        raise InputError("frames", str(frames), "at least 1", "ask for the length of the performance in frames")
    speed = min(max(96 / frames, 1.0), 2.0)
    time = (torch.arange(frames, dtype=torch.float64) * speed / FPS) % 4.0
    angles = torch.stack([_curve(_PITCH, time), _curve(_YAW, time), _curve(_ROLL, time)], -1) * (math.pi / 180)
    states = State.identity(frames, len(NAMES))
    weights = states.weights
    index = {name: i for i, name in enumerate(NAMES)}
    for knots, driven in _DRIVEN:
        curve = _curve(knots, time)
        for name, gain in driven:
            weights[:, index[name]] += gain * curve
    for side, (positive, negative) in {"Left": ("Out", "In"), "Right": ("In", "Out")}.items():
        aside = _curve(_LOOK_SIDE, time)
        weights[:, index[f"eyeLook{positive}{side}"]] = aside.clamp_min(0)
        weights[:, index[f"eyeLook{negative}{side}"]] = (-aside).clamp_min(0)
        up = _curve(_LOOK_UP, time)
        weights[:, index[f"eyeLookUp{side}"]] = up.clamp_min(0)
        weights[:, index[f"eyeLookDown{side}"]] = (-up).clamp_min(0)
    opening = _curve(_JAW, time)
    jaw = torch.zeros(frames, 6, dtype=torch.float64)
    jaw[:, 0] = opening
    jaw[:, 1] = 0.02 * torch.sin(2 * math.pi * time / 1.3) * (opening / 0.2).clamp(0, 1)
    # A lower jaw that opens also slides forward.
    jaw[:, 5] = 0.006 * opening
    shift = torch.stack([_curve(knots, time) for knots in _SHIFT], -1)
    return State(euler_to_matrix(angles), shift, jaw, weights)
