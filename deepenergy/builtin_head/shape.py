"""The surface of the skin as a formula of the chart: cranium, jaw and neck as sections, features as bumps.

The surface comes in two layers: `smooth_skin`, on which lids, cheeks and lips can slide, and `carried_relief`, nose and
lips, which ride along. Millimetres; the origin is between the ears at the height of the pupils.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from deepenergy.builtin_head import chart
from deepenergy.builtin_head.identity import Identity

Array = NDArray[Any]

EYE_CENTRE = np.array([31.5, 0.0, 72.0])
EYE_RADIUS = 13.0
LID_RADIUS = 14.3
JAW_PIVOT = np.array([0.0, -16.0, 10.0])

_Q = np.linspace(0, 1, 6) * (chart.CROWN - 20) + 20
_COS = np.cos(chart.crown_angle(_Q))
_KNOTS = [-185, -150, -132, -121, -112, -104, -96, -84, -66, -44, -20, 0]
_FRONT = CubicSpline([*_KNOTS, *_Q], [45, 43, 50, 68, 86, 94.5, 96.5, 95, 98, 98, 95.5, 95, *(97 * _COS)])
_BACK = CubicSpline([*_KNOTS, *_Q], [66, 60, 60, 61, 62, 64, 67, 71, 77, 83, 88, 91.5, *(93 * _COS)])
_HEIGHT = CubicSpline(
    [*_KNOTS, *_Q],
    [
        -170,
        -137,
        -121.5,
        -115.5,
        -110.5,
        -103.7,
        -96,
        -84,
        -66,
        -44,
        -20,
        0,
        *(20 + 98 * np.sin(chart.crown_angle(_Q))),
    ],
)
# How far the rows climb from the front to the ear: the jaw's edge runs from the chin up to the ear lobe.
_CLIMB = PchipInterpolator(
    [-185, -150, -132, -121, -112, -104, -96, -84, -66, -44, -20, 0, 30],
    [28, 45, 60, 66, 66, 62, 58, 50, 38, 24, 9, 2, 0],
)
_SIDE_WIDTH = CubicSpline(
    [-185, -150, -132, -121, -112, -100, -84, -66, -44, -20, 0, 30], [0, 1, 4, 8, 11, 12, 11, 9, 5, 2, 0.5, 0]
)


def bump(x: Array, y: Array, at: tuple[float, float], size: tuple[float, float], turn: float = 0.0) -> Array:
    """A Gaussian hill of height 1, its axes turned by `turn` radians."""
    c, s = np.cos(turn), np.sin(turn)
    dx, dy = x - at[0], y - at[1]
    return np.exp(-0.5 * (((c * dx + s * dy) / size[0]) ** 2 + ((c * dy - s * dx) / size[1]) ** 2))


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between (either order)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def head_form(lon: Array, q: Array) -> Array:
    """`[..., 3]`, cranium, face plane, jaw and neck without features."""
    q = np.clip(q, chart.NECK, chart.CROWN)
    c, s = np.cos(lon), np.sin(lon)
    side = smoothstep(0, np.radians(115), np.abs(lon)) ** 1.6
    low = np.clip(q, -185, 30)
    x = (chart.front_width(q) + _SIDE_WIDTH(low) * side) * s
    y = _HEIGHT(q) + _CLIMB(low) * side
    z = np.where(c > 0, _FRONT(q), _BACK(q)) * c
    return np.stack([x, y, z], -1)


def _sliding_relief(x: Array, y: Array, who: Identity) -> Array:
    """What the skin slides over: brow ridge, orbits, cheek bones, jaw muscles, chin."""
    z = (3.0 + who.brow_ridge) * bump(x, y, (20, 16.5), (13, 5.0), 0.12) + 1.2 * bump(x, y, (38, 14), (10, 5), -0.5)
    z += 0.8 * bump(x, y, (0, 17), (8, 6)) - 1.0 * bump(x, y, (0, 33), (30, 6))
    z -= 9.0 * bump(x, y, (16.5, 2), (6.5, 8.5)) + 4.0 * bump(x, y, (30, 5), (14, 6.5))
    z -= 4.5 * bump(x, y, (25, -14), (12, 6)) + 7.0 * bump(x, y, (17, -27), (8, 13))
    z += (3.5 + who.cheekbone) * bump(x, y, (44, -22), (11, 8), -0.35) - 2.0 * bump(x, y, (60, 18), (8, 16))
    z += (1.0 + who.cheek_fullness) * bump(x, y, (36, -48), (14, 14)) - 1.0 * bump(x, y, (50, -62), (9, 14))
    # The fold from the nostril to the corner of the mouth, and the fullness beside the mouth.
    z -= 1.5 * bump(x, y, (24.5, -51), (3.2, 11), -0.42) - 0.8 * bump(x, y, (19, -56), (4, 7), -0.4)
    z -= 1.2 * bump(x, y, (30, -70), (4, 9), 0.3)
    z += 2.6 * bump(x, y, (0, -60), (17, 13))
    z -= 3.2 * bump(x, y, (0, -84.5), (17, 4.2)) - (2.6 + who.chin_forward) * bump(x, y, (8, -99), (11, 7.5))
    z -= 0.5 * bump(x, y, (0, -101), (2.5, 5))
    return z - who.forehead_slope * smoothstep(20, 90, y) - who.chin_forward * 0.2 * bump(x, y, (0, -110), (25, 8))


def _lids(x: Array, y: Array, face_z: Array, who: Identity) -> Array:
    """The face's depth with the lids drawn over the eyeball."""
    dx, dy = x - EYE_CENTRE[0], y - EYE_CENTRE[1]
    # Flatter than the eyeball across, so that the corners stay in front of it.
    stretch = np.where(dx < 0, 0.80, 0.86)
    r = np.hypot(stretch * dx, dy)
    edge = 0.86 * LID_RADIUS
    cap = np.sqrt(LID_RADIUS**2 - np.minimum(r, edge) ** 2) - np.maximum(r - edge, 0) * 1.15
    lid = EYE_CENTRE[2] + cap
    over = np.where(dy > 0, dy / 13.5, dy / 13.0)
    share = 1 - smoothstep(0.62, 1.25, np.hypot(dx / 21.0, over))
    z = face_z + share * (lid - face_z)
    t, upper, lower = chart.eye_line(x)
    window = smoothstep(0.02, 0.35, t) * (1 - 0.6 * smoothstep(0.75, 1.0, t))
    crease = upper + 4.6 + 1.0 * t
    z -= 1.3 * window * np.exp(-(((y - crease) / 1.25) ** 2)) - 0.9 * window * bump(x, y - crease, (33, 3.6), (12, 1.9))
    bag = lower - 6.5 + 1.5 * (1 - t)
    return z - 0.7 * smoothstep(0.0, 0.3, t) * (1 - smoothstep(0.6, 1, t)) * np.exp(-(((y - bag) / 1.6) ** 2))


