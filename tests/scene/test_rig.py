"""Equation 1 of a small rig, by hand, and what a rig refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import COLUMNS, NAMES, ROWS, grid_rig
from scipy.spatial.transform import Rotation
from torch import Tensor

from deepenergy import InputError, Jaw, Rig, State
from deepenergy.scene.landmark_layout import IBUG_68

F64 = torch.float64


def random_rotations(count: int, seed: int) -> np.ndarray:
    return Rotation.from_quat(np.random.default_rng(seed).normal(size=(count, 4))).as_matrix()


def states(batch: int = 5, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(
        torch.from_numpy(random_rotations(batch, seed)),
        torch.randn(batch, 3, dtype=F64, generator=generator),
        torch.randn(batch, 6, dtype=F64, generator=generator) * 0.3,
        torch.rand(batch, len(NAMES), dtype=F64, generator=generator),
    )


def by_hand(rig: Rig, state: State, frame: int) -> np.ndarray:
    """Equation 1, one vertex at a time, with scipy's rotations."""
    weights = state.weights[frame].numpy()
    vertices = []
    for v in range(len(rig.neutral)):
        x = rig.neutral[v].double().numpy().copy()
        for k, weight in enumerate(weights):
            x += weight * rig.blendshapes[k, v].double().numpy()
        if rig.jaw is not None:
            pivot, turn = rig.jaw.pivot.double().numpy(), state.jaw[frame].numpy()
            moved = Rotation.from_rotvec(turn[:3]).apply(x - pivot) + pivot + turn[3:]
            share = float(rig.jaw.skin_weights[v])
            x = (1 - share) * x + share * moved
        vertices.append(state.rotation[frame].numpy() @ x + state.translation[frame].numpy())
    return np.array(vertices)


@pytest.mark.parametrize("jaw", [True, False])
def test_vertices_are_equation_1(jaw: bool) -> None:
    rig, state = grid_rig(jaw), states()
    found = rig.vertices(state)
    assert found.dtype == F64
    assert found.shape == (5, len(rig.neutral), 3)
    for frame in range(5):
        np.testing.assert_allclose(found[frame].numpy(), by_hand(rig, state, frame), atol=1e-12)


def test_neutral_state_is_the_neutral_mesh() -> None:
    rig = grid_rig()
    found = rig.vertices(State.identity(1, len(NAMES)))[0]
    torch.testing.assert_close(found, rig.neutral.double())


def test_batched_equals_looped() -> None:
    rig, state = grid_rig(), states()
    looped = torch.cat([rig.vertices(state[[i]]) for i in range(5)])
    torch.testing.assert_close(rig.vertices(state), looped)
    torch.testing.assert_close(rig.landmarks(rig.vertices(state)), rig.landmarks(looped))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_a_rigid_move_keeps_all_distances(seed: int) -> None:
    rig, state = grid_rig(), states(1, seed)
    still = replace(state, rotation=torch.eye(3, dtype=F64)[None], translation=torch.zeros(1, 3, dtype=F64))
    a, b = rig.vertices(state)[0], rig.vertices(still)[0]
    torch.testing.assert_close(torch.pdist(a), torch.pdist(b), atol=1e-10, rtol=0)


def test_a_vertex_off_the_jaw_stays_and_one_on_it_turns_about_the_pivot() -> None:
    rig = grid_rig()
    assert rig.jaw is not None
    jaw = torch.tensor([[0.4, 0, 0, 0, 0, 0]], dtype=F64)
    moved = rig.local_vertices(torch.zeros(1, len(NAMES), dtype=F64), jaw)[0]
    start, pivot = rig.neutral.double(), rig.jaw.pivot.double()
    off, on = rig.jaw.skin_weights == 0, rig.jaw.skin_weights == 1
    torch.testing.assert_close(moved[off], start[off])
    torch.testing.assert_close((moved[on] - pivot).norm(dim=1), (start[on] - pivot).norm(dim=1))
    assert bool((moved[on][:, 1] < start[on][:, 1]).all())  # opening (+X) takes the front of the jaw down


def test_jaw_bounds_open_much_and_slide_little() -> None:
    lower, upper = Jaw.default_bounds()
    assert bool((lower < 0).all() and (upper > 0).all())
    assert math.degrees(float(upper[0])) == pytest.approx(35, abs=0.1)
    assert float(upper[3:].max()) <= 0.0121


def test_landmarks_are_points_in_their_triangles() -> None:
    rig = grid_rig()
    vertices = rig.vertices(states())
    faces, barycentrics = rig.require_landmarks()
    for point in (0, 33, 67):
        corners = vertices[:, rig.faces[faces[point]]]
        expected = sum(corners[:, i] * barycentrics[point, i].double() for i in range(3))
        torch.testing.assert_close(rig.landmarks(vertices)[:, point], expected)


@pytest.mark.parametrize("jaw", [True, False])
def test_landmark_rig_gives_the_same_landmarks(jaw: bool) -> None:
    rig, state = grid_rig(jaw), states()
    small = rig.landmark_rig()
    assert small.faces.shape == (IBUG_68.count, 3)
    assert len(small.neutral) <= len(rig.neutral)
    torch.testing.assert_close(small.landmarks(small.vertices(state)), rig.landmarks(rig.vertices(state)))
    assert small.groups == rig.groups


def test_with_identity_adds_the_basis() -> None:
    rig = grid_rig()
    assert rig.identity_basis is not None
    person = rig.with_identity(torch.tensor([0.5, -2.0]))
    expected = rig.neutral + 0.5 * rig.identity_basis[0] - 2 * rig.identity_basis[1]
    torch.testing.assert_close(person.neutral, expected)
    assert person.identity_basis is None
    assert person.identity_names == ()
    small = rig.landmark_rig().with_identity(torch.tensor([0.5, -2.0]))
    torch.testing.assert_close(small.landmarks(small.neutral[None]), person.landmarks(person.neutral[None]))


