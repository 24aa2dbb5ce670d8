"""Finished parts of a solve as arrays, for the checkpoint: what was observed, and what was fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from deepenergy.fit.frames import Fit
from deepenergy.landmarks.observe import Observations
from deepenergy.render import Renderer
from deepenergy.scene.state import PARTS, State

_OBSERVED = ("points", "confidence", "windows", "covariance")
_FITTED = ("rendered", "residual_px", "residual_crop", "sigma", "correlation")
Arrays = dict[str, np.ndarray]


def observations_as_arrays(observed: Observations) -> Arrays:
    """What `observations_of` reads back."""
    arrays = {name: getattr(observed, name).numpy() for name in _OBSERVED}
    arrays["problem_at"] = np.array(list(observed.problems), np.int64).reshape(-1, 2)
    arrays["problem"] = np.array(list(observed.problems.values()), dtype=np.str_)
    return arrays


def observations_of(arrays: Arrays) -> Observations:
    """Observations from their arrays."""
    problems = zip(arrays["problem_at"].tolist(), arrays["problem"].tolist(), strict=True)
    parts = (torch.from_numpy(arrays[name]) for name in _OBSERVED)
    return Observations(*parts, problems={(t, c): text for (t, c), text in problems})


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
