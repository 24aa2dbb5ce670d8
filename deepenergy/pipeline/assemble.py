"""From fitted frames to a track: every frame gets its values, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.frames import Fit
from deepenergy.landmarks.observe import Observations
from deepenergy.pipeline.failures import Evidence, Verdict, judge
from deepenergy.scene.state import PARTS, State
from deepenergy.scene.track import Cause, Track


@dataclass(frozen=True, eq=False)
class Solved:
    """What a shot's frames were solved to.

    Attributes:
        frames: T frame numbers.
        observed: what their plates show.
        rows: places of the frames that were fitted, ascending.
        fits: the fits, which have these rows one after the other.
    """

    frames: tuple[int, ...]
    observed: Observations
    rows: Tensor
    fits: Sequence[Fit]


def assemble(solved: Solved, context: FitContext) -> Track:
    """The track of the frames, failed where there is nothing or where it is not to be believed."""
    numbers, observed, rig = solved.frames, solved.observed, context.rig
    count, shapes, (cameras, marks) = len(numbers), len(rig.weight_names), observed.points.shape[1:3]
    state = State.identity(count, shapes)
    state = replace(state, translation=torch.full_like(state.translation, torch.nan))
    rendered = np.full((count, cameras, marks, 2), np.nan)
    residual, crop_residual, correlation = (np.full(count, np.nan) for _ in range(3))
    sigma = np.full((count, state.size), np.nan)
    there = np.zeros(count, bool)
    heatmaps = observed.confidence.numpy()
    views = (heatmaps.max(2) > 0).sum(1)
    confidence = heatmaps.mean(2).sum(1) / np.maximum(views, 1)
    at = 0
    for fit in solved.fits:
        here = solved.rows[at : at + len(fit.state)].numpy()
        at += len(here)
        for name in PARTS:
            getattr(state, name)[here] = getattr(fit.state, name).to(state.weights)
        rendered[here], residual[here] = fit.rendered.cpu().numpy(), fit.residual_px.cpu().numpy()
        crop_residual[here], sigma[here] = fit.residual_crop.cpu().numpy(), fit.sigma.cpu().numpy()
        correlation[here] = fit.correlation.cpu().nan_to_num(torch.inf).amin(1).numpy()
        there[here] = True
    correlation[np.isinf(correlation)] = np.nan
    evidence = Evidence(np.array(numbers), state, confidence, crop_residual, correlation, there)
    judged = judge(evidence, context.config)
    verdicts = [unseen or found for unseen, found in zip(_unseen(solved), judged, strict=True)]
    failed = np.array([verdict.cause != Cause.NONE for verdict in verdicts], dtype=bool)

    def kept(values: np.ndarray) -> np.ndarray:
        return np.where(failed.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)

    # Half gone at half the residual that fails a frame.
    confidence = confidence * 0.5 ** (crop_residual / (context.config.max_residual / 2))
    names = context.views.names
    parts = {"rotation": slice(0, 3), "translation": slice(3, 6), "jaw": slice(6, 12), "weights": slice(12, None)}
    return Track(
        frames=np.array(numbers, np.int64),
        rotation=kept(state.rotation.numpy()),
        translation=kept(state.translation.numpy()),
        jaw=kept(state.jaw.numpy()),
        weights=kept(state.weights.numpy()),
        weight_names=rig.weight_names,
        status=np.where(failed, "failed", "solved"),
        reason=np.array([verdict.words for verdict in verdicts]),
        cause=np.array([str(verdict.cause) for verdict in verdicts]),
        confidence=np.where(failed, 0.0, confidence),
        landmark_residual_px=residual,
        landmarks_px={name: observed.points[:, c].numpy() for c, name in enumerate(names)},
        render_landmarks_px={name: rendered[:, c] for c, name in enumerate(names)},
        rig_name=rig.name,
        sigma={name: kept(sigma[:, part]) for name, part in parts.items()},
    )


def _unseen(solved: Solved) -> list[Verdict | None]:
    """Why frames were not fitted at all; None for those that were."""
    fitted, order = set(solved.rows.tolist()), list(Cause)
    found: list[Verdict | None] = []
    for t in range(len(solved.frames)):
        here = sorted((camera, text) for (row, camera), text in solved.observed.problems.items() if row == t)
        causes = [cause for (row, _), cause in solved.observed.causes.items() if row == t]
        words = "; ".join(text for _, text in here)
        found.append(None if t in fitted else Verdict(min(causes, key=order.index), words))
    return found
