"""Where skin and parts lie in the one mesh: vertex ranges, triangles, regions, UVs. Made once."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepenergy.builtin_head import chart, parts
from deepenergy.builtin_head.topology import LIP_BORDER, Topology, topology

Array = NDArray[Any]
Indices = NDArray[np.int64]

REGIONS = ("skin", "lips", "brows", "hair", "eyes", "teeth", "mouth")
BAG_RINGS = 6


@dataclass(frozen=True)
class Layout:
    """The mesh without positions.

    Attributes:
        skin: the skin's topology; its vertices come first.
        ranges: part name -> its vertices.
        faces: `[F, 3]`.
        face_regions: `[F]` into `REGIONS`.
        uvs, uv_faces: `[N, 2]` and `[F, 3]`; the back's midline has two of them.
        vertices: how many.
    """

    skin: Topology
    ranges: dict[str, slice]
    faces: Indices
    face_regions: Indices
    uvs: Array
    uv_faces: Indices
    vertices: int


def _ring_strip(outer: Indices, inner: Indices) -> Indices:
    """Triangles between two closed loops of the same length; front side where `outer` turns clockwise."""
    a, b = outer, np.roll(outer, -1)
    c, d = inner, np.roll(inner, -1)
    return np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])


@functools.cache
def layout() -> Layout:
    """Number all vertices and triangles."""
    skin = topology()
    count = len(skin.lon)
    ranges = {"skin": slice(0, count)}
    faces = [skin.faces]
    regions = [_skin_regions(skin)]
    # The skin takes the left three quarters of the texture, the parts share the strip at its right.
    chart_v = (chart.latitude(skin.q) - chart.latitude(np.array(chart.NECK))) / (
        np.pi / 2 - chart.latitude(np.array(chart.NECK))
    )
    uvs = [np.stack([0.375 + 0.375 * skin.lon / np.pi, chart_v], -1)]

    def add(name: str, uv: Array, new_faces: Indices, region: str) -> None:
        nonlocal count
        ranges[name] = slice(count, count + len(uv))
        faces.append(new_faces)
        regions.append(np.full(len(new_faces), REGIONS.index(region)))
        uvs.append(uv)
        count += len(uv)

    def box(uv: Array, at: tuple[float, float], size: tuple[float, float]) -> Array:
        return np.asarray(at) + uv * np.asarray(size)

    for side, sign in (("left", 1), ("right", -1)):
        ball = parts.eyeball()
        shifted = (ball.faces if sign > 0 else ball.faces[:, ::-1]) + count
        add(f"eye_{side}", box(ball.uv, (0.77, 0.0 if sign > 0 else 0.15), (0.22, 0.14)), shifted, "eyes")
    for index, side in enumerate(("left", "right")):
        margin = skin.eye_rings[index][0]
        n = len(margin)
        edge, end = count + np.arange(n), count + n + np.arange(n)
        strip = np.concatenate([_ring_strip(margin, edge), _ring_strip(edge, end)])
        uv = np.stack(np.broadcast_arrays(np.arange(n) / n, np.array([0.2, 0.8])[:, None]), -1).reshape(-1, 2)
        add(
            f"rim_{side}",
            box(uv, (0.77, 0.30 + 0.04 * index), (0.22, 0.03)),
            strip if index == 0 else strip[:, ::-1],
            "skin",
        )
    for index, upper in enumerate((True, False)):
        row = parts.teeth(upper)
        uv = box(row.part.uv, (0.77, 0.39 + 0.09 * index), (0.22, 0.08))
        add("teeth_upper" if upper else "teeth_lower", uv, row.part.faces + count, "teeth")
    loop = skin.lip_rings[0]
    n = len(loop)
    rings = [loop, *(count + k * n + np.arange(n) for k in range(BAG_RINGS))]
    bag = [_ring_strip(rings[k], rings[k + 1]) for k in range(BAG_RINGS)]
    end = count + BAG_RINGS * n
    bag.append(np.stack([rings[-1], np.roll(rings[-1], -1), np.full(n, end)], -1))
    uv = np.stack(np.broadcast_arrays(np.arange(n) / n, np.arange(BAG_RINGS)[:, None] / BAG_RINGS), -1).reshape(-1, 2)
    add("bag", box(np.concatenate([uv, [[0.5, 1.0]]]), (0.77, 0.57), (0.22, 0.08)), np.concatenate(bag), "mouth")
    tongue = parts.tongue()
    add("tongue", box(tongue.uv, (0.77, 0.66), (0.22, 0.08)), tongue.faces + count, "mouth")
    for index, side in enumerate(("left", "right")):
        ear = parts.ear() if index == 0 else parts.mirrored(parts.ear())
        add(f"ear_{side}", box(ear.uv, (0.77, 0.75 + 0.12 * index), (0.22, 0.11)), ear.faces + count, "skin")
    all_faces, all_uvs = np.concatenate(faces), np.concatenate(uvs)
    uv_faces, all_uvs = _cut_seam(skin, all_faces, all_uvs)
    return Layout(skin, ranges, all_faces, np.concatenate(regions), all_uvs, uv_faces, count)


def _cut_seam(skin: Topology, faces: Indices, uvs: Array) -> tuple[Indices, Array]:
    """Give the midline of the back a second set of texture coordinates for the right half's triangles."""
    seam = np.nonzero(skin.lon > np.pi - 1e-6)[0]
    twin = np.arange(len(uvs))
    twin[seam] = len(uvs) + np.arange(len(seam))
    uv_faces = faces.copy()
    right = np.zeros(len(faces), bool)
    right[: len(skin.faces)] = (np.sin(skin.lon[skin.faces]) < -1e-9).any(1)
    uv_faces[right] = twin[faces[right]]
    return uv_faces, np.concatenate([uvs, uvs[seam] * [0, 1]])


