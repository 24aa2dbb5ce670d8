"""Powell's dogleg (Powell 1970; Lourakis and Argyros 2005).

Within the radius the minimum of the model `|J s + r|^2 / 2` is approached along two straight lines: from 0 down the
steepest descent to its minimum there, the Cauchy point

    c = -t g,   t = |g|^2 / |J g|^2,

and from there to the Gauss-Newton point `n = argmin |J s + r|`. The model falls and the length grows along both, so the
path is followed to where it leaves the radius. Lengths and steepest descent are those of the scaled parameters
`D s`, D the column lengths of J. Both points are kept until a step is accepted: a shorter radius costs no new
factorisation.

Where J is close to singular the Gauss-Newton point lies far out along what the residuals do not determine, and the
second line, cut at the radius, leads there and nowhere else. Such problems (linear.py) are factorised by their singular
values, with which the true minimum within the radius costs no more (spectrum.py): it is the end of their second line.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.solve.cauchy import cauchy_point, shorten
from deepenergy.solve.descent import Model, Path
from deepenergy.solve.linear import gauss_newton
from deepenergy.solve.point import Point
from deepenergy.solve.spectrum import Spectrum


@dataclass
class DogLegModel(Model):
    """Cauchy and Gauss-Newton points, and the scale that lengths are measured in.

    `singular` problems have a spectrum instead of a Gauss-Newton point; the other rows of it mean nothing, and there is
    none where no problem is singular.
    """

    cauchy: Float[Tensor, "s p"]
    newton: Float[Tensor, "s p"]
    scale: Float[Tensor, "s p"]
    singular: Bool[Tensor, " s"]
    values: Float[Tensor, "s k"] | None = None
    basis: Float[Tensor, "s p k"] | None = None
    turned: Float[Tensor, "s k"] | None = None


class DogLeg:
    """The dogleg as a descent."""

    def model(
        self,
        point: Point,
        scale: Float[Tensor, "s p"],
        active: Bool[Tensor, "s p"],
    ) -> DogLegModel:
        """Factorise once at an accepted point."""
        free = (~active).to(scale)
        newton, regular, well_conditioned = gauss_newton(point, free)
        cauchy = cauchy_point(point, scale, free, well_conditioned)
        made = DogLegModel(well_conditioned, cauchy, newton, scale, ~regular)
        if not bool(regular.all()):
            rows = torch.nonzero(~regular).squeeze(1)
            some = Spectrum.of(
                point.jacobian[rows], point.residual[rows], scale[rows], active[rows], point.damping[rows]
            )
            for name in ("values", "basis", "turned"):
                value = getattr(some, name)
                setattr(made, name, value.new_zeros(len(regular), *value.shape[1:]).index_copy(0, rows, value))
        return made

    def path(self, model: Model, radius: Float[Tensor, " s"]) -> Path:
        """The way down within the radius."""
        assert isinstance(model, DogLegModel)
        first, last = shorten(model.cauchy * model.scale, radius), model.newton * model.scale
        full = torch.linalg.vector_norm(last, dim=1) <= radius
        way = last - first
        fraction = _to_sphere(first, way, radius)
        last = torch.where(full[:, None], last, first + fraction[:, None] * way)
        if model.values is not None and model.basis is not None and model.turned is not None:
            rows = torch.nonzero(model.singular).squeeze(1)
            spectrum = Spectrum(model.values[rows], model.basis[rows], model.turned[rows])
            its_last, its_full = spectrum.step(radius[rows])
            last, full = last.index_copy(0, rows, its_last), full.index_copy(0, rows, its_full)
        return Path(first / model.scale, last / model.scale, full)


def _to_sphere(start: Float[Tensor, "s p"], way: Float[Tensor, "s p"], radius: Float[Tensor, " s"]) -> Tensor:
    """The `t` in 0..1 at which `start + t way` leaves the ball; `start` lies within."""
    size = torch.linalg.vector_norm(way, dim=1)
    unit = way / torch.where(size > 0, size, torch.ones_like(size))[:, None]
    along = (unit * start).sum(1)
    left = (radius.square() - start.square().sum(1)).clamp_min(0)
    root = (along.square() + left).sqrt()
    # The form without cancellation for either sign.
    distance = torch.where(along > 0, left / (along + root).clamp_min(torch.finfo(way.dtype).tiny), root - along)
    return (distance / torch.where(size > 0, size, torch.ones_like(size))).clamp(0, 1)
