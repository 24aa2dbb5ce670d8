"""Terms of one least-squares problem, and the stack that joins them.

A term knows all about its own rows: residuals and Jacobian, the robust kernel on them, and the places of the face that
they come from. Whoever needs one of these for the whole problem asks the stack, and nobody counts rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.energy.uncertainty import patches
from deepenergy.solve import Block


@dataclass(frozen=True)
class RowPlaces:
    """Where on the neutral face the rows of a term come from.

    Attributes:
        position: `[N, 3]` places, metres.
        row: `[R]` which of them each row belongs to; -1 for rows of a prior.
    """

    position: Tensor
    row: Tensor


class Term(Protocol):
    """Residuals of B frames by a flat step from their states (`State.retract`)."""

    def __call__(self, x: Float[Tensor, "b p"], /) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at `x`."""
        ...

    def take(self, rows: Int[Tensor, " n"], /) -> Term:
        """The term of some of the frames."""
        ...

    def kernels(self) -> list[Block]:
        """Robust kernels on its rows, which count from 0; empty for plain squares."""
        ...

    def places(self) -> RowPlaces:
        """Where its rows come from."""
        ...


@dataclass(frozen=True)
class Stack:
    """The residuals of all terms, one after the other.

    Attributes:
        terms: terms of the same frames and parameters.
    """

    terms: tuple[Term, ...]

    def __call__(self, x: Float[Tensor, "b p"]) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at `x`."""
        if len(self.terms) == 1:
            return self.terms[0](x)
        both = [term(x) for term in self.terms]
        return torch.cat([residual for residual, _ in both], 1), torch.cat([jacobian for _, jacobian in both], 1)

    def take(self, rows: Int[Tensor, " n"]) -> Stack:
        """Some of the frames."""
        return Stack(tuple(term.take(rows) for term in self.terms))

    def kernels(self) -> list[Block]:
        """The kernels of all terms, on the rows of the stack."""
        blocks, first = [], 0
        for term in self.terms:
            count = len(term.places().row)
            every = torch.arange(first, first + count)
            blocks += [replace(block, residuals=every[block.residuals]) for block in term.kernels()]
            first += count
        return blocks

    def patches(self) -> Int[Tensor, " r"]:
        """The patch of the face that every row belongs to (`uncertainty.patches`); -1 for rows of priors."""
        places = [term.places() for term in self.terms]
        cell = patches(torch.cat([place.position for place in places]))
        found, first = [], 0
        for place in places:
            own = torch.cat([cell[first : first + len(place.position)], cell.new_full((1,), -1)])
            # The last entry, which index -1 means, is the prior's.
            found.append(own[place.row])
            first += len(place.position)
        return torch.cat(found)
