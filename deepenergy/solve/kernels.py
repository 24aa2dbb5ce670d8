"""Robust kernels: what a residual may cost at most.

A kernel `rho(s)` of the squared length `s = |r_g|^2` of a group of residuals replaces `s` in the cost:

    1/2 sum_g rho(|r_g|^2),     rho(s) ~ s near 0.

A group is what counts as one observation: the two coordinates of a landmark, say, so that a landmark is an outlier in
any direction alike. With `z = s / scale^2`:

    Huber           s                    for z <= 1,  scale^2 (2 sqrt(z) - 1) beyond: linear in the distance
    Cauchy          scale^2 log(1 + z)
    Geman-McClure   scale^2 z / (1 + z)
    Welsch          scale^2 (1 - exp(-z))

The treatment is iteratively reweighted least squares: residuals and Jacobian rows are both multiplied by
`sqrt(rho'(s))`. The gradient `J^T rho' r` is exact; the curvature `J^T rho' J` leaves out the term in `rho''`. All four
are concave in `s`, so that what is left out is negative: the quadratic lies above the cost (to first order in r) and
its steps err to the short side. Triggs' correction (Triggs et al. 2000, section 4.3), which keeps the term, loses
positive definiteness exactly at the outliers, beyond the inflection of the kernel, and has to be cut off there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Kernel:
    """A robust kernel.

    Attributes:
        scale: length of a group of residuals from which it starts to count less, in the unit of the residual; > 0.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"scale: {self.scale}: expected a positive, finite length")

    def rho(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """`rho(s)` and its derivative, for squared lengths `s >= 0`."""
        return square, torch.ones_like(square)


class Huber(Kernel):
    """Quadratic up to the scale, linear beyond: outliers pull with a constant force."""

    def rho(self, square: Tensor) -> tuple[Tensor, Tensor]:
        limit = self.scale * self.scale
        far = square > limit
        root = torch.where(far, square, torch.ones_like(square)).sqrt()
        value = torch.where(far, 2 * self.scale * root - limit, square)
        return value, torch.where(far, self.scale / root, torch.ones_like(square))


class Cauchy(Kernel):
    """Grows as the logarithm: the pull of an outlier fades as 1 / distance."""

    def rho(self, square: Tensor) -> tuple[Tensor, Tensor]:
        limit = self.scale * self.scale
        return limit * torch.log1p(square / limit), 1 / (1 + square / limit)


class GemanMcClure(Kernel):
    """Bounded by scale^2: a far outlier has no pull to speak of."""

    def rho(self, square: Tensor) -> tuple[Tensor, Tensor]:
        near = 1 / (1 + square / (self.scale * self.scale))
        return square * near, near * near


class Welsch(Kernel):
    """Bounded by scale^2, and quicker to forget than Geman-McClure."""

    def rho(self, square: Tensor) -> tuple[Tensor, Tensor]:
        limit = self.scale * self.scale
        return -limit * torch.expm1(-square / limit), torch.exp(-square / limit)


@dataclass(frozen=True)
class Block:
    """Residuals under one kernel.

    Attributes:
        residuals: which ones, as a slice or as indices into R.
        kernel: what their groups cost.
        group_size: how many consecutive ones (in the order of `residuals`) count as one.
    """

    residuals: slice | Int[Tensor, " n"]
    kernel: Kernel
    group_size: int = 1

    def indices(self, count: int, device: torch.device) -> Int[Tensor, " n"]:
        """The residuals as indices; `ValueError` where they are not whole groups."""
        every = torch.arange(count, device=device)
        chosen = every[self.residuals if isinstance(self.residuals, slice) else self.residuals.to(device)]
        if self.group_size < 1 or len(chosen) % self.group_size:
            raise ValueError(f"block: {len(chosen)} residuals are not whole groups of {self.group_size}")
        return chosen


Weighting = Callable[[Tensor], tuple[Tensor, "Tensor | None"]]


def weighting(blocks: Sequence[Block] | None, count: int, device: torch.device) -> Weighting:
    """A function from residuals `[S, R]` to the cost `[S]` and the square roots of their weights (None for all one).

    Raises:
        ValueError: blocks that overlap, or that are not whole groups.
    """
    placed = [(block, block.indices(count, device)) for block in blocks or ()]
    everything = torch.cat([index for _, index in placed]) if placed else torch.arange(0)
    if len(torch.unique(everything)) != len(everything):
        raise ValueError("kernels: a residual in two blocks; a residual may be under one kernel at most")
    plain = torch.ones(count, dtype=torch.bool, device=device)
    if placed:
        plain[everything] = False

    def weigh(residual: Float[Tensor, "s r"]) -> tuple[Float[Tensor, " s"], Float[Tensor, "s r"] | None]:
        if not placed:
            return 0.5 * residual.square().sum(1), None
        cost = 0.5 * residual[:, plain].square().sum(1)
        roots = torch.ones_like(residual)
        for block, index in placed:
            groups = residual[:, index].reshape(len(residual), -1, block.group_size)
            value, slope = block.kernel.rho(groups.square().sum(2))
            cost = cost + 0.5 * value.sum(1)
            roots[:, index] = slope.sqrt().repeat_interleave(block.group_size, 1)
        return cost, roots

    return weigh
