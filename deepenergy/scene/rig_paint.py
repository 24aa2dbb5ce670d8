"""Plain colours of a face, painted by its landmarks: what a rig that brings none looks like to a landmark network.

A network that was trained on faces reads a plaster bust worse than a face with brows, lips and irises: on a path-traced
shot, solved with a rig without colours, the head was 46 mm off in depth with the one and 21 mm with the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from deepenergy.scene.landmark_layout import IBUG_68, LandmarkLayout
from deepenergy.scene.rig import Rig

# Scene-linear.
SKIN_ALBEDO = (0.46, 0.26, 0.18)
EYE_ALBEDO = (0.68, 0.64, 0.60)
IRIS_ALBEDO = (0.05, 0.03, 0.02)
# Scene-linear colours and sizes in metres of what rigs do not model.
BROW_ALBEDO, BROW_RADIUS = (0.045, 0.028, 0.018), 0.0055
LIP_ALBEDO, LIP_DEPTH = (0.33, 0.13, 0.115), 0.012
IRIS_RADIUS = 0.0062
PUPIL_RADIUS = 0.0021


def with_default_albedo(rig: Rig) -> Rig:
    """The rig, with a plain painted face where it has neither a texture nor vertex colours.

    Eyeballs are told by being meshes of their own between the lids' landmarks.
    """
    if rig.texture is not None or rig.vertex_albedo is not None:
        return rig
    corners = rig.landmark_rig()
    marks = corners.landmarks(corners.neutral[None].double())[0].cpu().numpy()
    positions, faces = rig.neutral.double().cpu().numpy(), rig.faces.cpu().numpy()
    albedo = np.tile(np.array(SKIN_ALBEDO), (len(positions), 1))
    pieces = _pieces(faces, len(positions))
    used = np.unique(faces)
    largest = np.bincount(pieces[used]).argmax()
    paint_brows_and_lips(albedo, positions, np.flatnonzero(pieces == largest), marks, rig.layout)
    for eye in ("right_eye", "left_eye"):
        lids = marks[rig.layout.contours[eye].rows]
        centre, width = lids.mean(0), np.ptp(lids[:, 0])
        for piece in np.unique(pieces[used]):
            inside = used[pieces[used] == piece]
            low, high = positions[inside].min(0), positions[inside].max(0)
            apart = np.abs((low + high) / 2 - centre)[:2].max()
            if piece != largest and apart < 0.3 * width and width < 2 * (high - low)[0] < 4 * width:
                albedo[inside] = EYE_ALBEDO
                paint_iris(albedo, positions, inside)
    return replace(rig, vertex_albedo=torch.from_numpy(albedo).to(rig.neutral))


def paint_brows_and_lips(
    albedo: np.ndarray,
    positions: np.ndarray,
    skin: np.ndarray,
    marks: np.ndarray,
    layout: LandmarkLayout = IBUG_68,
) -> None:
    """Brows along their landmarks and lips inside theirs: without them a landmark network has little to go by.

    Args:
        albedo: `[V, 3]`, painted in place.
        positions: `[V, 3]` neutral, metres.
        skin: indices of the skin's vertices.
        marks: `[L, 3]` landmarks of the neutral.
        layout: their scheme.
    """
    points = positions[skin]
    for name in ("right_brow", "left_brow"):
        brow = marks[layout.contours[name].rows]
        start, along = brow[:-1], np.diff(brow, axis=0)
        share = ((points[:, None] - start) * along).sum(-1) / (along**2).sum(-1)
        off = np.linalg.norm(points[:, None] - start - share.clip(0, 1)[..., None] * along, axis=-1).min(1)
        cover = np.clip((BROW_RADIUS - off) / (0.4 * BROW_RADIUS), 0, 1)[:, None]
        albedo[skin] += cover * (np.array(BROW_ALBEDO) - albedo[skin])
    # The neutral faces +Z, so inside or outside is told in the frontal plane; what lies behind the lips is not lips.
    outline = marks[layout.contours["outer_lips"].rows]
    ahead = points[:, 2] > outline[:, 2].min() - LIP_DEPTH
    lips = skin[ahead & _inside(points[:, :2], outline[:, :2])]
    albedo[lips] = LIP_ALBEDO


def paint_iris(albedo: np.ndarray, positions: np.ndarray, eyeball: np.ndarray) -> None:
    """Iris and pupil of an eyeball (indices of its vertices), in place."""
    # The neutral looks along +Z, so the cornea's top is the eyeball's foremost vertex.
    points = positions[eyeball]
    top = points[points[:, 2].argmax()]
    centre = (points.min(0) + points.max(0)) / 2
    off_axis = np.hypot(points[:, 0] - top[0], points[:, 1] - top[1])
    front = points[:, 2] > centre[2]
    albedo[eyeball[front & (off_axis < IRIS_RADIUS)]] = IRIS_ALBEDO
    albedo[eyeball[front & (off_axis < PUPIL_RADIUS)]] = (0.004, 0.004, 0.004)


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points a polygon holds, by the even-odd rule."""
    a, b = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, :1], points[:, 1:]
    straddles = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
    crossing = a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
    return (straddles & (x < crossing)).sum(1) % 2 == 1


def _pieces(faces: np.ndarray, vertices: int) -> np.ndarray:
    """`[V]` the lowest vertex that triangles connect each vertex with."""
    label = np.arange(vertices)
    while True:
        before = label.copy()
        np.minimum.at(label, faces, label[faces].min(1)[:, None])
        # Labels are vertices: each takes over what its own label has found meanwhile.
        label = label[label]
        if np.array_equal(label, before):
            return label
