"""The parameters of equation 1, `p = (theta, t, jaw, w)`, as a batch of states and as a flat step vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.scene.rotation import so3_exp

JAW_NAMES = ("jaw.rx", "jaw.ry", "jaw.rz", "jaw.tx", "jaw.ty", "jaw.tz")


@dataclass(frozen=True)
class State:
    """A batch of face states, float64.

    Attributes:
        rotation: `[B, 3, 3]`, object to world.
        translation: `[B, 3]` metres, world.
        jaw: `[B, 6]` jaw joint, axis-angle (radians) then translation (metres); zero for a rig without the joint.
        weights: `[B, K]` blendshape weights.
    """

    rotation: Tensor
    translation: Tensor
    jaw: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return self.rotation.shape[0]

    def __getitem__(self, index: Tensor | slice | list[int]) -> State:
        return State(self.rotation[index], self.translation[index], self.jaw[index], self.weights[index])

    @staticmethod
    def identity(batch: int, blendshapes: int, device: torch.device | str = "cpu") -> State:
        """Neutral faces at the world's origin."""
        f64 = {"dtype": torch.float64, "device": device}
        return State(
            torch.eye(3, **f64).expand(batch, 3, 3).clone(),
            torch.zeros(batch, 3, **f64),
            torch.zeros(batch, 6, **f64),
            torch.zeros(batch, blendshapes, **f64),
        )

    @staticmethod
    def stack(parts: list[State]) -> State:
        """Concatenate batches."""
        return State(
            torch.cat([p.rotation for p in parts]),
            torch.cat([p.translation for p in parts]),
            torch.cat([p.jaw for p in parts]),
            torch.cat([p.weights for p in parts]),
        )

    def retract(self, step: Float[Tensor, "b p"]) -> State:
        """Move by a flat step `[rotation 3 | translation 3 | jaw 6 | weights K]`.

        The rotation moves on SO(3), `R <- exp(step) R`: a turn about the world's axes through the rig's origin, so
        that no Euler angle locks. Everything else is added.
        """
        return State(
            so3_exp(step[:, 0:3]) @ self.rotation,
            self.translation + step[:, 3:6],
            self.jaw + step[:, 6:12],
            self.weights + step[:, 12:],
        )
