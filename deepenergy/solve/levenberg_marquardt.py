"""Levenberg-Marquardt in the form of More 1978: the damping that makes the step as long as the radius (spectrum.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.solve.cauchy import cauchy_point, shorten
from deepenergy.solve.descent import Model, Path
from deepenergy.solve.point import Point
from deepenergy.solve.spectrum import Spectrum


@dataclass
class LevenbergMarquardtModel(Model):
    """The spectrum of the Jacobian, the Cauchy point, and the scale that lengths are measured in."""

    values: Float[Tensor, "s k"]
    basis: Float[Tensor, "s p k"]
    turned: Float[Tensor, "s k"]
    cauchy: Float[Tensor, "s p"]
    scale: Float[Tensor, "s p"]


class LevenbergMarquardt:
    """Levenberg-Marquardt as a descent."""

    def model(
        self,
        point: Point,
        scale: Float[Tensor, "s p"],
        active: Bool[Tensor, "s p"],
    ) -> LevenbergMarquardtModel:
        """Factorise once at an accepted point."""
        spectrum = Spectrum.of(point.jacobian, point.residual, scale, active, point.damping)
        well_conditioned = torch.zeros_like(point.finite)
        cauchy = cauchy_point(point, scale, (~active).to(scale), well_conditioned)
        return LevenbergMarquardtModel(
            well_conditioned, spectrum.values, spectrum.basis, spectrum.turned, cauchy, scale
        )

    def path(self, model: Model, radius: Float[Tensor, " s"]) -> Path:
        """To the damped step by way of the Cauchy point, which is what is left of it where a bound is in the way."""
        assert isinstance(model, LevenbergMarquardtModel)
        scaled, full = Spectrum(model.values, model.basis, model.turned).step(radius)
        first = shorten(model.cauchy * model.scale, radius)
        return Path(first / model.scale, scaled / model.scale, full)
