"""The expressions of the skin, in ARKit's vocabulary: how far each one slides the skin, and the lids.

A field gives, for every skin vertex, a slide (dp, dq) along the face and a push dz out of it, millimetres. Nose and
lips ride on the sliding skin. Left is the subject's left, +X.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepenergy.builtin_head import chart
from deepenergy.builtin_head.shape import bump, smoothstep

Array = NDArray[Any]


@dataclass(frozen=True)
class Skin:
    """What a field may ask of the skin vertices.

    Attributes:
        p, q: signed lateral coordinate and height, millimetres.
        offset: distance from the mouth's line; `is_upper`: side of it.
    """

    p: Array
    q: Array
    offset: Array
    is_upper: NDArray[np.bool_]

    @property
    def left(self) -> Array:
        """Share of the left side, smooth across the midline."""
        return smoothstep(-8.0, 8.0, self.p)

    def lip(self, upper: bool, reach: float = 11.0) -> Array:
        """1 on the margin of one lip, falling to the corners and away from the mouth."""
        t = np.clip(np.abs(self.p) / (chart.MOUTH_X + 1), 0, 1)
        return np.where(self.is_upper == upper, (1 - t**2.2) * np.exp(-((self.offset / reach) ** 2)), 0.0)

    def mouth(self, width: float = 30.0, high: float = 15.0) -> Array:
        """1 at the mouth, lips and corners alike."""
        return np.exp(-((np.abs(self.p) / width) ** 4)) * np.exp(-((self.offset / high) ** 2))

    def corner(self, width: float = 12.0, high: float = 12.0) -> Array:
        """1 at the left corner of the mouth."""
        return bump(
            self.p, self.q, (chart.MOUTH_X + 1, float(chart.mouth_line(np.array(chart.MOUTH_X)))), (width, high)
        )

    def at(self, x: float, y: float, wide: float, high: float, turn: float = 0.0) -> Array:
        """A hill at one place."""
        return bump(self.p, self.q, (x, y), (wide, high), turn)


Slide = tuple[Array, Array, Array]


def _smile(s: Skin) -> Slide:
    corner, cheek = s.corner(13, 12), s.at(37, -33, 13, 11)
    lift = s.left * (1.4 * s.lip(True, 9) + 0.3 * s.lip(False, 9))
    return (
        7.0 * corner + 0.5 * cheek,
        7.0 * corner + 3.5 * cheek + lift,
        -0.8 * corner + 2.6 * cheek - 0.9 * s.left * s.mouth(26, 9),
    )


def _frown(s: Skin) -> Slide:
    corner = s.corner(11, 11)
    return 0.5 * corner, -6.5 * corner - 1.0 * s.at(22, -84, 10, 8), 0.6 * s.at(0, -95, 14, 8) * s.left


def _dimple(s: Skin) -> Slide:
    corner = s.corner(8, 9)
    return 4.5 * corner, 0.5 * corner, -2.6 * corner


def _stretch(s: Skin) -> Slide:
    corner = s.corner(12, 14)
    return 7.5 * corner, -2.5 * corner - 1.4 * s.left * s.lip(False), -1.0 * corner


def _press(s: Skin) -> Slide:
    squeeze = np.where(s.is_upper, -1.0, 1.0) * np.clip(s.offset / 5, 0, 1) * s.mouth(28, 10)
    return 1.6 * s.corner(9, 8), 1.8 * squeeze * s.left, -1.8 * s.left * (s.lip(True) + s.lip(False))


def _upper_up(s: Skin) -> Slide:
    lip = s.left * s.lip(True, 14)
    return 0.8 * lip, 6.0 * lip + 1.5 * s.at(16, -47, 8, 7), 0.9 * lip


def _lower_down(s: Skin) -> Slide:
    lip = s.left * s.lip(False, 13)
    return 0.6 * lip, -6.5 * lip, 0.6 * lip


def _sneer(s: Skin) -> Slide:
    wing = s.at(14, -37, 7, 7)
    return 1.2 * wing, 3.6 * wing + 2.0 * s.at(12, -16, 7, 8) + 1.6 * s.left * s.lip(True, 12), 0.6 * s.at(8, -10, 4, 7)


def _cheek_squint(s: Skin) -> Slide:
    cheek = s.at(36, -24, 14, 9)
    return 0 * cheek, 5.0 * cheek, 2.6 * cheek


def _brow_down(s: Skin) -> Slide:
    inner, whole = s.at(13, 17, 9, 9), s.at(27, 18, 15, 8)
    return -2.2 * inner, -3.5 * inner - 3.2 * whole, 1.2 * s.at(8, 16, 5, 6)


def _brow_outer_up(s: Skin) -> Slide:
    brow = s.at(39, 20, 13, 11)
    return 0 * brow, 6.5 * brow + 2.0 * s.at(34, 36, 15, 10), 0.5 * brow


def _brow_inner_up(s: Skin) -> Slide:
    ax = np.abs(s.p)
    brow = np.exp(-0.5 * (((ax - 10) / 11) ** 2 + ((s.q - 19) / 10) ** 2))
    wrinkle = 0.5 * np.cos((s.q - 34) / 1.6) * np.exp(-0.5 * ((ax / 20) ** 2 + ((s.q - 36) / 7) ** 2))
    return -0.6 * np.sign(s.p) * brow * np.clip(ax / 8, 0, 1), 6.8 * brow, 0.6 * brow + wrinkle


def _puff(s: Skin) -> Slide:
    cheek = np.exp(-0.5 * (((np.abs(s.p) - 37) / 12) ** 2 + ((s.q + 58) / 14) ** 2))
    return 0 * cheek, 0 * cheek, 8.0 * cheek + 1.8 * s.mouth(28, 16)


def _pucker(s: Skin) -> Slide:
    mouth = s.mouth(34, 18)
    tall = np.where(s.is_upper, 1.0, -1.0) * np.clip(s.offset / 6, 0, 1) * np.exp(-((s.p / 14) ** 2)) * s.mouth(30, 10)
    return -0.44 * s.p * mouth, 1.6 * tall, 5.5 * s.mouth(26, 15) + 1.6 * np.exp(-((s.p / 14) ** 2)) * s.mouth(26, 9)


def _funnel(s: Skin) -> Slide:
    lips = 4.2 * s.lip(True, 12) - 5.0 * s.lip(False, 12)
    return -0.30 * s.p * s.mouth(34, 16), lips, 5.5 * s.mouth(26, 14)


def _sideways(s: Skin) -> Slide:
    mouth = s.mouth(40, 22)
    return 8.0 * mouth, 1.2 * s.corner() * mouth, 0.8 * s.corner()


def _roll_upper(s: Skin) -> Slide:
    lip = s.lip(True, 9)
    return 0 * lip, -1.2 * lip * np.clip(s.offset / 4, 0, 1), -4.2 * lip


def _roll_lower(s: Skin) -> Slide:
    lip = s.lip(False, 9)
    return 0 * lip, 1.2 * lip * np.clip(s.offset / 4, 0, 1), -4.2 * lip


def _shrug_upper(s: Skin) -> Slide:
    lip = s.lip(True, 13)
    return 0 * lip, 3.2 * lip, 2.2 * lip


def _shrug_lower(s: Skin) -> Slide:
    chin = np.exp(-0.5 * ((s.p / 17) ** 2 + ((s.q + 92) / 9) ** 2))
    lips = 3.6 * s.lip(False, 14) + 3.6 * s.lip(True, 7)
    return 0 * chin, lips + 3.5 * chin * ~s.is_upper, 2.0 * s.lip(False, 9) + 1.2 * chin


# One-sided fields are of the left side; the right one mirrors it.
SIDED: dict[str, Callable[[Skin], Slide]] = {
    "browDown": _brow_down,
    "browOuterUp": _brow_outer_up,
    "cheekSquint": _cheek_squint,
    "noseSneer": _sneer,
    "mouthSmile": _smile,
    "mouthFrown": _frown,
    "mouthDimple": _dimple,
    "mouthStretch": _stretch,
    "mouthUpperUp": _upper_up,
    "mouthLowerDown": _lower_down,
    "mouthPress": _press,
}
CENTRAL: dict[str, Callable[[Skin], Slide]] = {
    "browInnerUp": _brow_inner_up,
    "cheekPuff": _puff,
    "mouthPucker": _pucker,
    "mouthFunnel": _funnel,
    "mouthRollUpper": _roll_upper,
    "mouthRollLower": _roll_lower,
    "mouthShrugUpper": _shrug_upper,
    "mouthShrugLower": _shrug_lower,
}
# Millimetres that the lid margins move at the middle of the eye (upper, lower), and the eyeball's turn in degrees
# (up, outwards).
LIDS: dict[str, tuple[float, float]] = {
    "eyeWide": (2.4, -0.9),
    "eyeSquint": (-1.7, 2.8),
    "eyeLookUp": (2.2, 0.8),
    "eyeLookDown": (-4.2, -1.2),
    "eyeLookIn": (-0.2, 0.1),
    "eyeLookOut": (-0.2, 0.1),
}
GAZE: dict[str, tuple[float, float]] = {
    "eyeLookUp": (25.0, 0.0),
    "eyeLookDown": (-27.0, 0.0),
    "eyeLookIn": (0.0, -28.0),
    "eyeLookOut": (0.0, 28.0),
}
# Where the lids meet: share of the opening above the lower margin.
_MEETING = 0.16

NAMES: tuple[str, ...] = (
    "browInnerUp",
    *(
        f"{stem}{side}"
        for stem in ("browDown", "browOuterUp", "eyeBlink", "eyeWide", "eyeSquint")
        for side in ("Left", "Right")
    ),
    *(f"eyeLook{way}{side}" for way in ("Up", "Down", "In", "Out") for side in ("Left", "Right")),
    "cheekPuff",
    *(f"{stem}{side}" for stem in ("cheekSquint", "noseSneer") for side in ("Left", "Right")),
    *(f"mouth{what}{side}" for what in ("Smile", "Frown", "Dimple", "Stretch") for side in ("Left", "Right")),
    *("mouthPucker", "mouthFunnel", "mouthLeft", "mouthRight"),
    *(f"mouth{what}{side}" for what in ("UpperUp", "LowerDown", "Press") for side in ("Left", "Right")),
    *("mouthRollUpper", "mouthRollLower", "mouthShrugUpper", "mouthShrugLower", "mouthClose"),
)


def lid_slide(p: Array, q: Array, upper: float | None, lower: float | None) -> Array:
    """dq of the left eye's lids whose margins move by (upper, lower) millimetres in the middle; None closes the eye."""
    t, high, low = chart.eye_line(p)
    open_by = high - low
    if upper is None or lower is None:
        to_upper, to_lower = -(1 - _MEETING) * open_by, _MEETING * open_by
    else:
        widest = 10.0
        to_upper, to_lower = upper * open_by / widest, lower * open_by / widest
    above = 1 - smoothstep(0, 1, (q - high) / (15.0 + 2 * t))
    below = 1 - smoothstep(0, 1, (low - q) / 14.0)
    middle = 0.5 * (high + low)
    return np.where(p > 0, np.where(q >= middle, to_upper * above, to_lower * below), 0.0)


def sideways(s: Skin) -> Slide:
    """mouthLeft: the whole mouth towards the subject's left."""
    return _sideways(s)
