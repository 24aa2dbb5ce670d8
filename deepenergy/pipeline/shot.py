"""Solving a shot: observe the plates, fit every frame, judge which frames to trust."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from fileseq import framesToFrameRange
from torch import Tensor

from deepenergy.fit.frames import Fit, fit_frames
from deepenergy.fit.stage_result import OnStage, numbered
from deepenergy.flow import FlowNetwork, flow_network_from_name
from deepenergy.flow.raft import Raft
from deepenergy.landmarks.detector import Detector
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.landmarks.observe import Observations, observe
from deepenergy.pipeline.checkpoint import Checkpoint, key_of
from deepenergy.pipeline.failures import Evidence, judge
from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import PlateError, Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.rig_check import check_face
from deepenergy.scene.rig_paint import with_default_albedo
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.scene.window import crop_and_resize
from deepenergy.settings.config import SolverConfig
from deepenergy.settings.schedule import check_groups, check_moved
from deepenergy.temporal.infill import InfillConfig, infill
from deepenergy.temporal.reestimate import ReestimateConfig, reestimate
from deepenergy.temporal.refine import RefineConfig, refine

Progress = Callable[[str, int, int], None]
_FRAMES_AT_ONCE = 96
_OBSERVED = ("points", "confidence", "windows", "covariance")
_STATE = ("rotation", "translation", "jaw", "weights")
_FITTED = ("rendered", "residual_px", "residual_crop", "sigma", "correlation")


def frames_of(plates: Sequence[Plates]) -> list[int]:
    """Frame numbers that any camera has, ascending."""
    return sorted({number for plate in plates for number in plate.frames})


def check_input(plates: Sequence[Plates], rig: Rig, cameras: Sequence[Camera]) -> None:
    """Refuse plates, rig and cameras that do not belong together.

    Raises:
        InputError: the field, what was found, what was expected.
    """
    if len(plates) != len(cameras) or not plates:
        raise InputError(
            "cameras",
            f"{len(cameras)} for {len(plates)} plates",
            "one camera for each plates",
            "pass them in the same order",
        )
    rig.require_landmarks()
    check_face(rig)
    _check_shared_frames(plates)
    for plate, camera in zip(plates, cameras, strict=True):
        camera.check_plate_size(plate.width, plate.height)


def _check_shared_frames(plates: Sequence[Plates]) -> None:
    """Every camera must share a frame with another; single frames may be missing in any of them."""
    there = [set(plate.frames) - set(plate.problems()) for plate in plates]
    for plate, own in zip(plates, there, strict=True):
        rest = set().union(*(frames for frames in there if frames is not own))
        if len(plates) > 1 and own.isdisjoint(rest):
            raise InputError(
                f"plates '{plate.name}' frames",
                f"{_ranges(own)}, none of which another camera has ({_ranges(rest)})",
                "cameras that share frame numbers: views are matched by number",
                "renumber the plates (`first_frame` for a video), or solve this camera alone",
            )


def _ranges(frames: Iterable[int]) -> str:
    return framesToFrameRange(sorted(frames)) or "no frame"


def solve_sequence(
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    config: SolverConfig,
    detector: Detector,
    network: HeatmapNetwork,
    progress: Progress,
    resume: Path | None = None,
    on_stage: OnStage | None = None,
) -> Track:
    """A whole shot: every frame solved by itself, failures found and infilled, everything made consistent in time.

    A frame that cannot be solved is marked and does not stop the others. Finished parts are kept in the folder
    `resume` until the shot is done, and a run that was stopped goes on from them.
    """
    check_input(plates, rig, cameras)
    check_groups(config.stages, rig.groups)
    check_moved(config.stages, rig.group_overrides)
    checkpoint = Checkpoint(None)
    if resume is not None:
        checkpoint = Checkpoint(resume, key_of(plates, rig, cameras, (config, detector.name, network.name)))
    # Before hours of solving, not after.
    flow = flow_network_of(config)
    track, observed, renderer = _solve_frames(
        plates, rig, cameras, config, detector, network, progress, checkpoint, on_stage
    )
    track = complete(track, plates, rig, cameras, config, flow, progress)
    if config.refine != "none" and config.reestimate:
        how, rounds = _refine_config(config), ReestimateConfig(rounds=config.reestimate)
        track = reestimate(
            track, observed, plates, rig, cameras, renderer, network, flow, config, how, rounds, progress
        )
    checkpoint.clear()
    return track


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


def complete(
    track: Track,
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    config: SolverConfig,
    flow: FlowNetwork | None,
    progress: Progress,
) -> Track:
    """Infill and temporal refinement of a solved track, as far as the settings want them."""
    if config.infill != "none":
        track = infill(track, plates, rig, cameras, flow, InfillConfig(method=config.infill), progress)
    if config.refine != "none":
        track = refine(track, plates, rig, cameras, flow, _refine_config(config), progress)
    return track


def _refine_config(config: SolverConfig) -> RefineConfig:
    return RefineConfig(config.refine, config.refine_order, config.refine_sweeps, prior=config.refine_prior)


def _solve_frames(
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    config: SolverConfig,
    detector: Detector,
    network: HeatmapNetwork,
    progress: Progress,
    checkpoint: Checkpoint,
    on_stage: OnStage | None,
) -> tuple[Track, Observations, Renderer]:
    """Every frame by itself; with what was seen, and the renderer with the light that was found."""
    numbers = frames_of(plates)
    observed = _observed(plates, numbers, config, detector, network, progress, checkpoint)
    seen = torch.isfinite(observed.points).all((-1, -2)).any(1)
    reasons = ["" for _ in numbers]
    for t in range(len(numbers)):
        if not bool(seen[t]):
            reasons[t] = "; ".join(text for (frame, _), text in sorted(observed.problems.items()) if frame == t)
    rig = with_default_albedo(rig)
    renderer = renderer_for(rig, config)
    rows = seen.nonzero()[:, 0]
    fits: list[Fit] = []
    for start, part in enumerate(rows.split(_FRAMES_AT_ONCE) if len(rows) else ()):

        def tell(name: str, done: int, total: int, first: int = start * _FRAMES_AT_ONCE) -> None:
            share = (first + done / total * min(_FRAMES_AT_ONCE, len(rows) - first)) / len(rows)
            progress(f"solve: {name}", round(share * 1000), 1000)

        def plate_crop(row: int, camera: int, box: Tensor, size: int, rows: Tensor = part) -> Tensor | None:
            plate, number = plates[camera], numbers[int(rows[row])]
            try:
                return crop_and_resize(plate.read(plate.frames.index(number))[None], box[None], size)[0]
            except PlateError:
                return None

        fit = _kept_fit(checkpoint.load(f"fit{start:04d}"), renderer)
        if fit is None:
            told = None if on_stage is None else numbered(on_stage, [numbers[int(row)] for row in part])
            seen_here = observed[part]
            fit = fit_frames(seen_here, rig, cameras, renderer, network, config, tell, None, plate_crop, told)
            checkpoint.save(f"fit{start:04d}", _fit_arrays(fit))
        fits.append(fit)
        # One light for the shot: the first block's.
        renderer = fits[-1].renderer
        config = replace(config, stages=tuple(replace(stage, fit_light=False) for stage in config.stages))
    return _track(numbers, rows, fits, observed, reasons, plates, rig, config), observed, renderer


def renderer_for(rig: Rig, config: SolverConfig) -> Renderer:
    """The renderer that a solve by these settings looks through, before it knows the light."""
    shadow = ambient_occlusion(rig).to(config.device)
    # Outlines have derivatives only where the network reads them on every step.
    return Renderer(
        rig.to(config.device),
        shadow,
        supersample=config.supersample,
        backend=config.renderer,
        antialias=config.jacobian == "deep",
    )


def _observed(
    plates: Sequence[Plates],
    numbers: list[int],
    config: SolverConfig,
    detector: Detector,
    network: HeatmapNetwork,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Observations:
    kept = checkpoint.load("observed")
    if kept is not None:
        problems = zip(kept["problem_at"].tolist(), kept["problem"].tolist(), strict=True)
        parts = (torch.from_numpy(kept[name]) for name in _OBSERVED)
        return Observations(*parts, problems={(t, c): text for (t, c), text in problems})
    observed = observe(
        plates,
        numbers,
        detector,
        network,
        progress,
        config.box_smoothing,
        config.max_gap,
        config.device,
        readings=config.readings,
        frame_rate=config.frame_rate if config.landmark_filter == "one_euro" else None,
    )
    arrays = {name: getattr(observed, name).numpy() for name in _OBSERVED}
    arrays["problem_at"] = np.array(list(observed.problems), np.int64).reshape(-1, 2)
    arrays["problem"] = np.array(list(observed.problems.values()), dtype=np.str_)
    checkpoint.save("observed", arrays)
    return observed


def _fit_arrays(fit: Fit) -> dict[str, np.ndarray]:
    arrays = {name: getattr(fit, name).cpu().numpy() for name in _FITTED}
    arrays |= {name: getattr(fit.state, name).cpu().numpy() for name in _STATE}
    if fit.renderer.light is not None:
        arrays["light"] = fit.renderer.light.cpu().numpy()
    return arrays


def _kept_fit(arrays: dict[str, np.ndarray] | None, renderer: Renderer) -> Fit | None:
    if arrays is None:
        return None
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    lit = replace(renderer, light=tensors["light"]) if "light" in tensors else renderer
    state = State(*(tensors[name] for name in _STATE))
    return Fit(state, lit, **{name: tensors[name] for name in _FITTED})


def _track(
    numbers: list[int],
    rows: Tensor,
    fits: list[Fit],
    observed: Observations,
    reasons: list[str],
    plates: Sequence[Plates],
    rig: Rig,
    config: SolverConfig,
) -> Track:
    count, cameras, shapes = len(numbers), len(plates), len(rig.weight_names)
    state = State.identity(count, shapes)
    state = replace(state, translation=torch.full_like(state.translation, torch.nan))
    rendered = np.full((count, cameras, 68, 2), np.nan)
    residual, crop_residual, correlation = (np.full(count, np.nan) for _ in range(3))
    sigma = np.full((count, 12 + shapes), np.nan)
    solved = np.zeros(count, bool)
    heatmaps = observed.confidence.numpy()
    views = (heatmaps.max(2) > 0).sum(1)
    sure = heatmaps.mean(2).sum(1) / np.maximum(views, 1)
    at = 0
    for fit in fits:
        here = rows[at : at + len(fit.state)].numpy()
        at += len(here)
        for name in ("rotation", "translation", "jaw", "weights"):
            getattr(state, name)[here] = getattr(fit.state, name).to(state.weights)
        rendered[here], residual[here] = fit.rendered.cpu().numpy(), fit.residual_px.cpu().numpy()
        crop_residual[here], sigma[here] = fit.residual_crop.cpu().numpy(), fit.sigma.cpu().numpy()
        correlation[here] = fit.correlation.cpu().nan_to_num(torch.inf).amin(1).numpy()
        solved[here] = True
    correlation[np.isinf(correlation)] = np.nan
    evidence = Evidence(np.array(numbers), state, sure, crop_residual, correlation, solved)
    reasons = [told or found for told, found in zip(reasons, judge(evidence, config), strict=True)]
    failed = np.array([bool(reason) for reason in reasons], dtype=bool)

    def kept(values: np.ndarray) -> np.ndarray:
        return np.where(failed.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)

    confidence = sure * 0.5 ** (crop_residual / (config.max_residual / 2))
    names = [plate.name for plate in plates]
    return Track(
        frames=np.array(numbers, np.int64),
        rotation=kept(state.rotation.numpy()),
        translation=kept(state.translation.numpy()),
        jaw=kept(state.jaw.numpy()),
        weights=kept(state.weights.numpy()),
        weight_names=rig.weight_names,
        status=np.where(failed, "failed", "solved"),
        reason=np.array(reasons),
        # Half gone at the residual that would fail the frame's like.
        confidence=np.where(failed, 0.0, confidence),
        landmark_residual_px=residual,
        landmarks_px={name: observed.points[:, c].numpy() for c, name in enumerate(names)},
        render_landmarks_px={name: rendered[:, c] for c, name in enumerate(names)},
        rig_name=rig.name,
        sigma={
            "rotation": kept(sigma[:, 0:3]),
            "translation": kept(sigma[:, 3:6]),
            "jaw": kept(sigma[:, 6:12]),
            "weights": kept(sigma[:, 12:]),
        },
    )
