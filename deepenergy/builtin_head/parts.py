"""What is not skin: eyeballs, lid rims, teeth, the mouth's inside, tongue, ears. Millimetres."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepenergy.builtin_head import shape

Array = NDArray[Any]
Indices = NDArray[np.int64]

TEETH_FRONT = 90.5
_ARCH_HALF_WIDTH = 26.0
_ARCH_DEPTH = 27.0


@dataclass(frozen=True)
class Part:
    """A piece of surface.

    Attributes:
        points: `[N, 3]` millimetres.
        faces: `[F, 3]` into `points`, counter-clockwise from outside.
        uv: `[N, 2]` the part's own coordinates, in [0, 1].
    """

    points: Array
    faces: Indices
    uv: Array


def grid_faces(rows: int, columns: int, closed: bool = False) -> Indices:
    """Triangles of a grid of points numbered row by row; `closed` joins the last column to the first."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a, b = (i * columns + j).ravel(), (i * columns + (j + 1) % columns).ravel()
    return np.concatenate([np.stack([a, a + columns, b], -1), np.stack([b, a + columns, b + columns], -1)])


def mirrored(part: Part) -> Part:
    """The part on the other side."""
    return Part(part.points * [-1, 1, 1], part.faces[:, ::-1], part.uv)


# Angles from the gaze in degrees: pupil, iris and white meet at doubled rings, so that their edges are sharp.
PUPIL_ANGLE, IRIS_ANGLE = 9.3, 27.2
_EYE_ANGLES = np.array([3.0, 9.2, 9.4, 14, 20, 25.5, 27.0, 28.2, 33, 40, 50, 62, 76, 92, 110, 130, 150])


@functools.cache
def eyeball() -> Part:
    """The left eyeball; uv is (azimuth, angle from the gaze / 180 degrees)."""
    columns = 28
    polar, azimuth = np.meshgrid(np.radians(_EYE_ANGLES), 2 * np.pi * np.arange(columns) / columns, indexing="ij")
    ball = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1).reshape(
        -1, 3
    )
    rings = len(_EYE_ANGLES)
    ball = np.concatenate([ball, [[0, 0, 1], [0, 0, -1]]])
    front, back = len(ball) - 2, len(ball) - 1
    j = np.arange(columns)
    k = (j + 1) % columns
    last = (rings - 1) * columns
    fans = [np.stack([np.full(columns, front), j, k], -1), np.stack([np.full(columns, back), last + k, last + j], -1)]
    faces = np.concatenate([grid_faces(rings, columns, closed=True), *fans])
    uv = np.stack([np.arctan2(ball[:, 1], ball[:, 0]) / (2 * np.pi) % 1, np.arccos(ball[:, 2].clip(-1, 1)) / np.pi], -1)
    return Part(shape.EYE_CENTRE + shape.EYE_RADIUS * ball, faces, uv)


def lid_rim(margin: Array) -> tuple[Array, Array]:
    """Two rings behind a lid margin `[N, 3]` of the left eye: the lid's edge, and its end inside the eyeball."""
    out = margin - shape.EYE_CENTRE
    distance = np.linalg.norm(out, axis=1, keepdims=True)
    edge = shape.EYE_CENTRE + out / distance * np.maximum(distance - 0.9, shape.EYE_RADIUS + 0.15)
    return edge, shape.EYE_CENTRE + out / distance * (shape.EYE_RADIUS - 1.2)


@dataclass(frozen=True)
class TeethRow:
    """A row of teeth with its gum.

    Attributes:
        part: the surface; uv is (along the arch, from the gum over the edge to the back).
        is_gum: `[N]` share of gum in the colour.
        shade: `[N]` factor of the albedo: dark between the teeth and towards the back.
    """

    part: Part
    is_gum: Array
    shade: Array


def arch_depth(x: Array, front: float) -> Array:
    """Depth of the dental arch at lateral coordinate x."""
    return front - _ARCH_DEPTH * (x / _ARCH_HALF_WIDTH) ** 2


# Widths of the teeth of one side, from the middle: incisors, canine, premolars, molars.
_UPPER_WIDTHS = np.array([8.6, 6.6, 7.6, 7.0, 6.8, 9.5])
_LOWER_WIDTHS = np.array([5.6, 6.0, 6.9, 7.0, 7.2, 10.0])


