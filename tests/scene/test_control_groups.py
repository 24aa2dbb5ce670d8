"""Weight names land in the part of the face that they move."""

from __future__ import annotations

import pytest

from deepenergy import InputError
from deepenergy.scene.control_groups import GROUPS, control_groups, group_of

# Apple's ARFaceAnchor.BlendShapeLocation, all 52.
ARKIT = {
    "eyes": """eyeBlinkLeft eyeLookDownLeft eyeLookInLeft eyeLookOutLeft eyeLookUpLeft eyeSquintLeft eyeWideLeft
        eyeBlinkRight eyeLookDownRight eyeLookInRight eyeLookOutRight eyeLookUpRight eyeSquintRight eyeWideRight""",
    "jaw": "jawForward jawLeft jawRight",
    "jaw_open": "jawOpen",
    "mouth": """mouthClose mouthFunnel mouthPucker mouthLeft mouthRight mouthSmileLeft mouthSmileRight mouthFrownLeft
        mouthFrownRight mouthDimpleLeft mouthDimpleRight mouthStretchLeft mouthStretchRight mouthRollLower
        mouthRollUpper mouthShrugLower mouthShrugUpper mouthPressLeft mouthPressRight mouthLowerDownLeft
        mouthLowerDownRight mouthUpperUpLeft mouthUpperUpRight""",
    "brows": "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight",
    "cheeks": "cheekPuff cheekSquintLeft cheekSquintRight",
    "nose": "noseSneerLeft noseSneerRight",
    "tongue": "tongueOut",
}
PAIRS = [(name, group) for group, names in ARKIT.items() for name in names.split()]


def test_there_are_52() -> None:
    assert len({name for name, _ in PAIRS}) == 52


@pytest.mark.parametrize(("name", "group"), PAIRS)
def test_arkit(name: str, group: str) -> None:
    assert group_of(name) == group


@pytest.mark.parametrize(("name", "group"), PAIRS)
@pytest.mark.parametrize("style", ["{}", "face_bs.{}", "Head|{}", "rig:{}", "{}.001", "CTRL_expressions_{}"])
def test_spellings(name: str, group: str, style: str) -> None:
    short = name.replace("Left", "_L").replace("Right", "_R")
    for spelled in (name, short, name.upper()):
        assert group_of(style.format(spelled)) == group


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("cheekRaiser_L", "cheeks"),  # ICT-FaceKit
        ("PupilDilate_R", "eyes"),
        ("browInnerUp_L", "brows"),
        ("cheekPuff_L", "cheeks"),
        ("mouthOpen", "jaw_open"),
        ("jaw_drop", "jaw_open"),
        ("AU26_jawDrop", "jaw_open"),
        ("viseme_aa", "jaw_open"),
        ("viseme_PP", "mouth"),
        ("chinRaise", "jaw"),
        ("upperLip_raise_L", "mouth"),
        ("lipCornerPull", "mouth"),
        ("mouthSlide_L", "mouth"),
        ("eyebrowRaise", "brows"),
        ("eyeCorner_in", "eyes"),
        ("upperLidRaise", "eyes"),
        ("frown", "brows"),
        ("nostrilFlare", "nose"),
        ("gazeLeft", "eyes"),
        ("target_000", "other"),
        ("neckTighten", "other"),
        ("001", "other"),
        ("", "other"),
    ],
)
def test_other_names(name: str, group: str) -> None:
    assert group_of(name) == group


def test_groups_partition_the_weights() -> None:
    names = [name for name, _ in PAIRS] + ["target_000"]
    groups = control_groups(names)
    assert tuple(groups) == GROUPS
    assert sorted(i for members in groups.values() for i in members) == list(range(len(names)))
    assert all(list(members) == sorted(members) for members in groups.values())


def test_groups_without_weights_are_empty() -> None:
    groups = control_groups(["jawOpen"])
    assert groups["jaw_open"] == (0,)
    assert not any(members for group, members in groups.items() if group != "jaw_open")


def test_overrides_move_weights_and_make_groups() -> None:
    names = ["jawOpen", "mouthClose", "neckTighten"]
    groups = control_groups(names, {"jaw": ["mouthClose"], "neck": ["neckTighten"]})
    assert groups["jaw"] == (1,)
    assert groups["mouth"] == ()
    assert groups["neck"] == (2,)
    assert groups["other"] == ()


def test_an_override_of_an_unknown_weight_is_refused() -> None:
    with pytest.raises(InputError, match=r"control groups 'jaw'.*'jawOpne'.*jawOpen"):
        control_groups(["jawOpen"], {"jaw": ["jawOpne"]})
