"""Scene-linear colours: skin, brows, lips, hair as functions of the chart, and the parts' own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepenergy.builtin_head import chart, parts
from deepenergy.builtin_head.identity import Palette
from deepenergy.builtin_head.layout import Layout, brow_edges, hairline
from deepenergy.builtin_head.shape import bump, smoothstep

Array = NDArray[Any]


def wavy_noise(points: Array, wavelength: float, seed: int, terms: int = 9) -> Array:
    """Smooth noise of about unit variance at `[..., 3]` points: a sum of plane waves."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((terms, 3))
    waves = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    waves *= 2 * np.pi / wavelength * rng.uniform(0.6, 1.5, (terms, 1))
    return np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, terms)).sum(-1) * np.sqrt(2 / terms)


def _mix(base: Array, colour: Array, share: Array) -> Array:
    return base + np.clip(share, 0, 1)[..., None] * (colour - base)


def skin_colours(
    lon: Array, q: Array, offset: Array, is_upper: NDArray[np.bool_], points: Array, look: Palette
) -> Array:
    """`[N, 3]` albedo of skin points.

    Args:
        lon, q: chart coordinates.
        offset, is_upper: distance from the mouth's line, and side of it.
        points: millimetres, where the mottling is looked up.
        look: colours.
    """
    front = np.cos(lon) > 0.1
    p = np.where(front, chart.front_width(q) * np.sin(np.abs(lon)), 200.0)
    skin = np.asarray(look.skin)
    mottle = wavy_noise(points, 9.0, look.seed) * 0.022 + wavy_noise(points, 28.0, look.seed + 1) * 0.03
    colour = skin * np.exp(mottle)[:, None] * np.ones((len(lon), 3))
    red = (
        0.75 * bump(p, q, (37, -34), (12, 10))
        + 0.7 * bump(p, q, (3, -36), (11, 6))
        + 0.3 * bump(p, q, (8, -100), (12, 8))
    )
    red = look.blush * red + 0.25 * bump(p, q, (30, -8), (12, 5))
    colour *= np.exp(red[:, None] * np.array([0.02, -0.24, -0.22]))
    colour *= np.exp(
        -(0.22 * bump(p, q, (22, -8), (8, 5)) + 0.25 * bump(p, q, (17, 1), (5, 9)))[:, None] * np.array([0.8, 1, 0.9])
    )
    spots = np.clip(wavy_noise(points, 4.5, look.seed + 2, 14) - 1.3, 0, 1)
    where = bump(p, q, (22, -24), (20, 12)) + 0.6 * bump(p, q, (0, 30), (40, 16))
    colour *= np.exp(-(look.freckles * 1.1 * spots * where)[:, None] * np.array([0.5, 0.8, 1.0]))
    beard = smoothstep(-44, -52, q) * smoothstep(-128, -112, q) * (1 - smoothstep(60, 75, np.degrees(np.abs(lon))))
    beard *= 1 - smoothstep(12, 30, q + 66 - 0.55 * np.clip(p - 22, 0, None))
    colour *= np.exp(
        -(look.stubble * beard * (1 + 0.3 * wavy_noise(points, 3.0, look.seed + 3)))[:, None]
        * np.array([1.1, 0.9, 0.75])
    )
    colour = _mix(colour, skin * 0.10, 0.85 * np.exp(-(((p - 6.6) / 3.0) ** 2 + ((q + 43.9) / 1.9) ** 2)))
    colour = _lips(colour, p, offset, is_upper, points, look)
    colour = _eye_make_up(colour, p, q, front, look)
    return _hair(colour, p, lon, q, points, look)


def _lips(colour: Array, p: Array, offset: Array, is_upper: NDArray[np.bool_], points: Array, look: Palette) -> Array:
    border = np.where(is_upper, chart.upper_lip_height(p), chart.lower_lip_height(p))
    inside = smoothstep(0.9, -0.7, offset - border) * (p < chart.MOUTH_X + 2)
    tone = (
        np.asarray(look.lip)
        * (1 - 0.14 * is_upper[:, None])
        * np.exp(0.06 * wavy_noise(points, 2.6, look.seed + 4))[:, None]
    )
    colour = _mix(colour, tone, inside)
    line = np.exp(-((offset / 0.9) ** 2)) * (p < chart.MOUTH_X + 1.5)
    return _mix(colour, np.asarray(look.lip) * 0.22, 0.8 * line)


def _eye_make_up(colour: Array, p: Array, q: Array, front: NDArray[np.bool_], look: Palette) -> Array:
    t, upper, lower = chart.eye_line(p)
    near = front & (p > chart.EYE_INNER[0] - 1.5) & (p < chart.EYE_OUTER[0] + 2.5)
    lash = (
        np.exp(-(((q - upper) / 1.25) ** 2)) * smoothstep(-0.02, 0.25, t)
        + 0.45 * np.exp(-(((q - lower) / 0.9) ** 2)) * t
    )
    colour = _mix(colour, np.asarray(look.brow) * 0.35, 0.92 * np.clip(lash, 0, 1) * near)
    lid = (q > upper) & (q < upper + 5.5) & near
    colour = colour * np.exp(-0.14 * lid[:, None] * np.array([0.8, 1.1, 1.0]))
    return (
        colour * (1 - 0.22 * (near * np.exp(-(((q - upper - 4.6 - t) / 1.0) ** 2)) * smoothstep(0.05, 0.3, t)))[:, None]
    )