@functools.cache
def teeth(upper: bool) -> TeethRow:
    """The upper or the lower row."""
    widths = _UPPER_WIDTHS if upper else _LOWER_WIDTHS
    front = TEETH_FRONT if upper else TEETH_FRONT - 2.2
    x = np.linspace(0, _ARCH_HALF_WIDTH * (1 if upper else 0.94), 2000)
    z = arch_depth(x, front)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    edges = np.minimum(np.concatenate([[0], np.cumsum(widths)]), length[-1])
    within = np.array([0.0, 0.12, 0.5, 0.88])
    marks = np.concatenate([edges[i] + within * (edges[i + 1] - edges[i]) for i in range(len(widths))])
    inside = np.tile(within, len(widths))
    which = np.repeat(np.arange(len(widths)), 4)
    marks, inside, which = (np.concatenate([a[:0:-1] * s, a]) for a, s in ((marks, -1), (inside, 1), (which, 1)))
    cx = np.sign(marks) * np.interp(np.abs(marks), length, x)
    cz = arch_depth(cx, front)
    normal = np.stack([2 * _ARCH_DEPTH * cx / _ARCH_HALF_WIDTH**2, np.ones_like(cx)], -1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    belly = np.sin(np.pi * inside) ** 0.5
    # From the gum's top over the gum line, the crown and the biting edge to the back.
    crown = np.where(which == 2, 10.0, np.where(which == 0, 9.6, 8.8)) * (1 if upper else 0.86)
    edge = (0.3 - 0.7 * (which == 1) * upper - 0.2 * (1 - belly)) * np.ones_like(cx)
    rows_height = [
        crown + 8,
        crown + 1.5,
        crown - 1.2 * belly,
        0.55 * crown,
        0.6 + 0 * crown,
        edge - 0.3,
        0.5 + 0 * cx,
        crown,
    ]
    rows_out = [-1.0, 0.3, 0.3, 1.2 * belly, 0.5 * belly, -0.5, -2.0, -5.0]
    direction, middle = (1, -67.6) if upper else (-1, -68.4)
    rows = []
    for rise, out in zip(rows_height, rows_out, strict=True):
        offset = np.broadcast_to(out, cx.shape)
        rows.append(np.stack([cx + normal[:, 0] * offset, middle + direction * rise, cz + normal[:, 1] * offset], -1))
    points = np.stack(rows)
    faces = grid_faces(len(rows), len(cx))
    if not upper:
        faces = faces[:, ::-1]
    gum = np.array([1, 1, 0.55, 0, 0, 0, 0, 0.6])[:, None] * np.ones(len(cx))
    gum[2] = 1 - belly
    back = np.clip(1 - (front - points[..., 2]) / 34, 0.25, 1)
    gaps = np.ones((len(rows), len(cx)))
    gaps[2:6] = 0.55 + 0.45 * belly
    along = np.linspace(0, 1, len(cx))
    uv = np.stack(np.broadcast_arrays(along, np.linspace(0, 1, len(rows))[:, None]), -1)
    return TeethRow(Part(points.reshape(-1, 3), faces, uv.reshape(-1, 2)), gum.ravel(), (back * gaps).ravel())


def mouth_bag(margin: Array, upper: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Rings of the mouth's inside behind the lips' margin `[N, 3]` (a loop), and the end point.

    Args:
        margin: the loop, from the right corner over the upper lip and back along the lower one.
        upper: which of it belongs to the upper lip.

    Returns:
        `[rings, N, 3]`, and `[3]`.
    """
    x, y = margin[:, 0], margin[:, 1]
    t = np.clip(np.abs(x) / 25.0, 0, 1)
    open_by = np.sqrt(1 - np.minimum(t, 1) ** 2)
    sign = np.where(upper, 1.0, -1.0) * open_by
    in_front_of_teeth = arch_depth(np.abs(x), TEETH_FRONT + 2.6)
    rings = [
        np.stack([x * 0.995, y + 0.5 * sign, margin[:, 2] - 1.8], -1),
        np.stack([x, y + 3.5 * sign, np.maximum(margin[:, 2] - 3.2, in_front_of_teeth)], -1),
        np.stack([x * 1.06, y + 11 * sign, np.maximum(margin[:, 2] - 6.0, in_front_of_teeth)], -1),
        np.stack([x * 1.18, -67 + 17 * sign, 0.5 * margin[:, 2] + 34], -1),
        np.stack([x * 1.12, -66 + 14 * sign, np.full_like(x, 58.0)], -1),
        np.stack([x * 0.7, -66 + 8 * sign, np.full_like(x, 44.0)], -1),
    ]
    return np.stack(rings), np.array([0.0, -66.0, 38.0])


@functools.cache
def tongue() -> Part:
    """A dome behind the lower teeth; uv is (across, along)."""
    rows, columns = 9, 11
    v, u = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(0, np.pi, columns), indexing="ij")
    radius = np.sqrt(np.clip(1 - v**4, 0, 1))
    groove = 1.2 * np.exp(-((np.cos(u) / 0.15) ** 2)) * (1 - v**2)
    points = np.stack(
        [-17 * radius * np.cos(u), -80 + 9.5 * radius * np.sin(u) - groove + 1.5 * (1 - v), 66 + 19.5 * v], -1
    )
    uv = np.stack([u / np.pi, 0.5 + 0.5 * v], -1)
    return Part(points.reshape(-1, 3), grid_faces(rows, columns)[:, ::-1], uv.reshape(-1, 2))


EAR_COLUMNS = 32
_EAR_RINGS = np.array([0.12, 0.3, 0.44, 0.56, 0.66, 0.76, 0.85, 0.92, 0.98, 1.0, 0.97, 0.86, 0.66, 0.4])
_EAR_BEHIND = 10


@functools.cache
def ear() -> Part:
    """The left ear, a shell that ends inside the head; uv is polar, with the rim at radius 0.5 of its square."""
    angle = 2 * np.pi * np.arange(EAR_COLUMNS) / EAR_COLUMNS
    # 0 points to the back of the head, pi/2 up. Wide and round on top, narrow at the lobe.
    narrow = 1 - 0.32 * shape.smoothstep(0.1, -1.0, np.sin(angle))
    across = np.cos(angle) * np.where(np.cos(angle) > 0, 17.5, 14.0) * narrow
    along = np.sin(angle) * np.where(np.sin(angle) > 0, 30.0, 33.0)
    front = shape.smoothstep(-0.25, -0.85, np.cos(angle))
    lobe = shape.smoothstep(-0.55, -0.9, np.sin(angle))
    rim = (1 - front) * (1 - lobe)
    rows = []
    for i, r in enumerate(_EAR_RINGS):
        behind = i >= _EAR_BEHIND
        shift = (1 - r) * np.array([-2.5, -3.0])
        u, v = across * r + shift[0], along * r + shift[1]
        if behind:
            rise = rim * 2.0 - 3.2 - 6.5 * (1 - r) * 2.2 + lobe * 0.8
        else:
            bowl = -7.0 * (1 - shape.smoothstep(0.28, 0.52, np.full_like(angle, r)))
            fold = 2.6 * np.exp(-(((r - 0.64) / 0.11) ** 2)) * rim
            dip = -1.8 * np.exp(-(((r - 0.83) / 0.07) ** 2)) * rim
            helix = 3.4 * np.exp(-(((r - 0.965) / 0.06) ** 2)) * rim
            tragus = 3.5 * np.exp(-(((r - 0.62) / 0.16) ** 2)) * np.exp(-(((angle - 3.35) / 0.33) ** 2))
            rise = bowl + fold + dip + helix + tragus - 1.5 * front * r + 1.0 * lobe
        rows.append(np.stack([u, v, np.broadcast_to(rise, u.shape)], -1))
    local = np.concatenate([np.stack(rows).reshape(-1, 3), [[-2.2, -2.6, -7.4]]])
    flare, lean = np.radians(24), np.radians(10)
    u = np.cos(lean) * local[:, 0] + np.sin(lean) * local[:, 1]
    v = np.cos(lean) * local[:, 1] - np.sin(lean) * local[:, 0]
    back, out = np.array([np.sin(flare), 0, -np.cos(flare)]), np.array([np.cos(flare), 0, np.sin(flare)])
    points = np.array([78.5, -10.0, -9.0]) + u[:, None] * back + v[:, None] * [0, 1, 0] + local[:, 2:] * out
    j = np.arange(EAR_COLUMNS)
    centre = len(local) - 1
    fan = np.stack([np.full(EAR_COLUMNS, centre), (j + 1) % EAR_COLUMNS, j], -1)
    faces = np.concatenate([grid_faces(len(_EAR_RINGS), EAR_COLUMNS, closed=True)[:, ::-1], fan])
    reach = np.append(np.where(np.arange(len(_EAR_RINGS)) < _EAR_BEHIND, _EAR_RINGS * 0.35, 0.85 - 0.5 * _EAR_RINGS), 0)
    turn = np.append(np.tile(angle, len(_EAR_RINGS)), 0)
    reach = np.append(np.repeat(reach[:-1], EAR_COLUMNS), 0)
    uv = np.stack([0.5 + reach * np.cos(turn), 0.5 + reach * np.sin(turn)], -1)
    return Part(points, faces, uv)
