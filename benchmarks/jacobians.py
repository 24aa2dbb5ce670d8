"""`jacobians`: the landmark solve with the paper's chain (`deep`), the rig's own points (`geometric`), and the default.

A few frames of the shot with known answers, by the left camera, the right one and both. `deep` and `geometric` solve
the landmark stages alone, with the same readings and plain squares, so that nothing but the Jacobian differs; `auto` is
the whole default schedule, frame by frame. Whole shots by `auto`: `truth`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.links import pose_and_shape_errors, state_of
from benchmarks.metrics import Metric, Outcome
from benchmarks.truth import VARIANTS, TruthShot
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.frames import fit_frames
from deepenergy.landmarks.observe import observe
from deepenergy.scene.rotation import rotation_angle
from deepenergy.scene.state import State
from deepenergy.scene.views import Views
from deepenergy.solver import Solver

# A view takes `deep` half a minute.
EVERY = 24


def run(shot: Path | None = None, every: int = EVERY) -> Outcome:
    """Solve every `every`th frame three ways, for every variant of `truth`."""
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"jacobians": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded, solver, outcome = TruthShot.load(folder), Solver(), Outcome()
    rows = torch.arange(every // 2, len(loaded.truth.frames), every)
    for variant, names in VARIANTS.items():
        outcome.extend(_solve(loaded, solver, rows, variant, names))
    return outcome


def _solve(shot: TruthShot, solver: Solver, rows: Tensor, variant: str, names: tuple[str, ...]) -> Outcome:
    cameras = [shot.camera(name) for name in names]
    views = Views.match([shot.plates(name, None) for name in names], cameras)
    truth = state_of(shot)[rows]
    numbers = [int(frame) for frame in shot.truth.frames]

    # Detection needs neighbours in time, so all frames are looked at.
    observed = observe(views, numbers, solver.detector, solver.network)[rows]

    landmarks = tuple(s for s in solver.config.stages if not s.photometric and not s.fallback)
    plain = replace(solver.config, kernel="none", stages=landmarks)
    outcome, found = Outcome(), {}
    for name, config in (
        ("deep", replace(plain, jacobian="deep")),
        ("geometric", replace(plain, jacobian="geometric")),
        ("auto", solver.config),
    ):
        context = FitContext(views, shot.rig, config, network=solver.network).rendering()
        begin = time.perf_counter()
        fit = fit_frames(context, [numbers[row] for row in rows.tolist()], observed)
        seconds = (time.perf_counter() - begin) / len(rows)
        found[name] = fit.state
        prefix = f"jacobians.{variant}.{name}"
        outcome.metrics += pose_and_shape_errors(prefix, shot, truth, fit.state, cameras[0], len(rows))
        residual = {"residual_crop_px": round(float(fit.residual_crop.median()), 3)}
        outcome.metrics.append(Metric(f"{prefix}.seconds_per_frame", seconds, "s", "lower", residual))
        outcome.compared.append(prefix)
    outcome.metrics += _agreement(f"jacobians.{variant}", found["deep"], found["geometric"], truth)
    return outcome


def _agreement(prefix: str, deep: State, geometric: State, truth: State) -> list[Metric]:
    """How far the two are apart, as a share of how far `geometric` is from the truth."""
    turn = rotation_angle(deep.rotation, geometric.rotation) / rotation_angle(geometric.rotation, truth.rotation)
    move = (deep.translation - geometric.translation).norm(dim=1)
    off = (geometric.translation - truth.translation).norm(dim=1)
    return [
        Metric(f"{prefix}.apart.rotation", float(turn.median()), "x", "lower", {"frames": len(truth)}),
        Metric(f"{prefix}.apart.translation", float((move / off).median()), "x", "lower", {"frames": len(truth)}),
    ]
