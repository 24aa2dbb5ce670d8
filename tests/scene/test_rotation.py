"""Rotations against scipy, and the invariants that any rotation has."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from deepenergy.scene import rotation as ours

F64 = torch.float64
vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3)
unit_angles = st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3)


def matrices(seed: int, count: int = 64) -> torch.Tensor:
    quaternions = np.random.default_rng(seed).normal(size=(count, 4))
    return torch.from_numpy(Rotation.from_quat(quaternions).as_matrix())


def assert_rotation(matrix: torch.Tensor) -> None:
    eye = torch.eye(3, dtype=matrix.dtype)
    torch.testing.assert_close(matrix @ matrix.transpose(-1, -2), eye.expand_as(matrix), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(matrix.shape[:-2], dtype=matrix.dtype))


def test_euler_is_scipys_extrinsic_xyz() -> None:
    euler = np.random.default_rng(0).uniform(-math.pi, math.pi, (200, 3))
    expected = Rotation.from_euler("xyz", euler).as_matrix()
    torch.testing.assert_close(ours.euler_to_matrix(torch.from_numpy(euler)), torch.from_numpy(expected))


def test_matrix_to_euler_is_scipys() -> None:
    found = ours.matrix_to_euler(matrices(1))
    expected = Rotation.from_matrix(matrices(1).numpy()).as_euler("xyz")
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize("y", [math.pi / 2, -math.pi / 2])
def test_matrix_to_euler_at_the_gimbal_lock(y: float) -> None:
    euler = torch.tensor([[0.3, y, -0.7], [-2.0, y, 1.0]], dtype=F64)
    matrix = ours.euler_to_matrix(euler)
    found = ours.matrix_to_euler(matrix)
    torch.testing.assert_close(ours.euler_to_matrix(found), matrix, atol=1e-9, rtol=0)
    assert (found[:, 2] == 0).all()


@given(unit_angles)
def test_euler_round_trip(angles: list[float]) -> None:
    matrix = ours.euler_to_matrix(torch.tensor(angles, dtype=F64))
    assert_rotation(matrix)
    torch.testing.assert_close(ours.euler_to_matrix(ours.matrix_to_euler(matrix)), matrix, atol=1e-7, rtol=0)


def test_hat_is_the_cross_product() -> None:
    a, b = torch.randn(2, 10, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((ours.hat(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b))


def test_so3_exp_is_scipys_rotvec() -> None:
    generator = np.random.default_rng(2)
    vector = generator.normal(size=(100, 3)) * 10.0 ** generator.uniform(-12, 0.5, (100, 1))
    expected = torch.from_numpy(Rotation.from_rotvec(vector).as_matrix())
    torch.testing.assert_close(ours.so3_exp(torch.from_numpy(vector)), expected, atol=1e-13, rtol=1e-12)


def test_so3_log_is_scipys_rotvec() -> None:
    expected = torch.from_numpy(Rotation.from_matrix(matrices(3).numpy()).as_rotvec())
    torch.testing.assert_close(ours.so3_log(matrices(3)), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1.0, math.pi - 1e-6, math.pi])
def test_so3_log_at_every_size_of_angle(angle: float) -> None:
    axes = torch.nn.functional.normalize(
        torch.randn(20, 3, dtype=F64, generator=torch.Generator().manual_seed(4)), dim=1
    )
    found = ours.so3_log(ours.so3_exp(angle * axes))
    # At pi both signs of the axis are the same rotation.
    error = torch.minimum((found - angle * axes).norm(dim=1), (found + angle * axes).norm(dim=1) + (angle < math.pi))
    assert float(error.max()) < 1e-8


@given(vectors)
def test_exp_and_log_are_inverse(vector: list[float]) -> None:
    start = torch.tensor(vector, dtype=F64)
    matrix = ours.so3_exp(start)
    assert_rotation(matrix)
    torch.testing.assert_close(ours.so3_exp(ours.so3_log(matrix)), matrix, atol=1e-9, rtol=0)
    if start.norm() < 3:
        torch.testing.assert_close(ours.so3_log(matrix), start, atol=1e-7, rtol=0)


def test_quaternions_are_scipys() -> None:
    # Half turns exercise every branch of Shepperd's method.
    half_turns = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]], dtype=F64))
    every = torch.cat([matrices(5), half_turns])
    found = ours.matrix_to_quaternion(every)
    scipys = Rotation.from_matrix(every.numpy()).as_quat()[:, [3, 0, 1, 2]]
    scipys = torch.from_numpy(scipys * np.where(scipys[:, :1] < 0, -1, 1))
    same = torch.minimum((found - scipys).norm(dim=1), (found + scipys).norm(dim=1) + (found[:, 0] > 1e-9))
    assert float(same.max()) < 1e-9
    assert bool((found[:, 0] >= 0).all())
    torch.testing.assert_close(ours.quaternion_to_matrix(found), every, atol=1e-12, rtol=0)


@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 1e-3))
def test_quaternion_to_matrix_normalises(quaternion: list[float]) -> None:
    matrix = ours.quaternion_to_matrix(torch.tensor(quaternion, dtype=F64))
    assert_rotation(matrix)
    expected = Rotation.from_quat([*quaternion[1:], quaternion[0]]).as_matrix()
    torch.testing.assert_close(matrix, torch.from_numpy(expected), atol=1e-12, rtol=0)


@settings(max_examples=50)
@given(vectors, vectors)
def test_rotation_angle_is_a_distance(a: list[float], b: list[float]) -> None:
    first, second = ours.so3_exp(torch.tensor([a, b], dtype=F64))
    angle = float(ours.rotation_angle(first, second))
    assert 0 <= angle <= math.pi
    assert angle == pytest.approx(float(ours.rotation_angle(second, first)), abs=1e-9)
    scipys = (Rotation.from_matrix(first.numpy()).inv() * Rotation.from_matrix(second.numpy())).magnitude()
    assert angle == pytest.approx(scipys, abs=1e-7)


def test_rotation_angle_resolves_tiny_turns() -> None:
    tiny = ours.so3_exp(torch.tensor([[1e-10, 0, 0]], dtype=F64))
    assert float(ours.rotation_angle(torch.eye(3, dtype=F64)[None], tiny)) == pytest.approx(1e-10, rel=1e-4)


FUNCTIONS = {
    "euler_to_matrix": (ours.euler_to_matrix, torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(6))),
    "so3_exp": (ours.so3_exp, torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(7))),
    "matrix_to_euler": (ours.matrix_to_euler, matrices(8, 5)),
    "so3_log": (ours.so3_log, matrices(9, 5)),
    "matrix_to_quaternion": (ours.matrix_to_quaternion, matrices(10, 5)),
    "quaternion_to_matrix": (
        ours.quaternion_to_matrix,
        torch.randn(5, 4, dtype=F64, generator=torch.Generator().manual_seed(11)),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_batched_equals_looped(name: str) -> None:
    function, values = FUNCTIONS[name]
    looped = torch.stack([function(value) for value in values])
    torch.testing.assert_close(function(values), looped)
    nested = values.expand(2, *values.shape)
    torch.testing.assert_close(function(nested), looped.expand(2, *looped.shape))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_the_finite_difference(name: str) -> None:
    function, values = FUNCTIONS[name]
    assert torch.autograd.gradcheck(function, (values.clone().requires_grad_(),), check_forward_ad=True)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 5e-5, 2e-4, 3.0])
def test_so3_exp_gradient_around_zero(scale: float) -> None:
    vector = scale * torch.tensor([[0.2, -0.7, 0.5]], dtype=F64)
    assert torch.autograd.gradcheck(ours.so3_exp, (vector.requires_grad_(),), check_forward_ad=True)
    jacobian = torch.func.jacfwd(ours.so3_exp)(vector[0].detach())
    assert bool(torch.isfinite(jacobian).all())


def test_so3_exp_at_zero_has_the_generators_as_derivative() -> None:
    jacobian = torch.func.jacfwd(ours.so3_exp)(torch.zeros(3, dtype=F64))
    torch.testing.assert_close(jacobian.permute(2, 0, 1), ours.hat(torch.eye(3, dtype=F64)))


def test_dtype_is_kept() -> None:
    for function, values in FUNCTIONS.values():
        assert function(values.float()).dtype == torch.float32


@pytest.mark.parametrize("length", [0.0, 1e-5, 1e-3, 0.5, 3.0])
def test_left_jacobian_against_scipy(length: float) -> None:
    vector = length * torch.tensor([0.6, -0.64, 0.48], dtype=F64)
    jacobian = ours.left_jacobian(vector[None])[0].numpy()
    for axis in np.eye(3):
        h = 1e-6
        moved = Rotation.from_rotvec(vector.numpy() + h * axis) * Rotation.from_rotvec(vector.numpy()).inv()
        np.testing.assert_allclose(jacobian @ axis, moved.as_rotvec() / h, atol=1e-5)
