"""What a rig's triangles are made of: skin, hair, eyes, teeth, the inside of the mouth.

By the names of the rig's own regions where they tell; else by mesh part and place: eyeballs are parts about the eye
landmarks, teeth are small or white parts behind the lips, and what lies behind the lips and is hidden by them is mouth.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deepenergy.render.operations import rasterize
from deepenergy.scene.rig import Rig

MATERIALS = ("skin", "hair", "eyes", "teeth", "mouth")
SKIN, HAIR, EYES, TEETH, MOUTH = range(5)
# Looked for in this order in a region's name.
_NAMES = (
    (re.compile(r"brow|lid|lip|socket|skin|face", re.I), SKIN),
    (re.compile(r"lash|hair|beard", re.I), HAIR),
    (re.compile(r"eye|iris|sclera|cornea|pupil", re.I), EYES),
    (re.compile(r"teeth|tooth", re.I), TEETH),
    (re.compile(r"mouth|gum|tongue|oral", re.I), MOUTH),
)
_GRID = 256


def material_regions(rig: Rig) -> Int[Tensor, " f"]:
    """What every triangle is made of.

    Args:
        rig: with named regions, or with landmarks; without either it is skin throughout.

    Returns:
        Indices into `MATERIALS`.
    """
    assert rig.face_regions is not None
    if len(rig.region_names) > 1:
        materials = torch.tensor([_by_name(name) for name in rig.region_names], device=rig.faces.device)
        return materials[rig.face_regions]
    if rig.landmark_faces is None:
        return torch.full_like(rig.face_regions, SKIN)
    return torch.from_numpy(_by_place(rig)).to(rig.faces.device)


def face_skin(rig: Rig) -> Bool[Tensor, " f"]:
    """Triangles of skin on the face: from chin to forehead in front of the ears, by the landmarks of the neutral.

    Args:
        rig: with landmarks.

    Returns:
        Which triangles these are.

    Raises:
        InputError: a rig without landmarks.
    """
    rig.require_landmarks()
    landmarks = rig.landmarks(rig.neutral[None])[0]
    centre = rig.neutral[rig.faces].mean(1)
    layout = rig.layout
    chin, brows = landmarks[layout.chin, 1], landmarks[list(layout.sets["brows"])][:, 1]
    height = landmarks[layout.bridge, 1] - chin
    below, above = chin - 0.05 * height, brows.mean() + 0.3 * height
    ears = landmarks[list(layout.jaw_ends), 2].mean()
    on_face = (centre[:, 1] > below) & (centre[:, 1] < above) & (centre[:, 2] > ears)
    return on_face & (material_regions(rig) == SKIN)


def _by_name(name: str) -> int:
    return next((material for pattern, material in _NAMES if pattern.search(name)), SKIN)


def _by_place(rig: Rig) -> np.ndarray:
    vertices, faces = rig.neutral.cpu().double().numpy(), rig.faces.cpu().numpy()
    marks = rig.landmarks(rig.neutral[None])[0].cpu().double().numpy()
    part = _parts(faces, len(vertices))
    assert rig.landmark_faces is not None
    skin = np.bincount(part[rig.landmark_faces.cpu().numpy()]).argmax()
    material = np.full(len(faces), SKIN)
    right, left = rig.layout.mouth_corners
    width = float(np.linalg.norm(marks[right] - marks[left]))
    lips = marks[list(rig.layout.lip_middles)].mean(0)
    for number in np.unique(part):
        if number == skin:
            continue
        corners = vertices[faces[part == number]].reshape(-1, 3)
        centre, extent = (corners.min(0) + corners.max(0)) / 2, float(np.ptp(corners, axis=0).max())
        for name in ("right_eye", "left_eye"):
            eye = marks[rig.layout.contours[name].rows]
            size = float(np.ptp(eye[:, 0]))
            if np.linalg.norm(centre - eye.mean(0)) < size and extent < 2.5 * size:
                material[part == number] = EYES
        offset = centre - lips
        inside = np.abs(offset[:2]).max() < 0.8 * width and -2 * width < offset[2] < 0.2 * width
        if inside and material[part == number][0] == SKIN:
            small = extent < 0.65 * width
            material[part == number] = TEETH if small or _is_white(rig, part == number) else MOUTH
    material[(part == skin) & _behind_lips(vertices, faces, part == skin, lips, width)] = MOUTH
    return material


def _is_white(rig: Rig, mine: np.ndarray) -> bool:
    """Whether a part's own albedo is light and hardly coloured, as whole rows of teeth are."""
    if rig.vertex_albedo is None:
        return False
    colour = rig.vertex_albedo[rig.faces[torch.from_numpy(mine).to(rig.faces.device)]].mean((0, 1))
    return bool(colour.amin() > 0.55 * colour.amax()) and bool(colour.amax() > 0.3)


def _behind_lips(
    vertices: np.ndarray, faces: np.ndarray, skin: np.ndarray, lips: np.ndarray, width: float
) -> np.ndarray:
    """Triangles behind the closed lips, seen from the front: the socket of the mouth."""
    centre = vertices[faces].mean(1)
    offset = centre - lips
    near = (np.abs(offset[:, 0]) < 0.8 * width) & (offset[:, 1] < 0.5 * width) & (offset[:, 1] > -0.6 * width)
    near &= (offset[:, 2] > -2.2 * width) & skin
    window = 1.8 * width
    pixels = (vertices[:, :2] - lips[:2]) / window * _GRID + _GRID / 2
    far = 100.0
    depth = far - vertices[:, 2]
    view = rasterize(
        torch.from_numpy(pixels)[None].float(),
        torch.from_numpy(depth)[None].float(),
        torch.from_numpy(faces[skin]),
        (_GRID, _GRID),
    )
    front = torch.where(view.face_index[0] >= 0, far - view.depth[0], torch.full_like(view.depth[0], -far)).numpy()
    column, row = np.clip(((centre[:, :2] - lips[:2]) / window * _GRID + _GRID / 2).astype(int), 0, _GRID - 1).T
    return near & (centre[:, 2] < front[row, column] - 0.12 * width)


def _parts(faces: np.ndarray, vertices: int) -> np.ndarray:
    """`[F]` the connected part of every triangle."""
    pairs = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (vertices, vertices))
    return connected_components(graph, directed=False)[1][faces[:, 0]]
