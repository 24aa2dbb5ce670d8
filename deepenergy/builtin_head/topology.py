"""The triangulation of the skin, made once: rings around eyes and mouth, evenly spread points elsewhere.

Points are spread by their distance on the average head, put on the chart's sphere, and triangulated by its convex hull
(a Delaunay triangulation of the sphere). The right half mirrors the left one exactly.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, KDTree

from deepenergy.builtin_head import chart, shape
from deepenergy.builtin_head.identity import Identity

Array = NDArray[Any]
Indices = NDArray[np.int64]

EYE_COUNT = 36
MOUTH_COUNT = 13
_EYE_SPREADS = (0.0, 0.07, 0.16, 0.28, 0.44, 0.62, 0.82)
# Shares of the vermilion's height; the border itself is the fifth ring.
_LIP_SHARES = (0.0, 0.14, 0.36, 0.66, 1.0)
LIP_BORDER = 4
_LIP_BEYOND = (2.2, 5.0)


@dataclass(frozen=True)
class Topology:
    """The skin's chart points and triangles.

    Attributes:
        lon, q: `[N]` chart coordinates; negative longitudes are the right half.
        is_upper: `[N]` above the mouth's line.
        offset: `[N]` millimetres from the mouth's line on the closed face.
        faces: `[F, 3]`, counter-clockwise from outside, openings left out.
        mirror: `[N]` the vertex on the other side (itself on the midline).
        eye_rings: per side (left, right), `[rings, 36]` from the inner corner over the upper lid.
        lip_rings: `[rings, 4 * 12]` from the right corner over the upper lip to the left corner and back.
    """

    lon: Array
    q: Array
    is_upper: NDArray[np.bool_]
    offset: Array
    faces: Indices
    mirror: Indices
    eye_rings: tuple[Indices, Indices]
    lip_rings: Indices


def _spacing(points: Array, lon: Array, q: Array) -> Array:
    """Wanted distance of neighbours, millimetres, of points of the left half."""
    x = points[..., 0]
    fine = 2.1 + 0.05 * np.maximum(np.hypot((x - 8) / 1.1, (q + 40) / 1.2) - 13, 0)
    eyes = 2.4 + 0.07 * np.maximum(np.hypot(x - 31, q - 5) - 20, 0)
    face = 5.5 + 5.0 * shape.smoothstep(0.9, 1.7, lon) + 3.0 * shape.smoothstep(60, 85, q)
    jaw = shape.smoothstep(-150, -118, q)
    detail = np.where(lon < 1.4, np.minimum(fine, eyes), 12.0)
    return np.minimum(np.minimum(detail, face), 12) * jaw + (1 - jaw) * 10.0


def _offset_of(lon: Array, q: Array) -> tuple[Array, NDArray[np.bool_], Array]:
    """Offset from the mouth's line, side of it, and q on the closed face, of chart points."""
    p = chart.front_width(q) * np.sin(lon)
    line = chart.mouth_line(p)
    is_upper = q >= line
    offset = chart.face_offset(np.abs(q - line), p)
    front = np.abs(lon) < 1.4
    closed = np.where(front, line + np.where(is_upper, offset, -offset), q)
    return np.where(front, offset, 200.0), is_upper, closed


def skin_points(lon: Array, q: Array, who: Identity) -> Array:
    """`[N, 3]` millimetres of chart points of either half."""
    offset, is_upper, closed = _offset_of(np.abs(lon), q)
    points = shape.smooth_skin(np.abs(lon), closed, who)
    p = chart.front_width(closed) * np.sin(np.abs(lon))
    front = np.cos(lon) > 0.2
    points[..., 2] += np.where(front, shape.carried_relief(p, closed, offset, is_upper, who), 0)
    points[..., 0] *= np.where(lon < 0, -1, 1)
    return points


def _lip_quarter(index: int, upper: bool) -> Array:
    """`[MOUTH_COUNT, 2]` (p, q) in the chart, of one ring, from the middle to the left corner."""
    tau = np.sin(np.pi / 2 * np.linspace(0, 1, MOUTH_COUNT) ** 0.93)
    share = _LIP_SHARES[index] if index < len(_LIP_SHARES) else 1.0
    beyond = _LIP_BEYOND[index - len(_LIP_SHARES)] if index >= len(_LIP_SHARES) else 0.0
    p = tau * (chart.MOUTH_X + 2.6 * share + 1.1 * beyond)
    border = chart.upper_lip_height(p) if upper else chart.lower_lip_height(p)
    round_off = np.sqrt(np.clip(1 - tau**2, 0, 1))
    offset = share * np.maximum(border, 0) * np.where(tau < 1, 1, 0) + beyond * round_off
    delta = chart.chart_offset(offset, p)
    delta[-1] = 0.0
    return np.stack([p, chart.mouth_line(p) + (delta if upper else -delta)], -1)