def _skin_regions(skin: Topology) -> Indices:
    """Region of every skin triangle: lips by their rings, brows and hair by where they usually are."""
    centre_lon = np.angle(np.exp(1j * skin.lon[skin.faces]).mean(1))
    q = skin.q[skin.faces].mean(1)
    p = chart.front_width(q) * np.sin(np.abs(centre_lon))
    lips = np.isin(skin.faces, skin.lip_rings[: LIP_BORDER + 1]).all(1)
    regions = np.zeros(len(skin.faces), np.int64)
    front = np.cos(centre_lon) > 0
    low, high = brow_edges(p)
    regions[front & (p > 9) & (p < 52) & (q > low) & (q < high)] = REGIONS.index("brows")
    regions[q > hairline(np.abs(centre_lon), 66.0)] = REGIONS.index("hair")
    regions[lips] = REGIONS.index("lips")
    return regions


def brow_edges(p: Array) -> tuple[Array, Array]:
    """Lower and upper edge (q) of the brow at lateral coordinate p: rising to two thirds of it, then falling."""
    t = (p - 9.5) / 41.0
    middle = 18.2 + 6.4 * np.sin(np.pi * np.clip(0.62 * t + 0.12, 0, 1)) ** 1.5 - 7.0 * np.clip(t - 0.62, 0, 1) ** 1.4
    half = 3.9 * np.sqrt(np.clip(np.minimum((t + 0.02) / 0.12, 1), 0, 1)) * (1 - 0.72 * np.clip(t, 0, 1) ** 1.3)
    return middle - half, middle + half


def hairline(lon: Array, front: float) -> Array:
    """q above which hair grows: at the forehead `front`, over the temple and the ear, down to the nape."""
    degrees = np.degrees(lon)
    return (
        np.interp(
            degrees,
            [0, 20, 36, 48, 58, 68, 76, 90, 112, 130, 180],
            [0, -1, -9, -22, -36, -44, -78, -86, -116, -176, -184],
        )
        + front
    )
