"""The 68 landmarks of the built-in head, in iBUG order, on its triangles."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepenergy.builtin_head import chart
from deepenergy.builtin_head.layout import layout
from deepenergy.builtin_head.topology import EYE_COUNT, LIP_BORDER, MOUTH_COUNT

Array = NDArray[Any]

# (longitude in degrees, q) of the left jaw line from the ear to the chin; (p, q) of the left brow from the inner end.
_JAW = [
    (79.0, -4.0),
    (80.0, -34.0),
    (80.0, -64.0),
    (76.5, -88.0),
    (67.0, -104.0),
    (54.0, -109.0),
    (39.0, -110.5),
    (21.0, -111.5),
]
_CHIN = (0.0, -112.0)
_BROW_P = (11.0, 20.5, 29.5, 38.5, 48.5)
_BRIDGE_Q = (1.0, -12.0, -23.5, -34.5)
_BASE = [(15.0, -43.5), (7.5, -46.3), (0.0, -47.3)]


def _on_triangle(lon: float, q: float) -> tuple[int, Array]:
    """The skin triangle of a chart point, and the barycentrics."""
    skin = layout().skin
    sphere = chart.to_sphere(skin.lon, _chart_q())
    target = chart.to_sphere(np.array(lon), np.array(q))
    corners = sphere[skin.faces].transpose(0, 2, 1)
    flat = np.abs(np.linalg.det(corners)) < 1e-12
    corners[flat] = np.eye(3)
    share = np.linalg.solve(corners, np.broadcast_to(target, (len(corners), 3))[..., None])[..., 0]
    share /= share.sum(1, keepdims=True)
    facing = np.einsum("fij,i->fj", corners, target).min(1) > 0.5
    worst = np.where(facing & ~flat, share.min(1), -np.inf)
    face = int(worst.argmax())
    barycentrics = np.clip(share[face], 0, None)
    return face, barycentrics / barycentrics.sum()


def _chart_q() -> Array:
    """q of the skin vertices with the mouth open, as the chart has it."""
    skin = layout().skin
    p = chart.front_width(skin.q) * np.sin(np.abs(skin.lon))
    line = chart.mouth_line(p)
    opened = line + np.where(skin.is_upper, 1, -1) * chart.chart_offset(skin.offset, p)
    return np.where((np.abs(skin.lon) < 1.4) & (skin.offset < 100), opened, skin.q)


def _at_vertex(vertex: int) -> tuple[int, Array]:
    face, corner = np.argwhere(layout().skin.faces == vertex)[0]
    return int(face), np.eye(3)[corner]


@functools.cache
def landmark_corners() -> tuple[NDArray[np.int64], Array]:
    """`[68]` triangles and `[68, 3]` barycentrics."""
    skin = layout().skin

    def front(p: float, q: float) -> tuple[int, Array]:
        lon = float(chart.longitude(np.array(abs(p)), np.array(q))) * (1 if p > 0 else -1)
        return _on_triangle(lon, q)

    jaw_left = [_on_triangle(np.radians(a), q) for a, q in _JAW]
    jaw_right = [_on_triangle(-np.radians(a), q) for a, q in _JAW]
    marks = [*jaw_right, _on_triangle(np.radians(_CHIN[0]), _CHIN[1]), *jaw_left[::-1]]
    from deepenergy.builtin_head.layout import brow_edges

    # On the upper third of the brow, as annotators place them.
    brow = [(p, float(0.3 * brow_edges(np.array(p))[0] + 0.7 * brow_edges(np.array(p))[1])) for p in _BROW_P]
    marks += [front(-p, q) for p, q in brow[::-1]] + [front(p, q) for p, q in brow]
    marks += [front(0.0, q) for q in _BRIDGE_Q]
    marks += [front(-p, q) for p, q in _BASE[:2]] + [front(*_BASE[2])] + [front(p, q) for p, q in _BASE[1::-1]]
    third = EYE_COUNT // 3
    left, right = (skin.eye_rings[i][0] for i in (0, 1))
    # The rings start at the inner corner and run over the upper lid.
    half = EYE_COUNT // 2
    sixth = round(EYE_COUNT * 0.19)
    upper_inner, upper_outer = sixth, half - sixth
    lower_outer, lower_inner = half + sixth, EYE_COUNT - sixth
    assert third > sixth
    marks += [_at_vertex(right[i]) for i in (half, upper_outer, upper_inner, 0, lower_inner, lower_outer)]
    marks += [_at_vertex(left[i]) for i in (0, upper_inner, upper_outer, half, lower_outer, lower_inner)]
    border, margin = skin.lip_rings[LIP_BORDER], skin.lip_rings[0]
    quarter = MOUTH_COUNT - 1

    def around(ring: NDArray[np.int64], wanted: list[float], upper: bool) -> list[tuple[int, Array]]:
        half_ring = ring[: 2 * quarter + 1] if upper else np.concatenate([ring[:1], ring[: 2 * quarter - 1 : -1]])
        p = chart.front_width(skin.q[half_ring]) * np.sin(skin.lon[half_ring])
        return [_at_vertex(half_ring[int(np.abs(p - x).argmin())]) for x in wanted]

    corner = chart.MOUTH_X + 2
    marks += around(border, [-corner, -14.5, -5.2, 0, 5.2, 14.5, corner], True)
    marks += around(border, [14.5, 6.5, 0, -6.5, -14.5], False)
    marks += around(margin, [-chart.MOUTH_X, -9.0, 0, 9.0, chart.MOUTH_X], True)
    marks += around(margin, [9.0, 0, -9.0], False)
    faces, barycentrics = zip(*marks, strict=True)
    return np.array(faces, np.int64), np.stack(barycentrics)
