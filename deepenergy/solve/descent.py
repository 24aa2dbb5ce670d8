"""What a descent owes the search: a model made once at an accepted point, and from it a path for any radius."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.solve.point import Point

ModelT = TypeVar("ModelT", bound="Model")


@dataclass
class Model:
    """Tensors with one row per problem. Made at an accepted point, used for every radius tried from there.

    `well_conditioned` says where products with `J^T J` are as good as those with J.
    """

    well_conditioned: Bool[Tensor, " s"]

    def rows(self: ModelT, rows: Int[Tensor, " n"]) -> ModelT:
        """The models of some problems."""
        kept = {name: value[rows] for name, value in self._tensors().items()}
        return type(self)(**kept)

    def replace_rows(self: ModelT, rows: Int[Tensor, " n"], other: ModelT) -> ModelT:
        """The model with the rows of `other` in the place of its own."""
        mine, theirs = self._tensors(), other._tensors()
        for name, value in theirs.items():
            old = mine[name] if name in mine else value.new_zeros(len(self.well_conditioned), *value.shape[1:])
            mine[name] = old.index_copy(0, rows, value)
        return type(self)(**mine)

    def _tensors(self) -> dict[str, Tensor]:
        """The fields that are not None."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


@dataclass(frozen=True)
class Path:
    """From 0 over `first` to `last`, within the radius; the model falls all along it.

    Attributes:
        first, last: `[S, P]`.
        full: `[S]`, whether `last` is the minimum of the linear model, not cut short by the radius.
    """

    first: Float[Tensor, "s p"]
    last: Float[Tensor, "s p"]
    full: Bool[Tensor, " s"]


class Descent(Protocol):
    """A way down. Lengths are those of `scale * step`, so that parameters of different units weigh alike."""

    def model(
        self,
        point: Point,
        scale: Float[Tensor, "s p"],
        active: Bool[Tensor, "s p"],
    ) -> Model:
        """Factorise at an accepted point; `active` parameters do not move."""
        ...

    def path(self, model: Model, radius: Float[Tensor, " s"]) -> Path:
        """The way down within the radius."""
        ...