def smooth_skin(lon: Array, q: Array, who: Identity) -> Array:
    """`[..., 3]` of chart points with longitude >= 0 (the left half; the right one mirrors it)."""
    points = head_form(lon, q)
    x = chart.front_width(q) * np.sin(lon)
    facing = smoothstep(0.05, 0.45, np.cos(lon)) * smoothstep(-125, -108, q)
    z = points[..., 2] + facing * _sliding_relief(x, q, who)
    points[..., 2] = np.where(np.abs(lon) < 1.4, _lids(x, q, z, who), z)
    return points


_NOSE_Q = [-54, -50, -47.5, -45, -42.5, -40, -37, -34, -30, -24, -15, -5, 3, 10, 20]
_NOSE_HEIGHT = PchipInterpolator(
    _NOSE_Q, [0, 0.6, 1.8, 5.0, 12.0, 18.0, 21.8, 22.4, 20.5, 16.5, 11.2, 6.2, 2.9, 1.2, 0]
)
_NOSE_WIDTH = PchipInterpolator(_NOSE_Q, [9, 9, 9, 9.2, 9.4, 9.2, 8.8, 8.2, 7.2, 6.6, 6.2, 5.6, 5.6, 8, 10])


def nose_relief(x: Array, y: Array, who: Identity) -> Array:
    """Depth of the nose: ridge, tip, wings, nostrils."""
    x = x / who.nose_width
    side = np.abs(x) / _NOSE_WIDTH(np.clip(y, -54, 20))
    ridge = (_NOSE_HEIGHT(np.clip(y, -54, 20)) + who.nose_hump * bump(x, y, (0, -14), (9, 7))) * np.exp(
        -0.62 * side**2.2
    )
    wing = 8.2 * np.exp(-((((x - 13.0) / 5.4) ** 2 + ((y + 38.6) / 6.2) ** 2) ** 1.6))
    crease = 1.6 * bump(x, y, (19.0, -37.5), (1.5, 5)) + 1.3 * bump(x, y, (11.0, -32.3), (4.0, 1.5), 0.9)
    nostril = 6.0 * bump(x, y, (6.6, -43.4), (3.1, 1.7), -0.25)
    return who.nose_height * (ridge + wing - crease - nostril)


