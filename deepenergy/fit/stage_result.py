"""What one stage of the schedule made of the frames, for whoever wants to look at it (figures 3 to 6 of the paper)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.scene.state import State
from deepenergy.settings.schedule import Stage

# Landmarks of which the network is less sure than this do not count in the mean distance.
SURE = 0.3


@dataclass(frozen=True)
class StageResult:
    """B frames seen by C cameras, after a stage.

    Attributes:
        index: the stage's place in the schedule, from 0. Stages that were left out have no result.
        stage: the stage.
        state: B states.
        plate_px: `[B, C, L, 2]` the network's landmarks on the plates, plate pixels; NaN where a view shows no face.
        render_px: `[B, C, L, 2]` the network's landmarks on the render as the energy has them: read on the last render
            that a stage had it read, and moved with the rig since. Plate pixels, NaN as in `plate_px`.
        rig_px: `[B, C, L, 2]` the rig's own landmarks, projected; plate pixels.
        residual_px: `[B, C]` mean distance of `render_px` and `plate_px` over the landmarks that the network is sure
            of, plate pixels; NaN where there is none.
        frames: the B frame numbers.
    """

    index: int
    stage: Stage
    state: State
    plate_px: Tensor
    render_px: Tensor
    rig_px: Tensor
    residual_px: Tensor
    frames: tuple[int, ...] = ()


OnStage = Callable[[StageResult], None]


def stage_result(  # more than six: the fields of a `StageResult`
    index: int,
    stage: Stage,
    state: State,
    plate_px: Float[Tensor, "b c l 2"],
    rig_px: Float[Tensor, "b c l 2"],
    offsets: Float[Tensor, "b c l 2"],
    trust: Float[Tensor, "b c l"],
) -> StageResult:
    """The result of a stage, from what the landmark energy knows of it.

    Args:
        index, stage, state, plate_px, rig_px: see `StageResult`.
        offsets: what the network's landmarks on the render are away from the rig's own, plate pixels.
        trust: the network's confidence in the plates' landmarks, in [0, 1].
    """
    render_px = torch.where(torch.isfinite(plate_px), rig_px + offsets, torch.full_like(rig_px, torch.nan))
    distance = (render_px - plate_px).norm(dim=-1)
    sure = (trust > SURE) & torch.isfinite(distance)
    distance = torch.where(sure, distance, torch.full_like(distance, torch.nan))
    return StageResult(index, stage, state, plate_px, render_px, rig_px, distance.nanmean(-1))
