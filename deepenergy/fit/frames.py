"""Running the schedule of stages on observed frames: render, read the render with the network, solve, repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.energy import LandmarkEnergy
from deepenergy.energy.deep_jacobian import deep_landmarks
from deepenergy.energy.landmark import CROP_PIXELS, MEASURED_UNIT, DeepPoints, inverse_root, precision_of
from deepenergy.energy.noise import landmark_noise
from deepenergy.energy.stack import JointEnergy
from deepenergy.energy.uncertainty import parameter_sigma, patches
from deepenergy.fit.photometry import LEAST_CORRELATION, Photometry, PlateCrop, is_comparable
from deepenergy.fit.rigid_start import rigid_start
from deepenergy.fit.stage_result import OnStage, stage_result
from deepenergy.landmarks.network import CROP_SIZE, HeatmapNetwork
from deepenergy.landmarks.observe import Observations
from deepenergy.landmarks.readings import read_points
from deepenergy.render import Renderer
from deepenergy.render.light_fit import fit_light
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.settings.config import KERNELS, SolverConfig
from deepenergy.settings.schedule import Stage
from deepenergy.solve import Block, Cauchy, Problem, Solution, minimise
from deepenergy.solve.kernels import weighting

Progress = Callable[[str, int, int], None]
_RENDERS_AT_ONCE = 4
_LIGHT_VIEWS = 8
_LIGHT_SIZE = 128
# Standard deviations from which a pixel counts less.
_PIXEL_KERNEL = 2.0


@dataclass(frozen=True)
class Fit:
    """Solved frames.

    Attributes:
        state: B states.
        renderer: as it was at the end, with the light that was estimated.
        rendered: `[B, C, 68, 2]` the network's landmarks on the render at `state`, plate pixels.
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


def render_landmarks(
    renderer: Renderer,
    network: HeatmapNetwork,
    state: State,
    cameras: Sequence[Camera],
    windows: Float[Tensor, "b c 4"],
    progress: Callable[[int], None] = lambda done: None,
    readings: int = 1,
) -> Float[Tensor, "b c 68 2"]:
    """`N(F(x_R))`: landmarks of the network on renders, in plate pixels.

    The render is made straight in the crop's window (a cropped camera), at the network's size, so that plate and render
    are seen through the same window. NaN where there is no window.
    """
    points = torch.full((*windows.shape[:2], 68, 2), torch.nan, dtype=torch.float64, device=windows.device)
    for c, camera in enumerate(cameras):
        rows = torch.isfinite(windows[:, c]).all(1).nonzero()[:, 0]

        def read(part: Tensor, c: int = c, camera: Camera = camera) -> int:
            vertices = renderer.rig.vertices(_for_render(state[part], renderer))

            def image_in(windows: Tensor) -> Tensor:
                return renderer(vertices, camera.crop(windows, CROP_SIZE)).image

            with torch.no_grad():
                points[part, c] = read_points(network, image_in, windows[part, c], readings).to(windows)
            return len(part)

        for count in map_in_threads(read, rows.split(_RENDERS_AT_ONCE)):
            progress(count)
    return points


