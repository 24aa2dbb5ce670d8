"""The parameters of equation 1, `p = (theta, t, jaw, w)`, as a batch of states and as a flat step vector."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.scene.rotation import so3_exp

# Lowest and highest (jaw 6, weights K), float64.
Limits = tuple[Float[Tensor, " q"], Float[Tensor, " q"]]
PARTS = ("rotation", "translation", "jaw", "weights")
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

    @property
    def size(self) -> int:
        """Numbers in a flat step: 12 for pose and jaw, and one for each weight."""
        return 12 + self.weights.shape[1]

    @property
    def controls(self) -> Float[Tensor, "b q"]:
        """Jaw and weights in one, as `Limits` has them."""
        return torch.cat([self.jaw, self.weights], 1)

    def to(self, like: Tensor) -> State:
        """The states in another tensor's dtype, on its device."""
        return State(*(part.to(like) for part in (self.rotation, self.translation, self.jaw, self.weights)))

    def put(self, rows: Int[Tensor, " n"], part: State) -> State:
        """The states with some of them replaced by `part`, in the order of `rows`."""
        return State(*(getattr(self, n).index_copy(0, rows, getattr(part, n)) for n in PARTS))

    def where(self, chosen: Bool[Tensor, " b"], other: State) -> State:
        """These states where `chosen`, the other ones elsewhere; bit for bit."""
        row, matrix = chosen[:, None], chosen[:, None, None]
        return State(
            torch.where(matrix, self.rotation, other.rotation),
            *(torch.where(row, getattr(self, n), getattr(other, n)) for n in PARTS[1:]),
        )

    def clamped(self, limits: Limits) -> State:
        """The states with jaw and weights put back into their limits."""
        inside = self.controls.clamp(*limits)
        return replace(self, jaw=inside[:, :6], weights=inside[:, 6:])

    def step_bounds(self, limits: Limits) -> tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]]:
        """Lowest and highest flat steps that keep jaw and weights within their limits; the pose is free."""
        own = self.controls
        room = torch.full_like(own[:, :6], torch.inf)
        return torch.cat([-room, limits[0] - own], 1), torch.cat([room, limits[1] - own], 1)

    def moved(self, transform: Float[Tensor, "b 4 4"]) -> State:
        """The same faces in another world: `x_new = transform @ [x, 1]`, rigid, one for all states or one for each."""
        turn = transform[:, :3, :3].to(self.rotation)
        shift = (turn @ self.translation[..., None])[..., 0] + transform[:, :3, 3].to(self.translation)
        return replace(self, rotation=turn @ self.rotation, translation=shift)

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
