"""The 27 nonlinear regressions of NIST's Statistical Reference Datasets (StRD), in three levels of difficulty.

Each comes with two starts (the second nearer), parameters and standard deviations certified to 11 digits, and the
certified sum of squares. Data and certified values lie in nist.json, as published by NIST; the models are below.

https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

DATA = Path(__file__).with_name("nist.json")
# Parameters `[P, S, 1]` and predictors `[K, N]` to predictions `[S, N]`; a single predictor broadcasts as it is.
Model = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NistProblem:
    """One regression.

    Attributes:
        name: NIST's.
        difficulty: "lower", "average" or "higher", as NIST ranks it.
        start: `[2, P]`, start 1 and start 2.
        certified: `[P]`, parameters of the solution.
        deviations: `[P]`, their standard deviations.
        sum_of_squares: of the residuals at the solution.
        response: `[N]`, what the model is fitted to (the logarithm of y for Nelson).
        predictors: `[K, N]`.
        model: parameters and predictors to predictions.
    """

    name: str
    difficulty: str
    start: Float[Tensor, "2 p"]
    certified: Float[Tensor, " p"]
    deviations: Float[Tensor, " p"]
    sum_of_squares: float
    response: Float[Tensor, " n"]
    predictors: Float[Tensor, "k n"]
    model: Model

    def residual(self, x: Float[Tensor, "s p"]) -> Float[Tensor, "s n"]:
        """Prediction less response, for S sets of parameters."""
        return self.model(x.T[:, :, None], self.predictors) - self.response


@cache
def nist_problems() -> tuple[NistProblem, ...]:
    """All 27, the easy ones first."""
    described: dict[str, dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))["problems"]
    return tuple(_problem(name, entry) for name, entry in described.items())


def _problem(name: str, entry: dict[str, Any]) -> NistProblem:
    def tensor(key: str) -> Tensor:
        return torch.tensor(entry[key], dtype=torch.float64)

    y = tensor("y")
    return NistProblem(
        name,
        entry["difficulty"],
        tensor("start"),
        tensor("certified"),
        tensor("deviations"),
        entry["sum_of_squares"],
        y.log() if name == "Nelson" else y,
        tensor("x"),
        _MODELS[name],
    )


def _bennett(p: Tensor, x: Tensor) -> Tensor:
    scale, shift, power = p
    return scale * (shift + x) ** (-1 / power)


def _saturation(p: Tensor, x: Tensor) -> Tensor:
    limit, rate = p
    return limit * (1 - (-rate * x).exp())


def _chwirut(p: Tensor, x: Tensor) -> Tensor:
    rate, constant, slope = p
    return (-rate * x).exp() / (constant + slope * x)


def _power(p: Tensor, x: Tensor) -> Tensor:
    scale, power = p
    return scale * x**power


def _one_peak(p: Tensor, x: Tensor) -> Tensor:
    area, width, centre = p
    return area / width * (-0.5 * ((x - centre) / width) ** 2).exp()


def _two_peaks(p: Tensor, x: Tensor) -> Tensor:
    base, rate = p[:2]
    peaks = [height * (-(((x - centre) / width) ** 2)).exp() for height, centre, width in (p[2:5], p[5:8])]
    return base * (-rate * x).exp() + peaks[0] + peaks[1]


def _seasons(p: Tensor, x: Tensor) -> Tensor:
    year = 2 * math.pi * x / 12
    total = p[0] + p[1] * year.cos() + p[2] * year.sin()
    for period, cosine, sine in (p[3:6], p[6:9]):
        phase = 2 * math.pi * x / period
        total = total + cosine * phase.cos() + sine * phase.sin()
    return total


def _cubics(p: Tensor, x: Tensor) -> Tensor:
    return (p[0] + p[1] * x + p[2] * x**2 + p[3] * x**3) / (1 + p[4] * x + p[5] * x**2 + p[6] * x**3)


def _quadratics(p: Tensor, x: Tensor) -> Tensor:
    return (p[0] + p[1] * x + p[2] * x**2) / (1 + p[3] * x + p[4] * x**2)


def _three_decays(p: Tensor, x: Tensor) -> Tensor:
    return p[0] * (-p[1] * x).exp() + p[2] * (-p[3] * x).exp() + p[4] * (-p[5] * x).exp()


def _kowalik(p: Tensor, x: Tensor) -> Tensor:
    return p[0] * (x**2 + x * p[1]) / (x**2 + x * p[2] + p[3])


def _thermistor(p: Tensor, x: Tensor) -> Tensor:
    scale, over, shift = p
    return scale * (over / (x + shift)).exp()


def _osborne(p: Tensor, x: Tensor) -> Tensor:
    return p[0] + p[1] * (-x * p[3]).exp() + p[2] * (-x * p[4]).exp()


def _misra_b(p: Tensor, x: Tensor) -> Tensor:
    return p[0] * (1 - (1 + p[1] * x / 2) ** -2)


def _misra_c(p: Tensor, x: Tensor) -> Tensor:
    return p[0] * (1 - (1 + 2 * p[1] * x) ** -0.5)


def _misra_d(p: Tensor, x: Tensor) -> Tensor:
    return p[0] * p[1] * x / (1 + p[1] * x)


def _nelson(p: Tensor, x: Tensor) -> Tensor:
    weeks, celsius = x
    return p[0] - p[1] * weeks * (-p[2] * celsius).exp()


def _logistic(p: Tensor, x: Tensor) -> Tensor:
    return p[0] / (1 + (p[1] - p[2] * x).exp())


def _richards(p: Tensor, x: Tensor) -> Tensor:
    return p[0] / (1 + (p[1] - p[2] * x).exp()) ** (1 / p[3])


def _roszman(p: Tensor, x: Tensor) -> Tensor:
    return p[0] - p[1] * x - (p[2] / (x - p[3])).atan() / math.pi


_MODELS: dict[str, Model] = {
    **dict.fromkeys(["Chwirut1", "Chwirut2"], _chwirut),
    **dict.fromkeys(["Misra1a", "BoxBOD"], _saturation),
    **dict.fromkeys(["Gauss1", "Gauss2", "Gauss3"], _two_peaks),
    **dict.fromkeys(["Lanczos1", "Lanczos2", "Lanczos3"], _three_decays),
    **dict.fromkeys(["Hahn1", "Thurber"], _cubics),
    "DanWood": _power,
    "Misra1b": _misra_b,
    "Misra1c": _misra_c,
    "Misra1d": _misra_d,
    "ENSO": _seasons,
    "Kirby2": _quadratics,
    "MGH09": _kowalik,
    "MGH10": _thermistor,
    "MGH17": _osborne,
    "Nelson": _nelson,
    "Roszman1": _roszman,
    "Bennett5": _bennett,
    "Eckerle4": _one_peak,
    "Rat42": _logistic,
    "Rat43": _richards,
}
