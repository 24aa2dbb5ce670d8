"""Which triangles are skin, eyes, teeth, mouth and hair, by name and by place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from deepenergy import Rig
from deepenergy.render.materials import EYES, HAIR, MOUTH, SKIN, TEETH, face_skin, material_regions


def test_regions_by_name() -> None:
    rig = Rig.load("builtin")
    found = material_regions(rig)
    assert rig.face_regions is not None
    by_name = {"skin": SKIN, "lips": SKIN, "brows": SKIN, "hair": HAIR, "eyes": EYES, "teeth": TEETH, "mouth": MOUTH}
    for index, name in enumerate(rig.region_names):
        assert set(found[rig.face_regions == index].tolist()) == {by_name[name]}


def test_regions_by_place_are_those_by_name() -> None:
    rig = Rig.load("builtin")
    named = material_regions(rig)
    nameless = replace(rig, face_regions=torch.zeros_like(named), region_names=("skin",))
    found = material_regions(nameless)
    assert float((found[named == EYES] == EYES).float().mean()) > 0.95
    # A row of teeth in one part with its gums may be either.
    inside = (found == TEETH) | (found == MOUTH)
    assert float(inside[named == TEETH].float().mean()) > 0.95
    assert float((found[named == SKIN] == SKIN).float().mean()) > 0.97


def test_regions_of_an_actor_in_one_mesh(test_data: Path) -> None:
    folder = test_data / "shots" / "ict_stereo"
    rig = Rig.load(folder / "actor.glb", landmarks=folder / "landmarks.json")
    found = material_regions(rig)
    assert rig.uvs is not None and rig.uv_faces is not None
    # The kit's tiles: gums in the third, teeth in the fourth, the face in the first (which the eyes use too).
    tile = rig.uvs[rig.uv_faces].mean(1)[:, 0].floor()
    assert set(found[tile == 2].tolist()) <= {MOUTH, TEETH}
    assert float((found[tile == 3] == TEETH).float().mean()) > 0.95
    assert int((found == EYES).sum()) == 2 * 1536
    assert bool((tile[found == EYES] == 0).all())
    skin = face_skin(rig)
    assert bool((found[skin] == SKIN).all()) and bool((tile[skin] <= 1).all())
    landmark_faces = rig.require_landmarks()[0]
    assert float(skin[landmark_faces[17:60]].float().mean()) > 0.9