def _hair(colour: Array, p: Array, lon: Array, q: Array, points: Array, look: Palette) -> Array:
    low, high = brow_edges(p)
    middle, half = 0.5 * (low + high), 0.5 * (high - low) * look.brow_thickness
    hairs = 1 + 0.16 * wavy_noise(points * [1.0, 0.45, 0.3], 2.2, look.seed + 5)
    brow = smoothstep(1.25, 0.55, np.abs(q - middle) / np.maximum(half, 0.6)) * (p > 8.8) * (p < 51.5)
    brow *= smoothstep(8.0, 14.0, p) * 0.5 + 0.5
    colour = _mix(colour, np.asarray(look.brow), look.brow_density * brow * hairs)
    edge = 3.5 * wavy_noise(points, 12.0, look.seed + 6) + 1.5 * wavy_noise(points, 4.0, look.seed + 7)
    cap = smoothstep(-4.0, 5.0, q - hairline(np.abs(lon), look.hairline) + edge)
    strands = np.exp(0.22 * wavy_noise(points * [1, 0.35, 1], 5.0, look.seed + 8))
    return _mix(colour, np.asarray(look.hair) * strands[:, None], cap * 0.97)


def part_colours(plan: Layout, points: Array, look: Palette) -> Array:
    """`[V, 3]` albedo of the whole mesh; `points` are millimetres of the common head."""
    skin = plan.skin
    colours = np.zeros((plan.vertices, 3))
    where = points[plan.ranges["skin"]]
    colours[plan.ranges["skin"]] = skin_colours(skin.lon, skin.q, skin.offset, skin.is_upper, where, look)
    tone = np.asarray(look.skin)
    for index, side in enumerate(("left", "right")):
        colours[plan.ranges[f"eye_{side}"]] = eye_colours(parts.eyeball().uv, look)
        n = len(skin.eye_rings[index][0])
        waterline = tone * [0.95, 0.62, 0.58]
        upper = np.arange(n) < n // 2
        rim = np.where(upper[:, None], 0.3, 0.75) * waterline
        colours[plan.ranges[f"rim_{side}"]] = np.concatenate([rim, 0.6 * waterline * np.ones((n, 1))])
        uv = parts.ear().uv - 0.5
        reach = np.hypot(uv[:, 0], uv[:, 1])
        shade = np.where(reach < 0.15, 0.55, 1.0) * (1 - 0.25 * np.exp(-(((reach - 0.29) / 0.02) ** 2)))
        colours[plan.ranges[f"ear_{side}"]] = tone * [1.0, 0.86, 0.84] * shade[:, None]
    for name, upper in (("teeth_upper", True), ("teeth_lower", False)):
        row = parts.teeth(upper)
        ivory, gum = np.array([0.62, 0.56, 0.46]), np.array([0.34, 0.12, 0.11])
        colours[plan.ranges[name]] = _mix(np.tile(ivory, (len(row.shade), 1)), gum, row.is_gum) * row.shade[:, None]
    bag = points[plan.ranges["bag"]]
    deep = np.clip((bag[:, 2] - 40) / 50, 0.03, 1)[:, None] ** 1.6
    colours[plan.ranges["bag"]] = np.array([0.22, 0.065, 0.06]) * deep
    tongue = points[plan.ranges["tongue"]]
    colours[plan.ranges["tongue"]] = (
        np.array([0.33, 0.125, 0.115]) * np.clip((tongue[:, 2] - 40) / 45, 0.15, 1)[:, None]
    )
    return np.clip(colours, 0.002, 0.95)


def eye_colours(uv: Array, look: Palette) -> Array:
    """Albedo of eyeball points by (azimuth, angle / 180 degrees): pupil, iris, limbus, white with a little red."""
    angle = uv[:, 1] * 180
    white = np.array([0.66, 0.62, 0.58]) * np.array([1, 0.93, 0.9]) ** smoothstep(35, 70, angle)[:, None]
    iris = np.asarray(look.iris)
    fibres = 1 + 0.25 * np.sin(2 * np.pi * uv[:, 0] * 22) + 0.5 * smoothstep(22, 12, angle)
    colour = iris * fibres[:, None] * (1 - 0.6 * smoothstep(22.5, 27, angle))[:, None]
    colour = np.where((angle > parts.IRIS_ANGLE + 0.5)[:, None], white, colour)
    return np.where((angle < parts.PUPIL_ANGLE)[:, None], 0.004, colour)
