"""Solving a shot: observe the plates, fit every frame, judge which frames to trust, infill, make consistent in time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.frames import Fit, fit_frames, start_from_landmarks
from deepenergy.fit.stage_result import OnStage, StageResult
from deepenergy.fit.weighting import confidence_weight
from deepenergy.flow import FlowNetwork, flow_network_from_name
from deepenergy.flow.raft import Raft
from deepenergy.landmarks.observe import Observations, ObserveSettings, observe
from deepenergy.pipeline.assemble import Solved, assemble
from deepenergy.pipeline.checkpoint import Checkpoint, key_of
from deepenergy.pipeline.parts import fit_as_arrays, fit_of, observations_as_arrays, observations_of
from deepenergy.render import Renderer
from deepenergy.scene.rig_check import check_face
from deepenergy.scene.rig_paint import with_default_albedo
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.settings.config import SolverConfig
from deepenergy.settings.schedule import check_groups, check_moved
from deepenergy.temporal.infill import infill
from deepenergy.temporal.reestimate import ReestimateConfig, reestimate
from deepenergy.temporal.reference_frame import ReferenceFrame, solving_frame
from deepenergy.temporal.refine import refine

_FRAMES_AT_ONCE = 96


def check_context(context: FitContext) -> None:
    """Refuse a rig and settings that cannot be solved with, before hours of solving.

    Raises:
        InputError: the field, what was found, what was expected.
    """
    context.rig.require_landmarks()
    check_face(context.rig)
    check_groups(context.config.stages, context.rig.groups)
    check_moved(context.config.stages, context.rig.group_overrides)


def solve_sequence(context: FitContext, resume: Path | None = None) -> Track:
    """A whole shot: every frame solved by itself, failures found and infilled, everything made consistent in time.

    A frame that cannot be solved is marked and does not stop the others. Finished parts are kept in the folder
    `resume` until the shot is done, and a run that was stopped goes on from them.

    Args:
        context: with detector and landmark network, and the flow network that the settings need.
        resume: folder of finished parts, or None.

    Raises:
        InputError: a rig, plates, cameras and settings that do not go together. Single bad frames do not raise.
    """
    check_context(context)
    checkpoint = Checkpoint(None)
    if resume is not None:
        checkpoint = Checkpoint(resume, key_of(context))
    frames = context.views.frames
    observed = _observed(context, checkpoint)
    axes = _axes(context, observed)
    # Rendered with plain colours where the rig has none; what is written is the rig as it came.
    inner = replace(axes.context(context), rig=with_default_albedo(context.rig), on_stage=_in_world(context, axes))
    track, renderer = _solve_frames(inner, frames, observed, checkpoint)
    whole = replace(axes.context(context), renderer=renderer)
    track = complete(track, whole)
    if context.config.refine != "none" and context.config.reestimate:
        track = reestimate(track, observed, whole, ReestimateConfig(rounds=context.config.reestimate))
    checkpoint.clear()
    return axes.track_back(track)


def flow_network_of(config: SolverConfig) -> FlowNetwork | None:
    """The flow network that the settings need, if any.

    Raises:
        InputError: its weights, or its package, are missing.
    """
    if config.infill != "flow" and config.refine not in ("hybrid", "plate_flow"):
        return None
    network = flow_network_from_name(config.flow_network, config.flow_weights, config.device)
    if isinstance(network, Raft):
        # Its file is read when first asked for, which is now and not after the solve.
        _ = network.module
    return network


def complete(track: Track, context: FitContext) -> Track:
    """Infill and temporal refinement of a solved track, as far as the settings want them."""
    if context.config.infill != "none":
        track = infill(track, context)
    if context.config.refine != "none":
        track = refine(track, context)
    return track


def _axes(context: FitContext, observed: Observations) -> ReferenceFrame:
    """The axes that the shot is solved in: where cameras move, by the head poses that the landmarks alone give."""
    views, frames = context.views, context.views.frames
    seen = torch.isfinite(observed.points).all((-1, -2))
    state, known = State.identity(len(frames), len(context.rig.weight_names)), seen.any(1)
    if bool(known.any()) and any(camera.frames is not None for camera in views.cameras):
        small, targets = context.rig.landmark_rig(), torch.nan_to_num(observed.points)
        weight = confidence_weight(observed.confidence) * seen[..., None]
        state = start_from_landmarks(small, targets, weight, views.cameras_at(frames))
    return solving_frame(views, frames, state, known)


def _in_world(context: FitContext, axes: ReferenceFrame) -> OnStage | None:
    """`on_stage` told states in the world's axes."""
    on_stage = context.on_stage
    if on_stage is None or axes.transform is None:
        return on_stage

    def told(result: StageResult) -> None:
        on_stage(replace(result, state=axes.state_back(result.state, result.frames)))

    return told


def _solve_frames(
    context: FitContext, frames: tuple[int, ...], observed: Observations, checkpoint: Checkpoint
) -> tuple[Track, Renderer]:
    """Every frame by itself; with the renderer and the light that was found."""
    context = context.rendering()
    rows = torch.isfinite(observed.points).all((-1, -2)).any(1).nonzero()[:, 0]
    fits: list[Fit] = []
    for number, part in enumerate(rows.split(_FRAMES_AT_ONCE) if len(rows) else ()):
        name = f"fit{number:04d}"
        kept = checkpoint.load(name)
        if kept is not None:
            fit = fit_of(kept, context.render)
        else:
            fit = fit_frames(_reporting(context, number, len(rows)), _some(frames, part), observed[part])
            checkpoint.save(name, fit_as_arrays(fit))
        fits.append(fit)
        # One light for the shot: the first block's.
        unlit = tuple(replace(stage, fit_light=False) for stage in context.config.stages)
        context = replace(context.with_config(stages=unlit), renderer=fit.renderer)
    return assemble(Solved(frames, observed, rows, fits), context), context.render


def _some(frames: tuple[int, ...], rows: Tensor) -> list[int]:
    return [frames[row] for row in rows.tolist()]


def _reporting(context: FitContext, block: int, count: int) -> FitContext:
    """The context of a block of frames: its progress is a share of the whole."""
    first = block * _FRAMES_AT_ONCE

    def report(name: str, done: int, total: int) -> None:
        share = (first + done / total * min(_FRAMES_AT_ONCE, count - first)) / count
        context.progress(f"solve: {name}", round(share * 1000), 1000)

    return replace(context, progress=report)


def _observed(context: FitContext, checkpoint: Checkpoint) -> Observations:
    kept = checkpoint.load("observed")
    if kept is not None:
        return observations_of(kept)
    config = context.config
    settings = ObserveSettings(
        config.box_smoothing,
        config.max_gap,
        config.device,
        readings=config.readings,
        frame_rate=config.frame_rate if config.landmark_filter == "one_euro" else None,
    )
    views, detector, network = context.views, context.face_detector, context.landmark_network
    observed = observe(views, views.frames, detector, network, settings, context.progress)
    checkpoint.save("observed", observations_as_arrays(observed))
    return observed
