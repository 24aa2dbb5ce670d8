"""Several energies of the same frames as one least-squares problem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.solve import DivisibleProblem


@dataclass(frozen=True)
class JointEnergy:
    """The residuals of all parts, one after the other.

    Attributes:
        parts: energies of the same frames and parameters.
    """

    parts: tuple[DivisibleProblem, ...]

    def __call__(self, x: Float[Tensor, "b p"]) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at `x`."""
        both = [part(x) for part in self.parts]
        return torch.cat([residual for residual, _ in both], 1), torch.cat([jacobian for _, jacobian in both], 1)

    def take(self, rows: Int[Tensor, " n"]) -> JointEnergy:
        """Some of the frames."""
        return JointEnergy(tuple(part.take(rows) for part in self.parts))
