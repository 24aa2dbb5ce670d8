"""Random least-squares problems by the hundred, for torch all at once and for scipy one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import least_squares
from torch import Tensor

from deepenergy.runtime.threads import map_in_threads
from deepenergy.solve import Solution, minimise

TOLERANCE = 1e-10
_GAIN, _RESPONSE, _TRUTH, _NOISE = 1.0, 2.0, 1.25, 0.05


class Maps(Protocol):
    """S problems `r(x) - y` within `-1 <= x <= 1`."""

    @property
    def target(self) -> Float[Tensor, "s r"]:
        """y."""
        ...

    @property
    def parameters(self) -> int:
        """P."""
        ...

    def __call__(self, x: Float[Tensor, "s p"], /) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        """All residuals and Jacobians."""
        ...

    def take(self, rows: Int[Tensor, " n"]) -> Maps:
        """Some of the problems."""
        ...

    def alone(self, index: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual and Jacobian of one problem, in numpy."""
        ...


@dataclass(frozen=True)
class SaturatingShapes:
    """`r(x) = A tanh(2 x) - y`: shapes whose controls saturate, a blendshape fit of the simplest nonlinear kind.

    Attributes:
        shapes: `[S, R, P]`, A.
        target: `[S, R]`, y.
    """

    shapes: Float[Tensor, "s r p"]
    target: Float[Tensor, "s r"]

    @staticmethod
    def random(count: int, residuals: int, parameters: int, seed: int = 0) -> SaturatingShapes:
        """Draw them; the same for the same numbers."""
        normal, uniform = _generators(seed)
        shapes = normal(count, residuals, parameters) / parameters**0.5
        truth = torch.tanh(_RESPONSE * uniform(count, parameters))
        return SaturatingShapes(shapes, (shapes @ truth[:, :, None]).squeeze(2) + _NOISE * normal(count, residuals))

    @property
    def parameters(self) -> int:
        """P."""
        return self.shapes.shape[2]

    def __call__(self, x: Float[Tensor, "s p"], /) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        """All residuals and Jacobians."""
        response = torch.tanh(_RESPONSE * x)
        residual = (self.shapes @ response[:, :, None]).squeeze(2) - self.target
        return residual, self.shapes * (_RESPONSE * (1 - response.square()))[:, None, :]

    def take(self, rows: Int[Tensor, " n"]) -> SaturatingShapes:
        """Some of the problems."""
        return SaturatingShapes(self.shapes[rows], self.target[rows])

    def alone(self, index: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual and Jacobian of one problem, in numpy."""
        shapes, response = self.shapes[index].numpy(), np.tanh(_RESPONSE * x)
        return shapes @ response - self.target[index].numpy(), shapes * (_RESPONSE * (1 - response**2))


@dataclass(frozen=True)
class TwoLayerMaps:
    """`r(x) = A tanh(B x) - y`: every parameter in every residual, through a product that the Jacobian needs again.

    Attributes:
        outer: `[S, R, P]`, A.
        inner: `[S, P, P]`, B.
        target: `[S, R]`, y.
    """

    outer: Float[Tensor, "s r p"]
    inner: Float[Tensor, "s p p"]
    target: Float[Tensor, "s r"]

    @staticmethod
    def random(count: int, residuals: int, parameters: int, seed: int = 0) -> TwoLayerMaps:
        """Draw them; the same for the same numbers."""
        normal, uniform = _generators(seed)
        outer = normal(count, residuals, parameters) / parameters**0.5
        inner = _GAIN * normal(count, parameters, parameters) / parameters**0.5
        clean = outer @ torch.tanh(inner @ uniform(count, parameters)[:, :, None])
        return TwoLayerMaps(outer, inner, clean.squeeze(2) + _NOISE * normal(count, residuals))

    @property
    def parameters(self) -> int:
        """P."""
        return self.inner.shape[1]

    def __call__(self, x: Float[Tensor, "s p"], /) -> tuple[Float[Tensor, "s r"], Float[Tensor, "s r p"]]:
        """All residuals and Jacobians."""
        hidden = torch.tanh(self.inner @ x[:, :, None])
        both = self.outer @ torch.cat([hidden, (1 - hidden.square()) * self.inner], 2)
        return both[:, :, 0] - self.target, both[:, :, 1:]

    def take(self, rows: Int[Tensor, " n"]) -> TwoLayerMaps:
        """Some of the problems."""
        return TwoLayerMaps(self.outer[rows], self.inner[rows], self.target[rows])

    def alone(self, index: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual and Jacobian of one problem, in numpy."""
        outer, inner = self.outer[index].numpy(), self.inner[index].numpy()
        hidden = np.tanh(inner @ x)
        return outer @ hidden - self.target[index].numpy(), outer @ ((1 - hidden**2)[:, None] * inner)


KINDS: dict[str, type[SaturatingShapes] | type[TwoLayerMaps]] = {"shapes": SaturatingShapes, "two_layer": TwoLayerMaps}


def solve(maps: Maps, max_iterations: int = 200) -> Solution:
    """All at once, from 0, by the dogleg, up to the bounds at once."""
    start = maps.target.new_zeros(len(maps.target), maps.parameters)
    one = torch.ones_like(start[0])
    return minimise(
        maps, start, -one, one, max_iterations=max_iterations,
        gradient_tolerance=TOLERANCE, step_tolerance=TOLERANCE, cost_tolerance=TOLERANCE,
        approach="direct", map_parts=map_in_threads,
    )  # fmt: skip


def solve_by_scipy(maps: Maps, index: int, method: str) -> tuple[float, int]:
    """One of them by scipy: its cost and evaluations."""
    found = least_squares(
        lambda x: maps.alone(index, x)[0],
        np.zeros(maps.parameters),
        lambda x: maps.alone(index, x)[1],  # pyright: ignore[reportArgumentType]
        (-1, 1), method, TOLERANCE, TOLERANCE, TOLERANCE, "jac", max_nfev=200,
    )  # fmt: skip
    return float(found.cost), int(found.nfev)


def _generators(seed: int):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return _TRUTH * (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1)

    return normal, uniform
