"""Powell's dogleg (Powell 1970; Lourakis and Argyros 2005).

Within the radius the minimum of the model `|J s + r|^2 / 2` is approached along two straight lines: from 0 down the
steepest descent to its minimum there, the Cauchy point

    c = -t g,   t = |g|^2 / |J g|^2,

and from there to the Gauss-Newton point `n = argmin |J s + r|`. The model falls and the length grows along both, so the
path is followed to where it leaves the radius. Lengths and steepest descent are those of the scaled parameters
`D s`, D the column lengths of J. Both points are kept until a step is accepted: a shorter radius costs no new
factorisation.
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


@dataclass
class DogLegModel(Model):
    """Cauchy and Gauss-Newton points, and the scale that lengths are measured in."""

    cauchy: Float[Tensor, "s p"]
    newton: Float[Tensor, "s p"]
    scale: Float[Tensor, "s p"]


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
        newton, easy = gauss_newton(point.jacobian, point.residual, point.gradient, point.normal, free)
        cauchy = cauchy_point(point, scale, free, easy)
        # A Gauss-Newton step beyond the number range is no step.
        newton = torch.where(torch.isfinite(newton).all(1, keepdim=True), newton, cauchy)
        return DogLegModel(easy, cauchy, newton, scale)

    def path(self, model: Model, radius: Float[Tensor, " s"]) -> Path:
        """The way down within the radius."""
        assert isinstance(model, DogLegModel)
        first, last = shorten(model.cauchy * model.scale, radius), model.newton * model.scale
        full = torch.linalg.vector_norm(last, dim=1) <= radius
        way = last - first
        share = _to_sphere(first, way, radius)
        last = torch.where(full[:, None], last, first + share[:, None] * way)
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
