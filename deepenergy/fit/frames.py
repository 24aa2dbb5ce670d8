"""Running the schedule of stages on observed frames: render, read the render with the network, solve, repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.energy.landmark import CROP_PIXELS, MEASURED_UNIT, LandmarkEnergy, precision_of
from deepenergy.energy.photometric import PhotometricEnergy
from deepenergy.energy.stack import Stack
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.free_controls import free_in_stage, limits_of
from deepenergy.fit.light import find_light
from deepenergy.fit.photometry import LEAST_CORRELATION, Photometry, is_comparable
from deepenergy.fit.render_landmarks import RenderReader
from deepenergy.fit.rigid_start import rigid_start
from deepenergy.fit.stage_result import stage_result
from deepenergy.fit.weighting import confidence_weight, landmark_kernel, parameter_sigmas, reweighted
from deepenergy.landmarks.observe import Observations
from deepenergy.render import Renderer
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import Limits, State
from deepenergy.settings.schedule import Stage
from deepenergy.solve import Cauchy, Problem, Solution, minimise

# Standard deviations from which a pixel counts less.
_PIXEL_KERNEL = 2.0


@dataclass(frozen=True)
class Fit:
    """Solved frames.

    Attributes:
        state: B states.
        renderer: as it was at the end, with the light that was estimated.
        rendered: `[B, C, L, 2]` the network's landmarks on the render at `state`, plate pixels.
        residual_px: `[B]` mean distance of `rendered` and the plate's landmarks, plate pixels; sure landmarks only.
        residual_crop: `[B]` the same in crop pixels.
        sigma: `[B, P]` standard deviation of (rotation 3, translation 3, jaw 6, weights K) by the last stage: radians,
            metres and weights (energy/uncertainty.py); NaN where it did not move them.
        correlation: `[B, C]` correlation of plate and render where pixels were compared, else NaN.
    """

    state: State
    renderer: Renderer
    rendered: Tensor
    residual_px: Tensor
    residual_crop: Tensor
    sigma: Tensor
    correlation: Tensor


def fit_frames(context: FitContext, frames: Sequence[int], observed: Observations, start: State | None = None) -> Fit:
    """Solve frames that have landmarks in one camera or more, all at once.

    Args:
        context: views, rig, network and settings; `on_stage` is told every stage, with the frames' numbers.
        frames: B frame numbers.
        observed: landmarks on the plates of these frames.
        start: B states to start from; poses from the landmarks and the neutral face when None.

    Raises:
        InputError: a context without a landmark network.
    """
    return _Run.of(context.rendering(), tuple(int(n) for n in frames), observed, start).finished()


@dataclass
class _Run:
    """A schedule under way.

    Attributes:
        context: what the fit is made with; its renderer has the light that was found so far.
        frames, observed: see `fit_frames`.
        cameras: C cameras in these frames.
        energy: the landmark term, about the last state that renders were read at.
        state: where the frames are.
        scale: `[B, C]` crop pixels in a plate pixel.
        weight: `[B, C, L]` what each landmark counts by the network's confidence.
        problem, solution: of the last solve.
        by_landmarks: the last solution by landmarks alone.
        correlation: `[B, C]` of plate and render, once pixels were compared.
        done, total: renders that were read, and that the schedule has.
    """

    context: FitContext
    frames: tuple[int, ...]
    observed: Observations
    cameras: tuple[Camera, ...]
    energy: LandmarkEnergy
    state: State
    scale: Float[Tensor, "b c"]
    weight: Float[Tensor, "b c l"]
    problem: Stack | None = None
    solution: Solution | None = None
    by_landmarks: Solution | None = None
    correlation: Float[Tensor, "b c"] | None = None
    done: int = 0
    total: int = 0

    @staticmethod
    def of(context: FitContext, frames: tuple[int, ...], observed: Observations, start: State | None) -> _Run:
        cameras = context.views.cameras_at(frames)
        small = context.rig.landmark_rig()
        seen = torch.isfinite(observed.points).all((-1, -2))
        weight = confidence_weight(observed.confidence) * seen[..., None]
        targets = torch.nan_to_num(observed.points)
        side = torch.nan_to_num(observed.windows[..., 2] - observed.windows[..., 0], nan=CROP_PIXELS)
        scale = CROP_PIXELS / side
        precision = precision_of(observed.covariance * scale[..., None, None, None] ** 2)
        state = start_from_landmarks(small, targets, weight, cameras) if start is None else start
        offsets, kernel = torch.zeros_like(targets), landmark_kernel(context.config)
        energy = LandmarkEnergy(
            small, cameras, targets, weight, offsets, scale, state, precision, l2=context.config.l2, kernel=kernel
        )
        run = _Run(context, frames, observed, cameras, energy, state, scale, weight)
        run.total = (sum(stage.renders for stage in context.config.stages) + 1) * int(seen.sum())
        return run

    @property
    def reader(self) -> RenderReader:
        return RenderReader(self.context.render, self.context.landmark_network, self.cameras, self.observed.windows)

    @property
    def deep(self) -> bool:
        return self.context.config.jacobian == "deep"

    def report_progress(self, name: str, count: int) -> None:
        self.done += count
        self.context.progress(name, self.done, self.total)

    def render_landmarks(self, name: str, readings: int) -> Tensor:
        return self.reader.landmarks(self.state, readings, partial(self.report_progress, name))

    def finished(self) -> Fit:
        stages, pixels = self.context.config.stages, None
        if not self.deep and any(stage.photometric for stage in stages):
            pixels = Photometry.read(self.context, self.frames, self.observed.windows)
        for index, stage in enumerate(stages):
            usable = pixels is not None and (self.correlation is None or is_comparable(self.correlation))
            if (stage.photometric and not usable) or (stage.fallback and self.correlation is not None and usable):
                continue
            self.run_stage(stage, pixels)
            if self.context.on_stage is not None:
                found = (self.observed.points, self.energy.points(self.state), self.energy.offsets)
                result = stage_result(index, stage, self.state, *found, self.observed.confidence)
                self.context.on_stage(replace(result, frames=self.frames))
        return self.fit()

    def run_stage(self, stage: Stage, pixels: Photometry | None) -> None:
        if stage.fit_light:
            self.find_light()
        limits = limits_of(self.context.rig)
        free = free_in_stage(self.context.rig, stage)
        # Every deep step renders and reads anew, as the next render of the geometric way would.
        steps = min(stage.iterations, max(2, 2 * stage.renders)) if self.deep else stage.iterations
        for repeat in range(1 if self.deep else max(1, stage.renders)):
            if repeat < stage.renders and stage.readings:
                rendered = self.render_landmarks(stage.name, 1 if self.deep else stage.readings)
                self.energy = self.energy.with_offsets(self.state, rendered)
            if stage.reweight and self.by_landmarks is not None:
                bias = self.context.config.bias
                self.energy = reweighted(self.energy, self.state, self.by_landmarks, self.observed, bias)
            marks = replace(
                self.energy,
                base=self.state,
                weights=self.weight * stage.weights(self.context.rig.layout).to(self.weight),
                edge_weight=stage.edge_weight,
                rigid_prior=stage.rigid_prior,
                deep=self.reader.deep_points(free) if self.deep else None,
            )
            if stage.photometric and pixels is not None:
                shading = self.shading(stage, pixels)
                self.problem = Stack((shading, marks))
                self.solution = _solve(self.problem, self.problem, self.state, limits, free, steps)
                if self.correlation is None:
                    self.correlation = shading.correlation(self.solution.x)
                    if not is_comparable(self.correlation):
                        break
            else:
                self.problem = Stack((marks,))
                # A bound method: its renders belong to all frames, which cannot be solved in parts.
                whole = self.problem.__call__ if self.deep else self.problem
                self.solution = _solve(whole, self.problem, self.state, limits, free, steps)
                self.by_landmarks = self.solution
            # Rounding may leave a control a hair outside.
            self.state = self.state.retract(self.solution.x).clamped(limits)

    def shading(self, stage: Stage, pixels: Photometry) -> PhotometricEnergy:
        """The photometric term, of the views whose pixels look alike enough."""
        comparable = torch.ones_like(self.scale)
        if self.correlation is not None:
            comparable = (self.correlation >= LEAST_CORRELATION).to(self.scale)
        factor = MEASURED_UNIT * stage.photometric
        report = partial(self.report_progress, stage.name)
        energy = pixels.energy(self.state, self.context.render, stage.blur, factor * comparable, report)
        return replace(energy, kernel=Cauchy(_PIXEL_KERNEL * factor))

    def find_light(self) -> None:
        off = (self.energy.points(self.state) - self.energy.targets).norm(dim=-1).mean(-1) * self.energy.pixel_scale
        windows = self.observed.windows
        off = torch.where(torch.isfinite(windows).all(-1), off, torch.full_like(off, torch.inf))
        renderer = find_light(self.context, self.frames, self.state, windows, off)
        self.context = replace(self.context, renderer=renderer)

    def fit(self) -> Fit:
        rendered = self.render_landmarks("check", 1)
        distance = (rendered - torch.nan_to_num(self.observed.points)).norm(dim=-1)
        certain = (self.weight > 0.3) & torch.isfinite(distance)
        count = certain.sum((1, 2)).clamp_min(1)
        mean = torch.where(certain, distance, torch.zeros_like(distance)).sum((1, 2)) / count
        in_crop = torch.where(certain, distance * self.scale[..., None], torch.zeros_like(distance)).sum((1, 2))
        sigma = torch.full((len(self.state), self.state.size), torch.nan, dtype=torch.float64)
        if self.solution is not None and self.problem is not None:
            sigma = parameter_sigmas(self.solution, self.problem)
        correlation = self.correlation
        if correlation is None or not is_comparable(correlation):
            correlation = torch.full_like(self.scale, torch.nan)
        return Fit(self.state, self.context.render, rendered, mean, in_crop / count, sigma, correlation)


def _solve(
    problem: Problem, terms: Stack, state: State, limits: Limits, free: Bool[Tensor, " p"], steps: int
) -> Solution:
    """A stage's least squares, in steps from `state`."""
    low, high = state.step_bounds(limits)
    return minimise(
        problem,
        torch.zeros_like(low),
        low,
        high,
        free,
        max_iterations=steps,
        step_tolerance=1e-6,
        # Less than what the next render, or the network's noise, changes.
        cost_tolerance=1e-4,
        approach="direct",
        kernels=terms.kernels() or None,
        map_parts=map_in_threads,
    )


def start_from_landmarks(
    small: Rig, targets: Float[Tensor, "b c l 2"], weight: Float[Tensor, "b c l"], cameras: tuple[Camera, ...]
) -> State:
    """Head poses by the landmarks on the plates, of the neutral face.

    Args:
        small: the landmarks' rig (`Rig.landmark_rig`).
        targets: landmarks, plate pixels; anything where the weight is 0.
        weight: what each counts.
        cameras: C cameras in these B frames.
    """
    neutral = State.identity(1, len(small.weight_names))
    points = small.landmarks(small.vertices(neutral))[0]
    # The jaw and mouth move with the expression, which the start does not know.
    steady = torch.ones(len(points), dtype=torch.float64)
    for name in ("jaw", "mouth"):
        steady[list(small.layout.sets[name])] = 0.5
    rotation, translation, _ = rigid_start(points, targets, weight * steady, cameras)
    state = State.identity(len(rotation), len(small.weight_names))
    return replace(state, rotation=rotation, translation=translation)