def _fixed_points() -> tuple[Array, list[NDArray[np.int64]], Indices]:
    """Ring points of the left half as (lon, q); indices of the eye rings; of the lip quarters [ring, side, n]."""
    points: list[Array] = []
    eye_rings = []
    for spread in _EYE_SPREADS:
        eye_rings.append(np.arange(EYE_COUNT) + sum(len(p) for p in points))
        points.append(chart.eye_ring(spread, EYE_COUNT))
    rings = len(_LIP_SHARES) + len(_LIP_BEYOND)
    quarters = np.zeros((rings, 2, MOUTH_COUNT), np.int64)
    for ring in range(rings):
        start = sum(len(p) for p in points)
        quarters[ring, 0] = start + np.arange(MOUTH_COUNT)
        quarters[ring, 1, :-1] = start + MOUTH_COUNT + np.arange(MOUTH_COUNT - 1)
        quarters[ring, 1, -1] = quarters[ring, 0, -1]
        points += [_lip_quarter(ring, True), _lip_quarter(ring, False)[:-1]]
    flat = np.concatenate(points)
    return np.stack([chart.longitude(flat[:, 0], flat[:, 1]), flat[:, 1]], -1), eye_rings, quarters


def _midline() -> Array:
    """Points of the plane of symmetry, front and back, as (lon, q)."""
    person = Identity()
    found = []
    for lon in (0.0, np.pi):
        q = np.linspace(chart.NECK, chart.CROWN, 4000)
        path = skin_points(np.full_like(q, lon), q, person)
        step = np.linalg.norm(np.diff(path, axis=0), axis=1)
        density = step / 0.72 / _spacing(path, np.full_like(q, lon), q)[1:]
        along = np.concatenate([[0], np.cumsum(density)])
        count = round(along[-1])
        marks = np.interp(np.linspace(0, along[-1], count + 1), along, q)
        if lon == 0:
            # The mouth's rings have their own points on the midline, and its opening has none.
            top = _lip_quarter(len(_LIP_SHARES) + len(_LIP_BEYOND) - 1, True)[0, 1]
            bottom = _lip_quarter(len(_LIP_SHARES) + len(_LIP_BEYOND) - 1, False)[0, 1]
            marks = marks[(marks > top + 1.2) | (marks < bottom - 1.2)]
        else:
            marks = marks[:-1]
        found.append(np.stack([np.full_like(marks, lon), marks], -1))
    return np.concatenate(found)


def _spread_points(fixed: Array) -> Array:
    """Points of the open left half, spaced as wanted and away from the fixed ones, as (lon, q)."""
    count = 26000
    n = np.arange(1, count + 1)
    # Roberts' R2 sequence: even, and the same everywhere.
    u, v = (0.5 + n * 0.7548776662466927) % 1, (0.5 + n * 0.5698402909980532) % 1
    on_face = n % 4 != 0
    face_q = -128 + 200 * v
    face_lon = chart.longitude(72 * u * np.minimum(1, chart.front_width(face_q) / 75), face_q)
    lon = np.where(on_face, face_lon, np.pi * u)
    q = np.where(on_face, face_q, chart.height(np.arcsin(np.sin(chart.latitude(np.array(chart.NECK))) * (1 - v) + v)))
    candidates = np.stack([lon, q], -1)
    person = Identity()
    points = skin_points(lon, q, person)
    radius = 0.86 * _spacing(points, lon, q)
    inside_eye = _inside_eye(lon, q, 0.84)
    p = chart.front_width(q) * np.sin(lon)
    line = chart.mouth_line(p)
    lips = np.hypot(p / (chart.MOUTH_X + 9), (q - line) / np.where(q > line, 15.5, 17.0)) < 1
    lips &= np.abs(lon) < 1.2
    free = ~inside_eye & ~lips & (points[:, 0] > 0.7 * radius) & (q > chart.NECK + 4)
    tree = KDTree(points)
    held = skin_points(fixed[:, 0], fixed[:, 1], person)
    for near in tree.query_ball_point(held, 0.75 * _spacing(held, fixed[:, 0], fixed[:, 1])):
        free[near] = False
    chosen = []
    for i in range(count):
        if free[i]:
            chosen.append(i)
            free[tree.query_ball_point(points[i], radius[i])] = False
    return candidates[chosen]