def fit_frames(
    observed: Observations,
    rig: Rig,
    cameras: Sequence[Camera],
    renderer: Renderer,
    network: HeatmapNetwork,
    config: SolverConfig,
    progress: Progress,
    start: State | None = None,
    plate_crop: PlateCrop | None = None,
    on_stage: OnStage | None = None,
) -> Fit:
    """Solve frames that have landmarks in one camera or more, all at once.

    Args:
        observed: landmarks on the plates of B frames.
        start: where to start; poses from the landmarks and the neutral face when None.
        plate_crop: gives a plate's window at a size, for light and pixels; landmarks alone are used when None.
        on_stage: called after every stage, without frame numbers.
    """
    cameras = tuple(cameras)
    small = rig.landmark_rig()
    seen = torch.isfinite(observed.points).all((-1, -2))
    trust = _trust(observed.confidence) * seen[..., None]
    targets = torch.nan_to_num(observed.points)
    windows = observed.windows
    side = torch.nan_to_num(windows[..., 2] - windows[..., 0], nan=CROP_PIXELS)
    scale = CROP_PIXELS / side
    precision = precision_of(observed.covariance * scale[..., None, None, None] ** 2)
    state = _start(small, targets, trust, cameras) if start is None else start
    energy = LandmarkEnergy(
        small, cameras, targets, trust, torch.zeros_like(targets), scale, state, precision, l2=config.l2
    )
    stages, deep = config.stages, config.jacobian == "deep"
    total = sum(stage.renders for stage in stages) + 1
    frames, done = int(seen.sum()), 0

    def look(at: State, name: str, readings: int) -> Tensor:
        return render_landmarks(renderer, network, at, cameras, windows, partial(tell, name), readings)

    def tell(name: str, count: int) -> None:
        nonlocal done
        done += count
        progress(name, done, total * frames)

    limits = bounds(rig)
    solution: Solution | None = None
    by_landmarks: Solution | None = None
    pixels = None
    if plate_crop is not None and not deep and any(stage.photometric for stage in stages):
        pixels = Photometry.read(renderer, cameras, windows, plate_crop)
    correlation: Tensor | None = None
    kernels: list[Block] = []
    neutral = small.landmarks(small.neutral[None].double())[0]
    points, edges = neutral[:0], False
    for index, stage in enumerate(stages):
        usable = pixels is not None and (correlation is None or is_comparable(correlation))
        if (stage.photometric and not usable) or (stage.fallback and correlation is not None and usable):
            continue
        if stage.fit_light and plate_crop is not None:
            renderer = _lit(renderer, state, energy, cameras, windows, plate_crop)
        free = free_parameters(rig, stage)
        # Every deep step renders and reads anew, as the next look of the geometric way would.
        steps = min(stage.iterations, max(2, 2 * stage.renders)) if deep else stage.iterations
        for repeat in range(1 if deep else max(1, stage.renders)):
            if repeat < stage.renders and stage.readings:
                energy = energy.with_offsets(state, look(state, stage.name, 1 if deep else stage.readings))
            if stage.reweight and by_landmarks is not None:
                energy = _reweighted(energy, state, by_landmarks, targets, observed.covariance, seen, config.bias)
            here = replace(
                energy,
                base=state,
                weights=trust * stage.weights().to(trust),
                edge_weight=stage.edge_weight,
                rigid_prior=stage.rigid_prior,
            )
            if stage.photometric and pixels is not None:
                shares = torch.ones_like(scale) if correlation is None else (correlation >= LEAST_CORRELATION).to(scale)
                factor = MEASURED_UNIT * stage.photometric
                shading = pixels.energy(state, renderer, stage.blur, factor * shares, partial(tell, stage.name))
                count = shading.reference[0].numel()
                kernels = [Block(slice(0, count), Cauchy(_PIXEL_KERNEL * factor))]
                kernels += _kernels(config, slice(count, count + targets[0].numel()))
                solution = _solve(JointEnergy((shading, here)), state, limits, free, steps, kernels)
                points, edges = shading.points.neutral, bool(stage.edge_weight)
                if correlation is None:
                    correlation = shading.correlation(solution.x)
                    if not is_comparable(correlation):
                        break
            else:
                if deep:
                    here = replace(here, deep=_deep_points(renderer, network, cameras, windows, free))
                kernels = _kernels(config, slice(0, targets[0].numel()))
                # A bound method: its renders belong to all frames, which cannot be solved in parts.
                solution = by_landmarks = _solve(here.__call__ if deep else here, state, limits, free, steps, kernels)
                points, edges = neutral[:0], bool(stage.edge_weight)
            state = _moved(state, solution, limits)
        if on_stage is not None:
            found = (observed.points, energy.points(state), energy.offsets, observed.confidence)
            on_stage(stage_result(index, stage, state, *found))
    rendered = look(state, "check", 1)
    distance = (rendered - targets).norm(dim=-1)
    certain = (trust > 0.3) & torch.isfinite(distance)
    mean = torch.where(certain, distance, torch.zeros_like(distance)).sum((1, 2)) / certain.sum((1, 2)).clamp_min(1)
    in_crop = torch.where(certain, distance * scale[..., None], torch.zeros_like(distance)).sum((1, 2))
    sigma = torch.full((len(state), 12 + state.weights.shape[1]), torch.nan, dtype=torch.float64)
    if solution is not None:
        sigma = _sigma(solution, kernels, points, neutral, len(cameras), edges)
    if correlation is None or not is_comparable(correlation):
        correlation = torch.full_like(scale, torch.nan)
    return Fit(state, renderer, rendered, mean, in_crop / certain.sum((1, 2)).clamp_min(1), sigma, correlation)


