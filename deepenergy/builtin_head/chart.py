"""The chart of the skin: longitude and a height coordinate `q`, and the openings of eyes and mouth in it.

Millimetres throughout. `p` is the lateral coordinate (x at the front), `q` the vertical one (y at the front: 0 at the
pupils, -66 at the mouth, -111 under the chin, 130.4 at the crown). Longitude 0 looks forward, pi is the back.
On the unit sphere of longitude and latitude the chart has no seam, so that the triangulation needs none either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[Any]

CROWN, NECK = 130.4, -185.0
_LATITUDE_SCALE = CROWN / (np.pi / 2)
_SOUTH = -60.0
_SOUTH_SCALE = 62.0

# Half-width of the section seen from the front, by q. One spline from neck to crown.
_ALPHA = np.linspace(0, 1, 6)


def crown_angle(q: Array) -> Array:
    """Angle along the cranium's ellipse for q >= 20, where it leaves the vertical with slope 1."""
    t = np.clip((q - 20.0) / (CROWN - 20.0), 0, 1)
    slope = (CROWN - 20.0) / 98.0
    return slope * t + (np.pi / 2 - slope) * t**3


_CROWN_Q = 20.0 + (CROWN - 20.0) * _ALPHA
_FRONT_WIDTH = CubicSpline(
    [-185, -150, -130, -119, -111, -100, -84, -66, -44, -20, 0, *_CROWN_Q],
    [62, 55, 52, 50, 49.5, 51, 54.5, 59.5, 65.5, 70, 73, *(75.5 * np.cos(crown_angle(_CROWN_Q)) ** 0.93)],
)


def front_width(q: Array) -> Array:
    """Half-width of the head's section at q, as the front sees it."""
    return np.maximum(_FRONT_WIDTH(np.clip(q, NECK, CROWN)), 1e-6)


def longitude(p: Array, q: Array) -> Array:
    """Longitude of the front point with lateral coordinate p."""
    return np.arcsin(np.clip(p / front_width(q), -1, 1))


def latitude(q: Array) -> Array:
    """Latitude on the chart's sphere; angle-preserving along the neck."""
    north = q / _LATITUDE_SCALE
    south_start = np.arcsinh(np.tan(_SOUTH / _LATITUDE_SCALE))
    south = np.arctan(np.sinh(south_start + (q - _SOUTH) / _SOUTH_SCALE))
    return np.where(q >= _SOUTH, north, south)


def height(lat: Array) -> Array:
    """The inverse of `latitude`."""
    north = lat * _LATITUDE_SCALE
    south_start = np.arcsinh(np.tan(_SOUTH / _LATITUDE_SCALE))
    lat_south = np.minimum(lat, _SOUTH / _LATITUDE_SCALE)
    south = _SOUTH + _SOUTH_SCALE * (np.arcsinh(np.tan(lat_south)) - south_start)
    return np.where(north >= _SOUTH, north, south)


def to_sphere(lon: Array, q: Array) -> Array:
    """Unit vectors (x, y, z) of chart points."""
    lat = latitude(q)
    return np.stack([np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)], -1)


def from_sphere(points: Array) -> tuple[Array, Array]:
    """Longitude and q of unit vectors."""
    return np.arctan2(points[..., 0], points[..., 2]), height(np.arcsin(np.clip(points[..., 1], -1, 1)))


# -- eyes ------------------------------------------------------------------------------------------------------

EYE_INNER, EYE_OUTER = (17.6, -1.6), (45.2, 1.1)


def eye_line(x: Array) -> tuple[Array, Array, Array]:
    """Share along the eye from the inner (0) to the outer corner (1), and the heights of upper and lower lid margin."""
    t = np.clip((x - EYE_INNER[0]) / (EYE_OUTER[0] - EYE_INNER[0]), 0, 1)
    axis = EYE_INNER[1] + (EYE_OUTER[1] - EYE_INNER[1]) * t
    # The upper lid peaks a little towards the nose, the lower one towards the temple.
    upper = axis + 6.0 * np.sin(np.pi * t**0.88) ** 0.85
    lower = axis - 5.0 * np.sin(np.pi * t**1.12) ** 0.85
    return t, upper, lower


def eye_ring(spread: float, count: int = 36) -> Array:
    """`[count, 2]` (p, q) around the left eye from the inner corner over the upper lid; spread 0 is the lid margin.

    At spread 1 the ring is an ellipse that reaches the orbit's rim.
    """
    angle = np.pi - 2 * np.pi * np.arange(count) / count
    t = 0.5 + 0.5 * np.cos(angle)
    x = EYE_INNER[0] + (EYE_OUTER[0] - EYE_INNER[0]) * t
    _, upper, lower = eye_line(x)
    margin = np.stack([x, np.where(np.sin(angle) >= -1e-12, upper, lower)], -1)
    orbit = np.stack([32.0 + 22.0 * np.cos(angle), 0.5 + 15.0 * np.sin(angle)], -1)
    return margin + spread * (orbit - margin)


# -- mouth -----------------------------------------------------------------------------------------------------

MOUTH_X = 25.0
_MOUTH_CUT = 2.6
_CUT_REACH = 6.5


def mouth_line(p: Array) -> Array:
    """Height q of the closed mouth's line at lateral coordinate p."""
    t = np.clip(np.abs(p) / MOUTH_X, 0, 1.6)
    return -66.0 - 1.2 * np.exp(-((p / 5.0) ** 2)) + 0.8 * np.exp(-(((np.abs(p) - 9.0) / 6.0) ** 2)) - 0.9 * t**2


def mouth_cut(p: Array) -> Array:
    """Half the height of the mouth's opening in the chart; on the face it is closed."""
    return _MOUTH_CUT * np.clip(1 - (p / MOUTH_X) ** 2, 0, None)


def chart_offset(offset: Array, p: Array) -> Array:
    """Chart height above the mouth line of a point that is `offset` (>= 0) above the closed line on the face."""
    return offset + mouth_cut(p) * np.exp(-offset / _CUT_REACH)


def face_offset(chart: Array, p: Array) -> Array:
    """The inverse of `chart_offset` (Newton)."""
    cut = mouth_cut(p)
    offset = np.maximum(chart - cut, 0)
    for _ in range(6):
        decay = cut * np.exp(-offset / _CUT_REACH)
        offset = np.maximum(offset - (offset + decay - chart) / (1 - decay / _CUT_REACH), 0)
    return offset


def upper_lip_height(p: Array) -> Array:
    """Height of the upper vermilion: Cupid's bow in the middle, none at the corners."""
    t = np.clip(np.abs(p) / (MOUTH_X + 2.7), 0, 1)
    bow = -1.3 * np.exp(-((p / 3.0) ** 2)) + 0.7 * np.exp(-(((np.abs(p) - 5.5) / 3.5) ** 2))
    return 7.6 * (1 - t**1.6) ** 0.9 + bow


def lower_lip_height(p: Array) -> Array:
    """Height of the lower vermilion."""
    t = np.clip(np.abs(p) / (MOUTH_X + 2.7), 0, 1)
    return 9.2 * (1 - t**2.2) ** 0.8