def test_with_identity_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="identity: found 3 coefficients; expected 2"):
        grid_rig().with_identity(torch.zeros(3))
    with pytest.raises(InputError, match="expected 0"):
        grid_rig(identity=False).with_identity(torch.zeros(1))


def test_groups_come_from_names_and_overrides() -> None:
    rig = grid_rig()
    assert rig.groups["jaw_open"] == (0,)
    assert rig.groups["mouth"] == (1,)
    moved = replace(rig, group_overrides={"brows": ["mouthSmile_L"]})
    assert moved.groups["brows"] == (1, 2)
    assert moved.landmark_rig().groups == moved.groups


def test_gradient_is_the_finite_difference() -> None:
    rig = grid_rig().landmark_rig()
    start = states(2)

    def landmarks(step: Tensor) -> Tensor:
        return rig.landmarks(rig.vertices(start.retract(step)))[:, ::9]

    step = 0.1 * torch.randn(2, 12 + len(NAMES), dtype=F64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(landmarks, (step.requires_grad_(),), check_forward_ad=True)


def test_landmarks_at_vertices() -> None:
    rig = grid_rig()
    indices = torch.randperm(ROWS * COLUMNS, generator=torch.Generator().manual_seed(2)).repeat(2)[: IBUG_68.count]
    marked = rig.with_landmark_vertices(indices)
    vertices = marked.vertices(states())
    torch.testing.assert_close(marked.landmarks(vertices), vertices[:, indices])


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.zeros(67, dtype=torch.int64), "67 vertex indices; expected 68"),
        (torch.full((68,), ROWS * COLUMNS), "vertex index 48; expected 0..47"),
        (torch.full((68,), -1), "expected 0..47"),
    ],
)
def test_wrong_landmark_vertices_are_refused(indices: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid_rig().with_landmark_vertices(indices)


def test_a_landmark_vertex_without_triangle_is_refused() -> None:
    rig = grid_rig()
    loose = Rig(
        name="loose",
        neutral=torch.cat([rig.neutral, torch.zeros(1, 3)]),
        faces=rig.faces,
        blendshapes=torch.zeros(0, ROWS * COLUMNS + 1, 3),
        weight_names=(),
    )
    with pytest.raises(InputError, match=r"vertices \[48\] in no triangle"):
        loose.with_landmark_vertices(torch.cat([torch.zeros(67, dtype=torch.int64), torch.tensor([48])]))


def test_a_rig_without_landmarks_says_how_to_give_them() -> None:
    rig = replace(grid_rig(), landmark_faces=None, landmark_barycentrics=None)
    with pytest.raises(InputError, match="landmarks: found none.*indices"):
        rig.require_landmarks()
    with pytest.raises(InputError):
        rig.landmark_rig()


def broken(what: str) -> Tensor:
    value = getattr(grid_rig(), what).clone()
    value.view(-1)[5] = math.nan
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neutral": torch.zeros(48, 2)}, r"neutral: found shape \(48, 2\)"),
        ({"faces": torch.zeros(3, 4, dtype=torch.int64)}, "faces: found shape"),
        ({"faces": torch.zeros(0, 3, dtype=torch.int64)}, "without triangles"),
        ({"faces": torch.full((2, 3), 48)}, r"indices 48..48; expected 0..47"),
        ({"faces": torch.full((2, 3), -1)}, "expected 0..47"),
        ({"blendshapes": torch.zeros(3, 47, 3)}, "blendshapes: found shape"),
        ({"weight_names": ("a", "b")}, "blendshapes: found shape"),
        ({"weight_names": ("a", "b", "a")}, r"\['a'\] twice"),
        ({"neutral": broken("neutral")}, "neutral: found NaN"),
        ({"blendshapes": broken("blendshapes")}, "blendshapes: found NaN"),
        ({"landmark_faces": torch.zeros(67, dtype=torch.int64)}, "landmark_faces: found shape"),
        ({"landmark_faces": torch.full((68,), 70)}, "triangle 70; expected 0..69"),
        ({"landmark_barycentrics": torch.zeros(68, 2)}, "landmark_barycentrics: found shape"),
        ({"vertex_albedo": torch.zeros(47, 3)}, "vertex_albedo: found shape"),
        ({"uv_faces": torch.zeros(3, 3, dtype=torch.int64)}, "uv_faces: found shape"),
    ],
)
def test_inconsistent_rigs_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        replace(grid_rig(), **changes)
    assert "rig 'sheet'" in str(caught.value)


def test_defaults() -> None:
    rig = replace(grid_rig(), uvs=torch.zeros(48, 2), uv_faces=None, weight_bounds=None, face_regions=None)
    assert rig.weight_bounds is not None and rig.weight_bounds.tolist() == [[0, 1]] * 3
    assert rig.uv_faces is not None and torch.equal(rig.uv_faces, rig.faces)
    assert rig.face_regions is not None and not bool(rig.face_regions.any())


def test_to_moves_every_tensor() -> None:
    moved = grid_rig().to("cpu")
    assert moved.jaw is not None
    torch.testing.assert_close(moved.vertices(states()), grid_rig().vertices(states()))


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.glb", "no file"), ("rig.fbx", r"ending '\.fbx'.*expected one of .*\.glb")],
)
def test_load_refuses_what_it_cannot_read(tmp_path: Path, name: str, message: str) -> None:
    if name != "absent.glb":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        Rig.load(tmp_path / name)
