"""Rigs in other units and axes are noticed before a solve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rigs import random_rig
from torch import Tensor

from deepenergy import InputError, Rig
from deepenergy.scene.rig_check import check_face
from deepenergy.scene.rotation import euler_to_matrix


@pytest.fixture(scope="module")
def head() -> Rig:
    return Rig.load("builtin")


def moved(rig: Rig, matrix: Tensor) -> Rig:
    return replace(rig, neutral=rig.neutral @ matrix.T, blendshapes=rig.blendshapes @ matrix.T)


def turn(x: float, y: float, z: float) -> Tensor:
    return euler_to_matrix(torch.tensor([[x, y, z]], dtype=torch.float64).deg2rad())[0].float()


def test_heads_as_the_conventions_say(head: Rig, test_data: Path) -> None:
    check_face(head)
    check_face(moved(head, turn(20, -15, 10)))
    shot, rigs = test_data / "shots" / "ict_stereo", test_data / "rigs"
    check_face(Rig.load(shot / "actor.glb", landmarks=shot / "landmarks.json"))
    check_face(Rig.load(rigs / "facecap.glb", landmarks=rigs / "facecap.landmarks.json"))


@pytest.mark.parametrize("scale", [100.0, 39.37, 1000.0, 0.01])
def test_other_units(head: Rig, scale: float) -> None:
    with pytest.raises(InputError, match="units: found outer eye corners"):
        check_face(moved(head, scale * torch.eye(3)))


@pytest.mark.parametrize(
    ("angles", "found"),
    [
        ((0, 180, 0), r"stands along \+Y and looks down -Z"),
        ((90, 0, 0), r"stands along \+Z and looks down -Y"),
        ((0, 90, 0), r"stands along \+Y and looks down \+X"),
        ((180, 0, 0), r"stands along -Y and looks down -Z"),
        ((45, 35, 0), r"stands along \(0"),
    ],
)
def test_other_axes(head: Rig, angles: tuple[float, float, float], found: str) -> None:
    with pytest.raises(InputError, match=found):
        check_face(moved(head, turn(*angles)))


def test_left_and_right_exchanged(head: Rig) -> None:
    with pytest.raises(InputError, match="exchange left and right"):
        check_face(moved(head, torch.diag(torch.tensor([-1.0, 1.0, 1.0]))))


def test_one_vertex_for_every_landmark(head: Rig) -> None:
    with pytest.raises(InputError, match="one spot or line"):
        check_face(head.with_landmark_vertices(torch.full((68,), int(head.faces[0, 0]))))


def test_points_that_are_no_face() -> None:
    with pytest.raises(InputError):
        check_face(random_rig())
