"""The built-in head: its vocabulary, landmarks, lids, jaw, looks, and the random people made of it."""

from __future__ import annotations

import dlib
import numpy as np
import pytest
import torch

from deepenergy import Camera, Rig, State
from deepenergy.builtin_head import randomised_head
from deepenergy.builtin_head.performance import performance
from deepenergy.render import Renderer
from deepenergy.render.operations import vertex_normals
from deepenergy.scene.control_groups import group_of
from deepenergy.scene.rotation import euler_to_matrix


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig.load("builtin")


def state_of(rig: Rig, jaw: float = 0.0, yaw: float = 0.0, **weights: float) -> State:
    row = torch.zeros(1, len(rig.weight_names))
    for name, value in weights.items():
        row[0, rig.weight_names.index(name)] = value
    joint = torch.zeros(1, 6)
    joint[0, 0] = jaw
    return State(euler_to_matrix(torch.tensor([[0.0, float(np.radians(yaw)), 0.0]])), torch.zeros(1, 3), joint, row)


def marks(rig: Rig, **changes: float) -> torch.Tensor:
    return rig.landmarks(rig.vertices(state_of(rig, **changes)))[0]


def test_size_and_vocabulary(rig: Rig) -> None:
    assert 3000 <= len(rig.neutral) <= 9000
    assert len(rig.weight_names) >= 20
    for name in ("eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "mouthSmileLeft", "mouthPucker", "mouthFunnel"):
        assert name in rig.weight_names
    assert not [name for name in rig.weight_names if group_of(name) == "other"]
    assert rig.jaw is not None and rig.vertex_albedo is not None and rig.uvs is not None
    assert {"skin", "lips", "brows", "eyes", "teeth", "mouth"} <= set(rig.region_names)
    extent = rig.neutral.amax(0) - rig.neutral.amin(0)
    assert 0.12 < float(extent[0]) < 0.22 and 0.2 < float(extent[1]) < 0.4


def test_landmarks_are_where_ibug_has_them(rig: Rig) -> None:
    points = marks(rig)
    # The subject's right is -X; mirrored pairs mirror to a few millimetres (a face is never quite even).
    for right, left in ((0, 16), (4, 12), (17, 26), (31, 35), (36, 45), (39, 42), (48, 54), (60, 64)):
        assert float(points[right, 0]) < 0 < float(points[left, 0])
        mirrored = points[left] * torch.tensor([-1.0, 1, 1])
        assert float((points[right] - mirrored).norm()) < 0.006
    assert bool((points[0:8, 1].diff() < 0).all()) and bool((points[9:17, 1].diff() > 0).all())
    assert bool((points[27:31, 1].diff() < 0).all())
    assert (
        float(points[19, 1]) > float(points[37, 1]) > float(points[33, 1]) > float(points[51, 1]) > float(points[57, 1])
    )
    assert float(points[57, 1]) > float(points[8, 1])
    assert int(points[:, 2].argmax()) in (29, 30)


def aspect(points: torch.Tensor, first: int) -> float:
    eye = points[first : first + 6]
    return float(((eye[1] - eye[5]).norm() + (eye[2] - eye[4]).norm()) / (2 * (eye[0] - eye[3]).norm()))


def test_blinks_close_the_lids(rig: Rig) -> None:
    open_eyes, closed = marks(rig), marks(rig, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    for first in (36, 42):
        assert aspect(open_eyes, first) > 0.2
        assert aspect(closed, first) < 0.12


def test_the_jaw_opens_the_mouth_and_mouth_close_shuts_it(rig: Rig) -> None:
    def gap(points: torch.Tensor) -> float:
        return float((points[62] - points[66]).norm())

    assert gap(marks(rig)) < 0.004
    wide = marks(rig, jaw=0.4)
    assert gap(wide) > 0.02
    assert float(wide[8, 1]) < float(marks(rig)[8, 1]) - 0.02
    assert float((wide[27:31] - marks(rig)[27:31]).norm(dim=1).max()) < 1e-3
    assert gap(marks(rig, jaw=0.2, mouthClose=1.0)) < 0.6 * gap(marks(rig, jaw=0.2))


def test_smiles_move_their_own_corner(rig: Rig) -> None:
    moved = marks(rig, mouthSmileLeft=1.0) - marks(rig)
    assert float(moved[54].norm()) > 0.004 > 4 * float(moved[48].norm()) - 0.004
    assert float(moved[54, 0]) > 0 and float(moved[54, 1]) > 0


def test_skin_normals_point_outwards(rig: Rig) -> None:
    assert rig.face_regions is not None
    skin = rig.faces[rig.face_regions == rig.region_names.index("skin")]
    normals = vertex_normals(rig.neutral[None], rig.faces)[0]
    used = skin.unique()
    face = used[(rig.neutral[used, 2] > 0.04)]
    assert float((normals[face, 2] > 0).float().mean()) > 0.9


@pytest.mark.parametrize("yaw", [-25.0, 0.0, 25.0])
def test_dlib_sees_a_face(rig: Rig, yaw: float) -> None:
    camera = Camera.look_at(480, 480, 1100.0, (0.0, 0.0, 1.0))
    image = Renderer(rig)(rig.vertices(state_of(rig, yaw=yaw)), camera).image[0]
    pixels = (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert len(dlib.get_frontal_face_detector()(np.ascontiguousarray(pixels), 1)) == 1  # type: ignore[attr-defined]


def test_random_people_differ_and_repeat() -> None:
    first, again, other = (randomised_head(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.neutral, again.neutral)
    assert float((first.neutral - other.neutral).norm(dim=1).mean()) > 5e-4
    assert first.vertex_albedo is not None and other.vertex_albedo is not None
    assert float((first.vertex_albedo - other.vertex_albedo).abs().mean()) > 0.005
    assert torch.equal(first.faces, other.faces)


def test_the_performance_stays_inside_the_bounds(rig: Rig) -> None:
    states = performance(48)
    assert rig.weight_bounds is not None and rig.jaw is not None
    assert bool((states.weights >= rig.weight_bounds[:, 0]).all() and (states.weights <= rig.weight_bounds[:, 1]).all())
    assert bool((states.jaw >= rig.jaw.lower - 1e-9).all() and (states.jaw <= rig.jaw.upper + 1e-9).all())
    assert float(states.jaw[:, 0].max()) > 0.15
    blink = states.weights[:, rig.weight_names.index("eyeBlinkLeft")]
    assert float(blink.max()) > 0.8
