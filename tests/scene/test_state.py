"""States of equation 1 and steps between them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from deepenergy import State
from deepenergy.scene.rotation import so3_exp
from deepenergy.scene.state import JAW_NAMES

F64 = torch.float64


def random_rotations(count: int, seed: int) -> np.ndarray:
    return Rotation.from_quat(np.random.default_rng(seed).normal(size=(count, 4))).as_matrix()


def states(batch: int = 4, shapes: int = 3, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return State(
        torch.from_numpy(random_rotations(batch, seed)),
        torch.randn(batch, 3, dtype=F64, generator=generator),
        torch.randn(batch, 6, dtype=F64, generator=generator) * 0.1,
        torch.rand(batch, shapes, dtype=F64, generator=generator),
    )


def same(a: State, b: State) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("rotation", "translation", "jaw", "weights"))


def test_identity_is_the_neutral_face_at_the_origin() -> None:
    state = State.identity(2, 5)
    assert len(state) == 2
    assert torch.equal(state.rotation, torch.eye(3, dtype=F64).expand(2, 3, 3))
    assert [t.shape for t in (state.translation, state.jaw, state.weights)] == [(2, 3), (2, 6), (2, 5)]
    assert not any(bool(t.any()) for t in (state.translation, state.jaw, state.weights))
    assert {t.dtype for t in (state.rotation, state.translation, state.jaw, state.weights)} == {F64}


def test_a_zero_step_stays() -> None:
    assert same(states().retract(torch.zeros(4, 15, dtype=F64)), states())


def test_retract_turns_about_the_worlds_axes_and_adds_the_rest() -> None:
    state = states()
    step = torch.randn(4, 15, dtype=F64, generator=torch.Generator().manual_seed(1))
    moved = state.retract(step)
    turn = torch.from_numpy(Rotation.from_rotvec(step[:, :3].numpy()).as_matrix())
    torch.testing.assert_close(moved.rotation, turn @ state.rotation)
    torch.testing.assert_close(moved.translation, state.translation + step[:, 3:6])
    torch.testing.assert_close(moved.jaw, state.jaw + step[:, 6:12])
    torch.testing.assert_close(moved.weights, state.weights + step[:, 12:])


def test_retract_stays_a_rotation_over_many_steps() -> None:
    state = states(2)
    step = torch.full((2, 15), 0.3, dtype=F64)
    for _ in range(1000):
        state = state.retract(step)
    torch.testing.assert_close(
        state.rotation @ state.rotation.transpose(-1, -2), torch.eye(3, dtype=F64).expand(2, 3, 3), atol=1e-11, rtol=0
    )


def test_retract_back_and_forth() -> None:
    state = states()
    step = torch.randn(4, 15, dtype=F64, generator=torch.Generator().manual_seed(2)) * 0.2
    back = state.retract(step).retract(-step)
    torch.testing.assert_close(back.rotation, state.rotation)
    torch.testing.assert_close(back.weights, state.weights)


def test_retract_gradient_is_the_finite_difference() -> None:
    state = states(2)

    def rotated(step: torch.Tensor) -> tuple[torch.Tensor, ...]:
        moved = state.retract(step)
        return moved.rotation, moved.translation, moved.jaw, moved.weights

    for scale in (0.0, 0.5):
        step = scale * torch.randn(2, 15, dtype=F64, generator=torch.Generator().manual_seed(3))
        assert torch.autograd.gradcheck(rotated, (step.requires_grad_(),), check_forward_ad=True)


def test_batched_equals_looped() -> None:
    state = states()
    step = torch.randn(4, 15, dtype=F64, generator=torch.Generator().manual_seed(4))
    looped = State.stack([state[[i]].retract(step[[i]]) for i in range(4)])
    torch.testing.assert_close(state.retract(step).rotation, looped.rotation)
    torch.testing.assert_close(state.retract(step).weights, looped.weights)


def test_index_and_stack() -> None:
    state = states()
    assert same(State.stack([state[:1], state[1:]]), state)
    assert same(state[torch.tensor([2, 0])], State.stack([state[[2]], state[[0]]]))
    assert len(state[torch.tensor([True, False, True, False])]) == 2


def test_a_jaw_state_has_six_names() -> None:
    assert len(set(JAW_NAMES)) == states().jaw.shape[1]
    assert so3_exp(states().jaw[:, :3]).shape == (4, 3, 3)