def _solve(
    problem: Problem,
    state: State,
    limits: tuple[Tensor, Tensor],
    free: Bool[Tensor, " p"],
    steps: int,
    kernels: list[Block],
) -> Solution:
    """A stage's least squares, in steps from `state`."""
    base = torch.cat([state.jaw, state.weights], 1)
    room = torch.full_like(base[:, :6], torch.inf)
    low, high = torch.cat([-room, limits[0] - base], 1), torch.cat([room, limits[1] - base], 1)
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
        kernels=kernels or None,
        map_parts=map_in_threads,
    )


def _moved(state: State, solution: Solution, limits: tuple[Tensor, Tensor]) -> State:
    state = state.retract(solution.x)
    # Rounding may leave a control a hair outside.
    inside = torch.cat([state.jaw, state.weights], 1).clamp(*limits)
    return replace(state, jaw=inside[:, :6], weights=inside[:, 6:])


def _deep_points(
    renderer: Renderer,
    network: HeatmapNetwork,
    cameras: tuple[Camera, ...],
    windows: Float[Tensor, "b c 4"],
    free: Bool[Tensor, " p"],
) -> DeepPoints:
    """The network's points on the render and their derivative, as the energy wants them."""

    def points(base: State, step: Tensor) -> tuple[Tensor, Tensor]:
        return deep_landmarks(renderer, network, base, step, cameras, windows, free)

    return points


def _kernels(config: SolverConfig, rows: slice) -> list[Block]:
    """The robust kernel on each landmark's two rows; none for plain squares."""
    kernel = KERNELS[config.kernel]
    return [] if kernel is None else [Block(rows, kernel(MEASURED_UNIT * config.kernel_scale), 2)]


def _sigma(
    solution: Solution,
    kernels: list[Block],
    points: Float[Tensor, "m 3"],
    landmarks: Float[Tensor, "68 3"],
    cameras: int,
    edges: bool,
) -> Float[Tensor, "b p"]:
    """Standard deviations by the last solve, whose rows are pixels, landmarks, edges and priors."""
    rows = solution.residual.shape[1]
    cell = patches(torch.cat([points, landmarks]))
    marks = cell[len(points) :].repeat_interleave(2)
    parts = [cell[: len(points)].repeat(cameras), marks.repeat(cameras)]
    if edges:
        parts.append(marks[:-2].repeat(cameras))
    known = torch.cat(parts)
    patch = torch.cat([known, known.new_full((rows - len(known),), -1)])
    roots = weighting(kernels, rows, patch.device)(solution.residual)[1]
    return parameter_sigma(
        solution, torch.ones_like(solution.residual) if roots is None else roots, patch, MEASURED_UNIT
    )