def _inside_eye(lon: Array, q: Array, spread: float) -> NDArray[np.bool_]:
    p = chart.front_width(q) * np.sin(lon)
    ring = chart.eye_ring(spread, 72)
    # The ring is star-shaped about the middle of the eye.
    ring_angle = np.arctan2(ring[:, 1] - 0.5, ring[:, 0] - 32.0)
    ring_radius = np.hypot(ring[:, 1] - 0.5, ring[:, 0] - 32.0)
    angle, radius = np.arctan2(q - 0.5, p - 32.0), np.hypot(q - 0.5, p - 32.0)
    inside = radius < np.interp(angle, *_sorted(ring_angle, ring_radius), period=2 * np.pi)
    return inside & (np.abs(lon) < 1.4)


def _sorted(x: Array, y: Array) -> tuple[Array, Array]:
    order = np.argsort(x)
    return x[order], y[order]


def _hull(sphere: Array) -> Indices:
    """Triangles of points on the unit sphere, counter-clockwise from outside."""
    faces = ConvexHull(sphere).simplices.astype(np.int64)
    a, b, c = (sphere[faces[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a + b + c) < 0
    faces[inward] = faces[inward][:, ::-1]
    return faces


def _both_halves(left: Array, free_from: int) -> tuple[Array, Indices]:
    """The left half with its mirror image, and who mirrors whom."""
    middle = (np.abs(left[:, 0]) < 1e-9) | (np.abs(left[:, 0] - np.pi) < 1e-9) | (left[:, 1] > chart.CROWN - 1e-6)
    right = np.nonzero(~middle)[0]
    points = np.concatenate([left, left[right] * [-1, 1]])
    mirror = np.arange(len(points))
    mirror[right] = len(left) + np.arange(len(right))
    mirror[len(left) :] = right
    return points, mirror


@functools.cache
def topology() -> Topology:
    """Build (once) the skin's chart points and triangles."""
    rings, eye_rings, quarters = _fixed_points()
    fixed = np.concatenate([rings, _midline(), _neck_ring()])
    left = np.concatenate([fixed, _spread_points(fixed)])
    points, mirror = _both_halves(left, len(fixed))
    for _ in range(3):
        points = _relax(points, mirror, len(left), len(fixed))
    sphere = chart.to_sphere(points[:, 0], points[:, 1])
    faces = _hull(sphere)
    inner = faces[sphere[faces][:, :, 0].sum(1) > 0]
    inner = inner[~_in_opening(inner, eye_rings[0], quarters, points)]
    faces = np.concatenate([inner, mirror[inner][:, ::-1]])
    offset, is_upper, closed = _offset_of(np.abs(points[:, 0]), points[:, 1])
    left_rings = np.stack(eye_rings)
    upper, lower = quarters[:, 0], quarters[:, 1]
    lip_rings = np.concatenate(
        [mirror[upper][:, :0:-1], upper, lower[:, -2:0:-1], lower[:, :1], mirror[lower][:, 1:-1]], 1
    )
    return Topology(points[:, 0], closed, is_upper, offset, faces, mirror, (left_rings, mirror[left_rings]), lip_rings)


def _neck_ring() -> Array:
    lon = np.linspace(0, np.pi, 25)[1:-1]
    return np.stack([lon, np.full_like(lon, chart.NECK)], -1)


def _relax(points: Array, mirror: Indices, left: int, fixed: int) -> Array:
    """Move the free points half-way to the middle of their neighbours."""
    sphere = chart.to_sphere(points[:, 0], points[:, 1])
    faces = _hull(sphere)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    total = np.zeros_like(sphere)
    np.add.at(total, edges[:, 0], sphere[edges[:, 1]])
    count = np.bincount(edges[:, 0], minlength=len(points))[:, None]
    moved = 0.5 * sphere + 0.5 * total / count
    # None may come so near the midline that an edge to its mirror image crosses it.
    moved[:, 0] = np.where(
        sphere[:, 0] > 0, np.maximum(moved[:, 0], sphere[:, 0]), np.minimum(moved[:, 0], sphere[:, 0])
    )
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    lon, q = chart.from_sphere(moved)
    free = np.arange(fixed, left)
    out = points.copy()
    out[free] = np.stack([lon[free], q[free]], -1)
    out[mirror[free]] = out[free] * [-1, 1]
    return out


def _in_opening(faces: Indices, eye_margin: Indices, quarters: Indices, points: Array) -> NDArray[np.bool_]:
    """Triangles that span an eye, the mouth or the neck's end."""
    eye = np.isin(faces, eye_margin).all(1)
    mouth = np.isin(faces, quarters[0]).all(1)
    neck = (points[faces][..., 1] <= chart.NECK + 1e-6).all(1)
    return np.asarray(eye | mouth | neck)
