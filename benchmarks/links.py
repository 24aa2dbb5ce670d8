"""`links`: which link of the chain costs how much, on a shot whose answer is known.

Four solves of the same frames, each with one more link of the real chain:

    landmarks   the true landmarks in, no prior: rig, camera and solver alone
    prior       the true landmarks in, with lambda as the solver has it
    network     the network on plates and renders, but the expression held at the truth: what it costs the pose
    all         everything, as `fit_sequence` solves it (the medians of `truth`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.metrics import Metric, Outcome
from benchmarks.truth import VARIANTS, TruthShot
from deepenergy.energy import LandmarkEnergy
from deepenergy.evaluation.evaluate import face_vertices
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.frames import fit_frames
from deepenergy.fit.free_controls import free_in_stage, limits_of
from deepenergy.fit.rigid_start import rigid_start
from deepenergy.landmarks.observe import ObserveSettings, observe
from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.scene.camera import Camera
from deepenergy.scene.rotation import so3_log
from deepenergy.scene.state import State
from deepenergy.scene.views import Views
from deepenergy.settings.schedule import DEFAULT_STAGES, Stage
from deepenergy.solve import minimise
from deepenergy.solver import Solver

EVERY = 4
# Enough to keep shapes that no landmark sees where they are, far too little to pull at the others.
_NO_PRIOR = 1e-6


def run(shot: Path | None = None) -> Outcome:
    """Measure all links on every fourth frame."""
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"links": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded = TruthShot.load(folder)
    outcome = Outcome()
    solver = Solver()
    for variant, names in VARIANTS.items():
        cameras = tuple(loaded.camera(name) for name in names)
        rows = torch.arange(0, len(loaded.truth.frames), EVERY)
        truth = state_of(loaded)[rows]
        states = {
            "landmarks": _from_true_landmarks(loaded, truth, cameras, _NO_PRIOR),
            "prior": _from_true_landmarks(loaded, truth, cameras, solver.config.l2),
            **_with_network(loaded, truth, names, rows, solver),
        }
        outcome.compared += [f"links.{variant}.{link}" for link in states]
        for link, state in states.items():
            outcome.metrics += pose_and_shape_errors(
                f"links.{variant}.{link}", loaded, truth, state, cameras[0], len(rows)
            )
    return outcome


def state_of(shot: TruthShot) -> State:
    """The shot's true states, all frames."""
    truth = shot.truth
    count = len(truth.frames)
    jaw = torch.zeros(count, 6) if truth.jaw is None else torch.as_tensor(truth.jaw)
    parts = (torch.as_tensor(truth.rotation), torch.as_tensor(truth.translation), jaw, torch.as_tensor(truth.weights))
    return State(*(part.double() for part in parts))


def _from_true_landmarks(shot: TruthShot, truth: State, cameras: tuple[Camera, ...], l2: float) -> State:
    """A solve from the landmarks' own start, all parameters free."""
    small = shot.rig.landmark_rig()
    world = small.landmarks(small.vertices(truth))
    targets = torch.stack([camera.project(world) for camera in cameras], 1)
    ones = torch.ones(targets.shape[:-1], dtype=torch.float64)
    neutral = small.landmarks(small.vertices(State.identity(1, truth.weights.shape[1])))[0]
    rotation, translation, _ = rigid_start(neutral, targets, ones, cameras)
    start = replace(State.identity(len(truth), truth.weights.shape[1]), rotation=rotation, translation=translation)
    scale = torch.ones(targets.shape[:2], dtype=torch.float64)
    energy = LandmarkEnergy(small, cameras, targets, ones, torch.zeros_like(targets), scale, start, l2=l2)
    low, high = start.step_bounds(limits_of(shot.rig))
    free = free_in_stage(shot.rig, DEFAULT_STAGES[-1])
    return start.retract(
        minimise(energy, torch.zeros_like(low), low, high, free, max_iterations=200, approach="direct").x
    )


def _with_network(
    shot: TruthShot, truth: State, names: Sequence[str], rows: Tensor, solver: Solver
) -> dict[str, State]:
    numbers = [int(shot.truth.frames[int(row)]) for row in rows]
    views = Views.match([shot.plates(name, None) for name in names], [shot.camera(name) for name in names])
    config = solver.config
    # Detection needs neighbours in time, so all frames are looked at.
    every = [int(frame) for frame in shot.truth.frames]
    observed = observe(views, every, solver.detector, solver.network, ObserveSettings(readings=config.readings))
    observed = observed[rows]
    renderer = Renderer(shot.rig, ambient_occlusion(shot.rig), supersample=config.supersample)

    rigid = Stage("rigid", True, True, (), DEFAULT_STAGES[-1].landmark_weights, renders=2, fit_light=True)
    held = replace(config, stages=(rigid, replace(rigid, fit_light=False, reweight=True, readings=4)))
    context = FitContext(views, shot.rig, config, network=solver.network, renderer=renderer)
    return {
        "network": fit_frames(replace(context, config=held), numbers, observed, truth).state,
        "all": fit_frames(context, numbers, observed).state,
    }


def pose_and_shape_errors(
    prefix: str, shot: TruthShot, truth: State, state: State, camera: Camera, frames: int
) -> list[Metric]:
    """Median errors of states, named `prefix.*`; per axis of the camera's."""
    to_camera = camera.world_to_camera[:3, :3].double().mT
    turn = so3_log(state.rotation @ truth.rotation.mT)
    axes = (turn @ to_camera).abs().rad2deg()
    move = (state.translation - truth.translation) @ to_camera * 1000
    rig, small = shot.rig, shot.rig.landmark_rig()
    marks = [small.landmarks(small.vertices(s)) for s in (state, truth)]
    single = [State(*(p.float() for p in (s.rotation, s.translation, s.jaw, s.weights))) for s in (state, truth)]
    skin = torch.from_numpy(face_vertices(rig))
    face = rig.vertices(single[0])[:, skin] - rig.vertices(single[1])[:, skin]
    values = {
        "rotation_deg": turn.norm(dim=1).rad2deg(),
        "pitch_deg": axes[:, 0],
        "yaw_deg": axes[:, 1],
        "roll_deg": axes[:, 2],
        "inplane_mm": move[:, :2].norm(dim=1),
        "x_mm": move[:, 0].abs(),
        "y_mm": move[:, 1].abs(),
        "depth_mm": move[:, 2].abs(),
        "translation_mm": move.norm(dim=1),
        "landmark_mm": (marks[0] - marks[1]).norm(dim=-1).mean(1) * 1000,
        "vertex_mm": face.norm(dim=-1).mean(1) * 1000,
        "landmark_px": (camera.project(marks[0]) - camera.project(marks[1])).norm(dim=-1).mean(1),
        "weights_mae": (state.weights - truth.weights).abs().mean(1),
    }
    units = {"mae": "weight"}
    context = {"shot": shot.folder.name, "frames": frames}
    return [
        Metric(f"{prefix}.{name}", float(value.median()), units.get(e := name.rsplit("_", 1)[1], e), "lower", context)
        for name, value in values.items()
    ]
