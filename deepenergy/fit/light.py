"""The shot's light, found from its plates in a step of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.fit.fit_context import FitContext
from deepenergy.render import Renderer
from deepenergy.render.light_fit import fit_light
from deepenergy.scene.state import State

_LIGHT_VIEWS = 8
_LIGHT_SIZE = 128


def find_light(
    context: FitContext, frames: Sequence[int], state: State, windows: Float[Tensor, "b c 4"], off: Float[Tensor, "b c"]
) -> Renderer:
    """The renderer under the light of the views that fit best, spread over the shot.

    Args:
        context: whose plates and renderer.
        frames: B frame numbers.
        state: B states.
        windows: what the network saw of each view, plate pixels; NaN where there is no face.
        off: how badly each view fits, in any unit; infinite for one that is not to be used.
    """
    renderer = context.render
    vertices, views, images = [], [], []
    cameras = context.views.cameras_at(frames)
    for part in torch.arange(len(state)).tensor_split(_LIGHT_VIEWS):
        if len(part) == 0 or not bool(torch.isfinite(off[part]).any()):
            continue
        best = int(off[part].argmin())
        b, c = int(part[best // len(cameras)]), best % len(cameras)
        image = context.views.window(c, int(frames[b]), windows[b, c], _LIGHT_SIZE)
        if image is not None:
            vertices.append(renderer.rig.vertices(state[[b]].to(renderer.rig.neutral)))
            views.append(cameras[c][[b]].crop(windows[b, c], _LIGHT_SIZE))
            images.append(image)
    if not images:
        return renderer
    return replace(renderer, light=fit_light(renderer, torch.cat(vertices), views, torch.stack(images)))
