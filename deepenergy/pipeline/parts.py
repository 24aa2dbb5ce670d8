"""Finished parts of a solve as arrays, for the checkpoint: what was observed, and what was fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from deepenergy.fit.frames import Fit
from deepenergy.landmarks.observe import Observations
from deepenergy.render import Renderer
from deepenergy.scene.state import PARTS, State
from deepenergy.scene.track import Cause

_OBSERVED = ("points", "confidence", "windows", "covariance")
_FITTED = ("rendered", "residual_px", "residual_crop", "sigma", "correlation")
Arrays = dict[str, np.ndarray]


def observations_as_arrays(observed: Observations) -> Arrays:
    """What `observations_of` reads back."""
    arrays = {name: getattr(observed, name).numpy() for name in _OBSERVED}
    arrays["problem_at"] = np.array(list(observed.problems), np.int64).reshape(-1, 2)
    arrays["problem"] = np.array(list(observed.problems.values()), dtype=np.str_)
    arrays["cause"] = np.array([str(observed.causes[at]) for at in observed.problems], dtype=np.str_)
    return arrays


def observations_of(arrays: Arrays) -> Observations:
    """Observations from their arrays."""
    places = [(t, c) for t, c in arrays["problem_at"].tolist()]
    problems = dict(zip(places, arrays["problem"].tolist(), strict=True))
    causes = {at: Cause(name) for at, name in zip(places, arrays["cause"].tolist(), strict=True)}
    parts = (torch.from_numpy(arrays[name]) for name in _OBSERVED)
    return Observations(*parts, problems=problems, causes=causes)


def fit_as_arrays(fit: Fit) -> Arrays:
    """What `fit_of` reads back."""
    arrays = {name: getattr(fit, name).cpu().numpy() for name in _FITTED}
    arrays |= {name: getattr(fit.state, name).cpu().numpy() for name in PARTS}
    if fit.renderer.light is not None:
        arrays["light"] = fit.renderer.light.cpu().numpy()
    return arrays


def fit_of(arrays: Arrays, renderer: Renderer) -> Fit:
    """A fit from its arrays, and the renderer without the light that was found."""
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    lit = replace(renderer, light=tensors["light"]) if "light" in tensors else renderer
    state = State(*(tensors[name] for name in PARTS))
    return Fit(state, lit, **{name: tensors[name] for name in _FITTED})
