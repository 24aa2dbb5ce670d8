"""The built-in head: a rig made of formulas, so that tests, demo and examples need no file."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from deepenergy.builtin_head.deform import Sculpt
from deepenergy.builtin_head.expressions import NAMES
from deepenergy.builtin_head.identity import Identity, Palette, random_identity
from deepenergy.builtin_head.landmarks import landmark_corners
from deepenergy.builtin_head.layout import REGIONS, layout
from deepenergy.builtin_head.paint import part_colours
from deepenergy.builtin_head.shape import JAW_PIVOT, reshape
from deepenergy.scene.rig import Jaw, Rig

METRES = 1e-3


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(torch.float32)


def _build(name: str, who: Identity, look: Palette) -> Rig:
    plan = layout()
    sculpt = Sculpt(plan, who)
    common = sculpt.neutral()
    neutral = reshape(common, who)
    shapes = np.zeros((len(NAMES), plan.vertices, 3))
    for k, expression in enumerate(NAMES):
        moved = sculpt.displacement(expression)
        active = np.nonzero(np.abs(moved).max(1) > 1e-6)[0]
        shapes[k, active] = reshape(common[active] + moved[active], who) - neutral[active]
    lower, upper = Jaw.default_bounds()
    faces, barycentrics = landmark_corners()
    pivot = reshape(JAW_PIVOT[None], who)[0]
    return Rig(
        name=name,
        neutral=_tensor(neutral * METRES),
        faces=torch.from_numpy(plan.faces.copy()),
        blendshapes=_tensor(shapes * METRES),
        weight_names=NAMES,
        landmark_faces=torch.from_numpy(faces.copy()),
        landmark_barycentrics=_tensor(barycentrics),
        jaw=Jaw(_tensor(pivot * METRES), _tensor(sculpt.jaw_weights), lower, upper),
        uvs=_tensor(plan.uvs),
        uv_faces=torch.from_numpy(plan.uv_faces.copy()),
        vertex_albedo=_tensor(part_colours(plan, common, look)),
        face_regions=torch.from_numpy(plan.face_regions.copy()),
        region_names=REGIONS,
    )


@functools.cache
def builtin_head() -> Rig:
    """The built-in rig, the same every time.

    About 6,500 vertices, 47 blendshapes with ARKit's names (its jaw shapes are the jaw joint here), 68 landmarks,
    UVs, painted vertex albedo, regions `skin lips brows hair eyes teeth mouth`. Metres; the origin is between the ears
    at the height of the pupils.
    """
    return _build("builtin", Identity(), Palette())


def randomised_head(generator: torch.Generator) -> Rig:
    """The built-in head as another person: same topology and controls, random proportions and colours.

    Args:
        generator: where the person is drawn from; the same state gives the same person.
    """
    draws = torch.randn(64, generator=generator, dtype=torch.float64, device=generator.device).cpu().numpy()
    who, look = random_identity(draws)
    return _build("builtin-random", who, look)
