"""The one-euro filter on landmarks and boxes, as a preprocess (section 7 names it; Casiez, Roussel, Vogel 2012).

A low pass whose cutoff rises with speed: still things are smoothed much, fast ones hardly. It is causal and so lags;
plates are there as a whole, and the mean of a pass forward and one backward does not.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.runtime.errors import InputError


def one_euro(
    values: Float[Tensor, " t *d"],
    rate: float = 24.0,
    cutoff: float = 2.0,
    beta: float = 0.05,
    speed_cutoff: float = 1.0,
    both_ways: bool = True,
) -> Float[Tensor, " t *d"]:
    """Filter every component over time; NaN stays NaN and starts the filter anew.

    Args:
        values: positions (pixels), one row a frame.
        rate: frames a second.
        cutoff: lowest cutoff frequency, hertz.
        beta: what the cutoff gains in hertz for each unit (pixel) a second of speed.
        speed_cutoff: cutoff of the filter on the speed itself, hertz.
        both_ways: mean of a forward and a backward pass.

    Raises:
        InputError: a rate or cutoff that is not positive, a negative beta.
    """
    for name, value, good in (
        ("rate", rate, rate > 0),
        ("cutoff", cutoff, cutoff > 0),
        ("speed cutoff", speed_cutoff, speed_cutoff > 0),
        ("beta", beta, beta >= 0),
    ):
        if not good:
            raise InputError(f"one-euro {name}", str(value), "a positive number", "correct the setting")
    forward = _pass(values, rate, cutoff, beta, speed_cutoff)
    if not both_ways:
        return forward
    return (forward + _pass(values.flip(0), rate, cutoff, beta, speed_cutoff).flip(0)) / 2


def _pass(values: Tensor, rate: float, cutoff: float, beta: float, speed_cutoff: float) -> Tensor:
    result = values.clone()
    speed = torch.zeros_like(values[0]) if len(values) else values
    follow = _share(torch.tensor(speed_cutoff), rate)
    for t in range(1, len(values)):
        known = torch.isfinite(result[t - 1]) & torch.isfinite(values[t])
        change = torch.where(known, (values[t] - result[t - 1]) * rate, torch.zeros_like(values[t]))
        speed = torch.where(known, speed + follow * (change - speed), torch.zeros_like(speed))
        share = _share(cutoff + beta * speed.abs(), rate)
        result[t] = torch.where(known, result[t - 1] + share * (values[t] - result[t - 1]), values[t])
    return result


def _share(cutoff: Tensor, rate: float) -> Tensor:
    """How much of a new value an exponential filter takes."""
    return 1 / (1 + rate / (2 * math.pi * cutoff))
