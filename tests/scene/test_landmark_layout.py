"""Landmark schemes, and that nothing but them knows how many landmarks there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepenergy import InputError, Rig
from deepenergy.scene.landmark_layout import CONTOURS, IBUG_68, LAYOUTS, SETS, LandmarkLayout, layout_from_name

PACKAGE = Path(__file__).resolve().parents[2] / "deepenergy"
# Left-right pairs of the iBUG order, written out by hand from its figure.
PAIRS = [(0, 16), (7, 9), (17, 26), (21, 22), (31, 35), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),
         (48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]  # fmt: skip

# -- the schemes ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=LAYOUTS.values(), ids=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> LandmarkLayout:
    return request.param


@pytest.fixture(scope="module")
def head() -> Rig:
    return Rig.load("builtin")


def mirrored(layout: LandmarkLayout, points: tuple[int, ...]) -> set[int]:
    return {layout.mirror[point] for point in points}


def test_a_scheme_is_found_by_its_name(layout: LandmarkLayout) -> None:
    assert layout_from_name(layout.name) is layout
    assert len(layout.names) == layout.count
    with pytest.raises(InputError, match=f"landmark layout: found '{layout.name}x'.*did you mean '{layout.name}'"):
        layout_from_name(layout.name + "x")


def test_the_mirror_undoes_itself_and_keeps_every_set(layout: LandmarkLayout) -> None:
    assert [layout.mirror[other] for other in layout.mirror] == list(range(layout.count))
    for name in SETS:
        assert mirrored(layout, layout.sets[name]) == set(layout.sets[name])


def test_the_mirror_exchanges_right_and_left_contours(layout: LandmarkLayout) -> None:
    for name in CONTOURS:
        other = name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")
        assert mirrored(layout, layout.contours[name].points) == set(layout.contours[other].points)
        assert layout.contours[name].closed == layout.contours[other].closed


def test_the_midline_stays_and_nothing_else_does(layout: LandmarkLayout) -> None:
    assert {point for point, other in enumerate(layout.mirror) if point == other} == set(layout.midline)
    assert {layout.chin, layout.bridge, layout.nose_tip, *layout.lip_middles} <= set(layout.midline)


def test_contours_cover_the_sets(layout: LandmarkLayout) -> None:
    parts = {
        "jaw": ("jaw",),
        "brows": ("right_brow", "left_brow"),
        "nose": ("bridge", "nose_base"),
        "eyes": ("right_eye", "left_eye"),
        "mouth": ("outer_lips", "inner_lips"),
    }
    for name, contours in parts.items():
        points = [point for contour in contours for point in layout.contours[contour].points]
        assert sorted(points) == sorted(layout.sets[name])


def test_pairs_and_corners_lie_on_their_contours(layout: LandmarkLayout) -> None:
    for i, eye in enumerate(("right_eye", "left_eye")):
        lids = {layout.outer_eye_corners[i], layout.inner_eye_corners[i]}
        lids |= {point for pair in layout.lid_pairs for point in pair if pair[0] in layout.contours[eye].points}
        assert lids == set(layout.contours[eye].points)
    assert {*layout.mouth_corners, *layout.lip_middles} <= set(layout.contours["outer_lips"].points)
    inner = {point for pair in layout.inner_lip_pairs for point in pair}
    assert inner <= set(layout.contours["inner_lips"].points)
    for pairs in (layout.lid_pairs, layout.inner_lip_pairs):
        assert {tuple(layout.mirror[point] for point in pair) for pair in pairs} == set(pairs)
    for right, left in (layout.outer_eye_corners, layout.inner_eye_corners, layout.mouth_corners, layout.jaw_ends):
        assert layout.mirror[right] == left


def test_ibug_has_its_known_numbers() -> None:
    assert IBUG_68.count == 68
    assert all(IBUG_68.mirror[a] == b for a, b in PAIRS)
    assert IBUG_68.midline == (8, 27, 28, 29, 30, 33, 51, 57, 62, 66)
    assert (IBUG_68.chin, IBUG_68.bridge, IBUG_68.nose_tip, IBUG_68.jaw_ends) == (8, 27, 30, (0, 16))
    assert IBUG_68.contours["left_eye"].line == [42, 43, 44, 45, 46, 47, 42]
    assert IBUG_68.contours["nose_base"].line == [31, 32, 33, 34, 35]
    assert (IBUG_68.names[8], IBUG_68.names[36], IBUG_68.names[67]) == ("jaw_8", "right_eye_0", "inner_lips_7")


def test_ibug_is_what_the_built_in_head_has(head: Rig) -> None:
    """The head is the same on both sides, upright and closed, so the places of its landmarks tell what they are."""
    marks = head.landmarks(head.neutral[None])[0].double().numpy()
    flipped = marks[list(IBUG_68.mirror)] * [-1, 1, 1]
    assert np.abs(flipped - marks).max() < 0.002
    right, left = (marks[IBUG_68.contours[name].rows, 0] for name in ("right_eye", "left_eye"))
    assert right.max() < 0 < left.min()
    assert marks[:, 1].argmin() == IBUG_68.chin
    assert marks[:, 2].argmax() == IBUG_68.nose_tip
    for upper, lower in (*IBUG_68.lid_pairs, IBUG_68.lip_middles):
        assert marks[upper, 1] > marks[lower, 1]
    for outer, inner in zip(IBUG_68.outer_eye_corners, IBUG_68.inner_eye_corners, strict=True):
        assert abs(marks[outer, 0]) > abs(marks[inner, 0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"names": ("a",) * 68}, "names: expected different names"),
        ({"sets": {"jaw": tuple(range(68))}}, "sets: expected the sets jaw, brows"),
        ({"sets": {**IBUG_68.sets, "nose": (27,)}}, "sets: expected every point once"),
        ({"contours": {"jaw": IBUG_68.contours["jaw"]}}, "contours: expected the contours jaw"),
        ({"mirror": (*range(1, 68), 0)}, "mirror: expected its own inverse"),
        ({"mirror": (0,) * 68}, "mirror: expected every point once"),
        ({"chin": 68}, "points: expected numbers of points"),
    ],
)
def test_a_scheme_that_contradicts_itself_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(IBUG_68, **change)  # pyright: ignore[reportArgumentType]


# -- a rig of another scheme ---------------------------------------------------------------------------------------


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> LandmarkLayout:
    """iBUG with one point more, on the throat."""
    layout = replace(
        IBUG_68,
        name="other69",
        names=(*IBUG_68.names, "throat"),
        sets={**IBUG_68.sets, "jaw": (*IBUG_68.sets["jaw"], 68)},
        mirror=(*IBUG_68.mirror, 68),
        midline=(*IBUG_68.midline, 68),
    )
    monkeypatch.setitem(LAYOUTS, layout.name, layout)
    return layout


def test_a_rig_keeps_its_scheme_in_its_file(head: Rig, other: LandmarkLayout, tmp_path: Path) -> None:
    faces, barycentrics = (torch.cat([part, part[8:9]]) for part in head.require_landmarks())
    rig = replace(head, landmark_faces=faces, landmark_barycentrics=barycentrics, layout=other)
    rig.save(tmp_path / "rig.npz")
    again = Rig.load(tmp_path / "rig.npz")
    assert again.layout is other
    small = again.landmark_rig()
    assert small.landmarks(small.neutral[None]).shape == (1, 69, 3)
    with pytest.raises(InputError, match="landmark_faces: found shape"):
        replace(rig, layout=IBUG_68)


def test_a_rig_file_without_a_scheme_has_ibugs(head: Rig, tmp_path: Path) -> None:
    head.save(tmp_path / "rig.npz")
    with np.load(tmp_path / "rig.npz") as file:
        assert "landmark_layout" not in file
    assert Rig.load(tmp_path / "rig.npz").layout is IBUG_68


# -- the number ----------------------------------------------------------------------------------------------------

# Where the number may be: the schemes, a head and networks that were made for one, and files that are written in one.
MAY_SAY_68 = ("scene/landmark_layout.py", "builtin_head/", "landmarks/compact.py", "landmarks/fan.py", "io/")
_IN_WORDS = re.compile(r"(?<![\w.])68(?!\d)")


def places_of_68(source: str) -> Iterator[int]:
    """The lines with the whole number 68, or with 68 in a text: a docstring, a message, the shape of an annotation."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant):
            value = node.value
            if (type(value) is int and value == 68) or (isinstance(value, str) and _IN_WORDS.search(value)):
                yield node.lineno


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 68", True),
        ("def f(a: Float[Tensor, 'b 68 2']): ...", True),
        ("raise ValueError(f'{n} points; expected 68')", True),
        ("'''`[68, 2]` pixels.'''", True),
        ("x = 0.68, 680, 168", False),
        ("'''0.68, 680, IBUG_68'''", False),
    ],
)
def test_the_number_is_found(source: str, found: bool) -> None:
    assert bool(list(places_of_68(source))) is found


def test_only_landmark_schemes_know_how_many_landmarks_there_are() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(MAY_SAY_68):
            wrong += [f"{name}:{line}" for line in places_of_68(path.read_text(encoding="utf-8"))]
    assert wrong == []