def lip_relief(p: Array, offset: Array, is_upper: Array, who: Identity) -> Array:
    """Depth of the lips and of the groove above them; `offset` is the distance from the mouth's line."""
    t = np.clip(np.abs(p) / chart.MOUTH_X, 0, 1)
    taper = (1 - t**2.4) ** 0.7
    bow = bump(p, offset, (4.5, 9.5), (2.2, 4.5)) - 1.5 * bump(p, offset, (0, 13), (2.3, 5.5))

    def roll(full: float, peak: Array, border: Array) -> Array:
        inner = full * (1 - np.clip(1 - offset / peak, 0, 1) ** 2)
        beyond = np.clip((offset - peak) / np.maximum(border - peak, 1e-3), 0, None)
        return inner * np.exp(-0.55 * beyond**2)

    upper_border, lower_border = chart.upper_lip_height(p) + 0.8, chart.lower_lip_height(p) + 0.8
    upper = roll(4.9, 0.42 * upper_border, upper_border) * taper + 0.9 * bow
    lower = roll(4.9, 0.45 * lower_border, lower_border) * taper
    full = 0.5 + 0.5 * who.lip_fullness
    return (
        -2.6
        - 0.6 * t**4 * np.exp(-((offset / 6) ** 2))
        + np.where(is_upper, upper, lower) * full
        + 2.6 * smoothstep(2.0, 12.0, offset)
    )


def carried_relief(p: Array, q: Array, offset: Array, is_upper: Array, who: Identity) -> Array:
    """Depth that moves with the skin instead of being slid over."""
    near_mouth = (1 - smoothstep(25.0, 34.0, np.abs(p))) * (1 - smoothstep(12.0, 17.0, offset))
    return nose_relief(p, q, who) + near_mouth * lip_relief(p, offset, is_upper, who)


def reshape(points: Array, who: Identity) -> Array:
    """Move points `[..., 3]` of the common head to this person's proportions; smooth, and mirrored in x."""
    x, y, z = points[..., 0].copy(), points[..., 1].copy(), points[..., 2].copy()
    ax, sign = np.abs(x), np.sign(x)
    front = smoothstep(10, 60, z)
    below = smoothstep(-10, -75, y) * smoothstep(-150, -112, y)
    # Around each eye the shift is rigid, so that lids and eyeball stay together.
    reach = np.hypot((ax - 31.5) / 1.15, y)
    eyes = (1 - smoothstep(17, 34, reach)) * front
    out = who.eye_shift * eyes + who.jaw_width * below * smoothstep(0, 45, ax)
    out += who.face_width * np.exp(-(((y + 22) / 30) ** 2)) * smoothstep(42, 62, ax)
    near_mouth = np.exp(-((ax / 32) ** 4)) * np.exp(-(((y + 66) / 16) ** 4)) * front
    out += (who.mouth_width - 1) * ax * near_mouth
    up = who.mouth_shift * np.exp(-(((y + 66) / 20) ** 2)) * front * (1 - smoothstep(30, 55, ax))
    up += who.nose_shift * np.exp(-(((y + 38) / 13) ** 2)) * np.exp(-((ax / 24) ** 2)) * front
    up -= who.chin_shift * smoothstep(-76, -100, y)
    up += who.eye_tilt * (ax - 31.5) / 14 * eyes * np.exp(-((y / 9) ** 2))
    up += who.brow_height * np.exp(-(((y - 21) / 9) ** 2)) * front
    lips = (who.lip_fullness - 1) * 7.0 * near_mouth * np.exp(-((ax / 22) ** 2))
    up += lips * np.tanh((y + 66.5) / 6.0) * np.exp(-(((y + 66.5) / 13) ** 2)) * smoothstep(92, 99, z)
    scale = np.asarray(who.head_scale)
    return np.stack([sign * (ax + out), y + up, z], -1) * scale