def _reweighted(
    energy: LandmarkEnergy,
    state: State,
    solution: Solution,
    targets: Float[Tensor, "b c 68 2"],
    covariance: Float[Tensor, "b c 68 2 2"],
    seen: Bool[Tensor, "b c"],
    bias: bool,
) -> LandmarkEnergy:
    """The energy with the noise, and the bias if asked for, that the solved frames show."""
    scale = energy.pixel_scale[..., None, None]
    residual = (targets - energy.points(state) - energy.offsets) * scale
    rows = targets[0].numel()
    free = solution.free.to(solution.jacobian)[:, None, :]
    basis = torch.linalg.qr(solution.jacobian * free + 0.0).Q[:, :rows]
    followed = basis.square().sum(2).view(*targets.shape).mean(-1)
    anchors = None
    if bias:
        # Near neutral, where the expression cannot take up the bias.
        moved = state.weights.square().sum(1)
        anchors = moved <= moved.quantile(0.3)
    noise = landmark_noise(residual, seen, covariance * scale[..., None] ** 2, followed, anchors)
    return replace(
        energy, precision=MEASURED_UNIT * inverse_root(noise.covariance), targets=targets - noise.bias / scale
    )


def _lit(
    renderer: Renderer,
    state: State,
    energy: LandmarkEnergy,
    cameras: tuple[Camera, ...],
    windows: Float[Tensor, "b c 4"],
    plate_crop: PlateCrop,
) -> Renderer:
    """The renderer under the light of the views that fit best, spread over the shot."""
    off = (energy.points(state) - energy.targets).norm(dim=-1).mean(-1) * energy.pixel_scale
    off = torch.where(torch.isfinite(windows).all(-1), off, torch.full_like(off, torch.inf))
    vertices, views, images = [], [], []
    for part in torch.arange(len(state)).tensor_split(_LIGHT_VIEWS):
        if len(part) == 0 or not bool(torch.isfinite(off[part]).any()):
            continue
        best = int(off[part].argmin())
        b, c = int(part[best // len(cameras)]), best % len(cameras)
        image = plate_crop(b, c, windows[b, c], _LIGHT_SIZE)
        if image is not None:
            vertices.append(renderer.rig.vertices(_for_render(state[[b]], renderer)))
            views.append(cameras[c].crop(windows[b, c], _LIGHT_SIZE))
            images.append(image)
    if not images:
        return renderer
    return replace(renderer, light=fit_light(renderer, torch.cat(vertices), views, torch.stack(images)))


def bounds(rig: Rig) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Bounds of (jaw 6, weights K), float64; a rig without the jaw joint has its six at zero."""
    weights = rig.weight_bounds
    assert weights is not None
    six = torch.zeros(6)
    low, high = (six, six) if rig.jaw is None else (rig.jaw.lower, rig.jaw.upper)
    return torch.cat([low, weights[:, 0]]).double(), torch.cat([high, weights[:, 1]]).double()


def free_parameters(rig: Rig, stage: Stage) -> Bool[Tensor, " p"]:
    """Which of (rotation 3, translation 3, jaw 6, weights K) a stage may move."""
    free = torch.zeros(12 + len(rig.weight_names), dtype=torch.bool)
    free[0:3] = stage.rotation
    free[3:6] = stage.translation
    if rig.jaw is not None:
        free[6] = "jaw_open" in stage.groups
        if "jaw" in stage.groups:
            free[6:12] = True
    groups = rig.groups
    for group in stage.groups:
        free[[12 + i for i in groups.get(group, ())]] = True
    return free


def _start(small: Rig, targets: Tensor, trust: Tensor, cameras: tuple[Camera, ...]) -> State:
    neutral = State.identity(1, len(small.weight_names))
    points = small.landmarks(small.vertices(neutral))[0]
    # The jaw and mouth move with the expression, which the start does not know.
    steady = torch.ones(68, dtype=torch.float64)
    steady[0:17], steady[48:68] = 0.5, 0.5
    rotation, translation, _ = rigid_start(points, targets, trust * steady, cameras)
    state = State.identity(len(rotation), len(small.weight_names))
    return replace(state, rotation=rotation, translation=translation)


def _trust(confidence: Tensor) -> Tensor:
    """Row weights from the network's confidence: full from 0.5 upwards, never quite nothing."""
    return (confidence / 0.5).clamp(0.05, 1.0)


def _for_render(state: State, renderer: Renderer) -> State:
    parts = (state.rotation, state.translation, state.jaw, state.weights)
    return State(*(part.to(renderer.rig.neutral) for part in parts))
